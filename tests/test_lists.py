"""Lists of operations give the same bits as what they were made of, whatever looks at, writes into or draws it."""

from collections import Counter

import pytest
import torch
from torch import nn
from torch.func import vmap
from torch.fx.experimental.proxy_tensor import make_fx

from vgmr.loop import lists
from vgmr.loop.lists import Traced, listing_after, without_copies, without_views


def stack_of_views(epoch, x):
    return x.view(4, 6).t().unsqueeze(0).expand(2, 6, 4).transpose(1, 2) * 2, x.detach().view(24).view(4, 6).sum()


def written_through_a_view(epoch, x):
    y = x * 3
    row, column = y[1], y.t()[2]
    before = row + 0
    row.add_(10)
    column.mul_(-1)
    return y, before, column.clone(), y.view(-1)[6:9] * 1


def written_into_what_is_given(epoch, x):
    x.t()[0].add_(1)
    return x.sum(), x[:, 0] * 2


def constants(epoch, x):
    steps = torch.arange(6, dtype=torch.float32)
    count = torch.zeros(())
    count.add_(1)
    return x.view(4, 6) * steps.cos().view(1, 6) + count, torch.full((2,), 3.0)


def times_one(x):
    """As adding a bias that is mapped over seeds has it."""
    return torch.ops.aten.mul.Scalar(x, 1)


def products_with_one(epoch, x):
    same = times_one(x.view(4, 6))
    own = times_one(x.view(4, 6))
    own.add_(5)
    return same + 1, own, times_one(x.view(4, 6).t()) - own.t(), times_one(torch.arange(3)) / 2


def parts(epoch, x):
    one, other = x.view(-1).split([10, 14])
    return one.view(2, 5) @ one.view(5, 2), other.sum(), torch.var_mean(other)[0]


def drawn(epoch, x):
    torch.rand_like(x)  # nobody reads it, and what comes after is drawn behind it
    return (
        torch.bernoulli(x, 0.3) * 2,
        torch.rand(3),
        torch.bernoulli(x.double(), 0.3),
        nn.functional.dropout(x, 0.3),
    )


def mapped_over_seeds(epoch, x):
    def one(row):
        weight = row.view(4, 6)
        loss = nn.functional.linear(torch.ones(3, 6), weight, row[:4]).softmax(-1)[:, 0].log().sum()
        return loss

    return vmap(torch.func.grad_and_value(one))(x.view(1, 24).expand(3, 24) * torch.ones(3, 1))


def conjugate(epoch, x):
    pairs = torch.view_as_complex(x.view(12, 2))
    return pairs.conj() * 1j, pairs.conj().imag + 0, pairs.imag + 0


def statistics_of_a_batch(epoch, x):
    mean, variance = torch.zeros(6), torch.ones(6)
    before = times_one(mean)
    y = nn.functional.batch_norm(x, mean, variance, training=True)
    return y, before, mean, variance


FUNCTIONS = [
    conjugate,
    statistics_of_a_batch,
    stack_of_views,
    written_through_a_view,
    written_into_what_is_given,
    constants,
    products_with_one,
    parts,
    drawn,
    mapped_over_seeds,
]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda one: one.__name__)
def test_a_list_gives_the_bits_of_its_function(function):
    traced = Traced(function)
    with listing_after(1):
        for turn in range(4):
            given = torch.randn(4, 6, generator=torch.Generator().manual_seed(turn))
            own, listed = given.clone(), given.clone()
            torch.manual_seed(turn)
            want, state = function(0, own), torch.get_rng_state()
            torch.manual_seed(turn)
            have = traced(0, listed)
            assert torch.equal(state, torch.get_rng_state())
            assert torch.equal(own, listed)
            for one, other in zip(want, have, strict=True):
                assert one.dtype == other.dtype and torch.equal(one, other)
    assert traced._lists and None not in traced._lists.values()


def operations(listed):
    return Counter(str(node.target) for node in listed.graph.nodes if node.op == "call_function")


def test_views_upon_views_are_one_operation_and_constants_none():
    def function(x):
        steps = torch.arange(6, dtype=torch.float32).cos()
        return (
            x.view(6, 4).t().unsqueeze(0).transpose(1, 2).contiguous()
            + x.view(4, 6).detach().view(4, 6).sum(0)[:4]
            + steps[0]
        )

    given = torch.randn(4, 6)
    listed = make_fx(function)(given)
    before = operations(listed)
    without_views(listed, (given,))
    listed.recompile()
    after = operations(listed)
    assert torch.equal(listed(given), function(given))
    views = {
        "aten.view.default",
        "aten.t.default",
        "aten.unsqueeze.default",
        "aten.transpose.int",
        "aten.detach.default",
    }
    assert views & before.keys() and not views & after.keys()
    assert not {"aten.arange.default", "aten.cos.default", "aten.select.int"} & after.keys()
    assert [node.op for node in listed.graph.nodes].count("get_attr") == 1
    assert after["aten.as_strided.default"] == 2  # (1, 6, 4) of what is given, and four of the sum


def test_a_product_with_one_stays_where_something_writes():
    given = torch.randn(4, 6)
    plain, written = make_fx(lambda x: times_one(x) + 2)(given), make_fx(lambda x: times_one(x).add_(2))(given)
    for listed in (plain, written):
        without_copies(listed, (given,))
    assert operations(plain)["aten.mul.Scalar"] == 0
    assert operations(written)["aten.mul.Scalar"] == 1
    before = given.clone()
    assert torch.equal(plain(given), written(given)) and torch.equal(given, before)


def test_what_lies_otherwise_in_memory_is_another_list_or_none():
    calls = []

    def function(epoch, x):
        calls.append(1)
        return (x * 2,)

    traced = Traced(function)
    with listing_after(1):
        for _ in range(3):
            traced(0, torch.ones(4, 6))
        assert len(calls) == 2  # once as it is, once traced
        for _ in range(3):
            (twice,) = traced(0, torch.arange(24.0).view(6, 4).t())
        assert torch.equal(twice, 2 * torch.arange(24.0).view(6, 4).t())
        wide = torch.arange(48.0).view(4, 12)
        for _ in range(3):
            (twice,) = traced(0, wide[:, 3:9])  # with gaps, which a copy would close
        assert torch.equal(twice, 2 * wide[:, 3:9])
    assert list(traced._lists.values()).count(None) == 1


def test_dropout_is_compared_only_where_torch_draws_so(monkeypatch):
    """Where it draws otherwise, as on processors of Intel, the operation stays."""

    def function(epoch, x):
        return (torch.bernoulli(x, 0.3),)

    for same, kept in ((True, 0), (False, 1)):
        monkeypatch.setattr(lists, "_drawn_by_comparing", lambda share, same=same: same)
        traced = Traced(function)
        with listing_after(1):
            for _ in range(2):
                traced(0, torch.ones(4, 6))
        (listed,) = traced._lists.values()
        assert sum("bernoulli" in name for name in operations(listed)) == kept
