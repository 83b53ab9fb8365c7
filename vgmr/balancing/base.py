"""One small protocol for training-stage balancing: hooks around the steps of `fit`, which do nothing here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgmr.classifier import Classifier, Output
from vgmr.data.types import Batch, MultimodalData
from vgmr.fusion.base import evaluating
from vgmr.objective import Objective


@dataclass(frozen=True)
class Loop:
    """What `fit` lends to a method between epochs.

    Attributes:
        optimizer: of the running training.
        train: (copy of the model, part, epochs, seed): trains the copy on its cross-entropy alone, with a fresh
            optimiser of the same kind at the current learning rates, and leaves the random state as it was.
    """

    optimizer: torch.optim.Optimizer
    train: Callable[[Classifier, Batch, int, int], None]


class Balancing(nn.Module):
    """Training without balancing, and the protocol: methods override the hooks that they need.

    A method's own parameters and buffers are those of an `nn.Module`, so `state_dict` holds what its next step
    depends on, but for the random state and for what `note` has gathered; the parameters get a group of their own
    in the optimiser. Epochs count from 0, windows are inclusive, and outside its window a method changes nothing.
    Hooks in the order of a training:

        start, training_part
        each epoch: epoch_start; each batch: step = losses, backward, modify_gradients, (optimiser), after_step;
                    (validation), epoch_end

    Attributes:
        least_modalities: fewest for which the method is defined.
        head: kind of fusion head that it needs; None for any.
        regression: whether it is defined without classes.
    """

    least_modalities = 1
    head: str | None = None
    regression = True

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self._sums: dict[str, Tensor] = {}
        self._count = 0

    def start(self, model: Classifier, data: MultimodalData, epochs: int, seed: int) -> None:
        """Build what the training needs; must leave the model and the global random state alone.

        Raises:
            ValueError: the method is not defined for this model.
        """
        self.names = list(model.backbone.dims)
        self._sums, self._count = {}, 0  # of a training that was interrupted
        if len(self.names) < self.least_modalities:
            raise ValueError(
                f"{type(self).__name__} weighs modalities against each other and needs at least "
                f"{self.least_modalities}, got {self.names}"
            )
        if not (self.regression or data.classes):
            raise ValueError(
                f"{type(self).__name__} is defined for classes only and this is a regression; "
                "take the method 'none', 'mmim' or 'self-mm'"
            )
        if self.head is not None and model.backbone.readout != self.head:
            got = type(getattr(model.backbone, "head", model.backbone)).__name__
            remedy = f"build the backbone with head={self.head!r}"
            if model.backbone.readout == "opaque":
                remedy = "its answer has no such form; take the backbone 'pooled' or 'transformer'"
            raise ValueError(
                f"{type(self).__name__} is defined for the head {self.head!r} only, got {got}; {remedy}"
            )

    def training_part(self, data: MultimodalData) -> Batch:
        """The samples to take steps on."""
        return data.train

    def epoch_start(self, model: Classifier, data: MultimodalData, epoch: int, loop: Loop) -> None:
        """Before the first step of an epoch."""

    def losses(
        self, model: Classifier, output: Output, batch: Batch, joint: Tensor, epoch: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The joint loss, from `Objective`, as it shall be, and further terms by modality; scalars in nats."""
        return joint, {}

    def backward(self, model: Classifier, joint: Tensor, unimodal: Mapping[str, Tensor]) -> None:
        """Leave the gradients of one step in `.grad`."""
        sum(unimodal.values(), start=joint).backward()

    def modify_gradients(self, model: Classifier, output: Output, batch: Batch, epoch: int) -> None:
        """Change the gradients before the optimiser sees them."""

    def after_step(self, model: Classifier, epoch: int) -> None:
        """Change the parameters after the optimiser."""

    def step(
        self,
        model: Classifier,
        batch: Batch,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        epoch: int,
    ) -> Tensor:
        """All that is done with one mini-batch; returns its loss with all terms, detached."""
        output = model(batch.features, batch.model_mask)
        joint = objective(model, output, batch, epoch)
        joint, unimodal = self.losses(model, output, batch, joint, epoch)
        optimizer.zero_grad(set_to_none=True)
        self.backward(model, joint, unimodal)
        self.modify_gradients(model, output, batch, epoch)
        optimizer.step()
        self.after_step(model, epoch)
        return sum((loss.detach() for loss in unimodal.values()), start=joint.detach())

    def epoch_end(self, model: Classifier, data: MultimodalData, epoch: int, loop: Loop) -> None:
        """After an epoch's validation, and after its state was kept if it is the best so far."""

    def note(self, values: Mapping[str, Tensor]) -> None:
        """Remember scalars of a step, such as coefficients by modality, without waiting for the device."""
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0) + value.detach()
        self._count += 1

    def noted(self) -> dict[str, float]:
        """Means of what was noted since the last call."""
        means = {name: float(total) / self._count for name, total in self._sums.items()}
        self._sums, self._count = {}, 0
        return means


