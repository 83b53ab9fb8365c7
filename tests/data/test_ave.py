"""AVE: annotations, splits, leaks and feature files on made files, and the real lists."""

import re
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_audio_visual import AVE_CLASSES, POINTER, ave_orders, ave_rows, write_ave, write_hdf5

import vgmr.data.gated.ave as module
from vgmr.data.gated.ave import CLASSES, ROWS, SIZES, load_ave, read_annotations, read_order, read_parts

AUDIO, VISUAL = (10, 5), (10, 2, 3, 6)
REAL = (
    "Annotations.txt",
    *(f"{part}{end}" for part in ("train", "val", "test") for end in ("_order.h5", "Set.txt")),
)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(module, "AUDIO", AUDIO)
    monkeypatch.setattr(module, "VISUAL", VISUAL)


def load(root, **options):
    data = load_ave(root, **({"allow_partial": True} | options))
    data.check()
    return data


def write(root, **options):
    return write_ave(root, audio=AUDIO[1:], visual=VISUAL[1:], **options)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("ave")
    write(root)
    return root


@pytest.fixture
def root(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "ave"))


def test_features_are_cut_to_the_event_and_the_grid_is_averaged(tmp_path):
    rows, orders = ave_rows(), ave_orders()
    heard, seen = write(tmp_path)
    data = load(tmp_path)
    kept = orders["test"]
    assert len(data.test) == len(kept)
    for place, row in enumerate(kept):
        start, end = rows[row][3:]
        for name, raw in (("audio", heard), ("visual", seen.astype(np.float64).mean((2, 3)))):
            x, mask = data.test.features[name][place], data.test.mask[name][place]
            np.testing.assert_allclose(x[: end - start], raw[row, start:end], atol=1e-6)
            assert mask.tolist() == [True] * (end - start) + [False] * (10 - end + start)
            assert not x[end - start :].any()
        assert data.classes[data.test.label[place]] == rows[row][0]
    assert data.dims == {"audio": 5, "visual": 6}
    assert data.classes == AVE_CLASSES


def test_leaks_leave_training_and_validation_only(made):
    dropped, kept = load(made), load(made, duplicates="keep")
    assert [len(part) for part in kept.parts.values()] == [27, 10, 10]
    assert len(dropped.train) == len(kept.train) - 1
    assert len(dropped.validation) == len(kept.validation) - 1
    assert dropped.test.features["audio"].equal(kept.test.features["audio"])
    assert dropped.notes["train rows left out, their video is in test"] == 1
    assert dropped.notes["validation rows left out, their video is in train"] == 1
    assert dropped.notes["validation rows left out, their video is in test"] == 0
    assert dropped.notes["train rows kept that repeat a train video with another class"] == 1
    assert dropped.notes["events without length, left out"] == 1
    groups = [set(part.group.tolist()) for part in dropped.parts.values()]
    assert len(set.union(*groups)) == sum(map(len, groups))
    leaking = [set(part.group.tolist()) for part in kept.parts.values()]
    assert len(set.union(*leaking)) == sum(map(len, leaking)) - 2
    assert dropped.fingerprint != kept.fingerprint


def test_header_order_files_and_set_files_say_the_same(made, tmp_path):
    truth = load(made)
    write(tmp_path / "header", header=True)
    write(tmp_path / "orders", sets=False)
    shutil.copytree(made, tmp_path / "sets")
    for part in ("train", "val", "test"):
        (tmp_path / "sets" / f"{part}_order.h5").unlink()
    for name in ("header", "orders", "sets"):
        data = load(tmp_path / name)
        assert data.fingerprint == truth.fingerprint
        assert data.train.features["visual"].equal(truth.train.features["visual"])


def test_a_set_file_may_lack_the_event_without_length(root):
    lines = (root / "trainSet.txt").read_text().splitlines(keepends=True)
    shorter = [line for line in lines if not line.endswith("&0&0\n")]
    assert len(shorter) == len(lines) - 1
    (root / "trainSet.txt").write_text("".join(shorter))
    truth = load(root)
    for part in ("train", "val", "test"):
        (root / f"{part}_order.h5").unlink()
    data = load(root)
    assert data.train.features["audio"].equal(truth.train.features["audio"])
    assert f"train {len(ave_orders()['train'])}" in data.notes["partial lists"]


@pytest.mark.parametrize("name", ["audio_feature.h5", "labels.h5"])
def test_a_folder_in_place_of_a_file_is_named(root, name):
    (root / name).unlink(missing_ok=True)
    (root / name).mkdir()
    with pytest.raises(ValueError, match=rf"{name}: expected a file, got a folder"):
        load(root)


