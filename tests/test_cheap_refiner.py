"""Cheaper forms of the refiner: shared maps, a rank, sparse gates; what each changes, what it leaves."""

import itertools

import pytest
import torch
from reference import made_inputs, randomise
from torch import nn
from torch.nn.utils import prune

from vgmr import VGMR, Classifier, Objective, PooledBackbone, TransformerBackbone
from vgmr.data.types import Batch
from vgmr.prefusion import count_parameters
from vgmr.refiner import FORMS

DIMS = {"text": 6, "audio": 4, "vision": 3}
LENGTHS = {"text": 5, "audio": 7, "vision": 4}
CALIBRATED = {**FORMS["calibrated"], "num_classes": 3, "evidence_frequencies": 2}
PARTS = ("features", "gate", "effective_gate", "global_value", "channel_value")


def made(dims=DIMS, seed=0, **options):
    vgmr = VGMR(dims, **{"latent_dim": 3, **options}).double().eval()
    randomise(vgmr, seed)
    return vgmr


def close(one, other, atol=1e-10):
    for what, name in itertools.product(PARTS, one.features):
        a, b = getattr(one, what)[name], getattr(other, what)[name]
        torch.testing.assert_close(a, b, atol=atol, rtol=0, msg=lambda m, w=what, n=name: f"{n} {w}: {m}")


def test_the_defaults_are_the_papers_form_bit_by_bit():
    """Same weights from the same seed, and the equations in plain torch calls, in float32 and to the last bit."""
    torch.manual_seed(0)
    vgmr = VGMR(DIMS, 4, norm="none").eval()
    torch.manual_seed(0)
    again = VGMR(DIMS, 4, norm="none", sharing=False, rank=None, sparsity=0.0).eval()
    assert list(vgmr.state_dict()) == list(again.state_dict())
    assert all(map(torch.equal, vgmr.state_dict().values(), again.state_dict().values()))
    features, _ = made_inputs(DIMS, 8, LENGTHS, dtype=torch.float32)
    got = vgmr(features)
    for name, x in features.items():
        maps = vgmr.of(name)
        inner, outer, own = maps.projection, maps.gate_from_latent, maps.gate_from_features
        weight = own.weight + outer.weight @ inner.weight
        evidence = torch.nn.functional.linear(x, weight, own.bias + outer.bias + outer.weight @ inner.bias)
        context = maps.gate_from_global(got.global_value[name].unsqueeze(1) - 0.5)
        context = context + maps.gate_from_channel(got.channel_value[name] - 0.5)
        gate = torch.sigmoid(evidence + context.unsqueeze(1))
        assert torch.equal(got.gate[name], gate)
        assert torch.equal(got.features[name], (gate * (2 * 0.8 * 0.5) + (1 - 0.8 * 0.5)) * x)


# Rank


@pytest.mark.parametrize("ragged", [True, False])
def test_full_rank_is_the_papers_form(ragged):
    """With as many combinations as channels, each one channel, the diagonal at 0 and f^h put into f^x."""
    full, low = made({"text": 4, "audio": 4}), made({"text": 4, "audio": 4}, 1, rank=4)
    state = full.state_dict()
    for name in full.dims:
        weight, bias = full.of(name).gate_weight()
        state[f"maps.{name}.bottleneck.weight"] = torch.eye(4).double()
        state[f"maps.{name}.diagonal"] = torch.zeros(4).double()
        state[f"maps.{name}.gate_from_features.weight"] = weight
        state[f"maps.{name}.gate_from_features.bias"] = bias
        state[f"maps.{name}.gate_from_latent.weight"] = torch.zeros(4, 3).double()
        state[f"maps.{name}.gate_from_latent.bias"] = torch.zeros(4).double()
    low.load_state_dict(state)
    given = made_inputs({"text": 4, "audio": 4}, 5, LENGTHS, 2, ragged)
    close(full(*given), low(*given))


