"""Several seeds of one variant in one pass: their weights are a batch dimension."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_map

from vgmr.balancing.base import Balancing
from vgmr.classifier import Classifier
from vgmr.data.types import Batch, MultimodalData
from vgmr.loop.graphs import Replayed, acts_alike, replayable
from vgmr.loop.history import History
from vgmr.loop.lists import Traced
from vgmr.loop.steps import Corruption, corrupted, sample_orders, trim
from vgmr.objective import Objective
from vgmr.refining.inputs import trusted_values


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


class Together:
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
        of_one_shape, step = not feeding.get("length_buckets"), (models[0], objective, Balancing())
        self.replayed = Replayed(self._step_of_all) if of_one_shape and replayable(*step) else None
        self.listed = of_one_shape and self.matrix.device.type == "cpu" and acts_alike(*step)
        self.gradient = Traced(self._gradient) if self.listed else self._gradient

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
                everyone = len(places) == len(parts)
                if everyone and self.replayed is not None and epoch >= self.loss.objective.warmup_epochs:
                    loss = self.replayed(batch) * size
                else:
                    loss = self._step(places, batch, epoch) * size
                del batch  # the next one then lies in the same memory, which the cache still holds
                totals = (
                    totals + loss
                    if everyone
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
            batches.append(corrupted(self.corruption, self.corrupting[seed], batch))

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

    def _step_of_all(self, batch: _Rows) -> Tensor:
        return self._step(list(range(len(self.running))), batch, self.loss.objective.warmup_epochs)

    def _step(self, places: list[int], batch: _Rows, epoch: int) -> Tensor:
        everyone = len(places) == len(self.matrix)
        matrix = self.matrix if everyone else self.matrix[places]
        fixed = self.fixed if everyone else {name: x[places] for name, x in self.fixed.items()}
        loss, gradient = self.gradient(min(epoch, self.loss.objective.warmup_epochs), matrix, fixed, batch)
        if not everyone:
            for name, x in self.fixed.items():
                x[places] = fixed[name]
        gradients = dict(zip(places, gradient, strict=True))
        for place, tensors in enumerate(self.rows):
            for tensor, part in zip(tensors, self.columns, strict=True):
                tensor.grad = gradients[place][part] if place in gradients else None
        self.optimizer.step()
        return loss

    def _gradient(
        self, epoch: int, matrix: Tensor, fixed: dict[str, Tensor], batch: _Rows
    ) -> tuple[Tensor, Tensor]:
        """The losses (seeds,), and their gradients with respect to `matrix`; after a warm-up epochs are alike."""
        matrix = matrix.detach().requires_grad_()
        with _plain_attention():
            loss = self._mapped(matrix, fixed, batch, True, epoch)
            (gradient,) = torch.autograd.grad(loss.sum(), matrix)
        return loss.detach(), gradient

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
        self.replayed = self.replayed and Replayed(self._step_of_all)
        self.gradient = Traced(self._gradient) if self.listed else self._gradient  # of other shapes from now on


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
            trial = Together(
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
