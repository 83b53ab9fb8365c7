"""What a modality contributes: how much larger the loss is without it, section 3.8, and other readings."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from vgmr.classifier import Classifier
from vgmr.data.types import Batch
from vgmr.fusion.base import Backbone, evaluating

TASKS = ("classification", "regression")


def sample_loss(logits: Tensor, label: Tensor, task: str = "classification") -> Tensor:
    """Loss of each sample, (B,): cross-entropy in nats, or the absolute error in units of the label.

    Args:
        logits: (B, classes), or (B, 1) in regression.
        label: (B,) int64, or floating point in regression.
        task: one of `TASKS`.
    """
    if task == "regression":
        if logits.shape != (len(label), 1):  # else a subtraction spreads rows over columns
            raise ValueError(f"regression: expected outputs ({len(label)}, 1), got {tuple(logits.shape)}")
        return (logits.squeeze(1) - label).abs()
    return F.cross_entropy(logits, label, reduction="none")


@torch.no_grad()
def contributions(
    backbone: Backbone,
    encodings: Mapping[str, Tensor],
    label: Tensor,
    mask: Mapping[str, Tensor] | None = None,
    task: str = "classification",
) -> dict[str, Tensor]:
    """Loss increase by leaving each modality out: delta_m = loss(without m) - loss(full), section 3.8.

    Takes the encodings of the full pass, since modalities meet in `fuse` alone; in training mode both losses share
    the pass's dropout, and dropout within `fuse` is off.

    Args:
        encodings: name -> (B, width), or what else the backbone's `encode` gives.
        label: (B,) int64, or floating point in regression.
        mask: name -> (B, T_m) bool, for backbones whose modalities meet as sequences.
        task: one of `TASKS`.

    Returns name -> (B,), in nats (regression: units of the label); positive where the modality helped.
    """
    names = list(encodings)
    keeps = [names, *([other for other in names if other != name] for name in names)]
    with evaluating(backbone):
        answers = backbone.fuse_many({name: x.detach() for name, x in encodings.items()}, keeps, mask)
    full, *without = (sample_loss(logits, label, task) for logits in answers)
    return {name: loss - full for name, loss in zip(names, without, strict=True)}


@torch.no_grad()
def contributions_before_refiner(
    model: Classifier, batch: Batch, task: str = "classification"
) -> dict[str, Tensor]:
    """Like `contributions`, but X_m is zero before the refiner: one more full pass per modality."""
    with evaluating(model):
        full = sample_loss(model(batch.features, batch.mask).logits, batch.label, task)
        result = {}
        for name, x in batch.features.items():
            without = {**batch.features, name: torch.zeros_like(x)}
            logits = model(without, batch.mask, keep=set(batch.features) - {name}).logits
            result[name] = sample_loss(logits, batch.label, task) - full
    return result


@torch.no_grad()
def contributions_by_swap(
    backbone: Backbone,
    encodings: Mapping[str, Tensor],
    label: Tensor,
    mask: Mapping[str, Tensor] | None = None,
    task: str = "classification",
) -> dict[str, Tensor]:
    """Like `contributions`, but m's encoding is that of the batch's next sample instead of absent.

    Stays on the encodings that the head knows. For backbones whose encodings are one vector per sample, or whose
    steps are all real.

    Raises:
        ValueError: sequences with masks, which would be those of the sample before.
    """
    if mask is not None and any(x.ndim > 2 for x in encodings.values()):
        raise ValueError(
            f"swapped encodings must be one vector per sample, and {type(backbone).__name__} has sequences with "
            "padding; take the target 'contribution'"
        )
    with evaluating(backbone):
        full = sample_loss(backbone.fuse(encodings, None, mask), label, task)
        result = {}
        for name, encoding in encodings.items():
            swapped = {**encodings, name: encoding.roll(1, 0)}
            result[name] = sample_loss(backbone.fuse(swapped, None, mask), label, task) - full
    return result


def contributions_out_of_fold(posterior: Mapping[str, Tensor], label: Tensor) -> dict[str, Tensor]:
    """What each modality's posterior adds to the product of all, in nats: (B, C) by name -> (B,) by name.

    The posteriors come from anchors that did not see the sample, so that harmful ones occur in training as well.
    """
    logs = {name: one.clamp_min(1e-6).log() for name, one in posterior.items()}
    total = torch.stack(list(logs.values())).sum(0)
    full = F.cross_entropy(total, label, reduction="none")
    return {name: F.cross_entropy(total - log, label, reduction="none") - full for name, log in logs.items()}
