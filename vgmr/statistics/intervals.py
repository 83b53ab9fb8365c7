"""Intervals over seeds and test samples, statistics that take weights, corrections and pooling, of bare numbers.

A difference of accuracies is uncertain for two reasons: other seeds would train other models, and other test
samples would ask other questions. `interval` counts both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import optimize, stats

RESAMPLES = 1000
ROUNDING = 1e-9  # a standard error below this share of its mean is the last bits of equal numbers

Statistic = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Interval:
    """A mean and how far it can be trusted.

    Where nothing varied, no spread is known: the interval has no width, p is 1, and there is no smallest effect.

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
    seed_variance: float = float("nan"),
    sample_variance: float = float("nan"),
    seeds: int = 0,
    samples: int = 0,
) -> Interval:
    error = float(np.sqrt(variance))
    if error <= ROUNDING * abs(mean):
        nothing = (mean, mean, 0.0, df, seed_variance, sample_variance, float("nan"), 1.0, seeds, samples)
        return Interval(mean, *nothing)
    reach, power = (float(stats.t.ppf(share, df)) * error for share in (0.975, 0.8))
    p = float(2 * stats.t.sf(abs(mean) / error, df))
    low, high, smallest = mean - reach, mean + reach, reach + power
    return Interval(mean, low, high, error, df, seed_variance, sample_variance, smallest, p, seeds, samples)


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
        ValueError: fewer than two seeds, samples or groups, a group missing, or infinite values.
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
    if np.isinf(d).any():
        raise ValueError(f"expected finite differences, got {int(np.isinf(d).sum())} infinite ones")
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
        ValueError: fewer than two values, or NaN or infinite ones.
    """
    x = np.asarray(values, float)
    if x.ndim != 1 or len(x) < 2:
        raise ValueError(f"expected one value for each of at least two seeds, got shape {x.shape}")
    if not np.isfinite(x).all():
        raise ValueError(
            f"expected a finite value for each seed, got {x.tolist()}; leave such seeds out everywhere"
        )
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


def random_effects(effect: np.ndarray, error: np.ndarray) -> tuple[Interval, float]:
    """The mean of at least two effects with standard errors, (K,) each; and tau, their spread besides the errors.

    tau^2 is that of Paule and Mandel (1982), the interval Student's with K - 1 degrees of freedom, as that of
    Hartung and Knapp (2001): their factor is 1 at this tau^2, and where tau^2 is 0 it would only narrow. An effect
    without a standard error, since nothing varied, counts as one with the smallest there is.

    Raises:
        ValueError: effects or errors that are not finite.
    """
    if not (np.isfinite(effect).all() and np.isfinite(error).all()):
        raise ValueError(f"expected finite effects and errors, got {list(effect)} and {list(error)}")
    unit = float(np.ptp(effect)) or 1.0  # a root is found to an absolute precision
    effect, error = effect / unit, error / unit
    known = error[error > ROUNDING * np.abs(effect)]
    variance = np.maximum(error, known.min() if len(known) else 1e-12) ** 2

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
    found = _student(mean * unit, float(unit**2 / weight.sum()), len(effect) - 1.0)
    return found, float(np.sqrt(between)) * unit
