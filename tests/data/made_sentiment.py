"""Small made CMU-MOSI and CMU-MOSEI files in exactly the layouts of MMSA, MulT and the CMU Multimodal SDK.

The three writers take the same samples, so what the loaders read from them can be compared with what was planted.
"""

import json
import pickle
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

MODALITIES = ("text", "audio", "vision")
KEYS = {"train": "train", "validation": "valid", "test": "test"}
WIDTHS = {"mosi": {"text": 768, "audio": 5, "vision": 20}, "mosei": {"text": 768, "audio": 74, "vision": 35}}
STEPS = {"mosi": {"text": 50, "audio": 375, "vision": 500}, "mosei": {"text": 50, "audio": 500, "vision": 500}}
SMALL = {"text": 6, "audio": 5, "vision": 4}


@dataclass
class Sample:
    """One segment: its video, number in it, sentiment in -3 to 3, and modality -> (T, d) without padding."""

    video: str
    clip: int
    sentiment: float
    features: dict[str, np.ndarray]


def samples(name="mosi", sizes=(12, 6, 8), widths=None, steps=None, aligned=True, seed=0):
    """Part -> list of `Sample`, two to four per video; the sentiment shows in text, and faintly in the others.

    Values are nowhere zero. `aligned` gives the modalities of a sample the same number of steps; otherwise each
    has its own, up to `steps`.
    """
    widths = widths or WIDTHS[name]
    steps = steps or STEPS[name]
    generator = np.random.default_rng(seed)
    share = {"text": 1.0, "audio": 0.3, "vision": 0.3}
    grid = 5 if name == "mosi" else 3
    parts = {}
    for part, size in zip(KEYS, sizes, strict=True):
        made, video, left = [], -1, 0
        for _ in range(size):
            if not left:
                video, left, clip = video + 1, int(generator.integers(2, 5)), 0
            sentiment = float(generator.integers(-3 * grid, 3 * grid + 1)) / grid
            words = int(generator.integers(1, steps["text"] + 1))
            features = {}
            for modality in MODALITIES:
                length = words if aligned else int(generator.integers(1, steps[modality] + 1))
                x = generator.normal(size=(length, widths[modality])) + share[modality] * sentiment
                features[modality] = np.where(x == 0, 1.0, x).astype(np.float32)
            made.append(Sample(f"{part[:2]}_{video:03d}-x", clip, sentiment, features))
            clip, left = clip + 1, left - 1
        parts[part] = made
    return parts


def mmsa(parts, name="mosi", aligned=True, steps=None):
    """The dict in an MMSA pickle: padding at the end, text float32, audio and vision float64."""
    steps = dict(steps or STEPS[name])
    if aligned:
        steps = dict.fromkeys(MODALITIES, steps["text"])
    data = {}
    for part, made in parts.items():
        size = len(made)
        bert = np.zeros((size, 3, steps["text"]), np.int64)
        for row, sample in enumerate(made):
            words = len(sample.features["text"])
            bert[row, 0, :words] = 100 + np.arange(words)
            bert[row, 1, :words] = 1
        content = {
            "raw_text": np.array([f"made text {row}" for row in range(size)]),
            "id": np.array([f"{sample.video}$_${sample.clip}" for sample in made]),
            "text_bert": bert,
            "annotations": np.array([("Negative", "Neutral", "Positive")[_sign(sample)] for sample in made]),
            "classification_labels": np.array([_sign(sample) for sample in made]),
            "regression_labels": np.array([sample.sentiment for sample in made], np.float32),
        }
        for modality in MODALITIES:
            kind = np.float32 if modality == "text" else np.float64
            x = np.zeros((size, steps[modality], made[0].features[modality].shape[1]), kind)
            for row, sample in enumerate(made):
                x[row, : len(sample.features[modality])] = sample.features[modality]
            content[modality] = x
            if not aligned and modality != "text":
                content[f"{modality}_lengths"] = [len(sample.features[modality]) for sample in made]
        data[KEYS[part]] = content
    return data


def mult(parts, name="mosi", aligned=True, steps=None):
    """The dict in a MulT pickle: padding at the front, byte ids, labels (N, 1, 1)."""
    steps = dict(steps or STEPS[name])
    if aligned:
        steps = dict.fromkeys(MODALITIES, steps["text"])
    data = {}
    for part, made in parts.items():
        content = {}
        for modality in MODALITIES:
            kind = np.float32 if modality == "text" and name == "mosi" else np.float64
            x = np.zeros((len(made), steps[modality], made[0].features[modality].shape[1]), kind)
            for row, sample in enumerate(made):
                x[row, steps[modality] - len(sample.features[modality]) :] = sample.features[modality]
            content[modality] = x
        content["labels"] = np.array([sample.sentiment for sample in made]).reshape(-1, 1, 1)
        content["id"] = np.array(
            [[sample.video.encode(), b"%d.5" % sample.clip, b"%d.5" % (sample.clip + 1)] for sample in made]
        )
        data[KEYS[part]] = content
    return data


def write_pickle(path, data, protocol=4):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(data, protocol=protocol))
    return path


