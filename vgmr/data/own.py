"""Your own clips: a table of words, recordings and videos becomes a data set, features extracted once per clip."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import inspect
import json
import os
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch

from vgmr.data import store
from vgmr.data.extract.audio import FASTEST, egemaps, log_mel, read_wav
from vgmr.data.extract.clips import BrokenFile, Stored, data_folder, digest_of, make_stored, read_raw, read_stored
from vgmr.data.extract.images import Extractor, ImageNetwork, folder_images, read_images, read_video, rgb_input
from vgmr.data.extract.images import spread as spread_over
from vgmr.data.extract.text import TextEncoder, read_words, word_timing
from vgmr.data.types import Batch, MultimodalData, check_whole, fingerprint, holdout, pad
from vgmr.machine.files import cache_folder, place, user_path, writable

Found = TypeVar("Found")
TABLE = "table.csv"
COLUMNS = ("id", "label", "text", "text_file", "audio", "video", "group", "split")
SOUNDS: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {"log-mel": log_mel, "egemaps": egemaps}
PARTS = {"train": "train", "validation": "validation", "valid": "validation", "val": "validation"}
PARTS |= {"dev": "validation", "test": "test"}
TESTED, HELD_OUT = 0.2, 0.1
FEW = 10  # clips of a part below which its sizes and classes say little
# as tables write what is missing; "none" in small letters is a class of emotions
MISSING = ("nan", "NaN", "NAN", "<NA>", "N/A", "n/a", "#N/A", "NA", "NULL", "null", "None", "?")
VERSION = 3  # of the preparation
FRACTION = re.compile(r"[-+]?\d*[.,]\d*[1-9]\d*([eE][-+]?\d+)?")
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)")
UNSEEN = re.compile("[\u200b-\u200f\u2060\ufeff]")  # characters without a width
RAGGED = re.compile(r"Expected (\d+) fields in line (\d+), saw (\d+)")
MARKERS = (TABLE, store.MANIFEST)
EXPECTED = (
    f"give as root a table of your clips (.csv), a folder with one called {TABLE}, or a folder that vgmr data "
    "extract wrote"
)


@dataclass(frozen=True)
class Row:
    """A line of the table: its values by column, and the files behind its modalities as paths."""

    id: str
    values: dict[str, str]
    folder: Path

    def path(self, column: str) -> Path:
        """The file or folder in a column, from the table's own folder unless it is absolute."""
        path = Path(self.values[column])
        with contextlib.suppress(RuntimeError):  # the home of nobody: a name that begins with ~
            path = path.expanduser()
        named = str(path)  # a Mac names in NFD
        forms = (named, unicodedata.normalize("NFC", named), unicodedata.normalize("NFD", named))
        return next((there for form in forms if os.path.exists(there := self.folder / form)), self.folder / path)


