"""ConfSMoE, repaired: reference numbers of the experts, the router, sizes; and the gate in VGMR's place."""

import pytest
import torch
from made_systems import close, fill, of, wave
from torch import nn

from vgmr.backbones import PooledBackbone
from vgmr.classifier import Classifier
from vgmr.data.types import Batch
from vgmr.fusion.confidence import ConfidenceExperts, ConfidenceGate, ExpertMixture
from vgmr.objective import Objective
from vgmr.prefusion import count_parameters

CMU = {"text": 768, "audio": 74, "vision": 35}
REAL = torch.ones(2, 2, dtype=torch.bool)


def mixture(**options):
    """Two experts, both chosen. Order: experts, the map that names the class, confidences."""
    model = ExpertMixture(3, 2, 2, 2, **options).double().eval()
    experts = [layer for one in model.experts for layer in (one[0], one[2])]
    sure = [layer for one in model.confidence for layer in (one.norm, one.linear)]
    fill(of(*experts, model.name_class, *sure))
    return model


def test_reference_numbers():
    model = mixture()
    routed = model(wave(2, 2, 3))
    close(routed.confidence[0, 0], [0.441391, 0.577237])
    close(routed.output[0, 0], [0.724443, 0.342332, 0.116491])
    named = model.name_class(routed.expert).softmax(-1)
    close(named[0, 0, :, 0], [0.360656, 0.282762])
    close(model.loss(routed, torch.tensor([0, 1]), REAL, "official"), 0.031528)


def test_the_corrected_loss_trains_confidence_and_probe_apart():
    """The square alone has no gradient in the probe, the cross-entropy none in experts and confidence."""
    model, label = mixture(), torch.tensor([0, 1])
    routed = model(wave(2, 2, 3))
    named = model.name_class(routed.expert.detach()).log_softmax(-1)
    log = torch.stack([named[0, :, :, 0], named[1, :, :, 1]])
    by_hand = ((routed.confidence - log.exp()) ** 2).mean() - log.mean()
    torch.testing.assert_close(model.loss(routed, label, REAL), by_hand)
    model.loss(routed, label, REAL).backward()
    got = model.name_class.weight.grad
    model.zero_grad()
    (-log.mean()).backward()
    torch.testing.assert_close(got, model.name_class.weight.grad)


def test_padding_has_no_part_in_the_loss():
    model, label = mixture(), torch.tensor([0, 1])
    real = torch.tensor([[True, False], [True, True]])
    x = wave(2, 2, 3)
    expected = model.loss(model(x), label, real)
    x[0, 1] = 7.0
    torch.testing.assert_close(model.loss(model(x), label, real), expected)


def test_with_all_experts_chosen_the_frozen_router_does_not_matter():
    model = mixture()
    expected = model(wave(2, 2, 3)).output
    model.route.normal_()
    torch.testing.assert_close(model(wave(2, 2, 3)).output, expected)
    assert not any("route" in name or "noise" in name for name, _ in model.named_parameters())


def test_each_token_gets_its_own_chosen_experts():
    """Slow and literal: the experts of largest score, one token after the other."""
    torch.manual_seed(0)
    model = ExpertMixture(4, 5, 2, 3).eval()
    x = torch.randn(2, 3, 4)
    got = model(x).output
    for b in range(2):
        for t in range(3):
            best = (x[b, t] @ model.route).argsort(descending=True)[:2]
            expected = torch.zeros(4)
            for j in best:
                said = model.experts[j](x[b, t])
                sure = model.confidence[j]
                expected = expected + torch.sigmoid(sure.linear(sure.norm(said))) * said
            torch.testing.assert_close(got[b, t], expected)


def test_a_learnt_router_has_a_gradient_and_its_weights_add_up():
    model = ExpertMixture(4, 3, 2, 2, "softmax").eval()
    for one in model.confidence:  # always sure
        nn.init.zeros_(one.linear.weight)
        nn.init.constant_(one.linear.bias, 50.0)
    for one in model.experts:  # all say the same
        one.load_state_dict(model.experts[0].state_dict())
    x = torch.randn(2, 4)
    routed = model(x)
    torch.testing.assert_close(routed.output, model.experts[0](x))
    assert routed.chosen.sum(1).tolist() == [2, 2]
    torch.manual_seed(0)
    other = ExpertMixture(4, 3, 2, 2, "softmax")
    other(x).output.sum().backward()
    assert other.route.grad.abs().sum() > 0 and other.noise.grad.abs().sum() > 0


def test_one_sure_expert_is_a_residual_mlp():
    model = ConfidenceExperts({"a": 3}, 2, width=4, num_heads=2, num_experts=1, top_k=1).double().eval()
    sure = model.experts.confidence[0].linear
    nn.init.zeros_(sure.weight)
    nn.init.constant_(sure.bias, 50.0)
    encodings = model.encode({"a": torch.randn(2, 3, 3).double()}, None)
    tokens, _ = model.tokens(encodings, ["a"], None)
    mlp = model.experts.experts[0]
    steps = model.norm_output(tokens + mlp(model.norm_experts(tokens)))
    expected = model.output(model.norm_join(model.join(steps.mean(1))))
    torch.testing.assert_close(model.fuse(encodings), expected)


