"""UCF101: actions in 13,320 clips, as features of RGB frames and of optical flow."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vgmr.data.extract.clips import Files, Source, complete, digest_of, folder_of, note_counts, read_lines
from vgmr.data.extract.images import (
    Extractor,
    ImageNetwork,
    flow_input,
    numbered_images,
    read_images,
    read_video,
    rgb_input,
    spread,
)
from vgmr.data.types import Batch, MultimodalData, check_whole, fingerprint, holdout, is_count, is_list, pad
from vgmr.machine.files import user_path

MODALITIES = ("rgb", "flow")
CLASSES = 101
SIZES = {
    1: {"train": 9537, "test": 3783},
    2: {"train": 9586, "test": 3734},
    3: {"train": 9624, "test": 3696},
}
HELD_OUT = 0.1
LISTS = "https://www.crcv.ucf.edu/data/UCF101.php (UCF101TrainTestSplits-RecognitionTask.zip)"
MARKERS = ("ucfTrainTestlist/classInd.txt", "classInd.txt")
EXPECTED = f"classInd.txt, trainlist01.txt and testlist01.txt from {LISTS}"
CLIPS = (
    "https://www.crcv.ucf.edu/data/UCF101.php (Class/v_*.avi, rgb only) or "
    "https://github.com/feichtenhofer/twostreamfusion (jpegs_256 and tvl1_flow)"
)
PATH = re.compile(r"([^/]+)/(v_(.+)_g(\d+)_c\d+)\.avi")


@dataclass(frozen=True)
class Clip:
    """A line of an official list: the clip's name without ending, its class from 0, its group of recordings."""

    name: str
    label: int
    group: int


def load_ucf101(
    root: str | Path | None = None,
    split: int = 1,
    frames: int = 16,
    extractor: Extractor = None,
    modalities: Sequence[str] = MODALITIES,
    store: str | Path | None = None,
    allow_partial: bool = False,
) -> MultimodalData:
    """UCF101 by an official list: `rgb` and `flow`, (N, frames, D) each from a frozen image network.

    The frames are the middles of `frames` equal parts of the clip; shorter clips give all they have and are
    padded. Both modalities take the same moments: a clip has one flow image fewer than RGB frames, and its
    flow images count. Flow enters the network as u, v and magnitude in units of 10 pixels a frame. Features are
    stored once per clip, so a cut-off extraction goes on; the clips are not needed once all are stored, but the
    features of a clip that is changed later are made again.

    Classes are in the official order, `group` is the official group of recordings (1 to 25), which training and
    test never share. There is no official validation part: about a tenth of the training clips, whole groups.

    Args:
        root: folder with classInd.txt and the lists (there or in ucfTrainTestlist), and with
            jpegs_256/<clip>/frame000001.jpg and tvl1_flow/{u,v}/<clip>/frame000001.jpg, or <Class>/<clip>.avi
            (there or in UCF-101); None takes ucf101 in VGMR_DATA.
        split: 1, 2 or 3.
        frames: number of frames taken of a clip.
        extractor: see `vgmr.data.extract.images.ImageNetwork`; None takes torchvision's ResNet-18 (D = 512).
        modalities: ["rgb"] where only .avi files are at hand, which hold no flow.
        store: folder for the features; None takes `features` in the root.
        allow_partial: accept lists and copies that are not whole, and say so in `notes`.

    Raises:
        FileNotFoundError: missing lists, clips or flow images, with what is expected and where it comes from.
        ValueError: content that is not as documented, unknown options.
        ImportError: the default network needs torchvision; images need pillow, .avi files need av.
    """
    if not is_count(split) or split not in SIZES:
        raise ValueError(f"split must be 1, 2 or 3, got {split!r}")
    check_whole(1, frames=frames)
    known = is_list(modalities) and set(modalities) <= set(MODALITIES)
    if not known or not modalities or len(set(modalities)) < len(modalities):
        raise ValueError(f"modalities must be some of {list(MODALITIES)}, each once, got {modalities!r}")
    modalities = [name for name in MODALITIES if name in modalities]
    network = ImageNetwork(extractor)
    notes: dict[str, Any] = {"split": f"official list {split}", "extractor": network.name}
    folder, lists = _find_lists(root)
    classes, parts, raw = _read_lists(lists, split)
    if len(classes) != CLASSES and not allow_partial:
        raise ValueError(f"{lists / 'classInd.txt'}: expected {CLASSES} classes, got {len(classes)}")
    found = {part: len(clips) for part, clips in parts.items()}
    note_counts("ucf101", found, SIZES[split], allow_partial, notes)

    names = [clip.name for clips in parts.values() for clip in clips]
    place = folder / "features" if store is None else user_path(store)
    footage = _Footage(folder, place, frames, modalities, network)
    notes["layout"] = footage.layout
    sources = footage.sources()
    stored, missing, broken = complete("ucf101", names, sources, footage.lacking, CLIPS, allow_partial, notes)
    left_out = {*missing, *broken}
    parts = {part: [clip for clip in clips if clip.name not in left_out] for part, clips in parts.items()}
    for part, clips in parts.items():
        if not clips and broken:
            raise ValueError(f"ucf101: no clip of the {part} list can be read: {next(iter(broken.values()))}")
        if not clips:
            raise FileNotFoundError(f"ucf101: no clip of the {part} list is there; get them from {CLIPS}")

    clips = [clip for part in parts.values() for clip in part]
    features, mask, digests = {}, {}, []
    for modality in modalities:
        made = [stored[modality][clip.name] for clip in clips]
        features[modality], mask[modality] = pad([sequence for sequence, _ in made], frames)
        digests += [digest for _, digest in made]
    notes[f"clips shorter than {frames} frames"] = int((~mask[modalities[0]][:, -1]).sum())
    label, group = torch.tensor([clip.label for clip in clips]), torch.tensor([clip.group for clip in clips])
    whole = Batch(features, mask, label, group)
    training = torch.arange(len(parts["train"]))
    kept, held = holdout(label[training].numpy(), HELD_OUT, 0, group[training].numpy())
    if not len(kept):
        raise ValueError("ucf101: the training list holds one group only; a validation part needs another")
    return MultimodalData(
        "ucf101",
        whole.index(torch.from_numpy(kept)),
        whole.index(torch.from_numpy(held)),
        whole.index(torch.arange(len(training), len(clips))),
        classes=classes,
        source="Soomro, Zamir and Shah, UCF101, CRCV-TR-12-01, 2012; layout of frames and flow by Feichtenhofer, "
        "Pinz and Zisserman, CVPR 2016",
        licence="not stated",
        fingerprint=fingerprint(
            {
                "data": "ucf101",
                "version": 1,
                "split": split,
                "frames": frames,
                "extractor": network.name,
                "layout": footage.layout,
                "modalities": modalities,
                "clips": {part: [clip.name for clip in clips] for part, clips in parts.items()},
            },
            *raw,
            *digests,
        ),
        notes=notes,
        overlap="the published split is kept as it is",
    )


