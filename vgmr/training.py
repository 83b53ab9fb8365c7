"""`fit`, the only training loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from vgmr.backbones import Classifier
from vgmr.balancing.base import Balancing, Loop
from vgmr.corruption import Drawn, joined
from vgmr.data.types import Batch, MultimodalData
from vgmr.inference import predict
from vgmr.objective import Objective


@dataclass
class History:
    """One value per epoch: losses in nats (train with all terms, validation the task loss), accuracy in 0 to 1.

    `coefficients` holds what a balancing method did, by modality: the mean over steps, for epochs in which it did.
    `best_epoch` counts from 0; `seconds` is the wall time of the whole training.
    """

    train_loss: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    validation_accuracy: list[float] = field(default_factory=list)
    coefficients: dict[str, list[float]] = field(default_factory=dict)
    best_epoch: int = 0
    seconds: float = 0.0


class ByteDropout(nn.Module):
    """Dropout with masks drawn as bytes, several times cheaper on a CPU; p is rounded to 1/256, below 1."""

    def __init__(self, p: float):
        super().__init__()
        self.threshold = min(round(256 * p), 255)

    def forward(self, x: Tensor) -> Tensor:
        """x, in training with a share p zero and the rest scaled by 1 / (1 - p)."""
        if not self.training or not self.threshold:
            return x
        words = torch.empty(x.numel() // 8 + 1, dtype=torch.int64, device=x.device)
        # the full range: without bounds random_ never sets the sign bit, and every eighth byte is below 128
        words.random_(-(2**63), None)
        keep = words.view(torch.uint8)[: x.numel()].view(x.shape) >= self.threshold
        return x * keep.to(x.dtype).mul_(256 / (256 - self.threshold))


def use_byte_dropout(model: nn.Module) -> None:
    """Replace every `nn.Dropout` of `model` by `ByteDropout`, and switch dropout of attention weights off."""
    for module in list(model.modules()):
        if isinstance(module, nn.MultiheadAttention):
            module.dropout = 0.0
        for name, child in module.named_children():
            if isinstance(child, nn.Dropout):
                setattr(module, name, ByteDropout(child.p))


def trim(batch: Batch, lengths: dict[str, int]) -> Batch:
    """The same samples without the steps beyond `lengths`, which must hold padding only."""
    return replace(
        batch,
        features={name: x[:, : lengths[name]] for name, x in batch.features.items()},
        mask={name: mask[:, : lengths[name]] for name, mask in batch.mask.items()},
        corrupted=None,
    )


def mini_batches(
    part: Batch, batch_size: int, generator: torch.Generator, length_buckets: bool = False
) -> Iterator[Batch]:
    """All samples once, in random order, as mini-batches on the device where `part` lies.

    Args:
        length_buckets: put samples of like length together and cut their common padding off; cheaper, but
            mini-batches are then no longer drawn uniformly.
    """
    order = torch.randperm(len(part), generator=generator)
    if not length_buckets:
        for rows in order.to(part.label.device).split(batch_size):
            yield part.index(rows)
        return
    lengths = {name: length.cpu() for name, length in part.lengths().items()}
    total = torch.stack(list(lengths.values())).sum(0)
    buckets = order[total[order].argsort(stable=True)].split(batch_size)
    for position in torch.randperm(len(buckets), generator=generator).tolist():
        rows = buckets[position]
        longest = {name: int(length[rows].max()) for name, length in lengths.items()}
        yield trim(part.index(rows.to(part.label.device)), longest)


OPTIMIZERS = ("adamw", "sgd")


def make_optimizer(
    kind: str,
    model: Classifier,
    learning_rate: float,
    prefusion_learning_rate: float | None = None,
    weight_decay: float = 0.01,
    method: nn.Module | None = None,
) -> torch.optim.Optimizer:
    """AdamW, or SGD with momentum 0.9; groups for the backbone, `model.prefusion` and the method's parameters."""
    if kind not in OPTIMIZERS:
        raise ValueError(f"unknown optimizer {kind!r}; there are: {', '.join(OPTIMIZERS)}")
    prefusion = list(model.prefusion.parameters())
    owned = {id(parameter) for parameter in prefusion}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in owned]
    groups = [
        {"params": rest, "lr": learning_rate},
        {"params": prefusion, "lr": learning_rate if prefusion_learning_rate is None else prefusion_learning_rate},
        {"params": [] if method is None else list(method.parameters()), "lr": learning_rate},
    ]
    groups = [group for group in groups if group["params"]]
    if kind == "sgd":
        return torch.optim.SGD(groups, momentum=0.9, weight_decay=weight_decay, fused=True)
    return torch.optim.AdamW(groups, weight_decay=weight_decay, fused=True)


