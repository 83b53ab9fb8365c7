"""OGM-GE: damp the gradient of the leading modalities, then add noise of the gradient's own scale."""

from __future__ import annotations

import torch
from torch import Tensor

from vgmr.balancing.base import Balancing, check_window, split_logits
from vgmr.classifier import Classifier, Output
from vgmr.data.types import Batch, MultimodalData
from vgmr.fusion.base import check_weights


def damping(score: Tensor, alpha: float = 0.3, ratio: str = "pairwise-mean", tie: int | None = None) -> Tensor:
    """kappa_m = 1 - tanh(alpha rho_m) where rho_m > 1, else 1 (Eq. 10); (modalities,) from (modalities,).

    Args:
        score: sum over the batch of the true class's unimodal probability.
        alpha: strength.
        ratio: rho_m = mean over the others of s_m / s_j ("pairwise-mean"), or s_m / the least s ("least").
        tie: position of a modality that is damped where rho is exactly 1.
    """
    if ratio == "pairwise-mean":
        quotient = score.unsqueeze(1) / score.clamp(min=1e-12)
        rho = quotient.fill_diagonal_(0).sum(1) / (len(score) - 1)
    else:
        rho = score / score.min().clamp(min=1e-12)
    leads = rho > 1
    if tie is not None:
        leads = leads | ((rho == 1) & (torch.arange(len(rho), device=rho.device) == tie))
    return torch.where(leads, 1 - torch.tanh(alpha * rho), 1.0)


class OGMGE(Balancing):
    """On-the-fly gradient modulation with generalisation enhancement (Peng et al., CVPR 2022).

    Scores come from the joint logits split by modality. Only the weights of `Classifier.modulable` change: of each
    modality's own layers and pre-fusion maps. A shared encoder, whose gradient mixes the modalities, is left
    alone, as are heads, biases and norms. With VGMR, its own loss terms are part of the gradient that is damped.

    The official sum fusion, one linear layer per modality, is the concatenation head with the same weights side by
    side and the sum of the biases.

    AdamW cancels constant damping; use SGD, or `apply_to="update"`. Under AdamW the noise still acts.

    Args:
        alpha: strength of the damping; the authors use 0.1 to 0.8, and 2.6 with AdamW.
        noise: add N(0, std(gradient)^2) to every weight's gradient, also of modalities that are not damped.
        window: first and last epoch; by default the first half of the training.
        ratio: for three modalities and more, "pairwise-mean" (the author's advice in issue 16) or "least"
            (BalanceBenchmark); the same for two.
        apply_to: "gradient", or "update": scale what the optimiser then does to these weights, ours.
        tie: the modality damped when scores are equal; none in the paper, "audio" in the official code.
    """

    regression = False
    least_modalities = 2
    head = "concat"

    def __init__(
        self,
        alpha: float = 0.3,
        noise: bool = True,
        window: tuple[int, int] | None = None,
        ratio: str = "pairwise-mean",
        apply_to: str = "gradient",
        tie: str | None = None,
    ):
        super().__init__()
        check_weights(alpha=alpha)
        for what, value, choices in (
            ("ratio", ratio, ("pairwise-mean", "least")),
            ("apply_to", apply_to, ("gradient", "update")),
        ):
            if value not in choices:
                raise ValueError(f"{what} must be one of {', '.join(choices)}, got {value!r}")
        self.alpha, self.noise, self.ratio, self.apply_to, self.tie = alpha, noise, ratio, apply_to, tie
        self.window = check_window(window)
        self._before: list[tuple[Tensor, Tensor, Tensor]] = []

    def start(self, model: Classifier, data: MultimodalData, epochs: int, seed: int) -> None:
        super().start(model, data, epochs, seed)
        if self.tie is not None and self.tie not in self.names:
            raise ValueError(f"tie: unknown modality {self.tie!r}; there are {self.names}")
        self._before = []
        self.active = (0, (epochs + 1) // 2 - 1) if self.window is None else self.window
        self.generator = torch.Generator(next(model.parameters()).device).manual_seed(seed)

    @torch.no_grad()
    def modify_gradients(self, model: Classifier, output: Output, batch: Batch, epoch: int) -> None:
        if not self.active[0] <= epoch <= self.active[1]:
            return
        logits = split_logits(model, output.encodings)
        rows = torch.arange(len(batch), device=batch.label.device)
        score = torch.stack([logits[name].softmax(1)[rows, batch.label].sum() for name in self.names])
        tie = None if self.tie is None else self.names.index(self.tie)
        scale = dict(zip(self.names, damping(score, self.alpha, self.ratio, tie), strict=True))
        self.note(scale)
        for name in self.names:
            for weight in model.modulable(name):
                if weight.grad is None:
                    continue
                spread = weight.grad.std() + 1e-8 if self.noise and weight.numel() > 1 else None
                if self.apply_to == "gradient":
                    weight.grad.mul_(scale[name])
                else:
                    self._before.append((weight, weight.clone(), scale[name]))
                if spread is not None:
                    draw = torch.randn(weight.shape, generator=self.generator, device=weight.device)
                    weight.grad.add_(spread * draw)

    @torch.no_grad()
    def after_step(self, model: Classifier, epoch: int) -> None:
        for weight, before, scale in self._before:
            weight.copy_(torch.lerp(before, weight, scale))
        self._before = []

    def get_extra_state(self) -> Tensor:
        return self.generator.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        self.generator.set_state(state.cpu())
