"""The four open data sets on the real files: counts, disjoint parts, floors, refusals, mutated files."""

import hashlib
import io
import shutil
import wave
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.io import savemat
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from vgmr.data import avdigits, cremad_ratings, load, mosi_utterance, utd_mhad
from vgmr.data.avdigits import SPEAKERS, load_avdigits
from vgmr.data.cremad_ratings import load_cremad_ratings
from vgmr.data.extract.audio import log_mel
from vgmr.data.fetch import problems
from vgmr.data.mosi_utterance import load_mosi_utterance
from vgmr.data.utd_mhad import average, load_utd_mhad

LOADERS = {
    "avdigits": load_avdigits,
    "utd-mhad": load_utd_mhad,
    "mosi-utterance": load_mosi_utterance,
    "cremad-ratings": load_cremad_ratings,
}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    known = {}

    def remembered(signal, *arguments):
        key = (signal.tobytes(), arguments)
        if key not in known:
            known[key] = log_mel(signal, *arguments)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VGMR_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(avdigits, "log_mel", remembered)
        yield


def groups(data):
    return [set(part.group.tolist()) for part in data.parts.values()]


def disjoint(data):
    train, validation, test = groups(data)
    return not (train & validation or train & test or validation & test)


def steps(batch, names):
    """Real steps of the modalities side by side, one (T, d) array per sample."""
    return [
        np.concatenate([batch.features[name][row][batch.mask[name][row]].double().numpy() for name in names], 1)
        for row in range(len(batch))
    ]


def accuracy(data, pool, strength=1.0, with_validation=True, scale=True):
    """Test accuracy of logistic regression on what `pool` makes of a part."""
    parts = [data.train, data.validation] if with_validation else [data.train]
    x, y = np.concatenate([pool(part) for part in parts]), np.concatenate([part.label for part in parts])
    model = LogisticRegression(max_iter=500, C=strength)
    model = make_pipeline(StandardScaler(), model) if scale else model
    return model.fit(x, y).score(pool(data.test), data.test.label.numpy())


def over_time(names, *functions):
    return lambda part: np.array([np.concatenate([f(x, 0) for f in functions]) for x in steps(part, names)])


def windows(names, count):
    def pool(x):
        edges = np.linspace(0, len(x), count + 1).astype(int)
        return np.concatenate([x[a : max(a + 1, b)].mean(0) for a, b in pairwise(edges)])

    return lambda part: np.array([pool(x) for x in steps(part, names)])


def single(names):
    return lambda part: torch.cat([part.features[name][:, 0] for name in names], 1).numpy()


@pytest.mark.parametrize(
    ("module", "count"), [(avdigits, 3000), (utd_mhad, 1722), (mosi_utterance, 9), (cremad_ratings, 3)]
)
def test_checksums_cover_the_published_files(module, count, real_data):
    source = module.SOURCE
    assert len(source.files) == count
    assert problems(source, real_data / source.folder, content=True) == {}
    assert set(source.addresses) in (set(), set(source.files))
    assert all(address.startswith("https://") for address in source.addresses.values())


@pytest.mark.parametrize(
    ("name", "options", "sizes", "print_"),
    [
        ("avdigits", {}, (2400, 300, 300), "7e5b0e907dd2d846"),
        ("avdigits", {"split": "speakers"}, (2000, 500, 500), "55ba89da2d504de6"),
        ("utd-mhad", {}, (323, 108, 430), "974ec9d3d8e3712f"),
        ("utd-mhad", {"split": "shared"}, (324, 108, 429), "b4b84b0524dc4749"),
        ("mosi-utterance", {}, (1225, 222, 752), "4818fbc7f0929c0d"),
        ("mosi-utterance", {"split": "within-test"}, (447, 152, 153), "f89e4c46b86c11ff"),
        ("cremad-ratings", {}, (6028, 670, 744), "e5a02e44a3132bbc"),
        ("cremad-ratings", {"split": "actors"}, (5152, 738, 1552), "ace4fc6bed9c5310"),
    ],
)
def test_counts_and_fingerprints(name, options, sizes, print_, real_data):
    data = load(name, **options)
    data.check()
    assert tuple(len(part) for part in data.parts.values()) == sizes
    assert data.fingerprint[:16] == print_
    assert not data.stand_in and data.source and data.licence


