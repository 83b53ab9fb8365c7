"""The ledger's rule by hand, and that no numbered item of the paper is left out."""

import importlib
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from vgmr.analysis.calibration import detection
from vgmr.notebook import lesson, publish
from vgmr.notebook.run import records
from vgmr.paper import ledger
from vgmr.paper.claims import ADOPTED, CLAIMS, CODE, LISTS, PAPER_FORM, Claim
from vgmr.paper.ledger import ITEMS, NOT_TESTED, evidence
from vgmr.statistics.intervals import Interval


def around(difference: float, reach: float, samples: int = 100) -> dict[str, float]:
    """Evidence as a notebook hands it over: ten degrees of freedom."""
    error = reach / 2.2281388519649385
    low, high = difference - reach, difference + reach
    return lesson.evidence(Interval(difference, low, high, error, 10.0, 0.0, 0.0, 0.0, 0.5, 5, samples))


def claim(*keys: str, **more) -> Claim:
    return Claim(PAPER_FORM, "Table 1", "it gains", "07", "study", keys, **more)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A notebook 07 that recorded four differences, a yes and a no."""
    shown = []
    monkeypatch.setattr(lesson, "display", lambda content, raw: shown.append(content))
    values = {"a": around(0.05, 0.04), "b": around(0.0004, 0.0003), "c": around(-0.002, 0.004), "exact": True}
    values |= {"timed": around(0.05, 0.04, samples=0), "wrong": False}
    lesson.record("study", values)
    assert "b: +0.0004 [+0.0001, +0.0007]" in shown[0]["text/plain"]
    output = nbformat.v4.new_output("display_data", data=shown[0])
    cell = nbformat.v4.new_code_cell("pass", outputs=[output])
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "07_study.ipynb")
    return tmp_path


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (claim("a"), "held"),
        (claim("a", turned=True), "contradicted"),
        (claim("b"), "held"),
        (claim("c"), "undecided"),
        (claim("c", paper=0.02), "smaller than the paper's"),
        (claim("c", turned=True, paper=0.02), "smaller than the paper's"),
        (claim("c", paper=0.003), "undecided"),
        (claim("exact"), "held"),
        (claim("wrong"), "contradicted"),
        (claim("exact", "wrong"), "contradicted"),
        (claim("nothing"), NOT_TESTED),
        (Claim(PAPER_FORM, "Table 1", "lost", reason="no data"), NOT_TESTED),
    ],
)
def test_the_words_follow_from_the_recorded_floats(folder, one, expected):
    (row,) = ledger.ledger([one], folder).to_dict("records")
    assert row["verdict"] == expected
    assert row["paper"] == one.paper if one.paper else row["paper"] is None


def test_small_numbers_arrive_as_they_were(folder):
    table = ledger.ledger([claim("b")], folder)
    assert table.loc[0, ["difference", "low"]].tolist() == pytest.approx([0.0004, 0.0001])


def test_data_sets_are_pooled_and_each_is_listed(folder):
    (row,) = ledger.ledger([claim("a", "c")], folder).to_dict("records")
    assert row["counted"] == "seeds and samples" and row["unit"] == "accuracy"
    assert row["datasets"] == 2 and row["by_dataset"] == {"a": "held", "c": "undecided"}
    assert row["low"] < -0.002 < row["high"] and row["verdict"] == "undecided"


def test_a_pool_counts_samples_only_where_every_data_set_does(folder):
    asked = [claim("a"), claim("timed"), claim("a", "timed")]
    found = ledger.ledger(asked, folder)["counted"].tolist()
    assert found == ["seeds and samples", "seeds only", "seeds only"]


def test_rows_stand_by_list_and_item_in_the_papers_order(folder):
    items = ["Eq. (10)", "Section 5", "Eq. (2)", "Table 2", "Abstract", "Figure 1"]
    asked = [Claim(kind, item, "it gains", "07", "study", ("a",)) for kind in reversed(LISTS) for item in items]
    table = ledger.ledger([*asked, Claim(LISTS[0], "Table 2", "last")], folder)
    ordered = ["Abstract", "Table 2", "Figure 1", "Eq. (2)", "Eq. (10)", "Section 5"]
    ordered.insert(2, "Table 2")
    assert table["item"].tolist() == ordered + 2 * (ordered[:1] + ordered[2:])
    assert table["list"].tolist() == [LISTS[0]] * 7 + [LISTS[1]] * 6 + [LISTS[2]] * 6
    assert list(table.index) == list(range(19)) and table.loc[2, "claim"] == "last"


def test_parts_of_the_code_that_no_notebook_has_tried_are_said(folder):
    asked = [Claim(CODE, "Eq. (1)", "shapes", "07", "study", keys) for keys in (("exact",), ("wrong",), ("no",))]
    assert ledger.summary(ledger.ledger(asked, folder)).endswith(
        ": 1 of 2 parts agree with it; 1 are not tested yet."
    )


def test_holm_is_within_the_claims_of_an_item_and_list(folder):
    other = Claim(ADOPTED, "Table 1", "it gains", "07", "study", ("a",))
    table = ledger.ledger([claim("a"), claim("c"), other], folder)
    assert table["p"].tolist() == [0.5] * 3 and table["p_holm"].tolist() == [1.0, 1.0, 0.5]


def test_what_held_is_said_with_holm_size_data_set_and_what_its_interval_counts(folder):
    """a held at 0.05 with p 0.5; asked as two claims, the correction doubles p. Beside 0.2 it is a quarter."""
    rows = [claim("a", sets=("digits",)), claim("a", sets=("digits",), paper=0.2)]
    table = ledger.ledger(rows, folder)
    expected = (
        "Of the 2 that held, 0 keep a p-value below 0.05 after Holm's correction for the claims about the same "
    )
    expected += "item. Less than half as large as in the paper: 1. They rest on: digits (2). "
    assert ledger.survivors(table) == expected + "Intervals over seeds (or rounds of timing) only: none."
    alone = table.assign(p_holm=0.01, counted="seeds only")
    assert "2 keep a p-value" in ledger.survivors(alone) and "only: Table 1." in ledger.survivors(alone)
    assert ledger.survivors(table.assign(verdict="undecided")) == "None of these claims held."
    both = ledger.survivors(table.assign(sets=["digits, words", "digits"]))
    assert "rest on: digits with words (1); digits (1)." in both, "two sets of one claim are told from two claims"


def test_half_of_the_evidence_is_an_error(folder):
    with pytest.raises(ValueError, match=r"recorded 1 of its keys as 'study', but not \['gone'\]"):
        ledger.ledger([claim("a", "gone")], folder)
    with pytest.raises(FileNotFoundError, match=r"no notebook 08 in .*; execute this one in their folder"):
        ledger.ledger([Claim(PAPER_FORM, "Table 1", "it gains", "08", "study", ("a",))], folder)
    with pytest.raises(ValueError, match="expected true, false or difference"):
        evidence(claim("a"), {"study": {"a": "+0.1 [+0.0, +0.2]"}})


@pytest.mark.parametrize(
    ("given", "refused"),
    [
        ("seeds = 2", "seeds=2"),
        ("root = 'x'\nseeds = 5", "root='x'"),
        ("seeds = 5", ""),
        ("# Parameters\njobs = 4\nagain = True", ""),
    ],
)
def test_a_run_with_other_parameters_is_said_and_no_line_of_the_readme(folder, given, refused):
    """A claim speaks of the defaults; how many trainings go at once changes no result."""
    path = folder / "07_study.ipynb"
    book = nbformat.read(path, as_version=4)
    source = "seeds: int = 5  # of each\njobs: int = 2  # at once\nagain: bool = False  # train"
    own = nbformat.v4.new_code_cell(source, metadata={"tags": ["parameters"]})
    book.cells = [own, nbformat.v4.new_code_cell(given, metadata={"tags": ["injected-parameters"]}), *book.cells]
    nbformat.write(book, path)
    table = ledger.ledger([claim("a", sets=("digits",))], folder)
    assert table.loc[0, "verdict"] == "held"
    if refused:
        assert table.loc[0, ["given", "sets"]].tolist() == [refused, ""], "the data may be others"
        with pytest.raises(ValueError, match=f"ran at their defaults, got 07 with {refused}; run it without"):
            ledger.summary(table)
    else:
        assert table["given"].isna().all() and table.loc[0, "sets"] == "digits"
        assert "digits (1)" in ledger.summary(table)


def test_the_lists_are_counted_apart(folder):
    code = Claim(CODE, "Eq. (1)", "shapes", "07", "study", ("exact",))
    table = ledger.ledger([claim("a", sets=("uci-mfeat",)), claim("c"), code], folder)
    found = ledger.counts(table)
    assert list(found.index) == list(LISTS)
    assert found.loc[PAPER_FORM, ["held", "undecided"]].tolist() == [1, 1] and found.loc[CODE, "held"] == 1
    text = ledger.summary(table)
    assert "| Table 1 | motivation: plain, MMPareto, parameter-matched MLP | 1 |  |  | 1 |  | 07 |" in text
    line = "Of the 1 that held, 0 keep a p-value below 0.05 after Holm's correction"
    assert (
        line in text
        and "They rest on: uci-mfeat (1). Intervals over seeds (or rounds of timing) only: none." in text
    )
    assert "1 of 1 parts agree with it" in text and "says nothing of the paper's results" in text


# The committed ledger

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


def test_no_numbered_item_of_the_paper_is_left_out():
    numbered = [f"Table {n}" for n in range(1, 10)] + [f"Figure {n}" for n in range(1, 8)]
    numbered += [f"Eq. ({n})" for n in range(1, 15)]
    assert list(ITEMS) == numbered
    assert set(numbered) <= {one.item for one in CLAIMS}


def test_every_claim_has_a_place_in_the_package_and_says_what_to_record():
    for one in CLAIMS:
        assert one.list in LISTS and ((one.keys and one.record and one.notebook) or one.reason), one
        assert one.paper is None or one.paper > 0, one
        assert one.list == CODE or len(one.sets) == len(one.keys), one
        if one.where:
            module = one.where
            while True:
                try:
                    importlib.import_module(module)
                    break
                except ModuleNotFoundError:
                    module = module.rpartition(".")[0]


BELOW_ZERO = (
    "goes down",
    "falls faster",
    "is smoother",
    "closer to zero",
    "suppressed less",
    "trains faster",
    "less redundant",
    "a higher value tells",
)


def test_a_claim_is_turned_where_its_words_say_that_the_difference_lies_below_zero():
    for one in CLAIMS:
        assert one.turned == any(words in one.text for words in BELOW_ZERO), one
    assert all(any(words in one.text for one in CLAIMS) for words in BELOW_ZERO)


def test_the_papers_effects_are_the_differences_of_its_cells():
    """By hand, in units of 0.0001, in the order of the claims; the other items state none."""
    stated = {
        "Table 1": [24, 43],
        "Table 3": [56, 122, 159, 99, 116, 189, 66, 17],
        "Table 4": [1900, 1530, 1990, 640] * 2,
        "Table 5": [227, 244, 157, 158, 148, 226],
        "Table 6": [191, 219, 129, 88, 120, 105],
        "Table 8": [103, 75],
        "Table 9": [1269, 36],
    }
    found: dict[str, list[int]] = {}
    for one in CLAIMS:
        if one.list == PAPER_FORM and one.paper is not None:
            found.setdefault(one.item, []).append(round(1e4 * one.paper))
    assert found == stated


def test_both_forms_are_asked_the_same_and_the_code_nothing_of_results():
    asked = {name: [(one.item, one.text) for one in CLAIMS if one.list == name] for name in LISTS}
    assert all(len(set(rows)) == len(rows) for rows in asked.values())
    # the forms learn their values from other targets, which the text names last
    same = {name: {(item, text.partition("; target ")[0]) for item, text in rows} for name, rows in asked.items()}
    assert same[ADOPTED] < same[PAPER_FORM]
    assert {item for item, _ in asked[CODE]} == {f"Eq. ({n})" for n in range(1, 15)} | {
        "Section 3.7",
        "Section 3.8",
        "Figure 1",
    }


def test_a_notebook_that_records_evidence_records_all_that_the_claims_ask_of_it():
    """No claim is left untested once its notebook hands over floats."""
    table = ledger.ledger(CLAIMS, NOTEBOOKS)
    for number, rows in table[table["notebook"] != ""].groupby("notebook"):
        found = records(next(NOTEBOOKS.rglob(f"{number}_*.ipynb")))
        values = [value for record in found.values() for value in record.values()]
        if any(isinstance(value, dict) and "difference" in value for value in values):
            missing = rows[rows["verdict"] == NOT_TESTED]
            assert missing.empty, missing[["record", "keys"]].to_dict("records")


def test_the_readme_shows_the_summary_of_the_committed_notebooks():
    text = (NOTEBOOKS.parent / "README.md").read_text(encoding="utf-8")
    shown = text.partition("<!-- ledger -->\n")[2].partition("\n<!-- /ledger -->")[0]
    assert shown == ledger.summary(ledger.ledger(CLAIMS, NOTEBOOKS)), "mend with: vgmr notebooks readme"


def test_the_readme_shows_the_overview_of_the_committed_quickstart():
    assert (NOTEBOOKS / "records" / "overview.png").read_bytes() == publish.overview(
        NOTEBOOKS / "01_quickstart.ipynb"
    )


def test_what_the_text_does_not_hold_is_said():
    text = ledger.provenance()
    assert text.startswith("Not determined by our copy of the paper") and "Figure 1" in text and "Table 2" in text


def test_the_readme_says_what_the_committed_quickstart_found():
    sentence = publish.message(NOTEBOOKS / "01_quickstart.ipynb")
    assert sentence in (NOTEBOOKS.parent / "README.md").read_text(encoding="utf-8")


def test_numbers_and_yes_or_no_are_no_evidence_together(folder):
    with pytest.raises(ValueError, match="Table 1, 'it gains': expected numbers or yes and no, got both for"):
        ledger.ledger([claim("a", "exact")], folder)


@pytest.mark.parametrize("area", [1.0, 0.0], ids=["a low one tells", "a high one tells"])
def test_section_4_11_reads_the_area_of_a_low_value_as_detection_gives_it(area):
    """Planted: values that are low, or high, exactly where a modality is corrupted."""
    hit = [True, True, False, False]
    value = [0.1 if one == bool(area) else 0.9 for one in hit]
    found = detection(pd.DataFrame({"value": value, "gate": value, "corrupted": hit})).set_index("score")["auroc"]
    assert found.to_dict() == {"value": area, "gate": area}
    tested = [one for one in CLAIMS if one.item == "Section 4.11" and one.list == ADOPTED]
    recorded = {}
    for one in tested:
        for key in one.keys:
            assert key.endswith(("AUROC less 1/2 of a low global_value", "AUROC less 1/2 of a low gate"))
            recorded[key] = around(area - 0.5, 0.1)
    for one in tested:
        sign = evidence(one, {one.record: recorded})["difference"] > 0
        assert sign.eq(("lower" in one.text) == bool(area)).all(), one.text
    assert len(tested) == 3
