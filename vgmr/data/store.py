"""Prepared data on disk: made once, loaded in moments, never half written and never silently stale."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from vgmr.data.types import Batch, MultimodalData
from vgmr.machine.files import cache_folder, whole_folder

FORMAT = 2
MANIFEST = "manifest.json"
NOT_KEPT = "prepared data are not kept"  # how the warning begins
PARTS = ("train", "validation", "test")
SAID = ("name", "classes", "source", "licence", "fingerprint", "stand_in", "notes", "overlap")


def prepared(key: Mapping[str, Any], make: Callable[[], MultimodalData]) -> MultimodalData:
    """What `make` returns, kept on disk under `key` and loaded from there the next time.

    `key` holds, as JSON, everything that determines the content: data set ("data"), version of the preparation,
    parameters, digests of the raw files. Notes come back as JSON gives them. What lies on disk is checked by
    SHA-256; if it does not fit, a warning says so and it is made again.
    """
    folder = store_folder(key)
    if folder.is_dir():
        try:
            return read(folder, key)
        except ValueError as error:
            warnings.warn(f"prepared data refused and made again: {error}", stacklevel=2)
    data = make()
    try:
        write(folder, key, data)
    except OSError as error:
        warnings.warn(f"{NOT_KEPT}, {folder.parent} cannot be written: {error}", stacklevel=2)
        return data
    return read(folder, key)


def store_folder(key: Mapping[str, Any]) -> Path:
    """Where the data of `key` lie or will lie."""
    return cache_folder() / "prepared" / f"{key['data']}-{_seal({'format': FORMAT, **key})[:16]}"


def write(folder: Path, key: Mapping[str, Any], data: MultimodalData) -> None:
    """Write `data` beside `folder`, then move it into place at once."""
    with whole_folder(folder, lambda there: read(there, key)) as temporary:
        content = {}
        for part, batch in data.parts.items():
            packed = safetensors.torch.save(_tensors(batch))
            (temporary / f"{part}.safetensors").write_bytes(packed)
            content[part] = hashlib.sha256(packed).hexdigest()
        manifest = {
            "key": dict(key),
            **{name: getattr(data, name) for name in SAID},
            "modalities": data.modalities,
            "shapes": {
                part: {name: list(x.shape) for name, x in batch.features.items()}
                for part, batch in data.parts.items()
            },
            "content": content,
        }
        manifest["seal"] = _seal(manifest)
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def read(folder: Path, key: Mapping[str, Any] | None = None) -> MultimodalData:
    """Load what `write` wrote; ValueError in one line if anything is missing, changed or of another key."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        seal = manifest.pop("seal")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{folder / MANIFEST} is missing or no intact manifest") from None
    if seal != _seal(manifest):
        raise ValueError(f"{folder / MANIFEST} was changed since it was written")
    if key is not None and manifest["key"] != json.loads(json.dumps(dict(key))):
        raise ValueError(f"{folder} holds data prepared from another key")
    names = manifest["modalities"]
    parts = {}
    for part in PARTS:
        file = folder / f"{part}.safetensors"
        try:
            packed = file.read_bytes()
        except OSError:
            raise ValueError(f"{file} is missing or cannot be read") from None
        if hashlib.sha256(packed).hexdigest() != manifest["content"][part]:
            raise ValueError(f"{file} was changed or damaged since it was written")
        try:
            parts[part] = _batch(safetensors.torch.load(packed), names)
        except (SafetensorError, KeyError) as error:
            raise ValueError(f"{file} does not hold what its manifest says ({error})") from None
    said = {name: manifest[name] for name in SAID}
    return MultimodalData(**said | parts | {"classes": tuple(manifest["classes"])})


def _tensors(batch: Batch) -> dict[str, Tensor]:
    tensors = {"label": batch.label}
    for kind, named in (("features", batch.features), ("mask", batch.mask), ("corrupted", batch.corrupted or {})):
        tensors |= {f"{kind}/{name}": x.contiguous() for name, x in named.items()}
    if batch.group is not None:
        tensors["group"] = batch.group
    return tensors


def _batch(tensors: dict[str, Tensor], names: list[str]) -> Batch:
    corrupted = {name: tensors[f"corrupted/{name}"] for name in names if f"corrupted/{name}" in tensors}
    return Batch(
        {name: tensors[f"features/{name}"] for name in names},
        {name: tensors[f"mask/{name}"] for name in names},
        tensors["label"],
        tensors.get("group"),
        corrupted or None,
    )


def _seal(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
