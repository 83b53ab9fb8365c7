"""What the repository keeps of trainings, as records: rows of runs, and tables made of them.

Nothing on disk is trusted: what is damaged is named in a warning and made again.
"""

from __future__ import annotations

import base64
import hashlib
import json
import warnings
import zlib
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch

from vgmr.evaluation import accuracy, confusion, macro_f1
from vgmr.experiment import Run
from vgmr.loop.history import History
from vgmr.machine.files import environment, in_repository, write
from vgmr.records.keys import fingerprint, from_settings, key, settings, table_key
from vgmr.runs import DAMAGED, check_run, groups, run_all
from vgmr.settings import Experiment

L = TypeVar("L", bound=Hashable)  # a label: a name, or several
K = TypeVar("K", bound=Hashable)
MISSING = "missing"
ROUNDING = 1e-6  # of metrics
SAME_SCORE = 0.01  # units of the label; a record holds scores in half precision
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
        known = asdict(one.history) | {"coefficients": {}, "seconds": round(one.history.seconds, 2)}
        lists = ("train_loss", "validation_loss", "validation_accuracy")
        known |= {name: [round(x, 4) for x in known[name]] if curves else [] for name in lists}
        rest["history"] = {name: value for name, value in known.items() if value not in ([], {})}
        if one.prediction:
            packed = {"label": pack(one.label), "group": pack(one.group) if one.group else None}
            digest = _digest(json.dumps(packed))
            parts[digest] = packed
            rest |= {"prediction": pack(one.prediction), "part": digest}
        lines.append(json.dumps({"experiment": settings(one.experiment), **rest}, separators=(",", ":")))
    heads = [json.dumps({"part": digest, **packed}, separators=(",", ":")) for digest, packed in parts.items()]
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
        except (*DAMAGED, zlib.error) as error:
            reason = f"{type(error).__name__}: {error}"
            warnings.warn(f"{path}, line {number}: not a recorded run ({reason}); left out", stacklevel=2)
    return found


def _row(content: Mapping[str, Any], parts: Mapping[str, tuple[list[Any], list[Any]]]) -> Run:
    label, group = parts[content["part"]] if "part" in content else ([], [])
    one = Run(
        experiment=from_settings(content["experiment"]),
        history=History(**content["history"]),
        prediction=unpack(content["prediction"]) if "part" in content else [],
        label=label,
        path="",
        group=group,
        **{name: content[name] for name in KEPT},
    )
    check_run(one)
    for name, value in _counted(one).items():
        if not abs(one.metrics.get(name, value) - value) <= ROUNDING:
            raise ValueError(f"{name} is {one.metrics[name]}, and its predictions give {value:.4f}")
    return one


def _counted(one: Run) -> dict[str, float]:
    """Metrics that predicted classes give once more; none of a regression, or without predictions."""
    if not one.prediction or isinstance(one.prediction[0], float):
        return {}
    label, prediction = torch.tensor(one.label), torch.tensor(one.prediction)
    found: dict[str, float] = {}
    for prefix, answer in (("", prediction), ("majority_", label.mode().values.expand_as(label))):
        counts = confusion(answer, label, 1 + int(torch.maximum(label, prediction).max()))
        found |= {f"{prefix}accuracy": accuracy(counts), f"{prefix}macro_f1": macro_f1(counts)}
    return found


def _named(experiment: Experiment) -> str:
    return json.dumps(settings(experiment), sort_keys=True)


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
    passes = in_passes(enumerate(flat))
    for place, one in enumerate(flat):
        data = fingerprint(one)
        row = by_settings.get(_named(one)) if data is None else rows.get((_named(one), data))
        stale = (
            again
            and row is not None
            and data is not None
            and (row.key != key(one, data) or row.history.together not in ([], passes[place]))
        )
        if row is not None and not stale and (row.history.train_loss or not curves):
            found[place] = replace(row, experiment=one)
    lacking = {place for place in range(len(flat)) if place not in found}
    # whole groups, so that a row that is missing comes out as it was
    missing = [
        place for members in groups(enumerate(flat)) if lacking & set(dict(members)) for place, _ in members
    ]
    trained = dict(zip(missing, run_all([flat[place] for place in missing], jobs), strict=True)) if missing else {}
    found |= {place: trained[place] for place in lacking}
    runs = [found[place] for place in range(len(flat))]
    if again:
        keep(path, runs, curves)
    written = ", record written" if again else ""
    shown = f"{path.parent.name}/{path.name}"
    print(f"{shown}: {len(flat) - len(lacking)} trainings read, {len(lacking)} trained here{written}")
    given = iter(runs)
    return {label: [next(given) for _ in group] for label, group in experiments.items()}


