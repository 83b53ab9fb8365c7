"""OGM-GE: the numbers of Eq. (10), and which gradients change."""

import math

import pytest
import torch
from made_models import THREE, TWO, differing, digits, gradients, make_model, names_of, start, take_step

from vgmr.balancing import OGMGE, Balancing
from vgmr.balancing.base import split_logits
from vgmr.balancing.ogm_ge import damping


@pytest.mark.parametrize(("alpha", "expected"), [(0.1, 0.8026), (0.3, 0.4630), (0.8, 0.0783)])
def test_the_leader_of_two_is_damped(alpha, expected):
    torch.testing.assert_close(
        damping(torch.tensor([30.0, 15.0]), alpha), torch.tensor([expected, 1.0]), atol=6e-5, rtol=0
    )


def test_equal_scores_damp_none_but_the_official_code_damps_audio():
    equal = torch.tensor([7.0, 7.0])
    assert damping(equal, 0.8).tolist() == [1, 1]
    torch.testing.assert_close(damping(equal, 0.8, tie=0), torch.tensor([0.3360, 1.0]), atol=6e-5, rtol=0)
    assert damping(torch.tensor([1.0, 2.0]), 0.8, tie=0)[0] == 1


@pytest.mark.parametrize("tie", [None, *TWO])
def test_a_training_damps_the_named_modality_where_scores_are_equal(tie):
    model, method = make_model(TWO), OGMGE(0.8, noise=False, tie=tie)
    model.backbone.head.linear.weight.data.zero_()
    gradients(method, model)
    expected = {name: 1 - math.tanh(0.8) if name == tie else 1.0 for name in TWO}
    assert method.noted() == pytest.approx(expected)


def test_scores_are_sums_of_true_class_probabilities():
    logits = torch.tensor([[[2.0, 0.0], [0.0, 2.0]], [[0.0, 0.0], [0.0, 0.0]]])
    score = logits.softmax(2)[:, [0, 1], [0, 1]].sum(1)
    torch.testing.assert_close(score, torch.tensor([1.76159, 1.0]), atol=1e-5, rtol=0)
    for alpha, expected in ((0.3, 0.51578), (0.8, 0.11266)):
        torch.testing.assert_close(damping(score, alpha)[0], torch.tensor(expected), atol=1e-5, rtol=0)


def test_three_modalities_are_compared_in_pairs():
    kappa = damping(torch.tensor([30.0, 20.0, 10.0]), 0.3)
    torch.testing.assert_close(kappa, torch.tensor([0.41174, 0.62005, 1.0]), atol=1e-5, rtol=0)
    least = damping(torch.tensor([30.0, 20.0, 10.0]), 0.3, "least")
    torch.testing.assert_close(least, 1 - torch.tanh(0.3 * torch.tensor([3.0, 2.0, -torch.inf])).clamp(min=0))


@pytest.mark.parametrize("ratio", ["pairwise-mean", "least"])
def test_both_ratios_are_the_same_for_two(ratio):
    expected = torch.tensor([1.0, 1 - math.tanh(0.5 * 17 / 12)])
    torch.testing.assert_close(damping(torch.tensor([12.0, 17.0]), 0.5, ratio), expected)


@pytest.mark.parametrize("names", [TWO, THREE])
def test_unimodal_logits_sum_to_the_joint_ones(names):
    model = make_model(names)
    batch = digits(names).train.index(torch.arange(5))
    output = model(batch.features, batch.mask)
    parts = split_logits(model, output.encodings)
    torch.testing.assert_close(sum(parts.values()), output.logits)
    columns = model.backbone.head.linear.weight[:, :8]
    by_hand = output.encodings["left"] @ columns.T + model.backbone.head.linear.bias / len(names)
    torch.testing.assert_close(parts["left"], by_hand)


@pytest.mark.parametrize("backbone", ["pooled", "transformer"])
@pytest.mark.parametrize("prefusion", ["none", "vgmr"])
def test_only_weights_of_branches_are_scaled(backbone, prefusion):
    model = make_model(backbone=backbone, prefusion=prefusion)
    plain = gradients(Balancing(), model)
    method = OGMGE(noise=False)
    changed = gradients(method, model)
    kappa = method.noted()
    assert min(kappa.values()) < 1 and max(kappa.values()) == 1
    expected = set()
    for name, value in kappa.items():
        weights = names_of(model, model.modulable(name))
        assert all(weight.endswith("weight") for weight in weights)
        for weight in weights:
            torch.testing.assert_close(changed[weight], value * plain[weight])
        expected |= weights if value < 1 else set()
    assert differing(changed, plain) == expected


