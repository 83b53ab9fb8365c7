"""UniS-MMC: modality vectors of a sample are pulled together where at least one of them is right alone."""

from __future__ import annotations

from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgmr.balancing.base import Balancing
from vgmr.classifier import Classifier, Output
from vgmr.data.types import Batch, MultimodalData, check_shares
from vgmr.fusion.base import check_weights
from vgmr.refining.inputs import is_weight


def contrast(
    first: Tensor, second: Tensor, right: Tensor, other_right: Tensor, temperature: float = 0.07
) -> Tensor:
    """-log of the share that samples with a right modality have in sum_n exp(cos(a_n, b_n) / temperature).

    Where one modality alone is right, it is held fixed and the other moves towards it. 0 where no sample has a
    right one. The order of the batch changes nothing, unlike in the released code, which reads the cosines of the
    first sample with all others in place of each sample's own.

    Args:
        first, second: vectors a and b of the two modalities, (B, w).
        right, other_right: (B,) bool, prediction from that modality alone is right.
    """
    fixed, free = right & ~other_right, other_right & ~right
    a = torch.where(fixed.unsqueeze(1), first.detach(), first)
    b = torch.where(free.unsqueeze(1), second.detach(), second)
    closeness = F.cosine_similarity(a, b) / temperature
    positive = right | other_right
    chosen = torch.where(positive, closeness, -torch.inf).logsumexp(0)
    loss = closeness.logsumexp(0) - chosen
    return torch.where(positive.any(), loss, torch.zeros_like(loss))


class UniSMMC(Balancing):
    """Unimodality-supervised multimodal contrastive learning (Zou et al., Findings of ACL 2023).

    L + sum_m L_m + weight * sum over pairs of `contrast`, where L_m is the loss of a small classifier on each
    modality's vector. The method "uniform" has all but the last term. For more than two modalities the sum over
    pairs is as the paper's text reads. Defined for every backbone whose vectors have one width.

    Args:
        weight: lambda.
        temperature: of the cosines; .07 in the paper, which the released option does not reach.
        dropout: in the classifiers.
    """

    regression = False
    least_modalities = 2
    heads: nn.ModuleDict

    def __init__(self, weight: float = 0.1, temperature: float = 0.07, dropout: float = 0.0):
        super().__init__()
        if not (is_weight(temperature) and temperature > 0):
            raise ValueError(f"temperature must be positive, got {temperature!r}")
        check_weights(weight=weight)
        check_shares(dropout=dropout)
        self.weight, self.temperature, self.dropout = weight, temperature, dropout

    def start(self, model: Classifier, data: MultimodalData, epochs: int, seed: int) -> None:
        super().start(model, data, epochs, seed)
        width = model.backbone.width
        if width is None:
            raise ValueError(
                f"UniSMMC compares vectors of one width, and those of {type(model.backbone).__name__} differ"
            )
        device = next(model.parameters()).device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            self.heads = nn.ModuleDict(
                {
                    name: nn.Sequential(
                        nn.Linear(width, width),
                        nn.ReLU(),
                        nn.Dropout(self.dropout),
                        nn.Linear(width, width),
                        nn.ReLU(),
                        nn.Linear(width, len(data.classes)),
                    )
                    for name in self.names
                }
            ).to(device)

    def losses(
        self, model: Classifier, output: Output, batch: Batch, joint: Tensor, epoch: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        logits = {name: self.heads[name](output.vectors[name]) for name in self.names}
        terms = {name: F.cross_entropy(logits[name], batch.label) for name in self.names}
        right = {name: logits[name].argmax(1) == batch.label for name in self.names}
        pairs = [
            contrast(output.vectors[a], output.vectors[b], right[a], right[b], self.temperature)
            for a, b in combinations(self.names, 2)
        ]
        together = torch.stack(pairs).sum()
        self.note({"contrast": together})
        return joint + self.weight * together, terms