def load_own(
    root: str | Path | None = None,
    text: str | None = None,
    audio: str | None = None,
    video: Extractor = None,
    frames: int = 16,
    rate: int = 16000,
    labels: str = "classes",
) -> MultimodalData:
    """Your own clips from a table; features are extracted once per clip, and the data set is kept prepared.

    The table has one line per clip, columns `id` and `label` (in small or capital letters), and at least one of
        text: the words themselves; or text_file: a file of words, or a .csv with the columns word, start and end
            (seconds). Gives `text` (N, T, d), one vector per word, and where every clip has times `timing`
            (N, T, 3), see `vgmr.data.extract.text.word_timing`.
        audio: a .wav file. Gives `audio`, (N, T, 64) log-mel of 25 ms every 10 ms, or (N, T, 25) eGeMAPS.
        video: a video file, or a folder of numbered images. Gives `video` (N, frames, D) by an image network.
    and, if wanted, `group` (speaker, subject, source: shared by no two parts) and `split` (train, validation,
    test; else 20 % are drawn for the test and 10 % of the rest for validation, whole groups where there are some,
    else by class, at least one of two clips). Paths count from the table's folder. A clip that cannot be read is
    left out, named in `notes` and warned of; so is a class without a clip in the training part, and a column of
    another name, which is not read. A clip counts as changed where its size or its time of change differs.

    Args:
        root: the table, its folder, or the folder that `vgmr data extract` wrote, which needs no other argument
            and takes none but what it was extracted with; None takes `own` in VGMR_DATA.
        text: a `transformers` encoder, a hub name or a local folder; needed where the table has words.
        audio: "log-mel" (also where nothing is said) or "egemaps", by opensmile (not for commercial use).
        video: see `vgmr.data.extract.images.ImageNetwork`; None takes torchvision's ResNet-18 (D = 512).
        frames: number of frames taken of a video, the middles of equal parts.
        rate: samples per second to which recordings are brought.
        labels: "classes", or "regression" for numbers.

    Raises:
        FileNotFoundError: no table, or an encoder that is not at hand.
        ValueError: a table that is not as documented, too few clips that can be read, unknown options.
        ImportError: a library that an extractor needs, with what to install.
    """
    if audio not in (None, *SOUNDS):
        raise ValueError(f"audio must be one of {', '.join(SOUNDS)}; got {audio!r}")
    if labels not in ("classes", "regression"):
        raise ValueError(f"labels must be classes or regression, got {labels!r}")
    check_whole(1, frames=frames)
    check_whole(1000, rate=rate)
    if rate > FASTEST:
        raise ValueError(f"rate must be at most {FASTEST}, got {rate}")
    if not isinstance(text, str | Path | None):
        raise ValueError(f"text must be an encoder, a hub name or a local folder; got {text!r}")
    folder = _extracted(root)
    if folder is not None:
        data = store.read(folder)
        given = {"text": text, "audio": audio, "video": video, "frames": frames, "rate": rate, "labels": labels}
        _refuse_others(folder, data.notes.get("extracted by", {}), given)
        return data
    table = _find_table(root)
    rows = read_table(table)
    columns = set(rows[0].values)
    words = next((column for column in ("text", "text_file") if column in columns), None)
    if words and text is None:
        raise ValueError(f"{table}: has the column {words}; give text= an encoder, a hub name or a local folder")
    if text is not None and words is None:
        raise ValueError(f"{table}: text= was given, but there is no column text or text_file")
    network = ImageNetwork(video) if "video" in columns else None
    options: dict[str, Any] = {"labels": labels}
    if words:
        options["text"] = str(text)
    if "audio" in columns:
        options |= {"audio": audio or "log-mel", "rate": rate}
    if network:
        options |= {"video": network.name, "frames": frames}
    key = {"data": "own", "version": VERSION, **options, "files": _state(table, rows, words, text)}
    data = store.prepared(key, lambda: _make(table, rows, words, network, options))
    if unread := sorted(columns - {*COLUMNS, ""}):
        line = f"{table.name}: not read are its columns {_some(unread)}; known are {', '.join(COLUMNS)}"
        data.notes["warnings"].append(line)
    return data


def _refuse_others(folder: Path, stored: dict[str, Any], given: dict[str, Any]) -> None:
    """ValueError where an option is given, not left at its default, that `folder` was not extracted with."""
    defaults = inspect.signature(load_own).parameters
    for name, value in given.items():
        if value == defaults[name].default or value == stored.get(name):
            continue
        same = value
        if name == "video":
            same = ImageNetwork(value).name
        elif name == "text" and name in stored:
            same = TextEncoder(value).name
        if same != stored.get(name):
            was = f"with {name}={stored[name]!r}" if name in stored else f"without {name}"
            raise ValueError(
                f"{folder} was extracted {was}, got {name}={same!r}; leave {name} out, or extract the table anew"
            )


def extract(table: str | Path, output: str | Path | None = None, **options: Any) -> MultimodalData:
    """`load_own(table, **options)`, written to the folder `output` too, which `load_own` then reads by itself.

    An empty folder is filled, a data set that was extracted before is replaced. Raises ValueError, before anything
    is extracted, where `output` holds something else, and as `load_own`.
    """
    if output is None:
        return load_own(table, **options)
    folder = user_path(output)
    folder = folder.resolve() if folder.is_symlink() else folder  # a link stays
    if folder.exists() and not _makes_way(folder):
        raise ValueError(f"{folder} is there and holds no data set; give another place as output")
    if why := writable(folder.parent):
        raise ValueError(f"{why}; give another place as output")
    data = load_own(table, **options)
    data.check()
    try:
        store.write(folder, {"data": "own", "version": VERSION, "fingerprint": data.fingerprint}, data)
    except OSError as error:
        said = error.strerror or str(error)
        raise OSError(f"{folder} cannot be written ({said}); give another place as output") from None
    return data


