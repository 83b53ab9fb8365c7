"""Every figure says what it shows: axes are labelled, the drawn numbers are those given."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from vgmr.analysis.robustness import summarise
from vgmr.data import load
from vgmr.experiment import Experiment, Run, compare
from vgmr.plots import panels as plots
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


def test_sequences_frame_what_is_corrupted():
    part = load("digits", conflict=1.0).test
    axes = plots.sequences(part, [0, 1], [str(digit) for digit in range(10)])
    assert axes.shape == (2, 3)
    framed = [[bool(ax.get_xlabel()) for ax in line] for line in axes]
    corrupted = [[bool(part.corrupted[name][row].any()) for name in part.features] for row in (0, 1)]
    assert framed == corrupted
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
    values = pd.DataFrame({"modality": ["a"] * 4, "corrupted": [True, False] * 2, "gate": [0.1, 0.2, 0.3, 0.4]})
    axes = plots.corrupted_or_not(values, ["gate"])
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


# Notebook 13


def robustness_frame():
    rows = [
        (data, corruption, model, seed, severity, height * (1 - severity / 2) + seed / 10)
        for data in ("one", "two")
        for corruption in ("noise", "occlusion")
        for model, height in (("plain", 0.5), ("VGMR", 0.7))
        for seed in (0, 1)
        for severity in (0.0, 0.5, 1.0)
    ]
    return pd.DataFrame(rows, columns=["data", "corruption", "model", "seed", "severity", "accuracy"])


def test_robustness_panels_draw_means_and_the_majority_rate():
    axes = plots.robustness_panels(robustness_frame(), {"one": 0.1, "two": 0.2})
    assert [ax.get_title() for ax in axes.flat[:4]] == [
        "one: noise",
        "one: occlusion",
        "two: noise",
        "two: occlusion",
    ]
    np.testing.assert_allclose(axes[0, 0].lines[0].get_ydata(), [0.55, 0.425, 0.3])
    rates = [line.get_ydata()[0] for ax in axes.flat[:4] for line in ax.lines if line.get_linestyle() == "--"]
    assert rates == [0.1, 0.1, 0.2, 0.2] and not axes[1, 1].axison and not axes[1, 2].axison
    figure = axes[0, 0].figure
    assert figure.get_supxlabel() and figure.get_supylabel() and len(figure.legends) == 1
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["plain", "VGMR", "majority class"]


def test_difference_panels_hold_the_tables_numbers():
    table = summarise(robustness_frame())
    axes = plots.difference_panels(table, "area")
    for ax, data in zip(axes, ("one", "two"), strict=True):
        drawn = [bar.lines[0].get_xdata() for bar in ax.containers]
        np.testing.assert_allclose(drawn, [table.loc[data].xs("VGMR", level="model")["area difference"]])
        assert ax.get_title() == data and ax.get_xlabel()
    assert [label.get_text() for label in axes[0].get_yticklabels()] == ["noise", "occlusion"]


def test_corrupted_shows_both_views_and_both_scores():
    part = load("digits").test
    corrupted = replace(part, features={name: 0 * x for name, x in part.features.items()})
    axes = plots.corrupted(part, corrupted, 3, {"plain": (0.9, 0.1), "VGMR": (0.8, 0.2)}, 0.1)
    pictures = [ax.images[0].get_array() for ax in axes if ax.images]
    assert len(pictures) == 2 * len(part.features) and sum(not picture.any() for picture in pictures) == 3
    assert [bar.get_height() for ax in axes for bar in ax.patches] == [0.9, 0.8, 0.1, 0.2]


def test_corruption_gallery_shows_each_view_of_one_sample():
    part = load("digits").test
    gone = replace(part, features={name: 0 * x for name, x in part.features.items()})
    axes = plots.corruption_gallery({"clean": part, "all gone": gone}, 5)
    assert axes.shape == (3, 2) and axes[0, 1].get_title() == "all\ngone"
    np.testing.assert_allclose(axes[0, 0].images[0].get_array(), part.features["left"][5])
    assert not axes[2, 1].images[0].get_array().any() and axes[2, 1].get_xlabel()


# notebook 14, value and gate


def test_grouped_intervals_draw_every_group_beside_its_row():
    table = pd.DataFrame(
        {"score": ["gate", "gate", "random"], "data": ["a", "b", "a"], "mean": [0.6, 0.4, 0.5]}
    ).assign(low=lambda frame: frame["mean"] - 0.1, high=lambda frame: frame["mean"] + 0.2)
    ax = plots.grouped_intervals(table, "score", "data", xlabel="AUROC", reference=0.5)
    assert [text.get_text() for text in ax.get_yticklabels()] == ["gate", "random"]
    first, second = (container.lines[0].get_xdata() for container in ax.containers)
    assert list(first) == [0.6, 0.5] and list(second) == [0.4]
    assert ax.containers[0].lines[2][0].get_segments()[0][:, 0] == pytest.approx([0.5, 0.8])
    assert ax.get_xlabel() == "AUROC"


def test_refinement_maps_share_a_scale_and_show_the_bars():
    table = pd.DataFrame({"modality": ["a", "b"], "mean": [0.1, 0.3], "low": [0.05, 0.2], "high": [0.2, 0.4]})
    axes = plots.refinement_maps({"a": torch.ones(2, 3), "b": -4 * torch.ones(4, 2)}, table)
    assert [ax.get_title() for ax in axes[:2]] == ["a", "b"]
    assert axes[0].images[0].get_clim() == axes[1].images[0].get_clim() == (-4, 4)
    assert [bar.get_height() for bar in axes[2].patches] == pytest.approx([0.1, 0.3])
    assert axes[2].get_ylabel() and axes[0].get_ylabel() == "time step"


def test_before_and_after_show_both_conditions():
    frame = pd.DataFrame(
        {"condition": ["clean", "corrupted"], "modality": "a", "global_value": [0.7, 0.6], "gate": [0.5, 0.4]}
    ).assign(label=1)
    axes = plots.before_and_after(frame, torch.tensor([[0.2, 0.8], [0.6, 0.4]]), ["x", "y"])
    assert [bar.get_height() for bar in axes[0].patches] == pytest.approx([0.7, 0.6])
    heights = [bar.get_height() for container in axes[2].containers for bar in container]
    assert heights == pytest.approx([0.2, 0.8, 0.6, 0.4])
    assert labelled(axes[2])


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
    assert left.get_ylabel() == "cosine to plain" and list(left.lines[0].get_ydata()) == [0.1, 0.3]


def test_against_published_is_in_the_published_order():
    runs = {"x": VARIANTS["plain"], "y": VARIANTS["refined"], "z": VARIANTS["plain"]}
    ax = plots.against_published(runs, {"y": 0.8, "x": 0.9, "w": 1.0})
    assert [text.get_text() for text in ax.get_yticklabels()] == ["x  0.9000", "y  0.8000"] and labelled(ax)
    dots = [line.get_xdata()[0] for line in ax.lines[1::2]]
    assert dots == pytest.approx([np.mean([run.metrics["accuracy"] for run in runs[name]]) for name in "xy"])
    assert ax.yaxis_inverted()


# 09 controlled comparison


def test_costs_draw_both_ratios_and_leave_out_what_is_missing():
    frame = pd.DataFrame({"measured": [1.0, 1.3], "paper": [np.nan, 2.35]}, ["plain", "VGMR"])
    ax = plots.costs(frame)
    measured, paper = (line for line in ax.lines if line.get_marker() in "oD")
    np.testing.assert_allclose(measured.get_xdata(), [1.0, 1.3])
    np.testing.assert_allclose(paper.get_xdata(), [np.nan, 2.35])
    assert [text.get_text() for text in ax.get_yticklabels()] == ["plain", "VGMR"]
    assert ax.get_xlabel()


def test_accuracy_against_cost_draws_intervals_and_tells_like_costs_apart():
    columns = ["dataset", "variant", "cost", "difference", "low", "high"]
    rows = [["digits", "a", 1.3, 0.1, -0.1, 0.2], ["digits", "b", 1.3, 0.2, 0.1, 0.3], ["mosi", "a", 1.3, 0, 0, 0]]
    axes = plots.accuracy_against_cost(pd.DataFrame(rows, columns=columns))
    assert [ax.get_title() for ax in axes] == ["digits", "mosi"]
    first, second = (container.lines[2][0].get_segments()[0] for container in axes[0].containers)
    np.testing.assert_allclose(first, [[1.3, -0.1], [1.3, 0.2]])
    np.testing.assert_allclose(second, [[1.32, 0.1], [1.32, 0.3]])
    assert all(ax.get_xlabel() for ax in axes)


# notebook 16


def test_verdicts_stack_to_the_number_of_claims():
    table = pd.DataFrame({"item": ["a", "b", "a", "a"], "verdict": ["held", "held", "undecided", "did not hold"]})
    ax = plots.verdicts(table, ("held", "did not hold", "undecided", "not attempted"))
    ends = [bars.patches[0].get_x() + bars.patches[0].get_width() for bars in ax.containers]
    assert ends == [1, 2, 3, 3]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["a", "b"] and ax.get_xlabel()


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


# Notebook 15: curves of optimisation


def followed() -> pd.DataFrame:
    rows = [
        {"study": "made", "variant": variant, "seed": seed, "epoch": epoch, "one": one, "other": other}
        for variant in ("plain", "VGMR")
        for seed in (0, 1)
        for epoch in (0, 1, 2)
        for one, other in (("a", "b"), ("b", "a"))
    ]
    frame = pd.DataFrame(rows)
    return frame.assign(cosine=frame["seed"] - 0.1 * frame["epoch"], shuffled=0.5)


def test_curve_bands_are_means_and_ranges_over_seeds():
    axes = plots.curve_bands(followed(), {"cosine": "cosine"}, ["plain", "VGMR"])
    assert axes.shape == (1, 1) and labelled(axes[0, 0]) and axes[0, 0].get_title() == "made"
    np.testing.assert_allclose(axes[0, 0].lines[0].get_ydata(), [0.5, 0.4, 0.3])
    drawn = axes[0, 0].collections[0].get_paths()[0].vertices[:, 1]
    assert (drawn.min(), drawn.max()) == pytest.approx((-0.2, 1.0))


def test_cosine_curves_have_a_row_per_pair_and_a_column_per_variant():
    axes = plots.cosine_curves(followed())
    assert axes.shape == (2, 2)
    assert [ax.get_title() for ax in axes[0]] == ["plain", "VGMR"]
    means = [line for line in axes[1, 1].lines if line.get_label() in ("cosine", "shuffled")]
    np.testing.assert_allclose(means[0].get_ydata(), [0.5, 0.4, 0.3])
    np.testing.assert_allclose(means[1].get_ydata(), [0.5, 0.5, 0.5])
    assert all(ax.get_ylabel() for ax in axes[:, 0]) and all(ax.get_xlabel() for ax in axes[-1])


def test_pair_matrices_are_means_over_seeds():
    frame = followed()
    axes = plots.pair_matrices(frame[frame["epoch"] == 1])
    assert [ax.get_title() for ax in axes] == ["plain", "VGMR"] and labelled(axes[0])
    drawn = np.ma.filled(axes[0].collections[0].get_array().reshape(2, 2), np.nan)
    np.testing.assert_allclose(drawn, [[np.nan, 0.4], [0.4, np.nan]])


def test_loss_contours_share_their_levels():
    grid = pd.DataFrame([{"x": x, "y": y, "loss": x**2 + y**2} for x in (-1, 0, 1) for y in (-1, 0, 1)])
    axes = plots.loss_contours({"plain": grid, "VGMR": grid.assign(loss=2 * grid["loss"])})
    assert all(labelled(ax) for ax in axes)
    levels = [ax.collections[0].levels for ax in axes]
    np.testing.assert_allclose(levels[0], levels[1])
    assert levels[0][0] == 0 and levels[0][-1] == 4
