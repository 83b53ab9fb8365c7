"""Every figure: data in, `Axes` out. Colours are seaborn's colour-blind palette."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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

from vgmr.data.batch import Batch, MultimodalData
from vgmr.experiment import Run


def style() -> None:
    """The look of all figures."""
    sns.set_theme(style="whitegrid", context="notebook", palette="colorblind")
    plt.rcParams |= {"figure.dpi": 100, "savefig.dpi": 100, "figure.constrained_layout.use": True}
    plt.rcParams |= {"axes.titlesize": 12, "axes.labelsize": 11, "font.size": 11, "legend.fontsize": 10}


def sequences(batch: Batch, rows: Sequence[int], classes: Sequence[str]) -> np.ndarray:
    """One image per sample (row) and modality (column): time downwards, channels across; struck ones framed.

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
            if batch.struck is not None and batch.struck[name][row].any():
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
        coefficients, gradients: of `vgmr.protocol.Watched`; without coefficients the left side shows the cosine
            between the gradient with the method and without.
        ylabel: what the coefficients are.
        neutral: the coefficient that would change nothing, as a dashed line.
    """
    axes = plt.subplots(1, 2, figsize=(10, 2.8))[1]
    empty = coefficients.empty
    left = gradients.rename(columns={"cosine": "value"}) if empty else coefficients
    last = int(gradients["epoch"].max())
    names = [*dict.fromkeys(gradients["modality"]), *dict.fromkeys(left["modality"])]
    for number, name in enumerate(dict.fromkeys(names)):
        for ax, frame, column in ((axes[0], left, "value"), (axes[1], gradients, "length")):
            rows = frame[frame["modality"] == name]
            ax.plot(
                rows["epoch"] + 1,
                rows[column],
                color=f"C{number}",
                marker="osD^"[number],
                markersize=4,
                label=name,
            )
    for ax, value in ((axes[0], 1.0 if empty else neutral), (axes[1], 1.0)):
        if value is not None:
            ax.axhline(value, color="k", linestyle="--", linewidth=1, zorder=0)
        ax.set(xlabel="epoch", xlim=(0.5, last + 1.5))
        ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    axes[0].set_ylabel("cosine to plain gradient" if empty else ylabel)
    axes[1].set_ylabel("length of gradient,\ntimes plain")
    axes[1].figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center")
    return axes


def against_published(
    ours: pd.Series, published: Mapping[str, float], ax: Axes | None = None, names: bool = True
) -> Axes:
    """Our mean test accuracy (up) over the published one (across), one named dot per method in both."""
    ax = plt.subplots(figsize=(5, 4))[1] if ax is None else ax
    shared = [name for name in published if name in ours]
    ax.plot([published[name] for name in shared], [ours[name] for name in shared], "o", color="C0")
    for name in shared if names else []:
        ax.annotate(name, (published[name], ours[name]), (4, 3), textcoords="offset points", fontsize=9)
    ax.set(xlabel="published accuracy", ylabel="test accuracy here")
    ax.margins(0.15)
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
        frame: rows as from `vgmr.protocol.contrasts`, in the order to be drawn, with a column `panel`; a column
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


def struck_or_not(frame: pd.DataFrame, columns: Sequence[str]) -> np.ndarray:
    """Distributions of columns of `value_and_gate`, struck against clean, by modality; array of axes."""
    axes = plt.subplots(1, len(columns), figsize=(4.6 * len(columns), 3.6), squeeze=False)[1][0]
    shown = frame.assign(view=frame["struck"].map({True: "in conflict", False: "clean"}))
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
