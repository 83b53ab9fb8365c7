"""GMU: numbers of the unit as in the paper and as in its code, and what a silent gate gives."""

import pytest
import torch
from made_systems import close, fill, of, wave

from vgmr.fusion.gated_unit import GatedUnit
from vgmr.prefusion import count_parameters

TWO = {"m1": 3, "m2": 2}


def core(gate_input):
    """Order: W_1 (2, 3), W_2 (2, 2), the gate of the code (2, 4), the gate of the paper (2, 5)."""
    model = GatedUnit(TWO, 2, width=2, gate_input=gate_input).double().eval()
    code, paper = torch.empty(2, 4).double(), torch.empty(2, 5).double()
    fill([*of(model.project["m1"], model.project["m2"]), code, paper])
    with torch.no_grad():
        model.gates[0].weight.copy_(paper if gate_input == "features" else code)
    return model, {"m1": wave(2, 3), "m2": wave(2, 2, c=1)}


def test_reference_numbers():
    model, encodings = core("projection")
    close(model.unit(encodings), [[0.466528, -0.054669], [-0.752948, -0.078457]])
    model, encodings = core("features")
    close(model.unit(encodings), [[0.595269, -0.046213], [-0.744291, -0.161126]])


@pytest.mark.parametrize("dims", [TWO, {"m1": 3, "m2": 2, "m3": 4}])
def test_a_silent_gate_halves_the_sum(dims):
    model = GatedUnit(dims, 2, width=2).double().eval()
    encodings = {name: torch.randn(4, dim).double() for name, dim in dims.items()}
    with torch.no_grad():
        for gate in model.gates:
            gate.weight.zero_()
    expected = torch.stack(list(model.vectors(encodings).values())).sum(0) / 2
    torch.testing.assert_close(model.unit(encodings), expected)


def test_swapping_two_modalities_with_the_gate_negated_changes_nothing():
    model, encodings = core("projection")
    expected = model.unit(encodings)
    swapped = GatedUnit({"m1": 2, "m2": 3}, 2, width=2, gate_input="projection").double().eval()
    with torch.no_grad():
        swapped.project["m1"].weight.copy_(model.project["m2"].weight)
        swapped.project["m2"].weight.copy_(model.project["m1"].weight)
        swapped.gates[0].weight.copy_(-model.gates[0].weight[:, [2, 3, 0, 1]])
    torch.testing.assert_close(swapped.unit({"m1": encodings["m2"], "m2": encodings["m1"]}), expected)


def test_sizes_by_formula():
    two = GatedUnit({"text": 768, "vision": 35}, 2, width=512, gate_input="projection")
    assert count_parameters(two) - count_parameters(two.output) == 935_424
    for gate_input, size in (("features", 112_256), ("projection", 37_280)):
        three = GatedUnit({"text": 768, "audio": 74, "vision": 35}, 2, gate_input=gate_input)
        assert count_parameters(three) - count_parameters(three.output) == size


def test_refusals():
    with pytest.raises(ValueError, match=r"GatedUnit lets modalities meet and needs at least 2, got \['m1'\]"):
        GatedUnit({"m1": 3}, 2)
    with pytest.raises(ValueError, match="gate_input must be"):
        GatedUnit(TWO, 2, gate_input="both")
