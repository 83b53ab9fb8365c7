"""Which samples a test part holds, where a seed draws it: in another seed's they come back."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vgmr.data.digits import sklearn_digits
from vgmr.data.types import holdout
from vgmr.data.uci_mfeat import CLASSES, SAMPLES


def _images() -> np.ndarray:
    return sklearn_digits().target.astype(np.int64)


def _numerals() -> np.ndarray:
    return np.repeat(np.arange(CLASSES), SAMPLES // CLASSES)


# labels of all samples in their published order, and the share that is tested
DRAWN: dict[str, tuple[Callable[[], np.ndarray], float]] = {
    "digits": (_images, 0.2),
    "digit-views": (_images, 0.2),
    "uci-mfeat": (_numerals, 0.3),
}


def held_out(dataset: str, split_seed: int = 0) -> list[int] | None:
    """The numbers of the test samples in the published order; None for a data set whose parts no seed draws."""
    if dataset not in DRAWN:
        return None
    labels, share = DRAWN[dataset]
    rows: list[int] = holdout(labels(), share, split_seed)[1].tolist()
    return rows
