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

from vgmr.experiment import BACKBONES
from vgmr.notebook.run import records

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
        rule: "above" or "below" zero, for a difference with its 95% interval, or "true", for a yes or no.
        where: the function in `vgmr` that computes it.
        reason: why it was not attempted.
    """

    item: str
    text: str
    notebook: str = ""
    keys: str = ""
    rule: str = "above"
    where: str = ""
    reason: str = ""


def decide(value: Any, rule: str) -> str:
    """What one recorded value says: held, did not hold or undecided.

    A difference holds where its whole interval lies on the claimed side of zero, and does not hold where it lies
    on the other; an interval that contains zero decides nothing.

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
    _, low, high = (float(number) for number in found.groups())
    if rule == "below":
        low, high = -high, -low
    return "held" if low > 0 else "did not hold" if high < 0 else "undecided"


def verdict(values: Sequence[Any], rule: str) -> str:
    """What all evidence of a claim says together: held if it held everywhere, did not hold if it held nowhere and
    failed somewhere, else undecided; without evidence, not attempted.
    """
    single = [decide(value, rule) for value in values]
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
        held = sum(decide(value, claim.rule) == "held" for value in found.values())
        rows.append(
            {
                "item": claim.item,
                "claim": claim.text,
                "verdict": verdict(list(found.values()), claim.rule),
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


EQUATIONS = {
    "Eq. (1)": (
        "features of any length and width go in, refined ones of the same shape come out",
        "refined features",
    ),
    "Eq. (2)": ("projection into a shared width", r"Eq\. \(2\)"),
    "Eq. (3)": ("summary of mean and maximum over real steps", r"Eq\. \(3\)"),
    "Eq. (4)": ("the other modalities", r"Eq\. \(4\)"),
    "Eq. (5)": ("their mean summary", r"Eq\. \(4\), \(5\)"),
    "Eq. (6)": ("agreement and discrepancy of each pair", r"Eq\. \(6\)"),
    "Eq. (7)": ("their collections", r"Eq\. \(6\), \(7\)"),
    "Eq. (8)": ("interaction input", r"Eq\. \(8\)"),
    "Eq. (9)": ("interaction and value state", r"Eq\. \(9\)"),
    "Eq. (10)": ("global and channel value", r"Eq\. \(10\)"),
    "Eq. (11)": ("gate", r"Eq\. \(11\)"),
    "Eq. (12)": ("amplification", r"Eq\. \(12\)"),
    "Eq. (13)": ("residual retention", r"Eq\. \(12\), \(13\)"),
}
PARTNERS = {  # the paper's data set -> notebook and the open data set it trains on
    "MOSI": ("04", "mosi-utterance"),
    "UCF101": ("06", "utd-mhad"),
    "AVE": ("07", "avdigits"),
    "CREMA-D": ("08", "cremad-ratings"),
}
FORMS = {"in the paper's form": "VGMR, paper's form", "in the form adopted here": "VGMR"}
EITHER = "VGMR(, paper's form)?"


def _overall() -> list[Claim]:
    where = "vgmr.experiment.compare"
    found = [
        Claim(
            "Table 2",
            f"{paper}, here {partner}: VGMR {form} beats Concat",
            number,
            f"pooled, {label}$",
            where=where,
        )
        for paper, (number, partner) in PARTNERS.items()
        for form, label in FORMS.items()
    ]
    reason = "MOSEI may not be passed on and has no open partner; notebook 05 trains on made data"
    found.append(Claim("Table 2", "MOSEI: VGMR beats Concat, pooled and Transformer", reason=reason))
    for number, partner in (("06", "utd-mhad"), ("07", "avdigits")):
        text = f"behind a Transformer, here on {partner}: VGMR in the form adopted here beats plain"
        found.append(Claim("Table 2", text, number, "transformer, VGMR$", where=where))
    return found


def _noise(item: str, setting: str) -> list[Claim]:
    where, lead = "vgmr.analysis.robustness", rf"{setting}, [\w-]+: area, VGMR over"
    growth = rf"{setting}, [\w-]+: growth of the lead with severity, VGMR over plain"
    return [
        Claim(item, "every model loses accuracy as noise grows", "13", f"{setting}, .*: fall of", where=where),
        Claim(item, "VGMR stays above the plain Transformer", "13", f"{lead} plain", where=where),
        Claim(item, "VGMR stays above Grad-Blending", "13", f"{lead} Grad-Blending", where=where),
        Claim(item, "the lead over plain grows with noise", "13", growth, where=where),
        Claim(
            item, "control: an MLP of equal size does not do as well", "13", rf"{lead} Concat\+MLP", where=where
        ),
    ]


def _table_3() -> list[Claim]:
    parts = {
        "global value contributes": "the global value contributes",
        "channel value contributes": "the channel value contributes",
        "value in the gate contributes": "the two values together contribute",
        "agreement contributes": "agreement contributes",
        "discrepancy contributes": "discrepancy contributes",
        "the two together contribute": "agreement and discrepancy together contribute",
        "channel value matters more than global value": "the channel value matters more than the global value",
        "discrepancy matters more than agreement": "discrepancy matters more than agreement",
    }
    return [
        Claim("Table 3", text, "11", rf"ablations: {re.escape(key)} \(", where="vgmr.studies.ablations")
        for key, text in parts.items()
    ]


def _table_4() -> list[Claim]:
    where = "vgmr.analysis.diagnostics"
    moves = {
        "global_value goes up": ("above", "the global value goes up"),
        "channel_value goes up": ("above", "the channel value goes up"),
        "channel_deviation goes up": ("above", "channel values spread out"),
        "gate goes down": ("below", "the gate goes down"),
    }
    return [
        Claim("Table 4", f"noise in {whose}: {text}", "14", f"Table 4, {keys}: {key}", rule, where=where)
        for whose, keys in (
            ("the text of MOSI", "mosi-utterance, .*text"),
            ("any modality of any data set", "(?!eight).*"),
        )
        for key, (rule, text) in moves.items()
    ]


CLAIMS: list[Claim] = [
    Claim("Table 1", "MMPareto beats Concat", "09", "accuracy, MMPareto$", where="vgmr.balancing.MMPareto"),
    Claim(
        "Table 1", "Concat+MLP beats Concat", "09", r"accuracy, Concat\+MLP$", where="vgmr.prefusion.FeatureMLP"
    ),
    *_overall(),
    *_table_3(),
    *_table_4(),
    *(
        Claim(item, f"VGMR beats {text}", "09", f": {EITHER} above {keys}, accuracy$", where="vgmr.studies.leads")
        for item, text, keys in (
            ("Table 5", "Summation", "Summation"),
            ("Table 5", "Tensor Fusion", "Tensor Fusion"),
            ("Table 5", "Concat+MLP", r"Concat\+MLP"),
            ("Table 5", "the best early fusion", "the best early fusion"),
            ("Table 6", "Concat", "plain"),
            ("Table 6", "Cross-Attention", "Cross-Attention"),
            ("Table 6", "the Sigmoid+Tanh gate", r"Sigmoid\+Tanh.*"),
        )
    ),
    *(
        Claim("Table 7", text, "09", f": {re.escape(text)}$", "true", where="vgmr.analysis.cost")
        for text in (
            "VGMR trains faster than Grad-Blending",
            "VGMR trains faster than AGM",
            "VGMR trains slower than Concat+MLP and the gate",
            "VGMR infers slower than Concat+MLP and the gate",
        )
    ),
    *(
        Claim(
            "Table 8", f"{name} gains by VGMR in front", "10", f"VGMR in front of {key}$", where="vgmr.balancing"
        )
        for name, key in (("OGM-GE", "ogm-ge"), ("ARL", "arl"))
    ),
    Claim(
        "Table 9",
        "every method loses most without the dominant modality",
        "12",
        r": \(a\) ",
        where="vgmr.inference.subset_logits",
    ),
    Claim(
        "Table 9",
        "balancing methods gain where a weak modality is removed",
        "12",
        r": \(b\) ",
        where="vgmr.inference.subset_logits",
    ),
    Claim("Table 9", "VGMR loses by every removal", "12", r": \(c\) VGMR", where="vgmr.inference.subset_logits"),
    Claim(
        "Figure 1",
        "the parts work together as drawn",
        "03",
        "(logits|objective) by hand",
        "true",
        where="vgmr.refiner.VGMR",
    ),
    *_noise("Figure 2", "noise ratio"),
    *_noise("Figure 3", "noise weight"),
    Claim(
        "Figure 4",
        "VGMR's loss falls faster at first",
        "15",
        "Figure 4, early loss, VGMR",
        "below",
        where="vgmr.analysis.diagnostics",
    ),
    Claim(
        "Figure 4",
        "its validation curve is smoother later",
        "15",
        "Figure 4, late roughness, VGMR",
        "below",
        where="vgmr.analysis.diagnostics",
    ),
    Claim(
        "Figure 5",
        "plain's cosine swings between positive and negative",
        "15",
        "Figure 5, most of plain's",
        "true",
        where="vgmr.analysis.diagnostics",
    ),
    Claim(
        "Figure 5",
        "VGMR's cosine is closer to zero",
        "15",
        r"Figure 5, mean \|cosine\|, VGMR",
        "below",
        where="vgmr.analysis.diagnostics",
    ),
    Claim(
        "Figure 5",
        "VGMR's cosine is smoother",
        "15",
        "Figure 5, change, VGMR",
        "below",
        where="vgmr.analysis.diagnostics",
    ),
    Claim(
        "Figure 6",
        "in samples that only VGMR gets right, the strongest modality is suppressed least",
        "14",
        "Figure 6",
        "true",
        where="vgmr.analysis.diagnostics",
    ),
    Claim(
        "Figure 7",
        "on average, the strongest modality is suppressed less than the others",
        "14",
        "Figure 7",
        "below",
        where="vgmr.analysis.diagnostics",
    ),
    *(Claim(item, text, "03", keys, "true", where="vgmr.refiner") for item, (text, keys) in EQUATIONS.items()),
    Claim(
        "Eq. (14)",
        "the cosine of identical losses is 1, of opposite ones -1",
        "15",
        "eq. 14, cosine",
        "true",
        where="vgmr.analysis.diagnostics",
    ),
    Claim(
        "Section 3.7",
        "LayerNorm, then Dropout, of the gated features",
        "03",
        "refined features, LayerNorm",
        "true",
        where="vgmr.refiner",
    ),
    Claim(
        "Section 3.8",
        "contribution, value supervision and regulariser",
        "03",
        "(contribution|L_value|L_reg|objective) by hand",
        "true",
        where="vgmr.objective",
    ),
    Claim(
        "Section 4.11",
        "values identify the unreliable modality",
        "14",
        r"AUROC minus 1/2, .*noise, modality: global value",
        where="vgmr.analysis.diagnostics",
    ),
    Claim(
        "Section 4.11",
        "gates identify the unreliable modality",
        "14",
        r"AUROC minus 1/2, .*noise, modality: gate",
        where="vgmr.analysis.diagnostics",
    ),
]


def differences(folder: Path = Path(".")) -> pd.DataFrame:
    """Every variant's difference to plain that the quickstart and the training notebooks recorded.

    Columns: data (with the backbone, and "made" for a stand-in), label (the variant), difference, low, high.
    """
    rows = []
    for path in [*sorted(folder.glob("01_*.ipynb")), *sorted(folder.glob("0[4-8]_*.ipynb"))]:
        for name, values in records(path).items():
            data = name.removeprefix("training ").replace("quickstart", "digits")
            for key, value in values.items():
                found = INTERVAL.search(str(value))
                backbone, _, label = key.partition(", ")
                if backbone not in BACKBONES:
                    backbone, label = "pooled", key
                if found is None or label.endswith(" alone"):
                    continue
                made = ", made" if values.get("stand-in") else ""
                numbers = dict(zip(("difference", "low", "high"), map(float, found.groups()), strict=True))
                rows.append({"data": f"{data}{made}, {backbone}", "label": label, **numbers})
    return pd.DataFrame(rows)
