"""What is refused of inputs: dimensions, settings, features and masks, each in one line that says what to give."""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

MODES = getattr(torch._C, "_TorchDispatchModeKey", None)  # private names, which another torch may not have
WITHOUT_VALUES = [getattr(MODES, name) for name in ("FAKE", "PROXY") if hasattr(MODES, name)]


def whole(what: str, value: Any) -> int:
    """`value`, a whole number of at least 1 of any integer type, as int; or ValueError in one line."""
    if not is_whole(value):
        raise ValueError(f"{what} must be a whole number of at least 1, got {shown(value)}")
    return operator.index(value)


def shown(value: Any) -> str:
    """What a message says of a value from outside: a text of one line for it, for tensors their type and shape."""
    said = _kind(value) if isinstance(value, Tensor) and value.ndim else " ".join(repr(value).split())
    return said if len(said) <= 100 else f"{said[:100]} ... ({type(value).__name__})"


def is_whole(value: Any) -> bool:
    """Whether it is a whole number of at least 1, of any integer type."""
    try:
        return not isinstance(value, bool) and operator.index(value) >= 1
    except TypeError:  # such as tensors of several numbers
        return False


def is_weight(value: Any) -> bool:
    """Whether it is a finite number of at least 0."""
    return isinstance(value, Real) and 0 <= float(value) < float("inf")


def check_dims(dims: Mapping[str, int], at_least: int = 1) -> dict[str, int]:
    """The modalities and their feature dimensions, or ValueError in one line."""
    if not isinstance(dims, Mapping):
        raise ValueError(f"expected dims as a dict, modality name -> dimension, got {type(dims).__name__}")
    if len(dims) < at_least:
        raise ValueError(
            f"expected at least {at_least} modalities to compare with each other, got {len(dims)}: {list(dims)}"
        )
    for name in dims:
        if not isinstance(name, str) or not name or "." in name or "+" in name:
            raise ValueError(f"a modality name must be a non-empty string without a dot or a plus, got {name!r}")
        if hasattr(nn.ModuleDict(), name):
            raise ValueError(f"{name!r} is a name that torch keeps for itself; call this modality otherwise")
    return {name: whole(f"{name}: a feature dimension", dim) for name, dim in dims.items()}


def check_share(what: str, value: Any) -> None:
    """ValueError in one line where `value` is no number in 0 to 1."""
    if not isinstance(value, Real) or not 0 <= float(value) <= 1:
        raise ValueError(f"{what} must lie in 0 to 1, got {shown(value)}")


def _kind(x: Any) -> str:
    return f"{x.dtype} {tuple(x.shape)}, {x.layout}" if isinstance(x, Tensor) else type(x).__name__


def check_targets(label: Tensor, count: int, classes: int) -> None:
    """ValueError in one line where labels do not fit `count` sequences of `classes` classes."""
    if not isinstance(label, Tensor) or label.layout != torch.strided or label.shape != (count,) or not count:
        got, hint = type(label).__name__, "; torch.as_tensor(label) makes one"
        if isinstance(label, Tensor):
            got, hint = str(tuple(label.shape)), ""
        raise ValueError(f"label: expected a tensor (N,), one entry for each of N = {count} > 0, got {got}{hint}")
    if label.dtype not in (torch.int64, torch.float32, torch.float64):
        raise ValueError(
            f"label: expected int64 classes or float32 or float64 scores, got {label.dtype}; label.long() or "
            "label.float() converts them"
        )
    if label.is_floating_point() and not torch.isfinite(label).all():
        raise ValueError("label: expected finite scores, got NaN or infinite ones")
    if not label.is_floating_point() and not 0 <= int(label.min()) <= int(label.max()) < classes:
        raise ValueError(
            f"label: expected classes 0 to {classes - 1}, got {int(label.min())} to {int(label.max())}; "
            f"num_classes of VGMR is {classes}"
        )


def check_value(value: Any, dims: Mapping[str, int], features: Mapping[str, Tensor]) -> Any:
    """`value` of `VGMR.forward` as it is; ValueError in one line if it is not (B,), 0 to 1, for each modality."""
    if value is None:
        return None
    if not isinstance(value, Mapping) or set(value) != set(dims):
        got = list(value) if isinstance(value, Mapping) else type(value).__name__
        raise ValueError(f"value: expected a dict with a tensor for each of {list(dims)}, got {got}")
    for name, given in value.items():
        if not isinstance(given, Tensor) or given.ndim != 1 or given.shape[0] != features[name].shape[0]:
            size = (len(features[name]),)
            raise ValueError(f"value: expected a tensor {size} for {name!r}, got {_kind(given)}")
        if _may_look_at(given) and not ((given > -1e-4) & (given < 1 + 1e-4)).all():  # but for rounding
            least, most = float(given.min()), float(given.max())
            raise ValueError(f"value: expected numbers from 0 to 1 for {name!r}, got {least:g} to {most:g}")
    return value


_trusted = ContextVar("trusted", default=False)


@contextlib.contextmanager
def trusted_values() -> Iterator[None]:
    """Inside, `check_inputs` looks at shapes and types but not at values: for loops over data checked before.

    Padding is then taken to hold zeros, as `Batch.check` has seen.
    """
    token = _trusted.set(True)
    try:
        yield
    finally:
        _trusted.reset(token)


