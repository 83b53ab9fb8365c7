"""Small batches and models of two modalities, of which one sequence is padded and one corrupted."""

import torch

from vgmr.backbones import PooledBackbone, TransformerBackbone
from vgmr.classifier import Classifier
from vgmr.data import Batch
from vgmr.prefusion import Identity

DIMS = {"sound": 3, "video": 2}


def batch(size: int = 6, padded: bool = True) -> Batch:
    generator = torch.Generator().manual_seed(0)
    features = {name: torch.randn(size, 4, dim, generator=generator) for name, dim in DIMS.items()}
    mask = {name: torch.ones(size, 4, dtype=torch.bool) for name in DIMS}
    if padded:
        mask["sound"][0, 2:] = False
        features["sound"][0, 2:] = 0
    corrupted = {name: torch.zeros(size, 1, 1, dtype=torch.bool) for name in DIMS}
    corrupted["video"][3] = True
    return Batch(features, mask, torch.zeros(size, dtype=torch.int64), corrupted=corrupted)


def labelled_batch() -> Batch:
    part = batch()
    return Batch(part.features, part.mask, torch.tensor([0, 1, 0, 1, 1, 0]))


def pooled() -> Classifier:
    torch.manual_seed(0)
    return Classifier(Identity(DIMS), PooledBackbone(DIMS, 2, width=3))


def transformer(prefusion=Identity, classes: int = 2, seed: int = 0, **shape: int) -> Classifier:
    torch.manual_seed(seed)
    shape = {"max_length": 5, "width": 4, "num_layers": 1, "num_heads": 2, "feedforward_dim": 6, **shape}
    return Classifier(prefusion(DIMS), TransformerBackbone(DIMS, classes, **shape))
