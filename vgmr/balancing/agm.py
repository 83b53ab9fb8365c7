"""AGM: scale the back-propagated signal of each modality's Shapley share of the joint logits."""

from __future__ import annotations

import torch
from torch import Tensor

from vgmr.balancing.base import Balancing, check_window
from vgmr.classifier import Classifier, Output
from vgmr.data.types import Batch, MultimodalData
from vgmr.fusion.base import check_weights, evaluating
from vgmr.inference import shapley_weights, subsets


def discrepancy(score: Tensor) -> Tensor:
    """r_m = exp(mean over the others of s_j, minus s_m); (modalities,) from mean losses in nats."""
    count = len(score)
    return torch.exp(count / (count - 1) * (score.mean() - score))


def signal_scale(score: Tensor, average: Tensor, alpha: float = 1.5, limit: float = 10.0) -> Tensor:
    """kappa_m = exp(alpha min(tau_m - r_m, limit)), tau being the discrepancy of the running averages."""
    return torch.exp(alpha * (discrepancy(average) - discrepancy(score)).clamp(max=limit))


class AGM(Balancing):
    """Adaptive gradient modulation (Li et al., ICCV 2023).

    The joint logits f(M) are split into shares m_m that sum to them, and the gradient that passes through m_m is
    scaled by kappa_m. All parameters see it: branches, a shared encoder, heads, and VGMR in front; VGMR's own
    loss terms are not scaled. Since modalities meet in `fuse` alone, f(S) is the head once more on the encodings
    at hand: absent encodings are dropped, and the shares' dropout is that of the joint pass (common random
    numbers), where the official code zeroes inputs and runs whole ablated passes in evaluation mode. Defined for
    every head.

    Args:
        alpha: strength; the authors use 1.5 to 4.
        limit: c, upper bound of tau - r; 10 on CREMA-D, 7 on UR-Funny.
        clip: where a gradient of the head's weights exceeds this, all are scaled to this norm; None: never. Inside
            the window only, where the official code clips in every epoch.
        window: first and last epoch; by default the whole training. Behind it the scale is 1 again, unlike in the
            released code, which keeps the last one.
    """

    regression = False
    least_modalities = 2
    average: Tensor
    steps: Tensor

    def __init__(
        self,
        alpha: float = 1.5,
        limit: float = 10.0,
        clip: float | None = 1.0,
        window: tuple[int, int] | None = None,
    ):
        super().__init__()
        check_weights(alpha=alpha, limit=limit, clip=1.0 if clip is None else clip)
        if clip == 0:
            raise ValueError("clip must be a positive norm, or None for no clipping, got 0")
        self.alpha, self.limit, self.clip = alpha, limit, clip
        self.window = check_window(window)

    def start(self, model: Classifier, data: MultimodalData, epochs: int, seed: int) -> None:
        super().start(model, data, epochs, seed)
        if self.clip is not None and not any(x.requires_grad and x.ndim >= 2 for x in model.head_parameters()):
            raise ValueError(
                "AGM clips by the gradients of the head's weights, and none of the head of "
                f"{type(model.backbone).__name__} can learn; give clip=None"
            )
        device = next(model.parameters()).device
        self.register_buffer("average", torch.zeros(len(self.names), device=device))
        self.register_buffer("steps", torch.zeros((), device=device))
        self.weights = shapley_weights(self.names).to(device)

    def shares(self, model: Classifier, output: Output) -> Tensor:
        """m_m, (modalities, B, classes), with gradients; their sum is the joint logits."""
        with evaluating(model.backbone):
            ablated = model.backbone.fuse_many(output.encodings, subsets(self.names)[:-1], output.mask)
        return torch.einsum("sm,sbc->mbc", self.weights, torch.stack([*ablated, output.logits]))

    def scale(self, shares: Tensor, label: Tensor) -> Tensor:
        """kappa (modalities,) of this step; then moves the running averages on."""
        score = -shares.softmax(2)[:, torch.arange(len(label), device=label.device), label].clamp(min=1e-8).log()
        score = score.mean(1)
        kappa = signal_scale(score, self.average, self.alpha, self.limit)
        self.steps += 1
        self.average += (score - self.average) / self.steps
        return kappa

    def losses(
        self, model: Classifier, output: Output, batch: Batch, joint: Tensor, epoch: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        active = self._active(epoch)
        with torch.set_grad_enabled(active):
            shares = self.shares(model, output)
        with torch.no_grad():
            kappa = self.scale(shares, batch.label)
            signal = output.logits.softmax(1)
            signal[torch.arange(len(batch), device=batch.label.device), batch.label] -= 1
            signal /= len(batch)
        if not active:
            return joint, {}
        self.note(dict(zip(self.names, kappa, strict=True)))
        # worth nothing, but its gradient is that of sum_m kappa_m m_m in place of sum_m m_m behind `signal`
        extra = (shares * signal).sum((1, 2)) @ (kappa - 1)
        return joint + (extra - extra.detach()), {}

    @torch.no_grad()
    def modify_gradients(self, model: Classifier, output: Output, batch: Batch, epoch: int) -> None:
        if self.clip is None or not self._active(epoch):
            return
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        peak = torch.stack(
            [
                parameter.grad.abs().max()
                for parameter in model.head_parameters()
                if parameter.ndim >= 2 and parameter.grad is not None
            ]
        ).max()
        norm = torch.nn.utils.get_total_norm(gradients)
        factor = torch.where(peak > self.clip, (self.clip / (norm + 1e-6)).clamp(max=1.0), 1.0)
        for gradient in gradients:
            gradient.mul_(factor)

    def _active(self, epoch: int) -> bool:
        return self.window is None or self.window[0] <= epoch <= self.window[1]
