"""UniS-MMC: reference numbers of the contrast, what moves and what is held, and no dependence on the order."""

import pytest
import torch
import torch.nn.functional as F
from made_models import THREE, differing, digits, gradients, make_model

from vgmr.balancing import UniSMMC
from vgmr.balancing.unis_mmc import contrast


def wave(*shape, c=0.0):
    return torch.cos(0.7 * torch.arange(shape[0] * shape[1], dtype=torch.float64) + c).view(shape)


FIRST, SECOND = wave(4, 3), wave(4, 3, c=1)
RIGHT, OTHER = torch.tensor([1, 0, 1, 0]).bool(), torch.tensor([1, 1, 0, 0]).bool()


def test_reference_numbers():
    cosines = F.cosine_similarity(FIRST, SECOND)
    torch.testing.assert_close(
        cosines, torch.tensor([0.269801, 0.788347, 0.515986, 0.257933]).double(), atol=1e-6, rtol=0
    )
    assert float(contrast(FIRST, SECOND, RIGHT, OTHER)) == pytest.approx(0.000501, abs=1e-6)
    assert float(contrast(FIRST, SECOND, RIGHT, OTHER, 1.0)) == pytest.approx(0.222845, abs=1e-6)


def test_the_one_that_is_right_alone_is_held():
    a, b = FIRST.clone().requires_grad_(), SECOND.clone().requires_grad_()
    contrast(a, b, RIGHT, OTHER, 1.0).backward()
    assert [bool(row.any()) for row in a.grad] == [True, True, False, True]
    assert [bool(row.any()) for row in b.grad] == [True, False, True, True]


def test_all_right_or_none_costs_nothing():
    for truth in (torch.ones(4).bool(), torch.zeros(4).bool()):
        a = FIRST.clone().requires_grad_()
        loss = contrast(a, SECOND, truth, truth)
        loss.backward()
        assert float(loss.detach()) == pytest.approx(0, abs=1e-12) and float(a.grad.abs().max()) < 1e-12


def test_order_and_repetition_of_samples_change_nothing():
    loss = contrast(FIRST, SECOND, RIGHT, OTHER, 1.0)
    for rows in (torch.tensor([2, 0, 3, 1]), torch.tensor([0, 1, 2, 3, 0, 1, 2, 3])):
        torch.testing.assert_close(contrast(FIRST[rows], SECOND[rows], RIGHT[rows], OTHER[rows], 1.0), loss)


def test_with_weight_zero_unimodal_losses_alone_are_added():
    model = make_model()
    found = gradients(UniSMMC(weight=0.0), model)
    assert differing(found, gradients(UniSMMC(weight=1.0), model))
    assert set(found) == {name for name, _ in model.named_parameters()}


def test_the_random_state_of_the_training_is_left_alone():
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    method = UniSMMC()
    model = make_model()
    torch.random.set_rng_state(before)
    method.start(model, digits(), 5, 0)
    assert torch.equal(torch.random.get_rng_state(), before) and set(method.heads) == set(THREE)


def test_wrong_options_are_refused():
    with pytest.raises(ValueError, match="temperature must be positive, got 0"):
        UniSMMC(temperature=0)
    with pytest.raises(ValueError, match="needs at least 2, got"):
        UniSMMC().start(make_model(("left",)), digits(), 5, 0)