def _makes_way(folder: Path) -> bool:
    """Whether a place holds nothing, or a data set that `extract` wrote and nothing besides."""
    if not folder.is_dir():
        return False
    there = {file.name for file in folder.iterdir()}
    if not there:
        return True
    try:
        key = json.loads((folder / store.MANIFEST).read_text(encoding="utf-8"))["key"]["data"]
    except (OSError, ValueError, LookupError, TypeError):
        return False
    return key == "own" and there <= {store.MANIFEST, *(f"{part}.safetensors" for part in store.PARTS)}


def read_table(path: Path) -> list[Row]:
    """The lines of a table of clips, with all its columns, known in `COLUMNS` or not, as text.

    Raises ValueError in one line for a table that is not as documented, and FileNotFoundError.
    """
    raw = read_raw(path, EXPECTED)
    form: dict[str, Any] = {"dtype": str, "keep_default_na": False, "skipinitialspace": True}
    try:
        frame = pd.read_csv(path, header=None, encoding="utf-8-sig", compression=None, **form)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not text in UTF-8 (byte {error.start}); save it as .csv in UTF-8") from None
    except ValueError as error:
        if ragged := RAGGED.search(str(error)):
            raise ValueError(
                f"{path}, line {ragged[2]}: {ragged[3]} fields, more than the {ragged[1]} of the header; "
                "take away a comma at its end, and put a text that holds commas in double quotes"
            ) from None
        raise ValueError(f"{path}: not a table ({' '.join(str(error).split())})") from None
    frame = frame[1:].set_axis(frame.iloc[0].str.strip().str.lower().tolist(), axis=1)
    missing = [column for column in ("id", "label") if column not in frame.columns]
    there = [column for column in COLUMNS if column in frame.columns]
    if missing or not {"text", "text_file", "audio", "video"} & set(there):
        raise ValueError(
            f"{path}: expected the columns id, label, and one or more of text, text_file, audio, video (and if "
            f"wanted group, split), separated by commas, got {_some(frame.columns)}; features that are numbers "
            "already go into MultimodalData"
        )
    if doubled := [column for column in there if list(frame.columns).count(column) > 1]:
        raise ValueError(f"{path}: has the column {doubled[0]} more than once; keep one of them")
    if {"text", "text_file"} <= set(there):
        raise ValueError(f"{path}: has both text and text_file; keep one of them")
    if not len(frame):
        raise ValueError(f"{path}: has no line below its header ({len(raw)} bytes)")
    _refuse_swallowed(path, frame)
    frame = frame.loc[:, ~frame.columns.duplicated()].apply(lambda column: column.str.strip())
    named = sorted({"id", "label", "group"} & set(there))  # a Mac writes é as two characters
    frame[named] = frame[named].apply(lambda column: column.str.normalize("NFC"))
    for column in sorted({"id", "label", "split", "group"} & set(there)):
        if (frame[column] == "").any():
            raise ValueError(f"{path}, line {_line(path, (frame[column] == '').to_numpy().argmax())}: no {column}")
    for column in sorted({"label", "group"} & set(there)):
        if (lacking := frame[column].isin(MISSING).to_numpy()).any():
            line, value = _line(path, lacking.argmax()), frame[column].iloc[int(lacking.argmax())]
            said = "as tables write a missing value; give one, or leave the clip out"
            raise ValueError(f"{path}, line {line}: the {column} is {value!r}, {said}")
    if frame["id"].duplicated().any():
        raise ValueError(f"{path}: id {frame['id'][frame['id'].duplicated()].iloc[0]!r} is there more than once")
    if "split" in there:
        unknown = sorted(set(frame["split"].str.lower()) - set(PARTS))
        if unknown:
            raise ValueError(f"{path}: split must be train, validation or test, got {unknown[0]!r}")
    records = frame.to_dict("records")
    return [Row(str(r["id"]), {str(k): str(v) for k, v in r.items()}, path.parent) for r in records]


