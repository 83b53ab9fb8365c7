"""One pass over a whole part in evaluation mode: answers, encodings, losses, answers without modalities."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from itertools import combinations
from math import factorial
from typing import TypeVar

import torch
from torch import Tensor

from vgmr.classifier import Classifier, Output
from vgmr.data.types import Batch
from vgmr.fusion.base import evaluating
from vgmr.objective import task_loss
from vgmr.refining.inputs import is_whole

T = TypeVar("T")


@torch.no_grad()
def one_pass(
    model: Classifier,
    part: Batch,
    take: Callable[[Output, Batch], T],
    keep: Collection[str] | None = None,
    batch_size: int = 256,
) -> list[T]:
    """`take(output, batch)` for every mini-batch of a whole part, in order, in evaluation mode, without gradients.

    `keep` is as in `Classifier.forward`.

    Raises:
        TypeError, ValueError: `part` is no `Batch`; it has no samples, or `batch_size` is below 1.
    """
    if not isinstance(part, Batch):
        raise TypeError(f"expected a part of a data set, such as data.test, got {type(part).__name__}")
    if not (len(part) and is_whole(batch_size)):
        raise ValueError(f"expected samples and a batch_size of at least 1, got {len(part)} and {batch_size!r}")
    part.check_shapes()
    if not (keep is None or isinstance(keep, str)):
        keep = tuple(keep)  # an iterator would be empty after the first mini-batch
    with evaluating(model):
        batches = (part.span(start, start + batch_size) for start in range(0, len(part), batch_size))
        return [take(model(batch.features, batch.model_mask, keep), batch) for batch in batches]


def predict(model: Classifier, part: Batch, keep: Collection[str] | None = None, batch_size: int = 256) -> Tensor:
    """Logits (N, num_outputs) of a whole part in evaluation mode; `keep` as in `Classifier.forward`."""
    return torch.cat(one_pass(model, part, lambda output, _: output.logits, keep, batch_size))


def encode_all(model: Classifier, part: Batch, batch_size: int = 256) -> dict[str, Tensor]:
    """Vectors name -> (N, width) of a whole part in evaluation mode."""
    pieces = one_pass(model, part, lambda output, _: output.vectors, batch_size=batch_size)
    return {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}


def mean_loss(model: Classifier, part: Batch, batch_size: int = 256, task: str = "classification") -> float:
    """Mean `task_loss` of a whole part in evaluation mode; cross-entropy in nats for classes."""
    return float(task_loss(predict(model, part, batch_size=batch_size), part.label, task))


def subsets(names: Sequence[str]) -> list[tuple[str, ...]]:
    """All non-empty subsets, the full one last."""
    return [kept for size in range(1, len(names) + 1) for kept in combinations(names, size)]


def subset_logits(model: Classifier, part: Batch, batch_size: int = 256) -> dict[str, Tensor]:
    """Logits (N, classes) with every subset of the modalities present, in evaluation mode.

    One pass encodes the part; the subsets are one call of `fuse_many`, so absent modalities are removed behind
    the refiner. At most 2^K fusions: linear layers behind a head, attention in systems where modalities meet as
    sequences. Keys are names joined by "+" in the order of the model's dims; "" is none of them, and the first
    that has all is what the model answers.
    """
    full, *fewer = [*reversed(subsets(list(model.backbone.dims))), ()]

    def fused(output: Output, _: Batch) -> list[Tensor]:
        return [output.logits, *model.backbone.fuse_many(output.encodings, fewer, output.mask)]

    pieces = one_pass(model, part, fused, batch_size=batch_size)
    return {
        "+".join(keep): torch.cat(column)
        for keep, column in zip([full, *fewer], zip(*pieces, strict=True), strict=True)
    }


def shapley_weights(names: Sequence[str]) -> Tensor:
    """(subsets, modalities): m_m = sum over S of weights[S, m] f(S), where f of nothing is 0.

    Every row but the full set's sums to 0 and the full set's to 1, so the shares sum to f(all).
    """
    everything = subsets(names)
    count = len(names)
    weights = torch.zeros(len(everything), count)
    for row, kept in enumerate(everything):
        for column, name in enumerate(names):
            others = len(kept) - (name in kept)
            weight = factorial(others) * factorial(count - others - 1) / factorial(count)
            weights[row, column] = weight if name in kept else -weight
    return weights
