"""What CMU-MOSI and CMU-MOSEI share: three published layouts of files, their traps, and the labels."""

from __future__ import annotations

import re
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vgmr.data.fetch import sha256
from vgmr.data.gated.csd import Sequence, clean, frames_of, mean_over, numbers, read_folds
from vgmr.data.gated.unpickle import read_pickle
from vgmr.data.types import Batch, MultimodalData, fingerprint, pad
from vgmr.machine.files import place, user_path

MODALITIES = ("text", "audio", "vision")
PARTS = {"train": "train", "validation": "valid", "test": "test"}
LAYOUTS = ("mmsa-aligned", "mmsa-unaligned", "mult-aligned", "mult-unaligned", "csd")
CLASSES = {
    "non-negative": ("negative", "non-negative"),
    "positive": ("negative", "positive"),
    "seven": (
        "strongly negative",
        "negative",
        "weakly negative",
        "neutral",
        "weakly positive",
        "positive",
        "strongly positive",
    ),
    "regression": (),
}
LONGEST = 50
CLEARED, EMPTY = 0.05, 0.3
FACTOR, SOME = 12.0, 0.1
PADDED = (50, 375, 500)  # steps of the processed files
FEW = 10  # samples below which all may well have one sign
SEGMENT = re.compile(r"(?:\[\d+\])+$")
PRODUCERS = {
    "mmsa": "features and split by MMSA, https://github.com/thuiar/MMSA",
    "mult": "features and split by Tsai et al., ACL 2019, https://github.com/yaohungt/Multimodal-Transformer",
    "csd": "features by the CMU Multimodal SDK, https://github.com/CMU-MultiComp-Lab/CMU-MultimodalSDK",
}


@dataclass(frozen=True)
class Corpus:
    """What tells one data set from the other.

    Attributes:
        name: "mosi" or "mosei".
        citation: of the data set itself.
        mult_name: how MulT's file names begin.
        sizes: samples in train, validation and test of the processed files.
        csd_sizes: the same for computational sequences; several where publications differ.
        folds: videos in the official folds.
        widths: modality -> feature widths of the processed files.
        checksums: layout -> SHA-256 that the publisher states.
    """

    name: str
    citation: str
    mult_name: str
    sizes: tuple[int, int, int]
    csd_sizes: tuple[tuple[int, int, int], ...]
    folds: tuple[int, int, int]
    widths: dict[str, tuple[int, ...]]
    checksums: dict[str, str]


@dataclass
class Part:
    """One part as read: features and masks as in `Batch`, sentiment (N,) float64, video id of each sample."""

    features: dict[str, np.ndarray]
    mask: dict[str, np.ndarray]
    sentiment: np.ndarray
    video: list[str]


Notes = dict[str, Any]


def load_sentiment(
    corpus: Corpus, root: str | Path | None, layout: str | None, labels: str, allow_partial: bool
) -> MultimodalData:
    """The loader behind `load_mosi` and `load_mosei`, which document it."""
    labels = "non-negative" if labels == "binary" else labels
    if not isinstance(labels, str) or labels not in CLASSES:
        raise ValueError(f"labels must be one of {', '.join([*CLASSES, 'binary'])}; got {labels!r}")
    if layout is not None and layout not in LAYOUTS:
        raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}; got {layout!r}")
    layout, path = _choose(corpus, root, layout)
    notes: Notes = {"layout": layout, "labels": labels, "warnings": []}
    if layout == "csd":
        parts, digests = _read_csd(corpus, path, allow_partial, notes)
    else:
        layout, parts = _read_pickle(path, layout, notes)
        notes["layout"] = layout
        digests = [bytes.fromhex(sha256(path))]
        if layout in corpus.checksums:
            same = digests[0].hex() == corpus.checksums[layout]
            notes["publisher's checksum"] = "matches" if same else "differs: custom or changed file"
    sizes = corpus.csd_sizes if layout == "csd" else (corpus.sizes,)
    found = tuple(len(part.video) for part in parts.values())
    _check_counts(path, "samples", found, sizes, allow_partial, notes)
    _check_shapes(corpus, path, parts, notes)
    sentiment = parts["train"].sentiment
    if len(sentiment) >= FEW and 0 <= sentiment.min() < sentiment.max() <= 3:
        line = (
            f"train: no sentiment is below 0 ({sentiment.min():g} to {sentiment.max():g}), so there is one class"
        )
        notes.setdefault("warnings", []).append(f"{line}; give the scores as published, from -3 to 3")
    _warn_of_zeros(parts, notes)
    batches = _batches(path, parts, labels, notes)
    return MultimodalData(
        corpus.name,
        batches["train"],
        batches["validation"],
        batches["test"],
        classes=CLASSES[labels],
        source=f"{corpus.citation}; {PRODUCERS[layout.split('-')[0]]}",
        licence="not stated",
        fingerprint=fingerprint({"data": corpus.name, "version": 1, "layout": layout, "labels": labels}, *digests),
        notes=notes,
        overlap="the published split is kept as it is",
    )