def _line(path: Path, row: np.integer) -> int:
    """The line of the file on which a row below the header begins, after empty lines and breaks in texts."""
    starts, before = [], 0
    csv.field_size_limit(2**31 - 1)
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.reader(file, skipinitialspace=True)
        for fields in reader:
            if len(fields) > 1 or "".join(fields).strip():
                starts.append(before + 1)
            before = reader.line_num
    return starts[int(row) + 1]


def _some(names: Sequence[str]) -> str:
    """The first of many names, as far as they go into a line."""
    text = ", ".join(names)
    return text if len(text) <= 200 else f"{text[:200]} ... ({len(names):,} in all)"


def _refuse_swallowed(path: Path, frame: pd.DataFrame) -> None:
    """ValueError where a double quote that is left open took the clips after it into its text."""
    columns = frame.columns.tolist()
    labels, label = set(frame["label"]), columns.index("label")
    for name, text in zip(frame["id"], frame["text"] if "text" in columns else [], strict=False):
        for fields in (line.split(",") for line in str(text).split("\n")[1:]):
            if len(fields) >= len(columns) and fields[label] in labels:
                raise ValueError(
                    f"{path}: the text of {name!r} holds a further line of the table, {','.join(fields)[:60]!r}; "
                    "write a double quote that belongs to a text twice, and the text in double quotes"
                )


def _extracted(root: str | Path | None) -> Path | None:
    """The folder that `extract` wrote, where `root` is one."""
    base = place("VGMR_DATA") if root is None else user_path(root)
    folder = base / "own" if root is None and base is not None else base
    if folder is None or not (folder / store.MANIFEST).is_file():
        return None
    others = (folder / TABLE).is_file() and not (folder / f"{store.PARTS[0]}.safetensors").is_file()
    return None if others else folder


def _find_table(root: str | Path | None) -> Path:
    if root is not None and user_path(root).is_file():
        return user_path(root)
    if root is not None and user_path(root).suffix == ".csv" and not user_path(root).exists():
        said = f"no such table; give the .csv file, or the folder that holds {TABLE}"
        raise FileNotFoundError(f"{user_path(root)}: {said}")
    return data_folder("own", root, TABLE, EXPECTED) / TABLE


def state(root: str | Path | None) -> str:
    """What tells that the table, a clip or an extracted folder changed; raises as `read_table`."""
    folder = _extracted(root)
    if folder is not None:
        return hashlib.sha256((folder / store.MANIFEST).read_bytes()).hexdigest()
    table = _find_table(root)
    return _state(table, read_table(table), None, None)


def _state(table: Path, rows: Sequence[Row], words: str | None, text: str | None) -> str:
    """Digest of the table and of name, size and time of every file behind it: what tells that nothing changed."""
    digest = hashlib.sha256(table.read_bytes())
    places = [
        row.path(column) for row in rows for column in ("text_file", "audio", "video") if row.values.get(column)
    ]
    if words and text and Path(text).expanduser().is_dir():
        places.append(Path(text).expanduser())
    for there in places:
        inside = [there]
        with contextlib.suppress(OSError, ValueError):  # no name of a file: `_contents` says what is wrong with it
            inside = sorted(there.glob("[!.]*")) if there.is_dir() else inside
        for file in inside:
            try:
                state = file.stat()
            except (OSError, ValueError):
                digest.update(os.fsencode(file) + b": none")
                continue
            digest.update(json.dumps([str(file), state.st_size, state.st_mtime_ns]).encode())
    return digest.hexdigest()


