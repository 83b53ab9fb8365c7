"""Samples: sequences and images, what corruption and gates do to them, answers by class. Data in, axes out."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from vgmr.data.types import Batch
from vgmr.evaluation import confusion
from vgmr.experiment import Run
from vgmr.plots.look import COLOURS
from vgmr.statistics.answers import answers
from vgmr.statistics.intervals import interval


def sequences(batch: Batch, rows: Sequence[int], classes: Sequence[str]) -> np.ndarray:
    """One picture per sample (row) and modality (column): time downwards, channels across; corrupted ones framed.

    The class, or in regression the score, stands at the left of each row. A modality of a single step is drawn as
    bars, one per channel. Each modality has one scale for all samples. Returns the array of axes.
    """
    names = list(batch.features)
    figure, axes = plt.subplots(
        len(rows), len(names), figsize=(1.9 * len(names) + 2, 1.75 * len(rows) + 0.2), squeeze=False
    )
    for line, row in zip(axes, rows, strict=True):
        for ax, name in zip(line, names, strict=True):
            real = batch.mask[name][row]
            shown = batch.features[name][list(rows)][batch.mask[name][list(rows)]]
            _picture(ax, batch.features[name][row][real].numpy(), float(shown.min()), float(shown.max()))
            if batch.corrupted is not None and batch.corrupted[name][row].any():
                for spine in ax.spines.values():
                    spine.set(color="C3", linewidth=4)
                ax.set_xlabel("in conflict", color="C3")
        line[0].set_ylabel("time step" if line[0].images else "value", fontsize=9)
        label = batch.label[row]
        named = classes[int(label)] if len(classes) else f"score {float(label):.1f}"
        line[0].annotate(
            textwrap.fill(str(named), 14),
            (0, 0.5),
            (-48, 0),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize=10,
            fontweight="bold",
        )
    for ax, name in zip(axes[0], names, strict=True):
        ax.set_title(name)
    figure.supxlabel("channel", fontsize=10)
    figure.align_labels()
    return axes


def small_matrices(
    tensors: Mapping[str, torch.Tensor],
    mask: Mapping[str, torch.Tensor],
    caption: str,
    centre: float = 0.0,
    reach: float = 4.0,
    form: str = ".3g",
    cmap: str = "RdBu",
) -> np.ndarray:
    """A few samples as matrices with their numbers: steps downwards, features across, padding grey.

    Args:
        tensors: name -> (B, T_m, d_m), small.
        mask: name -> (B, T_m) bool.
        centre, reach: the middle and half the width of the colour scale, in the tensors' unit.
        form: of the numbers.
        cmap: colours below and above the middle.

    Returns the array of axes, samples after one another and modalities within.
    """
    samples = len(next(iter(mask.values())))
    panels = [(row, name) for row in range(samples) for name in tensors]
    widths = [tensors[name].shape[2] for _, name in panels]
    figure, axes = plt.subplots(1, len(panels), figsize=(0.8 * sum(widths), 2.3), width_ratios=widths)
    for ax, (row, name) in zip(axes, panels, strict=True):
        shown = tensors[name][row].masked_fill(~mask[name][row].unsqueeze(1), torch.nan)
        ax.imshow(shown, cmap=cmap, vmin=centre - reach, vmax=centre + reach, aspect="auto")
        for step, feature in (~shown.isnan()).nonzero().tolist():
            value = float(shown[step, feature]) + 0.0
            ink = "white" if abs(value - centre) > 0.5 * reach else "black"
            ax.text(feature, step, format(value, form), ha="center", va="center", color=ink)
        ax.set(xticks=range(shown.shape[1]), yticks=range(len(shown)), facecolor="lightgrey", xlabel="feature")
        ax.set_title(f"sample {row}, {name}", fontsize=10)
        ax.grid(False)
    axes[0].set_ylabel("time step")
    figure.suptitle(caption)
    return np.asarray(axes)


def gate_strength(points: Mapping[str, tuple[float, float]]) -> Axes:
    """(1 - rho) alpha over alpha (across) and rho (up), with lines of equal strength and named (alpha, rho)."""
    ax = plt.subplots(figsize=(6, 5))[1]
    side = np.linspace(0, 1, 101)
    strength = (1 - side[:, None]) * side[None, :]
    picture = ax.contourf(side, side, strength, levels=np.linspace(0, 1, 21), cmap="cividis")
    lines = ax.contour(side, side, strength, levels=[0.1, 0.2, 0.4, 0.8], colors="white", linewidths=1.5)
    ax.clabel(lines, fmt="%.1f")
    for (name, place), marker in zip(points.items(), "osD^v<>", strict=False):
        ax.plot(*place, marker, color="white", markeredgecolor="k", markersize=8, label=name, clip_on=False)
    ax.set(xlabel="alpha, amplification", ylabel="rho, retention")
    ax.grid(False)
    ax.figure.colorbar(picture, ax=ax, ticks=lines.levels, label="strength s; E lies in 1 - s to 1 + s")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1.02), facecolor="0.9", fontsize=9)
    return ax


def refinement_maps(
    features: Mapping[str, torch.Tensor], refined: Mapping[str, torch.Tensor], table: pd.DataFrame
) -> np.ndarray:
    """Figures 6 and 7: where VGMR makes responses smaller (red) and larger (blue), and the share it takes away.

    Drawn is |E X| - |X|, time step downwards and channel across, on one scale for all modalities; bars where there
    is a single step.

    Args:
        features, refined: X and E X of each modality, (T_m, d_m), in the features' units.
        table: one row per modality, columns modality and mean (share of |X| taken away).
    """
    change = {name: (refined[name].abs() - x.abs()).numpy() for name, x in features.items()}
    figure, axes = plt.subplots(1, len(change) + 1, figsize=(2 * len(change) + 3, 2.7))
    limit = max(float(np.quantile(np.abs(x), 0.99)) for x in change.values()) or 1.0
    picture = None
    for ax, (name, x) in zip(axes, change.items(), strict=False):
        picture = _picture(ax, x, -limit, limit, "RdBu") or picture
        ax.set(title=name, xlabel="channel")
    axes[0].set_ylabel("time step" if picture is not None else "|E X| - |X|")
    figure.set_layout_engine("constrained", wspace=0.08)
    if picture is not None:
        figure.colorbar(picture, ax=axes[-2], label="|E X| - |X|", extend="both")
    axes[-1].bar(table["modality"], table["mean"], color="0.6")
    axes[-1].axhline(0, color="k", linewidth=1)
    axes[-1].set(ylabel="share of |X| taken away")
    axes[-1].tick_params(axis="x", rotation=30)
    return axes


def before_and_after(frame: pd.DataFrame, probability: torch.Tensor, classes: Sequence[str]) -> np.ndarray:
    """One sample before and after a corruption: global value and effective gate by modality, class probabilities.

    Light bars are before, dark ones after; after, the corrupted modality has the colour of what is corrupted.

    Args:
        frame: two rows per modality; columns condition ("clean", "corrupted"), modality, global_value, gate
            (effective, 0 to 2), corrupted (of this modality), label.
        probability: (2, classes) clean and corrupted; the true class is outlined.
    """
    axes = plt.subplots(1, 3, figsize=(12, 3.2), width_ratios=[1, 1, 2])[1]
    names = list(dict.fromkeys(frame["modality"]))
    shown = (("global_value", "global value", 0.5), ("gate", "effective gate", 1.0))
    for ax, (column, title, neutral) in zip(axes, shown, strict=False):
        for shift, (condition, rows) in zip((-0.2, 0.2), frame.groupby("condition"), strict=True):
            place = [names.index(name) + shift for name in rows["modality"]]
            after = "0.35" if condition == "corrupted" else "0.75"
            colours = [COLOURS["corrupted"] if hit else after for hit in rows["corrupted"]]
            ax.bar(place, rows[column], 0.4, color=colours, linewidth=0)
        ax.axhline(neutral, color="k", linewidth=1, linestyle="--")
        ax.set(ylim=(0, 2 * neutral), xticks=range(len(names)), xticklabels=names, ylabel=title)
        ax.grid(visible=False, axis="x")
    for shift, condition, shade, values in zip(
        (-0.2, 0.2), ("clean", "corrupted"), ("0.75", "0.35"), probability, strict=True
    ):
        axes[2].bar(
            np.arange(len(classes)) + shift, values.numpy(), 0.4, color=shade, label=condition, linewidth=0
        )
    label = int(frame["label"].iloc[0])
    axes[2].axvspan(label - 0.45, label + 0.45, facecolor="none", edgecolor="k", label="true class")
    axes[2].set(ylim=(0, 1), xlabel="class", ylabel="probability")
    axes[2].xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    hit = Patch(color=COLOURS["corrupted"], label="the corrupted modality")
    axes[2].legend(handles=[*axes[2].get_legend_handles_labels()[0], hit])
    return axes


def _picture(ax: Axes, x: np.ndarray, low: float, high: float, cmap: str = "cividis") -> Any:
    """(T, d) as an image; bars where T is 1."""
    if len(x) == 1:
        ax.bar(range(x.shape[1]), x[0], width=1.0, linewidth=0, color="C0")
        ax.axhline(0, color="k", linewidth=0.8)
        ax.set(xticks=[], xlim=(-0.5, x.shape[1] - 0.5), ylim=(min(low, 0), max(high, 0) or 1))
        ax.tick_params(axis="y", labelsize=8)
        ax.grid(False)
        return None
    picture = ax.imshow(x, cmap=cmap, aspect="auto", vmin=low, vmax=high, interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    ax.grid(False)
    return picture


def corruption_gallery(parts: Mapping[str, Batch], row: int) -> np.ndarray:
    """One sample under each corruption (column), by modality (row): time downwards, channels across."""
    names = list(next(iter(parts.values())).features)
    axes = plt.subplots(len(names), len(parts), figsize=(1.3 * len(parts) + 0.5, 1.6 * len(names) + 0.4))[1]
    for column, (title, part) in zip(axes.T, parts.items(), strict=True):
        column[0].set_title(title.replace(" ", "\n"), fontsize=10)
        for ax, name in zip(column, names, strict=True):
            real = part.mask[name][row]
            _picture(ax, part.features[name][row][real].numpy(), -2, 2)
    for ax, name in zip(axes[:, 0], names, strict=True):
        ax.set_ylabel(f"{name}\ntime step", fontsize=9)
    for ax in axes[-1]:
        ax.set_xlabel("channel", fontsize=9)
    return axes


def corrupted(
    clean: Batch, dirty: Batch, row: int, scores: Mapping[str, Sequence[float]], rate: float
) -> np.ndarray:
    """One sample before and after a corruption, and accuracies of models on the whole part; array of axes.

    Args:
        scores: model -> (accuracy when clean, accuracy when corrupted).
        rate: majority rate.
    """
    names = list(clean.features)
    layout: list[list[Any]] = [[*(f"{view} {name}" for name in names), "score"] for view in ("clean", "corrupted")]
    size = (2 * len(names) + 4, 3.8)
    axes = plt.subplot_mosaic(layout, figsize=size, width_ratios=[1] * len(names) + [1.9])[1]
    for name in names:
        for view, part in (("clean", clean), ("corrupted", dirty)):
            ax, real = axes[f"{view} {name}"], part.mask[name][row]
            _picture(ax, part.features[name][row][real].numpy(), -2, 2)
            ax.set_title(f"{name}, {view}", fontsize=9)
    axes[f"clean {names[0]}"].set_ylabel("time step")
    axes[f"corrupted {names[0]}"].set_ylabel("time step")
    ax = axes["score"]
    for number, (label, colour) in enumerate((("clean", "0.6"), ("corrupted", COLOURS["corrupted"]))):
        places = [place - 0.2 + 0.4 * number for place in range(len(scores))]
        bars = ax.bar(places, [pair[number] for pair in scores.values()], 0.38, color=colour, label=label)
        ax.bar_label(bars, fmt="%.2f", fontsize=9)
    ax.axhline(rate, color="k", linestyle="--", label="majority class")
    ax.set(xticks=range(len(scores)), xticklabels=list(scores), ylabel="test accuracy", ylim=(0, 1))
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, fontsize=8)
    return np.array(list(axes.values()))


def confusion_matrix(counts: torch.Tensor, classes: Sequence[str], ax: Axes | None = None) -> Axes:
    """Share of each true class (row) answered as each class (column), with its numbers up to ten classes.

    Two classes need no matrix: the share of right answers by class, as bars.

    Args:
        counts: (classes, classes) as from `vgmr.evaluation.confusion`.
    """
    share = (counts / counts.sum(1, keepdim=True).clamp(min=1)).numpy()
    few, alone = len(classes) <= 10, ax is None
    if len(classes) == 2:
        ax = plt.subplots(figsize=(4.2, 1.6))[1] if ax is None else ax
        bars = ax.barh(list(classes), share.diagonal(), color="0.6")
        ax.grid(False)
        ax.bar_label(bars, fmt="%.2f", padding=3, fontsize=9)
        ax.set(xlabel="share answered right", ylabel="true class", xlim=(0, 1.12), ylim=(1.5, -0.5))
        return ax
    side = max(3.6, 0.42 * len(classes)) if few else 0.24 * len(classes)
    ax = plt.subplots(figsize=(side + 0.8, side))[1] if ax is None else ax
    sns.heatmap(
        share,
        vmin=0,
        vmax=1,
        cmap="cividis",
        ax=ax,
        annot=few,
        fmt=".2f",
        annot_kws={"fontsize": 8},
        xticklabels=list(classes) if few else False,
        yticklabels=list(classes),
        square=alone,
        cbar=not few,
        cbar_kws={"label": "share of the true class", "location": "top"},
    )
    ax.set(xlabel="predicted class" + ("" if few else ", in the same order"), ylabel="true class")
    ax.tick_params(axis="y", rotation=0)
    return ax


def _per_class(baseline: Sequence[Run], refined: Sequence[Run], classes: Sequence[str], ax: Axes) -> None:
    """Change of each class's recall from `baseline` to `refined`: mean of paired seeds, 95% interval.

    The interval is over seeds and the class's test samples, or groups; filled where it leaves zero out. A class
    with too few samples for one is a dot alone.
    """
    one, other = answers(refined), answers(baseline)
    there = ~np.isnan(one.label)
    right = (one.prediction == one.label).astype(float) - (other.prediction == other.label)
    change, label = np.where(there, right, np.nan), np.where(there, one.label, -1).max(0)
    group = None if one.group is None else np.array(one.group)
    for index in range(len(classes)):
        own = label == index
        if not own.any():
            continue
        try:
            found = interval(change[:, own], None if group is None else group[own].tolist())
            mean, low, high = found.mean, found.low, found.high
        except ValueError:
            mean = low = high = float(np.nanmean(change[:, own]))
        colour = "0.25"
        ax.plot([low, high], [index, index], color=colour, linewidth=1.8)
        face = colour if low > 0 or high < 0 else "white"
        ax.plot(mean, index, "o", color=colour, markersize=6, markerfacecolor=face, markeredgewidth=1.5)
    ax.axvline(0, color="k", linewidth=1, zorder=1)
    ax.set(yticks=range(len(classes)), yticklabels=list(classes), ylim=(len(classes) - 0.5, -0.5))
    ax.set(xlabel="change of recall (mean, 95% interval)", ylabel="true class")


def answers_by_class(baseline: Sequence[Run], refined: Sequence[Run], classes: Sequence[str]) -> np.ndarray:
    """Answers of `refined` by true class, and each class's change of recall from `baseline`; scores as a cloud.

    Both sides list the classes in the same order. In regression, where there are no classes, it is one picture.
    """
    label = torch.tensor([value for run in refined for value in run.label])
    answer = torch.tensor([value for run in refined for value in run.prediction])
    if not len(classes):
        ax = plt.subplots(figsize=(4.4, 4))[1]
        ax.plot(label, answer, ".", color="0.3", alpha=0.3)
        ax.axline((0, 0), slope=1, color="k", linewidth=1)
        ax.set(xlabel="true score", ylabel="predicted score")
        return np.array([ax])
    height = 0.24 * len(classes) + 1 if len(classes) > 10 else 0.5 * len(classes) + 1
    axes = plt.subplots(1, 2, figsize=(11, height), width_ratios=[1, 1])[1]
    confusion_matrix(confusion(answer, label, len(classes)), classes, axes[0])
    _per_class(baseline, refined, classes, axes[1])
    axes[1].tick_params(labelleft=False)
    axes[1].set_ylabel("")
    return axes
