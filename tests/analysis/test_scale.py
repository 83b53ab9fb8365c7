"""What grows how: exponents that follow from the equations."""

import pytest

from vgmr.analysis import scale
from vgmr.analysis.scale import exponents, measured, scaling


def test_flops_of_two_modalities_by_hand():
    """Two products per step, X to H and X to the gate's logits, and the maps between; 2 FLOPs each.

    Width 8, d = 2, 5 samples of 7 steps: folding f^h into f^x 8 x 2 x 8 and its bias 8 x 2; H 35 x 8 x 2, logits
    35 x 8 x 8. Per sample E^s 4 x 2 + 2 x 2, E^i 5 d x d + d x d = 10 x 2 + 2 x 2, E^v 12, w 2, W 4,
    f^g 8, f^c 16.
    """
    a_modality = 8 * 2 * 8 + 8 * 2 + 35 * 8 * 2 + 35 * 8 * 8 + 5 * (12 + 24 + 12 + 2 + 4 + 8 + 16)
    found = measured(length=7, width=8, modalities=2, samples=5, latent_dim=2)
    assert found["flops"] == pytest.approx(2 * 2 * a_modality, rel=0.02)


def test_linear_in_length_quadratic_in_width_unless_low_rank(monkeypatch):
    monkeypatch.setattr(scale, "AXES", {"length": (500, 5000), "width": (1024, 4096), "modalities": (2, 12)})
    full, low = (exponents(scaling(rank=rank)).set_index(["axis", "what"])["last"] for rank in (None, 16))
    assert full["length", "flops"] == pytest.approx(1, abs=0.05)
    assert full["length", "kept_mib"] == pytest.approx(1, abs=0.05)
    assert full["width", "flops"] > 1.7
    assert low["width", "flops"] < 1.05


def test_checkpointing_keeps_no_activation():
    found = measured(length=50, width=32, modalities=2)
    assert found["kept_mib"] > 1
    assert found["kept_mib_checkpointed"] == 0
