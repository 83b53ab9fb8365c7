"""Backbones and heads: pooling, order, absence, and removal from cached encodings."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import made_inputs, numpy_weights, randomise
from torch import nn
from torch.nn import functional as F

from vgmr import VGMR, Classifier, PooledBackbone, TransformerBackbone
from vgmr.fusion.heads import ConcatHead, SumHead, TensorHead, make_head
from vgmr.prefusion import Identity, SigmoidTanhGate, count_parameters

few = settings(max_examples=12, derandomize=True, deadline=None)

DIMS = {"text": 4, "audio": 3, "vision": 2}
LENGTHS = {"text": 4, "audio": 6, "vision": 3}
HEADS = ["concat", "sum", "tensor"]


def pooled(head="concat", seed=0, dims=DIMS, **options):
    backbone = PooledBackbone(dims, 3, **{"width": 5, "head": head, **options}).double().eval()
    randomise(backbone, seed, 0.4)
    return backbone


def transformer(head="concat", seed=0, dims=DIMS, **options):
    small = {"max_length": 12, "width": 8, "num_layers": 2, "num_heads": 2, "feedforward_dim": 6}
    backbone = TransformerBackbone(dims, 3, **{**small, "head": head, **options}).double().eval()
    randomise(backbone, seed, 0.4)
    return backbone


BACKBONES = {"pooled": pooled, "transformer": transformer}
both = pytest.mark.parametrize("make", BACKBONES.values(), ids=BACKBONES)


def subsets(names):
    return [set(kept) for size in range(len(names) + 1) for kept in itertools.combinations(names, size)]


# Encoders


def encode_pooled_by_hand(backbone, name, steps):
    return F.gelu(backbone.encoder[name][0](steps.mean(0)))


def encode_transformer_by_hand(backbone, name, steps):
    """One unpadded sequence (T, d_m): pre-norm layers x + attention(norm x), x + feed-forward(norm x)."""
    x = backbone.project[name](steps) + backbone.position[: len(steps)]
    for layer in backbone.encoder.layers:
        normed = layer.norm1(x)
        query, key, value = F.linear(normed, layer.self_attn.in_proj_weight, layer.self_attn.in_proj_bias).chunk(
            3, 1
        )
        heads = []
        for q, k, v in zip(query.chunk(2, 1), key.chunk(2, 1), value.chunk(2, 1), strict=True):
            heads.append(torch.softmax(q @ k.T / q.shape[1] ** 0.5, 1) @ v)
        x = x + layer.self_attn.out_proj(torch.cat(heads, 1))
        x = x + layer.linear2(F.gelu(layer.linear1(layer.norm2(x))))
    return backbone.encoder.norm(x).mean(0)


@pytest.mark.parametrize("grad", [True, False], ids=["grad", "no grad"])
@pytest.mark.parametrize(
    ("make", "by_hand"),
    [(pooled, encode_pooled_by_hand), (transformer, encode_transformer_by_hand)],
    ids=BACKBONES,
)
def test_encodings_equal_those_of_each_unpadded_sequence(make, by_hand, grad):
    """Without gradients torch may take another path through its Transformer layers."""
    backbone = make(seed=1)
    features, mask = made_inputs(DIMS, 4, LENGTHS, 2)
    with torch.set_grad_enabled(grad):
        encodings = backbone.encode(features, mask)
        for name, row in itertools.product(DIMS, range(4)):
            expected = by_hand(backbone, name, features[name][row][mask[name][row]])
            torch.testing.assert_close(encodings[name][row], expected, atol=1e-10, rtol=0)


@both
@given(st.integers(0, 2**16), st.floats(-1e3, 1e3), st.integers(1, 5))
@few
def test_padding_values_and_amount_change_nothing(make, seed, junk, amount):
    backbone = make(seed=seed)
    features, mask = made_inputs(DIMS, 3, LENGTHS, seed)
    expected = backbone.encode(features, mask)
    padded = {
        name: F.pad(x.masked_fill(~mask[name].unsqueeze(2), junk), (0, 0, 0, amount), value=junk)
        for name, x in features.items()
    }
    got = backbone.encode(padded, {name: F.pad(real, (0, amount)) for name, real in mask.items()})
    for name in DIMS:
        torch.testing.assert_close(got[name], expected[name], atol=1e-10, rtol=0)


@both
def test_no_mask_is_a_mask_of_real_steps(make):
    backbone = make()
    features, _ = made_inputs(DIMS, 3, LENGTHS)
    mask = {name: torch.ones(x.shape[:2], dtype=torch.bool) for name, x in features.items()}
    without, with_mask = backbone.encode(features, None), backbone.encode(features, mask)
    for name in DIMS:
        torch.testing.assert_close(without[name], with_mask[name], atol=1e-12, rtol=0)


@both
def test_one_sample_changes_no_other(make):
    backbone = make()
    features, mask = made_inputs(DIMS, 3, LENGTHS)
    changed = {name: torch.cat([x[:1] + 1, x[1:]]) for name, x in features.items()}
    one, two = backbone.encode(features, mask), backbone.encode(changed, mask)
    for name in DIMS:
        torch.testing.assert_close(one[name][1:], two[name][1:], atol=1e-12, rtol=0)
        assert (one[name][0] - two[name][0]).abs().max() > 1e-3


def test_the_transformer_sees_order_and_the_pooled_backbone_does_not():
    features, _ = made_inputs(DIMS, 3, LENGTHS)
    backwards = {name: x.flip(1) for name, x in features.items()}
    for make, sees in ((pooled, False), (transformer, True)):
        backbone = make()
        one, two = backbone.encode(features, None), backbone.encode(backwards, None)
        for name in DIMS:
            assert ((one[name] - two[name]).abs().max() > 1e-3) == sees


def test_the_transformer_without_positions_would_not_see_order():
    backbone = transformer()
    nn.init.zeros_(backbone.position)
    features, _ = made_inputs(DIMS, 3, LENGTHS)
    one, two = backbone.encode(features, None), backbone.encode({n: x.flip(1) for n, x in features.items()}, None)
    for name in DIMS:
        torch.testing.assert_close(one[name], two[name], atol=1e-12, rtol=0)


def test_the_transformer_encoder_is_shared_by_the_modalities():
    """The same tokens in two modalities give the same encoding once their projections agree."""
    backbone = TransformerBackbone({"left": 3, "right": 3}, 2, width=8, num_heads=2).eval()
    x = torch.randn(2, 4, 3)
    apart = backbone.encode({"left": x, "right": x}, None)
    assert not torch.allclose(apart["left"], apart["right"], atol=1e-3)
    backbone.project["right"].load_state_dict(backbone.project["left"].state_dict())
    together = backbone.encode({"left": x, "right": x}, None)
    assert torch.equal(together["left"], together["right"])


def test_parameter_count_of_the_paper():
    """Text 768, audio 74, vision 35, width 128: projections 880 * 128 = 112,640; positions 6,400; each of three
    layers 66,048 + 131,712 + 512 = 198,272; last LayerNorm 256; head 385 * 2 = 770; in all 714,882."""
    backbone = TransformerBackbone({"text": 768, "audio": 74, "vision": 35}, 2)
    assert count_parameters(backbone) == 880 * 128 + 6400 + 3 * 198_272 + 256 + 770 == 714_882


def test_dropout_acts_in_training_only():
    features, mask = made_inputs(DIMS, 3, LENGTHS)
    for make in BACKBONES.values():
        backbone = make(dropout=0.5)
        calm = backbone.encode(features, mask)["text"]
        assert torch.equal(calm, backbone.encode(features, mask)["text"])
        torch.manual_seed(0)
        backbone.train()
        assert not torch.equal(backbone.encode(features, mask)["text"], backbone.encode(features, mask)["text"])


# Heads

WIDTH, CLASSES = 3, 4
NAMES = ["text", "audio", "vision"]


def head_by_hand(kind, weights, encodings, keep):
    """Logits of one sample; modalities in alphabetical order."""
    names = sorted(encodings)
    weight, bias = weights["linear.weight"], weights["linear.bias"]
    if kind == "sum":
        total = np.zeros(WIDTH)
        for name in names:
            if name in keep:
                total += encodings[name]
        return weight @ total + bias
    if kind == "concat":
        logits = bias.copy()
        for index, name in enumerate(names):
            if name in keep:
                logits += weight[:, index * WIDTH : (index + 1) * WIDTH] @ encodings[name]
        return logits
    factors = []
    for name in names:
        narrow = weights[f"narrow.{name}.weight"] @ encodings[name] + weights[f"narrow.{name}.bias"]
        factors.append([1.0, *(narrow if name in keep else 0 * narrow)])
    products = [np.prod(chosen) for chosen in itertools.product(*factors)]
    return weight @ np.array(products) + bias


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("names", [NAMES[:1], NAMES[:2], NAMES], ids=len)
def test_head_equals_the_computation_by_hand_for_every_subset(kind, names):
    head = make_head(kind, names, WIDTH, CLASSES).double()
    randomise(head, 1)
    generator = torch.Generator().manual_seed(2)
    encodings = {name: torch.randn(2, WIDTH, generator=generator, dtype=torch.float64) for name in names}
    for keep in subsets(names):
        got = head(encodings, keep)
        assert got.shape == (2, CLASSES)
        for row in range(2):
            sample = {name: x[row].numpy() for name, x in encodings.items()}
            expected = head_by_hand(kind, numpy_weights(head), sample, keep)
            np.testing.assert_allclose(got[row].detach().numpy(), expected, atol=1e-10, rtol=0)


def test_tensor_head_with_a_pencil():
    """[1; 2] x [1; 3] = [1, 3, 2, 6]; weights 1, 10, 100, 1000 give 1 + 30 + 200 + 6000 = 6231.
    Without a: [1, 0] x [1, 3] = [1, 3, 0, 0]: 31."""
    head = TensorHead(["a", "b"], 1, 1, rank=1)
    for narrow in head.narrow.values():
        nn.init.ones_(narrow.weight)
        nn.init.zeros_(narrow.bias)
    head.linear.weight.data = torch.tensor([[1.0, 10.0, 100.0, 1000.0]])
    nn.init.zeros_(head.linear.bias)
    encodings = {"a": torch.tensor([[2.0]]), "b": torch.tensor([[3.0]])}
    assert head(encodings, {"a", "b"}).item() == 6231
    assert head(encodings, {"b"}).item() == 31


@pytest.mark.parametrize("kind", HEADS)
def test_absent_modality_has_no_influence_whatever_it_holds(kind):
    for make in BACKBONES.values():
        backbone = make(kind)
        encodings = backbone.encode(*made_inputs(DIMS, 3, LENGTHS))
        for keep in subsets(DIMS):
            other = {name: x if name in keep else 5 - 3 * x for name, x in encodings.items()}
            assert torch.equal(backbone.fuse(encodings, keep), backbone.fuse(other, keep))
            for name in keep:
                other = {**encodings, name: 5 - 3 * encodings[name]}
                assert not torch.equal(backbone.fuse(encodings, keep), backbone.fuse(other, keep))


@pytest.mark.parametrize("kind", ["concat", "sum"])
def test_absence_is_a_zero_encoding_in_concat_and_sum(kind):
    backbone = pooled(kind)
    encodings = backbone.encode(*made_inputs(DIMS, 3, LENGTHS))
    zero = {**encodings, "audio": torch.zeros_like(encodings["audio"])}
    got, expected = backbone.fuse(encodings, {"text", "vision"}), backbone.fuse(zero)
    torch.testing.assert_close(got, expected, atol=1e-12, rtol=0)


def test_keep_of_all_is_the_default_and_may_be_any_collection():
    for kind in HEADS:
        backbone = pooled(kind)
        encodings = backbone.encode(*made_inputs(DIMS, 3, LENGTHS))
        for keep in (set(DIMS), list(DIMS), tuple(reversed(list(DIMS))), DIMS):
            assert torch.equal(backbone.fuse(encodings), backbone.fuse(encodings, keep))


@pytest.mark.parametrize("kind", HEADS)
@both
def test_order_of_names_changes_nothing(make, kind):
    """A backbone built and fed in another order gives the same logits with the same parameters."""
    backbone = make(kind)
    order = ["vision", "text", "audio"]
    other = make(kind, seed=9, dims={name: DIMS[name] for name in order})
    other.load_state_dict(backbone.state_dict())
    features, mask = made_inputs(DIMS, 3, LENGTHS)
    one = backbone.fuse(backbone.encode(features, mask))
    two = other.fuse(other.encode({name: features[name] for name in order}, mask))
    assert torch.equal(one, two)


def test_heads_by_name():
    assert isinstance(pooled("concat").head, ConcatHead)
    assert isinstance(pooled("sum").head, SumHead)
    assert isinstance(transformer("tensor").head, TensorHead)


# Classifier: removal from cached encodings


def classifiers(kind="concat"):
    for make in BACKBONES.values():
        for prefusion in (VGMR(DIMS, 3), Identity(DIMS), SigmoidTanhGate(DIMS, 4)):
            prefusion = prefusion.double()
            randomise(prefusion, 3)
            yield Classifier(prefusion, make(kind)).eval()


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("grad", [True, False], ids=["grad", "no grad"])
def test_removal_from_cached_encodings_is_removal_by_a_full_pass(kind, grad):
    """Bit by bit, for every subset, with ragged masks."""
    features, mask = made_inputs(DIMS, 4, LENGTHS, 5)
    with torch.set_grad_enabled(grad):
        for model in classifiers(kind):
            cached = model(features, mask).encodings
            for keep in subsets(DIMS):
                full_pass = model(features, mask, keep=keep)
                assert torch.equal(model.backbone.fuse(cached, keep), full_pass.logits)


def test_removal_is_removal_of_the_refined_features_from_a_pass_without_cache():
    """The head sees the others' encodings, each encoded in a pass where the absent one's features are zero."""
    features, mask = made_inputs(DIMS, 4, LENGTHS, 5)
    for model in classifiers():
        output = model(features, mask)
        for absent in DIMS:
            refined = output.refinement.features
            refined = {**refined, absent: torch.zeros_like(refined[absent])}
            encodings = model.backbone.encode(refined, mask)
            head = model.backbone.head.linear
            kept = [encodings[name] if name != absent else 0 * encodings[name] for name in sorted(DIMS)]
            expected = torch.cat(kept, 1) @ head.weight.T + head.bias
            got = model.backbone.fuse(output.encodings, set(DIMS) - {absent})
            torch.testing.assert_close(got, expected, atol=1e-12, rtol=0)


def test_classifier_refines_then_encodes_then_fuses():
    features, mask = made_inputs(DIMS, 4, LENGTHS, 5)
    for model in classifiers():
        output = model(features, mask)
        refined = model.prefusion(features, mask).features
        encodings = model.backbone.encode(refined, mask)
        assert output.logits.shape == (4, 3)
        assert torch.equal(output.logits, model.backbone.fuse(encodings))
        for name in DIMS:
            assert torch.equal(output.encodings[name], encodings[name])
            assert torch.equal(output.refinement.features[name], refined[name])


def test_classifier_ignores_nan_in_padding():
    features, mask = made_inputs(DIMS, 4, LENGTHS, 5)
    spoilt = {name: x.masked_fill(~mask[name].unsqueeze(2), float("nan")) for name, x in features.items()}
    assert all(torch.isnan(spoilt[name]).any() for name in ("text", "audio"))
    for model in classifiers():
        assert torch.equal(model(spoilt, mask).logits, model(features, mask).logits)


def test_classifier_with_a_folded_refiner_gives_the_same_logits():
    features, mask = made_inputs(DIMS, 4, LENGTHS, 5)
    for model in classifiers():
        if isinstance(model.prefusion, VGMR):
            folded = Classifier(model.prefusion.fold(), model.backbone).eval()
            torch.testing.assert_close(folded(features, mask).logits, model(features, mask).logits)


def test_padding_changes_no_logits_of_a_classifier():
    features, mask = made_inputs(DIMS, 4, LENGTHS, 5)
    longer = {name: F.pad(x, (0, 0, 0, 3), value=9.0) for name, x in features.items()}
    longer_mask = {name: F.pad(real, (0, 3)) for name, real in mask.items()}
    for model in classifiers():
        torch.testing.assert_close(model(longer, longer_mask).logits, model(features, mask).logits)


# Bad input


def refused(call, *parts):
    with pytest.raises(ValueError) as error:
        call()
    message = str(error.value)
    assert "\n" not in message
    assert all(part in message for part in parts), message


def test_bad_input_is_refused_in_one_line():
    features, mask = made_inputs(DIMS, 2, LENGTHS)
    encodings = pooled().encode(features, mask)
    for make in BACKBONES.values():
        refused(lambda make=make: make("product"), "'product'", "concat, sum, tensor")
        refused(lambda make=make: make().fuse(encodings, {"text", "smell"}), "keep", "smell", "text")
        refused(lambda make=make: make().fuse(encodings, "text"), "keep")
    refused(lambda: transformer(max_length=5).encode(features, mask), "audio", "6 time steps", "max_length is 5")
    other = Identity({**DIMS, "text": 5})
    refused(lambda: Classifier(other, pooled()), "dims differ", "'text': 5", "'text': 4")
    refused(lambda: PooledBackbone({"a.b": 3}, 2), "'a.b'", "dot")
    refused(lambda: TransformerBackbone({"text": 0}, 2), "text", "at least 1")
    refused(lambda: PooledBackbone({}, 2), "at least 1", "got 0")
    for model in classifiers():
        refused(
            lambda model=model: model(features, {**mask, "text": mask["text"][:, :2]}), "text", "(2, 4)", "(2, 2)"
        )


def test_order_in_which_prefusion_and_backbone_name_the_modalities_need_not_agree():
    features, mask = made_inputs(DIMS, 2, LENGTHS)
    backbone = pooled()
    one = Classifier(Identity(DIMS), backbone)(features, mask)
    two = Classifier(Identity({name: DIMS[name] for name in reversed(DIMS)}), backbone)(features, mask)
    assert torch.equal(one.logits, two.logits)
