"""Results of finished trainings kept in the repository, so that a notebook shows many and trains few again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, asdict, fields, replace
from pathlib import Path
from typing import Any

import pandas as pd

from vgmr.experiment import Experiment, Run, experiment_data, run_all
from vgmr.files import write
from vgmr.training import History

FOLDER = Path("records")  # beside the notebooks, where they run
PLACES = ("root", "device")  # say where a training ran, not what was trained
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
)


def settings(experiment: Experiment) -> dict[str, Any]:
    """The fields of an experiment that are not at their defaults, JSON-able; where it runs does not count."""
    defaults = {
        entry.name: entry.default_factory() if entry.default_factory is not MISSING else entry.default
        for entry in fields(Experiment)
    }
    chosen = {name: value for name, value in asdict(experiment).items() if name not in PLACES}
    found: dict[str, Any] = json.loads(
        json.dumps({name: value for name, value in chosen.items() if value != defaults[name]})
    )
    return found


def keep(path: Path, runs: Sequence[Run], full: bool = False) -> None:
    """Write a record: one line of JSON per run; the file appears whole.

    Args:
        full: keep the loss curves, to 4 digits, and the predictions as well.
    """
    lines = []
    for run in runs:
        rest = {name: getattr(run, name) for name in KEPT}
        if full:
            curves = asdict(run.history) | {"coefficients": {}}
            rest["history"] = {
                name: [round(x, 4) for x in value] if isinstance(value, list) else value
                for name, value in curves.items()
            }
            rest["prediction"] = run.prediction
        rest["seconds"], rest["peak_memory"] = round(run.seconds, 2), round(run.peak_memory)
        lines.append(json.dumps({"experiment": settings(run.experiment), **rest}))
    write(path, ("\n".join(lines) + "\n").encode())


def read(path: Path) -> list[Run]:
    """All runs of a record; a missing file has none.

    Raises:
        ValueError: a line that is not a run, with its number.
    """
    runs = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines() if path.exists() else [], 1):
        try:
            content = json.loads(line)
            chosen = content.pop("experiment")
            if chosen.get("modalities") is not None:
                chosen["modalities"] = tuple(chosen["modalities"])
            content |= {"history": History(**content.pop("history", {})), "label": [], "path": ""}
            content.setdefault("prediction", [])
            runs.append(Run(experiment=Experiment(**chosen), **content))
        except (TypeError, KeyError, json.JSONDecodeError) as error:
            raise ValueError(
                f"{path}, line {number}: not a recorded run ({error}); train again to mend it"
            ) from None
    return runs


def recorded(
    name: str,
    experiments: Sequence[Experiment],
    again: bool = False,
    jobs: int = 2,
    folder: Path = FOLDER,
    full: bool = False,
) -> list[Run]:
    """The runs of many experiments, in the order given, from the record FOLDER/NAME.jsonl; prints what it did.

    An experiment that is not in the record, or whose data are now others, is trained here.

    Args:
        again: train all (finished ones are found in the cache) and write the record anew.
        full: with loss curves and predictions.
    """
    path = folder / f"{name}.jsonl"
    if again:
        runs = run_all(experiments, jobs)
        keep(path, runs, full)
        print(f"{path}: {len(runs)} trainings written")
        return runs
    there = {
        (json.dumps(settings(run.experiment), sort_keys=True), run.fingerprint): run
        for run in read(path)
        if run.prediction or not full
    }
    keys = [
        (json.dumps(settings(experiment), sort_keys=True), experiment_data(experiment).fingerprint)
        for experiment in experiments
    ]
    missing = [experiment for key, experiment in zip(keys, experiments, strict=True) if key not in there]
    trained = iter(run_all(missing, jobs) if missing else [])
    runs = [
        replace(there[key], experiment=experiment) if key in there else next(trained)
        for key, experiment in zip(keys, experiments, strict=True)
    ]
    if full:
        runs = [replace(run, label=experiment_data(run.experiment).test.label.tolist()) for run in runs]
    print(f"{path}: {len(runs) - len(missing)} trainings read, {len(missing)} trained here")
    return runs


def tabled(
    name: str,
    parameters: Mapping[str, Any],
    make: Callable[[], pd.DataFrame],
    again: bool = False,
    folder: Path = FOLDER,
) -> pd.DataFrame:
    """A tidy table from the record FOLDER/NAME.csv, or made here where it was made under other `parameters`.

    The file's first line holds the parameters as a JSON comment; floats are kept to 4 digits.

    Args:
        again: make it and write the record anew.
    """
    path = folder / f"{name}.csv"
    heading = f"# {json.dumps(parameters, sort_keys=True)}"
    if not again and path.exists() and path.read_text(encoding="utf-8").partition("\n")[0] == heading:
        table = pd.read_csv(path, comment="#")
        print(f"{path}: {len(table)} rows read")
        return table
    table = make()
    if again:
        text = table.to_csv(index=False, float_format="%.4f", lineterminator="\n")
        write(path, f"{heading}\n{text}".encode())
    print(
        f"{path}: {len(table)} rows {'written' if again else 'made here, under other parameters than the record'}"
    )
    return table


def confirm(runs: Sequence[Run], jobs: int = 2) -> pd.DataFrame:
    """Train recorded runs again: test accuracy as recorded and as it came out here, one row per run.

    They agree to the digit on the machine that recorded them; elsewhere rounding differs, and trainings drift.
    """
    fresh = run_all([run.experiment for run in runs], jobs)
    return pd.DataFrame(
        {
            "recorded": [run.metrics["accuracy"] for run in runs],
            "again": [run.metrics["accuracy"] for run in fresh],
        }
    )
