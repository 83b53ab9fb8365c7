"""What determines a run: settings, data, code and the version of torch; and the key that they make."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cache, lru_cache
from importlib import import_module
from typing import Any

import torch

from vgmr import corruption
from vgmr.balancing import METHODS
from vgmr.data import loader
from vgmr.data.held import state
from vgmr.experiment import build, experiment_data, make_prefusion, train
from vgmr.fusion.confidence import ConfidenceGate
from vgmr.loop.steps import use_byte_dropout
from vgmr.objective import Objective
from vgmr.prefusion import Identity, width_for_budget
from vgmr.records import code
from vgmr.refiner import VGMR
from vgmr.settings import RIVALS, Experiment, Options
from vgmr.systems import BACKBONES
from vgmr.training import fit

PLACES = ("root", "device")  # say where a training ran, not what was trained

# What a row means where it says nothing. A new field is added with the value that means "as before"; a line is
# never changed, also where the default of `Experiment` does.
SILENT: dict[str, Any] = {
    "prefusion": "vgmr",
    "backbone": "pooled",
    "seed": 0,
    "root": None,
    "data_options": {},
    "modalities": None,
    "backbone_options": {},
    "latent_dim": 32,
    "amplification": 0.5,
    "retention": 0.2,
    "norm": "layer",
    "dropout": 0.1,
    "use_global_value": True,
    "use_channel_value": True,
    "use_agreement": True,
    "use_discrepancy": True,
    "neutral_start": False,
    "form": "paper",
    "value_from": "summaries",
    "retain": False,
    "value_target": "contribution",
    "value_weight": 0.1,
    "regulariser_weight": 0.01,
    "temperature": 1.0,
    "warmup_epochs": 0,
    "removal": "after",
    "epochs": 30,
    "batch_size": 32,
    "learning_rate": 1e-3,
    "prefusion_learning_rate": None,
    "weight_decay": 0.01,
    "length_buckets": False,
    "byte_dropout": False,
    "device": "auto",
    "method": "none",
    "method_options": {},
    "optimizer": "adamw",
    "training_noise": {},
    "training_corruption": {},
    "checkpoints": False,
    "fold": None,
    "patience": None,
    "sharing": False,
    "rank": None,
    "per_step": True,
    "sparsity": 0.0,
}

# What is not followed from the code of a training: registries, of which the parts in use are taken one by one, and
# what moves or describes files, whose content is checked elsewhere.
STOPS = (
    "vgmr.machine.files",
    "vgmr.data.fetch",
    "vgmr.data.store",
    "vgmr.data.held",
    "vgmr.data.load",
    "vgmr.data.names",
    "vgmr.data.loader",
    "vgmr.balancing.METHODS",
    "vgmr.balancing.make_method",
    "vgmr.settings.Experiment",
    "vgmr.experiment.Run",
    "vgmr.systems.BACKBONES",
    "vgmr.settings.RIVALS",
    "vgmr.fusion.confidence.ConfidenceGate",
    "vgmr.settings.PREFUSIONS",
    "vgmr.prefusion.Identity",
    "vgmr.refiner.VGMR",
    "vgmr.objective.Objective",
    "vgmr.corruption.noise",
    "vgmr.corruption.Drawn",
    "vgmr.loop.steps.use_byte_dropout",
)

NOT_OF_TABLES = (
    "vgmr.machine.files",
    "vgmr.machine.work",
    "vgmr.data.fetch",
    "vgmr.data.store",
    "vgmr.records.code",
    "vgmr.records.keys",
    "vgmr.records.kept",
)


def settings(experiment: Experiment) -> dict[str, Any]:
    """The fields of an experiment of which `SILENT` says otherwise, JSON-able; where it runs does not count."""
    chosen = {name: value for name, value in asdict(experiment).items() if name not in PLACES}
    found: dict[str, Any] = json.loads(
        json.dumps({name: value for name, value in chosen.items() if name == "dataset" or value != SILENT[name]})
    )
    return found


def from_settings(found: Mapping[str, Any]) -> Experiment:
    """The experiment of which `settings` says `found`."""
    given = SILENT | dict(found)
    if given["modalities"] is not None:
        given["modalities"] = tuple(given["modalities"])
    return Experiment(**given)


def code_of(experiment: Experiment) -> str:
    """Digest of the code that the training of an experiment rests on; see `vgmr.records.code`.

    A new system or data set, a mended docstring or message changes it for none that uses them not.
    """
    roots: list[Callable[..., Any]] = [train, build, make_prefusion, experiment_data, fit]
    roots += [loader(experiment.dataset), BACKBONES[experiment.backbone], METHODS[experiment.method]]
    parts: list[Callable[..., Any]] = [Objective, Identity if experiment.prefusion == "none" else VGMR]
    if experiment.prefusion in RIVALS:
        parts += [RIVALS[experiment.prefusion][0], width_for_budget]
    if experiment.prefusion == "confidence":
        parts.append(ConfidenceGate)
    if experiment.training_noise:
        parts.append(corruption.noise)
    if experiment.training_corruption:
        parts.append(corruption.Drawn)
    if experiment.byte_dropout:
        parts.append(use_byte_dropout)
    stops = set(STOPS) - {f"{part.__module__}.{part.__qualname__}" for part in parts}
    return _code((*roots, *parts), frozenset(stops))


_code = cache(code.digest)


def _digest(*parts: Any) -> str:
    everything = [*parts, torch.__version__.split("+")[0]]
    return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()[:24]


def key(experiment: Experiment, fingerprint: str) -> str:
    """Digest of all that determines what a training gives: settings, data, code, version of torch."""
    return _digest(settings(experiment), fingerprint, code_of(experiment))


def table_key(parameters: Mapping[str, Any], rests_on: Sequence[str]) -> str:
    """Digest of what determines a table: its parameters, the code it rests on, the version of torch.

    A table of trainings does not say which methods and systems it is about: it rests on all that there are.

    Args:
        rests_on: functions of this package, as "vgmr.module.function".

    Raises:
        ValueError: one of them is no function of this package.
    """
    functions: list[Callable[..., Any]] = []
    for name in rests_on:
        module, _, function = name.rpartition(".")
        if module not in code.SOURCES or not callable(found := getattr(import_module(module), function, None)):
            raise ValueError(f"{name} is no function of this package; name what the table rests on")
        functions.append(found)
    return _digest(parameters, code.digest(functions, NOT_OF_TABLES))


def fingerprint(experiment: Experiment) -> str | None:
    """Of the experiment's data, or None where they are not on this machine and cannot be had."""
    try:
        changes = state(experiment.dataset, experiment.root)
        options, modalities = experiment.data_options, experiment.modalities
        return _fingerprint(experiment.dataset, experiment.root, options, experiment.fold, modalities, changes)
    except FileNotFoundError:
        return None


@lru_cache(maxsize=4096)  # more splits than are held as data
def _fingerprint(
    dataset: str,
    root: str | None,
    data_options: Options,
    fold: int | None,
    modalities: tuple[str, ...] | None,
    changes: str,
) -> str:
    one = Experiment(dataset, root=root, data_options=data_options, fold=fold, modalities=modalities)
    return experiment_data(one).fingerprint