def write_mmsa(folder, name="mosi", aligned=True, parts=None, steps=None, protocol=4):
    """Write `Processed/aligned_50.pkl` or `Processed/unaligned_50.pkl`; returns its path."""
    parts = parts or samples(name, aligned=aligned, steps=steps)
    file = f"Processed/{'aligned' if aligned else 'unaligned'}_50.pkl"
    return write_pickle(Path(folder) / file, mmsa(parts, name, aligned, steps), protocol)


def write_mult(folder, name="mosi", aligned=True, parts=None, steps=None, protocol=4):
    """Write `mosi_data.pkl`, `mosei_senti_data_noalign.pkl` or their like; returns its path."""
    parts = parts or samples(name, widths=WIDTHS[name] | {"text": 300}, aligned=aligned, steps=steps)
    file = f"{'mosi' if name == 'mosi' else 'mosei_senti'}_data{'' if aligned else '_noalign'}.pkl"
    return write_pickle(Path(folder) / file, mult(parts, name, aligned, steps), protocol)


def write_sequence(path, root, content, metadata=None):
    """Write one computational sequence; `content` maps a video to (features, intervals)."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for video, (features, intervals) in content.items():
            group = file.create_group(f"{root}/data/{video}")
            group.create_dataset("features", data=features, compression="gzip", compression_opts=9)
            group.create_dataset("intervals", data=np.asarray(intervals, np.float64), compression="gzip")
        for key, value in {"root name": root, **(metadata or {})}.items():
            text = file.create_dataset(f"{root}/metadata/{key}", (1,), h5py.string_dtype())
            text[0] = json.dumps(value)
    return path


def write_csd(
    folder, name="mosi", parts=None, sequences=("words", "text", "audio", "vision", "labels"), folds=True
):
    """Write `.csd` files and the file of folds; returns the folder.

    Each word lasts 0.3 s, its audio three and its vision two frames whose mean is the planted value. Silences
    and a word between segments hold the value 1e6 in every modality.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    widths = WIDTHS[name] | {"text": 300, "audio": 74, "vision": 47 if name == "mosi" else 35}
    parts = parts or samples(name, widths=widths, steps={m: 12 for m in MODALITIES})
    of_video = {}
    for made in parts.values():
        for sample in made:
            of_video.setdefault(sample.video, []).append(sample)
    content = {role: {} for role in ("words", "text", "audio", "vision", "labels")}
    for video, made in of_video.items():
        rows = {role: ([], []) for role in content}
        clock = 0.5
        for sample in made:
            _speak(rows, b"between", clock, clock + 0.2, dict.fromkeys(MODALITIES, 1e6), sample)
            clock = start = clock + 0.2
            for word in range(len(sample.features["text"])):
                if word % 3 == 1:
                    _speak(rows, b"sp", clock, clock + 0.2, dict.fromkeys(MODALITIES, 1e6), sample)
                    clock += 0.2
                planted = {modality: sample.features[modality][word] for modality in MODALITIES}
                _speak(rows, b"word%d" % word, clock, clock + 0.3, planted, sample)
                clock += 0.3
            emotions = [] if name == "mosi" else [0.0] * 6
            rows["labels"][0].append(np.array([sample.sentiment, *emotions], np.float32))
            rows["labels"][1].append((start, clock))
        for role, (features, intervals) in rows.items():
            content[role][video] = (np.stack(features), np.array(intervals))
    upper = f"CMU_{name.upper()}"
    files = {
        "words": (f"{upper}_TimestampedWords", f"{upper}_ModifiedTimestampedWords"),
        "text": (f"{upper}_TimestampedWordVectors", "glove_vectors"),
        "audio": (f"{upper}_COVAREP", "COVAREP"),
        "vision": (f"{upper}_Visual_Facet_41", "FACET_4.1"),
        "labels": (f"{upper}_Labels", "Opinion Segment Labels" if name == "mosi" else "All Labels"),
    }
    for role in sequences:
        file, root = files[role]
        write_sequence(folder / f"{file}.csd", root, content[role])
    if folds:
        write_folds(folder, name, {part: sorted({s.video for s in made}) for part, made in parts.items()})
    return folder


def write_folds(folder, name, folds):
    """Write `cmu_mosi_std_folds.py`: three assignments of literal lists."""
    lines = [f"standard_{KEYS[part]}_fold={videos!r}\n" for part, videos in folds.items()]
    path = Path(folder) / f"cmu_{name}_std_folds.py"
    path.write_text("".join(lines))
    return path


def _sign(sample):
    return 1 + int(np.sign(sample.sentiment))


def _speak(rows, token, start, end, values, sample):
    rows["words"][0].append(np.array([token], "S12"))
    rows["words"][1].append((start, end))
    spread = {"text": (0.0,), "audio": (-1.0, 0.0, 1.0), "vision": (-2.0, 2.0)}
    for modality, offsets in spread.items():
        edges = np.linspace(start, end, len(offsets) + 1)
        for number, offset in enumerate(offsets):
            value = np.broadcast_to(values[modality], sample.features[modality].shape[1])
            rows[modality][0].append((value + offset).astype(np.float32))
            rows[modality][1].append((edges[number], edges[number + 1]))
