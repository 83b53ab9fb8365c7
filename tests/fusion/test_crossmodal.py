"""MulT: reference numbers of a block and of the whole, equality with torch's own layers, and the caches."""

import pytest
import torch
from made_systems import close, fill, of, of_stack, recorded, wave
from torch import nn

from vgmr.fusion import crossmodal
from vgmr.fusion.attention import _Attended, attend, bias_of, byte_mask
from vgmr.fusion.crossmodal import Attention, CrossmodalStack, CrossmodalTransformer, sinusoids
from vgmr.prefusion import count_parameters

CMU = {"text": 768, "audio": 74, "vision": 35}


def test_block_gives_the_reference_numbers():
    """Order: attention, L(4->16), L(16->4), the two norms, the last norm."""
    stack = CrossmodalStack(4, 2, 1).double().eval()
    fill(of_stack(stack))
    target, source = wave(4, 2, 4).transpose(0, 1), wave(3, 2, 4, c=1).transpose(0, 1)
    close(stack(target, source)[0, 0], [-0.000729, 0.419801, 0.017088, 0.023652])
    close(stack(target, source, causal=True)[0, 0], [-0.000295, 0.419213, 0.016366, 0.023654])


def whole(causal=False):
    """Order: W_m; pairs 1<-2, 1<-3, 2<-1, 2<-3, 3<-1, 3<-2; memories; the three layers of the MLP."""
    model = CrossmodalTransformer(
        {"m1": 3, "m2": 2, "m3": 2}, 2, width=4, num_heads=2, num_layers=1, memory_layers=3, causal=causal
    )
    model = model.double().eval()
    stacks = [tensor for stack in (*model.pairs, *model.memories) for tensor in of_stack(stack)]
    projections = of(*(model.project[name] for name in model.names))
    fill([*projections, *stacks, *of(model.widen, model.narrow, model.output)])
    features = {"m1": wave(2, 4, 3), "m2": wave(2, 3, 2, c=1), "m3": wave(2, 5, 2, c=2)}
    return model, model.encode(features, None)


def test_the_whole_gives_the_reference_numbers():
    model, encodings = whole(causal=True)
    close(model.fuse(encodings), [[8.439650, 11.926754], [9.127635, 13.041182]])
    close(model.summaries(encodings, [None])[0][0, :4], [-0.152183, 0.145590, 0.585952, 0.265210])
    keeps = [["m1", "m2"], ["m2", "m3"], ["m1"], []]
    expected = [
        [[6.983726, 9.590602], [7.363731, 10.175326]],
        [[11.925424, 9.813238], [12.297897, 10.493221]],
        [[10.748918, 14.230981], [10.883441, 14.421232]],
        [[8.091159, 9.483653], [8.091159, 9.483653]],
    ]
    for got, numbers in zip(model.fuse_many(encodings, keeps), expected, strict=True):
        close(got, numbers)
    model, encodings = whole()
    close(model.fuse(encodings), [[8.438733, 11.926120], [9.126704, 13.039758]])


def test_self_attention_is_that_of_torch():
    stack = CrossmodalStack(8, 2, 2, positions=False).double().eval()
    x, real = torch.randn(3, 5, 8).double(), torch.arange(5) < torch.tensor([[5], [2], [3]])
    expected = x * 8**0.5
    for layer in stack.layers:
        theirs = nn.TransformerEncoderLayer(
            8, 2, 32, activation="relu", batch_first=True, norm_first=True, dtype=torch.float64
        ).eval()
        theirs.self_attn.load_state_dict(layer.attention.state_dict())
        for name in ("linear1 widen", "linear2 narrow", "norm1 norm_attention", "norm2 norm_feedforward"):
            there, here = name.split()
            getattr(theirs, there).load_state_dict(getattr(layer, here).state_dict())
        with torch.no_grad():
            expected = theirs(expected, src_key_padding_mask=~real)
    got = stack.remember(x, real)
    torch.testing.assert_close(got[real], stack.norm(expected)[real])
    for causal in (False, True):
        rows = stack.remember(x, real, causal)[torch.arange(3), real.sum(1) - 1]
        torch.testing.assert_close(stack.remember(x, real, causal, last_only=True), rows)


@pytest.mark.parametrize("rate", [-0.5, 1.5, float("nan"), "0.1", None])
@pytest.mark.parametrize(
    "which", ["attention_dropout", "relu_dropout", "dropout", "embedding_dropout", "output_dropout"]
)
def test_a_dropout_is_a_share(which, rate):
    with pytest.raises(ValueError, match=r"^dropout must lie in 0 to 1, got "):
        CrossmodalTransformer({"text": 3, "audio": 2}, 2, width=8, **{which: rate})


