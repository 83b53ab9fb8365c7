"""Files of MOSI and MOSEI that are not quite as documented: read rightly, refused or warned of, not in silence."""

import warnings

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_sentiment import KEYS, MODALITIES, mmsa, mult, samples, write_csd, write_pickle
from test_sentiment import SMALL, STEPS, assert_holds, assert_same

from vgmr.data import load
from vgmr.data.gated.mosi import load_mosi


def read(root, **options):
    return load("mosi", str(root), standardise=False, allow_partial=True, **options)


def read_content(folder, data):
    return read(write_pickle(folder / "data.pkl", data))


def repad(data, parts, modality, side):
    """Move the planted values of a modality to the end, the front or the middle of the padded length."""
    for part, made in parts.items():
        x = data[KEYS[part]][modality]
        x[:] = 0
        for row, sample in enumerate(made):
            planted = sample.features[modality]
            room = x.shape[1] - len(planted)
            start = {"end": 0, "front": room, "both": room // 2}[side]
            x[row, start : start + len(planted)] = planted


def wanted(aligned):
    """Samples of many lengths."""
    return samples("mosi", (12, 8, 9), SMALL, STEPS, aligned, seed=3)


SIDES = st.fixed_dictionaries({modality: st.sampled_from(["end", "front", "both"]) for modality in MODALITIES})


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sides=SIDES, aligned=st.booleans())
def test_padding_of_mmsa_files_may_stand_anywhere(tmp_path, sides, aligned):
    parts = wanted(aligned)
    data = mmsa(parts, "mosi", aligned, STEPS)
    for modality, side in sides.items():
        repad(data, parts, modality, side)
    loaded = read_content(tmp_path, data)
    assert_holds(loaded, parts)
    moved = " ".join(str(key) for key in loaded.notes if "moved to the front" in str(key))
    assert ("at the front" in moved) == ("front" in sides.values())
    assert ("both ends" in moved) == ("both" in sides.values())


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sides=SIDES)
def test_padding_of_unaligned_mult_files_may_stand_anywhere(tmp_path, sides):
    parts = wanted(False)
    data = mult(parts, "mosi", False, STEPS)
    for modality, side in sides.items():
        repad(data, parts, modality, side)
    loaded = read_content(tmp_path, data)
    assert_holds(loaded, parts)
    said = loaded.notes.get("padding not at the front, as in MulT's files, but at", {})
    assert {name.split(",")[0] for name in said} == {name for name, side in sides.items() if side != "front"}


@pytest.mark.parametrize("side", ["end", "front", "both"])
def test_padding_of_aligned_mult_files_may_stand_anywhere_but_alike(tmp_path, side):
    parts = wanted(True)
    data = mult(parts, "mosi", True, STEPS)
    for modality in MODALITIES:
        repad(data, parts, modality, side)
    assert_holds(read_content(tmp_path, data), parts)
    if side != "both":
        repad(data, parts, "audio", {"end": "front", "front": "end"}[side])
        with pytest.raises(ValueError, match=r"train: padded text at the .*audio at the .*in an aligned file"):
            read_content(tmp_path, data)


def test_values_that_no_padding_explains_are_refused(tmp_path):
    parts = wanted(False)
    data = mmsa(parts, "mosi", False, STEPS)
    for row, sample in enumerate(parts["test"]):
        x = data["test"]["audio"][row]
        x[:] = 0
        x[:: max(1, len(sample.features["audio"]))] = 1.0
    with pytest.raises(ValueError, match=r"test, audio: \d of 9 samples hold zeros within .* neither at the end"):
        read_content(tmp_path, data)


def test_no_sample_is_blanked_in_silence(tmp_path):
    data = mmsa(wanted(False), "mosi", False, STEPS)
    x, lengths = data["train"]["audio"], data["train"]["audio_lengths"]
    row = int(np.argmin(lengths))
    x[row] = 0
    x[row, lengths[row] : lengths[row] + 1] = 1.0
    with pytest.raises(ValueError, match=rf"train, audio: 1 of 12 .*first: sample {row} from 0"):
        read_content(tmp_path, data)


def test_lengths_that_cut_values_off_are_warned_of(tmp_path):
    data = mmsa(wanted(False), "mosi", False, STEPS)
    data["valid"]["vision_lengths"] = [1] * 8
    with pytest.warns(UserWarning, match=r"mosi: vision, validation: \d\d% of the steps that hold values stand"):
        read_content(tmp_path, data)