def test_the_diagonal_weighs_each_channel_by_itself():
    """All else at 0, the logit of channel k is diagonal_k x_k."""
    vgmr = made(rank=2)
    for parameter in vgmr.parameters():
        parameter.data.zero_()
    vgmr.of("text").diagonal.data = torch.arange(6.0).double()
    features, mask = made_inputs(DIMS, 2, LENGTHS, 2)
    expected = torch.sigmoid(features["text"] * torch.arange(6.0))
    real = mask["text"]
    torch.testing.assert_close(vgmr(features, mask).gate["text"][real], expected[real])


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_what_a_gate_reads_of_a_step_has_the_rank(rank):
    dims = {"text": 7, "audio": 6}
    vgmr = made(dims, rank=rank)
    for name in dims:
        weight, _ = vgmr.of(name).gate_weight()
        map_of_step = weight @ vgmr.of(name).bottleneck.weight
        assert torch.linalg.matrix_rank(map_of_step) == rank


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_channel_values_of_anchors_reach_the_gate_by_the_rank(rank):
    """f^c as one matrix is a diagonal and what has the rank, where the full form has any matrix."""
    full, low = made(rank=None, **CALIBRATED), made(rank=rank, **CALIBRATED)
    value = torch.randn(5, 6, generator=torch.Generator().manual_seed(1)).double()
    narrow = low.of("text").gate_from_channel
    matrix = narrow(torch.eye(6).double()).detach().T - narrow.bias.detach().unsqueeze(1)
    torch.testing.assert_close(narrow(value), value @ matrix.T + narrow.bias, atol=1e-12, rtol=0)
    assert torch.linalg.matrix_rank(matrix - narrow.diagonal.diag(), atol=1e-9) == rank
    assert sum(one.numel() for one in narrow.parameters()) == 2 * 6 * (1 + rank)
    assert full.of("text").gate_from_channel.weight.shape == (6, 6)


@pytest.mark.parametrize("value_from", ["summaries", "both"])
def test_learned_channel_values_have_the_latent_width_and_one_map(value_from):
    """Also where that happens to be the width of the modality."""
    vgmr = made({"text": 3, "audio": 5}, rank=2, value_from=value_from, num_classes=3)
    assert [vgmr.of(name).gate_from_channel.weight.shape for name in vgmr.dims] == [(3, 3), (5, 3)]


@pytest.mark.parametrize("neutral_start", [True, False])
@pytest.mark.parametrize("rank", [None, 0, 3])
def test_a_neutral_start_is_neutral_in_every_rank(rank, neutral_start):
    vgmr = VGMR(DIMS, rank=rank, **{**CALIBRATED, "neutral_start": neutral_start})
    features, mask = made_inputs(DIMS, 60, LENGTHS, 2, dtype=torch.float32)
    vgmr.prepare(features, mask, torch.arange(60) % 3)
    gate = vgmr(features, mask).gate
    assert all(bool((one == 0.5).all()) == neutral_start for one in gate.values())


@pytest.mark.parametrize("batch", [1, 9])
@pytest.mark.parametrize("per_step", [True, False])
@pytest.mark.parametrize("rank", [None, 0, 3])
@pytest.mark.parametrize("form", [{}, CALIBRATED, {"value_from": "both", "num_classes": 3}])
def test_folded_copy_is_equal(rank, per_step, form, batch):
    """One sample of few steps takes the maps one by one, nine fold them."""
    vgmr = made(rank=rank, per_step=per_step, **form)
    given = made_inputs(DIMS, batch, {name: 2 for name in DIMS}, 3)
    close(vgmr(*given), vgmr.fold()(*given))


# One gate for a sequence


ONE_GATE = [{"rank": 0}, {"per_step": False}, {"rank": 2, "per_step": False}]


@pytest.mark.parametrize("one_gate", ONE_GATE)
@pytest.mark.parametrize("form", [{"norm": "none"}, CALIBRATED])
def test_one_gate_is_the_same_at_all_steps_and_follows_the_others(form, one_gate):
    vgmr = made(**{**form, **one_gate})
    prepare(vgmr)
    features, mask = made_inputs(DIMS, 3, LENGTHS, 2)
    got = vgmr(features, mask)
    for name, x in features.items():
        assert got.gate[name].shape == x.shape
        assert torch.equal(got.gate[name], got.gate[name][:, :1].expand_as(x))
        torch.testing.assert_close(got.features[name], got.effective_gate[name] * x * mask[name].unsqueeze(2))
    other = vgmr({**features, "audio": 5 - 3 * features["audio"]}, mask)
    assert not torch.equal(got.gate["text"], other.gate["text"])


def prepare(vgmr):
    features, mask = made_inputs(vgmr.dims, 60, LENGTHS, 11)
    vgmr.prepare(features, mask, torch.arange(60) % 3)


