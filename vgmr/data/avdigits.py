"""Spoken digits (FSDD) beside handwritten digits (scikit-learn): the same digit, heard and seen."""

from __future__ import annotations

import io
import re
import struct
import wave
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits as sklearn_digits

from vgmr.data.extract.audio import log_mel
from vgmr.data.fetch import Copy, Source, checksums, locate
from vgmr.data.store import prepared
from vgmr.data.types import Batch, MultimodalData, check_split, check_whole, fingerprint, fold_parts, holdout, pad

SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
RATE = 8000
BANDS, WINDOW_SECONDS, HOP_SECONDS = 32, 0.032, 0.016
PARTS = ("train", "validation", "test")
VERSION = 1
FOLDS = 6
COMMIT = "26eb9aaf76e81b692f806f9140c2d2777410d7a1"
SOURCE = Source(
    "avdigits",
    folder="free-spoken-digit-dataset",
    page="https://github.com/Jakobovski/free-spoken-digit-dataset",
    licence="CC BY-SA 4.0 (recordings), CC BY 4.0 (images)",
    files=checksums("avdigits"),
    archive=f"https://codeload.github.com/Jakobovski/free-spoken-digit-dataset/zip/{COMMIT}",
)


def load_avdigits(
    root: str | Path | None = None,
    split: str = "official",
    held_out_speakers: Sequence[str] = ("theo",),
    validation_speakers: Sequence[str] = ("lucas",),
    seed: int = 0,
    allow_partial: bool = False,
    fold: int | None = None,
) -> MultimodalData:
    """3,000 spoken digits of 6 speakers, each beside an image of the same digit; `group` is the speaker.

    Features: audio (N, T, 32) log-mel energies of the 8 kHz recording, windows of 32 ms every 16 ms; image
    (N, 8, 8) the rows of an 8 x 8 image, values 0 to 16. The pair is made: each recording gets a random image of
    its digit. The three parts share no image, 60, 20 and 20 percent of 1,797; within a part images repeat.

    Args:
        root: folder with `recordings/`; None looks in VGMR_DATA, then downloads (16 MB).
        split: "official": recordings 0-4 of each speaker and digit test, 5-9 validation, 10-49 training, so all
            speakers are in all parts; "speakers": no speaker is in two parts.
        held_out_speakers: the test part of split "speakers".
        validation_speakers: the validation part of split "speakers".
        seed: draws which images belong to which part and which image goes with which recording.
        allow_partial: use what is there of the recordings, also changed ones.
        fold: 0 to 5, in place of `split`: that speaker is tested and the next one, the first after the last,
            validates, so that all 3,000 recordings are tested once; each fold draws other images for its parts.

    Raises:
        ValueError: unknown split or speakers, recordings that are not as published.
        FileNotFoundError: recordings that are missing and cannot be downloaded.
    """
    if split not in ("official", "speakers"):
        raise ValueError(f"split must be 'official' or 'speakers', got {split!r}")
    check_split(fold, split, "official")
    for given, default in ((held_out_speakers, "theo"), (validation_speakers, "lucas")):
        several = isinstance(given, Collection) and not isinstance(given, str)
        if not several or not all(isinstance(one, str) for one in given):
            raise ValueError(f"speakers are given as a list of: {', '.join(SPEAKERS)}; got {given!r}")
        if split != "speakers" and list(given) != [default]:
            raise ValueError(f"speakers {given!r} need split='speakers', got {split!r}; give it, or no speakers")
    chosen: dict[str, Any] = {"split": split, "seed": seed}
    if fold is not None:
        chosen = {"fold": fold, "seed": seed}
    elif split == "speakers":
        chosen |= _speakers(held_out_speakers, validation_speakers)
    check_whole(seed=seed)
    copy = locate(SOURCE, root, allow_partial)
    key = {"data": "avdigits", "version": VERSION, **chosen, "partial": copy.partial}
    key["audio"] = {"bands": BANDS, "window": WINDOW_SECONDS, "hop": HOP_SECONDS}
    key["files"] = fingerprint({}, *(f"{path} {copy.digests[path]}".encode() for path in sorted(copy.digests)))
    return prepared(key, lambda: _make(copy, chosen, key))


def _speakers(held_out: Sequence[str], validation: Sequence[str]) -> dict[str, list[str]]:
    test, between = sorted(set(held_out)), sorted(set(validation))
    unknown = sorted(set(test + between) - set(SPEAKERS))
    if isinstance(held_out, str) or isinstance(validation, str) or unknown:
        raise ValueError(
            f"speakers are given as a list of: {', '.join(SPEAKERS)}; got {held_out} and {validation}"
        )
    if not test or not between or set(test) & set(between) or len(test + between) >= len(SPEAKERS):
        raise ValueError(
            "held_out_speakers and validation_speakers must each name a speaker, share none and leave one for "
            f"training; got {test} and {between}"
        )
    return {"held_out_speakers": test, "validation_speakers": between}


