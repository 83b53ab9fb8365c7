"""ConfSMoE: experts weighed by how surely they name the class (Zheng et al., 2025), repaired, without imputation.

In the released code experts process the vectors of other tokens, samples of a batch see each other, the layer
forgets its input and the confidence has no target of its own, so results of it and of this differ.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgmr.fusion.attention import bias_of
from vgmr.fusion.base import Backbone, check_heads, check_sizes, check_weights
from vgmr.fusion.crossmodal import Attention
from vgmr.refining.inputs import check_dims, check_inputs, check_like
from vgmr.refining.maps import masked_mean
from vgmr.refining.refinement import Refinement

ROUTERS = ("frozen", "softmax")
VARIANTS = ("corrected", "official")


class _Confidence(nn.Module):
    """sigmoid(v LN(e) + b): (..., width) to (...)."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.linear(self.norm(x))).squeeze(-1)


class Routed(NamedTuple):
    """Of tokens: output (..., width), confidence and chosen (..., E), what experts say (..., E, width)."""

    output: Tensor
    confidence: Tensor
    chosen: Tensor
    expert: Tensor


class ExpertMixture(nn.Module):
    """o = sum over the chosen experts j of c_j e_j(y), c_j the confidence of the expert in what it says.

    Every expert is computed at every token, and those that the router did not choose are left out.

    Args:
        width: of the tokens.
        num_experts, top_k: how many there are, and how many are chosen for each token.
        num_outputs: classes that the experts are asked to name.
        router: "frozen" is a fixed random map, as the released router gets no gradient; "softmax" (ours) learns,
            and weighs the chosen experts by its softmax too. In training both see noise.

    Raises:
        ValueError: more to choose than there are, or an unknown router.
    """

    route: Tensor
    noise: Tensor

    def __init__(self, width: int, num_experts: int, top_k: int, num_outputs: int, router: str = "frozen"):
        super().__init__()
        if not 1 <= top_k <= num_experts:
            raise ValueError(f"top_k must be 1 to {num_experts}, the number of experts, got {top_k}")
        if router not in ROUTERS:
            raise ValueError(f"router must be one of {', '.join(ROUTERS)}, got {router!r}")
        self.top_k, self.router = top_k, router
        self.experts = nn.ModuleList(
            [
                nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
                for _ in range(num_experts)
            ]
        )
        self.confidence = nn.ModuleList([_Confidence(width) for _ in range(num_experts)])
        self.name_class = nn.Linear(width, num_outputs)
        for name in ("route", "noise"):
            drawn = torch.empty(width, num_experts)
            nn.init.kaiming_uniform_(drawn, a=5**0.5)
            if router == "frozen":
                self.register_buffer(name, drawn)
            else:
                self.register_parameter(name, nn.Parameter(drawn))

    def forward(self, y: Tensor) -> Routed:
        """Tokens (..., width)."""
        score = y @ self.route
        if self.training:
            spread = F.softplus(y @ self.noise) + 0.01
            score = score + torch.randn_like(score) * spread
        chosen = torch.zeros_like(score, dtype=torch.bool)
        chosen = chosen.scatter(-1, score.topk(self.top_k, -1).indices, True)
        expert = torch.stack([one(y) for one in self.experts], -2)
        said = expert.unbind(-2)
        sure = torch.stack([of(e) for of, e in zip(self.confidence, said, strict=True)], -1)
        weight = sure * chosen
        if self.router == "softmax":
            weight = weight * score.masked_fill(~chosen, -torch.inf).softmax(-1)
        return Routed((weight.unsqueeze(-1) * expert).sum(-2), sure, chosen, expert)

    def loss(self, routed: Routed, label: Tensor, real: Tensor, variant: str = "corrected") -> Tensor:
        """Mean of (c_j - pi_j)^2 over real tokens and chosen experts; pi_j is the probability of the true class.

        "corrected" (ours) adds the cross-entropy of pi on experts that it does not train, and takes pi as given in
        the square; in "official" the square trains both, which any agreement minimises.

        Args:
            label: (B,) int64; tokens are (B, N, width).
            real: (B, N) bool.
        """
        given = routed.expert if variant == "official" else routed.expert.detach()
        log = F.log_softmax(self.name_class(given), -1)
        log = log.gather(-1, label.view(-1, 1, 1, 1).expand(*log.shape[:3], 1)).squeeze(-1)
        if variant == "official":
            each = (routed.confidence - log.exp()) ** 2
        else:
            each = (routed.confidence - log.detach().exp()) ** 2 - log
        where = routed.chosen & real.unsqueeze(-1)
        return (each * where).sum() / where.sum()


