"""Every figure: data in, `Axes` out. Colours are seaborn's colour-blind palette."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from vgmr.data.types import Batch, MultimodalData
from vgmr.experiment import Run


def style() -> None:
    """The look of all figures."""
    sns.set_theme(style="whitegrid", context="notebook", palette="colorblind")
    plt.rcParams |= {"figure.dpi": 100, "savefig.dpi": 100, "figure.constrained_layout.use": True}
    plt.rcParams |= {"axes.titlesize": 12, "axes.labelsize": 11, "font.size": 11, "legend.fontsize": 10}


def sequences(batch: Batch, rows: Sequence[int], classes: Sequence[str]) -> np.ndarray:
    """One image per sample (row) and modality (column): time downwards, channels across; corrupted ones framed.

    Returns the array of axes (samples, modalities).
    """
    names = list(batch.features)
    figure, axes = plt.subplots(
        len(rows), len(names), figsize=(1.9 * len(names) + 1, 1.75 * len(rows)), squeeze=False
    )
    for line, row in zip(axes, rows, strict=True):
        for ax, name in zip(line, names, strict=True):
            real = batch.mask[name][row]
            ax.imshow(batch.features[name][row][real].numpy(), cmap="cividis", aspect="auto")
            ax.set(xticks=[], yticks=[])
            ax.grid(False)
            if batch.corrupted is not None and batch.corrupted[name][row].any():
                for spine in ax.spines.values():
                    spine.set(color="C3", linewidth=4)
                ax.set_xlabel("in conflict", color="C3")
        line[0].set_ylabel(f"{classes[int(batch.label[row])][:18]}\ntime step", fontsize=9)
    for ax, name in zip(axes[0], names, strict=True):
        ax.set_title(name)
    figure.align_labels()
    return axes


def seed_points(variants: Mapping[str, Sequence[Run]], ax: Axes | None = None, metric: str = "accuracy") -> Axes:
    """Every seed's score as a dot, the mean as a bar, the majority class as a dashed line."""
    ax = plt.subplots(figsize=(7, 0.5 * len(variants) + 1.3))[1] if ax is None else ax
    for position, runs in enumerate(variants.values()):
        values = [run.metrics[metric] for run in runs]
        ax.plot(
            values, [position] * len(values), "o", color="C0", alpha=0.6, label="one seed" if not position else ""
        )
        ax.plot(
            [np.mean(values)] * 2,
            [position - 0.3, position + 0.3],
            color="k",
            label="mean" if not position else "",
        )
    rate = next(iter(variants.values()))[0].metrics[f"majority_{metric}"]
    ax.axvline(rate, color="C3", linestyle="--", label="majority class")
    ax.set(yticks=range(len(variants)), yticklabels=list(variants), xlabel=f"test {metric.replace('_', ' ')}")
    ax.invert_yaxis()
    ax.legend(loc="best")
    return ax


def balancing_acts(
    coefficients: pd.DataFrame, gradients: pd.DataFrame, ylabel: str, neutral: float | None = None
) -> np.ndarray:
    """Left what a method sets, right what it makes of each branch's gradient, by epoch; array of two axes.

    Args:
        coefficients, gradients: of `vgmr.studies.Watched`; without coefficients the left side shows the cosine
            between the gradient with the method and without.
        ylabel: what the coefficients are.
        neutral: the coefficient that would change nothing, as a dashed line.
    """
    axes = plt.subplots(1, 2, figsize=(7, 2.1))[1]
    empty = coefficients.empty
    left = gradients.rename(columns={"cosine": "value"}) if empty else coefficients
    last = int(gradients["epoch"].max())
    names = [*dict.fromkeys(gradients["modality"]), *dict.fromkeys(left["modality"])]
    for number, name in enumerate(dict.fromkeys(names)):
        for ax, frame, column in ((axes[0], left, "value"), (axes[1], gradients, "length")):
            rows = frame[frame["modality"] == name]
            marker = "osD^"[number] if len(rows) < 10 else ""
            ax.plot(rows["epoch"] + 1, rows[column], color=f"C{number}", marker=marker, label=name)
    for ax, value in ((axes[0], 1.0 if empty else neutral), (axes[1], 1.0)):
        if value is not None:
            ax.axhline(value, color="0.3", linestyle="--", linewidth=1.2, zorder=1)
        ax.set(xlabel="epoch", xlim=(0.5, last + 1.5))
        ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    axes[0].set_ylabel("cosine to plain" if empty else ylabel)
    axes[1].set_ylabel("length, times plain")
    axes[1].set_ylabel("length, plain = 1")
    axes[1].figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center")
    return axes


def against_published(
    runs: Mapping[str, Sequence[Run]], published: Mapping[str, float], ax: Axes | None = None
) -> Axes:
    """Test accuracy here (across), mean and range over seeds, in the published order, best on top.

    Were the order the same, the dots would step from the upper right to the lower left.
    """
    names = sorted((name for name in published if name in runs), key=lambda name: -published[name])
    ax = plt.subplots(figsize=(5, 0.4 * len(names) + 1))[1] if ax is None else ax
    for place, name in enumerate(names):
        values = [run.metrics["accuracy"] for run in runs[name]]
        ax.plot([min(values), max(values)], [place, place], color="C0")
        ax.plot(np.mean(values), place, "o", color="C0")
    ax.set(yticks=range(len(names)), yticklabels=[f"{name}  {published[name]:.4f}" for name in names])
    ax.set(xlabel="test accuracy here", ylabel="published, best on top", ylim=(len(names) - 0.5, -0.5))
    ax.locator_params(axis="x", nbins=4)
    return ax


