"""Read pickles that hold NumPy arrays and plain containers, and refuse every other."""

from __future__ import annotations

import math
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vgmr.data.extract.clips import POINTER, message_of

OTHERS = {
    b"\x1f\x8b": "a gzip file",
    b"BZh": "a bzip2 file",
    b"\xfd7zXZ": "an xz file",
    b"PK\x03\x04": "a zip archive, as .npz and .pt are",
    b"{": "JSON",
}


def read_pickle(path: Path) -> Any:
    """The content of a pickle made of arrays, NumPy scalars, containers, str, bytes and numbers.

    Works for files of NumPy 1 and 2, of Python 2 and 3 and of either byte order. Nothing that the file names
    is imported or called: the few names that such a pickle needs have stand-ins here that check their input.

    Returns arrays as (subclasses of) `numpy.ndarray` in native byte order or the file's own.

    Raises:
        ValueError: the file names anything else, is cut short or is no pickle; in one line with its path.
        FileNotFoundError: no such file.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(len(POINTER))
            if start == POINTER:
                raise ValueError("a Git LFS pointer, not the data; fetch the file itself with git lfs pull")
            for sign, kind in OTHERS.items():
                if start.startswith(sign):
                    raise _Refused(f"expected a pickle, got {kind}; unpack it, or save its content as a pickle")
            file.seek(0)
            return _Unpickler(file, encoding="latin1").load()
    except OSError:
        raise
    except MemoryError:
        size = path.stat().st_size / 1e9
        raise ValueError(f"{path}: not enough memory for a pickle of {size:.1f} GB, or it is damaged") from None
    except _Refused as error:
        raise ValueError(f"{path}: {error}") from None
    except Exception as error:
        reason = message_of(error)[:200]
        raise ValueError(f"{path}: not a whole, readable pickle of arrays ({reason}); download it again") from None


class _Refused(ValueError):
    pass


class _Name:
    """A name in the pickle: can be called, cannot be changed."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise _Refused("the pickle tries to change a function; refused")


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _Name(_STAND_INS[f"{module}.{name}"])
        except KeyError:
            wanted = repr(f"{module}.{name}")[1:-1][:100]
            raise _Refused(
                f"the pickle asks for {wanted}, which no array or plain container needs; refused, nothing was "
                "run; save tensors and tables as NumPy arrays"
            ) from None


class _Type:
    """Stands for `numpy.dtype`: numbers, booleans, text, bytes and objects, without fields."""

    __slots__ = ("value",)

    def __init__(self, code: str, *_: Any) -> None:
        if not isinstance(code, str) or not re.fullmatch(r"[<>|=]?[biufSUO]\d+", code):
            raise _Refused(f"array type {str(code)[:40]!r} is none of numbers, text or bytes; refused")
        self.value = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order, subarray, names, fields, size = state[1:6]
        if (subarray, names, fields) != (None, None, None) or size not in (-1, self.value.itemsize):
            raise _Refused("array type with fields or a wrong item size; refused")
        self.value = self.value.newbyteorder(order)


class _Array(np.ndarray):
    """An array whose pickled state is compared with its size before NumPy takes it."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, fortran, raw = state
        dtype = kind.value
        shape = tuple(int(size) for size in shape)
        if dtype.kind == "O":
            if not isinstance(raw, list) or len(raw) != math.prod(shape):
                raise ValueError(f"an object array of shape {shape} does not hold as many items")
        else:
            raw = raw.encode("latin1") if isinstance(raw, str) else bytes(raw)
            _check_bytes(raw, shape, dtype)
        super().__setstate__((1, shape, dtype, bool(fortran), raw))  # type: ignore[arg-type]


def _check_bytes(raw: bytes | bytearray, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    size = math.prod(shape)
    if min(shape, default=0) < 0 or len(raw) != size * dtype.itemsize or (size and not dtype.itemsize):
        raise ValueError(f"an array of shape {shape} and type {dtype} does not fit its {len(raw)} bytes")
    if (
        dtype.kind == "U"
        and raw
        and np.frombuffer(raw, np.dtype("u4").newbyteorder(dtype.byteorder)).max() > 0x10FFFF
    ):
        raise ValueError("text with characters that do not exist")


def _reconstruct(*_: Any) -> _Array:
    return np.ndarray.__new__(_Array, (0,), np.int8)


def _from_buffer(
    raw: bytes | bytearray, kind: _Type, shape: tuple[int, ...], order: str, axes: tuple[int, ...] | None = None
) -> np.ndarray:
    if not isinstance(raw, bytes | bytearray) or kind.value.kind == "O":
        raise _Refused("an array without its bytes; refused")
    _check_bytes(raw, shape, kind.value)
    if order == "K" and axes is not None:
        return np.frombuffer(raw, kind.value).reshape(shape).transpose(axes)
    return np.frombuffer(raw, kind.value).reshape(shape, order="F" if order == "F" else "C")


def _scalar(kind: _Type, raw: bytes | str) -> Any:
    raw = raw.encode("latin1") if isinstance(raw, str) else raw
    if kind.value.kind == "O" or not isinstance(raw, bytes):
        raise _Refused("a scalar that is no number, text or bytes; refused")
    if not kind.value.itemsize and not raw:
        return kind.value.type()
    _check_bytes(raw, (), kind.value)
    return np.frombuffer(raw, kind.value)[0]


def _encode(text: str, encoding: str) -> bytes:
    """How pickle protocols below 3 write bytes."""
    if encoding not in ("latin1", "latin-1"):
        raise _Refused(f"bytes in the encoding {str(encoding)[:40]!r}; refused")
    return text.encode("latin1")


def _only_named(*_: Any) -> None:
    raise _Refused("numpy.ndarray called directly; refused")


_STAND_INS: dict[str, Callable[..., Any]] = {
    "numpy.ndarray": _only_named,
    "numpy.dtype": _Type,
    "_codecs.encode": _encode,
    "collections.OrderedDict": OrderedDict,
}
for _core in ("numpy.core", "numpy._core"):
    _STAND_INS[f"{_core}.multiarray._reconstruct"] = _reconstruct
    _STAND_INS[f"{_core}.multiarray.scalar"] = _scalar
    _STAND_INS[f"{_core}.numeric._frombuffer"] = _from_buffer
for _builtins in ("builtins", "__builtin__"):
    _STAND_INS[f"{_builtins}.bytes"] = lambda: b""  # how pickle protocols below 3 write empty bytes
    _STAND_INS[f"{_builtins}.set"] = set
    _STAND_INS[f"{_builtins}.frozenset"] = frozenset
