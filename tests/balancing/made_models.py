"""Small models, data and single steps for the tests of balancing methods."""

from functools import lru_cache

import torch
from torch import nn

from vgmr.backbones import PooledBackbone, TransformerBackbone
from vgmr.balancing import Balancing, Loop
from vgmr.classifier import Classifier
from vgmr.data import MultimodalData, load
from vgmr.loop.steps import make_optimizer
from vgmr.objective import Objective
from vgmr.prefusion import Identity
from vgmr.refiner import VGMR

THREE = ("left", "right", "spectrum")
TWO = ("left", "spectrum")


@lru_cache
def digits(names: tuple[str, ...] = THREE) -> MultimodalData:
    return load("digits").select(list(names))


def make_model(
    names: tuple[str, ...] = THREE,
    backbone: str = "pooled",
    prefusion: str = "none",
    head: str = "concat",
    dropout: float = 0.0,
    seed: int = 0,
) -> Classifier:
    torch.manual_seed(seed)
    dims = digits(names).dims
    behind: nn.Module
    if backbone == "pooled":
        behind = PooledBackbone(dims, 10, 8, dropout, head)
    else:
        behind = TransformerBackbone(dims, 10, 8, 8, 1, 2, 16, dropout, head)
    before = Identity(dims) if prefusion == "none" else VGMR(dims, 4, dropout=dropout)
    return Classifier(before, behind)


def start(method: Balancing, model: Classifier, kind: str = "sgd", rate: float = 0.0) -> torch.optim.Optimizer:
    """Start a method of 10 epochs and prepare epoch 0; trial trainings do nothing."""
    data = digits(tuple(model.backbone.dims))
    method.start(model, data, 10, 0)
    optimizer = make_optimizer(kind, model, rate, weight_decay=0.0, method=method)
    method.epoch_start(model, data, 0, Loop(optimizer, lambda *arguments: None))
    model.train()
    return optimizer


def take_step(
    method: Balancing,
    model: Classifier,
    optimizer: torch.optim.Optimizer,
    epoch: int = 0,
    rows: torch.Tensor | None = None,
) -> dict[str, torch.Tensor]:
    """One step; returns the gradients that the optimiser saw, by parameter name."""
    train = digits(tuple(model.backbone.dims)).train
    batch = train.index(torch.arange(32) if rows is None else rows)
    method.step(model, batch, Objective(), optimizer, epoch)
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def gradients(method: Balancing, model: Classifier, epoch: int = 0) -> dict[str, torch.Tensor]:
    """What a method makes of the gradients of the first 32 samples; the model stays as it is."""
    return take_step(method, model, start(method, model), epoch)


def names_of(model: Classifier, parameters: list[nn.Parameter]) -> set[str]:
    wanted = {id(parameter) for parameter in parameters}
    return {name for name, parameter in model.named_parameters() if id(parameter) in wanted}


def differing(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> set[str]:
    """Names whose tensors are not equal bit by bit."""
    assert set(one) == set(other)
    return {name for name in one if not torch.equal(one[name], other[name])}
