"""`fit`, the only training loop."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import accumulate
from numbers import Integral
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_map

from vgmr.backbones import Classifier
from vgmr.balancing.base import Balancing, Loop
from vgmr.corruption import joined
from vgmr.data.types import Batch, MultimodalData
from vgmr.fusion.base import steady
from vgmr.inference import predict
from vgmr.objective import Objective, task_loss
from vgmr.refiner import is_weight, is_whole, trusted_values
from vgmr.work import bar


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


class ByteDropout(nn.Module):
    """Dropout with masks drawn as bytes, several times cheaper on a CPU; p is rounded to 1/256, below 1."""

    def __init__(self, p: float):
        super().__init__()
        self.threshold = min(round(256 * p), 255)

    def forward(self, x: Tensor) -> Tensor:
        """x, in training with a share p zero and the rest scaled by 1 / (1 - p)."""
        if not self.training or not self.threshold:
            return x
        words = x.new_empty(x.numel() // 8 + 1, dtype=torch.int64)
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


def sample_orders(
    part: Batch, batch_size: int, generator: torch.Generator, length_buckets: bool = False
) -> list[tuple[Tensor, dict[str, int] | None]]:
    """The rows of one epoch's mini-batches, and with `length_buckets` the longest sequence in each, by name."""
    order, device = torch.randperm(len(part), generator=generator), part.label.device
    if not length_buckets:
        return [(rows, None) for rows in order.to(device).split(batch_size)]
    lengths = {name: length.cpu() for name, length in part.lengths().items()}
    total = torch.stack(list(lengths.values())).sum(0)
    buckets = order[total[order].argsort(stable=True)].split(batch_size)
    shuffled = [buckets[position] for position in torch.randperm(len(buckets), generator=generator).tolist()]
    return [
        (rows.to(device), {name: int(length[rows].max()) for name, length in lengths.items()}) for rows in shuffled
    ]


def mini_batches(
    part: Batch, batch_size: int, generator: torch.Generator, length_buckets: bool = False
) -> Iterator[Batch]:
    """All samples once, in random order, as mini-batches on the device where `part` lies.

    Args:
        length_buckets: put samples of like length together and cut their common padding off; cheaper, but
            mini-batches are then no longer drawn uniformly.
    """
    for rows, longest in sample_orders(part, batch_size, generator, length_buckets):
        batch = part.index(rows)
        yield batch if longest is None else trim(batch, longest)


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
    prefusion = list(model.prefusion.parameters())
    owned = {id(parameter) for parameter in prefusion}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in owned]
    groups = [
        {"params": rest, "lr": learning_rate},
        {"params": prefusion, "lr": learning_rate if prefusion_learning_rate is None else prefusion_learning_rate},
        {"params": [] if method is None else list(method.parameters()), "lr": learning_rate},
    ]
    return _optimizer(kind, [group for group in groups if group["params"]], weight_decay)


def _optimizer(kind: str, groups: list[dict[str, Any]], weight_decay: float) -> torch.optim.Optimizer:
    if kind not in OPTIMIZERS:
        raise ValueError(f"unknown optimizer {kind!r}; there are: {', '.join(OPTIMIZERS)}")
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


Corruption = Callable[[Batch, torch.Generator], Batch]


def prepare(model: Classifier, part: Batch) -> None:
    """Fit what the pre-fusion module fixes before the training, if it has a `prepare`, as VGMR."""
    of_prefusion: Any = getattr(model.prefusion, "prepare", None)
    if of_prefusion is not None:
        of_prefusion(part.features, part.mask, part.label)


def _corrupt(corruption: Corruption, generator: torch.Generator, batch: Batch) -> Batch:
    fresh = corruption(batch, generator)
    return fresh if fresh.mask is batch.mask else replace(fresh, padded=True)


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

    def train(self, epoch: int) -> list[Tensor]:
        """Every step of an epoch; the mean loss."""
        self.method.epoch_start(self.model, self.data, epoch, self.loop)
        batches: Iterable[Batch] = mini_batches(self.part, generator=self.order, **self.feeding)
        if self.corruption is not None:
            batches = map(partial(_corrupt, self.corruption, self.corrupting), batches)
        total = train_epoch(self.model, batches, self.loop.optimizer, self.objective, self.method, epoch)
        return [total / len(self.part)]

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


