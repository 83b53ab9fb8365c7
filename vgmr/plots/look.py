"""The look of all figures, and one colour and marker per model in all of them."""

from __future__ import annotations

import matplotlib.pyplot as plt
import seaborn as sns

COLOURS = {
    "plain": "#7f7f7f",
    "parameter-matched MLP": "#de8f05",
    "value-free gate": "#029e73",
    "VGMR, paper's form": "#56b4e9",
    "VGMR, calibrated": "#0b3c6f",
    "oracle": "#000000",
    "Grad-Blending": "#cc78bc",
    "MMPareto": "#ca9161",
    "Cross-Attention": "#a6195a",
    "Sigmoid+Tanh gate": "#949e1f",
    "Summation": "#b5a2c8",
    "Tensor Fusion": "#8c564b",
    "majority class": "#bbbbbb",
    "corrupted": "#d55e00",  # no model: what is corrupted, in every figure
    "uniform": "#cbb800",
    "UniS-MMC": "#aa22ee",
    "OGM-GE": "#5e3c99",
    "PMR": "#74a12e",
    "AGM": "#7b3f00",
    "Relearning": "#00797a",
    "MLA": "#e7298a",
    "ARL": "#b2182b",
}
NAMES = {  # of what options name
    "none": "plain",
    "VGMR, value-free gate": "value-free gate",
    "none + VGMR, paper's form": "VGMR, paper's form",
    "none + VGMR, calibrated": "VGMR, calibrated",
    "grad-blending": "Grad-Blending",
    "mmpareto": "MMPareto",
    "unis-mmc": "UniS-MMC",
    "ogm-ge": "OGM-GE",
    "relearning": "Relearning",
    **{name.lower(): name for name in ("PMR", "AGM", "MLA", "ARL", "MMIM", "SGD")},
    "self-mm": "Self-MM",
    "adamw": "AdamW",
}
REST = ("#ece133", "#fbafe4", "#8172b3", "#4c9f70", "#a65628", "#f781bf", "#66c2a5", "#b15928")
MARKERS = "osD^vPX<>dph*"
# of no model; those in front differ in lightness too
OTHERS = ("#8172b3", "#a65628", "#ccb974", "#da8bc3", "#64748b", "#4c9f70", "#c44e52", "#937860")
NEUTRAL = ("#404040", "o")


def style() -> None:
    """The look of all figures."""
    sns.set_theme(style="whitegrid", context="notebook", palette="colorblind")
    plt.rcParams |= {"figure.dpi": 100, "savefig.dpi": 100, "figure.constrained_layout.use": True}
    plt.rcParams |= {"axes.titlesize": 12, "axes.labelsize": 11, "font.size": 11, "legend.fontsize": 10}


def display_name(label: object) -> str:
    """What something is called in a figure: models and methods by their own names, all else as it is."""
    text = str(label)
    return NAMES.get(text) or " + ".join(NAMES.get(part, part) for part in text.split(" + "))


def look(label: object, place: int = 0) -> tuple[str, str]:
    """Colour and marker of a model, the same in every figure; what is no known model gets those of its `place`."""
    name = display_name(label)
    if name in COLOURS:
        number = list(COLOURS).index(name)
        return COLOURS[name], MARKERS[number % len(MARKERS)]
    return REST[place % len(REST)], MARKERS[-1 - place % len(MARKERS)]


def looks(labels: list[object], neutral: bool = False) -> dict[object, tuple[str, str]]:
    """`look` of several things in one figure; where none is a model, colours that no model has, in order.

    Args:
        neutral: one colour and marker for all instead, where most of them are no models.
    """
    models = sum(display_name(label) in COLOURS for label in labels)
    if neutral and 2 * models < len(labels):
        return dict.fromkeys(labels, NEUTRAL)
    if models:
        return {label: look(label, place) for place, label in enumerate(labels)}
    return {label: (OTHERS[at % len(OTHERS)], MARKERS[at % len(MARKERS)]) for at, label in enumerate(labels)}


def shades(number: int) -> list[str]:
    """Violets from dark to light, for what is no model, such as scores, terms or steps."""
    return list(sns.light_palette("#3f007d", number + 1, reverse=True).as_hex())[:number]
