"""Models behind the refiner: encode each modality by itself, then fuse; and the `Classifier` that holds all.

Modalities meet only in `fuse`, so an absent one is a matter of `fuse` alone: the encodings of the others stay
what they are, and "without m" needs no second pass. No encoder ever sees an all-False mask.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vgmr.fusion.base import Backbone
from vgmr.fusion.confidence import ConfidenceExperts
from vgmr.fusion.crossmodal import CrossmodalTransformer
from vgmr.fusion.gated_unit import GatedUnit
from vgmr.fusion.heads import ConcatHead, SharedHead, SumHead, TensorHead, make_head
from vgmr.fusion.low_rank import LowRankFusion
from vgmr.fusion.mag import MAG
from vgmr.fusion.misa import MISA
from vgmr.fusion.pre_gating import PreGating
from vgmr.fusion.supervised_concat import InfoMaxConcat, SelfSupervisedConcat
from vgmr.fusion.tensor_fusion import TensorFusion
from vgmr.fusion.text_enhanced import TextEnhancedFusion
from vgmr.refiner import Refinement, masked_mean


class _HeadedBackbone(Backbone):
    head: ConcatHead | SumHead | TensorHead | SharedHead

    def __init__(self, dims: Mapping[str, int], num_outputs: int, width: int, head: str):
        super().__init__(dims, num_outputs, width)
        self.readout = head

    def fused(
        self,
        encodings: Mapping[str, Tensor],
        keep: Collection[str] | None = None,
        mask: Mapping[str, Tensor] | None = None,
    ) -> Tensor | None:
        """What the linear layer of the head reads; None for the shared head, which has several logits to weigh."""
        if isinstance(self.head, SharedHead):
            return None
        return self.head.join(encodings, self.present(keep))

    def classify(self, fused: Tensor) -> Tensor:
        """The linear layer of the head."""
        logits: Tensor = self.head.linear(fused)
        return logits

    def fuse(
        self,
        encodings: Mapping[str, Tensor],
        keep: Collection[str] | None = None,
        mask: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Encodings name -> (B, width) to logits (B, num_outputs), with only the modalities `keep` present."""
        logits: Tensor = self.head(encodings, self.present(keep))
        return logits


class PooledBackbone(_HeadedBackbone):
    """The paper's shallow "ResNet + Concat" model on given features: pool over time, one layer, head.

    Args:
        dims: feature dimension by modality name.
        num_outputs: classes, or 1 for regression.
        width: of each modality's encoding.
        dropout: on the encodings.
        head: concat, sum, tensor or shared.
    """

    averages = True

    def __init__(
        self,
        dims: Mapping[str, int],
        num_outputs: int,
        width: int = 64,
        dropout: float = 0.1,
        head: str = "concat",
    ):
        super().__init__(dims, num_outputs, width, head)
        self.encoder = nn.ModuleDict(
            {
                name: nn.Sequential(nn.Linear(dim, width), nn.GELU(), nn.Dropout(dropout))
                for name, dim in self.dims.items()
            }
        )
        self.head = make_head(head, self.dims, width, num_outputs)

    def encode_one(self, name: str, x: Tensor, mask: Tensor | None) -> Tensor:
        """One modality alone: (B, T_m, d_m) to (B, width)."""
        encoding: Tensor = self.encoder[name](masked_mean(x, mask))
        return encoding


