"""What all extraction shares: raw files, complete copies, and features stored clip by clip."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vgmr.machine.files import place, user_path, write
from vgmr.machine.work import bar

POINTER = b"version https://git-lfs"


class BrokenFile(ValueError):
    """A recording, image or video that cannot be read whole; its clip may be left out where that is wanted."""


Maker = Callable[[str], tuple[np.ndarray, bytes]]
Stored = dict[str, tuple[np.ndarray, bytes]]
Files = Path | Sequence["Files"]


class Source(NamedTuple):
    """Where the features of a modality are stored, the raw files behind a clip, and how they become features."""

    folder: Path
    files: Callable[[str], Files]
    make: Maker


def message_of(error: BaseException) -> str:
    """What an error says in one line, without the memory addresses of what it was read from; or else its type."""
    text = re.sub(r" <_io\.BytesIO[^>]*>", "", str(error))
    return " ".join(text.split()) or type(error).__name__


def data_folder(name: str, root: str | Path | None, marker: str, expected: str) -> Path:
    """The folder that holds the path `marker`: `root`, or `name` in it; None for root means $VGMR_DATA.

    Raises FileNotFoundError that ends in `expected` if there is none.
    """
    base = place("VGMR_DATA") if root is None else user_path(root)
    if base is None:
        raise FileNotFoundError(f"no root for {name}, and VGMR_DATA is not set; {expected}")
    for folder in (base / name,) if root is None else (base, base / name):
        if (folder / marker).is_file():
            return folder
    raise FileNotFoundError(f"no {marker} of {name} in {base if root is not None else base / name}; {expected}")


def folder_of(name: str, root: str | Path | None, marker: str, files: str) -> Path:
    """`data_folder` for a data set of `files`, which are named in its error with where they belong."""
    place = f"put them in {name}/ in the folder that VGMR_DATA names, or give their folder as root"
    return data_folder(name, root, marker, f"expected {files}; {place}")


def read_raw(path: Path, expected: str = "") -> bytes:
    """The bytes of a file.

    Raises FileNotFoundError if it is missing, with `expected`, ValueError if it is a Git LFS pointer, and
    BrokenFile if it is empty or no file, such as a folder or a pipe.
    """
    if path.exists() and not path.is_file():
        raise BrokenFile(f"{path}: a folder, a pipe or a device; expected a file")
    try:
        raw = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"no {path}" + (f"; {expected}" if expected else "")) from None
    if raw.startswith(POINTER):
        raise ValueError(f"{path}: a Git LFS pointer, not the data; run git lfs pull in the repository it is from")
    if not raw:
        raise BrokenFile(f"{path}: the file is empty; get it again")
    return raw


def read_lines(path: Path, expected: str = "") -> list[str]:
    """The lines of a text file in UTF-8, with or without byte order mark, with LF or CRLF; blank ones left out.

    Raises as `read_raw`, and ValueError for other encodings.
    """
    try:
        text = read_raw(path, expected).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not text in UTF-8 (byte {error.start}); get it again") from None
    return [line.rstrip("\r") for line in text.split("\n") if line.strip()]


def note_missing(
    data: str, missing: Sequence[str], total: int, source: str, allow_partial: bool, notes: dict[str, Any]
) -> None:
    """Refuse clips that are missing, naming the first few, or count them in `notes` where partial data are wanted.

    Raises FileNotFoundError.
    """
    if not missing:
        return
    named = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
    if not allow_partial or len(missing) == total:
        rest = "" if len(missing) == total else ", or pass allow_partial=True to use what is there"
        raise FileNotFoundError(
            f"incomplete copy of {data}: {len(missing):,} of {total:,} clips are missing or incomplete ({named}); "
            f"get them from {source}{rest}"
        )
    notes["partial copy"] = f"{len(missing):,} of {total:,} clips are missing or incomplete: {named}"


def note_counts(
    data: str, found: dict[str, int], published: dict[str, int], allow_partial: bool, notes: dict[str, Any]
) -> None:
    """Refuse counts that differ from the published ones, or note them where partial data are wanted.

    Raises ValueError.
    """
    if found == published:
        return
    counts = f"{_counted(found)}; published are {_counted(published)}"
    if not allow_partial:
        raise ValueError(
            f"incomplete or changed lists of {data}: {counts}; get them again, or pass allow_partial=True"
        )
    notes["partial lists"] = counts


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def read_stored(folder: Path, names: Sequence[str], source: Callable[[str], Files] | None = None) -> Stored:
    """Features and digests of those of `names` that `make_stored` has written to the folder, and are whole.

    `source` gives the raw files behind a clip: features that are older than they, and of another digest, do not
    count. Raw files that are not there any more are not needed.
    """
    found = {}
    for name in names:
        path = folder / f"{name}.npy"
        stored = _read_stored(path)
        if stored is not None and not (source and _changed(source(name), path, stored[1])):
            found[name] = stored
    return found


def digest_of(files: Files) -> bytes:
    """SHA-256 of a file, or over those of a list's members, in their order; raises as `read_raw`."""
    if isinstance(files, Path):
        return hashlib.sha256(read_raw(files)).digest()
    return hashlib.sha256(b"".join(map(digest_of, files))).digest()