def _make(
    table: Path, rows: Sequence[Row], words: str | None, network: ImageNetwork | None, options: dict[str, Any]
) -> MultimodalData:
    """Extract what is not stored yet, leave broken clips out, and put the parts together."""
    broken: dict[str, str] = {}
    features: dict[str, Stored] = {}
    warned: list[str] = []
    if words:
        encoder = TextEncoder(options["text"])
        options = {**options, "text": encoder.name}
        read = _found(rows, lambda row: _words(row, words), broken)
        sources = {name: json.dumps(said).encode() for name, (said, _) in read.items()}

        title = f"text-{encoder.name}"
        features["text"] = _stored(title, sources, lambda name: encoder([read[name][0]])[0], broken, "text")
        timed = {name: (said, times) for name, (said, times) in read.items() if times is not None}
        if timed and len(timed) == len(read):
            features["timing"] = {}
            for name, (said, times) in timed.items():
                try:
                    features["timing"][name] = word_timing(said, times), hashlib.sha256(times.tobytes()).digest()
                except ValueError as error:
                    broken[name] = f"its times: {error}"
        elif timed:
            untimed = [name for name in read if name not in timed]
            some = f"{len(untimed):,} of {len(read):,} clips have no times of their words (first: {untimed[0]})"
            warned.append(f"{some}, so there is no timing for any")

    def of_files(column: str, title: str, make: Callable[[Path], np.ndarray], frames: int | None = None) -> None:
        by_id = {row.id: row for row in rows}
        sources = _found(rows, lambda row: _contents(row, column, frames), broken)
        features[column] = _stored(title, sources, lambda name: make(by_id[name].path(column)), broken, column)

    if "audio" in options:

        def sound(path: Path) -> np.ndarray:
            signal, rate, _ = read_wav(path, options["rate"])
            try:
                return SOUNDS[options["audio"]](signal, rate)
            except ValueError as error:
                raise BrokenFile(f"{path}: {error}") from None

        of_files("audio", f"audio-{options['audio']}-{options['rate']}", sound)
    if network:
        frames = options["frames"]

        def pictures(there: Path) -> np.ndarray:
            read = read_images(_chosen(there, frames)) if there.is_dir() else read_video(there, frames)
            return network(rgb_input(read[0]))

        of_files("video", f"video-{network.name}-{frames}", pictures, frames)
    kept = [row for row in rows if row.id not in broken]
    notes: dict[str, Any] = {"extracted by": options, "warnings": warned}
    if broken:
        first = [f"{name}: {why}" for name, why in broken.items()]
        notes["broken clips, left out"] = first
        line = f"{len(broken):,} of {len(rows):,} clips cannot be read and are left out ({first[0]})"
        if 2 * len(broken) > len(rows):
            raise ValueError(f"{table}: {line}; that is more than half of them")
        notes["warnings"].append(line)
    try:
        return _parts(table, kept, features, options, notes)
    except ValueError as error:
        raise ValueError(f"{error}; {line}" if broken else str(error)) from None


def _found(rows: Sequence[Row], look: Callable[[Row], Found], broken: dict[str, str]) -> dict[str, Found]:
    """What `look` gives for each clip that is not broken; where it cannot, the reason goes into `broken`."""
    found: dict[str, Found] = {}
    for row in rows:
        if row.id not in broken:
            try:
                found[row.id] = look(row)
            except (ValueError, OSError) as error:
                broken[row.id] = str(error)
    return found


def _words(row: Row, column: str) -> tuple[list[str], np.ndarray | None]:
    """Words of a clip, and their times where there are some."""
    if column == "text":
        found: tuple[list[str], np.ndarray | None] = row.values["text"].split(), None
    elif not row.values["text_file"]:
        raise BrokenFile("the table names no file of words for it")
    else:
        found = read_words(row.path("text_file"))
    if not any(found[0]):
        raise BrokenFile("it has no word")
    return found


def _contents(row: Row, column: str, frames: int | None) -> bytes:
    """Bytes that say what is in the files behind a clip."""
    if not row.values[column]:
        raise BrokenFile("the table names no file for it")
    there = row.path(column)
    chosen = [there] if frames is None or not there.is_dir() else _chosen(there, frames)
    if not chosen:
        raise BrokenFile(f"{there}: holds no images")
    return b"".join(map(digest_of, chosen))


def _chosen(there: Path, frames: int) -> list[Path]:
    """The images of a folder that are read: the middles of equal parts."""
    images = folder_images(there)
    return [images[moment] for moment in spread_over(len(images), frames)]


def _stored(
    title: str,
    sources: dict[str, bytes],
    make: Callable[[str], np.ndarray],
    broken: dict[str, str],
    modality: str,
) -> Stored:
    """Features of each clip, kept under the digest of what they are from, so that nothing stale is ever taken."""
    folder = cache_folder() / "features" / title
    digests = {name: hashlib.sha256(source).digest() for name, source in sources.items()}
    files = {name: digest.hex()[:32] for name, digest in digests.items()}
    named = {file: name for name, file in files.items()}

    def of_file(file: str) -> tuple[np.ndarray, bytes]:
        return make(named[file]), digests[named[file]]

    wrong: dict[str, str] = {}
    made = make_stored(folder, list(named), read_stored(folder, list(named)), of_file, f"own {modality}", wrong)
    broken |= {name: wrong[file] for name, file in files.items() if file in wrong}
    return {name: made[file] for name, file in files.items() if file in made}


