"""The search for a form chooses on other studies than it reports, on validation, on kinds it did not train on."""

from dataclasses import replace

import pandas as pd
import torch

from vgmr.settings import Experiment
from vgmr.studies import forms as search


def test_the_form_of_a_study_is_chosen_without_it():
    scores = {"a": {"one": 0.9, "two": 0.5}, "b": {"one": 0.5, "two": 0.8}, "c": {"one": 0.5, "two": 0.6}}
    rows = [
        {"study": study, "form": form, "seed": seed, **dict.fromkeys(("clean", *search.UNSEEN_KINDS), score)}
        for study, forms in scores.items()
        for form, score in {**forms, "plain": 1.0}.items()
        for seed in (0, 1)
    ]
    # without a, two leads; without b or c, a makes one lead; on all of them both have 1.9
    assert search.chosen_forms(pd.DataFrame(rows)) == {"a": "two", "b": "one", "c": "one", "all": "one"}


def test_no_kind_that_is_measured_is_trained_on():
    assert not set(search.TRAINED_KINDS) & set(search.UNSEEN_KINDS)
    for settings in search.FORM_STUDIES.values():
        assert "training_corruption" not in settings
    for form, options in search.FORM_TRIALS.items():
        Experiment("digits", **{**search.FORM_COMMON, **options})
        assert "learning_rate" not in options, form


def test_the_search_for_a_form_scores_validation_alone(monkeypatch):
    monkeypatch.setattr(search, "FORM_STUDIES", {"digits": {"batch_size": 128}})
    monkeypatch.setattr(search, "FORM_COMMON", {**search.FORM_COMMON, "epochs": 1})
    trials = {name: search.FORM_TRIALS[name] for name in ("plain", "calibrated")}
    table = search.search_forms(trials, seeds=(0,))
    assert list(table["form"]) == ["plain", "calibrated"]
    assert table["value"].isna().tolist() == [True, False] and table.loc[1, "value"] > 0.8
    data = search.experiment_data(Experiment("digits"))
    empty = {name: torch.zeros_like(x) for name, x in data.test.features.items()}
    other = replace(data, test=replace(data.test, features=empty, label=torch.zeros_like(data.test.label)))
    monkeypatch.setattr(search, "experiment_data", lambda _: other)
    pd.testing.assert_frame_equal(search.search_forms(trials, seeds=(0,)), table)
