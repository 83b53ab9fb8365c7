"""PCAG: numbers by an independent computation, plain attention without the gate, and the gate by hand."""

import pytest
import torch
import torch.nn.functional as F
from made_systems import close, fill, of, wave

from vgmr.fusion.pre_gating import PreGating, pre_gate
from vgmr.prefusion import count_parameters

TWO = {"m1": 3, "m2": 2}
CMU = {"text": 768, "audio": 74, "vision": 35}


def core(gate="tanh"):
    """Order: Q, K, V of m1, of m2; W_h, W_q weight, W_E, LN(G), LN(E), U, U' of m1, of m2; the output."""
    model = PreGating(TWO, 2, width=3, gate=gate).double().eval()
    tensors, parts = [], {}
    for name, dim in TWO.items():
        parts[name] = [(torch.empty(3, dim).double(), torch.empty(3).double()) for _ in range(3)]
        tensors += [tensor for pair in parts[name] for tensor in pair]
    for name in TWO:
        c = model.context[name]
        tensors += of(c.gate_attended, c.gate_query, c.content, c.norm_gate, c.norm_content, c.inter, c.intra)
    fill([*tensors, *of(model.output)])
    with torch.no_grad():
        for name in TWO:
            model.project[name].weight.copy_(torch.cat([weight for weight, _ in parts[name]]))
            model.project[name].bias.copy_(torch.cat([bias for _, bias in parts[name]]))
    return model, model.encode({"m1": wave(2, 4, 3), "m2": wave(2, 3, 2, c=1)}, None)


@pytest.mark.parametrize(
    ("gate", "expected"),
    [
        ("tanh", [[1.088745, 0.613612], [1.245940, 0.613803]]),
        ("sigmoid", [[1.091156, 0.611827], [1.242218, 0.614089]]),
        ("none", [[1.090835, 0.609341], [1.237300, 0.612439]]),
    ],
)
def test_reference_numbers(gate, expected):
    model, encodings = core(gate)
    close(model.fuse(encodings), expected)
    close(model.fuse(encodings, ["m1"])[0], [0.631837, 0.611729])
    close(model.fuse(encodings, ["m2"])[0], [0.527420, 0.591982])


def test_without_the_gate_it_is_plain_attention():
    model, encodings = core("none")
    query, key, value = encodings["m1"][..., :3], encodings["m2"][..., 3:6], encodings["m2"][..., 6:]
    real = torch.tensor([[True, True, False], [True, True, True]])
    expected = F.scaled_dot_product_attention(query, key, value, real.unsqueeze(1))
    torch.testing.assert_close(model.attend(encodings["m1"], encodings["m2"], real), expected)


def test_what_several_sources_give_is_averaged():
    torch.manual_seed(0)
    model = PreGating({"m1": 3, "m2": 2, "m3": 4}, 2, width=4).double().eval()
    for parameter in model.parameters():
        parameter.data.normal_()
    encodings = model.encode({"m1": wave(2, 4, 3), "m2": wave(2, 3, 2, c=1), "m3": wave(2, 5, 4, c=2)}, None)
    expected = 0.0
    for name, context in model.context.items():
        query = encodings[name][..., :4]
        attended = [model.attend(encodings[name], x, None) for other, x in encodings.items() if other != name]
        expected = expected + (context.between(query, sum(attended) / 2) + context.within(query)).mean(1)
    torch.testing.assert_close(model.fuse(encodings), model.output(expected))


def test_gate_by_hand():
    query, key = torch.ones(1, 1, 1).double(), torch.tensor([[[1.0], [0.0]]]).double()
    gate = pre_gate(query, key)
    close(gate[0, 0], [0.790013, 0.5])
    close((query @ key.transpose(1, 2) * gate).softmax(2)[0, 0], [0.687826, 0.312174], 1e-5)


def test_normalised_gates_lie_between_0_and_1():
    query, key = 9 * torch.randn(2, 5, 64), 9 * torch.randn(2, 7, 64)
    for kind in ("tanh", "sigmoid"):
        gate = pre_gate(query, key, kind, normalise=True)
        assert gate.min() >= 0 and gate.max() <= 1 < pre_gate(query, key, kind).max()


def test_sizes_by_formula():
    assert count_parameters(PreGating(CMU, 1, width=64)) == 232_001
    assert count_parameters(PreGating(CMU, 2)) == 100_674


def test_refusals():
    with pytest.raises(ValueError, match="PreGating lets modalities meet and needs at least 2"):
        PreGating({"m1": 3}, 2)
    with pytest.raises(ValueError, match="gate must be one of tanh, sigmoid, none, got 'relu'"):
        PreGating(TWO, 2, gate="relu")