def test_a_training_can_be_shaped_without_memory_and_compiled():
    """On the device meta, as counts of operations ask, and as one graph."""
    model = CrossmodalTransformer({"text": 3, "audio": 2}, 2, width=8).train()
    features = {"text": torch.randn(2, 4, 3), "audio": torch.randn(2, 5, 2)}
    whole = torch.compile(lambda x: model.fuse(model.encode(x, None)), backend="eager", fullgraph=True)
    assert whole(features).shape == (2, 2)
    model.to("meta")
    features = {name: x.to("meta") for name, x in features.items()}
    assert model.fuse(model.encode(features, None)).shape == (2, 2)


def test_attention_is_that_of_torch():
    ours = Attention(8, 2, 0.0).double()
    theirs = nn.MultiheadAttention(8, 2, batch_first=True, dtype=torch.float64)
    theirs.load_state_dict(ours.state_dict())
    query, source = torch.randn(2, 3, 8).double(), torch.randn(2, 5, 8).double()
    real = torch.tensor([[True, True, False, False, False], [True] * 5])
    expected = theirs(query, source, source, key_padding_mask=~real)[0]
    bias = bias_of(real[:, None, None], query)
    torch.testing.assert_close(ours.attend(query, *ours.project_source(source), bias), expected)
    ours.dropout = 1e-12  # in training with dropout the weights are computed in the open
    torch.testing.assert_close(ours.attend(query, *ours.project_source(source), bias), expected)