def test_avdigits_official_split_is_by_index(real_data):
    data = load("avdigits")
    for part, count in zip(data.parts.values(), (400, 50, 50), strict=True):
        assert part.group.bincount().tolist() == [count] * 6
        assert part.label.bincount().tolist() == [count * 6 // 10] * 10
    assert data.dims == {"audio": 32, "image": 8}
    assert "share all speakers" in data.notes["warning"]


def test_avdigits_parts_share_no_image_and_pair_the_same_digit(real_data):
    from sklearn.datasets import load_digits

    images = load_digits()
    label_of = {}
    for image, digit in zip(images.images, images.target, strict=True):
        label_of.setdefault(image.astype(np.float32).tobytes(), set()).add(int(digit))
    data = load("avdigits", standardise=False)
    seen = []
    for part in data.parts.values():
        keys = [x.tobytes() for x in part.features["image"].numpy()]
        assert all(int(digit) in label_of[key] for key, digit in zip(keys, part.label, strict=True))
        seen.append(set(keys))
    assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])
    assert [len(keys) for keys in seen] == [1079, 300, 300]


def test_avdigits_pairing_is_drawn_by_the_seed(real_data):
    first, again, other = load("avdigits"), load("avdigits"), load("avdigits", seed=1)
    assert torch.equal(first.train.features["image"], again.train.features["image"])
    assert torch.equal(first.train.label, other.train.label)
    assert not torch.equal(first.train.features["image"], other.train.features["image"])
    assert first.fingerprint != other.fingerprint


def test_avdigits_floor_official(real_data):
    pool = over_time(["audio"], np.mean, np.std)
    assert accuracy(load("avdigits"), pool) == pytest.approx(0.93, abs=0.02)


@pytest.mark.parametrize("speaker", ["george", "theo"])
def test_avdigits_floor_of_unseen_speakers(speaker, real_data):
    data = load("avdigits", split="speakers", held_out_speakers=[speaker])
    assert disjoint(data)
    assert groups(data)[1:] == [{SPEAKERS.index("lucas")}, {SPEAKERS.index(speaker)}]
    assert 0.37 - 0.02 <= accuracy(data, over_time(["audio"], np.mean, np.std)) <= 0.80 + 0.02


def test_utd_mhad_subjects_and_steps(real_data):
    data = load("utd-mhad")
    assert groups(data) == [{1, 3, 5}, {7}, {2, 4, 6, 8}]
    assert data.dims == {"accelerometer": 3, "gyroscope": 3, "skeleton": 60}
    assert data.max_lengths == {"accelerometer": 55, "gyroscope": 55, "skeleton": 63}
    assert len(data.train) + len(data.validation) == 431 and len(data.test) == 430
    assert data.notes["clips without a partner"] == []
    whole = load("utd-mhad", inertial_stride=1, skeleton_stride=1, standardise=False)
    assert whole.max_lengths == {"accelerometer": 326, "gyroscope": 326, "skeleton": 125}
    hip = whole.test.features["skeleton"][:, 0, 9:12]
    assert hip.abs().max() == 0
    gravity = whole.train.features["accelerometer"][whole.train.mask["accelerometer"]].norm(dim=1).median()
    assert float(gravity) == pytest.approx(1.0, abs=0.1)


def test_utd_mhad_shared_split_has_the_sizes_of_the_other_and_all_subjects_everywhere(real_data):
    data, other = load("utd-mhad", split="shared"), load("utd-mhad", split="shared", seed=1)
    assert groups(data) == [set(range(1, 9))] * 3
    assert data.train.label.bincount(minlength=27).tolist() == [12] * 27
    assert len(data.train) + len(data.validation) + len(data.test) == 861
    assert data.fingerprint != other.fingerprint and "share all subjects" in data.notes["warning"]


def test_utd_mhad_floors(real_data):
    data = load("utd-mhad")
    inertial = ["accelerometer", "gyroscope"]
    assert accuracy(data, over_time(inertial, np.mean, np.std)) == pytest.approx(0.719, abs=0.02)
    assert accuracy(data, windows(["skeleton"], 8)) == pytest.approx(0.747, abs=0.02)

    def both(part):
        four = (np.mean, np.std, np.min, np.max)
        return np.concatenate([over_time(inertial, *four)(part), over_time(["skeleton"], *four)(part)], 1)

    assert accuracy(data, both) == pytest.approx(0.844, abs=0.02)


