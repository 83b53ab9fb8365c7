"""Which samples a test part holds, where a seed draws it: in another seed's they come back."""

from __future__ import annotations

from functools import cache

import numpy as np

from vgmr.data import digits, uci_mfeat
from vgmr.data.types import holdout


@cache
def held_out(dataset: str, split_seed: int = 0) -> tuple[int, ...] | None:
    """The places of the test samples in the published order; None for a data set whose parts no seed draws."""
    if dataset in ("digits", "digit-views"):
        label, share = digits.sklearn_digits().target.astype(np.int64), digits.TESTED
    elif dataset == "uci-mfeat":
        label = np.repeat(np.arange(uci_mfeat.CLASSES), uci_mfeat.SAMPLES // uci_mfeat.CLASSES)
        share = uci_mfeat.TESTED
    else:
        return None
    return tuple(holdout(label, share, split_seed)[1].tolist())
