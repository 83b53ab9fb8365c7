"""MMIM: losses that raise bounds of the information between modality vectors, and with the fusion result."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgmr.balancing.base import Balancing, Loop, fused_sample
from vgmr.classifier import Classifier, Output
from vgmr.data.types import Batch, MultimodalData
from vgmr.fusion.base import check_weights, evaluating

LOWEST = -4.0  # log-variance: without a floor encoders shrink their vectors, and the likelihood grows for ever


class GaussianBound(nn.Module):
    """Barber and Agakov's lower bound: log-likelihood of y under a diagonal Gaussian predicted from x.

    Its log-variance s is at least `LOWEST`, which is ours.
    """

    def __init__(self, x_dim: int, y_dim: int):
        super().__init__()
        self.mean = nn.Sequential(nn.Linear(x_dim, y_dim), nn.ReLU(), nn.Linear(y_dim, y_dim))
        self.log_variance = nn.Sequential(nn.Linear(x_dim, y_dim), nn.ReLU(), nn.Linear(y_dim, y_dim))
        self.narrow = nn.Linear(y_dim, max(1, y_dim // 4))

    def log_likelihood(self, x: Tensor, y: Tensor, official: bool = False) -> Tensor:
        """Mean over samples of sum_k [-(mu - y)^2 / (2 e^s) - s / 2] without constants; a scalar, in nats.

        Args:
            x, y: vectors, (B, x_dim) and (B, y_dim).
            official: without the term s / 2, as in the released code, which drives the variance to infinity.
        """
        s = self.log_variance(x).clamp_min(LOWEST)
        terms = -((self.mean(x) - y) ** 2) / (2 * s.exp())
        result: Tensor = (terms if official else terms - s / 2).sum(1).mean()
        return result


def class_entropy(vectors: Tensor, group: Tensor, num_groups: int) -> Tensor:
    """Mean over groups of half the log-determinant of the covariance of vectors (N, w); a scalar, in nats.

    Groups with no more than w samples, or whose vectors do not vary in every direction, are left out; a little is
    added to the diagonal for more than two groups.
    """
    found = []
    for value in range(num_groups):
        rows = vectors[group == value]
        if len(rows) <= vectors.shape[1]:
            continue
        centred = rows - rows.mean(0)
        covariance = centred.T @ centred / len(rows)
        if num_groups > 2:
            covariance = covariance + 1e-4 * torch.eye(vectors.shape[1], device=rows.device, dtype=rows.dtype)
        half = 0.5 * torch.logdet(covariance)
        if torch.isfinite(half):
            found.append(half)
    return torch.stack(found).mean() if found else vectors.new_zeros(())


def noise_contrast(fused: Tensor, vector: Tensor) -> Tensor:
    """-mean_b [k_b . q_b - log sum_j exp(k_b . q_j)] of unit vectors (B, w); a scalar, in nats."""
    products = F.normalize(vector, dim=1) @ F.normalize(fused, dim=1).T
    return -(products.diagonal() - products.logsumexp(1)).mean()


def entropy_groups(label: Tensor) -> Tensor:
    """Classes as they are; scores by sign, 0 negative and 1 positive, and -1 for 0, which is in no group; (B,)."""
    if not label.is_floating_point():
        return label
    return torch.where(label == 0, -1, (label > 0).long())


class MMIM(Balancing):
    """Hierarchical mutual-information maximisation (Han, Chen and Poria, EMNLP 2021).

    Stage A of each epoch teaches the Gaussian predictors of one modality's vector from another's, with encoders
    held. Stage B adds to the joint loss alpha sum_m NCE_m - beta (sum of log-likelihoods + H), whose gradients
    reach the encoders, and VGMR in front, but not the predictors. H, from the third batch on, is the entropy by
    class, in regression by sign, of a fixed random projection, over this batch and the last. For more than two
    classes it is our generalisation. Needs vectors of one width and a backbone with `fused`. Stage A reads vectors
    in evaluation mode, so that it moves no running statistics.

    Args:
        contrast_weight, likelihood_weight: alpha and beta.
        anchor: pairs are (anchor, other); None: all pairs.
        learning_rate: of the predictors, by Adam with weight decay 1e-4.
        variant: "corrected", or "official" without the log-variance term of the likelihood.
    """

    least_modalities = 2
    bounds: nn.ModuleDict
    project: nn.ModuleDict

    def __init__(
        self,
        contrast_weight: float = 0.1,
        likelihood_weight: float = 0.1,
        anchor: str | None = None,
        learning_rate: float = 1e-3,
        variant: str = "corrected",
    ):
        super().__init__()
        if variant not in ("corrected", "official"):
            raise ValueError(f"variant must be 'corrected' or 'official', got {variant!r}")
        check_weights(contrast_weight=contrast_weight, likelihood_weight=likelihood_weight)
        check_weights(learning_rate=learning_rate)
        self.contrast_weight, self.likelihood_weight = contrast_weight, likelihood_weight
        self.anchor, self.learning_rate, self.variant = anchor, learning_rate, variant

    def start(self, model: Classifier, data: MultimodalData, epochs: int, seed: int) -> None:
        super().start(model, data, epochs, seed)
        width, kind = model.backbone.width, type(model.backbone).__name__
        if width is None:
            raise ValueError(f"MMIM compares vectors of one width, and those of {kind} differ")
        if self.anchor is not None and self.anchor not in self.names:
            raise ValueError(f"anchor: unknown modality {self.anchor!r}; there are {self.names}")
        fused = fused_sample(model, data, "MMIM")
        device = fused.device
        pairs = combinations(self.names, 2)
        if self.anchor is not None:
            pairs = ((self.anchor, name) for name in self.names if name != self.anchor)  # type: ignore[assignment]
        self.pairs = list(pairs)
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            self.bounds = nn.ModuleDict({f"{x}+{y}": GaussianBound(width, width) for x, y in self.pairs}).to(
                device
            )
            self.project = nn.ModuleDict({name: nn.Linear(fused.shape[1], width) for name in self.names}).to(
                device
            )
        self.bounds.requires_grad_(False)  # learn in stage A alone; `narrow` never does, as in the released code
        self.predictors = [p for name, p in self.bounds.named_parameters() if ".narrow." not in name]
        self.own = torch.optim.Adam(self.predictors, self.learning_rate, weight_decay=1e-4)
        self.seed, self.num_groups, self.seen = seed, len(data.classes) or 2, 0
        self.memory: dict[str, Any] = {}

    def epoch_start(self, model: Classifier, data: MultimodalData, epoch: int, loop: Loop) -> None:
        generator = torch.Generator().manual_seed(self.seed + epoch)
        order = torch.randperm(len(data.train), generator=generator).to(data.train.label.device)
        for parameter in self.predictors:
            parameter.requires_grad_(True)
        device = data.train.label.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            for rows in order.split(64):
                batch = data.train.index(rows)
                with torch.no_grad(), evaluating(model):
                    vectors = model(batch.features, batch.mask).vectors
                self.own.zero_grad(set_to_none=True)
                (-self._likelihood(vectors)).backward()
                self.own.step()
        for parameter in self.predictors:
            parameter.requires_grad_(False)
            parameter.grad = None
        self.seen, self.memory = 0, {}

    def _bound(self, x: str, y: str) -> GaussianBound:
        found = self.bounds[f"{x}+{y}"]
        assert isinstance(found, GaussianBound)
        return found

    def _likelihood(self, vectors: Mapping[str, Tensor]) -> Tensor:
        official = self.variant == "official"
        terms = [self._bound(x, y).log_likelihood(vectors[x], vectors[y], official) for x, y in self.pairs]
        return torch.stack(terms).sum()

    def losses(
        self, model: Classifier, output: Output, batch: Batch, joint: Tensor, epoch: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        assert output.fused is not None
        near = torch.stack(
            [noise_contrast(self.project[name](output.fused), output.vectors[name]) for name in self.names]
        ).sum()
        information = self._likelihood(output.vectors)
        groups = entropy_groups(batch.label)
        for x, y in self.pairs:
            narrow = torch.tanh(self._bound(x, y).narrow(output.vectors[y]))
            if self.seen >= 2:
                older, before = self.memory[f"{x}+{y}"]
                both = torch.cat([narrow, older]), torch.cat([groups, before])
                information = information + class_entropy(*both, self.num_groups)
            self.memory[f"{x}+{y}"] = narrow.detach(), groups
        self.seen += 1
        self.note({"contrast": near, "information": information})
        return joint + self.contrast_weight * near - self.likelihood_weight * information, {}
