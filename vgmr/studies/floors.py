"""What linear models show of the open data sets before any network is trained: floors, leaks, scale, conflict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from vgmr.analysis.calibration import conflict_detection, detection, values
from vgmr.analysis.linear import Change, leak, linear_answers, only_scale, over_folds, summaries, without_scale
from vgmr.backbones import PooledBackbone
from vgmr.classifier import Classifier
from vgmr.corruption import Drawn
from vgmr.data import load
from vgmr.data.types import Batch, MultimodalData, joined
from vgmr.refiner import VGMR
from vgmr.studies import study

WORDS = {"text": ["text"], "timing": ["timing"], "acoustic": ["acoustic"], "all": ["text", "timing", "acoustic"]}


def beside(common: Mapping[str, Any], folded: bool) -> float:
    """Accuracy of a linear model on all modalities, about the test samples of trainings with settings `common`.

    It sees means, deviations and jumps over time of each channel, is fitted to training and validation part,
    and is asked once about every fold where `folded`, else about the one test part.
    """
    name = common["dataset"]
    options: dict[str, Any] = {"root": common.get("root"), **common.get("data_options", {})}
    fold: dict[str, Any] = {"fold": 0} if folded else {}
    data = load(name, **options, **fold)
    if folded:
        table = over_folds(name, {"all": data.modalities}, None, True, options)
        return float(table["right"].sum() / table["samples"].sum())
    x, more, asked = (summaries(part, data.modalities, True) for part in data.parts.values())
    label = np.concatenate([data.train.label.numpy(), data.validation.label.numpy()])
    answer = linear_answers(np.concatenate([x, more]), label, asked)
    return float((answer == data.test.label.numpy()).mean())


def by_vectors(vectors: Sequence[str]) -> pd.DataFrame:
    """`over_folds` of mosi-words with each kind of word vectors; one more column, vectors.

    Of all but the first kind only the text is asked: timing and acoustic are the same.
    """
    frames = []
    for kind in vectors:
        views = WORDS if kind == vectors[0] else {"text": ["text"]}
        frames.append(over_folds("mosi-words", views, options={"vectors": kind}).assign(vectors=kind))
    return pd.concat(frames, ignore_index=True)


def leaks() -> pd.DataFrame:
    """`leak` of both data sets made from MOSI; columns dataset, modality, inside, outside.

    Of mosi-utterance the known videos are those whose labels its text and vision networks were trained on.
    """
    rows: list[tuple[Any, ...]] = []
    for name, modalities in (
        ("mosi-utterance", ("text", "vision", "audio")),
        ("mosi-words", ("text", "acoustic")),
    ):
        data = load(name)
        known = joined(data.train, data.validation)
        rows += [(name, m, *leak(known, data.test, [m]).values()) for m in modalities]
    return pd.DataFrame(rows, columns=["dataset", "modality", "inside", "outside"])


def scale_of_steps() -> pd.DataFrame:
    """`over_folds` of utd-mhad with each step as it is, without its scale (LayerNorm), and the scale alone."""
    names = ("accelerometer", "gyroscope", "skeleton")
    views = {name: [name] for name in names} | {"all": list(names)}
    changes: dict[str, Change | None] = {
        "as it is": None,
        "without its scale": without_scale,
        "its scale alone": only_scale,
    }
    return over_folds("utd-mhad", views, changes, True, study("utd-mhad")["data_options"])


def halves(data: MultimodalData) -> MultimodalData:
    """avdigits with its image as two modalities, upper and lower half: three views of one digit."""

    def cut(part: Batch) -> Batch:
        x, mask = part.features["image"], part.mask["image"]
        features = {"audio": part.features["audio"], "upper half": x[:, :4], "lower half": x[:, 4:]}
        masks = {"audio": part.mask["audio"], "upper half": mask[:, :4], "lower half": mask[:, 4:]}
        return replace(part, features=features, mask=masks)

    return replace(data, train=cut(data.train), validation=cut(data.validation), test=cut(data.test))


def conflict_seen(folds: Sequence[int]) -> pd.DataFrame:
    """What the anchors of the calibrated form see of a modality that shows another digit: two views and three.

    Half of the test samples get, in one modality, the sequence of another sample with another label. No network is
    trained: the values of the calibrated form are fitted before any training.

    Columns: views, fold, question ("is there a conflict": AUROC of low agreement over samples; "which one lies":
    AUROC of a low value over the modalities of samples in conflict), auroc.
    """
    rows = []
    for fold in folds:
        two = load("avdigits", fold=fold)
        for data in (two, halves(two)):
            views = len(data.modalities)
            vgmr = VGMR.calibrated(data.dims, len(data.classes), latent_dim=16)
            vgmr.prepare(data.train.features, data.train.mask, data.train.label)
            model = Classifier(vgmr, PooledBackbone(data.dims, len(data.classes)))
            drawn = Drawn.like(data.train, ["conflict"], 0.5)
            frame = values(model, drawn(data.test, torch.Generator().manual_seed(fold)))
            told = frame[frame.groupby("sample")["corrupted"].transform("any")]
            which = detection(told).set_index("score")["auroc"]["value"]
            rows.append((views, fold, "is there a conflict", conflict_detection(frame)))
            rows.append((views, fold, "which one lies", float(which)))
    return pd.DataFrame(rows, columns=["views", "fold", "question", "auroc"])
