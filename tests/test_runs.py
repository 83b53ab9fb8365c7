"""What is run, in which passes, and what of it is read again from disk."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from vgmr import runs
from vgmr.settings import Experiment

QUICK = Experiment("digits", prefusion="none", epochs=1, batch_size=256, form="paper")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VGMR_CACHE", str(tmp_path / "cache"))


def test_only_an_experiment_is_run():
    with pytest.raises(
        TypeError, match=r"^expected an Experiment, such as Experiment\('digits'\), got dict; a model"
    ):
        runs.run({"dataset": "digits"})


def test_groups_are_alike_in_order_and_of_at_most_so_many(monkeypatch):
    monkeypatch.setattr(runs, "AT_ONCE", 3)
    other = replace(QUICK, latent_dim=2)
    todo = [replace(one, seed=seed) for seed in range(4) for one in (QUICK, other)]
    found = runs.groups(enumerate(todo))
    assert [[place for place, _ in members] for members in found] == [[0, 2, 4], [6], [1, 3, 5], [7]]
    assert all(one is todo[place] for members in found for place, one in members)
    assert runs.groups([]) == []


VALUES = st.none() | st.integers() | st.text(max_size=3) | st.just([]) | st.just({}) | st.just({"a": [1]})
OTHER = st.binary(max_size=40) | st.recursive(VALUES, lambda inner: st.lists(inner)).map(json.dumps).map(
    str.encode
)


@given(data=st.data())
@example(data=None)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_bytes_a_run_has_on_disk_it_is_read_or_refused_in_one_line(tmp_path, data):
    folder = tmp_path / "cache"
    path = next(iter(folder.rglob("run.json")), None) or Path(runs.run(QUICK).path) / "run.json"
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
        found = runs.read_run(path.parent)
    except ValueError as error:
        assert str(path.parent) in str(error) and "\n" not in str(error)
    else:
        assert isinstance(found, runs.Run)


@pytest.mark.parametrize("damage", ["a folder", "a link to nothing", "gone"])
def test_weights_that_cannot_be_read_are_made_again(tmp_path, monkeypatch, damage):
    monkeypatch.setenv("VGMR_CACHE", str(tmp_path))
    first = runs.run(QUICK)
    weights = Path(first.path) / "model.safetensors"
    weights.unlink()
    if damage == "a folder":
        weights.mkdir()
    elif damage == "a link to nothing":
        weights.symlink_to(tmp_path / "nothing")
    with pytest.warns(UserWarning, match="made again"):
        again = runs.run(QUICK)
    assert again.metrics == first.metrics and weights.is_file()