def test_disagreeing_files_are_refused(root):
    lines = (root / "testSet.txt").read_text().splitlines(keepends=True)
    (root / "testSet.txt").write_text("".join(lines[::-1]))
    with pytest.raises(ValueError, match=r"test_order\.h5 and testSet\.txt name different events"):
        load(root)
    (root / "testSet.txt").write_text("Bark&nobody&good&0&3\n")
    with pytest.raises(ValueError, match=r"1 events are not in Annotations\.txt: Bark&nobody"):
        load(root)
    (root / "testSet.txt").unlink()
    write_hdf5(root / "test_order.h5", "order", np.array([0, 4]))
    (root / "trainSet.txt").unlink()
    write_hdf5(root / "train_order.h5", "order", np.array([4, 5]))
    with pytest.raises(ValueError, match="stands twice"):
        load(root)


def test_published_counts_are_demanded(made):
    with pytest.raises(
        ValueError, match=r"rows 48, classes 4, train .* published are rows 4,143, classes 28"
    ) as refused:
        load_ave(made)
    assert "\n" not in str(refused.value)


def test_labels_file_in_another_order_is_refused(root):
    with h5py.File(root / "labels.h5", "r+") as file:
        file["avadataset"][3] = np.eye(5)[0]
    assert load(root).notes["rows of labels.h5 that differ from the annotations"] == 1
    with h5py.File(root / "labels.h5", "r+") as file:
        file["avadataset"][:] = file["avadataset"][:][::-1]
    with pytest.raises(ValueError, match="in another order"):
        load(root)
    (root / "labels.h5").unlink()
    load(root)


@pytest.mark.parametrize("name", ["audio_feature.h5", "visual_feature.h5", "Annotations.txt"])
def test_missing_files_and_pointers_are_named(root, name):
    (root / name).write_bytes(POINTER)
    with pytest.raises(ValueError, match=f"{name}.*git lfs pull"):
        load(root)
    (root / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"{name}.*YapengTian"):
        load(root)


