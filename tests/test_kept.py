"""Records hold what runs were, give it back, and are never silently used for something else.

And what the repository keeps: searches with their best inside, trainings that were long enough, clean commits.
"""

import json
import shutil
import statistics
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from vgmr import runs, studies
from vgmr.experiment import Run
from vgmr.machine.files import in_repository
from vgmr.records import kept
from vgmr.settings import Experiment
from vgmr.studies.search import SEARCHED

QUICK = ("forms", "uci-mfeat-plugged", "utd-mhad-plugged")  # few rates by design: `vgmr.studies.forms`, `systems`
SEARCHES = sorted(path for path in in_repository(SEARCHED).glob("*.json") if path.stem not in QUICK)
RECORDS = sorted(kept.records_folder().glob("*.jsonl"))


def at_the_edge(search: dict) -> list[str]:
    """Variants whose best rate is the lowest or the highest that was tried."""
    return [
        name
        for name, scores in search["validation_accuracy"].items()
        if search["learning_rate"][name] in (min(map(float, scores)), max(map(float, scores)))
    ]


def too_short(rows: list[Run]) -> list[str]:
    """Studies (all that is alike but seed, split and fold) whose median best epoch lies in the last fifth."""
    shares = defaultdict(list)
    for row in rows:
        same = replace(row.experiment, seed=0, fold=None, data_options={})
        shares[same].append((row.history.best_epoch + 1) / row.experiment.epochs)
    return [f"{one}: {statistics.median(of):.2f}" for one, of in shares.items() if statistics.median(of) > 0.8]


@pytest.mark.parametrize("path", SEARCHES, ids=lambda path: path.stem)
def test_the_best_rate_of_a_kept_search_lies_inside(path):
    search = json.loads(path.read_text(encoding="utf-8"))
    assert at_the_edge(search) == [] and search["warnings"] == []


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_kept_trainings_were_long_enough_and_come_from_clean_commits(path):
    rows = kept.read(path)
    assert rows and too_short(rows) == []
    assert not [row.key for row in rows if row.environment["commit"].endswith("-dirty")]
    assert len({row.key for row in rows}) == len(rows)
    assert path.stat().st_size < 1_000_000


def test_what_is_planned_is_kept():
    assert {path.stem for path in RECORDS} == set(studies.planned())


def test_these_tests_would_notice():
    search = json.loads(SEARCHES[0].read_text(encoding="utf-8"))
    name = next(iter(search["learning_rate"]))
    search["learning_rate"][name] = max(map(float, search["validation_accuracy"][name]))
    assert at_the_edge(search) == [name]
    rows = kept.read(RECORDS[-1])[:1]
    last = replace(rows[0].history, best_epoch=rows[0].experiment.epochs - 1)
    assert len(too_short([replace(rows[0], history=last)])) == 1


# Records of any folder

QUICK = Experiment("digits", prefusion="none", epochs=1, batch_size=256, form="paper")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VGMR_CACHE", str(tmp_path / "cache"))


def recorded(todo, folder, **options):
    """As one variant."""
    return kept.recorded("some", {"plain": todo}, jobs=1, folder=folder, **options)["plain"]


def test_a_row_that_is_missing_comes_with_its_whole_pass_and_as_it_was(tmp_path, trained, monkeypatch, capsys):
    """Its dropout depends on the seeds beside it; those keep the rows that they have."""
    todo = [replace(QUICK, seed=seed) for seed in range(4)]
    whole = recorded(todo, tmp_path, again=True)
    path = tmp_path / "some.jsonl"
    part, *rows = path.read_text().splitlines()
    path.write_text("\n".join([part, rows[0], rows[1], rows[3]]) + "\n")
    monkeypatch.setenv("VGMR_CACHE", str(tmp_path / "another"))
    passes = []
    together = runs.train_together
    monkeypatch.setattr(runs, "train_together", lambda group: passes.append(len(group)) or together(group))
    found = recorded(todo, tmp_path)
    assert passes == [4] and trained == []
    assert [one.path == "" for one in found] == [True, True, False, True]
    assert found[2].prediction == whole[2].prediction and found[2].metrics == whole[2].metrics
    assert "3 trainings read, 1 trained here" in capsys.readouterr().out


def test_a_row_of_another_pass_is_made_again_where_it_is_asked_for(tmp_path, trained):
    todo = [replace(QUICK, seed=seed) for seed in range(2)]
    rows = recorded(todo, tmp_path, again=True)
    for together, again in (([0, 1], []), ([0, 1, 2], [0, 1])):
        other = [replace(one, history=replace(one.history, together=together)) for one in rows]
        kept.keep(tmp_path / "some.jsonl", other, curves=True)
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        del trained[:]
        assert recorded(todo, tmp_path)[0].history.together == together, "without again it serves"
        assert [one.history.together for one in recorded(todo, tmp_path, again=True)] == [
            [] if again else together
        ] * 2
        assert trained == again


