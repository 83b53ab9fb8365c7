"""The `Classifier`: what stands before fusion, in front of a backbone."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn

from vgmr.fusion.base import Backbone
from vgmr.refining.refinement import Refinement


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
