"""Removals as tidy rows, by hand."""

from types import SimpleNamespace

import pytest

from vgmr.analysis.removal import removal_claims, removal_values
from vgmr.comparison import differences


def run(seed, accuracy, game=None):
    return SimpleNamespace(
        experiment=SimpleNamespace(seed=seed), metrics={"accuracy": accuracy}, subset_accuracy=game or {}
    )


def games(*found):
    """Runs of two seeds with modalities a and b: accuracy with both, with a alone, with b alone."""
    return [run(s, both, {"a+b": both, "a": a, "b": b, "": 0.5}) for s, (both, a, b) in enumerate(found)]


RUNS = {
    ("VGMR, calibrated", ""): games((0.9, 0.8, 0.6), (0.8, 0.75, 0.5)),
    ("VGMR, calibrated", "b"): [run(0, 0.85), run(1, 0.8)],
    ("ogm-ge", ""): games((0.7, 0.8, 0.5), (0.6, 0.75, 0.5)),
}


def test_values_are_by_method_way_and_modality():
    table = removal_values(RUNS).set_index(["method", "way", "modality", "seed"])
    assert table.loc["VGMR, calibrated", "all", "", 0].tolist() == [0.9, 0.0]
    assert table.loc["VGMR, calibrated", "zeroed", "a", 1].tolist() == pytest.approx([0.5, -0.3])
    assert table.loc["VGMR, calibrated", "retrained", "b", 0].tolist() == pytest.approx([0.85, -0.05])
    assert table.loc["ogm-ge", "zeroed", "b", 0].tolist() == pytest.approx([0.8, 0.1])
    assert len(table) == 2 * (3 + 1 + 3)


def test_the_claims_by_hand():
    claims = removal_claims(removal_values(RUNS), "a")
    keys = ["claim", "method", "way", "modality"]
    found = differences(claims, keys).set_index(keys)["difference"].to_dict()
    assert found == pytest.approx(
        {
            ("a", "VGMR, calibrated", "zeroed", "a"): 0.225,
            ("c", "VGMR, calibrated", "zeroed", "a"): 0.3,
            ("c", "VGMR, calibrated", "zeroed", "b"): 0.075,
            ("c", "VGMR, calibrated", "retrained", "b"): 0.025,
            ("a", "ogm-ge", "zeroed", "a"): 0.275,
            ("b", "ogm-ge", "zeroed", "b"): 0.125,
        }
    )
