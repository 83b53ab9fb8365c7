"""Sentences written from numbers say what the numbers say, whichever side is better."""

import pandas as pd

from vgmr import load
from vgmr.notebook.prose import about, gains, sentence, sentences

ROW = {
    "label": "VGMR",
    "against": "plain",
    "difference": 0.02,
    "low": 0.01,
    "high": 0.03,
    "smallest_effect": 0.015,
}


def test_a_sentence_follows_the_interval():
    said = sentence(ROW)
    assert "2.0 points better than plain" in said and "+1.0 to +3.0" in said and "so it is better" in said
    assert "1.5 points would have been found" in said
    worse = sentence({**ROW, "difference": -0.02, "low": -0.03, "high": -0.01})
    assert "2.0 points worse" in worse and "so it is worse" in worse
    assert "cannot say" in sentence({**ROW, "low": -0.01})


def test_errors_are_turned_so_that_a_gain_is_above_zero():
    table = pd.DataFrame([ROW])
    turned = gains(table, "mae").iloc[0]
    assert (turned["difference"], turned["low"], turned["high"]) == (-0.02, -0.03, -0.01)
    assert gains(table, "accuracy") is table
    assert "0.020 units of the label worse" in sentence(turned, "mae")


def test_rows_without_a_difference_have_no_sentence():
    table = pd.DataFrame([{**ROW, "difference": float("nan")}, ROW])
    assert sentences(table).count("\n") == 0


def test_data_describe_themselves():
    made = about(load("synthetic", samples=8, steps=3))
    assert "**synthetic**: 14 samples, **made data**" in made and "`audio`: 74 channels" in made
    assert "8 train, 2 validation, 4 test" in made and "2 classes (class 0, class 1)" in made
    scores = about(load("synthetic", samples=8, steps=3, labels="regression"))
    assert "regression" in scores and "classes" not in scores