class TransformerBackbone(_HeadedBackbone):
    """The paper's Transformer: a linear map per modality, learned positions, one shared encoder, masked mean.

    The defaults give the paper's 0.72 M parameters at text 768, audio 74, vision 35 and 50 steps.

    Args:
        dims: feature dimension by modality name.
        num_outputs: classes, or 1 for regression.
        max_length: longest sequence that will come.
        width, num_layers, num_heads, feedforward_dim: of the encoder (pre-norm, GELU).
        dropout: in the encoder.
        head: concat, sum, tensor or shared.
    """

    def __init__(
        self,
        dims: Mapping[str, int],
        num_outputs: int,
        max_length: int = 50,
        width: int = 128,
        num_layers: int = 3,
        num_heads: int = 4,
        feedforward_dim: int = 512,
        dropout: float = 0.1,
        head: str = "concat",
    ):
        super().__init__(dims, num_outputs, width, head)
        self.project = nn.ModuleDict({name: nn.Linear(dim, width) for name, dim in self.dims.items()})
        self.position = nn.Parameter(0.02 * torch.randn(max_length, width))
        layer = nn.TransformerEncoderLayer(
            width, num_heads, feedforward_dim, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(
            layer, num_layers, norm=nn.LayerNorm(width), enable_nested_tensor=False
        )
        self.head = make_head(head, self.dims, width, num_outputs)

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
    """What a `Classifier` gives.

    Attributes:
        logits: (B, num_outputs).
        encodings: name -> (B, width), or a sequence (B, T_m, w_m) where modalities meet as such.
        refinement: what stood before fusion.
        vectors: name -> (B, width), one vector per sample and modality; the encodings where they are that already.
        mask: name -> (B, T_m) bool, as it came.
        fused: (B, w), what the backbone's last layers read; None where it has none.
    """

    logits: Tensor
    encodings: dict[str, Tensor]
    refinement: Refinement
    vectors: dict[str, Tensor] = {}  # noqa: RUF012
    mask: Mapping[str, Tensor] | None = None
    fused: Tensor | None = None


def _takes(function: Callable[..., Any], count: int) -> bool:
    """Whether a function can be called with so many arguments."""
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError:
        return False
    return True


class Classifier(nn.Module):
    """A pre-fusion module in front of a backbone.

    Args:
        prefusion: VGMR or anything in `vgmr.prefusion`.
        backbone: any `Backbone` for the same dims.

    Raises:
        TypeError: one of the two is something else.
        ValueError: their dims differ.
    """

    def __init__(self, prefusion: nn.Module, backbone: Backbone):
        super().__init__()
        if isinstance(prefusion, Backbone) or not hasattr(prefusion, "dims"):
            raise TypeError(
                "Classifier(prefusion, backbone): expected VGMR or another pre-fusion module, which has dims, got "
                f"{type(prefusion).__name__}"
            )
        if not isinstance(backbone, Backbone):
            raise TypeError(
                "Classifier(prefusion, backbone): expected a subclass of vgmr.Backbone, got "
                f"{type(backbone).__name__}"
            )
        if not _takes(backbone.fuse, 3):
            raise TypeError(
                f"{type(backbone).__name__}: expected fuse(encodings, keep=None, mask=None), got "
                f"fuse{inspect.signature(backbone.fuse)}"
            )
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

        In training a gate that is the same at all steps is put on the means that the backbone would take, where it
        reads nothing else; `refinement` then holds (B, 1, d_m).

        Args:
            features: name -> (B, T_m, d_m).
            mask: name -> (B, T_m) bool; None if all steps are real.
            keep: modalities that reach the fusion; None for all.
        """
        if self.training and self.backbone.averages and getattr(self.prefusion, "steady", False):
            refinement = self.prefusion(features, mask, pooled=True)
            encodings = self.backbone.encode(refinement.features, None)
        else:
            refinement = self.prefusion(features, mask)
            encodings = self.backbone.encode(refinement.features, mask)
        fused = self.backbone.fused(encodings, keep, mask)
        logits = self.backbone.fuse(encodings, keep, mask) if fused is None else self.backbone.classify(fused)
        return Output(logits, encodings, refinement, self.backbone.vectors(encodings, mask), mask, fused)

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


BACKBONES: dict[str, type[Backbone]] = {
    "pooled": PooledBackbone,
    "transformer": TransformerBackbone,
    "tfn": TensorFusion,
    "lmf": LowRankFusion,
    "mult": CrossmodalTransformer,
    "gmu": GatedUnit,
    "pcag": PreGating,
    "misa": MISA,
    "mag": MAG,
    "mmim": InfoMaxConcat,
    "self-mm": SelfSupervisedConcat,
    "tetfn": TextEnhancedFusion,
    "conf-moe": ConfidenceExperts,
}


def make_backbone(name: str, dims: Mapping[str, int], num_outputs: int, **options: Any) -> Backbone:
    """A backbone by name.

    Args:
        name: a key of `BACKBONES`.
        dims: feature dimension by modality name.
        num_outputs: classes, or 1 for regression.
        options: further arguments of the backbone's class.

    Raises:
        ValueError: an unknown name or option, with the list of those that exist, or dims that the system refuses.
    """
    check_options(name, options)
    return BACKBONES[name](dims, num_outputs, **options)


def check_options(name: str, options: Collection[str]) -> None:
    """Raise ValueError for an unknown backbone, or options that it does not have, with those that exist."""
    if name not in BACKBONES:
        raise ValueError(f"unknown backbone {name!r}; there are: {', '.join(BACKBONES)}")
    known = list(inspect.signature(BACKBONES[name]).parameters)[2:]
    unknown = ", ".join(sorted(set(options) - set(known)))
    if unknown:
        raise ValueError(f"unknown option {unknown} of backbone {name!r}; there are: {', '.join(known) or 'none'}")
