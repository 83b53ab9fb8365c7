"""MAG (Rahman et al., 2020): the other modalities shift an anchor's steps, by no more than their own length."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from vgmr.fusion.base import Backbone, check_heads, check_sizes, check_weights, find_anchor
from vgmr.refining.inputs import check_dims, check_inputs, check_like
from vgmr.refining.maps import masked_mean
from vgmr.refining.refinement import Refinement


def resampled(
    x: Tensor, mask: Tensor | None, like: Tensor, like_mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Means of the N real steps of `x` in as many bins as `like` has real steps, L, and where there is a mean.

    Bin t holds the steps from floor(t N / L) to ceil((t + 1) N / L), so that none is empty: neighbours share a
    step where N / L is no whole number, and one step serves several bins where N < L.

    Args:
        x: (B, T_x, d).
        mask: (B, T_x) bool, or None where all steps are real.
        like, like_mask: the same of the sequence to be aligned with, (B, T, ...) and (B, T).

    Returns:
        (B, T, d), zero where `like` is padded or `x` has no step, and (B, T) bool, False there.
    """
    source = x.new_ones(x.shape[:2], dtype=torch.bool) if mask is None else mask
    target = x.new_ones(like.shape[:2], dtype=torch.bool) if like_mask is None else like_mask
    count, bins = source.sum(1, keepdim=True), target.sum(1, keepdim=True).clamp(min=1)
    place = target.cumsum(1)
    start, end = (place - 1) * count // bins, (place * count + bins - 1) // bins
    step = (source.cumsum(1) - 1).unsqueeze(1)
    inside = (step >= start.unsqueeze(2)) & (step < end.unsqueeze(2)) & source.unsqueeze(1) & target.unsqueeze(2)
    share, x = inside.to(x.dtype), x if mask is None else x.masked_fill(~mask.unsqueeze(2), 0.0)
    return share @ x / share.sum(2, keepdim=True).clamp(min=1), inside.any(2)


def check_aligned(anchor: str, sequences: Mapping[str, Tensor], resample: str | None) -> None:
    """ValueError where, without `resample`, another modality has not as many steps as the anchor."""
    steps = {name: x.shape[1] for name, x in sequences.items()}
    for name, count in steps.items():
        if resample is None and count != steps[anchor]:
            raise ValueError(
                f"MAG needs aligned steps: {anchor} has {steps[anchor]}, {name} has {count}; "
                'align them, or give resample="mean"'
            )


def beside_anchor(
    anchor: str, sequences: Mapping[str, Tensor], mask: Mapping[str, Tensor] | None, resample: str | None
) -> tuple[dict[str, Tensor], Mapping[str, Tensor] | None]:
    """The other modalities and their masks, step for step beside the anchor's."""
    others = {name: x for name, x in sequences.items() if name != anchor}
    if resample is None:
        return others, mask
    masks = {} if mask is None else mask
    like, real = sequences[anchor], masks.get(anchor)
    found = {name: resampled(x, masks.get(name), like, real) for name, x in others.items()}
    return {name: x for name, (x, _) in found.items()}, {name: real for name, (_, real) in found.items()}


def check_resample(resample: str | None) -> None:
    """ValueError for another way than those there are."""
    if resample not in (None, "mean"):
        raise ValueError(f"MAG: resample must be None or 'mean', got {resample!r}")


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
    the answer is a constant, so the anchor's contribution is "model against prior". Steps must be aligned, or are
    brought to the anchor's by `resample`.

    Args:
        dims: feature dimension by modality name: the anchor and at least one other.
        num_outputs: classes, or 1 for regression.
        anchor: name of the anchor; "text" by default.
        width: of the anchor's steps.
        strength: beta, the longest shift in lengths of the anchor's step.
        num_layers, num_heads, feedforward_dim, max_length: of the pre-norm Transformer with learned positions, one
            for each step of the anchor.
        gate_dropout: after the gate.
        dropout: in the Transformer.
        resample: "mean" averages the real steps of another modality in as many bins as the anchor has real steps,
            which is ours; None refuses steps that are not aligned.

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
        resample: str | None = None,
    ):
        check_sizes("MAG", num_layers=num_layers, feedforward_dim=feedforward_dim, max_length=max_length)
        check_heads("MAG", width, num_heads)
        check_weights("MAG", strength=strength)
        check_resample(resample)
        super().__init__(dims, num_outputs, width)
        self.anchor, self.resample = find_anchor(self.dims, anchor, "MAG"), resample
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
        if name != self.anchor:
            return x
        if x.shape[1] > len(self.position):
            raise ValueError(f"{name}: {x.shape[1]} time steps, but max_length is {len(self.position)}")
        projected: Tensor = self.project(x)
        return projected

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
        check_aligned(self.anchor, encodings, self.resample)
        if self.anchor in present:
            real = None if mask is None else mask[self.anchor]
            kept = {name: encodings[name] for name in present}
            shifted = self.gate(anchor, *beside_anchor(self.anchor, kept, mask, self.resample))
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
        resample: as in `MAG`.
    """

    def __init__(
        self,
        dims: Mapping[str, int],
        anchor: str | None = None,
        strength: float = 1.0,
        dropout: float = 0.1,
        resample: str | None = None,
    ):
        super().__init__()
        self.dims = check_dims(dims)
        self.anchor, self.resample = find_anchor(self.dims, anchor, "MAG"), resample
        check_weights("AnchorShift", strength=strength)
        check_resample(resample)
        others = {name: dim for name, dim in self.dims.items() if name != self.anchor}
        self.gate = AdaptationGate(self.dims[self.anchor], others, strength, dropout)

    def forward(self, features: Mapping[str, Tensor], mask: Mapping[str, Tensor] | None = None) -> Refinement:
        """name -> (B, T_m, d_m), from the same shapes; ValueError where steps are not aligned, nor resampled."""
        checked, masks = check_inputs(self.dims, features, mask)
        check_like(self, checked)
        check_aligned(self.anchor, checked, self.resample)
        shifted = self.gate(checked[self.anchor], *beside_anchor(self.anchor, checked, mask, self.resample))
        real = masks[self.anchor]
        return Refinement(checked | {self.anchor: shifted if real is None else shifted * real.unsqueeze(2)})
