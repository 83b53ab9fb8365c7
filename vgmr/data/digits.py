"""scikit-learn's handwritten digits as three views per image, some of them in conflict."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_digits as sklearn_digits

from vgmr.data.types import Batch, MultimodalData, fingerprint, holdout

VIEWS = ("left", "right", "spectrum")


def load_digits(conflict: float = 0.3, conflict_seed: int = 0, split_seed: int = 0) -> MultimodalData:
    """1,797 real 8 x 8 digits: left and right half (8 steps x 4 pixels) and spectrum (8 x 5).

    The spectrum is log(1 + magnitude) of the two-dimensional Fourier transform. In a share `conflict` of the
    samples of every part, one random view comes from an image of another class; `corrupted` says which. The parts
    hold 60, 20 and 20 percent of the images, stratified by class.

    Args:
        conflict: share of samples in conflict, 0 to 1.
        conflict_seed: draws which samples, which view and which other image.
        split_seed: draws the parts.

    Raises:
        ValueError: `conflict` outside 0 to 1.
    """
    if not 0 <= conflict <= 1:
        raise ValueError(f"conflict is a share and must lie in 0 to 1, got {conflict}")
    raw = sklearn_digits()
    images, label = raw.images, raw.target.astype(np.int64)
    rest, test = holdout(label, 0.2, split_seed)
    kept, validation = holdout(label[rest], 0.25, split_seed)
    rows = {"train": rest[kept], "validation": rest[validation], "test": test}
    generator = np.random.default_rng(conflict_seed)
    views = {
        "left": images[:, :, :4],
        "right": images[:, :, 4:],
        "spectrum": np.log1p(np.abs(np.fft.rfft2(images))),
    }

    def part(index: np.ndarray) -> tuple[Batch, np.ndarray]:
        origin = {name: index.copy() for name in VIEWS}
        corrupted = {name: np.zeros(len(index), bool) for name in VIEWS}
        for row in generator.permutation(len(index))[: round(conflict * len(index))]:
            name = VIEWS[generator.integers(len(VIEWS))]
            origin[name][row] = generator.choice(index[label[index] != label[index[row]]])
            corrupted[name][row] = True
        features = {name: torch.from_numpy(views[name][origin[name]]).float() for name in VIEWS}
        batch = Batch(
            features,
            {name: torch.ones(x.shape[:2], dtype=torch.bool) for name, x in features.items()},
            torch.from_numpy(label[index]),
            corrupted={name: torch.from_numpy(hit)[:, None, None] for name, hit in corrupted.items()},
        )
        return batch, np.stack([origin[name] for name in VIEWS])

    parts = {name: part(index) for name, index in rows.items()}
    return MultimodalData(
        "digits",
        train=parts["train"][0],
        validation=parts["validation"][0],
        test=parts["test"][0],
        classes=tuple(str(digit) for digit in range(10)),
        source="Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI 1998, as in scikit-learn",
        licence="CC BY 4.0",
        fingerprint=fingerprint(
            {"data": "digits", "version": 1},
            images.astype(np.uint8),
            label,
            *(origin for _, origin in parts.values()),
        ),
        notes={"conflict": conflict},
    )
