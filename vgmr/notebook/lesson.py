"""What a notebook needs: `setup`, checked parameters, `record`, `explore`."""

from __future__ import annotations

import io
import platform
import types
import typing
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ipywidgets as widgets
import matplotlib.pyplot as plt
import torch
from IPython.display import display
from matplotlib.figure import Figure

import vgmr
from vgmr import plots

RECORD = "application/vnd.vgmr.record+json"


def setup() -> None:
    """Set the figures' look and one thread per process, and print what runs here."""
    plots.style()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="IProgress not found")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    torch_version = torch.__version__.split("+")[0]
    print(f"vgmr {vgmr.__version__}, torch {torch_version}, Python {platform.python_version()}, {device}")


def fits(value: Any, annotation: Any) -> bool:
    """Whether `value` is of the annotated type; an int is a float, None only where the type says so.

    Knows plain classes, `|`, `Literal`, and lists, tuples and dicts of such: `tuple[int, str]` has two entries,
    `tuple[int, ...]` any number.
    """
    if annotation is Any:
        return True
    if annotation is None or annotation is type(None):
        return value is None
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (types.UnionType, typing.Union):
        return any(fits(value, choice) for choice in inner)
    if origin is typing.Literal:
        return any(type(value) is type(choice) and value == choice for choice in inner)
    if origin is dict:
        return isinstance(value, dict) and all(fits(k, inner[0]) and fits(v, inner[1]) for k, v in value.items())
    if origin is tuple and inner[-1:] != (Ellipsis,):
        return isinstance(value, tuple) and len(value) == len(inner) and all(map(fits, value, inner))
    if origin in (list, tuple):
        return isinstance(value, origin) and all(fits(item, inner[0]) for item in value)
    if annotation is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, annotation)


def described(annotation: Any) -> str:
    """A type as one writes it."""
    return str(annotation) if typing.get_args(annotation) else getattr(annotation, "__name__", str(annotation))


def check_parameters(namespace: Mapping[str, Any], **choices: Sequence[Any]) -> None:
    """Refuse parameters of a wrong type or outside their choices; print those in force.

    Args:
        namespace: the notebook's `globals()`, called right after the parameters cell: every annotated name
            there is a parameter.
        choices: allowed values by parameter name.

    Raises:
        TypeError, ValueError: one line with the parameter, what was expected and what came.
    """
    parameters = dict(namespace["__annotations__"])
    for name, annotation in parameters.items():
        value = namespace[name]
        if not fits(value, annotation):
            got = f"{type(value).__name__} {value!r}"
            raise TypeError(f"parameter {name}: expected {described(annotation)}, got {got}")
        if name in choices and value not in choices[name]:
            raise ValueError(f"parameter {name}: expected one of {list(choices[name])}, got {value!r}")
    print(", ".join(f"{name}={namespace[name]!r}" for name in parameters))


def record(name: str, values: Mapping[str, Any]) -> None:
    """Show a result as text and keep it, machine-readable, in the executed notebook.

    Args:
        name: of the result, such as "quickstart".
        values: JSON-able; floats are rounded to 4 digits in both forms.
    """

    def rounded(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {str(key): rounded(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [rounded(item) for item in value]
        return round(float(value), 4) if isinstance(value, float) else value

    kept = rounded(values)
    text = "\n".join(f"{key}: {value}" for key, value in kept.items())
    display({RECORD: {"name": name, "values": kept}, "text/plain": f"recorded as {name}\n{text}"}, raw=True)


def explore(draw: Callable[..., Figure | tuple[Figure, str]], **controls: widgets.Widget) -> widgets.VBox:
    """Controls above a picture, and a line of numbers, drawn anew whenever one of the controls moves.

    Draws into `widgets.Image`: printing or plotting into an `Output` while a notebook is executed by a machine
    can hang for ever (jupyter/nbclient issue 312).

    Args:
        draw: takes the controls' values by name, returns the figure, or the figure and the line.
        controls: widgets by the names of `draw`'s arguments; each gets its name as a CSS class
            and, where it has none, as its description.
    """
    numbers = widgets.Label(layout=widgets.Layout(display="none"))
    numbers.add_class("numbers")
    picture = widgets.Image(format="png", layout=widgets.Layout(width="760px", align_self="flex-start"))
    picture.add_class("explored")

    def refresh(_: object = None) -> None:
        drawn = draw(**{name: control.value for name, control in controls.items()})
        figure, line = drawn if isinstance(drawn, tuple) else (drawn, "")
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
        plt.close(figure)
        numbers.value, numbers.layout.display = line, "flex" if line else "none"
        picture.value = buffer.getvalue()

    for name, control in controls.items():
        control.add_class(name)
        control.description = control.description or name.replace("_", " ")
        control.style.description_width = "120px"
        control.observe(refresh, "value")
    refresh()
    return widgets.VBox([*controls.values(), numbers, picture])


def claim(text: str, holds: bool) -> None:
    """Print whether a claim of the text held in this run; at the defaults a test compares the printed line."""
    print(f"{'held' if holds else 'did not hold'}: {text}")
