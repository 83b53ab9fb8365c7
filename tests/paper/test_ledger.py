"""The ledger's rule by hand, and that no numbered item of the paper is left out."""

import pkgutil
from pathlib import Path

import nbformat
import pytest

from vgmr.notebook import lesson as notebook
from vgmr.notebook import publish
from vgmr.notebook.run import records
from vgmr.paper import ledger
from vgmr.paper.ledger import CLAIMS, ITEMS, Claim, decide, verdict


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


# The committed ledger

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


def test_no_numbered_item_of_the_paper_is_left_out():
    numbered = [f"Table {n}" for n in range(1, 10)] + [f"Figure {n}" for n in range(1, 8)]
    numbered += [f"Eq. ({n})" for n in range(1, 15)]
    assert list(ITEMS) == numbered
    assert set(numbered) <= {claim.item for claim in CLAIMS}


def test_every_claim_has_evidence_or_a_reason_and_a_place_in_the_package():
    ledger.ledger(CLAIMS, NOTEBOOKS)
    for claim in CLAIMS:
        assert claim.notebook or claim.reason, claim
        if claim.where:
            found = pkgutil.resolve_name(claim.where)
            assert found.__doc__, claim


def test_the_readme_shows_the_summary_of_the_committed_notebooks():
    text = (NOTEBOOKS.parent / "README.md").read_text()
    shown = text.partition("<!-- ledger -->\n")[2].partition("\n<!-- /ledger -->")[0]
    assert shown == ledger.summary(ledger.ledger(CLAIMS, NOTEBOOKS)), "mend with: vgmr notebooks readme"


def test_the_readme_shows_the_overview_of_the_committed_ledger():
    assert (NOTEBOOKS / "records" / "overview.png").read_bytes() == publish.overview(NOTEBOOKS / "16_claims.ipynb")


def test_differences_are_what_the_training_notebooks_recorded():
    table = ledger.differences(NOTEBOOKS).set_index(["data", "label"])
    recorded = records(next(NOTEBOOKS.glob("06_*.ipynb")))["training utd-mhad"]["transformer, VGMR"]
    row = table.loc[("utd-mhad, transformer", "VGMR")]
    assert f"{row.difference:+.3f} [{row.low:+.3f}, {row.high:+.3f}]" in recorded
    assert ("synthetic, made, pooled", "VGMR") in table.index and ("digits, pooled", "VGMR") in table.index