class _Rows(NamedTuple):
    """Samples of several seeds, (seeds, B, ...), or (B, ...) where all see the same."""

    features: dict[str, Tensor]
    mask: dict[str, Tensor] | None
    label: Tensor
    corrupted: dict[str, Tensor] | None = None


class _Pool:
    """The parts of several seeds as one: equal ones are held once, others stand behind each other."""

    def __init__(self, parts: Sequence[Batch]):
        keys = [tuple(map(id, (*part.features.values(), *part.mask.values(), part.label))) for part in parts]
        held = dict(zip(keys, (part.noting_padding() for part in parts), strict=True))
        start = dict(zip(held, accumulate(map(len, held.values()), initial=0), strict=False))
        self.parts, self.offset = [held[key] for key in keys], [start[key] for key in keys]
        self.same, self.padded = len(held) == 1, any(part.padded for part in held.values())
        self.features = {name: self._joined([x.features[name] for x in held.values()]) for name in parts[0].mask}
        self.mask = {name: self._joined([x.mask[name] for x in held.values()]) for name in parts[0].mask}
        self.label = self._joined([x.label for x in held.values()])

    def _joined(self, tensors: list[Tensor]) -> Tensor:
        return tensors[0] if self.same else torch.cat(tensors)

    def take(self, rows: Tensor, longest: Mapping[str, int] | None = None) -> _Rows:
        """The samples at `rows`, an index of one or two axes into the pool, up to the `longest` step."""

        def at(x: Tensor, name: str = "") -> Tensor:
            taken = x.index_select(0, rows.flatten()).unflatten(0, rows.shape)
            return taken.narrow(rows.ndim, 0, longest[name]) if longest and name else taken

        mask = {name: at(x, name) for name, x in self.mask.items()} if self.padded else None
        return _Rows({name: at(x, name) for name, x in self.features.items()}, mask, at(self.label))


class _Loss(nn.Module):
    """The objective as a module around its model, so that weights can be given from outside."""

    def __init__(self, model: Classifier, objective: Objective):
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, batch: Any, epoch: int | None) -> Tensor:
        """The loss of a batch, a scalar; without an epoch the logits."""
        output = self.model(batch.features, batch.mask)
        return output.logits if epoch is None else self.objective(self.model, output, batch, epoch)


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Attention by matrix products and softmax: the fused kernels have no rule for `vmap`."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _turned(x: Tensor) -> Tensor:
    """A matrix transposed, as gradients of matrices come from products mapped over seeds; all else as it is."""
    return x.t() if x.ndim == 2 else x


