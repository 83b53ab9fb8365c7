"""Fusion heads on one vector per modality: concatenation, sum, outer product, one shared layer."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn


class ConcatHead(nn.Module):
    """Concatenation and one linear layer; an absent modality is zero."""

    def __init__(self, names: Collection[str], width: int, num_classes: int):
        super().__init__()
        self.names = sorted(names)
        self.linear = nn.Linear(len(self.names) * width, num_classes)

    def join(self, encodings: Mapping[str, Tensor], keep: Collection[str]) -> Tensor:
        """name -> (B, width) to what the linear layer reads, (B, names x width)."""
        parts = [encodings[name] if name in keep else torch.zeros_like(encodings[name]) for name in self.names]
        return torch.cat(parts, 1)

    def forward(self, encodings: Mapping[str, Tensor], keep: Collection[str]) -> Tensor:
        """name -> (B, width) to logits (B, classes)."""
        logits: Tensor = self.linear(self.join(encodings, keep))
        return logits


class SumHead(nn.Module):
    """Sum of the encodings and one linear layer; an absent modality is left out of the sum."""

    def __init__(self, names: Collection[str], width: int, num_classes: int):
        super().__init__()
        self.names = sorted(names)
        self.linear = nn.Linear(width, num_classes)

    def join(self, encodings: Mapping[str, Tensor], keep: Collection[str]) -> Tensor:
        """name -> (B, width) to what the linear layer reads, (B, width)."""
        present = [encodings[name] for name in self.names if name in keep]
        return torch.stack(present).sum(0) if present else torch.zeros_like(encodings[self.names[0]])

    def forward(self, encodings: Mapping[str, Tensor], keep: Collection[str]) -> Tensor:
        """name -> (B, width) to logits (B, classes)."""
        logits: Tensor = self.linear(self.join(encodings, keep))
        return logits


class TensorHead(nn.Module):
    """Tensor fusion (Zadeh et al., 2017): outer product of [1; h_m] over modalities, then one linear layer.

    Encodings are first narrowed to `rank` values each; an absent modality is zero, which leaves the products of
    the others.
    """

    def __init__(self, names: Collection[str], width: int, num_classes: int, rank: int = 12):
        super().__init__()
        self.names = sorted(names)
        self.narrow = nn.ModuleDict({name: nn.Linear(width, rank) for name in self.names})
        self.linear = nn.Linear((rank + 1) ** len(self.names), num_classes)

    def join(self, encodings: Mapping[str, Tensor], keep: Collection[str]) -> Tensor:
        """name -> (B, width) to the flat product that the linear layer reads."""
        first = encodings[self.names[0]]
        product = first.new_ones(first.shape[0], 1)
        for name in self.names:
            part = self.narrow[name](encodings[name])
            part = part if name in keep else torch.zeros_like(part)
            part = torch.cat([part.new_ones(part.shape[0], 1), part], 1)
            product = (product.unsqueeze(2) * part.unsqueeze(1)).flatten(1)
        return product

    def forward(self, encodings: Mapping[str, Tensor], keep: Collection[str]) -> Tensor:
        """name -> (B, width) to logits (B, classes)."""
        logits: Tensor = self.linear(self.join(encodings, keep))
        return logits


class SharedHead(nn.Module):
    """Late fusion: one linear layer for every modality by itself, then a weighted sum of its logits.

    The weights are those of MLA (Zhang et al., 2024): per sample, softmax over the present modalities of minus the
    entropy of each one's prediction. `set_weights` fixes them instead, as the released MLA does by default.
    """

    sharpness: Tensor
    preference: Tensor

    def __init__(self, names: Collection[str], width: int, num_classes: int):
        super().__init__()
        self.names = sorted(names)
        self.linear = nn.Linear(width, num_classes)
        self.register_buffer("sharpness", torch.ones(()))
        self.register_buffer("preference", torch.zeros(len(self.names)))

    def set_weights(self, weights: Mapping[str, float]) -> None:
        """Weigh every sample alike, by positive `weights`, one for each modality."""
        if set(weights) != set(self.names) or min(weights.values()) <= 0:
            raise ValueError(f"expected a positive weight for each of {self.names}, got {dict(weights)}")
        self.sharpness.zero_()
        self.preference.copy_(torch.tensor([weights[name] for name in self.names]).log())

    def weights(self, logits: Tensor, preference: Tensor) -> Tensor:
        """Logits (present, B, classes) and preference (present,) to weights (present, B) that sum to 1."""
        log_probability = logits.log_softmax(2)
        entropy = -(log_probability.exp() * log_probability).sum(2)
        return (preference.unsqueeze(1) - self.sharpness * entropy).softmax(0)

    def forward(self, encodings: Mapping[str, Tensor], keep: Collection[str]) -> Tensor:
        """name -> (B, width) to logits (B, classes)."""
        present = [name for name in self.names if name in keep]
        if not present:
            nothing: Tensor = self.linear(torch.zeros_like(encodings[self.names[0]]))
            return nothing
        logits = torch.stack([self.linear(encodings[name]) for name in present])
        preference = self.preference[[self.names.index(name) for name in present]]
        return (self.weights(logits, preference).unsqueeze(2) * logits).sum(0)


HEADS: dict[str, type[ConcatHead] | type[SumHead] | type[TensorHead] | type[SharedHead]] = {
    "concat": ConcatHead,
    "sum": SumHead,
    "tensor": TensorHead,
    "shared": SharedHead,
}


def make_head(
    head: str, names: Collection[str], width: int, num_classes: int
) -> ConcatHead | SumHead | TensorHead | SharedHead:
    """A fusion head by name: concat, sum, tensor or shared."""
    if head not in HEADS:
        raise ValueError(f"unknown head {head!r}; there are: {', '.join(HEADS)}")
    return HEADS[head](names, width, num_classes)
