"""The search for one default trains what it says and adopts by its own rule."""

import json
from pathlib import Path

import pandas as pd
import pytest

from vgmr import search
from vgmr import studies as protocol
from vgmr.experiment import Experiment

ROOT = Path(__file__).parent.parent
KEPT = json.loads((ROOT / search.KEPT).read_text())


def test_adopted_is_the_best_of_those_that_harm_nowhere():
    table = pd.DataFrame({"a": [0.3, 0.1, 0.0], "b": [-0.1, 0.0, 0.05]}, ["risky", "safe", "other"])
    assert search.adopted(table.assign(mean=table.mean(axis=1))) == "safe"
    harmful = pd.DataFrame({"a": [-0.3, -0.1], "b": [0.9, 0.0]}, ["far", "near"])
    assert search.adopted(harmful.assign(mean=harmful.mean(axis=1))) == "near"


def test_what_was_kept_follows_from_its_own_table():
    table = pd.DataFrame(KEPT["validation_accuracy_above_plain"]).T
    assert search.adopted(table) == KEPT["adopted"]
    studies = table.drop(columns="mean")
    assert table["mean"].tolist() == pytest.approx(studies.mean(axis=1).tolist(), abs=1e-4)
    assert KEPT["trials"] == protocol.TRIALS and KEPT["seeds"] == list(protocol.SEARCH_SEEDS)


def test_the_default_of_the_notebooks_is_the_adopted_form():
    assert protocol.VARIANTS["VGMR"] == {"prefusion": "vgmr", **protocol.TRIALS[KEPT["adopted"]]}


def test_studies_are_the_notebooks_own_settings(monkeypatch):
    monkeypatch.chdir(ROOT)
    studies = search.studies()
    assert list(studies) == list(KEPT["studies"])
    assert json.loads(json.dumps(studies)) == KEPT["studies"]
    for common in studies.values():
        Experiment(**common)


def test_search_default_is_the_difference_to_plain(monkeypatch, tmp_path):
    monkeypatch.setenv("VGMR_CACHE", str(tmp_path))
    monkeypatch.setattr(protocol, "SEARCH_SEEDS", (100,))
    monkeypatch.setattr(protocol, "TRIALS", {"a form": {}, "plain again": {"prefusion": "none"}})
    common = {"dataset": "digits", "epochs": 1, "batch_size": 256, "latent_dim": 2}
    table = protocol.search_default({"digits": common}, jobs=1, progress=False)
    assert list(table.columns) == ["digits", "mean"] and table.loc["plain again", "digits"] == 0
    assert table.loc["a form", "digits"] == table.loc["a form", "mean"] != 0


# The search for a form

FORMS_KEPT = ROOT / search.KEPT_FORMS


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
    data = search.experiment_data(Experiment("digits"))
    monkeypatch.setattr(
        type(data), "test", property(lambda self: pytest.fail("the test part was looked at")), False
    )
    table = search.search_forms({name: search.FORM_TRIALS[name] for name in ("plain", "calibrated")}, seeds=(0,))
    assert list(table["form"]) == ["plain", "calibrated"]
    assert table["value"].isna().tolist() == [True, False] and table.loc[1, "value"] > 0.8