class _Together:
    """The epochs of several seeds in one pass: weights are a matrix with a row per seed, and `vmap` goes along it.

    Rows are what the optimiser knows; one has a gradient only in the steps that its seed takes. Seeds whose
    mini-batches have the same size in a step take it together, so that parts may be of unequal size.
    """

    def __init__(
        self,
        models: Sequence[Classifier],
        data: Sequence[MultimodalData],
        validation: Sequence[Batch],
        seeds: Sequence[int],
        objective: Objective,
        new_optimizer: Callable[[list[list[Tensor]]], torch.optim.Optimizer],
        two_rates: bool,
        corruption: Corruption | None,
        feeding: Mapping[str, Any],
    ):
        self.models, self.loss = list(models), _Loss(models[0], objective)
        self.pool, self.validation = _Pool([each.train for each in data]), _Pool(validation)
        self.corruption, self.feeding = corruption, feeding
        self.order = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.corrupting = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.running = list(range(len(models)))
        learning = self._reached()
        named = [{**dict(model.named_parameters()), **dict(model.named_buffers())} for model in self.models]
        place = {id(x): name for name, x in named[0].items()}
        self.slots: list[tuple[dict[str, Any], str, str]] = []
        for module in self.models[0].modules():
            tensors: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
            self.slots += [(h, key, place[id(x)]) for h in tensors for key, x in h.items() if x is not None]
        own = {id(x) for x in self.models[0].prefusion.parameters()} if two_rates else set()
        learning.sort(key=lambda name: id(named[0][name]) in own)
        split = sum(named[0][name].numel() for name in learning if id(named[0][name]) not in own)
        self.shapes = {name: _turned(named[0][name]).shape for name in learning}
        self.fixed = {
            name: torch.stack([each[name].detach() for each in named])
            for name in named[0]
            if name not in self.shapes
        }
        rows = [torch.cat([_turned(each[name].detach()).flatten() for name in learning]) for each in named]
        self.matrix = torch.stack(rows)
        self.columns = [slice(0, split), slice(split, None)] if two_rates else [slice(None)]
        self.rows = [[row[part] for part in self.columns] for row in self.matrix]
        self.optimizer = new_optimizer([list(tensors) for tensors in zip(*self.rows, strict=True)])

    def _reached(self) -> list[str]:
        """The parameters that have a gradient; what no loss reaches is left as it is, as optimisers do."""
        loss = copy.deepcopy(self.loss).train()
        named = {name: x for name, x in loss.model.named_parameters() if x.requires_grad}
        drawn, device = self.corrupting[0].get_state(), self.pool.label.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            some = self._batch([0], [(torch.arange(min(2, len(self.pool.parts[0])), device=device), None)])
            first = [x if x is None else tree_map(lambda tensor: tensor[0], x) for x in some]
            value = loss(_Rows(*first), 0)  # type: ignore[arg-type]
        self.corrupting[0].set_state(drawn)
        gradients = torch.autograd.grad(value, list(named.values()), allow_unused=True)
        return [name for name, x in zip(named, gradients, strict=True) if x is not None]

    def _mapped(
        self, matrix: Tensor, fixed: dict[str, Tensor], batch: _Rows, per_seed: bool, epoch: int | None
    ) -> Tensor:
        def one(row: Tensor, fixed: dict[str, Tensor], batch: _Rows) -> Tensor:
            values = self._named(row) | fixed
            before = [held[key] for held, key, _ in self.slots]
            try:  # as torch.func.functional_call, which looks through all modules again in every step
                for held, key, name in self.slots:
                    held[key] = values[name]
                result: Tensor = self.loss(batch, epoch)
            finally:
                for (held, key, _), x in zip(self.slots, before, strict=True):
                    held[key] = x
            return result

        axis = 0 if per_seed else None
        axes = _Rows(*(None if x is None else axis for x in batch))  # type: ignore[arg-type]
        mapped: Tensor = torch.func.vmap(one, (0, 0 if fixed else None, axes), randomness="different")(
            matrix, fixed, batch
        )
        return mapped

    def _named(self, row: Tensor) -> dict[str, Tensor]:
        pieces = row.split([shape.numel() for shape in self.shapes.values()])
        return {
            name: _turned(piece.view(shape))
            for (name, shape), piece in zip(self.shapes.items(), pieces, strict=True)
        }

    def train(self, epoch: int) -> list[Tensor]:
        """Every step of an epoch; the mean loss of each seed that is running."""
        parts = [self.pool.parts[seed] for seed in self.running]
        orders = [
            sample_orders(part, generator=self.order[seed], **self.feeding)
            for seed, part in zip(self.running, parts, strict=True)
        ]
        self.loss.train()
        totals = self.matrix.new_zeros(len(parts))
        for step in range(max(map(len, orders))):
            sizes: dict[int, list[int]] = {}
            for place, order in enumerate(orders):
                if step < len(order):
                    sizes.setdefault(len(order[step][0]), []).append(place)
            for size, places in sizes.items():
                batch = self._batch(places, [orders[place][step] for place in places])
                loss = self._step(places, batch, epoch) * size
                totals = (
                    totals + loss
                    if len(places) == len(parts)
                    else totals.index_add(0, torch.tensor(places, device=totals.device), loss)
                )
        return list(totals / totals.new_tensor([len(part) for part in parts]))

    def _batch(self, places: list[int], entries: list[tuple[Tensor, dict[str, int] | None]]) -> _Rows:
        seeds = [self.running[place] for place in places]
        bounds = [longest for _, longest in entries if longest is not None]
        longest = {name: max(bound[name] for bound in bounds) for name in bounds[0]} if bounds else None
        if self.corruption is None:
            return self.pool.take(
                torch.stack([rows + self.pool.offset[s] for s, (rows, _) in zip(seeds, entries, strict=True)]),
                longest,
            )
        batches = []
        for seed, (rows, _) in zip(seeds, entries, strict=True):
            batch = self.pool.parts[seed].index(rows)
            batch = batch if longest is None else trim(batch, longest)
            batches.append(_corrupt(self.corruption, self.corrupting[seed], batch))

        def stacked(each: Sequence[dict[str, Tensor] | None]) -> dict[str, Tensor]:
            return {
                name: torch.stack([tensors[name] for tensors in each if tensors is not None])
                for name in each[0] or ()
            }

        padded = any(batch.padded for batch in batches)
        return _Rows(
            stacked([batch.features for batch in batches]),
            stacked([batch.mask for batch in batches]) if padded else None,
            torch.stack([batch.label for batch in batches]),
            stacked([batch.corrupted for batch in batches]) if batches[0].corrupted else None,
        )

    def _step(self, places: list[int], batch: _Rows, epoch: int) -> Tensor:
        everyone = len(places) == len(self.matrix)
        matrix = (self.matrix if everyone else self.matrix[places]).detach().requires_grad_()
        fixed = self.fixed if everyone else {name: x[places] for name, x in self.fixed.items()}
        with _plain_attention():
            loss = self._mapped(matrix, fixed, batch, True, epoch)
            (gradient,) = torch.autograd.grad(loss.sum(), matrix)
        if not everyone:
            for name, x in self.fixed.items():
                x[places] = fixed[name]
        gradients = dict(zip(places, gradient, strict=True))
        for place, tensors in enumerate(self.rows):
            for tensor, part in zip(tensors, self.columns, strict=True):
                tensor.grad = gradients[place][part] if place in gradients else None
        self.optimizer.step()
        return loss.detach()

    @torch.no_grad()
    def validate(self) -> list[Tensor]:
        """Logits of the validation part of each seed that is running."""
        pool, device = self.validation, self.matrix.device
        sizes = [len(pool.parts[seed]) for seed in self.running]
        values = sum(x[0].numel() for x in pool.features.values()) * len(self.running)
        every = torch.arange(max(sizes), device=device)
        if pool.same:
            rows = every
        else:  # what is missing at the end of a shorter part is answered and cut off
            last = zip(self.running, sizes, strict=True)
            rows = torch.stack([every.clamp(max=size - 1) + pool.offset[seed] for seed, size in last])
        self.loss.eval()
        answers = []
        with _plain_attention():
            for some in rows.split(min(256, max(16, 2**22 // values)), rows.ndim - 1):
                answers.append(self._mapped(self.matrix, self.fixed, pool.take(some), not pool.same, None))
        return [answer[:size] for answer, size in zip(torch.cat(answers, 1), sizes, strict=True)]

    def state(self, place: int) -> dict[str, Tensor]:
        """A copy of the state of the seed that runs at `place`."""
        fixed = {name: x[place] for name, x in self.fixed.items()}
        return {name: x.clone() for name, x in (self._named(self.matrix[place]) | fixed).items()}

    def end(self, epoch: int, histories: Sequence[History]) -> None:
        """Nothing: no balancing method is at work."""

    def keep(self, which: Sequence[int]) -> None:
        """Go on with the seeds at these places only."""
        if len(which) == len(self.running):
            return
        places = list(which)
        self.running = [self.running[place] for place in places]
        self.fixed = {name: x[places] for name, x in self.fixed.items()}
        self.rows = [self.rows[place] for place in places]
        for group in self.optimizer.param_groups:
            group["params"] = [group["params"][place] for place in places]
        self.matrix = self.matrix[places]
        for tensors, row in zip(self.rows, self.matrix, strict=True):
            for tensor, part in zip(tensors, self.columns, strict=True):
                tensor.data = row[part]


def pays_together(model: Classifier, data: MultimodalData, count: int, batch_size: int = 32) -> bool:
    """Whether `count` seeds in one pass cost less than one by one, by a rule from `vgmr bench --seeds`.

    On a GPU always. On a CPU where a step waits for Python more than for arithmetic and memory: from four seeds
    on, for mini-batches of at most 2^18 feature values, and at most 2^28 parameters x samples x steps of the
    longest sequence. Pooled models on vectors or short sequences pay, a Transformer on sequences does not.
    """
    part = data.train
    if part.label.device.type != "cpu":
        return count > 1
    values = batch_size * sum(x[0].numel() for x in part.features.values())
    steps = max(x.shape[1] for x in part.features.values())
    work = sum(x.numel() for x in model.parameters()) * batch_size * steps
    return count >= 4 and values <= 2**18 and work <= 2**28


def why_alone(
    models: Sequence[Classifier],
    data: Sequence[MultimodalData],
    objective: Objective | None = None,
    method: Balancing | None = None,
    corruption: Corruption | None = None,
) -> str:
    """Why these cannot be trained in one pass, one for each seed; empty if they can.

    Two samples go through two of the models at once to see whether every operation can be mapped over seeds.
    """
    if method is not None and type(method) is not Balancing:
        return f"{type(method).__name__} takes steps of its own"
    objective = Objective() if objective is None else objective
    if type(objective) is not Objective:
        return f"{type(objective).__name__} is not the package's objective"
    shapes = [[(name, x.shape, x.dtype) for name, x in model.state_dict().items()] for model in models]
    if any(shape != shapes[0] for shape in shapes):
        return "the models differ in their parameters"
    if len({x.dtype for x in models[0].parameters()}) > 1:
        return "parameters of several types"
    for part in ("train", "validation"):
        sizes = {tuple((name, x.shape[1:]) for name, x in each.parts[part].features.items()) for each in data}
        if len(sizes) > 1:
            return f"the {part} parts differ in modalities, steps or widths"
    device = data[0].train.label.device
    few = [replace(each, train=each.train.index(torch.arange(2, device=device))) for each in data[:2]]
    modes = [(module, module.training) for module in models[0].modules()]
    try:
        with (
            torch.random.fork_rng([device] if device.type == "cuda" else []),
            warnings.catch_warnings(),
            trusted_values(),
        ):
            warnings.simplefilter("error")
            trial = _Together(
                models[:2],
                few,
                [each.train for each in few],
                [0, 0],
                objective,
                lambda rows: torch.optim.AdamW(rows[0]),
                False,
                corruption,
                {"batch_size": 2},
            )
            trial.train(0)
            trial.validate()
    except (RuntimeError, ValueError, UserWarning) as error:
        return f"an operation cannot be mapped over seeds: {str(error).splitlines()[0]}"
    finally:
        for module, training in modes:
            module.training = training
    return ""


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
    steps: _Alone | _Together
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
            return _optimizer(optimizer, rated, weight_decay)

        for model, each in zip(models, data, strict=True):
            prepare(model, each.train)
        steps = _Together(
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
        part, plain, own = part.noting_padding(), Balancing(), new_optimizer(model)
        for epoch in range(epochs):
            batches = mini_batches(part, generator=order, **feeding)
            train_epoch(model, batches, own, Objective(0, 0, auxiliary=False), plain, epoch)
