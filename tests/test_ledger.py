"""The ledger's rule by hand, and that no numbered item of the paper is left out."""

import nbformat
import pytest

from vgmr import ledger, notebook
from vgmr.ledger import Claim, decide, verdict


@pytest.mark.parametrize(
    ("value", "rule", "expected"),
    [
        ("0.69, difference +0.049 [+0.016, +0.071]", "above", "held"),
        ("+0.049 [-0.016, +0.071]", "above", "undecided"),
        ("-0.049 [-0.071, -0.016]", "above", "did not hold"),
        ("-0.049 [-0.071, -0.016]", "below", "held"),
        ("+0.049 [+0.016, +0.071]", "below", "did not hold"),
        ("+0.000 [+0.000, +0.010]", "above", "undecided"),
        (True, "true", "held"),
        (False, "true", "did not hold"),
    ],
)
def test_decide(value, rule, expected):
    assert decide(value, rule) == expected


@pytest.mark.parametrize(
    ("value", "rule"), [("0.69", "above"), ("+0.1 [0.2]", "below"), ("yes", "true"), (1, "true")]
)
def test_a_value_that_the_rule_cannot_read_is_refused(value, rule):
    with pytest.raises(ValueError, match="expected"):
        decide(value, rule)


def test_an_area_is_held_against_one_half():
    assert decide("0.55 [0.52, 0.58]", "above", 0.5) == "held"
    assert decide("0.51 [0.48, 0.54]", "above", 0.5) == "undecided"
    assert decide("0.45 [0.42, 0.49]", "above", 0.5) == "did not hold"


UP, OPEN, DOWN = "+0.2 [+0.1, +0.3]", "+0.0 [-0.1, +0.1]", "-0.2 [-0.3, -0.1]"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([UP, UP], "held"),
        ([UP, OPEN], "undecided"),
        ([UP, DOWN], "undecided"),
        ([OPEN, OPEN], "undecided"),
        ([OPEN, DOWN], "did not hold"),
        ([DOWN], "did not hold"),
        ([], "not attempted"),
    ],
)
def test_verdict_needs_all_to_hold_and_one_to_fail(values, expected):
    assert verdict([value.replace("0.", "0.0") for value in values], "above") == expected


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A notebook 07 that recorded three values."""
    shown = []
    monkeypatch.setattr(notebook, "display", lambda content, raw: shown.append(content))
    notebook.record("study", {"a, gain": "+0.05 [+0.01, +0.09]", "b, gain": "+0.02 [-0.01, +0.04]", "seeds": 5})
    output = nbformat.v4.new_output("display_data", data=shown[0])
    cell = nbformat.v4.new_code_cell("pass", outputs=[output])
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "07_study.ipynb")
    return tmp_path


def test_a_ledger_is_read_off_the_notebooks(folder):
    claims = [
        Claim("Table 1", "it gains", "07", "gain$"),
        Claim("Table 2", "it gains on a", "07", "study: a"),
        Claim("Table 3", "lost", reason="no data"),
    ]
    table = ledger.ledger(claims, folder)
    assert table["verdict"].tolist() == ["undecided", "held", "not attempted"]
    assert table["held"].tolist() == ["1 of 2", "1 of 1", ""]
    assert table["evidence"][0] == "a, gain: +0.05 [+0.01, +0.09]; b, gain: +0.02 [-0.01, +0.04]"
    assert table["evidence"][2] == "no data"
    assert ledger.counts(table) == {"held": 1, "did not hold": 0, "undecided": 1, "not attempted": 1}


def test_a_claim_without_evidence_is_an_error(folder):
    with pytest.raises(ValueError, match="notebook 07 records nothing like 'loss'; it records: study: a, gain"):
        ledger.ledger([Claim("Table 1", "it gains", "07", "loss")], folder)
    with pytest.raises(FileNotFoundError, match="no notebook 08"):
        ledger.ledger([Claim("Table 1", "it gains", "08", "loss")], folder)
