"""A sequence too long to be refined at once, in chunks of time: the same result, in memory that the chunk decides.

Two passes, since the value of a modality speaks of whole sequences: the first sums up, the second gates.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from vgmr.refiner import VGMR
from vgmr.refining.inputs import is_whole
from vgmr.refining.maps import masked_max
from vgmr.refining.refinement import Refinement


@torch.no_grad()
def refine_in_chunks(
    vgmr: VGMR, features: Mapping[str, Any], mask: Mapping[str, Tensor] | None = None, chunk: int = 256
) -> Iterator[Refinement]:
    """What `vgmr(features, mask)` gives in evaluation mode, chunk after chunk along time, equal to rounding.

    Args:
        features: name -> (B, T_m, d_m) floating point: tensors, or what is read from disk by slices, as
            `numpy.memmap` and h5py's data sets are.
        mask: name -> (B, T_m) bool; None if all steps are real.
        chunk: steps of each modality that are looked at together.

    Yields refinements of steps 0 to chunk - 1, chunk to 2 chunk - 1, and so on, as long as any modality has steps;
    one that has ended is left out of `features`, `gate` and `effective_gate`. Values are those of whole sequences.

    Raises:
        ValueError: `vgmr` is in training mode, an unknown or missing modality, a wrong shape, a sample without a
            real step, NaN or infinite values.
    """
    if vgmr.training:
        raise ValueError("chunks are for evaluation, since dropout would differ between passes; call vgmr.eval()")
    check_shapes(vgmr.dims, features, mask)
    if not is_whole(chunk):
        raise ValueError(f"chunk must be at least 1, got {chunk!r}; give a whole number")
    latent, described, steady = {}, {}, {}
    for name in vgmr.dims:
        totals = _Totals(vgmr, name, None if mask is None else mask[name], features[name].shape[1])
        for x, real in _slices(vgmr, name, features, mask, chunk):
            totals.add(x, real)
        if vgmr.learns_value:
            latent[name] = vgmr.of(name).pooled_latent(totals.first / totals.length, totals.largest)
        if not vgmr.per_step:
            steady[name] = vgmr.of(name).project((totals.first / totals.length).unsqueeze(1))[1]
        if vgmr.evidence is not None:
            described[name] = totals.described()
    refinement = vgmr.valued(latent, *vgmr.judge(described))
    passes = {name: _slices(vgmr, name, features, mask, chunk) for name in vgmr.dims}
    while True:
        found = refinement._replace(features={}, gate={}, effective_gate={})
        for name, slices in passes.items():
            for x, real in slices:
                evidence = vgmr.of(name).project(x)[1] if vgmr.per_step else steady[name]
                vgmr.refine(name, x, real, evidence, found)
                break
        if not found.features:
            return
        yield found


def check_shapes(dims: Mapping[str, int], features: Mapping[str, Any], mask: Mapping[str, Tensor] | None) -> None:
    """As `check_inputs`, of what need not be tensors."""
    for what, given in (("features", features), ("mask", mask)):
        if given is None and what == "mask":
            continue
        if not isinstance(given, Mapping) or set(given) != set(dims):
            got = list(given) if isinstance(given, Mapping) else type(given).__name__
            raise ValueError(f"{what}: expected the modalities {list(dims)}, got {got}")
    size = len(next(iter(features.values())))
    for name, dim in dims.items():
        shape, real = tuple(features[name].shape), None if mask is None else mask[name]
        if len(shape) != 3 or shape[0] != size or not shape[1] or shape[2] != dim:
            raise ValueError(f"{name}: expected features of shape ({size}, T, {dim}), got {shape}")
        if real is not None and (real.dtype != torch.bool or real.shape != shape[:2]):
            got = f"{real.dtype} {tuple(real.shape)}"
            raise ValueError(f"{name}: expected a bool mask of shape {shape[:2]}, got {got}")


def _slices(
    vgmr: VGMR, name: str, features: Mapping[str, Any], mask: Mapping[str, Tensor] | None, chunk: int
) -> Iterator[tuple[Tensor, Tensor | None]]:
    weight = next(vgmr.parameters())
    for start in range(0, features[name].shape[1], chunk):
        x = torch.as_tensor(features[name][:, start : start + chunk]).to(weight)
        real = None if mask is None else mask[name][:, start : start + chunk]
        if real is not None:
            x = torch.where(real.unsqueeze(2), x, 0.0)
        if not torch.isfinite(x).all():
            raise ValueError(f"{name}: steps from {start} hold NaN or infinite features; clean them before")
        yield x, real


class _Totals:
    """What is known of one modality's sequences so far."""

    def __init__(self, vgmr: VGMR, name: str, mask: Tensor | None, steps: int):
        self.maps, self.learns = vgmr.of(name), vgmr.learns_value
        self.frequencies = 0 if vgmr.evidence is None else vgmr.evidence.frequencies
        if mask is not None and not mask.any(1).all():
            row = int((~mask.any(1)).nonzero()[0])
            raise ValueError(f"{name}: sample {row} has no real time step in its mask; each needs at least one")
        self.steps = steps
        self.length: Any = float(steps) if mask is None else mask.sum(1, keepdim=True)
        self.seen: Any = 0.0  # real steps before this chunk
        self.first: Any = 0.0
        self.largest: Any = None
        self.waves: Any = 0.0
        self.square: Any = 0.0
        self.jump: Any = 0.0
        self.pairs: Any = 0.0
        self.last: tuple[Tensor, Tensor] | None = None

    def add(self, x: Tensor, mask: Tensor | None) -> None:
        real = x.new_ones(x.shape[:2]) if mask is None else mask.to(x.dtype)
        hidden = x if not self.maps.per_step else self.maps.project(x)[0] if self.learns else None
        if hidden is not None:
            self.first = self.first + (real.unsqueeze(1) @ hidden).squeeze(1)
        if hidden is not None and self.learns:
            largest = masked_max(hidden, mask)
            self.largest = largest if self.largest is None else torch.maximum(self.largest, largest)
        if self.frequencies:
            place = (self.seen + real.cumsum(1) - 0.5) / self.length
            order = torch.arange(self.frequencies, device=x.device, dtype=x.dtype)
            waves = torch.cos(math.pi * order[:, None] * place.unsqueeze(1)) * (real / self.length).unsqueeze(1)
            self.waves = self.waves + waves @ x
            self.square = self.square + ((real / self.length).unsqueeze(1) @ (x * x)).squeeze(1)
            if self.last is not None:
                x, real = torch.cat([self.last[0], x], 1), torch.cat([self.last[1], real], 1)
            pair = real[:, 1:] * real[:, :-1]
            self.jump = self.jump + (pair.unsqueeze(1) @ (x[:, 1:] - x[:, :-1]).abs()).squeeze(1)
            self.pairs = self.pairs + pair.sum(1, keepdim=True)
            self.seen = self.seen + (real if self.last is None else real[:, 1:]).sum(1, keepdim=True)
            self.last = x[:, -1:], real[:, -1:]

    def described(self) -> tuple[Tensor, Tensor]:
        """What `vgmr.refining.evidence.pooled` gives for the whole sequence."""
        shape = self.waves
        if self.steps == 1:
            return shape.flatten(1), shape.new_zeros(len(shape), 2 * shape.shape[2])
        deviation = (self.square - shape[:, 0] ** 2).clamp_min(0).sqrt()
        return shape.flatten(1), torch.cat([deviation, self.jump / self.pairs.clamp_min(1)], 1)