def test_attention_is_torchs():
    model = ConfidenceExperts({"a": 3, "b": 2}, 2, width=4, num_heads=2).double().eval()
    theirs = nn.MultiheadAttention(4, 2, batch_first=True).double()
    theirs.load_state_dict(model.attention.state_dict())
    encodings = model.encode({"a": wave(2, 3, 3), "b": wave(2, 2, 2)}, None)
    got, _ = model.tokens(encodings, ["a", "b"], None)
    joined = torch.cat([encodings["a"], encodings["b"]], 1)
    normed = model.norm_attention(joined)
    torch.testing.assert_close(got, joined + theirs(normed, normed, normed)[0])


def test_size_is_that_of_the_released_code_without_what_fills_gaps():
    """438,542 as released, less two linear layers and a norm for imputation, and with biases in the attention."""
    w = 128
    model = ConfidenceExperts(CMU, 3, width=w, num_experts=8)
    held = count_parameters(model) + sum(x.numel() for x in model.buffers())
    imputation = 2 * (w * w + w) + 2 * w
    assert held - count_parameters(model.project) == 438_542 - imputation + 3 * w == 405_646
    quick = ConfidenceExperts(CMU, 2)
    held = count_parameters(quick) + sum(x.numel() for x in quick.buffers())
    assert held == 23_688 - (2 * (32 * 32 + 32) + 2 * 32) + 3 * 32 + 28_160


def test_regression_has_no_class_to_name():
    model = ConfidenceExperts({"a": 3}, 1, width=4, num_heads=2)
    assert model.auxiliary_loss(model.encode({"a": torch.randn(2, 1, 3)}, None), None, torch.randn(2)) == {}


def test_refusals():
    with pytest.raises(ValueError, match="top_k must be 1 to 4, the number of experts, got 5"):
        ConfidenceExperts(CMU, 2, top_k=5)
    with pytest.raises(ValueError, match="router must be one of frozen, softmax, got 'hard'"):
        ConfidenceExperts(CMU, 2, router="hard")
    with pytest.raises(ValueError, match="variant must be one of corrected, official, got 'paper'"):
        ConfidenceExperts(CMU, 2, variant="paper")
    model = ConfidenceExperts({"a": 3}, 2, max_length=2)
    with pytest.raises(ValueError, match="a: 3 time steps, but max_length is 2"):
        model.encode({"a": torch.randn(1, 3, 3)}, None)


# In VGMR's place


def test_a_gate_is_one_number_for_a_sample_and_sees_its_own_modality():
    gate = ConfidenceGate({"a": 3, "b": 2}, 2)
    features = {"a": torch.randn(2, 4, 3), "b": torch.randn(2, 1, 2)}
    refined = gate(features)
    for name, x in features.items():
        sure = refined.auxiliary[name][:, 0]
        assert ((sure > 0) & (sure < 1)).all()
        torch.testing.assert_close(refined.features[name], sure.view(-1, 1, 1) * x)
    other = gate({**features, "b": features["b"] + 1})
    torch.testing.assert_close(other.features["a"], refined.features["a"])


def test_the_gates_loss_by_hand_and_in_training():
    gate = ConfidenceGate({"a": 2}, 2)
    for part in (gate.confidence["a"].linear, gate.probe["a"]):
        nn.init.zeros_(part.weight)
        nn.init.zeros_(part.bias)
    batch = Batch({"a": wave(2, 1, 2).float()}, {"a": torch.ones(2, 1, dtype=torch.bool)}, torch.tensor([0, 1]))
    refined = gate(batch.features, batch.mask)
    own = float(gate.auxiliary_loss(refined, batch.label)["confidence"].detach())
    assert own == pytest.approx(0.693147, abs=1e-5), "c = p = 1/2, so log 2 alone"
    model = Classifier(gate, PooledBackbone({"a": 2}, 2, width=3, dropout=0.0))
    losses = [
        float(Objective()(model.train(mode), model(batch.features, batch.mask), batch).detach())
        for mode in (True, False)
    ]
    assert losses[0] - losses[1] == pytest.approx(0.693147, abs=1e-5)


def test_size_of_the_gate():
    assert count_parameters(ConfidenceGate(CMU, 2)) == 877 * 3 + 3 + 877 * 2 + 3 * 2
    assert 877 * 3 + 3 == 2_634 and 877 * 2 + 6 == 1_760


def test_the_gate_refuses_numbers_for_classes():
    gate = ConfidenceGate({"a": 3, "b": 2}, 2)
    refinement = gate({"a": torch.randn(4, 1, 3), "b": torch.randn(4, 1, 2)})
    with pytest.raises(ValueError, match=r"names classes: expected int64 labels, got torch.float32"):
        gate.auxiliary_loss(refinement, torch.randn(4))
