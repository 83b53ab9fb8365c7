"""All backbones and fusion systems by name."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from typing import Any

from vgmr.backbones import PooledBackbone, TransformerBackbone
from vgmr.fusion.base import Backbone
from vgmr.fusion.confidence import ConfidenceExperts
from vgmr.fusion.crossmodal import CrossmodalTransformer
from vgmr.fusion.gated_unit import GatedUnit
from vgmr.fusion.low_rank import LowRankFusion
from vgmr.fusion.mag import MAG
from vgmr.fusion.misa import MISA
from vgmr.fusion.pre_gating import PreGating
from vgmr.fusion.supervised_concat import InfoMaxConcat, SelfSupervisedConcat
from vgmr.fusion.tensor_fusion import TensorFusion
from vgmr.fusion.text_enhanced import TextEnhancedFusion

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