def intervals(table: pd.DataFrame, ax: Axes | None = None, xlabel: str = "difference to plain") -> Axes:
    """The differences of `compare`, with their 95% intervals, around zero."""
    rows = table.dropna(subset=["difference"])
    ax = plt.subplots(figsize=(7, 0.5 * len(rows) + 1.3))[1] if ax is None else ax
    for position, (low, mean, high) in enumerate(rows[["low", "difference", "high"]].to_numpy(float)):
        ax.errorbar(mean, position, xerr=[[mean - low], [high - mean]], fmt="o", color="C0", capsize=4)
    ax.axvline(0, color="k", linewidth=1)
    ax.set(yticks=range(len(rows)), yticklabels=list(rows.index), xlabel=f"{xlabel} (mean, 95% interval)")
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.locator_params(axis="x", nbins=6)
    return ax


def costs(frame: pd.DataFrame, ax: Axes | None = None, xlabel: str = "training time, ratio to plain") -> Axes:
    """Ratios measured here (filled) and the paper's (hollow), joined; one row per entry of the index.

    Args:
        frame: columns measured and paper; empty cells are left out.
    """
    ax = plt.subplots(figsize=(7.5, 0.36 * len(frame) + 1.3))[1] if ax is None else ax
    places = np.arange(len(frame))
    ax.hlines(places, frame["measured"], frame["paper"], color="0.7")
    ax.plot(frame["measured"], places, "o", color="C0", label="measured here")
    ax.plot(frame["paper"], places, "D", color="C3", markerfacecolor="white", label="the paper")
    ax.axvline(1, color="k", linewidth=1)
    ax.set(yticks=places, yticklabels=list(frame.index), xlabel=xlabel)
    ax.invert_yaxis()
    ax.legend(loc="best")
    return ax


def accuracy_against_cost(frame: pd.DataFrame, xlabel: str = "training time, ratio to plain") -> np.ndarray:
    """Difference to plain with its 95% interval against cost, a panel per data set, a colour and mark per variant.

    Args:
        frame: columns dataset, variant, cost, difference, low and high; variants of like cost are drawn side by
            side, 0.02 apart.

    Returns the array of axes.
    """
    sets, variants = list(frame["dataset"].unique()), list(frame["variant"].unique())
    figure, axes = plt.subplots(1, len(sets), figsize=(3.5 * len(sets) + 2.4, 3.8), squeeze=False, sharex=True)
    for ax, name in zip(axes[0], sets, strict=True):
        taken: list[float] = []
        for _, row in frame[frame["dataset"] == name].iterrows():
            place = float(row["cost"])
            while any(abs(place - other) < 0.015 for other in taken):
                place += 0.02
            taken.append(place)
            number = variants.index(row["variant"])
            spread = [[row["difference"] - row["low"]], [row["high"] - row["difference"]]]
            ax.errorbar(
                place,
                row["difference"],
                yerr=spread,
                fmt="osD^vPX<>"[number],
                color=f"C{number}",
                capsize=3,
                markersize=7,
                label=row["variant"],
            )
        ax.axhline(0, color="k", linewidth=1)
        ax.axvline(1, color="k", linewidth=1, linestyle=":")
        ax.set(title=name, xlabel=xlabel)
    axes[0, 0].set_ylabel("test accuracy, difference to plain\n(mean, 95% interval)")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right center")
    return axes[0]


def bands(
    frame: pd.DataFrame, x: str, y: str, hue: str, ax: Axes | None = None, xlabel: str = "", ylabel: str = ""
) -> Axes:
    """Mean over seeds as lines with markers, the range from lowest to highest seed as bands."""
    ax = plt.subplots(figsize=(7, 4))[1] if ax is None else ax
    frame = frame.rename(columns={hue: hue.replace("_", " ")})
    sns.lineplot(
        frame,
        x=x,
        y=y,
        hue=hue.replace("_", " "),
        style=hue.replace("_", " "),
        markers=True,
        dashes=False,
        errorbar=("pi", 100),
        ax=ax,
    )
    ax.set(xlabel=xlabel or x.replace("_", " "), ylabel=ylabel or y.replace("_", " "))
    return ax