def train_epoch(
    model: Classifier,
    batches: Iterable[Batch],
    optimizer: torch.optim.Optimizer,
    objective: Objective,
    method: Balancing,
    epoch: int,
) -> Tensor:
    """One step per mini-batch, as `method` takes it; returns the sum of the loss over samples, in nats."""
    model.train()
    total = torch.zeros((), device=next(model.parameters()).device)
    for batch in batches:
        total += method.step(model, batch, objective, optimizer, epoch) * len(batch)
    return total


def prepare(model: Classifier, part: Batch) -> None:
    """Fit what the pre-fusion module fixes before the training, if it has a `prepare`, as VGMR."""
    of_prefusion: Any = getattr(model.prefusion, "prepare", None)
    if of_prefusion is not None:
        of_prefusion(part.features, part.mask, part.label)


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
    corruption: Drawn | None = None,
    checkpoint: Callable[[int, Classifier], None] | None = None,
) -> History:
    """Train and leave the model at its best epoch by validation accuracy (ties: lower loss).

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
        seed: of the order of samples and of dropout; initial weights are the caller's.
        progress: show a bar over epochs.
        method: a fresh one of `vgmr.balancing`; None for plain training.
        optimizer: "adamw", or "sgd" with momentum 0.9.
        corruption: done to every mini-batch, drawn anew each time, whatever is trained. The best epoch is then
            chosen on the validation part as it is together with one corrupted copy of it, the same for all.
        checkpoint: called with the epoch, from 0, and the model after every epoch's validation.

    Raises:
        ValueError: labels out of range for the model, fewer than one epoch, or a method that is not defined for
            this model.
        FloatingPointError: the training loss is no longer finite.
    """
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1, got {epochs}")
    for name, part in (("train", data.train), ("validation", data.validation)):
        try:
            part.check(len(data.classes))
        except ValueError as error:
            raise ValueError(f"{data.name}, {name}: {error}") from None
    objective = Objective() if objective is None else objective
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    corrupting = torch.Generator().manual_seed(seed)
    validation = data.validation
    if corruption is not None:
        validation = joined(validation, corruption(validation, torch.Generator().manual_seed(0)))
    method = Balancing() if method is None else method
    method.start(model, data, epochs, seed)
    new_optimizer = partial(
        make_optimizer,
        optimizer,
        learning_rate=learning_rate,
        prefusion_learning_rate=prefusion_learning_rate,
        weight_decay=weight_decay,
    )
    stepper = new_optimizer(model, method=method)

    def train_copy(copy: Classifier, part: Batch, epochs: int, seed: int) -> None:
        device = part.label.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            order = torch.Generator().manual_seed(seed)
            plain, own = Balancing(), new_optimizer(copy)
            for epoch in range(epochs):
                batches = mini_batches(part, batch_size, order, length_buckets)
                train_epoch(copy, batches, own, Objective(0, 0, auxiliary=False), plain, epoch)

    loop = Loop(stepper, train_copy)
    part = method.training_part(data)
    prepare(model, part)
    history = History()
    best: tuple[float, float] = (-1.0, 0.0)
    best_state = {}
    started = time.perf_counter()
    for epoch in tqdm(range(epochs), desc="epochs", leave=False, disable=not progress):
        method.epoch_start(model, data, epoch, loop)
        batches = mini_batches(part, batch_size, generator, length_buckets)
        if corruption is not None:
            batches = map(partial(corruption, generator=corrupting), batches)
        total = train_epoch(model, batches, stepper, objective, method, epoch)
        logits = predict(model, validation)
        history.train_loss.append(float(total) / len(part))
        history.validation_loss.append(float(F.cross_entropy(logits, validation.label)))
        history.validation_accuracy.append(float((logits.argmax(1) == validation.label).float().mean()))
        if not (torch.isfinite(total) and torch.isfinite(logits).all()):
            raise FloatingPointError(
                f"the loss is no longer finite in epoch {epoch}: training {history.train_loss[-1]}, "
                f"validation {history.validation_loss[-1]}; "
                f"lower learning_rate, now {learning_rate}"
            )
        score = (history.validation_accuracy[-1], -history.validation_loss[-1])
        if score > best:
            best, history.best_epoch = score, epoch
            best_state = {name: value.clone() for name, value in model.state_dict().items()}
        if checkpoint is not None:
            checkpoint(epoch, model)
        method.epoch_end(model, data, epoch, loop)
        for name, value in method.noted().items():
            history.coefficients.setdefault(name, []).append(value)
    model.load_state_dict(best_state)
    model.eval()
    history.seconds = time.perf_counter() - started
    return history
