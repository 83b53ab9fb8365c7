"""One pass: it answers as the model does, in evaluation mode, and leaves every mode as it was."""

import pytest
import torch
import torch.nn.functional as F

from vgmr.backbones import PooledBackbone
from vgmr.classifier import Classifier
from vgmr.data import load
from vgmr.fusion.base import evaluating
from vgmr.inference import (
    encode_all,
    mean_loss,
    one_pass,
    predict,
    shapley_weights,
    subset_logits,
    subsets,
)
from vgmr.refiner import VGMR

DATA = load("synthetic", like="mosi", samples=30, steps=3)
PART = DATA.train


@pytest.fixture
def model() -> Classifier:
    torch.manual_seed(0)
    return Classifier(VGMR(DATA.dims, 4), PooledBackbone(DATA.dims, 2, width=4)).train()


def test_every_module_gets_its_own_mode_back_even_after_an_exception(model):
    model.backbone.eval()
    model.prefusion.maps["text"].eval()
    before = [module.training for module in model.modules()]
    assert len(set(before)) == 2
    with pytest.raises(KeyError), evaluating(model):
        assert not any(module.training for module in model.modules())
        raise KeyError
    assert [module.training for module in model.modules()] == before


@pytest.mark.parametrize("function", [predict, encode_all, mean_loss, subset_logits])
def test_a_pass_that_fails_leaves_the_modes(model, function):
    with pytest.raises(ValueError, match="expected features of shape"):
        function(model, PART.__class__({n: x[..., :1] for n, x in PART.features.items()}, PART.mask, PART.label))
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_the_pass_is_the_models_own_in_evaluation_mode(model, batch_size):
    with torch.no_grad(), evaluating(model):
        output = model(PART.features, PART.mask)
        without = model(PART.features, PART.mask, ["text"]).logits
    torch.testing.assert_close(predict(model, PART, batch_size=batch_size), output.logits)
    torch.testing.assert_close(predict(model, PART, ["text"], batch_size), without)
    for name, encoding in encode_all(model, PART, batch_size).items():
        torch.testing.assert_close(encoding, output.encodings[name])
        assert not encoding.requires_grad and not encoding.is_inference(), "methods may train on them"
    expected = float(F.cross_entropy(output.logits, PART.label))
    assert mean_loss(model, PART, batch_size) == pytest.approx(expected, abs=1e-5)
    logits = subset_logits(model, PART, batch_size)
    names = list(logits)
    assert (names[0], names[-1], len(names)) == ("text+audio+vision", "", 8)
    torch.testing.assert_close(logits["text"], without)


def test_batches_come_in_order_and_once(model):
    labels = one_pass(model, PART, lambda output, batch: batch.label, batch_size=4)
    assert torch.cat(labels).equal(PART.label) and max(map(len, labels)) == 4


def test_shares_of_an_additive_game_are_its_parts():
    worth = {"a": 1.0, "b": -2.0, "c": 4.0}
    game = torch.tensor([sum(worth[name] for name in kept) for kept in subsets("abc")])
    assert (shapley_weights("abc").T @ game).tolist() == pytest.approx(list(worth.values()))


def test_names_to_keep_may_come_one_by_one(model):
    kept = predict(model, PART, keep=["text"], batch_size=8)
    assert torch.equal(predict(model, PART, keep=(name for name in ["text"]), batch_size=8), kept)
    assert torch.equal(model.eval()(PART.features, PART.mask, (name for name in ["text"])).logits[:8], kept[:8])
