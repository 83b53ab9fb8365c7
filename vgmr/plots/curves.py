"""Curves over epochs, severities or distances: mean and range over seeds; matrices and contours of trainings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.ticker import MaxNLocator

from vgmr.plots.look import display_name, looks


def bands(
    frame: pd.DataFrame,
    x: str,
    y: str,
    hue: str = "label",
    panel: str | None = None,
    row: str | None = None,
    baseline: str | None = None,
    xlabel: str = "",
    ylabel: str = "",
    line: float | Mapping[str, float] | None = None,
    share: bool = True,
    spread: bool = True,
) -> np.ndarray:
    """Mean over seeds as lines, the range from the lowest to the highest seed as bands.

    Args:
        frame: tidy, with seed, `x`, `y`, `hue`, and `panel` and `row` where they are named.
        hue: column of the lines; models have their own colours.
        panel: column, one panel per value: side by side and wrapped after three, or, with `row`, columns of a
            grid whose rows are the values of `row`.
        baseline: value of `hue` whose curve of the same seed is taken off the others: differences, around zero.
        line: a dashed line, such as the rate of the majority class, for all panels or by panel; it is left out
            where it would lie outside what the curves span, and with a baseline it is zero.
        share: one scale for all panels.
        spread: draw the bands.

    Returns the array of axes (rows, columns).
    """
    data = frame
    if baseline is not None:
        keys = [name for name in (row, panel, "seed", x) if name is not None]
        zero = frame[frame[hue] == baseline].set_index(keys)[y].rename("zero")
        rest = frame[frame[hue] != baseline].merge(zero, left_on=keys, right_index=True)
        data = rest.assign(**{y: rest[y] - rest["zero"]})
    panels = [None] if panel is None else list(dict.fromkeys(data[panel]))
    rows = [None] if row is None else list(dict.fromkeys(data[row]))
    across = min(3, len(panels)) if row is None else len(panels)
    down = -(-len(panels) // across) if row is None else len(rows)
    figure, axes = plt.subplots(
        down, across, figsize=(3.4 * across + 1.2, 2.4 * down + 0.9), squeeze=False, sharex=True, sharey=share
    )
    known = looks(list(dict.fromkeys(data[hue])))
    cells = [(name, one) for one in rows for name in panels]
    for ax, (name, one) in zip(axes.flat, cells, strict=False):
        inside = data if name is None else data[data[panel] == name]
        inside = inside if one is None else inside[inside[row] == one]
        for kind, (colour, marker) in known.items():
            part = inside[inside[hue] == kind]
            if part.empty:
                continue
            curve = part.groupby(x)[y].agg(["mean", "min", "max"])
            few = marker if len(curve) <= 8 else ""
            ax.plot(curve.index, curve["mean"], color=colour, marker=few, markersize=5, label=display_name(kind))
            if spread:
                ax.fill_between(curve.index, curve["min"], curve["max"], color=colour, alpha=0.15, linewidth=0)
        place = 0.0 if baseline is not None else line.get(str(name)) if isinstance(line, Mapping) else line
        low, high = inside[y].min(), inside[y].max()
        if place is not None and (baseline is not None or low <= place <= high):
            ax.axhline(place, color="k", linestyle="--", linewidth=1, zorder=1)
        ax.set_title(", ".join(display_name(text) for text in (one, name) if text is not None), fontsize=11)
    if pd.api.types.is_integer_dtype(data[x]):
        axes[0, 0].xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    for ax in axes.flat[len(cells) :]:
        ax.axis("off")
    figure.supxlabel(xlabel or x.replace("_", " "), fontsize=11)
    less = "" if baseline is None else f" minus {display_name(baseline)}'s"
    figure.supylabel(ylabel or y.replace("_", " ") + less, fontsize=11)
    handles = {text: mark for ax in axes.flat for mark, text in zip(*ax.get_legend_handles_labels(), strict=True)}
    many = min(len(handles), 2 + across)
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=many)
    return axes


def learning_curves(variants: Mapping[str, Sequence[Any]]) -> np.ndarray:
    """Training loss, validation loss (nats) and validation accuracy by epoch; mean and range over trainings.

    Of trainings on several folds the mean alone: their range is mostly that of the folds, and hides the lines.
    A curve stops where half of its trainings have ended, so that no mean is one of a few survivors. The scales are
    those of the means: what a band reaches beyond is cut.
    """
    titles = {
        "train_loss": "training loss (nats, all terms)",
        "validation_loss": "validation loss (nats)",
        "validation_accuracy": "validation accuracy",
    }
    rows = [
        (name, run.experiment.seed, title, epoch, value)
        for name, runs in variants.items()
        for run in runs
        for field, title in titles.items()
        for epoch, value in enumerate(getattr(run.history, field), 1)
    ]
    frame = pd.DataFrame(rows, columns=["label", "seed", "measure", "epoch", "value"])
    going = frame.groupby(["label", "measure", "epoch"])["value"].transform("size")
    frame = frame[going >= frame["label"].map({name: len(runs) / 2 for name, runs in variants.items()})]
    folds = {run.experiment.fold for runs in variants.values() for run in runs}
    axes = bands(frame, "epoch", "value", panel="measure", share=False, ylabel=" ", spread=len(folds) == 1)
    for ax in axes.flat:
        means = np.concatenate([line.get_ydata() for line in ax.lines])
        margin = 0.15 * np.ptp(means) or 0.05
        ax.set_ylim(means.min() - margin, means.max() + margin)
    return axes


def balancing_acts(
    coefficients: pd.DataFrame, gradients: pd.DataFrame, ylabel: str, neutral: float | None = None
) -> np.ndarray:
    """Left what a method sets, right what it makes of each branch's gradient, by epoch; array of two axes.

    Args:
        coefficients: columns modality, epoch, value; without rows the left side shows the cosine between the
            gradient with the method and without.
        gradients: columns modality, epoch, length, cosine.
        ylabel: what the coefficients are.
        neutral: the coefficient that would change nothing, as a dashed line.
    """
    axes = plt.subplots(1, 2, figsize=(8, 2.7))[1]
    empty = coefficients.empty
    left = gradients.rename(columns={"cosine": "value"}) if empty else coefficients
    last = int(gradients["epoch"].max())
    names = [*dict.fromkeys(gradients["modality"]), *dict.fromkeys(left["modality"])]
    for number, (name, (colour, _)) in enumerate(looks(list(dict.fromkeys(names))).items()):
        for ax, frame, column in ((axes[0], left, "value"), (axes[1], gradients, "length")):
            rows = frame[frame["modality"] == name]
            marker = "osD^"[number] if len(rows) < 10 else ""
            ax.plot(rows["epoch"] + 1, rows[column], color=colour, marker=marker, label=name)
    for ax, value in ((axes[0], 1.0 if empty else neutral), (axes[1], 1.0)):
        if value is not None:
            ax.axhline(value, color="0.3", linestyle="--", linewidth=1.2, zorder=1)
        ax.set(xlabel="epoch", xlim=(0.5, last + 1.5))
        ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    axes[0].set_ylabel("cosine to plain" if empty else ylabel)
    axes[1].set_ylabel("length, plain = 1")
    axes[1].figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center")
    return axes


def matrices(frame: pd.DataFrame, rows: str, columns: str, value: str, panel: str) -> np.ndarray:
    """Mean of `value` for every pair of `rows` and `columns` as a matrix with its numbers, one per `panel`."""
    names = list(dict.fromkeys(frame[panel]))
    figure, axes = plt.subplots(1, len(names), figsize=(3.0 * len(names) + 1.2, 3.2), squeeze=False, sharey=True)
    for number, (ax, name) in enumerate(zip(axes[0], names, strict=True)):
        table = frame[frame[panel] == name].pivot_table(index=rows, columns=columns, values=value, sort=False)
        first = [name for name in table.index if name in table]
        table = table[[*first, *(name for name in table if name not in first)]]
        sns.heatmap(table, vmin=-1, vmax=1, cmap="RdBu", annot=True, fmt=".2f", ax=ax, cbar=False)
        ax.set(title=str(name), xlabel=columns, ylabel=rows if not number else "")
        ax.tick_params(axis="x", rotation=30)
        ax.tick_params(axis="y", rotation=0)
        ax.grid(False)
    figure.colorbar(axes[0, -1].collections[0], ax=axes[0], label=value)
    return axes[0]
