"""Self-MM: each modality gets labels of its own, made from how near its vectors lie to the classes' centres."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from vgmr.balancing.base import Balancing, fused_sample
from vgmr.classifier import Classifier, Output
from vgmr.data.types import Batch, MultimodalData, check_shares
from vgmr.refining.inputs import is_weight


def lean(feature: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """(|f - C-| - |f - C+|) / |f - C+|: how much nearer (N, w) lies to the positive centre; (N,)."""
    near, far = (feature - positive).norm(dim=1), (feature - negative).norm(dim=1)
    return (far - near) / (near + 1e-8)


def renewed(label: Tensor, own: Tensor, unimodal: Tensor, joint: Tensor, epoch: int, limit: float) -> Tensor:
    """The labels of one modality after an epoch's pass, (N,).

    new = clip((y d_m / d + y + d_m - d) / 2, -limit, limit); y_m <- (e - 1) / (e + 1) y_m + 2 / (e + 1) new.

    Args:
        label, own: y and y_m so far.
        unimodal, joint: d_m and d, from `lean`.
        epoch: e, from 1.
        limit: H.
    """
    new = (0.5 * label * unimodal / (joint + 1e-8) + 0.5 * (label + unimodal - joint)).clamp(-limit, limit)
    return (epoch - 1) / (epoch + 1) * own + 2 / (epoch + 1) * new


def centres(features: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Means of the rows (N, w) with positive and with negative label; zeros are left out, nothing gives NaN."""
    return features[label > 0].mean(0), features[label < 0].mean(0)


class UnimodalHead(nn.Module):
    """f_m = relu(V_1 h) and y^_m = V_3 relu(V_2 f_m) of vectors h (B, w): (B, w // 2) and (B,)."""

    def __init__(self, width: int):
        super().__init__()
        self.first, self.second = nn.Linear(width, width // 2), nn.Linear(width // 2, width // 2)
        self.third = nn.Linear(width // 2, 1)

    def forward(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        """(B, w) to feature (B, w // 2) and answer (B,)."""
        feature = torch.relu(self.first(vector))
        return feature, self.third(torch.relu(self.second(feature))).squeeze(1)


class SelfMM(Balancing):
    """Self-supervised unimodal labels (Yu et al., AAAI 2021).

    L + sum_m mean tanh|y_m - y| |y^_m - y_m|: y^_m comes from a small network on the modality's vector, y_m is y
    at first and from the second epoch on moves by how the modality leans against how the fusion leans. Defined
    for signed labels: regression, and two classes as -1 and 1. A training part without one sign leaves the labels
    as they are, where the released code makes them NaN. Needs a backbone with `fused`.

    Args:
        limit: H, the largest label; by default the largest |y| of the training part.
        dropout: in the unimodal networks.
    """

    least_modalities = 2
    heads: nn.ModuleDict
    label: Tensor

    def __init__(self, limit: float | None = None, dropout: float = 0.0):
        super().__init__()
        if not (limit is None or is_weight(limit)):
            raise ValueError(f"limit must be a number of at least 0, or None, got {limit!r}")
        check_shares(dropout=dropout)
        self.limit, self.dropout = limit, dropout

    def start(self, model: Classifier, data: MultimodalData, epochs: int, seed: int) -> None:
        super().start(model, data, epochs, seed)
        if len(data.classes) > 2:
            raise ValueError(
                f"Self-MM is defined for signed labels, regression or two classes, got {len(data.classes)} classes"
            )
        width, kind = model.backbone.width, type(model.backbone).__name__
        if width is None:
            raise ValueError(f"Self-MM needs vectors of one width, and those of {kind} differ")
        fused = fused_sample(model, data, "Self-MM")
        device, count = fused.device, len(data.train)
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            self.heads = nn.ModuleDict({name: UnimodalHead(width) for name in self.names}).to(device)
        label = data.train.label
        self.register_buffer("label", 2.0 * label - 1 if data.classes else label.clone())
        self.highest = float(self.label.abs().max()) if self.limit is None else self.limit
        self.register_buffer("joint_features", torch.zeros(count, fused.shape[1], device=device))
        for name in self.names:
            self.register_buffer(f"features_{name}", torch.zeros(count, width // 2, device=device))
            self.register_buffer(f"label_{name}", self.label.clone())
        self.register_buffer("filled", torch.zeros(count, dtype=torch.bool, device=device))
        self.drop = nn.Dropout(self.dropout)

    def training_part(self, data: MultimodalData) -> Batch:
        return replace(data.train, row=torch.arange(len(data.train), device=data.train.label.device))

    def losses(
        self, model: Classifier, output: Output, batch: Batch, joint: Tensor, epoch: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        if batch.row is None or output.fused is None:
            raise ValueError("Self-MM keeps a label for each training sample and needs batches with `row`")
        rows, truth = batch.row, self.label[batch.row]
        features, terms = {}, {}
        for name in self.names:
            features[name], answer = self.heads[name](self.drop(output.vectors[name]))
            own = self.get_buffer(f"label_{name}")[rows]
            terms[name] = (torch.tanh((own - truth).abs()) * (answer - own).abs()).mean()
        self._renew(rows, features, output.fused, epoch)
        return joint, terms

    @torch.no_grad()
    def _renew(self, rows: Tensor, features: dict[str, Tensor], fused: Tensor, epoch: int) -> None:
        stored = self.get_buffer("joint_features")
        filled = self.get_buffer("filled")
        both_signs = bool((self.label[filled] > 0).any()) and bool((self.label[filled] < 0).any())
        if epoch >= 1 and both_signs:
            whole = lean(fused, *centres(stored[filled], self.label[filled]))
            for name in self.names:
                own = self.get_buffer(f"label_{name}")
                seen = self.get_buffer(f"features_{name}")[filled]
                single = lean(features[name], *centres(seen, own[filled]))
                new = renewed(self.label[rows], own[rows], single, whole, epoch + 1, self.highest)
                own[rows] = torch.where(torch.isfinite(new), new, own[rows])
        stored[rows] = fused
        filled[rows] = True
        for name in self.names:
            self.get_buffer(f"features_{name}")[rows] = features[name]