def test_average():
    x = np.arange(10.0).reshape(5, 2)
    np.testing.assert_array_equal(average(x, 2), [[1, 2], [5, 6], [8, 9]])
    np.testing.assert_array_equal(average(x, 1), x)
    np.testing.assert_array_equal(average(x, 9), [[4, 5]])


def test_mosi_videos(real_data):
    clean, inner = load("mosi-utterance"), load("mosi-utterance", split="within-test")
    assert disjoint(clean) and disjoint(inner)
    assert len(groups(clean)[0] | groups(clean)[1]) == 62 and len(groups(clean)[2]) == 31
    assert set.union(*groups(inner)) == groups(clean)[2]
    assert sum(len(part) for part in inner.parts.values()) == 752
    assert "far too good" in clean.notes["warning"] and "warning" not in inner.notes
    assert clean.majority_rate == pytest.approx(0.621, abs=5e-4)


def test_mosi_first_published_row(real_data):
    data = load("mosi-utterance", standardise=False)
    assert float(data.test.features["audio"][0, 0, 0]) == pytest.approx(211.09)
    assert float(data.test.features["text"][0, 0, 0]) == pytest.approx(-0.571784)
    assert int(data.test.group[0]) == 93


@pytest.mark.parametrize(
    ("names", "floor"),
    [(["text"], 0.757), (["audio"], 0.557), (["vision"], 0.515), (["text", "audio", "vision"], 0.767)],
)
def test_mosi_floors(names, floor, real_data):
    assert accuracy(load("mosi-utterance"), single(names), strength=0.01, scale=False) == pytest.approx(
        floor, abs=0.02
    )


def test_mosi_validation_is_as_contaminated_as_its_warning_says(real_data):
    data = load("mosi-utterance")
    by_validation = replace(data, test=data.validation)
    assert accuracy(by_validation, single(["text"]), 0.01, with_validation=False) > 0.95
    inner = load("mosi-utterance", split="within-test")
    by_validation = replace(inner, test=inner.validation)
    assert accuracy(by_validation, single(["text"]), 0.01, with_validation=False) < 0.85


def test_mosi_refuses_the_contaminated_split():
    with pytest.raises(ValueError, match="24 of the 31 official test videos") as error:
        load("mosi-utterance", split="official")
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="'clean' or 'within-test'"):
        load("mosi-utterance", split="other")


def test_cremad_actors(real_data):
    assert "share their actors" in load("cremad-ratings").notes["warning"]
    assert [len(part) for part in groups(load("cremad-ratings"))] == [91, 91, 91]
    for seed in range(3):
        data = load("cremad-ratings", split="actors", seed=seed)
        assert disjoint(data) and len(set.union(*groups(data))) == 91
        assert sum(len(part) for part in data.parts.values()) == 7442


@pytest.mark.parametrize(("names", "floor"), [(["voice"], 0.602), (["face"], 0.739), (["voice", "face"], 0.813)])
def test_cremad_floors(names, floor, real_data):
    assert accuracy(load("cremad-ratings"), single(names)) == pytest.approx(floor, abs=0.02)


def test_cremad_ratings_of_the_first_clip(real_data):
    data = load("cremad-ratings", standardise=False)
    x = torch.cat([part.features["voice"] for part in data.parts.values()])[:, 0]
    assert torch.allclose(x[:, :6].sum(1), torch.ones(len(x)))
    assert ((x[:, :6] == 0) <= (x[:, 6:] == 0)).all() and x.min() == 0 and x.max() <= 100
    first = torch.tensor([10 / 11, 1 / 11, 0, 0, 0, 0, 69.1, 98, 0, 0, 0, 0])
    assert (x - first).abs().amax(1).min() < 1e-5
    counts = {part: batch.label.bincount().tolist() for part, batch in data.parts.items()}
    assert counts["test"] == [114, 123, 140, 133, 129, 105]
    train = (data.train.label.bincount() + data.validation.label.bincount()).tolist()
    assert train == [973, 1148, 1131, 1138, 1142, 1166]


@pytest.mark.parametrize("name", LOADERS)
def test_a_changed_test_part_does_not_change_the_training_part(name, real_data):
    raw = load(name, standardise=False)
    features = {modality: x * 100 for modality, x in raw.test.features.items()}
    changed = replace(raw, test=replace(raw.test, features=features)).standardised()
    for modality, x in raw.standardised().train.features.items():
        assert torch.equal(x, changed.train.features[modality])


