"""`Experiment`: all that can be set of a training, and what is refused of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from vgmr import corruption
from vgmr.balancing import METHODS, make_method
from vgmr.data import names
from vgmr.data.types import Batch
from vgmr.fusion.base import check_weights
from vgmr.fusion.squeeze_excitation import SqueezeExcitation
from vgmr.loop.steps import OPTIMIZERS
from vgmr.objective import TARGETS, Objective
from vgmr.prefusion import CrossAttention, FeatureMLP, SigmoidTanhGate
from vgmr.refiner import FORMS, VGMR
from vgmr.systems import BACKBONES, check_options

RIVALS: dict[str, tuple[Callable[..., nn.Module], int]] = {  # with what their width is a multiple of
    "mlp": (FeatureMLP, 1),
    "cross-attention": (CrossAttention, 4),
    "sigmoid-tanh": (SigmoidTanhGate, 1),
    "se": (SqueezeExcitation, 1),
}
PREFUSIONS = ("none", *RIVALS, "confidence", "vgmr")
NORMS = ("layer", "none")
OF_FORM: Any = None  # a switch of VGMR that the form sets
PAPERS = {  # the switches that forms set, as the paper and VGMR by itself have them
    name: inspect.signature(VGMR).parameters[name].default for form in FORMS.values() for name in form
}


class Options(dict[str, Any]):
    """A mapping that does not change, so that it has a hash."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(_hashable(self))

    def __reduce__(self) -> Any:
        return Options, (dict(self),)

    def _refuse(self, *_: Any, **__: Any) -> Any:
        raise TypeError("the options of an experiment do not change; use dataclasses.replace")

    __setitem__ = __delitem__ = __ior__ = update = pop = popitem = clear = setdefault = _refuse


def _of_json(value: Mapping[str, Any], what: str) -> Mapping[str, Any]:
    """The same, with NumPy's numbers and paths as JSON has them; ValueError in one line for what it has not."""

    def plain(inner: Any) -> Any:
        if isinstance(inner, Mapping):
            return {name: plain(one) for name, one in inner.items()}
        if isinstance(inner, list | tuple):
            return type(inner)(map(plain, inner))
        if isinstance(inner, np.generic | np.ndarray):
            return inner.tolist()
        if inner is None or isinstance(inner, str | int | float):
            return inner
        if isinstance(inner, Path):
            return str(inner)
        raise ValueError(
            f"{what}: expected numbers, text or lists of them, got {type(inner).__name__}; give those"
        )

    return {name: plain(one) for name, one in value.items()}


def _hashable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return frozenset((name, _hashable(inner)) for name, inner in value.items())
    return tuple(map(_hashable, value)) if isinstance(value, list | tuple) else value