@pytest.mark.parametrize("form", [{"norm": "none"}, CALIBRATED, {**CALIBRATED, "value_from": "both"}])
@pytest.mark.parametrize("one_gate", ONE_GATE)
def test_means_refined_are_means_of_the_refined(form, one_gate):
    vgmr = made(**{**form, **one_gate})
    prepare(vgmr)
    features, mask = made_inputs(DIMS, 4, LENGTHS, 5)
    whole, means = vgmr(features, mask), vgmr(features, mask, pooled=True)
    for name, real in mask.items():
        assert means.features[name].shape == (4, 1, DIMS[name])
        expected = (whole.features[name] * real.unsqueeze(2)).sum(1) / real.sum(1, keepdim=True)
        torch.testing.assert_close(means.features[name].squeeze(1), expected)
        torch.testing.assert_close(means.gate[name], whole.gate[name][:, :1])


@pytest.mark.parametrize("one_gate", ONE_GATE)
def test_pooled_model_trains_as_it_answers(one_gate):
    """In training it refines means; without dropout that is what it does in evaluation, gradients included."""
    torch.manual_seed(0)
    model = Classifier(
        VGMR(DIMS, 3, norm="none", dropout=0.0, **one_gate), PooledBackbone(DIMS, 3, 4, dropout=0.0)
    ).double()
    features, mask = made_inputs(DIMS, 6, LENGTHS, 5)
    batch = Batch({n: x.float() for n, x in features.items()}, mask, torch.arange(6) % 3)
    results = []
    for training in (True, False):
        output = model.train(training)(features, mask)
        assert output.refinement.features["text"].shape[1] == (1 if training else 5)
        loss = Objective(regulariser_weight=1.0)(model, output, batch)
        results.append([output.logits, loss, *torch.autograd.grad(loss, list(model.parameters()))])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("form", [{"norm": "layer"}, {"norm": "none", "sharing": True}, CALIBRATED])
@pytest.mark.parametrize("rank", [None, 2])
def test_of_single_vectors_one_gate_is_the_gate_of_the_only_step(rank, form):
    """The same weights, no matter whether a gate is asked for by step or by sequence."""
    by_step, by_sequence = (made(**{**form, "rank": rank, "per_step": which}) for which in (True, False))
    lengths = dict.fromkeys(DIMS, 1)
    features, mask = made_inputs(DIMS, 60, lengths, 5)
    for one in (by_step, by_sequence):
        one.prepare(features, mask, torch.arange(60) % 3)
    close(by_step(features, mask), by_sequence(features, mask))


def test_one_gate_reads_the_means_over_real_steps():
    """The gate of a sequence is that of a single vector at its mean, where the values are given."""
    vgmr = made(rank=2, per_step=False, norm="none", use_channel_value=False)
    features, mask = made_inputs(DIMS, 4, LENGTHS, 5)
    value = {name: torch.rand(4).double() for name in DIMS}
    total = {name: (x * mask[name].unsqueeze(2)).sum(1, keepdim=True) for name, x in features.items()}
    mean = {name: total[name] / mask[name].sum(1)[:, None, None] for name in DIMS}
    whole, single = vgmr(features, mask, value=value), vgmr(mean, value=value)
    for name in DIMS:
        torch.testing.assert_close(whole.gate[name][:, :1], single.gate[name])


def test_means_of_features_that_learn_pass_their_gradient_on():
    """Anchors look without a gradient, so the mean of what an encoder gives is taken anew."""
    vgmr = made(rank=2, per_step=False, **CALIBRATED)
    prepare(vgmr)
    features, mask = made_inputs(DIMS, 4, LENGTHS, 5)
    learned = {name: x.clone().requires_grad_() for name, x in features.items()}
    one, other = vgmr(features, mask), vgmr(learned, mask)
    close(one, other)
    (gradient,) = torch.autograd.grad(other.gate["text"].sum(), learned["text"])
    assert gradient[mask["text"]].abs().min() > 0
    mapped = torch.func.vmap(lambda x: vgmr({**features, "text": x}, mask).gate["text"].sum())
    whole = mapped(learned["text"].expand(2, *learned["text"].shape))
    torch.testing.assert_close(torch.autograd.grad(whole.sum(), learned["text"])[0], 2 * gradient)


def test_dropout_with_rank_0_takes_channels_of_whole_sequences():
    vgmr = made({"text": 40, "audio": 30}, rank=0, norm="none", dropout=0.5).train()
    features, _ = made_inputs({"text": 40, "audio": 30}, 4, {"text": 5, "audio": 5}, ragged=False)
    gone = vgmr(features).features["text"] == 0
    assert torch.equal(gone, gone[:, :1].expand_as(gone))
    assert 0.3 < gone.double().mean() < 0.7


# Sharing


