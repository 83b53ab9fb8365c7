"""MOSI and MOSEI: every quirk of the three layouts on made files, and what the real files allow."""

import os
import pickle
import tracemalloc
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_sentiment import (
    KEYS,
    MODALITIES,
    SMALL,
    Sample,
    mmsa,
    mult,
    samples,
    write_csd,
    write_folds,
    write_mmsa,
    write_mult,
    write_pickle,
    write_sequence,
)

from vgmr.data.gated.csd import Sequence, clean, frames_of, mean_over, read_folds
from vgmr.data.gated.mosi import load_mosei, load_mosi

STEPS = {"text": 5, "audio": 8, "vision": 7}
LAYOUTS = ("mmsa-aligned", "mmsa-unaligned", "mult-aligned", "mult-unaligned")
ROLES = ("words", "text", "audio", "vision", "labels")


def small(aligned=True, sizes=(9, 6, 7), seed=0):
    return samples("mosi", sizes, SMALL, STEPS, aligned, seed)


def content(layout, parts=None, name="mosi", steps=STEPS):
    aligned = layout.endswith("-aligned")
    make = mmsa if layout.startswith("mmsa") else mult
    return make(parts or small(aligned), name, aligned, steps)


def read(path, load=load_mosi, **parameters):
    data = load(path, allow_partial=True, **parameters)
    data.check()
    return data


def read_content(tmp_path, data, **parameters):
    return read(write_pickle(tmp_path / "data.pkl", data), **parameters)


def assert_holds(data, parts):
    """Features, masks, labels and groups are those planted in `parts`."""
    codes = {video: code for code, video in enumerate(sorted({s.video for made in parts.values() for s in made}))}
    for part, made in parts.items():
        batch = data.parts[part]
        assert len(batch) == len(made)
        for row, sample in enumerate(made):
            for modality in MODALITIES:
                planted = torch.from_numpy(sample.features[modality])
                length = len(planted)
                assert batch.mask[modality][row].tolist() == [True] * length + [False] * (
                    batch.mask[modality].shape[1] - length
                )
                torch.testing.assert_close(batch.features[modality][row, :length], planted, rtol=1e-5, atol=1e-5)
        assert batch.label.tolist() == [int(sample.sentiment >= 0) for sample in made]
        assert batch.group.tolist() == [codes[sample.video] for sample in made]


def assert_same(left, right):
    for part, batch in left.parts.items():
        other = right.parts[part]
        for modality in MODALITIES:
            assert torch.equal(batch.features[modality], other.features[modality])
            assert torch.equal(batch.mask[modality], other.mask[modality])
        assert torch.equal(batch.label, other.label)
        assert torch.equal(batch.group, other.group)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_planted_samples_come_back_with_padding_at_the_end(tmp_path, layout):
    parts = small(layout.endswith("-aligned"))
    data = read_content(tmp_path, content(layout, parts))
    assert_holds(data, parts)
    assert data.notes["layout"] == layout
    assert data.modalities == ["text", "audio", "vision"]
    assert data.dims == SMALL
    assert data.licence == "not stated"
    assert "Zadeh" in data.source
    assert not data.stand_in


