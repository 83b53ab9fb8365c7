"""Where two models that see one modality each disagree, who is right there, and what fusion makes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from vgmr.experiment import Run
from vgmr.statistics.answers import sample_names


def disagreements(one: Sequence[Run], other: Sequence[Run], models: Mapping[str, Sequence[Run]]) -> pd.DataFrame:
    """One row per run and test sample: what both single models answered, and who is right.

    Columns: seed, fold, sample (one name wherever it is tested), group (where known), label, first, second (the
    answers), conflict (whether they differ), and for each of `models` whether it is right.

    Args:
        one, other: the same seeds and folds in the same order, trained on one modality each; so are all `models`.
    """
    frames = []
    for place, (left, right) in enumerate(zip(one, other, strict=True)):
        label = np.array(left.label)
        columns = {"first": np.array(left.prediction), "second": np.array(right.prediction)}
        hits = {name: np.array(runs[place].prediction) == label for name, runs in models.items()}
        frame = pd.DataFrame({"seed": left.experiment.seed, "label": label, **columns, **hits})
        fold = 0 if left.experiment.fold is None else left.experiment.fold
        frame["fold"], frame["sample"] = fold, list(map(str, sample_names(left)))
        frames.append(frame.assign(group=left.group) if left.group else frame)
    table = pd.concat(frames, ignore_index=True)
    return table.assign(conflict=table["first"] != table["second"])


def by_class(table: pd.DataFrame, classes: Sequence[str], models: Sequence[str]) -> pd.DataFrame:
    """By true class: the share of samples in conflict, and how often each model is right about those.

    Columns: class, conflict, first right, second right, neither right, and one for each of `models`.
    """
    rows = []
    for number, name in enumerate(classes):
        own = table[table["label"] == number]
        hit = own[own["conflict"]]
        first, second = hit["first"] == hit["label"], hit["second"] == hit["label"]
        row: dict[str, Any] = {"class": name, "conflict": own["conflict"].mean(), "first right": first.mean()}
        row |= {"second right": second.mean(), "neither right": (~first & ~second).mean()}
        rows.append(row | {model: hit[model].mean() for model in models})
    return pd.DataFrame(rows)
