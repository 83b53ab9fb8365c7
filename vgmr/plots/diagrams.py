"""Diagrams drawn by code: the architecture with its equations, whole and as one line."""

from __future__ import annotations

from collections.abc import Collection
from itertools import pairwise
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

CALM, LIT, EDGE, INK, FAINT = "#eef1f5", "#ffe3b3", "#8a94a3", "#1f2933", "#5b6675"

# name: (x, y, width, height, text); x to the right, y upward, in units of the figure
BLOCKS: dict[str, tuple[float, float, float, float, str]] = {
    "input": (0.0, 2.7, 1.5, 1.15, "features\n$X_m$\n(1)"),
    "projection": (2.0, 2.7, 2.1, 1.15, "project\n$H_m=\\phi_m(X_m)$\n(2)"),
    "summary": (4.6, 2.7, 2.1, 1.15, "summarise\n$s_m$: mean, max\n(3)"),
    "comparison": (
        7.2,
        2.5,
        3.0,
        1.55,
        "compare with others\nagreement $s_m\\odot s_n$\ndiscrepancy $|s_m-s_n|$\n(4) to (8)",
    ),
    "value": (10.7, 2.7, 2.5, 1.15, "value $v^g_m,\\ v^c_m$\nglobal, by channel\n(9), (10)"),
    "gate": (10.7, 0.6, 2.5, 1.15, "gate $G_m$\nby step and feature\n(11)"),
    "effective": (13.75, 0.6, 2.3, 1.15, "effective gate $E_m$\nkeep, amplify\n(12), (13)"),
    "refine": (16.6, 0.6, 2.1, 1.15, "refine\n$R_m(E_m\\odot X_m)$\nsame shape"),
    "backbone": (19.25, 0.6, 2.0, 1.15, "any backbone:\nencode, fuse,\npredict"),
}
ARROWS = tuple(pairwise(BLOCKS))  # each leads to the next


def _box(ax: Axes, place: tuple[float, float, float, float], text: str, lit: bool = False) -> None:
    x, y, width, height = place
    ax.add_patch(
        FancyBboxPatch(
            (x, y),
            width,
            height,
            boxstyle="round,pad=0.02,rounding_size=0.12",
            facecolor=LIT if lit else CALM,
            edgecolor="#c77700" if lit else EDGE,
            linewidth=1.6 if lit else 1.0,
        )
    )
    ax.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=8.2, color=INK)


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], **options: Any) -> None:
    style: dict[str, Any] = {"arrowstyle": "-|>", "mutation_scale": 11, "color": FAINT, "linewidth": 1.2}
    ax.add_patch(FancyArrowPatch(start, end, **(style | options)))


def _blank(width: float, height: float, xlim: tuple[float, float], ylim: tuple[float, float]) -> Axes:
    _, ax = plt.subplots(figsize=(width, height))
    ax.set(xlim=xlim, ylim=ylim)
    ax.set_aspect("equal")
    ax.axis("off")
    return ax


def architecture() -> Axes:
    """The Value-Gated Modality Refiner for one modality m, with the paper's equation numbers."""
    ax = _blank(13, 3.3, (-0.2, 21.4), (-0.35, 5.0))
    for x, y, width, height, text in BLOCKS.values():
        _box(ax, (x, y, width, height), text)
    for first, second in ARROWS:
        x, y, width, height, _ = BLOCKS[first]
        to_x, to_y, _, to_height, _ = BLOCKS[second]
        if (first, second) == ("value", "gate"):
            _arrow(ax, (x + width / 2, y - 0.03), (to_x + width / 2, to_y + to_height + 0.03))
        else:
            _arrow(ax, (x + width + 0.03, y + height / 2), (to_x - 0.03, to_y + to_height / 2))
    # the features and their projection are evidence for the gate too; the features themselves are what it scales
    _arrow(ax, (3.05, 2.67), (10.67, 1.4), connectionstyle="angle3,angleA=-90,angleB=0")
    _arrow(ax, (1.0, 2.67), (10.67, 1.0), connectionstyle="angle3,angleA=-90,angleB=0")
    ax.text(8.75, 1.66, "feature evidence $f^x(X_m)$, $f^h(H_m)$", fontsize=8, color=FAINT, ha="center")
    ax.plot([0.5, 0.5, 17.65], [2.67, 0.05, 0.05], color=FAINT, linewidth=1.2)
    _arrow(ax, (17.65, 0.03), (17.65, 0.58))
    ax.text(
        7.6, 0.17, "the original features $X_m$ are what the gate scales", fontsize=8, color=FAINT, ha="center"
    )
    _arrow(ax, (8.7, 4.68), (8.7, 4.08))
    ax.text(8.7, 4.75, "summaries $s_n$ of the other modalities", fontsize=8, color=FAINT, ha="center")
    return ax


METHOD = (
    ("input", "features\n(1)"),
    ("projection", "project\n(2)"),
    ("summary", "summarise\n(3)"),
    ("comparison", "compare\n(4) to (8)"),
    ("value", "value\n(9), (10)"),
    ("gate", "gate\n(11)"),
    ("effective", "effective gate\n(12), (13)"),
    ("refine", "refine\n(section 3.7)"),
    ("backbone", "any\nbackbone"),
)


def method_line(lit: Collection[str]) -> Axes:
    """The blocks of `architecture` in one line, to show where a section stands.

    Args:
        lit: blocks to stress, of `BLOCKS`: input, projection, summary, comparison, value, gate, effective, refine,
            backbone.

    Raises:
        ValueError: an unknown block.
    """
    unknown = sorted(set(lit) - set(BLOCKS))
    if unknown:
        raise ValueError(f"unknown blocks {unknown}; there are: {', '.join(BLOCKS)}")
    width, height, pitch = 1.7, 0.75, 2.06
    across = pitch * len(METHOD)
    ax = _blank(12.5, 12.5 * (height + 0.35) / across, (-0.1, across), (-0.1, height + 0.25))
    for place, (name, text) in enumerate(METHOD):
        _box(ax, (pitch * place, 0.05, width, height), text, name in lit)
        if place:
            middle = 0.05 + height / 2
            _arrow(ax, (pitch * (place - 1) + width + 0.02, middle), (pitch * place - 0.03, middle))
    return ax
