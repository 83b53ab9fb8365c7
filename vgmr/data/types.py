"""The two types that everything else speaks: `Batch` and `MultimodalData`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations
from numbers import Real
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad as pad_tensor


@dataclass(frozen=True, eq=False)
class Batch:
    """Samples with named modalities; a whole split is one `Batch`, a mini-batch is an index into it.

    Attributes:
        features: name -> (B, T_m, d_m) float32; padded steps hold zeros.
        mask: name -> (B, T_m) bool, True where a time step is real; padding stands at the end.
        label: (B,) int64 classes, or float32 values for regression.
        group: (B,) int64 speaker, video, subject or actor, for splits that share none; or None.
        corrupted: name -> bool, broadcastable to (B, T_m, d_m), True where the truth about a corruption or
            conflict is known; or None.
        row: (B,) int64 position of each sample in its part, for methods that remember samples; or None.
        padded: False where every step is known to be real, so that models need no mask.

    Shapes, types and sizes are checked when it is made, values by `check`. `batch[10:20]`, `batch[mask]` and
    `batch[index]` are batches too.

    Raises:
        ValueError: in one line, what was expected and what came.
    """

    features: dict[str, Tensor]
    mask: dict[str, Tensor]
    label: Tensor
    group: Tensor | None = None
    corrupted: dict[str, Tensor] | None = None
    row: Tensor | None = None
    padded: bool = True

    def __len__(self) -> int:
        return len(self.label)

    @property
    def dims(self) -> dict[str, int]:
        """Feature dimension d_m by modality name."""
        return {name: x.shape[2] for name, x in self.features.items()}

    @property
    def model_mask(self) -> dict[str, Tensor] | None:
        """The masks as a model takes them: None where every step is known to be real."""
        return self.mask if self.padded else None

    def noting_padding(self) -> Batch:
        """The same samples, with `padded` as it is: a look at all masks, for loops that then need none."""
        if not self.padded or not all(bool(mask.all()) for mask in self.mask.values()):
            return self
        return replace(self, padded=False)

    def lengths(self) -> dict[str, Tensor]:
        """Number of real time steps, name -> (B,) int64."""
        return {name: mask.sum(1) for name, mask in self.mask.items()}

    def index(self, rows: Tensor) -> Batch:
        """The samples at `rows`, an (N,) int64 index on the same device."""
        return self._taken(lambda x: x.index_select(0, rows))

    def span(self, start: int, stop: int) -> Batch:
        """The samples from `start` up to `stop`, as views that share memory with this batch."""
        return self._taken(lambda x: x[start:stop])

    def _taken(self, take: Callable[[Tensor], Tensor]) -> Batch:
        def each(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
            own = getattr(tensors, "taken", None)  # of dicts that know more of their samples
            return own(take) if own else {name: take(x) for name, x in tensors.items()}

        taken = object.__new__(Batch)  # as sound as this one: no look at shapes again
        taken.__dict__.update(
            features=each(self.features),
            mask=each(self.mask),
            label=take(self.label),
            group=None if self.group is None else take(self.group),
            corrupted=None if self.corrupted is None else each(self.corrupted),
            row=None if self.row is None else take(self.row),
            padded=self.padded,
        )
        return taken

    def select(self, names: list[str]) -> Batch:
        """The same samples with the modalities `names` only; ValueError for none, or one that is not there."""
        check_names(names)
        if not names:
            raise ValueError(
                f"expected at least one modality to select, got {names!r}; give some of {list(self.features)}"
            )
        if unknown := sorted(set(names) - set(self.features)):
            raise ValueError(f"unknown modalities {unknown}; the batch has {list(self.features)}")
        corrupted = None if self.corrupted is None else {name: self.corrupted[name] for name in names}
        return replace(
            self,
            features={name: self.features[name] for name in names},
            mask={name: self.mask[name] for name in names},
            corrupted=corrupted,
        )

    def to(self, device: torch.device | str) -> Batch:
        """The same samples on `device`."""
        return replace(self._taken(lambda x: x.to(device)))

    def __getitem__(self, which: slice | Tensor) -> Batch:
        """The samples of a slice, of a bool mask (B,) or of an int64 index, as a batch."""
        if isinstance(which, slice):
            return self.index(torch.tensor(range(len(self))[which], dtype=torch.int64, device=self.label.device))
        if isinstance(which, Tensor) and which.dtype == torch.bool and which.shape == self.label.shape:
            return self.index(which.nonzero().squeeze(1))
        if isinstance(which, Tensor) and which.dtype == torch.int64 and which.ndim == 1:
            if len(which) and not 0 <= int(which.min()) <= int(which.max()) < len(self):
                raise IndexError(
                    f"expected samples 0 to {len(self) - 1}, got {int(which.min())} to {int(which.max())}; "
                    "count from the start"
                )
            return self.index(which)
        got = f"{which.dtype} {tuple(which.shape)}" if isinstance(which, Tensor) else type(which).__name__
        raise TypeError(
            f"samples are taken by a slice, a bool mask of shape ({len(self)},) or an int64 index (N,), got {got}"
        )

    def __post_init__(self) -> None:
        self.check_shapes()

    def check_shapes(self) -> None:
        """Raise ValueError in one line if names, shapes or types are not as documented."""
        for name, value in {"label": self.label, "group": self.group, "row": self.row}.items():
            if value is not None or name == "label":
                _tensor(value, name)
        if self.label.dtype not in (torch.int64, torch.float32) or self.label.ndim != 1:
            raise ValueError(
                f"label: expected int64 classes (or float32 values for regression) of shape (B,), got "
                f"{self.label.dtype} {tuple(self.label.shape)}; label.long() or label.float() converts them, "
                "label.flatten() those of shape (B, 1)"
            )
        size = len(self.label)
        _named(self.features, "features")
        _named(self.mask, "mask")
        if set(self.mask) != set(self.features):
            raise ValueError(f"mask names {sorted(self.mask)} differ from feature names {sorted(self.features)}")
        for name, x in self.features.items():
            mask = self.mask[name]
            if x.ndim != 3 or x.dtype != torch.float32 or len(x) != size:
                raise ValueError(
                    f"{name}: expected float32 features of shape ({size}, T, d), got {x.dtype} {tuple(x.shape)}; "
                    "x.float() converts values, x[:, None] makes one step of vectors (N, d)"
                )
            if mask.dtype != torch.bool or mask.shape != x.shape[:2]:
                got = f"{mask.dtype} {tuple(mask.shape)}"
                hint = "; mask.bool() makes one of 1 and 0" if mask.shape == x.shape[:2] else ""
                raise ValueError(f"{name}: expected a bool mask of shape {tuple(x.shape[:2])}, got {got}{hint}")
        for name, value in {"group": self.group, "row": self.row}.items():
            if value is not None and (value.shape != (size,) or value.dtype != torch.int64):
                got = f"{value.dtype} {tuple(value.shape)}"
                raise ValueError(f"{name}: expected int64 of shape ({size},), got {got}")
        if self.corrupted is None:
            return
        _named(self.corrupted, "corrupted")
        if set(self.corrupted) != set(self.features):
            raise ValueError(
                f"corrupted names {sorted(self.corrupted)} differ from feature names {sorted(self.features)}"
            )
        for name, hit in self.corrupted.items():
            full = self.features[name].shape
            fits = hit.ndim == 3 and all(n in (1, m) for n, m in zip(hit.shape[1:], full[1:], strict=True))
            if not fits or len(hit) != size or hit.dtype != torch.bool:
                got = f"{hit.dtype} {tuple(hit.shape)}"
                raise ValueError(
                    f"{name}: expected bool corrupted of shape {tuple(full)}, or 1 for T or d, got {got}"
                )

    def check(self, num_classes: int) -> None:
        """Raise ValueError in one line if anything is not as documented; 0 classes: regression."""
        self.check_shapes()  # its dicts may have been written into
        if not self.features:
            raise ValueError("features: expected at least one modality, got none; give name -> (B, T, d)")
        for name, x in self.features.items():
            mask = self.mask[name]
            if not mask.any(1).all():
                row = int((~mask.any(1)).nonzero()[0])
                raise ValueError(
                    f"{name}: sample {row} has no real time step; every sample needs at least one, "
                    "such as the mean of the training part where the modality is missing"
                )
            if (mask[:, 1:] & ~mask[:, :-1]).any():
                row = int((mask[:, 1:] & ~mask[:, :-1]).any(1).nonzero()[0])
                raise ValueError(f"{name}: sample {row} has padding before a real step; it must stand at the end")
            if not torch.isfinite(x.sum()) and not torch.isfinite(x).all():
                row = int((~torch.isfinite(x)).flatten(1).any(1).nonzero()[0])
                raise ValueError(f"{name}: sample {row} holds NaN or infinite values; clean them before training")
            if x[~mask].any():
                raise ValueError(f"{name}: padded time steps must hold zeros")
        wanted = torch.int64 if num_classes else torch.float32
        if self.label.dtype != wanted:
            task = f"int64 for {num_classes} classes" if num_classes else "float32 for regression (no classes)"
            raise ValueError(f"label: expected {task}, got {self.label.dtype}")
        if not num_classes and not torch.isfinite(self.label).all():
            raise ValueError("label: holds NaN or infinite values; leave such samples out")
        if (
            num_classes
            and len(self.label)
            and not 0 <= int(self.label.min()) <= int(self.label.max()) < num_classes
        ):
            raise ValueError(
                f"label: expected 0 to {num_classes - 1} for {num_classes} classes, "
                f"got {int(self.label.min())} to {int(self.label.max())}"
            )


def _tensor(value: Any, what: str) -> None:
    if isinstance(value, np.ndarray):
        raise ValueError(f"{what}: expected a torch tensor, got a numpy array; use torch.from_numpy")
    if not isinstance(value, Tensor):
        raise ValueError(f"{what}: expected a torch tensor, got {type(value).__name__}")


def check_names(names: Any) -> None:
    """ValueError in one line where one name stands in place of a list of modalities."""
    if isinstance(names, str):
        raise ValueError(f"expected a list of modalities, got {names!r}; give [{names!r}]")


def _named(tensors: Any, what: str) -> None:
    if not isinstance(tensors, Mapping):
        raise ValueError(f"{what}: expected a dict of modality name -> tensor, got {type(tensors).__name__}")
    for name, x in tensors.items():
        if not isinstance(name, str):
            raise ValueError(f"{what}: expected names of modalities as text, got {name!r}")
        _tensor(x, f"{what} of {name}")


@dataclass(frozen=True, eq=False)
class MultimodalData:
    """A data set in three parts.

    Attributes:
        name: what `load` was asked for.
        train, validation, test: the parts; `validation` never overlaps `test`.
        classes: class names in label order; empty for regression.
        source: where the data come from, for citation.
        licence: the licence as its publisher states it.
        fingerprint: SHA-256 of everything that determines the content: raw source, parameters, split.
        stand_in: True where the data are made, not real; said wherever a number from them is shown.
        notes: what a reader should know, such as counts of cleaned values.
        overlap: why parts may share groups or identical samples; where it is empty, `check` refuses both.
    """

    name: str
    train: Batch
    validation: Batch
    test: Batch
    classes: tuple[str, ...]
    source: str
    licence: str
    fingerprint: str
    stand_in: bool = False
    notes: dict[str, Any] = field(default_factory=dict)
    overlap: str = ""

    @property
    def task(self) -> str:
        """ "classification", or "regression" where there are no classes."""
        return "classification" if self.classes else "regression"

    @property
    def parts(self) -> dict[str, Batch]:
        return {"train": self.train, "validation": self.validation, "test": self.test}

    @property
    def modalities(self) -> list[str]:
        return list(self.train.features)

    @property
    def dims(self) -> dict[str, int]:
        """Feature dimension d_m by modality name."""
        return self.train.dims

    @property
    def max_lengths(self) -> dict[str, int]:
        """Longest sequence T_m over the three parts, by modality name."""
        return {
            name: max(part.features[name].shape[1] for part in self.parts.values()) for name in self.modalities
        }

    @property
    def majority_rate(self) -> float:
        """Share of the most frequent class in the test part: the accuracy of a constant answer.

        Raises ValueError for regression.
        """
        if not self.classes:
            raise ValueError(f"{self.name} is a regression and has no majority class")
        return float(self.test.label.bincount().max() / len(self.test))

    def select(self, names: list[str]) -> MultimodalData:
        """The same data with the modalities `names` only."""
        check_names(names)
        unknown = sorted(set(names) - set(self.modalities))
        if unknown:
            raise ValueError(f"unknown modalities {unknown}; {self.name} has {self.modalities}")
        return self._each(lambda batch: batch.select(names))

    def to(self, device: torch.device | str) -> MultimodalData:
        """The same data on `device`."""
        return self._each(lambda batch: batch.to(device))

    def _each(self, change: Callable[[Batch], Batch]) -> MultimodalData:
        return replace(self, train=change(self.train), validation=change(self.validation), test=change(self.test))

    def check(self) -> None:
        """Raise ValueError naming the part and what is wrong with it.

        Without `overlap`, no group and no identical sample may be in two parts.
        """
        if not isinstance(self.classes, tuple | list):
            raise ValueError(
                f"{self.name}: expected a tuple of class names, got {self.classes!r}; give ('a', 'b')"
            )
        if len(self.classes) == 1:
            raise ValueError(
                f"{self.name}: expected two classes or more, got {self.classes!r}; give () for regression"
            )
        for name in self.classes:
            if self.classes.count(name) > 1:
                raise ValueError(
                    f"{self.name}: expected every class name once, got {name!r} more than once; rename or merge"
                )
        for part, batch in self.parts.items():
            if not isinstance(batch, Batch):
                raise ValueError(
                    f"{self.name}, {part}: expected a Batch, got {type(batch).__name__}; every part needs one"
                )
            if not len(batch):
                raise ValueError(f"{self.name}, {part}: no samples; every part needs some")
            try:
                batch.check(len(self.classes))
            except ValueError as error:
                raise ValueError(f"{self.name}, {part}: {error}") from None
            if batch.dims != self.dims:
                raise ValueError(f"{self.name}, {part}: dims {batch.dims} differ from those of train {self.dims}")
        if not self.overlap:
            self._check_apart()

    def _check_apart(self) -> None:
        for what, found in (("groups", _groups), ("identical samples", _contents)):
            keys: dict[str, dict[Any, int]] = {part: found(batch) for part, batch in self.parts.items()}
            for one, other in combinations(keys, 2):
                shared = keys[one].keys() & keys[other].keys()
                if shared:
                    first = min(keys[one][key] for key in shared)
                    raise ValueError(
                        f"{self.name}: {one} and {other} share {len(shared)} {what} (first: sample {first} of "
                        f"{one}); split by group, or say in MultimodalData(overlap=...) why they may"
                    )

    def refuse_blank(self) -> None:
        """Raise ValueError for a modality that holds no value but 0 in a part, for data as read."""
        for part, batch in self.parts.items():
            for name, x in batch.features.items():
                if not x.any():
                    raise ValueError(
                        f"{self.name}, {part}: {name} holds no value but 0 (after cleaning NaN and infinite "
                        "values, if there were any); mend its files, or leave the modality out"
                    )

    def standardised(self) -> MultimodalData:
        """Every feature channel shifted and scaled by its mean and deviation over the real training steps.

        A channel whose deviation is below a millionth of its largest magnitude says nothing in training: it
        becomes 0 in every part, and `notes` count such channels by modality. Padding stays zero.
        """
        statistics, idle = {}, {}
        for name, x in self.train.features.items():
            real = x[self.train.mask[name]].double()
            deviation = real.std(0, correction=0)
            tells = deviation > 1e-6 * real.abs().amax(0)
            # an infinite deviation makes 0 of whatever finite value comes
            scale = torch.where(tells, deviation, torch.inf)
            statistics[name] = (real.mean(0).float(), scale.float())
            if not tells.all():
                idle[name] = int((~tells).sum())

        def apply(batch: Batch) -> Batch:
            features = {}
            for name, x in batch.features.items():
                mean, scale = statistics[name]
                features[name] = ((x - mean) / scale).masked_fill(~batch.mask[name].unsqueeze(2), 0.0)
            return replace(batch, features=features)

        notes = {**self.notes, "channels without information in training, set to 0": idle} if idle else self.notes
        return replace(self._each(apply), notes=notes)


def is_constant(batch: Batch, name: str) -> bool:
    """Whether no channel of a modality differs between real steps, of which there are several."""
    for rows in (slice(8), slice(None)):  # a few tell it of nearly all
        real = batch.features[name][rows][batch.mask[name][rows]]
        if (real != real[:1]).any():
            return False
    return len(real) > 1


def _groups(batch: Batch) -> dict[Any, int]:
    """Group -> the first sample of it."""
    if batch.group is None:
        return {}
    groups = batch.group.tolist()
    return dict(zip(reversed(groups), reversed(range(len(groups))), strict=True))


def _contents(batch: Batch) -> dict[Any, int]:
    """Digest of all that is real in a sample, modalities by name -> the first such sample."""
    pieces = []
    for name in sorted(batch.features):
        x, length = batch.features[name].cpu().numpy(), batch.mask[name].sum(1).tolist()
        pieces.append([x[row, : length[row]] for row in range(len(batch))])
    found: dict[bytes, int] = {}
    for row in range(len(batch)):
        digest = hashlib.blake2b(digest_size=16)
        for piece in pieces:
            digest.update(b"%d " % len(piece[row]))
            digest.update(piece[row].tobytes())
        found.setdefault(digest.digest(), row)
    return found


def joined(*parts: Batch) -> Batch:
    """Parts one behind the other, short sequences padded; rows, and what is known of corruptions, are left out."""

    def join(tensors: list[Tensor]) -> Tensor:
        steps = max(x.shape[1] for x in tensors)
        return torch.cat([pad_tensor(x, (0, 0) * (x.ndim - 2) + (0, steps - x.shape[1])) for x in tensors])

    groups = [part.group for part in parts if part.group is not None]
    return Batch(
        {name: join([part.features[name] for part in parts]) for name in parts[0].features},
        {name: join([part.mask[name] for part in parts]) for name in parts[0].mask},
        torch.cat([part.label for part in parts]),
        torch.cat(groups) if len(groups) == len(parts) else None,
    )


def pad(sequences: list[np.ndarray], length: int | None = None) -> tuple[Tensor, Tensor]:
    """Stack (T_i, d) arrays into features (N, T, d) float32 with zeros at the end, and their mask (N, T) bool.

    `length` cuts longer sequences; by default T is the longest. Raises ValueError for no sequence, for other
    shapes and for no length.
    """
    if length is not None:
        check_whole(1, length=length)
    if not (hasattr(sequences, "__len__") and hasattr(sequences, "__getitem__")):
        raise ValueError(f"expected a list of arrays, got {type(sequences).__name__}; list(...) makes one")
    for number, sequence in enumerate(sequences):
        if isinstance(sequence, Tensor) and (
            sequence.requires_grad or sequence.dtype == torch.bfloat16 or sequence.layout != torch.strided
        ):
            raise ValueError(
                f"sequence {number}: expected plain numbers, got a tensor with a gradient, sparse or of bfloat16; "
                "x.detach().to_dense().float() makes them"
            )
        if (
            isinstance(sequence, np.ma.MaskedArray | list | tuple)
            or np.asarray(sequence).dtype.kind not in "biufO"
        ):
            raise ValueError(
                f"sequence {number}: expected an array of plain numbers, got {type(sequence).__name__} of "
                f"{getattr(sequence, 'dtype', 'no type')}; np.asarray makes arrays, .filled(0) of masked ones too"
            )
        if np.ndim(sequence) != 2 or np.shape(sequence)[1] != np.shape(sequences[0])[1]:
            first = "(T, d) with one d for all; give a (d,) vector as x[None], a (T,) signal as x[:, None]"
            raise ValueError(f"sequence {number}: expected {first}; got shape {np.shape(sequence)}")
    if not len(sequences):
        raise ValueError("no sequences to pad; at least one is needed")
    longest = max(len(sequence) for sequence in sequences) if length is None else length
    features = np.zeros((len(sequences), longest, sequences[0].shape[1]), np.float32)
    mask = np.zeros((len(sequences), longest), bool)
    for row, sequence in enumerate(sequences):
        kept = sequence[:longest]
        features[row, : len(kept)] = kept
        mask[row, : len(kept)] = True
    return torch.from_numpy(features), torch.from_numpy(mask)


def holdout(
    label: np.ndarray, share: float, seed: int | list[int], group: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Split rows into (kept, held out), stratified by label, or whole groups where `group` is given.

    Returns two sorted int64 row indices; about `share` of the rows are held out, more where a group is large.
    Raises ValueError for a share outside 0 to 1, and where label or group is not one value per row.
    """
    check_shares(share=share)
    if np.ndim(label) != 1:
        raise ValueError(f"expected a label of shape (N,), got {np.shape(label)}; give one value per row")
    if group is not None and np.shape(group) != np.shape(label):
        raise ValueError(
            f"expected a group of shape {np.shape(label)}, got {np.shape(group)}; give one value per row"
        )
    generator = np.random.default_rng(seed)
    if group is None:
        held = []
        for value in np.unique(label):
            rows = generator.permutation(np.flatnonzero(label == value))
            held.append(rows[: round(share * len(rows))])
        out = np.sort(np.concatenate(held))
    else:
        taken: list[Any] = []
        for value in generator.permutation(np.unique(group)):
            if np.isin(group, taken).sum() >= share * len(group) or len(taken) + 1 == len(np.unique(group)):
                break
            taken.append(value)
        out = np.flatnonzero(np.isin(group, taken))
    kept = np.setdiff1d(np.arange(len(label)), out)
    return kept, out


