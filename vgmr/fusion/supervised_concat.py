"""The backbones of MMIM and Self-MM: a vector per modality, concatenated, and a small network on it.

Both systems are this plus training losses, which are methods of `vgmr.balancing`, "mmim" and "self-mm".
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from vgmr.fusion.base import Backbone, check_sizes, unknown_names
from vgmr.fusion.tensor_fusion import LastState
from vgmr.refining.maps import masked_mean


class _MeanLinear(nn.Module):
    def __init__(self, dim: int, width: int):
        super().__init__()
        self.linear = nn.Linear(dim, width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        result: Tensor = self.linear(masked_mean(x, mask))
        return result


class _SupervisedConcat(Backbone):
    def __init__(
        self,
        dims: Mapping[str, int],
        num_outputs: int,
        width: int = 32,
        averaged: Collection[str] = ("text",),
        hidden_dim: int = 16,
        dropout: float = 0.1,
    ):
        check_sizes(type(self).__name__, width=width, hidden_dim=hidden_dim)
        if unknown_names(averaged, dims):
            raise ValueError(f"averaged: expected several of {list(dims)}, got {averaged!r}")
        super().__init__(dims, num_outputs, width, at_least=2)
        self.encoder = nn.ModuleDict(
            {
                name: _MeanLinear(dim, width) if name in averaged else LastState(dim, hidden_dim, width, 0.0)
                for name, dim in self.dims.items()
            }
        )
        self.dropout = nn.Dropout(dropout)
        self.first, self.second = nn.Linear(len(self.dims) * width, width), nn.Linear(width, width)
        self.output = nn.Linear(width, num_outputs)

    def encode_one(self, name: str, x: Tensor, mask: Tensor | None) -> Tensor:
        """(B, T_m, d_m) to (B, width)."""
        encoding: Tensor = self.encoder[name](x, mask)
        return encoding

    def join(self, encodings: Mapping[str, Tensor], keep: Collection[str] | None) -> Tensor:
        """All encodings side by side, with zeros for the absent, (B, modalities width), after dropout."""
        present = self.present(keep)
        slots = [x if name in present else torch.zeros_like(x) for name in self.names for x in [encodings[name]]]
        joined: Tensor = self.dropout(torch.cat(slots, 1))
        return joined


class InfoMaxConcat(_SupervisedConcat):
    """The network of MMIM (Han, Chen and Poria, EMNLP 2021): two tanh layers on the concatenation, one linear.

    An absent modality has a slot of zeros.

    Args:
        dims: feature dimension by modality name, at least two.
        num_outputs: classes, or 1 for regression.
        width: of each modality's vector and of the fused one.
        averaged: modalities that are averaged over time (the paper's text, from BERT); LSTMs read the others.
        hidden_dim: of the LSTMs.
        dropout: on the concatenation.
    """

    def fused(
        self,
        encodings: Mapping[str, Tensor],
        keep: Collection[str] | None = None,
        mask: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """f = tanh(W_2 tanh(W_1 [h])), (B, width)."""
        return torch.tanh(self.second(torch.tanh(self.first(self.join(encodings, keep)))))

    def classify(self, fused: Tensor) -> Tensor:
        """(B, width) to (B, num_outputs)."""
        outputs: Tensor = self.output(fused)
        return outputs


class SelfSupervisedConcat(_SupervisedConcat):
    """The network of Self-MM (Yu et al., AAAI 2021): f = relu(W_1 [h]), then two more layers.

    An absent modality has a slot of zeros. Arguments as of `InfoMaxConcat`.
    """

    def fused(
        self,
        encodings: Mapping[str, Tensor],
        keep: Collection[str] | None = None,
        mask: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """f = relu(W_1 [h]), (B, width)."""
        return torch.relu(self.first(self.join(encodings, keep)))

    def classify(self, fused: Tensor) -> Tensor:
        """W_3 relu(W_2 f): (B, width) to (B, num_outputs)."""
        outputs: Tensor = self.output(torch.relu(self.second(fused)))
        return outputs
