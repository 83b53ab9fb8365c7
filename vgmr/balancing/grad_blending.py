"""Grad-Blending: weigh joint and unimodal losses by what they generalise for what they overfit."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from vgmr.balancing.base import Loop, unimodal_losses
from vgmr.balancing.uniform import Uniform
from vgmr.classifier import Classifier, Output
from vgmr.data.types import Batch, MultimodalData, holdout
from vgmr.fusion.base import check_sizes
from vgmr.inference import mean_loss
from vgmr.refining.inputs import is_weight

JOINT = "joint loss"


def blend_weights(before: Tensor, after: Tensor, least_overfitting: float = 1e-3) -> Tensor:
    """w_k proportional to max(G_k, 0) / max(O_k^2, least_overfitting^2), summing to 1; uniform if all are 0.

    G is the fall of the validation loss and O the growth of the gap between validation and training loss.

    Args:
        before, after: (losses, 2), training and validation loss of each, sample means in nats.
    """
    train_before, validation_before = before.unbind(1)
    train_after, validation_after = after.unbind(1)
    gain = (validation_before - validation_after).clamp(min=0)
    overfitting = (validation_after - train_after) - (validation_before - train_before)
    raw = gain / overfitting.square().clamp(min=least_overfitting**2)
    return torch.where(raw.sum() > 0, raw / raw.sum().clamp(min=1e-30), torch.full_like(raw, 1 / len(raw)))


class UnimodalProbe(Classifier):
    """One modality of a model with a linear head, as a model of its own that encodes this modality only."""

    def __init__(self, model: Classifier, name: str, head: nn.Module):
        super().__init__(model.prefusion, model.backbone)
        self.head, self.name = head, name

    def forward(
        self,
        features: Mapping[str, Tensor],
        mask: Mapping[str, Tensor] | None = None,
        keep: Collection[str] | None = None,
    ) -> Output:
        """As `Classifier.forward`, with unimodal logits; VGMR, if there, sees all modalities."""
        refinement = self.prefusion(features, mask)
        real = None if mask is None else mask[self.name]
        encoding = self.backbone.encode_one(self.name, refinement.features[self.name], real)
        vectors = self.backbone.vectors({self.name: encoding}, mask)
        return Output(self.head(vectors[self.name]), {self.name: encoding}, refinement, vectors, mask)


class GradBlending(Uniform):
    """Gradient blending (Wang, Tran and Feiszli, CVPR 2020).

    Trains w_0 L + sum_m w_m L_m, all w summing to 1, and predicts by the joint head; VGMR's own terms are part of
    L. The weights come from trials: copies of model and heads, each trained on one loss alone for `super_epoch`
    epochs, give the gain in held-out loss and the growth of overfitting. A unimodal trial encodes its modality
    only, so all of them together cost one training, and the whole just below three. Trials leave the random state
    of the main training alone. A shared encoder receives the weighted sum. Defined for every head.

    Args:
        super_epoch: epochs of a trial, and between two estimates.
        online: estimate anew every `super_epoch` epochs; otherwise once, at the start, over the whole training.
        held_out: share of the *training* part kept from all steps to measure overfitting on; whole groups where
            the data have groups.
        least_overfitting: lower bound of |O| in the estimate, ours; without it one loss can take all.
        weights: fixed weights by modality, the rest up to 1 for the joint loss; then nothing is estimated or held
            out. The released code of the authors takes its weights this way.
    """

    blend: Tensor

    def __init__(
        self,
        super_epoch: int = 10,
        online: bool = True,
        held_out: float = 0.1,
        least_overfitting: float = 1e-3,
        weights: Mapping[str, float] | None = None,
    ):
        super().__init__()
        check_sizes(super_epoch=super_epoch)
        if not (is_weight(held_out) and 0 < held_out < 1):
            raise ValueError(f"expected 0 < held_out < 1, got {held_out!r}")
        if not (is_weight(least_overfitting) and least_overfitting > 0):
            raise ValueError(f"least_overfitting must be a positive number, got {least_overfitting!r}")
        if not (weights is None or isinstance(weights, Mapping)):
            raise ValueError(f"expected weights by modality, as a dict, got {weights!r}")
        if weights is not None:
            given = list(weights.values())
            if not given or not all(map(is_weight, given)) or sum(given) > 1 + 1e-9:
                raise ValueError(
                    f"expected weights by modality, none negative, with a sum of at most 1, got {dict(weights)}"
                )
        self.super_epoch, self.online, self.held_out = super_epoch, online, held_out
        self.least_overfitting, self.fixed = least_overfitting, weights

    def start(self, model: Classifier, data: MultimodalData, epochs: int, seed: int) -> None:
        super().start(model, data, epochs, seed)
        self.epochs, self.seed = epochs, seed
        device = data.train.label.device
        weights = torch.full((len(self.names) + 1,), 1 / (len(self.names) + 1))
        if self.fixed is not None:
            if set(self.fixed) != set(self.names):
                raise ValueError(f"weights: expected one for each of {self.names}, got {list(self.fixed)}")
            given = [self.fixed[name] for name in self.names]
            weights = torch.tensor([*given, max(0.0, 1 - sum(given))])
        else:
            group = None if data.train.group is None else data.train.group.cpu().numpy()
            kept, held = holdout(data.train.label.cpu().numpy(), self.held_out, seed, group)
            if not len(kept) or not len(held):
                raise ValueError(
                    f"cannot hold out {self.held_out:.0%} of {len(data.train)} training samples; "
                    "give fixed weights, or another held_out"
                )
            self.kept, self.held = (torch.from_numpy(rows).to(device) for rows in (kept, held))
        self.register_buffer("blend", weights.to(device))

    def training_part(self, data: MultimodalData) -> Batch:
        return data.train if self.fixed is not None else data.train.index(self.kept)

    def epoch_start(self, model: Classifier, data: MultimodalData, epoch: int, loop: Loop) -> None:
        interval = self.super_epoch if self.online else self.epochs
        if self.fixed is None and epoch % interval == 0:
            trial_epochs = min(interval, self.epochs - epoch)
            self.blend = self.estimate(model, data, trial_epochs, self.seed + epoch, loop)
        self.note(dict(zip([*self.names, JOINT], self.blend, strict=True)))

    def estimate(self, model: Classifier, data: MultimodalData, epochs: int, seed: int, loop: Loop) -> Tensor:
        """Weights of the unimodal losses and, last, of the joint loss, (modalities + 1,)."""
        train, held = data.train.index(self.kept), data.train.index(self.held)
        before, after = [], []
        for name in [*self.names, JOINT]:
            trial = copy.deepcopy(model)
            if name != JOINT:
                trial = UnimodalProbe(trial, name, copy.deepcopy(self.heads[name]))
            before.append([mean_loss(trial, train), mean_loss(trial, held)])
            loop.train(trial, train, epochs, seed)
            after.append([mean_loss(trial, train), mean_loss(trial, held)])
        losses = torch.tensor([before, after])
        if not torch.isfinite(losses).all():
            lost = [
                name
                for name, row in zip([*self.names, JOINT], zip(before, after, strict=True), strict=True)
                if not torch.isfinite(torch.tensor(row)).all()
            ]
            raise FloatingPointError(
                f"Grad-Blending: the trial of {', '.join(lost)} has no finite loss; lower learning_rate"
            )
        weights = blend_weights(losses[0], losses[1], self.least_overfitting)
        return weights.to(data.train.label.device)

    def losses(
        self, model: Classifier, output: Output, batch: Batch, joint: Tensor, epoch: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        unimodal = unimodal_losses(self.heads, output, batch.label)
        weighted = {name: weight * unimodal[name] for name, weight in zip(self.names, self.blend, strict=False)}
        return self.blend[-1] * joint, weighted
