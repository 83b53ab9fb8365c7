"""GMU: one gated hidden layer that chooses per unit how much each modality counts (Arevalo et al., 2017)."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from vgmr.fusion.base import Backbone, check_sizes
from vgmr.refining.maps import masked_mean


class GatedUnit(Backbone):
    """Gated multimodal unit and one linear layer.

    Encodings are means over time, (B, d_m), without parameters; h_m = tanh(W_m mean). Two modalities share one
    gate, h = g h_1 + (1 - g) h_2; more have one each, not normalised. An absent modality is zero in the gates'
    input and has h_m = 0; at two modalities the other stays scaled by its gate. The original's head (BatchNorm,
    maxout) is replaced by dropout and a linear layer.

    Args:
        dims: feature dimension by modality name, at least two.
        num_outputs: classes, or 1 for regression.
        width: of the unit.
        gate_input: "features", as the paper writes, or "projection" (W_m mean, before tanh), as its code does.
        dropout: on the unit.

    Raises:
        ValueError: fewer than two modalities, or an unknown `gate_input`.
    """

    def __init__(
        self,
        dims: Mapping[str, int],
        num_outputs: int,
        width: int = 32,
        gate_input: str = "features",
        dropout: float = 0.3,
    ):
        check_sizes("GatedUnit", width=width)
        super().__init__(dims, num_outputs, width, at_least=2)
        if gate_input not in ("features", "projection"):
            raise ValueError(f"gate_input must be 'features' or 'projection', got {gate_input!r}")
        self.gate_input = gate_input
        self.project = nn.ModuleDict({name: nn.Linear(dim, width, bias=False) for name, dim in self.dims.items()})
        seen = sum(self.dims.values()) if gate_input == "features" else len(dims) * width
        gates = self.names if len(dims) > 2 else self.names[:1]
        self.gates = nn.ModuleList([nn.Linear(seen, width, bias=False) for _ in gates])
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(width, num_outputs)

    def encode_one(self, name: str, x: Tensor, mask: Tensor | None) -> Tensor:
        """The mean over time: (B, T_m, d_m) to (B, d_m)."""
        return masked_mean(x, mask)

    def vectors(
        self, encodings: Mapping[str, Tensor], mask: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """h_m, name -> (B, width)."""
        return {name: torch.tanh(self.project[name](x)) for name, x in encodings.items()}

    def unit(self, encodings: Mapping[str, Tensor], keep: Collection[str] | None = None) -> Tensor:
        """h, (B, width)."""
        present = self.present(keep)
        first = encodings[self.names[0]]
        silent = first.new_zeros(first.shape[0], self.output.in_features)
        projected = {n: self.project[n](encodings[n]) if n in present else silent for n in self.names}
        read = projected
        if self.gate_input == "features":
            read = {n: encodings[n] if n in present else torch.zeros_like(encodings[n]) for n in self.names}
        everything = torch.cat([read[name] for name in self.names], 1)
        gates = [torch.sigmoid(gate(everything)) for gate in self.gates]
        if len(gates) == 1:
            gates.append(1 - gates[0])
        parts = [gate * torch.tanh(projected[name]) for gate, name in zip(gates, self.names, strict=True)]
        return torch.stack(parts).sum(0)

    def fused(
        self,
        encodings: Mapping[str, Tensor],
        keep: Collection[str] | None = None,
        mask: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """h behind dropout, (B, width)."""
        hidden: Tensor = self.dropout(self.unit(encodings, keep))
        return hidden

    def classify(self, fused: Tensor) -> Tensor:
        """(B, width) to (B, num_outputs)."""
        logits: Tensor = self.output(fused)
        return logits
