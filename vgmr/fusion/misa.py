"""MISA (Hazarika et al., 2020): a shared and a private view of each modality, read by one small Transformer."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgmr.fusion.attention import ByteDropout
from vgmr.fusion.base import (
    Backbone,
    check_heads,
    check_sizes,
    check_weights,
    unknown_names,
)
from vgmr.fusion.tensor_fusion import widths
from vgmr.refining.maps import masked_mean, watched


def states_of(cell: nn.Module, x: Tensor) -> Tensor:
    """All states of an LSTM, (T, B, d) to (T, B, hidden), without what its `forward` looks up each time."""
    if watched([cell]):
        states: Tensor = cell(x)[0]
        return states
    parts = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    weights: list[Tensor] = [getattr(cell, part) for part in parts]
    start = x.new_zeros(1, x.shape[1], weights[1].shape[1])
    return torch.lstm(x, (start, start), weights, True, 1, 0.0, cell.training, False, False)[0]


class StackedRecurrence(nn.Module):
    """Two bidirectional LSTMs with a LayerNorm between: (B, T, d) to their four last states, (B, 4 hidden).

    Each direction reads the real steps only, as with packed sequences.
    """

    def __init__(self, dim: int, hidden_dim: int):
        super().__init__()
        self.first = nn.ModuleList([nn.LSTM(dim, hidden_dim) for _ in range(2)])
        self.norm = nn.LayerNorm(2 * hidden_dim)
        self.second = nn.ModuleList([nn.LSTM(2 * hidden_dim, hidden_dim) for _ in range(2)])
        for cell in (*self.first, *self.second):
            nn.init.orthogonal_(cell.weight_hh_l0)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Last states: first layer forward, second forward, first backward, second backward."""
        count, steps = x.shape[:2]
        sample, step = torch.arange(count, device=x.device), torch.arange(steps, device=x.device).unsqueeze(1)
        length = torch.full_like(sample, steps) if mask is None else mask.sum(1)
        turned = (torch.where(step < length, length - 1 - step, step) * count + sample).flatten()
        last = (length - 1) * count + sample

        def backwards(x: Tensor) -> Tensor:
            """Each sequence of (T, B, w) backwards within its real steps; padding stays where it is."""
            return x.flatten(0, 1).index_select(0, turned).view_as(x)

        x = x.transpose(0, 1).contiguous()
        forward, backward = states_of(self.first[0], x), states_of(self.first[1], backwards(x))
        both = torch.stack([torch.arange(steps * count, device=x.device), turned + steps * count], 1).flatten()
        rows = torch.cat([forward, backward]).flatten(0, 1).index_select(0, both)
        states = self.norm(rows.view(steps, count, -1))  # of both directions beside each other
        later = states_of(self.second[0], states), states_of(self.second[1], backwards(states))
        ends = [forward, later[0], backward, later[1]]
        return torch.cat([end.flatten(0, 1).index_select(0, last) for end in ends], 1)


def unit_rows(x: Tensor) -> Tensor:
    """Columns of (..., B, w) centred over the batch, then rows scaled to length 1, taken as constant."""
    x = x - x.mean(-2, keepdim=True)
    return x / (x.detach().norm(dim=-1, keepdim=True) + 1e-6)


def differences(views: Tensor, reference_batch: int | None = 16) -> Tensor:
    """Mean of (A^T B)^2 over all pairs of channels for every two of V views: 0 where two are orthogonal, (V, V).

    As the sum of A A^T times B B^T, which are far smaller where there are more channels than samples.

    Args:
        views: what `unit_rows` gives, (V, B, w).
        reference_batch: A^T B sums over the batch, so the loss grows with its square; it is brought to what it
            would be at this size. None: as the authors' code has it.
    """
    _, count, width = views.shape
    alike = (views @ views.mT).flatten(1)  # of every two samples, by view
    scale = 1.0 if reference_batch is None else (reference_batch / count) ** 2
    return scale / width**2 * (alike @ alike.T)


def central_moments(x: Tensor, count: int = 5) -> Tensor:
    """Mean and central moments 2 to `count` of a sample: (..., B, w) to (..., count, w)."""
    mean = x.mean(-2, keepdim=True)
    found, power = [mean], x - mean
    deviation = power
    for _ in range(2, count + 1):
        power = power * deviation
        found.append(power.mean(-2, keepdim=True))
    return torch.cat(found, -2)


