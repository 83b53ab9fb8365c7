"""The search for one default trains what it says and adopts by its own rule."""

import json
from pathlib import Path

import pandas as pd
import pytest

from vgmr import search
from vgmr import studies as protocol
from vgmr.experiment import Experiment
from vgmr.studies import search as trials

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
    assert KEPT["trials"] == trials.TRIALS and KEPT["seeds"] == list(trials.SEARCH_SEEDS)


def test_the_default_of_the_notebooks_is_the_adopted_form():
    assert protocol.VARIANTS["VGMR"] == {"prefusion": "vgmr", **trials.TRIALS[KEPT["adopted"]]}


def test_studies_are_the_notebooks_own_settings(monkeypatch):
    monkeypatch.chdir(ROOT)
    studies = search.studies()
    assert list(studies) == list(KEPT["studies"])
    assert json.loads(json.dumps(studies)) == KEPT["studies"]
    for common in studies.values():
        Experiment(**common)


def test_search_default_is_the_difference_to_plain(monkeypatch, tmp_path):
    monkeypatch.setenv("VGMR_CACHE", str(tmp_path))
    monkeypatch.setattr(trials, "SEARCH_SEEDS", (100,))
    monkeypatch.setattr(trials, "TRIALS", {"a form": {}, "plain again": {"prefusion": "none"}})
    common = {"dataset": "digits", "epochs": 1, "batch_size": 256, "latent_dim": 2}
    table = trials.search_default({"digits": common}, jobs=1, progress=False)
    assert list(table.columns) == ["digits", "mean"] and table.loc["plain again", "digits"] == 0
    assert table.loc["a form", "digits"] == table.loc["a form", "mean"] != 0
