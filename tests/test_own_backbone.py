"""The README's own backbone: it trains with value supervision, and its values move towards the contributions."""

import re
from pathlib import Path

import pytest
import torch

from vgmr.backbones import PooledBackbone
from vgmr.classifier import Classifier
from vgmr.contributions import contributions
from vgmr.fusion.base import Backbone
from vgmr.refiner import VGMR
from vgmr.refining.maps import masked_max

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


def test_an_encoder_of_ones_own_says_itself_whether_it_reads_means_alone():
    class Largest(PooledBackbone):
        def encode_one(self, name, x, mask):
            return self.encoder[name](masked_max(x, mask))

    class Said(Largest):
        averages = False

    dims = {"a": 2, "b": 3}
    before = VGMR(dims, 4, rank=0, norm="none", dropout=0.0)
    with pytest.raises(TypeError, match=r"^Largest has an encode_one of its own: say in the class whether that"):
        Classifier(before, Largest(dims, 2))
    model = Classifier(before, Said(dims, 2, dropout=0.0))
    features = {name: torch.randn(3, 4, dim) for name, dim in dims.items()}
    assert model.prefusion.steady
    torch.testing.assert_close(model.train()(features).logits, model.eval()(features).logits)