def moment_discrepancy(first: Tensor, second: Tensor) -> Tensor:
    """Central moment discrepancy of two samples of values in 0 to 1, by their moments (..., count, w); (...).

    A little is added below each root, where the authors' gradient is NaN when two samples coincide.
    """
    return ((first - second).square().sum(-1) + 1e-12).sqrt().sum(-1)


class MixingLayer(nn.TransformerEncoderLayer):
    """Torch's layer of a Transformer on the few tokens of each sample, (tokens, B, width), without masks.

    Its widest result, in the feed-forward block, takes dropout, a `ByteDropout`, and ReLU in place.
    """

    def __init__(self, width: int, num_heads: int, feedforward_dim: int, dropout: float):
        super().__init__(width, num_heads, feedforward_dim, dropout)
        for place in ("dropout", "dropout1", "dropout2"):
            setattr(self, place, ByteDropout(dropout))

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """(tokens, B, width) to the same."""
        attended = self.self_attn(x, x, x, need_weights=False)[0].flatten(0, 1)
        read: Tensor = self.norm1(x.flatten(0, 1) + self.dropout1(attended))
        owned = not (torch.compiler.is_compiling() or watched([self.linear1, self.dropout]))
        inner = F.relu(self.dropout(self.linear1(read), owned), inplace=owned)  # one may stand before the other
        mixed: Tensor = self.norm2(read + self.dropout2(self.linear2(inner)))
        return mixed.view_as(x)


def each_its_own(maps: Sequence[nn.Module], x: Tensor) -> Tensor:
    """Every (B, w) of (K, B, w) through its own one of K linear maps, in one product."""
    weight, bias = (torch.stack([getattr(one, part) for one in maps]) for part in ("weight", "bias"))
    return torch.baddbmm(bias.unsqueeze(1), x, weight.mT)


