"""Removals: as tidy rows by hand, of a modality that carries nothing, and in front of the refiner."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from vgmr.analysis.removal import removal_by_place, removal_claims, removal_values, with_idle_modality
from vgmr.backbones import PooledBackbone
from vgmr.classifier import Classifier
from vgmr.comparison import differences
from vgmr.data import MultimodalData, load
from vgmr.evaluation import shapley
from vgmr.inference import subset_logits
from vgmr.prefusion import Identity
from vgmr.refiner import VGMR
from vgmr.training import fit


def run(seed, accuracy, game=None):
    return SimpleNamespace(
        experiment=SimpleNamespace(seed=seed), metrics={"accuracy": accuracy}, subset_accuracy=game or {}
    )


def games(*found):
    """Runs of two seeds with modalities a and b: accuracy with both, with a alone, with b alone."""
    return [run(s, both, {"a+b": both, "a": a, "b": b, "": 0.5}) for s, (both, a, b) in enumerate(found)]


RUNS = {
    ("VGMR, calibrated", ""): games((0.9, 0.8, 0.6), (0.8, 0.75, 0.5)),
    ("VGMR, calibrated", "b"): [run(0, 0.85), run(1, 0.8)],
    ("ogm-ge", ""): games((0.7, 0.8, 0.5), (0.6, 0.75, 0.5)),
}


def test_values_are_by_method_way_and_modality():
    table = removal_values(RUNS).set_index(["method", "way", "modality", "seed"])
    assert table.loc["VGMR, calibrated", "all", "", 0].tolist() == [0.9, 0.0]
    assert table.loc["VGMR, calibrated", "zeroed", "a", 1].tolist() == pytest.approx([0.5, -0.3])
    assert table.loc["VGMR, calibrated", "retrained", "b", 0].tolist() == pytest.approx([0.85, -0.05])
    assert table.loc["ogm-ge", "zeroed", "b", 0].tolist() == pytest.approx([0.8, 0.1])
    assert len(table) == 2 * (3 + 1 + 3)


def test_the_claims_by_hand():
    claims = removal_claims(removal_values(RUNS), "a")
    keys = ["claim", "method", "way", "modality"]
    found = differences(claims, keys).set_index(keys)["difference"].to_dict()
    assert found == pytest.approx(
        {
            ("a", "VGMR, calibrated", "zeroed", "a"): 0.225,
            ("c", "VGMR, calibrated", "zeroed", "a"): 0.3,
            ("c", "VGMR, calibrated", "zeroed", "b"): 0.075,
            ("c", "VGMR, calibrated", "retrained", "b"): 0.025,
            ("a", "ogm-ge", "zeroed", "a"): 0.275,
            ("b", "ogm-ge", "zeroed", "b"): 0.125,
        }
    )


def test_an_idle_modality_has_the_rows_of_its_source_in_another_order():
    data = load("synthetic", like="ave", samples=60, steps=2, padding=0.5)
    idle = with_idle_modality(data, "audio")
    idle.check()
    assert idle.modalities == ["audio", "visual", "idle"] and idle.fingerprint != data.fingerprint
    for part, before in zip(idle.parts.values(), data.parts.values(), strict=True):
        assert part.features["audio"] is before.features["audio"] and part.label is before.label
        assert not torch.equal(part.features["idle"], part.features["audio"])
        assert torch.equal(
            part.features["idle"].sum((1, 2)).sort()[0], part.features["audio"].sum((1, 2)).sort()[0]
        )
    again = with_idle_modality(data, "audio").test.features["idle"]
    assert torch.equal(again, idle.test.features["idle"])
    with pytest.raises(ValueError, match="expected source of"):
        with_idle_modality(data, "smell")
    with pytest.raises(ValueError, match="another name"):
        with_idle_modality(data, "audio", "visual")


def worth(data: MultimodalData, refined: bool) -> dict[str, float]:
    """Shapley values, in test accuracy, of the modalities of a model trained on `data`."""
    torch.manual_seed(0)
    model = Classifier(
        VGMR(data.dims, 8, norm="none") if refined else Identity(data.dims), PooledBackbone(data.dims, 2, width=16)
    )
    fit(model, data, epochs=8, batch_size=64, learning_rate=3e-3)
    logits = subset_logits(model, data.test)
    right = {keep: float((answer.argmax(1) == data.test.label).float().mean()) for keep, answer in logits.items()}
    return shapley(right)


@pytest.mark.parametrize("refined", [False, True])
def test_a_modality_that_carries_nothing_is_worth_nothing(refined):
    """600 test samples: an accuracy has a deviation of 0.02 at most, two are allowed; a copy counts."""
    data = load("synthetic", like="mosi", samples=1200, steps=2).select(["audio", "vision"])
    found = worth(with_idle_modality(data, "vision"), refined)
    assert abs(found["idle"]) < 0.04
    assert found["audio"] > 0.08 and found["vision"] > 0.08
    copied = replace(
        data,
        **{
            part: replace(
                batch,
                features={**batch.features, "copy": batch.features["vision"]},
                mask={**batch.mask, "copy": batch.mask["vision"]},
                corrupted=None,
            )
            for part, batch in data.parts.items()
        },
    )
    assert worth(copied, refined)["copy"] > 0.08


class Heeding(Identity):
    """The audio goes through only where there is something to see."""

    def forward(self, features, mask=None):
        found = super().forward(features, mask)
        seen = found.features["vision"].abs().sum((1, 2), keepdim=True) > 0
        return found._replace(features={**found.features, "audio": found.features["audio"] * seen})


def test_a_removal_before_the_refiner_changes_what_the_others_become():
    """Behind: as `subset_logits` has it. Before: nothing seen and nothing heard, as without any modality."""
    data = load("synthetic", like="mosi", samples=60, steps=1).select(["audio", "vision"])
    torch.manual_seed(0)
    backbone = PooledBackbone(data.dims, len(data.classes), width=8)
    plain = removal_by_place(Classifier(Identity(data.dims), backbone), data.test).set_index("modality")
    assert plain.index.tolist() == ["audio", "vision"] and plain["behind"].equals(plain["before"])
    model = Classifier(Heeding(data.dims), backbone)
    found = removal_by_place(model, data.test).set_index("modality")
    right = {
        kept: float((logits.argmax(1) == data.test.label).float().mean())
        for kept, logits in subset_logits(model, data.test).items()
    }
    nothing = backbone.encode({name: torch.zeros(1, 1, dim) for name, dim in data.dims.items()}, None)
    silent = backbone.fuse(nothing, {"audio"}).argmax(1)
    assert found["behind"].to_dict() == pytest.approx({"audio": right["vision"], "vision": right["audio"]})
    assert found.loc["audio", "before"] == found.loc["audio", "behind"]
    assert found.loc["vision", "before"] == pytest.approx(float((data.test.label == silent).float().mean()))
    assert found.loc["vision", "before"] != found.loc["vision", "behind"]
