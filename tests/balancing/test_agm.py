"""AGM: Shapley shares, coefficients, and the gradient against scaling each share's signal literally."""

import math

import pytest
import torch
import torch.nn.functional as F
from made_models import THREE, TWO, differing, digits, gradients, make_model, names_of, start

from vgmr.balancing import AGM, Balancing
from vgmr.balancing.agm import discrepancy, signal_scale
from vgmr.classifier import Classifier
from vgmr.fusion.tensor_fusion import TensorFusion
from vgmr.inference import shapley_weights, subsets
from vgmr.prefusion import Identity


class ScaleBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, factor):
        ctx.factor = factor
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return ctx.factor * gradient, None


def with_scale(kappa, clip=None):
    method = AGM(clip=clip)
    method.scale = lambda shares, label: torch.as_tensor(kappa)
    return method


def test_weights_for_two_and_three():
    assert subsets("av") == [("a",), ("v",), ("a", "v")]
    torch.testing.assert_close(
        shapley_weights("av"), torch.tensor([[0.5, -0.5], [-0.5, 0.5], [0.5, 0.5]])
    )  # m_a = (f(av) - f(v) + f(a)) / 2
    three = dict(zip(subsets("avt"), shapley_weights("avt")[:, 0].tolist(), strict=True))
    expected = {"avt": 1 / 3, "vt": -1 / 3, "a": 1 / 3, "av": 1 / 6, "v": -1 / 6, "at": 1 / 6, "t": -1 / 6}
    assert three == {kept: pytest.approx(expected["".join(kept)]) for kept in subsets("avt")}


def test_closed_form_for_two():
    kappa = torch.tensor([0.4, 1.7])
    of_a, of_v, of_both = (shapley_weights("av") @ kappa).tolist()
    assert (of_both, of_a, of_v) == (pytest.approx(1.05), pytest.approx(-0.65), pytest.approx(0.65))


@pytest.mark.parametrize("head", ["concat", "sum", "tensor", "shared"])
@pytest.mark.parametrize("names", [TWO, THREE])
def test_shares_sum_to_the_joint_logits(head, names):
    model = make_model(names, head=head, prefusion="vgmr", dropout=0.3)
    method = AGM()
    start(method, model)
    batch = digits(names).train.index(torch.arange(9))
    output = model(batch.features, batch.mask)
    torch.testing.assert_close(method.shares(model, output).sum(0), output.logits, atol=1e-5, rtol=1e-5)


def test_coefficients_of_two():
    score, average = torch.tensor([0.5, 1.0]), torch.tensor([0.8, 1.0])
    torch.testing.assert_close(discrepancy(score), torch.tensor([1.64872, 0.60653]), atol=1e-5, rtol=0)
    torch.testing.assert_close(discrepancy(average), torch.tensor([1.22140, 0.81873]), atol=1e-5, rtol=0)
    kappa = signal_scale(score, average, 1.0)
    torch.testing.assert_close(kappa, torch.tensor([0.65226, 1.23640]), atol=1e-5, rtol=0)


def test_coefficients_of_three():
    score = torch.tensor([0.5, 1.0, 1.5])
    torch.testing.assert_close(discrepancy(score), torch.tensor([2.1170, 1.0, 0.47237]), atol=1e-4, rtol=0)


def test_no_change_against_the_average_scales_by_one():
    score = torch.tensor([0.3, 2.0, 0.9])
    assert signal_scale(score, score, 4.0).tolist() == [1, 1, 1]


def test_the_limit_bounds_the_exponent():
    kappa = signal_scale(torch.tensor([9.0, 0.0]), torch.tensor([0.0, 9.0]), 0.5, 2.0)
    assert kappa[0] == pytest.approx(math.e) and kappa[1] == pytest.approx(0, abs=1e-30)


def test_running_averages_lag_by_one_step():
    method = AGM(alpha=1.0)
    model = make_model(TWO)
    start(method, model)
    label = torch.tensor([0])
    first = torch.tensor([[[0.0, 1.0]], [[2.0, 0.0]]])
    second = torch.tensor([[[3.0, 1.0]], [[0.0, 0.5]]])
    loss = [-one.log_softmax(2)[:, 0, 0] for one in (first, second)]
    torch.testing.assert_close(method.scale(first, label), signal_scale(loss[0], torch.zeros(2), 1.0))
    torch.testing.assert_close(method.scale(second, label), signal_scale(loss[1], loss[0], 1.0))
    torch.testing.assert_close(method.average, (loss[0] + loss[1]) / 2)


