import json
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vgmr.data import store
from vgmr.data.store import prepared, read, store_folder, write
from vgmr.data.types import Batch, MultimodalData, pad

KEY = {"data": "made", "version": 1, "stride": 2}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VGMR_CACHE", str(tmp_path))
    return tmp_path


def made(size=6, seed=0, group=True, corrupted=True):
    generator = np.random.default_rng(seed)

    def batch(count):
        z, z_mask = pad([generator.normal(size=(1 + row % 3, 2)) for row in range(count)])
        a = torch.from_numpy(generator.normal(size=(count, 4, 3))).float()
        return Batch(
            {"z": z, "a": a},
            {"z": z_mask, "a": torch.ones(count, 4, dtype=torch.bool)},
            torch.arange(count) % 2,
            torch.arange(count) if group else None,
            {name: torch.from_numpy(generator.random((count, 1, 1)) > 0.5) for name in ("z", "a")}
            if corrupted
            else None,
        )

    return MultimodalData(
        "made",
        *(batch(count) for count in (size, 3, 4)),
        classes=("no", "yes"),
        source="here",
        licence="none",
        fingerprint="f" * 64,
        stand_in=True,
        notes={"count": 3, "x": [1]},
    )


def same(left, right):
    for part, one in left.parts.items():
        other = right.parts[part]
        assert list(one.features) == list(other.features)
        for name in one.features:
            assert torch.equal(one.features[name], other.features[name])
            assert torch.equal(one.mask[name], other.mask[name])
        assert torch.equal(one.label, other.label)
        assert (one.group is None) == (other.group is None) and (one.corrupted is None) == (
            other.corrupted is None
        )
        assert one.group is None or torch.equal(one.group, other.group)
        assert one.corrupted is None or all(
            torch.equal(one.corrupted[name], other.corrupted[name]) for name in one.corrupted
        )
    for name in ("name", "classes", "source", "licence", "fingerprint", "stand_in", "notes"):
        assert getattr(left, name) == getattr(right, name)


@pytest.mark.parametrize("group", [True, False])
@pytest.mark.parametrize("corrupted", [True, False])
def test_what_was_prepared_comes_back_the_same_and_is_made_once(group, corrupted):
    calls = []
    data = made(group=group, corrupted=corrupted)

    def make():
        calls.append(1)
        return data

    for _ in range(3):
        same(prepared(KEY, make), data)
    assert len(calls) == 1


def test_every_part_of_the_key_counts():
    folders = {store_folder(KEY), store_folder(KEY | {"stride": 3}), store_folder(KEY | {"version": 2})}
    assert len(folders) == 3
    assert store_folder(dict(reversed(KEY.items()))) == store_folder(KEY)


def test_data_that_cannot_be_kept_are_data_all_the_same(monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "write", full)
    data = made()
    with pytest.warns(UserWarning, match="prepared data are not kept, .* No space left on device"):
        assert prepared(KEY, lambda: data) is data


def test_a_cut_off_preparation_leaves_nothing(cache):
    def fail():
        raise RuntimeError("cut off")

    with pytest.raises(RuntimeError):
        prepared(KEY, fail)
    assert not list(cache.rglob("*.safetensors"))
    data = made()
    broken = data.parts["test"]
    object.__setattr__(broken, "label", None)
    with pytest.raises(Exception):  # noqa: B017
        prepared(KEY, lambda: data)
    assert not store_folder(KEY).exists() and not list((cache / "prepared").iterdir())
    same(prepared(KEY, made), made())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "manifest.json").unlink(), "no intact manifest"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "no intact manifest"),
        (lambda folder: (folder / "manifest.json").write_text("[]"), "no intact manifest"),
        (lambda folder: (folder / "test.safetensors").unlink(), "missing or cannot be read"),
        (lambda folder: (folder / "test.safetensors").write_bytes(b""), "changed or damaged"),
        (
            lambda folder: (folder / "test.safetensors").write_bytes((folder / "train.safetensors").read_bytes()),
            "changed or damaged",
        ),
    ],
)
def test_a_damaged_store_is_refused_and_made_again(damage, message):
    prepared(KEY, made)
    damage(store_folder(KEY))
    with pytest.raises(ValueError, match=message):
        read(store_folder(KEY), KEY)
    with pytest.warns(UserWarning, match=message):
        same(prepared(KEY, made), made())
    same(prepared(KEY, lambda: pytest.fail("made again")), made())


def test_a_changed_manifest_is_refused():
    prepared(KEY, made)
    file = store_folder(KEY) / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["fingerprint"] = "0" * 64
    file.write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="was changed since"):
        read(store_folder(KEY), KEY)


def test_a_store_of_another_key_is_refused():
    prepared(KEY, made)
    other = KEY | {"stride": 5}
    shutil.copytree(store_folder(KEY), store_folder(other))
    with pytest.warns(UserWarning, match="another key"):
        same(prepared(other, lambda: made(seed=1)), made(seed=1))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_changed_byte_passes(data):
    prepared(KEY, made)
    folder = store_folder(KEY)
    file = folder / data.draw(st.sampled_from(["manifest.json", "train.safetensors", "validation.safetensors"]))
    content = bytearray(file.read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= data.draw(st.integers(1, 255))
    file.write_bytes(bytes(content))
    try:
        same(read(folder, KEY), made())
    except ValueError as error:
        assert "\n" not in str(error)
        shutil.rmtree(folder)


def test_preparing_at_once_does_no_harm(cache):
    def make():
        time.sleep(0.05)
        return made()

    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(lambda _: prepared(KEY, make), range(6)))
    for data in results:
        same(data, made())
    assert [path.name for path in (cache / "prepared").iterdir()] == [store_folder(KEY).name]


def test_a_damaged_store_makes_way_for_a_sound_one(cache):
    folder = store_folder(KEY)
    folder.mkdir(parents=True)
    (folder / "rubbish").write_text("x")
    write(folder, KEY, made())
    same(read(folder, KEY), made())
    assert os.listdir(cache / "prepared") == [folder.name]
