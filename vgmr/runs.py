"""Runs on disk: cached by all that determines them, and kept as records in the repository.

Nothing on disk is trusted: what is damaged is named in a warning and made again.
"""

from __future__ import annotations

import base64
import hashlib
import json
import warnings
import zlib
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from vgmr import code, corruption
from vgmr.backbones import BACKBONES, Classifier
from vgmr.balancing import METHODS, Balancing
from vgmr.data import loader
from vgmr.experiment import (
    RIVALS,
    Experiment,
    Options,
    Run,
    Watch,
    alike,
    build,
    chosen_device,
    experiment_data,
    make_prefusion,
    together,
    train,
    train_together,
)
from vgmr.files import cache_folder, in_repository, whole_folder, writable, write
from vgmr.objective import Objective
from vgmr.prefusion import Identity, width_for_budget
from vgmr.refiner import VGMR
from vgmr.steps import use_byte_dropout
from vgmr.training import History, fit
from vgmr.work import bar, in_processes

L = TypeVar("L", bound=Hashable)  # a label: a name, or several
K = TypeVar("K")
AT_ONCE = 5  # twenty seeds of word sequences in one pass asked for 31 GB

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
    "sparsity": 0.0,
}
# What is not followed from the code of a training: registries, of which the parts in use are taken one by one, and
# what moves or describes files, whose content is checked elsewhere.
STOPS = (
    "vgmr.files",
    "vgmr.data.fetch",
    "vgmr.data.store",
    "vgmr.data.load",
    "vgmr.data.names",
    "vgmr.data.loader",
    "vgmr.balancing.METHODS",
    "vgmr.balancing.make_method",
    "vgmr.experiment.Experiment",
    "vgmr.experiment.Run",
    "vgmr.backbones.BACKBONES",
    "vgmr.experiment.RIVALS",
    "vgmr.experiment.PREFUSIONS",
    "vgmr.prefusion.Identity",
    "vgmr.refiner.VGMR",
    "vgmr.objective.Objective",
    "vgmr.corruption.noise",
    "vgmr.corruption.Drawn",
    "vgmr.steps.use_byte_dropout",
)
KEPT = (
    "metrics",
    "subset_accuracy",
    "parameters",
    "prefusion_parameters",
    "seconds",
    "peak_memory",
    "fingerprint",
    "stand_in",
    "environment",
    "device",
    "key",
)
DAMAGED = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, zlib.error)


# What determines a run


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
    """Digest of the code that the training of an experiment rests on; see `vgmr.code`.

    A new system or data set, a mended docstring or message changes it for none that uses them not.
    """
    return _code(
        experiment.dataset,
        experiment.prefusion,
        experiment.backbone,
        experiment.method,
        bool(experiment.training_noise),
        bool(experiment.training_corruption),
        experiment.byte_dropout,
    )


@cache
def _code(
    dataset: str, prefusion: str, backbone: str, method: str, noise: bool, drawn: bool, byte_dropout: bool
) -> str:
    roots: list[Callable[..., Any]] = [train, build, make_prefusion, experiment_data, fit]
    roots += [loader(dataset), BACKBONES[backbone], METHODS[method]]
    stops = set(STOPS)
    parts: list[Callable[..., Any]] = [Identity] if prefusion == "none" else [VGMR, Objective]
    if prefusion in RIVALS:
        parts += [RIVALS[prefusion][0], width_for_budget]
    optional: dict[Callable[..., Any], bool] = {
        corruption.noise: noise,
        corruption.Drawn: drawn,
        use_byte_dropout: byte_dropout,
    }
    parts += [Objective, *(part for part, used in optional.items() if used)]
    for part in parts:
        stops.discard(f"{part.__module__}.{part.__qualname__}")
    return code.digest([*roots, *parts], stops)


def key(experiment: Experiment, fingerprint: str) -> str:
    """Digest of all that determines what a training gives: settings, data, code, version of torch."""
    everything = [settings(experiment), fingerprint, code_of(experiment), torch.__version__.split("+")[0]]
    return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()[:24]


def run_folder(experiment: Experiment, fingerprint: str) -> Path:
    """Where a run lies or will lie in the cache; each device has its own."""
    device = chosen_device("auto").type if experiment.device == "auto" else experiment.device
    return cache_folder() / "runs" / f"{key(experiment, fingerprint)}-{device.replace(':', '-')}"


# Runs in the cache


