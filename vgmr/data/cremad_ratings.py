"""CREMA-D as people judged it: ratings of each clip heard only and seen only, against the intended emotion."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from vgmr.data.fetch import Copy, Source, checksums, locate
from vgmr.data.types import Batch, MultimodalData, check_split, check_whole, fingerprint, fold_parts, holdout

EMOTIONS = {
    "NEU": ("N", "meanNeutralResp"),
    "HAP": ("H", "meanHappyResp"),
    "SAD": ("S", "meanSadResp"),
    "FEA": ("F", "meanFearResp"),
    "DIS": ("D", "meanDisgustResp"),
    "ANG": ("A", "meanAngerResp"),
}
CONDITIONS = {"voice": 1, "face": 2}
SIZES = {"train": 6698, "test": 744}
CLIPS = 7442
VERSION = 1
FOLDS = 10
BASE = "https://raw.githubusercontent.com/CheyneyComputerScience/CREMA-D/1658cd342dff90010aa843eaeebd53610a08b1dc"
LISTS = "https://raw.githubusercontent.com/GeWu-Lab/OGM-GE_CVPR2022/343dc1d"
SOURCE = Source(
    "cremad-ratings",
    folder="cremad",
    page="https://github.com/CheyneyComputerScience/CREMA-D",
    licence="ODbL 1.0",
    files=checksums("cremad-ratings"),
    addresses={
        "tabulatedVotes.csv": f"{BASE}/processedResults/tabulatedVotes.csv",
        "train.csv": f"{LISTS}/data/CREMAD/train.csv",
        "test.csv": f"{LISTS}/data/CREMAD/test.csv",
    },
)


def load_cremad_ratings(
    root: str | Path | None = None,
    split: str = "literature",
    seed: int = 0,
    allow_partial: bool = False,
    fold: int | None = None,
) -> MultimodalData:
    """Human ratings of 7,442 clips of 91 actors, heard only and seen only; `group` is the actor.

    Features, one step each: voice (N, 1, 12) and face (N, 1, 12), for each emotion in label order the share of
    raters who chose it, 0 to 1, then the mean intensity they gave it, 0 to 100, and 0 where nobody chose it (the
    file says -1). Ratings of voice and face together are not used. The label is the emotion the actor was asked
    to play.

    Args:
        root: folder with `tabulatedVotes.csv`, `train.csv` and `test.csv`; None looks in VGMR_DATA, then
            downloads (4 MB).
        split: "literature": the lists of 6,698 and 744 clips used in publications, a tenth of the first as
            validation; all three parts share all actors. "actors": about 70, 10 and 20 percent, no actor in two
            parts.
        seed: draws the validation part, or the actors of each part.
        allow_partial: accept changed files as long as their layout is right, and fewer clips.
        fold: 0 to 9, in place of `split`: a tenth of the actors is tested and another validates, so that all 7,442
            clips are tested once over the ten folds.

    Raises:
        ValueError: unknown split, files that are not as published.
        FileNotFoundError: files that are missing and cannot be downloaded.
    """
    if split not in ("literature", "actors"):
        raise ValueError(f"split must be 'literature' or 'actors', got {split!r}")
    check_split(fold, split, "literature")
    check_whole(seed=seed)
    copy = locate(SOURCE, root, allow_partial)
    missing = sorted(set(SOURCE.files) - set(copy.digests))
    if missing:
        raise FileNotFoundError(f"{copy.folder}: {', '.join(missing)} missing; get them from {SOURCE.page}")
    lists = {half: _list(copy, half, allow_partial) for half in SIZES}
    shared = set(lists["train"]) & set(lists["test"])
    if shared:
        raise ValueError(
            f"{copy.folder}: {len(shared)} clips are in train.csv and test.csv, such as {min(shared)}"
        )
    names = lists["train"] + lists["test"]
    ratings = _ratings(copy, names, allow_partial)
    label = np.array([list(EMOTIONS).index(name[9:12]) for name in names], np.int64)
    actor = np.array([int(name[:4]) for name in names], np.int64)
    if fold is not None:
        split = f"fold {fold} of {FOLDS}"
        part_of = fold_parts(actor, fold, FOLDS)
        train, validation, test = (np.flatnonzero(part_of == part) for part in range(3))
    elif split == "literature":
        test = np.arange(len(lists["train"]), len(names))
        train, validation = holdout(label[: len(lists["train"])], 0.1, seed)
    else:
        rest, test = holdout(label, 0.2, seed, actor)
        kept, between = holdout(label[rest], 0.125, seed, actor[rest])
        train, validation = rest[kept], rest[between]
    rows = {"train": train, "validation": validation, "test": test}
    for part, index in rows.items():
        if not len(index):
            raise ValueError(f"{copy.folder}: no clips for the {part} part; get a complete copy")
    parts: dict[str, Any] = {
        part: Batch(
            {name: torch.from_numpy(x[index]) for name, x in ratings.items()},
            {name: torch.ones(len(index), 1, dtype=torch.bool) for name in ratings},
            torch.from_numpy(label[index]),
            torch.from_numpy(actor[index]),
        )
        for part, index in rows.items()
    }
    notes: dict[str, Any] = {"split": split, "seed": seed}
    if split == "literature":
        notes["warning"] = "train and test share their actors; never call this split speaker independent"
    if copy.partial:
        notes["partial"] = "files differ from the published ones"
    return MultimodalData(
        "cremad-ratings",
        **parts,
        classes=tuple(EMOTIONS),
        source=f"Cao et al., CREMA-D, IEEE Transactions on Affective Computing 2014, {SOURCE.page}; lists: "
        "Peng et al., OGM-GE, CVPR 2022",
        licence=SOURCE.licence,
        fingerprint=fingerprint(
            {"data": "cremad-ratings", "version": VERSION, "split": split, "seed": seed},
            *(f"{path} {copy.digests[path]}".encode() for path in sorted(copy.digests)),
            train,
            validation,
            test,
        ),
        notes=notes,
        overlap=notes.get("warning", "ratings of different clips may coincide"),
    )


def _list(copy: Copy, half: str, allow_partial: bool) -> list[str]:
    """Clip names of train.csv or test.csv; the second column must be the emotion in the name."""
    place = copy.folder / f"{half}.csv"
    table = copy.table(f"{half}.csv", header=None, keep_default_na=False)
    if table.shape[1] != 2:
        raise ValueError(f"{place}: expected 2 columns, clip and emotion, got {table.shape[1]}")
    names = table[0].astype(str).tolist()
    for name, emotion in zip(names, table[1], strict=True):
        match = re.fullmatch(r"1\d{3}_[A-Z]{3}_([A-Z]{3})_(XX|LO|MD|HI)", name)
        if match is None or match[1] != emotion or emotion not in EMOTIONS:
            raise ValueError(f"{place}: {name!r} and {emotion!r} are no clip of CREMA-D and its emotion")
    if len(set(names)) != len(names):
        raise ValueError(f"{place}: clips repeat")
    if len(names) != SIZES[half] and not allow_partial:
        raise ValueError(f"{place}: {len(names)} clips, expected {SIZES[half]}")
    return names


def _ratings(copy: Copy, names: list[str], allow_partial: bool) -> dict[str, np.ndarray]:
    """Modality -> (clips, 1, 12) float32 in the order of `names`."""
    place = copy.folder / "tabulatedVotes.csv"
    table = copy.table("tabulatedVotes.csv", keep_default_na=False)
    votes, levels = (list(columns) for columns in zip(*EMOTIONS.values(), strict=True))
    absent = sorted({*votes, *levels, "fileName", "numResponses"} - set(table.columns))
    if absent:
        raise ValueError(f"{place}: columns {', '.join(absent)} are missing")
    number = table.columns[0]
    numeric = table[[number, *votes, *levels, "numResponses"]].apply(pd.to_numeric, errors="coerce")
    bad = np.flatnonzero(~np.isfinite(numeric.to_numpy(np.float64)).all(1))
    if len(bad):
        raise ValueError(f"{place}: row {bad[0] + 2} holds a rating that is no finite number; get the file again")
    count, level = numeric[votes].to_numpy(np.float64), numeric[levels].to_numpy(np.float64)
    chosen = count > 0
    sound = (
        (count >= 0).all(1)
        & (count % 1 == 0).all(1)
        & (count.sum(1) == numeric["numResponses"])
        & (count.sum(1) > 0)
        & ((level == -1) == ~chosen).all(1)
        & ((level >= 0) & (level <= 100) | ~chosen).all(1)
    ).to_numpy()
    if not sound.all():
        raise ValueError(
            f"{place}: row {np.flatnonzero(~sound)[0] + 2} does not add up: votes are counts whose sum is "
            "numResponses, levels lie in 0 to 100, or are -1 where nobody voted"
        )
    values = np.concatenate([count / count.sum(1, keepdims=True), np.where(chosen, level, 0.0)], 1)
    condition = (numeric[number] // 100_000).to_numpy()
    ratings = {}
    for name, value in CONDITIONS.items():
        rows = np.flatnonzero(condition == value)
        clips = pd.Index(table["fileName"].to_numpy()[rows])
        if clips.has_duplicates or (len(clips) != CLIPS and not allow_partial):
            raise ValueError(f"{place}: expected each of {CLIPS} clips once for {name}, got {len(clips)} rows")
        index = clips.get_indexer(names)
        if (index < 0).any():
            clip = names[int(np.flatnonzero(index < 0)[0])]
            raise ValueError(f"{place}: no ratings of {clip} for {name}; get the file again")
        ratings[name] = values[rows][index][:, None].astype(np.float32)
    return ratings
