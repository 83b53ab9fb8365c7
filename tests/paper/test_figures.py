"""The paper's numbers agree with each other where it states one twice."""

import pytest

from vgmr.paper import figures


def test_what_stands_in_several_tables_is_the_same():
    assert figures.ABLATIONS["full"] == figures.CONTROLLED[figures.FORM]
    assert figures.REMOVALS["plain"][0] == figures.CONTROLLED["plain"][0]
    assert figures.REMOVALS["mmpareto"][0] == figures.CONTROLLED["MMPareto"][0]
    for method in ("ogm-ge", "arl"):
        assert figures.IN_FRONT[method][1][0] == figures.REMOVALS[method][0] == figures.BALANCING[method]


def test_stated_differences_are_those_of_the_cells():
    for clean, noisy, change in figures.CORRUPTED_TEXT.values():
        assert noisy - clean == pytest.approx(change)
    assert figures.gain_in_front("ogm-ge") == pytest.approx(0.0103)
    front, alone = figures.IN_FRONT["arl"]
    assert front[1] - alone[1] == pytest.approx(0.0014)
    assert figures.lead(figures.FORM, "parameter-matched MLP") == pytest.approx(0.0148)
    best = max(figures.CONTROLLED[name][1] for name in ("Summation", "Tensor Fusion", "parameter-matched MLP"))
    assert figures.CONTROLLED[figures.FORM][1] - best == pytest.approx(0.0158)


def test_most_methods_keep_the_same_without_text():
    assert sum(row[1] == 0.7102 for row in figures.REMOVALS.values()) == 4


def test_figures_are_for_one_setting_only():
    assert figures.scores("mosi", "transformer") == figures.scores("mosei", "pooled") == {}
    assert figures.scores("mosei", "transformer", "macro_f1")["plain"] == 0.7810


def test_effects_are_to_the_baseline():
    found = figures.effects(figures.BALANCING, "none")
    assert "none" not in found and found["mla"] == pytest.approx(-0.0071)
