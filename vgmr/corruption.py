"""Corruptions as pure functions `Batch -> Batch`; each marks in `corrupted` what it changed, real steps only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vgmr.data.types import Batch, check_shares, check_whole


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _check(batch: Batch, modalities: Sequence[str] | None, share: float) -> list[str]:
    names = list(batch.features) if modalities is None else list(modalities)
    unknown = sorted(set(names) - set(batch.features))
    if unknown:
        raise ValueError(f"unknown modalities {unknown}; there are {list(batch.features)}")
    if not names:
        raise ValueError(f"modalities must name at least one of {list(batch.features)}, got {modalities!r}")
    check_shares(share=share)
    return names


def _marked(batch: Batch, features: Mapping[str, Tensor], hit: Mapping[str, Tensor]) -> Batch:
    corrupted = {
        name: torch.zeros(len(batch), 1, 1, dtype=torch.bool, device=x.device)
        for name, x in batch.features.items()
    }
    corrupted.update(batch.corrupted or {})
    for name, where in hit.items():
        corrupted[name] = corrupted[name] | where
    return replace(batch, features={**batch.features, **features}, corrupted=corrupted)


def noise(
    batch: Batch,
    train: Batch,
    share: float,
    weight: float = 1.0,
    granularity: int = 1,
    modalities: Sequence[str] | None = None,
    seed: int = 0,
) -> Batch:
    """Replace blocks of time steps by Gaussian noise, section 4.8: x <- (1 - weight) x + weight noise.

    Args:
        train: part whose mean and deviation per channel, over real steps, the noise takes.
        share: probability that a block is corrupted, 0 to 1.
        weight: of the noise, 0 to 1.
        granularity: length of a block in steps.
        modalities: which; None for all.
    """
    names, generator = _check(batch, modalities, share), _generator(seed)
    check_whole(1, granularity=granularity)
    check_shares(weight=weight)
    features, hit = {}, {}
    for name in names:
        x, mask = batch.features[name], batch.mask[name]
        real = train.features[name][train.mask[name]]
        blocks = torch.rand(len(x), -(-x.shape[1] // granularity), generator=generator) < share
        where = blocks.repeat_interleave(granularity, 1)[:, : x.shape[1]].to(x.device) & mask
        drawn = torch.randn(x.shape, generator=generator).to(x.device) * real.std(0, correction=0) + real.mean(0)
        features[name] = torch.where(where.unsqueeze(2), (1 - weight) * x + weight * drawn, x)
        hit[name] = where.unsqueeze(2) & (weight > 0)
    return _marked(batch, features, hit)


def missing(batch: Batch, modality: str, share: float = 1.0, seed: int = 0) -> Batch:
    """Set a modality to zero, the training mean of standardised data, in a share of the samples."""
    _check(batch, [modality], share)
    x = batch.features[modality]
    gone = (torch.rand(len(x), generator=_generator(seed)) < share).to(x.device)[:, None, None]
    hit = gone & batch.mask[modality].unsqueeze(2)
    return _marked(batch, {modality: x.masked_fill(gone, 0.0)}, {modality: hit})


def temporal_masking(batch: Batch, share: float, modalities: Sequence[str] | None = None, seed: int = 0) -> Batch:
    """Set one contiguous stretch, a share of each sequence's real steps, to zero."""
    names, generator = _check(batch, modalities, share), _generator(seed)
    features, hit = {}, {}
    for name in names:
        x, length = batch.features[name], batch.mask[name].sum(1)
        stretch = (share * length).round().long()
        start = (torch.rand(len(x), generator=generator).to(x.device) * (length - stretch + 1)).long()
        step = torch.arange(x.shape[1], device=x.device)
        where = (step >= start.unsqueeze(1)) & (step < (start + stretch).unsqueeze(1))
        features[name], hit[name] = x.masked_fill(where.unsqueeze(2), 0.0), where.unsqueeze(2)
    return _marked(batch, features, hit)


def sensor_dropout(batch: Batch, share: float, modalities: Sequence[str] | None = None, seed: int = 0) -> Batch:
    """Set each channel of each sample to zero, for the whole sequence, with probability `share`."""
    names, generator = _check(batch, modalities, share), _generator(seed)
    features, hit = {}, {}
    for name in names:
        x = batch.features[name]
        dead = (torch.rand(len(x), 1, x.shape[2], generator=generator) < share).to(x.device)
        features[name], hit[name] = x.masked_fill(dead, 0.0), dead & batch.mask[name].unsqueeze(2)
    return _marked(batch, features, hit)


def asynchrony(batch: Batch, shift: int, modality: str) -> Batch:
    """Rotate a modality's real steps by `shift`, so that it no longer runs in time with the others."""
    _check(batch, [modality], 0)
    x, mask = batch.features[modality], batch.mask[modality]
    length = mask.sum(1, keepdim=True)
    step = torch.arange(x.shape[1], device=x.device).expand(len(x), -1)
    source = torch.where(mask, (step - shift) % length, step)
    moved = x.gather(1, source.unsqueeze(2).expand_as(x))
    where = mask & ((shift % length) != 0)
    return _marked(batch, {modality: moved}, {modality: where.unsqueeze(2)})


