"""Verdicts follow the rule, and are refused where there is no interval."""

import pandas as pd
import pytest

from vgmr.statistics.verdicts import VERDICTS, judged, verdict


@pytest.mark.parametrize(
    ("numbers", "paper", "expected"),
    [
        ((0.02, 0.01, 0.03), 0.02, "held"),
        ((0.02, 0.01, 0.03), None, "held"),
        ((-0.02, -0.03, -0.01), 0.02, "contradicted"),
        ((0.001, -0.005, 0.007), 0.02, "smaller than the paper's"),
        ((0.001, -0.005, 0.010), 0.02, "undecided"),
        ((0.001, -0.005, 0.007), None, "undecided"),
        ((0.0, 0.0, 0.0), None, "undecided"),
        ((0.01, 0.0, 0.02), None, "undecided"),
        ((-0.01, -0.02, 0.0), None, "undecided"),
    ],
)
def test_verdict(numbers, paper, expected):
    assert verdict(*numbers, paper) == expected and expected in VERDICTS


def test_a_verdict_needs_an_interval_and_a_direction():
    with pytest.raises(ValueError, match="low <= difference"):
        verdict(float("nan"), 0.0, 1.0)
    with pytest.raises(ValueError, match="turn the difference round"):
        verdict(0.1, 0.0, 1.0, -0.1)
    with pytest.raises(ValueError, match="turn the difference round"):
        verdict(0.1, 0.0, 1.0, 0.0)


def test_the_papers_effect_enters_a_judged_table_where_it_lies_above_zero():
    rows = [("a", 0.001, -0.005, 0.007), ("b", 0.001, -0.005, 0.007), ("c", 0.001, -0.005, 0.007)]
    table = pd.DataFrame(rows, columns=["label", "difference", "low", "high"])
    found = judged(table, {"a": 0.02, "b": -0.02, "c": 0.0})
    assert found["verdict"].tolist() == ["smaller than the paper's", "undecided", "undecided"]
    assert found["paper"].tolist() == [0.02, -0.02, 0.0]
    alone = judged(table)
    assert alone["paper"].isna().all() and (alone["verdict"] == "undecided").all()