def test_zero_steps_are_warned_of_where_there_are_many(tmp_path):
    parts = wanted(False)
    data = mult(parts, "mosi", False, STEPS)
    repad(data, parts, "text", "front")
    for row, sample in enumerate(parts["test"]):
        full = len(sample.features["vision"])
        data["test"]["vision"][row, -full:][1:-1] = 0
    with pytest.warns(UserWarning, match=r"vision, test: \d\d% of the steps within .* hold only zeros"):
        loaded = read_content(tmp_path, data)
    assert len(loaded.notes["warnings"]) == 1
    data = mult(parts, "mosi", False, STEPS)
    data["train"]["audio"][:2, -1] = 0
    with pytest.warns(UserWarning, match=r"audio, train: \d+% of the samples end in zero steps"):
        read_content(tmp_path, data)


@pytest.mark.parametrize("write", [mmsa, mult])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_large_share_of_cleared_values_is_warned_of_by_part_and_name(tmp_path, write, value):
    data = write(wanted(False), "mosi", False, STEPS)
    x = data["valid"]["audio"]
    x[..., :2] = np.where(x[..., :2] != 0, value, 0)
    line = r"mosi: audio, validation: 40% of the values read were NaN or infinite"
    with pytest.warns(UserWarning, match=line) as caught:
        loaded = read_content(tmp_path, data)
    assert len(caught) == len(loaded.notes["warnings"]) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_content(tmp_path, write(wanted(False), "mosi", False, STEPS))


def test_sentiment_is_the_first_of_seven_label_columns(tmp_path):
    parts = wanted(True)
    for write, key in ((mult, "labels"), (mmsa, "regression_labels")):
        data = write(parts, "mosi", True, STEPS)
        for part, made in zip(data.values(), parts.values(), strict=True):
            seven = np.full((len(made), 1, 7), 2.0)
            seven[:, 0, 0] = [sample.sentiment for sample in made]
            part[key] = seven if key == "labels" else seven[:, 0]
        loaded = read_content(tmp_path, data)
        assert_holds(loaded, parts)
        assert loaded.notes[f"{key} with seven columns"].endswith("sentiment is column 0")


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda x: np.zeros((len(x), 4, 2)), r"expected 12 finite numbers, .* got shape \(12, 4, 2\)"),
        (lambda x: x[:-1], r"got shape \(11, 1, 1\)"),
        (lambda x: np.zeros((len(x), 1, 6)), r"got shape \(12, 1, 6\)"),
        (lambda x: np.where(np.arange(len(x))[:, None, None] < 2, np.nan, x), r"2 of them are NaN"),
        (lambda x: np.array(["a"] * len(x)), r"got an array of <U1 that holds no plain numbers"),
        (lambda x: [{}] * len(x), r"got list that holds no plain numbers"),
        (lambda x: x.reshape(1, -1), r"got shape \(1, 12\)"),
    ],
)
def test_labels_of_another_form_are_named(tmp_path, change, line):
    data = mult(wanted(True), "mosi", True, STEPS)
    data["train"]["labels"] = change(data["train"]["labels"])
    with pytest.raises(ValueError, match=rf"train, labels: .*{line}"):
        read_content(tmp_path, data)


# Computational sequences


def aligned_by_segment(folder, roles=("Words", "Vectors", "COVAREP", "Facet_41", "Labels")):
    """Cut every sequence of a csd folder into VIDEO[n], one for each labelled segment, as the SDK's align does."""
    labels = next(folder.glob("*Labels.csd"))
    with h5py.File(labels) as file:
        data = next(iter(file.values()))["data"]
        bounds = {video: data[video]["intervals"][()] for video in data}
    for path in sorted(folder.glob("*.csd")):
        if not any(role in path.name for role in roles):
            continue
        with h5py.File(path, "r+") as file:
            data = next(iter(file.values()))["data"]
            for video in list(data):
                x, times = data[video]["features"][()], data[video]["intervals"][()]
                del data[video]
                for number, (start, end) in enumerate(bounds[video]):
                    inside = (start <= times.mean(1)) & (times.mean(1) < end)
                    data[f"{video}[{number}]/features"] = x[inside]
                    data[f"{video}[{number}]/intervals"] = times[inside]
    return folder


