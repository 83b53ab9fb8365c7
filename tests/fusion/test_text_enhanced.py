"""TETFN: reference numbers of the core, what subsets have in common, sizes, the anchor."""

import pytest
import torch
from made_systems import close, fill, of, of_stack, recorded, wave

from vgmr.balancing.self_mm import UnimodalHead
from vgmr.fusion import crossmodal, text_enhanced
from vgmr.fusion.text_enhanced import TextEnhancedFusion
from vgmr.prefusion import count_parameters

CMU = {"text": 768, "audio": 74, "vision": 35}


def whole(causal=True):
    """The core on projected sequences; m1 is the text, m2 audio, m3 vision.

    Order: 1<-2, 1<-3, 2<-1, then 2<-3 by way of 1 (the one-layer stack, then the other), 3<-1, 3<-2 by way of 1,
    memories 1, 2, 3, and the three linear layers.
    """
    dims = dict.fromkeys(("m1", "m2", "m3"), 4)
    model = TextEnhancedFusion(dims, 1, "m1", 4, 2, 2, post_dim=3, causal=causal).double().eval()
    pair = dict(zip(model.ordered, model.pairs, strict=True))
    through = {where: model.through[i] for where, i in model.detour.items()}
    stacks = [pair["m1", "m2"], pair["m1", "m3"], pair["m2", "m1"], through["m2", "m3"], pair["m2", "m3"]]
    stacks += [pair["m3", "m1"], through["m3", "m2"], pair["m3", "m2"], *model.memories]
    tensors = [tensor for stack in stacks for tensor in of_stack(stack)]
    fill([*tensors, *of(model.first, model.second, model.output)])
    return model, {"m1": wave(2, 4, 4), "m2": wave(2, 3, 4, c=1.0), "m3": wave(2, 5, 4, c=2.0)}


def test_reference_numbers():
    model, encodings = whole()
    keeps = [("m1", "m2", "m3"), ("m1", "m2"), ("m2", "m3"), ()]
    every, first, last, nothing = model.fuse_many(encodings, keeps)
    close(every, [[0.029439], [0.009352]])
    close(first, [[0.115511], [0.077954]])
    close(last, [[-0.106955], [-0.099119]])
    close(nothing, [[-0.033156], [-0.033156]])


def test_reference_numbers_without_causality():
    model, encodings = whole(causal=False)
    close(model.fuse(encodings), [[0.029472], [0.009366]])
    every, silent = model.summaries(encodings, [None, ("m2", "m3")])
    close(every[0, 8:12], [-0.315969, 0.477763, 0.593112, 0.100416])
    close(silent[0, 8:12], [-0.312489, 0.489017, 0.518202, 0.388124])


def test_what_subsets_have_in_common_runs_once(monkeypatch):
    model, encodings = whole()
    pairs = recorded(monkeypatch, crossmodal, "across")
    through = recorded(monkeypatch, text_enhanced, "across")
    memories = recorded(monkeypatch, crossmodal, "remember_all")
    names = model.names
    model.fuse_many(encodings, [names, *([other for other in names if other != name] for name in names)])
    # each pair with and without its source, and those by way of m1 also with a source that cannot ask it
    assert len(pairs) == 6 * 2 + 2 and all(stack in model.pairs for stack in pairs)
    assert len(through) == 2 * 2 and all(stack in model.through for stack in through)
    assert len(memories) == 9 and all(stack in model.memories for stack in memories)


def test_two_meet_through_the_anchor():
    """What the text says reaches audio's part by way of vision alone, and not where vision is absent."""
    model, encodings = whole(causal=False)
    changed = {**encodings, "m1": encodings["m1"].flip(2)}

    def part(given, keep):
        return model.summaries(given, [keep])[0][:, 8:12]

    with torch.no_grad():
        for layer in model.pairs[model.ordered.index(("m2", "m1"))].layers:
            layer.attention.in_proj_weight[8:].zero_()  # audio cannot read the text itself
    assert not torch.allclose(part(changed, None), part(encodings, None))
    torch.testing.assert_close(part(changed, ["m1", "m2"]), part(encodings, ["m1", "m2"]))


def test_vectors_are_maxima_of_real_steps():
    model, _ = whole()
    x = torch.tensor([[[1.0], [3.0], [9.0]]])
    assert model.vectors({"m1": x}, {"m1": torch.tensor([[True, True, False]])})["m1"].item() == 3
    assert model.vectors({"m1": x})["m1"].item() == 9


def test_sizes_are_those_of_the_released_code():
    """The released model holds the unimodal networks too, which here belong to the method "self-mm"."""
    original = TextEnhancedFusion(CMU, 1, width=50, num_heads=5, num_layers=2, hidden_dim=32, post_dim=64)
    unimodal = sum(50 * p + p + p * p + p + p + 1 for p in (64, 32, 16))
    assert count_parameters(original) + unimodal == 1_257_360
    assert count_parameters(TextEnhancedFusion(CMU, 1)) + 3 * count_parameters(UnimodalHead(32)) == 297_076


def test_four_modalities_have_a_detour_for_each_pair_of_the_others():
    dims = {"text": 3, "a": 2, "b": 2, "c": 2}
    model = TextEnhancedFusion(dims, 2, width=4, num_heads=2)
    assert len(model.pairs) == 12 and len(model.through) == 6 and len(model.memories) == 4
    features = {name: torch.randn(2, 3, dim) for name, dim in dims.items()}
    assert torch.isfinite(model.fuse(model.encode(features, None), ["a", "c"])).all()


def test_refusals():
    with pytest.raises(
        ValueError, match=r"needs an anchor modality; give anchor=..., one of \['a', 'b', 'c'\], got 'text'"
    ):
        TextEnhancedFusion({"a": 2, "b": 2, "c": 2}, 2)
    with pytest.raises(ValueError, match=r"meet through a third, got \['audio', 'text'\]; for two use mult"):
        TextEnhancedFusion({"text": 2, "audio": 2}, 2)
    with pytest.raises(ValueError, match="expected an even width of at least 4 that 4 heads divide, got 6"):
        TextEnhancedFusion(CMU, 2, width=6)
