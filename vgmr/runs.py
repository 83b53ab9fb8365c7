"""Runs in the cache, under all that determines them: read where they are finished, trained where they are not.

Nothing on disk is trusted: what is damaged is named in a warning and made again.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, overload

from safetensors.torch import save_file
from torch import nn

from vgmr.experiment import Run, Watch, alike, experiment_data, together, train, train_together
from vgmr.loop.history import History
from vgmr.machine.devices import chosen_device
from vgmr.machine.files import cache_folder, whole_folder, writable
from vgmr.machine.work import bar, in_processes
from vgmr.records.keys import from_settings, key, settings
from vgmr.settings import Experiment

L = TypeVar("L", bound=Hashable)  # a label: a name, or several
K = TypeVar("K")
AT_ONCE = 5  # twenty seeds of word sequences in one pass asked for 31 GB

DAMAGED = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)


def run_folder(experiment: Experiment, fingerprint: str) -> Path:
    """Where a run lies or will lie in the cache; each device has its own."""
    device = chosen_device("auto").type if experiment.device == "auto" else experiment.device
    return cache_folder() / "runs" / f"{key(experiment, fingerprint)}-{device.replace(':', '-')}"


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
        check_run(found)
        if _digests(folder) != weights:
            raise ValueError("the weights are not those that were written")
    except DAMAGED as error:
        raise ValueError(f"{folder / 'run.json'} is no intact run ({type(error).__name__}: {error})") from None
    return found


def check_run(found: Run) -> None:
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


def _made(
    members: Sequence[tuple[Path, Experiment]], keep: bool, wanted: Collection[Path]
) -> list[tuple[Path, Run]]:
    """Train what is trained in one pass; with `keep`, each run that is wanted into its folder."""
    if len(members) == 1:
        ((folder, one),) = members
        return [(folder, _kept(folder, keep, lambda watch: train(one, watch=watch if one.checkpoints else None)))]
    fresh = train_together([one for _, one in members])
    return [
        (folder, _kept(folder, keep, lambda _, run=run: run))  # type: ignore[misc]
        for (folder, _), run in zip(members, fresh, strict=True)
        if folder in wanted
    ]


def _kept(folder: Path, keep: bool, make: Callable[[Watch | None], Run]) -> Run:
    """What is made; with `keep` it appears in `folder` whole or not at all."""
    fresh: Run | None = None
    if not keep:
        return _with_key(make(None))
    try:
        with whole_folder(folder, read_run) as temporary:
            fresh = _with_key(make(lambda epoch, model, _: _save(model, temporary, f"epoch-{epoch:03d}")))
            _save(fresh.model(), temporary, "model")
            left_out = ("experiment", "history", "path", "trained")
            content = {
                **{entry.name: getattr(fresh, entry.name) for entry in fields(Run) if entry.name not in left_out},
                "experiment": settings(fresh.experiment),
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


def _with_key(fresh: Run) -> Run:
    return replace(fresh, key=key(fresh.experiment, fresh.fingerprint))


def _save(model: nn.Module, folder: Path, name: str) -> None:
    weights = {key: value.cpu().contiguous() for key, value in model.state_dict().items()}
    save_file(weights, folder / f"{name}.safetensors")


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
    home: dict[Path, Path] = {}
    missing: list[Path] = []
    tasks: list[list[tuple[Path, Experiment]]] = []
    for members in groups(dict(zip(folders, todo, strict=True)).items()):
        places = _places(members)
        home |= {place: folder for (place, _), (folder, _) in zip(places, members, strict=True)}
        there = {place: _finished(place) if cached else None for place, _ in places}
        done |= {home[place]: finished for place, finished in there.items() if finished is not None}
        lacking = [(place, one) for place, one in places if there[place] is None]
        missing += [place for place, _ in lacking]
        tasks += [places] if lacking and places != members else [[alone] for alone in lacking]
    reason = writable(cache_folder() / "runs") if missing and cached else None
    if reason is not None:
        warnings.warn(f"{reason}; runs are not kept and are trained again next time; set VGMR_CACHE", stacklevel=3)
    make = partial(_made, keep=cached and reason is None, wanted=set(missing))
    start, workers = {"total": len(todo), "initial": len(todo) - len(missing)}, min(jobs, len(missing))
    with bar(**start, desc="runs", disable=not progress, leave=False) as state:
        for made in in_processes(make, tasks, workers) if workers > 1 else map(make, tasks):
            for place, fresh in made:
                done[home[place]] = fresh = fresh if cached else replace(fresh, trained=None)
                state.update()
                if each is not None:
                    each(fresh)
    return [replace(done[folder], experiment=one) for folder, one in zip(folders, todo, strict=True)]


def _places(members: list[tuple[Path, Experiment]]) -> list[tuple[Path, Experiment]]:
    """The same with folders of their own where they are trained in one pass, whose seeds share their dropout."""
    names = "".join(folder.name for folder, _ in members)
    digest = hashlib.sha256(names.encode()).hexdigest()[:8]
    places = [(folder.with_name(f"{folder.name}-{digest}"), one) for folder, one in members]
    one_pass = any(place.is_dir() for place, _ in places) or together([one for _, one in members])
    return places if one_pass else members


def groups(items: Iterable[tuple[K, Experiment]]) -> list[list[tuple[K, Experiment]]]:
    """Items by what is trained in one pass, if it pays: `alike` experiments, at most `AT_ONCE`, in order."""
    by_kind: dict[Experiment, list[tuple[K, Experiment]]] = {}
    for name, one in items:
        by_kind.setdefault(alike(one), []).append((name, one))
    return [some[at : at + AT_ONCE] for some in by_kind.values() for at in range(0, len(some), AT_ONCE)]
