"""What a step of training takes: mini-batches, their corruption, dropout, the optimiser."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from vgmr.classifier import Classifier
from vgmr.data.types import Batch
from vgmr.fusion.attention import ByteDropout
from vgmr.refiner import VGMR
from vgmr.refining.inputs import check_inputs, shown

Corruption = Callable[[Batch, torch.Generator], Batch]


def use_byte_dropout(model: nn.Module) -> None:
    """Replace every `nn.Dropout` of `model` by `ByteDropout`; torch's of attention weights is switched off."""
    for module in list(model.modules()):
        if type(module) is nn.MultiheadAttention:
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
        # marks may be of whole sequences, one step long
        corrupted=batch.corrupted and {name: x[:, : lengths[name]] for name, x in batch.corrupted.items()},
    )


def sample_orders(
    part: Batch, batch_size: int, generator: torch.Generator, length_buckets: bool = False
) -> list[tuple[Tensor, dict[str, int] | None]]:
    """The rows of one epoch's mini-batches, and with `length_buckets` the longest sequence in each, by name.

    Where all modalities have as many steps as each other, these may be aligned, and stay as many.
    """
    order, device = torch.randperm(len(part), generator=generator), part.label.device
    if not length_buckets:
        return [(rows, None) for rows in order.to(device).split(batch_size)]
    lengths = {name: length.cpu() for name, length in part.lengths().items()}
    every = torch.stack(list(lengths.values()))
    total = every.sum(0)
    if len({x.shape[1] for x in part.features.values()}) == 1:
        lengths = dict.fromkeys(lengths, every.amax(0))
    buckets = order[total[order].argsort(stable=True)].split(batch_size)
    shuffled = [buckets[position] for position in torch.randperm(len(buckets), generator=generator).tolist()]
    return [
        (rows.to(device), {name: int(length[rows].max()) for name, length in lengths.items()}) for rows in shuffled
    ]


def known(model: Classifier, part: Batch) -> Batch:
    """The training part as its means over time with the values of its sequences, where `model` reads nothing else.

    So it is for one gate for a sequence, with values from anchors, in front of a backbone that reads means; any
    other model, a subclass of VGMR as well, gets the part as it is.
    """
    vgmr = model.prefusion
    if not (type(vgmr) is VGMR and vgmr.steady and not vgmr.learns_value and model.backbone.averages):
        return part
    assert vgmr.evidence is not None
    means = vgmr.evidence.judged(*check_inputs(vgmr.dims, part.features, part.model_mask), vgmr.judge)
    mask = {name: x[:, :1] for name, x in part.mask.items()}
    marks = part.corrupted and {name: x.any(1, keepdim=True) for name, x in part.corrupted.items()}
    return replace(part, features=means, mask=mask, padded=False, corrupted=marks)


def mini_batches(
    part: Batch, batch_size: int, generator: torch.Generator, length_buckets: bool = False
) -> Iterator[Batch]:
    """All samples once, in random order, as mini-batches on the device where `part` lies.

    Args:
        length_buckets: put samples of like length together and cut their common padding off, that of all
            modalities alike where they have the same steps; cheaper, but mini-batches are then no longer drawn
            uniformly.
    """
    for rows, longest in sample_orders(part, batch_size, generator, length_buckets):
        yield part.index(rows) if longest is None else trim(part.index(rows), longest)


OPTIMIZERS = ("adamw", "sgd")


def make_optimizer(
    kind: str,
    model: Classifier,
    learning_rate: float,
    prefusion_learning_rate: float | None = None,
    weight_decay: float = 0.01,
    method: nn.Module | None = None,
) -> torch.optim.Optimizer:
    """AdamW, or SGD with momentum 0.9, of the model and of the method; a group for each learning rate."""
    own = learning_rate if prefusion_learning_rate is None else prefusion_learning_rate
    rates = {id(parameter): own for parameter in model.prefusion.parameters()}
    groups: dict[float, list[Tensor]] = {}
    for parameter in (*model.parameters(), *(() if method is None else method.parameters())):
        groups.setdefault(rates.get(id(parameter), learning_rate), []).append(parameter)
    return optimizer_of(kind, [{"params": group, "lr": rate} for rate, group in groups.items()], weight_decay)


def optimizer_of(kind: str, groups: list[dict[str, Any]], weight_decay: float) -> torch.optim.Optimizer:
    """As `make_optimizer`, of groups of parameters with their learning rates; ValueError for another kind."""
    if not isinstance(kind, str) or kind not in OPTIMIZERS:
        raise ValueError(f"unknown optimizer {shown(kind)}; there are: {', '.join(OPTIMIZERS)}")
    if kind == "sgd":
        return torch.optim.SGD(groups, momentum=0.9, weight_decay=weight_decay, fused=True)
    on_gpu = groups[0]["params"][0].device.type == "cuda"
    return torch.optim.AdamW(groups, weight_decay=weight_decay, fused=True, capturable=on_gpu)


def train_epoch(model: Classifier, batches: Iterable[Batch], step: Callable[[Batch], Tensor]) -> Tensor:
    """A step, which returns its loss, per mini-batch; the sum of the loss over samples, in nats."""
    model.train()
    total = torch.zeros((), device=next(model.parameters()).device)
    for batch in batches:
        total += step(batch) * len(batch)
        del batch  # the next one then lies in the same memory, which the cache still holds
    return total


def prepare(model: Classifier, part: Batch) -> None:
    """Fit what the pre-fusion module fixes before the training, if it has a `prepare`, as VGMR."""
    of_prefusion: Any = getattr(model.prefusion, "prepare", None)
    if of_prefusion is not None:
        of_prefusion(part.features, part.mask, part.label)


def corrupted(corruption: Corruption, generator: torch.Generator, batch: Batch) -> Batch:
    """Samples after a corruption: padding holds zeros again, and `padded` says where the mask may have changed."""
    fresh = corruption(batch, generator)
    fresh = fresh if fresh.mask is batch.mask else replace(fresh, padded=True)
    if not fresh.padded:
        return fresh
    cut = {name: torch.where(fresh.mask[name].unsqueeze(2), x, 0.0) for name, x in fresh.features.items()}
    return replace(fresh, features=cut)
