"""LMF: tensor fusion's linear read-out with a weight tensor of low rank that is never built (Liu et al., 2018)."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from vgmr.fusion.base import Backbone, check_sizes
from vgmr.fusion.tensor_fusion import make_encoders, widths


class LowRankFusion(Backbone):
    """Low-rank multimodal fusion: z = b + sum over ranks r of a_r prod_m ([1; h_m] F_m^r).

    Encodings are h_m, (B, r_m), from the sub-networks of `TensorFusion`. An absent modality counts as [1; 0], its
    factor as the first row of F_m. The initial scale of F_m is sqrt(2 / (r_m + 1 + outputs)) whatever the rank;
    in the released code it depends on the rank.

    Args:
        dims: feature dimension by modality name.
        num_outputs: classes, or 1 for regression.
        width: r_m, for all or by name.
        rank: R.
        sequential, hidden_dim: see `TensorFusion`.
        dropout: on means over time and behind LSTMs.

    Raises:
        ValueError: a rank below 1, or widths not by modality.
    """

    def __init__(
        self,
        dims: Mapping[str, int],
        num_outputs: int,
        width: int | Mapping[str, int] = 16,
        rank: int = 4,
        sequential: Collection[str] | None = None,
        hidden_dim: int | Mapping[str, int] | None = None,
        dropout: float = 0.2,
    ):
        by_name = widths(dims, width, "width")
        values = set(by_name.values())
        super().__init__(dims, num_outputs, values.pop() if len(values) == 1 else None)
        check_sizes("LowRankFusion", rank=rank)
        self.encoder = make_encoders(self.dims, by_name, sequential, hidden_dim, dropout)
        self.factor = nn.ParameterDict(
            {name: nn.Parameter(torch.empty(rank, by_name[name] + 1, num_outputs)) for name in self.names}
        )
        self.rank_weight = nn.Parameter(torch.empty(1, rank))
        self.bias = nn.Parameter(torch.zeros(1, num_outputs))
        for name in self.names:
            nn.init.normal_(self.factor[name], std=(2 / (by_name[name] + 1 + num_outputs)) ** 0.5)
        nn.init.xavier_normal_(self.rank_weight)

    def encode_one(self, name: str, x: Tensor, mask: Tensor | None) -> Tensor:
        """h_m: (B, T_m, d_m) to (B, r_m)."""
        encoding: Tensor = self.encoder[name](x, mask)
        return encoding

    def fuse(
        self,
        encodings: Mapping[str, Tensor],
        keep: Collection[str] | None = None,
        mask: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Encodings to outputs (B, num_outputs), with only the modalities `keep` present."""
        present = self.present(keep)
        size = encodings[self.names[0]].shape[0]
        product = self.bias.new_ones(len(self.rank_weight[0]), size, self.num_outputs)
        for name in self.names:
            factor = self.factor[name]
            part = factor[:, :1].expand(-1, size, -1)  # of the constant 1
            if name in present:
                part = part + encodings[name] @ factor[:, 1:]
            product = product * part
        return self.bias + torch.einsum("r,rbc->bc", self.rank_weight[0], product)
