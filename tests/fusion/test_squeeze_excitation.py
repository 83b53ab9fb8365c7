"""SE: reference numbers of the gate, and what it must not see."""

import pytest
import torch
from made_systems import close, fill, of, wave

from vgmr.fusion.squeeze_excitation import SqueezeExcitation
from vgmr.prefusion import count_parameters


def test_reference_numbers():
    """Order: W_1 (2, 4), W_2 (4, 2)."""
    module = SqueezeExcitation({"a": 4}, reduction=2).double()
    fill(of(module.excite["a"][0], module.excite["a"][2]))
    refined = module({"a": wave(2, 3, 4)}).features["a"]
    close(refined[0, 0], [0.531612, 0.369120, 0.090599, -0.272634])


def test_gate_by_hand():
    module = SqueezeExcitation({"a": 2}, hidden_dim=1).double()
    module.excite["a"][0].weight.data = torch.ones(1, 2).double()
    module.excite["a"][2].weight.data = torch.tensor([[1.0], [-1.0]]).double()
    gate = module.excitation("a", torch.tensor([[[1.0, 0.0]]]).double(), None)
    close(gate, [[0.731059, 0.268941]])


def test_a_silent_gate_halves():
    module = SqueezeExcitation({"a": 4})
    module.excite["a"][2].weight.data.zero_()
    x = torch.randn(2, 3, 4)
    assert torch.equal(module({"a": x}).features["a"], x / 2)


def test_order_and_padding_are_not_seen():
    module = SqueezeExcitation({"a": 4}, reduction=2).double()
    x = wave(2, 3, 4)
    gate = module.excitation("a", x, None)
    torch.testing.assert_close(module.excitation("a", x.roll(1, 1), None), gate)
    padded = torch.cat([x, 9 * torch.ones(2, 2, 4)], 1)
    real = (torch.arange(5) < 3).expand(2, -1)
    torch.testing.assert_close(module.excitation("a", padded, real), gate)
    assert not module({"a": padded}, {"a": real}).features["a"][:, 3:].any()


def test_size():
    assert count_parameters(SqueezeExcitation({"text": 768, "audio": 74, "vision": 35})) == 73_728 + 592 + 140
    with pytest.raises(ValueError, match="reduction must be at least 1"):
        SqueezeExcitation({"a": 4}, reduction=0)
