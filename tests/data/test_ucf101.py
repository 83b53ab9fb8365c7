"""UCF101: lists, layouts and traps on made files, and the real official lists."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_audio_visual import POINTER, UCF_CLASSES, StandIn, colours, write_image, write_ucf101, write_video

from vgmr.data.extract.images import ImageNetwork, spread
from vgmr.data.gated.ucf101 import SIZES, load_ucf101, read_classes, read_list

TRAIN = {8, 9, 10}


def load(root, **options):
    options = {"extractor": StandIn(), "allow_partial": True} | options
    data = load_ucf101(root, **options)
    data.check()
    return data


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("ucf101")
    write_ucf101(root)
    load(root)
    return root


@pytest.fixture(scope="module")
def truth(made):
    return load(made)


@pytest.fixture
def root(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "ucf101"))


def test_parts_labels_groups_and_padding(made):
    data = load(made, frames=6)
    assert data.classes == UCF_CLASSES
    assert data.classes != tuple(sorted(UCF_CLASSES, key=str.lower))
    assert [len(part) for part in data.parts.values()] == [8, 4, 8]
    assert data.test.label.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert data.test.group.tolist() == [1, 2] * 4
    assert set(data.train.group.tolist()) | set(data.validation.group.tolist()) == TRAIN
    assert not set(data.train.group.tolist()) & set(data.validation.group.tolist())
    assert data.modalities == ["rgb", "flow"]
    # five RGB frames are four flow images: four moments, the rest is padding
    assert data.train.mask["rgb"].equal(data.train.mask["flow"])
    assert data.train.lengths()["rgb"].tolist() == [4] * 8
    assert data.notes["clips shorter than 6 frames"] == 20
    assert "train 12, test 8" in data.notes["partial lists"]


def test_moments_and_values_that_reach_the_network(tmp_path):
    write_ucf101(tmp_path, length=9)
    name = "v_Archery_g01_c01"
    for step in range(1, 10):
        write_image(tmp_path / "jpegs_256" / name / f"frame{step:06d}.jpg", np.full((32, 40, 3), 20 * step))
    for step in range(1, 9):
        write_image(
            tmp_path / "tvl1_flow" / "u" / name / f"frame{step:06d}.jpg", np.full((32, 40), 51 + 10 * step)
        )
        write_image(tmp_path / "tvl1_flow" / "v" / name / f"frame{step:06d}.jpg", np.full((32, 40), 0))
    (tmp_path / "jpegs_256" / name / "Thumbs.db").write_bytes(b"x")
    data = load(tmp_path, frames=2, extractor=colours)
    # of eight flow images the middles of the two halves are the third and the seventh
    grey = torch.tensor([60.0, 140.0]) / 255
    expected = (grey[:, None] - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(data.test.features["rgb"][0], expected, atol=0.02, rtol=0)
    u = torch.tensor([81.0, 121.0]) / 255 * 40 - 20
    flow = torch.stack([u, torch.full((2,), -20.0), (u**2 + 400).sqrt()], 1) / 10
    torch.testing.assert_close(data.test.features["flow"][0], flow, atol=0.02, rtol=0)


def test_classes_can_be_told_apart_in_both_modalities(made):
    data = load(made, frames=4)
    for name, x in data.train.features.items():
        centre = torch.stack([x[data.train.label == label].mean((0, 1)) for label in range(4)])
        guess = torch.cdist(data.test.features[name].mean(1), centre).argmin(1)
        assert guess.equal(data.test.label), name


def test_stored_features_are_read_again_and_go_on_after_a_cut(root):
    network = StandIn()
    first = load(root, extractor=network)
    assert network.calls == 0
    name = ImageNetwork(network).name
    stored = sorted((root / "features" / name).glob("jpegs-16-flow/*/*.npy"))
    assert len(stored) == 40
    stored[0].write_bytes(stored[0].read_bytes()[:-1])
    stored[1].unlink()
    again = load(root, extractor=network)
    assert network.calls == 2
    assert again.fingerprint == first.fingerprint
    shutil.rmtree(root / "jpegs_256")
    shutil.rmtree(root / "tvl1_flow")
    for extractor in (network, name):
        assert load(root, extractor=extractor).fingerprint == first.fingerprint
    stored[1].unlink()
    stored[2].write_bytes(b"")
    with pytest.raises(FileNotFoundError, match="2 of 20 clips"):
        strict(root, extractor=name)


def strict(root, **options):
    """Loads with published sizes and classes replaced by the made ones, so that only clips can be missing."""
    import vgmr.data.gated.ucf101 as module

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SIZES", {1: {"train": 12, "test": 8}})
        patch.setattr(module, "CLASSES", 4)
        return load_ucf101(root, **({"extractor": StandIn()} | options))


def test_a_name_alone_cannot_extract(root):
    with pytest.raises(ValueError, match="not stored under the name 'nothing'"):
        load(root, extractor="nothing")


def test_other_folder_for_features(root, tmp_path):
    load(root, frames=3, store=tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere").is_dir()
    assert not list((root / "features").glob("*/jpegs-3*"))


def test_avi_gives_rgb_only(tmp_path):
    write_ucf101(tmp_path, layout="avi", length=7)
    with pytest.raises(FileNotFoundError, match=r"no flow images.*modalities=\[\"rgb\"\]"):
        load(tmp_path)
    data = load(tmp_path, modalities=["rgb"], frames=8)
    assert data.modalities == ["rgb"]
    assert data.train.lengths()["rgb"].tolist() == [7] * 8
    assert data.notes["layout"] == "avi"


@pytest.mark.parametrize("place", ["{name}.avi", "UCF-101/{kind}/{name}.avi"])
def test_avi_frames_in_flat_and_official_folders(tmp_path, place):
    write_ucf101(tmp_path, layout=None)
    for names in ((f"v_{kind}_g{group:02d}_c01" for kind in UCF_CLASSES) for group in (1, 2, 8, 9, 10)):
        for name in names:
            levels = np.broadcast_to(np.arange(20, 220, 40)[:, None, None, None], (5, 32, 48, 3))
            write_video(tmp_path / place.format(name=name, kind=name.split("_")[1]), levels.astype(np.uint8))
    data = load(tmp_path, modalities=["rgb"], frames=5, extractor=colours)
    grey = data.test.features["rgb"][0, :, 0] * 0.229 + 0.485
    torch.testing.assert_close(grey * 255, torch.arange(20.0, 220, 40), atol=6, rtol=0)


def test_partial_copy_is_named_refused_and_noted(root):
    shutil.rmtree(root / "features")
    shutil.rmtree(root / "jpegs_256" / "v_HandStandPushups_g01_c01")
    (root / "tvl1_flow" / "v" / "v_Archery_g08_c01" / "frame000004.jpg").unlink()
    (root / "jpegs_256" / "v_Archery_g09_c01" / "frame000003.jpg").unlink()
    with pytest.raises(FileNotFoundError) as refused:
        strict(root)
    message = str(refused.value)
    assert "3 of 20 clips" in message
    assert "v_HandstandPushups_g01_c01: no rgb images" in message
    assert "v_Archery_g08_c01: images rgb 5, u 4, v 3" in message
    assert "v_Archery_g09_c01: rgb images are not numbered 1 to 4" in message
    assert "\n" not in message
    data = load(root)
    assert "3 of 20 clips" in data.notes["partial copy"]
    assert len(data.train) + len(data.validation) == 10
    assert len(data.test) == 7


def test_whole_made_copy_needs_no_permission(root):
    assert "partial copy" not in strict(root).notes
    with pytest.raises(ValueError, match="expected 101 classes, got 4"):
        load_ucf101(root, extractor=StandIn())


def test_other_flow_folders_and_pointers_are_named(root):
    shutil.rmtree(root / "features")
    (root / "jpegs_256" / "v_Archery_g08_c01" / "frame000002.jpg").write_bytes(POINTER)
    with pytest.raises(ValueError, match="git lfs pull"):
        load(root)
    shutil.rmtree(root / "tvl1_flow")
    with pytest.raises(FileNotFoundError, match="no flow images"):
        load(root)
    shutil.rmtree(root / "jpegs_256")
    with pytest.raises(FileNotFoundError, match="20 of 20 clips"):
        load(root, modalities=["rgb"])


def test_fingerprint_follows_files_and_parameters(root):
    base = load(root).fingerprint
    assert load(root, modalities=["flow"]).fingerprint != base
    assert load(root, frames=3).fingerprint != base
    assert load(root, extractor=colours).fingerprint != base
    shutil.rmtree(root / "features")
    assert load(root).fingerprint == base
    shutil.rmtree(root / "features")
    write_image(root / "tvl1_flow" / "u" / "v_Archery_g08_c01" / "frame000002.jpg", np.zeros((40, 48)))
    assert load(root).fingerprint != base


@pytest.mark.parametrize("kind", ["jpegs_256", "tvl1_flow/v", "avi"])
def test_a_clip_that_is_changed_later_is_extracted_again(tmp_path, kind):
    clips = write_ucf101(tmp_path, layout="avi" if kind == "avi" else "jpegs", length=7)
    options = {"modalities": ["rgb"]} if kind == "avi" else {}
    network = StandIn()
    first = load(tmp_path, extractor=network, **options)
    calls, name = network.calls, clips["test"][1]
    if kind == "avi":
        write_video(tmp_path / "Archery" / f"{name}.avi", np.zeros((7, 40, 48, 3), np.uint8))
    else:
        write_image(tmp_path / kind / name / "frame000003.jpg", np.zeros((40, 48)))
    again = load(tmp_path, extractor=network, **options)
    assert network.calls == calls + 1 and again.fingerprint != first.fingerprint
    changed = [not again.test.features[m][1].equal(x[1]) for m, x in first.test.features.items()]
    assert changed == [True] if kind == "avi" else changed == [kind == "jpegs_256", kind != "jpegs_256"]
    assert again.test.features["rgb"][2:].equal(first.test.features["rgb"][2:])
    assert load(tmp_path, extractor=network, **options).fingerprint == again.fingerprint
    assert network.calls == calls + 1


@pytest.mark.parametrize(
    "options",
    [
        {"split": 4},
        {"frames": 0},
        {"modalities": []},
        {"modalities": "rgb"},
        {"modalities": None},
        {"modalities": [["rgb"]]},
        {"modalities": ["rgb", "sound"]},
        {"modalities": ["rgb", "rgb"]},
        {"extractor": 3},
        {"extractor": lambda images: images},
        {"extractor": "../up"},
    ],
)
def test_unknown_options_are_refused(made, options):
    with pytest.raises(ValueError, match=r"split|frames|modalities|extractor"):
        load(made, **options)


def test_missing_lists_say_what_is_expected(tmp_path, monkeypatch):
    monkeypatch.delenv("VGMR_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match=r"VGMR_DATA is not set; expected classInd\.txt.*crcv\.ucf\.edu"):
        load_ucf101()
    monkeypatch.setenv("VGMR_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"no classInd\.txt"):
        load_ucf101()
    write_ucf101(tmp_path / "ucf101")
    assert load(None).fingerprint == load(tmp_path).fingerprint
    (tmp_path / "ucf101" / "testlist01.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"testlist01\.txt; expected from"):
        load(None)


LINES = st.text(st.characters(codec="utf-8", exclude_characters="\n\r"), max_size=40) | st.sampled_from(
    [
        "Archery/v_Archery_g08_c01.avi 1",
        "Archery/v_Archery_g08_c02.avi 2",
        "Archery/v_Hammering_g08_c02.avi 1",
        "Knitting/v_Knitting_g08_c02.avi 5",
        "Archery/../v_Archery_g08_c02.avi 1",
        "Archery/v_Archery_g08_c02.avi",
        "5 Archery",
        "7 Knitting",
    ]
)


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(["classInd.txt", "trainlist01.txt", "testlist01.txt"]), line=LINES, at=st.integers(0, 7)
)
def test_garbage_in_lists_is_refused_or_harmless(made, truth, name, line, at):
    path = made / name
    original = path.read_bytes()
    lines = original.decode().splitlines()
    lines[min(at, len(lines) - 1)] = line
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    try:
        data = strict(made)
    except (ValueError, FileNotFoundError) as error:
        assert "\n" not in str(error)
    else:
        assert data.classes == truth.classes
        for part, batch in data.parts.items():
            assert batch.label.equal(truth.parts[part].label)
            assert batch.features["rgb"].equal(truth.parts[part].features["rgb"])
    finally:
        path.write_bytes(original)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(layout=st.sampled_from(["jpegs", "avi"]), share=st.floats(0, 0.97))
def test_cut_off_footage_is_refused(tmp_path_factory, layout, share):
    root = tmp_path_factory.mktemp("cut")
    write_ucf101(root, classes=("Archery",), layout=layout, test=(1,), train=(8, 9), length=3)
    path = next(iter(sorted(root.rglob("*.jpg" if layout == "jpegs" else "*.avi"))))
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ValueError, match="get it again") as refused:
        load(root, modalities=["rgb"])
    assert path.name in str(refused.value)
    assert "\n" not in str(refused.value)


def test_spread_takes_the_middles():
    assert spread(3, 5).tolist() == [0, 1, 2]
    assert spread(10, 2).tolist() == [2, 7]
    for length in range(1, 40):
        chosen = spread(length, 7)
        assert len(np.unique(chosen)) == min(length, 7)
        assert chosen.max() < length


def test_real_lists(real_data):
    folder = real_data / "ucf101"
    classes = read_classes(folder / "classInd.txt")
    assert len(classes) == 101
    assert classes[0] == "ApplyEyeMakeup"
    assert classes[100] == "YoYo"
    assert (classes.index("Hammering"), classes.index("HammerThrow")) == (34, 35)
    assert sorted(classes).index("Hammering") == 35
    assert (classes.index("JumpingJack"), classes.index("JumpRope")) == (46, 47)
    for split, sizes in SIZES.items():
        train = read_list(folder / f"trainlist0{split}.txt", classes, True)
        test = read_list(folder / f"testlist0{split}.txt", classes, False)
        assert {"train": len(train), "test": len(test)} == sizes
        assert {clip.group for clip in test} == set(range(7 * split - 6, 7 * split + 1))
        assert not {clip.group for clip in train} & {clip.group for clip in test}
        assert {clip.label for clip in train} == {clip.label for clip in test} == set(range(101))
        assert len({clip.name for clip in train + test}) == 13320
    labelled = read_list(folder / "testlist001_with_labels_DI-MML.txt", classes, True)
    assert labelled == read_list(folder / "testlist01.txt", classes, False)


def test_real_lists_without_clips(real_data):
    with pytest.raises(FileNotFoundError, match="no flow images"):
        load_ucf101(real_data / "ucf101", extractor=StandIn())
    with pytest.raises(FileNotFoundError, match=r"13,320 of 13,320 clips.*v_ApplyEyeMakeup_g08_c01"):
        load_ucf101(real_data / "ucf101", extractor=StandIn(), modalities=["rgb"], allow_partial=True)


def test_real_lists_with_planted_features(real_data, tmp_path):
    folder = tmp_path / "planted" / "jpegs-1" / "rgb"
    folder.mkdir(parents=True)
    classes = read_classes(real_data / "ucf101" / "classInd.txt")
    for name, labelled in (("trainlist01.txt", True), ("testlist01.txt", False)):
        for clip in read_list(real_data / "ucf101" / name, classes, labelled):
            with open(folder / f"{clip.name}.npy", "wb") as file:
                np.save(file, np.array([[clip.label, clip.group]], np.float32))
                file.write(bytes(32))
    data = load_ucf101(
        real_data / "ucf101",
        frames=1,
        extractor="planted",
        modalities=["rgb"],
        store=tmp_path,
        allow_partial=False,
    )
    data.check()
    assert not [key for key in data.notes if "partial" in key]
    assert len(data.train) + len(data.validation) == 9537
    assert len(data.test) == 3783
    assert 0.1 <= len(data.validation) / 9537 < 0.16
    groups = {part: set(batch.group.tolist()) for part, batch in data.parts.items()}
    assert sum(map(len, groups.values())) == 25
    for batch in data.parts.values():
        assert batch.features["rgb"][:, 0, 0].long().equal(batch.label)
        assert batch.features["rgb"][:, 0, 1].long().equal(batch.group)
        assert len(batch.label.unique()) == 101


def test_the_store_counts_from_home(root, truth, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert load(root, store="~/kept").fingerprint == truth.fingerprint
    assert list((tmp_path / "kept").rglob("*.npy")) and not (tmp_path / "~").exists()
    for options, line in (
        ({"split": [1]}, "split must be 1, 2 or 3"),
        ({"frames": 2.5}, r"frames must be a whole number of at least 1, got 2\.5"),
    ):
        with pytest.raises(ValueError, match=line):
            load(root, **options)