def _find_lists(root: str | Path | None) -> tuple[Path, Path]:
    """The data folder, and the folder of the lists in it."""
    try:
        folder = folder_of("ucf101", root, MARKERS[0], EXPECTED)
        return folder, folder / "ucfTrainTestlist"
    except FileNotFoundError:
        folder = folder_of("ucf101", root, MARKERS[1], EXPECTED)
        return folder, folder


def _read_lists(folder: Path, split: int) -> tuple[tuple[str, ...], dict[str, list[Clip]], list[bytes]]:
    """Class names in official order, part -> clips, and digests of the three files."""
    paths = [folder / name for name in ("classInd.txt", f"trainlist0{split}.txt", f"testlist0{split}.txt")]
    classes = read_classes(paths[0])
    parts = {"train": read_list(paths[1], classes, True), "test": read_list(paths[2], classes, False)}
    both = {clip.name for clip in parts["train"]} & {clip.name for clip in parts["test"]}
    if both:
        raise ValueError(f"{folder}: {len(both)} clips are in both lists of split {split}, such as {min(both)}")
    return classes, parts, [digest_of(path) for path in paths]


def read_classes(path: Path) -> tuple[str, ...]:
    """Class names in official order from classInd.txt, lines "1 ApplyEyeMakeup" numbered from 1.

    Raises ValueError and FileNotFoundError.
    """
    classes = []
    for row, line in enumerate(read_lines(path, f"expected from {LISTS}"), start=1):
        number, _, name = line.partition(" ")
        if number != str(row) or not name.strip():
            raise ValueError(f"{path}, line {row}: expected '{row} <class>', got {line[:60]!r}")
        classes.append(name.strip())
    if len({name.lower() for name in classes}) < len(classes):
        raise ValueError(f"{path}: a class is named twice")
    return tuple(classes)


def read_list(path: Path, classes: Sequence[str], labelled: bool) -> list[Clip]:
    """Clips of a list, lines "Class/v_Class_g01_c01.avi" with the label from 1 behind them in training lists.

    The class comes from the folder in the path; a label behind it must agree, and is required if `labelled`.
    Case is not regarded, since lists say Handstand where videos say HandStand.

    Raises ValueError and FileNotFoundError.
    """
    index = {name.lower(): label for label, name in enumerate(classes)}
    clips = []
    for row, line in enumerate(read_lines(path, f"expected from {LISTS}"), start=1):
        place, _, number = line.strip().partition(" ")
        match = PATH.fullmatch(place)
        if match is None or match[1].lower() not in index or match[3].lower() != match[1].lower():
            raise ValueError(f"{path}, line {row}: expected Class/v_Class_g01_c01.avi, got {line[:60]!r}")
        label = index[match[1].lower()]
        if number != str(label + 1) and (number or labelled):
            raise ValueError(f"{path}, line {row}: expected label {label + 1} for {match[1]}, got {number!r}")
        clips.append(Clip(match[2], label, int(match[4])))
    if not clips or len({clip.name.lower() for clip in clips}) < len(clips):
        raise ValueError(f"{path}: expected every clip once, got {'a repeated one' if clips else 'none'}")
    return clips


