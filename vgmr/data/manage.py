"""What is behind `vgmr data list`, `check`, `prepare` and `extract`."""

from __future__ import annotations

import argparse
import inspect
import sys
import time
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pandas as pd

from vgmr.data import load, loader, names
from vgmr.data.fetch import Source, expected, find, problems
from vgmr.data.gated import sentiment
from vgmr.data.own import extract
from vgmr.data.store import MANIFEST, NOT_KEPT
from vgmr.data.types import MultimodalData
from vgmr.machine.files import cache_folder, place, user_path, writable

SHOWN = 10
UNSTATED = "see its page"
ALSO = {"mosi-words": ("mosi-utterance",)}  # the files of other data sets that one is made of


def source_of(name: str) -> Source | None:
    """The published files of a data set, or None where its loader keeps no list of them."""
    source = getattr(import_module(loader(name).__module__), "SOURCE", None)
    return source if isinstance(source, Source) else None


def overview(root: str | Path | None = None) -> pd.DataFrame:
    """One row per data set: name, state, files, size, licence and folder; nothing is read or downloaded."""
    return pd.DataFrame([_row(name, root) for name in names()])


def _row(name: str, root: str | Path | None) -> dict[str, str]:
    source = source_of(name)
    row = {"name": name, "state": "", "files": "", "size": "", "licence": "", "folder": ""}
    if source is None:
        if "root" not in inspect.signature(loader(name)).parameters:
            return row | {"state": "built in"}
        folder = _own_folder(name, root)
        if folder is None:
            return row | {"state": "not there", "licence": UNSTATED}
        inside = [file for file in folder.rglob("*") if file.is_file()]
        return row | {
            "state": "there, not checked",
            "files": f"{len(inside):,}",
            "size": _megabytes(sum(file.stat().st_size for file in inside)),
            "licence": UNSTATED,
            "folder": str(folder),
        }
    row |= {"licence": source.licence, "size": _megabytes(sum(size for size, _ in source.files.values()))}
    folder = find(source, root)
    if folder is None:
        can = bool(source.addresses) or source.archive is not None
        state = "not there, downloads when loaded" if can else "not there, get it by hand"
        return row | {"state": state, "files": f"0 of {len(source.files):,}"}
    wrong = problems(source, folder)
    missing = sum(what == "missing" for what in wrong.values())
    return row | {
        "state": "incomplete" if missing else "changed" if wrong else "complete",
        "files": f"{len(source.files) - len(wrong):,} of {len(source.files):,}",
        "folder": str(folder),
    }


def _own_folder(name: str, root: str | Path | None) -> Path | None:
    base = user_path(root) if root else place("VGMR_DATA")
    folders = [] if base is None else [base / name, *([base] if root else [])]
    return next((folder for folder in folders if _looked_for(name)[0](folder)), None)


def _looked_for(name: str) -> tuple[Callable[[Path], bool], str]:
    """For a data set whose loader keeps no list of files: whether a folder holds some, and which, from where."""
    module = import_module(loader(name).__module__)
    if isinstance(corpus := getattr(module, name.upper(), None), sentiment.Corpus):
        return lambda folder: bool(sentiment.find(corpus, folder)), sentiment.expected(corpus)
    return lambda folder: any((folder / marker).is_file() for marker in module.MARKERS), module.EXPECTED


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def wrong_files(name: str, root: str | Path | None = None) -> pd.DataFrame:
    """Columns file and problem: what is missing, of a wrong size or of changed content (all SHA-256 computed).

    Raises FileNotFoundError if there is no file at all, with what is expected.
    """
    source = source_of(name)
    if source is None:
        return pd.DataFrame({"file": [], "problem": []})
    folder = find(source, root)
    if folder is None:
        looked = root or place("VGMR_DATA") or cache_folder()
        raise FileNotFoundError(f"no files of {name} in {looked}; {expected(source)}")
    found = problems(source, folder, content=True)
    return pd.DataFrame({"file": list(found), "problem": list(found.values())})


def contents(name: str, root: str | Path | None = None) -> pd.DataFrame:
    """Load a data set with its defaults, downloaded and prepared if need be; one row per part and modality."""
    takes_root = "root" in inspect.signature(loader(name)).parameters
    return content_table(load(name, None if root is None or not takes_root else str(root)))


def content_table(data: MultimodalData) -> pd.DataFrame:
    """One row per part and modality; what holds for all of the data set stands in `attrs`."""
    rows = []
    for part, batch in data.parts.items():
        for modality, x in batch.features.items():
            steps = batch.mask[modality].sum(1)
            rows.append(
                {
                    "part": part,
                    "samples": len(batch),
                    "groups": "" if batch.group is None else str(len(batch.group.unique())),
                    "modality": modality,
                    "width": x.shape[2],
                    "steps": f"{int(steps.min())} to {int(steps.max())}",
                }
            )
    table = pd.DataFrame(rows)
    table.attrs = {
        "classes": len(data.classes),
        **({"majority rate": round(data.majority_rate, 4)} if data.classes else {}),
        "source": data.source,
        "licence": data.licence,
        "fingerprint": data.fingerprint,
        "notes": data.notes,
    }
    return table


