"""ARL: weights from dependence and entropy, and which gradients are scaled."""

import pytest
import torch
import torch.nn.functional as F
from made_models import THREE, TWO, differing, digits, gradients, make_model, names_of, start, take_step

from vgmr.balancing import ARL, Balancing
from vgmr.balancing.arl import dependence_weights


class Unscaled(ARL):
    def factors(self, logits):
        return torch.ones(len(logits))


@pytest.mark.parametrize(("temperature", "expected"), [(8.0, (0.4706, 0.5294)), (4.0, (0.4853, 0.5147))])
def test_weights_of_two(temperature, expected):
    weights = dependence_weights(torch.tensor([6.0, 2.0]), torch.tensor([0.3, 1.5]), temperature)
    torch.testing.assert_close(weights, torch.tensor(expected), atol=6e-5, rtol=0)


def test_weights_of_two_by_hand():
    """The steps of the official formula: d, eta clamped at 0.3, epsilon, softmax of T [d_v eps_a, d_a eps_v]."""
    eta = torch.tensor([0.3, 1.5 / 1.8])
    sureness = (1 / eta) / (1 / eta).sum()
    torch.testing.assert_close(sureness, torch.tensor([0.7353, 0.2647]), atol=6e-5, rtol=0)
    before = 8 * torch.tensor([0.25 * sureness[0], 0.75 * sureness[1]])
    torch.testing.assert_close(before, torch.tensor([1.4706, 1.5882]), atol=6e-5, rtol=0)
    weights = dependence_weights(torch.tensor([6.0, 2.0]), torch.tensor([0.3, 1.5]))
    torch.testing.assert_close(weights, before.softmax(0))


def test_weights_of_three():
    weights = dependence_weights(torch.tensor([6.0, 2.0, 4.0]), torch.tensor([0.3, 1.5, 0.9]))
    torch.testing.assert_close(weights, torch.tensor([0.4746, 0.2098, 0.3156]), atol=6e-5, rtol=0)


def test_equal_modalities_get_equal_weights():
    for count in (2, 3):
        weights = dependence_weights(torch.full((count,), 5.0), torch.full((count,), 0.4))
        torch.testing.assert_close(1 + count / 2 * weights, torch.full((count,), 1.5))


def test_entropies_of_zero_stay_finite():
    assert torch.isfinite(dependence_weights(torch.tensor([6.0, 2.0]), torch.zeros(2))).all()


def test_swapped_modalities_swap_their_weights():
    magnitude, entropy = torch.tensor([6.0, 2.0]), torch.tensor([0.3, 1.5])
    torch.testing.assert_close(
        dependence_weights(magnitude.flip(0), entropy.flip(0)), dependence_weights(magnitude, entropy).flip(0)
    )


@pytest.mark.parametrize("names", [TWO, THREE])
def test_factors_from_logits(names):
    logits = torch.randn(len(names), 7, 4)
    probability = logits.softmax(2)
    entropy = -(probability * probability.log()).sum(2).mean(1)
    weights = dependence_weights(logits.abs().sum(2).mean(1), entropy, 3.0)
    torch.testing.assert_close(ARL(temperature=3.0).factors(logits), 1 + len(names) / 2 * weights)
    assert ARL(variant="released").factors(logits).tolist() == [1.5] * len(names)


@pytest.mark.parametrize("backbone", ["pooled", "transformer"])
def test_everything_before_fusion_is_scaled_and_the_head_is_not(backbone):
    model = make_model(backbone=backbone)
    method = ARL(2.0, 8.0, start_epoch=1)
    ours = gradients(method, model, epoch=2)
    factors = method.noted()
    plain = gradients(Unscaled(2.0, 8.0, start_epoch=1), model, epoch=2)
    assert len(set(factors.values())) == 3 and sum(factors.values()) == pytest.approx(4.5)
    for name, factor in factors.items():
        for parameter in names_of(model, model.branch_parameters(name)):
            torch.testing.assert_close(ours[parameter], factor * plain[parameter], atol=1e-7, rtol=1e-4)
    changed = set(ours) - names_of(model, model.head_parameters())
    assert differing(ours, plain) == changed


def test_the_first_epochs_add_the_unimodal_losses_unscaled():
    model = make_model()
    method = ARL(7.0, start_epoch=3)
    warm = gradients(method, model, epoch=3)
    assert method.noted() == {}
    assert not differing(warm, gradients(Unscaled(1.0, start_epoch=-1), model, epoch=3))
    assert differing(warm, gradients(Balancing(), model)) == set(warm)


def test_unimodal_logits_are_the_joint_head_on_one_modality_with_its_whole_bias():
    model = make_model()
    ours = gradients(ARL(start_epoch=5), model)
    batch = digits().train.index(torch.arange(32))
    output = model(batch.features, batch.mask)
    linear = model.backbone.head.linear
    loss = F.cross_entropy(output.logits, batch.label)
    for position, name in enumerate(THREE):
        weight = linear.weight[:, 8 * position : 8 * position + 8]
        loss = loss + F.cross_entropy(output.encodings[name] @ weight.T + linear.bias, batch.label)
    expected = torch.autograd.grad(loss, list(model.parameters()))
    for name, gradient in zip(ours, expected, strict=True):
        torch.testing.assert_close(ours[name], gradient, atol=1e-6, rtol=1e-4)


def test_neutral_factors_without_unimodal_losses_are_plain_training():
    model = make_model()
    assert not differing(gradients(Unscaled(0.0, start_epoch=-1), model), gradients(Balancing(), model))


def test_gradients_are_clipped():
    model = make_model()
    method = ARL(100.0, start_epoch=-1, clip=0.5)
    found = take_step(method, model, start(method, model))
    assert float(torch.cat([g.flatten() for g in found.values()]).norm()) == pytest.approx(0.5, rel=1e-4)


def test_wrong_options_are_refused():
    with pytest.raises(ValueError, match="variant must be 'paper' or 'released', got 'new'"):
        ARL(variant="new")
    with pytest.raises(ValueError, match="defined for the head 'concat' only, got TensorHead; build"):
        start(ARL(), make_model(head="tensor"))


def test_with_lag_a_batch_is_scaled_by_the_factors_of_the_one_before():
    model, fresh = make_model(), ARL(start_epoch=-1)
    lagging = ARL(start_epoch=-1, lag=1)
    for method in (fresh, lagging):
        method.start(model, digits(), 10, 0)
    train, seen = digits().train, {fresh: [], lagging: []}
    for rows in torch.arange(96).split(32):
        batch = train.index(rows)
        for method, factors in seen.items():
            output = model(batch.features, batch.mask)
            method.losses(model, output, batch, F.cross_entropy(output.logits, batch.label), 0)
            factors.append(method.noted())
    assert seen[lagging] == [dict.fromkeys(THREE, 1.0), *seen[fresh][:2]]
    with pytest.raises(ValueError, match="lag must be 0 or 1 batches, got 2"):
        ARL(lag=2)
