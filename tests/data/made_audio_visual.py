"""Small made UCF101, AVE and CREMA-D files in exactly the published layouts, with classes that can be told apart.

The loaders read them with `allow_partial=True` and, for images, `extractor=StandIn()`. Where only text can be
given, pass `ImageNetwork(StandIn()).name` after the loader was called once with the network.
"""

from pathlib import Path

import h5py
import numpy as np
import torch
from PIL import Image
from scipy.io import wavfile
from torch import nn

from vgmr.data.gated.cremad import CLASSES as EMOTIONS

UCF_CLASSES = ("Archery", "HammerThrow", "Hammering", "HandstandPushups")
AVE_CLASSES = ("Church bell", "Male speech, man speaking", "Bark", "Female speech, woman speaking")
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 72014\n"


class StandIn(nn.Module):
    """A fixed random network from images (N, 3, 224, 224) to (N, 12), in place of one trained on ImageNet."""

    def __init__(self, width=12):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(width, 3, 16, 16, generator=generator) / 28)
        self.calls = 0

    def forward(self, images):
        self.calls += 1
        return nn.functional.conv2d(images, self.weight, stride=16).relu().mean((2, 3))


def colours(images):
    """The middle pixel of each image: a network that shows what it was given."""
    return images[:, :, 112, 112]


colours.name = "colours"


def write_image(path: Path, pixels):
    """A JPEG of (H, W) or (H, W, 3) uint8."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path, quality=95)


def write_video(path: Path, images):
    """An MPEG-4 .avi of (T, H, W, 3) uint8."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as video:
        stream = video.add_stream("mpeg4", rate=25)
        stream.height, stream.width = images.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for image in images:
            video.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        video.mux(stream.encode())


def ucf101_clips(classes=UCF_CLASSES, train=(8, 9, 10), test=(1, 2), clips=1):
    """Part -> clip names `v_Class_gGG_cCC`, as in the official lists."""
    return {
        part: [
            f"v_{name}_g{group:02d}_c{clip:02d}"
            for name in classes
            for group in groups
            for clip in range(1, clips + 1)
        ]
        for part, groups in (("train", train), ("test", test))
    }


def write_ucf101(root: Path, classes=UCF_CLASSES, layout="jpegs", length=5, side=40, split=1, seed=0, **groups):
    """Lists and footage ("jpegs" with flow, "avi", or None for lists only); returns the clips of each part.

    The class shows in the colour and in the direction of the flow. Videos spell HandStand, lists Handstand.
    """
    root.mkdir(parents=True, exist_ok=True)
    clips = ucf101_clips(classes, **groups)
    (root / "classInd.txt").write_text("".join(f"{i} {name}\n" for i, name in enumerate(classes, start=1)))
    for part, names in clips.items():
        kind = [name.split("_")[1] for name in names]
        label = [f" {classes.index(k) + 1}" if part == "train" else "" for k in kind]
        lines = [f"{k}/{name}.avi{number}\n" for k, name, number in zip(kind, names, label, strict=True)]
        (root / f"{part}list0{split}.txt").write_text("".join(lines))
    generator = np.random.default_rng(seed)
    for name in (name for names in clips.values() for name in names) if layout else ():
        kind = classes.index(name.split("_")[1])
        on_disk = name.replace("Handstand", "HandStand")
        colour = 60 + 120 * np.array([kind & 1, kind >> 1 & 1, kind >> 2 & 1])
        images = colour + generator.normal(0, 15, (length, side, side + 8, 3))
        images = images.clip(0, 255).astype(np.uint8)
        if layout == "avi":
            write_video(root / on_disk.split("_")[1] / f"{on_disk}.avi", images)
            continue
        angle = 2 * np.pi * kind / len(classes)
        for step, image in enumerate(images, start=1):
            write_image(root / "jpegs_256" / on_disk / f"frame{step:06d}.jpg", image)
            for folder, motion in (("u", 8 * np.cos(angle)), ("v", 8 * np.sin(angle))) if step < length else ():
                pixels = (motion + generator.normal(0, 1, (side, side + 8)) + 20) / 40 * 255
                write_image(root / "tvl1_flow" / folder / on_disk / f"frame{step:06d}.jpg", pixels.clip(0, 255))
    return clips


