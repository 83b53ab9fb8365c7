"""The controls: equal to what their docstrings say, computed by hand, and as well-behaved as the refiner."""

import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import affine, gelu, layer_norm, made_inputs, numpy_weights, randomise, real_steps, sigmoid
from torch import nn

from vgmr import VGMR, TransformerBackbone
from vgmr.fusion.confidence import ConfidenceGate
from vgmr.fusion.mag import AnchorShift
from vgmr.prefusion import (
    CrossAttention,
    FeatureMLP,
    Identity,
    SigmoidTanhGate,
    count_parameters,
    width_for_budget,
)

few = settings(max_examples=15, derandomize=True, deadline=None)

DIMS = {"text": 4, "audio": 3, "vision": 2}
LENGTHS = {"text": 3, "audio": 5, "vision": 2}
PAPER = {"text": 768, "audio": 74, "vision": 35}
BUDGET = 2_329_587  # VGMR with d = 164

CONTROLS = {
    "identity": Identity,
    "mlp": lambda dims: FeatureMLP(dims, 6),
    "attention": lambda dims: CrossAttention(dims, 6, num_heads=2),
    "gate": lambda dims: SigmoidTanhGate(dims, 6),
}


def made(which, seed=0):
    module = CONTROLS[which](DIMS).double().eval()
    randomise(module, seed)
    return module


# References: one sample of real steps, one step at a time


def mlp_by_hand(weights, sample):
    return {
        name: [affine(weights, f"maps.{name}.3", gelu(affine(weights, f"maps.{name}.0", step))) for step in x]
        for name, x in sample.items()
    }


def gate_by_hand(weights, sample):
    result = {}
    for name, x in sample.items():
        result[name] = []
        for step in x:
            open_part = sigmoid(affine(weights, f"openness.{name}", step))
            content = np.tanh(affine(weights, f"content.{name}", step))
            result[name].append(affine(weights, f"back.{name}", open_part * content))
    return result


def attention_by_hand(weights, sample, num_heads=2):
    """Query from the own step, keys and values from every step of every other modality, softmax per head."""
    projected = {name: [affine(weights, f"project.{name}", step) for step in x] for name, x in sample.items()}
    result = {}
    for name, x in sample.items():
        width = len(projected[name][0])
        size = width // num_heads
        parts = {}
        for index, part in enumerate("qkv"):
            rows = slice(index * width, (index + 1) * width)
            parts[part] = (
                weights[f"attention.{name}.in_proj_weight"][rows],
                weights[f"attention.{name}.in_proj_bias"][rows],
            )
        memory = [step for other in sample if other != name for step in projected[other]]
        keys = [parts["k"][0] @ step + parts["k"][1] for step in memory]
        values = [parts["v"][0] @ step + parts["v"][1] for step in memory]
        result[name] = []
        for t, step in enumerate(x):
            query = parts["q"][0] @ projected[name][t] + parts["q"][1]
            attended = []
            for head in range(num_heads):
                own = slice(head * size, (head + 1) * size)
                scores = np.array([query[own] @ key[own] / math.sqrt(size) for key in keys])
                weight = np.exp(scores) / np.exp(scores).sum()
                attended.append(sum(w * value[own] for w, value in zip(weight, values, strict=True)))
            mixed = affine(weights, f"attention.{name}.out_proj", np.concatenate(attended))
            result[name].append(layer_norm(weights, f"norm.{name}", step + affine(weights, f"back.{name}", mixed)))
    return result


BY_HAND = {
    "identity": lambda weights, sample: sample,
    "mlp": mlp_by_hand,
    "attention": attention_by_hand,
    "gate": gate_by_hand,
}


@pytest.mark.parametrize("which", CONTROLS)
@pytest.mark.parametrize("ragged", [True, False])
def test_equals_the_computation_by_hand(which, ragged):
    module = made(which, 3)
    features, mask = made_inputs(DIMS, 3, LENGTHS, 4, ragged)
    got = module(features, mask)
    for row in range(3):
        expected = BY_HAND[which](numpy_weights(module), real_steps(features, mask, row))
        for name, x in got.features.items():
            assert x.shape == features[name].shape
            real = x[row] if mask is None else x[row][mask[name][row]]
            torch.testing.assert_close(real, torch.as_tensor(np.stack(expected[name])), atol=1e-10, rtol=0)
    assert not (got.gate or got.effective_gate or got.global_value or got.channel_value)


