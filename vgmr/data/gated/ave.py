"""AVE: 28 classes of audio-visual events in 4,143 ten-second clips, as the published audio and visual features."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from vgmr.data.extract.clips import POINTER, folder_of, message_of, note_counts, note_missing, read_lines, read_raw
from vgmr.data.types import Batch, MultimodalData, fingerprint, pad

ROWS = 4143
CLASSES = 28
SIZES = {"train": 3339, "validation": 402, "test": 402}
FILES = {"train": "train", "validation": "val", "test": "test"}
SECONDS = 10
AUDIO = (SECONDS, 128)
VISUAL = (SECONDS, 7, 7, 512)
CHUNK = 16
SOURCE = "https://github.com/YapengTian/AVE-ECCV18"
MARKERS = ("Annotations.txt",)
EXPECTED = f"Annotations.txt, audio_feature.h5, visual_feature.h5 and train_order.h5 from {SOURCE}"


@dataclass(frozen=True)
class Event:
    """A row of the annotations: class name, video id, and the seconds [start, end) of the event."""

    category: str
    video: str
    start: int
    end: int


def load_ave(
    root: str | Path | None = None, duplicates: str = "drop", allow_partial: bool = False
) -> MultimodalData:
    """AVE as classification of events: audio (N, 10, 128) VGGish and visual (N, 10, 512) VGG-19, official split.

    A step is a second. Both modalities hold the seconds [start, end) of the annotation, moved to the front; the
    7 x 7 grid of the visual features is averaged, read in pieces so that the 7.7 GB never lie in memory.
    Classes are in the order of their first appearance in the annotations. `group` is the video.

    The official split leaks: 46 videos are annotated twice, each time with another class, and some of them are in
    two parts, so that a model has seen a test video with another label. By default such rows leave the part that
    is trained or selected on: training and validation rows whose video is in the test part, then validation rows
    whose video is in the training part. The test part is never changed. The one event without length
    (Church bell, VWi2ENBuTbw, 0 to 0) has no second to show and is always left out; `notes` counts both.

    Args:
        root: folder with Annotations.txt (with or without header), audio_feature.h5, visual_feature.h5, and
            {train,val,test}_order.h5 or {train,val,test}Set.txt or both; labels.h5 is compared where it is
            there. None takes ave in VGMR_DATA.
        duplicates: "drop", or "keep" for the leaking official split of the literature.
        allow_partial: accept other numbers of rows than the published 4,143 and 3,339/402/402.

    Raises:
        FileNotFoundError: a missing file, with what is expected and where it comes from.
        ValueError: content that is not as documented or files that disagree, a partial copy, unknown options.
    """
    if duplicates not in ("drop", "keep"):
        raise ValueError(f"duplicates must be 'drop' or 'keep', got {duplicates!r}")
    folder = folder_of("ave", root, MARKERS[0], EXPECTED)
    notes: dict[str, Any] = {"duplicates": duplicates}
    events = read_annotations(folder / "Annotations.txt")
    classes = tuple(dict.fromkeys(event.category for event in events))
    parts = read_parts(folder, events)
    _check_published(events, classes, parts, allow_partial, notes)
    length = np.array([event.end - event.start for event in events])
    notes["events without length, left out"] = int((length == 0).sum())
    parts = {part: rows[length[rows] > 0] for part, rows in parts.items()}
    if duplicates == "drop":
        parts = _without_leaks(events, parts, notes)
    for part, rows in parts.items():
        if not len(rows):
            raise ValueError(f"ave: the {part} part is empty")
    digests: dict[str, bytes] = {}
    broken: dict[int, str] | None = {} if allow_partial else None
    features = {
        "audio": _read_features(folder / "audio_feature.h5", len(events), AUDIO, digests, broken),
        "visual": _read_features(folder / "visual_feature.h5", len(events), VISUAL, digests, broken),
    }
    if broken:
        named = [f"{events[row].video}: {problem}" for row, problem in sorted(broken.items())]
        note_missing("ave", named, len(events), SOURCE, allow_partial, notes)
        parts = {part: rows[~np.isin(rows, list(broken))] for part, rows in parts.items()}
        for part, rows in parts.items():
            if not len(rows):
                raise ValueError(f"ave: no event of the {part} part can be read: {named[0]}")
    _compare_labels(folder / "labels.h5", events, classes, notes)

    videos = {video: number for number, video in enumerate(dict.fromkeys(event.video for event in events))}
    batches: dict[str, Any] = {}
    for part, rows in parts.items():
        chosen = [events[row] for row in rows]
        padded = {
            name: pad([x[row, event.start : event.end] for row, event in zip(rows, chosen, strict=True)], SECONDS)
            for name, x in features.items()
        }
        batches[part] = Batch(
            {name: x for name, (x, _) in padded.items()},
            {name: mask for name, (_, mask) in padded.items()},
            torch.tensor([classes.index(event.category) for event in chosen]),
            torch.tensor([videos[event.video] for event in chosen]),
        )
    return MultimodalData(
        "ave",
        **batches,
        classes=classes,
        source=f"Tian, Shi, Li, Duan and Xu, Audio-Visual Event Localization, ECCV 2018, {SOURCE}",
        licence="not stated",
        fingerprint=fingerprint(
            {
                "data": "ave",
                "version": 1,
                "duplicates": duplicates,
                "events": [[event.category, event.video, event.start, event.end] for event in events],
            },
            *(parts[part] for part in SIZES),
            *digests.values(),
        ),
        notes=notes,
        overlap="the published split is kept as it is",
    )


def read_annotations(path: Path) -> list[Event]:
    """Rows of an annotation or set file, `Category&VideoID&Quality&Start&End`, with or without a header line.

    Raises ValueError naming the line that is not of this form, and FileNotFoundError.
    """
    lines = read_lines(path, f"expected from {SOURCE}")
    header = bool(lines) and [field.lower() for field in lines[0].split("&")[:2]] == ["category", "videoid"]
    events = []
    for row, line in enumerate(lines[header:], start=1 + header):
        fields = line.strip().split("&")
        numbers = fields[3:] if all(field.isdecimal() for field in fields[3:]) else []
        if len(fields) != 5 or not all(fields) or not numbers:
            raise ValueError(f"{path}, line {row}: expected Category&VideoID&Quality&Start&End, got {line[:60]!r}")
        event = Event(fields[0], fields[1], int(fields[3]), int(fields[4]))
        if not event.start <= event.end <= SECONDS:
            raise ValueError(f"{path}, line {row}: expected seconds start <= end <= {SECONDS}, got {line[:60]!r}")
        events.append(event)
    if len(set(events)) < len(events) or not events:
        raise ValueError(f"{path}: expected every event once, got {'a repeated row' if events else 'none'}")
    return events


def read_parts(folder: Path, events: Sequence[Event]) -> dict[str, np.ndarray]:
    """Part -> rows of the annotations (N,) int64, from the order files, the set files or, if they agree, both.

    A set file may lack events without length. Raises ValueError and FileNotFoundError.
    """
    parts = {}
    for part, prefix in FILES.items():
        order_path, set_path = folder / f"{prefix}_order.h5", folder / f"{prefix}Set.txt"
        found = [read_order(order_path, len(events))] if order_path.exists() else []
        found += [_read_set(set_path, events)] if set_path.exists() else []
        if not found:
            raise FileNotFoundError(
                f"no {prefix}_order.h5 or {prefix}Set.txt in {folder}; expected from {SOURCE} or "
                "https://github.com/haoyi-duan/DG-SCT"
            )
        if not all(_same(found[0], other, events) for other in found[1:]):
            raise ValueError(
                f"{order_path} and {set_path.name} name different events; get both from {SOURCE} again"
            )
        parts[part] = found[0]
    everything = np.concatenate(list(parts.values()))
    if len(np.unique(everything)) < len(everything):
        raise ValueError(
            f"{folder}: an event stands twice in the parts; get the order or set files from {SOURCE} again"
        )
    return parts


def _read_set(path: Path, events: Sequence[Event]) -> np.ndarray:
    index = {event: row for row, event in enumerate(events)}
    listed = read_annotations(path)
    unknown = [event for event in listed if event not in index]
    if unknown:
        named = ", ".join(f"{event.category}&{event.video}" for event in unknown[:3])
        raise ValueError(f"{path}: {len(unknown)} events are not in Annotations.txt: {named}")
    return np.array([index[event] for event in listed], np.int64)


def _same(rows: np.ndarray, listed: np.ndarray, events: Sequence[Event]) -> bool:
    full = [row for row in rows if events[row].end > events[row].start]
    return full == [row for row in listed if events[row].end > events[row].start]


def read_order(path: Path, number: int) -> np.ndarray:
    """Rows of the annotations that a part holds, (N,) int64, each below `number` and once.

    Raises ValueError.
    """
    with _dataset(path, "order") as data:
        rows = _values(path, data, slice(None))
    if rows.ndim != 1 or not np.issubdtype(rows.dtype, np.integer) or not len(rows):
        raise ValueError(f"{path}: expected whole numbers of shape (N,), got {rows.dtype} {rows.shape}")
    if rows.min() < 0 or rows.max() >= number or len(np.unique(rows)) < len(rows):
        raise ValueError(
            f"{path}: expected different rows of the {number:,} annotations, got {rows.min()} to {rows.max()}"
        )
    return rows.astype(np.int64)


def _check_published(
    events: Sequence[Event],
    classes: Sequence[str],
    parts: dict[str, np.ndarray],
    allow_partial: bool,
    notes: dict[str, Any],
) -> None:
    """Counts of rows, classes and parts; an event without length may be absent from the training part."""
    absent = {row for row, event in enumerate(events) if event.end == event.start}
    absent -= {int(row) for rows in parts.values() for row in rows}
    found = {"rows": len(events), "classes": len(classes)} | {part: len(rows) for part, rows in parts.items()}
    found["train"] += len(absent)
    note_counts("ave", found, {"rows": ROWS, "classes": CLASSES} | SIZES, allow_partial, notes)


def _without_leaks(
    events: Sequence[Event], parts: dict[str, np.ndarray], notes: dict[str, Any]
) -> dict[str, np.ndarray]:
    video = np.array([event.video for event in events])
    kept = dict(parts)
    for part, other in (("train", "test"), ("validation", "test"), ("validation", "train")):
        shared = np.isin(video[kept[part]], video[kept[other]])
        notes[f"{part} rows left out, their video is in {other}"] = int(shared.sum())
        kept[part] = kept[part][~shared]
    repeated = sum(count - 1 for count in Counter(video[kept["train"]]).values())
    notes["train rows kept that repeat a train video with another class"] = repeated
    return kept


@contextmanager
def _dataset(path: Path, key: str) -> Iterator[h5py.Dataset]:
    try:
        with open(path, "rb") as file:
            start = file.read(len(POINTER))
    except FileNotFoundError:
        raise FileNotFoundError(f"no {path}; expected from the links in {SOURCE}") from None
    except IsADirectoryError:
        raise ValueError(f"{path}: expected a file, got a folder; take it away, and get the file") from None
    if start == POINTER:
        read_raw(path)
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ValueError(
            f"{path}: not a whole HDF5 file, perhaps a cut-off download ({message_of(error)}); get it again"
        ) from None
    with file:
        if not isinstance(file.get(key), h5py.Dataset):
            raise ValueError(f"{path}: expected the data set {key!r}, got {sorted(file)[:5]}")
        yield file[key]


def _values(path: Path, data: h5py.Dataset, rows: slice) -> np.ndarray:
    try:
        return np.asarray(data[rows])
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{path}: could not be read ({message_of(error)}); get it again") from None


def _read_features(
    path: Path,
    rows: int,
    shape: tuple[int, ...],
    digests: dict[str, bytes],
    broken: dict[int, str] | None = None,
) -> np.ndarray:
    """Features (rows, 10, d) float32, a grid between seconds and channels averaged; `digests` gets the SHA-256.

    Rows that cannot be read or hold no finite numbers go into `broken`, with the reason; ValueError if it is None.
    """
    digest = hashlib.sha256()
    pooled = np.zeros((rows, shape[0], shape[-1]), np.float32)
    with _dataset(path, "avadataset") as data:
        if data.shape != (rows, *shape) or data.dtype.kind != "f":
            raise ValueError(
                f"{path}: expected floating point of shape {(rows, *shape)}, got {data.dtype} {data.shape}; "
                "the rows must be those of Annotations.txt"
            )
        for start in range(0, rows, CHUNK):
            try:
                block = _values(path, data, slice(start, start + CHUNK))
            except ValueError as error:
                if broken is None:
                    raise
                broken |= dict.fromkeys(range(start, min(start + CHUNK, rows)), str(error))
                continue
            block = np.ascontiguousarray(block, block.dtype.newbyteorder("<"))
            digest.update(block.dtype.str.encode() + block.tobytes())
            grid = tuple(range(2, block.ndim - 1))
            with np.errstate(over="ignore"):
                pooled[start : start + CHUNK] = block.mean(grid, dtype=np.float64) if grid else block
    if not np.isfinite(pooled).all():
        bad = np.flatnonzero((~np.isfinite(pooled)).reshape(rows, -1).any(1))
        if broken is None:
            raise ValueError(f"{path}: row {bad[0]} holds NaN or infinite values; get the file again")
        broken |= {int(row): f"{path}: row {row} holds NaN or infinite values" for row in bad}
        pooled[bad] = 0
    digests[path.name] = digest.digest()
    return pooled


def _compare_labels(path: Path, events: Sequence[Event], classes: Sequence[str], notes: dict[str, Any]) -> None:
    """Count rows of labels.h5 (N, 10, 29) that contradict the annotations; ValueError if most do."""
    if not path.exists():
        return
    truth = np.full((len(events), SECONDS), len(classes))
    for row, event in enumerate(events):
        truth[row, event.start : event.end] = classes.index(event.category)
    with _dataset(path, "avadataset") as data:
        if data.shape != (*truth.shape, len(classes) + 1) or data.dtype.kind not in "biuf":
            raise ValueError(
                f"{path}: expected numbers of shape {(*truth.shape, len(classes) + 1)}, "
                f"got {data.dtype} {data.shape}"
            )
        found = _values(path, data, slice(None)).argmax(2)
    wrong = int((found != truth).any(1).sum())
    notes["rows of labels.h5 that differ from the annotations"] = wrong
    if wrong > len(events) / 2:
        raise ValueError(
            f"{path}: {wrong:,} of {len(events):,} rows contradict Annotations.txt, so the feature files are in "
            f"another order; get all files from {SOURCE}"
        )
