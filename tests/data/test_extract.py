"""Log-mel bands, flow images, image networks and the store of features."""

import numpy as np
import pytest

from vgmr.data.extract import log_mel, mel_filters


@pytest.mark.parametrize(("rate", "bands"), [(16000, 64), (8000, 32), (22050, 64), (48000, 128)])
def test_bands_of_a_sine_sum_to_half_its_squared_amplitude(rate, bands):
    time = np.arange(rate) / rate
    energy = np.exp(log_mel(0.5 * np.sin(2 * np.pi * 1000 * time), rate, bands=bands).astype(float)).sum(1)
    np.testing.assert_allclose(energy, 0.125, rtol=0.02)


@pytest.mark.parametrize(("rate", "bands"), [(16000, 64), (8000, 32), (8000, 128)])
def test_every_band_has_a_bin_and_inner_bins_are_shared_out_fully(rate, bands):
    values = log_mel(np.random.default_rng(0).normal(size=rate), rate, bands=bands)
    assert values.min() > -20
    weights = mel_filters(rate, 4096, bands).sum(1)
    inner = np.flatnonzero(weights > 0.999)
    np.testing.assert_allclose(weights[inner[0] : inner[-1] + 1], 1, rtol=1e-9)


def test_pitch_order_of_bands_and_time_of_a_click():
    time = np.arange(16000) / 16000
    loudest = [log_mel(np.sin(2 * np.pi * f * time), 16000).mean(0).argmax() for f in (200, 700, 2000, 5000)]
    assert loudest == sorted(set(loudest))
    click = np.zeros(16000)
    click[8000] = 1
    steps = np.flatnonzero(log_mel(click, 16000).max(1) > np.log(1e-8) + 1)
    # windows of 400 samples begin every 160 samples: sample 8000 lies in windows 48 to 50
    assert set(steps) <= {48, 49, 50}
    assert 49 in steps


def test_shape_type_and_short_signals():
    values = log_mel(np.zeros(16000, np.int16), 16000)
    assert values.shape == (98, 64)
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, np.log(1e-10), rtol=1e-6)
    assert log_mel(np.ones(7), 16000).shape == (1, 64)
    assert log_mel(np.ones(400), 16000).shape == (1, 64)
    assert log_mel(np.ones(560), 16000).shape == (2, 64)


def test_integers_are_scaled_to_one_and_a_constant_offset_is_silence():
    sixteen = np.random.default_rng(0).integers(-(2**15), 2**15, 8000).astype(np.int16)
    np.testing.assert_array_equal(log_mel(sixteen, 8000), log_mel(sixteen / 32768, 8000))
    eight = (sixteen >> 8).astype(np.int16)
    np.testing.assert_array_equal(log_mel((eight + 128).astype(np.uint8), 8000), log_mel(eight / 128, 8000))
    np.testing.assert_allclose(log_mel(np.full(8000, 0.7), 8000), np.log(1e-10), rtol=1e-6)


@pytest.mark.parametrize(
    ("signal", "rate"),
    [(np.zeros((5, 2)), 8000), (np.zeros(0), 8000), (np.array([0, np.nan]), 8000), (np.zeros(9), 0)],
)
def test_unusable_signals_are_refused(signal, rate):
    with pytest.raises(ValueError, match="log_mel"):
        log_mel(signal, rate)
