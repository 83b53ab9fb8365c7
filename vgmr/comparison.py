"""Differences between trained variants, their intervals and what they say: the only maker of such tables.

A difference of accuracies is uncertain for two reasons: other seeds would train other models, and other test
samples would ask other questions. `interval` counts both. Every table here is tidy: one row per difference, what a
row is stands in columns, numbers stay floats. Above zero, the label's value is the larger one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import numpy as np
import pandas as pd
from scipy import optimize, stats

VERDICTS = ("held", "contradicted", "smaller than the paper's", "undecided")
SEEDS_ONLY, BOTH_WAYS = "seeds only", "seeds and samples"
RESAMPLES = 1000
Statistic = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Interval:
    """A mean and how far it can be trusted.

    Attributes:
        mean, low, high: of the difference; the interval covers 95%.
        error: standard error; `df` degrees of freedom of its Student distribution.
        seed_variance, sample_variance: of the mean, by other seeds and by other samples (or groups); NaN where it
            could not be seen.
        smallest_effect: difference that would have been found in 80% of such studies.
        p: two-sided, against no difference.
        seeds, samples: how many there are; samples is 0 where nothing is known of single ones.
    """

    mean: float
    low: float
    high: float
    error: float
    df: float
    seed_variance: float
    sample_variance: float
    smallest_effect: float
    p: float
    seeds: int
    samples: int

    @property
    def seed_share(self) -> float:
        """Share of the seeds in both variances, 0 to 1; near 1 more seeds would help most, near 0 more samples."""
        both = self.seed_variance + self.sample_variance
        return self.seed_variance / both if both > 0 else float("nan")

    @property
    def sample_share(self) -> float:
        """Share of the samples in both variances, 0 to 1."""
        return 1 - self.seed_share


def _student(
    mean: float,
    variance: float,
    df: float,
    seed_variance: float,
    sample_variance: float,
    seeds: int,
    samples: int,
) -> Interval:
    error = float(np.sqrt(variance))
    if error == 0:
        p = 1.0 if mean == 0 else 0.0
        return Interval(mean, mean, mean, 0.0, df, seed_variance, sample_variance, 0.0, p, seeds, samples)
    reach = float(stats.t.ppf(0.975, df)) * error
    smallest = reach + float(stats.t.ppf(0.8, df)) * error
    p = float(2 * stats.t.sf(abs(mean) / error, df))
    return Interval(
        mean,
        mean - reach,
        mean + reach,
        error,
        df,
        seed_variance,
        sample_variance,
        smallest,
        p,
        seeds,
        samples,
    )


def _two_way(
    mean: float, seed: float, sample: float, residual: float, seeds: int, units: int, samples: int
) -> Interval:
    """From both variances, each of which holds the residual's: their sum without counting that twice."""
    variance = max(seed + sample - residual, seed, sample)
    spread = seed**2 / (seeds - 1) + sample**2 / (units - 1)
    df = variance**2 / spread if spread > 0 else float(seeds - 1)
    return _student(mean, variance, df, seed, sample, seeds, samples)


def interval(difference: Any, group: Sequence[Any] | None = None) -> Interval:
    """Mean of paired differences with a 95% interval over seeds and samples.

    With all cells filled it is the two-way analysis of variance: variance of the seeds' means, variance of the
    samples' (or the groups') means, less the residual that both hold; degrees of freedom by Satterthwaite. Where
    every seed has its own test part, cells are empty; the same components then follow by the method of moments,
    and where no sample has two seeds the spread of the seeds' means holds everything.

    Args:
        difference: (S, N), sample i under seed s, in variant A minus in variant B, such as -1, 0, 1 for right
            answers; NaN where sample i is not in the test part of seed s. A column is one sample.
        group: of each sample (person, video, speaker); samples of a group do not count as independent.

    Raises:
        ValueError: fewer than two seeds, samples or groups, or a group missing.
    """
    d = np.asarray(difference, float)
    if d.ndim != 2 or min(d.shape) < 2:
        raise ValueError(f"expected differences (seeds, samples), at least two of each, got shape {d.shape}")
    codes = np.arange(d.shape[1])
    if group is not None:
        if len(group) != d.shape[1]:
            raise ValueError(f"expected a group for each of {d.shape[1]} samples, got {len(group)}")
        codes = pd.factorize(np.asarray(group))[0]
        if codes.min() < 0 or codes.max() < 1:
            raise ValueError("expected at least two groups, and one for every sample")
    there = ~np.isnan(d)
    if not there.any(1).all() or not there.any(0).all():
        raise ValueError("expected at least one value for every seed and every sample")
    return _balanced(d, codes) if there.all() else _unbalanced(d, there, codes, group is not None)


