"""VGMR: value-guided modality refinement before fusion, with the models, data and analyses around it."""

from vgmr.backbones import Classifier, PooledBackbone, TransformerBackbone
from vgmr.data import Batch, MultimodalData, load
from vgmr.objective import Objective
from vgmr.refiner import VGMR, Refinement

__version__ = "0.1.0"

__all__ = [
    "VGMR",
    "Batch",
    "Classifier",
    "MultimodalData",
    "Objective",
    "PooledBackbone",
    "Refinement",
    "TransformerBackbone",
    "load",
]