def test_segments_aligned_by_the_sdk_are_read_one_by_one(tmp_path):
    parts = samples("mosi", (14, 4, 5), SMALL, dict.fromkeys(MODALITIES, 12))
    for made in parts.values():  # more than ten segments in a video, so that [10] comes after [9]
        for number, sample in enumerate(made):
            sample.video, sample.clip = made[0].video, number
    whole = read(write_csd(tmp_path / "whole", parts=parts))
    loaded = read(aligned_by_segment(write_csd(tmp_path / "cut", parts=parts)))
    assert_same(whole, loaded)
    assert_holds(loaded, parts)
    assert loaded.notes["keys VIDEO[n], aligned by the SDK, read segment by segment"] == 23


def test_keys_of_two_kinds_are_refused(tmp_path):
    folder = aligned_by_segment(write_csd(tmp_path, parts=wanted(True)), roles=("COVAREP",))
    with pytest.raises(ValueError, match=r"keyed by aligned segments VIDEO\[n\], .*audio by segments"):
        read(folder)


def test_videos_that_are_in_no_fold_are_shown(tmp_path):
    folder = write_csd(tmp_path, parts=wanted(True))
    lists = folder / "cmu_mosi_std_folds.py"
    lists.write_text(lists.read_text().replace("-x'", "-y'"))
    with pytest.raises(ValueError, match=r"no labelled segment in the train fold; .*'tr_000-y'.*'te_000-x'"):
        read(folder)