def interval_grid(
    frame: pd.DataFrame,
    panel: str,
    hue: str | None = None,
    shades: Mapping[str, tuple[float, float]] | None = None,
    majority: float | None = None,
    xlabel: str = "difference in test accuracy",
) -> np.ndarray:
    """Means with 95% intervals, a panel per value of `panel`; filled where the interval leaves the line out.

    Args:
        frame: rows as from `vgmr.studies.contrasts`, in the order to be drawn, with a column `panel`; a column
            `group` draws lines between groups.
        hue: column told apart by colour and marker.
        shades: by panel, a range to shade, such as what differences by chance alone reach.
        majority: rate of the majority class, where `difference` holds accuracies; else the line is zero.

    Returns the array of axes, which share their rows.
    """
    panels, labels = list(dict.fromkeys(frame[panel])), list(dict.fromkeys(frame["label"]))
    hues = list(dict.fromkeys(frame[hue])) if hue else [None]
    line, what = (0.0, "0") if majority is None else (majority, "the line")
    size = (2.4 * len(panels) + 2.4, 0.27 * len(labels) * max(1, 0.75 * len(hues)) + 1.6)
    figure, axes = plt.subplots(1, len(panels), figsize=size, sharey=True, squeeze=False)
    for ax, name in zip(axes[0], panels, strict=True):
        for number, kind in enumerate(hues):
            rows = frame[(frame[panel] == name) & (True if hue is None else frame[hue] == kind)]
            for _, row in rows.iterrows():
                place = labels.index(row["label"]) + 0.3 * (number - (len(hues) - 1) / 2)
                decided = row["low"] > line or row["high"] < line
                ax.plot([row["low"], row["high"]], [place, place], color=f"C{number}", linewidth=1.6)
                ax.plot(
                    row["difference"],
                    place,
                    "osD"[number],
                    color=f"C{number}",
                    markersize=6,
                    markerfacecolor=f"C{number}" if decided else "white",
                    markeredgewidth=1.4,
                )
        if shades and name in shades:
            ax.axvspan(*shades[name], color="0.85", zorder=0)
        ax.axvline(line, color="k" if majority is None else "C3", linestyle="-" if majority is None else "--")
        ax.set_title(name)
        ax.locator_params(axis="x", nbins=4)
    first = axes[0, 0]
    first.set(yticks=range(len(labels)), yticklabels=labels)
    first.set_ylim(len(labels) - 0.5, -0.5)
    if "group" in frame:
        groups = frame.drop_duplicates("label").set_index("label")["group"]
        ends = [place for place in range(1, len(labels)) if groups[labels[place]] != groups[labels[place - 1]]]
        for ax in axes[0]:
            for place in ends:
                ax.axhline(place - 0.5, color="0.5", linewidth=0.8)
    marks: list[Artist] = [
        Line2D([], [], color=f"C{number}", marker="osD"[number], label=kind)
        for number, kind in enumerate(hues)
        if kind is not None
    ]
    marks += [
        Line2D([], [], color="0.3", marker="o", label=f"interval leaves {what} out"),
        Line2D([], [], color="0.3", marker="o", markerfacecolor="white", label=f"interval holds {what}"),
    ]
    if shades:
        marks.append(Patch(color="0.85", label="reached by chance alone"))
    if majority is not None:
        marks.append(Line2D([], [], color="C3", linestyle="--", label="majority class"))
    figure.legend(handles=marks, loc="outside upper center", ncols=2 if size[0] < 9 else len(marks))
    figure.supxlabel(f"{xlabel} (mean, 95% interval)", fontsize=11)
    return axes[0]


def gate_strength(points: Mapping[str, tuple[float, float]], ax: Axes | None = None) -> Axes:
    """(1 - rho) alpha over alpha (across) and rho (up), with lines of equal strength and named (alpha, rho)."""
    ax = plt.subplots(figsize=(6, 4.4))[1] if ax is None else ax
    side = np.linspace(0, 1, 101)
    strength = (1 - side[:, None]) * side[None, :]
    picture = ax.contourf(side, side, strength, levels=np.linspace(0, 1, 21), cmap="cividis")
    lines = ax.contour(side, side, strength, levels=[0.1, 0.2, 0.4, 0.8], colors="white", linewidths=1.5)
    ax.clabel(lines, fmt="%.1f")
    for (name, place), marker in zip(points.items(), "osD^v<>", strict=False):
        ax.plot(*place, marker, color="white", markeredgecolor="k", markersize=8, label=name, clip_on=False)
    ax.set(xlabel="alpha, amplification", ylabel="rho, retention")
    ax.grid(False)
    ax.figure.colorbar(picture, ax=ax, label="strength s; E lies in 1 - s to 1 + s")
    ax.legend(loc="upper left", facecolor="0.9", framealpha=0.95)
    return ax


