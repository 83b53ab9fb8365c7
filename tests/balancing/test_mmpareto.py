"""MMPareto: the numbers of the two-gradient problem, and which gradients it makes."""

import pytest
import torch
from made_models import THREE, TWO, differing, gradients, make_model, names_of, start, take_step

from vgmr.balancing import Balancing, MMPareto, Uniform, mmpareto
from vgmr.balancing.base import unimodal_heads
from vgmr.balancing.mmpareto import combine, joint_weight


def pareto(g, u, *options):
    return combine(g, u, joint_weight(g, u), *options)


def one(g, u):
    (merged,) = pareto([torch.tensor(g)], [torch.tensor(u)])
    return merged


@pytest.mark.parametrize(
    ("g", "u", "weight", "merged", "length"),
    [
        ((1.0, 0.0), (-1.0, 1.0), 0.6, (0.67082, 1.34164), 1.5),
        ((3.0, 0.0), (1.0, 2.0), 0.5, (6.0, 3.0), 6.7082),
        ((2.0, 0.0), (-1.0, 1.0), 0.4, (0.67082, 2.01246), 2.12132),
    ],
)
def test_examples(g, u, weight, merged, length):
    assert float(joint_weight([torch.tensor(g)], [torch.tensor(u)])) == pytest.approx(weight)
    torch.testing.assert_close(one(g, u), torch.tensor(merged), atol=1e-5, rtol=0)
    assert float(one(g, u).norm()) == pytest.approx(length, abs=5e-5)


def test_the_first_example_before_its_length_is_restored():
    g, u = torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 1.0])
    h = 2 * 0.6 * g + 2 * 0.4 * u
    torch.testing.assert_close(h, torch.tensor([0.4, 0.8]))
    assert float((g + u).norm() / h.norm()) == pytest.approx(1.1180, abs=5e-5)


@pytest.mark.parametrize("size", [1e-25, 1e25])
def test_the_weight_does_not_depend_on_the_size_of_gradients(size):
    """Whose squares float32 cannot hold."""
    for g, u, weight in (((1.0, 0.0), (-1.0, 1.0), 0.6), ((3.0, 0.0), (1.0, 2.0), 0.5)):
        given = [size * torch.tensor(g)], [size * torch.tensor(u)]
        assert float(joint_weight(*given)) == pytest.approx(weight)


def test_in_conflict_both_losses_fall_alike():
    merged = one((1.0, 0.0), (-1.0, 1.0))
    assert float(merged @ torch.tensor([1.0, 0.0])) == pytest.approx(0.67082, abs=1e-5)
    assert float(merged @ torch.tensor([-1.0, 1.0])) == pytest.approx(0.67082, abs=1e-5)
    generator = torch.Generator().manual_seed(0)
    conflicts = 0
    for _ in range(50):
        g, u = torch.randn(2, 6, generator=generator)
        if g @ u < 0:
            (h,) = pareto([g], [u])
            torch.testing.assert_close(h @ g, h @ u)
            assert h @ g > 0
            conflicts += 1
    assert conflicts > 10


def test_lengths_after_rescaling():
    generator = torch.Generator().manual_seed(1)
    for _ in range(50):
        g, u = ([torch.randn(n, generator=generator) for n in (3, 7)] for _ in range(2))
        whole = torch.cat(pareto(g, u, 1.3, "encoder"))
        torch.testing.assert_close(whole.norm(), 1.3 * (torch.cat(g) + torch.cat(u)).norm())
        c = joint_weight(g, u)
        for part, one_g, one_u in zip(pareto(g, u, 1.3), g, u, strict=True):
            mixed = 2 * c * one_g + 2 * (1 - c) * one_u
            torch.testing.assert_close(part.norm(), 1.3 * torch.maximum((one_g + one_u).norm(), mixed.norm()))


def test_opposite_and_vanishing_gradients_stay_finite():
    for factor in (1.0, 0.3, 1.7, 1 / 3):
        g = torch.tensor([0.1, 0.7, -0.3])
        (merged,) = pareto([g], [-factor * g])
        assert merged.abs().max() < 1e-5  # not stretched to the length of g + u in a direction left to rounding
    assert one((0.0, 0.0), (0.0, 0.0)).tolist() == [0, 0]
    torch.testing.assert_close(one((1.0, 2.0), (0.0, 0.0)), torch.tensor([1.5, 3.0]))