def _parts(
    table: Path,
    rows: Sequence[Row],
    features: dict[str, Stored],
    options: dict[str, Any],
    notes: dict[str, Any],
) -> MultimodalData:
    values = [row.values["label"] for row in rows]
    if options["labels"] == "regression":
        try:
            with np.errstate(over="ignore"):
                label = np.array(values, np.float64).astype(np.float32)
        except ValueError as error:
            raise ValueError(f"{table}: labels must be numbers for labels='regression' ({error})") from None
        if not np.isfinite(label).all():
            bad = int((~np.isfinite(label)).argmax())
            raise ValueError(f"{table}: the label of {rows[bad].id!r} is {values[bad]}; expected a finite number")
        classes: tuple[str, ...] = ()
    else:
        classes = tuple(sorted(set(values), key=_natural))
        if len(classes) < 2:
            raise ValueError(f"{table}: expected at least two classes in the column label, got {list(classes)}")
        label = np.array([classes.index(value) for value in values], np.int64)
        if 2 * sum(bool(FRACTION.fullmatch(name)) for name in classes) > len(classes):
            line = f"its {len(classes)} classes are numbers such as {classes[0]}; labels='regression' keeps them"
            line += ", written with a point" if "," in classes[0] else ""
            notes["warnings"].append(line)
    for column in sorted({"label", "group"} & set(rows[0].values)):
        alike: dict[str | Decimal, set[str]] = {}
        for row in rows:
            alike.setdefault(_meant(row.values[column]), set()).add(row.values[column])
        if doubled := next((sorted(names) for names in alike.values() if len(names) > 1), None):
            line = f"{column} {' and '.join(map(repr, doubled))} differ in how they are written only and count as "
            line += "different; write them alike if they are the same"
            notes["warnings"].append(line)
    group = None
    if "group" in rows[0].values:
        names = sorted({row.values["group"] for row in rows}, key=_natural)
        group = np.array([names.index(row.values["group"]) for row in rows], np.int64)
        notes["groups"] = len(names)
    parts = _split(table, rows, label, group, not classes, notes)
    if group is not None:
        part_of: dict[str, str] = {}
        for part, chosen in parts.items():
            for who in (rows[number].values["group"] for number in chosen):
                if part_of.setdefault(who, part) != part:
                    raise ValueError(
                        f"{table}: group {who!r} is in {part_of[who]} and {part}; give all its clips one split"
                    )
    seen: dict[bytes, tuple[str, str]] = {}
    for part, chosen in parts.items():
        for name in (rows[number].id for number in chosen):
            pieces = [made[name][0] for made in features.values()]
            content = hashlib.sha256(b"".join(b"%d " % len(x) + x.tobytes() for x in pieces)).digest()
            other, first = seen.setdefault(content, (part, name))
            if other != part:
                raise ValueError(
                    f"{table}: {first!r} in {other} and {name!r} in {part} are the same clip, or have the same "
                    "features; leave one of them out, or give them one group or split"
                )
    trained = set(label[parts["train"]].tolist())
    if lacking := [name for number, name in enumerate(classes) if number not in trained]:
        notes["warnings"].append(
            f"the training part has no clip of {', '.join(lacking)}; give more of them, or another split"
        )
    for part, chosen in parts.items():
        if classes and len(held := set(label[chosen].tolist())) == 1:
            line = f"the {part} part has clips of {classes[held.pop()]} only; give more clips, or another split"
            if part == "train":
                raise ValueError(f"{table}: {line}")
            if len(chosen) >= FEW:
                notes["warnings"].append(line)
    try:
        padded = {name: pad([made[row.id][0] for row in rows]) for name, made in features.items()}
        whole = Batch(
            {name: x for name, (x, _) in padded.items()},
            {name: mask for name, (_, mask) in padded.items()},
            torch.from_numpy(label),
            None if group is None else torch.from_numpy(group),
        )
        batches: dict[str, Any] = {part: whole.index(torch.from_numpy(chosen)) for part, chosen in parts.items()}
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "alloc" not in str(error):
            raise
        raise ValueError(f"{table}: {_largest(rows, features)}") from None
    digests = [features[name][row.id][1] for name in features for row in rows]
    listed = [[row.id, row.values["label"], row.values.get("group"), row.values.get("split")] for row in rows]
    return MultimodalData(
        "own",
        **batches,
        classes=classes,
        source=f"own clips, {table.name}",
        licence="that of the clips",
        fingerprint=fingerprint({"data": "own", "version": VERSION, "options": options, "rows": listed}, *digests),
        notes=notes,
    )