def _balanced(d: np.ndarray, codes: np.ndarray) -> Interval:
    seeds, samples = d.shape
    mean, by_seed, by_sample = d.mean(), d.mean(1), d.mean(0)
    units = int(codes.max()) + 1
    sums = np.bincount(codes, by_sample - mean)
    seed = by_seed.var(ddof=1) / seeds
    sample = units / (units - 1) * (sums**2).sum() / samples**2
    rest = d - by_seed[:, None] - by_sample + mean
    residual = (rest**2).sum() / ((seeds - 1) * (samples - 1)) / (seeds * samples)
    return _two_way(float(mean), float(seed), float(sample), float(residual), seeds, units, samples)


def _unbalanced(d: np.ndarray, there: np.ndarray, codes: np.ndarray, grouped: bool) -> Interval:
    """Variance components of seed, group, sample and rest from sums of squares, as if drawn at random each."""
    seed, sample = np.nonzero(there)
    value, count = d[there], int(there.sum())
    mean = value.mean()
    ways = {"seed": seed, "group": codes[sample], "sample": sample, "rest": np.arange(count)}
    if not grouped:
        del ways["group"]
    if there.sum(0).max() == 1:  # a sample and the rest are the same
        del ways["sample"]
    sizes = {name: np.bincount(way) for name, way in ways.items()}
    squares, equations = [], []
    for one, way in ways.items():
        squares.append((np.bincount(way, value - mean) ** 2).sum())
        row = []
        for other, across in ways.items():
            width = len(sizes[other])
            pair, cells = np.unique(way * width + across, return_counts=True)
            trace = (cells.astype(float) ** 2).sum()
            cross = (sizes[one][pair // width] * cells * sizes[other][pair % width].astype(float)).sum()
            weights = (sizes[one] ** 2.0).sum() * (sizes[other] ** 2.0).sum()
            row.append(trace - 2 * cross / count + weights / count**2)
        equations.append(row)
    found = np.linalg.lstsq(np.array(equations), np.array(squares), rcond=None)[0].clip(min=0)
    part = {
        name: component * (sizes[name] ** 2.0).sum() / count**2
        for name, component in zip(ways, found, strict=True)
    }
    rest = part["rest"]
    by_sample = part.get("sample", 0.0) + part.get("group", 0.0)
    units = len(sizes["group"]) if grouped else d.shape[1]
    return _two_way(float(mean), part["seed"] + rest, by_sample + rest, rest, len(d), units, d.shape[1])


def over_seeds(values: Sequence[float]) -> Interval:
    """Mean of one value per seed with a 95% Student interval over seeds only.

    It says what other seeds would bring on the same test samples, and nothing of other samples.

    Raises:
        ValueError: fewer than two values.
    """
    x = np.asarray(values, float)
    if x.ndim != 1 or len(x) < 2:
        raise ValueError(f"expected one value for each of at least two seeds, got shape {x.shape}")
    variance = float(x.var(ddof=1) / len(x))
    return _student(float(x.mean()), variance, len(x) - 1.0, variance, float("nan"), len(x), 0)


def resampled(
    statistic: Callable[[int, np.ndarray], np.ndarray],
    seeds: int,
    samples: int,
    group: Sequence[Any] | None = None,
    resamples: int = RESAMPLES,
) -> Interval:
    """As `interval`, for a difference that is no mean over samples, such as macro-F1, AUROC or a correlation.

    The spread over seeds is that of the values themselves; the spread over samples, or whole groups, that of a
    bootstrap (the same draws for all seeds), and what the two hold in common is taken from how seeds differ in
    their answer to a draw.

    Args:
        statistic: from the number of a seed, 0 to seeds - 1, and weights (R, samples), to R differences; weights
            of a draw say how often each sample was drawn.
        group: of each sample; groups are drawn whole.

    Raises:
        ValueError: fewer than two seeds, samples or groups.
    """
    codes = np.arange(samples) if group is None else pd.factorize(np.asarray(group))[0]
    units = int(codes.max()) + 1
    if seeds < 2 or units < 2:
        raise ValueError(f"expected at least two seeds and two samples or groups, got {seeds} and {units}")
    drawn = np.random.default_rng(0).multinomial(units, np.full(units, 1 / units), resamples)
    weight = drawn[:, codes].astype(float)
    plain = np.ones((1, samples))
    value = np.array([float(statistic(seed, plain)[0]) for seed in range(seeds)])
    spread = np.array([statistic(seed, weight) for seed in range(seeds)])
    widen = units / (units - 1)
    sample = widen * spread.mean(0).var(ddof=1)
    apart = spread - spread.mean(0)
    residual = widen * apart.var(axis=1, ddof=1).sum() / (seeds - 1) / seeds
    mean, seed_variance = float(value.mean()), float(value.var(ddof=1) / seeds)
    return _two_way(mean, seed_variance, float(sample), float(residual), seeds, units, samples)


def weighted_f1(prediction: np.ndarray, label: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Macro-F1, 0 to 1, for each row of `weight` (R, N), over the classes that are true or predicted."""
    classes = int(max(prediction.max(), label.max())) + 1
    predicted, true = np.eye(classes)[prediction], np.eye(classes)[label]
    hit, counts = weight @ (predicted * true), weight @ (predicted + true)
    seen = counts > 0
    return (2 * np.divide(hit, counts, out=np.zeros_like(hit), where=seen)).sum(1) / seen.sum(1)


def weighted_pearson(prediction: np.ndarray, label: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Pearson's correlation for each row of `weight` (R, N); 0 where one of the two is constant."""
    total = weight.sum(1)
    x, y = (values - values.mean() for values in (prediction.astype(float), label.astype(float)))
    mx, my = weight @ x / total, weight @ y / total
    covariance = weight @ (x * y) / total - mx * my
    scale = np.sqrt(np.clip((weight @ x**2 / total - mx**2) * (weight @ y**2 / total - my**2), 0, None))
    return np.divide(covariance, scale, out=np.zeros_like(scale), where=scale > 0)


def weighted_auroc(score: np.ndarray, truth: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Probability that a true case scores above another, ties counting half, for each row of `weight` (R, N).

    1/2 where a draw has cases of one kind only.
    """
    order = np.argsort(score, kind="stable")
    starts = np.flatnonzero(np.diff(score[order], prepend=np.nan) != 0)
    true = truth.astype(bool)[order]
    positive = np.add.reduceat(weight[:, order] * true, starts, axis=1)
    negative = np.add.reduceat(weight[:, order] * ~true, starts, axis=1)
    won = (positive * (negative.cumsum(1) - negative / 2)).sum(1)
    pairs = positive.sum(1) * negative.sum(1)
    return np.divide(won, pairs, out=np.full(len(weight), 0.5), where=pairs > 0)


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


@dataclass(frozen=True)
class Answers:
    """All answers of one variant: prediction and label (S, N), NaN where a sample is not in a seed's test part.

    Columns are test samples, rows `seeds`. Folds of one seed stand side by side, so that a seed's row holds every
    fold's test part; where every seed has a test part of its own, it has columns of its own, but for samples that
    `Run.sample` says are the same.
    """

    seeds: tuple[int, ...]
    keys: tuple[Any, ...]
    prediction: np.ndarray
    label: np.ndarray
    group: list[Any] | None


def answers(runs: Sequence[Scored]) -> Answers:
    """The answers of one variant's runs, by seed and sample.

    Raises:
        ValueError: a run without predictions, or two runs of the same seed and fold.
    """
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
        if (seed, fold) in seen:
            raise ValueError(f"seed {seed}, fold {fold}: expected one run, got two")
        seen.add((seed, fold))
        names = getattr(run, "sample", None)
        place = [(run.fingerprint, fold, row) for row in range(len(run.label))]
        own_keys: list[Any] = place if names is None else list(names)
        own = found.setdefault(seed, {})
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
    return Answers(seeds, keys, cells[..., 0], cells[..., 1], [groups[key] for key in keys] if groups else None)


def _pair(one: Answers, other: Answers, metric: str) -> Interval:
    if metric in MEANS:
        score = MEANS[metric]
        there = ~np.isnan(one.label)
        difference = np.where(there, score(one.prediction, one.label) - score(other.prediction, one.label), np.nan)
        return interval(difference, one.group)
    statistic = OTHERS[metric]
    if np.isnan(one.label).any():  # every seed has its own test part: the seeds' spread holds that of the samples
        found = over_seeds(
            [
                float(_at(statistic, one, seed, np.ones((1, one.label.shape[1])))[0])
                - float(_at(statistic, other, seed, np.ones((1, one.label.shape[1])))[0])
                for seed in range(len(one.seeds))
            ]
        )
        return replace(found, samples=one.label.shape[1])

    def difference_at(seed: int, weight: np.ndarray) -> np.ndarray:
        return _at(statistic, one, seed, weight) - _at(statistic, other, seed, weight)

    return resampled(difference_at, len(one.seeds), one.label.shape[1], one.group)


def _at(statistic: Statistic, found: Answers, seed: int, weight: np.ndarray) -> np.ndarray:
    there = ~np.isnan(found.label[seed])
    prediction, label = found.prediction[seed, there], found.label[seed, there]
    if statistic is weighted_f1:
        prediction, label = prediction.astype(int), label.astype(int)
    return statistic(prediction, label, weight[:, there])


def _mean(found: Answers, metric: str) -> float:
    if metric in MEANS:
        values = np.where(np.isnan(found.label), np.nan, MEANS[metric](found.prediction, found.label))
        return float(np.nanmean(values))
    ones = np.ones((1, found.label.shape[1]))
    return float(np.mean([_at(OTHERS[metric], found, seed, ones)[0] for seed in range(len(found.seeds))]))


def _row(found: Interval, source: str) -> dict[str, Any]:
    row = asdict(found)
    return {
        "difference": row.pop("mean"),
        **row,
        "seed_share": found.seed_share if source == BOTH_WAYS else 1.0,
        "sample_share": found.sample_share if source == BOTH_WAYS else float("nan"),
        "counted": source,
    }


def contrasts(
    runs: Mapping[str, Sequence[Scored]], pairs: Sequence[tuple[str, str]], metric: str = "accuracy"
) -> pd.DataFrame:
    """The difference of one variant to another, one row per pair (label, against).

    Columns: label, against, metric, mean (of the label), difference, low, high (95% interval over seeds and test
    samples, or groups), error, df, seed_variance, sample_variance, smallest_effect (80% power), p, seeds, samples,
    seed_share, sample_share, counted, p_holm (over the rows of this table).

    Args:
        runs: by label, each with the same seeds and folds, once each.
        metric: accuracy, macro_f1, mae or pearson, computed from the predictions.

    Raises:
        ValueError: an unknown metric or label, or two variants of a pair that were not run with the same seeds on
            the same data.
    """
    if metric not in {**MEANS, **OTHERS}:
        raise ValueError(f"unknown metric {metric!r}; there are: {', '.join({**MEANS, **OTHERS})}")
    wanted = dict.fromkeys(label for pair in pairs for label in pair)
    unknown = [label for label in wanted if label not in runs]
    if unknown:
        raise ValueError(f"unknown variants {unknown}; there are: {', '.join(runs)}")
    found = {label: answers(runs[label]) for label in wanted}
    rows = []
    for label, against in pairs:
        one, other = found[label], found[against]
        if one.seeds != other.seeds:
            raise ValueError(f"{label}: expected the seeds {other.seeds} of {against}, got {one.seeds}")
        if one.keys != other.keys or not np.array_equal(one.label, other.label, equal_nan=True):
            raise ValueError(f"{label} and {against}: expected the same test data; compare one data set at a time")
        row = {"label": label, "against": against, "metric": metric, "mean": _mean(one, metric)}
        rows.append({**row, **_row(_pair(one, other, metric), BOTH_WAYS)})
    return holm(pd.DataFrame(rows))


def compare(runs: Mapping[str, Sequence[Scored]], baseline: str, metric: str = "accuracy") -> pd.DataFrame:
    """One row per variant: mean, and the paired difference to `baseline`; see `contrasts` for columns and errors.

    The first row is a constant answer, the test part's most frequent class, where the runs know of it. Neither it
    nor the baseline has a difference. There is one column more: parameters.
    """
    if not isinstance(runs, Mapping):
        raise TypeError(f"expected runs by the label of their variant, a dict, got {type(runs).__name__}")
    if baseline not in runs:
        raise ValueError(f"unknown baseline {baseline!r}; there are: {', '.join(runs)}")
    others = [label for label in runs if label != baseline]
    table = contrasts(runs, [(label, baseline) for label in others], metric) if others else pd.DataFrame()
    by_label = {} if table.empty else {row["label"]: row for row in table.to_dict("records")}
    first = runs[baseline]
    known = [run.metrics[f"majority_{metric}"] for run in first if f"majority_{metric}" in run.metrics]
    rows = [{"label": "majority class", "mean": float(np.mean(known))}] if known else []
    for label, own in runs.items():
        row = by_label.get(label, {"label": label, "mean": _mean(answers(own), metric)})
        row |= {"seeds": len({run.experiment.seed for run in own})}
        rows.append(row | {"parameters": getattr(own[0], "parameters", None)})
    columns = ["label", "mean", "difference", "low", "high", "p", "p_holm", "smallest_effect", "seed_share"]
    columns += ["sample_share", "error", "df", "seed_variance", "sample_variance", "seeds", "samples"]
    frame = pd.DataFrame(rows).reindex(columns=[*columns, "parameters", "against", "metric", "counted"])
    return frame.astype({"seeds": "Int64", "samples": "Int64", "parameters": "Int64"})


def differences(
    tidy: pd.DataFrame,
    by: Sequence[str],
    value: str = "value",
    baseline: str | None = None,
    label: str = "label",
    reference: float = 0.0,
) -> pd.DataFrame:
    """Intervals of any value measured per seed, or per seed and sample, one row per group of `by` and label.

    Args:
        tidy: one row per measurement, with columns `by`, `label` (where a baseline is named), seed and `value`.
            With a column sample, which names the test sample (and group, where there are groups), the interval is
            over seeds and samples; without, over seeds only, and the column `counted` says so.
        baseline: the label that the others are paired with by seed (and sample); None for the values themselves,
            less `reference`.

    Returns columns: those of `by`, label and against (with a baseline), mean, and from difference on those of
    `contrasts`.

    Raises:
        ValueError: a column is missing, a measurement twice, or a label lacks a seed (or sample) of the baseline.
    """
    own = [*by, *([label] if baseline is not None and label not in by else [])]
    per_sample = "sample" in tidy
    needed = [*own, "seed", value]
    if missing := [name for name in needed if name not in tidy]:
        raise ValueError(f"expected columns {needed}, missing {missing}")
    measured = ["seed", "sample"] if per_sample else ["seed"]
    if tidy.duplicated([*own, *measured]).any():
        raise ValueError(f"expected one row for each of {[*own, *measured]}; some come twice")
    outer = [name for name in own if name != label] if baseline is not None else own
    panels = tidy.groupby(outer, sort=False, dropna=False) if outer else [((), tidy)]
    rows = []
    for key, panel in panels:
        place = dict(zip(outer, key if isinstance(key, tuple) else (key,), strict=True))
        if baseline is None:
            rows.append({**place, **_measured(panel, None, value, reference)})
            continue
        parts = dict(list(panel.groupby(label, sort=False)))
        if baseline not in parts:
            raise ValueError(f"{place}: expected rows of the baseline {baseline!r}, there are {list(parts)}")
        for name, part in parts.items():
            if name != baseline:
                row = {**place, label: name, "against": baseline}
                rows.append({**row, **_measured(part, parts[baseline], value, 0.0)})
    return holm(pd.DataFrame(rows))


def _measured(part: pd.DataFrame, baseline: pd.DataFrame | None, value: str, reference: float) -> dict[str, Any]:
    across = ["seed", "sample"] if "sample" in part else ["seed"]
    one = part.set_index(across)[value].astype(float)
    change = one - reference
    if baseline is not None:
        other = baseline.set_index(across)[value].astype(float)
        if set(one.index) != set(other.index):
            raise ValueError(f"expected the {' and '.join(across)}s of the baseline, {len(other)}, got {len(one)}")
        change = one - other
    mean = {"mean": float(one.mean())}
    if "sample" not in part:
        return {**mean, **_row(over_seeds(change.tolist()), SEEDS_ONLY)}
    wide = change.unstack("sample")
    group = part.drop_duplicates("sample").set_index("sample")["group"] if "group" in part else None
    known = None if group is None else group.reindex(wide.columns).tolist()
    return {**mean, **_row(interval(wide.to_numpy(), known), BOTH_WAYS)}


def holm(table: pd.DataFrame, family: Sequence[str] = ()) -> pd.DataFrame:
    """The table with a column p_holm: p adjusted for the number of rows, by Holm's step-down method.

    Args:
        family: columns; rows that are equal in them are one family, corrected together. All rows by default.
    """

    def adjust(p: pd.Series) -> pd.Series:
        known = p.dropna().sort_values(kind="stable")
        steps = known.to_numpy() * np.arange(len(known), 0, -1)
        return pd.Series(np.minimum(np.maximum.accumulate(steps), 1.0), known.index).reindex(p.index)

    if table.empty:
        return table
    if not len(family):
        return table.assign(p_holm=adjust(table["p"]))
    return table.assign(p_holm=table.groupby(list(family), sort=False, dropna=False)["p"].transform(adjust))


def pooled(tables: pd.DataFrame | Mapping[str, pd.DataFrame], by: Sequence[str] = ("label",)) -> pd.DataFrame:
    """The mean effect over data sets, one row per group of `by`: what to expect of a further one.

    Random effects: data sets differ by a variance tau^2 besides their errors (Paule and Mandel, 1982); the
    interval is that of Hartung and Knapp (2001) with the number of data sets less one as degrees of freedom, never
    narrower than without their factor. Two data sets give a very wide one. A single one keeps its own interval.

    Args:
        tables: of `compare`, `contrasts` or `differences` by data set, or one table with rows of all.

    Returns columns: those of `by`, difference, low, high, error, df, p, p_holm, tau, smallest_effect, datasets.
    """
    table = pd.concat([*tables.values()], ignore_index=True) if isinstance(tables, Mapping) else tables
    rows = []
    for key, part in table.dropna(subset=["difference"]).groupby(list(by), sort=False):
        effect, error = part["difference"].to_numpy(float), part["error"].to_numpy(float)
        place = dict(zip(by, key if isinstance(key, tuple) else (key,), strict=True))
        if len(part) == 1:
            kept = ["difference", "low", "high", "error", "df", "p", "smallest_effect"]
            rows.append({**place, **part.iloc[0][kept], "tau": float("nan"), "datasets": 1})
            continue
        mean, spread, tau = _random_effects(effect, np.maximum(error, 1e-12) ** 2)
        found = _student(mean, spread, len(part) - 1.0, float("nan"), float("nan"), 0, 0)
        numbers = {"difference": mean, "low": found.low, "high": found.high, "error": found.error}
        numbers |= {"df": found.df, "p": found.p, "smallest_effect": found.smallest_effect}
        rows.append({**place, **numbers, "tau": tau, "datasets": len(part)})
    return holm(pd.DataFrame(rows))


def _random_effects(effect: np.ndarray, variance: np.ndarray) -> tuple[float, float, float]:
    """Mean, its variance and tau, from effects and their variances (K,)."""

    def excess(between: float) -> float:
        weight = 1 / (variance + between)
        centre = (weight * effect).sum() / weight.sum()
        return float((weight * (effect - centre) ** 2).sum()) - (len(effect) - 1)

    between = 0.0
    if excess(0.0) > 0:
        upper = float(np.ptp(effect) ** 2 + variance.max())
        between = float(optimize.brentq(excess, 0.0, upper * len(effect)))
    weight = 1 / (variance + between)
    mean = float((weight * effect).sum() / weight.sum())
    factor = (weight * (effect - mean) ** 2).sum() / (len(effect) - 1)
    return mean, float(max(factor, 1.0) / weight.sum()), float(np.sqrt(between))


def verdict(difference: float, low: float, high: float, paper_effect: float | None = None) -> str:
    """What an interval says of a claim that a difference is above zero; one of `VERDICTS`.

    Args:
        paper_effect: the paper's difference, above zero, where it states one: an interval that holds zero and ends
            below half of it is "smaller than the paper's" instead of "undecided".

    Raises:
        ValueError: numbers that are no interval around the difference, or a paper's effect not above zero.
    """
    if not low <= difference <= high:
        raise ValueError(f"expected low <= difference <= high, got {low}, {difference}, {high}")
    if paper_effect is not None and not paper_effect > 0:
        raise ValueError(f"expected a paper's effect above zero, got {paper_effect}; turn the difference round")
    if low > 0:
        return "held"
    if high < 0:
        return "contradicted"
    small = paper_effect is not None and high < paper_effect / 2
    return "smaller than the paper's" if small else "undecided"


def judged(table: pd.DataFrame, paper: Mapping[str, float] | None = None, label: str = "label") -> pd.DataFrame:
    """The table with two more columns: paper (its difference, by label) and verdict; empty where no difference is.

    Args:
        paper: the paper's differences by label; those not above zero are shown, and do not enter the verdict.
    """
    paper = paper or {}
    effects = [paper.get(name, float("nan")) for name in table[label]]
    words = []
    for row, effect in zip(table[["difference", "low", "high"]].to_numpy(float), effects, strict=True):
        known = effect if effect > 0 else None
        words.append("" if np.isnan(row).any() else verdict(float(row[0]), float(row[1]), float(row[2]), known))
    return table.assign(paper=effects, verdict=words)


def rank_agreement(runs: Mapping[str, Sequence[Scored]], published: Mapping[str, float]) -> Interval:
    """Spearman's rank correlation of test accuracies with published ones: mean over seeds, interval both ways."""
    names = [name for name in published if name in runs]
    found = [answers(runs[name]) for name in names]
    right = np.array([MEANS["accuracy"](one.prediction, one.label) for one in found])  # (variants, seeds, samples)
    ranks = stats.rankdata([published[name] for name in names])

    def correlation(seed: int, weight: np.ndarray) -> np.ndarray:
        own = stats.rankdata(np.round(right[:, seed] @ weight.T / weight.sum(1), 12), axis=0)
        x, y = own - own.mean(0), (ranks - ranks.mean())[:, None]
        scale = np.sqrt((x**2).sum(0) * (y**2).sum())
        return np.divide((x * y).sum(0), scale, out=np.zeros(len(weight)), where=scale > 0)

    return resampled(correlation, len(found[0].seeds), right.shape[2], found[0].group)