def test_sigmoid_tanh_gate_with_a_pencil():
    """x = 2; sigmoid(0 x + ln 3) = 3/4; tanh(x ln(3) / 4) = tanh(ln(3) / 2) = (3 - 1) / (3 + 1) = 1/2;
    W3 = 8, b3 = 1: 8 * 3/4 * 1/2 + 1 = 4. A padded step gives 0, not b3."""
    module = SigmoidTanhGate({"a": 1}, 1).eval()
    for part, weight, bias in (
        (module.openness, 0.0, math.log(3)),
        (module.content, math.log(3) / 4, 0.0),
        (module.back, 8.0, 1.0),
    ):
        nn.init.constant_(part["a"].weight, weight)
        nn.init.constant_(part["a"].bias, bias)
    got = module({"a": torch.tensor([[[2.0], [9.0]]])}, {"a": torch.tensor([[True, False]])})
    assert got.features["a"].flatten().tolist() == pytest.approx([4.0, 0.0], abs=1e-6)


@pytest.mark.parametrize("which", CONTROLS)
@given(st.integers(0, 2**16), st.sampled_from([1e6, float("inf"), float("nan")]), st.integers(1, 4))
@few
def test_padding_stays_zero_and_changes_nothing(which, seed, junk, amount):
    module = made(which, seed)
    features, mask = made_inputs(DIMS, 3, LENGTHS, seed)
    expected = module(features, mask).features
    padded = {
        name: nn.functional.pad(x.masked_fill(~mask[name].unsqueeze(2), junk), (0, 0, 0, amount), value=junk)
        for name, x in features.items()
    }
    got = module(padded, {name: nn.functional.pad(real, (0, amount)) for name, real in mask.items()}).features
    for name, real in mask.items():
        torch.testing.assert_close(got[name][:, : real.shape[1]], expected[name], atol=1e-12, rtol=0)
        assert not expected[name][~real].any()
        assert not got[name][:, real.shape[1] :].any()


@pytest.mark.parametrize("which", CONTROLS)
@given(st.integers(0, 2**16), st.integers(0, 2))
@few
def test_one_sample_never_changes_another(which, seed, row):
    module = made(which, seed)
    features, mask = made_inputs(DIMS, 3, LENGTHS, seed)
    changed = {name: x.clone() for name, x in features.items()}
    for x in changed.values():
        x[row] = 5 - 3 * x[row]
    one, two = module(features, mask).features, module(changed, mask).features
    others = torch.arange(3) != row
    for name in DIMS:
        torch.testing.assert_close(one[name][others], two[name][others], atol=1e-12, rtol=0)
        assert not torch.equal(one[name][row], two[name][row])


@pytest.mark.parametrize("which", CONTROLS)
def test_order_of_names_changes_nothing(which):
    """Modalities are handed over by name, in any order."""
    module = made(which, 1)
    features, mask = made_inputs(DIMS, 2, LENGTHS, 2)
    backwards = {name: features[name] for name in reversed(features)}
    one, two = module(features, mask).features, module(backwards, mask).features
    assert list(two) == list(DIMS)
    assert all(torch.equal(one[name], two[name]) for name in DIMS)


def test_only_cross_attention_lets_modalities_meet():
    features, mask = made_inputs(DIMS, 2, LENGTHS, 2)
    other = {**features, "audio": 3 - 2 * features["audio"]}
    for which in CONTROLS:
        module = made(which, 1)
        one, two = module(features, mask).features, module(other, mask).features
        met = not torch.equal(one["text"], two["text"])
        assert met == (which == "attention"), which


@pytest.mark.parametrize("which", ["mlp", "attention", "gate"])
def test_dropout_acts_in_training_only(which):
    module = made(which, 1)
    features, mask = made_inputs(DIMS, 2, LENGTHS, 2)
    assert torch.equal(module(features, mask).features["text"], module(features, mask).features["text"])
    module.train()
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.5
    torch.manual_seed(0)
    assert not torch.equal(module(features, mask).features["text"], module(features, mask).features["text"])


@pytest.mark.parametrize("which", ["mlp", "attention", "gate"])
def test_every_parameter_gets_a_gradient(which):
    module = made(which, 1)
    features, mask = made_inputs(DIMS, 4, LENGTHS, 2)
    sum((x**3).sum() for x in module(features, mask).features.values()).backward()
    for name, parameter in module.named_parameters():
        assert torch.isfinite(parameter.grad).all() and parameter.grad.any(), name


def test_one_modality_is_enough_for_all_but_cross_attention():
    features = {"text": torch.zeros(2, 3, 4)}
    for module in (Identity({"text": 4}), FeatureMLP({"text": 4}, 5), SigmoidTanhGate({"text": 4}, 5)):
        assert module(features).features["text"].shape == (2, 3, 4)
    with pytest.raises(ValueError, match=r"^expected at least 2 modalities .*, got 1: \['text'\]$"):
        CrossAttention({"text": 4}, 8)


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match=r"^hidden_dim 10 must be divisible by num_heads 4$"):
        CrossAttention(DIMS, 10)


