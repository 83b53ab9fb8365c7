"""Log-mel bands, flow images, image networks and the store of features."""

import hashlib
import sys
import types

import numpy as np
import pytest
import torch
from made_audio_visual import POINTER, StandIn, write_image, write_video
from PIL import Image
from torch import nn

from vgmr.data.extract.audio import log_mel, mel_filters
from vgmr.data.extract.clips import BrokenFile, make_stored, note_missing, read_lines, read_raw, read_stored
from vgmr.data.extract.images import (
    RESNET,
    ImageNetwork,
    decode_flow,
    flow_input,
    numbered_images,
    read_images,
    read_video,
    rgb_input,
    spread,
    square,
)


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


def test_flow_is_decoded_to_pixels_a_frame():
    np.testing.assert_allclose(decode_flow(np.array([0, 255, 51, 204], np.uint8)), [-20, 20, -12, 12], atol=1e-5)
    assert abs(decode_flow(np.array([127, 128], np.uint8))).max() < 0.08
    u, v = np.full((1, 2, 2), 204, np.uint8), np.full((1, 2, 2), 229, np.uint8)
    motion = 229 / 255 * 40 - 20
    expected = [1.2, motion / 10, np.hypot(12, motion) / 10]
    np.testing.assert_allclose(flow_input(u, v)[0, :, 0, 0], expected, rtol=1e-5)
    assert flow_input(u, v).shape == (1, 3, 2, 2)


def test_colours_are_scaled_as_imagenet_networks_expect():
    x = rgb_input(np.array([[[[255, 0, 128]]]], np.uint8))
    assert x.dtype == np.float32
    expected = [(1 - 0.485) / 0.229, -0.456 / 0.224, (128 / 255 - 0.406) / 0.225]
    np.testing.assert_allclose(x[0, :, 0, 0], expected, rtol=1e-5)


@pytest.mark.parametrize("size", [(256, 256), (340, 256), (64, 90), (512, 300)])
def test_square_is_the_middle(size):
    ramp = np.broadcast_to(np.linspace(0, 255, size[0]), (size[1], size[0])).astype(np.uint8)
    out = square(Image.fromarray(ramp))
    assert out.shape == (224, 224)
    half = 112 / (256 / min(size)) / size[0] * 255
    np.testing.assert_allclose([out[0, 0], out[0, -1]], [127.5 - half, 127.5 + half], atol=3)


def test_images_are_read_by_number_with_a_digest_of_the_files(tmp_path):
    for number in (10, 9, 1):
        write_image(tmp_path / f"{number}.jpg", np.full((40, 40), 20 * number))
    write_image(tmp_path / "frame3.jpg", np.zeros((40, 40)))
    images = numbered_images(tmp_path)
    assert list(images) == [1, 9, 10]
    assert list(numbered_images(tmp_path, "frame")) == [3]
    assert numbered_images(tmp_path / "nowhere") == {}
    pixels, digest = read_images(list(images.values()), grey=True)
    assert pixels[:, 0, 0].tolist() == [20, 180, 200]
    assert read_images(list(images.values()))[0].shape == (3, 224, 224, 3)
    assert digest == read_images(list(images.values()))[1] != read_images([images[1], images[9]])[1]
    images[9].write_bytes(images[9].read_bytes()[:300])
    with pytest.raises(ValueError, match=r"9\.jpg: not a whole image"):
        read_images(list(images.values()))
    images[9].write_bytes(POINTER)
    with pytest.raises(ValueError, match="git lfs pull"):
        read_images(list(images.values()))


def test_grey_values_of_sixteen_bits_are_scaled_not_cut(tmp_path):
    grey = np.tile(np.arange(256, dtype=np.uint16), (256, 1))
    Image.fromarray(grey.astype(np.uint8)).save(tmp_path / "8.png")
    Image.fromarray(grey * 257).save(tmp_path / "16.png")
    for only_grey in (False, True):
        eight, sixteen = (read_images([tmp_path / name], only_grey)[0] for name in ("8.png", "16.png"))
        np.testing.assert_array_equal(sixteen, eight)


