"""The uniform control: joint and unimodal losses with equal weights."""

from __future__ import annotations

from torch import Tensor, nn

from vgmr.balancing.base import Balancing, unimodal_heads, unimodal_losses
from vgmr.classifier import Classifier, Output
from vgmr.data.types import Batch, MultimodalData


class Uniform(Balancing):
    """L + sum over modalities of L_m, where L_m is the loss of a linear head on the encoding of m.

    MMPareto, ARL, Grad-Blending and MLA all contain unimodal supervision; this control tells what that alone
    does. Predictions come from the joint head. A shared encoder receives the sum of all gradients. Defined for
    every head.
    """

    least_modalities = 2
    regression = False
    heads: nn.ModuleDict

    def start(self, model: Classifier, data: MultimodalData, epochs: int, seed: int) -> None:
        super().start(model, data, epochs, seed)
        self.heads = unimodal_heads(model, len(data.classes), seed)

    def losses(
        self, model: Classifier, output: Output, batch: Batch, joint: Tensor, epoch: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        return joint, unimodal_losses(self.heads, output, batch.label)