class _Footage:
    """Where the images or videos of clips are, and their features."""

    def __init__(
        self,
        folder: Path,
        store: Path,
        frames: int,
        modalities: Sequence[str],
        network: ImageNetwork,
    ) -> None:
        self.frames = frames
        self.modalities = modalities
        self.network = network
        self.images = {
            "rgb": _by_name(folder / "jpegs_256"),
            "u": _by_name(folder / "tvl1_flow" / "u"),
            "v": _by_name(folder / "tvl1_flow" / "v"),
        }
        self.videos = _videos(folder)
        moments = f"{frames}-flow" if "flow" in modalities else str(frames)
        stores = {layout: store / self.network.name / f"{layout}-{moments}" for layout in ("jpegs", "avi")}
        jpegs = self.images["rgb"] or self.images["u"] or stores["jpegs"].is_dir()
        self.layout = "avi" if not jpegs and (self.videos or stores["avi"].is_dir()) else "jpegs"
        self.store = stores[self.layout]
        flow = self.images["u"] or (self.store / "flow").is_dir()
        if "flow" in modalities and (self.layout == "avi" or not flow):
            raise FileNotFoundError(
                f"no flow images in {folder / 'tvl1_flow'}, and .avi files hold none; get them from "
                'https://github.com/feichtenhofer/twostreamfusion, or pass modalities=["rgb"]'
            )

    def sources(self) -> dict[str, Source]:
        """How to make the features of each modality."""
        files = {"rgb": self._rgb_files, "flow": self._flow_files}
        make = {"rgb": self._rgb, "flow": self._flow}
        return {name: Source(self.store / name, files[name], make[name]) for name in self.modalities}

    def lacking(self, name: str, _: Sequence[str] = ()) -> str:
        """What is wrong with the files of a clip, or an empty text."""
        if self.layout == "avi":
            return "" if name.lower() in self.videos else "no .avi file"
        needed = ["rgb"] * ("rgb" in self.modalities) + ["u", "v"] * ("flow" in self.modalities)
        counts = {}
        for kind in needed:
            numbers = list(self._images(kind, name))
            if not numbers:
                return f"no {kind} images"
            if numbers != list(range(1, len(numbers) + 1)):
                return f"{kind} images are not numbered 1 to {len(numbers)}"
            counts[kind] = len(numbers)
        if "u" in counts and (counts["u"] != counts["v"] or counts.get("rgb", counts["u"]) < counts["u"]):
            return "images " + ", ".join(f"{kind} {count}" for kind, count in counts.items())
        return ""

    def _images(self, kind: str, name: str) -> dict[int, Path]:
        folder = self.images[kind].get(name.lower())
        return {} if folder is None else numbered_images(folder, "frame")

    def _paths(self, kind: str, name: str) -> list[Path]:
        counted = "u" if "flow" in self.modalities else "rgb"
        images = list(self._images(kind, name).values())
        return [images[moment] for moment in spread(len(self._images(counted, name)), self.frames)]

    def _rgb_files(self, name: str) -> Files:
        if self.lacking(name):
            return []
        return self.videos[name.lower()] if self.layout == "avi" else self._paths("rgb", name)

    def _flow_files(self, name: str) -> Files:
        return [] if self.lacking(name) else [self._paths("u", name), self._paths("v", name)]

    def _rgb(self, name: str) -> tuple[np.ndarray, bytes]:
        if self.layout == "avi":
            images, digest = read_video(self.videos[name.lower()], self.frames)
        else:
            images, digest = read_images(self._paths("rgb", name))
        return self.network(rgb_input(images)), digest

    def _flow(self, name: str) -> tuple[np.ndarray, bytes]:
        u, first = read_images(self._paths("u", name), grey=True)
        v, second = read_images(self._paths("v", name), grey=True)
        return self.network(flow_input(u, v)), hashlib.sha256(first + second).digest()


def _by_name(folder: Path) -> dict[str, Path]:
    entries = folder.iterdir() if folder.is_dir() else ()
    return {entry.name.lower(): entry for entry in entries if not entry.name.startswith(".")}


def _videos(folder: Path) -> dict[str, Path]:
    """Lower-case name -> .avi file, in the folder or UCF-101 in it, flat or in folders of classes."""
    found: dict[str, Path] = {}
    for base in (folder, folder / "UCF-101"):
        for path in sorted([*base.glob("*.avi"), *base.glob("*/*.avi")]):
            if not path.name.startswith("."):
                found.setdefault(path.stem.lower(), path)
    return found
