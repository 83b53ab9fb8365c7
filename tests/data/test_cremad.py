"""CREMA-D: lists, voices, frames and splits on made files, and the real lists."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_audio_visual import (
    POINTER,
    StandIn,
    colours,
    cremad_names,
    write_cremad,
    write_image,
    write_lists,
    write_voice,
)
from scipy.io import wavfile

import vgmr.data.gated.cremad as module
from vgmr.data.extract.audio import log_mel
from vgmr.data.gated.cremad import ACTORS, BAD_CLIPS, CLASSES, SIZES, load_cremad, read_list, read_voice

MADE = {part: len(names) for part, names in cremad_names().items()}


def load(root, **options):
    data = load_cremad(root, **({"extractor": StandIn(), "allow_partial": True} | options))
    data.check()
    return data


def strict(root, **options):
    """Loads with the published counts replaced by the made ones, so that only clips can be missing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SIZES", MADE)
        return load(root, allow_partial=False, **options)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("cremad")
    write_cremad(root)
    load(root)
    return root


@pytest.fixture(scope="module")
def truth(made):
    return load(made)


@pytest.fixture
def root(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "cremad"))


def test_parts_classes_and_shapes(truth):
    assert truth.classes == ("NEU", "HAP", "SAD", "FEA", "DIS", "ANG")
    names = cremad_names()
    assert truth.test.label.tolist() == [CLASSES.index(name[9:12]) for name in names["test"]]
    assert truth.test.group.tolist() == [int(name[:4]) for name in names["test"]]
    assert len(truth.train) + len(truth.validation) == len(names["train"])
    assert not set(truth.train.group.tolist()) & set(truth.validation.group.tolist())
    # half a second at 16 kHz: windows of 800 samples every 400
    assert truth.train.features["audio"].shape[1:] == (1 + (8000 - 800) // 400, 64)
    assert truth.train.features["visual"].shape[1:] == (3, 12)
    assert truth.notes["actors in training or validation and in test"] == 10


def test_classes_can_be_told_apart_in_both_modalities(truth):
    for name, x in truth.train.features.items():
        centre = torch.stack([x[truth.train.label == label].mean((0, 1)) for label in range(6)])
        guess = torch.cdist(truth.test.features[name].mean(1), centre).argmin(1)
        assert guess.equal(truth.test.label), name


def test_split_by_actors_shares_none(made, truth):
    data = load(made, split="actors")
    groups = {part: set(batch.group.tolist()) for part, batch in data.parts.items()}
    assert {part: len(actors) for part, actors in groups.items()} == {"train": 7, "validation": 1, "test": 2}
    assert len(set.union(*groups.values())) == 10
    assert sum(map(len, data.parts.values())) == sum(MADE.values())
    assert data.fingerprint == load(made, split="actors").fingerprint != truth.fingerprint


def test_frames_are_taken_in_order_of_their_number(root):
    folder = root / "Image-01-FPS" / cremad_names()["test"][0]
    shutil.rmtree(folder)
    for step in (90, 0, 120, 30, 60, 10000):
        write_image(folder / f"{step:05d}.jpg", np.full((30, 30, 3), step % 9999 + 20))
    (folder / "readme.txt").write_text("not a frame")
    shutil.rmtree(root / "features")
    data = load(root, extractor=colours, frames=6)
    grey = (data.test.features["visual"][0, :, 0] * 0.229 + 0.485) * 255
    torch.testing.assert_close(grey, torch.tensor([20.0, 50, 80, 110, 140, 21]), atol=1.5, rtol=0)
    assert data.test.lengths()["visual"].tolist() == [6] + [3] * (MADE["test"] - 1)
    assert data.notes["clips with fewer than 6 frames"] == sum(MADE.values()) - 1
    middle = load(root, extractor=colours, frames=3).test.features["visual"][0, :, 0]
    torch.testing.assert_close((middle * 0.229 + 0.485) * 255, torch.tensor([50.0, 110, 21]), atol=1.5, rtol=0)


def test_voice_is_log_mel_whatever_the_rate_channels_and_chunks(tmp_path):
    time = np.arange(16000) / 16000
    wave = 0.4 * np.sin(2 * np.pi * 700 * time) * np.hanning(16000)
    write_voice(tmp_path / "a.wav", wave)
    x, digest = read_voice(tmp_path / "a.wav")
    stored = (wave * 32767).round().astype(np.int16)
    np.testing.assert_array_equal(x, log_mel(stored, 16000, 64, 0.05, 0.025))
    assert len(digest) == 32
    wavfile.write(tmp_path / "stereo.wav", 16000, np.stack([stored, stored], 1))
    np.testing.assert_array_equal(read_voice(tmp_path / "stereo.wav")[0], x)
    fine = np.arange(48000) / 48000
    louder = 0.4 * np.sin(2 * np.pi * 700 * fine) * np.hanning(48000)
    write_voice(tmp_path / "rate.wav", louder, 48000)
    other = read_voice(tmp_path / "rate.wav")[0]
    assert other.shape == x.shape
    strong = x > -10
    np.testing.assert_allclose(other[strong], x[strong], atol=0.05)
    raw = (tmp_path / "a.wav").read_bytes() + b"note\x04\x00\x00\x00abcd"
    (tmp_path / "chunk.wav").write_bytes(raw[:4] + (len(raw) - 8).to_bytes(4, "little") + raw[8:])
    np.testing.assert_array_equal(read_voice(tmp_path / "chunk.wav")[0], x)


def test_long_clips_are_cut_at_five_seconds(root):
    name = cremad_names()["test"][1]
    write_voice(root / "AudioWAV" / f"{name}.wav", np.random.default_rng(0).uniform(-0.5, 0.5, 16000 * 70))
    shutil.rmtree(root / "features")
    data = load(root)
    assert data.max_lengths["audio"] == 199
    assert data.test.lengths()["audio"][:3].tolist() == [19, 199, 19]
    assert data.notes["clips of 5 s or more, cut there"] == 1


def test_bad_clips_are_kept_and_noted_or_dropped(tmp_path):
    parts = cremad_names(actors=(1064, 1076, 1001, 1002), sentences=("TIE", "MTI"))
    parts["train"].append("1064_IEO_DIS_MD")
    write_cremad(tmp_path, parts)
    total = sum(map(len, parts.values()))
    kept = load(tmp_path)
    assert sum(map(len, kept.parts.values())) == total
    for name in BAD_CLIPS:
        assert name in kept.notes["clips reported as broken"]
    assert kept.notes["clips reported as broken"].startswith("kept: ")
    dropped = load(tmp_path, bad_clips="drop")
    assert sum(map(len, dropped.parts.values())) == total - 4
    assert dropped.notes["clips reported as broken"].startswith("left out: ")
    assert dropped.fingerprint != kept.fingerprint
    shutil.rmtree(tmp_path / "features")
    wavfile.write(tmp_path / "AudioWAV" / "1064_TIE_SAD_XX.wav", 16000, np.zeros(0, np.int16))
    with pytest.raises(ValueError, match=r"1064_TIE_SAD_XX\.wav.*bad_clips='drop'"):
        load(tmp_path)
    assert load(tmp_path, bad_clips="drop").fingerprint == dropped.fingerprint


def test_partial_copy_is_named_refused_and_noted(root):
    assert "partial copy" not in strict(root).notes
    names = cremad_names()
    shutil.rmtree(root / "features")
    (root / "AudioWAV" / f"{names['train'][0]}.wav").unlink()
    shutil.rmtree(root / "Image-01-FPS" / names["test"][2])
    with pytest.raises(FileNotFoundError) as refused:
        strict(root)
    message = str(refused.value)
    assert "2 of 120 clips" in message
    assert f"{names['train'][0]}: no .wav file" in message
    assert f"{names['test'][2]}: no frames" in message
    assert "\n" not in message
    data = load(root)
    assert "2 of 120 clips" in data.notes["partial copy"]
    assert len(data.test) == MADE["test"] - 1
    with pytest.raises(ValueError, match=r"train 96, test 24; published are train 6,698, test 744"):
        load_cremad(root, extractor=StandIn())


@pytest.mark.parametrize("path", ["AudioWAV/{name}.wav", "Image-01-FPS/{name}/00002.jpg", "test.csv"])
def test_pointers_are_recognised(root, path):
    shutil.rmtree(root / "features")
    (root / path.format(name=cremad_names()["test"][0])).write_bytes(POINTER)
    with pytest.raises(ValueError, match="git lfs pull") as refused:
        load(root)
    assert "\n" not in str(refused.value)


def test_byte_order_mark_and_line_endings_change_nothing(tmp_path):
    write_lists(tmp_path, cremad_names())
    path = tmp_path / "train.csv"
    assert b"\r\n" in path.read_bytes()
    truth = read_list(path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\r\n", b"\n"))
    assert read_list(path) == truth
    assert truth[0].actor == 1001


def test_stored_features_replace_the_clips(root, truth):
    shutil.rmtree(root / "AudioWAV")
    shutil.rmtree(root / "Image-01-FPS")
    assert strict(root).fingerprint == truth.fingerprint
    with pytest.raises(FileNotFoundError, match="120 of 120 clips"):
        load(root, frames=2)


def test_fingerprint_follows_the_raw_files(root, truth):
    shutil.rmtree(root / "features")
    assert load(root).fingerprint == truth.fingerprint
    shutil.rmtree(root / "features")
    write_voice(root / "AudioWAV" / f"{cremad_names()['test'][0]}.wav", np.zeros(8000))
    assert load(root).fingerprint != truth.fingerprint


def test_a_clip_that_is_changed_later_is_extracted_again(root, truth):
    name = cremad_names()["test"][0]
    assert load(root).fingerprint == truth.fingerprint
    for path in (root / "AudioWAV" / f"{name}.wav", root / "Image-01-FPS" / name / "00002.jpg"):
        path.touch()
    before = (root / "features" / module.SOUNDS / f"{name}.npy").stat().st_mtime_ns
    assert load(root).fingerprint == truth.fingerprint
    assert (root / "features" / module.SOUNDS / f"{name}.npy").stat().st_mtime_ns == before
    write_voice(root / "AudioWAV" / f"{name}.wav", np.zeros(8000))
    heard = load(root)
    assert heard.fingerprint != truth.fingerprint
    assert heard.test.features["audio"][0].std() < truth.test.features["audio"][0].std() / 100
    assert heard.test.features["visual"].equal(truth.test.features["visual"])
    (root / "Image-01-FPS" / name / "00002.jpg").unlink()
    assert load(root).fingerprint != heard.fingerprint
    (root / "AudioWAV" / f"{name}.wav").write_bytes(POINTER)
    assert load(root).fingerprint != heard.fingerprint


def test_clips_in_both_lists_and_missing_lists(root, monkeypatch):
    shutil.copy(root / "test.csv", root / "train.csv")
    with pytest.raises(ValueError, match=r"24 clips are in train\.csv and in test\.csv"):
        load(root)
    (root / "test.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"test\.csv; expected from .*OGM-GE"):
        load(root)
    (root / "train.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"no train\.csv of cremad .*Image-01-FPS"):
        load(root)
    monkeypatch.delenv("VGMR_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="no root for cremad"):
        load_cremad()


@pytest.mark.parametrize(
    "options", [{"split": "random"}, {"frames": 0}, {"bad_clips": "mend"}, {"extractor": 1.5}]
)
def test_unknown_options_are_refused(made, options):
    with pytest.raises(ValueError, match=r"split must|frames must|bad_clips must|extractor must"):
        load(made, **options)


LINES = st.text(st.characters(codec="utf-8", exclude_characters="\n\r"), max_size=30) | st.sampled_from(
    [
        "1001_TIE_NEU_XX,HAP",
        "1001_TIE_NEU_XX",
        "1000_TIE_NEU_XX,NEU",
        "1001_TIE_NEU_XX;NEU",
        "name,emotion",
        "\x00",
    ]
)


@settings(max_examples=60, deadline=None)
@given(part=st.sampled_from(["train", "test"]), line=LINES, at=st.integers(0, 23))
def test_garbage_in_lists_is_refused_or_harmless(made, truth, part, line, at):
    path = made / f"{part}.csv"
    original = path.read_bytes()
    lines = original.decode().split("\r\n")[:-1]
    lines[at] = line
    path.write_bytes("\r\n".join([*lines, ""]).encode())
    try:
        data = strict(made)
    except (ValueError, FileNotFoundError) as error:
        assert "\n" not in str(error)
    else:
        assert data.fingerprint == truth.fingerprint
    finally:
        path.write_bytes(original)


def wav(samples):
    buffer = io.BytesIO()
    wavfile.write(buffer, 16000, samples)
    return buffer.getvalue()


@settings(max_examples=150, deadline=None)
@given(
    raw=st.integers(0, 1700).map(lambda end: wav(np.arange(900, dtype=np.int16))[:end])
    | st.binary(max_size=80)
    | st.binary(max_size=60).map(lambda tail: b"RIFF\xff\xff\x00\x00WAVEfmt " + tail)
    | st.tuples(st.integers(0, 43), st.integers(0, 255)).map(
        lambda change: (
            (whole := bytearray(wav(np.arange(900, dtype=np.int16)))).__setitem__(*change) or bytes(whole)
        )
    )
)
def test_broken_voices_are_refused(tmp_path_factory, raw):
    path = tmp_path_factory.getbasetemp() / "1001_TIE_NEU_XX.wav"
    path.write_bytes(raw)
    whole = wav(np.arange(900, dtype=np.int16))
    try:
        x, _ = read_voice(path)
    except ValueError as error:
        assert "\n" not in str(error)
        assert str(path) in str(error)
    else:
        assert len(raw) == len(whole)
        assert x.ndim == 2
        assert np.isfinite(x).all()


def test_real_lists(real_data):
    lists = {part: read_list(real_data / "cremad" / f"{part}.csv") for part in SIZES}
    assert {part: len(clips) for part, clips in lists.items()} == SIZES
    everything = read_list(real_data / "cremad" / "data.csv")
    assert {clip.name for clips in lists.values() for clip in clips} == {clip.name for clip in everything}
    assert len(everything) == 7442
    counts = np.bincount([clip.label for clip in lists["train"]]).tolist()
    assert dict(zip(CLASSES, counts, strict=True)) == {
        "ANG": 1166, "HAP": 1148, "DIS": 1142, "FEA": 1138, "SAD": 1131, "NEU": 973
    }  # fmt: skip
    actors = [{clip.actor for clip in clips} for clips in lists.values()]
    assert actors[0] == actors[1] == set(ACTORS)
    assert len(ACTORS) == 91
    assert set(BAD_CLIPS) < {clip.name for clip in everything}
    assert (real_data / "cremad" / "stat.csv").read_bytes().startswith(b"\xef\xbb\xbf")
    assert module.read_lines(real_data / "cremad" / "stat.csv") == ["NEU", "HAP", "SAD", "FEA", "DIS", "ANG"]


def test_real_lists_without_clips(real_data):
    with pytest.raises(FileNotFoundError, match=r"7,442 of 7,442 clips .*: no \.wav file and no frames"):
        load_cremad(real_data / "cremad", extractor=StandIn(), allow_partial=True)


def test_real_lists_with_planted_features(real_data, tmp_path):
    for folder in (tmp_path / module.SOUNDS, tmp_path / "planted" / "frames-1"):
        folder.mkdir(parents=True)
        for clip in read_list(real_data / "cremad" / "data.csv"):
            with open(folder / f"{clip.name}.npy", "wb") as file:
                np.save(file, np.array([[clip.label, clip.actor]], np.float32))
                file.write(bytes(32))
    root, options = real_data / "cremad", {"extractor": "planted", "frames": 1, "store": tmp_path}
    data = load(root, allow_partial=False, **options)
    assert not [key for key in data.notes if "partial" in key]
    assert len(data.train) + len(data.validation) == 6698
    assert len(data.test) == 744
    assert data.notes["actors in training or validation and in test"] == 91
    assert len(load(root, bad_clips="drop", **options).train) < len(data.train)
    alone = load(root, allow_partial=False, split="actors", **options)
    groups = {part: set(batch.group.tolist()) for part, batch in alone.parts.items()}
    assert {part: len(actors) for part, actors in groups.items()} == {"train": 64, "validation": 9, "test": 18}
    assert set.union(*groups.values()) == set(ACTORS)
    for part in (*data.parts.values(), *alone.parts.values()):
        assert part.features["audio"][:, 0, 0].long().equal(part.label)
        assert part.features["visual"][:, 0, 1].long().equal(part.group)


def test_the_store_counts_from_home(root, truth, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert load(root, store="~/kept").fingerprint == truth.fingerprint
    assert (
        len(list((tmp_path / "kept").rglob("*.npy"))) == 2 * sum(MADE.values()) and not (tmp_path / "~").exists()
    )
    for options, line in (
        ({"store": "s3://kept"}, "on this machine"),
        ({"frames": "3"}, "frames must be a whole number of at least 1, got '3'"),
    ):
        with pytest.raises(ValueError, match=line):
            load(root, **options)
