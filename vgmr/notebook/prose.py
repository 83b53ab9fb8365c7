"""Sentences that are written from numbers: what a data set is, what a comparison says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from vgmr.data.types import MultimodalData
from vgmr.statistics.verdicts import verdict

LOWER_IS_BETTER = {"mae": (1, "units of the label", 3)}  # with scale, unit and digits in a sentence
POINTS = (100, "points", 1)  # the same of other metrics


def about(data: MultimodalData, folds: int = 0) -> str:
    """What was loaded, as a list in Markdown: samples, modalities, labels, split, groups, source, licence.

    Args:
        folds: how many folds are tested in turn; `data` is the first of them then.
    """
    sizes = {name: len(part) for name, part in data.parts.items()}
    lines = [f"**{data.name}**: {sum(sizes.values()):,} samples" + (", **made data**" if data.stand_in else "")]
    for name, width in data.dims.items():
        steps = [int(n) for part in data.parts.values() for n in part.lengths()[name]]
        least, most = min(steps), max(steps)
        shown = f"{most} time steps" if least == most else f"{least} to {most} time steps"
        shown = shown if most > 1 else "a single vector"
        lines.append(f"`{name}`: {width} channels, {shown}")
    if data.classes:
        some = ", ".join(data.classes[:6]) + (", ..." if len(data.classes) > 6 else "")
        lines.append(f"labels: {len(data.classes)} classes ({some})")
    else:
        values = data.train.label
        lines.append(f"labels: scores from {float(values.min()):.1f} to {float(values.max()):.1f} (regression)")
    split = ", ".join(f"{size:,} {name}" for name, size in sizes.items())
    if folds:
        lines.append(f"split: {folds} folds, each tested once; the first one has {split}")
    else:
        lines.append(f"split: {data.notes.get('split', 'drawn' if data.stand_in else 'as published')}; {split}")
    if data.train.group is not None:
        groups = {name: set(part.group.tolist()) for name, part in data.parts.items() if part.group is not None}
        shared = groups["train"] & groups["test"]
        counted = len(set().union(*groups.values()))
        apart = "no group is in two parts" if not shared else f"{len(shared)} are in training and in test"
        lines.append(f"groups (people or videos): {counted}, {apart}")
    lines += [f"note: {data.notes[name]}" for name in ("warning", "partial") if name in data.notes]
    return "\n".join(f"- {line}" for line in [*lines, f"source: {data.source}", f"licence: {data.licence}"])


def gains(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """A table of `vgmr.comparison` turned, where lower is better, so that a difference above zero is a gain."""
    if metric not in LOWER_IS_BETTER:
        return table
    turned = {"difference": -table["difference"], "low": -table["high"], "high": -table["low"]}
    return table.assign(**turned)


def sentence(row: Mapping[Any, Any], metric: str = "accuracy") -> str:
    """What one row of `gains` says: how far, which side, whether that is decided, what could have been seen."""
    if not any(float(row[name]) for name in ("difference", "low", "high")):
        who = f"**{row['label']}** and {row['against']}"
        if float(row.get("mean", 0)) == 1:
            return f"{who} answer everything right: no difference could be seen."
        return f"{who} score the same in every training: no difference was seen."
    scale, unit, digits = LOWER_IS_BETTER.get(metric, POINTS)
    difference, low, high = (scale * float(row[name]) for name in ("difference", "low", "high"))
    side = f"{abs(difference):.{digits}f} {unit} {'better' if difference > 0 else 'worse'} than"
    if not round(abs(difference), digits):
        side = f"within {0.5 / 10**digits:.{digits + 1}f} {unit} of"
    if low == high:
        nothing = "the same in every training: nothing varied, so there is no interval"
        return f"**{row['label']}** scores {side} {row['against']}, {nothing}."
    said = {
        "held": "so it is better",
        "contradicted": "so it is worse",
        "undecided": "so this study cannot say which of the two is better",
    }[verdict(difference, low, high)]
    seen = f"{scale * float(row['smallest_effect']):.{digits}f} {unit}"
    interval = f"95% interval {low:+.{digits}f} to {high:+.{digits}f}"
    return (
        f"**{row['label']}** scores {side} {row['against']} ({interval}), "
        f"{said}; a difference of {seen} would have been found in four of five such studies."
    )


def sentences(table: pd.DataFrame, metric: str = "accuracy") -> str:
    """A list in Markdown, one `sentence` for each row of `gains` that has a difference."""
    rows = table.dropna(subset=["difference"]).to_dict("records")
    return "\n".join(f"- {sentence(row, metric)}" for row in rows)


def answer(table: pd.DataFrame, forms: Sequence[str], metric: str = "accuracy") -> str:
    """The answer to "is VGMR better than plain?" in a few words, from rows of `gains` against plain.

    Args:
        forms: labels of VGMR's forms; other rows are named where they are decided, but for single modalities.
    """
    scale, unit, digits = LOWER_IS_BETTER.get(metric, POINTS)
    words = {"held": "better", "contradicted": "worse", "undecided": "undecided"}

    def said(row: Mapping[Any, Any]) -> tuple[str, str]:
        word = words[verdict(float(row["difference"]), float(row["low"]), float(row["high"]))]
        moved = f"{scale * float(row['difference']):+.{digits}f} {unit}"
        return word, f"{row['label']} {moved} ({word})"

    rows = table.dropna(subset=["difference"]).to_dict("records")
    own = [said(row) for row in rows if row["label"] in forms]
    found = {word for word, _ in own}
    heads = {
        "better": "a gain over plain is decided",
        "worse": "no gain over plain, and a loss is decided",
        "undecided": "no gain over plain is decided",
    }
    head = next((text for word, text in heads.items() if word in found), heads["undecided"])
    rest = [said(row) for row in rows if row["label"] not in forms and not str(row["label"]).endswith(" alone")]
    others = [text for word, text in rest if word != "undecided"]
    more = f" Of the controls: {'; '.join(others)}." if others else ""
    return f"**Is VGMR better than plain here? {head.capitalize()}**: {'; '.join(t for _, t in own)}.{more}"


def beside_linear(linear: float, table: pd.DataFrame) -> str:
    """How strong plain is, from a linear model's accuracy on the same test samples and a table of `compare`."""
    means = {str(row["label"]): float(row["mean"]) for row in table.to_dict("records")}
    plain = means["plain"]
    networks = {name: mean for name, mean in means.items() if name != "majority class"}
    best = max(networks, key=lambda name: networks[name])
    shown = f"The linear model scores {linear:.3f}, plain {plain:.3f}"
    shown += "" if best == "plain" else f", and the best network, {best}, {networks[best]:.3f}"
    bare, so = "(no interval is computed)", "so a gain over plain may only repair a weak baseline"
    if linear > networks[best]:
        weak = f"every network here scores below a linear model {bare}, {so}"
    elif linear > plain:
        weak = f"plain scores below a linear model here {bare}, {so}"
    else:
        weak = f"plain scores no lower than a linear model here {bare}"
    return f"{shown}: **{weak}.**"