def conflict(batch: Batch, share: float, modalities: Sequence[str] | None = None, seed: int = 0) -> Batch:
    """Give one random modality of a share of the samples the content of a sample of another class."""
    names, generator = _check(batch, modalities, share), _generator(seed)
    if len(batch.label.unique()) < 2:
        raise ValueError("a conflict needs at least two classes in the batch")
    label = batch.label.cpu()
    rows = torch.randperm(len(label), generator=generator)[: round(share * len(label))]
    chosen = torch.randint(len(names), (len(rows),), generator=generator)
    origin = {name: torch.arange(len(label)) for name in names}
    for row, position in zip(rows.tolist(), chosen.tolist(), strict=True):
        candidates = (label != label[row]).nonzero().squeeze(1)
        pick = torch.randint(len(candidates), (1,), generator=generator)
        origin[names[position]][row] = candidates[pick]
    features, masks, hit = {}, dict(batch.mask), {}
    corrupted = dict(batch.corrupted or {})
    for name in names:
        source = origin[name].to(batch.label.device)
        if name in corrupted:
            corrupted[name] = corrupted[name][source]
        features[name] = batch.features[name][source]
        masks[name] = batch.mask[name][source]
        moved = source != torch.arange(len(label), device=source.device)
        hit[name] = moved[:, None, None] & masks[name].unsqueeze(2)
    return replace(_marked(replace(batch, corrupted=corrupted or None), features, hit), mask=masks)


KINDS = ("noise", "missing", "conflict", "masking", "occlusion", "dropout", "asynchrony", "shift")


@dataclass(frozen=True)
class Drawn:
    """One modality in a share of the samples corrupted, which and how drawn anew at every call.

    Attributes:
        kinds: those to draw from, of `KINDS`: "noise" replaces the sequence by Gaussian noise of the training
            part's mean and deviation; "missing" by zeros; "conflict" by that of a sample of the batch, and counts
            as corrupted where its label is another, or where it came corrupted; "masking" sets half of its steps
            to zero, in one stretch, "occlusion" half of its steps and half of its channels, "dropout" each channel
            with probability 1/2; "asynchrony" rotates it in time; "shift" adds a constant to each channel, one
            deviation in size.
        share: probability that a sample is corrupted.
        mean, deviation: of the training part over real steps, name -> (d_m,).
        modalities: those that may be corrupted.
    """

    kinds: tuple[str, ...]
    share: float
    mean: dict[str, Tensor]
    deviation: dict[str, Tensor]
    modalities: tuple[str, ...]

    @classmethod
    def like(
        cls,
        train: Batch,
        kinds: Sequence[str] = ("noise",),
        share: float = 0.5,
        modalities: Sequence[str] | None = None,
    ) -> Drawn:
        """With the statistics of a training part.

        Raises:
            ValueError: an unknown kind or modality, or a share outside 0 to 1.
        """
        names = _check(train, modalities, share)
        unknown = sorted(set(kinds) - set(KINDS))
        if unknown or not kinds or isinstance(kinds, str):
            raise ValueError(f"kinds must be some of {list(KINDS)}, got {kinds!r}")
        real = {name: x[train.mask[name]] for name, x in train.features.items()}
        return cls(
            tuple(kinds),
            share,
            {name: x.mean(0) for name, x in real.items()},
            {name: x.std(0, correction=0) for name, x in real.items()},
            tuple(names),
        )

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        """The corrupted batch; `corrupted` says where. The generator lies on the CPU."""
        batch = _marked(batch, {}, {})
        marks = batch.corrupted or {}
        size, device = len(batch), batch.label.device
        chosen = torch.randint(len(self.modalities), (size,), generator=generator)
        chosen[torch.rand(size, generator=generator) >= self.share] = -1
        kind = torch.randint(len(self.kinds), (size,), generator=generator)
        features, masks, hit = {}, dict(batch.mask), {}
        for position, name in enumerate(self.modalities):
            x, mask = batch.features[name].clone(), batch.mask[name].clone()
            hit[name] = marks[name].expand_as(x).clone()
            for number, what in enumerate(self.kinds):
                rows = ((chosen == position) & (kind == number)).nonzero().squeeze(1)
                if len(rows):
                    self._corrupt(batch, name, what, rows.to(device), generator, x, mask, hit[name])
            features[name], masks[name] = x.masked_fill_(~mask.unsqueeze(2), 0.0), mask
        return replace(batch, features={**batch.features, **features}, mask=masks, corrupted={**marks, **hit})

    def _corrupt(
        self,
        batch: Batch,
        name: str,
        kind: str,
        rows: Tensor,
        generator: torch.Generator,
        x: Tensor,
        mask: Tensor,
        hit: Tensor,
    ) -> None:
        """Change the `rows` of x, mask and hit in place."""
        device, (_, steps, dim) = x.device, x.shape
        own, real, earlier = x[rows], mask[rows], hit[rows]
        length = real.sum(1, keepdim=True)
        place = (torch.rand(len(rows), 2, generator=generator) * 0.5).to(device)
        step = real.cumsum(1) - 1
        stretch = (step >= place[:, :1] * length) & (step < (place[:, :1] + 0.5) * length)
        channel = (torch.arange(dim, device=device) + 0.5) / dim
        where = real.unsqueeze(2).expand_as(own)
        if kind in ("noise", "shift"):
            drawn = torch.randn(len(rows), steps if kind == "noise" else 1, dim, generator=generator).to(device)
            drawn = drawn * self.deviation[name]
            changed = drawn + self.mean[name] if kind == "noise" else own + drawn
        elif kind == "conflict":
            other = torch.randint(len(x), (len(rows),), generator=generator).to(device)
            changed, mask[rows] = batch.features[name][other], batch.mask[name][other]
            differs = batch.label[other] != batch.label[rows]
            where = batch.mask[name][other].unsqueeze(2) & differs[:, None, None]
            earlier = (batch.corrupted or {})[name][other]
        elif kind == "asynchrony":
            by = (1 + (torch.rand(len(rows), 1, generator=generator).to(device) * (length - 1)).long()) % length
            source = torch.where(real, (step - by) % length, torch.arange(steps, device=device))
            changed = own.gather(1, source.unsqueeze(2).expand_as(own))
            where = where & (by != 0).unsqueeze(2)
        else:
            if kind == "masking":
                where = where & stretch.unsqueeze(2)
            elif kind == "occlusion":
                band = (channel >= place[:, 1:]) & (channel < place[:, 1:] + 0.5)
                where = where & stretch.unsqueeze(2) & band.unsqueeze(1)
            elif kind == "dropout":
                where = where & (torch.rand(len(rows), 1, dim, generator=generator) < 0.5).to(device)
            changed = own.masked_fill(where, 0.0)
        x[rows], hit[rows] = changed, where | earlier