def _choose(corpus: Corpus, root: str | Path | None, layout: str | None) -> tuple[str, Path]:
    """Layout ("pickle" where only the content can tell) and the file or folder to read."""
    if root is None:
        root = place("VGMR_DATA")
        if root is None:
            raise FileNotFoundError(f"no root for {corpus.name}, and VGMR_DATA is not set; {expected(corpus)}")
        own = root / corpus.name
        if own.is_dir() and find(corpus, own):
            root = own
    root = user_path(root)
    if root.is_file():
        if root.suffix == ".csd":
            raise ValueError(f"{root}: the csd layout is several files; give the folder that holds them as root")
        if layout == "csd":
            raise ValueError(f"{root}: layout 'csd' is a folder of .csd files, and this is a file")
        return layout or "pickle", root
    found = find(corpus, root)
    if not found or (layout is not None and layout not in found):
        wanted = "" if layout is None else f" in layout {layout}"
        there = f" (there are: {', '.join(found)})" if found else ""
        raise FileNotFoundError(f"no {corpus.name} files{wanted} in {root}{there}; {expected(corpus)}")
    if layout is None and len(found) > 1:
        raise ValueError(f"{root} holds {corpus.name} in several layouts; choose layout= from: {', '.join(found)}")
    layout = layout or next(iter(found))
    if len(found[layout]) > 1:
        places = ", ".join(str(place) for place in found[layout])
        raise ValueError(f"layout {layout} of {corpus.name} is there more than once; give one as root: {places}")
    return layout, found[layout][0]


def find(corpus: Corpus, root: Path) -> dict[str, list[Path]]:
    """Layout -> places in `root`, and in its subfolder named like the data set."""
    if not root.is_dir():
        return {}
    pickles = {
        "mmsa-aligned": ("Processed/aligned_50.pkl", "aligned_50.pkl"),
        "mmsa-unaligned": ("Processed/unaligned_50.pkl", "unaligned_50.pkl"),
        "mult-aligned": (f"{corpus.mult_name}_data.pkl",),
        "mult-unaligned": (f"{corpus.mult_name}_data_noalign.pkl",),
    }
    folders = [root, *(child for child in sorted(root.iterdir()) if child.name.lower() == corpus.name)]
    found: dict[str, list[Path]] = {}
    for folder in folders:
        for layout, names in pickles.items():
            found.setdefault(layout, []).extend(folder / name for name in names if (folder / name).is_file())
        if folder.is_dir() and _csd_files(corpus, folder):
            found.setdefault("csd", []).append(folder)
    return {layout: places for layout, places in found.items() if places}


def _csd_files(corpus: Corpus, folder: Path, pattern: str = "*.csd") -> list[Path]:
    other = "mosei" if corpus.name == "mosi" else "mosi"
    files = [file for file in sorted(folder.glob(pattern)) if not file.name.startswith(".") and file.is_file()]
    return [file for file in files if other not in file.name.lower()]


def expected(corpus: Corpus) -> str:
    """Which files are looked for, and where they come from."""
    return (
        f"expected Processed/aligned_50.pkl or Processed/unaligned_50.pkl (also under {corpus.name.upper()}/) "
        f"from https://github.com/thuiar/MMSA, {corpus.mult_name}_data.pkl or {corpus.mult_name}_data_noalign.pkl "
        "from https://github.com/yaohungt/Multimodal-Transformer, or the *.csd files with *_std_folds.py from "
        "https://github.com/CMU-MultiComp-Lab/CMU-MultimodalSDK"
    )


def _count(notes: Notes, key: str, name: str, amount: int) -> None:
    counts = notes.setdefault(key, {})
    counts[name] = counts.get(name, 0) + amount


def _count_cleaned(notes: Notes, part: str, name: str, cleaned: dict[str, int], total: int) -> None:
    """Counts by kind for the reader, and by part until `_warn_of_zeros` has judged them."""
    for kind, amount in cleaned.items():
        _count(notes.setdefault("values cleaned to 0", {}), name, kind, amount)
    share = notes.setdefault("cleared", {}).setdefault((part, name), [0, 0])
    share[0] += sum(cleaned.values())
    share[1] += total


