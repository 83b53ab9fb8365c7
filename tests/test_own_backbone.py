"""The README's own backbone: it trains with value supervision, and its values move towards the contributions."""

import re
from pathlib import Path

import pytest
import torch

from vgmr.backbones import PooledBackbone
from vgmr.classifier import Classifier
from vgmr.contributions import contributions
from vgmr.data import load
from vgmr.fusion.base import Backbone
from vgmr.prefusion import Identity
from vgmr.refiner import VGMR
from vgmr.refining.maps import masked_max, masked_mean
from vgmr.systems import BACKBONES
from vgmr.training import fit

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README[README.index("## In front of your own model") :], re.S)


def distance(model, part):
    """Mean squared distance of the values to their targets, in evaluation mode."""
    with torch.no_grad():
        output = model.eval()(part.features, part.mask)
        gain = contributions(model.backbone, output.encodings, part.label, part.mask)
        return sum(
            float(((output.refinement.global_value[name] - torch.sigmoid(delta)) ** 2).mean())
            for name, delta in gain.items()
        ) / len(gain)


def test_the_readme_s_backbone_learns_what_each_modality_is_worth():
    code = next(block for block in BLOCKS if "class MyBackbone" in block)
    written = code[code.index("class MyBackbone") :].split("\n\n\n")[0].strip().splitlines()
    assert len(written) <= 20
    space: dict = {}
    exec(code, space)
    model, data = space["model"], space["data"]
    assert isinstance(model, Classifier) and isinstance(model.backbone, Backbone)
    taught = distance(model, data.validation)
    torch.manual_seed(0)
    untaught = Classifier(space["VGMR"](data.dims, 16), space["MyBackbone"](data.dims, len(data.classes)))
    space["fit"](untaught, data, epochs=10, seed=0, objective=space["Objective"](value_weight=0.0))
    assert taught < 0.5 * distance(untaught, data.validation)


def test_the_readme_s_system_trains_alone_and_behind_vgmr(tmp_path, monkeypatch):
    monkeypatch.setenv("VGMR_CACHE", str(tmp_path))
    space: dict = {}
    exec(next(block for block in BLOCKS if "refined = run" in block), space)
    assert space["alone"].prefusion_parameters == 0 < space["refined"].prefusion_parameters
    assert space["refined"].experiment.value_from == "summaries" and space["refined"].experiment.value_weight == 1


def test_what_a_backbone_lacks_is_said_in_one_line():
    class Bare(Backbone):
        def encode_one(self, name, x, mask):
            return x.mean(1)

    model = Bare({"a": 2}, 2)
    with pytest.raises(NotImplementedError, match=r"^Bare must define fuse, or fused and classify$"):
        model.fuse({"a": torch.zeros(1, 2)})
    with pytest.raises(NotImplementedError, match=r"^Backbone must define encode_one$"):
        Backbone({"a": 2}, 2).encode({"a": torch.zeros(1, 1, 2)}, None)


DIMS = {"a": 2, "b": 3}


def largest(self, name, x, mask):
    return self.encoder[name](masked_max(x, mask))


def largest_of_all(self, features, mask):
    return {name: largest(self, name, x, None if mask is None else mask[name]) for name, x in features.items()}


class Mixed:
    encode_one = largest


class Averaging(PooledBackbone):
    """Says nothing and writes nothing of its own."""


SILENT = {
    "its own encode_one": type("Own", (PooledBackbone,), {"encode_one": largest}),
    "its own encode": type("Own", (PooledBackbone,), {"encode": largest_of_all}),
    "of a subclass": type("Own", (Averaging,), {"encode_one": largest}),
    "mixed in": type("Own", (Mixed, PooledBackbone), {}),
    "below one of its own": type("Below", (type("Own", (PooledBackbone,), {"encode_one": largest}),), {}),
}


@pytest.mark.parametrize("kind", SILENT.values(), ids=SILENT)
def test_an_encoder_of_ones_own_is_never_given_means_in_place_of_sequences(kind):
    model = Classifier(VGMR(DIMS, 4, rank=0, norm="none", dropout=0.0), kind(DIMS, 2, dropout=0.0))
    features = {name: torch.randn(3, 4, dim) for name, dim in DIMS.items()}
    assert model.prefusion.steady and not model.backbone.averages
    trained, whole = model.train()(features), model.eval()(features)
    torch.testing.assert_close(trained.logits, whole.logits)
    assert trained.refinement.features["a"].shape == (3, 4, 2)


@pytest.mark.parametrize("name", BACKBONES)
def test_whoever_overrides_the_encoding_of_a_system_reads_more_than_means(name):
    assert BACKBONES[name].averages == (name == "pooled")
    assert not type("Own", (BACKBONES[name],), {"encode_one": largest}).averages
    assert not type("Own", (BACKBONES[name],), {"encode": largest_of_all}).averages
    assert type("Own", (BACKBONES[name],), {"encode_one": largest, "averages": True}).averages
    assert type("Own", (BACKBONES[name],), {"fuse": largest}).averages == (name == "pooled")


@pytest.mark.parametrize("before", [Identity, lambda dims: VGMR(dims, 4, rank=0, norm="none")])
def test_who_wrongly_says_that_means_are_enough_is_refused(before):
    data = load("synthetic", like="ave", samples=12, steps=3, padding=0.5)
    prefusion = before(data.dims)
    says = type("Says", (PooledBackbone,), {"encode_one": largest, "averages": True})
    with pytest.raises(
        ValueError, match=r"^Says says averages = True, and its encoding of 'audio' reads more"
    ) as error:
        fit(Classifier(prefusion, says(data.dims, len(data.classes))), data, epochs=1)
    assert "\n" not in str(error.value)
    means = {"encode_one": lambda self, name, x, mask: self.encoder[name](masked_mean(x, mask)), "averages": True}
    rightly = type("Rightly", (PooledBackbone,), means)(data.dims, len(data.classes))
    fit(Classifier(prefusion, rightly), data, epochs=1)