@pytest.mark.parametrize(("name", "module"), [("avdigits", avdigits), ("utd-mhad", utd_mhad)])
def test_missing_files_are_named(name, module, tmp_path):
    with pytest.raises(FileNotFoundError, match=f"no files of {name} .* from https://"):
        load(name, str(tmp_path))


def shrunk(real_data, folder, module, paths):
    source = module.SOURCE
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(real_data / source.folder / path, folder / path)
    return folder


def some_recordings():
    return [
        f"recordings/{digit}_{name}_{i}.wav" for digit in range(10) for name in SPEAKERS[:1] for i in (1, 6, 12)
    ]


def some_clips():
    return [
        f"{folder}/a{a}_s{s}_t1_{kind}.mat"
        for a in (1, 2)
        for s in (1, 2, 7)
        for folder, kind in (("Inertial", "inertial"), ("Skeleton", "skeleton"))
    ]


def test_a_part_of_the_recordings_needs_leave(real_data, tmp_path):
    folder = shrunk(real_data, tmp_path, avdigits, some_recordings())
    with pytest.raises(FileNotFoundError, match=r"2,970 of 3,000 files are not as published"):
        load_avdigits(folder)
    data = load_avdigits(folder, allow_partial=True)
    assert [len(part) for part in data.parts.values()] == [10, 10, 10] and "partial" in data.notes
    assert data.fingerprint != load_avdigits(real_data / avdigits.SOURCE.folder).fingerprint
    shutil.rmtree(folder / "recordings")
    shrunk(real_data, folder, avdigits, some_recordings()[:1])
    with pytest.raises(ValueError, match="no recordings for the"):
        load_avdigits(folder, allow_partial=True)


def test_a_clip_without_partner_is_named_and_left_out(real_data, tmp_path):
    folder = shrunk(real_data, tmp_path, utd_mhad, some_clips())
    (folder / "Inertial/a1_s1_t1_inertial.mat").unlink()
    with pytest.raises(FileNotFoundError, match="files are not as published"):
        load_utd_mhad(folder)
    data = load_utd_mhad(folder, allow_partial=True)
    assert data.notes["clips without a partner"] == ["a1_s1_t1"]
    assert [len(part) for part in data.parts.values()] == [1, 2, 2]


def sound(channels=1, width=2, rate=8000, frames=2000):
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(b"\1" * frames * channels * width)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no intact wav"),
        (b"version https://git-lfs.github.com/spec/v1\n", "no intact wav"),
        (sound()[:-10], "cut off"),
        (sound(frames=0), "cut off"),
        (sound(channels=2), "expected 1 channel"),
        (sound(rate=16000), "at 16000 Hz"),
        (sound(width=1), "of 8 bit"),
    ],
)
def test_wrong_recordings_are_refused(content, message, real_data, tmp_path):
    folder = shrunk(real_data, tmp_path, avdigits, some_recordings())
    (folder / some_recordings()[7]).write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        load_avdigits(folder, allow_partial=True)
    assert "\n" not in str(error.value)


def matlab(**arrays):
    buffer = io.BytesIO()
    savemat(buffer, arrays)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no intact MATLAB file"),
        (matlab(other=np.ones((150, 6))), "no intact MATLAB file"),
        (matlab(d_iner=np.ones((150, 6)))[:-300], "no intact MATLAB file"),
        (matlab(d_iner=np.ones((150, 5))), r"expected d_iner of numbers, \(T, 6\), got float64 \(150, 5\)"),
        (matlab(d_iner=np.ones((0, 6))), "expected d_iner"),
        (matlab(d_iner=np.full((150, 6), np.nan)), "NaN"),
        (matlab(d_iner=np.array(["x"])), "expected d_iner"),
    ],
)
def test_wrong_clips_are_refused(content, message, real_data, tmp_path):
    folder = shrunk(real_data, tmp_path, utd_mhad, some_clips())
    (folder / "Inertial/a1_s1_t1_inertial.mat").write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        load_utd_mhad(folder, allow_partial=True)
    assert "\n" not in str(error.value)


def rows(path, change):
    """Apply `change` to the lines of a csv file."""
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))


def assert_refused(load_it, folder, message):
    with pytest.raises(ValueError):
        load_it(folder)
    with pytest.raises(ValueError, match=message) as error:
        load_it(folder, allow_partial=True)
    assert "\n" not in str(error.value)


