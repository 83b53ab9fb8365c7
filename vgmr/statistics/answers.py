"""What the runs of a variant answered, by seed and test sample, and statistics of that."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from scipy import stats

from vgmr.data.splits import held_out
from vgmr.statistics.intervals import (
    Interval,
    Statistic,
    interval,
    over_seeds,
    resampled,
    weighted_f1,
    weighted_pearson,
)

MEANS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "accuracy": lambda prediction, label: (prediction == label).astype(float),
    "mae": lambda prediction, label: np.abs(prediction.astype(float) - label.astype(float)),
}
OTHERS: dict[str, Statistic] = {"macro_f1": weighted_f1, "pearson": weighted_pearson}


class Scored(Protocol):
    """What of a `vgmr.experiment.Run` is read here; besides `group`, `sample` and `experiment.fold`, if any."""

    @property
    def experiment(self) -> Any: ...
    @property
    def prediction(self) -> Sequence[Any]: ...
    @property
    def label(self) -> Sequence[Any]: ...
    @property
    def metrics(self) -> Mapping[str, float]: ...
    @property
    def fingerprint(self) -> str: ...


def _fold(run: Scored) -> Any:
    fold = getattr(run.experiment, "fold", None)
    return run.experiment.data_options.get("fold") if fold is None else fold


def sample_names(run: Scored) -> list[Any]:
    """What names each test sample: the same in every seed whose test part holds it, as far as that is known."""
    names: Sequence[Any] | None = getattr(run, "sample", None)
    dataset, options = getattr(run.experiment, "dataset", ""), run.experiment.data_options
    if names is None and "split_seed" in options:
        drawn = held_out(dataset, options["split_seed"])
        names = drawn if drawn and len(drawn) == len(run.label) else None
    if names is None:
        return [(run.fingerprint, _fold(run), row) for row in range(len(run.label))]
    return list(names)


@dataclass(frozen=True)
class Answers:
    """All answers of one variant: prediction and label (S, N), NaN where a sample is not in a seed's test part.

    Columns are test samples, rows `seeds`. Folds of one seed stand side by side, so that a seed's row holds every
    fold's test part; where every seed has a test part of its own, it has columns of its own, but for samples that
    come back in that of another seed.
    """

    seeds: tuple[int, ...]
    keys: tuple[Any, ...]
    prediction: np.ndarray
    label: np.ndarray
    group: list[Any] | None
    parts: frozenset[tuple[int, str]] = frozenset()  # seed and fingerprint of every test part
    scores: bool = False  # not classes, by their values
    classes: bool = False  # not scores, by their type: whole numbers throughout


def answers(runs: Sequence[Scored]) -> Answers:
    """The answers of one variant's runs, by seed and sample.

    Raises:
        TypeError: no list, or something in it that is no run.
        ValueError: no run, a run without predictions or with NaN among them, two runs of the same seed and fold,
            or a sample twice in a seed.
    """
    if not isinstance(runs, Iterable):
        raise TypeError(f"expected the runs of each variant as a list, got {type(runs).__name__}")
    if odd := [type(run).__name__ for run in runs if not hasattr(run, "prediction")]:
        raise TypeError(
            f"expected runs, as vgmr.run gives them, got {odd[0]}; vgmr.comparison.differences takes any numbers, "
            "in a table with a row per label, seed and sample"
        )
    runs = sorted(runs, key=lambda run: (run.experiment.seed, repr(_fold(run))))
    if not runs:
        raise ValueError("expected at least one run of each variant, got an empty list")
    found: dict[int, dict[Any, tuple[float, float]]] = {}
    groups: dict[Any, Any] = {}
    seen = set()
    for run in runs:
        seed, fold = run.experiment.seed, _fold(run)
        if not len(run.prediction) or len(run.prediction) != len(run.label):
            raise ValueError(
                f"seed {seed}: expected a prediction for each label, got {len(run.prediction)} for "
                f"{len(run.label)}; train again, so that predictions are kept"
            )
        if not np.isfinite(np.asarray([run.prediction, run.label], float)).all():
            raise ValueError(
                f"seed {seed}: expected finite predictions and labels, got NaN or infinite ones; train it again, "
                "or leave the seed out of all variants"
            )
        if (seed, fold) in seen:
            raise ValueError(f"seed {seed}, fold {fold}: expected one run, got two")
        seen.add((seed, fold))
        own_keys, own = sample_names(run), found.setdefault(seed, {})
        if len(set(own_keys) - set(own)) < len(own_keys):
            raise ValueError(f"seed {seed}: expected each test sample once, got some of them twice")
        own |= dict(zip(own_keys, zip(run.prediction, run.label, strict=True), strict=True))
        members = getattr(run, "group", None)
        if members:  # empty where the data set knows of no groups
            groups |= dict(zip(own_keys, members, strict=True))
    seeds = tuple(sorted(found))
    keys = tuple(dict.fromkeys(key for seed in seeds for key in found[seed]))
    empty = (float("nan"), float("nan"))
    cells = np.array([[found[seed].get(key, empty) for key in keys] for seed in seeds], float)
    if groups and len(groups) < len(keys):
        raise ValueError(f"expected a group for all of {len(keys)} test samples or for none, got {len(groups)}")
    group = [groups[key] for key in keys] if groups else None
    values = cells[~np.isnan(cells)]
    scores = bool((values != np.round(values)).any() or (values < 0).any())
    parts = frozenset((run.experiment.seed, run.fingerprint) for run in runs)
    classes = all(np.asarray(x).dtype.kind in "biu" for run in runs for x in (run.prediction, run.label))
    return Answers(seeds, keys, cells[..., 0], cells[..., 1], group, parts, scores, classes)


def _check(found: Answers, metric: str) -> None:
    if found.scores and metric in ("accuracy", "macro_f1"):
        raise ValueError(f"these runs predict scores, no classes: metric must be mae or pearson, got {metric!r}")
    if found.classes and not found.scores and metric in ("mae", "pearson"):
        raise ValueError(
            f"these runs predict classes, no scores: metric must be accuracy or macro_f1, got {metric!r}"
        )


def paired(one: Answers, other: Answers, metric: str) -> Interval:
    """The difference in a metric of one variant's answers to another's, which has the same seeds and samples.

    Raises:
        ValueError: fewer than two seeds, or a metric of classes where there are scores, or the other way round.
    """
    _check(one, metric)
    if len(one.seeds) < 2:
        raise ValueError(f"expected at least two seeds of each variant, got {list(one.seeds)}")
    if metric in MEANS:
        return interval(_cells(one, metric) - _cells(other, metric), one.group)
    seeds, samples = one.label.shape

    def difference_at(seed: int, weight: np.ndarray) -> np.ndarray:
        return _at(OTHERS[metric], one, seed, weight) - _at(OTHERS[metric], other, seed, weight)

    seen = (~np.isnan(one.label)).sum(0)
    if seen.max() == 1:  # no sample comes back: the seeds' spread holds that of the samples
        ones = np.ones((1, samples))
        found = over_seeds([float(difference_at(seed, ones)[0]) for seed in range(seeds)])
        return replace(found, samples=samples)
    return resampled(difference_at, seeds, samples, one.group)


def _cells(found: Answers, metric: str) -> np.ndarray:
    return np.where(np.isnan(found.label), np.nan, MEANS[metric](found.prediction, found.label))


def _at(statistic: Statistic, found: Answers, seed: int, weight: np.ndarray) -> np.ndarray:
    there = ~np.isnan(found.label[seed])
    prediction, label = found.prediction[seed, there], found.label[seed, there]
    if statistic is weighted_f1:
        prediction, label = prediction.astype(int), label.astype(int)
    return statistic(prediction, label, weight[:, there])


def mean(found: Answers, metric: str) -> float:
    """A metric of a variant's answers, the mean over seeds; ValueError as `paired` for a wrong metric."""
    _check(found, metric)
    if metric in MEANS:
        return float(np.nanmean(_cells(found, metric)))
    ones = np.ones((1, found.label.shape[1]))
    return float(np.mean([_at(OTHERS[metric], found, seed, ones)[0] for seed in range(len(found.seeds))]))


def rank_agreement(runs: Mapping[str, Sequence[Scored]], published: Mapping[str, float]) -> Interval:
    """Spearman's rank correlation of test accuracies with published ones: mean over seeds, interval both ways.

    Raises:
        ValueError: fewer than two variants with a published accuracy, or all of these equal.
    """
    names = [name for name in published if name in runs]
    if len({published[name] for name in names}) < 2:
        raise ValueError(f"expected published accuracies of at least two variants that differ, got {names}")
    found = [answers(runs[name]) for name in names]
    right = np.array([MEANS["accuracy"](one.prediction, one.label) for one in found])  # (variants, seeds, samples)
    ranks = stats.rankdata([published[name] for name in names])

    def correlation(seed: int, weight: np.ndarray) -> np.ndarray:
        own = stats.rankdata(np.round(right[:, seed] @ weight.T / weight.sum(1), 12), axis=0)
        x, y = own - own.mean(0), (ranks - ranks.mean())[:, None]
        scale = np.sqrt((x**2).sum(0) * (y**2).sum())
        return np.divide((x * y).sum(0), scale, out=np.zeros(len(weight)), where=scale > 0)

    return resampled(correlation, len(found[0].seeds), right.shape[2], found[0].group)
