"""The networks of MMIM and Self-MM: reference numbers of what follows the vectors, sizes, absence."""

import pytest
import torch
from made_systems import close, fill, of, wave
from torch import nn

from vgmr.balancing.mmim import GaussianBound
from vgmr.balancing.self_mm import UnimodalHead
from vgmr.fusion.supervised_concat import InfoMaxConcat, SelfSupervisedConcat
from vgmr.prefusion import count_parameters

CMU = {"text": 768, "audio": 74, "vision": 35}
NAMES = ("m1", "m2", "m3")


def core(kind):
    """Vectors of width 2 and layers of width 3, as in the released code. Order: L(6->3), L(3->3), L(3->2)."""
    model = kind(dict.fromkeys(NAMES, 2), 2, width=2, averaged=NAMES)
    model.first, model.second, model.output = nn.Linear(6, 3), nn.Linear(3, 3), nn.Linear(3, 2)
    model = model.double().eval()
    fill(of(model.first, model.second, model.output))
    return model, {name: wave(4, 2, c=c) for c, name in enumerate(NAMES)}


def test_mmim_gives_the_reference_numbers():
    model, encodings = core(InfoMaxConcat)
    close(model.fused(encodings)[0], [-0.072386, 0.918034, 0.554906])
    close(model.fuse(encodings)[0], [0.385465, 0.758052])


def test_self_mm_gives_the_reference_numbers():
    model, encodings = core(SelfSupervisedConcat)
    close(model.fuse(encodings)[0], [0.460434, 1.278530])
    close(model.fuse(encodings, ["m1", "m3"])[0], [0.450436, 1.202637])


@pytest.mark.parametrize("kind", [InfoMaxConcat, SelfSupervisedConcat])
def test_an_absent_modality_is_a_slot_of_zeros(kind):
    model, encodings = core(kind)
    silent = {**encodings, "m2": torch.zeros(4, 2).double()}
    torch.testing.assert_close(model.fuse(encodings, ["m1", "m3"]), model.fuse(silent))


@pytest.mark.parametrize("kind", [InfoMaxConcat, SelfSupervisedConcat])
def test_quick_sizes(kind):
    assert count_parameters(kind(CMU, 2)) == 39_202


def test_sizes_of_what_the_methods_add():
    """Self-MM: a network for each of three modalities. MMIM: bounds of two pairs, three maps of its contrast."""
    assert 3 * count_parameters(UnimodalHead(32)) == 2_451
    assert 2 * count_parameters(GaussianBound(32, 32)) + 3 * (32 * 32 + 32) == 12_144
