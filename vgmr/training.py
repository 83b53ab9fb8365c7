"""`fit`, the only training loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from vgmr.balancing.base import Balancing, Loop
from vgmr.classifier import Classifier
from vgmr.corruption import joined
from vgmr.data.types import Batch, MultimodalData
from vgmr.fusion.base import steady
from vgmr.inference import predict
from vgmr.loop.graphs import Replayed, replayable
from vgmr.loop.seeds import Together, why_alone
from vgmr.loop.steps import Corruption, corrupted, make_optimizer, mini_batches, optimizer_of, prepare, train_epoch
from vgmr.machine.work import bar
from vgmr.objective import Objective, task_loss
from vgmr.refining.inputs import is_weight, is_whole, trusted_values


@dataclass
class History:
    """One value per epoch: losses in nats (train with all terms, validation the task loss), accuracy in 0 to 1.

    `coefficients` holds what a balancing method did, by modality: the mean over steps, for epochs in which it did.
    In regression there is no accuracy. `best_epoch` counts from 0; `seconds` is the wall time of the training, of
    epochs with several seeds in one pass this seed's share. `together` are the seeds of that pass, if it had
    several: the last bits of a training, and its dropout, depend on them.
    """

    train_loss: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    validation_accuracy: list[float] = field(default_factory=list)
    coefficients: dict[str, list[float]] = field(default_factory=dict)
    best_epoch: int = 0
    seconds: float = 0.0
    together: list[int] = field(default_factory=list)


class _Alone:
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
        if replayable(model, objective, method) and not feeding["length_buckets"]:
            self.replayed = Replayed(partial(self._step, objective.warmup_epochs))

    def _step(self, epoch: int, batch: Batch) -> Tensor:
        return self.method.step(self.model, batch, self.objective, self.loop.optimizer, epoch)

    def train(self, epoch: int) -> list[Tensor]:
        """Every step of an epoch; the mean loss."""
        self.method.epoch_start(self.model, self.data, epoch, self.loop)
        batches: Iterable[Batch] = mini_batches(self.part, generator=self.order, **self.feeding)
        if self.corruption is not None:
            batches = map(partial(corrupted, self.corruption, self.corrupting), batches)
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


def fit(
    model: Classifier,
    data: MultimodalData,
    *,
    epochs: int = 30,
    batch_size: int = 32,
    learning_rate: float = 1e-3,
    prefusion_learning_rate: float | None = None,
    weight_decay: float = 0.01,
    objective: Objective | None = None,
    length_buckets: bool = False,
    seed: int = 0,
    progress: bool = False,
    method: Balancing | None = None,
    optimizer: str = "adamw",
    patience: int | None = None,
    corruption: Corruption | None = None,
    checkpoint: Callable[[int, Classifier], None] | None = None,
) -> History:
    """Train and leave the model at its best epoch by validation accuracy (ties: lower loss; regression: the loss).

    Args:
        model: on the device where `data` lies.
        data: only its training and validation part are used.
        epochs: passes over the training part.
        batch_size: samples per step.
        learning_rate: of all parameters.
        prefusion_learning_rate: of those of `model.prefusion`, if they shall have another.
        weight_decay: of the optimiser.
        objective: `Objective()` by default.
        length_buckets: see `mini_batches`.
        seed: of the order of samples, of corruptions and of dropout; initial weights are the caller's.
        progress: show a bar over epochs.
        method: a fresh one of `vgmr.balancing`; None for plain training.
        optimizer: "adamw", or "sgd" with momentum 0.9.
        patience: stop when so many epochs in a row were no better than the best; None to take all epochs.
        corruption: done to every mini-batch, drawn anew each time, whatever is trained, such as
            `vgmr.corruption.Drawn`. The best epoch is then chosen on the validation part as it is together with
            one corrupted copy of it, the same for all.
        checkpoint: called with the epoch, from 0, and the model after every epoch's validation.

    Raises:
        TypeError: a model, data set, method, objective or corruption that is none.
        ValueError: labels out of range for the model, a setting out of its range, a backbone whose `fuse` does not
            heed `keep`, or a method that is not defined for this model.
        FloatingPointError: the training loss is no longer finite.
    """
    return _fit(
        [model],
        [data],
        [seed],
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        prefusion_learning_rate=prefusion_learning_rate,
        weight_decay=weight_decay,
        objective=objective,
        length_buckets=length_buckets,
        progress=progress,
        method=method,
        optimizer=optimizer,
        patience=patience,
        corruption=corruption,
        checkpoint=None if checkpoint is None else lambda _, epoch, model: checkpoint(epoch, model),
    )[0]


def fit_seeds(
    models: Sequence[Classifier],
    data: MultimodalData | Sequence[MultimodalData],
    seeds: Sequence[int],
    **settings: Any,
) -> list[History]:
    """`fit` for several seeds of one variant in one pass, each with its own weights, order and best epoch.

    A seed takes the same steps as alone, up to rounding (1e-4 in weights after an epoch) and its draws of dropout,
    which come from one stream for all. The same models, data and seeds give the same bits again. `why_alone` says
    whether seeds can be trained so, `pays_together` whether it saves time.

    Args:
        models: one for each seed, alike but for their weights; each is left at its best epoch.
        data: one for all, or one for each seed: other folds of the same shapes, of any number of samples.
        seeds: as `seed` of `fit`.
        settings: other arguments of `fit`, the same for all; `checkpoint` is called with the place of the seed,
            the epoch and the model. With `length_buckets` padding is cut off at the longest sequence that any of
            the seeds has in a step. With `patience` a seed that has stopped leaves the pass.

    Raises:
        ValueError: as `fit`; and where the seeds cannot be trained in one pass, with the reason that `why_alone`
            gives: train them one by one then.
        FloatingPointError: the loss of some seed is no longer finite.
    """
    every = [data] * len(models) if isinstance(data, MultimodalData) else list(data)
    if not len(models) == len(every) == len(seeds) >= 1:
        raise ValueError(f"got {len(models)} models and {len(every)} data sets for {len(seeds)} seeds")
    return _fit(models, every, seeds, **settings)


def _fit(
    models: Sequence[Classifier],
    data: Sequence[MultimodalData],
    seeds: Sequence[int],
    *,
    epochs: int = 30,
    batch_size: int = 32,
    learning_rate: float = 1e-3,
    prefusion_learning_rate: float | None = None,
    weight_decay: float = 0.01,
    objective: Objective | None = None,
    length_buckets: bool = False,
    progress: bool = False,
    method: Balancing | None = None,
    optimizer: str = "adamw",
    patience: int | None = None,
    corruption: Corruption | None = None,
    checkpoint: Callable[[int, int, Classifier], None] | None = None,
) -> list[History]:
    for error in _unsound(
        models,
        data,
        seeds,
        objective,
        method,
        corruption,
        {"epochs": epochs, "batch_size": batch_size, "patience": 1 if patience is None else patience},
        {
            "learning_rate": learning_rate,
            "prefusion_learning_rate": 0.0 if prefusion_learning_rate is None else prefusion_learning_rate,
            "weight_decay": weight_decay,
        },
    ):
        raise error
    for model, each in zip(models, data, strict=True):
        _check(model, each)
    objective = Objective() if objective is None else objective
    task = getattr(objective, "task", "classification")
    torch.manual_seed(seeds[0])
    rates = learning_rate, learning_rate if prefusion_learning_rate is None else prefusion_learning_rate
    feeding = {"batch_size": batch_size, "length_buckets": length_buckets}
    seen = {id(each): _seen_for_choice(each.validation, corruption) for each in data}
    validation = [seen[id(each)] for each in data]
    steps: _Alone | Together
    if len(models) == 1:
        method = Balancing() if method is None else method
        method.start(models[0], data[0], epochs, seeds[0])
        new = partial(
            make_optimizer,
            optimizer,
            learning_rate=learning_rate,
            prefusion_learning_rate=prefusion_learning_rate,
            weight_decay=weight_decay,
        )
        loop = Loop(new(models[0], method=method), partial(_train_copy, new, feeding))
        steps = _Alone(models[0], data[0], validation[0], seeds[0], objective, method, loop, corruption, feeding)
    else:
        if reason := why_alone(models, data, objective, method, corruption):
            raise ValueError(f"these seeds cannot be trained in one pass: {reason}")

        def of_rows(groups: list[list[Tensor]]) -> torch.optim.Optimizer:
            rated = [{"params": group, "lr": rate} for group, rate in zip(groups, rates, strict=False)]
            return optimizer_of(optimizer, rated, weight_decay)

        for model, each in zip(models, data, strict=True):
            prepare(model, each.train)
        steps = Together(
            models, data, validation, seeds, objective, of_rows, rates[0] != rates[1], corruption, feeding
        )
    histories = [History(together=list(seeds) if len(seeds) > 1 else []) for _ in models]
    best: dict[int, tuple[tuple[float, float], dict[str, Tensor]]] = {}
    running = list(range(len(models)))
    for epoch in bar(range(epochs), desc="epochs", leave=False, disable=not progress):
        started = time.perf_counter()
        with trusted_values():
            losses, answers = steps.train(epoch), steps.validate()
        for place, seed in enumerate(running):
            history, label, logits = histories[seed], validation[seed].label, answers[place]
            history.train_loss.append(float(losses[place]))
            history.validation_loss.append(float(task_loss(logits, label, task)))
            if task == "classification":
                history.validation_accuracy.append(float((logits.argmax(1) == label).float().mean()))
            if not (torch.isfinite(losses[place]) and torch.isfinite(logits).all()):
                raise FloatingPointError(
                    f"the loss is no longer finite in epoch {epoch}"
                    + (f" of seed {seeds[seed]}" if len(seeds) > 1 else "")
                    + f": training {history.train_loss[-1]}, validation {history.validation_loss[-1]}; "
                    f"lower learning_rate, now {learning_rate}"
                )
            score = (
                history.validation_accuracy[-1] if task == "classification" else 0.0,
                -history.validation_loss[-1],
            )
            if seed not in best or score > best[seed][0]:
                best[seed], history.best_epoch = (score, steps.state(place)), epoch
            if checkpoint is not None:
                if len(models) > 1:
                    models[seed].load_state_dict(steps.state(place), strict=False)
                checkpoint(seed, epoch, models[seed])
        with trusted_values():
            steps.end(epoch, histories)
        for seed in running:
            histories[seed].seconds += (time.perf_counter() - started) / len(running)
        going = [
            place
            for place, seed in enumerate(running)
            if patience is None or epoch - histories[seed].best_epoch < patience
        ]
        if not going:
            break
        steps.keep(going)
        running = [running[place] for place in going]
    for seed, (_, state) in best.items():
        models[seed].load_state_dict(state, strict=len(models) == 1)
        models[seed].eval()
    return histories


def _unsound(
    models: Sequence[Classifier],
    data: Sequence[MultimodalData],
    seeds: Sequence[int],
    objective: Objective | None,
    method: Balancing | None,
    corruption: Corruption | None,
    counts: Mapping[str, int],
    weights: Mapping[str, float],
) -> Iterator[Exception]:
    """What `fit` refuses of its arguments, in the order in which a reader would look."""
    for what, value in counts.items():
        if not is_whole(value):
            yield ValueError(f"{what} must be at least 1, got {value!r}; give a whole number")
    for what, weight in weights.items():
        if not is_weight(weight):
            yield ValueError(f"{what} must be a number of at least 0, got {weight!r}")
    for seed in seeds:
        if not isinstance(seed, Integral):
            yield ValueError(f"seed must be a whole number, got {seed!r}")
    for model in models:
        if not (hasattr(model, "prefusion") and hasattr(model, "backbone")):
            yield TypeError(f"model: expected a Classifier(prefusion, backbone), got {type(model).__name__}")
    for each in data:
        if not isinstance(each, MultimodalData):
            yield TypeError(f"data: expected MultimodalData, with its parts, got {type(each).__name__}")
    if not (method is None or isinstance(method, Balancing)):
        made = "vgmr.balancing.make_method(name)"
        yield TypeError(f"method: expected one made by {made}, got {type(method).__name__}")
    for what, given in (("objective", objective), ("corruption", corruption)):
        if not (given is None or callable(given)):
            yield TypeError(f"{what}: expected an object that can be called, got {type(given).__name__}")
    task = getattr(objective, "task", "classification")
    for each in data:
        if each.task != task:
            yield ValueError(
                f"{each.name} has labels for {each.task}, and the objective is for {task}; "
                f"give objective=Objective(task={each.task!r})"
            )
    for name in unheeded(models[0], data[0].train):
        yield ValueError(
            f"{type(models[0].backbone).__name__}.fuse changes its answer with the encoding of {name!r} where "
            "keep leaves that out: use the encodings in keep alone; self.present(keep) lists them"
        )


@torch.no_grad()
def unheeded(model: Classifier, part: Batch) -> list[str]:
    """Modalities whose encodings change what the backbone answers although `keep` leaves them out."""
    few = part.span(0, 4).noting_padding()
    with steady(model), trusted_values():
        encodings = model(few.features, few.model_mask).encodings
        found = []
        for name in encodings if len(encodings) > 1 else ():
            others = [other for other in encodings if other != name]
            answer, other = (
                model.backbone.fuse({**encodings, name: x}, others, few.model_mask)
                for x in (encodings[name], encodings[name].flip(0))
            )
            if not torch.allclose(answer, other, rtol=1e-3, atol=1e-4, equal_nan=True):
                found.append(name)
    return found


def _seen_for_choice(validation: Batch, corruption: Corruption | None) -> Batch:
    if corruption is not None:
        validation = joined(validation, corruption(validation, torch.Generator().manual_seed(0)))
    return validation.noting_padding()


def _check(model: Classifier, data: MultimodalData) -> None:
    outputs = getattr(model.backbone, "num_outputs", len(data.classes))
    for name, part in (("train", data.train), ("validation", data.validation)):
        try:
            part.check(min(len(data.classes), outputs))
        except ValueError as error:
            raise ValueError(f"{data.name}, {name}: {error}") from None


def _train_copy(
    new_optimizer: Callable[[Classifier], torch.optim.Optimizer],
    feeding: Mapping[str, Any],
    model: Classifier,
    part: Batch,
    epochs: int,
    seed: int,
) -> None:
    """The `train` of `Loop`."""
    device = part.label.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        order = torch.Generator().manual_seed(seed)
        part, own = part.noting_padding(), new_optimizer(model)
        step = partial(_plain_step, model, Objective(0, 0, auxiliary=False), own)
        for _ in range(epochs):
            train_epoch(model, mini_batches(part, generator=order, **feeding), step)


def _plain_step(model: Classifier, objective: Objective, optimizer: torch.optim.Optimizer, batch: Batch) -> Tensor:
    return Balancing().step(model, batch, objective, optimizer, 0)
