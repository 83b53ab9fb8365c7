"""MAG: reference numbers of the gate, its bound, and what absence means."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from made_numbers import fill, linear, wave

from vgmr.fusion.mag import MAG, AdaptationGate, AnchorShift, resampled


def core(strength=1.0):
    gate = AdaptationGate(3, {"vision": 2, "audio": 2}, strength).double().eval()
    fill(*linear(gate.gate["vision"], gate.gate["audio"], gate.value["vision"], gate.value["audio"], gate.norm))
    return gate, wave(2, 3, 3), {"vision": wave(2, 3, 2, c=2), "audio": wave(2, 3, 2, c=1)}


@pytest.mark.parametrize(
    ("keep", "strength", "expected"),
    [
        (("vision", "audio"), 1.0, (0.318278, 0.458977, -0.258340)),
        (("vision", "audio"), 0.1, (0.376243, 0.452871, -0.414996)),
        (("audio",), 1.0, (0.351427, 0.454773, -0.378851)),
        ((), 1.0, (0.393960, 0.451736, -0.431084)),
    ],
)
def test_reference_numbers(keep, strength, expected):
    gate, anchor, others = core(strength)
    found = gate(anchor, {name: others[name] for name in keep})[0, 0]
    torch.testing.assert_close(found, torch.tensor(expected).double(), atol=1e-5, rtol=0)


def test_zero_features_are_not_absence():
    gate, anchor, others = core()
    zeros = gate(anchor, {name: torch.zeros_like(x) for name, x in others.items()})[0, 0]
    torch.testing.assert_close(zeros, torch.tensor([0.384742, 0.452308, -0.423504]).double(), atol=1e-5, rtol=0)
    torch.testing.assert_close(gate(anchor, {}), gate.norm(anchor))
    gone = gate(torch.zeros_like(anchor), others)[0, 0]
    torch.testing.assert_close(gone, torch.tensor([0.597149, 0.454695, 0.078076]).double(), atol=1e-5, rtol=0)


@given(st.floats(0.01, 3), st.floats(1e-3, 1e3), st.integers(0, 1000))
def test_the_shift_is_never_longer_than_its_bound(strength, scale, seed):
    torch.manual_seed(seed)
    gate = AdaptationGate(3, {"a": 2}, strength).double()
    anchor, x = torch.randn(2, 4, 3).double(), scale * torch.randn(2, 4, 2).double()
    shift = gate.displacement(anchor, {"a": x}, None).norm(dim=2)
    assert (shift <= strength * anchor.norm(dim=2) * (1 + 1e-9)).all()


def test_the_bound_by_hand():
    gate = AdaptationGate(1, {"a": 1}).double()
    for layer in (gate.gate["a"], gate.value["a"]):
        layer.weight.data.zero_()
    gate.gate["a"].bias.data.fill_(1.0)
    gate.value["a"].bias.data.fill_(2.0)  # H = 2, Z = 1, so alpha = 1/2
    one = torch.ones(1, 1, 1).double()
    torch.testing.assert_close(gate.displacement(one, {"a": one}, None), one, atol=1e-6, rtol=0)


def test_steps_that_a_mask_excludes_shift_nothing():
    gate, anchor, others = core()
    mask = {name: torch.tensor([[True, False, True], [True, True, True]]) for name in others}
    found = gate(anchor, others, mask)
    torch.testing.assert_close(found[0, 1], gate.norm(anchor)[0, 1])
    torch.testing.assert_close(found[1], gate(anchor, others)[1])


def test_in_the_place_of_vgmr_it_moves_the_anchor_alone():
    module = AnchorShift({"text": 4, "audio": 3}).eval()
    features = {"text": torch.randn(2, 5, 4), "audio": torch.randn(2, 5, 3)}
    mask = {name: torch.arange(5).expand(2, 5) < 3 for name in features}
    refined = module(features, mask).features
    assert refined["text"].shape == (2, 5, 4) and not refined["text"][:, 3:].any()
    torch.testing.assert_close(refined["audio"], features["audio"] * mask["audio"].unsqueeze(2))
    with pytest.raises(ValueError, match=r"^text: expected torch.float32 features.*got torch.float64"):
        module({name: x.double() for name, x in features.items()}, mask)


def test_what_stands_in_padding_is_not_resampled():
    x, real = torch.tensor([1.0, 3.0, torch.nan]).view(1, 3, 1), torch.tensor([[True, True, False]])
    assert resampled(x, real, torch.zeros(1, 1, 1))[0].flatten().tolist() == [2.0]


def literal_means(x, real, like_real):
    """One sample at a time, bin by bin."""
    found = torch.zeros(len(x), like_real.shape[1], x.shape[2], dtype=x.dtype)
    for sample, (steps, taken) in enumerate(zip(x, real, strict=True)):
        steps, places = steps[taken], like_real[sample].nonzero().flatten().tolist()
        count, bins = len(steps), len(places)
        for t, place in enumerate(places if count else ()):
            end = -(-(t + 1) * count // bins)  # rounded up
            found[sample, place] = steps[t * count // bins : end].mean(0)
    return found


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 1000))
def test_steps_are_resampled_as_bin_by_bin(steps, bins, seed):
    torch.manual_seed(seed)
    x, like = torch.randn(4, steps, 2).double(), torch.zeros(4, bins, 1)
    real, like_real = torch.rand(4, steps) < 0.7, torch.rand(4, bins) < 0.7
    found, there = resampled(x, real, like, like_real)
    torch.testing.assert_close(found, literal_means(x, real, like_real))
    assert torch.equal(there, like_real & real.any(1, keepdim=True))


def test_resampling_by_hand():
    x = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0]).view(1, 5, 1)
    two, five = torch.zeros(1, 2, 1), torch.zeros(1, 5, 1)
    assert resampled(x, None, two)[0].flatten().tolist() == pytest.approx([7 / 3, 28 / 3])  # the middle in both
    torch.testing.assert_close(resampled(x, None, five)[0], x)
    assert resampled(x[:, :2], None, five)[0].flatten().tolist() == [1.0, 1.0, 1.5, 2.0, 2.0]
    real = torch.tensor([[True, True, False, False, False]])
    assert resampled(x, real, two)[0].flatten().tolist() == [1.0, 2.0]


@pytest.mark.parametrize("module", [MAG, AnchorShift])
def test_resampled_modalities_do_what_their_means_do(module):
    dims = {"text": 4, "audio": 3}
    arguments = (dims, 2) if module is MAG else (dims,)
    loose, strict = module(*arguments, resample="mean").eval(), module(*arguments).eval()
    strict.load_state_dict(loose.state_dict())
    features = {"text": torch.randn(2, 3, 4), "audio": torch.randn(2, 7, 3)}
    mask = {"text": torch.tensor([[True] * 3, [True, True, False]]), "audio": torch.arange(7).expand(2, 7) < 5}
    means, there = resampled(features["audio"], mask["audio"], features["text"], mask["text"])
    aligned = {"text": features["text"], "audio": means}, {"text": mask["text"], "audio": there}

    def answer(model, features, mask):
        if module is AnchorShift:
            return model(features, mask).features["text"]
        return model.fuse(model.encode(features, mask), mask=mask)

    torch.testing.assert_close(answer(loose, features, mask), answer(strict, *aligned))
    with pytest.raises(ValueError, match=r'text has 3, audio has 7; align them, or give resample="mean"'):
        answer(strict, features, mask)
    padded = {name: torch.cat([x, torch.full((2, 2, x.shape[2]), 9.0)], 1) for name, x in features.items()}
    longer = {name: torch.cat([x, torch.zeros(2, 2, dtype=torch.bool)], 1) for name, x in mask.items()}
    found = answer(loose, padded, longer)
    torch.testing.assert_close(found if module is MAG else found[:, :3], answer(loose, features, mask))


def test_size_of_the_gate_of_the_original():
    gate = AdaptationGate(768, {"audio": 74, "vision": 35})
    assert sum(p.numel() for p in gate.parameters()) == 1_351_680


def test_quick_size():
    """52,642 with a norm behind the encoder, which we leave out."""
    model = MAG({"text": 768, "audio": 74, "vision": 35}, 2)
    assert sum(p.numel() for p in model.parameters()) == 52_642 - 2 * 32


def test_refusals():
    with pytest.raises(ValueError, match=r"MAG needs an anchor modality; give anchor=..., one of"):
        MAG({"a": 3, "b": 2}, 2)
    with pytest.raises(ValueError, match="needs at least 2, got \\['text'\\]"):
        MAG({"text": 3}, 2)
    for make in (MAG, AnchorShift):
        with pytest.raises(ValueError, match="MAG: resample must be None or 'mean', got 'max'"):
            make({"text": 3, "audio": 2}, **({"num_outputs": 2} if make is MAG else {}), resample="max")
    model = MAG({"text": 3, "audio": 2}, 2)
    with pytest.raises(ValueError, match="MAG needs aligned steps: text has 5, audio has 7"):
        model.fuse(model.encode({"text": torch.randn(1, 5, 3), "audio": torch.randn(1, 7, 2)}, None))
