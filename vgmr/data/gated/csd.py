"""CMU Multimodal SDK computational sequences (`.csd`): reading them, and means over word intervals."""

from __future__ import annotations

import ast
from pathlib import Path

import h5py
import numpy as np

from vgmr.data.extract.clips import message_of


class Sequence:
    """One `.csd` file, opened: by video, features and the interval in seconds that each row covers.

    Attributes:
        name: the root name, which is the first top-level key and often not the file's name.
        videos: ids of the videos, sorted.

    Raises:
        ValueError: not an HDF5 file, cut short, or without the documented groups.
        FileNotFoundError: no such file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with open(path, "rb") as file:
            if file.read(23) == b"version https://git-lfs":
                raise ValueError(f"{path}: a Git LFS pointer, not the data; fetch it with git lfs pull")
        try:
            self._file = h5py.File(path, "r")
        except OSError as error:
            raise ValueError(f"{path}: not a whole HDF5 file ({error}); download it again") from None
        try:
            self.name, self.videos = self._open()
        except Exception as error:
            self._file.close()
            raise ValueError(f"{path}: expected /<root name>/data/<video>, got otherwise ({error})") from None

    def _open(self) -> tuple[str, list[str]]:
        name = next(iter(self._file), None)
        if name is None:
            raise ValueError("the file is empty")
        root = self._file[name]
        if not isinstance(root, h5py.Group) or not isinstance(root.get("data"), h5py.Group):
            raise ValueError(f"/{name} has no group data")
        self._data = root["data"]
        return str(name), sorted(self._data)

    def __enter__(self) -> Sequence:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def ends(self) -> dict[str, float]:
        """Where the last interval of each video ends, in the file's own unit; videos without any left out."""
        found = {}
        for video in self.videos:
            try:
                intervals = np.asarray(self._data[video]["intervals"][()], np.float64)
            except (KeyError, OSError, RuntimeError, TypeError, ValueError, AttributeError):
                continue  # `read` says what is wrong with it
            if intervals.size and np.isfinite(intervals).all():
                found[video] = float(intervals.max())
        return found

    def read(self, video: str) -> tuple[np.ndarray, np.ndarray]:
        """Features (n, d) in the file's type and intervals (n, 2) float64 in seconds, in order of time.

        Raises ValueError for missing keys, other shapes, and intervals that are not finite or end too early.
        """
        try:
            features = self._data[video]["features"][()]
            intervals = np.asarray(self._data[video]["intervals"][()], np.float64)
        except (KeyError, OSError, RuntimeError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"{self.path}, video {video}: no readable features and intervals ({error})") from None
        if not isinstance(features, np.ndarray):  # an empty data set of HDF5, a text
            raise ValueError(f"{self.path}, video {video}: features that are no array (n, d); download it again")
        if features.ndim != 2 or not features.shape[1] or intervals.shape != (len(features), 2):
            raise ValueError(
                f"{self.path}, video {video}: expected features (n, d) and intervals (n, 2), "
                f"got {features.shape} and {intervals.shape}"
            )
        if not np.isfinite(intervals).all() or (intervals[:, 1] < intervals[:, 0]).any():
            raise ValueError(f"{self.path}, video {video}: intervals that are not finite or end before they start")
        order = np.argsort(intervals.mean(1), kind="stable")
        return features[order], intervals[order]


def numbers(features: np.ndarray, where: str) -> tuple[np.ndarray, dict[str, int]]:
    """`features` as float32 with NaN and infinite values set to 0, and how many of each there were."""
    if features.dtype.kind not in "fiu":
        raise ValueError(f"{where}: expected numbers, got {features.dtype}")
    with np.errstate(over="ignore", invalid="ignore"):
        values = features.astype(np.float32)
    return values, clean(values)


def clean(values: np.ndarray) -> dict[str, int]:
    """Set NaN and infinite entries of a float array to 0 in place; returns how many of each there were."""
    bad = ~np.isfinite(values)
    found = values[bad]
    values[bad] = 0
    return {
        "nan": int(np.isnan(found).sum()),
        "+inf": int((found == np.inf).sum()),
        "-inf": int((found == -np.inf).sum()),
    }


def frames_of(words: np.ndarray, frames: np.ndarray) -> list[np.ndarray]:
    """Which rows of `frames` (n, 2) belong to each interval of `words` (k, 2); both in seconds, in order of time.

    A frame belongs to a word if its midpoint lies in the word; a word without any takes, of the frames that cover
    its own midpoint, the one whose midpoint is nearest. Returns k int64 arrays, empty where there is no frame.
    """
    middle = frames.mean(1)
    first = np.searchsorted(middle, words[:, 0], "left")
    last = np.searchsorted(middle, words[:, 1], "left")
    rows = [np.arange(start, stop) for start, stop in zip(first, last, strict=True)]
    for row in np.flatnonzero(last <= first):
        centre = words[row].mean()
        covering = np.flatnonzero((frames[:, 0] <= centre) & (centre <= frames[:, 1]))
        rows[row] = covering[np.argsort(np.abs(middle[covering] - centre), kind="stable")[:1]]
    return rows


def mean_over(values: np.ndarray, rows: list[np.ndarray]) -> np.ndarray:
    """Mean of `values` (n, d) over each group of rows, (k, d) float32; zeros for an empty group."""
    means = np.zeros((len(rows), values.shape[1]), np.float32)
    for target, group in enumerate(rows):
        if len(group):
            means[target] = values[group].mean(0, dtype=np.float64)
    return means


def read_folds(path: Path) -> dict[str, list[str]]:
    """The lists of video ids in a `*_std_folds.py` of the SDK, as train, validation and test.

    The text is parsed and its literal lists are taken; nothing in it is run.

    Raises ValueError if one of the three lists is not there or is not a list of strings.
    """
    folds: dict[str, list[str]] = {}
    try:
        for node in ast.parse(path.read_bytes().decode("utf-8-sig")).body:
            if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
                continue
            for part, word in (("train", "train"), ("validation", "valid"), ("test", "test")):
                if word in node.targets[0].id:
                    videos = ast.literal_eval(node.value)
                    if not isinstance(videos, list | tuple) or not all(isinstance(item, str) for item in videos):
                        raise ValueError("a value that is no list of strings")
                    folds[part] = list(videos)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        reason = message_of(error)[:200]
        raise ValueError(f"{path}: expected three literal lists of video ids, got otherwise ({reason})") from None
    missing = sorted({"train", "validation", "test"} - set(folds))
    if missing:
        raise ValueError(f"{path}: no list of video ids for {', '.join(missing)}")
    return folds