SIZES = [
    (FeatureMLP, {"hidden_dim": 0}, "FeatureMLP: hidden_dim must be at least 1, got 0; give a whole number"),
    (FeatureMLP, {"hidden_dim": 2.5}, "FeatureMLP: hidden_dim must be at least 1, got 2.5; give a whole number"),
    (CrossAttention, {"hidden_dim": -4}, "CrossAttention: hidden_dim must be at least 1, got -4"),
    (CrossAttention, {"hidden_dim": 8, "num_heads": 0}, "CrossAttention: num_heads must be at least 1, got 0"),
    (SigmoidTanhGate, {"hidden_dim": True}, "SigmoidTanhGate: hidden_dim must be at least 1, got True"),
    (SigmoidTanhGate, {"hidden_dim": 0}, "SigmoidTanhGate: hidden_dim must be at least 1, got 0"),
    (ConfidenceGate, {"num_classes": 0}, "ConfidenceGate: num_classes must be at least 1, got 0"),
    (AnchorShift, {"strength": -1.0}, "AnchorShift: strength must be a number of at least 0, got -1.0"),
]


@pytest.mark.parametrize(("kind", "options", "message"), SIZES)
def test_sizes_that_cannot_be_meant_are_refused_in_one_line(kind, options, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}") as error:
        kind(DIMS, **options)
    assert "\n" not in str(error.value)


# Parameter counts and budgets

BUILDERS = {
    "mlp": (lambda width: FeatureMLP(PAPER, width), 1),
    "attention": (lambda width: CrossAttention(PAPER, width), 4),
    "gate": (lambda width: SigmoidTanhGate(PAPER, width), 1),
}


@pytest.mark.parametrize("which", BUILDERS)
def test_controls_come_within_one_percent_of_vgmr(which):
    build, multiple = BUILDERS[which]
    width = width_for_budget(build, BUDGET, multiple)
    assert width % multiple == 0
    size = {step: count_parameters(build(width + step)) for step in (-multiple, 0, multiple)}
    assert size[0] == pytest.approx(BUDGET, rel=0.01)
    assert abs(size[0] - BUDGET) == min(abs(value - BUDGET) for value in size.values())


def test_budget_of_the_paper_is_that_of_vgmr():
    vgmr = VGMR(PAPER, latent_dim=164)
    assert count_parameters(vgmr) == BUDGET
    plain = count_parameters(TransformerBackbone(PAPER, 2))
    assert plain == 714_882
    assert (plain + BUDGET) / 1e6 == pytest.approx(3.04, abs=0.01)


@pytest.mark.parametrize("which", ["mlp", "attention", "gate", "vgmr"])
def test_parameters_by_formula(which):
    """Sums of affine maps a -> b, (a + 1) b values each, and 2 d values for each LayerNorm."""

    def affine_size(a, b):
        return (a + 1) * b

    expected, h = 0, 8
    for d in DIMS.values():
        expected += {
            "mlp": affine_size(d, h) + affine_size(h, d),
            "attention": affine_size(d, h) + 3 * affine_size(h, h) + affine_size(h, h) + affine_size(h, d) + 2 * d,
            "gate": 2 * affine_size(d, h) + affine_size(h, d),
            "vgmr": affine_size(d, h)
            + 2 * (affine_size(2 * h, h) + affine_size(h, h))  # E^s, E^v
            + affine_size(8 * h, h)  # E^i
            + affine_size(h, h)
            + affine_size(h, 1)
            + affine_size(h, h)
            + affine_size(d, d)
            + affine_size(h, d)
            + affine_size(1, d)
            + affine_size(h, d)
            + 2 * d,
        }[which]
    build = {"mlp": FeatureMLP, "attention": CrossAttention, "gate": SigmoidTanhGate, "vgmr": VGMR}[which]
    assert count_parameters(build(DIMS, h)) == expected


SCANNED = {
    "mlp": (lambda width: FeatureMLP(DIMS, width), 1, 130),
    "attention": (lambda width: CrossAttention(DIMS, width, num_heads=4), 4, 40),
    "vgmr": (lambda width: VGMR(DIMS, width), 1, 16),
}


@pytest.mark.parametrize("which", SCANNED)
def test_width_for_budget_is_the_nearest_of_all_widths(which):
    build, multiple, last = SCANNED[which]
    sizes = {width: count_parameters(build(width)) for width in range(multiple, last, multiple)}
    assert max(sizes.values()) > 2600
    for budget in (1, 25, 30, 100, 333, 1000, 1999, 2500):
        nearest = min(abs(size - budget) for size in sizes.values())
        assert abs(sizes[width_for_budget(build, budget, multiple)] - budget) == nearest


def test_width_for_budget_takes_no_memory():
    """A layer of 2 * 10^13 values would not fit anywhere."""
    assert width_for_budget(lambda width: nn.Linear(width, 10**6, bias=False), 2 * 10**13) == 2 * 10**7


def test_count_parameters_counts_what_is_trained():
    """2 x 3 weights and 3 biases, then without the frozen biases."""
    layer = nn.Linear(2, 3)
    assert count_parameters(layer) == 9
    layer.bias.requires_grad_(False)
    assert count_parameters(layer) == 6