def _warn_of_zeros(parts: dict[str, Part], notes: Notes) -> None:
    """A line in the notes' "warnings" for each part and modality much of which is now zeros."""
    for (part, name), (cleared, total) in notes.pop("cleared", {}).items():
        if cleared > CLEARED * total:
            notes["warnings"].append(
                f"{name}, {part}: {cleared / total:.0%} of the values read were NaN or infinite and are now 0"
            )
    for part, read in parts.items():
        for name, x in read.features.items():
            mask = read.mask[name]
            empty, steps = int((mask & ~_real(x)).sum()), int(mask.sum())
            if EMPTY * steps < empty < steps:
                notes["warnings"].append(
                    f"{name}, {part}: {empty / steps:.0%} of the steps within the samples' lengths hold only "
                    "zeros; its lengths, padding or alignment may be wrong"
                )


def _real(x: np.ndarray) -> np.ndarray:
    """(N, T, d) -> (N, T) bool, True where a step holds a finite number other than 0; in small pieces."""
    real = np.empty(x.shape[:2], bool)
    for start in range(0, len(x), 256):
        piece = x[start : start + 256]
        real[start : start + 256] = ((piece != 0) & np.isfinite(piece)).any(2)
    return real


def _check_counts(
    path: Path,
    what: str,
    found: tuple[int, ...],
    published: tuple[tuple[int, ...], ...],
    allow_partial: bool,
    notes: Notes,
) -> None:
    if found in published:
        return
    counts = "/".join(str(number) for number in found)
    expected = " or ".join("/".join(str(number) for number in sizes) for sizes in published)
    line = f"{what} in train/validation/test: found {counts}, published {expected}"
    if not allow_partial:
        raise ValueError(
            f"{path}: {line}; get the whole data set, or pass allow_partial=True to use what is there"
        )
    notes.setdefault("partial copy", []).append(line)


def _check_shapes(corpus: Corpus, path: Path, parts: dict[str, Part], notes: Notes) -> None:
    """One width in all parts, of its own modality; in the processed files one padded length as well."""
    fixed = slice(2, 3) if notes["layout"] == "csd" else slice(1, 3)
    audio, vision = (parts["train"].features[name].shape[2] for name in ("audio", "vision"))
    if audio in corpus.widths["vision"] and vision in corpus.widths["audio"]:
        raise ValueError(
            f"{path}: expected audio of width {vision} and vision of width {audio}, got them exchanged; give each "
            "its own name"
        )
    for name in MODALITIES:
        shapes = {part: read.features[name].shape[fixed] for part, read in parts.items()}
        if len(set(shapes.values())) > 1:
            raise ValueError(f"{path}: {name} has different shapes of a sample in its parts: {shapes}")
        steps, width = shapes["train"][0], shapes["train"][-1]
        if width in PADDED and steps in corpus.widths[name]:
            raise ValueError(
                f"{path}: expected {name} (N, T, {steps}), got (N, {steps}, {width}); exchange its last axes"
            )
        if width not in corpus.widths[name]:
            notes.setdefault("feature widths other than those of the processed files", {})[name] = width


def _batches(path: Path, parts: dict[str, Part], labels: str, notes: Notes) -> dict[str, Batch]:
    """Sentiment to classes, video ids to codes."""
    videos = {name: set(part.video) for name, part in parts.items()}
    code = {video: number for number, video in enumerate(sorted(set().union(*videos.values())))}
    shared = sorted(video for video in code if sum(video in group for group in videos.values()) > 1)
    if shared:
        notes["videos in more than one part"] = shared
        notes["warnings"].append(
            f"{len(shared)} of {len(code)} videos are in more than one part, as in no published split (first: "
            f"{shared[0]}); what is learnt of them is tested on them"
        )
    batches = {}
    for name, part in parts.items():
        kept = np.arange(len(part.video))
        kind: type = np.int64
        if labels == "regression":
            label, kind = part.sentiment, np.float32
        elif labels == "seven":
            label = np.clip(np.round(part.sentiment), -3, 3) + 3
        elif labels == "positive":
            kept = np.flatnonzero(part.sentiment)
            label = part.sentiment[kept] > 0
            _count(notes, "samples with sentiment 0 left out", name, len(part.video) - len(kept))
        else:
            label = part.sentiment >= 0
        outside = np.abs(part.sentiment) > 3
        _count(notes, "sentiment outside -3 to 3", name, int(outside.sum()))
        if outside.mean() > CLEARED:
            notes["warnings"].append(
                f"{name}: {outside.mean():.0%} of the sentiments are outside -3 to 3 (first: "
                f"{part.sentiment[outside.argmax()]:g}); they may be on another scale"
            )
        if not len(kept):
            raise ValueError(f"{path}, {name}: no sample left with labels={labels!r}")
        whole = len(kept) == len(part.video)
        features = {}
        for modality in MODALITIES:
            x = part.features.pop(modality)
            features[modality] = torch.from_numpy(x if whole else x[kept])
        batches[name] = Batch(
            features,
            {modality: torch.from_numpy(part.mask[modality][kept]) for modality in MODALITIES},
            torch.from_numpy(label.astype(kind)),
            torch.tensor([code[part.video[row]] for row in kept], dtype=torch.int64),
        )
    return batches