def _digests(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.safetensors"))
    }


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_run(folder: Path) -> Run:
    """A finished run from its folder.

    Raises:
        ValueError: it is incomplete or damaged, with the path, in one line.
    """
    try:
        content = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        if content.pop("digest") != _digest(content):
            raise ValueError("it is not what was written")
        weights = content.pop("weights")
        found = Run(
            experiment=from_settings(content.pop("experiment")),
            history=History(**content.pop("history")),
            path=str(folder),
            **content,
        )
        _check(found)
    except DAMAGED as error:
        raise ValueError(f"{folder / 'run.json'} is no intact run ({type(error).__name__}: {error})") from None
    if _digests(folder) != weights:
        raise ValueError(f"{folder}: the weights are not those that were written")
    return found


def _check(found: Run) -> None:
    """ValueError where a run's parts do not fit together."""
    numbers = [*found.metrics.values(), *found.subset_accuracy.values(), found.seconds, found.peak_memory]
    if not all(isinstance(value, int | float) for value in numbers) or "accuracy" not in found.metrics:
        raise ValueError("metrics are not numbers")
    if found.label and len(found.prediction) != len(found.label):
        raise ValueError(f"{len(found.prediction)} predictions for {len(found.label)} labels")
    if not isinstance(found.fingerprint, str) or not isinstance(found.environment, dict):
        raise ValueError("fingerprint or environment is missing")


def _finished(folder: Path) -> Run | None:
    if not folder.is_dir():
        return None
    try:
        return read_run(folder)
    except ValueError as error:
        warnings.warn(f"a run on disk is refused and made again: {error}", stacklevel=4)
        return None


def _sound(folder: Path) -> bool:
    try:
        read_run(folder)
    except ValueError:
        return False
    return True


def _not_kept() -> str | None:
    """Why runs cannot be kept, or None."""
    reason = writable(cache_folder() / "runs")
    return reason and f"{reason}; runs are not kept and are trained again the next time; set VGMR_CACHE"


def _made(experiment: Experiment, folder: Path, keep: bool) -> Run:
    """Train; with `keep`, into `folder`, where the run appears whole or not at all."""
    return _kept(folder, keep, lambda watch: train(experiment, watch=watch if experiment.checkpoints else None))


def _made_together(
    group: Sequence[tuple[Path, Experiment]], keep: bool, wanted: Collection[Path]
) -> list[tuple[Path, Run]]:
    """As `_made`, for experiments that are trained in one pass; those that are wanted."""
    fresh = train_together([one for _, one in group])
    found = []
    for (folder, _), one in zip(group, fresh, strict=True):
        if folder in wanted:
            found.append((folder, _kept(folder, keep, partial(_given, one))))
    return found


def _given(run: Run, watch: Watch | None) -> Run:
    return run


def _kept(folder: Path, keep: bool, make: Callable[[Watch | None], Run]) -> Run:
    fresh: Run | None = None
    if not keep:
        fresh = make(None)
        return replace(fresh, key=key(fresh.experiment, fresh.fingerprint))
    try:
        with whole_folder(folder, _sound) as temporary:
            fresh = make(partial(_save_epoch, temporary))
            experiment = fresh.experiment
            fresh = replace(fresh, key=key(experiment, fresh.fingerprint))
            _save(fresh.model(), temporary / "model.safetensors")
            content = {
                entry.name: getattr(fresh, entry.name)
                for entry in fields(Run)
                if entry.name not in ("experiment", "history", "path", "trained")
            }
            content |= {
                "experiment": settings(experiment),
                "history": asdict(fresh.history),
                "weights": _digests(temporary),
            }
            content = json.loads(json.dumps(content))  # as it will be read
            content["digest"] = _digest(content)
            (temporary / "run.json").write_text(json.dumps(content), encoding="utf-8")
    except OSError as error:
        if fresh is None:
            raise
        warnings.warn(f"{folder} could not be written ({error}); the run is not kept", stacklevel=3)
        return fresh
    return read_run(folder)


def _save(model: nn.Module, path: Path) -> None:
    save_file({name: value.cpu().contiguous() for name, value in model.state_dict().items()}, path)


def _save_epoch(folder: Path, epoch: int, model: Classifier, method: Balancing) -> None:
    _save(model, folder / f"epoch-{epoch:03d}.safetensors")


