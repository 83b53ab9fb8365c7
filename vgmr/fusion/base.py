"""`Backbone`: what a model behind the refiner must be, with everything but encoding and fusion given."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vgmr.refining.inputs import check_dims, check_like, is_weight, is_whole, shown
from vgmr.refining.maps import masked_mean


class Backbone(nn.Module):
    """Encode each modality by itself, then fuse: a subclass writes `encode_one` and `fuse`, the rest follows.

    Removal, contributions, Shapley values and balancing methods rest on three rules. `encode_one` sees one
    modality only, so "without m" needs no second encoding. An absent modality was never measured, which is not
    the same as zero features: `fuse` with `keep=()` gives finite outputs, the same for all samples, and an absent
    encoding has no effect whatever it holds. Padding (mask False) has none either, and BatchNorm stands in
    `encode_one` only.

    Attributes:
        dims: feature dimension by modality name.
        num_outputs: classes, or 1 for regression.
        width: of `vectors`; None where modalities differ, and methods that need one width then refuse.
        averages: `encode` reads the mean over time and nothing else; False in a subclass that writes `encode_one`
            or `encode` and does not say so itself. `fit` refuses a class that says so wrongly.
        readout: concat, sum, tensor or shared where the outputs are one linear layer on that; else opaque.

    Args:
        dims, num_outputs: as above.
        width: as above.
        at_least: fewest modalities for which the system is defined.
    """

    averages = False
    readout = "opaque"

    def __init_subclass__(cls, **options: Any):
        super().__init_subclass__(**options)
        said, *written = (
            next(place for place, kind in enumerate(cls.__mro__) if what in vars(kind))
            for what in ("averages", "encode_one", "encode")
        )
        if min(written) < said:  # what a parent says is of the parent's encoding
            cls.averages = False

    def __init__(self, dims: Mapping[str, int], num_outputs: int, width: int | None = None, at_least: int = 1):
        super().__init__()
        if dims and len(dims) < at_least:
            raise ValueError(
                f"{type(self).__name__} lets modalities meet and needs at least {at_least}, got {list(dims)}"
            )
        check_sizes(type(self).__name__, num_outputs=num_outputs, width=1 if width is None else width)
        self.dims = check_dims(dims)
        self.names = sorted(self.dims)
        self.num_outputs = num_outputs
        self.width = width

    def encode_one(self, name: str, x: Tensor, mask: Tensor | None) -> Tensor:
        """One modality alone: (B, T_m, d_m) and (B, T_m) bool to (B, width), or to a sequence (B, T_m, w_m)."""
        raise NotImplementedError(f"{type(self).__name__} must define encode_one")

    def encode(self, features: Mapping[str, Tensor], mask: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
        """name -> (B, T_m, d_m) to name -> what `encode_one` gives."""
        check_like(self, features)
        return {
            name: self.encode_one(name, features[name], None if mask is None else mask[name]) for name in self.dims
        }

    def vectors(
        self, encodings: Mapping[str, Tensor], mask: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """One vector per sample and modality, name -> (B, width), for any subset of names: masked means."""
        return {
            name: x if x.ndim == 2 else masked_mean(x, None if mask is None else mask[name])
            for name, x in encodings.items()
        }

    def fused(
        self,
        encodings: Mapping[str, Tensor],
        keep: Collection[str] | None = None,
        mask: Mapping[str, Tensor] | None = None,
    ) -> Tensor | None:
        """What the last layers read, (B, w), so that `fuse` is `classify` of it; None where there is no such."""
        return None

    def classify(self, fused: Tensor) -> Tensor:
        """The last layers: (B, w) to (B, num_outputs)."""
        raise NotImplementedError(f"{type(self).__name__} must define fuse, or fused and classify")

    def fuse(
        self,
        encodings: Mapping[str, Tensor],
        keep: Collection[str] | None = None,
        mask: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Encodings to outputs (B, num_outputs), with only the modalities `keep` present (None: all)."""
        fused = self.fused(encodings, keep, mask)
        if fused is None:
            raise NotImplementedError(f"{type(self).__name__} must define fuse, or fused and classify")
        return self.classify(fused)

    def fuse_many(
        self,
        encodings: Mapping[str, Tensor],
        keeps: Sequence[Collection[str]],
        mask: Mapping[str, Tensor] | None = None,
    ) -> list[Tensor]:
        """`fuse` for several subsets; systems override it to compute once what subsets have in common."""
        return [self.fuse(encodings, keep, mask) for keep in keeps]

    def auxiliary_loss(
        self, encodings: Mapping[str, Tensor], mask: Mapping[str, Tensor] | None, label: Tensor
    ) -> dict[str, Tensor]:
        """The system's own loss terms, scalars, already weighted; none by default."""
        return {}

    def branch_modules(self, name: str) -> list[nn.Module]:
        """What serves the modality `name` alone: by default its entry in every `nn.ModuleDict` over modalities."""
        keyed = [child for child in self.children() if isinstance(child, nn.ModuleDict)]
        return [child[name] for child in keyed if set(child) == set(self.dims)]

    def shared_parameters(self) -> list[nn.Parameter]:
        """What encodes more than one modality; none by default."""
        return []

    def head_parameters(self) -> list[nn.Parameter]:
        """All that is neither in a branch nor shared."""
        owned = {id(parameter) for parameter in self.shared_parameters()}
        owned |= {id(p) for name in self.dims for branch in self.branch_modules(name) for p in branch.parameters()}
        return [parameter for parameter in self.parameters() if id(parameter) not in owned]

    def present(self, keep: Collection[str] | None) -> list[str]:
        """The names in `keep`, sorted; ValueError for one that is unknown, or a single text."""
        if keep is None:
            return self.names
        if isinstance(keep, str):
            raise ValueError(f"keep: expected several names, such as [{keep!r}], got the text {keep!r}")
        kept = set(keep)
        if unknown := sorted(kept - set(self.dims)):
            raise ValueError(f"keep: unknown modalities {unknown}; there are {list(self.dims)}")
        return [name for name in self.names if name in kept]


