"""Images and videos to sequences of features: optical flow, a frozen image network."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vgmr.data.extract.audio import ENDLESS
from vgmr.data.extract.clips import BrokenFile, message_of, read_raw

IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
RESNET = "resnet18-imagenet1k-v1"
SHORT_SIDE, SIDE = 256, 224
IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
IMAGENET_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)

Extractor = Callable[[Tensor], Tensor] | str | None


def spread(length: int, number: int) -> np.ndarray:
    """Middle of each of `number` equal parts of `length` steps, int64; all steps where there are no more."""
    if length <= number:
        return np.arange(length)
    return ((np.arange(number) + 0.5) * length / number).astype(np.int64)


def numbered_images(folder: Path, prefix: str = "") -> dict[int, Path]:
    """Number -> path of the images `<prefix><number>.jpg` of a folder, in order of their number.

    Other files are left out; a missing folder has no images.
    """
    pattern = re.compile(re.escape(prefix) + r"(\d+)\.jpe?g", re.IGNORECASE)
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    numbered = ((match, name) for name in names if (match := pattern.fullmatch(name)))
    return dict(sorted((int(match[1]), folder / name) for match, name in numbered))


def folder_images(folder: Path) -> list[Path]:
    """The images of a folder in the order of the numbers in their names; hidden and other files left out."""
    images = [
        path
        for path in (folder.iterdir() if folder.is_dir() else ())
        if path.suffix.lower() in IMAGES and not path.name.startswith(".")
    ]
    return sorted(images, key=lambda path: ([int(n) for n in re.findall(r"\d+", path.stem)], path.name))


def read_images(paths: Sequence[Path], grey: bool = False) -> tuple[np.ndarray, bytes]:
    """Images as `square` makes them, (N, 224, 224, 3) or if `grey` (N, 224, 224) uint8, and the files' digest.

    Raises BrokenFile for a file that is no whole image, and what `read_raw` raises.
    """
    image_module = _pillow()
    squares, digest = [], hashlib.sha256()
    for path in paths:
        raw = read_raw(path)
        digest.update(hashlib.sha256(raw).digest())
        try:
            image = image_module.open(io.BytesIO(raw))
            if image.mode == "F" or (image.mode == "I" and image.format == "TIFF"):
                raise BrokenFile(
                    f"{path}: expected 8 or 16 bits a pixel, got mode {image.mode}; save it with so many"
                )
            squares.append(square(_shown(image).convert("L" if grey else "RGB")))
        except BrokenFile:
            raise
        except (OSError, SyntaxError, ValueError, image_module.DecompressionBombError) as error:
            raise BrokenFile(f"{path}: not a whole image ({message_of(error)}); get it again") from None
    return np.stack(squares), digest.digest()


def _upright(frame: Any) -> Any:
    """A video's frame as it is shown: telephones store how they were held beside the pixels."""
    return frame.to_image().rotate(int(getattr(frame, "rotation", 0)), expand=True)


def _shown(image: Any) -> Any:
    """An image as it is shown, upright, its grey values of 16 bits scaled to 8: Pillow would cut them at 255."""
    image.load()
    with contextlib.suppress(Exception):  # damaged remarks on the camera surface as whatever they lead to
        image = _pillow("ImageOps").exif_transpose(image)
    if not image.mode.startswith("I"):
        return image
    return _pillow().fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))


def square(image: Any) -> np.ndarray:
    """A Pillow image with its short side scaled to 256, and the 224 x 224 in its middle, uint8."""
    width, height = image.size
    scale = SHORT_SIDE / min(width, height)
    if scale != 1:
        width, height = (max(SHORT_SIDE, round(side * scale)) for side in (width, height))
        image = image.resize((width, height), _pillow().Resampling.BILINEAR)
    left, top = (width - SIDE) // 2, (height - SIDE) // 2
    return np.asarray(image.crop((left, top, left + SIDE, top + SIDE)))


def read_video(path: Path, frames: int) -> tuple[np.ndarray, bytes]:
    """The middles of `frames` equal parts of a video, (T, 224, 224, 3) uint8 by `square`, and the file's digest.

    Raises BrokenFile for a file that is no whole video, ImportError without `av`, and what `read_raw` raises.
    """
    try:
        import av
    except ImportError as error:
        raise ImportError(f"reading videos needs av; install vgmr with the extra video ({error})") from None
    raw = read_raw(path)
    short = len(raw) < _stated_size(raw)
    if path.suffix.lower() == ".avi" and (short or raw[:4] != b"RIFF"):
        raise BrokenFile(f"{path}: not an .avi file, or cut short; get it again")
    if short:
        raise BrokenFile(f"{path}: cut short, {len(raw):,} of {_stated_size(raw):,} bytes are there; get it again")
    try:
        with av.open(io.BytesIO(raw), "r") as video:
            chosen = set(spread(sum(1 for _ in video.decode(video=0)), frames).tolist())
        with av.open(io.BytesIO(raw), "r") as video:  # again, so that few frames lie in memory
            decoded = [frame for moment, frame in enumerate(video.decode(video=0)) if moment in chosen]
    except (av.error.FFmpegError, IndexError) as error:
        raise BrokenFile(f"{path}: not a whole video ({message_of(error)}); get it again") from None
    if not decoded:
        raise BrokenFile(f"{path}: the video holds no frame; get it again")
    return np.stack([square(_upright(frame)) for frame in decoded]), hashlib.sha256(raw).digest()


