"""MAG (Rahman et al., 2020): the other modalities shift an anchor's steps, by no more than their own length."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from vgmr.fusion.base import Backbone, check_heads, check_sizes, check_weights, find_anchor
from vgmr.refining.inputs import check_dims, check_inputs, check_like
from vgmr.refining.maps import masked_mean
from vgmr.refining.refinement import Refinement


def check_aligned(anchor: str, lengths: Mapping[str, int]) -> None:
    """ValueError where another modality has not as many steps as the anchor."""
    for name, length in lengths.items():
        if length != lengths[anchor]:
            raise ValueError(f"MAG needs aligned steps: {anchor} has {lengths[anchor]}, {name} has {length}")


class AdaptationGate(nn.Module):
    """Z' = LN(Z + alpha H), H = sum_n relu(W_gn [x_n; Z]) W_n x_n, alpha = min(1, beta |Z| / |H|), per step.

    Args:
        dim: of the anchor's steps.
        others: feature dimension of the other modalities.
        strength: beta.
        dropout: after the norm.
    """

    def __init__(self, dim: int, others: Mapping[str, int], strength: float = 1.0, dropout: float = 0.5):
        super().__init__()
        self.gate = nn.ModuleDict({name: nn.Linear(width + dim, dim) for name, width in others.items()})
        self.value = nn.ModuleDict({name: nn.Linear(width, dim) for name, width in others.items()})
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)
        self.strength = strength

    def displacement(
        self, anchor: Tensor, others: Mapping[str, Tensor], mask: Mapping[str, Tensor] | None
    ) -> Tensor:
        """alpha H, (B, T, dim), at most `strength` times as long as the anchor's step."""
        total = torch.zeros_like(anchor)
        for name, x in others.items():
            term = self.gate[name](torch.cat([x, anchor], 2)).relu() * self.value[name](x)
            total = total + (term if mask is None else term * mask[name].unsqueeze(2))
        length = total.norm(dim=2, keepdim=True)
        limit = self.strength * anchor.norm(dim=2, keepdim=True) / (torch.where(length > 0, length, 1.0) + 1e-6)
        return limit.clamp(max=1.0) * total

    def forward(
        self, anchor: Tensor, others: Mapping[str, Tensor], mask: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """(B, T, dim) and name -> (B, T, d_n), any subset of names, to (B, T, dim).

        A term is left out at steps that its own mask excludes; without any other modality the result is LN(Z).
        """
        shifted: Tensor = self.dropout(self.norm(anchor + self.displacement(anchor, others, mask)))
        return shifted


class MAG(Backbone):
    """Multimodal adaptation gate in front of a small Transformer over the anchor (after Rahman et al., ACL 2020).

    The original stands inside BERT; the projection to `width` and the encoder behind are ours. Without the anchor
    the answer is a constant, so the anchor's contribution is "model against prior". All steps must be aligned.

    Args:
        dims: feature dimension by modality name: the anchor and at least one other.
        num_outputs: classes, or 1 for regression.
        anchor: name of the anchor; "text" by default.
        width: of the anchor's steps.
        strength: beta, the longest shift in lengths of the anchor's step.
        num_layers, num_heads, feedforward_dim, max_length: of the pre-norm Transformer with learned positions.
        gate_dropout: after the gate.
        dropout: in the Transformer.

    Raises:
        ValueError: no anchor, nothing beside it; in use, steps that are not aligned.
    """

    def __init__(
        self,
        dims: Mapping[str, int],
        num_outputs: int,
        anchor: str | None = None,
        width: int = 32,
        strength: float = 1.0,
        num_layers: int = 2,
        num_heads: int = 4,
        feedforward_dim: int = 64,
        max_length: int = 50,
        gate_dropout: float = 0.5,
        dropout: float = 0.1,
    ):
        check_sizes("MAG", num_layers=num_layers, feedforward_dim=feedforward_dim, max_length=max_length)
        check_heads("MAG", width, num_heads)
        check_weights("MAG", strength=strength)
        super().__init__(dims, num_outputs, width)
        self.anchor = find_anchor(self.dims, anchor, "MAG")
        self.others = {name: dim for name, dim in self.dims.items() if name != self.anchor}
        self.project = nn.Linear(self.dims[self.anchor], width)
        self.gate = AdaptationGate(width, self.others, strength, gate_dropout)
        self.position = nn.Parameter(0.02 * torch.randn(max_length, width))
        layer = nn.TransformerEncoderLayer(
            width, num_heads, feedforward_dim, dropout, batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, num_layers, enable_nested_tensor=False)
        self.output = nn.Linear(width, num_outputs)

    def encode_one(self, name: str, x: Tensor, mask: Tensor | None) -> Tensor:
        """The anchor projected to (B, T, width); the others as they came."""
        if x.shape[1] > len(self.position):
            raise ValueError(f"{name}: {x.shape[1]} time steps, but max_length is {len(self.position)}")
        return self.project(x) if name == self.anchor else x

    def vectors(
        self, encodings: Mapping[str, Tensor], mask: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Masked means of the anchor's steps and of W_n x_n, name -> (B, width)."""
        means = {name: masked_mean(x, None if mask is None else mask[name]) for name, x in encodings.items()}
        return {name: x if name == self.anchor else self.gate.value[name](x) for name, x in means.items()}

    def fuse(
        self,
        encodings: Mapping[str, Tensor],
        keep: Collection[str] | None = None,
        mask: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Shift the anchor, encode, average, classify; without the anchor one step of zeros stands for it."""
        present = self.present(keep)
        anchor = encodings[self.anchor]
        check_aligned(self.anchor, {name: x.shape[1] for name, x in encodings.items()})
        if self.anchor in present:
            real = None if mask is None else mask[self.anchor]
            others = {name: encodings[name] for name in present if name != self.anchor}
            shifted = self.gate(anchor, others, mask)
        else:
            real, shifted = None, self.gate(torch.zeros_like(anchor[:, :1]), {})
        tokens = shifted + self.position[: shifted.shape[1]]
        states = self.encoder(tokens, src_key_padding_mask=None if real is None else ~real)
        outputs: Tensor = self.output(masked_mean(states, real))
        return outputs

    def branch_modules(self, name: str) -> list[nn.Module]:
        """The anchor's projection, or the two maps of another modality."""
        return [self.project] if name == self.anchor else [self.gate.gate[name], self.gate.value[name]]


class AnchorShift(nn.Module):
    """MAG in VGMR's place: shifts the anchor's raw features and leaves the other modalities as they are.

    Args:
        dims: feature dimension by modality name: the anchor and at least one other.
        anchor: name of the anchor; "text" by default.
        strength: beta.
        dropout: after the gate.
    """

    def __init__(
        self, dims: Mapping[str, int], anchor: str | None = None, strength: float = 1.0, dropout: float = 0.1
    ):
        super().__init__()
        self.dims = check_dims(dims)
        self.anchor = find_anchor(self.dims, anchor, "MAG")
        check_weights("AnchorShift", strength=strength)
        others = {name: dim for name, dim in self.dims.items() if name != self.anchor}
        self.gate = AdaptationGate(self.dims[self.anchor], others, strength, dropout)

    def forward(self, features: Mapping[str, Tensor], mask: Mapping[str, Tensor] | None = None) -> Refinement:
        """name -> (B, T, d_m), from the same shapes; ValueError where steps are not aligned."""
        checked, masks = check_inputs(self.dims, features, mask)
        check_like(self, checked)
        check_aligned(self.anchor, {name: x.shape[1] for name, x in checked.items()})
        others = {name: x for name, x in checked.items() if name != self.anchor}
        shifted = self.gate(checked[self.anchor], others, mask)
        real = masks[self.anchor]
        return Refinement(checked | {self.anchor: shifted if real is None else shifted * real.unsqueeze(2)})