@pytest.mark.parametrize("head", ["concat", "tensor"])
@pytest.mark.parametrize("backbone", ["pooled", "transformer"])
@pytest.mark.parametrize(("names", "kappa"), [(TWO, (0.4, 1.7)), (THREE, (0.4, 1.7, 0.9))])
def test_gradient_is_that_of_scaling_each_share(head, backbone, names, kappa):
    model = make_model(names, backbone, head=head)
    batch = digits(names).train.index(torch.arange(32))
    method = with_scale(kappa)
    ours = gradients(method, model)
    output = model(batch.features, batch.mask)
    shares = method.shares(model, output)
    scaled = sum(ScaleBackward.apply(share, factor) for share, factor in zip(shares, kappa, strict=True))
    model.zero_grad()
    F.cross_entropy(scaled, batch.label).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(ours[name], parameter.grad, atol=1e-6, rtol=1e-4, msg=name)


def test_equal_scales_scale_the_plain_gradient():
    model = make_model(prefusion="none")
    plain = gradients(Balancing(), model)
    assert not differing(gradients(with_scale((1.0, 1.0, 1.0)), model), plain)
    for name, gradient in gradients(with_scale((3.0, 3.0, 3.0)), model).items():
        torch.testing.assert_close(gradient, 3 * plain[name])


def test_with_an_additive_head_branches_get_exactly_their_scale():
    model = make_model()
    kappa = dict(zip(THREE, (0.5, 2.0, 1.0), strict=True))
    plain = gradients(Balancing(), model)
    ours = gradients(with_scale(list(kappa.values())), model)
    for position, (name, factor) in enumerate(kappa.items()):
        for parameter in names_of(model, model.branch_parameters(name)):
            torch.testing.assert_close(ours[parameter], factor * plain[parameter], atol=1e-7, rtol=1e-4)
        columns = slice(8 * position, 8 * position + 8)
        weight = "backbone.head.linear.weight"
        torch.testing.assert_close(
            ours[weight][:, columns], factor * plain[weight][:, columns], atol=1e-7, rtol=1e-4
        )
    bias = "backbone.head.linear.bias"
    torch.testing.assert_close(ours[bias], 3.5 / 3 * plain[bias], atol=1e-7, rtol=1e-4)


def test_a_share_that_rules_the_truth_out_has_a_loss_that_is_finite():
    method = AGM()
    start(method, make_model(TWO))
    kappa = method.scale(torch.tensor([[[0.0, 300.0]], [[0.0, 0.0]]]), torch.tensor([0]))
    torch.testing.assert_close(method.average, torch.tensor([-math.log(1e-8), math.log(2)]))
    assert torch.isfinite(kappa).all()


def test_shares_have_the_dropout_of_the_joint_pass_and_draw_none_behind_it():
    torch.manual_seed(0)
    data = digits(TWO)
    model = Classifier(Identity(data.dims), TensorFusion(data.dims, 10, width=3, dropout=0.5)).train()
    method = AGM()
    start(method, model)
    batch = data.train.index(torch.arange(32))
    output = model(batch.features, batch.mask)
    shares = method.shares(model, output)
    assert torch.equal(shares, method.shares(model, output)) and model.backbone.training
    torch.testing.assert_close(shares.sum(0), output.logits)


def test_large_gradients_are_clipped_by_the_head():
    model = make_model()
    free = gradients(with_scale((1.0, 1.0, 1.0)), model)
    peak = float(free["backbone.head.linear.weight"].abs().max())
    loose, tight = (gradients(with_scale((1.0, 1.0, 1.0), clip=factor * peak), model) for factor in (1.01, 0.99))
    assert not differing(loose, free)
    norm = torch.cat([gradient.flatten() for gradient in tight.values()]).norm()
    assert float(norm) == pytest.approx(0.99 * peak, rel=1e-4)


def test_a_large_gradient_of_the_heads_bias_clips_nothing():
    model = make_model()
    for encoder in model.backbone.encoder.values():
        encoder[0].weight.data *= 0.01
        encoder[0].bias.data *= 0.01
    free = gradients(with_scale((1.0, 1.0, 1.0)), model)
    weight, bias = (float(free[f"backbone.head.linear.{part}"].abs().max()) for part in ("weight", "bias"))
    assert bias > 2 * weight
    assert not differing(gradients(with_scale((1.0, 1.0, 1.0), clip=1.01 * weight), model), free)