def _changed(files: Files, since: Path, digest: bytes) -> bool:
    made = since.stat().st_mtime_ns
    try:
        return any(path.stat().st_mtime_ns > made for path in _places(files)) and digest_of(files) != digest
    except (OSError, ValueError):
        return False


def _places(files: Files) -> Iterator[Path]:
    """The files, and the folders of those in lists, which are newer where one was taken away."""
    for file in [files] if isinstance(files, Path) else files:
        if isinstance(file, Path):
            yield from (file,) if isinstance(files, Path) else (file, file.parent)
        else:
            yield from _places(file)


def make_stored(
    folder: Path,
    names: Sequence[str],
    stored: Stored,
    make: Maker,
    title: str,
    broken: dict[str, str] | None = None,
) -> Stored:
    """Name -> features (T, D) float32 and the digest of the raw files behind them; made if not `stored`.

    One file `<name>.npy` each, the digest (32 bytes) behind the array, written whole or not at all: what was cut
    off goes on where it stopped. Clips in `broken` are passed over; clips whose files are broken are put there
    with the reason, or if it is None raise BrokenFile.

    Raises ValueError if widths differ or the folder cannot be written to, and what `make` raises.
    """
    names = [name for name in names if name not in (broken or {})]
    stored = {name: stored[name] for name in names if name in stored}
    todo = [name for name in names if name not in stored]
    for name in bar(todo, desc=title, unit="clip", disable=not todo):
        try:
            features, digest = make(name)
            if not np.isfinite(features).all():
                raise BrokenFile(f"{name}: its features are NaN or infinite")
        except BrokenFile as error:
            if broken is None:
                raise
            broken[name] = str(error)
            continue
        features = features.astype(np.float32)
        buffer = io.BytesIO()
        np.save(buffer, features, allow_pickle=False)
        try:
            write(folder / f"{name}.npy", buffer.getvalue() + digest)
        except OSError as error:
            why = error.strerror or error
            raise ValueError(
                f"{folder}: features cannot be stored there ({why}); give store= a folder for them, or in "
                "the case of own clips VGMR_CACHE"
            ) from None
        stored[name] = features, digest
    widths = sorted({features.shape[1] for features, _ in stored.values()})
    if len(widths) > 1:
        raise ValueError(f"{folder}: stored features have widths {widths}; delete the folder to make them again")
    return stored


def complete(
    data: str,
    names: Sequence[str],
    sources: Mapping[str, Source],
    lacking: Callable[[str, Sequence[str]], str],
    place: str,
    allow_partial: bool,
    notes: dict[str, Any],
) -> tuple[dict[str, Stored], dict[str, str], dict[str, str]]:
    """Features of the clips `names` by modality; and, with the reason, clips that are missing and broken ones.

    Both are left out where partial data are wanted, and counted in `notes`; else they are refused.

    Args:
        sources: how to make the features of each modality.
        lacking: what is wrong with the raw files of a clip, of which the features of some modalities are not
            stored; empty if nothing is.
        place: where to get clips from.

    Raises as `note_missing` and `make_stored`.
    """
    stored = {modality: read_stored(one.folder, names, one.files) for modality, one in sources.items()}
    missing: dict[str, str] = {}
    for name in names:
        absent = [modality for modality in sources if name not in stored[modality]]
        if absent and (problem := lacking(name, absent)):
            missing[name] = problem
    told = [f"{name}: {problem}" for name, problem in missing.items()]
    note_missing(data, told, len(names), place, allow_partial, notes)
    there = [name for name in names if name not in missing]
    broken: dict[str, str] = {}
    for modality, one in sources.items():
        left_out = broken if allow_partial else None
        made = stored[modality]
        stored[modality] = make_stored(one.folder, there, made, one.make, f"{data} {modality}", left_out)
    if broken:
        told = [f"{name}: {problem}" for name, problem in broken.items()] + told
        note_missing(data, told, len(names), place, allow_partial, notes)
    return stored, missing, broken


def _read_stored(path: Path) -> tuple[np.ndarray, bytes] | None:
    try:
        with open(path, "rb") as file:
            features, digest = np.load(file, allow_pickle=False), file.read()
    except Exception:  # damaged headers surface as whatever they lead to
        return None
    if not isinstance(features, np.ndarray):  # an archive of several
        return None
    whole = features.ndim == 2 and features.dtype == np.float32 and len(features) and len(digest) == 32
    return (features, digest) if whole and np.isfinite(features).all() else None