@dataclass(frozen=True)
class Experiment:
    """One training, flat and complete; see the functions that take these values for what they mean.

    `prefusion` other than "none" and "vgmr" gets the width whose parameters equal VGMR's at `latent_dim`, but for
    "confidence", `vgmr.fusion.confidence.ConfidenceGate`, which has none.
    `backbone_options` go to the backbone, `data_options` to the data set's loader, `method_options` to the method,
    one of `vgmr.balancing`. With the method "mla" the head is "shared", unless `backbone_options` say otherwise.
    `training_noise` are arguments of `vgmr.corruption.noise` for the training and the validation part; the test
    part stays as it is. `training_corruption` are arguments of `vgmr.corruption.Drawn.like`: drawn anew for every
    mini-batch of any variant. `form`, a name in `vgmr.refiner.FORMS`, sets those of VGMR's switches that are
    not given; the calibrated form, the adopted one, learns no value, so the value's loss and the regulariser do
    nothing in it. They are set when the experiment is made: from the calibrated form to another, make a new one,
    as `dataclasses.replace` would keep them. A rival's width follows from the parameters of that form.
    `checkpoints` keeps the weights after every epoch. `fold` is one part of a cross-validation, for data
    sets that have folds. `device` "auto" is a GPU where there is one.

    Raises:
        ValueError: what cannot be trained, when it is made.
    """

    dataset: str
    prefusion: str = "vgmr"
    backbone: str = "pooled"
    seed: int = 0
    root: str | None = None
    data_options: Mapping[str, Any] = field(default_factory=Options)
    modalities: tuple[str, ...] | None = None
    backbone_options: Mapping[str, Any] = field(default_factory=Options)
    latent_dim: int = 32
    amplification: float = OF_FORM
    retention: float = OF_FORM
    norm: str = OF_FORM
    dropout: float = 0.1
    use_global_value: bool = True
    use_channel_value: bool = True
    use_agreement: bool = True
    use_discrepancy: bool = True
    neutral_start: bool = OF_FORM
    form: str = "calibrated"
    value_from: str = OF_FORM
    retain: bool = OF_FORM
    value_target: str = "contribution"
    value_weight: float = 0.1
    regulariser_weight: float = 0.01
    temperature: float = 1.0
    warmup_epochs: int = 0
    removal: str = "after"
    epochs: int = 30
    batch_size: int = 32
    learning_rate: float = 1e-3
    prefusion_learning_rate: float | None = None
    weight_decay: float = 0.01
    length_buckets: bool = False
    byte_dropout: bool = False
    device: str = "auto"
    method: str = "none"
    method_options: Mapping[str, Any] = field(default_factory=Options)
    optimizer: str = "adamw"
    training_noise: Mapping[str, Any] = field(default_factory=Options)
    training_corruption: Mapping[str, Any] = field(default_factory=Options)
    checkpoints: bool = False
    fold: int | None = None
    patience: int | None = None
    sharing: bool = False
    rank: int | None = None
    per_step: bool = True
    sparsity: float = 0.0

    def __post_init__(self) -> None:
        if self.root is not None:
            object.__setattr__(self, "root", str(self.root))
        if isinstance(self.modalities, str):
            raise ValueError(f"modalities must be a tuple of names, got {self.modalities!r}")
        if self.modalities is not None:
            object.__setattr__(self, "modalities", tuple(self.modalities))
        for entry in fields(self):
            if isinstance(value := getattr(self, entry.name), np.generic):
                object.__setattr__(self, entry.name, value.item())
            if isinstance(value, Mapping):
                object.__setattr__(self, entry.name, Options(_of_json(value, entry.name)))
        if self.form not in FORMS:
            raise ValueError(f"unknown form {self.form!r}; there are: {', '.join(FORMS)}")
        given = {name: getattr(self, name) for name in PAPERS}
        replaced = given == PAPERS  # as dataclasses.replace leaves them of an experiment in the paper's form
        for name, value in (PAPERS | FORMS[self.form]).items():
            if given[name] is OF_FORM or replaced:
                object.__setattr__(self, name, value)
        for what, value, choices in (
            ("data set", self.dataset, names()),
            ("prefusion", self.prefusion, PREFUSIONS),
            ("backbone", self.backbone, BACKBONES),
            ("norm", self.norm, NORMS),
            ("method", self.method, METHODS),
            ("optimizer", self.optimizer, OPTIMIZERS),
            ("value_target", self.value_target, TARGETS),
        ):
            if not isinstance(value, str) and what in ("data set", "prefusion", "backbone", "method"):
                raise ValueError(
                    f"{what} must be a name, got {type(value).__name__}; give it one (README.md, To add), or "
                    f"train with vgmr.fit, which takes objects; there are: {', '.join(choices)}"
                )
            if value not in choices:
                raise ValueError(f"unknown {what} {value!r}; there are: {', '.join(choices)}")
        for entry in fields(self):
            if entry.type == "bool" and not isinstance(getattr(self, entry.name), bool):
                raise ValueError(f"{entry.name} must be True or False, got {getattr(self, entry.name)!r}")
            if entry.type == "str" and not isinstance(getattr(self, entry.name), str):
                raise ValueError(f"{entry.name} must be text, got {getattr(self, entry.name)!r}")
            if entry.type == "Mapping[str, Any]" and not isinstance(getattr(self, entry.name), Mapping):
                raise ValueError(
                    f"{entry.name} must be a dict, option -> value, got {getattr(self, entry.name)!r}"
                )
        least_of = {"seed": 0, "epochs": 1, "batch_size": 1, "latent_dim": 1, "fold": 0, "patience": 1}
        for what, least in least_of.items():
            value = getattr(self, what)
            if what in ("fold", "patience") and value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"{what} must be a whole number of at least {least}, got {value!r}")
        for what, place in {"root": "root", "name": "dataset"}.items():
            if what in self.data_options:
                raise ValueError(f"data_options hold {what!r}, which stands outside; give {place}= of Experiment")
        if self.fold is not None and "fold" in self.data_options:
            raise ValueError(
                f"fold {self.fold} and data_options with fold {self.data_options['fold']}: give one of them"
            )
        if self.seed >= 2**63:
            raise ValueError(f"seed must be below 2**63, got {self.seed}")
        weights = ["value_weight", "regulariser_weight", "temperature", "warmup_epochs"]
        weights += ["learning_rate", "weight_decay"]
        weights += [] if self.prefusion_learning_rate is None else ["prefusion_learning_rate"]
        check_weights(**{what: getattr(self, what) for what in weights})
        make_method(self.method, **self.method_options)
        check_options(self.backbone, self.backbone_options)
        needed = METHODS[self.method].head
        if needed is not None and self.backbone not in ("pooled", "transformer"):
            raise ValueError(
                f"method {self.method!r} is defined for the head {needed!r} of the backbones pooled and "
                f"transformer, got backbone {self.backbone!r}"
            )
        _tried(
            Options(filled(VGMR, self, num_classes=2)),
            Options(filled(Objective, self, target=self.value_target)),
            self.training_noise,
            self.training_corruption,
            self.device,
        )


@lru_cache(maxsize=256)
def _tried(vgmr: Options, objective: Options, noise: Options, drawn: Options, device: str) -> None:
    """What takes these settings, made or called once on two samples of nothing: ValueError where it refuses."""
    with torch.device("meta"):
        VGMR({"a": 1, "b": 1}, **vgmr)
    Objective(**objective)
    if device != "auto":
        try:
            torch.device(device)
        except RuntimeError:
            raise ValueError(f"unknown device {device!r}; there are: auto, cpu, cuda, mps") from None
    for what, options, call in (
        ("training_noise", noise, lambda few, **given: corruption.noise(few, few, **given)),
        ("training_corruption", drawn, corruption.Drawn.like),
    ):
        try:
            if options:
                call(_nothing(options), **options)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{what}: {error}") from None


def _nothing(options: Mapping[str, Any]) -> Batch:
    """Two samples of the modalities that options name."""
    named = options.get("modalities")
    names = named if isinstance(named, list | tuple) and named else ("a", "b")
    one = torch.zeros(2, 1, 1)
    return Batch(dict.fromkeys(names, one), dict.fromkeys(names, one[..., 0] == 0), torch.arange(2))


def filled(function: Callable[..., Any], experiment: Experiment, **others: Any) -> dict[str, Any]:
    """The arguments of `function` that an experiment has under the same names, and `others` instead of those."""
    accepted = inspect.signature(function).parameters
    named = [entry.name for entry in fields(experiment) if entry.name in accepted]
    return {name: getattr(experiment, name) for name in named} | others
