"""Corruptions on one scale of severity, and what trained models lose under them, against a baseline."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import torch
from scipy import integrate
from torch import Tensor

from vgmr.classifier import Classifier
from vgmr.corruption import asynchrony, conflict, noise, sensor_dropout, temporal_masking
from vgmr.data.types import Batch, check_shares
from vgmr.evaluation import accuracy, confusion
from vgmr.experiment import Run, experiment_data
from vgmr.inference import predict
from vgmr.runs import run_all

NOISE = ("noise ratio", "noise weight")


def _zeroed(batch: Batch, where: Mapping[str, Tensor]) -> Batch:
    hit = {name: place & batch.mask[name].unsqueeze(2) for name, place in where.items()}
    if batch.corrupted is not None:
        hit = {name: batch.corrupted[name] | place for name, place in hit.items()}
    features = {name: x.masked_fill(where[name], 0.0) for name, x in batch.features.items()}
    return replace(batch, features=features, corrupted=hit)


def one_missing(batch: Batch, share: float, seed: int = 0) -> Batch:
    """Set one random modality to zero in a share of the samples; no sample loses two."""
    check_shares(share=share)
    generator, names = torch.Generator().manual_seed(seed), list(batch.features)
    strikes = torch.rand(len(batch), generator=generator) < share
    chosen = torch.randint(len(names), (len(batch),), generator=generator)
    where = {name: (strikes & (chosen == place))[:, None, None] for place, name in enumerate(names)}
    return _zeroed(batch, {name: gone.to(batch.label.device) for name, gone in where.items()})


def occlusion(batch: Batch, share: float, seed: int = 0) -> Batch:
    """Set one block of neighbouring channels, a share of each modality's, to zero for the whole sequence.

    Neighbouring channels are neighbours in the world: joints of a skeleton, frequency bands, columns of an image.
    """
    check_shares(share=share)
    generator, where = torch.Generator().manual_seed(seed), {}
    for name, x in batch.features.items():
        width = round(share * x.shape[2])
        start = (torch.rand(len(x), generator=generator) * (x.shape[2] - width + 1)).long().unsqueeze(1)
        channel = torch.arange(x.shape[2])
        where[name] = ((channel >= start) & (channel < start + width)).unsqueeze(1).to(x.device)
    return _zeroed(batch, where)


def out_of_step(batch: Batch, severity: float) -> Batch:
    """Rotate every modality but the last in time, at severity 1 by half of its median length; no step is lost."""
    for name in list(batch.features)[:-1]:
        batch = asynchrony(batch, round(severity * float(batch.lengths()[name].median()) / 2), name)
    return batch


def corruptions(
    train: Batch, granularity: int = 2, ratio: float = 0.5, seed: int = 0
) -> dict[str, Callable[[Batch, float], Batch]]:
    """Eight corruptions by name, each from a part and a severity in 0 to 1 to the corrupted part.

    The first two are the paper's (section 4.8), the others the list of what it leaves to future work (section 5).

    Args:
        train: part whose channels the noise takes after.
        granularity: length of noisy blocks, in time steps.
        ratio: share of noisy blocks while their weight varies.
        seed: draws where a corruption falls.
    """
    return {
        "noise ratio": lambda part, severity: noise(part, train, severity, 1.0, granularity, seed=seed),
        "noise weight": lambda part, severity: noise(part, train, ratio, severity, granularity, seed=seed),
        "one modality missing": partial(one_missing, seed=seed),
        "temporal masking": partial(temporal_masking, seed=seed),
        "sensor dropout": partial(sensor_dropout, seed=seed),
        "occlusion": partial(occlusion, seed=seed),
        "asynchrony": out_of_step,
        "conflict": partial(conflict, seed=seed),
    }


def curves(
    runs: Sequence[Run], severities: Sequence[float], granularity: int = 2, ratio: float = 0.5, jobs: int = 2
) -> pd.DataFrame:
    """Test accuracy of trained models under each of `corruptions`, drawn anew with each run's own seed.

    Runs read from a record are trained first. Returns a row per run, corruption and severity: data, seed, fold
    (where runs have one), corruption, severity, accuracy, and `run`, the position in `runs`.
    """
    rows = []
    for position, run in enumerate(run_all([run.experiment for run in runs], jobs)):
        data, seed, fold = experiment_data(run.experiment), run.experiment.seed, run.experiment.fold
        model = run.model()
        for name, corrupt in corruptions(data.train, granularity, ratio, seed).items():
            found = accuracy_curve(model, data.test, corrupt, severities)
            rows += [
                (position, data.name, seed, fold, name, float(severity), value)
                for severity, value in zip(severities, found, strict=True)
            ]
    frame = pd.DataFrame(rows, columns=["run", "data", "seed", "fold", "corruption", "severity", "accuracy"])
    return frame.drop(columns="fold") if frame["fold"].isna().all() else frame


def scores(frame: pd.DataFrame, chance: Mapping[str, float]) -> pd.DataFrame:
    """What is asked of each curve, one row per curve and quantity; to be handed to `vgmr.comparison.differences`.

    Quantities: clean (accuracy), area (mean accuracy over severity), drop (clean less area) and retention: the
    area above chance as a share of the clean accuracy above chance, 1 where noise takes nothing, 0 where all is
    lost. A model that is better when clean keeps its lead in area, and none in retention. NaN where the clean
    accuracy is not above chance.

    Args:
        frame: tidy, with data, corruption, model, seed, severity and accuracy, and fold where there are folds.
        chance: accuracy of the most frequent class, by data set; one for all of its folds.

    Raises:
        ValueError: curves that were not measured at the same severities, or not at 0.

    Returns columns data, corruption, model, seed, quantity, value, and with folds `sample`: the fold, so that the
    people of a test part are what intervals count beside seeds.
    """
    across, rows = ["seed", "fold"] if "fold" in frame else ["seed"], []
    for (data, corruption), panel in frame.groupby(["data", "corruption"], sort=False):
        wide = panel.pivot(index=["model", *across], columns="severity", values="accuracy").sort_index(axis=1)
        severities = sorted(float(severity) for severity in panel["severity"].unique())
        if severities[0] != 0:
            raise ValueError(f"{data}, {corruption}: expected severity 0, the clean data, among {severities}")
        if wide.isna().any(axis=None):
            each = f"model and {' and '.join(across)}"
            raise ValueError(f"{data}, {corruption}: expected every {each} at the severities {severities}")
        rate = chance[str(data)]
        for place, curve in zip(wide.index, wide.to_numpy(float), strict=True):
            clean, whole = float(curve[0]), area(severities, curve.tolist())
            kept = (whole - rate) / (clean - rate) if clean > rate else float("nan")
            for name, value in {"clean": clean, "area": whole, "drop": clean - whole, "retention": kept}.items():
                rows.append((data, corruption, *place, name, value))
    named = ["sample" if name == "fold" else name for name in across]
    return pd.DataFrame(rows, columns=["data", "corruption", "model", *named, "quantity", "value"])


def accuracy_curve(
    model: Classifier, part: Batch, corrupt: Callable[[Batch, float], Batch], severities: Sequence[float]
) -> list[float]:
    """Accuracy, 0 to 1, at each severity of a corruption.

    Args:
        corrupt: from a part and a severity to the corrupted part; at severity 0 it changes nothing.
    """
    found = []
    for severity in severities:
        corrupted = corrupt(part, severity)
        logits = predict(model, corrupted)
        found.append(accuracy(confusion(logits.argmax(1), corrupted.label, logits.shape[1])))
    return found


def area(severities: Sequence[float], values: Sequence[float]) -> float:
    """Mean height of a curve over its severities: the area below it by trapezoids, divided by their range.

    Raises:
        ValueError: fewer than two severities, not rising, or not as many values.
    """
    x, y = np.asarray(severities, float), np.asarray(values, float)
    if len(x) != len(y) or len(x) < 2 or (np.diff(x) <= 0).any():
        raise ValueError(
            f"expected a value for each of at least two rising severities, got {len(y)} for {list(severities)}"
        )
    return float(integrate.trapezoid(y, x) / (x[-1] - x[0]))