def halves(pixels):
    """Brightness of the upper, lower, left and right half."""
    return [
        round(float(half.mean()), -1) for half in (pixels[:112], pixels[112:], pixels[:, :112], pixels[:, 112:])
    ]


@pytest.mark.parametrize(("kind", "mode"), [(np.float32, "F"), (np.int32, "I")])
def test_images_of_more_bits_are_broken_by_the_name_of_their_mode(tmp_path, kind, mode):
    Image.fromarray(np.full((8, 8), 200, kind)).save(tmp_path / "1.tif")
    with pytest.raises(BrokenFile, match=rf"1.tif: expected 8 or 16 bits a pixel, got mode {mode}; save it"):
        read_images([tmp_path / "1.tif"])


def test_few_frames_of_a_video_are_held_and_they_are_those_of_the_whole(tmp_path, monkeypatch):
    import av

    path = tmp_path / "long.mp4"
    pixels = np.random.default_rng(0).integers(0, 255, (60, 32, 48, 3), np.uint8)
    write_video(path, pixels)
    with av.open(str(path)) as video:
        whole = [square(frame.to_image()) for frame in video.decode(video=0)]
    for frames in (1, 4, 59, 60, 99):
        expected = [whole[moment] for moment in spread(len(whole), frames)]
        assert np.array_equal(read_video(path, frames)[0], expected)
    held = []

    class Counted:
        def __init__(self, frame):
            self.frame = frame
            held.append(len(held) and held[-1] + 1)

        def __del__(self):
            held.append(held[-1] - 1)

        def to_image(self):
            return self.frame.to_image()

    class Container:
        def __init__(self, *given):
            self.inner = opened(*given)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.inner.close()

        def decode(self, video):
            return map(Counted, self.inner.decode(video=video))

    opened = av.open
    monkeypatch.setattr(av, "open", Container)
    read_video(path, 4)
    assert max(held) < 8 and len(held) >= 2 * len(whole)


def test_photographs_and_videos_of_a_turned_camera_are_read_upright(tmp_path):
    upright = np.zeros((64, 64, 3), np.uint8)
    upright[:32] = 200
    lying = np.rot90(upright).copy()  # bright on the left
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned by 90 degrees clockwise
    Image.fromarray(lying).save(tmp_path / "turned.jpg", exif=turned, quality=95)
    assert halves(read_images([tmp_path / "turned.jpg"])[0][0]) == [200, 0, 100, 100]
    turned[0x0100] = 64
    odd = turned.tobytes().replace(b"\x01\x00\x00\x04", b"\x01\x00\x00\x01")  # a width that is no number
    Image.fromarray(lying).save(tmp_path / "odd.jpg", exif=odd, quality=95)
    assert odd != turned.tobytes() and halves(read_images([tmp_path / "odd.jpg"])[0][0]) == [100, 100, 200, 0]
    write_video(tmp_path / "lying.mp4", np.stack([lying] * 3))
    assert halves(read_video(tmp_path / "lying.mp4", 1)[0][0]) == [100, 100, 200, 0]
    raw = (tmp_path / "lying.mp4").read_bytes()
    straight, clockwise = (b"".join(n.to_bytes(4, "big", signed=True) for n in x) for x in MATRICES)
    assert raw.count(straight) == 2, "of the file, then of the track"
    start = raw.rindex(straight)
    (tmp_path / "turned.mp4").write_bytes(raw[:start] + clockwise + raw[start + len(straight) :])
    assert halves(read_video(tmp_path / "turned.mp4", 1)[0][0]) == [200, 0, 100, 100]


ONE, END = 1 << 16, 1 << 30
MATRICES = ([ONE, 0, 0, 0, ONE, 0, 0, 0, END], [0, ONE, 0, -ONE, 0, 0, 0, 0, END])  # straight, and clockwise


