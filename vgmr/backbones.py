"""Models behind the refiner: encode each modality by itself, then fuse; and the `Classifier` that holds all.

Modalities meet only in `fuse`, so an absent one is a matter of `fuse` alone: the encodings of the others stay
what they are, and "without m" needs no second pass. No encoder ever sees an all-False mask.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vgmr.refiner import Refinement, check_dims, check_like, masked_mean


class ConcatHead(nn.Module):
    """Concatenation and one linear layer; an absent modality is zero."""

    def __init__(self, names: Collection[str], width: int, num_classes: int):
        super().__init__()
        self.names = sorted(names)
        self.linear = nn.Linear(len(self.names) * width, num_classes)

    def forward(self, encodings: Mapping[str, Tensor], keep: Collection[str]) -> Tensor:
        """name -> (B, width) to logits (B, classes)."""
        parts = [encodings[name] if name in keep else torch.zeros_like(encodings[name]) for name in self.names]
        logits: Tensor = self.linear(torch.cat(parts, 1))
        return logits


class SumHead(nn.Module):
    """Sum of the encodings and one linear layer; an absent modality is left out of the sum."""

    def __init__(self, names: Collection[str], width: int, num_classes: int):
        super().__init__()
        self.names = sorted(names)
        self.linear = nn.Linear(width, num_classes)

    def forward(self, encodings: Mapping[str, Tensor], keep: Collection[str]) -> Tensor:
        """name -> (B, width) to logits (B, classes)."""
        present = [encodings[name] for name in self.names if name in keep]
        total = torch.stack(present).sum(0) if present else torch.zeros_like(encodings[self.names[0]])
        logits: Tensor = self.linear(total)
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

    def forward(self, encodings: Mapping[str, Tensor], keep: Collection[str]) -> Tensor:
        """name -> (B, width) to logits (B, classes)."""
        first = encodings[self.names[0]]
        product = first.new_ones(len(first), 1)
        for name in self.names:
            part = self.narrow[name](encodings[name])
            part = part if name in keep else torch.zeros_like(part)
            part = torch.cat([part.new_ones(len(part), 1), part], 1)
            product = (product.unsqueeze(2) * part.unsqueeze(1)).flatten(1)
        logits: Tensor = self.linear(product)
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


def make_head(head: str, names: Collection[str], width: int, num_classes: int) -> nn.Module:
    """A fusion head by name: concat, sum, tensor or shared."""
    if head not in HEADS:
        raise ValueError(f"unknown head {head!r}; there are: {', '.join(HEADS)}")
    return HEADS[head](names, width, num_classes)


class _HeadedBackbone(nn.Module):
    head: nn.Module

    def __init__(self, dims: Mapping[str, int], width: int):
        super().__init__()
        self.dims = check_dims(dims)
        self.width = width

    def encode_one(self, name: str, x: Tensor, mask: Tensor | None) -> Tensor:
        """One modality alone: (B, T_m, d_m) to (B, width)."""
        raise NotImplementedError

    def branch_modules(self, name: str) -> list[nn.Module]:
        """What serves the modality `name` alone."""
        raise NotImplementedError

    def shared_parameters(self) -> list[nn.Parameter]:
        """What encodes more than one modality."""
        raise NotImplementedError

    def encode(self, features: Mapping[str, Tensor], mask: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
        """name -> (B, T_m, d_m) to name -> (B, width)."""
        check_like(self, features)
        return {
            name: self.encode_one(name, features[name], None if mask is None else mask[name]) for name in self.dims
        }

    def head_parameters(self) -> list[nn.Parameter]:
        """What stands behind the encodings."""
        return list(self.head.parameters())

    def fuse(self, encodings: Mapping[str, Tensor], keep: Collection[str] | None = None) -> Tensor:
        """Encodings name -> (B, width) to logits (B, classes), with only the modalities `keep` present."""
        if keep is None:
            keep = self.dims
        unknown = sorted(set(keep) - set(self.dims))
        if unknown:
            raise ValueError(f"keep: unknown modalities {unknown}; there are {list(self.dims)}")
        logits: Tensor = self.head(encodings, keep)
        return logits


class PooledBackbone(_HeadedBackbone):
    """The paper's shallow "ResNet + Concat" model on given features: pool over time, one layer, head.

    Args:
        dims: feature dimension by modality name.
        num_classes: number of classes.
        width: of each modality's encoding.
        dropout: on the encodings.
        head: concat, sum, tensor or shared.
    """

    def __init__(
        self,
        dims: Mapping[str, int],
        num_classes: int,
        width: int = 64,
        dropout: float = 0.1,
        head: str = "concat",
    ):
        super().__init__(dims, width)
        self.encoder = nn.ModuleDict(
            {
                name: nn.Sequential(nn.Linear(dim, width), nn.GELU(), nn.Dropout(dropout))
                for name, dim in self.dims.items()
            }
        )
        self.head = make_head(head, self.dims, width, num_classes)

    def encode_one(self, name: str, x: Tensor, mask: Tensor | None) -> Tensor:
        """One modality alone: (B, T_m, d_m) to (B, width)."""
        encoding: Tensor = self.encoder[name](masked_mean(x, mask))
        return encoding

    def branch_modules(self, name: str) -> list[nn.Module]:
        """The layer of the modality `name`."""
        return [self.encoder[name]]

    def shared_parameters(self) -> list[nn.Parameter]:
        """None: here every modality has its own encoder."""
        return []


class TransformerBackbone(_HeadedBackbone):
    """The paper's Transformer: a linear map per modality, learned positions, one shared encoder, masked mean.

    The defaults give the paper's 0.72 M parameters at text 768, audio 74, vision 35 and 50 steps.

    Args:
        dims: feature dimension by modality name.
        num_classes: number of classes.
        max_length: longest sequence that will come.
        width, num_layers, num_heads, feedforward_dim: of the encoder (pre-norm, GELU).
        dropout: in the encoder.
        head: concat, sum, tensor or shared.
    """

    def __init__(
        self,
        dims: Mapping[str, int],
        num_classes: int,
        max_length: int = 50,
        width: int = 128,
        num_layers: int = 3,
        num_heads: int = 4,
        feedforward_dim: int = 512,
        dropout: float = 0.1,
        head: str = "concat",
    ):
        super().__init__(dims, width)
        self.project = nn.ModuleDict({name: nn.Linear(dim, width) for name, dim in self.dims.items()})
        self.position = nn.Parameter(0.02 * torch.randn(max_length, width))
        layer = nn.TransformerEncoderLayer(
            width, num_heads, feedforward_dim, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(
            layer, num_layers, norm=nn.LayerNorm(width), enable_nested_tensor=False
        )
        self.head = make_head(head, self.dims, width, num_classes)

    def encode_one(self, name: str, x: Tensor, mask: Tensor | None) -> Tensor:
        """One modality alone: (B, T_m, d_m) to (B, width).

        Raises:
            ValueError: a sequence longer than `max_length`.
        """
        if x.shape[1] > len(self.position):
            raise ValueError(f"{name}: {x.shape[1]} time steps, but max_length is {len(self.position)}")
        tokens = self.project[name](x) + self.position[: x.shape[1]]
        states = self.encoder(tokens, src_key_padding_mask=None if mask is None else ~mask)
        return masked_mean(states, mask)

    def branch_modules(self, name: str) -> list[nn.Module]:
        """The linear map of the modality `name`; all that follows serves every modality."""
        return [self.project[name]]

    def shared_parameters(self) -> list[nn.Parameter]:
        """Positions and encoder: their gradients are sums over modalities."""
        return [self.position, *self.encoder.parameters()]


class Output(NamedTuple):
    """logits (B, classes), encodings name -> (B, width), and what stood before fusion."""

    logits: Tensor
    encodings: dict[str, Tensor]
    refinement: Refinement


class Classifier(nn.Module):
    """A pre-fusion module in front of a backbone.

    Args:
        prefusion: VGMR or anything in `vgmr.prefusion`.
        backbone: `PooledBackbone` or `TransformerBackbone` for the same dims.
    """

    def __init__(self, prefusion: nn.Module, backbone: PooledBackbone | TransformerBackbone):
        super().__init__()
        if prefusion.dims != backbone.dims:
            raise ValueError(f"dims differ: prefusion has {prefusion.dims}, backbone has {backbone.dims}")
        self.prefusion = prefusion
        self.backbone = backbone

    def forward(
        self,
        features: Mapping[str, Tensor],
        mask: Mapping[str, Tensor] | None = None,
        keep: Collection[str] | None = None,
    ) -> Output:
        """Refine, encode, fuse.

        Args:
            features: name -> (B, T_m, d_m).
            mask: name -> (B, T_m) bool; None if all steps are real.
            keep: modalities that reach the fusion; None for all.
        """
        refinement = self.prefusion(features, mask)
        encodings = self.backbone.encode(refinement.features, mask)
        return Output(self.backbone.fuse(encodings, keep), encodings, refinement)

    def branch_modules(self, name: str) -> list[nn.Module]:
        """What belongs to the modality `name`: its part of the backbone, and of the pre-fusion module.

        Of the pre-fusion module, that is the entry `name` of every `nn.ModuleDict` over the modalities. In VGMR
        these are `maps[name]`, although the value encoder of one modality reads the summaries of the others: a
        loss of modality m alone has gradients in all maps.
        """
        keyed = [child for child in self.prefusion.children() if isinstance(child, nn.ModuleDict)]
        own = [child[name] for child in keyed if set(child) == set(self.backbone.dims)]
        return [*self.backbone.branch_modules(name), *own]

    def branch_parameters(self, name: str) -> list[nn.Parameter]:
        """The parameters of `branch_modules`; disjoint between modalities."""
        return [parameter for module in self.branch_modules(name) for parameter in module.parameters()]

    def shared_parameters(self) -> list[nn.Parameter]:
        """All that is neither in a branch nor in the head, such as the Transformer's one encoder."""
        owned = {id(parameter) for name in self.backbone.dims for parameter in self.branch_parameters(name)}
        before = [parameter for parameter in self.prefusion.parameters() if id(parameter) not in owned]
        return [*self.backbone.shared_parameters(), *before]

    def head_parameters(self) -> list[nn.Parameter]:
        """The parameters of the fusion head."""
        return self.backbone.head_parameters()

    def modulable(self, name: str) -> list[nn.Parameter]:
        """The weights of a branch that gradient modulation touches: of linear, convolution and attention layers.

        No biases, norms or embeddings.
        """
        left_out = (nn.Embedding, nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)
        return [
            parameter
            for branch in self.branch_modules(name)
            for module in branch.modules()
            if not isinstance(module, left_out)
            for parameter in module.parameters(recurse=False)
            if parameter.ndim >= 2
        ]
