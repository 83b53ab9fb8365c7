"""Views of one thing as modalities, and conflict between them whose truth is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from vgmr.data.types import Batch, check_shares


def chosen_views(views: Sequence[str], known: Sequence[str], name: str) -> tuple[str, ...]:
    """`views` as a tuple; ValueError unless they are two or more different ones of `known`."""
    if not isinstance(views, Sequence):  # a set has another order in every run
        raise ValueError(f"{name}: views must be a list such as {list(known[:2])}, got {views!r}")
    wanted = (views,) if isinstance(views, str) else tuple(views)
    if len(set(wanted)) < 2 or len(set(wanted)) != len(wanted) or not set(wanted) <= set(known):
        raise ValueError(f"{name}: views must be two or more of {', '.join(known)}, each once; got {views!r}")
    return wanted


def conflicting(
    views: Mapping[str, np.ndarray],
    label: np.ndarray,
    rows: np.ndarray,
    share: float,
    generator: np.random.Generator,
) -> tuple[Batch, np.ndarray]:
    """The samples at `rows` as a `Batch`, in a share of which one random view is that of another class.

    Args:
        views: name -> (samples, T, d) features.
        label: (samples,) int64.
        rows: (N,) which samples are in this part; the foreign views come from this part too.
        share: of the part's samples in conflict, 0 to 1.
        generator: draws which samples, which view and which other sample.

    Returns the batch, whose `corrupted` is (N, 1, 1) per view, and the sample that each view is from, (views, N).
    Raises ValueError for a share outside 0 to 1.
    """
    check_shares(conflict=share)
    names = list(views)
    origin = {name: rows.copy() for name in names}
    corrupted = {name: np.zeros(len(rows), bool) for name in names}
    for row in generator.permutation(len(rows))[: round(share * len(rows))]:
        name = names[generator.integers(len(names))]
        origin[name][row] = generator.choice(rows[label[rows] != label[rows[row]]])
        corrupted[name][row] = True
    features = {name: torch.from_numpy(views[name][origin[name]]).float() for name in names}
    batch = Batch(
        features,
        {name: torch.ones(x.shape[:2], dtype=torch.bool) for name, x in features.items()},
        torch.from_numpy(label[rows]),
        corrupted={name: torch.from_numpy(hit)[:, None, None] for name, hit in corrupted.items()},
    )
    return batch, np.stack([origin[name] for name in names])
