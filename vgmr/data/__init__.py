"""Data sets behind `load(name, root=..., **parameters) -> MultimodalData`."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from importlib import import_module
from itertools import product
from typing import Any

import numpy as np

from vgmr.data.types import Batch, MultimodalData, is_constant

_MODULES = {
    "avdigits": "avdigits",
    "cremad-ratings": "cremad_ratings",
    "mosi-utterance": "mosi_utterance",
    "mosi-words": "mosi_words",
    "utd-mhad": "utd_mhad",
    "uci-mfeat": "uci_mfeat",
    "digits": "digits",
    "digit-views": "digits",
    "synthetic": "synthetic",
    "mosi": "gated.mosi",
    "mosei": "gated.mosi",
    "ucf101": "gated.ucf101",
    "ave": "gated.ave",
    "cremad": "gated.cremad",
    "own": "own",
}


def names() -> list[str]:
    """All names that `load` knows."""
    return sorted(_MODULES)


def loader(name: str) -> Callable[..., MultimodalData]:
    """The function behind `name`; its signature lists the parameters that `load` accepts.

    Raises ValueError with the list of names if `name` is unknown.
    """
    if not isinstance(name, str) or name not in _MODULES:
        raise ValueError(f"unknown data set {name!r}; there are: {', '.join(names())}")
    place = f"vgmr.data.{_MODULES[name]}"
    try:
        module = import_module(place)
    except ModuleNotFoundError as error:
        if error.name != place:
            raise
        raise ValueError(f"there is no module {place}, in which data set {name!r} is to be found") from None
    expected = "load_" + name.replace("-", "_")
    function: Callable[..., MultimodalData] | None = getattr(module, expected, None)
    if function is None:
        raise ValueError(f"{module.__name__} has no function {expected}; data set {name!r} is loaded by that name")
    return function


def folds(name: str) -> int:
    """How many folds there are to load by `load(name, fold=k)`, k from 0; each sample is tested in one of them.

    Raises ValueError for data sets without folds, with the names of those that have some.
    """
    function = loader(name)
    if "fold" not in inspect.signature(function).parameters:
        having = [other for other in names() if "fold" in inspect.signature(loader(other)).parameters]
        raise ValueError(f"data set {name!r} has no folds; these have: {', '.join(having)}")
    return int(import_module(function.__module__).FOLDS)


def load(name: str, root: str | None = None, *, standardise: bool = True, **parameters: Any) -> MultimodalData:
    """Load a data set, checked, with every feature channel standardised by its training part.

    Args:
        name: one of `names()`.
        root: folder that holds the files, for data sets that are read from disk; None looks in the folder
            named by the environment variable VGMR_DATA, then in the download cache.
        standardise: shift and scale each channel by mean and deviation of the training part.
        parameters: those of the data set's own loader.

    Warns by name, as in `notes["warnings"]`, where much of what was read had to be cleared or may be misread, and
    where a modality is the same in all of a part.

    Raises:
        ValueError: unknown data set or parameter (with the list of those that exist), or content that is
            not as documented.
        FileNotFoundError: files that can be neither found nor downloaded, with what to do.
    """
    function = loader(name)
    known = inspect.signature(function).parameters
    unknown = sorted(set(parameters) - set(known))
    if unknown:
        choices = ", ".join(sorted(set(known) - {"root"})) or "none"
        raise ValueError(f"unknown parameter {', '.join(unknown)} for data set {name!r}; there are: {choices}")
    parameters = {key: _plain(value) for key, value in parameters.items()}
    standardise = _plain(standardise)
    for what, value in {"standardise": standardise, **parameters}.items():
        default = known[what].default if what in known else True
        if isinstance(default, bool) and not isinstance(value, bool):
            raise ValueError(f"{what} must be True or False, got {value!r}")
    if "root" in known:
        parameters["root"] = root
    elif root is not None:
        raise ValueError(f"data set {name!r} is made or built in and takes no root; leave root out")
    data = function(**parameters)
    data.check()
    data.refuse_blank()
    for part, one in product(data.parts, data.modalities):
        if is_constant(data.parts[part], one):
            line = f"{one} is the same in every step of every sample of the {part} part; look at its files"
            data.notes.setdefault("warnings", []).append(line)
    for line in data.notes.get("warnings", ()):
        warnings.warn(f"{name}: {line}", stacklevel=2)
    return data.standardised() if standardise else data


def _plain(value: Any) -> Any:
    """NumPy's numbers, also in a list, as Python's: the same content has the same key and fingerprint."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


__all__ = ["Batch", "MultimodalData", "folds", "load", "loader", "names"]