def test_network_is_frozen_and_named_by_its_weights():
    network = nn.Sequential(nn.Flatten(), nn.LazyLinear(3), nn.Dropout(0.5)).train()
    network(torch.zeros(1, 3, 224, 224))
    images = np.ones((2, 3, 224, 224), np.float32)
    wrapped = ImageNetwork(network)
    first = wrapped(images)
    assert first.shape == (2, 3)
    np.testing.assert_array_equal(first, wrapped(images))
    assert network.training
    assert wrapped.name == ImageNetwork(network).name
    with torch.no_grad():
        network[1].bias += 1
    assert ImageNetwork(network).name != wrapped.name
    assert ImageNetwork(StandIn()).name == ImageNetwork(StandIn()).name
    assert ImageNetwork(StandIn(5)).name != ImageNetwork(StandIn()).name
    assert ImageNetwork("kept").name == "kept"


@pytest.mark.parametrize(
    "wrong",
    [
        lambda images: images,
        lambda images: images.flatten(1)[:1],
        lambda images: images.flatten(1).numpy(),
        lambda images: images.flatten(1)[:, :2] / 0,
    ],
)
def test_networks_that_give_no_features_are_refused(wrong):
    wrong.name = "wrong"
    with pytest.raises(ValueError, match="extractor wrong"):
        ImageNetwork(wrong)(np.zeros((2, 3, 224, 224), np.float32))


def test_without_torchvision_one_line_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    network = ImageNetwork()
    assert network.name == RESNET
    with pytest.raises(ImportError, match="install torchvision, or give extractor=") as refused:
        network(np.zeros((1, 3, 224, 224), np.float32))
    assert "\n" not in str(refused.value)


def test_torchvision_network_loses_its_last_layer(monkeypatch):
    asked = []

    def resnet18(weights):
        asked.append(weights)
        network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        network.fc = nn.LazyLinear(1000)
        return network

    models = types.ModuleType("torchvision.models")
    models.resnet18 = resnet18
    models.ResNet18_Weights = types.SimpleNamespace(IMAGENET1K_V1="weights")
    monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.models", models)
    network = ImageNetwork()
    assert asked == []
    assert network(np.ones((2, 3, 224, 224), np.float32)).shape == (2, 3)
    assert network(np.ones((1, 3, 224, 224), np.float32)).tolist() == [[1, 1, 1]]
    assert asked == ["weights"]


