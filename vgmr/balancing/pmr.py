"""PMR: class prototypes judge each modality, pull the slow ones and hold the fast ones back."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from vgmr.balancing.base import Balancing, Loop, check_window
from vgmr.classifier import Classifier, Output
from vgmr.data.types import Batch, MultimodalData, check_whole
from vgmr.fusion.base import check_weights
from vgmr.inference import encode_all
from vgmr.refining.inputs import is_weight


def pull_and_hold(score: Tensor) -> tuple[Tensor, Tensor]:
    """beta_m = clip(max s / s_m - 1, 0, 1) and gamma_m = clip(s_m / min s - 1, 0, 1); each (modalities,).

    For two modalities these are Eqs. (8) to (13) of the paper; for more the generalisation is ours.
    """
    score = score.clamp(min=1e-12)
    return (score.max() / score - 1).clamp(0, 1), (score / score.min() - 1).clamp(0, 1)


def class_means(encodings: Tensor, label: Tensor, previous: Tensor) -> Tensor:
    """Class means (modalities, classes, d) of encodings (modalities, N, d); an unseen class keeps `previous`."""
    count = label.bincount(minlength=previous.shape[1])
    total = torch.zeros_like(previous).index_add_(1, label, encodings)
    mean = total / count.clamp(min=1).view(1, -1, 1)
    return torch.where((count > 0).view(1, -1, 1), mean, previous)


class PMR(Balancing):
    """Prototypical modal rebalance (Fan et al., CVPR 2023).

    Adds alpha beta_m CE(-D_m, y) for slow modalities, D_m being the distances of encodings to class prototypes,
    and in the first epochs takes off mu gamma_m H_m for fast ones. Gradients of both reach the encoder of m, a
    shared encoder included, never a head; with VGMR also the maps of other modalities whose summaries m reads.
    It changes the loss, so AdamW does not cancel it. Defined for every head.

    Args:
        alpha: weight of the prototypical losses.
        entropy_weight: mu.
        entropy_epochs: epochs with the entropy term; by default the first tenth.
        momentum: share of the old prototypes in the new ones, epsilon; as in the official code those before the
            first epoch and after it are not smoothed.
        share: of the training part that gives prototypes, stratified so that every class is seen.
        window: first and last epoch of both terms; by default the whole training.
        temperature: divides the distances; 1 is the paper's, more keeps wide encodings from saturating (ours).
        variant: "paper", or "official": beta is 1 for all but the best modality and there is no entropy term, as
            in the released code.
    """

    regression = False
    least_modalities = 2
    prototypes: Tensor

    def __init__(
        self,
        alpha: float = 1.0,
        entropy_weight: float = 0.01,
        entropy_epochs: int | None = None,
        momentum: float = 0.0,
        share: float = 0.1,
        window: tuple[int, int] | None = None,
        temperature: float = 1.0,
        variant: str = "paper",
    ):
        super().__init__()
        if variant not in ("paper", "official"):
            raise ValueError(f"variant must be 'paper' or 'official', got {variant!r}")
        check_weights(alpha=alpha, entropy_weight=entropy_weight)
        check_whole(entropy_epochs=0 if entropy_epochs is None else entropy_epochs)
        if not (
            all(map(is_weight, (share, momentum, temperature)))
            and 0 < share <= 1
            and momentum < 1
            and temperature > 0
        ):
            raise ValueError(
                f"expected 0 < share <= 1, 0 <= momentum < 1 and temperature > 0, got {share!r}, {momentum!r} and "
                f"{temperature!r}"
            )
        self.alpha, self.entropy_weight, self.entropy_epochs = alpha, entropy_weight, entropy_epochs
        self.momentum, self.share, self.temperature, self.variant = momentum, share, temperature, variant
        self.window = check_window(window)

    def start(self, model: Classifier, data: MultimodalData, epochs: int, seed: int) -> None:
        super().start(model, data, epochs, seed)
        if model.backbone.width is None:
            got = type(model.backbone).__name__
            raise ValueError(f"PMR compares vectors of one width, {got} has several")
        self.hold_epochs = math.ceil(0.1 * epochs) if self.entropy_epochs is None else self.entropy_epochs
        device = data.train.label.device
        shape = (len(self.names), len(data.classes), model.backbone.width)
        self.register_buffer("prototypes", torch.zeros(shape, device=device))
        self.generator = torch.Generator().manual_seed(seed)

    def epoch_start(self, model: Classifier, data: MultimodalData, epoch: int, loop: Loop) -> None:
        rows = self._subset(data.train.label)
        encodings = encode_all(model, data.train.index(rows))
        stacked = torch.stack([encodings[name] for name in self.names])
        self.refresh(stacked, data.train.label[rows], smooth=epoch > 1)

    def refresh(self, encodings: Tensor, label: Tensor, smooth: bool = True) -> None:
        """New prototypes from encodings (modalities, N, d), with a share of the old ones if `smooth`."""
        fresh = class_means(encodings, label, self.prototypes)
        old = self.momentum if smooth else 0.0
        self.prototypes = old * self.prototypes + (1 - old) * fresh

    def _subset(self, label: Tensor) -> Tensor:
        order = torch.randperm(len(label), generator=self.generator).to(label.device)
        kept = [
            rows[: math.ceil(self.share * len(rows))]
            for rows in (order[label[order] == value] for value in label.unique())
        ]
        return torch.cat(kept)

    def losses(
        self, model: Classifier, output: Output, batch: Batch, joint: Tensor, epoch: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        if self.window is not None and not self.window[0] <= epoch <= self.window[1]:
            return joint, {}
        encodings = torch.stack([output.vectors[name] for name in self.names])
        distance = torch.cdist(encodings, self.prototypes, compute_mode="donot_use_mm_for_euclid_dist")
        log_probability = (-distance / self.temperature).log_softmax(2)
        probability = log_probability.exp()
        rows = torch.arange(len(batch), device=batch.label.device)
        pull, hold = pull_and_hold(probability[:, rows, batch.label].sum(1).detach())
        if self.variant == "official":
            pull = (pull > 0).to(pull.dtype)
        self.note({name: value for name, value in zip(self.names, pull, strict=True)})
        hold_weight = self.entropy_weight if epoch < self.hold_epochs and self.variant == "paper" else 0.0
        terms = {}
        for position, name in enumerate(self.names):
            term = self.alpha * pull[position] * F.nll_loss(log_probability[position], batch.label)
            if hold_weight:
                entropy = -(probability[position] * log_probability[position]).sum(1).mean()
                term = term - hold_weight * hold[position] * entropy
            terms[name] = term
        return joint, terms

    def get_extra_state(self) -> Tensor:
        return self.generator.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        self.generator.set_state(state.cpu())
