"""Metrics counted on tensors, and what each modality is worth."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from scipy import stats
from torch import Tensor

from vgmr.inference import shapley_weights, subsets


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


def weighted_f1(counts: Tensor) -> float:
    """F1 of each class, 0 to 1, averaged with the share of its true samples: the F1 of MOSI and MOSEI tables."""
    true_positive, truth = counts.diagonal().double(), counts.sum(1).double()
    by_class = 2 * true_positive / (counts.sum(0) + truth).clamp(min=1)
    return float((by_class * truth).sum() / truth.sum())


def regression_scores(answer: Tensor, label: Tensor) -> dict[str, float]:
    """What the field reports of a signed sentiment score, from two (N,) floating point tensors.

    Returns mae (units of the label); correlation (Pearson's r, 0 where one side is constant); accuracy and
    weighted_f1 of the sign, non-negative against negative; nonzero_accuracy and nonzero_weighted_f1 of positive
    against negative without the samples whose label is 0; seven_class_accuracy (rounded, cut to -3 to 3). Shares
    lie in 0 to 1; those without any sample are NaN.

    Raises:
        ValueError: no sample, or shapes that differ.
    """
    if answer.shape != label.shape or answer.ndim != 1 or not len(label):
        raise ValueError(f"expected two equal (N,) tensors, got {tuple(answer.shape)} and {tuple(label.shape)}")
    answer, label = answer.double(), label.double()
    centred, true = answer - answer.mean(), label - label.mean()
    norm = float(centred.norm() * true.norm())
    found = {
        "mae": float((answer - label).abs().mean()),
        "correlation": float(centred @ true) / norm if norm > 1e-12 * len(label) else 0.0,
    }
    rated = label != 0
    for prefix, positive, truth in (
        ("", answer >= 0, label >= 0),
        ("nonzero_", answer[rated] > 0, label[rated] > 0),
    ):
        counts = confusion(positive.long(), truth.long(), 2)
        found[f"{prefix}accuracy"] = accuracy(counts)
        found[f"{prefix}weighted_f1"] = weighted_f1(counts)
    steps = [x.clamp(-3, 3).round() for x in (answer, label)]
    found["seven_class_accuracy"] = float((steps[0] == steps[1]).double().mean())
    return found


def scores(logits: Tensor, label: Tensor, num_classes: int) -> dict[str, float]:
    """Metrics of a part by what is learnt: accuracy and macro_f1 of classes, `regression_scores` of numbers.

    Args:
        logits: (N, num_classes), or (N, 1) in regression.
        label: (N,) int64, or floating point in regression.
        num_classes: 0 for regression.
    """
    if not num_classes:
        return regression_scores(logits.squeeze(1), label)
    counts = confusion(logits.argmax(1), label, num_classes)
    return {"accuracy": accuracy(counts), "macro_f1": macro_f1(counts)}


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


def auroc(score: Tensor, truth: Tensor) -> float:
    """Probability that a corrupted case scores higher than another, ties counting half; two (N,) tensors.

    Raises:
        ValueError: all cases are corrupted, or none; lengths that differ, or NaN among the scores.
    """
    if score.shape != truth.shape or score.isnan().any():
        seen = f"{len(score)}, {int(score.isnan().sum())} of them NaN"
        raise ValueError(f"expected a score for each of {len(truth)} cases, got {seen}")
    truth = truth.bool()
    positive = int(truth.sum())
    negative = len(truth) - positive
    if not positive or not negative:
        raise ValueError(f"expected corrupted and other cases, got {positive} and {negative}")
    ranks = torch.from_numpy(stats.rankdata(score.double().cpu().numpy()))
    total = float(ranks[truth.cpu()].sum())
    return (total - positive * (positive + 1) / 2) / (positive * negative)