def ave_rows(number=48, classes=AVE_CLASSES, seed=0):
    """Annotation rows (category, video, quality, start, end), sorted by class as the published ones are.

    Row 4 has no length. Three videos stand twice, with another class; in the parts of `ave_orders` v-000 is in
    train and test, v-003 in train and validation, v-005 twice in train.
    """
    generator = np.random.default_rng(seed)
    rows = []
    for row in range(number):
        start = int(generator.integers(0, 8))
        end = int(generator.integers(start + 2, 11))
        rows.append([classes[row * len(classes) // number], f"v-{row:03d}", "good", start, end])
    rows[4][3:] = [0, 0]
    rows[-1][1], rows[-2][1], rows[-3][1] = rows[0][1], rows[3][1], rows[5][1]
    return [tuple(row) for row in rows]


def ave_orders(number=48):
    """Part -> rows, by their number: every fifth to test, every fifth to validation."""
    every = np.arange(number)
    parts = {"test": every[every % 5 == (number - 1) % 5], "val": every[every % 5 == 1]}
    return {"train": np.setdiff1d(every, np.concatenate(list(parts.values())))} | parts


def write_hdf5(path: Path, key, values, **options):
    """One HDF5 file with one data set."""
    with h5py.File(path, "w") as file:
        file.create_dataset(key, data=values, **options)


def write_ave(
    root: Path, rows=None, orders=None, header=False, sets=True, audio=(128,), visual=(7, 7, 512), seed=0
):
    """All files of AVE for `rows` and `orders`; audio (N, 10, 128) and visual (N, 10, 7, 7, 512) as written.

    The class shows in both modalities, inside and outside the annotated seconds.
    """
    root.mkdir(parents=True, exist_ok=True)
    rows = ave_rows() if rows is None else rows
    orders = ave_orders(len(rows)) if orders is None else orders
    lines = ["&".join(map(str, row)) + "\n" for row in rows]
    first = "Category&VideoID&Quality&StartTime&EndTime\n" if header else ""
    (root / "Annotations.txt").write_text(first + "".join(lines))
    for part, order in orders.items():
        write_hdf5(root / f"{part}_order.h5", "order", np.asarray(order, np.int64))
        if sets:
            (root / f"{part}Set.txt").write_text("".join(lines[row] for row in order))
    classes = list(dict.fromkeys(row[0] for row in rows))
    label = np.array([classes.index(row[0]) for row in rows])
    generator = np.random.default_rng(seed)
    heard = generator.normal(size=(len(rows), 10, *audio)).astype(np.float32)
    heard[..., :4] += 2 * np.eye(4)[label % 4][:, None]
    seen = generator.normal(size=(len(rows), 10, *[1] * (len(visual) - 1), visual[-1])).astype(np.float32)
    seen[..., :4] += 2 * np.eye(4)[label % 4].reshape(-1, 1, *[1] * (len(visual) - 1), 4)
    cell = np.linspace(-1, 1, int(np.prod(visual[:-1]))).reshape(*visual[:-1], 1).astype(np.float32)
    seen = seen + cell
    write_hdf5(root / "audio_feature.h5", "avadataset", heard)
    write_hdf5(root / "visual_feature.h5", "avadataset", seen, chunks=(1, *seen.shape[1:]), compression="gzip")
    second = np.zeros((len(rows), 10, len(classes) + 1), np.float32)
    for number, row in enumerate(rows):
        second[number, :, -1] = 1
        second[number, row[3] : row[4], -1] = 0
        second[number, row[3] : row[4], label[number]] = 1
    write_hdf5(root / "labels.h5", "avadataset", second)
    return heard, seen


def cremad_names(actors=tuple(range(1001, 1011)), sentences=("TIE", "MTI")):
    """Part -> clip names; every actor is in both parts, as in the literature's lists."""
    names = [
        f"{actor}_{sentence}_{emotion}_XX" for actor in actors for sentence in sentences for emotion in EMOTIONS
    ]
    return {"train": [name for i, name in enumerate(names) if i % 5], "test": names[::5]}


def write_lists(root: Path, parts):
    """train.csv and test.csv with CRLF and no header."""
    root.mkdir(parents=True, exist_ok=True)
    for part, names in parts.items():
        (root / f"{part}.csv").write_bytes("".join(f"{name},{name[9:12]}\r\n" for name in names).encode())


def write_voice(path: Path, samples, rate=16000):
    """A 16-bit .wav of samples in -1 to 1."""
    path.parent.mkdir(parents=True, exist_ok=True)
    wavfile.write(path, rate, (np.asarray(samples) * 32767).round().astype(np.int16))


def write_cremad(root: Path, parts=None, seconds=0.5, images=3, rate=16000, seed=0):
    """Lists, voices (the pitch tells the emotion) and frames (the colour does); the lists' clips."""
    parts = cremad_names() if parts is None else parts
    write_lists(root, parts)
    generator = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    for name in (name for names in parts.values() for name in names):
        kind = EMOTIONS.index(name[9:12])
        voice = 0.3 * np.sin(2 * np.pi * (200 + 300 * kind) * time) + generator.normal(0, 0.02, len(time))
        write_voice(root / "AudioWAV" / f"{name}.wav", voice, rate)
        colour = 60 + 120 * np.array([kind & 1, kind >> 1 & 1, kind >> 2 & 1])
        for step in range(1, images + 1):
            pixels = (colour + generator.normal(0, 15, (36, 30, 3))).clip(0, 255)
            write_image(root / "Image-01-FPS" / name / f"{step:05d}.jpg", pixels)
    return parts
