"""ARL: give each encoder the more gradient the surer it is and the less it dominates, and add unimodal losses."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vgmr.balancing.base import Balancing, check_learning, split_logits
from vgmr.classifier import Classifier, Output
from vgmr.data.types import Batch, MultimodalData
from vgmr.fusion.base import check_weights


def dependence_weights(magnitude: Tensor, entropy: Tensor, temperature: float = 8.0) -> Tensor:
    """w = softmax_m(temperature (1 - d_m) e_m), (modalities,), summing to 1.

    d_m is the share in the logits' magnitude; e_m the normalised inverse of the share in entropy, which is
    kept above 0.6 / K. At K = 2 this is the official formula; for more modalities the generalisation is ours.

    Args:
        magnitude: sum over classes of the mean absolute unimodal logit, (modalities,).
        entropy: mean entropy of the unimodal predictions, (modalities,), in nats.
    """
    dependence = magnitude / (magnitude.sum() + 1e-8)
    spread = (entropy / (entropy.sum() + 1e-8)).clamp(min=0.6 / len(entropy))
    sureness = (1 / spread) / (1 / spread).sum()
    return (temperature * (1 - dependence) * sureness).softmax(0)


class ARL(Balancing):
    """Asymmetric representation learning (Wei et al., ICCV 2025).

    Unimodal logits are those of the joint head on one modality, with gradients into head and encoder. Up to
    epoch `start_epoch` the loss is L + sum L_m. Then it is L + gamma sum L_m, and whatever gradient arrives at
    the encoding of m is multiplied by 1 + (K / 2) w_m on its way to all before: branch, shared encoder, VGMR.
    Heads are not scaled, nor are VGMR's own loss terms. AdamW cancels constant scaling, not gamma. Needs the
    concatenation head.

    Args:
        unimodal_weight: gamma.
        temperature: T of the weights.
        start_epoch: last epoch without scaling.
        variant: "paper", or "released": the published code computes w and uses 1/2 for all (1 / K here).
        clip: largest norm of all gradients of the model.
        lag: 0 scales a batch by its own factors, 1 by those of the batch before, as the released class would once
            its weights were assigned; the first batch after `start_epoch` is then not scaled.
    """

    regression = False
    least_modalities = 2
    head = "concat"
    previous: Tensor

    def __init__(
        self,
        unimodal_weight: float = 4.0,
        temperature: float = 8.0,
        start_epoch: int = 5,
        variant: str = "paper",
        clip: float = 40.0,
        lag: int = 0,
    ):
        super().__init__()
        if variant not in ("paper", "released"):
            raise ValueError(f"variant must be 'paper' or 'released', got {variant!r}")
        check_weights(unimodal_weight=unimodal_weight, temperature=temperature, clip=clip)
        if clip == 0:
            raise ValueError("clip must be a positive norm, got 0")
        if not hasattr(start_epoch, "__index__"):
            raise ValueError(f"start_epoch must be a whole number, got {start_epoch!r}")
        self.unimodal_weight, self.temperature, self.start_epoch = unimodal_weight, temperature, start_epoch
        if lag not in (0, 1):
            raise ValueError(f"lag must be 0 or 1 batches, got {lag!r}")
        self.variant, self.clip, self.lag = variant, clip, lag

    def start(self, model: Classifier, data: MultimodalData, epochs: int, seed: int) -> None:
        super().start(model, data, epochs, seed)
        self.register_buffer("previous", torch.ones(len(self.names), device=data.train.label.device))

    @torch.no_grad()
    def factors(self, logits: Tensor) -> Tensor:
        """1 + (K / 2) w_m, (modalities,), from unimodal logits (modalities, B, classes)."""
        count = len(logits)
        if self.variant == "released":
            return torch.full((count,), 1.5, device=logits.device)
        log_probability = logits.log_softmax(2)
        entropy = -(log_probability.exp() * log_probability).sum(2).mean(1)
        weights = dependence_weights(logits.abs().mean(1).sum(1), entropy, self.temperature)
        return 1 + count / 2 * weights

    def losses(
        self, model: Classifier, output: Output, batch: Batch, joint: Tensor, epoch: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        check_learning("ARL scales gradients", output)
        logits = split_logits(model, output.encodings, full_bias=True)
        terms = {name: F.cross_entropy(logits[name], batch.label) for name in self.names}
        if epoch <= self.start_epoch:
            return joint, terms
        factors = self.factors(torch.stack([logits[name] for name in self.names]))
        if self.lag:
            factors, self.previous = self.previous, factors
        self.note(dict(zip(self.names, factors, strict=True)))
        for name, factor in zip(self.names, factors, strict=True):
            output.encodings[name].register_hook(lambda gradient, factor=factor: factor * gradient)
        return joint, {name: self.unimodal_weight * term for name, term in terms.items()}

    def modify_gradients(self, model: Classifier, output: Output, batch: Batch, epoch: int) -> None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), self.clip)