@pytest.mark.parametrize("drops", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_gradients_of_attention_by_wide_products(masked, drops):
    """Those of the textbook's formula, one by one and mapped over seeds."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, n, 4).double().requires_grad_() for n in (5, 6, 6))
    bias = bias_of(torch.tensor([[True] * 6, [True] * 3 + [False] * 3])[:, None, None], q) if masked else None
    mask = byte_mask(torch.ones(2, 3, 5, 6).double(), 0.3) if drops else None

    def textbook(q, k, v):
        score = q @ k.transpose(2, 3) + (0 if bias is None else bias)
        return score.softmax(3) * (1 if mask is None else mask) @ v

    def ours(q, k, v):
        return _Attended.apply(q, k, v, bias, mask)[0]

    torch.testing.assert_close(ours(q, k, v), textbook(q, k, v))
    weight = torch.randn(2, 3, 5, 4).double()
    expected = torch.autograd.grad((textbook(q, k, v) * weight).sum(), (q, k, v))
    found = torch.autograd.grad((ours(q, k, v) * weight).sum(), (q, k, v))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    twice = [
        x.detach().expand(2, *x.shape) * torch.tensor([1.0, 2.0])[:, None, None, None, None] for x in (q, k, v)
    ]
    mapped = torch.func.vmap(torch.func.grad(lambda *x: (ours(*x) * weight).sum()))(*twice)
    torch.testing.assert_close(mapped[0], expected[0])


@pytest.mark.parametrize("drops", [True, False])
def test_attention_can_be_differentiated_twice(drops):
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 2, n, 3).double().requires_grad_() for n in (3, 4, 4))
    bias = bias_of(torch.tensor([[True] * 4, [True] * 3 + [False]])[:, None, None], q)
    mask = byte_mask(torch.ones(2, 2, 3, 4).double(), 0.3) if drops else None
    assert torch.autograd.gradcheck(lambda *x: _Attended.apply(*x, bias, mask)[0], (q, k, v))
    assert torch.autograd.gradgradcheck(lambda *x: _Attended.apply(*x, bias, mask)[0], (q, k, v))


def test_dropout_of_attention_takes_its_share_of_the_weights():
    torch.manual_seed(0)
    q = torch.zeros(50, 4, 20, 8)
    whole = attend(q, q, torch.eye(8).repeat(3, 1)[:20].expand(50, 4, 20, 8), None, 0.25)
    assert float(whole.mean()) == pytest.approx(1 / 8, abs=2e-3), "the mean stays"
    single = attend(q[..., :1, :], q[..., :1, :], torch.ones(50, 4, 1, 8), None, 0.25)
    assert float((single == 0).float().mean()) == pytest.approx(0.25, abs=0.12)
    assert single[single != 0].unique().tolist() == pytest.approx([4 / 3])


def test_attention_drops_everything_at_one_as_torch_does():
    q = torch.ones(64, 2, 5, 4)
    assert not attend(q, q, q, None, 1.0).any()
    assert not byte_mask(torch.ones(2000, 3).T, 1.0).any()


@pytest.mark.parametrize("sizes", [(4, 0, 1), (4, 2, 0), (4, 2.0, 1)])
def test_a_stack_refuses_sizes_that_cannot_be_meant(sizes):
    with pytest.raises(ValueError, match=r"^CrossmodalStack: num_\w+ must be at least 1, got .*; give a"):
        CrossmodalStack(*sizes)


def test_positions_by_hand():
    found = sinusoids(2, 4, torch.zeros(1).double())
    angle = torch.tensor([[1.0, 1e-4], [2.0, 2e-4]]).double()
    torch.testing.assert_close(found, torch.cat([angle.sin(), angle.cos()], 1))


class OnMps(torch.Tensor):
    """A tensor that says it lies on MPS, which has no float64."""

    device = property(lambda self: torch.device("mps"))


def test_positions_are_made_elsewhere_for_a_device_without_float64(monkeypatch):
    like, original = torch.zeros(1).as_subclass(OnMps), torch.Tensor.to
    moved = []

    def to(x, where):
        if where == torch.device("mps"):
            moved.append(x.dtype)
            return x
        return original(x, where)

    monkeypatch.setattr(torch.Tensor, "to", to)
    assert torch.equal(sinusoids(5, 8, like), sinusoids(5, 8, torch.zeros(1)))
    assert moved == [torch.float32], "what goes there is of a type that it has"


def test_causal_goes_by_real_lengths():
    """More padding on either side changes nothing, and no step sees what comes later."""
    stack = CrossmodalStack(4, 2, 2).double().eval()
    target, source = torch.randn(2, 3, 4).double(), torch.randn(2, 2, 4).double()
    expected = stack(target, source, causal=True)
    pad = torch.randn(2, 4, 4).double()
    real = [(torch.arange(n + 4) < n).expand(2, -1) for n in (3, 2)]
    got = stack(torch.cat([target, pad], 1), torch.cat([source, pad], 1), *real, causal=True)[:, :3]
    torch.testing.assert_close(got, expected)
    source[:, 1, 0] += 1  # the first step of three may see one step ahead of itself, here to the end
    assert not torch.equal(stack(target, source, causal=True)[:, 0], expected[:, 0])
    later = target.clone()
    later[:, 2, 0] += 1
    torch.testing.assert_close(stack.remember(later, None, True)[:, :2], stack.remember(target, None, True)[:, :2])


def test_what_subsets_have_in_common_runs_once(monkeypatch):
    model, encodings = whole()
    pairs = recorded(monkeypatch, crossmodal, "across")
    memories = recorded(monkeypatch, crossmodal, "remember_all")
    names = model.names
    keeps = [names, *([other for other in names if other != name] for name in names)]
    model.fuse_many(encodings, keeps)
    assert all(sum(one is stack for one in pairs) == 2 for stack in model.pairs)  # with and without its source
    assert len(pairs) == 12
    assert all(sum(one is stack for one in memories) == 3 for stack in model.memories) and len(memories) == 9


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("causal", [True, False])
def test_stacks_in_one_pass_are_each_what_they_are_alone(masked, causal, monkeypatch):
    """Values and gradients, of alike stacks, one with more heads, sources of another length or none."""
    torch.manual_seed(0)
    stacks = [CrossmodalStack(8, heads, 2).double().eval() for heads in (2, 2, 2, 4, 2, 2)]
    lengths = [5, 5, 5, 5, 3, None]
    targets = [torch.randn(3, 5, 8).double().requires_grad_() for _ in stacks]
    sources = [None if n is None else torch.randn(3, n, 8).double().requires_grad_() for n in lengths]
    real = [[torch.arange(n or 1) < torch.randint(1, (n or 1) + 1, (3, 1)) for n in (5, n)] for n in lengths]
    masks = [pair if masked else (None, None) for pair in real]
    asked = [
        (*three, *pair) for three, pair in zip(zip(stacks, targets, sources, strict=True), masks, strict=True)
    ]
    passes, original = [], CrossmodalStack.feed
    monkeypatch.setattr(
        CrossmodalStack, "feed", lambda self, z, *rest: passes.append(len(z)) or original(self, z, *rest)
    )
    together = crossmodal.across(asked, causal)
    assert passes == [3, 3, 1, 1, 1, 1, 1, 1], "two layers for each group of stacks"
    alone = [stack(*rest, causal) for stack, *rest in asked]
    remembered = crossmodal.remember_all(
        [(stack, x, pair[0]) for stack, x, pair in zip(stacks, targets, masks, strict=True)],
        causal,
        last_only=True,
    )
    each = [
        stack.remember(x, pair[0], causal, last_only=True)
        for stack, x, pair in zip(stacks, targets, masks, strict=True)
    ]
    leaves = [
        *targets,
        *(x for x in sources if x is not None),
        *(p for stack in stacks for p in stack.parameters()),
    ]
    for found, expected in ((together, alone), (remembered, each)):
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other)
        through = [sum(x.square().sum() for x in outputs) for outputs in (found, expected)]
        grads = [torch.autograd.grad(x, leaves, allow_unused=True) for x in through]
        for one, other in zip(*grads, strict=True):
            assert (one is None) == (other is None)
            if one is not None:
                torch.testing.assert_close(one, other)


def test_without_gradients_no_more_stacks_share_a_pass_than_memory_allows(monkeypatch):
    """Five of 3 samples, 5 steps and width 8, that each widen to 480 values behind weights of 768."""
    torch.manual_seed(0)
    asked = [(CrossmodalStack(8, 2, 1).eval(), torch.randn(3, 5, 8), torch.randn(3, 5, 8), None, None)] * 5
    passes, original = [], CrossmodalStack.feed
    monkeypatch.setattr(
        CrossmodalStack, "feed", lambda self, z, *rest: passes.append(len(z)) or original(self, z, *rest)
    )
    monkeypatch.setattr(crossmodal, "LARGEST", 2 * (480 + 768))
    with torch.no_grad():
        apart = crossmodal.across(asked, False)
    together = crossmodal.across(asked, False)
    assert passes == [2, 2, 1, 5]
    torch.testing.assert_close(apart, together)


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("causal", [True, False])
def test_no_sample_gives_no_answer(masked, causal):
    model = CrossmodalTransformer({"text": 3, "audio": 2}, 2, width=8, num_heads=2, causal=causal)
    features = {"text": torch.randn(0, 3, 3), "audio": torch.randn(0, 5, 2)}
    mask = {name: torch.ones(x.shape[:2], dtype=torch.bool) for name, x in features.items()} if masked else None
    assert model.fuse(model.encode(features, mask), None, mask).shape == (0, 2)


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@pytest.mark.parametrize("training", [True, False])
def test_hooks_keep_what_they_saw_and_change_nothing(training):
    torch.manual_seed(0)
    model = CrossmodalTransformer({"text": 3, "audio": 2}, 2, width=8, num_heads=2).train(training)
    encodings = model.encode({"text": torch.randn(4, 3, 3), "audio": torch.randn(4, 5, 2)}, None)
    parameters = [x for part in (model.pairs, model.memories, model.output) for x in part.parameters()]

    def run():
        torch.manual_seed(1)
        logits = model.fuse(encodings)
        return logits, *torch.autograd.grad(logits.square().sum(), parameters, retain_graph=True)

    plain, seen = run(), []

    def look(module, inputs, output):
        seen.extend((x, x.detach().clone()) for x in (*inputs, output))

    for module in model.modules():
        module.register_forward_hook(look)
        module.register_full_backward_hook(lambda *_: None)
    for one, other in zip(run(), plain, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert len(seen) > 8 and all(torch.equal(x, then) for x, then in seen)


def test_sizes_are_those_of_the_released_code():
    model = CrossmodalTransformer(CMU, 1, width=30, num_heads=5, num_layers=5, memory_layers=5)
    assert count_parameters(model) == 1_087_771
    assert count_parameters(CrossmodalTransformer(CMU, 2)) == 329_506


def test_attention_dropout_where_the_original_has_it():
    model = CrossmodalTransformer({"audio": 3, "text": 3}, 2)
    rates = [stack.layers[0].attention.dropout for stack in (*model.pairs, *model.memories)]
    assert rates == [0.1, 0.0, 0.1, 0.1]  # audio <- text, text <- audio, memories


def test_refusals():
    with pytest.raises(ValueError, match="CrossmodalTransformer lets modalities meet and needs at least 2"):
        CrossmodalTransformer({"m1": 3}, 2)
    for width, heads in ((2, 1), (5, 5), (10, 4)):
        with pytest.raises(ValueError, match=f"even width of at least 4 that {heads} heads divide, got {width}"):
            CrossmodalTransformer({"m1": 3, "m2": 3}, 2, width=width, num_heads=heads)
