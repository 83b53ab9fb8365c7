"""Metrics counted on tensors, what each modality is worth, and statistics over paired seeds."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from vgmr.backbones import Classifier
from vgmr.balancing.agm import shapley_weights, subsets
from vgmr.data.batch import Batch


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


@torch.inference_mode()
def subset_logits(model: Classifier, part: Batch, batch_size: int = 256) -> dict[str, Tensor]:
    """Logits (N, classes) with every subset of the modalities present, in evaluation mode.

    One pass encodes the part; each subset is one more call of the fusion head, so absent modalities are removed
    behind the refiner. Keys are names joined by "+" in the order of the model's dims; "" is none of them, and
    the first that has all is what the model answers.
    """
    was_training = model.training
    model.eval()
    names = list(model.backbone.dims)
    kept: list[tuple[str, ...]] = [*reversed(subsets(names)), ()]
    logits: dict[str, list[Tensor]] = {"+".join(keep): [] for keep in kept}
    for rows in torch.arange(len(part), device=part.label.device).split(batch_size):
        batch = part.index(rows)
        output = model(batch.features, batch.mask)
        for keep in kept:
            whole = len(keep) == len(names)
            logits["+".join(keep)].append(output.logits if whole else model.backbone.fuse(output.encodings, keep))
    model.train(was_training)
    return {keep: torch.cat(pieces) for keep, pieces in logits.items()}


def shapley(value: Mapping[str, float]) -> dict[str, float]:
    """Shapley value of each modality in the game `value`, such as accuracy by subset; they sum to full minus none.

    Args:
        value: for every subset of the modalities, keyed as by `subset_logits`.

    Raises:
        ValueError: a subset is missing.
    """
    names = max(value, key=lambda keep: len(keep.split("+"))).split("+")
    keys = ["+".join(keep) for keep in subsets(names)]
    missing = [key for key in [*keys, ""] if key not in value]
    if missing:
        raise ValueError(f"expected a value for every subset of {names}, missing {missing}")
    gain = torch.tensor([value[key] - value[""] for key in keys], dtype=torch.float64)
    return dict(zip(names, (shapley_weights(names).double().T @ gain).tolist(), strict=True))


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
