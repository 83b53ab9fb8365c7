"""`vgmr records` trains what is missing, once, writes rows as they come, and says what is no longer true."""

import inspect
import json
import subprocess
from dataclasses import replace
from functools import partial

import nbformat
import pandas as pd
import pytest

from vgmr import runs
from vgmr.machine.files import in_repository
from vgmr.records import code, kept, keys
from vgmr.settings import Experiment
from vgmr.studies import records

ALL_TABLES = records.studies.TABLES
QUICK = Experiment("digits", prefusion="none", epochs=1, batch_size=256)
PLAN = {"plain": [QUICK, replace(QUICK, seed=1)], "other": [replace(QUICK, latent_dim=2)]}


@pytest.fixture(autouse=True)
def repository(tmp_path, monkeypatch):
    """A clean commit, a folder for records, and one plan."""
    monkeypatch.setenv("VGMR_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "records"
    for module in (records, kept):
        monkeypatch.setattr(module, "records_folder", lambda: folder)
    commit(monkeypatch, "abc1234")
    monkeypatch.setattr(records.studies, "planned", lambda: {"some": lambda: PLAN})
    monkeypatch.setattr(records.studies, "TABLES", ())
    return folder


def commit(monkeypatch, name):
    described = {**records.environment(), "commit": name}
    monkeypatch.setattr(records, "environment", lambda: described)
    monkeypatch.setattr("vgmr.experiment.environment", lambda: described)


def main(*arguments):
    return records.main([*arguments, "--jobs", "1"])


@pytest.mark.parametrize("jobs", ["0", "-2"])
def test_less_than_one_training_at_once_is_refused(jobs):
    with pytest.raises(ValueError, match=f"--jobs must be 1 or more, got {jobs}"):
        records.main(["--plan", "--jobs", jobs])


def test_it_trains_once_and_then_nothing(repository, trained, capsys):
    assert main("--plan") == 0 and trained == []
    assert "some: 0 of 3 there, 3 to train, unknown time" in capsys.readouterr().out
    assert main() == 0 and trained == [0, 1, 0]
    first = (repository / "some.jsonl").read_bytes()
    capsys.readouterr()
    assert main() == 0 and trained == [0, 1, 0]
    out = capsys.readouterr().out
    assert "some: 3 of 3 there" in out and out.endswith("nothing to train\n")
    assert (repository / "some.jsonl").read_bytes() == first and main("--check") == 0
    rows = [json.loads(line) for line in first.splitlines() if b"experiment" in line]
    assert all(len(row["key"]) == 24 and row["environment"]["commit"] == "abc1234" for row in rows)
    assert all("prediction" in row and "history" in row for row in rows)
    found = kept.recorded("some", PLAN, jobs=1)
    assert trained == [0, 1, 0] and [len(group) for group in found.values()] == [2, 1]


def test_it_goes_on_from_the_rows_that_are_there(repository, trained, monkeypatch):
    from vgmr import experiment as module

    fit, count = module.fit, [0]

    def dies(*given, **named):
        count[0] += 1
        if count[0] == 3:
            raise KeyboardInterrupt
        return fit(*given, **named)

    dies.__signature__ = inspect.signature(fit)
    monkeypatch.setattr(module, "fit", dies)
    with pytest.raises(KeyboardInterrupt):
        main()
    assert len(kept.read(repository / "some.jsonl")) == 2
    assert main() == 0 and trained == [0, 1, 0]
    assert len(kept.read(repository / "some.jsonl")) == 3


def test_other_code_makes_a_row_stale(repository, trained, monkeypatch, capsys):
    main()
    monkeypatch.setattr(keys, "code_of", lambda one: "other" if one.latent_dim == 2 else "code")
    assert main("--check") == 1
    err = capsys.readouterr().err
    assert "some: 3 rows are missing or stale; run vgmr records" in err
    assert main() == 0 and len(trained) == 6 and main("--check") == 0
    monkeypatch.setattr(keys, "code_of", lambda one: "third" if one.latent_dim == 2 else "code")
    assert main() == 0 and trained[6:] == [0], "only what changed"


def test_a_row_of_another_pass_is_stale(repository, trained, monkeypatch, capsys):
    """Found where rows of passes of twenty seeds stood under the keys of passes of five."""
    main()
    path = repository / "some.jsonl"
    found = kept.read(path)
    for together, missing in (([0, 1], []), ([0, 1, 2], [0, 1])):
        changed = [replace(one, history=replace(one.history, together=together)) for one in found[:2]]
        kept.keep(path, [*changed, found[2]], curves=True)
        del trained[:]
        assert main("--check") == bool(missing)
        assert main() == 0 and trained == missing
    assert main("--check") == 0


def test_a_dirty_tree_is_refused_but_for_drafts(repository, trained, monkeypatch, capsys):
    commit(monkeypatch, "abc1234-dirty")
    with pytest.raises(ValueError, match="changes that are not committed"):
        main()
    assert trained == []
    assert main("--draft") == 0 and len(trained) == 3
    assert all(row.environment["draft"] == "yes" for row in kept.read(repository / "some.jsonl"))
    assert main("--check") == 1
    assert "some: 3 rows are drafts, from a tree with changes" in capsys.readouterr().err


def test_a_row_with_a_changed_number_is_named_and_trained_again(repository, trained, capsys):
    main()
    path = repository / "some.jsonl"
    first = path.read_text()
    path.write_text(first.replace('"accuracy":0.', '"accuracy":0.0', 1))
    assert main("--check") == 1
    err = capsys.readouterr().err
    assert "some.jsonl, line 2: not a recorded run (ValueError: accuracy is 0.0" in err
    assert "some: 2 rows are missing or stale; run vgmr records" in err
    assert main() == 0 and trained[3:] == [0, 1] and main("--check") == 0


def test_confirm_finds_a_row_that_is_not_what_comes_out(repository, trained, capsys):
    main()
    assert main("--confirm") == 0 and len(trained) == 5  # three, then the pass of two again
    path = repository / "some.jsonl"
    found = kept.read(path)
    wrong = [(x + 1) % 10 for x in found[0].prediction[:2]] + found[0].prediction[2:]
    changed = replace(found[0], prediction=wrong)
    changed = replace(changed, metrics=changed.metrics | kept._counted(changed))
    kept.keep(path, [changed, *found[1:]], curves=True)
    assert main("--confirm") == 1
    assert "some: 0.56% of the predictions changed, at most 0.5% may" in capsys.readouterr().err


def test_rows_of_data_that_are_not_here_are_left_alone(repository, trained, monkeypatch, capsys):
    main()
    before = (repository / "some.jsonl").read_bytes()
    monkeypatch.setattr(records, "fingerprint", lambda one: None)
    assert main() == 0 and main("--check") == 0 and len(trained) == 3
    assert "left alone, data not here: digits" in capsys.readouterr().out
    assert (repository / "some.jsonl").read_bytes() == before


def test_an_unknown_record_is_refused():
    with pytest.raises(ValueError, match="unknown record thing; there are: some"):
        main("thing")


def test_numbers_are_packed_and_come_back():
    for values in ([0, 1, 9], [0, 300], [-1, 5], [], [0.5, -2.25]):
        assert kept.unpack(kept.pack(values)) == values
    assert len(kept.pack([0, 1] * 5000)) < 100


def test_a_plan_searches_nothing_and_a_training_keeps_its_search(
    repository, trained, monkeypatch, capsys, tmp_path
):
    """Found where `--plan` and `--check` spent ten minutes on a search whose result nobody kept."""
    from vgmr.studies import search

    searched = tmp_path / "searched"
    common = {"dataset": "digits", "prefusion": "none", "epochs": 1, "batch_size": 256}
    made = []

    def found(variants, common, jobs, rates):
        made.append(list(variants))
        return search.Search(search.pd.DataFrame({1e-3: [0.5], 3e-3: [0.6]}, ["plain"]), 2, {"plain": 3e-3}, [])

    def experiments():
        chosen = search.choose("some-search", {"plain": {}}, common, folder=searched)
        return {"plain": [Experiment(**{**common, **chosen["plain"]})]}

    monkeypatch.setattr(search, "search", found)
    monkeypatch.setattr(records.studies, "planned", lambda: {"some": experiments})
    assert main("--plan") == 0 and made == trained == [] and not searched.exists()
    assert (
        "some: no search some-search is kept; learning rates are to be searched first" in capsys.readouterr().out
    )
    assert main("--check") == 1 and made == trained == []
    assert "some: no search some-search is kept; run vgmr records" in capsys.readouterr().err
    assert main() == 0 and made == [["plain"]] and trained == [0]
    assert main() == 0 and made == [["plain"]] and trained == [0] and main("--check") == 0
    row = kept.read(repository / "some.jsonl")[0].experiment
    assert (row.learning_rate, row.epochs) == (3e-3, 2)


def test_rows_whose_data_are_not_here_are_left_alone(repository, trained, monkeypatch, capsys):
    main()
    first = (repository / "some.jsonl").read_bytes()

    def without_data():
        raise FileNotFoundError("the data of this record are not on this machine")

    monkeypatch.setattr(records.studies, "planned", lambda: {"some": without_data})
    capsys.readouterr()
    assert main("--check") == main() == 0 and (repository / "some.jsonl").read_bytes() == first
    assert "left alone, data not here: digits" in capsys.readouterr().out and trained == [0, 1, 0]


@pytest.fixture
def table(repository, monkeypatch):
    """A table of notebook 42, which counts how often it is executed."""
    executed = []
    monkeypatch.setattr(records.studies, "TABLES", ("42-shares",))
    monkeypatch.setattr(records.studies, "planned", lambda: {})
    monkeypatch.setattr(kept, "environment", lambda: records.environment())

    def execute(command):
        executed.append(command[3:])
        kept.tabled("42-shares", {"share": 0.5}, partial(shares, 2), again=True, rests_on=[runs.run_all])
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(records.subprocess, "run", execute)
    return executed


def shares(count):
    return pd.DataFrame({"place": range(count), "share": 0.5})


def test_a_table_that_is_missing_is_made_by_its_notebook(repository, table, capsys):
    path = repository / "42-shares.csv"
    assert main("--check") == 1 and "42-shares: missing; run vgmr records 42-shares" in capsys.readouterr().err
    assert main("--plan") == 0 and table == []
    assert main() == 0 and table == [["run", "42", "-p", "again=True"]]
    first = path.read_bytes()
    assert json.loads(first.splitlines()[1][2:])["commit"] == "abc1234"
    capsys.readouterr()
    assert main() == 0 and len(table) == 1
    assert capsys.readouterr().out.endswith("nothing to train\ntables: 1 of 1 as they should be\n")
    path.unlink()
    assert main("42-shares") == 0 and len(table) == 2 and path.read_bytes() == first
    path.write_bytes(first.replace(b"0.5}", b"0.7}"))
    capsys.readouterr()
    assert main() == 0 and len(table) == 2, "hours of work wait until they are asked for"
    assert "42-shares: made by other code; made anew by vgmr records 42-shares" in capsys.readouterr().out
    assert main("42-shares") == 0 and len(table) == 3 and path.read_bytes() == first


def test_a_table_knows_code_parameters_and_commit(repository, table, monkeypatch, capsys):
    main()
    path = repository / "42-shares.csv"
    sound = path.read_text()
    for old, new, fault in (
        ('"share": 0.5', '"share": 0.6', "made by other code"),
        ('"commit": "abc1234"', '"commit": "abc1234-dirty"', "a draft, from a tree with changes"),
        ('"key"', '"kye"', "without key and commit"),
        ("vgmr.runs.run_all", "vgmr.runs.run_some", "made by other code"),
        ("0,0.5", "0,0.6", "changed by hand"),
        ("# {", "", "without key and commit"),
    ):
        assert old in sound
        path.write_text(sound.replace(old, new, 1) if old != "# {" else sound.replace("# {", "", 2))
        assert kept.table_fault(path) == fault
    path.write_text(sound)
    assert kept.table_fault(path) == ""
    for module, old, new in (
        ("vgmr.runs", "AT_ONCE = 5", "AT_ONCE = 6"),
        ("vgmr.balancing.ogm_ge", "class OGMGE(Balancing):", "class OGMGE(Balancing):\n    one = 1"),
        ("vgmr.corruption", "(1 - weight) * x + weight * drawn", "x + weight * drawn"),
        ("vgmr.prefusion", "nn.GELU(), nn.Dropout(dropout)", "nn.ReLU(), nn.Dropout(dropout)"),
    ):
        assert old in code.SOURCES[module]
        with monkeypatch.context() as patch:
            patch.setitem(code.SOURCES, module, code.SOURCES[module].replace(old, new, 1))
            assert kept.table_fault(path) == "made by other code", module
    assert kept.table_fault(path) == ""


def test_a_table_says_what_it_rests_on(tmp_path):
    with pytest.raises(ValueError, match=r"test_records\.shares is no function of this package"):
        kept.tabled("42-shares", {}, partial(shares, 2), again=True, folder=tmp_path)
    assert len(kept.tabled("42-shares", {}, partial(shares, 2), folder=tmp_path)) == 2, "nothing is written"


def test_a_table_that_its_notebook_left_out_is_said(table, monkeypatch, capsys):
    monkeypatch.setattr(records.subprocess, "run", lambda command: subprocess.CompletedProcess(command, 0))
    assert main() == 1 and "42-shares: missing" in capsys.readouterr().err


def test_a_notebook_that_fails_is_said(table, monkeypatch):
    monkeypatch.setattr(records.subprocess, "run", lambda command: subprocess.CompletedProcess(command, 1))
    with pytest.raises(RuntimeError, match="notebook 42 failed"):
        main()


def test_the_notebooks_of_tables_take_what_the_command_gives_them():
    for number in sorted({name[:2] for name in ALL_TABLES}):
        (path,) = in_repository("notebooks").glob(f"{number}_*.ipynb")
        given = next(
            cell for cell in nbformat.read(path, 4).cells if "parameters" in cell.metadata.get("tags", ())
        )
        assert "again: bool = False" in given.source, path.name
