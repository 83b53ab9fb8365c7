"""What an interval says of a claim: held, contradicted, smaller than the paper's, or undecided."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

VERDICTS = ("held", "contradicted", "smaller than the paper's", "undecided")


def verdict(difference: float, low: float, high: float, paper_effect: float | None = None) -> str:
    """What an interval says of a claim that a difference is above zero; one of `VERDICTS`.

    An interval without width, where nothing varied, decides nothing.

    Args:
        paper_effect: the paper's difference, above zero, where it states one: an interval that holds zero and ends
            below half of it is "smaller than the paper's" instead of "undecided".

    Raises:
        ValueError: numbers that are no interval around the difference, or a paper's effect not above zero.
    """
    if not low <= difference <= high:
        raise ValueError(f"expected low <= difference <= high, got {low}, {difference}, {high}")
    if paper_effect is not None and not paper_effect > 0:
        raise ValueError(f"expected a paper's effect above zero, got {paper_effect}; turn the difference round")
    if low == high:
        return "undecided"
    if low > 0:
        return "held"
    if high < 0:
        return "contradicted"
    small = paper_effect is not None and high < paper_effect / 2
    return "smaller than the paper's" if small else "undecided"


def judged(table: pd.DataFrame, paper: Mapping[str, float] | None = None, label: str = "label") -> pd.DataFrame:
    """The table with two more columns: paper (its difference, by label) and verdict; empty where no difference is.

    Args:
        paper: the paper's differences by label; those not above zero are shown, and do not enter the verdict.
    """
    paper = paper or {}
    effects = [paper.get(name, float("nan")) for name in table[label]]
    words = []
    for row, effect in zip(table[["difference", "low", "high"]].to_numpy(float), effects, strict=True):
        known = effect if effect > 0 else None
        words.append("" if np.isnan(row).any() else verdict(float(row[0]), float(row[1]), float(row[2]), known))
    return table.assign(paper=effects, verdict=words)
