"""MISA: reference numbers of the fusion and the three losses, hand values, what the official loss does wrong."""

import math

import pytest
import torch
from made_numbers import attention, fill, linear, wave
from torch import nn

from vgmr.fusion.misa import (
    MISA,
    StackedRecurrence,
    central_moments,
    differences,
    moment_discrepancy,
    unit_rows,
)

NAMES = ("m1", "m2", "m3")


def core(variant="official", similarity="moments"):
    sizes = {"width": 4, "averaged": NAMES, "feedforward_dim": 8}
    model = MISA(dict.fromkeys(NAMES, 4), 2, **sizes, variant=variant, similarity=similarity)
    model = model.double().eval()
    mix = model.mix
    fill(
        *linear(
            *(model.private[name] for name in NAMES), model.shared, *(model.reconstruct[name] for name in NAMES)
        ),
        *attention(mix.self_attn),
        *linear(mix.linear1, mix.linear2, mix.norm1, mix.norm2, model.output[0], model.output[3]),
    )
    return model, {name: wave(3, 4, c=place) for place, name in enumerate(NAMES)}


def test_reference_numbers_of_the_fusion():
    model, encodings = core()
    expected = torch.tensor([[6.814619, 5.695121], [6.773225, 5.646062], [6.820251, 5.695420]]).double()
    torch.testing.assert_close(model.fuse(encodings), expected, atol=1e-5, rtol=0)
    for keep, row in (
        (("m1", "m2"), (3.749605, 2.216317)),
        (("m1",), (4.096003, 2.336736)),
        ((), (1.750317, 1.027275)),
    ):
        found = model.fuse(encodings, keep)[0]
        torch.testing.assert_close(found, torch.tensor(row).double(), atol=1e-5, rtol=0)


def test_reference_numbers_of_the_losses():
    model, encodings = core()
    losses = {what: loss.detach() for what, loss in model.losses(encodings).items()}
    assert float(losses["difference"]) == pytest.approx(2.521447, abs=1e-5)
    assert float(losses["similarity"]) == pytest.approx(0.159860, abs=1e-5)
    assert float(losses["reconstruction"]) == pytest.approx(2.274789, abs=1e-5)
    weighted = model.auxiliary_loss(encodings, None, torch.zeros(3))["difference"].detach()
    assert float(weighted) == pytest.approx(0.3 * 2.521447, abs=1e-5)


def test_discrepancies_by_hand():
    corner = torch.tensor([[0.0, 0.0], [1.0, 1.0]]).double()
    moments = central_moments(corner)
    torch.testing.assert_close(moments[:, 0], torch.tensor([1 / 2, 1 / 4, 0, 1 / 16, 0]).double())
    assert float(moment_discrepancy(moments, central_moments(corner + 1))) == pytest.approx(2**0.5, abs=1e-5)
    assert float(moment_discrepancy(moments, central_moments(corner + torch.tensor([0.0, 1.0])))) == pytest.approx(
        1, abs=1e-5
    )
    opposite = unit_rows(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]).double())
    found = differences(torch.stack([opposite, opposite, opposite.flip(1)]), None)
    torch.testing.assert_close(found, torch.ones(3, 3).double(), atol=1e-5, rtol=0)
    x, y = unit_rows(torch.rand(2, 6, 3).double())
    by_channels = (x.T @ y).square().mean()
    torch.testing.assert_close(differences(torch.stack([x, y]), None)[0, 1], by_channels)


def test_the_corrected_losses_are_the_official_ones_at_16_samples():
    corrected, official = core("corrected")[0], core("official")[0]
    for size, ratio in ((16, 1), (8, 4)):
        encodings = {name: wave(size, 4, c=place) for place, name in enumerate(NAMES)}
        found, as_published = corrected.losses(encodings), official.losses(encodings)
        assert found["difference"].item() == pytest.approx(ratio * as_published["difference"].item())
        assert found["similarity"].item() == as_published["similarity"].item()


def test_the_official_difference_grows_with_the_square_of_the_batch_and_the_corrected_does_not():
    first, second = torch.rand(16, 4).double(), torch.rand(16, 4).double()
    views = unit_rows(torch.stack([first, second]))
    once, official = differences(views), differences(views, None)
    torch.testing.assert_close(once, official)  # equal at 16 samples
    doubled = unit_rows(torch.stack([torch.cat([x, x]) for x in (first, second)]))
    torch.testing.assert_close(differences(doubled), once)
    torch.testing.assert_close(differences(doubled, None), 4 * official)


def test_coinciding_views_have_no_discrepancy_and_finite_gradients():
    x = torch.rand(6, 3).double().requires_grad_()
    loss = moment_discrepancy(central_moments(x), central_moments(x.detach().clone()))
    loss.backward()
    assert float(loss.detach()) < 1e-5 and torch.isfinite(x.grad).all()