def test_the_weight_does_not_depend_on_a_loss_scale():
    g, u = [torch.tensor([1.0, 0.3])], [torch.tensor([-1.0, 1.0])]
    scaled = joint_weight([2**16 * part for part in g], [2**16 * part for part in u])
    assert torch.equal(scaled, joint_weight(g, u))


def test_without_conflict_and_strength_it_is_the_uniform_control(monkeypatch):
    g, u = torch.tensor([1.0, 2.0]), torch.tensor([2.0, 1.0])
    torch.testing.assert_close(pareto([g], [u], 1.0)[0], g + u)
    monkeypatch.setattr(mmpareto, "joint_weight", lambda joint, unimodal: torch.tensor(0.5))
    for prefusion in ("none", "vgmr"):
        model = make_model(prefusion=prefusion)
        ours, uniform = gradients(MMPareto(1.0), model), gradients(Uniform(), model)
        assert set(ours) == set(uniform)
        for name in ours:
            torch.testing.assert_close(ours[name], uniform[name], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("names", [TWO, THREE])
def test_branches_get_the_combination_and_all_else_the_sum(names):
    model = make_model(names, "transformer")
    joint, uniform = gradients(Balancing(), model), gradients(Uniform(), model)
    method = MMPareto()
    ours = gradients(method, model)
    for name in names:
        branch = sorted(names_of(model, model.branch_parameters(name)))
        expected = pareto([joint[p] for p in branch], [uniform[p] - joint[p] for p in branch])
        for parameter, gradient in zip(branch, expected, strict=True):
            torch.testing.assert_close(ours[parameter], gradient, atol=1e-5, rtol=1e-3)
    for parameter in names_of(model, model.shared_parameters()):
        torch.testing.assert_close(ours[parameter], uniform[parameter], atol=1e-6, rtol=1e-4)
    head = names_of(model, model.head_parameters())
    assert head and not {name for name in head if not torch.equal(ours[name], joint[name])}


def test_unimodal_heads_are_drawn_as_linear_layers_are():
    model = make_model(head="sum")
    heads, again, other = (unimodal_heads(model, 10, seed) for seed in (0, 0, 1))
    drawn = torch.cat([x.detach().flatten() for x in heads.parameters()])
    bound = model.backbone.width**-0.5
    assert len(drawn) == 3 * 10 * 9 and 0.98 * bound < drawn.max() <= bound
    assert -bound <= drawn.min() < -0.98 * bound and abs(drawn.mean()) < 0.1 * bound
    assert all(torch.equal(x, y) for x, y in zip(heads.parameters(), again.parameters(), strict=True))
    assert not any(torch.equal(x, y) for x, y in zip(heads.parameters(), other.parameters(), strict=True))


def test_unimodal_heads_learn_as_in_the_uniform_control():
    found = []
    for method in (Uniform(), MMPareto()):
        model = make_model()
        take_step(method, model, start(method, model))
        found.append({name: p.grad for name, p in method.named_parameters()})
    assert len(found[0]) == 6 and not differing(*found)


def test_wrong_options_are_refused():
    with pytest.raises(ValueError, match="rescale must be 'tensor' or 'encoder', got 'all'"):
        MMPareto(rescale="all")


def test_an_interior_solution_is_not_clipped():
    """|g| = 1000 against |u| = .51: the official c, under which the combined gradient still lowers u's loss."""
    g, u = torch.tensor([1000.0, 0.0]), torch.tensor([-0.5, 0.1])
    weight = float(joint_weight([g], [u]))
    assert weight == pytest.approx(4.998e-4, rel=1e-3)
    combined = combine([g], [u], torch.tensor(weight))[0]
    assert float(combined @ u) == pytest.approx(149.9, rel=5e-3)
    assert float(combine([g], [u], torch.tensor(0.001))[0] @ u) == pytest.approx(-705.8, rel=5e-3)


def test_the_ends_are_clipped():
    nothing, something = torch.zeros(2), torch.tensor([1.0, 2.0])
    assert float(joint_weight([nothing], [something])) == pytest.approx(0.999)
    assert float(joint_weight([something], [nothing])) == pytest.approx(0.001)


@pytest.mark.parametrize("scale", [1e-18, 1e-12, 1.0, 1e12, 1e18])
def test_the_weight_does_not_depend_on_the_scale_of_the_gradients(scale):
    g, u = scale * torch.tensor([1.0, 0.0]), scale * torch.tensor([-1.0, 1.0])
    assert float(joint_weight([g], [u])) == pytest.approx(0.6, rel=1e-5)