def is_trusted() -> bool:
    """Whether this is a loop over data checked before, whose padding holds zeros."""
    return not torch.compiler.is_compiling() and _trusted.get()


def _may_look_at(x: Tensor) -> bool:
    """Whether values of `x` can be read here at no cost: not on a GPU, in a traced graph, or within torch.func.

    Nor where torch follows tensors without values, for a graph or an estimate of memory.
    """
    if torch.compiler.is_compiling() or x.device.type != "cpu" or is_trusted():
        return False
    if any(map(torch._C._get_dispatch_mode, WITHOUT_VALUES)):
        return False
    return not torch._C._functorch.is_functorch_wrapped_tensor(x)


def check_like(module: nn.Module, features: Mapping[str, Tensor]) -> None:
    """Raise ValueError in one line where features differ from the weights of `module` in type or device."""
    weight = next((x for x in module.parameters() if x.is_floating_point()), None)
    if weight is None or weight.is_meta or torch.compiler.is_compiling():
        return
    kind = weight.device.type
    mixed = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    for name, x in features.items():
        if (x.dtype != weight.dtype and not mixed) or x.device != weight.device:
            raise ValueError(
                f"{name}: expected {weight.dtype} features on {weight.device}, as the model is, got {x.dtype} on "
                f"{x.device}; x.to(device, dtype) converts them, model.to(...) the model"
            )


def check_inputs(
    dims: Mapping[str, int], features: Mapping[str, Tensor], mask: Mapping[str, Tensor] | None
) -> tuple[dict[str, Tensor], dict[str, Tensor | None]]:
    """Features with padding set to zero, and masks, both in the order of `dims`.

    Args:
        dims: expected feature dimension by modality name.
        features: name -> (B, T_m, d_m) floating point.
        mask: name -> (B, T_m) bool, True where a step is real; None if all are.

    Raises:
        ValueError: no dict of tensors, a modality that is unknown or missing, a wrong shape or type, a sample
            without a real step, NaN or infinite values in real steps. Values are looked at on the CPU only and
            not within `trusted_values`, traced graphs or torch.func; `Batch.check` does it once for a data set.
    """
    for what, given in (("features", features), ("mask", mask)):
        if given is None and what == "mask":
            continue
        if not isinstance(given, Mapping):
            raise ValueError(f"{what}: expected a dict, modality name -> tensor, got {type(given).__name__}")
        for name, x in given.items():
            if not isinstance(x, Tensor):
                hint = "; torch.as_tensor(x) makes one" if hasattr(x, "__array__") else ""
                raise ValueError(f"{what}: expected a tensor for {name!r}, got {type(x).__name__}{hint}")
        unknown, missing = sorted(set(given) - set(dims)), sorted(set(dims) - set(given))
        if unknown or missing:
            raise ValueError(
                f"{what}: expected the modalities {list(dims)}, got {list(given)}"
                + (f"; unknown: {', '.join(unknown)}" if unknown else "")
                + (f"; missing: {', '.join(missing)}" if missing else "")
            )
    for name, x in features.items():
        if x.layout != torch.strided or not x.ndim:
            raise ValueError(f"{name}: expected a dense tensor (B, T, {dims[name]}), got {_kind(x)}")
    size = next(iter(features.values())).shape[0]
    checked: dict[str, Tensor] = {}
    masks: dict[str, Tensor | None] = {}
    for name, dim in dims.items():
        x = features[name]
        if x.ndim != 3 or x.shape[2] != dim or x.shape[0] != size or not x.shape[1]:
            hint = "; a single vector per sample needs a time axis: x.unsqueeze(1)" if x.ndim == 2 else ""
            raise ValueError(f"{name}: expected features of shape ({size}, T, {dim}), got {tuple(x.shape)}{hint}")
        if not x.is_floating_point():
            raise ValueError(f"{name}: expected floating point features, got {x.dtype}")
        real = None if mask is None else mask[name]
        if real is not None:
            if real.dtype != torch.bool or real.shape != x.shape[:2]:
                got = f"{real.dtype} {tuple(real.shape)}"
                hint = "; mask.bool() makes one of 1 and 0" if real.shape == x.shape[:2] else ""
                raise ValueError(f"{name}: expected a bool mask of shape {tuple(x.shape[:2])}, got {got}{hint}")
            x = x.contiguous() if is_trusted() else torch.where(real.unsqueeze(2), x, 0.0)
        if _may_look_at(x):
            if real is not None and not real.any(1).all():
                row = int((~real.any(1)).nonzero()[0])
                raise ValueError(
                    f"{name}: sample {row} has no real time step in its mask; each needs at least one, such as "
                    "the mean of the training part where the modality is missing"
                )
            if not torch.isfinite(x.detach().sum()) and not torch.isfinite(x).all():
                row = int((~torch.isfinite(x)).flatten(1).any(1).nonzero()[0])
                raise ValueError(f"{name}: sample {row} holds NaN or infinite features; clean them before")
        checked[name], masks[name] = x, real
    return checked, masks
