"""scikit-learn's handwritten digits as views of each image, some of them in conflict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.datasets import load_digits as sklearn_digits

from vgmr.data.types import MultimodalData, check_whole, fingerprint, holdout
from vgmr.data.views import chosen_views, conflicting

VIEWS = ("left", "right", "spectrum")
VECTORS = {"left": 32, "right": 32, "strokes": 24, "spectrum": 40, "outline": 16}
DIRECTIONS = 6
TESTED = 0.2  # share of the images


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
        ValueError: `conflict` outside 0 to 1, a negative seed.
    """
    raw = sklearn_digits()
    views = {
        "left": raw.images[:, :, :4],
        "right": raw.images[:, :, 4:],
        "spectrum": np.log1p(np.abs(np.fft.rfft2(raw.images))),
    }
    return _digits("digits", {}, views, conflict, conflict_seed, split_seed)


def load_digit_views(
    views: Sequence[str] = ("left", "right", "strokes"),
    conflict: float = 0.5,
    conflict_seed: int = 0,
    split_seed: int = 0,
) -> MultimodalData:
    """The same images, each as vectors of one step, of which any one tells the digit fairly well by itself.

    Views: left and right (N, 1, 32), the pixels of a half; strokes (N, 1, 24), in each quadrant the gradient's
    magnitude summed by its direction, six of 30 degrees, opposite ones together; spectrum (N, 1, 40), Fourier
    magnitudes; outline (N, 1, 16), sums of rows, then of columns. Parts and conflict, with their arguments, as in
    `load_digits`; all `split_seed` give parts of the same sizes.

    Args:
        views: two or more of left, right, strokes, spectrum, outline.

    Raises:
        ValueError: unknown views, `conflict` outside 0 to 1, a negative seed.
    """
    wanted = chosen_views(views, tuple(VECTORS), "digit-views")
    images = sklearn_digits().images
    made = {
        "left": images[:, :, :4].reshape(-1, 32),
        "right": images[:, :, 4:].reshape(-1, 32),
        "strokes": strokes(images),
        "spectrum": np.abs(np.fft.rfft2(images)).reshape(-1, 40),
        "outline": np.concatenate([images.sum(2), images.sum(1)], 1),
    }
    vectors = {name: made[name][:, None] for name in wanted}
    return _digits("digit-views", {"views": list(wanted)}, vectors, conflict, conflict_seed, split_seed)


def strokes(images: np.ndarray) -> np.ndarray:
    """Gradient magnitude by quadrant (row first) and direction modulo 180 degrees, (N, 8, 8) -> (N, 24)."""
    down, right = np.gradient(images, axis=(1, 2))
    magnitude = np.hypot(down, right)
    # whole angles only: at a boundary between two directions, the last bit would decide otherwise
    turn = np.rint(np.degrees(np.arctan2(down, right)) * 1e6) % 180e6
    direction = (turn * DIRECTIONS / 180e6).astype(np.int64)
    found = np.stack([magnitude * (direction == k) for k in range(DIRECTIONS)], -1)
    return found.reshape(-1, 2, 4, 2, 4, DIRECTIONS).sum((2, 4)).reshape(-1, 4 * DIRECTIONS)


def _digits(
    name: str,
    key: dict[str, Any],
    views: Mapping[str, np.ndarray],
    conflict: float,
    conflict_seed: int,
    split_seed: int,
) -> MultimodalData:
    """Parts of 60, 20 and 20 percent by class, the conflict drawn in the order train, validation, test."""
    check_whole(conflict_seed=conflict_seed, split_seed=split_seed)
    raw = sklearn_digits()
    label = raw.target.astype(np.int64)
    rest, test = holdout(label, TESTED, split_seed)
    kept, validation = holdout(label[rest], 0.25, split_seed)
    generator = np.random.default_rng(conflict_seed)
    parts = [conflicting(views, label, rows, conflict, generator) for rows in (rest[kept], rest[validation], test)]
    return MultimodalData(
        name,
        train=parts[0][0],
        validation=parts[1][0],
        test=parts[2][0],
        classes=tuple(str(digit) for digit in range(10)),
        source="Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI 1998, as in scikit-learn",
        licence="CC BY 4.0",
        fingerprint=fingerprint(
            {"data": name, "version": 1, **key},
            raw.images.astype(np.uint8),
            label,
            *(origin for _, origin in parts),
        ),
        notes={"conflict": conflict},
    )
