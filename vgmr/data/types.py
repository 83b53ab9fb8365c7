"""The two types that everything else speaks: `Batch` and `MultimodalData`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Samples with named modalities; a whole split is one `Batch`, a mini-batch is an index into it.

    Attributes:
        features: name -> (B, T_m, d_m) float32; padded steps hold zeros.
        mask: name -> (B, T_m) bool, True where a time step is real; padding stands at the end.
        label: (B,) int64.
        group: (B,) int64 speaker, video, subject or actor, for splits that share none; or None.
        corrupted: name -> bool, broadcastable to (B, T_m, d_m), True where the truth about a corruption or
            conflict is known; or None.
    """

    features: dict[str, Tensor]
    mask: dict[str, Tensor]
    label: Tensor
    group: Tensor | None = None
    corrupted: dict[str, Tensor] | None = None

    def __len__(self) -> int:
        return len(self.label)

    @property
    def dims(self) -> dict[str, int]:
        """Feature dimension d_m by modality name."""
        return {name: x.shape[2] for name, x in self.features.items()}

    def lengths(self) -> dict[str, Tensor]:
        """Number of real time steps, name -> (B,) int64."""
        return {name: mask.sum(1) for name, mask in self.mask.items()}

    def index(self, rows: Tensor) -> Batch:
        """The samples at `rows`, an (N,) int64 index on the same device."""

        def take(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
            return {name: x.index_select(0, rows) for name, x in tensors.items()}

        return Batch(
            take(self.features),
            take(self.mask),
            self.label.index_select(0, rows),
            None if self.group is None else self.group.index_select(0, rows),
            None if self.corrupted is None else take(self.corrupted),
        )

    def select(self, names: list[str]) -> Batch:
        """The same samples with the modalities `names` only."""
        corrupted = None if self.corrupted is None else {name: self.corrupted[name] for name in names}
        return replace(
            self,
            features={name: self.features[name] for name in names},
            mask={name: self.mask[name] for name in names},
            corrupted=corrupted,
        )

    def to(self, device: torch.device | str) -> Batch:
        """The same samples on `device`."""

        def move(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
            return {name: x.to(device) for name, x in tensors.items()}

        return Batch(
            move(self.features),
            move(self.mask),
            self.label.to(device),
            None if self.group is None else self.group.to(device),
            None if self.corrupted is None else move(self.corrupted),
        )

    def check(self, num_classes: int) -> None:
        """Raise ValueError in one line if shapes, types, masks, labels or values are not as documented."""
        size = len(self.label)
        if set(self.mask) != set(self.features):
            raise ValueError(f"mask names {sorted(self.mask)} differ from feature names {sorted(self.features)}")
        for name, x in self.features.items():
            if x.ndim != 3 or x.dtype != torch.float32 or len(x) != size:
                raise ValueError(
                    f"{name}: expected float32 features of shape ({size}, T, d), got {x.dtype} {tuple(x.shape)}"
                )
            mask = self.mask[name]
            if mask.dtype != torch.bool or mask.shape != x.shape[:2]:
                got = f"{mask.dtype} {tuple(mask.shape)}"
                raise ValueError(f"{name}: expected a bool mask of shape {tuple(x.shape[:2])}, got {got}")
            if not mask.any(1).all():
                row = int((~mask.any(1)).nonzero()[0])
                raise ValueError(f"{name}: sample {row} has no real time step; every sample needs at least one")
            if (mask[:, 1:] & ~mask[:, :-1]).any():
                row = int((mask[:, 1:] & ~mask[:, :-1]).any(1).nonzero()[0])
                raise ValueError(f"{name}: sample {row} has padding before a real step; it must stand at the end")
            if not torch.isfinite(x).all():
                row = int((~torch.isfinite(x)).flatten(1).any(1).nonzero()[0])
                raise ValueError(f"{name}: sample {row} holds NaN or infinite values; clean them before training")
            if x.masked_select(~mask.unsqueeze(2)).any():
                raise ValueError(f"{name}: padded time steps must hold zeros")
        if self.group is not None and self.group.shape != (size,):
            raise ValueError(f"group: expected shape ({size},), got {tuple(self.group.shape)}")
        if self.corrupted is not None:
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
        if self.label.dtype != torch.int64 or self.label.ndim != 1:
            raise ValueError(
                f"label: expected int64 of shape (B,), got {self.label.dtype} {tuple(self.label.shape)}"
            )
        if len(self.label) and (int(self.label.min()) < 0 or int(self.label.max()) >= num_classes):
            raise ValueError(
                f"label: expected 0 to {num_classes - 1} for {num_classes} classes, "
                f"got {int(self.label.min())} to {int(self.label.max())}"
            )


@dataclass(frozen=True)
class MultimodalData:
    """A data set in three parts.

    Attributes:
        name: what `load` was asked for.
        train, validation, test: the parts; `validation` never overlaps `test`.
        classes: class names in label order.
        source: where the data come from, for citation.
        licence: the licence as its publisher states it.
        fingerprint: SHA-256 of everything that determines the content: raw source, parameters, split.
        stand_in: True where the data are made, not real; said wherever a number from them is shown.
        notes: what a reader should know, such as counts of cleaned values.
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
        """Share of the most frequent class in the test part: the accuracy of a constant answer."""
        return float(self.test.label.bincount().max() / len(self.test))

    def select(self, names: list[str]) -> MultimodalData:
        """The same data with the modalities `names` only."""
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
        """Raise ValueError naming the part and what is wrong with it."""
        for part, batch in self.parts.items():
            if not len(batch):
                raise ValueError(f"{self.name}, {part}: no samples; every part needs some")
            try:
                batch.check(len(self.classes))
            except ValueError as error:
                raise ValueError(f"{self.name}, {part}: {error}") from None
            if batch.dims != self.dims:
                raise ValueError(f"{self.name}, {part}: dims {batch.dims} differ from those of train {self.dims}")

    def standardised(self, by: Batch | None = None) -> MultimodalData:
        """Every feature channel shifted and scaled by its mean and deviation over the real training steps.

        Channels that are constant in training are only shifted. Padding stays zero.

        Args:
            by: raw training part whose statistics are used; by default this data set's own.
        """
        by = self.train if by is None else by
        statistics = {}
        for name, x in by.features.items():
            real = x[by.mask[name]].double()
            deviation = real.std(0, correction=0)
            statistics[name] = (
                real.mean(0).float(),
                torch.where(deviation > 1e-6, deviation, 1.0).float(),
            )

        def apply(batch: Batch) -> Batch:
            features = {}
            for name, x in batch.features.items():
                mean, deviation = statistics[name]
                features[name] = ((x - mean) / deviation).masked_fill(~batch.mask[name].unsqueeze(2), 0.0)
            return replace(batch, features=features)

        return self._each(apply)


def pad(sequences: list[np.ndarray], length: int | None = None) -> tuple[Tensor, Tensor]:
    """Stack (T_i, d) arrays into features (N, T, d) float32 with zeros at the end, and their mask (N, T) bool.

    `length` cuts longer sequences; by default T is the longest.
    """
    longest = max(len(sequence) for sequence in sequences) if length is None else length
    features = np.zeros((len(sequences), longest, sequences[0].shape[1]), np.float32)
    mask = np.zeros((len(sequences), longest), bool)
    for row, sequence in enumerate(sequences):
        kept = sequence[:longest]
        features[row, : len(kept)] = kept
        mask[row, : len(kept)] = True
    return torch.from_numpy(features), torch.from_numpy(mask)


def holdout(
    label: np.ndarray, share: float, seed: int, group: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Split rows into (kept, held out), stratified by label, or whole groups where `group` is given.

    Returns two sorted int64 row indices; about `share` of the rows are held out.
    """
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


def fingerprint(parameters: Mapping[str, Any], *arrays: np.ndarray | bytes) -> str:
    """SHA-256 of JSON-able `parameters` and raw arrays or bytes, the same on every machine.

    Hash raw input and integer decisions, not computed floats, whose last bits differ between machines.
    """
    digest = hashlib.sha256(json.dumps(parameters, sort_keys=True, default=str).encode())
    for array in arrays:
        if isinstance(array, bytes):
            digest.update(array)
            continue
        array = np.ascontiguousarray(array)
        little = array.astype(array.dtype.newbyteorder("<"))
        digest.update(f"{little.dtype.str}{little.shape}".encode())
        digest.update(little.tobytes())
    return digest.hexdigest()