def test_computational_sequences_come_back_word_by_word(tmp_path):
    for name, load in (("mosi", load_mosi), ("mosei", load_mosei)):
        parts = samples(name, (9, 6, 7), SMALL, STEPS)
        data = read(write_csd(tmp_path / name, name, parts), load)
        assert_holds(data, parts)
        spoken = [len(sample.features["text"]) for made in parts.values() for sample in made]
        assert data.notes["silences left out"] == sum((words + 1) // 3 for words in spoken)
        assert data.notes["words without features, set to 0"] == {"text": 0, "audio": 0, "vision": 0}


def test_full_size_files_of_both_data_sets_have_the_published_shapes(tmp_path):
    for name, load, audio, vision, steps in (
        ("mosi", load_mosi, 5, 20, {"text": 50, "audio": 375, "vision": 500}),
        ("mosei", load_mosei, 74, 35, {"text": 50, "audio": 500, "vision": 500}),
    ):
        write_mmsa(tmp_path / name, name, aligned=False)
        write_mult(tmp_path / name, name, aligned=True)
        unaligned = read(tmp_path / name, load, layout="mmsa-unaligned")
        assert unaligned.max_lengths == steps
        assert unaligned.dims == {"text": 768, "audio": audio, "vision": vision}
        aligned = read(tmp_path / name, load, layout="mult-aligned")
        assert aligned.max_lengths == dict.fromkeys(MODALITIES, 50)
        assert aligned.dims == {"text": 300, "audio": audio, "vision": vision}
        for data in (unaligned, aligned):
            assert "feature widths other than those of the processed files" not in data.notes


def test_a_row_without_padding_has_its_full_length(tmp_path):
    """MMSA's own loader takes the position of the first zero in the attention mask, and gets 0."""
    parts = samples("mosi", (3, 2, 2), SMALL, {"text": 50, "audio": 60, "vision": 55}, aligned=False)
    for made in parts.values():
        made[0].features["text"] = np.ones((50, SMALL["text"]), np.float32)
    data = read_content(tmp_path, content("mmsa-unaligned", parts, steps={"text": 50, "audio": 60, "vision": 55}))
    for batch in data.parts.values():
        assert batch.lengths()["text"][0] == 50


def test_lengths_beyond_the_padding_are_clipped_and_counted(tmp_path):
    data = content("mmsa-unaligned")
    expected = len(data["train"]["audio"][2]), data["train"]["vision_lengths"]
    data["train"]["audio_lengths"][2] = 400
    data["test"]["audio_lengths"][0] = 9
    read_back = read_content(tmp_path, data)
    assert read_back.train.lengths()["audio"][2] == expected[0] == STEPS["audio"]
    assert read_back.train.lengths()["vision"].tolist() == expected[1]
    assert read_back.notes["stated lengths beyond the padded length"] == {"audio": 2, "vision": 0}


def test_values_beyond_the_stated_length_are_cleared_and_counted(tmp_path):
    parts = small(aligned=False)
    data = content("mmsa-unaligned", parts)
    length = data["train"]["audio_lengths"][0] = 2
    data["train"]["audio"][0] = 7.0
    read_back = read_content(tmp_path, data)
    assert read_back.train.features["audio"][0, :, 0].tolist() == [7.0] * length + [0.0] * 6
    assert read_back.notes["steps beyond the stated length that held values, set to 0"]["audio"] == 6


def test_samples_without_a_step_keep_one_of_zeros(tmp_path):
    data = content("mmsa-unaligned")
    data["train"]["audio_lengths"][1] = 0
    data["train"]["text_bert"][3, 1] = 0
    data["test"]["text_bert"][0, 1] = 0
    read_back = read_content(tmp_path, data)
    assert len(read_back.train) == 9
    assert read_back.notes["samples without a real step, one zero step kept"] == {
        "text": 2,
        "audio": 1,
        "vision": 0,
    }
    assert read_back.train.lengths()["audio"][1] == 1
    assert not read_back.train.features["audio"][1].any()

    data = content("mult-unaligned")
    data["valid"]["text"][2] = 0
    read_back = read_content(tmp_path, data)
    assert len(read_back.validation) == 6
    assert read_back.notes["samples without a real step, one zero step kept"] == {
        "text": 1,
        "audio": 0,
        "vision": 0,
    }
    assert read_back.notes["samples with zeros only"]["text"] == 1


def test_zero_steps_inside_a_sequence_are_kept(tmp_path):
    data = content("mult-unaligned")
    x = data["train"]["audio"]
    x[0] = 0
    x[0, 3] = 1.0
    x[0, 6, 2] = 2.0
    batch = read_content(tmp_path, data).train
    assert batch.lengths()["audio"][0] == 5
    assert batch.features["audio"][0].abs().sum(1).tolist() == [5.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 0.0]


def test_aligned_words_stay_aligned_when_one_modality_begins_with_zeros(tmp_path):
    data = content("mult-aligned")
    for modality in MODALITIES:
        data["train"][modality][0] = 0
        data["train"][modality][0, 2:] = 1.0
    data["train"]["vision"][0, 2:4] = 0
    data["train"]["text"][1] = 0  # a first word without a vector
    data["train"]["text"][1, 4] = 1.0
    data["train"]["audio"][1] = 0
    data["train"]["audio"][1, 3:] = 1.0
    data["train"]["vision"][1] = 0
    batch = read_content(tmp_path, data).train
    for modality in MODALITIES:
        assert batch.lengths()[modality][:2].tolist() == [3, 2]
    assert batch.features["text"][1, :, 0].tolist() == [0, 1, 0, 0, 0]
    assert batch.features["text"][0, :, 0].tolist() == [1, 1, 1, 0, 0]
    assert batch.features["vision"][0, :, 0].tolist() == [0, 0, 1, 0, 0]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_nan_and_infinite_values_become_zero_and_are_counted(tmp_path, layout):
    parts = small(layout.endswith("-aligned"))
    for made in parts.values():
        made[1].features = {m: np.ones((4, SMALL[m]), np.float32) for m in MODALITIES}
    clean_data = read_content(tmp_path, content(layout, parts))
    for made in parts.values():
        for modality in MODALITIES:
            made[1].features[modality][1, 0] = np.nan
            made[1].features[modality][0, 1] = np.inf
            made[1].features[modality][2, 2:4] = -np.inf
    data = read_content(tmp_path, content(layout, parts))
    for modality in MODALITIES:
        assert data.notes["values cleaned to 0"][modality] == {"nan": 3, "+inf": 3, "-inf": 6}
        expected = clean_data.train.features[modality].clone()
        expected[1, 1, 0] = expected[1, 0, 1] = 0
        expected[1, 2, 2:4] = 0
        assert torch.equal(data.train.features[modality], expected)
    assert clean_data.notes["values cleaned to 0"]["audio"] == {"nan": 0, "+inf": 0, "-inf": 0}


def test_values_beyond_float32_count_as_infinite(tmp_path):
    data = content("mmsa-aligned")
    data["train"]["audio"][0, 0, 0] = 1e300
    read_back = read_content(tmp_path, data)
    assert read_back.notes["values cleaned to 0"]["audio"]["+inf"] == 1


def planted_sentiment(values):
    parts = small(sizes=(len(values),) * 3)
    for made in parts.values():
        for sample, value in zip(made, values, strict=True):
            sample.sentiment = value
    return content("mmsa-aligned", parts)


def test_three_kinds_of_labels(tmp_path):
    values = [-3.0, -1.6, -0.2, 0.0, 0.4, 0.6, 2.6, 3.0, 4.6]
    path = write_pickle(tmp_path / "data.pkl", planted_sentiment(values))
    data = read(path)
    assert data.classes == ("negative", "non-negative")
    assert data.test.label.tolist() == [0, 0, 0, 1, 1, 1, 1, 1, 1]
    assert data.majority_rate == pytest.approx(6 / 9)
    assert data.notes["sentiment outside -3 to 3"]["test"] == 1
    data = read(path, labels="positive")
    assert data.classes == ("negative", "positive")
    assert data.test.label.tolist() == [0, 0, 0, 1, 1, 1, 1, 1]
    assert data.notes["samples with sentiment 0 left out"] == {"train": 1, "validation": 1, "test": 1}
    whole = read(path)
    kept = torch.tensor([0, 1, 2, 4, 5, 6, 7, 8])
    assert torch.equal(data.train.features["audio"], whole.train.features["audio"][kept])
    assert torch.equal(data.train.group, whole.train.group[kept])
    data = read(path, labels="seven")
    assert len(data.classes) == 7
    assert data.classes[0] == "strongly negative"
    assert data.classes[3] == "neutral"
    assert data.test.label.tolist() == [0, 1, 3, 3, 3, 4, 6, 6, 6]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_regression_keeps_the_sentiment_itself(tmp_path, layout):
    parts = small(layout.endswith("-aligned"))
    path = write_pickle(tmp_path / "data.pkl", content(layout, parts))
    data = read(path, labels="regression")
    assert data.classes == () and data.task == "regression"
    for part, batch in data.parts.items():
        assert batch.label.dtype == torch.float32
        np.testing.assert_allclose(batch.label, [sample.sentiment for sample in parts[part]], rtol=1e-6)
    binary = read(path, labels="binary")
    assert binary.fingerprint == read(path).fingerprint != data.fingerprint
    for part, batch in binary.parts.items():
        assert batch.label.equal((data.parts[part].label >= 0).long())
    folder = write_csd(tmp_path / "csd", parts=small())
    np.testing.assert_allclose(
        sorted(read(folder, labels="regression").test.label.tolist()),
        sorted(sample.sentiment for sample in small()["test"]),
        rtol=1e-6,
    )


def test_a_part_of_zeros_only_cannot_be_positive_or_negative(tmp_path):
    data = planted_sentiment([1.0, -1.0, 0.0])
    data["valid"]["regression_labels"][:] = 0
    with pytest.raises(ValueError, match=r"validation: no sample left with labels='positive'"):
        read_content(tmp_path, data, labels="positive")


def test_videos_are_groups_and_a_shared_one_is_told(tmp_path):
    data = content("mmsa-aligned")
    assert "videos in more than one part" not in read_content(tmp_path, data).notes
    data["test"]["id"][0] = data["train"]["id"][0]
    read_back = read_content(tmp_path, data)
    video = data["train"]["id"][0].split("$_$")[0]
    assert read_back.notes["videos in more than one part"] == [video]
    assert read_back.test.group[0] == read_back.train.group[0]


def test_byte_ids_and_segment_numbers_are_decoded(tmp_path):
    parts = small()
    data = content("mult-aligned", parts)
    for part in data.values():
        wide = part["id"].astype("S20")
        wide[:, 0] = [video + b"[3]" for video in wide[:, 0]]
        part["id"] = wide
    assert_holds(read_content(tmp_path, data), parts)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_byte_order_and_protocol_do_not_matter(tmp_path, layout, protocol):
    native = read_content(tmp_path, content(layout))
    data = content(layout)
    for part in data.values():
        for key, value in part.items():
            if isinstance(value, np.ndarray):
                part[key] = value.astype(value.dtype.newbyteorder(">"))
    swapped = read(write_pickle(tmp_path / "swapped.pkl", data, protocol))
    assert_same(native, swapped)
    assert native.fingerprint != swapped.fingerprint


def test_fingerprint_follows_content_and_labels(tmp_path):
    path = write_mmsa(tmp_path, parts=small(), steps=STEPS)
    first = read(path)
    assert read(tmp_path).fingerprint == first.fingerprint
    assert read(path, labels="seven").fingerprint != first.fingerprint
    write_mmsa(tmp_path, parts=small(seed=1), steps=STEPS)
    assert read(path).fingerprint != first.fingerprint
    folder = write_csd(tmp_path / "csd", parts=small())
    first = read(folder)
    assert read(folder).fingerprint == first.fingerprint
    lists = folder / "cmu_mosi_std_folds.py"
    lists.write_text(lists.read_text() + "\n")
    assert read(folder).fingerprint != first.fingerprint


# Finding the files


def test_documented_places_are_searched(tmp_path, monkeypatch):
    for number, (folder, root) in enumerate(
        [("", ""), ("MOSI", ""), ("mosi", ""), ("MOSI", "MOSI"), ("", "Processed")]
    ):
        base = tmp_path / str(number)
        write_mmsa(base / folder, parts=small(), steps=STEPS)
        assert read(base / root).notes["layout"] == "mmsa-aligned"
    base = tmp_path / "data"
    write_mmsa(base / "mosi", parts=small(), steps=STEPS)
    monkeypatch.setenv("VGMR_DATA", str(base))
    assert read(None).notes["layout"] == "mmsa-aligned"
    monkeypatch.setenv("VGMR_DATA", str(base / "mosi"))
    assert read(None).notes["layout"] == "mmsa-aligned"
    assert read(str(base / "mosi")).notes["layout"] == "mmsa-aligned"


def test_files_of_the_other_data_set_are_not_taken(tmp_path):
    write_csd(tmp_path, "mosi", parts=small())
    write_csd(tmp_path, "mosei", parts=samples("mosei", (5, 3, 4), SMALL, STEPS))
    write_mult(tmp_path / "pickles", "mosei", parts=small(), steps=STEPS)
    assert len(read(tmp_path).train) == 9
    assert len(read(tmp_path, load_mosei).train) == 5
    with pytest.raises(FileNotFoundError, match=r"no mosi files"):
        read(tmp_path / "pickles")


def test_several_layouts_need_a_choice(tmp_path):
    write_mmsa(tmp_path, parts=small(), steps=STEPS)
    write_mult(tmp_path, parts=small(aligned=False), steps=STEPS, aligned=False)
    write_csd(tmp_path, parts=small())
    with pytest.raises(ValueError, match=r"choose layout= from: mmsa-aligned, mult-unaligned, csd"):
        read(tmp_path)
    for layout in ("mmsa-aligned", "mult-unaligned", "csd"):
        assert read(tmp_path, layout=layout).notes["layout"] == layout
    with pytest.raises(FileNotFoundError, match=r"in layout mult-aligned .*there are: mmsa-aligned"):
        read(tmp_path, layout="mult-aligned")
    write_mmsa(tmp_path / "MOSI", parts=small(), steps=STEPS)
    with pytest.raises(ValueError, match=r"more than once; give one as root"):
        read(tmp_path, layout="mmsa-aligned")


def test_nothing_found_says_what_is_expected_in_one_line(tmp_path, monkeypatch):
    for root in (tmp_path, tmp_path / "none"):
        with pytest.raises(
            FileNotFoundError, match=r"Processed/aligned_50\.pkl.*mosei_senti_data\.pkl.*csd"
        ) as caught:
            read(root, load_mosei)
        assert "\n" not in str(caught.value)
        assert "https://github.com/thuiar/MMSA" in str(caught.value)
    monkeypatch.delenv("VGMR_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match=r"VGMR_DATA is not set"):
        load_mosi()


def test_wrong_options_are_refused(tmp_path):
    path = write_mmsa(tmp_path, parts=small(), steps=STEPS)
    with pytest.raises(
        ValueError, match=r"labels must be one of non-negative, positive, seven, regression, binary; got 'both'"
    ):
        load_mosi(path, labels="both")
    with pytest.raises(ValueError, match=r"layout must be one of mmsa-aligned.*got 'aligned'"):
        load_mosi(path, layout="aligned")
    with pytest.raises(ValueError, match=r"expected layout mult-aligned, but the content is mmsa-aligned"):
        load_mosi(path, layout="mult-aligned")
    with pytest.raises(ValueError, match=r"'csd' is a folder"):
        load_mosi(path, layout="csd")
    write_csd(tmp_path / "csd", parts=small())
    with pytest.raises(ValueError, match=r"give the folder"):
        load_mosi(tmp_path / "csd" / "CMU_MOSI_COVAREP.csd")
    os.replace(path, path.with_name("unaligned_50.pkl"))
    with pytest.raises(ValueError, match=r"expected layout mmsa-unaligned, but the content is mmsa-aligned"):
        load_mosi(tmp_path, layout="mmsa-unaligned")


# Counts and widths


def test_published_counts_pass_and_a_partial_copy_is_refused(tmp_path):
    tiny = {"widths": dict.fromkeys(MODALITIES, 1), "steps": dict.fromkeys(MODALITIES, 2)}
    for write, make in ((write_mmsa, "mmsa"), (write_mult, "mult")):
        parts = samples("mosi", (1284, 229, 686), **tiny)
        path = write(tmp_path / make, parts=parts, steps=tiny["steps"])
        data = load_mosi(path)
        data.check()
        assert [len(batch) for batch in data.parts.values()] == [1284, 229, 686]
        assert "partial copy" not in data.notes
        parts["validation"].pop()
        write(tmp_path / make, parts=parts, steps=tiny["steps"])
        with pytest.raises(ValueError, match=r"found 1284/228/686, published 1284/229/686; .*allow_partial=True"):
            load_mosi(path)
        assert "found 1284/228/686" in read(path).notes["partial copy"][0]


def test_other_widths_are_accepted_and_told(tmp_path):
    data = read_content(tmp_path, content("mmsa-aligned"))
    assert data.notes["feature widths other than those of the processed files"] == {"text": 6, "vision": 4}


def test_published_checksum_is_compared(tmp_path):
    note = read(write_mmsa(tmp_path, parts=small(), steps=STEPS)).notes["publisher's checksum"]
    assert note == "differs: custom or changed file"


@pytest.mark.parametrize("layout", ["mmsa-unaligned", "mult-unaligned"])
def test_memory_stays_near_the_file_and_one_modality(tmp_path, layout):
    """All float32 copies beside all float64 originals would be 1.5 times the file; here one at a time is."""
    steps = {"text": 2, "audio": 70, "vision": 70}
    parts = samples("mosi", (200, 200, 200), {"text": 2, "audio": 20, "vision": 20}, steps, aligned=False)
    path = write_pickle(tmp_path / "data.pkl", content(layout, parts, "mosei", steps))
    del parts
    tracemalloc.start()
    read(path, load_mosei)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.3 * path.stat().st_size


def test_times_beside_the_video_may_be_numbers(tmp_path):
    text, numbers = content("mult-aligned"), content("mult-aligned")
    for part in numbers.values():
        part["id"] = np.array([[name.decode(), float(start), 9] for name, start, _ in part["id"]], object)
    one, other = read_content(tmp_path, text), read_content(tmp_path, numbers)
    assert all(batch.group.equal(other.parts[part].group) for part, batch in one.parts.items())


# Broken pickles


def swap(key, value):
    return lambda part: part.__setitem__(key, value(part[key]))


@pytest.mark.parametrize(
    ("layout", "change", "line"),
    [
        ("mmsa-aligned", lambda part: part.pop("text_bert"), r"train: no key 'text_bert' among"),
        (
            "mmsa-aligned",
            lambda part: part.pop("regression_labels"),
            r"neither regression_labels \(MMSA\) nor labels",
        ),
        ("mmsa-aligned", lambda part: part.pop("id"), r"no key 'id'"),
        ("mmsa-unaligned", lambda part: part.pop("audio_lengths"), r"no key 'audio_lengths'"),
        ("mmsa-aligned", swap("audio", lambda x: x[:-1]), r"audio has 8 samples, text has 9"),
        ("mmsa-aligned", swap("id", lambda x: x[:-1]), r"id: expected text of shape \(9,\)"),
        ("mmsa-aligned", swap("regression_labels", lambda x: x[:-1]), r"expected 9 finite numbers"),
        ("mmsa-aligned", swap("regression_labels", lambda x: x * np.nan), r"expected 9 finite numbers"),
        ("mmsa-aligned", swap("regression_labels", lambda x: ["a"] * 9), r"expected 9 finite numbers"),
        (
            "mmsa-aligned",
            swap("vision", lambda x: x[:, :, 0]),
            r"expected a float array \(N, T, d\), got float64 \(9, 5\)",
        ),
        ("mmsa-aligned", swap("vision", lambda x: x[:, :, :0]), r"expected a float array"),
        ("mmsa-aligned", swap("vision", lambda x: x.astype(object)), r"expected a float array"),
        ("mmsa-aligned", swap("vision", lambda x: x.tolist()), r"expected a float array \(N, T, d\), got list"),
        ("mmsa-aligned", swap("vision", lambda x: x[:, :, :2]), r"vision has different shapes of a sample"),
        ("mmsa-aligned", swap("text_bert", lambda x: x[:, :2]), r"text_bert: expected \(9, 3, 5\)"),
        ("mmsa-aligned", swap("text_bert", lambda x: x + 1), r"attention mask"),
        ("mmsa-aligned", swap("text_bert", lambda x: x[:, :, ::-1]), r"ones before zeros"),
        ("mmsa-aligned", swap("id", lambda x: np.array(["plain"] * 9)), r"expected video\$_\$clip, got 'plain'"),
        ("mmsa-aligned", swap("id", lambda x: np.arange(9)), r"id: expected text"),
        (
            "mmsa-unaligned",
            swap("audio_lengths", lambda x: [-1, *x[1:]]),
            r"audio_lengths: expected whole numbers",
        ),
        (
            "mmsa-unaligned",
            swap("audio_lengths", lambda x: [0.5, *x[1:]]),
            r"audio_lengths: expected whole numbers",
        ),
        ("mult-aligned", lambda part: part.pop("labels"), r"neither regression_labels \(MMSA\) nor labels"),
        ("mult-aligned", lambda part: part.pop("vision"), r"no key 'vision'"),
        ("mult-aligned", swap("labels", lambda x: np.zeros((9, 4, 2))), r"labels: expected 9 finite numbers"),
        ("mult-aligned", swap("id", lambda x: x[:, 0]), r"id: expected text of shape \(9, 3\)"),
        ("mult-unaligned", swap("audio", lambda x: x[1:]), r"audio has 8 samples, text has 9"),
        ("mult-unaligned", swap("audio", lambda x: x[:, 1:]), r"audio has different shapes of a sample"),
    ],
)
def test_content_other_than_documented_is_refused_in_one_line(tmp_path, layout, change, line):
    data = content(layout)
    change(data["train"])
    with pytest.raises(ValueError, match=line) as caught:
        read_content(tmp_path, data)
    assert "\n" not in str(caught.value)
    assert "data.pkl" in str(caught.value)


def test_files_without_the_three_parts_are_refused(tmp_path):
    for data, there in (([1, 2], "list"), ({"train": {}, "dev": {}, "test": {}}, "'dev'")):
        with pytest.raises(ValueError, match=rf"train, valid and test, got .*{there}"):
            read_content(tmp_path, data)
    data = content("mult-aligned")
    data["valid"] = {key: value[:0] for key, value in data["valid"].items()}
    with pytest.raises(ValueError, match=r"valid, text: expected a float array"):
        read_content(tmp_path, data)


class Call:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutated_pickles_raise_or_read_unchanged(tmp_path, data):
    layout = data.draw(st.sampled_from(LAYOUTS))
    sound = read(write_pickle(tmp_path / "sound.pkl", content(layout)))
    mutated = content(layout)
    part = mutated[data.draw(st.sampled_from(list(KEYS.values())))]
    key = data.draw(st.sampled_from(sorted(part)))
    kind = data.draw(st.sampled_from(["cut", "drop", "rename", "shape", "swap", "hostile"]))
    mark = tmp_path / "ran"
    if kind == "drop":
        del part[key]
    elif kind == "rename":
        part[key + data.draw(st.sampled_from(["s", " ", "_"]))] = part.pop(key)
    elif kind == "shape":
        x = np.asarray(part[key])
        shapes = [x[:-1], x[None], x[..., None, :], np.concatenate([x, x[:1]]), x.reshape(-1)[:1], x[:0]]
        if x.ndim == 3 and len(set(x.shape)) == 3:
            shapes += [x.transpose(2, 1, 0), x[:, 0]]
        part[key] = data.draw(st.sampled_from(shapes))
    elif kind == "swap":
        x = np.asarray(part[key])
        part[key] = x.astype(x.dtype.newbyteorder("S"))
    elif kind == "hostile":
        command = f"open({str(mark)!r}, 'w')"
        hostile = data.draw(
            st.sampled_from([Call(os.system, f"touch {mark}"), Call(eval, command), Call(exec, command)])
        )
        part[key] = data.draw(
            st.sampled_from([hostile, [hostile], {"x": hostile}, np.array([hostile, 1], object)])
        )
    raw = pickle.dumps(mutated, protocol=data.draw(st.integers(0, pickle.HIGHEST_PROTOCOL)))
    if kind == "cut":
        raw = raw[: data.draw(st.integers(0, len(raw) - 1))]
    path = tmp_path / "mutated.pkl"
    path.write_bytes(raw)
    try:
        assert_same(sound, read(path))
        survived = True
    except ValueError as error:
        assert "\n" not in str(error)
        survived = False
    assert not mark.exists()
    assert not survived or kind not in ("cut", "hostile")
    assert survived or kind != "swap"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_flipped_bytes_raise_value_error_or_give_checked_data(tmp_path, data):
    """A change inside the numbers cannot be seen, but nothing else than ValueError may come out."""
    raw = bytearray(pickle.dumps(content(data.draw(st.sampled_from(LAYOUTS))), protocol=4))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    path = tmp_path / "flipped.pkl"
    path.write_bytes(raw)
    try:
        read(path)
    except ValueError as error:
        assert "\n" not in str(error)


# Computational sequences


def test_frames_belong_to_words_by_their_midpoints():
    frames = np.array([[0.0, 1.0], [1.0, 2.0], [2.0, 3.0], [3.0, 4.0]])
    words = np.array([[0.0, 2.0], [2.1, 2.2], [2.4, 3.6], [9.0, 9.5]])
    rows = frames_of(words, frames)
    assert [row.tolist() for row in rows] == [[0, 1], [2], [2, 3], []]
    means = mean_over(np.array([[1.0, 0.0], [3.0, 1.0], [5.0, 2.0], [8.0, 3.0]]), rows)
    assert means.tolist() == [[2.0, 0.5], [5.0, 2.0], [6.5, 2.5], [0.0, 0.0]]
    assert means.dtype == np.float32


def test_a_word_without_duration_takes_its_own_frame():
    frames = np.array([[0.0, 1.0], [1.0, 1.0], [1.0, 2.0]])
    rows = frames_of(np.array([[0.0, 1.0], [1.0, 1.0], [1.5, 1.5], [2.0, 2.0]]), frames)
    assert [row.tolist() for row in rows] == [[0], [1], [2], [2]]


def test_clean_counts_what_it_sets_to_zero():
    values = np.array([1.0, np.nan, np.inf, -np.inf, -np.inf])
    assert clean(values) == {"nan": 1, "+inf": 1, "-inf": 2}
    assert values.tolist() == [1.0, 0.0, 0.0, 0.0, 0.0]


def by_hand(folder, sentiment=((1.0,), (-2.0,), (0.5,)), dirty=False):
    """Three videos of one segment each (0 to 4 s), with words at 0-1, 1-2 (silence), 2-3 and 5-6 s."""
    videos = ["a", "b", "c"]
    intervals = np.array([[0.0, 1.0], [1.0, 2.0], [2.0, 3.0], [5.0, 6.0]])
    tokens = np.array([[b"one"], [b"sp"], [b"two"], [b"three"]], "S12")
    vectors = np.array([[1.0, 2.0], [0.0, 0.0], [3.0, 4.0], [5.0, 6.0]], np.float32)
    frames = np.array([[start, start + 0.5] for start in np.arange(0, 6, 0.5)])
    audio = np.arange(12.0).reshape(12, 1)
    if dirty:
        audio[0] = -np.inf
        audio[5] = np.nan
    write_sequence(
        folder / "words.csd", "CMU_MOSI_ModifiedTimestampedWords", dict.fromkeys(videos, (tokens, intervals))
    )
    write_sequence(folder / "vectors.csd", "glove_vectors", dict.fromkeys(videos, (vectors, intervals)))
    write_sequence(folder / "sound.csd", "COVAREP", dict.fromkeys(videos, (audio, frames)))
    write_sequence(folder / "face.csd", "FACET 4.2", dict.fromkeys(videos, (-audio, frames)))
    labels = {v: (np.array([score]), [[0.0, 4.0]]) for v, score in zip(videos, sentiment, strict=True)}
    write_sequence(folder / "labels.csd", "All Labels", labels)
    write_folds(folder, "mosi", {"train": ["a"], "validation": ["b"], "test": ["c"]})
    return folder


def test_words_of_a_segment_by_hand(tmp_path):
    data = read(by_hand(tmp_path))
    for number, batch in enumerate(data.parts.values()):
        assert batch.features["text"].tolist() == [[[1.0, 2.0], [3.0, 4.0]]]
        assert batch.features["audio"].tolist() == [[[0.5], [4.5]]]
        assert batch.features["vision"].tolist() == [[[-0.5], [-4.5]]]
        assert batch.label.tolist() == [(1, 0, 1)[number]]
        assert batch.group.tolist() == [number]
    assert data.notes["silences left out"] == 3


def test_rows_in_any_order_are_read_in_order_of_time(tmp_path):
    folder = by_hand(tmp_path)
    sound = read(folder)
    order = np.random.default_rng(0).permutation
    for path in folder.glob("*.csd"):
        with h5py.File(path, "r+") as file:
            for video in file[next(iter(file))]["data"].values():
                shuffled = order(len(video["intervals"]))
                for key in ("features", "intervals"):
                    video[key][...] = video[key][()][shuffled]
    assert_same(sound, read(folder))


def test_dirty_frames_are_zero_before_the_mean(tmp_path):
    data = read(by_hand(tmp_path, dirty=True))
    assert data.train.features["audio"].tolist() == [[[0.5], [2.0]]]
    assert data.notes["values cleaned to 0"]["audio"] == {"nan": 3, "+inf": 0, "-inf": 3}
    assert data.notes["values cleaned to 0"]["vision"] == {"nan": 3, "+inf": 3, "-inf": 0}


def test_sentiment_is_the_first_label_column(tmp_path):
    data = read(by_hand(tmp_path, sentiment=((-1.0, 3, 3), (2.0, -3, -3), (0.0, -3, -3))))
    assert [batch.label.item() for batch in data.parts.values()] == [0, 1, 1]


def test_missing_vectors_and_videos_are_zeros_and_counted(tmp_path):
    folder = by_hand(tmp_path)
    intervals = np.array([[0.0, 1.0], [5.0, 6.0]])
    vectors = np.array([[1.0, 2.0], [5.0, 6.0]])
    write_sequence(folder / "vectors.csd", "glove_vectors", {"a": (vectors, intervals), "b": (vectors, intervals)})
    data = read(folder)
    assert data.train.features["text"].tolist() == [[[1.0, 2.0], [0.0, 0.0]]]
    assert data.test.features["text"].tolist() == [[[0.0, 0.0], [0.0, 0.0]]]
    assert data.notes["words without features, set to 0"] == {"text": 4, "audio": 0, "vision": 0}
    assert data.notes["videos missing in a sequence"] == {"text": 1}


def test_a_segment_without_words_keeps_one_step_of_zeros(tmp_path):
    folder = by_hand(tmp_path)
    labels = {video: (np.ones((2, 1)), [[0.0, 4.0], [7.0, 8.0]]) for video in "abc"}
    write_sequence(folder / "labels.csd", "Opinion Segment Labels", labels)
    data = read(folder)
    assert data.train.lengths()["audio"].tolist() == [2, 1]
    assert not data.train.features["audio"][1].any()
    assert data.notes["samples without a real step, one zero step kept"] == dict.fromkeys(MODALITIES, 3)


def test_long_segments_are_cut_at_50_words_and_counted(tmp_path):
    parts = samples("mosi", (3, 2, 2), SMALL, {"text": 5, "audio": 5, "vision": 5})
    parts["train"][0].features = {m: np.ones((57, SMALL[m]), np.float32) for m in MODALITIES}
    data = read(write_csd(tmp_path, parts=parts))
    assert data.max_lengths["text"] == 50
    assert data.train.lengths()["text"][0] == 50
    assert data.notes["words beyond the 50th of a segment, cut"] == 7


def test_folds_are_read_as_literals_and_never_run(tmp_path):
    folder = by_hand(tmp_path)
    lists = folder / "cmu_mosi_std_folds.py"
    mark = tmp_path / "ran"
    run = f"import os\nos.system('touch {mark}')\nopen({str(mark)!r}, 'w')\n"
    lists.write_text(run + lists.read_text())
    assert read_folds(lists) == {"train": ["a"], "validation": ["b"], "test": ["c"]}
    read(folder)
    lists.write_bytes(b"\xef\xbb\xbf" + lists.read_bytes().replace(b"\n", b"\r\n"))  # as Windows writes it
    assert read_folds(lists) == {"train": ["a"], "validation": ["b"], "test": ["c"]}
    for text, line in [
        ("standard_train_fold=['a']\nstandard_valid_fold=['b']\n", r"no list of video ids for test"),
        (f"standard_train_fold=open({str(mark)!r}, 'w')\n", r"three literal lists"),
        ("standard_train_fold=[1, 2]\n", r"three literal lists"),
        ("standard_train_fold='abc'\n", r"three literal lists"),
        ("standard_train_fold=['a'\n", r"three literal lists"),
        ("", r"no list of video ids for test, train, validation"),
    ]:
        lists.write_text(text)
        with pytest.raises(ValueError, match=line) as caught:
            read(folder)
        assert "\n" not in str(caught.value)
    assert not mark.exists()


def test_missing_files_of_the_csd_layout_are_named(tmp_path):
    for role, line in [
        ("text", r"unavailable: text \(\*WordVectors\*\.csd\)"),
        ("audio", r"unavailable: audio \(\*COVAREP\*\.csd\)"),
        ("words", r"unavailable: words"),
        ("labels", r"unavailable: labels"),
    ]:
        folder = write_csd(tmp_path / role, parts=small(), sequences=[r for r in ROLES if r != role])
        with pytest.raises(FileNotFoundError, match=line):
            read(folder)
    folder = write_csd(tmp_path / "folds", parts=small(), folds=False)
    with pytest.raises(
        FileNotFoundError, match=r"expected one file cmu_mosi_std_folds\.py with the official folds"
    ):
        read(folder)


def test_two_files_for_one_modality_are_refused(tmp_path):
    folder = write_csd(tmp_path, parts=small())
    write_sequence(folder / "CMU_MOSI_Visual_Facet_42.csd", "FACET_4.2", {"a": (np.ones((1, 1)), [[0, 1]])})
    with pytest.raises(ValueError, match=r"Facet_41\.csd and CMU_MOSI_Visual_Facet_42\.csd both hold vision"):
        read(folder)


def test_other_sequences_are_left_alone_and_unlisted_videos_counted(tmp_path):
    folder = by_hand(tmp_path)
    write_sequence(folder / "phones.csd", "TimestampedPhones", {"a": (np.ones((1, 1)), [[0, 1]])})
    write_sequence(folder / "faces.csd", "OpenFace_2", {"a": (np.ones((1, 1)), [[0, 1]])})
    labels = {video: (np.ones((1, 1)), [[0.0, 4.0]]) for video in "abcd"}
    write_sequence(folder / "labels.csd", "Opinion Segment Labels", labels)
    data = read(folder)
    assert [len(batch) for batch in data.parts.values()] == [1, 1, 1]
    assert data.notes["segments of videos in no fold, left out"] == 1


def test_official_number_of_videos_is_checked(tmp_path):
    folder = write_csd(tmp_path, parts=small())
    with pytest.raises(ValueError, match=r"videos in train/validation/test: found .*, published 52/10/31"):
        load_mosi(folder)


@pytest.mark.parametrize("sizes", [(1283, 214, 686), (1284, 229, 686)])
def test_published_counts_of_the_csd_layout_pass(tmp_path, sizes):
    parts = samples("mosi", sizes, dict.fromkeys(MODALITIES, 1), dict.fromkeys(MODALITIES, 1))
    for made, videos in zip(parts.values(), (52, 10, 31), strict=True):
        for row, sample in enumerate(made):
            sample.video = f"{sample.video[:2]}_{row % videos:03d}"
        made.sort(key=lambda sample: sample.video)
    data = load_mosi(write_csd(tmp_path, parts=parts))
    data.check()
    assert tuple(len(batch) for batch in data.parts.values()) == sizes
    assert "partial copy" not in data.notes
    assert_holds(data, parts)


def h5_change(path, change):
    with h5py.File(path, "r+") as file:
        change(file[next(iter(file))]["data"])


@pytest.mark.parametrize(
    "role", ["TimestampedWords", "TimestampedWordVectors", "COVAREP", "Visual_Facet_41", "Labels"]
)
def test_broken_sequences_are_refused(tmp_path, role):
    def replace(key, value):
        def change(data):
            group = data[sorted(data)[0]]
            new = value(group[key][()])
            del group[key]
            if new is not None:
                group[key] = new

        return change

    for number, (change, line) in enumerate(
        [
            (replace("features", lambda x: None), r"no readable features and intervals"),
            (replace("intervals", lambda x: None), r"no readable features and intervals"),
            (replace("features", lambda x: x[:, 0]), r"expected features \(n, d\) and intervals \(n, 2\)"),
            (replace("features", lambda x: x[:-1]), r"expected features \(n, d\)"),
            (replace("intervals", lambda x: x[:, ::-1]), r"end before they start"),
            (replace("intervals", lambda x: x * np.nan), r"not finite"),
            (replace("features", lambda x: h5py.Empty("f")), r"features that are no array"),
            (replace("features", lambda x: "some text"), r"features that are no array"),
            (replace("intervals", lambda x: h5py.Empty("f")), r"no readable features and intervals"),
        ]
    ):
        folder = write_csd(tmp_path / str(number), parts=small())
        h5_change(folder / f"CMU_MOSI_{role}.csd", change)
        with pytest.raises(ValueError, match=line) as caught:
            read(folder)
        assert "\n" not in str(caught.value)


def test_features_that_are_no_numbers_or_change_width_are_refused(tmp_path):
    folder = by_hand(tmp_path)
    intervals = [[0.0, 1.0]]
    write_sequence(folder / "sound.csd", "COVAREP", dict.fromkeys("abc", (np.array([[b"x"]]), intervals)))
    with pytest.raises(ValueError, match=r"expected numbers, got \|S1"):
        read(folder)
    folder = by_hand(tmp_path / "widths")
    write_folds(folder, "mosi", {"train": ["a", "b"], "validation": ["b"], "test": ["c"]})
    one, two = (np.ones((1, 1)), intervals), (np.ones((1, 2)), intervals)
    write_sequence(folder / "sound.csd", "COVAREP", {"a": two, "b": one, "c": two})
    with pytest.raises(ValueError, match=r"feature widths \[1, 2\] differ between its videos"):
        read(folder)


def test_labels_that_are_not_finite_are_refused(tmp_path):
    folder = by_hand(tmp_path, sentiment=((1.0,), (np.nan,), (1.0,)))
    with pytest.raises(ValueError, match=r"labels that are not finite"):
        read(folder)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_cut_sequences_raise_or_read_unchanged(tmp_path, data):
    folder = tmp_path / "whole"
    if not folder.exists():
        write_csd(folder, parts=small(sizes=(2, 2, 2)))
    sound = read(folder)
    name = data.draw(st.sampled_from(sorted(file.name for file in folder.iterdir())))
    raw = (folder / name).read_bytes()
    cut = tmp_path / "cut"
    cut.mkdir(exist_ok=True)
    for file in folder.iterdir():
        (cut / file.name).write_bytes(file.read_bytes())
    (cut / name).write_bytes(raw[: data.draw(st.integers(0, len(raw) - 1))])
    try:
        assert_same(sound, read(cut))
    except (ValueError, FileNotFoundError) as error:
        assert "\n" not in str(error)


def test_git_lfs_pointers_and_other_files_are_named(tmp_path):
    folder = write_csd(tmp_path, parts=small())
    (folder / "CMU_MOSI_COVAREP.csd").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ValueError, match=r"COVAREP\.csd: a Git LFS pointer"):
        read(folder)
    (folder / "CMU_MOSI_COVAREP.csd").write_bytes(b"<html>")
    with pytest.raises(ValueError, match=r"COVAREP\.csd: not a whole HDF5 file"):
        read(folder)
    with h5py.File(folder / "CMU_MOSI_COVAREP.csd", "w"):
        pass
    with pytest.raises(ValueError, match=r"the file is empty"):
        read(folder)


# Real files


def test_real_words_of_mosi(real_data):
    with Sequence(real_data / "mosi-csd" / "CMU_MOSI_ModifiedTimestampedWords.csd") as words:
        assert words.name == "CMU_MOSI_ModifiedTimestampedWords"
        assert len(words.videos) == 93
        tokens = Counter(token for video in words.videos for token in words.read(video)[0][:, 0])
    assert tokens.total() == 51056
    assert tokens[b"sp"] == 8287


def test_real_words_alone_say_that_text_is_unavailable(real_data):
    with pytest.raises(
        FileNotFoundError, match=r"unavailable: text \(\*WordVectors\*\.csd\), audio .*vision .*labels"
    ):
        load_mosi(real_data / "mosi-csd")


def test_real_words_align_with_frames_that_hold_their_time(real_data, tmp_path):
    """Frames of 10 ms hold their own midpoint, so the mean over a word is its midpoint to 10 ms."""
    source = real_data / "mosi-csd" / "CMU_MOSI_ModifiedTimestampedWords.csd"
    (tmp_path / source.name).symlink_to(source)
    text, audio, labels, expected = {}, {}, {}, {}
    with Sequence(source) as words:
        videos = words.videos
        for video in videos:
            tokens, intervals = words.read(video)
            text[video] = np.arange(1.0, len(tokens) + 1)[:, None], intervals
            start = np.arange(0.0, intervals.max() + 0.02, 0.01)
            frames = np.stack([start, start + 0.01], 1)
            audio[video] = frames.mean(1, keepdims=True), frames
            spoken = np.flatnonzero(tokens[:, 0] != b"sp")
            first, last = intervals[spoken[10], 0], intervals[spoken[40], 1]
            labels[video] = -np.ones((1, 1)), [[first, last]]
            expected[video] = spoken[10:41] + 1, intervals[spoken[10:41]]
    write_sequence(tmp_path / "CMU_MOSI_TimestampedWordVectors.csd", "glove_vectors", text)
    write_sequence(tmp_path / "CMU_MOSI_COVAREP.csd", "COVAREP", audio)
    write_sequence(tmp_path / "CMU_MOSI_Visual_Facet_41.csd", "FACET_4.1", text)
    write_sequence(tmp_path / "CMU_MOSI_Opinion_Labels.csd", "Opinion Segment Labels", labels)
    write_folds(tmp_path, "mosi", {"train": videos[:52], "validation": videos[52:62], "test": videos[62:]})
    data = read(tmp_path)
    assert [len(batch) for batch in data.parts.values()] == [52, 10, 31]
    assert data.notes["silences left out"] == 8287
    assert data.notes["words without features, set to 0"] == {"text": 0, "audio": 0, "vision": 0}
    row = 0
    for batch in data.parts.values():
        for sample in range(len(batch)):
            numbers, intervals = expected[videos[row]]
            kept = batch.mask["text"][sample]
            assert batch.features["text"][sample, kept, 0].tolist() == numbers.tolist()
            times = batch.features["audio"][sample, kept, 0].numpy()
            np.testing.assert_allclose(times, intervals.mean(1), atol=0.0101)
            row += 1


@pytest.fixture
def mosei_labels(real_data: Path) -> pd.DataFrame:
    return pd.read_csv(real_data / "mosei" / "CMU_MOSEI_Labels.csv", index_col=0)


def test_real_mosei_labels_and_folds(mosei_labels):
    table = mosei_labels
    assert len(table) == 23259
    assert table.groupby("split").size().tolist() == [16327, 1871, 4662, 399]
    # the official lists name 678 test videos, two of which have no label
    assert table.groupby("split").file.nunique().tolist() == [2249, 300, 676, 68]
    videos = [set(group.file) for _, group in table.groupby("split")]
    assert not any(videos[i] & videos[j] for i in range(4) for j in range(i))
    test = table[table.split == 2]
    assert (test.label7 < 0).sum() == 1350
    assert (test.label7 >= 0).sum() == 3312
    assert ((test.label7 >= 0) == (test.label2a == 1)).all()


def test_real_mosei_labels_through_the_loader_give_the_published_majority(mosei_labels, tmp_path):
    """MMSA and MulT lack 1 training and 3 test segments; with these positive, 3309 of 4659 are non-negative."""
    features = {m: np.ones((1, 1), np.float32) for m in MODALITIES}
    parts = {}
    for code, (part, dropped) in enumerate({"train": 1, "validation": 0, "test": 3}.items()):
        rows = mosei_labels[mosei_labels.split == code]
        rows = rows.drop(rows.index[rows.label7 > 0][:dropped])
        parts[part] = [
            Sample(video, clip, float(score), features)
            for video, clip, score in zip(rows.file, rows["index"], rows.label7, strict=True)
        ]
    path = write_mmsa(tmp_path, "mosei", parts=parts, steps=dict.fromkeys(MODALITIES, 1))
    data = load_mosei(path)
    data.check()
    assert [len(batch) for batch in data.parts.values()] == [16326, 1871, 4659]
    assert int(data.test.label.sum()) == 3309
    assert round(data.majority_rate, 4) == 0.7102
    assert "videos in more than one part" not in data.notes
    groups = [set(batch.group.tolist()) for batch in data.parts.values()]
    assert [len(group) for group in groups] == [2249, 300, 676]
    signed = load_mosei(path, labels="positive")
    assert round(float(signed.test.label.float().mean()), 4) == round(2284 / 3634, 4) == 0.6285
    assert signed.notes["samples with sentiment 0 left out"] == {"train": 3538, "validation": 433, "test": 1025}
    seven = load_mosei(path, labels="seven")
    assert seven.test.label.bincount()[:4].tolist() == [156, 489, 705, 1025]
