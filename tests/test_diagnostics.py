"""Diagnostics find what was planted and nothing where there is nothing."""

from dataclasses import replace

import pandas as pd
import pytest
import torch

from vgmr.backbones import Classifier, PooledBackbone
from vgmr.balancing import OGMGE, Balancing, Uniform
from vgmr.data import Batch, MultimodalData, load
from vgmr.diagnostics import (
    branch_gradients,
    detection,
    gradient_change,
    movement,
    removal_by_place,
    value_and_gate,
    with_idle_modality,
)
from vgmr.evaluation import shapley, subset_logits
from vgmr.prefusion import Identity
from vgmr.refiner import VGMR
from vgmr.training import fit

DIMS = {"sound": 3, "video": 2}


def batch(size: int = 6) -> Batch:
    generator = torch.Generator().manual_seed(0)
    features = {name: torch.randn(size, 4, dim, generator=generator) for name, dim in DIMS.items()}
    mask = {name: torch.ones(size, 4, dtype=torch.bool) for name in DIMS}
    mask["sound"][0, 2:] = False
    features["sound"][0, 2:] = 0
    struck = {name: torch.zeros(size, 1, 1, dtype=torch.bool) for name in DIMS}
    struck["video"][3] = True
    return Batch(features, mask, torch.zeros(size, dtype=torch.int64), struck=struck)


def test_value_and_gate_are_those_of_the_refiner_over_real_steps():
    torch.manual_seed(0)
    model = Classifier(VGMR(DIMS, latent_dim=4), PooledBackbone(DIMS, 2, width=3)).eval()
    part = batch()
    frame = value_and_gate(model, part)
    with torch.no_grad():
        refinement = model(part.features, part.mask).refinement
    assert len(frame) == len(part) * len(DIMS)
    row = frame[(frame["sample"] == 0) & (frame["modality"] == "sound")].iloc[0]
    assert row["global_value"] == pytest.approx(float(refinement.global_value["sound"][0]), abs=1e-6)
    assert row["channel_value"] == pytest.approx(float(refinement.channel_value["sound"][0].mean()), abs=1e-6)
    assert row["channel_deviation"] == pytest.approx(float(refinement.channel_value["sound"][0].std()), abs=1e-6)
    assert row["gate"] == pytest.approx(float(refinement.gate["sound"][0, :2].mean()), abs=1e-6)
    everything = float(refinement.gate["sound"][0].mean())
    assert row["gate"] != pytest.approx(everything, abs=1e-6), "a masked step must not count"
    struck = frame[frame["struck"]]
    assert list(zip(struck["sample"], struck["modality"], strict=True)) == [(3, "video")]


def test_value_and_gate_needs_the_refiner():
    model = Classifier(Identity(DIMS), PooledBackbone(DIMS, 2, width=3))
    with pytest.raises(ValueError, match="expected a model with VGMR before fusion, got Identity"):
        value_and_gate(model, batch())


def test_detection_finds_a_planted_signal_and_nothing_in_shuffled_truth():
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(4000, generator=generator) < 0.3
    low = torch.randn(4000, generator=generator) - 2 * truth
    frame = pd.DataFrame({"modality": "sound", "gate": low.numpy(), "struck": truth.numpy()})
    assert detection(frame, "gate") == pytest.approx(0.921, abs=0.02)  # Phi(2 / sqrt 2)
    assert detection(frame, "gate", lower_is_struck=False) == pytest.approx(1 - detection(frame, "gate"))
    shuffled = frame.assign(struck=truth[torch.randperm(4000, generator=generator)].numpy())
    assert detection(shuffled, "gate") == pytest.approx(0.5, abs=0.03)


def pooled() -> Classifier:
    torch.manual_seed(0)
    return Classifier(Identity(DIMS), PooledBackbone(DIMS, 2, width=3))


def test_plain_training_changes_no_gradient_and_looking_changes_nothing():
    model, part = pooled(), batch()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    frame = gradient_change(model, Balancing(), part, epoch=4)
    assert [*frame["length"], *frame["cosine"]] == pytest.approx([1.0] * 4)
    assert set(frame["modality"]) == set(DIMS) and set(frame["epoch"]) == {4}
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_gradient_change_is_that_of_the_methods_own_step():
    model, part, method = pooled(), batch(), Uniform()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    method.names = list(DIMS)
    method.heads = torch.nn.ModuleDict({name: torch.nn.Linear(3, 2) for name in DIMS})
    mine = branch_gradients(model, method, part, 0)
    for name in DIMS:
        output = model.train()(part.features, part.mask)
        loss = torch.nn.functional.cross_entropy(output.logits, part.label)
        loss = loss + torch.nn.functional.cross_entropy(method.heads[name](output.encodings[name]), part.label)
        expected = torch.cat([g.flatten() for g in torch.autograd.grad(loss, model.branch_parameters(name))])
        torch.testing.assert_close(mine[name], expected)
    damped = OGMGE(alpha=100.0, noise=False)
    damped.names, damped.active = list(DIMS), (0, 0)
    assert gradient_change(model, damped, part, 0)["length"].min() < 0.99  # biases stay as they are
    assert gradient_change(model, damped, part, 1)["length"].tolist() == pytest.approx([1.0, 1.0])


def test_adamw_undoes_damping_but_neither_noise_nor_a_damped_update():
    model, batches = pooled(), [batch()] * 8
    for optimizer in ("sgd", "adamw"):
        whole = movement(model, batches, "sound", optimizer, 0.01)
        scaled = movement(model, batches, "sound", optimizer, 0.01, scale=0.1)
        updated = movement(model, batches, "sound", optimizer, 0.01, scale=0.1, on_update=True)
        torch.testing.assert_close(scaled, whole * (0.1 if optimizer == "sgd" else 1.0), rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(updated, whole * 0.1, rtol=1e-3, atol=1e-6)
    noisy = movement(model, batches, "sound", "adamw", 0.01, scale=0.1, noise=1.0)
    assert float(noisy @ whole / whole.square().sum()) < 0.7


# A modality that carries nothing


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
                struck=None,
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
        return replace(found, features={**found.features, "audio": found.features["audio"] * seen})


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
