"""Every figure says what it shows: axes are labelled, the drawn numbers are those given."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from vgmr import plots
from vgmr.comparison import compare
from vgmr.data import load
from vgmr.experiment import Run
from vgmr.loop.history import History
from vgmr.plots import samples
from vgmr.settings import Experiment
from vgmr.statistics.intervals import interval
from vgmr.statistics.verdicts import judged


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
    assert axes[0, 0].get_ylabel() == "time step" and axes[0, 0].figure.get_supxlabel() == "channel"
    assert axes[1, 0].texts[0].get_text() == str(int(part.label[1]))
    np.testing.assert_allclose(axes[0, 0].images[0].get_array(), part.features["left"][0])


def test_per_class_is_the_mean_paired_change_of_recall_with_its_interval():
    """Recalls of classes 0 and 1: plain (1, 0), (1, 1/2); refined (1/2, 1), (1, 1): changes -1/4 and 3/4."""
    ax = plt.subplots()[1]
    samples._per_class(VARIANTS["plain"], VARIANTS["refined"], ["a", "b"], ax)
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    assert [line.get_xdata()[0] for line in dots] == pytest.approx([-0.25, 0.75])
    assert [line.get_ydata()[0] for line in dots] == [0, 1]
    ends = [list(line.get_xdata()) for line in ax.lines if line.get_linewidth() == 1.8]
    first = interval(np.array([[0.0, -1.0], [0.0, 0.0]]))  # of the samples of class 0
    assert ends[0] == pytest.approx([first.low, first.high]) and len(ends) == 2
    assert dots[0].get_markerfacecolor() == "white", "its interval contains zero"
    assert labelled(ax)


def test_answers_by_class_lists_the_classes_in_one_order():
    for names in (["a", "b"], ["a", "b", "c"]):
        left, right = plots.answers_by_class(VARIANTS["plain"], VARIANTS["refined"], names)
        left.figure.canvas.draw()
        ticks = [text for text in left.get_yticklabels() if text.get_text()]
        assert [text.get_text() for text in ticks] == names
        heights = [left.transData.transform((0, place))[1] for place in left.get_yticks()]
        dots = [line for line in right.lines if line.get_marker() == "o"]
        shown = [right.transData.transform((0, dot.get_ydata()[0]))[1] for dot in dots]
        assert shown == pytest.approx(heights[: len(dots)], abs=0.5)
        assert heights == sorted(heights, reverse=True), "from top to bottom"


def test_bands_are_labelled():
    frame = pd.DataFrame({"share": [0, 0, 1, 1], "accuracy": [0.9, 0.8, 0.5, 0.4], "model": "plain"})
    figure = plots.bands(frame.assign(seed=[0, 1, 0, 1]), "share", "accuracy", "model")[0, 0].figure
    assert figure.get_supxlabel() == "share" and figure.get_supylabel() == "accuracy"


# Notebook 13


def robustness_frame():
    rows = [
        (data, corruption, model, seed, severity, height * (1 - severity / 2) + seed / 10)
        for data in ("one", "two")
        for corruption in ("noise", "occlusion")
        for model, height in (("plain", 0.5), ("VGMR, calibrated", 0.7))
        for seed in (0, 1)
        for severity in (0.0, 0.5, 1.0)
    ]
    return pd.DataFrame(rows, columns=["data", "corruption", "model", "seed", "severity", "accuracy"])


def test_corrupted_shows_both_views_and_both_scores():
    part = load("digits").test
    corrupted = replace(part, features={name: 0 * x for name, x in part.features.items()})
    axes = plots.corrupted(part, corrupted, 3, {"plain": (0.9, 0.1), "VGMR, calibrated": (0.8, 0.2)}, 0.1)
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


def test_before_and_after_show_both_conditions():
    frame = pd.DataFrame(
        {"condition": ["clean", "corrupted"], "modality": "a", "global_value": [0.7, 0.6], "gate": [1.0, 0.8]}
    ).assign(label=1, corrupted=[False, True])
    axes = plots.before_and_after(frame, torch.tensor([[0.2, 0.8], [0.6, 0.4]]), ["x", "y"])
    assert [bar.get_height() for bar in axes[0].patches] == pytest.approx([0.7, 0.6])
    assert [bar.get_height() for bar in axes[1].patches] == pytest.approx([1.0, 0.8])
    hit = plt.matplotlib.colors.to_rgba(plots.COLOURS["corrupted"])
    assert [bar.get_facecolor() == hit for bar in axes[0].patches] == [False, True]
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


# 09 controlled comparison


# notebook 16


# Notebooks 11 and 12


def test_gate_strength_is_the_product():
    ax = plots.gate_strength({"paper": (0.5, 0.2)})
    assert labelled(ax)
    (point,) = [line for line in ax.lines if line.get_label() == "paper"]
    assert (point.get_xdata()[0], point.get_ydata()[0]) == (0.5, 0.2)


# Notebook 15: curves of optimisation


def followed() -> pd.DataFrame:
    rows = [
        {"study": "made", "variant": variant, "seed": seed, "epoch": epoch, "one": one, "other": other}
        for variant in ("plain", "VGMR, calibrated")
        for seed in (0, 1)
        for epoch in (0, 1, 2)
        for one, other in (("a", "b"), ("b", "a"))
    ]
    frame = pd.DataFrame(rows)
    return frame.assign(cosine=frame["seed"] - 0.1 * frame["epoch"], shuffled=0.5)


# Intervals


def drawn(ax) -> list[list[float]]:
    """Ends of the whole intervals, from top to bottom."""
    lines = [line for line in ax.lines if line.get_linewidth() == 1.8]
    return [list(line.get_xdata()) for line in sorted(lines, key=lambda line: line.get_ydata()[0])]


def dots(ax) -> dict[float, object]:
    return {float(line.get_ydata()[0]): line for line in ax.lines if line.get_markersize() == 7}


def texts(figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_forest_holds_the_tables_numbers_both_parts_and_the_papers_effect():
    table = judged(compare(VARIANTS, "plain"), {"refined": 0.1})
    (ax,) = plots.forest(table, band=0.05)
    row = table.set_index("label").loc["refined"]
    assert drawn(ax) == [[row.low, row.high]] and [text.get_text() for text in ax.get_yticklabels()] == ["refined"]
    assert dots(ax)[0].get_markerfacecolor() == "white", "the interval holds zero"
    parts = [line for line in ax.lines if line.get_linewidth() == 3.5]
    widths = [np.ptp(line.get_xdata()) for line in parts]
    assert widths[0] / widths[1] == pytest.approx((row.seed_variance / row.sample_variance) ** 0.5)
    assert max(widths) <= np.ptp(drawn(ax)[0]) * (1 + 1e-9), "a part is no longer than the whole"
    (paper,) = [line for line in ax.lines if line.get_marker() == "D"]
    assert paper.get_xdata()[0] == 0.1
    expected = [
        "the seeds' part of the interval",
        "the samples' part of the interval",
        "the paper",
        "within chance",
    ]
    assert texts(ax.figure) == expected
    assert ax.figure.get_supxlabel() == "difference in test accuracy (mean, 95% interval)"


def contrasted(panel: str, kind: str = "zeroed") -> list[dict]:
    return [
        {"panel": panel, "kind": kind, "label": "a", "group": 1, "difference": 0.2, "low": 0.1, "high": 0.3},
        {"panel": panel, "kind": kind, "label": "b", "group": 2, "difference": 0.1, "low": -0.1, "high": 0.3},
    ]


def test_forest_has_panels_on_one_scale_and_fills_what_leaves_the_reference_out():
    axes = plots.forest(pd.DataFrame(contrasted("one") + contrasted("two")), panel="panel")
    assert [ax.get_title() for ax in axes] == ["one", "two"] and axes[0].get_xlim() == axes[1].get_xlim()
    assert dots(axes[0])[0].get_markerfacecolor() != "white" and dots(axes[0])[1].get_markerfacecolor() == "white"
    (ax,) = plots.forest(pd.DataFrame(contrasted("one")), panel="panel", reference=0.05)
    assert ax.lines[0].get_xdata()[0] == 0.05


def test_forest_tells_kinds_apart():
    frame = pd.DataFrame(contrasted("one") + contrasted("one", "retrained"))
    (ax,) = plots.forest(frame, hue="kind")
    assert {line.get_marker() for line in dots(ax).values()} == {"o", "s"}
    assert texts(ax.figure) == ["zeroed", "retrained"] and len(drawn(ax)) == 4


def test_a_row_of_one_kind_stands_on_its_line_and_a_row_of_two_beside_it():
    frame = pd.DataFrame(contrasted("one")).assign(kind=["first", "second"])
    (ax,) = plots.forest(frame, hue="kind")
    assert sorted(dots(ax)) == [0.0, 1.0]
    frame = pd.DataFrame(contrasted("one") + contrasted("one", "retrained"))
    (ax,) = plots.forest(frame, hue="kind")
    assert sorted(dots(ax)) == pytest.approx([-0.13, 0.13, 0.87, 1.13])


def test_a_model_has_one_colour_everywhere():
    assert plots.look("none") == plots.look("plain") and plots.look("VGMR, calibrated") != plots.look(
        "VGMR, paper's form"
    )
    assert len(set(plots.COLOURS.values())) == len(plots.COLOURS)
    line = plots.bands(robustness_frame(), "severity", "accuracy", "model")[0, 0].lines[1]
    rows = [
        {**row, "label": name} for row, name in zip(contrasted("one"), ("plain", "VGMR, calibrated"), strict=True)
    ]
    (ax,) = plots.forest(pd.DataFrame(rows))
    assert line.get_color() == dots(ax)[1].get_color() == plots.COLOURS["VGMR, calibrated"]


def test_a_method_has_one_name_and_colour_whatever_names_it():
    for option, name in (("ogm-ge", "OGM-GE"), ("grad-blending", "Grad-Blending"), ("none", "plain")):
        assert (
            plots.look(option) == plots.look(name)
            and plots.display_name(option) == plots.display_name(name) == name
        )
    assert plots.display_name("arl + VGMR, calibrated") == "ARL + VGMR, calibrated"
    assert plots.display_name(3) == "3" and plots.display_name("fou") == "fou"
    rows = [{**row, "label": name} for row, name in zip(contrasted("one"), ("ogm-ge", "mla"), strict=True)]
    (ax,) = plots.forest(pd.DataFrame(rows))
    assert [text.get_text() for text in ax.get_yticklabels()] == ["OGM-GE", "MLA"]


def test_what_is_no_model_is_neutral_and_takes_no_colour_of_a_model():
    (ax,) = plots.forest(pd.DataFrame(contrasted("one")))
    assert len({(dot.get_color(), dot.get_marker()) for dot in dots(ax).values()}) == 1
    hosts = [
        {**contrasted("one")[0], "label": name} for name in ("TFN", "UniS-MMC", "MulT")
    ]  # one is a method too
    (ax,) = plots.forest(pd.DataFrame(hosts))
    assert len({dot.get_color() for dot in dots(ax).values()}) == 1
    (ax,) = plots.forest(pd.DataFrame(contrasted("one") + contrasted("one", "retrained")), hue="kind")
    kinds = {dot.get_color() for dot in dots(ax).values()}
    assert len(kinds) == 2 and not kinds & set(plots.COLOURS.values())
    assert plots.look("text alone", 4)[1] != plots.look("VGMR, calibrated")[1]


def test_seed_points_are_differences_at_the_same_seed():
    ax = plots.seed_points(VARIANTS, "plain")
    points = [list(line.get_xdata()) for line in ax.lines if line.get_marker() not in ("None", "")]
    assert points == [[0.25, 0.25]] and ax.get_xlabel() == "test accuracy of each seed minus plain's"


def test_beside_paper_leaves_out_what_is_missing():
    frame = pd.DataFrame({"measured": [1.0, 1.3], "paper": [np.nan, 2.35]}, ["plain", "VGMR, calibrated"])
    ax = plots.beside_paper(frame, "ratio to plain", line=1)
    measured, paper = (line for line in ax.lines if line.get_marker() in "oD")
    np.testing.assert_allclose(measured.get_xdata(), [1.0, 1.3])
    np.testing.assert_allclose(paper.get_xdata(), [np.nan, 2.35])
    assert [text.get_text() for text in ax.get_yticklabels()] == ["plain", "VGMR, calibrated"] and ax.get_xlabel()


def test_against_cost_draws_intervals_and_tells_like_costs_apart():
    columns = ["dataset", "label", "cost", "difference", "low", "high"]
    rows = [["digits", "a", 1.3, 0.1, -0.1, 0.2], ["digits", "b", 1.3, 0.2, 0.1, 0.3], ["mosi", "a", 1.3, 0, 0, 0]]
    axes = plots.against_cost(pd.DataFrame(rows, columns=columns))
    assert [ax.get_title() for ax in axes] == ["digits", "mosi"] and axes[0].get_ylim() == axes[1].get_ylim()
    first, second = (axes[0].lines[place] for place in (0, 2))
    assert (list(first.get_xdata()), list(first.get_ydata())) == ([1.3, 1.3], [-0.1, 0.2])
    assert list(second.get_xdata()) == [1.32, 1.32]


def test_hosts_are_named_at_their_intervals_and_like_costs_stand_apart():
    columns = ["label", "host", "cost", "difference", "low", "high"]
    rows = [["plain", "MulT", 2.0, 0.1, -0.1, 0.2], ["plain", "TFN", 1.0, 0.2, 0.1, 0.3]]
    rows += [["b", "MulT", 1, 0, 0, 0], ["plain", "LMF", 2.0, -0.2, -0.3, -0.1]]
    first, second = plots.hosts_against_cost(pd.DataFrame(rows, columns=columns), "cost")
    assert [first.get_title(), second.get_title(), second.get_xlabel()] == ["plain", "b", "cost"]
    names = {text.get_text(): text.xy for text in first.texts}
    assert names == {"TFN": (1.0, 0.3), "MulT": (2.0, 0.2), "LMF": (2.08, -0.1)}
    dots = {float(line.get_xdata()[0]): line for line in first.lines if len(line.get_xdata()) == 1}
    faces = {place: dot.get_markerfacecolor() for place, dot in dots.items()}
    assert faces == {1.0: plots.COLOURS["plain"], 2.0: "white", 2.08: plots.COLOURS["plain"]}
    assert first.get_xscale() == "log" and first.get_ylim()[1] > 0.3 + 0.3


def test_verdicts_stack_to_the_number_of_claims_by_list():
    table = pd.DataFrame({"item": ["a", "b", "a", "a"], "verdict": ["held", "held", "undecided", "contradicted"]})
    axes = plots.verdicts(table.assign(list=["one", "one", "one", "two"]))
    assert [ax.get_title(loc="left") for ax in axes] == ["one", "two"]
    ends = [bars.patches[0].get_x() + bars.patches[0].get_width() for bars in axes[0].containers]
    assert ends == [1, 1, 1, 2] and [text.get_text() for text in axes[0].get_yticklabels()] == ["a", "b"]


# Curves


def test_bands_are_means_and_ranges_over_seeds_in_panels():
    frame = robustness_frame()
    axes = plots.bands(frame, "severity", "accuracy", "model", panel="corruption", row="data", line=0.3)
    assert axes.shape == (2, 2) and axes[0, 0].get_title() == "one, noise"
    np.testing.assert_allclose(axes[0, 0].lines[0].get_ydata(), [0.55, 0.425, 0.3])
    edge = axes[0, 0].collections[0].get_paths()[0].vertices[:, 1]
    assert (edge.min(), edge.max()) == pytest.approx((0.25, 0.6))
    assert axes[0, 0].get_ylim() == axes[1, 1].get_ylim()
    assert [line.get_ydata()[0] for line in axes[0, 0].lines if line.get_linestyle() == "--"] == [0.3]
    assert texts(axes[0, 0].figure) == ["plain", "VGMR, calibrated"]


def test_bands_of_differences_are_paired_by_seed():
    frame = robustness_frame().query("data == 'one'")
    frame = pd.concat([frame, frame.query("model == 'VGMR, calibrated'").assign(model="parameter-matched MLP")])
    ax = plots.bands(frame, "severity", "accuracy", "model", "corruption", baseline="plain")[0, 0]
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [0.2, 0.15, 0.1])
    assert ax.figure.get_supylabel() == "accuracy minus plain's"


def test_a_line_far_from_the_curves_is_left_out():
    (ax,) = plots.bands(robustness_frame(), "severity", "accuracy", "model", line=-2.0).flat
    assert not [line for line in ax.lines if line.get_linestyle() == "--"]


def test_learning_curves_are_means_over_seeds():
    axes = plots.learning_curves(VARIANTS)[0]
    assert axes[2].get_title() == "validation accuracy"
    np.testing.assert_allclose(axes[2].lines[0].get_ydata(), [0.5, 0.65])


def test_learning_curves_have_bands_over_seeds_and_none_over_folds():
    assert all(len(ax.collections) == 2 for ax in plots.learning_curves(VARIANTS)[0])
    runs = [
        replace(run, experiment=replace(run.experiment, fold=fold))
        for run, fold in zip(VARIANTS["plain"], (0, 1), strict=True)
    ]
    axes = plots.learning_curves({"plain": runs})[0]
    assert all(len(ax.lines) == 1 and not ax.collections for ax in axes)


def test_learning_curves_stop_where_half_of_the_trainings_have_ended_and_keep_the_scale_of_the_means():
    long, wild = (made_run(seed, [0, 0, 0, 0], LABEL) for seed in (2, 3))
    long = replace(long, history=History([1.0, 0.5, 0.2, 0.1], [1.1, 0.9, 0.8, 0.8], [0.5, 0.6, 0.7, 0.7], 1, 1.0))
    wild = replace(wild, history=History([1.0, 0.5, 0.4], [1.1, 9.9, 0.8], [0.5, 0.6, 0.7], 1, 1.0))
    axes = plots.learning_curves({"plain": [*VARIANTS["plain"], long, wild]})[0]
    assert all(len(ax.lines[0].get_ydata()) == 3 for ax in axes), "two of four trainings go on to the third epoch"
    assert axes[1].get_ylim()[1] < 9.9, "the mean of the second epoch is (0.9 + 0.9 + 0.9 + 9.9) / 4"


def test_matrices_are_means_over_seeds_with_numbers():
    frame = followed()
    axes = plots.matrices(frame[frame["epoch"] == 1], "one", "other", "cosine", "variant")
    assert [ax.get_title() for ax in axes] == ["plain", "VGMR, calibrated"] and labelled(axes[0])
    shown = np.ma.filled(axes[0].collections[0].get_array().reshape(2, 2), np.nan)
    np.testing.assert_allclose(shown, [[np.nan, 0.4], [0.4, np.nan]])
    assert {text.get_text() for text in axes[0].texts} == {"0.40"}


# Samples


def test_one_step_is_drawn_as_bars():
    part = load("synthetic", like="mosi", samples=8, steps=1).test
    axes = plots.sequences(part, [0], ["a", "b"])
    name = next(iter(part.features))
    assert not axes[0, 0].images
    heights = [bar.get_height() for bar in axes[0, 0].patches]
    np.testing.assert_allclose(heights, part.features[name][0, 0], atol=1e-6)


def test_refinement_maps_show_red_where_responses_shrink_on_one_scale():
    table = pd.DataFrame({"modality": ["a", "b"], "mean": [0.1, 0.3]})
    before = {"a": -torch.ones(2, 3), "b": torch.ones(4, 2)}
    axes = plots.refinement_maps(before, {"a": before["a"] * 0.5, "b": before["b"] * 1.4}, table)
    np.testing.assert_allclose(axes[0].images[0].get_array(), -0.5)
    assert axes[0].images[0].get_clim() == axes[1].images[0].get_clim() == (-0.5, 0.5)
    red, _, blue, _ = axes[0].images[0].cmap(0.05)
    assert red > blue
    assert [bar.get_height() for bar in axes[2].patches] == pytest.approx([0.1, 0.3])
    assert axes[2].get_ylabel() and axes[0].get_ylabel() == "time step"


def test_confusion_matrix_shows_shares_of_the_true_class_and_numbers():
    ax = plots.confusion_matrix(torch.tensor([[3, 1, 0], [0, 2, 0], [0, 0, 1]]), ["a", "b", "c"])
    np.testing.assert_allclose(ax.collections[0].get_array().reshape(3, 3)[0], [0.75, 0.25, 0])
    assert labelled(ax) and ax.texts[0].get_text() == "0.75"
    two = plots.confusion_matrix(torch.tensor([[3, 1], [0, 2]]), ["a", "b"])
    assert [bar.get_width() for bar in two.patches] == [0.75, 1.0] and labelled(two)


def test_every_figure_says_in_one_line_what_it_shows():
    """The line is the figure's alternative text in the notebooks."""
    for name in plots.__all__:
        if name != "COLOURS":
            first = getattr(plots, name).__doc__.splitlines()[0]
            assert first.endswith((".", ";")), name
