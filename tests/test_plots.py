"""Every figure says what it shows: axes are labelled, the drawn numbers are those given."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from vgmr import plots
from vgmr.data import load
from vgmr.experiment import Experiment, Run, compare
from vgmr.training import History


def made_run(seed: int, prediction: list[int], label: list[int], prefusion: str = "none") -> Run:
    right = float(np.mean(np.array(prediction) == np.array(label)))
    return Run(
        experiment=Experiment("digits", prefusion, seed=seed),
        metrics={"accuracy": right, "macro_f1": right, "validation_accuracy": right, "majority_accuracy": 0.5},
        subset_accuracy={},
        history=History([1.0, 0.5], [1.1, 0.9], [0.5, 0.6 + seed / 10], 1, 1.0),
        prediction=prediction,
        label=label,
        parameters=10,
        prefusion_parameters=0,
        seconds=1.0,
        peak_memory=1.0,
        fingerprint="",
        stand_in=False,
        environment={},
        path="",
    )


LABEL = [0, 0, 1, 1]
VARIANTS = {
    "plain": [made_run(0, [0, 0, 0, 0], LABEL), made_run(1, [0, 0, 0, 1], LABEL)],
    "refined": [made_run(0, [0, 1, 1, 1], LABEL), made_run(1, [0, 0, 1, 1], LABEL)],
}


@pytest.fixture(autouse=True)
def closed():
    plots.style()
    yield
    plt.close("all")


def labelled(ax) -> bool:
    return bool(ax.get_xlabel()) and bool(ax.get_ylabel())


def test_sequences_frame_what_is_struck():
    part = load("digits", conflict=1.0).test
    axes = plots.sequences(part, [0, 1], [str(digit) for digit in range(10)])
    assert axes.shape == (2, 3)
    framed = [[bool(ax.get_xlabel()) for ax in line] for line in axes]
    struck = [[bool(part.struck[name][row].any()) for name in part.features] for row in (0, 1)]
    assert framed == struck
    np.testing.assert_allclose(axes[0, 0].images[0].get_array(), part.features["left"][0])


def test_seed_points_draw_every_seed_and_the_majority_rate():
    ax = plots.seed_points(VARIANTS)
    drawn = sorted(x for line in ax.lines if line.get_marker() == "o" for x in line.get_xdata())
    assert drawn == [0.5, 0.75, 0.75, 1.0]
    assert any(line.get_linestyle() == "--" and line.get_xdata()[0] == 0.5 for line in ax.lines)
    assert ax.get_xlabel() == "test accuracy"
    assert [label.get_text() for label in ax.get_yticklabels()] == ["plain", "refined"]


def test_intervals_hold_the_tables_numbers():
    table = compare(VARIANTS, "plain")
    ax = plots.intervals(table)
    low, high = (float(x) for x in ax.containers[0].lines[2][0].get_segments()[0][:, 0])
    assert low == pytest.approx(table.low["refined"])
    assert high == pytest.approx(table.high["refined"])


def test_learning_curves_are_means_over_seeds():
    axes = plots.learning_curves(VARIANTS)
    assert all(labelled(ax) for ax in axes)
    np.testing.assert_allclose(axes[2].lines[0].get_ydata(), [0.5, 0.65])


def test_confusion_matrix_shows_shares_of_the_true_class():
    ax = plots.confusion_matrix(torch.tensor([[3, 1], [0, 2]]), ["a", "b"])
    np.testing.assert_allclose(ax.collections[0].get_array().reshape(2, 2), [[0.75, 0.25], [0, 1]])
    assert labelled(ax)


def test_per_class_is_the_mean_paired_change_of_recall():
    """Recalls of classes 0 and 1: plain (1, 0), (1, 1/2); refined (1/2, 1), (1, 1): changes -1/4 and 3/4."""
    ax = plots.per_class(VARIANTS["plain"], VARIANTS["refined"], ["a", "b"])
    assert [bar.get_height() for bar in ax.patches] == pytest.approx([-0.25, 0.75])
    assert labelled(ax)


def test_bands_and_boxes_are_labelled():
    frame = pd.DataFrame({"share": [0, 0, 1, 1], "accuracy": [0.9, 0.8, 0.5, 0.4], "model": "plain"})
    assert labelled(plots.bands(frame, "share", "accuracy", "model"))
    values = pd.DataFrame({"modality": ["a"] * 4, "struck": [True, False] * 2, "gate": [0.1, 0.2, 0.3, 0.4]})
    axes = plots.struck_or_not(values, ["gate"])
    assert axes[0].get_ylabel() == "gate"


def test_gate_and_prediction_marks_the_true_class():
    axes = plots.gate_and_prediction(
        {"left": torch.ones(2, 3), "right": torch.ones(4, 2)}, torch.tensor([0.2, 0.8]), ["a", "b"], 1
    )
    colours = [bar.get_facecolor() for bar in axes[-1].patches]
    assert colours[0] != colours[1]
    assert [bar.get_height() for bar in axes[-1].patches] == pytest.approx([0.2, 0.8])


def test_lengths_and_labels_draw_real_steps_and_shares():
    data = load("synthetic")
    axes = plots.lengths_and_labels({"first": data, "second": load("digits")})
    assert axes.shape == (2, 2) and axes[0, 0].get_title() == "first"
    assert [text.get_text() for text in axes[0, 0].get_yticklabels()] == data.modalities
    longest = max(int(length.max()) for part in data.parts.values() for length in part.lengths().values())
    drawn = max(line.get_xdata().max() for line in axes[0, 0].lines if len(line.get_xdata()))
    assert drawn == longest
    for line, part in zip(axes[1, 0].lines, data.parts.values(), strict=True):
        share = part.label.bincount(minlength=len(data.classes)) / len(part)
        np.testing.assert_allclose(line.get_ydata(), share)
    assert all(ax.get_xlabel() for ax in axes.flat)


# notebook 10


def test_balancing_acts_draws_what_was_noted_by_epoch_from_one():
    gradients = pd.DataFrame({"modality": ["a", "b"] * 2, "epoch": [0, 0, 1, 1], "length": [1.0, 2, 3, 4]})
    gradients["cosine"] = [0.1, 0.2, 0.3, 0.4]
    noted = pd.DataFrame({"modality": ["a", "joint"], "epoch": [1, 1], "value": [0.5, 0.6]})
    left, right = plots.balancing_acts(noted, gradients, "weight", neutral=0.5)
    drawn = {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in left.lines}
    assert drawn["a"] == ([2], [0.5]) and drawn["joint"] == ([2], [0.6])
    assert list(right.lines[1].get_ydata()) == [2.0, 4.0] and list(right.lines[1].get_xdata()) == [1, 2]
    assert labelled(left) and left.get_ylabel() == "weight"
    left, _ = plots.balancing_acts(noted.iloc[:0], gradients, "weight")
    assert left.get_ylabel() == "cosine to plain gradient" and list(left.lines[0].get_ydata()) == [0.1, 0.3]


def test_against_published_draws_what_both_have():
    ax = plots.against_published(pd.Series({"x": 0.5, "y": 0.6, "z": 0.7}), {"y": 0.8, "x": 0.9, "w": 1.0})
    assert list(ax.lines[0].get_xdata()) == [0.8, 0.9] and list(ax.lines[0].get_ydata()) == [0.6, 0.5]
    assert [text.get_text() for text in ax.texts] == ["y", "x"] and labelled(ax)


# Notebooks 11 and 12


def contrasted(panel: str, kind: str = "zeroed") -> list[dict]:
    return [
        {"panel": panel, "kind": kind, "label": "a", "group": 1, "difference": 0.2, "low": 0.1, "high": 0.3},
        {"panel": panel, "kind": kind, "label": "b", "group": 2, "difference": 0.1, "low": -0.1, "high": 0.3},
    ]


def test_interval_grid_fills_what_leaves_zero_out():
    frame = pd.DataFrame(contrasted("one") + contrasted("two"))
    axes = plots.interval_grid(frame, "panel", shades={"one": (-0.05, 0.05)})
    assert [ax.get_title() for ax in axes] == ["one", "two"]
    assert [text.get_text() for text in axes[0].get_yticklabels()] == ["a", "b"]
    dots = {float(line.get_ydata()[0]): line for line in axes[0].lines if line.get_marker() == "o"}
    assert [float(dots[place].get_xdata()[0]) for place in (0, 1)] == [0.2, 0.1]
    assert dots[0].get_markerfacecolor() != "white" and dots[1].get_markerfacecolor() == "white"
    spans = [
        line.get_xdata() for line in axes[0].lines if line.get_marker() == "None" and len(line.get_xdata()) == 2
    ]
    assert [0.1, 0.3] in [list(span) for span in spans]
    legend = [text.get_text() for text in axes[0].figure.legends[0].get_texts()]
    assert legend == ["interval leaves 0 out", "interval holds 0", "reached by chance alone"]


def test_interval_grid_of_accuracies_has_the_majority_for_its_line():
    (ax,) = plots.interval_grid(pd.DataFrame(contrasted("one")), "panel", majority=0.05, xlabel="test accuracy")
    assert any(line.get_linestyle() == "--" and line.get_xdata()[0] == 0.05 for line in ax.lines)
    legend = [text.get_text() for text in ax.figure.legends[0].get_texts()]
    assert legend == ["interval leaves the line out", "interval holds the line", "majority class"]


def test_interval_grid_tells_kinds_apart():
    frame = pd.DataFrame(contrasted("one") + contrasted("one", "retrained"))
    (ax,) = plots.interval_grid(frame, "panel", hue="kind")
    markers = {line.get_marker() for line in ax.lines} - {"None"}
    assert markers == {"o", "s"}
    legend = [text.get_text() for text in ax.figure.legends[0].get_texts()]
    assert legend[:2] == ["zeroed", "retrained"]


def test_gate_strength_is_the_product():
    ax = plots.gate_strength({"paper": (0.5, 0.2)})
    assert labelled(ax)
    (point,) = [line for line in ax.lines if line.get_label() == "paper"]
    assert (point.get_xdata()[0], point.get_ydata()[0]) == (0.5, 0.2)


def test_grouped_bars_hold_the_tables_numbers():
    frame = pd.DataFrame(contrasted("one") + contrasted("one", "retrained"))
    (ax,) = plots.grouped_bars(frame, "panel", "kind", "share", {"one": "a note"})
    assert [bar.get_height() for bar in ax.patches] == pytest.approx([0.2, 0.1, 0.2, 0.1])
    assert ax.get_title() == "one\na note" and ax.get_ylabel() == "share"
    assert [text.get_text() for text in ax.get_xticklabels()] == ["a", "b"]
