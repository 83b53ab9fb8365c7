"""CMU-MOSI as one vector per utterance and modality, with features whose contamination is kept in check."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from vgmr.data.fetch import Copy, Source, checksums, locate
from vgmr.data.types import Batch, MultimodalData, check_split, check_whole, fingerprint, fold_parts, holdout

WIDTHS = {"text": 100, "audio": 73, "vision": 100}
FOLDERS = {"text": "text", "audio": "audio", "vision": "video"}
HALVES = {"train": (1447, 62), "test": (752, 31)}
VERSION = 1
FOLDS = 10
BASE = "https://raw.githubusercontent.com/declare-lab/contextual-utterance-level-multimodal-sentiment-analysis/3874cf2"
FILES = checksums("mosi-utterance")
SOURCE = Source(
    "mosi-utterance",
    folder="mosi-utterance",
    page="https://github.com/declare-lab/contextual-utterance-level-multimodal-sentiment-analysis",
    licence="not stated",
    files=FILES,
    addresses={path: f"{BASE}/data/{path}" for path in FILES},
)


def load_mosi_utterance(
    root: str | Path | None = None,
    split: str = "clean",
    seed: int = 0,
    allow_partial: bool = False,
    fold: int | None = None,
) -> MultimodalData:
    """2,199 utterances of 93 opinion videos, sentiment negative or not; `group` is the video.

    Features, one step each: text (N, 1, 100) and vision (N, 1, 100), last layers of convolutional networks, and
    audio (N, 1, 73), means of COVAREP descriptors. The text and vision networks were trained on the labels of
    62 videos, which they nearly memorise: there, both look far more reliable than they are. The label is 1 where
    the sentiment is not below 0.

    Args:
        root: folder with `text/`, `audio/`, `video/` and `transcripts.csv`; None looks in VGMR_DATA, then
            downloads (11 MB).
        split: "clean": 1,447 utterances of the 62 videos, of which about 15 percent by video are validation, and
            the 752 of the 31 other videos as test. The test part is clean, the validation part is not: its
            accuracy is far too good, so use it to stop a diverging run, not to choose between models.
            "within-test": only the 752, about 60, 20 and 20 percent by video; honest in all parts.
        seed: draws the videos.
        allow_partial: accept changed files as long as their layout is right, and fewer rows.
        fold: 0 to 9, in place of `split`: only the 752, a tenth of their videos tested and another validating, so
            that each of them is tested once over the ten folds; honest in all parts.

    Raises:
        ValueError: unknown split; the official 1284/229/686 split, for which these features are contaminated;
            files that are not as published.
        FileNotFoundError: files that are missing and cannot be downloaded.
    """
    if split == "official":
        raise ValueError(
            "split 'official' is refused for mosi-utterance: its text and vision features were trained on the "
            "labels of 62 videos, among them 24 of the 31 official test videos; use 'clean' or 'within-test'"
        )
    if split not in ("clean", "within-test"):
        raise ValueError(f"split must be 'clean' or 'within-test', got {split!r}")
    check_split(fold, split, "clean")
    check_whole(seed=seed)
    copy = locate(SOURCE, root, allow_partial)
    missing = sorted(set(FILES) - set(copy.digests))
    if missing:
        raise FileNotFoundError(f"{copy.folder}: {', '.join(missing)} missing; get them from {SOURCE.page}")
    transcripts = read_transcripts(copy)
    halves = {half: read_half(copy, half, transcripts) for half in HALVES}
    videos = [set(batch.group.tolist()) for batch in halves.values() if batch.group is not None]
    if videos[0] & videos[1]:
        raise ValueError(f"{copy.folder}: {len(videos[0] & videos[1])} videos are in train and in test")
    for (half, (size, count)), found in zip(HALVES.items(), videos, strict=True):
        if (len(halves[half]), len(found)) != (size, count) and not allow_partial:
            raise ValueError(
                f"{copy.folder}: {half} holds {len(halves[half])} utterances of {len(found)} videos, "
                f"expected {size} of {count}"
            )
    notes: dict[str, Any] = {"split": split, "seed": seed}
    if fold is not None:
        notes["split"] = split = f"fold {fold} of {FOLDS} within-test"
        whole = halves["test"]
        assert whole.group is not None
        part_of = torch.from_numpy(fold_parts(whole.group.numpy(), fold, FOLDS))
        train, validation, test = (whole[part_of == part] for part in range(3))
    elif split == "clean":
        train, validation = _by_video(halves["train"], 0.15, seed)
        test = halves["test"]
        notes["warning"] = (
            "text and vision features were trained on the labels of the training videos, from which validation is "
            "taken: validation accuracy is far too good; the test part is clean"
        )
    else:
        rest, test = _by_video(halves["test"], 0.2, seed)
        train, validation = _by_video(rest, 0.25, seed)
    if copy.partial:
        notes["partial"] = "files differ from the published ones"
    groups = [part.group.numpy() for part in (train, validation, test) if part.group is not None]
    return MultimodalData(
        "mosi-utterance",
        train,
        validation,
        test,
        classes=("negative", "non-negative"),
        source="Zadeh, Zellers, Pincus and Morency, MOSI, IEEE Intelligent Systems 2016; features by Poria et "
        f"al., ACL 2017, {SOURCE.page}",
        licence=SOURCE.licence,
        fingerprint=fingerprint(
            {"data": "mosi-utterance", "version": VERSION, "split": split, "seed": seed},
            *(f"{path} {copy.digests[path]}".encode() for path in sorted(copy.digests)),
            *groups,
        ),
        notes=notes,
    )


def _by_video(batch: Batch, share: float, seed: int) -> tuple[Batch, Batch]:
    assert batch.group is not None
    kept, out = holdout(batch.label.numpy(), share, seed, batch.group.numpy())
    if not len(kept) or not len(out):
        raise ValueError(f"{len(batch)} utterances are too few to split them by video; get a complete copy")
    return batch.index(torch.from_numpy(kept)), batch.index(torch.from_numpy(out))


def _table(copy: Copy, path: str, width: int) -> pd.DataFrame:
    """A csv without header of exactly `width` columns and no gaps."""
    table = copy.table(path, header=None, keep_default_na=False)
    if table.shape[1] != width:
        raise ValueError(f"{copy.folder / path}: expected {width} columns, got {table.shape[1]}; get it again")
    return table


def read_numbers(copy: Copy, path: str, width: int) -> np.ndarray:
    """The numbers of a csv without header, (rows, width) float64; ValueError for other widths and no numbers."""
    table = _table(copy, path, width).apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    bad = np.argwhere(~np.isfinite(table))
    if len(bad):
        row, column = bad[0]
        raise ValueError(
            f"{copy.folder / path}: row {row + 1}, column {column + 1} holds no finite number; get the file again"
        )
    return table


def read_transcripts(copy: Copy) -> pd.DataFrame:
    """Columns id, text, video and label; a video has one number, and its name is the id without its end."""
    place = copy.folder / "transcripts.csv"
    table = _table(copy, "transcripts.csv", 4).set_axis(["id", "text", "video", "label"], axis=1)
    for column in ("video", "label"):
        table[column] = pd.to_numeric(table[column], errors="coerce")
    if not table["label"].isin([0, 1]).all() or not (table["video"] % 1 == 0).all():
        raise ValueError(f"{place}: expected a whole video number and a label 0 or 1 in every row")
    name = table["id"].astype(str).str.rsplit("_", n=1).str[0]
    if table["id"].duplicated().any() or (
        table.groupby(name)["video"].nunique().gt(1).any() or name.groupby(table["video"]).nunique().gt(1).any()
    ):
        raise ValueError(f"{place}: ids must not repeat, and video names and numbers must go together one to one")
    return table


def read_half(copy: Copy, half: str, transcripts: pd.DataFrame) -> Batch:
    """All utterances of the published "train" or "test" files in their order; labels are checked row by row."""
    listed = read_numbers(copy, f"text_{half}.csv", 101)[:, 0]
    rows = listed.astype(np.int64)
    if not np.array_equal(rows, listed) or len(set(rows)) != len(rows) or rows.min() < 0:
        raise ValueError(
            f"{copy.folder}/text_{half}.csv: column 1 must hold different row numbers of transcripts.csv"
        )
    if rows.max() >= len(transcripts):
        raise ValueError(
            f"{copy.folder}/text_{half}.csv names row {rows.max()} of transcripts.csv, which has "
            f"{len(transcripts)} rows"
        )
    label = transcripts["label"].to_numpy(np.int64)[rows]
    video = transcripts["video"].to_numpy(np.int64)[rows]
    features = {}
    for name, width in WIDTHS.items():
        path = f"{FOLDERS[name]}/{FOLDERS[name]}_{half}0.csv"
        table = read_numbers(copy, path, width + 1)
        if len(table) != len(rows):
            raise ValueError(f"{copy.folder / path}: {len(table)} rows, but text_{half}.csv has {len(rows)}")
        differ = np.flatnonzero(table[:, -1] != label)
        if len(differ):
            raise ValueError(
                f"{copy.folder / path}: labels of {len(differ)} rows differ from transcripts.csv (first: row "
                f"{differ[0] + 1}); get the files again"
            )
        features[name] = torch.from_numpy(table[:, None, :-1].astype(np.float32))
    mask = {name: torch.ones(x.shape[:2], dtype=torch.bool) for name, x in features.items()}
    return Batch(features, mask, torch.from_numpy(label), torch.from_numpy(video))