def _read_pickle(path: Path, layout: str, notes: Notes) -> tuple[str, dict[str, Part]]:
    """MMSA and MulT files; the content says which, and must agree with `layout` unless that is "pickle"."""
    data = read_pickle(path)
    if not isinstance(data, dict) or not all(isinstance(data.get(key), dict) for key in PARTS.values()):
        there = sorted(map(str, data)) if isinstance(data, dict) else type(data).__name__
        raise ValueError(f"{path}: expected a dict with dicts under train, valid and test, got {there}")
    train = data["train"]
    if len({id(data[key]) for key in PARTS.values()}) < len(PARTS):
        raise ValueError(
            f"{path}: two of train, valid and test are one and the same dict; give each part its own samples"
        )
    family = "mmsa" if "regression_labels" in train else "mult" if "labels" in train else None
    if family is None:
        raise ValueError(
            f"{path}, train: neither regression_labels (MMSA) nor labels (MulT) among {sorted(map(str, train))}"
        )
    steps = {_sequences(train, name, f"{path}, train").shape[1] for name in MODALITIES}
    aligned = len(steps) == 1 and "audio_lengths" not in train and "vision_lengths" not in train
    found = f"{family}-{'aligned' if aligned else 'unaligned'}"
    if layout not in ("pickle", found):
        raise ValueError(
            f"{path}: expected layout {layout}, but the content is {found}; give the file itself as root, without "
            "layout, to load it as what it is"
        )
    read = _read_mmsa if family == "mmsa" else _read_mult
    return found, {part: read(data[key], part, aligned, f"{path}, {key}", notes) for part, key in PARTS.items()}


def _entry(entries: dict[str, Any], key: str, where: str) -> Any:
    if key not in entries:
        raise ValueError(f"{where}: no key {key!r} among {sorted(map(str, entries))}")
    return entries[key]


def _sequences(entries: dict[str, Any], name: str, where: str, size: int | None = None) -> np.ndarray:
    x = _entry(entries, name, where)
    if not isinstance(x, np.ndarray) or x.ndim != 3 or x.dtype.kind != "f" or 0 in x.shape:
        came = f"{x.dtype} {x.shape}" if isinstance(x, np.ndarray) else type(x).__name__
        raise ValueError(f"{where}, {name}: expected a float array (N, T, d), got {came}")
    if size not in (None, len(x)):
        raise ValueError(f"{where}: {name} has {len(x)} samples, text has {size}")
    return x


def _vector(entries: dict[str, Any], key: str, size: int, where: str) -> np.ndarray:
    """`size` finite numbers, as float64."""
    values = _entry(entries, key, where)
    wanted = f"{where}, {key}: expected {size} finite numbers, one for each sample"
    try:
        numeric = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        came = f"an array of {values.dtype}" if isinstance(values, np.ndarray) else type(values).__name__
        raise ValueError(f"{wanted}; got {came} that holds no plain numbers") from None
    if numeric.size != size or (numeric.ndim and len(numeric) != size):
        raise ValueError(f"{wanted}; got shape {numeric.shape}")
    if not np.isfinite(numeric).all():
        raise ValueError(f"{wanted}; {int((~np.isfinite(numeric)).sum())} of them are NaN or infinite")
    return numeric.reshape(-1)


def _sentiment(entries: dict[str, Any], key: str, size: int, where: str, notes: Notes) -> np.ndarray:
    """Sentiment of each sample: a vector, or the first of the seven columns of the SDK's label sequences."""
    values: Any = entries.get(key)
    shape = values.shape if isinstance(values, np.ndarray) else ()
    if shape in ((size, 1, 7), (size, 7)):
        notes[f"{key} with seven columns"] = f"shape (N{', 1' * (len(shape) - 2)}, 7): sentiment is column 0"
        entries = {key: values.reshape(size, 7)[:, 0]}
    return _vector(entries, key, size, where)