def run(experiment: Experiment) -> Run:
    """`vgmr.experiment.train`, or the run from the cache if it was finished before.

    A run appears on disk whole or not at all; where the cache cannot be written, a warning says so.
    """
    if not isinstance(experiment, Experiment):
        raise TypeError(
            f"expected an Experiment, such as Experiment('digits'), got {type(experiment).__name__}; a model or "
            "data of your own are trained by vgmr.fit"
        )
    (found,) = run_all([experiment], jobs=1, progress=False)
    return found


@overload
def run_all(  # type: ignore[overload-overlap]
    experiments: Mapping[L, Sequence[Experiment]],
    jobs: int = 2,
    progress: bool = True,
    each: Callable[[Run], None] | None = None,
    cached: bool = True,
) -> dict[L, list[Run]]: ...


@overload
def run_all(
    experiments: Iterable[Experiment],
    jobs: int = 2,
    progress: bool = True,
    each: Callable[[Run], None] | None = None,
    cached: bool = True,
) -> list[Run]: ...


def run_all(
    experiments: Mapping[L, Sequence[Experiment]] | Iterable[Experiment],
    jobs: int = 2,
    progress: bool = True,
    each: Callable[[Run], None] | None = None,
    cached: bool = True,
) -> dict[L, list[Run]] | list[Run]:
    """Run many experiments, `jobs` processes with one thread each; lists by label as they came, or one list.

    Finished ones are read from the cache, so an interrupted call goes on where it stopped. Experiments that differ
    in seed and fold only are trained in one pass where that pays, `AT_ONCE` at a time in the order given; if one
    of them is missing, all are trained, so that it comes out the same.

    Args:
        each: called with every run that is trained here, as it comes.
        cached: read and fill the cache; else all are trained, and keep no weights.
    """
    if isinstance(experiments, Mapping):
        flat = [one for group in experiments.values() for one in group]
        found = iter(run_all(flat, jobs, progress, each, cached))
        return {label: [next(found) for _ in group] for label, group in experiments.items()}
    todo = list(experiments)
    folders = [run_folder(one, experiment_data(one).fingerprint) for one in todo]
    done: dict[Path, Run] = {}
    missing: dict[Path, Experiment] = {}
    for folder, one in zip(folders, todo, strict=True):
        if folder not in done and folder not in missing:
            finished = _finished(folder) if cached else None
            if finished is None:
                missing[folder] = one
            else:
                done[folder] = finished
    reason = _not_kept() if missing and cached else None
    if reason is not None:
        warnings.warn(reason, stacklevel=3)
    keep, workers = cached and reason is None, min(jobs, len(missing))
    start = {"total": len(todo), "initial": len(todo) - len(missing)}
    order = dict(zip(folders, todo, strict=True))
    tasks: list[_Task] = []
    for members in groups(order.items()):
        lacking = [(folder, one) for folder, one in members if folder in missing]
        if not lacking:
            continue
        if together([one for _, one in members]):
            tasks.append(partial(_made_together, members, keep, {folder for folder, _ in lacking}))
        else:
            tasks += [partial(_made_alone, folder, one, keep) for folder, one in lacking]
    with bar(**start, desc="runs", disable=not progress, leave=False) as state:
        in_turn = map(_call, tasks)
        for made in in_processes(_call, tasks, workers) if workers > 1 else in_turn:
            for folder, fresh in made:
                done[folder] = fresh = fresh if cached else replace(fresh, trained=None)
                state.update()
                if each is not None:
                    each(fresh)
    return [replace(done[folder], experiment=one) for folder, one in zip(folders, todo, strict=True)]


_Task = Callable[[], list[tuple[Path, Run]]]


def groups(items: Iterable[tuple[K, Experiment]]) -> list[list[tuple[K, Experiment]]]:
    """Items by what is trained in one pass, if it pays: `alike` experiments, at most `AT_ONCE`, in order."""
    by_kind: dict[Experiment, list[tuple[K, Experiment]]] = {}
    for name, one in items:
        by_kind.setdefault(alike(one), []).append((name, one))
    return [
        members[start : start + AT_ONCE]
        for members in by_kind.values()
        for start in range(0, len(members), AT_ONCE)
    ]


def _call(task: _Task) -> list[tuple[Path, Run]]:
    return task()


def _made_alone(folder: Path, experiment: Experiment, keep: bool) -> list[tuple[Path, Run]]:
    return [(folder, _made(experiment, folder, keep))]


# Records in the repository


def records_folder() -> Path:
    """Where records are, from whatever working directory."""
    return in_repository("notebooks/records")


