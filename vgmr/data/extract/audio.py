"""Recordings to sequences of features: .wav files, log-mel bands."""

from __future__ import annotations

import hashlib
import io
import warnings
from math import gcd
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from vgmr.data.extract.clips import BrokenFile, message_of, read_raw

FLOOR = 1e-10
SHORTEST = 0.1  # seconds of sound from which eGeMAPS gives a step
SLOWEST, FASTEST = 4000, 400000  # samples per second of a recording
LOUDEST = 2.0**32  # above the largest whole sample that somebody wrote as a fraction
ENDLESS = 0x7FFFF000  # sizes from here on stand in the headers of streams, where the size was not known
Order = Literal["big", "little"]
CHUNKS = (b"data", b"fmt ", b"fact", b"LIST", b"bext", b"cue ", b"id3 ", b"JUNK", b"PEAK", b"smpl")


def read_wav(path: Path, rate: int | None = None, longest: float | None = None) -> tuple[np.ndarray, int, bytes]:
    """Samples (n,) float64 in -1 to 1 of a .wav file, its rate, and the SHA-256 of the file; channels averaged.

    Headers of streams, which hold 0 or a placeholder for the size, and a wrong size of the whole are read past:
    the sound is what is there. A file with less sound than its header states is broken.

    Args:
        rate: resampled to so many samples per second; None keeps the file's own.
        longest: only the first seconds are read.

    Raises BrokenFile for a file that is no whole .wav file or holds no sample, and what `read_raw` raises.
    """
    from scipy.io import wavfile
    from scipy.signal import resample_poly

    raw = read_raw(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", wavfile.WavFileWarning)
            found, signal = wavfile.read(io.BytesIO(_plain(raw)))
        if not len(signal) or not SLOWEST <= found <= FASTEST:
            raise ValueError(f"{len(signal)} samples at {found} Hz")
        signal = unit_scale(signal if longest is None else signal[: int(np.ceil(longest * found))])
        if not np.isfinite(signal).all():
            raise ValueError("NaN or infinite samples")
        if np.abs(signal).max() > LOUDEST:
            raise ValueError(f"samples up to {np.abs(signal).max():g}")
        if signal.ndim == 2:
            signal = signal.mean(1)
        if rate is not None and rate != found:
            divisor = gcd(found, rate)
            signal, found = resample_poly(signal, rate // divisor, found // divisor), rate
    except Exception as error:  # scipy lets damaged headers surface as whatever they lead to
        raise BrokenFile(f"{path}: not a usable .wav file ({message_of(error)}); get it again") from None
    return signal, found, hashlib.sha256(raw).digest()


def _plain(raw: bytes) -> bytes:
    """The same sound as a .wav file of two chunks, whose sizes are those of what is there."""
    order: Order = "big" if raw[:4] == b"RIFX" else "little"
    if raw[:4] not in (b"RIFF", b"RIFX", b"RF64") or raw[8:12] != b"WAVE":
        raise ValueError("no RIFF/WAVE header")
    form, sound, place, long = b"", None, 12, 0xFFFFFFFF
    while place + 8 <= len(raw) and sound is None:
        name, size = raw[place : place + 4], int.from_bytes(raw[place + 4 : place + 8], order)
        start, there = place + 8, len(raw) - place - 8
        if name == b"ds64" and raw[:4] == b"RF64":
            long = int.from_bytes(raw[start + 8 : start + 16], "little")
        if name == b"data":
            if raw[:4] == b"RF64" and size == 0xFFFFFFFF:
                size = long
            if size >= ENDLESS > there or (size == 0 and not _chunks_only(raw, start, order)):
                size = there
            if size > there:
                raise ValueError(f"cut short: {size:,} bytes of sound stated, {there:,} there")
            sound = raw[start : start + size]
        elif size > there:
            raise ValueError(f"cut short in its chunk {name!r}")
        elif name == b"fmt ":
            form = raw[start : start + size]
        place = start + size + size % 2
        if size % 2 and raw[place - 1 : place + 3] in CHUNKS:  # written without the byte that makes it even
            place -= 1
    if len(form) < 16 or sound is None:
        raise ValueError("no format" if sound is not None else "no sound: the data chunk is missing")
    block = max(1, int.from_bytes(form[12:14], order))
    sound = sound[: len(sound) // block * block]
    parts = [b"WAVE"]
    for name, content in ((b"fmt ", form), (b"data", sound)):
        parts += [name, len(content).to_bytes(4, order), content, b"\0" * (len(content) % 2)]
    body = b"".join(parts)
    return (b"RIFX" if order == "big" else b"RIFF") + len(body).to_bytes(4, order) + body


def _chunks_only(raw: bytes, place: int, order: Order) -> bool:
    """Whether what follows an empty data chunk is nothing, or chunks up to the end: then there is no sound."""
    while place + 8 <= len(raw) and raw[place : place + 4] in CHUNKS:
        size = int.from_bytes(raw[place + 4 : place + 8], order)
        place += 8 + size + size % 2
    return place >= len(raw)


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


def egemaps(signal: np.ndarray, rate: float) -> np.ndarray:
    """The 25 low-level descriptors of eGeMAPS v02 every 10 ms (pitch, loudness, formants, ...), (T, 25) float32.

    By the library opensmile, whose licence allows no commercial use. As described by Eyben et al., IEEE
    Transactions on Affective Computing, 2016.

    Args:
        signal: (samples,) floating point in -1 to 1, or integer of a sound file.
        rate: samples per second.

    Raises:
        ImportError: opensmile is not installed.
        ValueError: not one channel, NaN or infinite values, or a signal too short for a single step.
    """
    try:
        import opensmile
    except ImportError as error:
        raise ImportError(
            "eGeMAPS needs opensmile, whose licence allows no commercial use; install vgmr with the extra audio "
            f"({error})"
        ) from None
    signal = np.asarray(signal)
    if signal.ndim != 1 or not len(signal):
        raise ValueError(f"egemaps: expected one channel of at least one sample, got shape {signal.shape}")
    samples = unit_scale(signal)
    if not np.isfinite(samples).all():
        raise ValueError("egemaps: the signal holds NaN or infinite values")
    if len(samples) < SHORTEST * rate:
        raise ValueError(f"egemaps: {len(samples) / rate:.3f} s is too short, it needs {SHORTEST} s")
    smile = opensmile.Smile(
        feature_set=opensmile.FeatureSet.eGeMAPSv02, feature_level=opensmile.FeatureLevel.LowLevelDescriptors
    )
    found = smile.process_signal(samples.astype(np.float32), round(rate)).to_numpy(np.float32)
    return np.nan_to_num(found, nan=0.0, posinf=0.0, neginf=0.0)


def unit_scale(signal: np.ndarray) -> np.ndarray:
    """Samples of a sound file as float64: integers scaled to -1 to 1 (8-bit ones rest at 128)."""
    if signal.dtype == np.uint8:
        return (signal.astype(np.float64) - 128) / 128
    if np.issubdtype(signal.dtype, np.integer):
        return signal.astype(np.float64) / -float(np.iinfo(signal.dtype).min)
    return signal.astype(np.float64)