def test_what_was_kept_is_read_and_not_trained(tmp_path, trained, capsys):
    todo = [replace(QUICK, seed=seed, modalities=("left", "right")) for seed in (1, 0)]
    written = recorded(todo, tmp_path, again=True)
    assert trained == [1, 0] and len((tmp_path / "some.jsonl").read_text().splitlines()) == 1 + 2
    read = recorded(todo, tmp_path)
    assert trained == [1, 0]
    assert capsys.readouterr().out.endswith("some.jsonl: 2 trainings read, 0 trained here\n")
    for one, other in zip(written, read, strict=True):
        assert other.experiment == one.experiment and other.path == "" and other.prediction == one.prediction
        for name in ("metrics", "subset_accuracy", "parameters", "fingerprint", "stand_in", "environment"):
            assert getattr(other, name) == getattr(one, name)
    with pytest.raises(ValueError, match="holds no weights"):
        read[0].model()


def test_what_is_not_recorded_is_trained_and_stands_in_its_place(tmp_path, trained, capsys):
    recorded([replace(QUICK, seed=3)], tmp_path, again=True)
    todo = [replace(QUICK, seed=seed) for seed in (4, 3, 5)]
    runs = recorded(todo, tmp_path)
    assert trained == [3, 4, 5] and [one.experiment.seed for one in runs] == [4, 3, 5]
    assert "1 trainings read, 2 trained here" in capsys.readouterr().out
    assert len(kept.read(tmp_path / "some.jsonl")) == 1, "reading never writes"


def test_a_record_of_other_data_is_not_used(tmp_path, trained):
    recorded([QUICK], tmp_path, again=True)
    path = tmp_path / "some.jsonl"
    part, row = path.read_text().splitlines()
    content = json.loads(row)
    path.write_text(part + "\n" + json.dumps({**content, "fingerprint": "other"}) + "\n")
    (again,) = recorded([QUICK], tmp_path)
    assert again.path and again.fingerprint != "other"


@pytest.mark.parametrize("damage", ["{half a li", "[]", "\\xff", '{"experiment": {"dataset": "nowhere"}}', "0"])
def test_a_damaged_record_line_is_named_left_out_and_made_again(tmp_path, trained, damage):
    recorded([QUICK, replace(QUICK, seed=1)], tmp_path, again=True)
    path = tmp_path / "some.jsonl"
    lines = path.read_bytes().splitlines()
    assert len(lines) == 3, "the test part, and two runs"
    path.write_bytes(b"\n".join([*lines[:2], damage.encode("latin-1").replace(b"\\xff", b"\xff"), b""]))
    with pytest.warns(UserWarning, match=r"some\.jsonl, line 3: not a recorded run"):
        first, second = recorded([QUICK, replace(QUICK, seed=1)], tmp_path)
    assert (first.path, second.experiment.seed) == ("", 1)


@pytest.mark.parametrize("name", ["accuracy", "macro_f1", "majority_accuracy", "majority_macro_f1"])
@pytest.mark.parametrize("value", [0.1234, float("nan")])
def test_a_number_that_its_predictions_do_not_give_is_damage(tmp_path, name, value):
    path = tmp_path / "some.jsonl"
    recorded([QUICK], tmp_path, again=True)
    part, row = path.read_text().splitlines()
    content = json.loads(row)
    content["metrics"][name] = value
    path.write_text(part + "\n" + json.dumps(content) + "\n")
    with pytest.warns(
        UserWarning, match=rf"some\.jsonl, line 2: .*{name} is {value}, and its predictions give 0\."
    ):
        assert kept.read(path) == []


def test_confirm_finds_a_result_that_was_changed(tmp_path):
    runs = recorded([QUICK], tmp_path, again=True)
    table = kept.confirm(kept.read(tmp_path / "some.jsonl"), jobs=1)
    assert table.recorded[0] == table.again[0]
    false = replace(runs[0], metrics={**runs[0].metrics, "accuracy": 0.999})
    assert abs(kept.confirm([false], jobs=1).diff(axis=1)["again"][0]) > 0.1


def test_confirm_compares_scores_as_far_as_a_record_holds_them(tmp_path, monkeypatch):
    (one,) = recorded([QUICK], tmp_path, again=True)
    scores = np.random.default_rng(0).normal(0, 2, 200).tolist()
    trained = replace(one, prediction=scores, label=[round(x, 1) for x in scores], group=[])
    kept.keep(tmp_path / "scores.jsonl", [trained])
    rows = kept.read(tmp_path / "scores.jsonl")
    assert rows[0].prediction != scores, "they are held in half precision"
    monkeypatch.setattr(kept, "run_all", lambda *_, **__: [trained])
    assert kept.confirm(rows)["changed"].tolist() == [0.0]
    moved = replace(trained, prediction=[scores[0] + 0.1, *scores[1:]])
    monkeypatch.setattr(kept, "run_all", lambda *_, **__: [moved])
    assert kept.confirm(rows)["changed"].tolist() == [0.005]


