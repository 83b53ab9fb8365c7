"""TFN: reference numbers of the released sub-network and post-fusion MLP, and what the product is."""

import pytest
import torch
from made_systems import close, fill, of, wave
from torch import nn

from vgmr.fusion.tensor_fusion import BatchNorm, LastState, SubNet, TensorFusion
from vgmr.prefusion import count_parameters

CMU = {"text": 768, "audio": 74, "vision": 35}


def test_sub_network_gives_the_reference_numbers():
    """Order: BatchNorm weight and bias, then the three layers; fresh running statistics."""
    net = SubNet(3, 2, 0.0).double().eval()
    fill(of(net.norm, *net.layers))
    close(net(wave(2, 3).unsqueeze(1), None), [[0.571192, 0.353949], [0.416256, 0.380728]])


def core():
    model = TensorFusion({"m1": 3, "m2": 3, "m3": 3}, 1, width=2, post_dim=3, dropout=0.0).double().eval()
    fill(of(model.post[0], model.post[2], model.output))
    return model, {name: wave(2, 2, c=c) for c, name in enumerate(model.names)}


def test_fusion_gives_the_reference_numbers():
    """Order: the layers behind the product, L(27->3), L(3->3), L(3->1)."""
    model, encodings = core()
    close(model.fuse(encodings), [[-0.128129], [-0.151538]])
    close(model.fuse(encodings, ["m1", "m3"]), [[-0.134429], [-0.144883]])
    close(model.fuse(encodings, ()), [[-0.162203], [-0.162203]])


def test_without_a_modality_its_columns_are_gone():
    model, encodings = core()
    expected = model.fuse(encodings, ["m1", "m3"])
    columns = torch.arange(27).view(3, 3, 3)[:, 1:].flatten()
    with torch.no_grad():
        model.post[0].weight[:, columns] = 0
    torch.testing.assert_close(model.fuse(encodings), expected)


def test_product_by_hand():
    model = TensorFusion({"a": 1, "b": 1}, 1, width=1)
    product = model.product({"a": torch.tensor([[2.0]]), "b": torch.tensor([[3.0]])})
    assert product.tolist() == [[1, 3, 2, 6]]


def test_sizes_are_those_of_the_released_code():
    widths = {"text": 64, "audio": 4, "vision": 16}
    original = TensorFusion(CMU, 1, width=widths, hidden_dim={**widths, "text": 128})
    assert count_parameters(original) == 647_631
    assert original.width is None
    assert count_parameters(TensorFusion(CMU, 2)) == 264_636
    assert count_parameters(TensorFusion(CMU, 2, sequential=())) == 175_836


def test_last_state_is_that_of_a_packed_sequence():
    net = LastState(3, 4, 2, 0.0).double()
    x, lengths = torch.randn(3, 5, 3).double(), torch.tensor([2, 5, 1])
    packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    expected = net.linear(net.recurrent(packed)[1][0][0])
    torch.testing.assert_close(net(x, torch.arange(5) < lengths.unsqueeze(1)), expected)


def test_norm_of_a_batch_of_one_takes_running_statistics():
    norm = BatchNorm(3)
    x = torch.randn(1, 3)
    torch.testing.assert_close(norm(x), norm.eval()(x))
    assert norm.num_batches_tracked == 0


def test_default_width_falls_with_the_number_of_modalities():
    widths = [TensorFusion({f"m{i}": 2 for i in range(count)}, 2).width for count in (1, 2, 3, 4)]
    assert widths == [16, 16, 16, 7]


def test_refusals():
    with pytest.raises(ValueError, match="35,937 entries, more than 20,000"):
        TensorFusion(CMU, 2, width=32)
    with pytest.raises(ValueError, match=r"sequential: unknown modalities \['speech'\]"):
        TensorFusion(CMU, 2, sequential=["speech"])
    with pytest.raises(ValueError, match="width: expected a width for each"):
        TensorFusion(CMU, 2, width={"text": 3})
