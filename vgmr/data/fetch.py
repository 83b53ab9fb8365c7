"""Finding the published files of a data set, or downloading them, every file checked by its SHA-256."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd
import pooch

from vgmr.machine.files import cache_folder, place, user_path, write
from vgmr.machine.work import bar

PATIENCE = 30.0
ATTEMPTS = 2


@dataclass(frozen=True)
class Source:
    """Where the files of a data set are, and what they must be.

    Attributes:
        name: the data set.
        folder: name of its folder in VGMR_DATA and in the download cache.
        page: where a reader finds the data set and its terms.
        licence: as its publisher states it.
        files: path in the folder -> (bytes, SHA-256).
        addresses: path -> URL, for data sets that are downloaded file by file.
        archive: URL of a zip that holds the files below one top folder; used where `addresses` is empty.
    """

    name: str
    folder: str
    page: str
    licence: str
    files: Mapping[str, tuple[int, str]]
    addresses: Mapping[str, str] = field(default_factory=dict)
    archive: str | None = None


@dataclass(frozen=True)
class Copy:
    """Files of a data set found on disk.

    Attributes:
        folder: where they are.
        digests: path -> SHA-256: the published ones, or for a partial copy those of the files found.
        partial: files are missing or differ from the published ones.
    """

    folder: Path
    digests: dict[str, str]
    partial: bool

    def read(self, path: str) -> bytes:
        """The bytes of one file; ValueError if they are not those of `digests`."""
        content = (self.folder / path).read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        if digest != self.digests[path]:
            raise ValueError(
                f"{self.folder / path}: SHA-256 {digest[:12]}..., expected {self.digests[path][:12]}... of the "
                "published file; delete it and get it again, or pass allow_partial=True to read it as it is"
            )
        return content

    def table(self, path: str, **options: Any) -> pd.DataFrame:
        """One file as `pandas.read_csv` reads it, in UTF-8; ValueError if it is no csv, and as `read`."""
        content = self.read(path)
        try:
            return pd.read_csv(io.BytesIO(content), encoding="utf-8-sig", **options)
        except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
            reason = str(error).strip()
            raise ValueError(f"{self.folder / path}: no readable csv ({reason}); get it again") from None


def checksums(name: str) -> dict[str, tuple[int, str]]:
    """Path -> (bytes, SHA-256) of the published files of a data set."""
    text = files("vgmr.data").joinpath("checksums", f"{name}.json").read_text(encoding="utf-8")
    return {path: (size, digest) for path, (size, digest) in json.loads(text).items()}


def download_folder(source: Source) -> Path:
    """Where downloads of `source` go."""
    return cache_folder() / "data" / source.folder


def locate(source: Source, root: str | Path | None = None, allow_partial: bool = False) -> Copy:
    """Find the files of `source`, downloading them where that is possible; names, counts and sizes are checked.

    Contents are checked when they are read (`Copy.read`), and always after a download.

    Args:
        root: folder that holds the files, or their folder; None looks in VGMR_DATA, then in the download cache.
        allow_partial: accept missing and changed files.

    Raises:
        FileNotFoundError: files that are neither found nor to be downloaded, with what to do.
        ValueError: files of a wrong size, or a download that is not what was published.
    """
    folder = find(source, root)
    if folder is None and root is not None:
        raise FileNotFoundError(f"no files of {source.name} in {root}; {expected(source)}")
    if folder is None or (root is None and folder == download_folder(source) and problems(source, folder)):
        folder = download(source)
    wrong = problems(source, folder)
    if not allow_partial:
        if wrong:
            path, what = next(iter(wrong.items()))
            line = (
                f"{folder} holds an incomplete or changed copy of {source.name}: {len(wrong):,} of "
                f"{len(source.files):,} files are not as published (first: {path}, {what}); get them from "
                f"{source.page}, or pass allow_partial=True to use what is there"
            )
            raise FileNotFoundError(line) if "missing" in wrong.values() else ValueError(line)
        return Copy(folder, {path: digest for path, (_, digest) in source.files.items()}, partial=False)
    there = [path for path in source.files if wrong.get(path) != "missing"]
    digests = {path: sha256(folder / path) for path in there}
    changed = any(digests[path] != source.files[path][1] for path in there)
    return Copy(folder, digests, partial=changed or len(there) < len(source.files))


def find(source: Source, root: str | Path | None = None) -> Path | None:
    """The folder that holds at least one file of `source`, or None; nothing is downloaded."""
    if root is not None:
        folders = [user_path(root), user_path(root) / source.folder]
    else:
        folders = [download_folder(source)]
        if (data := place("VGMR_DATA")) is not None:
            folders.insert(0, data / source.folder)
    return next((one for one in folders if any((one / path).is_file() for path in source.files)), None)


def problems(source: Source, folder: Path, content: bool = False) -> dict[str, str]:
    """Path -> what is wrong with the file, of those that are missing or of another size or `content`."""
    wrong = {}
    for path, (size, digest) in source.files.items():
        file = folder / path
        if not file.is_file():
            wrong[path] = "missing"
        elif file.stat().st_size != size:
            wrong[path] = f"{file.stat().st_size:,} bytes, expected {size:,}"
        elif content and sha256(file) != digest:
            wrong[path] = "content differs from the published file"
    return wrong


def expected(source: Source) -> str:
    """What files are looked for, where they come from and where they belong."""
    first, *rest = source.files
    more = f" and {len(rest):,} more files" if rest else ""
    data = place("VGMR_DATA")
    named = "" if data is None else f" ({data}{'' if data.is_dir() else ', which is not there'})"
    where = f"put them in {source.folder}/ in the folder that VGMR_DATA names{named}, or give their folder as root"
    return f"expected {first}{more} from {source.page}; {where}"


def download(source: Source) -> Path:
    """Download what is missing into the cache; returns the folder.

    Files arrive under a temporary name and are moved into place once their SHA-256 fits, so a cut-off download
    goes on with the files that are still missing, and two processes do no harm.

    Raises:
        FileNotFoundError: there is no address, or it does not answer.
        ValueError: what came is not what was published.
    """
    folder = download_folder(source)
    wanted = list(problems(source, folder, content=True))
    if not wanted:
        return folder
    if not source.addresses and source.archive is None:
        reason = "states no licence" if source.licence.startswith("not stated") else "has no known address"
        raise FileNotFoundError(f"{source.name} {reason} and is not downloaded; {expected(source)}")
    if source.addresses:
        for path in bar(wanted, desc=f"downloading {source.name}", unit="file"):
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            _retrieve(source, source.addresses[path], target, source.files[path][1])
    else:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{source.folder}-") as temporary:
            archive = Path(temporary) / "archive.zip"
            _retrieve(source, str(source.archive), archive, None)
            extract(source, archive, folder, wanted)
    return folder


def extract(source: Source, archive: Path, folder: Path, wanted: list[str]) -> None:
    """Take the files `wanted` out of a zip with one top folder, each checked by size and SHA-256.

    Nothing else is unpacked. Raises ValueError for names that lead out of the folder, links in place of files,
    and files that are missing or not what was published.
    """
    try:
        with zipfile.ZipFile(archive) as content:
            members = {}
            for member in content.infolist():
                place = PurePosixPath(member.filename.replace("\\", "/"))
                if place.is_absolute() or ".." in place.parts or ":" in member.filename:
                    raise ValueError(f"{source.archive}: refused, it holds the unsafe name {member.filename!r}")
                members["/".join(place.parts[1:])] = member
            for path in bar(wanted, desc=f"unpacking {source.name}", unit="file"):
                size, digest = source.files[path]
                if path not in members:
                    raise ValueError(f"{source.archive}: refused, it does not hold {path}")
                if stat.S_ISLNK(members[path].external_attr >> 16):
                    raise ValueError(f"{source.archive}: refused, {path} is a link")
                with content.open(members[path]) as stream:
                    data = stream.read(size + 1)
                if hashlib.sha256(data).hexdigest() != digest:
                    raise ValueError(f"{source.archive}: refused, {path} is not the published file (SHA-256)")
                write(folder / path, data)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"{source.archive}: what came is no intact zip archive ({error}); try again") from None


def _retrieve(source: Source, address: str, target: Path, digest: str | None) -> None:
    pooch.get_logger().setLevel(logging.WARNING)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            pooch.retrieve(
                address,
                known_hash=None if digest is None else f"sha256:{digest}",
                fname=target.name,
                path=target.parent,
                downloader=pooch.HTTPDownloader(timeout=PATIENCE, progressbar=digest is None),
            )
            return
        except ValueError:
            raise ValueError(
                f"{address}: what came is not the published file (SHA-256 differs), nothing was kept; try again, "
                f"or get the files by hand: {expected(source)}"
            ) from None
        except OSError as error:
            if attempt == ATTEMPTS:
                reason = str(error).splitlines()[0]
                raise FileNotFoundError(
                    f"{source.name} could not be downloaded from {address} ({reason}); {expected(source)}"
                ) from None


def sha256(file: Path) -> str:
    """Of a file, which never lies in memory as a whole, as 64 hexadecimal digits."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