def tabled(
    name: str,
    parameters: Mapping[str, Any],
    make: Callable[[], pd.DataFrame],
    again: bool = False,
    folder: Path | None = None,
    rests_on: Sequence[Callable[..., Any]] = (),
) -> pd.DataFrame:
    """A tidy table from the record FOLDER/NAME.csv, or made here where it was made under other `parameters`.

    The file's first line holds the parameters as a JSON comment, the second what made it: functions, key, commit
    and a digest of the table; floats are kept to 4 digits. A damaged table is named in a warning and made here.

    Args:
        make: a function of this package, or a partial of one, unless `rests_on` says what it calls.
        again: make it and write the record anew.
        folder: of the record; by default that of the repository.
        rests_on: functions of this package whose code decides what is in the table.

    Raises:
        ValueError: it is to be written, and rests on no function of this package.
    """
    path = (records_folder() if folder is None else folder) / f"{name}.csv"
    heading = f"# {json.dumps(parameters, sort_keys=True)}"
    how = "made here, since no record has them"
    if not again and path.exists():
        how = "made here, under other parameters than the record"
        try:
            head, body = _parted(path)
            if head[:1] == [heading]:
                if len(head) > 1 and json.loads(head[1].removeprefix("# "))["digest"] != _digest(body):
                    raise ValueError("it is not what was written")
                table = pd.read_csv(StringIO(body), keep_default_na=False, na_values=[""])
                print(f"{path.parent.name}/{path.name}: {len(table)} rows read")
                return table
        except (ValueError, LookupError, TypeError) as error:
            warnings.warn(f"{path}: no intact table ({error}); made again", stacklevel=2)
    made_by: dict[str, Any] = {}
    if again:
        functions = rests_on or [make.func if isinstance(make, partial) else make]
        made_by["rests_on"] = [f"{one.__module__}.{one.__qualname__}" for one in functions]
        made_by |= {"key": table_key(parameters, made_by["rests_on"]), "commit": environment()["commit"]}
    table = make()
    if again:
        text, how = table.to_csv(index=False, float_format="%.4f", lineterminator="\n"), "written"
        made_by["digest"] = _digest(text)
        write(path, f"{heading}\n# {json.dumps(made_by)}\n{text}")
    print(f"{path.parent.name}/{path.name}: {len(table)} rows {how}")
    return table


def _parted(path: Path) -> tuple[list[str], str]:
    """The lines of JSON at the head of a table, and the table."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    count = next((place for place, line in enumerate(lines) if not line.startswith("# ")), len(lines))
    return [line.rstrip("\n") for line in lines[:count]], "".join(lines[count:])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def table_fault(path: Path) -> str:
    """What is wrong with a kept table, in a few words; empty if nothing is.

    Whether its parameters are still those that the notebook asks for is seen where it is read, by `tabled`.
    """
    if not path.exists():
        return MISSING
    try:
        head, body = _parted(path)
        parameters, made_by = (json.loads(line.removeprefix("# ")) for line in head)
        kept_key, digest, commit = (made_by[what] for what in ("key", "digest", "commit"))
        rests_on = list(made_by["rests_on"])
    except DAMAGED:
        return "without key and commit"
    if digest != _digest(body):
        return "changed by hand"
    try:
        if kept_key == table_key(parameters, rests_on):
            return "a draft, from a tree with changes" if commit.endswith("-dirty") else ""
    except ValueError:  # a function that is no more
        pass
    return "made by other code"


def in_passes(items: Iterable[tuple[K, Experiment]]) -> dict[K, list[int]]:
    """The seeds of the pass that an experiment is trained in, where it is trained in one, by its name."""
    return {name: [one.seed for _, one in members] for members in groups(items) for name, _ in members}


def confirm(runs: Sequence[Run], jobs: int = 2) -> pd.DataFrame:
    """Train recorded runs again, one row per run.

    Columns: recorded and again (test accuracy, of the sign in regression), changed (share of test samples with
    another prediction, or a score farther away than `SAME_SCORE`; NaN where none were recorded). With all runs of
    a pass they agree to the digit on the machine that recorded them; elsewhere rounding differs, and trainings
    drift.
    """
    fresh = run_all([one.experiment for one in runs], jobs, cached=False)
    return pd.DataFrame(
        {
            "recorded": [one.metrics["accuracy"] for one in runs],
            "again": [one.metrics["accuracy"] for one in fresh],
            "changed": [
                float(np.mean(~np.isclose(old.prediction, new.prediction, rtol=0, atol=SAME_SCORE)))
                if old.prediction
                else float("nan")
                for old, new in zip(runs, fresh, strict=True)
            ],
        }
    )
