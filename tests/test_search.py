"""`vgmr search` keeps what it found with all that made it; the form adopted everywhere is one of those tried."""

import json

import pandas as pd
import pytest

from vgmr import studies
from vgmr.settings import Experiment
from vgmr.studies import forms

ROW = {"clean": 0.5, **dict.fromkeys(forms.UNSEEN_KINDS, 0.5), "value": 0.75, "gate": None}
TABLE = pd.DataFrame(
    [
        {"study": study, "form": form, "seed": seed, **ROW, "clean": score}
        for study in ("a", "b")
        for form, score in (("plain", 0.9), ("paper", 0.25), ("calibrated", 0.5))
        for seed in (100, 101)
    ]
)


def test_what_was_found_is_kept_with_all_that_made_it(tmp_path, monkeypatch, capsys):
    """In the repository, from whatever folder it is called."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setattr(forms, "in_repository", lambda path: tmp_path / path)
    asked = []
    monkeypatch.setattr(forms, "search_forms", lambda jobs: asked.append(jobs) or TABLE)
    assert forms.main(["--jobs", "3"]) == 0 and asked == [3]
    assert "'all': 'calibrated'}; written to" in capsys.readouterr().out
    assert not list((tmp_path / "elsewhere").iterdir())
    content = json.loads((tmp_path / "notebooks/parameters/searched/forms.json").read_text())
    assert content["chosen"] == forms.chosen_forms(TABLE) == dict.fromkeys(("a", "b", "all"), "calibrated")
    assert content["forms"] == forms.FORM_TRIALS and content["studies"] == forms.FORM_STUDIES
    assert pd.DataFrame(content["validation"])[list(TABLE)].equals(TABLE)


def test_what_cannot_be_is_refused_before_the_search(tmp_path, monkeypatch):
    monkeypatch.setattr(forms, "in_repository", lambda path: tmp_path / path)
    monkeypatch.setattr(forms, "search_forms", lambda jobs: pytest.fail("searched"))
    with pytest.raises(ValueError, match="--jobs must be 1 or more, got 0"):
        forms.main(["--jobs", "0"])
    (tmp_path / "notebooks").touch()
    with pytest.raises(OSError, match="notebooks is a file"):
        forms.main([])


def test_the_form_of_all_experiments_is_the_adopted_one_and_was_tried():
    assert Experiment("digits").form == studies.VARIANTS[studies.ADOPTED]["form"] == "calibrated"
    assert forms.FORM_TRIALS["calibrated"] == {"form": "calibrated"}
