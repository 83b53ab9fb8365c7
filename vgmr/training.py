"""`fit`, the only training loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from vgmr.balancing.base import Balancing, Loop
from vgmr.classifier import Classifier
from vgmr.data.types import Batch, MultimodalData, joined
from vgmr.loop.alone import Alone, train_copy
from vgmr.loop.history import History
from vgmr.loop.refusals import check_labels, unsound
from vgmr.loop.seeds import Together, why_alone
from vgmr.loop.steps import Corruption, corrupted, make_optimizer, optimizer_of, prepare
from vgmr.machine.work import bar
from vgmr.objective import Objective, task_loss
from vgmr.refining.inputs import trusted_values


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
        objective: `Objective()` by default; or any function of model, output, batch and epoch to a scalar loss.
        length_buckets: see `mini_batches`.
        seed: of the order of samples, corruptions and dropout, set as torch's; initial weights are the caller's.
        progress: show a bar over epochs.
        method: a fresh one of `vgmr.balancing`; None for plain training.
        optimizer: "adamw", or "sgd" with momentum 0.9.
        patience: stop when so many epochs in a row were no better than the best; None to take all epochs.
        corruption: done to every mini-batch, drawn anew each time, whatever is trained, such as
            `vgmr.corruption.Drawn`. The best epoch is then chosen on the validation part as it is together with
            one corrupted copy of it, the same for all.
        checkpoint: called with the epoch, from 0, and the model, to look at, after every epoch's validation.

    Raises:
        TypeError: a model, data set, method, objective, corruption or checkpoint that is none.
        ValueError: labels out of range for the model, a setting out of its range, data that do not fit the
            model, a backbone whose `fuse` does not heed `keep` or give (B, num_outputs), or a method that is not
            defined for this model. A backbone that reads padding is warned of.
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
        checkpoint=(lambda _, epoch, model: checkpoint(epoch, model)) if callable(checkpoint) else checkpoint,
    )[0]


def fit_seeds(
    models: Sequence[Classifier],
    data: MultimodalData | Sequence[MultimodalData],
    seeds: Sequence[int],
    **settings: Any,
) -> list[History]:
    """`fit` for several seeds of one variant in one pass, each with its own weights, order and best epoch.

    A seed takes the same steps as alone, up to rounding (1e-4 in weights after an epoch; more where AdamW divides
    gradients that are rounding alone, as of a bias in front of a batch norm) and its draws of dropout, which come
    from one stream for all. The same models, data and seeds give the same bits again. `why_alone` says
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
    rates = learning_rate, learning_rate if prefusion_learning_rate is None else prefusion_learning_rate
    counts = {"epochs": epochs, "batch_size": batch_size, "patience": 1 if patience is None else patience}
    weights = {"learning_rate": rates[0], "prefusion_learning_rate": rates[1], "weight_decay": weight_decay}
    for error in unsound(models, data, seeds, objective, method, corruption, checkpoint, counts, weights):
        raise error
    for model, each in zip(models, data, strict=True):
        check_labels(model, each)
    seeds = [int(seed) for seed in seeds]
    objective = Objective() if objective is None else objective
    task = getattr(objective, "task", "classification")
    torch.manual_seed(seeds[0])
    feeding = {"batch_size": int(batch_size), "length_buckets": length_buckets}
    seen = {id(each): _seen_for_choice(each.validation, corruption) for each in data}
    validation = [seen[id(each)] for each in data]
    steps: Alone | Together
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
        loop = Loop(new(models[0], method=method), partial(train_copy, new, feeding, corruption))
        steps = Alone(models[0], data[0], validation[0], seeds[0], objective, method, loop, corruption, feeding)
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


def _seen_for_choice(validation: Batch, corruption: Corruption | None) -> Batch:
    if corruption is not None:
        validation = joined(validation, corrupted(corruption, torch.Generator().manual_seed(0), validation))
    return validation.noting_padding()