def unimodal_heads(model: Classifier, num_classes: int, seed: int) -> nn.ModuleDict:
    """A linear classifier on each modality's vector, drawn like `nn.Linear` from a generator of its own.

    Raises:
        ValueError: a backbone whose vectors have several widths.
    """
    generator = torch.Generator().manual_seed(seed)
    width = model.backbone.width
    if width is None:
        raise ValueError(
            f"unimodal heads need one width for all modalities, {type(model.backbone).__name__} has several"
        )
    heads = {}
    for name in model.backbone.dims:
        head = nn.utils.skip_init(nn.Linear, width, num_classes)
        for parameter in head.parameters():
            nn.init.uniform_(parameter, -(width**-0.5), width**-0.5, generator=generator)
        heads[name] = head
    return nn.ModuleDict(heads).to(next(model.parameters()).device)


def unimodal_losses(heads: nn.ModuleDict, output: Output, label: Tensor) -> dict[str, Tensor]:
    """Cross-entropy of each modality's own head, with gradients into head and encoder."""
    return {name: F.cross_entropy(head(output.vectors[name]), label) for name, head in heads.items()}


def split_logits(model: Classifier, encodings: Mapping[str, Tensor], full_bias: bool = False) -> dict[str, Tensor]:
    """Unimodal logits out of a concatenation head: h_m W_m^T + b / K, which sum to the joint logits.

    Args:
        encodings: name -> (B, width).
        full_bias: h_m W_m^T + b instead, the joint head on one modality.
    """
    assert model.backbone.readout == "concat"
    surplus = 0.0 if full_bias else model.backbone.fuse(encodings, ()) * (1 - 1 / len(encodings))
    return {name: model.backbone.fuse(encodings, {name}) - surplus for name in encodings}


def check_window(window: tuple[int, int] | None) -> tuple[int, int] | None:
    """A window of epochs, both ends inclusive, or ValueError; None stays None."""
    if window is None:
        return None
    if (
        not isinstance(window, tuple | list)
        or len(window) != 2
        or not all(hasattr(x, "__index__") for x in window)
    ):
        raise ValueError(f"window must be two epochs, the first and the last, such as (0, 9), got {window!r}")
    first, last = window
    if first < 0 or last < first:
        raise ValueError(f"window must be two epochs, 0 <= first <= last, got {tuple(window)}")
    return int(first), int(last)


def check_learning(what: str, output: Output) -> None:
    """ValueError in one line, for a method that does `what` before the head, where nothing there can learn."""
    for name, encoding in output.encodings.items():
        if not encoding.requires_grad:
            raise ValueError(
                f"{what} before the head, and nothing before it can learn for {name!r}; "
                "model.requires_grad_(True) lets everything, or leave the modality out"
            )


@torch.no_grad()
def fused_sample(model: Classifier, data: MultimodalData, method: str) -> Tensor:
    """What the last layers read of two training samples, (2, w), in evaluation mode; for widths and devices.

    Raises:
        ValueError: the backbone has no such vector, said for `method`.
    """
    part = data.train.index(torch.arange(2, device=data.train.label.device) % len(data.train))
    with evaluating(model):
        fused = model(part.features, part.mask).fused
    if fused is None:
        kind = type(model.backbone).__name__
        raise ValueError(f"{method} reads what the last layers read, and {kind} has no such vector")
    return fused