def _make(copy: Copy, chosen: dict[str, Any], key: dict[str, Any]) -> MultimodalData:
    paths = sorted(copy.digests)
    named = [_name(path) for path in paths]
    digit, speaker, index = (np.array(values, np.int64) for values in zip(*named, strict=True))
    sounds = [log_mel(_samples(copy, path), RATE, BANDS, WINDOW_SECONDS, HOP_SECONDS) for path in paths]
    drawn_by = chosen["seed"]
    if "fold" in chosen:
        part_of, drawn_by = fold_parts(speaker, chosen["fold"], FOLDS), [chosen["seed"], chosen["fold"]]
    elif chosen["split"] == "official":
        part_of = np.digitize(-index, [-9.5, -4.5])
    else:
        part_of = np.zeros(len(paths), np.int64)
        part_of[np.isin(speaker, [SPEAKERS.index(name) for name in chosen["validation_speakers"]])] = 1
        part_of[np.isin(speaker, [SPEAKERS.index(name) for name in chosen["held_out_speakers"]])] = 2
    images = sklearn_digits()
    image_of = _pair(digit, part_of, images.target.astype(np.int64), drawn_by)
    parts: dict[str, Any] = {}
    for number, name in enumerate(PARTS):
        rows = np.flatnonzero(part_of == number)
        if not len(rows):
            raise ValueError(f"{copy.folder}: no recordings for the {name} part; get a complete copy")
        audio, heard = pad([sounds[row] for row in rows])
        image = torch.from_numpy(images.images[image_of[rows]]).float()
        parts[name] = Batch(
            {"audio": audio, "image": image},
            {"audio": heard, "image": torch.ones(image.shape[:2], dtype=torch.bool)},
            torch.from_numpy(digit[rows]),
            torch.from_numpy(speaker[rows]),
        )
    notes: dict[str, Any] = {
        **chosen,
        "recordings": len(paths),
        "speakers": ", ".join(SPEAKERS),
        "pairs": "made: recording and image show the same digit and come from different people",
    }
    if chosen.get("split") == "official":
        notes["warning"] = "all parts share all speakers"
    if copy.partial:
        notes["partial"] = "recordings are missing or differ from the published ones"
    return MultimodalData(
        "avdigits",
        **parts,
        classes=tuple(str(value) for value in range(10)),
        source=f"Jackson et al., Free Spoken Digit Dataset, {SOURCE.page}; images: Alpaydin and Kaynak, "
        "Optical Recognition of Handwritten Digits, UCI 1998, as in scikit-learn",
        licence=SOURCE.licence,
        overlap=notes.get("warning", ""),
        fingerprint=fingerprint(key, images.images.astype(np.uint8), image_of, part_of),
        notes=notes,
    )


def _name(path: str) -> tuple[int, int, int]:
    """Digit, speaker number and index of a recording."""
    match = re.fullmatch(r"recordings/(\d)_([a-z]+)_(\d+)\.wav", path)
    assert match is not None
    return int(match[1]), SPEAKERS.index(match[2]), int(match[3])


def _samples(copy: Copy, path: str) -> np.ndarray:
    """The (samples,) int16 of a recording."""
    place = copy.folder / path
    content = copy.read(path)
    try:
        with wave.open(io.BytesIO(content)) as sound:
            form = sound.getnchannels(), sound.getsampwidth(), sound.getframerate()
            stated = sound.getnframes()
            samples = sound.readframes(stated)
    except (wave.Error, EOFError, RuntimeError, ValueError, struct.error) as error:
        raise ValueError(f"{place}: no intact wav file ({error}); get it again") from None
    if form != (1, 2, RATE):
        raise ValueError(
            f"{place}: expected 1 channel of 16 bit at {RATE} Hz, got {form[0]} of {8 * form[1]} bit "
            f"at {form[2]} Hz"
        )
    if not stated or len(samples) != 2 * stated:
        raise ValueError(f"{place}: cut off, {len(samples) // 2} of {stated} samples are there; get it again")
    return np.frombuffer(samples, "<i2")


def _pair(digit: np.ndarray, part_of: np.ndarray, image_digit: np.ndarray, seed: int | list[int]) -> np.ndarray:
    """An image row of the same digit for each recording; parts share no row, and rows are used evenly."""
    rest, test = holdout(image_digit, 0.2, seed)
    kept, between = holdout(image_digit[rest], 0.25, seed)
    generator = np.random.default_rng(seed)
    image_of = np.full(len(digit), -1, np.int64)
    for number, pool in enumerate((rest[kept], rest[between], test)):
        for value in range(10):
            recordings = np.flatnonzero((part_of == number) & (digit == value))
            rows = pool[image_digit[pool] == value]
            rounds = -(-len(recordings) // len(rows))
            image_of[recordings] = np.concatenate(
                [rows[:0], *(generator.permutation(rows) for _ in range(rounds))]
            )[: len(recordings)]
    return image_of