class ConfidenceExperts(Backbone):
    """One layer of attention over the tokens of all modalities, then experts weighed by their confidence.

    Encodings are projected sequences, (B, T_m, width). Tokens of an absent modality are not there, and its slot is
    zero. With one output there are no classes to name, so the confidence is trained by the task alone.

    Args:
        dims: feature dimension by modality name.
        num_outputs: classes, or 1 for regression.
        max_length: longest sequence that will come.
        width, num_heads: of the layer.
        num_experts, top_k, router: see `ExpertMixture`.
        variant: of the confidence's loss, see `ExpertMixture.loss`.
        confidence_weight: of that loss.
        dropout: on the attention and on its result.

    Raises:
        ValueError: an unknown variant; what `ExpertMixture` refuses; in use, a sequence that is too long.
    """

    def __init__(
        self,
        dims: Mapping[str, int],
        num_outputs: int,
        max_length: int = 50,
        width: int = 32,
        num_heads: int = 4,
        num_experts: int = 4,
        top_k: int = 2,
        router: str = "frozen",
        variant: str = "corrected",
        confidence_weight: float = 1.0,
        dropout: float = 0.1,
    ):
        check_sizes("ConfidenceExperts", max_length=max_length, num_experts=num_experts, top_k=top_k)
        check_heads("ConfidenceExperts", width, num_heads)
        check_weights("ConfidenceExperts", confidence_weight=confidence_weight)
        super().__init__(dims, num_outputs, width)
        if variant not in VARIANTS:
            raise ValueError(f"variant must be one of {', '.join(VARIANTS)}, got {variant!r}")
        self.variant, self.confidence_weight, self.max_length = variant, confidence_weight, max_length
        self.project = nn.ModuleDict({name: nn.Linear(dim, width) for name, dim in self.dims.items()})
        self.position = nn.ParameterDict(
            {name: nn.Parameter(torch.zeros(max_length, width)) for name in self.names}
        )
        self.norm_attention = nn.LayerNorm(width)
        self.attention = Attention(width, num_heads, dropout)
        self.dropout = nn.Dropout(dropout)
        self.norm_experts = nn.LayerNorm(width)
        self.experts = ExpertMixture(width, num_experts, top_k, num_outputs, router)
        self.norm_output = nn.LayerNorm(width)
        self.join = nn.Linear(len(self.dims) * width, width)
        self.norm_join = nn.LayerNorm(width)
        self.output = nn.Linear(width, num_outputs)

    def encode_one(self, name: str, x: Tensor, mask: Tensor | None) -> Tensor:
        """The projected sequence: (B, T_m, d_m) to (B, T_m, width)."""
        if x.shape[1] > self.max_length:
            raise ValueError(f"{name}: {x.shape[1]} time steps, but max_length is {self.max_length}")
        projected: Tensor = self.project[name](x)
        return projected

    def tokens(
        self, encodings: Mapping[str, Tensor], present: Collection[str], mask: Mapping[str, Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        """What attention makes of the steps of those present, (B, N, width), and which are real, (B, N)."""
        placed = [encodings[name] + self.position[name][: encodings[name].shape[1]] for name in present]
        real = [
            torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if mask is None else mask[name]
            for name, x in zip(present, placed, strict=True)
        ]
        joined, there = torch.cat(placed, 1), torch.cat(real, 1)
        normed = self.norm_attention(joined)
        bias = bias_of(None if mask is None else there[:, None, None, :], normed)
        attended = self.attention.attend(normed, *self.attention.project_source(normed), bias)
        return joined + self.dropout(attended), there

    def fused(
        self,
        encodings: Mapping[str, Tensor],
        keep: Collection[str] | None = None,
        mask: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """What the last linear layer reads, (B, width)."""
        present = self.present(keep)
        first = encodings[self.names[0]]
        slots = dict.fromkeys(self.names, first.new_zeros(first.shape[0], self.output.in_features))
        if present:
            tokens, real = self.tokens(encodings, present, mask)
            tokens = self.norm_output(tokens + self.experts(self.norm_experts(tokens)).output)
            lengths = [encodings[name].shape[1] for name in present]
            parts = zip(present, tokens.split(lengths, 1), real.split(lengths, 1), strict=True)
            slots |= {name: masked_mean(steps, None if mask is None else there) for name, steps, there in parts}
        fused: Tensor = self.norm_join(self.join(torch.cat([slots[name] for name in self.names], 1)))
        return fused

    def classify(self, fused: Tensor) -> Tensor:
        """The last linear layer: (B, width) to (B, num_outputs)."""
        outputs: Tensor = self.output(fused)
        return outputs

    def auxiliary_loss(
        self, encodings: Mapping[str, Tensor], mask: Mapping[str, Tensor] | None, label: Tensor
    ) -> dict[str, Tensor]:
        """The confidence's loss, with all modalities present; a second pass through the layer."""
        if self.num_outputs == 1:
            return {}
        tokens, real = self.tokens(encodings, self.names, mask)
        routed = self.experts(self.norm_experts(tokens))
        return {"confidence": self.confidence_weight * self.experts.loss(routed, label, real, self.variant)}


class ConfidenceGate(nn.Module):
    """In VGMR's place (ours): scale a modality by how surely it alone names the class, one number per sample.

    Its own loss trains that number towards the probability that a linear probe of the modality gives to the true
    class, and the probe by cross-entropy. The contrast to VGMR: no modality sees another.

    Args:
        dims: feature dimension by modality name.
        num_classes: that the probes name.
    """

    def __init__(self, dims: Mapping[str, int], num_classes: int):
        super().__init__()
        self.dims = check_dims(dims)
        check_sizes("ConfidenceGate", num_classes=num_classes)
        self.confidence = nn.ModuleDict({name: _Confidence(dim) for name, dim in self.dims.items()})
        self.probe = nn.ModuleDict({name: nn.Linear(dim, num_classes) for name, dim in self.dims.items()})

    def forward(self, features: Mapping[str, Tensor], mask: Mapping[str, Tensor] | None = None) -> Refinement:
        """name -> (B, T_m, d_m), from the same shapes; padding stays zero."""
        checked, masks = check_inputs(self.dims, features, mask)
        check_like(self, checked)
        found, scaled = {}, {}
        for name, x in checked.items():
            mean = masked_mean(x, masks[name])
            sure = self.confidence[name](mean)
            found[name] = torch.cat([sure.unsqueeze(1), self.probe[name](mean.detach())], 1)
            scaled[name] = sure.view(-1, 1, 1) * x
        return Refinement(scaled, auxiliary=found)

    def auxiliary_loss(self, refinement: Refinement, label: Tensor) -> dict[str, Tensor]:
        """Sum over modalities of (c - p)^2 and of the probe's cross-entropy, p taken as given.

        Raises:
            ValueError: labels that are real numbers.
        """
        if label.is_floating_point():
            raise ValueError(f"the confidence gate names classes: expected int64 labels, got {label.dtype}")
        total = label.new_zeros((), dtype=torch.float32)
        for found in refinement.auxiliary.values():
            sure, answer = found[:, 0], found[:, 1:]
            log = F.log_softmax(answer, 1).gather(1, label.unsqueeze(1)).squeeze(1)
            total = total + ((sure - log.detach().exp()) ** 2 - log).mean()
        return {"confidence": total}