def run(arguments: list[str]) -> int:
    """`vgmr data list | check NAME | prepare NAME | extract TABLE`; returns 0, or 1 where something is wrong."""
    parser = argparse.ArgumentParser(
        prog="vgmr data", description="what data there are, and whether they are sound"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    purposes = {
        "list": "all data sets: what is there, what is missing, size and licence",
        "check": "every file of a data set against its SHA-256, then load it; nothing is downloaded",
        "prepare": "download and prepare a data set, so that it loads at once",
    }
    for command, purpose in purposes.items():
        sub = commands.add_parser(command, help=purpose, description=purpose)
        if command != "list":
            sub.add_argument("name", choices=names(), metavar="NAME", help=", ".join(names()))
        sub.add_argument("--root", help="folder with the files; by default VGMR_DATA, then the download cache")
    _extraction(commands)
    given = parser.parse_args(arguments)
    if given.command == "extract":
        return _extract(given)
    try:
        if given.command == "list":
            return _list(given.root)
        return _check(given.name, given.root) if given.command == "check" else _prepare(given.name, given.root)
    except BrokenPipeError:  # the reader of the output has seen enough
        raise
    except (ValueError, OSError) as error:
        print(f"vgmr data {given.command}: {error}", file=sys.stderr)
        return 1


def _list(root: str | None) -> int:
    if root is not None and not user_path(root).is_dir():
        raise FileNotFoundError(f"no folder {root}; give one that is there as --root")
    table = overview(root)
    print(table.to_string(index=False, justify="left") + "\n")
    for name in table["name"][table["licence"] == UNSTATED]:
        print(f"{name}: {_looked_for(name)[1].removeprefix('expected ')}")
    prepared = sorted((cache_folder() / "prepared").glob(f"*/{MANIFEST}"))
    print(f"\n{len(prepared)} prepared in {cache_folder() / 'prepared'}")
    return 0


def _check(name: str, root: str | None) -> int:
    for each in (name, *ALSO.get(name, ())):
        wrong, source = wrong_files(each, root), source_of(each)
        if source is None:
            continue
        if len(wrong):
            print(f"{each}: {len(wrong):,} of {len(source.files):,} files are not as published")
            print(wrong.head(SHOWN).to_string(index=False, justify="left"))
            if len(wrong) > SHOWN:
                print(f"... and {len(wrong) - SHOWN:,} more")
            print(f"get them from {source.page}")
            return 1
        print(f"{each}: all {len(source.files):,} files in {find(source, root)} are as published (SHA-256)")
    _print(contents(name, root))
    return 0


def _prepare(name: str, root: str | None) -> int:
    start = time.perf_counter()
    if why := writable(cache_folder()):
        raise OSError(f"{why}; give another place in VGMR_CACHE")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=NOT_KEPT)
        try:
            table = contents(name, root)
        except UserWarning as error:
            raise OSError(str(error)) from None
    print(f"{name}: ready in {time.perf_counter() - start:.1f} s")
    _print(table)
    return 0


def _extraction(commands: Any) -> None:
    purpose = "make features of your own clips: words, recordings and videos listed in a table"
    sub = commands.add_parser("extract", help=purpose, description=purpose)
    sub.add_argument(
        "table",
        help="a .csv with the columns id, label and text, text_file, audio or video; group, split if wanted",
    )
    sub.add_argument("--text", metavar="ENCODER", help="a transformers encoder: a hub name or a local folder")
    sub.add_argument("--audio", choices=["log-mel", "egemaps"], help="log-mel bands by default")
    sub.add_argument(
        "--video",
        metavar="NETWORK",
        default="resnet18",
        help="resnet18 of torchvision (the default), or MODULE:FUNCTION from images (N, 3, 224, 224) to (N, D)",
    )
    sub.add_argument("--frames", type=int, default=16, help="frames taken of a video; 16 by default")
    sub.add_argument("--rate", type=int, default=16000, help="samples per second of recordings; 16000 by default")
    sub.add_argument("--labels", choices=["classes", "regression"], default="classes")
    sub.add_argument(
        "--output", metavar="FOLDER", help="where the data set goes; else it is kept for the same table"
    )


def _extract(given: argparse.Namespace) -> int:
    start = time.perf_counter()
    try:
        options = {name: getattr(given, name) for name in ("text", "audio", "frames", "rate", "labels")}
        data = extract(given.table, given.output, video=_network(given.video), **options)
        data.check()
        data.refuse_blank()
    except (ValueError, OSError, ImportError) as error:
        print(f"vgmr data extract: {error}", file=sys.stderr)
        return 1
    for line in data.notes.get("warnings", ()):
        print(f"warning: {line}", file=sys.stderr)
    how = f"root={given.output!r})" if given.output else f"root={given.table!r}) and the same options"
    print(f"ready in {time.perf_counter() - start:.1f} s; load it by load('own', {how}")
    _print(content_table(data))
    return 0


def _network(named: str) -> Any:
    """None for the default network, else the function behind MODULE:FUNCTION."""
    if named == "resnet18":
        return None
    module, _, function = named.partition(":")
    try:
        return getattr(import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"--video must be resnet18 or MODULE:FUNCTION, got {named!r} ({error})") from None


def _print(table: pd.DataFrame) -> None:
    print(table.to_string(index=False))
    for key, value in table.attrs.items():
        print(f"{key}: {value}")