SPANS = ("swapped", "occluded", "shifted")


def span(
    batch: Batch,
    kind: str,
    share: float = 1.0,
    length: float = 0.4,
    seed: int = 0,
    modalities: Sequence[str] | None = None,
    start: float | None = None,
) -> Batch:
    """Corrupt one stretch of one modality, drawn by chance, in a share of the samples.

    Args:
        kind: "swapped" puts in the same stretch, by relative place, of a sample of another class; "occluded" 0;
            "shifted" adds a constant to each channel, two deviations of this batch in size.
        length: of the stretch, as a share of the real steps.
        modalities: that may be hit; None for all.
        start: of the stretch in all samples, 0 for as early and 1 for as late as can be; None draws it for each.

    Raises:
        ValueError: an unknown kind or modality, a share, length or start outside 0 to 1, or one class alone.
    """
    names, generator = _check(batch, modalities, share), _generator(seed)
    if kind not in SPANS:
        raise ValueError(f"kind must be one of {', '.join(SPANS)}, got {kind!r}")
    check_shares(length=length, start=0 if start is None else start)
    label, size = batch.label.cpu(), len(batch)
    if len(label.unique()) < 2:
        raise ValueError("a conflict needs at least two classes in the batch")
    chosen = torch.randint(len(names), (size,), generator=generator)
    chosen[torch.rand(size, generator=generator) >= share] = -1
    differs = (label[:, None] != label).double()
    source = torch.multinomial(differs, 1, generator=generator).squeeze(1).to(batch.label.device)
    first = torch.rand(size, 1, generator=generator) if start is None else torch.full((size, 1), start)
    first = first.to(batch.label.device) * (1 - length)
    features, hit = {}, {}
    for position, name in enumerate(names):
        x, mask = batch.features[name], batch.mask[name]
        real = mask.sum(1, keepdim=True)
        place = (mask.cumsum(1) - 0.5) / real
        where = (place >= first) & (place < first + length) & mask
        where = where & (chosen == position).to(mask.device).unsqueeze(1)
        if kind == "swapped":
            there = (place * real[source]).long().clamp(0, x.shape[1] - 1)
            padded = mask.long().argmax(1)[source].unsqueeze(1)
            there = (padded + there).clamp_max(x.shape[1] - 1)
            changed = x[source].gather(1, there.unsqueeze(2).expand_as(x))
        elif kind == "occluded":
            changed = torch.zeros_like(x)
        else:
            deviation = x[mask].std(0, correction=0)
            sign = torch.randint(2, (size, 1, x.shape[2]), generator=generator).to(x) * 2 - 1
            changed = x + 2 * sign * deviation
        features[name], hit[name] = torch.where(where.unsqueeze(2), changed, x), where.unsqueeze(2)
    return _marked(batch, features, hit)
