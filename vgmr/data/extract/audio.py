"""Recordings to sequences of features: log-mel bands."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

FLOOR = 1e-10


def mel_filters(rate: float, transform: int, bands: int) -> np.ndarray:
    """Triangles of peak 1 between `bands` + 2 edges equally spaced in mel, 0 Hz to half the rate.

    Returns (transform // 2 + 1, bands) float64: the weight of every Fourier bin in every band. Mel as in
    O'Shaughnessy, Speech Communication, 1987: 2595 log10(1 + f / 700).
    """
    edges = _mel_edges(rate, bands)
    frequency = np.arange(transform // 2 + 1)[:, None] * (rate / transform)
    rising = (frequency - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - frequency) / (edges[2:] - edges[1:-1])
    return np.maximum(0.0, np.minimum(rising, falling))


def _mel_edges(rate: float, bands: int) -> np.ndarray:
    top = 2595 * np.log10(1 + rate / 2 / 700)
    return 700 * (10 ** (np.linspace(0, top, bands + 2) / 2595) - 1)


def log_mel(
    signal: np.ndarray,
    rate: float,
    bands: int = 64,
    window_seconds: float = 0.025,
    hop_seconds: float = 0.010,
) -> np.ndarray:
    """Logarithm of the energy in mel bands over time, (T, bands) float32.

    Hann windows; T = 1 + (samples - window) // hop with window and hop in samples; a shorter signal is filled
    with zeros to one window. The energy of a band is its share of the mean square of the signal, so the bands
    of a sine of amplitude 1 sum to 0.5; 1e-10 is added before the natural logarithm. The signal's mean is taken
    off. The Fourier transform is zero-padded until every band holds a bin.

    Args:
        signal: (samples,) floating point, or integer of a sound file, then scaled to -1 to 1.
        rate: samples per second.

    Raises:
        ValueError: not one channel, empty, NaN or infinite values, or rate, bands, window or hop not positive.
    """
    signal = np.asarray(signal)
    if signal.ndim != 1 or not len(signal):
        raise ValueError(f"log_mel: expected one channel of at least one sample, got shape {signal.shape}")
    window, hop = round(window_seconds * rate), round(hop_seconds * rate)
    if min(window, hop, bands) < 1:
        raise ValueError(
            f"log_mel: window ({window} samples), hop ({hop} samples) and bands ({bands}) must be at least 1"
        )
    samples = unit_scale(signal)
    if not np.isfinite(samples).all():
        raise ValueError("log_mel: the signal holds NaN or infinite values")
    samples = samples - samples.mean()
    samples = np.pad(samples, (0, max(0, window - len(samples))))
    transform = 1 << (window - 1).bit_length()
    while rate / transform > _mel_edges(rate, bands)[1]:
        transform *= 2
    taper = 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(window) + 0.5) / window)
    frames = sliding_window_view(samples, window)[::hop] * taper
    power = np.abs(np.fft.rfft(frames, transform)) ** 2 * (2 / (transform * (taper**2).sum()))
    return np.log(power @ mel_filters(rate, transform, bands) + FLOOR).astype(np.float32)


def unit_scale(signal: np.ndarray) -> np.ndarray:
    """Samples of a sound file as float64: integers scaled to -1 to 1 (8-bit ones rest at 128)."""
    if signal.dtype == np.uint8:
        return (signal.astype(np.float64) - 128) / 128
    if np.issubdtype(signal.dtype, np.integer):
        return signal.astype(np.float64) / -float(np.iinfo(signal.dtype).min)
    return signal.astype(np.float64)
