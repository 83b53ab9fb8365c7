"""Data sets held in memory: loaded once per process, and again where their files or tensors were changed."""

from __future__ import annotations

import json
from functools import lru_cache
from importlib import import_module
from typing import Any

from vgmr.data import load, loader
from vgmr.data.types import MultimodalData
from vgmr.machine.files import place, user_path


def held(dataset: str, root: str | None, options: str) -> MultimodalData:
    """`load(dataset, root, **options)`, the options as JSON."""
    asked = dataset, root, options, state(dataset, root)
    data, versions = _loaded(*asked)
    if versions != _versions(data):
        _loaded.cache_clear()
        data, _ = _loaded(*asked)
    return data


@lru_cache(maxsize=8)
def _loaded(dataset: str, root: str | None, options: str, state: str) -> tuple[MultimodalData, list[Any]]:
    data = load(dataset, root, **json.loads(options))
    return data, _versions(data)


def _versions(data: MultimodalData) -> list[Any]:
    """What tells that a tensor was written into, or another put in its place."""
    tensors = [
        x for part in data.parts.values() for x in (part.label, *part.features.values(), *part.mask.values())
    ]
    return [(id(x), 0 if x.is_inference() else x._version) for x in tensors]


def state(dataset: str, root: str | None) -> str:
    """What tells that files of the user's own changed: name, size and time of each; empty for published sets.

    A loader's module that has a `state` says so itself, as that of own clips; of the others that may not be passed
    on the entries of the folder are looked at.
    """
    module = loader(dataset).__module__
    if (of_files := getattr(import_module(module), "state", None)) is not None:
        return str(of_files(root))
    base = place("VGMR_DATA") if root is None else user_path(root)
    if not module.startswith("vgmr.data.gated.") or base is None or not base.exists():
        return ""
    folder = base / dataset if (base / dataset).is_dir() else base
    entries = [entry for entry in sorted(folder.iterdir()) if entry.exists()] if folder.is_dir() else [folder]
    return str([(str(entry), entry.stat().st_size, entry.stat().st_mtime_ns) for entry in entries])