def test_hidden_files_are_left_alone(tmp_path):
    folder = write_csd(tmp_path, parts=wanted(True))
    before = read(folder)
    for path in [*folder.iterdir()]:
        (folder / f"._{path.name}").write_bytes(b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        ")
    (folder / ".DS_Store").write_bytes(b"\x00")
    after = read(folder)
    assert_same(before, after)
    assert after.fingerprint == before.fingerprint


def scaled(folder, role, factor, videos=None):
    with h5py.File(next(folder.glob(f"*{role}.csd")), "r+") as file:
        data = next(iter(file.values()))["data"]
        for video in sorted(data)[:videos]:
            data[video]["intervals"][...] = data[video]["intervals"][()] * factor
    return folder


@pytest.mark.parametrize("role", ["Words", "Vectors", "COVAREP", "Facet_41", "Labels"])
@pytest.mark.parametrize("factor", [100, 1000, 25, 1 / 60])
def test_times_in_another_unit_are_refused(tmp_path, role, factor):
    folder = scaled(write_csd(tmp_path, parts=wanted(True)), role, factor)
    line = r"end many times earlier or later .* perhaps in frames or milliseconds"
    if role == "Labels" and factor < 1:  # a video may be labelled in its beginning only
        line = r"hold only zeros|holds no value but 0"
    with pytest.raises((ValueError, UserWarning), match=line):
        read(folder)


def test_a_few_videos_in_another_unit_are_warned_of(tmp_path):
    parts = samples("mosi", (60, 8, 8), SMALL, dict.fromkeys(MODALITIES, 4))
    folder = scaled(write_csd(tmp_path, parts=parts), "COVAREP", 100, videos=1)
    with pytest.warns(UserWarning, match=r"audio: CMU_MOSI_COVAREP\.csd: 1 of \d\d videos end many times"):
        read(folder)


def test_times_that_end_a_little_earlier_or_later_pass(tmp_path):
    parts = wanted(True)
    folder = write_csd(tmp_path, parts=parts)
    whole = load_mosi(folder, allow_partial=True)
    with h5py.File(folder / "CMU_MOSI_COVAREP.csd", "r+") as file:
        data = next(iter(file.values()))["data"]
        for video in data:
            x, times = data[video]["features"][()], data[video]["intervals"][()]
            del data[video]
            data[f"{video}/features"] = np.concatenate([x, x[-1:]])
            data[f"{video}/intervals"] = np.concatenate([times, [[times.max(), 3 * times.max()]]])
    assert_same(whole, load_mosi(folder, allow_partial=True))


@pytest.mark.parametrize("value", [0.0, -np.inf, np.nan])
@pytest.mark.parametrize("part", ["train", "valid", "test"])
def test_a_modality_that_is_blank_in_a_part_is_refused(tmp_path, value, part):
    for write in (mmsa, mult):
        data = write(wanted(False), "mosi", False, STEPS)
        data[part]["vision"] = np.full_like(data[part]["vision"], value)
        named = {"valid": "validation"}.get(part, part)
        with pytest.raises(ValueError, match=rf"mosi, {named}: vision holds no value but 0"):
            read_content(tmp_path, data)


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_padding_of_no_numbers_is_padding(tmp_path, value):
    for write in (mmsa, mult):
        for aligned in (True, False):
            parts = wanted(aligned)
            data = write(parts, "mosi", aligned, STEPS)
            for part in data.values():
                for modality in MODALITIES:
                    x = part[modality]
                    x[~(x != 0).any(2)] = value
            loaded = read_content(tmp_path, data)
            assert_holds(loaded, parts)
            assert loaded.notes["warnings"] == []


def test_parts_that_share_videos_are_warned_of(tmp_path):
    data = mmsa(wanted(True), "mosi", True, STEPS)
    data["test"] = {name: x[: len(data["test"]["id"])] for name, x in data["train"].items()}
    with pytest.warns(UserWarning, match=r"mosi: 3 of 7 videos are in more than one part, .* \(first: tr_000-x\)"):
        read_content(tmp_path, data)


@pytest.mark.parametrize("change", [lambda x: x * 100, lambda x: x * 4, lambda x: x + 3])
def test_sentiment_on_another_scale_is_warned_of(tmp_path, change):
    data = mult(wanted(True), "mosi", True, STEPS)
    data["train"]["labels"] = change(data["train"]["labels"])
    with pytest.warns(UserWarning, match=r"mosi: train: \d+% of the sentiments are outside -3 to 3"):
        read_content(tmp_path, data)


@pytest.mark.parametrize("change", [lambda x: (x >= 0) * 1.0, lambda x: (x + 3) / 2])
@pytest.mark.parametrize("labels", ["non-negative", "regression"])
def test_sentiment_without_a_negative_score_is_warned_of(tmp_path, change, labels):
    data = mult(wanted(True), "mosi", True, STEPS)
    for part in data.values():
        part["labels"] = change(part["labels"])
    with pytest.warns(
        UserWarning, match=r"mosi: train: no sentiment is below 0 \([\d.]+ to .*; give the scores as pub"
    ):
        read(write_pickle(tmp_path / "data.pkl", data), labels=labels)


def published(kind, **steps):
    made = samples("mosi", (12, 6, 8), {"text": 300, "audio": 5, "vision": 20}, steps, aligned=False)
    return kind(made, "mosi", False, steps)


@pytest.mark.parametrize("kind", [mmsa, mult])
@pytest.mark.parametrize("modality", ["audio", "vision"])
def test_exchanged_axes_and_names_are_refused(tmp_path, kind, modality):
    steps = {"text": 6, "audio": 375, "vision": 500}
    data = published(kind, **steps)
    width = {"audio": 5, "vision": 20}[modality]
    for part in data.values():
        part[modality] = np.ones_like(part[modality].transpose(0, 2, 1))
        if kind is mmsa:
            part[f"{modality}_lengths"] = [width] * len(part[modality])
    said = rf"{modality} \(N, T, {width}\), got \(N, {width}, {steps[modality]}\); exchange its last axes"
    with pytest.raises(ValueError, match=said):
        read_content(tmp_path, data)
    data = published(mult, **steps)
    for part in data.values():
        part["audio"], part["vision"] = part["vision"], part["audio"]
    with pytest.raises(ValueError, match=r"audio of width 5 and vision of width 20, got them exchanged"):
        read_content(tmp_path, data)


@pytest.mark.parametrize("kind", [mmsa, mult])
def test_one_dict_for_two_parts_is_named_as_that(tmp_path, kind):
    data = kind(wanted(True), "mosi", True, STEPS)
    data["test"] = data["train"]
    with pytest.raises(ValueError, match=r"two of train, valid and test are one and the same dict"):
        read_content(tmp_path, data)


def test_ids_that_are_numbers_and_missing_tokens_are_named_as_that(tmp_path):
    data = mmsa(wanted(True), "mosi", True, STEPS)
    data["train"]["id"] = np.arange(12)
    with pytest.raises(ValueError, match=r"train, id: expected text, got 0 \(int\); make them text"):
        read_content(tmp_path, data)
    data = mmsa(wanted(True), "mosi", True, STEPS)
    del data["train"]["text_bert"]
    with pytest.raises(ValueError, match=r"data.pkl, train: no key 'text_bert' among"):
        read_content(tmp_path, data)


def test_ragged_tokens_and_labels_of_no_name_are_refused(tmp_path):
    data = mmsa(wanted(True), "mosi", True, STEPS)
    with pytest.raises(ValueError, match=r"labels must be one of non-negative, .*; got \['seven'\]"):
        read(tmp_path, labels=["seven"])
    data["train"]["text_bert"] = [[1], [1, 2]]
    with pytest.raises(ValueError, match=r"data.pkl, train, text_bert: no array of numbers"):
        read_content(tmp_path, data)