def test_no_split_files_and_no_root(root, monkeypatch):
    for path in (*root.glob("*_order.h5"), *root.glob("*Set.txt")):
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"no train_order\.h5 or trainSet\.txt"):
        load(root)
    monkeypatch.delenv("VGMR_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="no root for ave"):
        load(None)
    with pytest.raises(ValueError, match="duplicates must be"):
        load(root, duplicates="some")


def test_published_shapes(tmp_path, monkeypatch):
    monkeypatch.undo()
    assert (module.AUDIO, module.VISUAL) == ((10, 128), (10, 7, 7, 512))
    rows = [(AVE_CLASSES[row % 2], f"v{row}", "good", 0, 10) for row in range(6)]
    write_ave(tmp_path, rows, {"train": [0, 1], "val": [2, 3], "test": [4, 5]})
    assert load(tmp_path).dims == {"audio": 128, "visual": 512}
    with pytest.raises(ValueError, match="expected Category"):
        monkeypatch.setattr(module, "read_lines", lambda *_: ["Male speech, man speaking,x,good,0,10"])
        load(tmp_path)


def test_grid_is_read_in_pieces(root, monkeypatch):
    sizes = []
    original = module._values
    monkeypatch.setattr(module, "_values", lambda *given: sizes.append(len(x := original(*given))) or x)
    load(root)
    assert max(size for size in sizes if size != len(ave_orders()["train"]) and size != 48) == module.CHUNK


MUTATIONS = {
    "cut off": lambda path, _: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "last byte lost": lambda path, _: path.write_bytes(path.read_bytes()[:-1]),
    "empty": lambda path, _: path.write_bytes(b""),
    "text": lambda path, _: path.write_bytes(b"<html>quota exceeded</html>\n"),
    "other key": lambda path, x: write_hdf5(path, "dataset", x),
    "group": lambda path, x: write_hdf5(path, "order/avadataset/x", x),
    "fewer rows": lambda path, x: write_hdf5(path, KEYS[path.name], x[:-1]),
    "more rows": lambda path, x: write_hdf5(path, KEYS[path.name], np.concatenate([x, x[:1]])),
    "turned": lambda path, x: write_hdf5(path, KEYS[path.name], np.moveaxis(x, -1, 0)),
    "flat": lambda path, x: write_hdf5(path, KEYS[path.name], x.reshape(-1, 1)),
    "strings": lambda path, x: write_hdf5(path, KEYS[path.name], x.astype("S8")),
    "not finite": lambda path, x: write_hdf5(path, KEYS[path.name], np.where(x == x.flat[3], np.nan, x)),
    "infinite in float32": lambda path, x: write_hdf5(
        path, KEYS[path.name], np.where(x == x.flat[3], 1e300, x.astype(float))
    ),
    "big-endian": lambda path, x: write_hdf5(path, KEYS[path.name], x.astype(x.dtype.newbyteorder(">"))),
    "chunked": lambda path, x: write_hdf5(path, KEYS[path.name], x, compression="gzip", shuffle=True),
    "beyond the end": lambda path, x: write_hdf5(path, KEYS[path.name], x + 4000),
    "negative": lambda path, x: write_hdf5(path, KEYS[path.name], -1 - np.abs(x)),
}
HARMLESS = {"big-endian", "chunked"}
KEYS = {f"{part}_order.h5": "order" for part in ("train", "val", "test")}
KEYS |= {"audio_feature.h5": "avadataset", "visual_feature.h5": "avadataset", "labels.h5": "avadataset"}


def outcome(root, truth):
    """Whether the data are as before; a refusal must be one line of the two documented kinds."""
    try:
        data = load(root)
    except (ValueError, FileNotFoundError) as error:
        assert type(error) in (ValueError, FileNotFoundError)
        assert "\n" not in str(error)
        assert str(root) in str(error)
        return False
    for part, batch in data.parts.items():
        assert batch.label.equal(truth.parts[part].label)
        for name, x in batch.features.items():
            assert x.equal(truth.parts[part].features[name])
    assert data.fingerprint == truth.fingerprint
    return True


def truth_events(root):
    return module.read_annotations(root / "Annotations.txt")


@settings(max_examples=120, deadline=None)
@given(name=st.sampled_from(sorted(KEYS)), mutation=st.sampled_from(sorted(MUTATIONS)))
def test_changed_hdf5_files_are_refused_or_harmless(tmp_path_factory, made, name, mutation):
    root = tmp_path_factory.getbasetemp() / "changed"
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(made, root)
    truth = load(made)
    with h5py.File(root / name) as file:
        values = file[KEYS[name]][:]
    if mutation in ("beyond the end", "negative") and "order" not in name:
        return
    MUTATIONS[mutation](root / name, values)
    if "feature" in name and mutation in ("not finite", "infinite in float32"):
        video = truth_events(made)[0].video
        data = load(root)
        line = rf"1 of \d+ clips .*: {re.escape(video)}: .*{re.escape(name)}: row 0 holds NaN or infinite"
        assert re.search(line, data.notes["partial copy"])
        sizes = [[len(batch) for batch in x.parts.values()] for x in (data, truth)]
        assert sum(sizes[1]) - sum(sizes[0]) in (0, 1)
        assert data.fingerprint != truth.fingerprint
        with pytest.raises(ValueError, match=f"{re.escape(name)}: row 0 holds NaN or infinite"):
            module._read_features(root / name, len(values), values.shape[1:], {})
        return
    # a label file may hold any numbers: only the largest counts
    if name != "labels.h5" or mutation not in ("not finite", "infinite in float32"):
        if mutation == "turned" and values.ndim == 1:
            assert outcome(root, truth)
        else:
            assert outcome(root, truth) == (mutation in HARMLESS)


LINES = st.text(st.characters(codec="utf-8", exclude_characters="\n\r"), max_size=30) | st.sampled_from(
    [
        "Bark&v-030&good&0&11",
        "Bark&v-030&good&5&2",
        "Bark&v-030&good&0",
        "Bark&v-030&good&-1&2",
        "Bark&v-030&good&0.5&2",
        "Bark,v-030,good,0,2",
        "&v-030&good&0&2",
        "Category&VideoID&Quality&StartTime&EndTime",
        "Bark&v-007&good&0&10",
    ]
)


@settings(max_examples=80, deadline=None)
@given(name=st.sampled_from(["Annotations.txt", "trainSet.txt", "testSet.txt"]), line=LINES, at=st.integers(0, 60))
def test_garbage_lines_are_refused_or_harmless(tmp_path_factory, made, name, line, at):
    root = tmp_path_factory.getbasetemp() / "garbage"
    if not root.exists():
        shutil.copytree(made, root)
    original = (made / name).read_text()
    lines = original.splitlines()
    (root / name).write_text("\n".join([*lines[:at], line, *lines[at:]]) + "\n", encoding="utf-8")
    harmless = outcome(root, load(made))
    (root / name).write_text(original)
    assert harmless == (not line.strip() or (at == 0 and line.startswith("Category")))


def test_real_annotations(real_data):
    folder = real_data / "ave"
    events = read_annotations(folder / "Annotations.txt")
    assert events == read_annotations(folder / "Annotations_with_header_DG-SCT.txt")
    assert len(events) == ROWS
    assert len({event.video for event in events}) == 4097
    assert [event.video for event in events if event.start == event.end] == ["VWi2ENBuTbw"]
    classes = list(dict.fromkeys(event.category for event in events))
    assert classes == (folder / "categories.txt").read_text().splitlines()
    assert (len(classes), classes[0], classes[1], classes[27]) == (
        CLASSES,
        "Church bell",
        "Male speech, man speaking",
        "Mandolin",
    )
    with h5py.File(folder / "mil_labels.h5") as file:
        assert file["avadataset"][:].argmax(1).tolist() == [classes.index(event.category) for event in events]
    with h5py.File(folder / "labels_closs.h5") as file:
        inside = [[event.start <= second < event.end for second in range(10)] for event in events]
        np.testing.assert_array_equal(file["avadataset"][:] == 1, inside)


def test_real_orders_and_sets(real_data, tmp_path):
    folder = real_data / "ave"
    events = read_annotations(folder / "Annotations.txt")
    both = read_parts(folder, events)
    assert {part: len(rows) for part, rows in both.items()} == SIZES
    for name in REAL:
        if name.endswith(".txt"):
            shutil.copy(folder / name, tmp_path / name)
    from_sets = read_parts(tmp_path, events)
    for part, rows in both.items():
        np.testing.assert_array_equal(rows, from_sets[part])
    np.testing.assert_array_equal(np.sort(np.concatenate(list(both.values()))), np.arange(ROWS))
    with pytest.raises(ValueError, match="expected different rows of the 4,000 annotations"):
        read_order(folder / "train_order.h5", 4000)


def test_real_lists_with_planted_features(real_data, tmp_path, monkeypatch):
    for name in REAL:
        shutil.copy(real_data / "ave" / name, tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"audio_feature\.h5"):
        load_ave(tmp_path)
    monkeypatch.setattr(module, "AUDIO", (10, 2))
    monkeypatch.setattr(module, "VISUAL", (10, 1, 2, 2))
    row, second = np.meshgrid(np.arange(ROWS), np.arange(10), indexing="ij")
    planted = np.stack([row, second], 2).astype(np.float64)
    write_hdf5(tmp_path / "audio_feature.h5", "avadataset", planted.astype(np.float32))
    write_hdf5(tmp_path / "visual_feature.h5", "avadataset", planted[:, :, None, None] + np.array([[-1.0], [1.0]]))
    data = load(tmp_path, allow_partial=False)
    assert [len(part) for part in data.parts.values()] == [3338 - 9, 402 - 10, 402]
    assert data.notes["train rows left out, their video is in test"] == 9
    assert data.notes["validation rows left out, their video is in train"] == 10
    assert "partial lists" not in data.notes
    kept = load(tmp_path, duplicates="keep", allow_partial=False)
    assert [len(part) for part in kept.parts.values()] == [3338, 402, 402]
    with h5py.File(tmp_path / "test_order.h5") as file:
        order = file["order"][:]
    events = read_annotations(tmp_path / "Annotations.txt")
    x = data.test.features["visual"]
    assert x.equal(data.test.features["audio"])
    assert x[:, 0, 0].long().tolist() == order.tolist()
    assert x[:, 0, 1].long().tolist() == [events[i].start for i in order]
    assert data.test.lengths()["audio"].tolist() == [events[i].end - events[i].start for i in order]
    assert [data.classes[label] for label in data.test.label] == [events[i].category for i in order]
    assert torch.equal(data.test.features["audio"], kept.test.features["audio"])


def test_real_small_feature_files(real_data):
    with module._dataset(real_data / "ave" / "audio_feature_noisy.h5", "avadataset") as data:
        assert data.shape == (178, 10, 128)
    with pytest.raises(ValueError, match=r"expected floating point of shape \(4143, 10, 128\)"):
        module._read_features(real_data / "ave" / "audio_feature_noisy.h5", ROWS, (10, 128), {})
    pooled = module._read_features(real_data / "ave" / "audio_feature_noisy.h5", 178, (10, 128), {})
    assert pooled.dtype == np.float32
    assert pooled.std() > 0