def pack(values: Sequence[float]) -> str:
    """Numbers as short text: smallest whole type that holds them, half precision for fractions, compressed."""
    array = np.asarray(values)
    if array.dtype.kind == "f":
        array = array.astype("<f2")
    else:
        array = array.astype(np.min_scalar_type(array.max(initial=0)) if array.min(initial=0) >= 0 else np.int64)
        array = array.astype(array.dtype.newbyteorder("<"))
    text = base64.b64encode(zlib.compress(array.tobytes(), 9)).decode()
    return f"{array.dtype.str[1:]}:{text}"


def unpack(text: str) -> list[Any]:
    """The numbers that `pack` packed."""
    kind, _, content = text.partition(":")
    values: list[Any] = np.frombuffer(zlib.decompress(base64.b64decode(content)), np.dtype(f"<{kind}")).tolist()
    return values


def keep(path: Path, runs: Sequence[Run], curves: bool = False) -> None:
    """Write a record: one line of JSON per run, and one for each test part; the file appears whole.

    Args:
        curves: keep the loss curves, to 4 digits; without, only the best epoch and the seeds of the pass are kept.
    """
    parts: dict[str, dict[str, Any]] = {}
    lines = []
    for one in runs:
        rest = {name: getattr(one, name) for name in KEPT}
        rest["seconds"], rest["peak_memory"] = round(one.seconds, 2), round(one.peak_memory)
        known = asdict(one.history) | {"coefficients": {}}
        lists = ("train_loss", "validation_loss", "validation_accuracy")
        rest["history"] = known | {name: [round(x, 4) for x in known[name]] if curves else [] for name in lists}
        if one.prediction:
            packed = {"label": pack(one.label), "group": pack(one.group) if one.group else None}
            digest = hashlib.sha256(json.dumps(packed).encode()).hexdigest()[:16]
            parts[digest] = packed
            rest |= {"prediction": pack(one.prediction), "part": digest}
        lines.append(json.dumps({"experiment": settings(one.experiment), **rest}))
    heads = [json.dumps({"part": digest, **packed}) for digest, packed in parts.items()]
    write(path, "\n".join([*heads, *lines]) + "\n")


def read(path: Path) -> list[Run]:
    """All runs of a record; a missing file has none.

    A damaged line is named in a warning and left out.
    """
    found, parts = [], {}
    lines = path.read_bytes().splitlines() if path.exists() else []
    for number, line in enumerate(lines, 1):
        try:
            content = json.loads(line.decode("utf-8"))
            if "experiment" not in content:
                group = content["group"]
                parts[content["part"]] = unpack(content["label"]), [] if group is None else unpack(group)
                continue
            found.append(_row(content, parts))
        except DAMAGED as error:
            reason = f"{type(error).__name__}: {error}"
            warnings.warn(f"{path}, line {number}: not a recorded run ({reason}); left out", stacklevel=2)
    return found


def _row(content: Mapping[str, Any], parts: Mapping[str, tuple[list[Any], list[Any]]]) -> Run:
    older = {"device": "cpu", "key": ""}
    kept = {name: content.get(name, older[name]) if name in older else content[name] for name in KEPT}
    prediction = content.get("prediction", [])
    label, group = parts[content["part"]] if "part" in content else ([], [])
    one = Run(
        experiment=from_settings(content["experiment"]),
        history=History(**content.get("history", {})),
        prediction=unpack(prediction) if isinstance(prediction, str) else prediction,
        label=label,
        path="",
        group=group,
        **kept,
    )
    _check(one)
    return one


def _named(experiment: Experiment) -> str:
    return json.dumps(settings(experiment), sort_keys=True)


def fingerprint(experiment: Experiment) -> str | None:
    """Of the experiment's data, or None where they are not on this machine and cannot be had."""
    try:
        return _fingerprint(
            experiment.dataset, experiment.root, experiment.data_options, experiment.fold, experiment.modalities
        )
    except FileNotFoundError:
        return None


@lru_cache(maxsize=4096)  # more splits than are held as data
def _fingerprint(
    dataset: str, root: str | None, data_options: Options, fold: int | None, modalities: tuple[str, ...] | None
) -> str:
    one = Experiment(dataset, root=root, data_options=data_options, fold=fold, modalities=modalities)
    return experiment_data(one).fingerprint


