"""Diagnostics find what was planted and nothing where there is nothing."""

import pandas as pd
import pytest
import torch

from vgmr.backbones import Classifier, PooledBackbone
from vgmr.balancing import OGMGE, Balancing, Uniform
from vgmr.data import Batch
from vgmr.diagnostics import branch_gradients, detection, gradient_change, movement, value_and_gate
from vgmr.prefusion import Identity
from vgmr.refiner import VGMR

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
