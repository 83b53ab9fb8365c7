"""What a value measures: what notebook 20 computes, by question. Every table has one column per seed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import pandas as pd
import torch
from joblib import Parallel, delayed

from vgmr.analysis.information import (
    HELD,
    MADE,
    PARTS,
    beside,
    clusters,
    decomposition,
    of_features,
    of_samples,
    within,
)
from vgmr.analysis.windows import Windows, step_detection
from vgmr.corruption import SPANS, span
from vgmr.data import load
from vgmr.data.types import Batch, MultimodalData
from vgmr.machine.devices import one_thread
from vgmr.studies.calibration import DRAWN_AT, SETTINGS, STEPS, by_seed, experiments, hit_samples, trained
from vgmr.studies.variants import ADOPTED, FORM

# Planted parts. "one modality": redundant evidence, but the visual sequences stand in another sample's place.
PLANTED = ("redundant", "one modality", "unique", "synergistic")
STRENGTHS = (0.0, 0.5, 1.0, 2.0)
DIALS: dict[str, Any] = {"like": "cremad", "samples": 1000, "steps": 6}
CLUSTERS = 6  # as many as there are classes
DIAL_SEEDS, SLOW_SEEDS = 3, 2  # I_BROJA takes up to 20 s
SLOW_STRENGTHS = (0.0, 2.0)

# Pairs of modalities. Where there are people, a seed is a fold, and its test people are nobody else's.
PAIRS: dict[str, dict[str, Any]] = {
    "uci-mfeat": {"conflict": 0.0},
    "uci-mfeat, conflict": {"conflict": 0.3},
    "utd-mhad": SETTINGS["utd-mhad"]["data_options"],
    "cremad-ratings": {},
}
REPEATS = {"uci-mfeat": 5, "uci-mfeat, conflict": 5, "utd-mhad": 8, "cremad-ratings": 5}
ESTIMATOR = {"frequencies": 4, "components": 16}  # frequencies at most the longest sequence
FORMS = (FORM, ADOPTED)

# Values in time. The design of `Windows` came of looking at spans in utd-mhad's test part, never at avdigits.
TIMED: dict[str, dict[str, Any]] = {"utd-mhad": SETTINGS["utd-mhad"]["data_options"], "avdigits": {}}
FOLDS = {"utd-mhad": 8, "avdigits": 6}
WINDOWS = (2, 3, 5)  # chosen among by the validation part


def planted(kind: str, strength: float, seed: int = 0) -> Batch:
    """A made part with one kind of evidence, of `PLANTED`; all dials of the other kinds stand at 0."""
    dials: dict[str, Any] = dict.fromkeys(("redundant", "unique", "synergistic"), 0.0)
    dials["redundant" if kind == "one modality" else kind] = strength
    part = load("synthetic", seed=seed, **DIALS, **dials).train
    if kind != "one modality":
        return part
    order = torch.randperm(len(part), generator=torch.Generator().manual_seed(DRAWN_AT + seed))
    return replace(part, features={**part.features, "visual": part.features["visual"][order]})


def shuffled(part: Batch, seed: int = 0) -> Batch:
    """The part with its labels in another order: nothing is told of them."""
    order = torch.randperm(len(part), generator=torch.Generator().manual_seed(seed))
    return replace(part, label=part.label[order])


def dial(kind: str, strength: float, seed: int) -> list[dict[str, Any]]:
    """The four parts of one setting by each measure, and of the same with shuffled labels; one row per number."""
    part, rows = planted(kind, strength, seed), []
    for labels, one in (("true", part), ("shuffled", shuffled(part, seed))):
        found: dict[str, Mapping[Any, Any]] = {"pointwise": of_features(one).iloc[0].to_dict()}
        whole = clusters(one, CLUSTERS)
        found["I_min"] = decomposition(whole["audio"], whole["visual"], one.label)
        if labels == "true" and seed < SLOW_SEEDS and strength in SLOW_STRENGTHS:
            found["I_BROJA"] = decomposition(whole["audio"], whole["visual"], one.label, "I_BROJA")
        place = {"planted": kind, "strength": strength, "labels": labels, "seed": seed}
        rows += [{**place, "measure": m, "part": p, "value": f[p]} for m, f in found.items() for p in PARTS]
    return rows


def dials(jobs: int = 1) -> pd.DataFrame:
    """All of `PLANTED` at all `STRENGTHS`: columns planted, strength, labels, measure, part, one per seed."""
    return _table(dial, product(PLANTED, STRENGTHS, range(DIAL_SEEDS)), jobs)


def _table(rows_of: Callable[..., list[dict[str, Any]]], todo: Iterable[Sequence[Any]], jobs: int) -> pd.DataFrame:
    found = Parallel(jobs)(delayed(rows_of)(*each) for each in todo)
    return by_seed(pd.DataFrame([row for rows in found for row in rows]))


def data_of(name: str, seed: int) -> MultimodalData:
    """A data set of `PAIRS` or `TIMED` in the split, or the fold, that a seed stands for."""
    options = {**PAIRS, **TIMED}[name]
    own: dict[str, Any] = {"split_seed": seed} if name.startswith("uci-mfeat") else {"fold": seed}
    return load(name.split(",")[0], **options, **own)


def terms_of_test(data: MultimodalData) -> pd.DataFrame:
    """`of_samples` of the test part by classifiers that were fitted to the training part."""
    longest = max(data.max_lengths.values())
    estimator = {**ESTIMATOR, "frequencies": min(ESTIMATOR["frequencies"], longest)}
    return of_samples(data.test, data.train, **estimator)


def pair(name: str, seed: int) -> list[dict[str, Any]]:
    """The parts of every pair of modalities of one test part, in bits, and the labels' entropy; one row each."""
    with one_thread():
        data = data_of(name, seed)
        share = torch.bincount(data.test.label).double() / len(data.test)
        entropy = -float(torch.special.xlogy(share, share).sum() / torch.log(torch.tensor(2.0)))
        means = terms_of_test(data).drop(columns="sample").groupby(["first", "second"], sort=False).mean()
        rows = []
        for row in means.assign(entropy=entropy).reset_index().to_dict("records"):
            place = {"dataset": name, "first": row.pop("first"), "second": row.pop("second"), "seed": seed}
            rows += [{**place, "part": part, "value": value} for part, value in row.items()]
        return rows