def test_features_are_stored_as_they_go(tmp_path):
    made = []

    def make(name):
        if name == "c" and len(made) < 3:
            raise KeyboardInterrupt
        made.append(name)
        return np.full((len(made), 2), ord(name), np.float64), hashlib.sha256(name.encode()).digest()

    def complete(names):
        stored = make_stored(tmp_path, names, read_stored(tmp_path, names), make, "made")
        return map(list, zip(*(stored[name] for name in names), strict=True))

    with pytest.raises(KeyboardInterrupt):
        complete(["a", "b", "c", "d"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npy", "b.npy"]
    made.append("-")
    features, digests = complete(["d", "c", "b", "a"])
    assert made == ["a", "b", "-", "d", "c"]
    assert [x[0, 0] for x in features] == [100, 99, 98, 97]
    assert {x.dtype for x in features} == {np.dtype(np.float32)}
    assert digests == [hashlib.sha256(name).digest() for name in (b"d", b"c", b"b", b"a")]
    np.testing.assert_array_equal(np.load(tmp_path / "b.npy"), features[2])
    again, _ = complete(["d", "c", "b", "a"])
    assert len(made) == 5
    np.testing.assert_array_equal(again[0], features[0])


@pytest.mark.parametrize("harm", ["short", "empty", "pickle", "shape", "nan", "type", "zip", "npz", "head"])
def test_damaged_stored_features_are_made_again(tmp_path, harm):
    digest = bytes(32)
    path = tmp_path / "a.npy"
    make_stored(tmp_path, ["a"], {}, lambda _: (np.ones((2, 2)), digest), "made")
    assert list(read_stored(tmp_path, ["a", "b"])) == ["a"]
    values = {
        "pickle": np.array([[{}]], object),
        "shape": np.ones(3, np.float32),
        "nan": np.full((2, 2), np.nan, np.float32),
        "type": np.ones((2, 2)),
    }
    if harm in values:
        with open(path, "wb") as file:
            np.save(file, values[harm], allow_pickle=True)
            file.write(digest)
    elif harm == "npz":
        np.savez(tmp_path / "a", x=np.ones((2, 2), np.float32))
        (tmp_path / "a.npz").replace(path)
    else:
        whole = path.read_bytes()
        huge = whole.replace(b"(2, 2)", b"(2, 2" + b"0" * 15 + b")")
        path.write_bytes({"empty": b"", "short": whole[:-1], "zip": b"PK\x03\x04" + whole, "head": huge}[harm])
    assert read_stored(tmp_path, ["a"]) == {}


def test_stored_features_of_two_widths_or_without_a_place_are_refused(tmp_path):
    widths = iter([2, 3])
    with pytest.raises(ValueError, match=r"widths \[2, 3\]"):
        make_stored(tmp_path, ["a", "b"], {}, lambda _: (np.ones((1, next(widths))), bytes(32)), "made")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BrokenFile, match="c: its features are NaN or infinite"):
        make_stored(tmp_path, ["c"], {}, lambda _: (np.full((1, 2), np.nan), bytes(32)), "made")
    assert not (tmp_path / "c.npy").exists()
    with pytest.raises(ValueError, match=r"give store= a folder .* own clips VGMR_CACHE"):
        make_stored(tmp_path / "file", ["a"], {}, lambda _: (np.ones((1, 1)), bytes(32)), "made")


def test_raw_files_and_lines(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes("\ufeffone\r\n\r\ntw\u00f6\n".encode())
    assert read_lines(path) == ["one", "tw\u00f6"]
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not text in UTF-8"):
        read_lines(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="empty"):
        read_raw(path)
    with pytest.raises(FileNotFoundError, match=r"no .*other; from there"):
        read_raw(tmp_path / "other", "from there")
    with pytest.raises(FileNotFoundError):
        read_raw(path / "below")


def test_missing_clips_are_named_and_counted():
    notes = {}
    note_missing("made", [], 3, "there", False, notes)
    assert notes == {}
    with pytest.raises(
        FileNotFoundError, match=r"4 of 9 clips .*\(a, b, c, \.\.\.\); get them from there, or pass"
    ):
        note_missing("made", ["a", "b", "c", "d"], 9, "there", False, notes)
    with pytest.raises(FileNotFoundError, match=r"get them from there$"):
        note_missing("made", ["a"], 1, "there", True, notes)
    note_missing("made", ["a"], 9, "there", True, notes)
    assert notes == {"partial copy": "1 of 9 clips are missing or incomplete: a"}


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv", "a.webm", "a.avi"])
def test_a_cut_video_is_broken_also_where_a_decoder_takes_the_rest_for_the_whole(tmp_path, name):
    av = pytest.importorskip("av")
    codec = "libvpx" if name.endswith("webm") else "mpeg4"
    options = {"movflags": "faststart"} if name in ("a.mp4", "a.mov") else {}
    path = tmp_path / name
    with av.open(str(path), "w", options=options) as video:
        stream = video.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 48, "yuv420p"
        for pixels in np.random.default_rng(0).integers(0, 255, (20, 48, 32, 3), dtype=np.uint8):
            video.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        video.mux(stream.encode())
    raw = path.read_bytes()
    assert len(read_video(path, 4)[0]) == 4
    path.write_bytes(raw + b"\0" * 20)  # what some recorders leave behind the end
    assert len(read_video(path, 4)[0]) == 4
    for share in (0.95, 0.5, 0.1):
        path.write_bytes(raw[: int(share * len(raw))])
        with pytest.raises(BrokenFile, match=r"cut short(, [\d,]+ of [\d,]+ bytes are there)?; get it again"):
            read_video(path, 4)
