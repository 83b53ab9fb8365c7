"""What a linear model already makes of a data set: floors, leaks, and what a change of the features takes away."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from vgmr.data import folds, load
from vgmr.data.types import Batch
from vgmr.refining.evidence import pooled

Change = Callable[[Tensor, Tensor], Tensor]


def summaries(
    part: Batch, names: Sequence[str], roughness: bool = False, change: Change | None = None
) -> np.ndarray:
    """Means over real steps of the modalities `names`, side by side: (N, sum of widths).

    Args:
        roughness: with deviation over time and mean jump of each channel, see `vgmr.refining.evidence.pooled`.
        change: of the features (N, T, d) and their mask (N, T) beforehand, such as `without_scale`.
    """
    blocks = []
    for name in names:
        x, mask = part.features[name], part.mask[name]
        shape, rough = pooled(x if change is None else change(x, mask), mask, 1)
        blocks += [shape, rough] if roughness and x.shape[1] > 1 else [shape]
    return torch.cat(blocks, 1).numpy()


def without_scale(x: Tensor, mask: Tensor) -> Tensor:
    """What LayerNorm leaves of each step: (N, T, d), mean 0 and deviation 1 over its channels; padding zero."""
    centred = x - x.mean(2, keepdim=True)
    return centred / (x.var(2, correction=0, keepdim=True) + 1e-5).sqrt() * mask.unsqueeze(2)


def only_scale(x: Tensor, mask: Tensor) -> Tensor:
    """What LayerNorm takes from each step: (N, T, 2), mean and deviation over its channels; padding zero."""
    return torch.stack([x.mean(2), x.std(2, correction=0)], 2) * mask.unsqueeze(2)


def linear_answers(x: np.ndarray, label: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Classes that a logistic regression on standardised columns, fitted to `x` and `label`, gives to `asked`."""
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    answer: np.ndarray = model.fit(x, label).predict(asked)
    return answer


def over_folds(
    name: str,
    views: Mapping[str, Sequence[str]],
    changes: Mapping[str, Change | None] | None = None,
    roughness: bool = False,
    options: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """Linear models tested once on every sample of a data set with folds; fitted to training and validation part.

    Args:
        views: what each sees, by its name.
        changes: of the features before they are pooled, by name; None leaves them.
        options: of the data set's loader.

    Returns one row per view, change and fold: columns view, change, fold, right, samples.
    """
    cases: Mapping[str, Change | None] = changes or {"": None}
    rows = []
    for fold in range(folds(name)):
        data = load(name, fold=fold, **(options or {}))
        label = np.concatenate([part.label.numpy() for part in (data.train, data.validation)])
        for change, function in cases.items():
            for view, names in views.items():
                x, more, asked = (summaries(part, names, roughness, function) for part in data.parts.values())
                answer = linear_answers(np.concatenate([x, more]), label, asked)
                right = int((answer == data.test.label.numpy()).sum())
                rows.append((view, change, fold, right, len(asked)))
    return pd.DataFrame(rows, columns=["view", "change", "fold", "right", "samples"])


def leak(known: Batch, other: Batch, names: Sequence[str], folds: int = 5) -> dict[str, float]:
    """Accuracy of a linear model on groups it has not seen: among the known ones, "inside", and "outside".

    Inside is a cross-validation over the groups of `known`, outside a model fitted to all of it and asked about
    `other`. Both are of groups that the linear model never saw, so where features are honest the two agree; far
    better inside means that whoever made the features saw the labels of `known`.
    """
    assert known.group is not None
    x, label, group = summaries(known, names), known.label.numpy(), known.group.numpy()
    right = np.zeros(len(label))
    for kept, held in GroupKFold(folds).split(x, label, group):
        right[held] = linear_answers(x[kept], label[kept], x[held]) == label[held]
    asked = linear_answers(x, label, summaries(other, names))
    return {"inside": float(right.mean()), "outside": float((asked == other.label.numpy()).mean())}