def recorded(
    name: str,
    experiments: Mapping[L, Sequence[Experiment]],
    again: bool = False,
    jobs: int = 2,
    folder: Path | None = None,
    curves: bool = False,
) -> dict[L, list[Run]]:
    """Runs by label from the record NAME, and trained here where it has none; prints how many of each.

    A row is used for the same settings on the same data, and, where the data are not at hand, for the same
    settings; its key says whether code and torch are also the same (`vgmr records --check`).

    Args:
        again: train what is missing or was recorded by other code, and write the record.
        folder: of the record; by default that of the repository.
        curves: with loss curves; a row without them does not serve then.
    """
    path = (records_folder() if folder is None else folder) / f"{name}.jsonl"
    rows = {(_named(one.experiment), one.fingerprint): one for one in read(path)}
    by_settings = {named: one for (named, _), one in rows.items()}
    found: dict[int, Run] = {}
    flat = [one for group in experiments.values() for one in group]
    for place, one in enumerate(flat):
        data = fingerprint(one)
        row = by_settings.get(_named(one)) if data is None else rows.get((_named(one), data))
        stale = again and row is not None and data is not None and row.key != key(one, data)
        if row is not None and not stale and (row.history.train_loss or not curves):
            found[place] = replace(row, experiment=one)
    lacking = {place for place in range(len(flat)) if place not in found}
    # whole groups, so that a row that is missing comes out as it was
    missing = [
        place
        for members in groups(enumerate(flat))
        if lacking & {place for place, _ in members}
        for place, _ in members
    ]
    trained = dict(zip(missing, run_all([flat[place] for place in missing], jobs) if missing else [], strict=True))
    found |= {place: trained[place] for place in lacking}
    missing = sorted(lacking)
    runs = [_labelled_row(found[place]) for place in range(len(flat))]
    if again:
        keep(path, runs, curves)
    written = ", record written" if again else ""
    shown = f"{path.parent.name}/{path.name}"
    print(f"{shown}: {len(flat) - len(missing)} trainings read, {len(missing)} trained here{written}")
    given = iter(runs)
    return {label: [next(given) for _ in group] for label, group in experiments.items()}


def _labelled_row(one: Run) -> Run:
    """A run of an older record, which kept no labels, with those of its data."""
    if one.label or not one.prediction:
        return one
    test = experiment_data(one.experiment).test
    return replace(one, label=_listed(test.label), group=_listed(test.group))


def _listed(values: Tensor | None) -> list[int]:
    return [] if values is None else values.tolist()


def tabled(
    name: str,
    parameters: Mapping[str, Any],
    make: Callable[[], pd.DataFrame],
    again: bool = False,
    folder: Path | None = None,
) -> pd.DataFrame:
    """A tidy table from the record FOLDER/NAME.csv, or made here where it was made under other `parameters`.

    The file's first line holds the parameters as a JSON comment; floats are kept to 4 digits.

    Args:
        again: make it and write the record anew.
        folder: of the record; by default that of the repository.
    """
    path = (records_folder() if folder is None else folder) / f"{name}.csv"
    heading = f"# {json.dumps(parameters, sort_keys=True)}"
    if not again and path.exists():
        try:
            if path.read_text(encoding="utf-8").partition("\n")[0] == heading:
                table = pd.read_csv(path, comment="#")
                print(f"{path.parent.name}/{path.name}: {len(table)} rows read")
                return table
        except ValueError as error:
            warnings.warn(f"{path}: no intact table ({error}); made again", stacklevel=2)
    table = make()
    if again:
        text = table.to_csv(index=False, float_format="%.4f", lineterminator="\n")
        write(path, f"{heading}\n{text}")
    how = "written" if again else "made here, under other parameters than the record"
    print(f"{path.parent.name}/{path.name}: {len(table)} rows {how}")
    return table


def confirm(runs: Sequence[Run], jobs: int = 2) -> pd.DataFrame:
    """Train recorded runs again, one row per run.

    Columns: recorded and again (test accuracy), changed (share of test samples with another prediction; NaN where
    none were recorded). They agree to the digit on the machine that recorded them; elsewhere rounding differs,
    and trainings drift.
    """
    fresh = run_all([one.experiment for one in runs], jobs, cached=False)
    return pd.DataFrame(
        {
            "recorded": [one.metrics["accuracy"] for one in runs],
            "again": [one.metrics["accuracy"] for one in fresh],
            "changed": [
                float(np.mean(np.asarray(old.prediction) != np.asarray(new.prediction)))
                if old.prediction
                else float("nan")
                for old, new in zip(runs, fresh, strict=True)
            ],
        }
    )
