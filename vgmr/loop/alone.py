"""One seed by itself, each step as its balancing method takes it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from vgmr.balancing.base import Balancing, Loop
from vgmr.classifier import Classifier
from vgmr.data.types import Batch, MultimodalData
from vgmr.inference import predict
from vgmr.loop.graphs import Replayed, replayable
from vgmr.loop.history import History
from vgmr.loop.steps import Corruption, corrupted, known, mini_batches, prepare, train_epoch
from vgmr.objective import Objective


class Alone:
    """The epochs of one seed, each step as its balancing method takes it."""

    def __init__(
        self,
        model: Classifier,
        data: MultimodalData,
        validation: Batch,
        seed: int,
        objective: Objective,
        method: Balancing,
        loop: Loop,
        corruption: Corruption | None,
        feeding: Mapping[str, Any],
    ):
        self.model, self.data, self.validation = model, data, validation
        self.objective, self.method, self.loop = objective, method, loop
        self.corruption, self.feeding = corruption, feeding
        self.order, self.corrupting = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(seed)
        self.part = method.training_part(data).noting_padding()
        prepare(model, self.part)
        self.replayed: Replayed | None = None
        alike = not feeding["length_buckets"]
        if alike and replayable(model, objective, method):
            self.replayed = Replayed(partial(self._step, objective.warmup_epochs))
        elif alike and corruption is None and type(method) is Balancing and type(objective) is Objective:
            self.part = known(model, self.part)  # others look at the sequences, or hand on their tensors alone

    def _step(self, epoch: int, batch: Batch) -> Tensor:
        return self.method.step(self.model, batch, self.objective, self.loop.optimizer, epoch)

    def train(self, epoch: int) -> list[Tensor]:
        """Every step of an epoch; the mean loss."""
        self.method.epoch_start(self.model, self.data, epoch, self.loop)
        batches = _fed(self.part, self.order, self.corrupting, self.corruption, self.feeding)
        step: Callable[[Batch], Tensor] = partial(self._step, epoch)
        if self.replayed is not None and epoch >= self.objective.warmup_epochs:
            step = self.replayed
        return [train_epoch(self.model, batches, step) / len(self.part)]

    def validate(self) -> list[Tensor]:
        """Logits of the validation part."""
        return [predict(self.model, self.validation)]

    def state(self, _: int) -> dict[str, Tensor]:
        """A copy of the model's state."""
        return {name: value.clone() for name, value in self.model.state_dict().items()}

    def end(self, epoch: int, histories: Sequence[History]) -> None:
        """What the method does after an epoch."""
        self.method.epoch_end(self.model, self.data, epoch, self.loop)
        for name, value in self.method.noted().items():
            histories[0].coefficients.setdefault(name, []).append(value)

    def keep(self, which: Sequence[int]) -> None:
        """One seed goes on until the training ends."""


def _fed(
    part: Batch,
    order: torch.Generator,
    corrupting: torch.Generator,
    corruption: Corruption | None,
    feeding: Mapping[str, Any],
) -> Iterable[Batch]:
    """The mini-batches of an epoch, as they are stepped on."""
    batches = mini_batches(part, generator=order, **feeding)
    return batches if corruption is None else map(partial(corrupted, corruption, corrupting), batches)


def train_copy(
    new_optimizer: Callable[[Classifier], torch.optim.Optimizer],
    feeding: Mapping[str, Any],
    corruption: Corruption | None,
    model: Classifier,
    part: Batch,
    epochs: int,
    seed: int,
) -> None:
    """The `train` of `Loop`."""
    device = part.label.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        order, corrupting = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(seed)
        part, own = part.noting_padding(), new_optimizer(model)
        step = partial(_plain_step, model, Objective(0, 0, auxiliary=False), own)
        for _ in range(epochs):
            train_epoch(model, _fed(part, order, corrupting, corruption, feeding), step)


def _plain_step(model: Classifier, objective: Objective, optimizer: torch.optim.Optimizer, batch: Batch) -> Tensor:
    return Balancing().step(model, batch, objective, optimizer, 0)