def check_sizes(kind: str = "", /, **sizes: Any) -> None:
    """ValueError in one line, for the system `kind`, where a size is no whole number of at least 1."""
    for what, size in sizes.items():
        if not is_whole(size):
            place = kind and f"{kind}: "
            raise ValueError(f"{place}{what} must be at least 1, got {shown(size)}; give a whole number")


def check_heads(kind: str, width: int, num_heads: int) -> None:
    """ValueError in one line, for the system `kind`, where attention heads do not divide the width."""
    check_sizes(kind, width=width, num_heads=num_heads)
    if width % num_heads:
        raise ValueError(f"{kind}: width must be divisible by num_heads, got {width} and {num_heads}")


def check_weights(kind: str = "", /, **weights: Any) -> None:
    """ValueError in one line, for `kind`, where a weight is no finite number of at least 0."""
    for what, weight in weights.items():
        if not is_weight(weight):
            raise ValueError(f"{kind and f'{kind}: '}{what} must be a number of at least 0, got {shown(weight)}")


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode within, each module's own mode after: no chance between two subsets of one batch."""
    training = [part for part in module.modules() if part.training]
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True


def last_real(x: Tensor, mask: Tensor | None) -> Tensor:
    """The last real step of (B, T, w): (B, w)."""
    if mask is None:
        return x[:, -1]
    return x[torch.arange(x.shape[0], device=x.device), mask.sum(1) - 1]


def unknown_names(chosen: Collection[str], dims: Mapping[str, int]) -> bool:
    """Whether a choice of modalities is a single text, or has a name that is neither in `dims` nor "text"."""
    return isinstance(chosen, str) or not set(chosen) <= {"text", *dims}


def find_anchor(dims: Mapping[str, int], anchor: str | None, kind: str) -> str:
    """The modality through which the others meet: as named, else "text".

    Raises:
        ValueError: it is not among `dims`, or nothing is beside it; said for the system `kind`.
    """
    chosen = "text" if anchor is None else anchor
    if chosen not in dims:
        raise ValueError(f"{kind} needs an anchor modality; give anchor=..., one of {list(dims)}, got {chosen!r}")
    if len(dims) < 2:
        raise ValueError(f"{kind} lets others meet an anchor and needs at least 2, got {list(dims)}")
    return chosen
