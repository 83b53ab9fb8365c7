"""UTD-MHAD: 27 actions of 8 people, from an inertial sensor on the body and the Kinect's skeleton."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.io import loadmat

from vgmr.data.fetch import Copy, Source, checksums, locate
from vgmr.data.store import prepared
from vgmr.data.types import (
    Batch,
    MultimodalData,
    check_split,
    check_whole,
    fingerprint,
    fold_parts,
    holdout,
    is_list,
    pad,
)

ACTIONS = (
    "swipe left",
    "swipe right",
    "wave",
    "clap",
    "throw",
    "cross arms",
    "basketball shoot",
    "draw X",
    "draw circle clockwise",
    "draw circle counter-clockwise",
    "draw triangle",
    "bowling",
    "boxing",
    "baseball swing",
    "tennis swing",
    "arm curl",
    "tennis serve",
    "push",
    "knock",
    "catch",
    "pick up and throw",
    "jog",
    "walk",
    "sit to stand",
    "stand to sit",
    "lunge",
    "squat",
)
HIP_CENTRE = 3
KINDS = {"inertial": ("Inertial", "d_iner"), "skeleton": ("Skeleton", "d_skel")}
PARTS = ("train", "validation", "test")
VERSION = 1
FOLDS = 8
SOURCE = Source(
    "utd-mhad",
    folder="utd-mhad",
    page="https://personal.utdallas.edu/~kehtar/UTD-MHAD.html",
    licence="not stated: cite the authors, do not redistribute",
    files=checksums("utd-mhad"),
)


def load_utd_mhad(
    root: str | Path | None = None,
    inertial_stride: int = 6,
    skeleton_stride: int = 2,
    validation_subjects: Sequence[int] = (7,),
    allow_partial: bool = False,
    split: str = "subjects",
    seed: int = 0,
    fold: int | None = None,
) -> MultimodalData:
    """861 clips of 27 actions; odd subjects train, even subjects test; `group` is the subject.

    Features: accelerometer (N, T, 3) in g, gyroscope (N, T, 3) in degrees per second, at 50 Hz, and skeleton
    (N, T, 60), x, y, z in metres of 20 joints at 30 Hz, relative to the hip centre of the first frame, so where
    the person stands does not count and how the body moves does. Each is averaged over `*_stride` samples in a
    row (the last ones fewer). The sensor is on the right wrist, in actions 22 to 27 on the right thigh.

    Args:
        root: folder with `Inertial/` and `Skeleton/`; None looks in VGMR_DATA. Nothing is downloaded: the data
            set states no licence.
        inertial_stride: 6 leaves 18 to 55 steps at 8.3 Hz.
        skeleton_stride: 2 leaves 21 to 63 steps at 15 Hz.
        validation_subjects: odd subjects that are taken out of training.
        allow_partial: use what is there of the clips that have both files, also changed ones.
        split: "subjects" as above; "shared": parts of the same sizes drawn from all clips, stratified by action,
            so all subjects are in all parts.
        seed: draws the parts of split "shared".
        fold: 0 to 7, in place of `split`: subject fold + 1 is tested and the next one, 1 after 8, validates, so
            that all 861 clips are tested once over the eight folds.

    Raises:
        ValueError: impossible strides, subjects or split, files that are not as published.
        FileNotFoundError: files that are missing, with where they come from.
    """
    check_whole(1, inertial_stride=inertial_stride, skeleton_stride=skeleton_stride)
    if not is_list(validation_subjects):
        raise ValueError(f"validation_subjects must be a list such as [7], got {validation_subjects!r}")
    taken = sorted(set(validation_subjects))
    if not taken or not set(taken) < {1, 3, 5, 7}:
        raise ValueError(f"validation_subjects must be one to three of 1, 3, 5, 7; got {taken}")
    if split not in ("subjects", "shared"):
        raise ValueError(f"split must be 'subjects' or 'shared', got {split!r}")
    check_split(fold, split, "subjects")
    if fold is not None and taken != [7]:
        raise ValueError(f"fold {fold!r} stands in place of validation_subjects {taken}; give one of them")
    check_whole(seed=seed)
    copy = locate(SOURCE, root, allow_partial)
    key = {
        "data": "utd-mhad",
        "version": VERSION,
        "inertial_stride": inertial_stride,
        "skeleton_stride": skeleton_stride,
        "validation_subjects": taken,
        "partial": copy.partial,
        "files": fingerprint({}, *(f"{path} {copy.digests[path]}".encode() for path in sorted(copy.digests))),
    }
    if fold is not None:
        key |= {"fold": fold}
    elif split == "shared":
        key |= {"split": split, "seed": seed}
    return prepared(key, lambda: _make(copy, key))


def _make(copy: Copy, key: dict[str, Any]) -> MultimodalData:
    clips = sorted({clip for path in copy.digests if (clip := _clip(path))})
    both = [clip for clip in clips if all(_path(clip, kind) in copy.digests for kind in KINDS)]
    if not both:
        raise ValueError(f"{copy.folder}: no clip has an inertial and a skeleton file; get a complete copy")
    action, subject, _ = (np.array(values, np.int64) for values in zip(*both, strict=True))
    sequences: dict[str, list[np.ndarray]] = {"accelerometer": [], "gyroscope": [], "skeleton": []}
    for clip in both:
        inertial = average(_matrix(copy, clip, "inertial"), key["inertial_stride"])
        sequences["accelerometer"].append(inertial[:, :3])
        sequences["gyroscope"].append(inertial[:, 3:])
        joints = _matrix(copy, clip, "skeleton")
        moved = joints - joints[HIP_CENTRE, :, 0][None, :, None]
        flat = moved.transpose(2, 0, 1).reshape(joints.shape[2], 60)
        sequences["skeleton"].append(average(flat, key["skeleton_stride"]))
    part_of = np.where(subject % 2 == 0, 2, np.isin(subject, key["validation_subjects"]).astype(np.int64))
    if "fold" in key:
        part_of = fold_parts(subject, key["fold"], FOLDS)
    elif "split" in key:
        part_of = _shared(action, part_of, key["seed"])
    parts: dict[str, Any] = {}
    for number, name in enumerate(PARTS):
        rows = np.flatnonzero(part_of == number)
        if not len(rows):
            raise ValueError(f"{copy.folder}: no clips for the {name} part; get a complete copy")
        padded = {modality: pad([x[row] for row in rows]) for modality, x in sequences.items()}
        parts[name] = Batch(
            {modality: features for modality, (features, _) in padded.items()},
            {modality: mask for modality, (_, mask) in padded.items()},
            torch.from_numpy(action[rows] - 1),
            torch.from_numpy(subject[rows]),
        )
    notes: dict[str, Any] = {
        "clips": len(both),
        "clips without a partner": [_path(clip, "") for clip in clips if clip not in both],
        "skeleton": "metres from the hip centre of the first frame",
        "validation subjects": sorted({int(value) for value in subject[part_of == 1]}),
    }
    if "split" in key:
        notes["warning"] = "all parts share all subjects"
    if copy.partial:
        notes["partial"] = "files are missing or differ from the published ones"
    return MultimodalData(
        "utd-mhad",
        **parts,
        classes=ACTIONS,
        source=f"Chen, Jafari and Kehtarnavaz, UTD-MHAD, ICIP 2015, {SOURCE.page}",
        licence=SOURCE.licence,
        overlap=notes.get("warning", ""),
        fingerprint=fingerprint(key, action, subject, part_of),
        notes=notes,
    )


def _shared(action: np.ndarray, part_of: np.ndarray, seed: int) -> np.ndarray:
    """Parts of about the sizes of `part_of`, drawn within each action regardless of the subject."""
    rest, test = holdout(action, float(np.mean(part_of == 2)), seed)
    share = float(np.mean(part_of[part_of < 2] == 1))
    drawn = np.zeros_like(part_of)
    drawn[test] = 2
    drawn[rest[holdout(action[rest], share, seed)[1]]] = 1
    return drawn


def average(x: np.ndarray, stride: int) -> np.ndarray:
    """Means over `stride` rows of (T, d) in a row, (ceil(T / stride), d); the last mean may be over fewer."""
    starts = np.arange(0, len(x), stride)
    counts = np.diff(np.append(starts, len(x)))
    return np.add.reduceat(x, starts, axis=0) / counts[:, None]


def _clip(path: str) -> tuple[int, int, int]:
    """Action 1 to 27, subject 1 to 8 and trial 1 to 4."""
    match = re.fullmatch(r"\w+/a(\d+)_s(\d+)_t(\d+)_\w+\.mat", path)
    assert match is not None
    return int(match[1]), int(match[2]), int(match[3])


def _path(clip: tuple[int, int, int], kind: str) -> str:
    stem = "a{}_s{}_t{}".format(*clip)
    return f"{KINDS[kind][0]}/{stem}_{kind}.mat" if kind else stem


def _matrix(copy: Copy, clip: tuple[int, int, int], kind: str) -> np.ndarray:
    """(T, 6) of the inertial sensor or (20, 3, T) of the skeleton, float64."""
    path = _path(clip, kind)
    place, name = copy.folder / path, KINDS[kind][1]
    content = copy.read(path)
    try:
        x = loadmat(io.BytesIO(content), variable_names=[name])[name]
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{place}: no intact MATLAB file with {name} ({reason}); get it again") from None
    fits = x.ndim == 2 and x.shape[1] == 6 if kind == "inertial" else x.ndim == 3 and x.shape[:2] == (20, 3)
    if not fits or not x.size or x.dtype.kind not in "fiu":
        wanted = "(T, 6)" if kind == "inertial" else "(20, 3, T)"
        raise ValueError(f"{place}: expected {name} of numbers, {wanted}, got {x.dtype} {x.shape}")
    if not np.isfinite(x).all():
        raise ValueError(f"{place}: {name} holds NaN or infinite values")
    return x.astype(np.float64)
