"""Several seeds in one pass: each takes the steps that it takes alone."""

import inspect

import pytest
import torch
from test_training import CLASSES, DIMS, made
from torch import nn

from vgmr import VGMR, Classifier, Objective, PooledBackbone, TransformerBackbone
from vgmr.prefusion import CrossAttention, FeatureMLP, Identity
from vgmr.training import _fit, fit, fit_seeds

PREFUSIONS = {
    "plain": lambda dropout: Identity(DIMS),
    "mlp": lambda dropout: FeatureMLP(DIMS, 4, dropout),
    "vgmr": lambda dropout: VGMR(DIMS, 6, dropout=dropout),
    "cheap vgmr": lambda dropout: VGMR(DIMS, 6, dropout=dropout, rank=2, sharing=True, sparsity=0.5),
    "steady vgmr": lambda dropout: VGMR(DIMS, 6, dropout=dropout, rank=0, norm="none"),
    "attention": lambda dropout: CrossAttention(DIMS, 4, dropout=dropout),
}
BACKBONES = {
    "pooled": lambda dropout: PooledBackbone(DIMS, CLASSES, width=8, dropout=dropout),
    "transformer": lambda dropout: TransformerBackbone(DIMS, CLASSES, 14, 8, 2, 2, 16, dropout=dropout),
}


def models(
    count: int, prefusion: str = "vgmr", backbone: str = "pooled", dropout: float = 0.0
) -> list[Classifier]:
    made = []
    for seed in range(count):
        torch.manual_seed(seed)
        made.append(Classifier(PREFUSIONS[prefusion](dropout), BACKBONES[backbone](dropout)))
    return made


def distance(one: nn.Module, other: nn.Module) -> float:
    """Largest difference of weights. Biases of attention's keys are left out: they change no softmax, so their
    gradients are rounding errors, of which Adam makes whole steps.
    """
    largest = 0.0
    for (name, a), b in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        if name.endswith("in_proj_bias"):
            query, _, value = (a - b).chunk(3)
            largest = max(largest, float(query.abs().max()), float(value.abs().max()))
        else:
            largest = max(largest, float((a - b).abs().max()))
    return largest


def assert_as_alone(together, alone, histories, others):
    assert max(map(distance, together, alone)) < 1e-4
    for history, other in zip(histories, others, strict=True):
        assert history.train_loss == pytest.approx(other.train_loss, rel=1e-5)
        assert history.validation_loss == pytest.approx(other.validation_loss, rel=1e-4)
        assert history.best_epoch == other.best_epoch


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("prefusion", PREFUSIONS)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"length_buckets": True, "batch_size": 16},
        {"optimizer": "sgd", "learning_rate": 0.01},
        {"prefusion_learning_rate": 3e-3, "weight_decay": 0.3},
        {"objective": Objective(removal="before", value_weight=1.0, warmup_epochs=2)},
    ],
    ids=["adamw", "buckets", "sgd", "rates", "before"],
)
def test_a_seed_of_several_is_the_seed_alone(prefusion, backbone, settings):
    data, seeds = made(), [5, 6, 7]
    together, alone = models(3, prefusion, backbone), models(3, prefusion, backbone)
    histories = fit_seeds(together, data, seeds, epochs=1, **settings)
    others = [fit(model, data, seed=seed, epochs=1, **settings) for model, seed in zip(alone, seeds, strict=True)]
    assert_as_alone(together, alone, histories, others)
    assert distance(together[0], models(1, prefusion, backbone)[0]) > 1e-3, "it has moved"
    assert not any(model.training for model in together)
    assert histories[0].together == seeds and others[0].together == []


def test_settings_have_the_same_defaults():
    one, many = inspect.signature(fit).parameters, inspect.signature(_fit).parameters
    shared = set(one) - {"model", "seed"}
    assert shared == set(many) - {"models", "seeds"}
    assert all(one[name].default == many[name].default for name in shared)