def _stated_size(raw: bytes) -> int:
    """How many bytes a video has by its own account, for .avi, .mp4, .mov, .mkv and .webm; 0 where none is given.

    A decoder takes what is left of a cut video for the whole.
    """
    if raw[:4] == b"RIFF":
        size = int.from_bytes(raw[4:8], "little")
        return 8 + size if size < ENDLESS else 0
    if raw[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide"):
        place = 0
        while place + 8 <= len(raw):  # boxes, one after the other
            size = int.from_bytes(raw[place : place + 4], "big")
            size = int.from_bytes(raw[place + 8 : place + 16], "big") if size == 1 else size
            if size < 8 or not raw[place + 4 : place + 8].isalpha():  # up to the end, or no box
                return 0
            place += size
        return place
    if raw[:4] == b"\x1a\x45\xdf\xa3":
        start, size = _element(raw, 4)
        if raw[start + size : start + size + 4] == b"\x18\x53\x80\x67":  # the segment, which holds all the rest
            start, size = _element(raw, start + size + 4)
            return start + size
    return 0


def _element(raw: bytes, place: int) -> tuple[int, int]:
    """Where an element of Matroska, whose size stands at `place`, has its content, and that size; 0 if unknown."""
    width = 9 - raw[place].bit_length() if place < len(raw) and raw[place] else 1
    size = int.from_bytes(raw[place : place + width], "big") & ((1 << 7 * width) - 1)
    return place + width, 0 if size == (1 << 7 * width) - 1 else size


def _pillow(module: str = "Image") -> Any:
    try:
        return import_module(f"PIL.{module}")
    except ImportError as error:
        raise ImportError(f"reading images needs pillow; install vgmr with the extra video ({error})") from None


def rgb_input(images: np.ndarray) -> np.ndarray:
    """(N, H, W, 3) uint8 -> (N, 3, H, W) float32, shifted and scaled by ImageNet's mean and deviation."""
    scaled = (images.astype(np.float32) / 255 - IMAGENET_MEAN) / IMAGENET_DEVIATION
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


def decode_flow(pixels: np.ndarray) -> np.ndarray:
    """Grey values 0 to 255 -> motion of -20 to 20 pixels a frame, float32.

    As encoded by compute_flow.cpp of https://github.com/feichtenhofer/gpu_flow; 127 and 128 are nearest to rest.
    """
    return pixels.astype(np.float32) / 255 * 40 - 20


def flow_input(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Grey flow images (N, H, W) uint8 -> (N, 3, H, W) float32: u, v and the magnitude, in units of 10 pixels.

    So u and v lie in -2 to 2, about as wide as the colours that an ImageNet network is used to.
    """
    x, y = decode_flow(u), decode_flow(v)
    return np.stack([x, y, np.hypot(x, y)], axis=1) / 10


class ImageNetwork:
    """A frozen network from images (N, 3, 224, 224) to features (N, D), and the name its features are stored by.

    Args:
        extractor: None takes torchvision's ResNet-18 with ImageNet weights without its last layer (D = 512). A
            module is put into evaluation mode and named by its class and a digest of its weights. Any other
            function is named by its attribute `name` or its own name, so change that whenever it changes. A text
            is the name of stored features: nothing can be extracted then.

    Raises ValueError for an extractor without a name that can be a folder's.
    """

    def __init__(self, extractor: Extractor = None) -> None:
        self._extractor = extractor
        self.name = _name(extractor)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Features (N, D) float32 of prepared images (N, 3, 224, 224) float32.

        Raises ValueError if the network is not at hand or does not give (N, D) finite numbers.
        """
        if isinstance(self._extractor, str):
            raise ValueError(
                f"features of some clips are not stored under the name {self.name!r}, and a name cannot make "
                "them; give the network itself as extractor once"
            )
        if self._extractor is None:
            self._extractor = _resnet()
        network = self._extractor
        inputs = torch.from_numpy(images)
        training = isinstance(network, nn.Module) and network.training
        if isinstance(network, nn.Module):
            network.eval()
            weight = next(network.parameters(), None)
            inputs = inputs if weight is None else inputs.to(weight.device)
        try:
            with torch.inference_mode():
                output = network(inputs)
        finally:
            if training and isinstance(network, nn.Module):
                network.train()
        if not isinstance(output, Tensor) or output.ndim != 2 or len(output) != len(images):
            got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(f"extractor {self.name}: expected features of shape ({len(images)}, D), got {got}")
        features = output.float().cpu().numpy()
        if not np.isfinite(features).all():
            raise ValueError(f"extractor {self.name}: gave NaN or infinite features")
        return features


def _name(extractor: Extractor) -> str:
    if extractor is None:
        return RESNET
    if isinstance(extractor, str):
        name = extractor
    elif isinstance(extractor, nn.Module):
        digest = hashlib.sha256(repr(extractor).encode())
        for key, value in sorted(extractor.state_dict().items()):
            digest.update(
                key.encode() + value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
            )
        name = f"{type(extractor).__name__}-{digest.hexdigest()[:12]}"
    elif callable(extractor):
        name = str(getattr(extractor, "name", None) or getattr(extractor, "__name__", ""))
    else:
        raise ValueError(f"extractor must be a module, a function, a name or None, got {type(extractor).__name__}")
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        raise ValueError(
            f"extractor has no name to store features by (got {name!r}); set its attribute name to letters, "
            "digits, '-', '_' and '.'"
        )
    return name


def _resnet() -> nn.Module:
    try:
        from torchvision.models import ResNet18_Weights, resnet18
    except ImportError as error:
        raise ImportError(
            "the image network is torchvision's ResNet-18; install torchvision, or give extractor= a function "
            f"from images (N, 3, 224, 224) to features (N, D) ({error})"
        ) from None
    network: nn.Module = resnet18(weights=ResNet18_Weights.IMAGENET1K_V1)
    network.fc = nn.Identity()
    return network.to("cuda" if torch.cuda.is_available() else "cpu")