def cell(row, column, value):
    def change(lines):
        parts = lines[row].rstrip(b"\r\n").split(b",")
        parts[column] = value
        return [*lines[:row], b",".join(parts) + b"\n", *lines[row + 1 :]]

    return change


@pytest.mark.parametrize(
    ("path", "change", "message"),
    [
        ("text/text_train0.csv", lambda lines: lines[:-1], "1446 rows"),
        ("text/text_train0.csv", lambda lines: [*lines[:-1], lines[-1][:50]], "row 1447|no readable csv"),
        ("audio/audio_test0.csv", lambda lines: [b"1," + line for line in lines], "expected 74 columns, got 75"),
        ("audio/audio_test0.csv", cell(3, 5, b"nan"), "row 4, column 6"),
        ("audio/audio_test0.csv", cell(3, 5, b"inf"), "row 4, column 6"),
        ("video/video_test0.csv", cell(3, 5, b""), "row 4, column 6"),
        ("video/video_train0.csv", cell(2, 100, b"2"), "labels of 1 rows differ"),
        ("video/video_test0.csv", lambda lines: [*reversed(lines)], "labels of"),
        ("text_test.csv", cell(0, 0, b"9999"), "names row 9999"),
        ("text_test.csv", cell(0, 0, b"3"), "different row numbers"),
        ("text_test.csv", cell(0, 0, b"39"), "videos are in train and in test|labels of"),
        ("transcripts.csv", cell(0, -1, b'"2"'), "a label 0 or 1"),
        ("transcripts.csv", cell(0, -2, b'"1"'), "one to one"),
        ("transcripts.csv", lambda lines: lines[:100], "names row"),
        ("transcripts.csv", lambda lines: [], "no readable csv"),
    ],
)
def test_wrong_mosi_files_are_refused(path, change, message, real_data, tmp_path):
    folder = shrunk(real_data, tmp_path, mosi_utterance, mosi_utterance.FILES)
    rows(folder / path, change)
    assert_refused(load_mosi_utterance, folder, message)


@pytest.mark.parametrize(
    ("path", "change", "message"),
    [
        ("tabulatedVotes.csv", lambda lines: lines[:5000], "no ratings of|once for"),
        ("tabulatedVotes.csv", lambda lines: [*lines[:-1], lines[1]], "once for|no ratings"),
        ("tabulatedVotes.csv", cell(1, 1, b"5"), "row 2 does not add up"),
        ("tabulatedVotes.csv", cell(1, 1, b"-1"), "row 2 does not add up"),
        ("tabulatedVotes.csv", cell(1, 1, b"NA"), "row 2 holds a rating"),
        ("tabulatedVotes.csv", cell(1, 12, b"50"), "row 2 does not add up"),
        ("tabulatedVotes.csv", cell(1, 16, b"101"), "row 2 does not add up"),
        ("tabulatedVotes.csv", cell(0, 1, b"Z"), "columns A are missing"),
        ("train.csv", cell(0, 1, b"SAD"), "no clip of CREMA-D"),
        ("train.csv", lambda lines: [line + line for line in lines], "clips repeat"),
        ("train.csv", lambda lines: [b"1," + line for line in lines], "expected 2 columns"),
        ("test.csv", lambda lines: [b"version https://git-lfs.github.com/spec/v1\n"], "expected 2 columns"),
    ],
)
def test_wrong_cremad_files_are_refused(path, change, message, real_data, tmp_path):
    folder = shrunk(real_data, tmp_path, cremad_ratings, cremad_ratings.SOURCE.files)
    rows(folder / path, change)
    assert_refused(load_cremad_ratings, folder, message)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(draw=st.data())
def test_mutated_files_never_pass_unseen(draw, real_data, tmp_path):
    """Any change of a byte, or a cut, is refused in one line; with leave it is refused or a sound data set."""
    module, load_, paths = draw.draw(
        st.sampled_from(
            [
                (avdigits, load_avdigits, some_recordings()),
                (utd_mhad, load_utd_mhad, some_clips()),
                (cremad_ratings, load_cremad_ratings, list(cremad_ratings.SOURCE.files)),
            ]
        )
    )
    folder = tmp_path / hashlib.sha256(module.__name__.encode()).hexdigest()[:8]
    if not folder.exists():
        shrunk(real_data, folder, module, paths)
    path = folder / draw.draw(st.sampled_from(paths))
    original = path.read_bytes()
    position = draw.draw(st.integers(0, len(original) - 1))
    if draw.draw(st.booleans()):
        changed = original[:position]
    else:
        new = bytes([original[position] ^ draw.draw(st.integers(1, 255))])
        changed = original[:position] + new + original[position + 1 :]
    path.write_bytes(changed)
    try:
        with pytest.raises((ValueError, FileNotFoundError)) as error:
            load_(folder)
        assert "\n" not in str(error.value)
        try:
            data = load_(folder, allow_partial=True)
        except ValueError as refusal:
            assert "\n" not in str(refusal)
        else:
            data.check()
            assert "partial" in data.notes
    finally:
        path.write_bytes(original)


