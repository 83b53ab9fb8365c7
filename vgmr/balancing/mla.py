"""MLA: the modalities take turns in training one shared head, guarded by an orthogonal projection."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from vgmr.balancing.base import Balancing, Loop, check_learning
from vgmr.classifier import Classifier
from vgmr.data.types import Batch, MultimodalData
from vgmr.fusion.heads import SharedHead
from vgmr.objective import Objective
from vgmr.refining.inputs import is_weight

PROJECTIONS = ("none", "rls", "elementwise")


def update_projector(projector: Tensor, mean: Tensor, regular: float, kind: str = "rls") -> Tensor:
    """P - k k^T / (a + r k), k = P r^T: P (d, d) loses the direction of the mean encoding r (d,).

    Args:
        regular: a > 0; the smaller, the more of the direction goes.
        kind: "rls", a scalar denominator, which keeps P symmetric with eigenvalues in 0 to 1; or "elementwise",
            the matrix a + k r of the released code.
    """
    gain = projector @ mean
    denominator = regular + (mean @ gain if kind == "rls" else torch.outer(gain, mean))
    return projector - torch.outer(gain, gain) / denominator


class MLA(Balancing):
    """Multimodal learning with alternating unimodal adaptation (Zhang et al., CVPR 2024).

    Per batch the modalities come one after the other, in the order of the model's dims: the loss of modality m
    through the shared head, a step of the head, then the next, which meets the head as it now is. Its encoders
    step once, with what each turn left for them; since they share no parameter, that is the same as stepping each
    in its turn. Where something serves several modalities (a shared encoder, VGMR's maps, whose own loss terms are
    kept as those of any module), it steps once a batch on the sum. There is no joint loss. Predictions weigh the
    unimodal logits; see `SharedHead`. Needs the head "shared"; one modality is plain unimodal training.

    Weight decay meets the head once per modality, as in the official code.

    Args:
        projection: "none", as in the released code, where a filter by parameter name never matches; "rls":
            gradients of the head's weight are projected before the step, then the projector learns the mean
            encoding, as the formula demands (ours); "elementwise": as the released code was meant to, which learns
            first, divides elementwise and leaves out the first turn; no public commit trains with it. The
            corrected projector never forgets: under SGD it soon holds the head still.
        normalise: divide P by its Frobenius norm after each update, as the official code does.
        weights: fixed weights of the modalities in predictions instead of those by entropy, such as the official
            0.55 and 0.45.
    """

    regression = False
    head = "shared"
    projector: Tensor
    updates: Tensor
    seen: Tensor  # batches of this epoch

    def __init__(
        self, projection: str = "none", normalise: bool = False, weights: Mapping[str, float] | None = None
    ):
        super().__init__()
        if projection not in PROJECTIONS:
            raise ValueError(f"projection must be one of {', '.join(PROJECTIONS)}, got {projection!r}")
        if weights is not None and not (
            isinstance(weights, Mapping) and all(is_weight(weight) and weight > 0 for weight in weights.values())
        ):
            raise ValueError(f"weights: expected positive numbers by modality, got {weights!r}")
        self.projection, self.normalise, self.fixed_weights = projection, normalise, weights

    def start(self, model: Classifier, data: MultimodalData, epochs: int, seed: int) -> None:
        super().start(model, data, epochs, seed)
        if not isinstance(getattr(model.backbone, "head", None), SharedHead):
            raise ValueError(
                f"MLA trains the SharedHead of a backbone, its `head`; {type(model.backbone).__name__} has none: "
                "make it one, or take the backbone 'pooled' or 'transformer'"
            )
        if self.fixed_weights is not None:
            assert isinstance(model.backbone.head, SharedHead)
            model.backbone.head.set_weights(self.fixed_weights)
        device = next(model.parameters()).device
        width = model.backbone.width
        assert width is not None
        self.register_buffer("projector", torch.eye(width, device=device))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.samples, self.batch_size = len(data.train), 0

    def epoch_start(self, model: Classifier, data: MultimodalData, epoch: int, loop: Loop) -> None:
        self.seen.zero_()

    def step(
        self,
        model: Classifier,
        batch: Batch,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        epoch: int,
    ) -> Tensor:
        head = model.backbone.head
        assert isinstance(head, SharedHead)
        output = model(batch.features, batch.model_mask)
        check_learning("MLA trains", output)
        optimizer.zero_grad(set_to_none=True)
        self.batch_size = max(self.batch_size, len(batch))
        regular = 0.1 ** (1 + int(self.seen) / math.ceil(self.samples / self.batch_size))
        total = torch.zeros((), device=batch.label.device)
        signals = []
        for name in self.names:
            encoding = output.encodings[name].detach().requires_grad_()
            loss = F.cross_entropy(head.linear(encoding), batch.label)
            loss.backward()
            assert encoding.grad is not None
            signals.append(encoding.grad)
            self._protect(head.linear.weight, encoding.detach().mean(0), regular)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            total += loss.detach()
        others = [p for p in model.parameters() if p.requires_grad and all(p is not q for q in head.parameters())]
        roots: list[Tensor] = [output.encodings[name] for name in self.names]
        gradients: list[Tensor | None] = list(signals)
        # own terms of VGMR and other modules: the cross-entropy within is constant in the detached logits
        detached = output._replace(logits=output.logits.detach())
        own = objective(model, detached, batch, epoch)
        if own.requires_grad:
            roots.append(own)
            gradients.append(None)
            total += own.detach() - F.cross_entropy(detached.logits, batch.label)
        torch.autograd.backward(roots, gradients, inputs=others)
        optimizer.step()
        self.seen += 1
        return total

    @torch.no_grad()
    def _protect(self, weight: Tensor, mean: Tensor, regular: float) -> None:
        if self.projection == "none" or weight.grad is None:
            return
        if self.projection == "rls":
            weight.grad = weight.grad @ self.projector.T
        if self.projection == "rls" or int(self.updates):
            self.projector = update_projector(self.projector, mean, regular, self.projection)
            if self.normalise:
                self.projector = self.projector / self.projector.norm()
        if self.projection == "elementwise" and int(self.updates):
            weight.grad = weight.grad @ self.projector.T
        self.updates += 1
