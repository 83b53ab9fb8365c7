"""LMF: reference numbers, and that it is one linear layer on TFN's product."""

import pytest
import torch
from made_systems import close, fill, wave

from vgmr.fusion.low_rank import LowRankFusion
from vgmr.fusion.tensor_fusion import TensorFusion
from vgmr.prefusion import count_parameters

CMU = {"text": 768, "audio": 74, "vision": 35}


def core():
    """Order: F_1 (2, 3, 2), F_2, F_3, a (1, 2), b (1, 2)."""
    model = LowRankFusion({"m1": 3, "m2": 3, "m3": 3}, 2, width=2, rank=2).double().eval()
    fill([*(model.factor[name] for name in model.names), model.rank_weight, model.bias])
    return model, {name: wave(2, 2, c=c) for c, name in enumerate(model.names)}


def test_reference_numbers():
    model, encodings = core()
    close(model.fuse(encodings), [[0.557491, 0.540446], [0.588183, 0.507324]])
    close(model.fuse(encodings, ["m1", "m2"]), [[0.586664, 0.540586], [0.584338, 0.535648]])


def test_equals_one_linear_layer_on_the_tensor_product():
    model, encodings = core()
    product = TensorFusion(model.dims, 2, width=2).double().product(encodings)
    factors = [model.factor[name] for name in model.names]
    weight = torch.einsum("r,ric,rjc,rkc->cijk", model.rank_weight[0], *factors).flatten(1)
    torch.testing.assert_close(model.fuse(encodings), product @ weight.T + model.bias, atol=1e-12, rtol=0)


def test_sizes_are_those_of_the_released_code():
    widths = {"text": 64, "audio": 16, "vision": 128}
    hidden = {**widths, "text": 128}
    assert count_parameters(LowRankFusion(CMU, 1, widths, hidden_dim=hidden)) == 508_475
    assert count_parameters(LowRankFusion(CMU, 2, widths, hidden_dim=hidden)) == 509_320
    assert count_parameters(LowRankFusion(CMU, 2)) == 106_680


def test_initial_scale_does_not_depend_on_the_rank():
    torch.manual_seed(0)
    for rank in (2, 50):
        factor = LowRankFusion({"a": 3}, 8, width=200, rank=rank).factor["a"]
        assert float(factor.detach().std()) == pytest.approx((2 / (201 + 8)) ** 0.5, rel=0.05)


def test_refusals():
    with pytest.raises(ValueError, match="rank must be at least 1, got 0"):
        LowRankFusion(CMU, 2, rank=0)