def grouped_bars(
    frame: pd.DataFrame, panel: str, hue: str, ylabel: str, notes: Mapping[str, str] | None = None
) -> np.ndarray:
    """Means with 95% intervals as bars: panels below each other, bars by `label`, colours by `hue`.

    Args:
        frame: columns `panel`, `hue`, label, difference, low, high.
        notes: text under a panel's title, by panel.

    Returns the array of axes.
    """
    panels, labels = list(dict.fromkeys(frame[panel])), list(dict.fromkeys(frame["label"]))
    axes = plt.subplots(len(panels), 1, figsize=(10, 2.7 * len(panels)), squeeze=False, sharex=True)[1][:, 0]
    for ax, name in zip(axes, panels, strict=True):
        there = frame[frame[panel] == name]
        hues = list(dict.fromkeys(there[hue]))
        for number, kind in enumerate(hues):
            rows = there[there[hue] == kind].set_index("label").reindex(labels)
            place = np.arange(len(labels)) + 0.8 * ((number + 0.5) / len(hues) - 0.5)
            error = [rows["difference"] - rows["low"], rows["high"] - rows["difference"]]
            ax.bar(place, rows["difference"], 0.8 / len(hues), color=f"C{number}", label=kind)
            ax.errorbar(place, rows["difference"], error, fmt="none", ecolor="k", elinewidth=1, capsize=2)
        ax.axhline(0, color="k", linewidth=1)
        ax.set(ylabel=ylabel, title=name + (f"\n{notes[name]}" if notes else ""))
        ax.set_xticks(range(len(labels)), labels, rotation=30, ha="right")
        ax.grid(axis="x", visible=False)
        ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return axes


def corrupted_or_not(frame: pd.DataFrame, columns: Sequence[str]) -> np.ndarray:
    """Distributions of columns of `value_and_gate`, corrupted against clean, by modality; array of axes."""
    axes = plt.subplots(1, len(columns), figsize=(4.6 * len(columns), 3.6), squeeze=False)[1][0]
    shown = frame.assign(view=frame["corrupted"].map({True: "in conflict", False: "clean"}))
    for ax, column in zip(axes, columns, strict=True):
        sns.boxplot(
            shown,
            x="modality",
            y=column,
            hue="view",
            hue_order=["clean", "in conflict"],
            ax=ax,
            fliersize=2,
        )
        ax.set(xlabel="", ylabel=column.replace("_", " "))
        ax.legend(title="")
    for ax in axes[1:]:
        ax.get_legend().remove()
    return axes


def gate_and_prediction(
    gates: Mapping[str, torch.Tensor], probability: torch.Tensor, classes: Sequence[str], label: int
) -> np.ndarray:
    """Effective gates of one sample, (T_m, d_m) each, beside its class probabilities (classes,); array of axes."""
    figure, axes = plt.subplots(
        1, len(gates) + 1, figsize=(2 * len(gates) + 3.5, 2.8), width_ratios=[1] * len(gates) + [1.8]
    )
    for ax, (name, gate) in zip(axes, gates.items(), strict=False):
        picture = ax.imshow(gate.numpy(), cmap="RdBu", vmin=0, vmax=2, aspect="auto")
        ax.set(title=name, xticks=[], yticks=[], xlabel=f"mean {float(gate.mean()):.2f}")
        ax.grid(False)
    axes[0].set_ylabel("time step")
    figure.colorbar(picture, ax=axes[-2], label="effective gate")
    colours = ["C2" if index == label else "C0" for index in range(len(classes))]
    axes[-1].bar(range(len(classes)), probability.numpy(), color=colours)
    axes[-1].set(xticks=range(len(classes)), xticklabels=list(classes), ylim=(0, 1))
    axes[-1].set(xlabel="class (true one in green)", ylabel="probability")
    return axes


def grouped_intervals(
    table: pd.DataFrame,
    rows: str,
    hue: str,
    ax: Axes | None = None,
    xlabel: str = "",
    reference: float = 0.0,
    groups: Sequence[str] | None = None,
) -> Axes:
    """Means with their 95% intervals: one line per value of `rows`, one colour and marker per value of `hue`.

    Args:
        table: columns rows, hue, mean, low, high.
        reference: where the dashed line of no effect stands.
        groups: values of `hue` in the order of their colours, at most five; by default those of the table.
    """
    labels, groups = list(table[rows].unique()), list(table[hue].unique()) if groups is None else groups
    ax = plt.subplots(figsize=(7, 0.45 * len(labels) + 1.3))[1] if ax is None else ax
    for number, group in enumerate(groups):
        chosen = table[table[hue] == group]
        shift = 0.22 * (number - (len(groups) - 1) / 2)
        low, mean, high = chosen[["low", "mean", "high"]].to_numpy(float).T
        ax.errorbar(
            mean,
            [labels.index(label) + shift for label in chosen[rows]],
            xerr=[mean - low, high - mean],
            fmt="osD^v"[number],
            color=f"C{number}",
            capsize=3,
            markersize=5,
            linestyle="none",
            label=str(group),
        )
    ax.axvline(reference, color="k", linewidth=1, linestyle="--")
    ax.set(yticks=range(len(labels)), yticklabels=labels, xlabel=xlabel)
    ax.set_ylim(len(labels) - 0.5, -0.5)
    ax.locator_params(axis="x", nbins=5)
    return ax


