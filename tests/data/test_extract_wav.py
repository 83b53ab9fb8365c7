"""Recordings whose headers are not quite right: whole sounds are read, cut files are refused."""

import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vgmr.data.extract.audio import read_wav
from vgmr.data.extract.clips import BrokenFile

KINDS = {"u1": (1, 8), "<i2": (1, 16), "i3": (1, 24), "<i4": (1, 32), "<f4": (3, 32), "<f8": (3, 64)}
SUBTYPE = b"\x00\x00\x00\x00\x10\x00\x80\x00\x00\xaa\x008\x9bq"


def encode(signal, kind):
    """(n, channels) in -1 to 1 as bytes of a sound file."""
    if kind == "u1":
        return np.round(signal * 127 + 128).astype("u1").tobytes()
    if kind == "i3":
        wide = np.round(signal * (2**23 - 1)).astype("<i4")
        return wide.view("u1").reshape(-1, 4)[:, :3].tobytes()
    if kind[1] == "f":
        return signal.astype(kind).tobytes()
    return np.round(signal * (2.0 ** (8 * int(kind[2]) - 1) - 1)).astype(kind).tobytes()


def wav(signal, kind="<i2", rate=8000, extensible=False, data_size=None, riff_size=None, before=(), after=()):
    """A .wav file, its two sizes as given, other chunks (name, content, padded) before and behind the sound."""
    code, bits = KINDS[kind]
    channels = signal.shape[1]
    block = channels * bits // 8
    form = struct.pack("<HHIIHH", 0xFFFE if extensible else code, channels, rate, rate * block, block, bits)
    if extensible:
        form += struct.pack("<HHIH", 22, bits, 0, code) + SUBTYPE
    sound = encode(signal, kind)
    size = len(sound) if data_size is None else data_size
    body = b"WAVE" + b"fmt " + struct.pack("<I", len(form)) + form
    for name, content, even in before:
        body += name + struct.pack("<I", len(content)) + content + b"\0" * (even * (len(content) % 2))
    body += b"data" + struct.pack("<I", size) + sound
    if after:
        body += b"\0" * (len(sound) % 2)
    for name, content in after:
        body += name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)
    return b"RIFF" + struct.pack("<I", len(body) if riff_size is None else riff_size) + body


CONTENT = st.binary(max_size=9)
SOUNDS = st.builds(
    lambda n, channels, seed: np.random.default_rng(seed).uniform(-0.9, 0.9, (n, channels)),
    st.integers(1, 300),
    st.integers(1, 3),
    st.integers(0, 9),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    signal=SOUNDS,
    kind=st.sampled_from(sorted(KINDS)),
    extensible=st.booleans(),
    size=st.sampled_from([None, 0, 0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000, 0xFFFFFFFF - 36]),
    riff_size=st.none() | st.integers(0, 2**32 - 1),
    before=st.lists(st.tuples(st.sampled_from([b"LIST", b"JUNK", b"abcd"]), CONTENT, st.booleans()), max_size=3),
    after=st.lists(st.tuples(st.sampled_from([b"LIST", b"id3 "]), CONTENT), max_size=2),
)
def test_a_whole_sound_is_read_whatever_its_header_says(
    tmp_path, signal, kind, extensible, size, riff_size, before, after
):
    # what stands behind the sound of a stream cannot be told from it, and a chunk of an unknown name not padded
    # cannot be told from a longer one
    after = after if size is None else ()
    before = [(name, content, even or name == b"abcd") for name, content, even in before]
    before = [(*chunk[:2], True) if i + 1 < len(before) and before[i + 1][0] == b"abcd" else chunk
              for i, chunk in enumerate(before)]  # fmt: skip
    path = tmp_path / "a.wav"
    path.write_bytes(wav(signal, kind, 8000, extensible, size, riff_size, before, after))
    samples, rate, digest = read_wav(path)
    assert rate == 8000 and len(digest) == 32
    np.testing.assert_allclose(samples, signal.mean(1), atol=0.02)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(signal=SOUNDS, kind=st.sampled_from(sorted(KINDS)), extensible=st.booleans(), share=st.floats(0, 0.999))
def test_cut_files_are_refused(tmp_path, signal, kind, extensible, share):
    path = tmp_path / "a.wav"
    raw = wav(signal, kind, extensible=extensible)
    path.write_bytes(raw[: int(share * len(raw))])
    with pytest.raises(BrokenFile, match=r"a\.wav: ") as refused:
        read_wav(path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("after", [(), ((b"LIST", b"abc"),)])
def test_a_header_without_sound_is_refused(tmp_path, after):
    path = tmp_path / "a.wav"
    path.write_bytes(wav(np.zeros((0, 1)), after=after))
    with pytest.raises(BrokenFile, match="0 samples at 8000 Hz"):
        read_wav(path)
    path.write_bytes(wav(np.zeros((0, 1)), data_size=0xFFFFFFFF))
    with pytest.raises(BrokenFile, match="0 samples at 8000 Hz"):
        read_wav(path)


def test_other_rates_and_only_the_beginning(tmp_path):
    path = tmp_path / "a.wav"
    tone = np.sin(2 * np.pi * 440 * np.arange(8000) / 8000)[:, None] / 2
    path.write_bytes(wav(tone))
    samples, rate, _ = read_wav(path, rate=16000, longest=0.5)
    assert rate == 16000 and len(samples) == 8000
    expected = np.sin(2 * np.pi * 440 * np.arange(8000) / 16000) / 2
    np.testing.assert_allclose(samples[500:-500], expected[500:-500], atol=0.02)


def test_what_is_no_linear_sound_is_refused(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(wav(np.zeros((9, 1))).replace(b"\x01\x00\x01\x00", b"\x07\x00\x01\x00"))
    with pytest.raises(BrokenFile, match="get it again"):
        read_wav(path)
    path.write_bytes(wav(np.full((9, 1), np.nan), "<f4"))
    with pytest.raises(BrokenFile, match="NaN or infinite"):
        read_wav(path)
    path.write_bytes(wav(np.full((9, 1), 1e30), "<f4"))
    with pytest.raises(BrokenFile, match=r"samples up to 1e\+30"):
        read_wav(path)


def test_real_recordings_are_read_as_before(real_data):
    from scipy.io import wavfile

    for path in sorted((real_data / "free-spoken-digit-dataset" / "recordings").glob("*.wav"))[::100]:
        rate, signal = wavfile.read(path)
        samples, found, _ = read_wav(path)
        assert found == rate
        np.testing.assert_array_equal(samples, signal / 32768)
