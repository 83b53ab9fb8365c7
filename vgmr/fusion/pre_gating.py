"""PCAG: cross-attention with scores gated before the softmax, then a gate on what was attended.

After Zhang et al. (Neural Networks 179, 106553, 2024), from third-party descriptions: its sizes, heads, norm and
pooling are not confirmed, nor is what it does with more than two modalities. Label results accordingly.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from vgmr.fusion.base import Backbone, check_sizes
from vgmr.refining.maps import masked_mean

GATES = ("tanh", "sigmoid", "none")


class _Context(nn.Module):
    """What one modality makes of what it attended to, and of itself."""

    def __init__(self, width: int):
        super().__init__()
        self.gate_attended = nn.Linear(width, width)  # W_h
        self.gate_query = nn.Linear(width, width, bias=False)  # W_q
        self.content = nn.Linear(width, width)  # W_E
        self.norm_gate = nn.LayerNorm(width)
        self.norm_content = nn.LayerNorm(width)
        self.inter = nn.Linear(width, width)  # U
        self.intra = nn.Linear(width, width)  # U'

    def between(self, query: Tensor, attended: Tensor) -> Tensor:
        gate = torch.relu(self.gate_attended(attended) + self.gate_query(query))
        content = torch.relu(self.content(attended))
        return torch.relu(self.inter(self.norm_content(content) * self.norm_gate(gate)))

    def within(self, query: Tensor) -> Tensor:
        return torch.relu(self.intra(query))


def pre_gate(query: Tensor, key: Tensor, kind: str = "tanh", normalise: bool = False) -> Tensor:
    """P, (B, T_i, T_j), from (B, T, width); a sum over channels, so it grows with the width unless normalised."""
    if kind == "sigmoid":
        product = torch.sigmoid(query) @ torch.sigmoid(key).transpose(1, 2)
        return product / query.shape[2] if normalise else product
    product = torch.tanh(query) @ torch.tanh(key).transpose(1, 2)
    return (product / query.shape[2] + 1) / 2 if normalise else (product + 1) / 2


class PreGating(Backbone):
    """Pre-gating and contextual attention gate.

    Encodings are [Q; K; V] by step, (B, T_m, 3 width); vectors the means of Q. A modality's terms are summed: what
    it makes of the others (inter) and of itself (intra). An absent one gives neither and is no source; with no
    source left the inter term goes too. With several sources the attended values are averaged, which is ours.

    Args:
        dims: feature dimension by modality name, at least two.
        num_outputs: classes, or 1 for regression.
        width: of queries, keys and values; one head.
        gate: "tanh", "sigmoid", or "none" for plain attention.
        normalise: divide the products of the gate by the width (ours).
        dropout: on the summed terms.

    Raises:
        ValueError: fewer than two modalities, or an unknown gate.
    """

    def __init__(
        self,
        dims: Mapping[str, int],
        num_outputs: int,
        width: int = 32,
        gate: str = "tanh",
        normalise: bool = False,
        dropout: float = 0.1,
    ):
        check_sizes("PreGating", width=width)
        super().__init__(dims, num_outputs, width, at_least=2)
        if gate not in GATES:
            raise ValueError(f"gate must be one of {', '.join(GATES)}, got {gate!r}")
        self.gate, self.normalise = gate, normalise
        self.project = nn.ModuleDict({name: nn.Linear(dim, 3 * width) for name, dim in self.dims.items()})
        self.context = nn.ModuleDict({name: _Context(width) for name in self.dims})
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(width, num_outputs)

    def encode_one(self, name: str, x: Tensor, mask: Tensor | None) -> Tensor:
        """[Q; K; V]: (B, T_m, d_m) to (B, T_m, 3 width)."""
        encoding: Tensor = self.project[name](x)
        return encoding

    def vectors(
        self, encodings: Mapping[str, Tensor], mask: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Means of Q over real steps, name -> (B, width)."""
        width = self.output.in_features
        return super().vectors({name: x[..., :width] for name, x in encodings.items()}, mask)

    def attend(self, target: Tensor, source: Tensor, mask: Tensor | None) -> Tensor:
        """What `target` finds in `source`, (B, T_i, width), from encodings and the mask of the source."""
        (query, _, _), (_, key, value) = target.chunk(3, 2), source.chunk(3, 2)
        score = query @ key.transpose(1, 2) / query.shape[2] ** 0.5
        if self.gate != "none":
            score = score * pre_gate(query, key, self.gate, self.normalise)
        if mask is not None:
            score = score.masked_fill(~mask.unsqueeze(1), -torch.inf)
        return score.softmax(2) @ value

    def fuse_many(
        self,
        encodings: Mapping[str, Tensor],
        keeps: Sequence[Collection[str]],
        mask: Mapping[str, Tensor] | None = None,
    ) -> list[Tensor]:
        """`fuse` for several subsets; each pair attends once for all of them."""
        return [self.classify(fused) for fused in self._fused_many(encodings, keeps, mask)]

    def _fused_many(
        self,
        encodings: Mapping[str, Tensor],
        keeps: Sequence[Collection[str] | None],
        mask: Mapping[str, Tensor] | None,
    ) -> list[Tensor]:
        width = self.output.in_features
        first = encodings[self.names[0]]
        attended: dict[tuple[str, str], Tensor] = {}
        terms: dict[tuple[str, ...], Tensor] = {}

        def of_pair(name: str, other: str) -> Tensor:
            if (name, other) not in attended:
                real = None if mask is None else mask[other]
                attended[name, other] = self.attend(encodings[name], encodings[other], real)
            return attended[name, other]

        def term(name: str, sources: list[str]) -> Tensor:
            """Pooled inter (with sources) or intra (without) term, (B, width)."""
            key = (name, *sources)
            if key not in terms:
                context, query = self.context[name], encodings[name][..., :width]
                assert isinstance(context, _Context)
                if sources:
                    mean = torch.stack([of_pair(name, other) for other in sources]).mean(0)
                    steps = context.between(query, mean)
                else:
                    steps = context.within(query)
                terms[key] = masked_mean(steps, None if mask is None else mask[name])
            return terms[key]

        found = []
        for keep in keeps:
            present = self.present(keep)
            total = first.new_zeros(first.shape[0], width)
            for name in present:
                total = total + term(name, [])
                sources = [other for other in present if other != name]
                if sources:
                    total = total + term(name, sources)
            found.append(self.dropout(total))
        return found

    def fused(
        self,
        encodings: Mapping[str, Tensor],
        keep: Collection[str] | None = None,
        mask: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """The summed terms, (B, width)."""
        return self._fused_many(encodings, [keep], mask)[0]

    def classify(self, fused: Tensor) -> Tensor:
        """(B, width) to (B, num_outputs)."""
        logits: Tensor = self.output(fused)
        return logits