def is_count(value: Any, least: int = 0) -> bool:
    """Whether it is a whole number of at least `least`, of any integer type."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and int(value) >= least


def check_whole(least: int = 0, /, **counts: Any) -> None:
    """ValueError in one line where one of `counts` is no whole number of at least `least`."""
    for what, value in counts.items():
        if not is_count(value, least):
            raise ValueError(f"{what} must be a whole number of at least {least}, got {value!r}")


def is_list(value: Any) -> bool:
    """Whether it is a list, tuple or set of single values."""
    return isinstance(value, list | tuple | set | frozenset | np.ndarray) and all(
        np.ndim(one) == 0 for one in value
    )


def check_split(fold: int | None, split: str, default: str) -> None:
    """ValueError in one line where a split is asked for besides a fold, which would stand in its place."""
    if fold is not None and split != default:
        raise ValueError(
            f"fold {fold!r} stands in place of split {split!r}; give one of them (a notebook that tests all folds "
            "takes a split with folds=False)"
        )


def check_shares(**shares: Any) -> None:
    """ValueError in one line where one of `shares` is no number in 0 to 1."""
    for what, value in shares.items():
        if not isinstance(value, Real) or not 0 <= float(value) <= 1:
            raise ValueError(f"{what} must lie in 0 to 1, got {value!r}")


def fold_parts(group: np.ndarray, fold: int, count: int) -> np.ndarray:
    """Part of each sample when fold `fold` of `count` is tested: (N,) int64, 0 train, 1 validation, 2 test.

    Folds hold whole groups and are of about equal size: the largest group first, each to the fold that has least
    so far; with as many folds as groups, fold k is the k-th group. The fold after the tested one, the first after
    the last, is the validation part, so each sample is tested once and validates once.

    Raises ValueError for a fold outside 0 to count - 1, and for fewer groups than folds or fewer than three folds.
    """
    if not is_count(fold) or fold >= count:
        raise ValueError(f"fold must be a whole number from 0 to {count - 1}, got {fold!r}")
    values, sizes = np.unique(group, return_counts=True)
    if len(values) < count or count < 3:
        raise ValueError(f"{count} folds need three or more folds and at least {count} groups, got {len(values)}")
    held = np.zeros(count, np.int64)
    fold_of = np.arange(len(values))
    if len(values) > count:
        shuffled = np.random.default_rng(0).permutation(len(values))
        for position in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
            fold_of[position] = held.argmin()
            held[held.argmin()] += sizes[position]
    after = (fold_of[np.searchsorted(values, group)] - fold) % count
    return np.where(after == 0, 2, np.where(after == 1, 1, 0))


def check_parameters(value: Any) -> None:
    """ValueError in one line where a part of it is no text, number, path, None, or list or mapping of such."""
    if isinstance(value, Mapping | list | tuple):
        for part in value.values() if isinstance(value, Mapping) else value:
            check_parameters(part)
    elif not isinstance(value, str | int | float | None | np.generic | PurePath):
        kind = type(value).__name__
        raise ValueError(f"fingerprint: expected text and numbers as parameters, got {kind}; give it as an array")


def fingerprint(parameters: Mapping[str, Any], *arrays: np.ndarray | bytes) -> str:
    """SHA-256 of JSON-able `parameters` and raw arrays or bytes, the same on every machine.

    Hash raw input and integer decisions, not computed floats, whose last bits differ between machines.

    Raises ValueError for arrays of objects and for parameters that are not text, numbers or lists of such.
    """
    check_parameters(parameters)
    digest = hashlib.sha256(json.dumps(parameters, sort_keys=True, default=str).encode())
    for array in arrays:
        if isinstance(array, bytes):
            digest.update(array)
            continue
        array = np.ascontiguousarray(array)
        if array.dtype.hasobject:
            raise ValueError("fingerprint: expected arrays of numbers or text, got objects; hash their content")
        little = array.astype(array.dtype.newbyteorder("<"))
        digest.update(f"{little.dtype.str}{little.shape}".encode())
        digest.update(little.tobytes())
    return digest.hexdigest()
