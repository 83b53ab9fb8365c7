"""What notebook 20 computes: planted parts, values of other samples, and choices made on validation alone."""

from dataclasses import replace

import pandas as pd
import pytest
import torch

from vgmr.analysis.information import HELD, MADE, PARTS, of_features
from vgmr.data import load
from vgmr.studies import information as study


def test_evidence_of_one_modality_is_in_the_other_for_other_samples():
    both, one = (study.planted(kind, 2.0, seed=1) for kind in ("redundant", "one modality"))
    assert torch.equal(both.label, one.label) and torch.equal(both.features["audio"], one.features["audio"])
    assert not torch.equal(both.features["visual"], one.features["visual"])
    rows = [part.features["visual"].flatten(1) for part in (both, one)]
    assert torch.equal(*(x[x[:, 0].argsort()] for x in rows)), "the same sequences"


def test_shuffled_labels_are_the_same_labels():
    part = study.planted("unique", 1.0)
    found = study.shuffled(part)
    assert not torch.equal(part.label, found.label)
    assert torch.equal(part.label.bincount(), found.label.bincount())


def test_shuffled_labels_do_not_follow_the_modality_in_disorder():
    """With one order for both, the labels would stand beside the visual sequences again."""
    part = study.planted("one modality", 2.0, seed=1)
    found = of_features(study.shuffled(part, seed=1)).iloc[0]
    assert max(abs(found[name]) for name in PARTS) < 0.05


def test_what_the_model_makes_moves_within_its_modality_and_what_the_data_hold_stays():
    rows = [
        {"modality": name, "sample": k, **{c: base + k for c in MADE}, **{c: k for c in HELD}}
        for name, base in (("a", 0.0), ("b", 50.0))
        for k in range(20)
    ]
    frame = pd.DataFrame(rows)
    moved = study.permuted(frame, 0)
    assert moved[list(HELD)].equals(frame[list(HELD)])
    for name, part in moved.groupby("modality"):
        old = frame[frame["modality"] == name]
        assert sorted(part["value"]) == sorted(old["value"]) and list(part["value"]) != list(old["value"])
        assert ((part["value"] - part["worth"]) == 0).all(), "a sample's numbers stay together"


def test_the_number_of_windows_follows_from_validation_alone(monkeypatch):
    """With another test part the choice and the validation rows are the same, the test rows are not."""
    made = load("synthetic", like="mosei", steps=20, samples=120).select(["audio", "vision"])
    other = load("synthetic", like="mosei", steps=20, samples=120, seed=5).select(["audio", "vision"])
    found = []
    for data in (made, replace(made, test=other.test)):
        monkeypatch.setattr(study, "data_of", lambda name, seed, data=data: data)
        found.append(pd.DataFrame(study.spans_of("utd-mhad", 0)))
    chosen = [rows[rows["part"] == "validation"][["kind", "value"]] for rows in found]
    pd.testing.assert_frame_equal(*chosen)
    assert list(chosen[0]["kind"]) == [str(count) for count in study.WINDOWS]
    tested = [rows[rows["part"] == "test"]["value"].to_numpy() for rows in found]
    assert len(tested[0]) == 2 * 3 * len(study.SPANS) and (tested[0] != tested[1]).any()


def test_a_dial_at_zero_plants_nothing_and_its_rows_are_complete():
    rows = pd.DataFrame(study.dial("synergistic", 0.0, study.SLOW_SEEDS))
    assert set(rows["measure"]) == {"pointwise", "I_min"} and set(rows["labels"]) == {"true", "shuffled"}
    found = rows[(rows["measure"] == "pointwise")]["value"]
    assert len(rows) == 16 and found.abs().max() < 0.05


@pytest.mark.parametrize("name", list(study.TABLES))
def test_tables_say_what_they_depend_on(name):
    assert study.parameters(name)
