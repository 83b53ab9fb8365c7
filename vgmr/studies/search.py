"""Learning rates by validation: the same small search for every variant, kept with all its scores."""

from __future__ import annotations

import json
import statistics
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from vgmr.experiment import Run
from vgmr.machine.files import in_repository, write
from vgmr.records.keys import PLACES
from vgmr.runs import run_all
from vgmr.settings import Experiment

GRID = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
RATES = (1e-3, 3e-3, 1e-2)  # where a search begins; it is widened within GRID
SGD_RATES = (1e-2, 3e-2, 1e-1)
SEARCH_SEEDS = (100, 101)
MOST_DOUBLINGS = 3
OWN_SPLIT = ("uci-mfeat", "digit-views")  # random splits that are ours to draw: one for each seed
SEARCHED = "notebooks/parameters/searched"


def with_seed(settings: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Settings of an experiment under a seed, which also draws the split where the split is ours to draw.

    Raises:
        ValueError: the settings name a split where each seed draws its own.
    """
    options = dict(settings.get("data_options", {}))
    if settings["dataset"] in OWN_SPLIT:
        if "split_seed" in options:
            raise ValueError(
                f"data_options: every seed draws a split of {settings['dataset']} of its own, so that no "
                f"comparison rests on one; leave split_seed={options['split_seed']} out"
            )
        options["split_seed"] = seed
    return {**settings, "seed": seed, "data_options": options}


@dataclass(frozen=True)
class Search:
    """What a search found.

    Attributes:
        scores: mean validation accuracy of each variant (rows) at each learning rate (columns); NaN where a
            training diverged.
        epochs: passes over the training part, enough for the best rates.
        rates: the best of each variant.
        warnings: a line for each variant whose best rate is the lowest or highest there is.
    """

    scores: pd.DataFrame
    epochs: int
    rates: dict[str, float]
    warnings: list[str]


def search(
    variants: Mapping[str, Mapping[str, Any]],
    common: Mapping[str, Any],
    jobs: int = 2,
    rates: Sequence[float] | None = None,
) -> Search:
    """Mean validation accuracy (regression: minus the error) of each variant at each rate; equal budget for all.

    Begins with `RATES`, or `SGD_RATES` with SGD, over `SEARCH_SEEDS`, which no reported training uses. While the
    best rate of any variant is the lowest or highest tried, all get the next one of `GRID`; a rate at which a
    training diverges is no choice. While the median best epoch of a variant at its best rate lies in the last
    fifth, the epochs are doubled for all, at most `MOST_DOUBLINGS` times. Test scores are not looked at.

    Args:
        rates: exactly these, and epochs as they are: neither is widened.
    """
    sgd = common.get("optimizer") == "sgd"
    grid = sorted({*GRID, *SGD_RATES, *([3e-1, 1.0] if sgd else [])}) if rates is None else sorted(rates)
    first = grid if rates is not None else list(SGD_RATES if sgd else RATES)
    epochs = int(common.get("epochs", Experiment.epochs))
    for doubling in range(MOST_DOUBLINGS + 1):
        tried, table, late = _widened(variants, {**common, "epochs": epochs}, first, grid, jobs)
        if not late or doubling == MOST_DOUBLINGS or rates is not None:
            break
        epochs *= 2
    best = {str(name): float(rate) for name, rate in table.idxmax(axis=1).items()}
    edge = [name for name, rate in best.items() if rates is None and rate in (tried[0], tried[-1])]
    warnings = [f"{name}: the best rate, {best[name]:g}, is at the edge of those tried" for name in edge]
    warnings += [f"{name}: still improves in the last fifth of {epochs} epochs" for name in late]
    return Search(table, epochs, best, warnings)


def _widened(
    variants: Mapping[str, Mapping[str, Any]],
    common: Mapping[str, Any],
    first: Sequence[float],
    grid: Sequence[float],
    jobs: int,
) -> tuple[list[float], pd.DataFrame, list[str]]:
    """Rates tried, scores, and the variants whose best epochs come late."""
    tried = list(first)
    while True:
        cells = {
            (name, rate): [
                Experiment(**with_seed({**common, **options, "learning_rate": rate}, seed))
                for seed in SEARCH_SEEDS
            ]
            for name, options in variants.items()
            for rate in tried
        }
        runs = _finite(cells, jobs)
        rows = [(*cell, _score(one)) for cell, found in runs.items() for one in found]
        scores = pd.DataFrame(rows, columns=["variant", "rate", "accuracy"])
        table = scores.pivot_table(index="variant", columns="rate", values="accuracy")
        table = table.reindex(index=list(variants), columns=tried)
        if lost := table.index[table.isna().all(axis=1)].tolist():
            raise FloatingPointError(f"the loss of {', '.join(lost)} is not finite at any rate from {tried[0]:g}")
        best = table.idxmax(axis=1)
        below = [rate for rate in grid if rate < tried[0]] if (best == tried[0]).any() else []
        above = [rate for rate in grid if rate > tried[-1]] if (best == tried[-1]).any() else []
        if not below and not above:
            break
        tried = [*below[-1:], *tried, *above[:1]]
    late = [
        name
        for name in variants
        if statistics.median(one.history.best_epoch + 1 for one in runs[name, best[name]]) > 0.8 * common["epochs"]
    ]
    return tried, table, late


def _finite(cells: Mapping[tuple[str, float], list[Experiment]], jobs: int) -> dict[tuple[str, float], list[Run]]:
    """The runs of every cell, without the cells of which one diverges: a rate that is too high is no choice."""
    try:
        return run_all(cells, jobs)
    except FloatingPointError:
        found: dict[tuple[str, float], list[Run]] = {}
        for cell, group in cells.items():
            with suppress(FloatingPointError):
                found |= run_all({cell: group}, jobs)
        return found


def _score(run: Run) -> float:
    """On the validation part: accuracy, or in regression the absolute error with its sign turned."""
    known = run.metrics
    return known["validation_accuracy"] if "validation_accuracy" in known else -known["validation_mae"]


def _plain(settings: Mapping[str, Any]) -> Any:
    """Settings as they are kept: without those that say where it runs, and empty options."""
    kept = {key: value for key, value in settings.items() if key not in PLACES and value != {}}
    return json.loads(json.dumps(kept))


def write_choice(path: Path, found: Search, common: Mapping[str, Any]) -> None:
    """Keep what `search` found: settings, scores (null where a training diverged), epochs, best rates."""
    content = {
        "settings": _plain(common),
        "seeds": list(SEARCH_SEEDS),
        "epochs": found.epochs,
        "validation_accuracy": {
            name: {f"{rate:g}": None if pd.isna(score) else round(score, 4) for rate, score in row.items()}
            for name, row in found.scores.iterrows()
        },
        "learning_rate": found.rates,
        "warnings": found.warnings,
    }
    write(path, json.dumps(content, indent=1) + "\n")


Choice = dict[str, dict[str, Any]]  # by variant: learning_rate and epochs, settings of an `Experiment`


def read_choice(path: Path, variants: Mapping[str, Any], common: Mapping[str, Any]) -> Choice | None:
    """Rate and epochs of each variant as searched before under the same settings, or None; prints what it found.

    A file that is damaged, lacks a variant or was made under other settings is named in a warning and counts as
    none.
    """
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        epochs = int(content["epochs"])
        found = {
            name: {"learning_rate": float(content["learning_rate"][name]), "epochs": epochs} for name in variants
        }
        settings = content["settings"]
    except (ValueError, KeyError, TypeError) as error:
        warnings.warn(f"{path}: no intact search for these variants ({error!r}); searched again", stacklevel=3)
        return None
    if settings != _plain(common):
        warnings.warn(f"{path}: searched under other settings than these; searched again", stacklevel=3)
        return None
    print(f"learning rates as searched, kept as {path.name}: {epochs} epochs")
    return found


class Unsearched(LookupError):
    """No search of this name is kept, and none shall be made."""


_unkept: ContextVar[str] = ContextVar("unkept", default="search")


@contextmanager
def where_none_is_kept(what: str) -> Iterator[None]:
    """What `choose` does inside where it finds no kept search: "search" (else always), "keep" or "refuse".

    "keep" also keeps what it found, "refuse" raises `Unsearched`.
    """
    before = _unkept.set(what)
    try:
        yield
    finally:
        _unkept.reset(before)


def choose(
    name: str,
    variants: Mapping[str, Mapping[str, Any]],
    common: Mapping[str, Any],
    again: bool = False,
    jobs: int = 2,
    folder: Path | None = None,
    rates: Sequence[float] | None = None,
) -> Choice:
    """Learning rate and epochs of each variant, from the kept search NAME, or searched here where there is none.

    Args:
        again: search anew, and keep what was found.
        folder: of kept searches; by default that of the repository.
        rates: to search among; see `search`.

    Raises:
        Unsearched: none is kept, inside `where_none_is_kept("refuse")`.
    """
    kept = (in_repository(SEARCHED) if folder is None else folder) / f"{name}.json"
    found = None if again else read_choice(kept, variants, common)
    if found is not None:
        return found
    if _unkept.get() == "refuse" and not again:
        raise Unsearched(f"no search {name} is kept")
    print(f"{name}: searching learning rates of {len(variants)} variants")
    fresh = search(variants, common, jobs, rates=rates)
    for line in fresh.warnings:
        print(line)
    if again or _unkept.get() == "keep":
        write_choice(kept, fresh, common)
    return {variant: {"learning_rate": rate, "epochs": fresh.epochs} for variant, rate in fresh.rates.items()}
