"""Differences and their intervals: the forest plot, points by seed, numbers beside the paper's, verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, MaxNLocator
from scipy import stats

from vgmr.plots.look import display_name, look, looks
from vgmr.statistics.verdicts import VERDICTS

# each holds the part of the variance that seeds and samples have in common, see `vgmr.statistics.intervals`
PARTS = {
    "seed_variance": (-0.13, "the seeds' part of the interval"),
    "sample_variance": (0.13, "the samples' part of the interval"),
}
PAPER: dict[str, Any] = {
    "color": "k",
    "markerfacecolor": "white",
    "linestyle": "",
}  # the paper's figures, a hollow diamond


def forest(
    table: pd.DataFrame,
    row: str = "label",
    panel: str | None = None,
    hue: str | None = None,
    value: str = "difference",
    reference: float = 0.0,
    band: float | Mapping[str, float] | None = None,
    band_label: str = "within chance",
    xlabel: str = "difference in test accuracy",
    width: float = 3.0,
) -> np.ndarray:
    """Differences with 95% intervals, what seeds and samples add to them, the paper's effect.

    Filled where the interval leaves the reference out. Without `hue` there is a bar above every interval, the
    seeds' part of it, and one below, the samples': the standard error by seeds alone, and by samples alone, times
    the factor of the whole interval, so that none is longer than that; both hold the rest that neither explains.
    All panels share their scale.

    Args:
        table: of `vgmr.comparison`, one row per interval, in the order to be drawn; rows without a difference are
            left out. A column paper draws a diamond, a column group lines between groups of rows.
        row, panel, hue: columns: lines of the plot, panels side by side, colours; models have their own colours,
            rows most of which are no models a single neutral one.
        value: column of the mean.
        reference: where the line of no effect stands.
        band: half width of a shaded band, such as 0.01, for all panels or by panel.
        band_label: what lies within it, for the legend.
    """
    frame = table.dropna(subset=[value, "low", "high"])
    panels = [None] if panel is None else list(dict.fromkeys(frame[panel]))
    rows, hues = list(dict.fromkeys(frame[row])), [None] if hue is None else list(dict.fromkeys(frame[hue]))
    alone = hue is not None and not frame.duplicated([row, *([panel] if panel else [])]).any()
    step = 0.0 if alone else min(0.26, 0.8 / len(hues))  # one colour a row: on the row's line
    size = (width * len(panels) + 2.6, 0.34 * len(rows) * max(1.0, 0.62 * (1 if alone else len(hues))) + 1.9)
    figure, axes = plt.subplots(1, len(panels), figsize=size, sharey=True, sharex=True, squeeze=False)
    known = looks(rows, neutral=True) if hue is None else looks(hues)
    for ax, name in zip(axes[0], panels, strict=True):
        inside = frame if name is None else frame[frame[panel] == name]
        half = band.get(str(name)) if isinstance(band, Mapping) else band
        if half is not None:
            ax.axvspan(reference - half, reference + half, color="0.9", zorder=0)
        ax.axvline(reference, color="k", linewidth=1, zorder=1)
        for number, kind in enumerate(hues):
            for entry in (inside if kind is None else inside[inside[hue] == kind]).to_dict("records"):
                place = rows.index(entry[row]) + step * (number - (len(hues) - 1) / 2)
                seen = known[entry[row] if hue is None else kind]
                _interval(ax, entry, place, value, reference, seen, hue is None)
        if name is not None:
            ax.set_title(display_name(name))
        ax.locator_params(axis="x", nbins=5 if width > 2.5 else 3)
    first = axes[0, 0]
    first.set(yticks=range(len(rows)), yticklabels=[display_name(name) for name in rows])
    first.set_ylim(len(rows) - 0.5, -0.5)
    if "group" in frame:
        groups = frame.drop_duplicates(row).set_index(row)["group"]
        for place in range(1, len(rows)):
            if groups[rows[place]] != groups[rows[place - 1]]:
                for ax in axes[0]:
                    ax.axhline(place - 0.5, color="0.5", linewidth=0.8)
    figure.supxlabel(f"{xlabel} (mean, 95% interval)", fontsize=11)
    marks: list[Artist] = []
    if hue is not None:
        marks = [Line2D([], [], color=c, marker=m, label=display_name(kind)) for kind, (c, m) in known.items()]
    elif set(PARTS) <= set(frame):
        for (_, text), shade in zip(PARTS.values(), ("0.35", "0.7"), strict=True):
            marks.append(Line2D([], [], color=shade, linewidth=4, label=text))
    if "paper" in frame and frame["paper"].notna().any():
        marks.append(Line2D([], [], marker="D", label="the paper", **PAPER))
    if band is not None:
        marks.append(Patch(color="0.9", label=band_label))
    if marks:
        figure.legend(handles=marks, loc="outside upper center", ncols=min(len(marks), 2 + len(panels)))
    return axes[0]


def _interval(
    ax: Axes, entry: Mapping[Any, Any], place: float, value: str, zero: float, seen: tuple[str, str], parts: bool
) -> None:
    colour, marker = seen
    decided = entry["low"] > zero or entry["high"] < zero
    ax.plot([entry["low"], entry["high"]], [place, place], color=colour, linewidth=1.8, zorder=2)
    if parts and set(PARTS) <= set(entry):
        reach = stats.t.ppf(0.975, entry["df"])
        for (column, (shift, _)), shade in zip(PARTS.items(), ("0.35", "0.7"), strict=True):
            side = reach * np.sqrt(entry[column])
            ends = [entry[value] - side, entry[value] + side]
            ax.plot(ends, [place + shift] * 2, color=shade, linewidth=3.5, solid_capstyle="butt", zorder=1.5)
    ax.plot(
        entry[value],
        place,
        marker,
        color=colour,
        markersize=7,
        markerfacecolor=colour if decided else "white",
        markeredgewidth=1.5,
        zorder=3,
    )
    paper = entry.get("paper")
    if paper is not None and not np.isnan(paper):
        ax.plot(zero + paper, place, marker="D", markersize=9, zorder=2.5, **PAPER)


def seed_points(runs: Mapping[str, Sequence[Any]], baseline: str) -> Axes:
    """Every seed's difference to the baseline's score at the same seed as a dot, the mean as a bar."""
    names = [name for name in runs if name != baseline]
    ax = plt.subplots(figsize=(7, 0.42 * len(names) + 1.3))[1]
    zero = pd.Series({(run.experiment.seed, run.fingerprint): run.metrics["accuracy"] for run in runs[baseline]})
    for place, name in enumerate(names):
        own = pd.Series({(run.experiment.seed, run.fingerprint): run.metrics["accuracy"] for run in runs[name]})
        change = (own - zero).dropna().groupby(level=0).mean().to_numpy()
        colour, marker = look(name, place)
        shift = np.linspace(-0.15, 0.15, len(change)) if len(change) > 1 else np.zeros(1)
        ax.plot(change, place + shift, marker, color=colour, alpha=0.6, markersize=5)
        ax.plot([change.mean()] * 2, [place - 0.3, place + 0.3], color="k")
    ax.axvline(0, color="k", linewidth=1)
    ax.set(
        yticks=range(len(names)), yticklabels=[display_name(name) for name in names], ylim=(len(names) - 0.5, -0.5)
    )
    ax.set_xlabel(f"test accuracy of each seed minus {display_name(baseline)}'s")
    return ax


def beside_paper(frame: pd.DataFrame, xlabel: str, line: float | None = None) -> Axes:
    """Numbers measured here (filled) and the paper's (hollow), joined; one row per entry of the index.

    Args:
        frame: columns measured and paper, and low and high for an interval; empty cells are left out.
        line: such as 1 for ratios.
    """
    ax = plt.subplots(figsize=(7.5, 0.36 * len(frame) + 1.4))[1]
    places = np.arange(len(frame))
    ax.hlines(places, frame["measured"], frame["paper"], color="0.7")
    if "low" in frame:
        ax.hlines(places, frame["low"], frame["high"], color="C0", linewidth=2)
    ax.plot(frame["measured"], places, "o", color="C0", label="measured here")
    ax.plot(frame["paper"], places, marker="D", label="the paper", **PAPER)
    if line is not None:
        ax.axvline(line, color="k", linewidth=1)
    ax.set(yticks=places, yticklabels=[display_name(name) for name in frame.index], xlabel=xlabel)
    ax.set_ylim(len(frame) - 0.5, -0.5)
    ax.legend(loc="best")
    return ax


def against_cost(frame: pd.DataFrame) -> np.ndarray:
    """Difference with its 95% interval against cost, a panel per data set, a colour and marker per model.

    Args:
        frame: columns dataset, label, cost, difference, low and high; models of like cost are drawn side by side,
            0.02 apart.
    """
    sets, labels = list(dict.fromkeys(frame["dataset"])), list(dict.fromkeys(frame["label"]))
    size = (3.5 * len(sets) + 2.4, 3.8)
    figure, axes = plt.subplots(1, len(sets), figsize=size, squeeze=False, sharex=True, sharey=True)
    known = looks(labels)
    for ax, name in zip(axes[0], sets, strict=True):
        taken: list[float] = []
        for entry in frame[frame["dataset"] == name].to_dict("records"):
            place = float(entry["cost"])
            while any(abs(place - other) < 0.015 for other in taken):
                place += 0.02
            taken.append(place)
            colour, marker = known[entry["label"]]
            ax.plot([place, place], [entry["low"], entry["high"]], color=colour)
            ax.plot(
                place, entry["difference"], marker, color=colour, markersize=7, label=display_name(entry["label"])
            )
        ax.axhline(0, color="k", linewidth=1)
        ax.axvline(1, color="k", linewidth=1, linestyle=":")
        ax.set(title=name, xlabel="training time, ratio to plain")
    axes[0, 0].set_ylabel("difference in test accuracy\n(mean, 95% interval)")
    handles = {text: mark for ax in axes[0] for mark, text in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside right center")
    return axes[0]


def hosts_against_cost(frame: pd.DataFrame, xlabel: str) -> np.ndarray:
    """Difference with its 95% interval against cost, a panel per model, the host's name above each interval.

    Filled where the interval leaves zero out.

    Args:
        frame: columns label (the model), host, cost, difference, low and high; hosts of like cost are drawn side
            by side, four percent apart.
    """
    models = list(dict.fromkeys(frame["label"]))
    size = (9.5, 3.2 * len(models) + 0.7)
    figure, axes = plt.subplots(len(models), 1, figsize=size, squeeze=False, sharex=True, sharey=True)
    beside = {"textcoords": "offset points", "rotation": 90, "fontsize": 9, "ha": "center", "va": "bottom"}
    for ax, (model, (colour, marker)) in zip(axes[:, 0], looks(models).items(), strict=True):
        place = 0.0
        for entry in frame[frame["label"] == model].sort_values("cost").to_dict("records"):
            place = max(float(entry["cost"]), 1.04 * place)
            ax.plot([place, place], [entry["low"], entry["high"]], color=colour)
            decided = entry["low"] > 0 or entry["high"] < 0
            face = {"markerfacecolor": colour if decided else "white", "markeredgewidth": 1.5}
            ax.plot(place, entry["difference"], marker, color=colour, markersize=7, **face)
            ax.annotate(entry["host"], (place, entry["high"]), (0, 3), **beside)
        ax.axhline(0, color="k", linewidth=1, zorder=1)
        ax.axvline(1, color="k", linewidth=1, linestyle=":", zorder=1)
        ax.set_title(display_name(model))
        ax.set_xscale("log", base=2)
        ax.xaxis.set_major_locator(LogLocator(2, (1, 1.5)))
        ax.xaxis.set_major_formatter("{x:g}")
    low, high = frame["low"].min(), frame["high"].max()
    axes[0, 0].set_ylim(low - 0.08 * (high - low), high + 0.85 * (high - low))  # room for the names
    axes[-1, 0].set_xlabel(xlabel)
    figure.supylabel("difference in test accuracy (mean, 95% interval)", fontsize=11)
    return axes[:, 0]


def verdicts(table: pd.DataFrame) -> np.ndarray:
    """Claims of each item of the paper as stacked bars by verdict, a panel per list of the ledger; array of axes.

    Args:
        table: of `vgmr.paper.ledger.ledger`, columns list, item and verdict.
    """
    lists = list(dict.fromkeys(table["list"]))
    found = list(dict.fromkeys(table["item"]))  # the same rows in every panel
    height = 0.28 * (len(found) + 1.5) * len(lists) + 1.2
    figure, axes = plt.subplots(len(lists), 1, figsize=(8, height), squeeze=False, sharex=True)
    order = [*VERDICTS, *(name for name in dict.fromkeys(table["verdict"]) if name not in VERDICTS)]
    colours = dict(zip(order, ("#54278f", "#bcbddc", "0.6", "0.8", "0.94", "0.88"), strict=False))
    for ax, name in zip(axes[:, 0], lists, strict=True):
        rows = table[table["list"] == name]
        counts = pd.crosstab(rows["item"], rows["verdict"]).reindex(index=found, columns=order, fill_value=0)
        left = np.zeros(len(found))
        for word, hatch in zip(order, ("", "//", "\\\\", "", "..", ""), strict=False):
            values = counts[word].to_numpy()
            ax.barh(found, values, left=left, color=colours[word], edgecolor="white", hatch=hatch, label=word)
            left = left + values
        ax.set_title(name, loc="left", fontsize=11)
        ax.invert_yaxis()
        ax.grid(axis="y", visible=False)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0, 0].set_xlim(0, 1.02 * axes[0, 0].get_xlim()[1])
    axes[-1, 0].set_xlabel("number of claims")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return axes[:, 0]
