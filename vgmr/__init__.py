"""VGMR, the Value-Gated Modality Refiner (arXiv 2606.02679), with the models, data and analyses around it.

Names below are imported when they are first used, so that `import vgmr` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vgmr.backbones import PooledBackbone, TransformerBackbone
    from vgmr.classifier import Classifier
    from vgmr.comparison import compare
    from vgmr.data import Batch, MultimodalData, load
    from vgmr.fusion.base import Backbone
    from vgmr.inference import predict
    from vgmr.objective import Objective
    from vgmr.refiner import VGMR
    from vgmr.refining.refinement import Refinement
    from vgmr.runs import run
    from vgmr.settings import Experiment
    from vgmr.training import fit

__version__ = "0.1.0"

_PLACES = {
    "VGMR": "vgmr.refiner",
    "Backbone": "vgmr.fusion.base",
    "Batch": "vgmr.data",
    "Classifier": "vgmr.classifier",
    "Experiment": "vgmr.settings",
    "MultimodalData": "vgmr.data",
    "Objective": "vgmr.objective",
    "PooledBackbone": "vgmr.backbones",
    "Refinement": "vgmr.refining.refinement",
    "TransformerBackbone": "vgmr.backbones",
    "compare": "vgmr.comparison",
    "fit": "vgmr.training",
    "load": "vgmr.data",
    "predict": "vgmr.inference",
    "run": "vgmr.runs",
}

__all__ = [
    "VGMR",
    "Backbone",
    "Batch",
    "Classifier",
    "Experiment",
    "MultimodalData",
    "Objective",
    "PooledBackbone",
    "Refinement",
    "TransformerBackbone",
    "compare",
    "fit",
    "load",
    "predict",
    "run",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'vgmr' has no attribute {name!r}; there are: {', '.join(__all__)}")
    value = getattr(import_module(_PLACES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
