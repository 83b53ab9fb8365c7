"""Records hold what runs were, give it back, and are never silently used for something else."""

import json
from dataclasses import replace

import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from vgmr import runs as records
from vgmr.experiment import Experiment
from vgmr.refiner import FORMS

QUICK = Experiment("digits", prefusion="none", epochs=1, batch_size=256, form="paper")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VGMR_CACHE", str(tmp_path / "cache"))


def recorded(todo, folder, **options):
    """As one variant."""
    return records.recorded("some", {"plain": todo}, jobs=1, folder=folder, **options)["plain"]


def test_only_an_experiment_is_run():
    with pytest.raises(
        TypeError, match=r"^expected an Experiment, such as Experiment\('digits'\), got dict; a model"
    ):
        records.run({"dataset": "digits"})


def test_settings_are_what_differs_from_the_defaults():
    chosen = replace(QUICK, root="somewhere", device="cuda", modalities=("left",), data_options={"conflict": 0.1})
    assert records.settings(chosen) == {
        "dataset": "digits",
        "prefusion": "none",
        "epochs": 1,
        "batch_size": 256,
        "modalities": ["left"],
        "data_options": {"conflict": 0.1},
    }
    assert records.settings(Experiment("digits", form="paper")) == {"dataset": "digits"}
    adopted = {"dataset": "digits", "form": "calibrated", **FORMS["calibrated"]}
    assert records.settings(Experiment("digits")) == adopted, "a row says its form, whatever the default is"
    for one in (QUICK, Experiment("digits"), chosen):
        assert records.from_settings(records.settings(one)) == replace(one, root=None, device="auto")


def test_groups_are_alike_in_order_and_of_at_most_so_many(monkeypatch):
    monkeypatch.setattr(records, "AT_ONCE", 3)
    other = replace(QUICK, latent_dim=2)
    todo = [replace(one, seed=seed) for seed in range(4) for one in (QUICK, other)]
    found = records.groups(enumerate(todo))
    assert [[place for place, _ in members] for members in found] == [[0, 2, 4], [6], [1, 3, 5], [7]]
    assert all(one is todo[place] for members in found for place, one in members)
    assert records.groups([]) == []


def test_a_row_that_is_missing_comes_with_its_whole_pass_and_as_it_was(tmp_path, trained, monkeypatch, capsys):
    """Its dropout depends on the seeds beside it; those keep the rows that they have."""
    todo = [replace(QUICK, seed=seed) for seed in range(4)]
    whole = recorded(todo, tmp_path, again=True)
    path = tmp_path / "some.jsonl"
    part, *rows = path.read_text().splitlines()
    path.write_text("\n".join([part, rows[0], rows[1], rows[3]]) + "\n")
    monkeypatch.setenv("VGMR_CACHE", str(tmp_path / "another"))
    passes = []
    together = records.train_together
    monkeypatch.setattr(records, "train_together", lambda group: passes.append(len(group)) or together(group))
    found = recorded(todo, tmp_path)
    assert passes == [4] and trained == []
    assert [one.path == "" for one in found] == [True, True, False, True]
    assert found[2].prediction == whole[2].prediction and found[2].metrics == whole[2].metrics
    assert "3 trainings read, 1 trained here" in capsys.readouterr().out


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
    assert len(records.read(tmp_path / "some.jsonl")) == 1, "reading never writes"


def test_a_record_of_other_data_is_not_used(tmp_path, trained):
    recorded([QUICK], tmp_path, again=True)
    path = tmp_path / "some.jsonl"
    part, row = path.read_text().splitlines()
    content = json.loads(row)
    path.write_text(
        part + "\n" + json.dumps({**content, "fingerprint": "other", "metrics": {"accuracy": 0.999}}) + "\n"
    )
    (again,) = recorded([QUICK], tmp_path)
    assert again.metrics["accuracy"] < 0.99


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


def test_confirm_finds_a_result_that_was_changed(tmp_path):
    runs = recorded([QUICK], tmp_path, again=True)
    table = records.confirm(records.read(tmp_path / "some.jsonl"), jobs=1)
    assert table.recorded[0] == table.again[0]
    false = replace(runs[0], metrics={**runs[0].metrics, "accuracy": 0.999})
    assert abs(records.confirm([false], jobs=1).diff(axis=1)["again"][0]) > 0.1


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
    records.keep(tmp_path / "short.jsonl", [replace(run, history=history)])
    (read,) = records.read(tmp_path / "short.jsonl")
    assert (read.history.best_epoch, read.history.together) == (7, [0, 3])
    assert read.history.train_loss == [] and read.prediction == run.prediction


def test_a_table_is_read_only_under_the_parameters_that_made_it(tmp_path, capsys):
    made = []

    def make():
        made.append(1)
        return pd.DataFrame({"name": ["a", "b"], "accuracy": [0.123456, 1.0]})

    records.tabled("some", {"seeds": 2, "share": 0.3}, make, again=True, folder=tmp_path)
    table = records.tabled("some", {"share": 0.3, "seeds": 2}, make, folder=tmp_path)
    assert len(made) == 1 and table["accuracy"].tolist() == [0.1235, 1.0] and table["name"].tolist() == ["a", "b"]
    other = records.tabled("some", {"seeds": 3, "share": 0.3}, make, folder=tmp_path)
    assert len(made) == 2 and other["accuracy"][0] == 0.123456
    records.tabled("none", {}, make, folder=tmp_path)
    assert len(made) == 3 and not (tmp_path / "none.csv").exists()
    assert "2 rows written" in capsys.readouterr().out


VALUES = st.none() | st.integers() | st.text(max_size=3) | st.just([]) | st.just({}) | st.just({"a": [1]})
OTHER = st.binary(max_size=40) | st.recursive(VALUES, lambda inner: st.lists(inner)).map(json.dumps).map(
    str.encode
)


@given(data=st.data())
@example(data=None)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_bytes_a_run_has_on_disk_it_is_read_or_refused_in_one_line(tmp_path, data):
    folder = tmp_path / "cache"
    path = next(iter(folder.rglob("run.json")), None) or records.Path(records.run(QUICK).path) / "run.json"
    whole = path.with_suffix(".whole")
    if not whole.exists():
        whole.write_bytes(path.read_bytes())
    content = whole.read_bytes()
    if data is None:
        path.write_bytes(b"[" * 100_000)
    elif data.draw(st.booleans(), "other bytes"):
        path.write_bytes(data.draw(OTHER))
    elif data.draw(st.booleans(), "a field"):
        fields = json.loads(content)
        fields[data.draw(st.sampled_from(sorted(fields)))] = data.draw(VALUES)
        path.write_text(json.dumps(fields))
    else:
        place = data.draw(st.integers(0, len(content) - 1))
        path.write_bytes(content[:place] + data.draw(st.binary(max_size=2)) + content[place + 1 :])
    try:
        found = records.read_run(path.parent)
    except ValueError as error:
        assert str(path.parent) in str(error) and "\n" not in str(error)
    else:
        assert isinstance(found, records.Run)
