"""The training objective of section 3.8: task loss, value supervision, regulariser."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vgmr.backbones import Classifier, Output, PooledBackbone, TransformerBackbone
from vgmr.data.types import Batch
from vgmr.refiner import Refinement, masked_mean


@torch.no_grad()
def contributions(
    backbone: PooledBackbone | TransformerBackbone, encodings: Mapping[str, Tensor], label: Tensor
) -> dict[str, Tensor]:
    """Loss increase by leaving each modality out: delta_m = loss(without m) - loss(full), section 3.8.

    Takes the encodings of the full pass, since in these backbones modalities meet in `fuse` alone; in training
    mode both losses share the pass's dropout.

    Args:
        encodings: name -> (B, width).
        label: (B,) int64.

    Returns name -> (B,), in nats; positive where the modality helped.
    """
    full = F.cross_entropy(backbone.fuse(encodings), label, reduction="none")
    return {
        name: F.cross_entropy(backbone.fuse(encodings, set(encodings) - {name}), label, reduction="none") - full
        for name in encodings
    }


@torch.no_grad()
def contributions_before_refiner(model: Classifier, batch: Batch) -> dict[str, Tensor]:
    """Like `contributions`, but X_m is zero before the refiner: one more full pass per modality."""
    full = F.cross_entropy(model(batch.features, batch.mask).logits, batch.label, reduction="none")
    result = {}
    for name, x in batch.features.items():
        without = {**batch.features, name: torch.zeros_like(x)}
        logits = model(without, batch.mask, keep=set(batch.features) - {name}).logits
        result[name] = F.cross_entropy(logits, batch.label, reduction="none") - full
    return result


def value_loss(refinement: Refinement, contribution: Mapping[str, Tensor], temperature: float = 1.0) -> Tensor:
    """L_value: both values of a modality towards sigmoid(delta_m / temperature); a scalar.

    The target is 1/2 where removal changes nothing, above it where the modality helped.
    """
    terms = []
    for name, delta in contribution.items():
        target = torch.sigmoid(delta / temperature)
        terms.append((refinement.global_value[name] - target) ** 2)
        terms.append((refinement.channel_value[name].mean(1) - target) ** 2)
    return 2 * torch.stack(terms).mean()


def regulariser(
    refinement: Refinement, mask: Mapping[str, Tensor] | None = None, minimum_deviation: float = 0.1
) -> Tensor:
    """L_reg: values that vary over the batch by `minimum_deviation` at least, gates centred at 1/2; a scalar."""
    terms = []
    for name, gate in refinement.gate.items():
        for value in (refinement.global_value[name].unsqueeze(1), refinement.channel_value[name]):
            terms.append(F.relu(minimum_deviation - value.std(0, correction=0).mean()))
        if mask is None:
            level = gate.mean()
        else:
            real = mask[name]
            level = (
                masked_mean(gate.mean(2, keepdim=True), real).squeeze(1) @ real.sum(1).to(gate.dtype) / real.sum()
            )
        terms.append((level - 0.5) ** 2)
    return torch.stack(terms).sum() / len(refinement.gate)


@dataclass(frozen=True)
class Objective:
    """L = L_task + value_weight L_value + regulariser_weight L_reg; the task loss alone where VGMR is not used.

    Attributes:
        value_weight: lambda_v.
        regulariser_weight: lambda_r.
        temperature: tau of the value target, in nats.
        minimum_deviation: s_min of the regulariser.
        removal: "after" the refiner (the default, from cached encodings) or "before" it (a pass per modality).
        warmup_epochs: epochs before the value term has its full weight; in epoch e, from 0, it has the
            share (e + 1) / (warmup_epochs + 1).
    """

    value_weight: float = 0.1
    regulariser_weight: float = 0.01
    temperature: float = 1.0
    minimum_deviation: float = 0.1
    removal: str = "after"
    warmup_epochs: int = 0

    def __post_init__(self) -> None:
        if self.removal not in ("after", "before"):
            raise ValueError(f"removal must be 'after' or 'before' the refiner, got {self.removal!r}")
        if self.temperature <= 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}")

    def __call__(self, model: Classifier, output: Output, batch: Batch, epoch: int = 0) -> Tensor:
        """Mean loss of the batch, a scalar in nats; `epoch` counts from 0 and matters for the warm-up only."""
        loss = F.cross_entropy(output.logits, batch.label)
        if not output.refinement.gate:
            return loss
        warmth = min(1.0, (epoch + 1) / (self.warmup_epochs + 1))
        if self.value_weight and getattr(model.prefusion, "learns_value", True):
            if self.removal == "after":
                contribution = contributions(model.backbone, output.encodings, batch.label)
            else:
                contribution = contributions_before_refiner(model, batch)
            loss = loss + warmth * self.value_weight * value_loss(
                output.refinement, contribution, self.temperature
            )
        if self.regulariser_weight and getattr(model.prefusion, "learns_value", True):
            penalty = regulariser(output.refinement, batch.mask, self.minimum_deviation)
            loss = loss + self.regulariser_weight * penalty
        return loss
