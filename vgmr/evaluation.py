"""Metrics counted on tensors, and statistics over paired seeds."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from torch import Tensor


def confusion(prediction: Tensor, label: Tensor, num_classes: int) -> Tensor:
    """Counts (classes, classes): row = true class, column = predicted class, from two (N,) int64 tensors."""
    return (label * num_classes + prediction).bincount(minlength=num_classes**2).view(num_classes, num_classes)


def accuracy(counts: Tensor) -> float:
    """Share of correct answers, 0 to 1, from `confusion` counts."""
    return float(counts.diagonal().sum() / counts.sum())


def macro_f1(counts: Tensor) -> float:
    """Mean over classes of 2 TP / (2 TP + FP + FN), 0 to 1; classes neither true nor predicted are left out."""
    true_positive = counts.diagonal().double()
    denominator = (counts.sum(0) + counts.sum(1)).double()
    seen = denominator > 0
    return float((2 * true_positive[seen] / denominator[seen]).mean())


@dataclass(frozen=True)
class Difference:
    """Mean of paired differences, its 95% interval, the number of pairs."""

    mean: float
    low: float
    high: float
    count: int


def paired_difference(values: Sequence[float], baseline: Sequence[float], resamples: int = 10_000) -> Difference:
    """Bootstrap interval of the mean of `values - baseline`, paired by seed.

    The plain percentile bootstrap covers far less than 95% at five seeds, so its levels are widened as Hesterberg
    (What Teachers Should Know About the Bootstrap, The American Statistician 69, 2015) proposes: the normal
    quantile is replaced by sqrt(n / (n - 1)) times Student's. Up to six pairs all n^n resamples are taken. Below
    five pairs no bootstrap reaches 95%: the interval is the range of the differences, which covers the mean of a
    symmetric distribution in at most 1 - 2^(1 - n) of cases.

    Raises:
        ValueError: fewer than two pairs, or unequal numbers.
    """
    if len(values) != len(baseline) or len(values) < 2:
        raise ValueError(f"expected at least two pairs of values, got {len(values)} and {len(baseline)}")
    difference = np.asarray(values, float) - np.asarray(baseline, float)
    n = len(difference)
    if n <= 6:
        rows = np.array(list(itertools.product(range(n), repeat=n)))
    else:
        rows = np.random.default_rng(0).integers(n, size=(resamples, n))
    level = stats.norm.cdf(np.sqrt(n / (n - 1)) * stats.t.ppf(0.025, n - 1))
    means = difference[rows].mean(1)
    low, high = np.quantile(means, level, method="lower"), np.quantile(means, 1 - level, method="higher")
    return Difference(float(difference.mean()), float(low), float(high), n)


def auroc(score: Tensor, truth: Tensor) -> float:
    """Probability that a struck case scores higher than another, ties counting half; two (N,) tensors.

    Raises:
        ValueError: all cases are struck, or none.
    """
    truth = truth.bool()
    positive = int(truth.sum())
    negative = len(truth) - positive
    if not positive or not negative:
        raise ValueError(f"expected struck and other cases, got {positive} and {negative}")
    ranks = torch.from_numpy(stats.rankdata(score.double().cpu().numpy()))
    total = float(ranks[truth.cpu()].sum())
    return (total - positive * (positive + 1) / 2) / (positive * negative)