def _strings(values: Any, shape: tuple[int, ...], where: str) -> np.ndarray:
    """Object array of str; bytes are decoded, and behind the first of several columns numbers may stand."""
    try:
        array = np.asarray(values, dtype=object)
    except ValueError:
        array = np.zeros(0, object)
    if array.shape != shape:
        raise ValueError(f"{where}: expected text of shape {shape}, got {array.shape}")
    for item in array.reshape(shape[0], -1)[:, 0]:
        if not isinstance(item, str | bytes):
            raise ValueError(f"{where}: expected text, got {item!r:.40} ({type(item).__name__}); make them text")
    decoded = [item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item) for item in array.flat]
    return np.array(decoded, dtype=object).reshape(shape)


def _to_front(
    x: np.ndarray, first: np.ndarray, length: np.ndarray, part: str, name: str, notes: Notes
) -> tuple[np.ndarray, np.ndarray]:
    """`length` steps of each row of `x` from step `first`, as clean float32 padded at the end; and the mask."""
    features = np.zeros(x.shape, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for row in range(len(x)):
            features[row, : length[row]] = x[row, first[row] : first[row] + length[row]]
    for start in range(0, len(x), 256):
        total = int(length[start : start + 256].sum()) * x.shape[2]
        _count_cleaned(notes, part, name, clean(features[start : start + 256]), total)
    _count(notes, "samples without a real step, one zero step kept", name, int((length == 0).sum()))
    return features, np.arange(x.shape[1]) < np.maximum(length, 1)[:, None]


def _read_mmsa(entries: dict[str, Any], part: str, aligned: bool, where: str, notes: Notes) -> Part:
    """Padding is at the end; lengths come from BERT's attention mask and from the keys `*_lengths`."""
    size = len(_sequences(entries, "text", where))
    sentiment = _sentiment(entries, "regression_labels", size, where, notes)
    ids = _strings(_entry(entries, "id", where), (size,), f"{where}, id")
    strange = next((name for name in ids if "$_$" not in name), None)
    if strange is not None:
        raise ValueError(f"{where}, id: expected video$_$clip, got {strange!r}")
    bert = _entry(entries, "text_bert", where)
    try:
        bert = np.asarray(bert)
    except ValueError as error:
        raise ValueError(f"{where}, text_bert: no array of numbers ({error})") from None
    steps = entries["text"].shape[1]
    if bert.shape != (size, 3, steps) or bert.dtype.kind not in "fiu":
        raise ValueError(f"{where}, text_bert: expected ({size}, 3, {steps}) numbers, got {bert.shape}")
    attention = bert[:, 1, :]
    if not np.isin(attention, (0, 1)).all() or (np.diff(attention.astype(np.int8), axis=1) > 0).any():
        raise ValueError(f"{where}, text_bert: row 1 must be an attention mask, ones before zeros")
    words = attention.astype(np.int64).sum(1)
    features, mask = {}, {}
    for name in MODALITIES:
        x = _sequences(entries, name, where, size)
        length = words
        if not aligned and name != "text":
            stated = _vector(entries, f"{name}_lengths", size, where)
            if (stated < 0).any() or (stated != np.round(stated)).any():
                raise ValueError(f"{where}, {name}_lengths: expected whole numbers from 0")
            _count(notes, "stated lengths beyond the padded length", name, int((stated > x.shape[1]).sum()))
            length = np.minimum(stated, x.shape[1]).astype(np.int64)
        elif x.shape[1] != steps:
            raise ValueError(f"{where}: {name} has {x.shape[1]} steps, text {steps}, in an aligned file")
        first = _stated(x, length, part, name, where, notes)
        features[name], mask[name] = _to_front(x, first, length, part, name, notes)
        del entries[name], x
    return Part(features, mask, sentiment, [name.split("$_$")[0] for name in ids])


def _stated(x: np.ndarray, length: np.ndarray, part: str, name: str, where: str, notes: Notes) -> np.ndarray:
    """First step of each sample, where `length` (N,) says how many there are: 0, unless padding is elsewhere.

    Values beyond the stated length beside zeros within it show another layout: padding at the front, or at both
    ends. The layout that holds the values of most samples is taken.

    Raises ValueError where samples would lose values beside zeros that are kept.
    """
    real = _real(x)
    step, room = np.arange(x.shape[1]), x.shape[1] - length
    places = {
        "the end": 0 * length,
        "the front": room,
        "both ends": room // 2,
        "both ends, more in front": -(-room // 2),
    }

    def outside(first: np.ndarray) -> np.ndarray:
        return real & ((step < first[:, None]) | (step >= (first + length)[:, None]))

    lost = outside(places["the end"])
    strange = lost.any(1) & (~real & (step < length[:, None])).any(1)
    place = "the end"
    if strange.any():
        place = min(places, key=lambda side: int(outside(places[side]).any(1).sum()))
        if place != "the end":
            lost = outside(places[place])
            strange = lost.any(1)
            _count(notes, f"samples padded at {place}, moved to the front", name, int((places[place] > 0).sum()))
    blanked = strange & (real.sum(1) == lost.sum(1)) & (length > 0)
    if blanked.any() or strange.sum() > CLEARED * len(x):
        row = int((blanked if blanked.any() else strange).argmax())
        raise ValueError(
            f"{where}, {name}: {int(strange.sum())} of {len(x)} samples hold zeros within their stated "
            f"length and values beyond it, padded neither at the end nor at the front (first: sample {row} from "
            f"0, stated {length[row]} of {x.shape[1]} steps); mend the lengths or the padding"
        )
    _count(notes, "steps beyond the stated length that held values, set to 0", name, int(lost.sum()))
    if lost.sum() > CLEARED * real.sum():
        notes["warnings"].append(
            f"{name}, {part}: {lost.sum() / real.sum():.0%} of the steps that hold values stand beyond "
            "the stated length and are left out"
        )
    return places[place]


def _read_mult(entries: dict[str, Any], part: str, aligned: bool, where: str, notes: Notes) -> Part:
    """Padding is zero steps at the front, or where most samples have it at the end or at both ends, there.

    In aligned files padding is zero in all modalities.
    """
    size = len(_sequences(entries, "text", where))
    sentiment = _sentiment(entries, "labels", size, where, notes)
    ids = _strings(_entry(entries, "id", where), (size, 3), f"{where}, id")
    steps = entries["text"].shape[1]
    before: dict[str, np.ndarray] = {}
    behind: dict[str, np.ndarray] = {}
    for name in MODALITIES:
        x = _sequences(entries, name, where, size)
        if aligned and x.shape[1] != steps:
            raise ValueError(f"{where}: {name} has not the number of steps of text, in an aligned file")
        real = _real(x)
        blank = ~real.any(1)
        before[name] = np.where(blank, x.shape[1], real.argmax(1))
        behind[name] = np.where(blank, 0, real[:, ::-1].argmax(1))
        _count(notes, "samples with zeros only", name, int(blank.sum()))
    if aligned:
        _check_sides(before, behind, where)
        earliest: np.ndarray = np.minimum.reduce(list(before.values()))
        ends = [np.where(before[name] == steps, steps, behind[name]) for name in MODALITIES]
        latest: np.ndarray = np.where(earliest == steps, 0, np.minimum.reduce(ends))
        before, behind = {name: earliest for name in MODALITIES}, {name: latest for name in MODALITIES}
    features, mask = {}, {}
    for name in MODALITIES:
        x = entries.pop(name)
        side = _side(before[name], behind[name])
        if side != "front":
            elsewhere = notes.setdefault("padding not at the front, as in MulT's files, but at", {})
            elsewhere[f"{name}, {part}"] = side
        first = np.where(before[name] == x.shape[1], x.shape[1], 0) if side == "end" else before[name]
        last = x.shape[1] - (0 if side == "front" else behind[name])
        kept = behind[name] > 0 if side == "front" else np.zeros(size, bool)
        _count(notes, "samples that end in zero steps, kept as real", name, int(kept.sum()))
        if kept.mean() > SOME:
            notes["warnings"].append(
                f"{name}, {part}: {kept.mean():.0%} of the samples end in zero steps though padding is "
                "at the front; they are kept as real steps"
            )
        features[name], mask[name] = _to_front(x, first, last - first, part, name, notes)
        del x
    return Part(features, mask, sentiment, [SEGMENT.sub("", video) for video in ids[:, 0]])


def _side(before: np.ndarray, behind: np.ndarray) -> str:
    """Where padding is, by the number of zero steps before and behind each sample's values."""
    front, end = int(((before > 0) & (behind == 0)).sum()), int(((before == 0) & (behind > 0)).sum())
    if ((before > 0) & (behind > 0)).sum() > 2 * SOME * len(before):
        return "both ends"
    return "end" if end > front else "front"


def _check_sides(before: dict[str, np.ndarray], behind: dict[str, np.ndarray], where: str) -> None:
    """Refuse aligned files that are padded at the front in one modality and at the end in another."""
    sides = {}
    for name in MODALITIES:
        if ((before[name] > 0) ^ (behind[name] > 0)).mean() > EMPTY:
            sides[name] = _side(before[name], behind[name])
    if len(set(sides.values())) > 1:
        named = ", ".join(f"{name} at the {side}" for name, side in sides.items())
        raise ValueError(
            f"{where}: padded {named}, in an aligned file, so that their steps do not belong together; pad "
            "all modalities alike"
        )


def _role(name: str) -> str | None:
    """What a computational sequence holds, by its root or file name."""
    name = re.sub(r"[^a-z]", "", name.lower())
    if "wordvectors" in name or "glovevectors" in name:
        return "text"
    for role, sign in (("audio", "covarep"), ("vision", "facet")):
        if sign in name:
            return role
    if name.endswith("words"):
        return "words"
    return "labels" if "labels" in name and "emotion" not in name else None


def _open_csd(corpus: Corpus, folder: Path, stack: ExitStack) -> dict[str, Sequence]:
    sequences: dict[str, Sequence] = {}
    for path in _csd_files(corpus, folder):
        sequence = stack.enter_context(Sequence(path))
        role = _role(sequence.name) or _role(path.stem)
        if role in sequences:
            raise ValueError(
                f"{folder}: {sequences[role].path.name} and {path.name} both hold {role}; keep one of them there"
            )
        if role is not None:
            sequences[role] = sequence
    needed = {
        "words": "*Words.csd",
        "text": "*WordVectors*.csd",
        "audio": "*COVAREP*.csd",
        "vision": "*Facet*.csd",
        "labels": "*Labels*.csd",
    }
    missing = [f"{role} ({name})" for role, name in needed.items() if role not in sequences]
    if missing:
        raise FileNotFoundError(
            f"{folder}: unavailable: {', '.join(missing)}; the csd layout needs these computational sequences "
            "of the CMU Multimodal SDK beside those that are there"
        )
    return {role: sequences[role] for role in needed}


def _read_csd(
    corpus: Corpus, folder: Path, allow_partial: bool, notes: Notes
) -> tuple[dict[str, Part], list[bytes]]:
    """Words of each labelled segment, with the mean of each modality's frames over the word's interval."""
    with ExitStack() as stack:
        sequences = _open_csd(corpus, folder, stack)
        lists = _csd_files(corpus, folder, "*_std_folds.py")
        if len(lists) != 1:
            raise FileNotFoundError(
                f"{folder}: expected one file cmu_{corpus.name}_std_folds.py with the official folds beside the "
                f".csd files, found {len(lists)}; it is in mmsdk/mmdatasdk/dataset/standard_datasets of the SDK"
            )
        folds = read_folds(lists[0])
        sizes = tuple(len(set(videos)) for videos in folds.values())
        _check_counts(lists[0], "videos", sizes, (corpus.folds,), allow_partial, notes)
        labelled = _by_video(folder, sequences, notes)
        _check_times(folder, sequences, notes)
        listed = {video for videos in folds.values() for video in videos}
        notes["segments of videos in no fold, left out"] = sum(
            len(sequences["labels"].read(key)[0])
            for video, keys in labelled.items()
            if video not in listed
            for key in keys
        )
        notes["videos in a fold without labels"] = sorted(listed - set(labelled))
        notes["silences left out"] = 0
        notes[f"words beyond the {LONGEST}th of a segment, cut"] = 0
        parts = {}
        for part, videos in folds.items():
            found = [
                (video, value, segment)
                for video in sorted(set(videos) & set(labelled))
                for key in labelled[video]
                for value, segment in _segments(sequences, key, part, notes)
            ]
            if not found:
                raise ValueError(
                    f"{folder}: no labelled segment in the {part} fold; it names videos such as {videos[:1]}, and "
                    f"{sequences['labels'].path.name} such as {sequences['labels'].videos[:1]}"
                )
            features, mask = {}, {}
            for name in MODALITIES:
                rows = [segment.pop(name) for *_, segment in found]
                widths = sorted({row.shape[1] for row in rows})
                if len(widths) > 1:
                    raise ValueError(f"{sequences[name].path}: feature widths {widths} differ between its videos")
                padded, real = pad(rows)
                features[name], mask[name] = padded.numpy(), real.numpy()
            sentiment = np.array([value for _, value, _ in found])
            parts[part] = Part(features, mask, sentiment, [video for video, *_ in found])
        files = [*(sequence.path for sequence in sequences.values()), lists[0]]
    return parts, [bytes.fromhex(sha256(file)) for file in files]


def _by_video(folder: Path, sequences: dict[str, Sequence], notes: Notes) -> dict[str, list[str]]:
    """Video -> its keys in the labels: the video itself, or after the SDK's alignment its segments VIDEO[n]."""
    cut = {role: [bool(SEGMENT.search(key)) for key in sequence.videos] for role, sequence in sequences.items()}
    kinds = {role: "segments VIDEO[n]" if all(keys) else "videos" for role, keys in cut.items() if keys}
    if len(set(kinds.values())) > 1 or any(any(keys) and not all(keys) for keys in cut.values()):
        named = ", ".join(f"{role} by {kind}" for role, kind in kinds.items())
        raise ValueError(
            f"{folder}: some sequences are keyed by aligned segments VIDEO[n], some by videos ({named}); give "
            "all of them as they were before the SDK's align, or all as they were after it"
        )
    keys = sequences["labels"].videos
    if "videos" in kinds.values() or not keys:
        return {video: [video] for video in keys}
    notes["keys VIDEO[n], aligned by the SDK, read segment by segment"] = len(keys)
    found: dict[str, list[str]] = {}
    for key in sorted(
        keys, key=lambda key: (SEGMENT.sub("", key), [int(n) for n in re.findall(r"\[(\d+)\]", key)])
    ):
        found.setdefault(SEGMENT.sub("", key), []).append(key)
    return found


def _check_times(folder: Path, sequences: dict[str, Sequence], notes: Notes) -> None:
    """Refuse sequences that end many times earlier or later than the words, so are in another unit of time."""
    words = sequences["words"].ends()
    for role, sequence in sequences.items():
        ends = sequence.ends()
        common = [key for key in words if words[key] > 0 and ends.get(key, 0) > 0]
        least = 0 if role == "labels" else 1 / FACTOR  # often only the beginning is labelled
        strange = [key for key in common if not least <= ends[key] / words[key] <= FACTOR]
        if not strange:
            continue
        line = (
            f"{sequence.path.name}: {len(strange)} of {len(common)} videos end many times earlier or later than "
            f"their words do (first: {strange[0]}, {ends[strange[0]]:,.1f} s and {words[strange[0]]:,.1f} s)"
        )
        if len(strange) > SOME * len(common):
            raise ValueError(
                f"{folder}: {line}; the times of one of them are not in seconds, perhaps in frames or milliseconds"
            )
        notes["warnings"].append(f"{role}: {line}")


def _segments(
    sequences: dict[str, Sequence], video: str, part: str, notes: Notes
) -> list[tuple[float, dict[str, np.ndarray]]]:
    """Sentiment and word-aligned features (T, d) of each labelled segment of a video."""
    scores, bounds = sequences["labels"].read(video)
    scores, bad = numbers(scores, f"{sequences['labels'].path}, video {video}")
    if any(bad.values()):
        raise ValueError(f"{sequences['labels'].path}, video {video}: labels that are not finite")
    intervals = np.zeros((0, 2))
    if video in sequences["words"].videos:
        words, intervals = sequences["words"].read(video)
        spoken = np.array([word not in (b"sp", "sp") for word in words[:, 0]], bool)
        notes["silences left out"] += int((~spoken).sum())
        intervals = intervals[spoken]
    middle = intervals.mean(1)
    chosen = [np.flatnonzero((start <= middle) & (middle < end)) for start, end in bounds]
    cut = sum(max(0, len(rows) - LONGEST) for rows in chosen)
    notes[f"words beyond the {LONGEST}th of a segment, cut"] += cut
    empty = sum(not len(rows) for rows in chosen)
    chosen = [rows[:LONGEST] for rows in chosen]
    used = np.unique(np.concatenate([np.zeros(0, np.int64), *chosen]))
    features: list[dict[str, np.ndarray]] = [{} for _ in chosen]
    for name in MODALITIES:
        means, there = _word_means(sequences[name], video, intervals, part, name, notes)
        _count(notes, "words without features, set to 0", name, int((~there[used]).sum()))
        _count(notes, "samples without a real step, one zero step kept", name, empty)
        for target, rows in zip(features, chosen, strict=True):
            target[name] = means[rows] if len(rows) else np.zeros((1, means.shape[1]), np.float32)
    return [(float(score), row) for score, row in zip(scores[:, 0], features, strict=True)]


def _word_means(
    sequence: Sequence, video: str, words: np.ndarray, part: str, name: str, notes: Notes
) -> tuple[np.ndarray, np.ndarray]:
    """Means over the words (k, d) float32, and (k,) bool where there was any frame."""
    if video not in sequence.videos:
        _count(notes, "videos missing in a sequence", name, 1)
        width = sequence.read(sequence.videos[0])[0].shape[1] if sequence.videos else 1
        return np.zeros((len(words), width), np.float32), np.zeros(len(words), bool)
    frames, intervals = sequence.read(video)
    values, cleaned = numbers(frames, f"{sequence.path}, video {video}")
    _count_cleaned(notes, part, name, cleaned, values.size)
    rows = frames_of(words, intervals)
    return mean_over(values, rows), np.array([len(group) > 0 for group in rows], bool)