def test_noise_of_the_gradients_own_scale_reaches_every_branch():
    torch.manual_seed(0)
    model = make_model()
    plain = gradients(Balancing(), model)
    method = OGMGE()
    optimizer = start(method, model)
    draws = [take_step(method, model, optimizer) for _ in range(400)]
    kappa = {name: value for name, value in method.noted().items()}
    weights = {weight: m for m in THREE for weight in names_of(model, model.modulable(m))}
    for weight, name in weights.items():
        noise = torch.stack([draw[weight] - kappa[name] * plain[weight] for draw in draws])
        torch.testing.assert_close(noise.std(), plain[weight].std(), rtol=0.02, atol=0)
        assert noise.mean().abs() < 4 * plain[weight].std() / noise.numel() ** 0.5
    assert differing(draws[0], plain) == set(weights)


@pytest.mark.parametrize(("kind", "cancelled"), [("adamw", True), ("sgd", False)])
def test_adamw_cancels_constant_damping_and_sgd_does_not(kind, cancelled):
    generator = torch.Generator().manual_seed(0)
    steps = [torch.randn(1000, generator=generator) for _ in range(50)]

    def travel(factor):
        parameter = torch.zeros(1000, requires_grad=True)
        kinds = {
            "adamw": lambda: torch.optim.AdamW([parameter], 1e-3, weight_decay=0),
            "sgd": lambda: torch.optim.SGD([parameter], 1e-3, momentum=0.9),
        }
        optimizer = kinds[kind]()
        for gradient in steps:
            parameter.grad = factor * gradient
            optimizer.step()
        return parameter.detach()

    full, damped = travel(1.0), travel(0.078)
    if cancelled:
        assert (damped - full).norm() / full.norm() < 1e-5
    else:
        torch.testing.assert_close(damped, 0.078 * full)


@pytest.mark.parametrize(("kind", "rate"), [("adamw", 1e-2), ("sgd", 0.1)])
def test_damping_the_update_works_with_every_optimiser(kind, rate):
    travelled = {}
    for label, method in (("plain", Balancing()), ("damped", OGMGE(0.8, noise=False, apply_to="update"))):
        model = make_model(TWO)
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        take_step(method, model, start(method, model, kind, rate))
        travelled[label] = {name: p.detach() - before[name] for name, p in model.named_parameters()}
    kappa = method.noted()
    assert min(kappa.values()) < 0.5
    modulated = {weight: name for name in TWO for weight in names_of(model, model.modulable(name))}
    for name, way in travelled["plain"].items():
        factor = kappa[modulated[name]] if name in modulated else 1.0
        torch.testing.assert_close(travelled["damped"][name], factor * way, atol=2e-7, rtol=1e-4)


def test_wrong_options_are_refused():
    with pytest.raises(ValueError, match="ratio must be one of pairwise-mean, least, got 'sum'"):
        OGMGE(ratio="sum")
    with pytest.raises(ValueError, match=r"0 <= first <= last, got \(3, 1\)"):
        OGMGE(window=(3, 1))
    with pytest.raises(ValueError, match="tie: unknown modality 'audio'; there are"):
        start(OGMGE(tie="audio"), make_model())


def test_a_sum_of_one_layer_per_modality_is_the_concatenation_head():
    """The authors' sum fusion: logits of each modality by its own layer, whose biases share ours equally."""
    model = make_model()
    batch = digits().train.index(torch.arange(8))
    encodings = model(batch.features, batch.mask).encodings
    linear = model.backbone.head.linear
    layers = dict(zip(THREE, linear.weight.split(8, 1), strict=True))
    own = {name: encodings[name] @ layers[name].T + linear.bias / 3 for name in THREE}
    torch.testing.assert_close(sum(own.values()), model.backbone.fuse(encodings))
    for name, logits in split_logits(model, encodings).items():
        torch.testing.assert_close(logits, own[name])
