"""Values in time: which stretch of which modality conflicts with all the rest.

A sequence is cut into overlapping windows, the same number for every modality and by relative place, so that
modalities need no common clock. Each place has anchors of its own, fitted to that window of the training part. The
value of a window is how much its posterior agrees with everything else in the sample, the other windows of its own
modality included, times how typical level and course are for this place.
"""

from __future__ import annotations

import pandas as pd
import torch
from torch import Tensor

from vgmr.data.types import Batch
from vgmr.evaluation import auroc
from vgmr.refining.evidence import Anchor, pooled


class _Usual:
    """How far windows of one place lie from those of the training part, along its main directions and off them.

    Three of four windows give the directions, the fourth how far others lie.
    """

    def __init__(self, told: Tensor):
        held = torch.arange(len(told)) % 4 == 3
        seen = told[~held]
        self.mean, self.spread = seen.mean(0), seen.std(0, correction=0).clamp_min(1e-3)
        standardised = (seen - self.mean) / self.spread
        _, size, directions = torch.linalg.svd(standardised, full_matrices=False)
        kept = max(1, min(len(size), len(seen) // 8))
        variance = size.square() / len(seen)
        self.directions, self.variance = directions[:kept], variance[:kept].clamp_min(1e-3)
        self.noise = max(1e-2, float(variance[kept:].sum()) / max(1, told.shape[1] - kept))
        self.centre, self.scale = 0.0, 1.0
        away = self.surprise(told[held])
        self.centre, self.scale = float(away.mean()), max(1e-3, float(away.std(correction=0)))

    def surprise(self, told: Tensor) -> Tensor:
        """(N, P) to (N,): logarithm of the mean squared distance, in deviations of windows that are as usual."""
        standardised = (told - self.mean) / self.spread
        inside = standardised @ self.directions.T
        outside = (standardised.square().sum(1) - inside.square().sum(1)).clamp_min(0) / self.noise
        away = ((inside.square() / self.variance).sum(1) + outside) / told.shape[1]
        return (torch.log(away + 0.05) - self.centre) / self.scale


class Windows:
    """Anchors on windows of a training part.

    Args:
        train: with classes as labels.
        num_classes: C.
        windows: how many stand side by side; as many less one lie between them, half over each neighbour.
    """

    def __init__(self, train: Batch, num_classes: int, windows: int = 3):
        self.windows, self.count = windows, 2 * windows - 1
        self.anchors: dict[str, list[Anchor]] = {}
        self.usual: dict[str, list[_Usual]] = {}
        for name, places in self.cut(train).items():
            self.anchors[name], self.usual[name] = [], []
            for x, real in places:
                anchor = Anchor(x.shape[2], num_classes, folds=4, frequencies=2)
                anchor.prepare(x, real, train.label)
                self.anchors[name].append(anchor)
                self.usual[name].append(_Usual(_told(x, real)))

    def starts(self, mask: Tensor) -> tuple[Tensor, Tensor]:
        """First step (N, K), counting real ones, and length (N, 1) of the windows of (N, T)."""
        length = mask.sum(1, keepdim=True)
        size = (length / self.windows).round().clamp_min(1).long()
        place = torch.arange(self.count, device=mask.device) / max(1, self.count - 1)
        return (place * (length - size)).round().long(), size

    def cut(self, part: Batch) -> dict[str, list[tuple[Tensor, Tensor]]]:
        """The windows, place by place: name -> K pairs of (N, longest, d) and masks (N, longest)."""
        cut: dict[str, list[tuple[Tensor, Tensor]]] = {}
        for name, x in part.features.items():
            start, size = self.starts(part.mask[name])
            step = torch.arange(int(size.max()), device=x.device)
            real = step < size
            order = torch.argsort((~part.mask[name]).long(), dim=1, stable=True)  # real steps first
            cut[name] = []
            for first in start.unbind(1):
                index = order.gather(1, (first.unsqueeze(1) + step).clamp_max(x.shape[1] - 1))
                window = x.gather(1, index.unsqueeze(2).expand(-1, -1, x.shape[2]))
                cut[name].append((window * real.unsqueeze(2), real))
        return cut

    @torch.no_grad()
    def values(self, part: Batch) -> dict[str, Tensor]:
        """v_m(t), name -> (N, T_m) in 0 to 1: the mean over the windows that hold the step; padding is 0."""
        said, typical = [], {}
        for name, places in self.cut(part).items():
            judged = zip(places, self.anchors[name], self.usual[name], strict=True)
            pairs = [
                (anchor(x, real)[0], torch.sigmoid(2 - usual.surprise(_told(x, real))))
                for (x, real), anchor, usual in judged
            ]
            said.append(torch.stack([pair[0] for pair in pairs], 1))
            typical[name] = torch.stack([pair[1] for pair in pairs], 1)
        posterior = torch.stack(said)  # (M, N, K, C)
        logs = posterior.clamp_min(1e-6).log()
        rest = (logs.sum((0, 2), keepdim=True) - logs) / (len(posterior) * self.count - 1)
        rest = (rest * self.windows).softmax(3)  # overlapping windows of one sequence are not that many witnesses
        agreement = (posterior * rest).sum(3) / rest.amax(3)
        return {
            name: self._spread(agreement[place] * typical[name], part.mask[name])
            for place, name in enumerate(part.features)
        }

    def _spread(self, value: Tensor, mask: Tensor) -> Tensor:
        """Of windows (N, K) to steps (N, T)."""
        start, size = self.starts(mask)
        step = (mask.cumsum(1) - 1).unsqueeze(1)
        inside = (step >= start.unsqueeze(2)) & (step < (start + size).unsqueeze(2)) & mask.unsqueeze(1)
        weight = inside.to(value.dtype)
        return (weight * value.unsqueeze(2)).sum(1) / weight.sum(1).clamp_min(1)


def _told(x: Tensor, mask: Tensor) -> Tensor:
    shape, roughness = pooled(x, mask, 2)
    return torch.cat([shape, torch.log(roughness + 0.05)], 1)


def step_detection(windows: Windows, part: Batch) -> pd.DataFrame:
    """AUROC of a low value for a corrupted step, over all real steps of a part that knows where it is corrupted.

    "in time" is v_m(t), "pooled" its mean over the sequence at every step: all that a value without time can say.

    Columns: modality (or "all"), value, auroc.

    Raises:
        ValueError: nothing is known of corruptions in this part.
    """
    if part.corrupted is None:
        raise ValueError("nothing is known of corruptions in this part; vgmr.corruption.span makes some")
    cases = {}
    for name, value in windows.values(part).items():
        real = part.mask[name]
        mean = (value.sum(1, keepdim=True) / real.sum(1, keepdim=True)).expand_as(value)
        hit = part.corrupted[name].any(2).expand_as(real)[real]
        cases[name] = {"in time": value[real], "pooled": mean[real], "hit": hit}
    cases["all"] = {
        what: torch.cat([case[what] for case in cases.values()]) for what in ("in time", "pooled", "hit")
    }
    return pd.DataFrame(
        [
            {"modality": name, "value": what, "auroc": auroc(-case[what], case["hit"])}
            for name, case in cases.items()
            for what in ("in time", "pooled")
            if 0 < int(case["hit"].sum()) < len(case["hit"])
        ]
    )