def test_told_apart_by_a_network_the_views_learn_the_opposite_of_what_it_learns():
    torch.manual_seed(0)
    model = MISA(dict.fromkeys(NAMES, 4), 2, width=4, averaged=NAMES, similarity="adversarial").double().eval()
    encodings = {name: wave(3, 4, c=place) for place, name in enumerate(NAMES)}
    loss = model.losses(encodings)["similarity"]
    told, owner = model.whose(model.views(encodings)[1]), torch.tensor([[0] * 3, [1] * 3, [2] * 3])
    literal = -told.log_softmax(2).gather(2, owner.unsqueeze(2)).mean()
    torch.testing.assert_close(loss, literal)
    teller = list(model.whose.parameters())
    found = torch.autograd.grad(loss, [*teller, model.shared.weight])
    expected = torch.autograd.grad(literal, [*teller, model.shared.weight])
    for ours, theirs in zip(found[:-1], expected[:-1], strict=True):
        torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(found[-1], -expected[-1])
    assert found[-1].abs().max() > 0
    for parameter in teller:
        parameter.data.zero_()
    assert float(model.losses(encodings)["similarity"].detach()) == pytest.approx(math.log(3))


@pytest.mark.parametrize("seed", range(4))
def test_one_step_of_the_network_tells_better_and_one_of_the_views_worse(seed):
    torch.manual_seed(seed)
    model = MISA({"a": 2, "b": 2}, 2, width=4, averaged=("a", "b"), similarity="adversarial").double().eval()
    features = {"a": torch.randn(64, 1, 2).double() + 1, "b": torch.randn(64, 1, 2).double() - 1}

    def unlike():
        return model.losses(model.encode(features, None))["similarity"]

    before = unlike()
    before.backward()
    gradient = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    for of_network in (True, False):
        own = {name: step for name, step in gradient.items() if name.startswith("whose") == of_network}
        with torch.no_grad():
            for name, step in own.items():
                model.get_parameter(name).sub_(1e-3 * step)
            assert (unlike() < before) == of_network
            for name, step in own.items():
                model.get_parameter(name).add_(1e-3 * step)


@pytest.mark.parametrize("similarity", ["moments", "adversarial"])
def test_the_order_of_samples_changes_no_loss(similarity):
    model, encodings = core("corrected", similarity)
    order = torch.tensor([2, 0, 1])
    for what, loss in model.losses({name: x[order] for name, x in encodings.items()}).items():
        torch.testing.assert_close(loss, model.losses(encodings)[what])


def test_recurrence_equals_packed_sequences():
    ours = StackedRecurrence(3, 2).double()
    first, second = (nn.LSTM(size, 2, batch_first=True, bidirectional=True).double() for size in (3, 4))
    for packed, cells in ((first, ours.first), (second, ours.second)):
        for ending, cell in zip(("", "_reverse"), cells, strict=True):
            for name, parameter in cell.named_parameters():
                getattr(packed, name + ending).data = parameter.data
    lengths = torch.tensor([5, 2, 4])
    x, mask = torch.randn(3, 5, 3).double(), torch.arange(5) < lengths.unsqueeze(1)
    pack = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    states, (last, _) = first(pack)
    states, _ = nn.utils.rnn.pad_packed_sequence(states, batch_first=True)
    again = nn.utils.rnn.pack_padded_sequence(ours.norm(states), lengths, batch_first=True, enforce_sorted=False)
    _, (later, _) = second(again)
    expected = torch.cat([last[0], later[0], last[1], later[1]], 1)
    torch.testing.assert_close(ours(x, mask), expected)


def test_size_of_the_original():
    """1,433,233 values in the authors' class without BERT, of which 1,716 are dead; its LSTMs are d_m wide."""
    sizes = {"width": 128, "hidden_dim": {"audio": 74, "vision": 35}, "feedforward_dim": 2048}
    model = MISA({"audio": 74, "text": 768, "vision": 35}, 1, **sizes)

    def count(module):
        return sum(p.numel() for p in module.parameters())

    assert count(model) == 1_433_233 - 1_716 and count(model.mix) == 593_024
    assert count(MISA({"text": 768, "audio": 74, "vision": 35}, 2)) == 95_106


def test_refusals():
    with pytest.raises(ValueError, match="MISA lets modalities meet and needs at least 2, got \\['a'\\]"):
        MISA({"a": 3}, 2)
    with pytest.raises(ValueError, match="width must be divisible by num_heads, got 5 and 2"):
        MISA({"a": 3, "b": 2}, 2, width=5)
    with pytest.raises(ValueError, match="variant must be 'corrected' or 'official', got 'new'"):
        MISA({"a": 3, "b": 2}, 2, variant="new")
    with pytest.raises(ValueError, match="similarity must be 'moments' or 'adversarial', got 'cmd'"):
        MISA({"a": 3, "b": 2}, 2, similarity="cmd")


def test_hooks_and_parametrisations_of_its_recurrences_are_heeded():
    model, seen = MISA({"a": 3, "b": 2}, 2, averaged=(), width=4, hidden_dim=2), []
    features = {name: torch.randn(2, 3, width) for name, width in model.dims.items()}
    plain = model.eval().encode(features, None)["a"]
    cell = model.sequence["a"].first[0]
    handle = cell.register_forward_hook(lambda *given: seen.append(given))
    torch.testing.assert_close(model.encode(features, None)["a"], plain)
    assert len(seen) == 1
    handle.remove()
    nn.utils.parametrizations.weight_norm(cell, "weight_ih_l0")
    torch.testing.assert_close(model.encode(features, None)["a"], plain)
