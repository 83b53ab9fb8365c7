"""The claim ledger: every equation, table and figure of the paper, and what became of it in the notebooks here.

Nothing is typed but the claims and the rules: numbers come out of what the committed notebooks recorded, and the
verdict follows from them by `verdict`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from vgmr.batch import records

VERDICTS = ("held", "did not hold", "undecided", "not attempted")
INTERVAL = re.compile(r"([+-]?\d+\.\d+) \[([+-]?\d+\.\d+), ([+-]?\d+\.\d+)\]")


@dataclass(frozen=True)
class Claim:
    """One row of the ledger.

    Attributes:
        item: number in the paper, such as "Table 3", or its section.
        text: what the paper says, in our words.
        notebook: number of the one that tests it; empty if none does.
        keys: regular expression; the recorded values whose "record name: key" it finds are the evidence.
        rule: "above" or "below", for a number with its 95% interval, or "true", for a yes or no.
        than: what the number must lie above or below: zero for a difference, 1/2 for an area under a ROC curve.
        where: the function in `vgmr` that computes it.
        reason: why it was not attempted.
    """

    item: str
    text: str
    notebook: str = ""
    keys: str = ""
    rule: str = "above"
    than: float = 0.0
    where: str = ""
    reason: str = ""


def decide(value: Any, rule: str, than: float = 0.0) -> str:
    """What one recorded value says: held, did not hold or undecided.

    A number holds where its whole interval lies on the claimed side of `than`, and does not hold where it lies on
    the other; an interval that contains it decides nothing.

    Raises:
        ValueError: a value that the rule cannot read.
    """
    if rule == "true":
        if not isinstance(value, bool):
            raise ValueError(f"expected true or false, got {value!r}")
        return "held" if value else "did not hold"
    found = INTERVAL.search(str(value))
    if found is None:
        raise ValueError(
            f"expected a difference with its interval, such as '+0.010 [+0.002, +0.018]', got {value!r}"
        )
    _, low, high = (float(number) - than for number in found.groups())
    if rule == "below":
        low, high = -high, -low
    return "held" if low > 0 else "did not hold" if high < 0 else "undecided"


def verdict(values: Sequence[Any], rule: str, than: float = 0.0) -> str:
    """What all evidence of a claim says together: held if it held everywhere, did not hold if it held nowhere and
    failed somewhere, else undecided; without evidence, not attempted.
    """
    single = [decide(value, rule, than) for value in values]
    if not single:
        return "not attempted"
    if set(single) == {"held"}:
        return "held"
    return "did not hold" if "did not hold" in single and "held" not in single else "undecided"


def evidence(claim: Claim, recorded: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The recorded values that a claim rests on, by "record name: key".

    Raises:
        ValueError: the claim names a notebook in which nothing fits its keys.
    """
    if not claim.notebook:
        return {}
    flat = {f"{name}: {key}": value for name, values in recorded.items() for key, value in values.items()}
    found = {key: value for key, value in flat.items() if re.search(claim.keys, key)}
    if not found:
        raise ValueError(
            f"{claim.item}, {claim.text!r}: notebook {claim.notebook} records nothing like {claim.keys!r}; "
            f"it records: {'; '.join(flat) or 'nothing'}"
        )
    return found


def ledger(claims: Sequence[Claim], folder: Path = Path(".")) -> pd.DataFrame:
    """One row per claim: item, claim, verdict, evidence, held (of how many), notebook, where.

    Args:
        claims: rows, in order.
        folder: of the executed notebooks.

    Raises:
        FileNotFoundError: a notebook that a claim names is not in `folder`.
    """
    recorded: dict[str, dict[str, dict[str, Any]]] = {}
    rows = []
    for claim in claims:
        if claim.notebook and claim.notebook not in recorded:
            paths = sorted(folder.glob(f"{claim.notebook}_*.ipynb"))
            if not paths:
                raise FileNotFoundError(f"no notebook {claim.notebook} in {folder.resolve()}")
            recorded[claim.notebook] = records(paths[0])
        found = evidence(claim, recorded.get(claim.notebook, {}))
        held = sum(decide(value, claim.rule, claim.than) == "held" for value in found.values())
        rows.append(
            {
                "item": claim.item,
                "claim": claim.text,
                "verdict": verdict(list(found.values()), claim.rule, claim.than),
                "held": f"{held} of {len(found)}" if found else "",
                "evidence": "; ".join(f"{key.partition(': ')[2]}: {value}" for key, value in found.items())
                or claim.reason,
                "notebook": claim.notebook,
                "where": claim.where,
            }
        )
    return pd.DataFrame(rows)


def counts(table: pd.DataFrame) -> dict[str, int]:
    """Number of claims by verdict, in the order of `VERDICTS`."""
    return {name: int((table["verdict"] == name).sum()) for name in VERDICTS}


ITEMS = {
    "Table 1": "motivation: Concat, MMPareto, Concat+MLP",
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


def summary(table: pd.DataFrame) -> str:
    """The ledger as a table in Markdown, one row per numbered item: its claims by verdict."""
    equations = table["item"].str.startswith("Eq.")
    item = table["item"].where(~equations, f"Eqs. (1) to ({equations.sum()})")
    about = {**ITEMS, item[equations].iloc[0]: "the method, equation by equation"} if equations.any() else ITEMS
    lines = [f"| in the paper | about | {' | '.join(VERDICTS)} | notebooks |", "|---|---|" + "---|" * 5]
    for name, rows in table.groupby(item, sort=False):
        numbers = [str(count) if count else "" for count in counts(rows).values()]
        notebooks = ", ".join(sorted(set(rows["notebook"]) - {""}))
        lines.append(f"| {name} | {about.get(str(name), 'text')} | {' | '.join(numbers)} | {notebooks} |")
    total = [str(count) for count in counts(table).values()]
    lines.append(f"| all | | {' | '.join(total)} | |")
    return "\n".join(lines)