def _largest(rows: Sequence[Row], features: dict[str, Stored]) -> str:
    """What to say where memory does not hold all clips: the one to whose length they are padded."""
    sizes = []
    for name, made in features.items():
        longest, where = max((len(made[row.id][0]), row.id) for row in rows)
        size = 4 * len(rows) * made[where][0].size
        sizes.append((size, f"{name} is padded to the {longest:,} steps of {where!r}"))
    size, line = max(sizes)
    return f"{line}, {size / 2**30:.1f} GiB, which memory does not hold; cut that clip, or leave it out"


def _split(
    table: Path,
    rows: Sequence[Row],
    label: np.ndarray,
    group: np.ndarray | None,
    regression: bool,
    notes: dict[str, Any],
) -> dict[str, np.ndarray]:
    """Part -> rows: as the table says, and what it leaves open drawn, whole groups where there are some."""
    alike = np.zeros(len(label), np.int64) if regression else label
    every = np.arange(len(rows))
    if "split" in rows[0].values:
        said = np.array([PARTS[row.values["split"].lower()] for row in rows])
        training, test, validation = (np.flatnonzero(said == part) for part in ("train", "test", "validation"))
        notes["split"] = "that of the table"
    else:
        training, test = holdout(alike, TESTED, 0, group)
        validation = every[:0]
        notes["split"] = "drawn, " + ("whole groups" if group is not None else "by label")
    if not len(validation) and len(training):
        if group is not None:
            kept, held = holdout(alike[training], HELD_OUT, 0, group[training])
        else:
            kept, held = _some_of_each(alike[training])
        training, validation = training[kept], training[held]
    parts = {"train": training, "validation": validation, "test": test}
    empty = [part for part, chosen in parts.items() if not len(chosen)]
    if "split" not in rows[0].values and max(len(validation), len(test)) > max(FEW - 1, 2 * TESTED * len(rows)):
        sizes = ", ".join(f"{len(chosen):,} {part}" for part, chosen in parts.items())
        line = f"groups are so large that the drawn parts have {sizes}; give a column split, or smaller groups"
        notes["warnings"].append(line)
    if empty:
        given = "split" in rows[0].values
        more = "name some in the column split" if given else "give more clips or groups, or a column split"
        raise ValueError(
            f"{table}: of {len(rows)} clips in {len(np.unique(alike))} classes no clip is left for "
            f"{', '.join(empty)}; {more}"
        )
    return parts


def _some_of_each(label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows (kept, held out): of each label about `HELD_OUT`, of two or more rows at least one, of one none."""
    generator = np.random.default_rng(0)
    held = []
    for value in np.unique(label):
        rows = generator.permutation(np.flatnonzero(label == value))
        held.append(rows[: max(round(HELD_OUT * len(rows)), int(len(rows) > 1))])
    out = np.sort(np.concatenate(held))
    return np.setdiff1d(np.arange(len(label)), out), out


def _natural(text: str) -> tuple[list[Any], str]:
    """Order in which 2 comes before 10, and 01 before 1."""
    pieces = re.split(r"(\d{1,4000})", text)  # Python reads no longer numbers
    return [(0, int(piece), "") if piece.isdecimal() else (1, 0, piece) for piece in pieces], text


def _meant(text: str) -> str | Decimal:
    """The same for names that differ in capital letters, in what is not seen, or are one number."""
    plain = " ".join(UNSEEN.sub("", unicodedata.normalize("NFKC", text)).casefold().split())
    plain = {"true": "1", "false": "0"}.get(plain, plain)
    return Decimal(plain) if NUMBER.fullmatch(plain) else plain