def test_shared_maps_are_one_set_and_give_what_equal_maps_give():
    shared, own = made(sharing=True), made(seed=1)
    state = shared.state_dict()
    values = {key.removeprefix("shared."): x for key, x in state.items() if key.startswith("shared.")}
    assert not any(".summary_encoder" in key for key in state if key.startswith("maps."))
    own.load_state_dict(
        {key: x for key, x in state.items() if key.startswith("maps.")}
        | {f"maps.{name}.{key}": x for name in DIMS for key, x in values.items()}
    )
    given = made_inputs(DIMS, 4, LENGTHS, 3)
    close(shared(*given), own(*given))
    assert count_parameters(own) - count_parameters(shared) == 2 * sum(x.numel() for x in values.values())


def test_shared_maps_belong_to_no_branch():
    model = Classifier(VGMR(DIMS, 3, sharing=True), PooledBackbone(DIMS, 2, 4))
    shared = {id(x) for x in model.prefusion.shared.parameters()}
    assert shared <= {id(x) for x in model.shared_parameters()}
    assert not shared & {id(x) for name in DIMS for x in model.branch_parameters(name)}


# Sparsity


@pytest.mark.parametrize("rank", [None, 0, 2])
@pytest.mark.parametrize(("sparsity", "gated"), [(0.5, 5), (0.75, 3), (0.99, 1), (0.0, 10)])
def test_sparse_gates_leave_the_share_of_channels_nearest_to_one_half(sparsity, gated, rank):
    dims = {"text": 10, "audio": 10}
    dense, sparse = made(dims, rank=rank), made(dims, rank=rank, sparsity=sparsity)
    features, _ = made_inputs(dims, 3, LENGTHS, 2, ragged=False)
    one, other = dense(features), sparse(features)
    for name in dims:
        kept = other.gate[name] != 0.5
        assert (kept.sum(2) == gated).all()
        assert torch.equal(one.gate[name][kept], other.gate[name][kept])
        distance = (one.gate[name] - 0.5).abs()
        if sparsity:
            least = distance.masked_fill(~kept, torch.inf).amin(2)
            assert (distance.masked_fill(kept, 0).amax(2) <= least).all()


# Every form trains


@pytest.mark.parametrize("form", [{}, CALIBRATED])
@pytest.mark.parametrize("gates", [{"rank": 2}, *ONE_GATE])
@pytest.mark.parametrize("backbone", ["pooled", "transformer"])
def test_every_parameter_learns_in_every_form(gates, form, backbone):
    torch.manual_seed(0)
    extra = {} if form else {"sharing": True}
    vgmr = VGMR(DIMS, 3, **{**form, **extra, **gates, "sparsity": 0.5, "neutral_start": False})
    prepare(vgmr.double())
    behind = PooledBackbone(DIMS, 3, 4) if backbone == "pooled" else TransformerBackbone(DIMS, 3, 7, 8, 1, 2, 8)
    model = Classifier(vgmr, behind.double()).train()
    features, mask = made_inputs(DIMS, 6, LENGTHS, 5)
    batch = Batch({n: x.float() for n, x in features.items()}, mask, torch.arange(6) % 3)
    Objective()(model, model(features, mask), batch).backward()
    idle = [name for name, x in vgmr.named_parameters() if x.grad is None or not x.grad.any()]
    assert idle == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": -1}, "rank"),
        ({"rank": 1.5}, "rank"),
        ({"rank": True}, "rank"),
        ({"sparsity": 1.0}, "sparsity must lie in 0 to below 1, got 1.0"),
        ({"sharing": True, **CALIBRATED}, "values from anchors are not learned"),
        ({"rank": 0, "use_global_value": False, "use_channel_value": False}, "the gate has the values alone"),
    ],
)
def test_refuses_in_one_line(options, message):
    with pytest.raises(ValueError, match=message) as caught:
        VGMR(DIMS, **options)
    assert "\n" not in str(caught.value)


def test_means_need_a_gate_that_is_the_same_at_all_steps():
    features, mask = made_inputs(DIMS, 2, LENGTHS)
    for options in ({}, {"rank": 0}, {"rank": 2, "norm": "none"}, {"per_step": False}):
        with pytest.raises(ValueError, match="the same at all steps"):
            made(**options)(features, mask, pooled=True)