class MISA(Backbone):
    """Modality-invariant and -specific representations (Hazarika et al., ACM Multimedia 2020).

    Each utterance vector u_m goes through a private map, p_m, and one map shared by all, s_m. Losses make shared
    views alike and private ones different; one Transformer layer reads all 2 K tokens. An absent modality's two
    tokens are left out of the attention and their slots are zero; the losses always take all modalities.

    Args:
        dims: feature dimension by modality name, at least two.
        num_outputs: classes, or 1 for regression.
        width: of u_m and of the tokens; divisible by `num_heads`.
        averaged: modalities that are averaged over time (the paper's text, which comes from BERT); the others go
            through two LSTMs.
        hidden_dim: of the LSTMs, one for all or one for each that is not averaged, by name; by default half of
            `width` (the authors take the feature dimension).
        feedforward_dim: of the Transformer layer; 2048 in the authors' code, torch's default.
        num_heads: of the Transformer layer.
        dropout: in the output network; the Transformer layer has at most 0.1.
        difference_weight, similarity_weight, reconstruction_weight: of the three losses.
        similarity: "moments", the central moment discrepancy of shared views; or "adversarial", the cross-entropy
            of a small network that tells from a shared view whose it is, by gradients that are reversed for the
            views, so that it learns to tell and they learn not to be told.
        variant: "corrected": the difference loss does not grow with the batch; or "official".

    Raises:
        ValueError: fewer than two modalities, or an argument out of its range.
    """

    def __init__(
        self,
        dims: Mapping[str, int],
        num_outputs: int,
        width: int = 32,
        averaged: Collection[str] = ("text",),
        hidden_dim: int | Mapping[str, int] | None = None,
        feedforward_dim: int = 64,
        num_heads: int = 2,
        dropout: float = 0.1,
        difference_weight: float = 0.3,
        similarity_weight: float = 1.0,
        reconstruction_weight: float = 1.0,
        variant: str = "corrected",
        similarity: str = "moments",
    ):
        check_heads("MISA", width, num_heads)
        check_sizes("MISA", feedforward_dim=feedforward_dim)
        weights = {
            "difference": difference_weight,
            "similarity": similarity_weight,
            "reconstruction": reconstruction_weight,
        }
        check_weights("MISA", **{f"{what}_weight": weight for what, weight in weights.items()})
        if unknown_names(averaged, dims):
            raise ValueError(f"averaged: expected several of {list(dims)}, got {averaged!r}")
        super().__init__(dims, num_outputs, width, at_least=2)
        if variant not in ("corrected", "official"):
            raise ValueError(f"MISA: variant must be 'corrected' or 'official', got {variant!r}")
        if similarity not in ("moments", "adversarial"):
            raise ValueError(f"MISA: similarity must be 'moments' or 'adversarial', got {similarity!r}")
        sequential = [name for name in self.dims if name not in averaged]
        hidden = widths(sequential, max(1, width // 2) if hidden_dim is None else hidden_dim, "MISA: hidden_dim")
        self.averaged, self.variant = set(averaged), variant
        self.weights = weights
        self.sequence = nn.ModuleDict(
            {
                name: nn.Identity() if name in self.averaged else StackedRecurrence(dim, hidden[name])
                for name, dim in self.dims.items()
            }
        )
        self.align = nn.ModuleDict(
            {
                name: nn.Sequential(
                    nn.Linear(dim if name in self.averaged else 4 * hidden[name], width),
                    nn.ReLU(),
                    nn.LayerNorm(width),
                )
                for name, dim in self.dims.items()
            }
        )
        self.private = nn.ModuleDict({name: nn.Linear(width, width) for name in self.dims})
        self.reconstruct = nn.ModuleDict({name: nn.Linear(width, width) for name in self.dims})
        self.shared = nn.Linear(width, width)
        self.mix = MixingLayer(width, num_heads, feedforward_dim, min(dropout, 0.1))
        count = len(self.names)
        self.output = nn.Sequential(
            nn.Linear(2 * count * width, count * width),
            ByteDropout(dropout),
            nn.ReLU(),
            nn.Linear(count * width, num_outputs),
        )
        self.whose = None
        if similarity == "adversarial":
            layers = nn.Linear(width, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, count)
            self.whose = nn.Sequential(*layers)

    def encode_one(self, name: str, x: Tensor, mask: Tensor | None) -> Tensor:
        """u_m: (B, T_m, d_m) to (B, width)."""
        vector = masked_mean(x, mask) if name in self.averaged else self.sequence[name](x, mask)
        encoding: Tensor = self.align[name](vector)
        return encoding

    def views(self, encodings: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Private and shared views, (modalities, B, width) each in the order of `encodings`, values in 0 to 1."""
        stacked = torch.stack(list(encodings.values()))
        private = each_its_own([self.private[name] for name in encodings], stacked)
        return torch.sigmoid(private), torch.sigmoid(self.shared(stacked))

    def fuse(
        self,
        encodings: Mapping[str, Tensor],
        keep: Collection[str] | None = None,
        mask: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Tokens of the present modalities, mixed, in their slots, to outputs (B, num_outputs)."""
        present = self.present(keep)
        empty = torch.zeros_like(encodings[self.names[0]])
        slots = {(kind, name): empty for kind in ("private", "shared") for name in self.names}
        if present:
            tokens = torch.cat(self.views({name: encodings[name] for name in present}))
            mixed = self.mix(tokens).unbind(0)
            filled = [("private", name) for name in present] + [("shared", name) for name in present]
            slots |= dict(zip(filled, mixed, strict=True))
        outputs: Tensor = self.output(torch.cat(list(slots.values()), 1))
        return outputs

    def losses(self, encodings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The three losses without their weights, from u_m alone; scalars."""
        private, shared = self.views(encodings)
        count, similarity = len(self.names), self._unlike(shared)
        batch = None if self.variant == "official" else 16
        apart = differences(unit_rows(torch.cat([private, shared])), batch)
        again = each_its_own([self.reconstruct[name] for name in encodings], private + shared)
        return {
            "difference": apart[:count, :count].triu(1).sum() + apart[:count, count:].trace(),
            "similarity": similarity,
            "reconstruction": F.mse_loss(again, torch.stack(list(encodings.values()))),
        }

    def _unlike(self, shared: Tensor) -> Tensor:
        """How well shared views (modalities, B, width) can be told apart: a loss for them."""
        count = len(shared)
        if self.whose is not None:
            told = self.whose(2 * shared.detach() - shared)  # the same numbers, their gradients reversed
            owner = torch.arange(count, device=shared.device).repeat_interleave(shared.shape[1])
            return F.cross_entropy(told.flatten(0, 1), owner)
        moments = central_moments(shared)
        one, other = torch.triu_indices(count, count, 1, device=shared.device)  # of every pair of modalities
        return moment_discrepancy(moments[one], moments[other]).mean()

    def auxiliary_loss(
        self, encodings: Mapping[str, Tensor], mask: Mapping[str, Tensor] | None, label: Tensor
    ) -> dict[str, Tensor]:
        """Difference, similarity and reconstruction, weighted."""
        return {what: self.weights[what] * loss for what, loss in self.losses(encodings).items()}