def refinement_maps(differences: Mapping[str, torch.Tensor], table: pd.DataFrame) -> np.ndarray:
    """Figures 6 and 7: E * X - X of each modality, time step downwards and feature across, and what is taken away.

    Args:
        differences: name -> (T_m, d_m), in the features' units; all share one colour scale.
        table: one row per modality, columns modality and mean (share of |X| taken away); low and high, where
            they are, are drawn as 95% intervals.

    Returns the array of axes.
    """
    figure, axes = plt.subplots(1, len(differences) + 1, figsize=(2 * len(differences) + 3, 2.7))
    limit = max(float(np.quantile(x.abs(), 0.99)) for x in differences.values())
    for ax, (name, x) in zip(axes, differences.items(), strict=False):
        picture = ax.imshow(
            x.numpy(), cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest"
        )
        ax.set(title=name, xlabel="feature")
        ax.set(xticks=range(0, x.shape[1], -(-x.shape[1] // 4)), yticks=range(0, len(x), -(-len(x) // 5)))
        ax.grid(False)
    axes[0].set_ylabel("time step")
    figure.set_layout_engine("constrained", wspace=0.08)
    figure.colorbar(picture, ax=axes[-2], label="E X - X (deviations)", extend="both")
    axes[-1].bar(table["modality"], table["mean"], color="C0")
    if "low" in table:
        spread = [table["mean"] - table["low"], table["high"] - table["mean"]]
        axes[-1].errorbar(table["modality"], table["mean"], yerr=spread, fmt="none", color="k", capsize=4)
    axes[-1].set(ylabel="share of |X| taken away")
    axes[-1].tick_params(axis="x", rotation=30)
    return axes


def before_and_after(frame: pd.DataFrame, probability: torch.Tensor, classes: Sequence[str]) -> np.ndarray:
    """One sample before and after a corruption: global value and gate by modality, class probabilities.

    Args:
        frame: two rows per modality; columns condition ("clean", "corrupted"), modality, global_value, gate,
            label.
        probability: (2, classes) clean and corrupted; the true class is outlined.

    Returns the array of axes.
    """
    axes = plt.subplots(1, 3, figsize=(12, 3.2), width_ratios=[1, 1, 2])[1]
    for ax, column in zip(axes, ("global_value", "gate"), strict=False):
        sns.barplot(frame, x="modality", y=column, hue="condition", ax=ax, legend=False, saturation=1)
        ax.axhline(0.5, color="k", linewidth=1, linestyle="--")
        ax.set(ylim=(0, 1), xlabel="", ylabel=column.replace("_", " "))
        ax.tick_params(axis="x", rotation=30)
    for number, (condition, values) in enumerate(zip(("clean", "corrupted"), probability, strict=True)):
        place = np.arange(len(classes)) + 0.4 * (number - 0.5)
        axes[2].bar(place, values.numpy(), 0.4, color=f"C{number}", label=condition, linewidth=0)
    label = int(frame["label"].iloc[0])
    axes[2].axvspan(label - 0.45, label + 0.45, facecolor="none", edgecolor="k", label="true class")
    axes[2].set(ylim=(0, 1), xlabel="class", ylabel="probability")
    axes[2].xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    axes[2].legend()
    return axes


def learning_curves(variants: Mapping[str, Sequence[Run]]) -> np.ndarray:
    """Training loss, validation loss (nats) and validation accuracy by epoch; mean and range over seeds."""
    axes = plt.subplots(1, 3, figsize=(13, 3.6))[1]
    titles = {
        "train_loss": "training loss (nats, all terms)",
        "validation_loss": "validation loss (nats)",
        "validation_accuracy": "validation accuracy",
    }
    for ax, (field, label) in zip(axes, titles.items(), strict=True):
        for number, (name, runs) in enumerate(variants.items()):
            curves = np.array([getattr(run.history, field) for run in runs])
            epochs = np.arange(1, curves.shape[1] + 1)
            ax.plot(epochs, curves.mean(0), color=f"C{number}", label=name)
            ax.fill_between(epochs, curves.min(0), curves.max(0), color=f"C{number}", alpha=0.15)
        ax.set(xlabel="epoch", ylabel=label)
    axes[2].legend()
    return axes


def _look(model: str, number: int) -> tuple[str, str]:
    """Colour and marker of a model, the same in every figure of robustness; others by their number."""
    known = ("plain", "Grad-Blending", "Concat+MLP", "VGMR")
    name = model.partition(",")[0]
    place = known.index(name) if name in known else len(known) + number
    return f"C{place}", "oXsDv^P"[place % 7]


def robustness_panels(frame: pd.DataFrame, rates: Mapping[str, float], columns: int = 3) -> np.ndarray:
    """Accuracy by severity, one panel for each data set and corruption; array of axes.

    Lines are means over seeds, bands reach from the lowest to the highest seed, the dashed line is the majority
    class.

    Args:
        frame: with data, corruption, model, seed, severity (0 to 1) and accuracy.
        rates: majority rate by data set.
    """
    panels = list(frame.groupby(["data", "corruption"], sort=False))
    rows = -(-len(panels) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(3.4 * columns, 2.5 * rows + 0.6), sharex=True, sharey=True, squeeze=False
    )
    for ax, ((data, corruption), panel) in zip(axes.flat, panels, strict=False):
        for number, (model, part) in enumerate(panel.groupby("model", sort=False)):
            scores = part.groupby("severity")["accuracy"].agg(["mean", "min", "max"])
            colour, marker = _look(str(model), number)
            ax.plot(scores.index, scores["mean"], color=colour, marker=marker, markersize=5, label=model)
            ax.fill_between(scores.index, scores["min"], scores["max"], color=colour, alpha=0.15, linewidth=0)
        ax.axhline(rates[str(data)], color="k", linestyle="--", linewidth=1, label="majority class")
        ax.set(title=f"{data}: {corruption}", ylim=(0, 1.02))
    for ax in axes.flat[len(panels) :]:
        ax.axis("off")
    figure.supxlabel("severity (0 clean, 1 all of it)", fontsize=11)
    figure.supylabel("test accuracy", fontsize=11)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    return axes


def corruption_gallery(parts: Mapping[str, Batch], row: int) -> np.ndarray:
    """One sample under each corruption (column), by modality (row): time downwards, channels across."""
    names = list(next(iter(parts.values())).features)
    axes = plt.subplots(len(names), len(parts), figsize=(1.3 * len(parts) + 0.5, 1.6 * len(names) + 0.4))[1]
    for column, (title, part) in zip(axes.T, parts.items(), strict=True):
        column[0].set_title(title.replace(" ", "\n"), fontsize=10)
        for ax, name in zip(column, names, strict=True):
            real = part.mask[name][row]
            ax.imshow(
                part.features[name][row][real].numpy(),
                cmap="cividis",
                aspect="auto",
                vmin=-2,
                vmax=2,
                interpolation="nearest",
            )
            ax.set(xticks=[], yticks=[])
            ax.grid(False)
    for ax, name in zip(axes[:, 0], names, strict=True):
        ax.set_ylabel(f"{name}\ntime step", fontsize=9)
    for ax in axes[-1]:
        ax.set_xlabel("channel", fontsize=9)
    return axes


def difference_panels(table: pd.DataFrame, quantity: str = "area", baseline: str = "plain") -> np.ndarray:
    """Differences to the baseline with 95% intervals, by corruption (row), model (colour), data set (panel).

    Args:
        table: as from `summarise`.
        quantity: clean, area, drop or growth.
    """
    table = table.dropna(subset=[f"{quantity} difference"])
    names = list(table.index.unique("data"))
    corruptions, models = list(table.index.unique("corruption")), list(table.index.unique("model"))
    axes = plt.subplots(
        1, len(names), figsize=(4.6 * len(names) + 1, 0.5 * len(corruptions) + 1.6), sharey=True, squeeze=False
    )[1][0]
    for ax, data in zip(axes, names, strict=True):
        for number, model in enumerate(models):
            part = table.xs((data, model), level=("data", "model"))
            place = [corruptions.index(name) + 0.2 * (number - (len(models) - 1) / 2) for name in part.index]
            low, mean, high = (part[f"{quantity} {end}"].to_numpy(float) for end in ("low", "difference", "high"))
            colour, marker = _look(model, number)
            errors = [mean - low, high - mean]
            ax.errorbar(mean, place, xerr=errors, fmt=marker, color=colour, capsize=3, markersize=5, label=model)
        ax.axvline(0, color="k", linewidth=1)
        ax.set(title=data, yticks=range(len(corruptions)), yticklabels=corruptions)
        ax.set_ylim(len(corruptions) - 0.5, -0.5)
        ax.set_xlabel(f"difference of {quantity} to {baseline}")
        ax.locator_params(axis="x", nbins=6)
    axes[0].figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(models))
    return axes


def corrupted(
    clean: Batch, dirty: Batch, row: int, scores: Mapping[str, Sequence[float]], rate: float
) -> np.ndarray:
    """One sample before and after a corruption, and accuracies of models on the whole part; array of axes.

    Args:
        scores: model -> (accuracy when clean, accuracy now).
        rate: majority rate.
    """
    names = list(clean.features)
    layout: list[list[Any]] = [[*(f"{view} {name}" for name in names), "score"] for view in ("clean", "corrupted")]
    size = (2 * len(names) + 4, 3.8)
    axes = plt.subplot_mosaic(layout, figsize=size, width_ratios=[1] * len(names) + [1.9])[1]
    for name in names:
        for view, part in (("clean", clean), ("corrupted", dirty)):
            ax, real = axes[f"{view} {name}"], part.mask[name][row]
            ax.imshow(part.features[name][row][real].numpy(), cmap="cividis", aspect="auto", vmin=-2, vmax=2)
            ax.set(xticks=[], yticks=[], title=f"{name}, {view}")
            ax.grid(False)
    axes[f"clean {names[0]}"].set_ylabel("time step")
    axes[f"corrupted {names[0]}"].set_ylabel("time step")
    ax = axes["score"]
    for shift, number, label in ((-0.2, 0, "clean"), (0.2, 1, "now")):
        places = [place + shift for place in range(len(scores))]
        bars = ax.bar(
            places, [pair[number] for pair in scores.values()], 0.38, color=f"C{7 - 7 * number}", label=label
        )
        ax.bar_label(bars, fmt="%.2f", fontsize=9)
    ax.axhline(rate, color="C3", linestyle="--", label="majority class")
    ax.set(xticks=range(len(scores)), xticklabels=list(scores), ylabel="test accuracy")
    ax.set(ylim=(0, 1.25), yticks=[0, 0.2, 0.4, 0.6, 0.8, 1])
    ax.legend(loc="upper center", ncols=3, fontsize=8)
    return np.array(list(axes.values()))


def confusion_matrix(counts: torch.Tensor, classes: Sequence[str], ax: Axes | None = None) -> Axes:
    """Share of each true class (row) answered as each class (column); counts as from `confusion`."""
    ax = plt.subplots(figsize=(4.2, 3.6))[1] if ax is None else ax
    share = counts / counts.sum(1, keepdim=True).clamp(min=1)
    few = len(classes) <= 10
    sns.heatmap(
        share.numpy(),
        vmin=0,
        vmax=1,
        cmap="cividis",
        ax=ax,
        xticklabels=list(classes) if few else 5,
        yticklabels=list(classes) if few else 5,
        square=True,
        cbar_kws={"label": "share of the true class"},
    )
    ax.set(xlabel="predicted class", ylabel="true class")
    return ax


def per_class(
    baseline: Sequence[Run], refined: Sequence[Run], classes: Sequence[str], ax: Axes | None = None
) -> Axes:
    """Change of each class's recall from `baseline` to `refined`, mean over paired seeds, sorted."""

    def recall(runs: Sequence[Run]) -> np.ndarray:
        table = []
        for run in runs:
            label, right = np.array(run.label), np.array(run.label) == np.array(run.prediction)
            table.append(
                [right[label == index].mean() if (label == index).any() else 0 for index in range(len(classes))]
            )
        return np.array(table)

    change = (recall(refined) - recall(baseline)).mean(0)
    order = change.argsort()
    ax = plt.subplots(figsize=(max(4, 0.3 * len(classes) + 2), 3.6))[1] if ax is None else ax
    ax.bar(range(len(classes)), change[order], color=["C3" if value < 0 else "C0" for value in change[order]])
    ax.axhline(0, color="k", linewidth=1)
    ax.set(ylabel="change of recall", xlabel="class")
    ax.set_xticks(range(len(classes)), [classes[index] for index in order], rotation=90 if len(classes) > 6 else 0)
    return ax


def curve_bands(
    frame: pd.DataFrame,
    columns: Mapping[str, str],
    variants: Sequence[str],
    x: str = "epoch",
    xlabel: str = "epoch (0: untrained)",
) -> np.ndarray:
    """Curves over `x`: one row of axes per study, one column per measure; mean and range over seeds.

    A single measure has its studies side by side.

    Args:
        frame: with study, variant, seed, `x` and the measures.
        columns: axis label by measure.
        variants: drawn, in this order, which gives their colours.
    """
    names = list(frame["study"].unique())
    lines, width = (len(names), len(columns)) if len(columns) > 1 else (1, len(names))
    axes = plt.subplots(lines, width, figsize=(4.2 * width, 2.9 * lines), squeeze=False)[1]
    for ax, (name, column) in zip(axes.flat, itertools.product(names, columns), strict=True):
        for number, variant in enumerate(variants):
            rows = frame[(frame["study"] == name) & (frame["variant"] == variant)]
            curves = rows.pivot_table(index=x, columns="seed", values=column)
            ax.plot(curves.index, curves.mean(axis=1), color=f"C{number}", label=variant)
            ax.fill_between(curves.index, curves.min(axis=1), curves.max(axis=1), color=f"C{number}", alpha=0.13)
        ax.set(xlabel=xlabel, ylabel=columns[column], title=name)
    axes[0, -1].legend()
    return axes


def cosine_curves(frame: pd.DataFrame, columns: Sequence[str] = ("cosine", "shuffled")) -> np.ndarray:
    """Gradient cosines of one study by epoch: a row of axes per ordered pair, a column per variant.

    Lines are means over seeds, the band runs from the lowest to the highest seed; the second of `columns` is the
    control, dashed, without a band.

    Args:
        frame: columns of `vgmr.analysis.diagnostics.gradient_cosines`, and variant, seed, epoch.
    """
    pairs = list(frame[["one", "other"]].drop_duplicates().itertuples(index=False, name=None))
    variants = list(frame["variant"].unique())
    size = (2.5 * len(variants) + 0.6, 1.35 * len(pairs) + 0.9)
    axes = plt.subplots(len(pairs), len(variants), figsize=size, squeeze=False, sharex=True, sharey=True)[1]
    for line, (one, other) in zip(axes, pairs, strict=True):
        for ax, variant in zip(line, variants, strict=True):
            rows = frame[(frame["one"] == one) & (frame["other"] == other) & (frame["variant"] == variant)]
            for number, (column, style) in enumerate(zip(columns, ("-", "--"), strict=False)):
                curves = rows.pivot(index="epoch", columns="seed", values=column)
                ax.plot(curves.index, curves.mean(axis=1), color=f"C{number}", linestyle=style, label=column)
                if not number:
                    ax.fill_between(curves.index, curves.min(axis=1), curves.max(axis=1), color="C0", alpha=0.2)
            ax.axhline(0, color="k", linewidth=1)
        line[0].set_ylabel(f"{one},\n+ {other}", fontsize=9)
    for ax, variant in zip(axes[0], variants, strict=True):
        ax.set_title(variant)
    for ax in axes[-1]:
        ax.set_xlabel("epoch (0: untrained)")
    axes[0, 0].legend(fontsize=9)
    return axes


def pair_matrices(frame: pd.DataFrame, column: str = "cosine") -> np.ndarray:
    """Mean over seeds of `column` for every ordered pair, modality alone by modality added; a matrix per variant.

    Args:
        frame: columns of `vgmr.analysis.diagnostics.gradient_cosines`, and variant, seed, at one checkpoint.
    """
    variants = list(frame["variant"].unique())
    axes = plt.subplots(1, len(variants), figsize=(3.1 * len(variants) + 0.8, 3.4), squeeze=False)[1][0]
    for number, (ax, variant) in enumerate(zip(axes, variants, strict=True)):
        rows = frame[frame["variant"] == variant]
        table = rows.pivot_table(index="one", columns="other", values=column, sort=False)
        names = sorted(table.index)
        sns.heatmap(
            table.loc[names, names],
            vmin=-1,
            vmax=1,
            cmap="RdBu",
            annot=True,
            fmt=".2f",
            ax=ax,
            cbar=number == len(variants) - 1,
            cbar_kws={"label": f"{column}, mean over seeds"},
        )
        ax.set(title=variant, xlabel="added", ylabel="alone" if not number else "")
        ax.tick_params(axis="x", rotation=30)
        ax.tick_params(axis="y", rotation=0)
        ax.grid(False)
        if number:
            ax.set_yticks([])
    return axes


def loss_contours(grids: Mapping[str, pd.DataFrame]) -> np.ndarray:
    """Loss (nats) over two random directions around trained weights, one picture per model, on one scale.

    Args:
        grids: with columns x, y (distances along the directions) and loss, one row per point.
    """
    axes = plt.subplots(1, len(grids), figsize=(3.6 * len(grids) + 0.8, 3.2), squeeze=False)[1][0]
    losses = pd.concat(list(grids.values()))["loss"]
    levels = np.linspace(losses.min(), losses.max(), 13)
    for ax, (name, grid) in zip(axes, grids.items(), strict=True):
        table = grid.pivot(index="y", columns="x", values="loss")
        picture = ax.contourf(table.columns, table.index, table, levels, cmap="cividis")
        ax.contour(table.columns, table.index, table, levels, colors="w", linewidths=0.5)
        ax.plot(0, 0, "+", color="w", markersize=12, markeredgewidth=2)
        ax.set(
            title=name, xlabel="distance along direction 1", ylabel="distance along direction 2", aspect="equal"
        )
        ax.grid(False)
    axes[0].figure.colorbar(picture, ax=axes, label="loss (nats)", format="%.1f")
    return axes


def lengths_and_labels(sets: Mapping[str, MultimodalData]) -> np.ndarray:
    """By data set (column): real time steps of each modality above, share of each class by part below.

    Boxes hold the middle half of all samples, whiskers reach from the shortest to the longest. Array of axes.
    """
    axes = plt.subplots(2, len(sets), figsize=(4.2 * len(sets), 5.6), squeeze=False)[1]
    for (above, below), (name, data) in zip(axes.T, sets.items(), strict=True):
        steps = {m: torch.cat([part.lengths()[m] for part in data.parts.values()]) for m in data.modalities}
        above.boxplot([x.numpy() for x in steps.values()], vert=False, whis=(0, 100), widths=0.5)
        above.set(title=name, yticks=range(1, len(steps) + 1), yticklabels=list(steps), xlabel="real time steps")
        above.set_xlim(0, 1.05 * max(2, max(int(x.max()) for x in steps.values())))
        above.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
        above.invert_yaxis()
        for (part, batch), marker in zip(data.parts.items(), "o^s", strict=True):
            share = batch.label.bincount(minlength=len(data.classes)) / len(batch)
            below.plot(share.numpy(), marker, alpha=0.7, label=part)
        below.set(xlabel="class", ylabel="share of the part")
        below.set_ylim(0, 1.15 * below.dataLim.y1)
        if len(data.classes) <= 10:
            below.set(xticks=range(len(data.classes)), xticklabels=list(data.classes))
            below.set_xlim(-0.5, len(data.classes) - 0.5)
    axes[1, 0].legend()
    return axes


def verdicts(table: pd.DataFrame, order: Sequence[str], ax: Axes | None = None) -> Axes:
    """Claims of each item as stacked bars by verdict; a table with columns item and verdict."""
    items = list(dict.fromkeys(table["item"]))
    counts = pd.crosstab(table["item"], table["verdict"]).reindex(index=items, columns=list(order), fill_value=0)
    ax = plt.subplots(figsize=(8, 0.3 * len(items) + 1.4))[1] if ax is None else ax
    left = np.zeros(len(items))
    colours = dict(zip(order, ("C2", "C3", "0.75", "0.9"), strict=True))
    for name, hatch in zip(order, ("", "//", "", ".."), strict=True):
        values = counts[name].to_numpy()
        ax.barh(items, values, left=left, color=colours[name], edgecolor="white", hatch=hatch, label=name)
        left = left + values
    ax.set(xlabel="number of claims")
    ax.invert_yaxis()
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(loc="lower right")
    return ax