# Hooks of others


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize("batch", [1, 7])
@pytest.mark.parametrize("rank", [None, 0, 2])
@pytest.mark.parametrize("form", [{}, CALIBRATED])
def test_hooks_keep_what_they_saw_and_change_nothing(form, rank, batch, fold):
    vgmr = made(rank=rank, **form)
    vgmr = vgmr.fold() if fold else vgmr
    features, mask = made_inputs(DIMS, batch, LENGTHS)
    for x in features.values():
        x.requires_grad_()
    plain = vgmr(features, mask)
    torch.stack([x.square().sum() for x in plain.features.values()]).sum().backward()
    wanted = {name: x.grad for name, x in features.items()}
    seen = []

    def look(_, inputs, output):
        seen.extend((x, x.detach().clone()) for x in (*inputs, output))

    for maps in vgmr.maps.values():
        for one in maps.children():
            one.register_forward_hook(look)
            one.register_full_backward_hook(lambda *_: None)
    for x in features.values():
        x.grad = None
    again = vgmr(features, mask)
    close(again, plain)
    torch.stack([x.square().sum() for x in again.features.values()]).sum().backward()
    for name, x in features.items():
        torch.testing.assert_close(x.grad, wanted[name])
    with torch.no_grad():
        close(vgmr(features, mask), plain)
    assert seen and all(torch.equal(x, then) for x, then in seen)


class Adapted(nn.Module):
    """A linear layer with a low-rank adapter (LoRA) beside it, and the layer's weights as its own."""

    def __init__(self, layer: nn.Linear):
        super().__init__()
        self.layer, self.weight = layer, layer.weight
        self.inner = nn.Linear(layer.in_features, 1, bias=False)
        self.outer = nn.Linear(1, layer.out_features, bias=False)

    def forward(self, x):
        return self.layer(x) + self.outer(self.inner(x))


@pytest.mark.parametrize("rank", [None, 2])
@pytest.mark.parametrize("form", [{}, CALIBRATED])
@pytest.mark.parametrize("which", ["projection", "gate_from_features", "gate_from_latent", "gate_from_global"])
def test_a_layer_in_the_place_of_a_map_is_called_in_every_batch_and_by_a_folded_copy(which, form, rank):
    vgmr = made(rank=rank, **form)
    before = vgmr(*made_inputs(DIMS, 7, LENGTHS))
    for maps in vgmr.maps.values():
        setattr(maps, which, Adapted(getattr(maps, which)).double())
    features, mask = made_inputs(DIMS, 7, LENGTHS)
    got = vgmr(features, mask)
    assert not torch.allclose(got.features["text"], before.features["text"])
    for row in range(7):
        one, own = ({name: x[row : row + 1] for name, x in some.items()} for some in (features, mask))
        for name, x in vgmr(one, own).features.items():
            torch.testing.assert_close(got.features[name][row : row + 1], x)
    close(vgmr.fold()(features, mask), got)


class Moved(nn.Module):
    def forward(self, x):
        return x + 3


@pytest.mark.parametrize("which", ["projection", "gate_from_features", "gate_from_latent", "gate_from_global"])
@pytest.mark.parametrize("part", ["weight", "bias"])
def test_a_folded_copy_keeps_parametrised_maps(part, which):
    vgmr = made(**CALIBRATED)
    for maps in vgmr.maps.values():
        nn.utils.parametrize.register_parametrization(getattr(maps, which), part, Moved())
    features, mask = made_inputs(DIMS, 7, LENGTHS)
    close(vgmr.fold()(features, mask), vgmr(features, mask))


def test_pruned_maps_learn():
    vgmr = made()
    features, mask = made_inputs(DIMS, 7, LENGTHS)
    for maps in vgmr.maps.values():
        prune.l1_unstructured(maps.gate_from_features, "weight", amount=0.5)
    stepper = torch.optim.SGD(vgmr.parameters(), 0.1)
    for _ in range(2):
        stepper.zero_grad()
        torch.stack([x.square().sum() for x in vgmr(features, mask).features.values()]).sum().backward()
        stepper.step()
    vgmr(features, mask)
    layer = vgmr.maps["text"].gate_from_features
    assert torch.equal(layer.weight, layer.weight_orig * layer.weight_mask)
    assert layer.weight_orig.grad.any()


@pytest.mark.parametrize("batch", [1, 7])
def test_hooks_see_every_map_however_many_samples_come(batch):
    vgmr, seen = made(), []
    for name, maps in vgmr.maps.items():
        for which in ("projection", "gate_from_features", "gate_from_latent"):
            getattr(maps, which).register_forward_hook(lambda *_, key=(name, which): seen.append(key))
    vgmr(*made_inputs(DIMS, batch, LENGTHS))
    assert len(set(seen)) == 3 * len(DIMS)
