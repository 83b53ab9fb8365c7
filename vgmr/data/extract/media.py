"""From recordings and images on disk to sequences of features: log-mel, optical flow, a frozen image network."""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor, nn
from tqdm.auto import tqdm

from vgmr.files import place, user_path, write

FLOOR = 1e-10
RESNET = "resnet18-imagenet1k-v1"
SHORT_SIDE, SIDE = 256, 224
IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
IMAGENET_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)
POINTER = b"version https://git-lfs"

Extractor = Callable[[Tensor], Tensor] | str | None
Maker = Callable[[str], tuple[np.ndarray, bytes]]
Stored = dict[str, tuple[np.ndarray, bytes]]


def data_folder(name: str, root: str | Path | None, marker: str, expected: str) -> Path:
    """The folder that holds the path `marker`: `root`, or `name` in it; None for root means $VGMR_DATA.

    Raises FileNotFoundError that ends in `expected` if there is none.
    """
    base = place("VGMR_DATA") if root is None else user_path(root)
    if base is None:
        raise FileNotFoundError(f"no root for {name}, and VGMR_DATA is not set; {expected}")
    for folder in (base / name,) if root is None else (base, base / name):
        if (folder / marker).is_file():
            return folder
    raise FileNotFoundError(f"no {marker} of {name} in {base if root is not None else base / name}; {expected}")


def read_raw(path: Path, expected: str = "") -> bytes:
    """The bytes of a file.

    Raises FileNotFoundError if it is missing, with `expected`, and ValueError if it is empty or a Git LFS pointer.
    """
    try:
        raw = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"no {path}" + (f"; {expected}" if expected else "")) from None
    if raw.startswith(POINTER):
        raise ValueError(f"{path}: a Git LFS pointer, not the data; run git lfs pull in the repository it is from")
    if not raw:
        raise ValueError(f"{path}: the file is empty; get it again")
    return raw


def read_lines(path: Path, expected: str = "") -> list[str]:
    """The lines of a text file in UTF-8, with or without byte order mark, with LF or CRLF; blank ones left out.

    Raises as `read_raw`, and ValueError for other encodings.
    """
    try:
        text = read_raw(path, expected).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not text in UTF-8 (byte {error.start}); get it again") from None
    return [line.rstrip("\r") for line in text.split("\n") if line.strip()]


def check_complete(
    data: str, missing: Sequence[str], total: int, source: str, allow_partial: bool, notes: dict[str, Any]
) -> None:
    """Refuse clips that are missing, naming the first few, or count them in `notes` where partial data are wanted.

    Raises FileNotFoundError.
    """
    if not missing:
        return
    named = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
    if not allow_partial or len(missing) == total:
        rest = "" if len(missing) == total else ", or pass allow_partial=True to use what is there"
        raise FileNotFoundError(
            f"incomplete copy of {data}: {len(missing):,} of {total:,} clips are missing or incomplete ({named}); "
            f"get them from {source}{rest}"
        )
    notes["partial copy"] = f"{len(missing):,} of {total:,} clips are missing or incomplete: {named}"


def check_counts(
    data: str, found: dict[str, int], published: dict[str, int], allow_partial: bool, notes: dict[str, Any]
) -> None:
    """Refuse counts that differ from the published ones, or note them where partial data are wanted.

    Raises ValueError.
    """
    if found == published:
        return
    counts = f"{_counted(found)}; published are {_counted(published)}"
    if not allow_partial:
        raise ValueError(
            f"incomplete or changed lists of {data}: {counts}; get them again, or pass allow_partial=True"
        )
    notes["partial lists"] = counts


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


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


def read_images(paths: Sequence[Path], grey: bool = False) -> tuple[np.ndarray, bytes]:
    """Images as `square` makes them, (N, 224, 224, 3) or if `grey` (N, 224, 224) uint8, and the files' digest.

    Raises ValueError for a file that is no whole image, and FileNotFoundError.
    """
    image_module = _pillow()
    squares, digest = [], hashlib.sha256()
    for path in paths:
        raw = read_raw(path)
        digest.update(hashlib.sha256(raw).digest())
        try:
            squares.append(square(image_module.open(io.BytesIO(raw)).convert("L" if grey else "RGB")))
        except (OSError, SyntaxError, ValueError, image_module.DecompressionBombError) as error:
            raise ValueError(f"{path}: not a whole image ({_line(error)}); get it again") from None
    return np.stack(squares), digest.digest()


def square(image: Any) -> np.ndarray:
    """A Pillow image with its short side scaled to 256, and the 224 x 224 in its middle, uint8."""
    width, height = image.size
    scale = SHORT_SIDE / min(width, height)
    if scale != 1:
        width, height = (max(SHORT_SIDE, round(side * scale)) for side in (width, height))
        image = image.resize((width, height), _pillow().Resampling.BILINEAR)
    left, top = (width - SIDE) // 2, (height - SIDE) // 2
    return np.asarray(image.crop((left, top, left + SIDE, top + SIDE)))


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError:
        raise ImportError("reading images needs pillow; install vgmr with the extra video") from None
    return Image


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


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
    except ImportError:
        raise ImportError(
            "the image network is torchvision's ResNet-18; install torchvision, or give extractor= a function "
            "from images (N, 3, 224, 224) to features (N, D)"
        ) from None
    network: nn.Module = resnet18(weights=ResNet18_Weights.IMAGENET1K_V1)
    network.fc = nn.Identity()
    return network.to("cuda" if torch.cuda.is_available() else "cpu")


def read_stored(folder: Path, names: Sequence[str]) -> Stored:
    """Features and digests of those of `names` that `complete_stored` has written to the folder, and are whole."""
    found = {name: _read_stored(folder / f"{name}.npy") for name in names}
    return {name: stored for name, stored in found.items() if stored is not None}


def complete_stored(
    folder: Path, names: Sequence[str], stored: Stored, make: Maker, title: str
) -> tuple[list[np.ndarray], list[bytes]]:
    """Features (T, D) float32 of each name, and the digest of the raw files behind them; made if not `stored`.

    One file `<name>.npy` each, the digest (32 bytes) behind the array, written whole or not at all: what was cut
    off goes on where it stopped.

    Raises ValueError if widths differ or the folder cannot be written to, and what `make` raises.
    """
    stored = dict(stored)
    todo = [name for name in names if name not in stored]
    for name in tqdm(todo, desc=title, unit="clip", disable=not todo):
        features, digest = make(name)
        features = features.astype(np.float32)
        buffer = io.BytesIO()
        np.save(buffer, features, allow_pickle=False)
        try:
            write(folder / f"{name}.npy", buffer.getvalue() + digest)
        except OSError as error:
            raise ValueError(
                f"{folder}: features cannot be stored there ({error.strerror}); give store= a folder for them"
            ) from None
        stored[name] = features, digest
    widths = sorted({stored[name][0].shape[1] for name in names})
    if len(widths) != 1:
        raise ValueError(f"{folder}: stored features have widths {widths}; delete the folder to make them again")
    return [stored[name][0] for name in names], [stored[name][1] for name in names]


def _read_stored(path: Path) -> tuple[np.ndarray, bytes] | None:
    try:
        with open(path, "rb") as file:
            features, digest = np.load(file, allow_pickle=False), file.read()
    except (FileNotFoundError, ValueError, EOFError):
        return None
    whole = features.ndim == 2 and features.dtype == np.float32 and len(features) and len(digest) == 32
    return (features, digest) if whole and np.isfinite(features).all() else None


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
