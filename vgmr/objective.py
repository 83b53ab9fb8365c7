"""The training objective of section 3.8: task loss, value supervision, regulariser."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vgmr.classifier import Classifier, Output
from vgmr.contributions import (
    TASKS,
    contributions,
    contributions_before_refiner,
    contributions_by_swap,
    contributions_out_of_fold,
    sample_loss,
)
from vgmr.data.types import Batch
from vgmr.fusion.base import check_weights
from vgmr.refining.inputs import is_weight, shown
from vgmr.refining.maps import masked_mean
from vgmr.refining.refinement import Refinement


def task_loss(logits: Tensor, label: Tensor, task: str = "classification") -> Tensor:
    """Mean of `sample_loss`, a scalar."""
    return F.cross_entropy(logits, label) if task == "classification" else sample_loss(logits, label, task).mean()


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
            # one for all steps, or each its own
            of_step = gate.mean(2, keepdim=True).expand(-1, real.shape[1], -1)
            level = masked_mean(of_step, real).squeeze(1) @ real.sum(1).to(gate.dtype) / real.sum()
        terms.append((level - 0.5) ** 2)
    return torch.stack(terms).sum() / len(refinement.gate)


TARGETS = ("contribution", "swap", "out-of-fold", "corruption")


def corruption_loss(refinement: Refinement, corrupted: Mapping[str, Tensor]) -> Tensor:
    """Cross-entropy of both values of a modality against its being whole; a scalar in nats.

    Args:
        corrupted: name -> bool, broadcastable to (B, T_m, d_m), as `Batch.corrupted`.
    """
    terms = []
    for name, where in corrupted.items():
        whole = (~where.flatten(1).any(1)).to(refinement.global_value[name].dtype)
        for value in (refinement.global_value[name], refinement.channel_value[name].mean(1)):
            value = value.to(torch.promote_types(value.dtype, torch.float32)).clamp(1e-6, 1 - 1e-6)
            terms.append(-(whole * value.log() + (1 - whole) * (1 - value).log()))
    return 2 * torch.stack(terms).mean()


@dataclass(frozen=True)
class Objective:
    """L = L_task + value_weight L_value + regulariser_weight L_reg; the task loss alone where VGMR is not used.

    In training the own terms of the backbone and of the pre-fusion module are added, where they have such.

    Attributes:
        value_weight: lambda_v.
        regulariser_weight: lambda_r.
        temperature: tau of the value target, in nats (regression: in units of the label).
        minimum_deviation: s_min of the regulariser.
        removal: "after" the refiner (the default, from cached encodings) or "before" it (a pass per modality).
        warmup_epochs: epochs before the value term has its full weight; in epoch e, from 0, it has the
            share (e + 1) / (warmup_epochs + 1).
        target: what the value is trained towards: "contribution" is the paper's, the loss without the modality
            minus the loss; "swap" the same with another sample's encoding in its place; "out-of-fold" that of
            the anchors' posteriors, for VGMR with values from "both"; "corruption" whether the modality is whole,
            for batches that know it, as those that `fit(..., corruption=...)` draws.
        task: "classification" (cross-entropy), or "regression" (absolute error of a model with one output).
        auxiliary: add the own terms of backbone and pre-fusion module.
    """

    value_weight: float = 0.1
    regulariser_weight: float = 0.01
    temperature: float = 1.0
    minimum_deviation: float = 0.1
    removal: str = "after"
    warmup_epochs: int = 0
    task: str = "classification"
    auxiliary: bool = True
    target: str = "contribution"

    def __post_init__(self) -> None:
        if self.removal not in ("after", "before"):
            raise ValueError(f"removal must be 'after' or 'before' the refiner, got {self.removal!r}")
        if self.task not in TASKS:
            raise ValueError(f"task must be one of {', '.join(TASKS)}, got {self.task!r}")
        if self.target not in TARGETS:
            raise ValueError(f"target must be one of {', '.join(TARGETS)}, got {self.target!r}")
        if not (is_weight(self.temperature) and self.temperature > 0):
            raise ValueError(f"temperature must be positive and finite, got {shown(self.temperature)}")
        weights = ("value_weight", "regulariser_weight", "minimum_deviation", "warmup_epochs")
        check_weights(**{what: getattr(self, what) for what in weights})

    def __call__(self, model: Classifier, output: Output, batch: Batch, epoch: int = 0) -> Tensor:
        """Mean loss of the batch, a scalar in nats; `epoch` counts from 0 and matters for the warm-up only."""
        loss = task_loss(output.logits, batch.label, self.task)
        if self.auxiliary and model.training:
            own = model.backbone.auxiliary_loss(output.encodings, output.mask, batch.label)
            if output.refinement.auxiliary:
                of_prefusion: Any = model.prefusion.auxiliary_loss
                own = {**own, **of_prefusion(output.refinement, batch.label)}
            loss = sum(own.values(), start=loss)
        if not output.refinement.gate:
            return loss
        warmth = min(1.0, (epoch + 1) / (self.warmup_epochs + 1))
        if self.value_weight and getattr(model.prefusion, "learns_value", True):
            loss = loss + warmth * self.value_weight * self.of_value(model, output, batch)
        if self.regulariser_weight and getattr(model.prefusion, "learns_value", True):
            penalty = regulariser(output.refinement, output.mask, self.minimum_deviation)
            loss = loss + self.regulariser_weight * penalty
        return loss

    def of_value(self, model: Classifier, output: Output, batch: Batch) -> Tensor:
        """L_value with the chosen target, a scalar.

        Raises:
            ValueError: the target asks for what model or batch do not have.
        """
        if self.target == "corruption":
            if batch.corrupted is None:
                raise ValueError(
                    'target "corruption" needs batches with known corruption; train with fit(..., corruption=...)'
                )
            return corruption_loss(output.refinement, batch.corrupted)
        if self.target == "out-of-fold":
            if not output.refinement.posterior:
                raise ValueError(
                    'target "out-of-fold" needs posteriors of anchors; build VGMR with value_from="both"'
                )
            if self.task == "regression":
                raise ValueError('target "out-of-fold" is of classes: with the task "regression" choose another')
            contribution = contributions_out_of_fold(output.refinement.posterior, batch.label)
        elif self.target == "swap":
            contribution = contributions_by_swap(
                model.backbone, output.encodings, batch.label, output.mask, self.task
            )
        elif self.removal == "after":
            contribution = contributions(model.backbone, output.encodings, batch.label, output.mask, self.task)
        else:
            contribution = contributions_before_refiner(model, batch, self.task)
        return value_loss(output.refinement, contribution, self.temperature)
