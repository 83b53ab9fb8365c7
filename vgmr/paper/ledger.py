"""The claim ledger: what the paper claims, and what became of it in the notebooks here.

Nothing is typed but the claims: numbers come, as floats, out of what the committed notebooks recorded, and the
words are those of `vgmr.statistics.verdicts`. Results of the paper's form, results of the calibrated form, and the
code against our reconstruction of the equations are three lists that are never added up: the third says nothing
of the paper.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from vgmr.comparison import BOTH_WAYS, NUMBERS, SEEDS_ONLY, pooled
from vgmr.notebook.run import given, records
from vgmr.paper.claims import CLAIMS, CODE, LISTS, Claim
from vgmr.statistics.intervals import holm
from vgmr.statistics.verdicts import VERDICTS, verdict

NOT_TESTED = "not tested"

PROVENANCE = {
    "symbols": "our copy lost its mathematics: the symbols in sentences and the bodies of all numbered equations "
    "(1) to (14), of the three unnumbered ones in sections 3.7 and 3.8 among them the objective, its weights and "
    "the contribution's formula; what stands here is a reconstruction from the sentences around them",
    "Figure 1": "the architecture's drawing is missing",
    "Figures 2 to 7": "their pictures and numbers are missing; there is only what the text says of them",
    "Table 2": "its cells are missing, but for VGMR with the Transformer on MOSEI: accuracy 0.8446, macro-F1 "
    "0.8029",
    "Table 8": "the text says that OGM-GE gains 1.01 points of accuracy, the table's cells differ by 1.03",
    "settings": "latent width, dropout, loss weights, temperature, optimiser, learning rate, batch size, epochs, "
    "Transformer size, seeds of the tables, and how features were extracted are not in our copy",
    "spread": "but for Table 4's deviations over samples, the paper states no interval, deviation or number of "
    "seeds; Figures 2 and 3 rest on three",
}


def provenance() -> str:
    """What our copy of the paper does not hold, as a list in Markdown."""
    lines = [f"- **{name}**: {text}" for name, text in PROVENANCE.items()]
    return "\n".join(["Not determined by our copy of the paper, which lost its formulas:", "", *lines])


def evidence(claim: Claim, recorded: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """What was recorded for a claim, one row per key, turned so that the claim says "above zero".

    Columns: key, difference, low, high, error, df, p, smallest_effect, counted (what the interval is over), holds
    (of a yes or no); no rows where nothing was recorded for it.

    Raises:
        ValueError: some keys of the claim were recorded and others not, or a value is no evidence.
    """
    values = recorded.get(claim.record, {})
    there = {key: values[key] for key in claim.keys if key in values}
    if len({isinstance(value, bool) for value in there.values()}) > 1:
        raise ValueError(
            f"{claim.item}, {claim.text!r}: expected numbers or yes and no, got both for {list(there)}"
        )
    if there and (missing := [key for key in claim.keys if key not in there]):
        raise ValueError(
            f"{claim.item}, {claim.text!r}: notebook {claim.notebook} recorded {len(there)} of its keys as "
            f"{claim.record!r}, but not {missing}"
        )
    rows = []
    for key, value in there.items():
        if isinstance(value, bool):
            rows.append({"key": key, "holds": value})
            continue
        if not isinstance(value, Mapping) or not set(NUMBERS[:4]) <= set(value):
            raise ValueError(f"{key}: expected true, false or difference, low, high, error, got {value!r}")
        row = {name: value.get(name, float("nan")) for name in NUMBERS}
        if claim.turned:
            row |= {"difference": -row["difference"], "low": -row["high"], "high": -row["low"]}
        rows.append({"key": key, **row, "counted": BOTH_WAYS if value.get("samples") else SEEDS_ONLY})
    return pd.DataFrame(rows, columns=["key", *NUMBERS, "counted", "holds"])


def _outcome(claim: Claim, found: pd.DataFrame) -> dict[str, Any]:
    if found.empty:
        return {"verdict": NOT_TESTED}
    if found["holds"].notna().all():
        return {"verdict": VERDICTS[0] if bool(found["holds"].all()) else VERDICTS[1], "datasets": len(found)}
    row = pooled(found.assign(label=""), ["label"]).iloc[0]
    numbers = {name: float(row[name]) for name in NUMBERS}
    word = verdict(numbers["difference"], numbers["low"], numbers["high"], claim.paper)
    counted = BOTH_WAYS if (found["counted"] == BOTH_WAYS).all() else SEEDS_ONLY
    return {"verdict": word, **numbers, "tau": float(row["tau"]), "datasets": len(found), "counted": counted}


def ledger(claims: Sequence[Claim] = CLAIMS, folder: Path = Path(".")) -> pd.DataFrame:
    """One row per claim, by list and item, pooled over data sets where there are several.

    Columns: list, item, claim, verdict, difference, low, high (above zero is what the claim says), unit, p, p_holm
    (within the claims of an item and list), paper (its effect), smallest_effect, tau, datasets (how many were
    recorded), sets (their names, unless others may have been given), counted (what the interval is over), given
    (parameters of the notebook's run that are not its defaults), by_dataset (each one's verdict, by key),
    notebook, record, keys, where, reason.

    Args:
        folder: of the executed notebooks.

    Raises:
        FileNotFoundError: a notebook that a claim names is not in `folder`.
        ValueError: evidence that is incomplete or cannot be read.
    """
    recorded: dict[str, dict[str, dict[str, Any]]] = {}
    told: dict[str, str] = {}
    rows = []
    for claim in claims:
        if claim.notebook and claim.notebook not in recorded:
            paths = sorted(folder.glob(f"{claim.notebook}_*.ipynb"))
            if not paths:
                raise FileNotFoundError(
                    f"no notebook {claim.notebook} in {folder.resolve()}; execute this one in their folder, as "
                    "vgmr run does, and papermill with --cwd notebooks"
                )
            recorded[claim.notebook] = records(paths[0])
            told[claim.notebook] = ", ".join(f"{name}={value!r}" for name, value in given(paths[0]).items())
        found = evidence(claim, recorded.get(claim.notebook, {}))
        rows.append(
            {
                **vars(claim),
                "claim": claim.text,
                **_outcome(claim, found),
                "given": told.get(claim.notebook) or None,
                "sets": ", ".join(claim.sets) if len(found) and not told.get(claim.notebook) else "",
                "by_dataset": {
                    key: _outcome(claim, one)["verdict"] for key, one in found.groupby("key", sort=False)
                },
            }
        )
    columns = ["list", "item", "claim", "verdict", "difference", "low", "high", "unit"]
    columns += ["p", "paper", "smallest_effect", "tau", "datasets", "sets", "counted", "given", "by_dataset"]
    columns += ["notebook", "record", "keys", "where", "reason"]
    table = pd.DataFrame(rows).reindex(columns=columns).astype({"datasets": "Int64"})
    order = {name: place for place, name in enumerate([*LISTS, "Abstract", *ITEMS, *SECTIONS])}
    table = table.sort_values(
        ["list", "item"], key=lambda names: names.map(order), kind="stable", ignore_index=True
    )
    return holm(table, ["list", "item"])


def counts(table: pd.DataFrame) -> pd.DataFrame:
    """Number of claims by list (rows) and verdict (columns); the lists are not added up."""
    found = pd.crosstab(table["list"], table["verdict"])
    return found.reindex(index=list(LISTS), columns=[*VERDICTS, NOT_TESTED], fill_value=0)


ITEMS = {
    "Table 1": "motivation: plain, MMPareto, parameter-matched MLP",
    "Table 2": "overall results on five data sets",
    "Table 3": "ablation of value, agreement, discrepancy",
    "Table 4": "value and gate under corruption",
    "Table 5": "early fusion",
    "Table 6": "pre-fusion mechanisms",
    "Table 7": "parameters and cost",
    "Table 8": "together with balancing methods",
    "Table 9": "removing a modality",
    "Figure 1": "architecture",
    "Figure 2": "noise ratio",
    "Figure 3": "noise weight",
    "Figure 4": "loss curves",
    "Figure 5": "gradient cosine",
    "Figure 6": "case study",
    "Figure 7": "average refinement",
    **{f"Eq. ({number})": "" for number in range(1, 15)},
}
SECTIONS = ("Section 3.7", "Section 3.8", "Section 4.11", "Section 5")
ABOUT = {"Abstract": "a plug-in for any fusion system", **ITEMS}


def survivors(table: pd.DataFrame) -> str:
    """One line of what held: after Holm's correction, beside the paper's size, and on which data sets."""
    held = table[(table["verdict"] == VERDICTS[0]) & table["difference"].notna()]
    if held.empty:
        return "None of these claims held."
    sure = held[held["p_holm"].astype(float) < 0.05]
    small = held[held["difference"].astype(float) < held["paper"].astype(float) / 2]
    sets = Counter(held["sets"].str.replace(", ", " with "))
    where = "; ".join(f"{name} ({count})" for name, count in sets.most_common())
    few = ", ".join(dict.fromkeys(table.loc[table["counted"] == SEEDS_ONLY, "item"]))
    return (
        f"Of the {len(held)} that held, {len(sure)} keep a p-value below 0.05 after Holm's correction for the "
        f"claims about the same item. Less than half as large as in the paper: {len(small)}. They "
        f"rest on: {where}. Intervals over seeds (or rounds of timing) only: {few or 'none'}."
    )


def summary(table: pd.DataFrame) -> str:
    """The ledger in Markdown: a table per list, one row per item of the paper; the code's list is one line.

    Raises:
        ValueError: a notebook ran with other parameters than its defaults.
    """
    other = table.dropna(subset=["given"])
    if len(other):
        told = f"{other.iloc[0]['notebook']} with {other.iloc[0]['given']}"
        raise ValueError(f"expected notebooks that ran at their defaults, got {told}; run it without these")
    parts, words = [], [*VERDICTS, NOT_TESTED]
    for name in LISTS:
        rows, title = table[table["list"] == name], f"**{name[0].upper()}{name[1:]}**"
        if name == CODE:
            held, tested = (rows["verdict"] == VERDICTS[0]).sum(), (rows["verdict"] != NOT_TESTED).sum()
            rest = len(rows) - tested
            line = f"{held} of {tested} parts agree with it" + (f"; {rest} are not tested yet" if rest else "")
            parts.append(f"{title} (this says nothing of the paper's results): {line}.")
            continue
        lines = [title, "", f"| in the paper | about | {' | '.join(words)} | notebooks |"]
        lines.append("|---|---|" + "---|" * (len(words) + 1))
        for item in dict.fromkeys(rows["item"]):
            own = rows[rows["item"] == item]
            cells = [str(count) if (count := int((own["verdict"] == word).sum())) else "" for word in words]
            notebooks = ", ".join(sorted(set(own["notebook"]) - {""}))
            lines.append(f"| {item} | {ABOUT.get(item, 'text')} | {' | '.join(cells)} | {notebooks} |")
        parts.append("\n".join([*lines, "", survivors(rows)]))
    return "\n\n".join(parts)
