"""Sentences written from numbers say what the numbers say, whichever side is better."""

from dataclasses import replace

import pandas as pd
import torch

from vgmr import load
from vgmr.notebook.prose import about, answer, beside_linear, gains, sentence, sentences

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


def test_groups_and_folds_are_said():
    made = load("synthetic", samples=8, steps=3)
    groups = {name: replace(part, group=torch.arange(len(part)) % 2) for name, part in made.parts.items()}
    assert "groups (people or videos): 2" in about(replace(made, **groups))
    first = replace(made, **groups | {"test": replace(made.test, group=torch.zeros(4, dtype=torch.int64))})
    assert "3 folds, each tested once" in about(first, folds=3)


def test_no_difference_at_all_is_said_as_such():
    same = {**ROW, "difference": 0.0, "low": 0.0, "high": 0.0, "smallest_effect": 0.0}
    assert "no difference could be seen" in sentence({**same, "mean": 1.0})
    assert "no difference was seen" in sentence({**same, "mean": 0.8})


def test_a_difference_that_would_be_written_as_zero_is_said_to_be_small():
    same = {**ROW, "difference": -0.0004, "low": -0.004}
    assert "VGMR** scores within 0.05 points of plain (95% interval -0.4 to +3.0)" in sentence(same)
    assert "within 0.0005 units of the label of plain" in sentence(same, "mae")


def test_the_answer_names_what_is_decided():
    control = {**ROW, "label": "value-free gate"}
    single = {**ROW, "label": "text alone"}
    open_ = {**ROW, "low": -0.01}
    said = answer(pd.DataFrame([open_, control, single]), ["VGMR"])
    assert "No gain over plain is decided**: VGMR +2.0 points (undecided)" in said
    assert "value-free gate +2.0 points (better)" in said and "alone" not in said
    assert "A gain over plain is decided" in answer(pd.DataFrame([ROW]), ["VGMR"])
    assert "a loss is decided" in answer(
        pd.DataFrame([{**ROW, "difference": -0.02, "low": -0.03, "high": -0.01}]), ["VGMR"]
    )


def test_a_weak_baseline_is_called_weak():
    table = pd.DataFrame({"label": ["majority class", "plain", "VGMR"], "mean": [0.99, 0.6, 0.7]})
    every, plain, none = (beside_linear(linear, table) for linear in (0.8, 0.65, 0.5))
    assert "every network here scores below a linear model" in every
    assert "plain scores below a linear model" in plain and "VGMR, 0.700" in plain
    assert "plain scores no lower than a linear model" in none
    assert all("no interval is computed" in said for said in (every, plain, none))
