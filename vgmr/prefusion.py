"""What else can stand in VGMR's place: the controls of the paper's Tables 1, 5 and 6, all shape-preserving."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from vgmr.fusion.base import check_sizes
from vgmr.refining.inputs import check_dims, check_inputs, check_like
from vgmr.refining.refinement import Refinement


def _silence_padding(features: dict[str, Tensor], masks: Mapping[str, Tensor | None]) -> Refinement:
    for name, real in masks.items():
        if real is not None:
            features[name] = features[name] * real.unsqueeze(2)
    return Refinement(features)


class Identity(nn.Module):
    """Nothing: the plain model behind."""

    def __init__(self, dims: Mapping[str, int]):
        super().__init__()
        self.dims = check_dims(dims)

    def forward(self, features: Mapping[str, Tensor], mask: Mapping[str, Tensor] | None = None) -> Refinement:
        """The features as they came, checked, with padding set to zero; they may be the memory that was given."""
        return Refinement(check_inputs(self.dims, features, mask)[0])


class FeatureMLP(nn.Module):
    """The paper's Concat+MLP: a two-layer MLP per modality and time step, d_m -> hidden_dim -> d_m.

    Args:
        dims: feature dimension by modality name.
        hidden_dim, dropout: of the hidden layer; `width_for_budget` finds the width for a number of parameters.
    """

    def __init__(self, dims: Mapping[str, int], hidden_dim: int, dropout: float = 0.1):
        super().__init__()
        self.dims = check_dims(dims)
        check_sizes("FeatureMLP", hidden_dim=hidden_dim)
        self.maps = nn.ModuleDict(
            {
                name: nn.Sequential(
                    nn.Linear(dim, hidden_dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden_dim, dim)
                )
                for name, dim in self.dims.items()
            }
        )

    def forward(self, features: Mapping[str, Tensor], mask: Mapping[str, Tensor] | None = None) -> Refinement:
        """name -> (B, T_m, d_m), from the same shapes."""
        checked, masks = check_inputs(self.dims, features, mask)
        check_like(self, checked)
        return _silence_padding({name: self.maps[name](x) for name, x in checked.items()}, masks)


class CrossAttention(nn.Module):
    """Each modality's steps attend to the steps of all others: LayerNorm(x + attention), Table 6.

    Args:
        dims: feature dimension by modality name, at least two.
        hidden_dim, num_heads: common width of queries, keys and values, and attention heads, which divide it.
        dropout: on the attended result.
    """

    def __init__(self, dims: Mapping[str, int], hidden_dim: int, num_heads: int = 4, dropout: float = 0.1):
        super().__init__()
        self.dims = check_dims(dims, at_least=2)
        check_sizes("CrossAttention", hidden_dim=hidden_dim, num_heads=num_heads)
        if hidden_dim % num_heads:
            raise ValueError(f"hidden_dim {hidden_dim} must be divisible by num_heads {num_heads}")
        self.project = nn.ModuleDict({name: nn.Linear(dim, hidden_dim) for name, dim in self.dims.items()})
        self.attention = nn.ModuleDict(
            {name: nn.MultiheadAttention(hidden_dim, num_heads, batch_first=True) for name in self.dims}
        )
        self.back = nn.ModuleDict({name: nn.Linear(hidden_dim, dim) for name, dim in self.dims.items()})
        self.norm = nn.ModuleDict({name: nn.LayerNorm(dim) for name, dim in self.dims.items()})
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: Mapping[str, Tensor], mask: Mapping[str, Tensor] | None = None) -> Refinement:
        """name -> (B, T_m, d_m), from the same shapes."""
        checked, masks = check_inputs(self.dims, features, mask)
        check_like(self, checked)
        projected = {name: self.project[name](x) for name, x in checked.items()}
        result = {}
        for name, x in checked.items():
            others = [other for other in self.dims if other != name]
            memory = torch.cat([projected[other] for other in others], 1)
            padding = None
            if mask is not None:
                padding = ~torch.cat([mask[other] for other in others], 1)
            attended, _ = self.attention[name](
                projected[name], memory, memory, key_padding_mask=padding, need_weights=False
            )
            result[name] = self.norm[name](x + self.dropout(self.back[name](attended)))
        return _silence_padding(result, masks)


class SigmoidTanhGate(nn.Module):
    """A generic gate per modality: W3 (sigmoid(W1 x) * tanh(W2 x)), Table 6.

    Args:
        dims: feature dimension by modality name.
        hidden_dim: width of both branches; `width_for_budget` finds it for a number of parameters.
        dropout: on the gated branch.
    """

    def __init__(self, dims: Mapping[str, int], hidden_dim: int, dropout: float = 0.1):
        super().__init__()
        self.dims = check_dims(dims)
        check_sizes("SigmoidTanhGate", hidden_dim=hidden_dim)
        self.openness = nn.ModuleDict({name: nn.Linear(dim, hidden_dim) for name, dim in self.dims.items()})
        self.content = nn.ModuleDict({name: nn.Linear(dim, hidden_dim) for name, dim in self.dims.items()})
        self.back = nn.ModuleDict({name: nn.Linear(hidden_dim, dim) for name, dim in self.dims.items()})
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: Mapping[str, Tensor], mask: Mapping[str, Tensor] | None = None) -> Refinement:
        """name -> (B, T_m, d_m), from the same shapes."""
        checked, masks = check_inputs(self.dims, features, mask)
        check_like(self, checked)
        result = {}
        for name, x in checked.items():
            gated = torch.sigmoid(self.openness[name](x)) * torch.tanh(self.content[name](x))
            result[name] = self.back[name](self.dropout(gated))
        return _silence_padding(result, masks)


def count_parameters(module: nn.Module) -> int:
    """Number of trainable values."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def width_for_budget(build: Callable[[int], nn.Module], budget: int, multiple: int = 1) -> int:
    """The width whose module comes nearest to `budget` parameters; no memory is taken.

    Args:
        build: width -> module, its size growing with the width.
        budget: wanted number of parameters.
        multiple: the width must be a multiple of this, such as the number of heads.
    """

    def size(steps: int) -> int:
        with torch.device("meta"):
            return count_parameters(build(steps * multiple))

    low, high = 1, 2
    while size(high) < budget:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if size(middle) < budget else (low, middle)
    return multiple * min((low, high), key=lambda steps: abs(size(steps) - budget))
