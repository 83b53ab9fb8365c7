"""TFN: one sub-network per modality, the outer product of all [1; h_m], and an MLP on it (Zadeh et al., 2017)."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgmr.fusion.base import Backbone, check_sizes, last_real
from vgmr.refining.inputs import whole
from vgmr.refining.maps import masked_mean


class BatchNorm(nn.BatchNorm1d):
    """BatchNorm of (B, d) that takes its running statistics for a batch of one, where torch raises an error."""

    def forward(self, input: Tensor) -> Tensor:
        """(B, d) to the same shape."""
        if self.training and len(input) == 1:
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        return super().forward(input)


class SubNet(nn.Module):
    """Mean over time, BatchNorm, dropout and three layers with ReLU: (B, T, dim) to (B, width)."""

    def __init__(self, dim: int, width: int, dropout: float):
        super().__init__()
        self.norm = BatchNorm(dim)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList([nn.Linear(dim, width), nn.Linear(width, width), nn.Linear(width, width)])

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(B, T, dim) and (B, T) bool to (B, width)."""
        h = self.dropout(self.norm(masked_mean(x, mask)))
        for layer in self.layers:
            h = torch.relu(layer(h))
        return h


class LastState(nn.Module):
    """State of an LSTM at the last real step, dropout and one linear layer: (B, T, dim) to (B, width)."""

    def __init__(self, dim: int, hidden_dim: int, width: int, dropout: float):
        super().__init__()
        self.recurrent = nn.LSTM(dim, hidden_dim, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(hidden_dim, width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(B, T, dim) and (B, T) bool to (B, width)."""
        state: Tensor = self.linear(self.dropout(last_real(self.recurrent(x)[0], mask)))
        return state


def widths(names: Collection[str], width: int | Mapping[str, int], what: str) -> dict[str, int]:
    """One width for each modality, from one for all or one by name; ValueError for a name that is missing."""
    if not isinstance(width, Mapping):
        return dict.fromkeys(names, whole(what, width))
    if set(width) != set(names):
        raise ValueError(f"{what}: expected a width for each of {sorted(names)}, got {dict(width)}")
    return {name: whole(f"{what} of {name}", size) for name, size in width.items()}


def make_encoders(
    dims: Mapping[str, int],
    width: Mapping[str, int],
    sequential: Collection[str] | None,
    hidden_dim: int | Mapping[str, int] | None,
    dropout: float,
) -> nn.ModuleDict:
    """`LastState` for the modalities `sequential` (None: text, if there), `SubNet` for all others."""
    chosen = {"text"} & set(dims) if sequential is None else set(sequential)
    unknown = sorted(chosen - set(dims))
    if unknown:
        raise ValueError(f"sequential: unknown modalities {unknown}; there are {list(dims)}")
    twice = {name: 2 * width[name] for name in dims}
    hidden = widths(dims, twice if hidden_dim is None else hidden_dim, "hidden_dim")
    return nn.ModuleDict(
        {
            name: LastState(dim, hidden[name], width[name], dropout)
            if name in chosen
            else SubNet(dim, width[name], dropout)
            for name, dim in dims.items()
        }
    )


class TensorFusion(Backbone):
    """Tensor fusion network: all uni-, bi- and trimodal products of the vectors h_m, read by an MLP.

    Encodings are h_m, (B, r_m). An absent modality has h_m = 0, which leaves the products of the others. Unlike
    the released code it reads the state at the last real step, and keeps the dropout behind the LSTM.

    Args:
        dims: feature dimension by modality name.
        num_outputs: classes, or 1 for regression.
        width: r_m, for all or by name; by default 16, or less where the product would have more than 6000 entries.
        sequential: modalities that an LSTM reads; by default text, if there. The original's choice.
        hidden_dim: of the LSTMs, for all or by name; by default 2 r_m.
        post_dim: width of the MLP behind the product.
        dropout: on means over time, behind LSTMs and on the product.

    Raises:
        ValueError: a product of more than 20,000 entries, or widths not by modality.
    """

    largest = 20_000

    def __init__(
        self,
        dims: Mapping[str, int],
        num_outputs: int,
        width: int | Mapping[str, int] | None = None,
        sequential: Collection[str] | None = None,
        hidden_dim: int | Mapping[str, int] | None = None,
        post_dim: int = 32,
        dropout: float = 0.3,
    ):
        if width is None:
            width = max(1, min(16, math.floor(6000 ** (1 / max(1, len(dims))) + 1e-9) - 1))
        by_name = widths(dims, width, "width")
        check_sizes("TensorFusion", post_dim=post_dim)
        super().__init__(dims, num_outputs, _common(by_name))
        size = math.prod(value + 1 for value in by_name.values())
        if size > self.largest:
            raise ValueError(
                f"TensorFusion: the product of {len(dims)} modalities has {size:,} entries, "
                f"more than {self.largest:,}; lower width, now {by_name}"
            )
        self.encoder = make_encoders(self.dims, by_name, sequential, hidden_dim, dropout)
        self.dropout = nn.Dropout(dropout)
        self.post = nn.Sequential(nn.Linear(size, post_dim), nn.ReLU(), nn.Linear(post_dim, post_dim), nn.ReLU())
        self.output = nn.Linear(post_dim, num_outputs)

    def encode_one(self, name: str, x: Tensor, mask: Tensor | None) -> Tensor:
        """h_m: (B, T_m, d_m) to (B, r_m)."""
        encoding: Tensor = self.encoder[name](x, mask)
        return encoding

    def product(self, encodings: Mapping[str, Tensor], keep: Collection[str] | None = None) -> Tensor:
        """The flat outer product of [1; h_m], (B, prod (r_m + 1)), the first name slowest."""
        present = self.present(keep)
        first = encodings[self.names[0]]
        result = first.new_ones(first.shape[0], 1)
        for name in self.names:
            h = encodings[name] if name in present else torch.zeros_like(encodings[name])
            part = torch.cat([h.new_ones(h.shape[0], 1), h], 1)
            result = (result.unsqueeze(2) * part.unsqueeze(1)).flatten(1)
        return result

    def fused(
        self,
        encodings: Mapping[str, Tensor],
        keep: Collection[str] | None = None,
        mask: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """The MLP's last hidden layer, (B, post_dim)."""
        hidden: Tensor = self.post(self.dropout(self.product(encodings, keep)))
        return hidden

    def classify(self, fused: Tensor) -> Tensor:
        """(B, post_dim) to (B, num_outputs)."""
        logits: Tensor = self.output(fused)
        return logits


def _common(by_name: Mapping[str, int]) -> int | None:
    values = set(by_name.values())
    return values.pop() if len(values) == 1 else None
