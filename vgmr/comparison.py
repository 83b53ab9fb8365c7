"""Differences between trained variants, in tables: the only maker of such.

Every table here is tidy: one row per difference, what a row is stands in columns, numbers stay floats. Above zero,
the label's value is the larger one. Intervals are those of `vgmr.statistics.intervals`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from vgmr.statistics.answers import MEANS, OTHERS, Scored, answers, mean, paired
from vgmr.statistics.intervals import Interval, holm, interval, over_seeds, random_effects

SEEDS_ONLY, BOTH_WAYS = "seeds only", "seeds and samples"
NUMBERS = ("difference", "low", "high", "error", "df", "p", "smallest_effect")


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
        alike = (one.parts, one.keys) == (other.parts, other.keys)
        if not alike or not np.array_equal(one.label, other.label, equal_nan=True):
            raise ValueError(f"{label} and {against}: expected the same test data; compare one data set at a time")
        row = {"label": label, "against": against, "metric": metric, "mean": mean(one, metric)}
        rows.append({**row, **_row(paired(one, other, metric), BOTH_WAYS)})
    return holm(pd.DataFrame(rows))


def compare(runs: Mapping[str, Sequence[Scored]], baseline: str, metric: str = "accuracy") -> pd.DataFrame:
    """One row per variant: mean, and the paired difference to `baseline`; see `contrasts` for columns and errors.

    The first row is a constant answer, the test part's most frequent class or its median, where the runs know of
    it. Neither it nor the baseline has a difference. There is one column more: parameters.
    """
    if not isinstance(runs, Mapping):
        raise TypeError(f"expected runs by the label of their variant, a dict, got {type(runs).__name__}")
    if baseline not in runs:
        raise ValueError(f"unknown baseline {baseline!r}; there are: {', '.join(runs)}")
    table = contrasts(runs, [(label, baseline) for label in runs if label != baseline], metric)
    by_label = {row["label"]: row for row in table.to_dict("records")}
    constant = f"majority_{metric}"
    known = [(run.metrics[constant], len(run.label)) for run in runs[baseline] if constant in run.metrics]
    shares, sizes = zip(*known, strict=True) if known else ((), ())
    rows: list[dict[Any, Any]] = []
    if known:
        name = "majority class" if metric in ("accuracy", "macro_f1") else "constant answer"
        rows = [{"label": name, "mean": float(np.average(shares, weights=sizes))}]
    for label, own in runs.items():
        row = by_label.get(label, {"label": label, "mean": mean(answers(own), metric)})
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
        ValueError: a column is missing, a measurement twice, a value not finite, or a seed or sample missing.
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
        place = dict(zip(outer, key, strict=True))
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
    each = " and ".join(across)
    one = part.set_index(across)[value].astype(float)
    change = one - reference
    if baseline is not None:
        other = baseline.set_index(across)[value].astype(float)
        if set(one.index) != set(other.index):
            odd = sorted(set(one.index) ^ set(other.index), key=repr)
            raise ValueError(f"expected the same {each}s as the baseline; only one of both has {odd[:5]}")
        change = one - other
    mean = {"mean": float(one.mean())}
    if not np.isfinite(change).all():
        raise ValueError(f"{value}: expected a finite number for each {each}, got NaN or infinity; leave such out")
    if "sample" not in part:
        return {**mean, **_row(over_seeds(change.tolist()), SEEDS_ONLY)}
    wide = change.unstack("sample")
    group = part.drop_duplicates("sample").set_index("sample")["group"] if "group" in part else None
    known = None if group is None else group.reindex(wide.columns).tolist()
    return {**mean, **_row(interval(wide.to_numpy(), known), BOTH_WAYS)}


def pooled(tables: pd.DataFrame | Mapping[str, pd.DataFrame], by: Sequence[str] = ("label",)) -> pd.DataFrame:
    """The mean effect over data sets, one row per group of `by`: what to expect of a further one.

    Data sets differ by a variance tau^2 besides their errors, see `vgmr.statistics.intervals.random_effects`.
    Two data sets give a very wide interval. A single one keeps its own.

    Args:
        tables: of `compare`, `contrasts` or `differences` by data set, or one table with rows of all.

    Returns columns: those of `by`, difference, low, high, error, df, p, p_holm, tau, smallest_effect, datasets.
    """
    table = pd.concat([*tables.values()], ignore_index=True) if isinstance(tables, Mapping) else tables
    rows = []
    for key, part in table.dropna(subset=["difference"]).groupby(list(by), sort=False):
        place, tau = dict(zip(by, key, strict=True)), float("nan")
        numbers = dict(part.iloc[0][list(NUMBERS)])
        if len(part) > 1:
            found, tau = random_effects(part["difference"].to_numpy(float), part["error"].to_numpy(float))
            numbers = {"difference": found.mean, **{name: getattr(found, name) for name in NUMBERS[1:]}}
        rows.append({**place, **numbers, "tau": tau, "datasets": len(part)})
    return holm(pd.DataFrame(rows))
