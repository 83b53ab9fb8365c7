"""One broken clip stops nobody who accepts a partial copy, and is named; else it is refused with its path."""

import h5py
import numpy as np
import pytest
from made_audio_visual import AVE_CLASSES, StandIn, write_ave, write_cremad, write_ucf101

from vgmr.data.gated.ave import load_ave
from vgmr.data.gated.cremad import load_cremad
from vgmr.data.gated.ucf101 import load_ucf101


def total(data):
    return sum(map(len, data.parts.values()))


def harm(path, how):
    raw = path.read_bytes()
    path.write_bytes({"cut": raw[: len(raw) * 2 // 3], "empty": b"", "text": b"<html>quota</html>"}[how])


@pytest.mark.parametrize("how", ["cut", "empty", "text"])
@pytest.mark.parametrize("pattern", ["*.wav", "*.jpg"])
def test_cremad(tmp_path, how, pattern):
    write_cremad(tmp_path)
    options = {"root": tmp_path, "extractor": StandIn(), "allow_partial": True}
    path = sorted(tmp_path.rglob(pattern))[40]
    harm(path, how)
    name = path.stem if pattern == "*.wav" else path.parent.name
    data = load_cremad(**options, frames=9)
    data.check()
    assert total(data) == 119
    assert data.notes["partial copy"].startswith(f"1 of 120 clips are missing or incomplete: {name}: ")
    assert str(path) in data.notes["partial copy"]
    again = load_cremad(**options, frames=9)
    assert again.fingerprint == data.fingerprint and again.notes == data.notes


@pytest.mark.parametrize("how", ["cut", "empty", "text"])
@pytest.mark.parametrize("layout", ["jpegs", "avi", "flow"])
def test_ucf101(tmp_path, how, layout):
    write_ucf101(tmp_path, layout="avi" if layout == "avi" else "jpegs", clips=2)
    options = {"root": tmp_path, "extractor": StandIn(), "modalities": ["rgb"], "allow_partial": True}
    if layout == "flow":
        options["modalities"] = ["rgb", "flow"]
    whole = total(load_ucf101(**options, store=tmp_path / "whole"))
    folder = {"avi": tmp_path, "jpegs": tmp_path / "jpegs_256", "flow": tmp_path / "tvl1_flow" / "v"}[layout]
    path = sorted(folder.rglob("*.avi" if layout == "avi" else "*.jpg"))[7]
    harm(path, how)
    name = path.stem if layout == "avi" else path.parent.name
    data = load_ucf101(**options)
    data.check()
    assert total(data) == whole - 1
    assert data.notes["partial copy"].startswith(f"1 of {whole} clips are missing or incomplete: {name}: ")


@pytest.mark.parametrize("name", ["audio_feature.h5", "visual_feature.h5"])
def test_ave(tmp_path, name):
    write_ave(tmp_path)
    whole = load_ave(tmp_path, allow_partial=True)
    with h5py.File(tmp_path / name, "r+") as file:
        file["avadataset"][5, 2, ..., 0] = np.nan
    data = load_ave(tmp_path, allow_partial=True)
    assert total(data) == total(whole) - 1
    assert f"{name}: row 5 holds NaN or infinite values" in data.notes["partial copy"]
    assert data.classes == whole.classes == AVE_CLASSES


def test_without_permission_the_first_broken_clip_is_refused_with_its_path(tmp_path, monkeypatch):
    write_cremad(tmp_path)
    monkeypatch.setattr("vgmr.data.gated.cremad.SIZES", {"train": 96, "test": 24})
    path = sorted(tmp_path.rglob("*.wav"))[3]
    harm(path, "cut")
    with pytest.raises(ValueError, match="cut short") as refused:
        load_cremad(tmp_path, extractor=StandIn())
    assert str(refused.value).startswith(str(path)) and "\n" not in str(refused.value)


def test_hidden_files_are_no_clips(tmp_path):
    write_ucf101(tmp_path, layout="avi")
    options = {"root": tmp_path, "extractor": StandIn(), "modalities": ["rgb"], "allow_partial": True}
    before = load_ucf101(**options)
    for path in [*tmp_path.rglob("*.avi")]:
        path.with_name(f"._{path.name}").write_bytes(b"\x00\x05\x16\x07")
    after = load_ucf101(**options, store=tmp_path / "again")
    assert after.fingerprint == before.fingerprint
