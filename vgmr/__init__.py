"""VGMR, the Value-Gated Modality Refiner (arXiv 2606.02679), with the models, data and analyses around it.

Names below are imported when they are first used, so that `import vgmr` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vgmr.backbones import PooledBackbone as PooledBackbone
    from vgmr.backbones import TransformerBackbone as TransformerBackbone
    from vgmr.classifier import Classifier as Classifier
    from vgmr.comparison import compare as compare
    from vgmr.data import Batch as Batch
    from vgmr.data import MultimodalData as MultimodalData
    from vgmr.data import load as load
    from vgmr.fusion.base import Backbone as Backbone
    from vgmr.inference import predict as predict
    from vgmr.objective import Objective as Objective
    from vgmr.refiner import VGMR as VGMR
    from vgmr.refining.refinement import Refinement as Refinement
    from vgmr.runs import run as run
    from vgmr.settings import Experiment as Experiment
    from vgmr.training import fit as fit

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

__all__ = list(_PLACES)


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'vgmr' has no attribute {name!r}; there are: {', '.join(__all__)}")
    value = getattr(import_module(_PLACES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