def test_groups_of_a_test_part_come_back(tmp_path):
    (one,) = recorded([QUICK], tmp_path, again=True)
    people = [row % 7 for row in range(len(one.label))]
    kept.keep(tmp_path / "people.jsonl", [one, replace(one, group=people)])
    assert [row.group for row in kept.read(tmp_path / "people.jsonl")] == [[], people]


def test_a_full_record_holds_curves_and_predictions(tmp_path, trained):
    chosen = replace(QUICK, epochs=2)
    (written,) = recorded([chosen], tmp_path, again=True, curves=True)
    (read,) = recorded([chosen], tmp_path, curves=True)
    assert trained == [0]
    assert read.prediction == written.prediction and read.label == written.label
    assert read.history.train_loss == pytest.approx(written.history.train_loss, abs=1e-4)
    assert read.history.best_epoch == written.history.best_epoch


def test_a_short_record_does_not_serve_where_curves_are_wanted(tmp_path, trained):
    recorded([QUICK], tmp_path, again=True)
    (run,) = recorded([QUICK], tmp_path, curves=True)
    assert len(run.history.train_loss) == 1 and run.prediction


def test_a_short_record_knows_the_best_epoch_and_the_seeds_of_the_pass(tmp_path, trained):
    (run,) = recorded([QUICK], tmp_path)
    history = replace(run.history, best_epoch=7, together=[0, 3])
    kept.keep(tmp_path / "short.jsonl", [replace(run, history=history)])
    (read,) = kept.read(tmp_path / "short.jsonl")
    assert (read.history.best_epoch, read.history.together) == (7, [0, 3])
    assert read.history.train_loss == [] and read.prediction == run.prediction
    (row,) = [line for line in (tmp_path / "short.jsonl").read_text().splitlines() if "experiment" in line]
    assert set(json.loads(row)["history"]) == {"best_epoch", "seconds", "together"}, "nothing empty is written"


def test_a_table_is_read_only_under_the_parameters_that_made_it(tmp_path, capsys):
    made = []

    def make():
        made.append(1)
        return pd.DataFrame({"name": ["a", "b"], "accuracy": [0.123456, 1.0]})

    kept.tabled("some", {"seeds": 2, "share": 0.3}, make, again=True, folder=tmp_path, rests_on=[runs.run_all])
    table = kept.tabled("some", {"share": 0.3, "seeds": 2}, make, folder=tmp_path)
    assert len(made) == 1 and table["accuracy"].tolist() == [0.1235, 1.0] and table["name"].tolist() == ["a", "b"]
    other = kept.tabled("some", {"seeds": 3, "share": 0.3}, make, folder=tmp_path)
    assert len(made) == 2 and other["accuracy"][0] == 0.123456
    kept.tabled("none", {}, make, folder=tmp_path)
    assert len(made) == 3 and not (tmp_path / "none.csv").exists()
    assert "2 rows written" in capsys.readouterr().out


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace("0.1235", "0.9235"),
        lambda text: text.replace('"digest"', '"digets"'),
        lambda text: text.replace("\n# {", "\n# [", 1),
    ],
    ids=["a number", "the digest", "the head"],
)
def test_a_table_that_is_not_what_was_written_is_made_again(tmp_path, damage):
    def make():
        return pd.DataFrame({"name": ["a", "b"], "accuracy": [0.1235, 1.0]})

    kept.tabled("some", {"seeds": 2}, make, again=True, folder=tmp_path, rests_on=[runs.run_all])
    path = tmp_path / "some.csv"
    path.write_text(damaged := damage(path.read_text()))
    with pytest.warns(UserWarning, match=r"some\.csv: no intact table"):
        table = kept.tabled("some", {"seeds": 2}, make, folder=tmp_path)
    assert table["accuracy"].tolist() == [0.1235, 1.0] and path.read_text() == damaged


@pytest.mark.parametrize("content", ["", "name,accuracy\na,1\n"])
def test_a_file_without_parameters_is_no_table(tmp_path, content):
    (tmp_path / "some.csv").write_text(content)
    made = kept.tabled("some", {"seeds": 2}, lambda: pd.DataFrame({"name": ["b"]}), folder=tmp_path)
    assert made["name"].tolist() == ["b"]


def test_words_that_look_like_nothing_are_words(tmp_path):
    words = ["None", "nan", "x # y"]
    given = pd.DataFrame({"word": words, "value": [1.0, float("nan"), 2.0]})
    kept.tabled("some", {}, lambda: given, again=True, folder=tmp_path, rests_on=[runs.run_all])
    table = kept.tabled("some", {}, lambda: pytest.fail("it is there"), folder=tmp_path)
    assert table["word"].tolist() == words and table["value"].isna().tolist() == [False, True, False]


def test_the_tables_that_are_kept_are_those_that_are_named():
    """And notebooks make them all: a number at the front says which."""
    folder = kept.records_folder()
    assert tuple(sorted(path.stem for path in folder.glob("*.csv"))) == studies.TABLES
    assert all(any(folder.parent.glob(f"{name[:2]}_*.ipynb")) for name in studies.TABLES)