@pytest.mark.parametrize(
    ("name", "options", "line"),
    [
        ("mosi-utterance", {"seed": 0.5}, "seed must be a whole number of at least 0, got 0.5"),
        ("cremad-ratings", {"seed": "a"}, "seed must be a whole number of at least 0, got 'a'"),
        ("avdigits", {"seed": -1}, "seed must be a whole number of at least 0, got -1"),
        ("utd-mhad", {"split": "shared", "seed": None}, "seed must be a whole number of at least 0, got None"),
        ("utd-mhad", {"inertial_stride": "6"}, "inertial_stride must be a whole number of at least 1, got '6'"),
        ("utd-mhad", {"skeleton_stride": 1.5}, "skeleton_stride must be a whole number of at least 1, got 1.5"),
        ("utd-mhad", {"validation_subjects": 7}, r"validation_subjects must be a list such as \[7\], got 7"),
        ("avdigits", {"split": "random"}, "split must be"),
        ("avdigits", {"split": "speakers", "held_out_speakers": ["nobody"]}, "speakers are given as a list of"),
        ("avdigits", {"split": "speakers", "held_out_speakers": "theo"}, "speakers are given as a list of"),
        ("avdigits", {"split": "speakers", "held_out_speakers": ["lucas"]}, "share none"),
        ("avdigits", {"split": "speakers", "held_out_speakers": []}, "each name a speaker"),
        (
            "avdigits",
            {"split": "speakers", "held_out_speakers": sorted({*SPEAKERS} - {"lucas"})},
            "leave one",
        ),
        ("avdigits", {"held_out_speakers": ["lucas"]}, r"\['lucas'\] need split='speakers', got 'official'"),
        ("avdigits", {"validation_speakers": ["theo"], "fold": 1}, r"speakers \['theo'\] need split='speakers'"),
        ("avdigits", {"split": "speakers", "held_out_speakers": None}, "speakers are given as a list of"),
        ("utd-mhad", {"fold": 0, "validation_subjects": [1, 3]}, r"fold 0 stands in place of .* \[1, 3\]"),
        ("utd-mhad", {"validation_subjects": None}, r"must be a list such as \[7\], got None"),
        ("utd-mhad", {"validation_subjects": [[7]]}, r"must be a list such as \[7\], got \[\[7\]\]"),
        ("mosi-words", {"sentiment": "/nope"}, "sentiment is for labels .* got labels 'binary'; leave it out"),
        ("mosi-words", {"vectors": None}, "vectors must be 'glove', a file or an encoder, got None"),
        ("utd-mhad", {"inertial_stride": 0}, "at least 1"),
        ("utd-mhad", {"validation_subjects": (2,)}, "one to three of"),
        ("utd-mhad", {"validation_subjects": ()}, "one to three of"),
        ("utd-mhad", {"validation_subjects": (1, 3, 5, 7)}, "one to three of"),
        ("utd-mhad", {"split": "trials"}, "'subjects' or 'shared', got 'trials'"),
        ("mosi-words", {"longest": "50"}, "longest must be a whole number of at least 1, got '50'"),
        ("mosi-words", {"labels": ["binary"]}, r"labels must be one of binary, .*; got \['binary'\]"),
    ],
)
def test_impossible_options_are_refused_before_anything_is_read(name, options, line, tmp_path):
    with pytest.raises(ValueError, match=line):
        load(name, str(tmp_path), **options)


def test_clips_of_utd_mhad_without_a_partner_are_no_data(tmp_path):
    place = tmp_path / "Inertial" / "a1_s1_t1_inertial.mat"
    place.parent.mkdir()
    place.write_bytes(b"any")
    with pytest.raises(ValueError, match="no clip has an inertial and a skeleton file; get a complete copy"):
        load("utd-mhad", str(tmp_path), allow_partial=True)