def pairs(jobs: int = 1) -> pd.DataFrame:
    """All pairs of `PAIRS`: columns dataset, first, second, part, one per split or fold."""
    todo = [(name, seed) for name, repeats in REPEATS.items() for seed in range(repeats)]
    return _table(pair, todo, jobs)


BESIDE = {"uci-mfeat": "uci-mfeat, conflict", "utd-mhad": "utd-mhad"}  # three modalities each


def permuted(frame: pd.DataFrame, seed: int) -> pd.DataFrame:
    """A table of `beside` with what the model makes of each sample at another one's place, by modality."""
    generator = torch.Generator().manual_seed(seed)
    moved = frame.copy()
    for _, rows in frame.groupby("modality", sort=False):
        order = torch.randperm(len(rows), generator=generator).numpy()
        moved.loc[rows.index, list(MADE)] = rows[list(MADE)].to_numpy()[order]
    return moved


def told(dataset: str, label: str) -> list[dict[str, Any]]:
    """What a form makes of modalities beside what they hold, trained once per seed; one row per number.

    Question "within" has rank correlations over samples (`vgmr.analysis.information.within`): of all, of whole
    ones where some are in conflict, and with values of other samples in their place ("permuted"). Question "means"
    has the mean of each quantity by modality.
    """
    repeats = REPEATS[BESIDE[dataset]]
    found: list[dict[str, Any]] = []
    for one in trained(experiments(dataset, STEPS[label], corrupted=False, seeds=range(repeats)), label):
        frame = beside(one.model, one.data.test, terms_of_test(one.data))
        cases = {"all": frame, "permuted": permuted(frame, one.seed)}
        if one.data.test.corrupted is not None:
            hit = hit_samples(one.data.test).numpy()
            cases["whole"] = frame[~hit[frame["sample"]]]
        place = {"dataset": dataset, "label": label, "seed": one.seed}
        for case, rows in cases.items():
            for row in within(rows).to_dict("records"):
                names = {"of": row["of"], "with": row["with"]}
                found.append({"question": "within", **place, "case": case, **names, "value": row["correlation"]})
        means = frame.groupby("modality", sort=False)[[*MADE, *HELD]].mean().reset_index()
        for row in means.melt("modality", var_name="of", value_name="mean").to_dict("records"):
            mean = {"case": row["modality"], "of": row["of"], "value": row["mean"]}
            found.append({"question": "means", **place, **mean})
    return found


def beside_values(jobs: int = 1) -> pd.DataFrame:
    """Both forms on all sets of `BESIDE`: columns question, dataset, label, case, of, with, one per seed."""
    return _table(told, product(BESIDE, FORMS), jobs)


def spans_of(name: str, seed: int) -> list[dict[str, Any]]:
    """Step-level AUROC by kind of span on one test part; the number of windows by the validation part alone.

    Rows of part "validation" say how each number of windows did there, those of part "test" what the best did.
    """
    with one_thread():
        data, rows, best = data_of(name, seed), [], -1.0
        place = {"dataset": name, "seed": seed}
        for count in WINDOWS:
            tried = Windows(data.train, len(data.classes), count)
            found = [_areas(tried, span(data.validation, kind, seed=1)) for kind in SPANS]
            mean = sum(areas["all", "in time"] for areas in found) / len(SPANS)
            rows.append({**place, "part": "validation", "kind": str(count), "value": mean})
            if mean > best:
                best, chosen = mean, tried
        for kind in SPANS:
            for (modality, what), area in _areas(chosen, span(data.test, kind, seed=2 + seed)).items():
                rows.append(
                    {**place, "part": "test", "kind": kind, "modality": modality, "of": what, "value": area}
                )
        return rows


def _areas(windows: Windows, part: Batch) -> dict[Any, float]:
    return step_detection(windows, part).set_index(["modality", "value"])["auroc"].to_dict()


def spans(jobs: int = 1) -> pd.DataFrame:
    """All folds of `TIMED`: columns dataset, part, kind, modality, of ("in time", "pooled"), one per fold."""
    todo = [(name, fold) for name, folds in FOLDS.items() for fold in range(folds)]
    return _table(spans_of, todo, jobs)


TABLES = {"20-beside": beside_values, "20-pairs": pairs, "20-spans": spans, "20-dials": dials}


def parameters(name: str) -> dict[str, Any]:
    """What a table of `TABLES` depends on, for `vgmr.records.kept.tabled`."""
    found: dict[str, dict[str, Any]] = {
        "20-dials": {
            "dials": DIALS,
            "strengths": STRENGTHS,
            "clusters": CLUSTERS,
            "seeds": [DIAL_SEEDS, SLOW_SEEDS],
        },
        "20-pairs": {"data": PAIRS, "repeats": REPEATS, "estimator": ESTIMATOR},
        "20-beside": {"data": BESIDE, "repeats": REPEATS, "estimator": ESTIMATOR},
        "20-spans": {"data": TIMED, "folds": FOLDS, "windows": WINDOWS},
    }
    return found[name]
