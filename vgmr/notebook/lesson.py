"""What a notebook needs: `setup`, parameters, `evidence`, `record`, `table`, `claim`, `answers`, `explore`."""

from __future__ import annotations

import io
import os
import platform
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown, display
from matplotlib.figure import Figure
from pandas.io.formats.style import Styler

import vgmr
from vgmr import plots
from vgmr.experiment import Run
from vgmr.machine.files import write
from vgmr.notebook.given import RECORD, TABLES, described, fits, trouble
from vgmr.records.kept import confirm
from vgmr.statistics.intervals import Interval
from vgmr.statistics.verdicts import VERDICTS, verdict


def setup() -> None:
    """Set the figures' look and one thread per process, and print what runs here."""
    plots.style()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="IProgress not found")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    torch_version = torch.__version__.split("+")[0]
    print(f"vgmr {vgmr.__version__}, torch {torch_version}, Python {platform.python_version()}, {device}")


def check_parameters(namespace: Mapping[str, Any], **choices: Collection[Any]) -> None:
    """Refuse parameters of a wrong type, too small, outside their choices or with a name twice; print the rest.

    Args:
        namespace: the notebook's `globals()`, called right after the parameters cell: every annotated name
            there is a parameter.
        choices: allowed values by parameter name; of a list, one or more of them.

    Raises:
        TypeError, ValueError: one line with the parameter, what was expected and what came.
    """
    parameters = dict(namespace["__annotations__"])
    for name, annotation in parameters.items():
        value = namespace[name]
        if not fits(value, annotation):
            got = f"{type(value).__name__} {value!r}"
            raise TypeError(f"parameter {name}: expected {described(annotation)}, got {got}")
        if why := trouble(value, name):
            raise ValueError(f"parameter {name}: {why}")
        several = isinstance(value, list)
        chosen = value if several else [value]
        if name in choices and not (chosen and all(one in choices[name] for one in chosen)):
            number = "one or more" if several else "one"
            raise ValueError(f"parameter {name}: expected {number} of {list(choices[name])}, got {value!r}")
        if several and len(names := [one for one in value if isinstance(one, str)]) > len(set(names)):
            raise ValueError(f"parameter {name}: expected each name once, got {value!r}")
    print(", ".join(f"{name}={namespace[name]!r}" for name in parameters))


def evidence(found: Any, paper: float | None = None) -> dict[str, Any]:
    """A difference as floats, to be recorded: difference, low, high and what a table or `Interval` says besides.

    Args:
        found: an `Interval`, or a row of a table of `vgmr.comparison`.
        paper: the paper's effect, where the text states one.
    """
    values = asdict(found) if isinstance(found, Interval) else dict(found)
    values.setdefault("difference", values.get("mean"))
    numbers = ("difference", "low", "high", "error", "df", "p", "smallest_effect", "seeds", "samples")
    kept = {name: float(values[name]) for name in numbers if name in values and not pd.isna(values[name])}
    return kept | ({"paper": float(paper)} if paper is not None else {})


def record(name: str, values: Mapping[str, Any]) -> None:
    """Show a result as text and keep it, machine-readable, in the executed notebook.

    Args:
        name: of the result, such as "quickstart".
        values: JSON-able, such as `evidence` by key; floats are kept to 6 significant digits, and shown to 4
        places.
    """

    def kept(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {str(key): kept(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [kept(item) for item in value]
        return float(f"{float(value):.6g}") if isinstance(value, float) else value

    def shown(value: Any) -> Any:
        if isinstance(value, Mapping) and {"difference", "low", "high"} <= set(value):
            return "{difference:+.4f} [{low:+.4f}, {high:+.4f}]".format(**value)
        if isinstance(value, list | tuple):
            return [shown(item) for item in value]
        return round(value, 4) if isinstance(value, float) else value

    content = kept(values)
    text = "\n".join(f"{key}: {shown(value)}" for key, value in content.items())
    display({RECORD: {"name": name, "values": content}, "text/plain": f"recorded as {name}\n{text}"}, raw=True)


def table(frame: pd.DataFrame, name: str, caption: str = "", digits: int = 3) -> Styler:
    """A table for reading: digits cut, empty cells and columns left out; all its digits go to NAME.csv.

    No p is shown as zero: one below the last digit is said to be.

    Args:
        name: of the file, in the folder `tables` beside the notebook, or beside the output of `vgmr run`.
    """
    folder = Path(os.environ.get(TABLES, "tables"))
    write(folder / f"{name}.csv", frame.to_csv(index=False, lineterminator="\n"))
    small = frame.dropna(axis=1, how="all")
    floats = [column for column in small if pd.api.types.is_float_dtype(small[column])]

    def chance(p: Any) -> str:
        return f"&lt; {10**-digits:.{digits}f}" if p < 10**-digits else f"{p:.{digits}f}"

    formats: dict[Any, Any] = dict.fromkeys(floats, f"{{:.{digits}f}}")
    formats |= {column: chance for column in ("p", "p_holm") if column in floats}
    styled = small.style.format(formats, na_rep="").hide(axis="index")
    return styled.set_caption(caption or name).set_uuid(name)  # the same HTML each time


def readable(frame: pd.DataFrame) -> pd.DataFrame:
    """A table for reading, with models, methods and optimisers by their names, see `vgmr.plots.display_name`."""
    columns = [name for name in ("label", "against", "method", "optimizer") if name in frame]
    return frame.assign(**{name: frame[name].map(plots.display_name) for name in columns})


def confirmed(groups: Sequence[Sequence[Run]]) -> None:
    """Train the first run of each group again, with those of its pass, and claim that the accuracies come back.

    Seeds of a pass share their dropout. Where some are left out here, nothing is trained, and a line says so.

    Args:
        groups: recorded runs of a variant each, in the order of their study.
    """
    passes = [runs[: max(1, len(runs[0].history.together))] for runs in groups]
    if any(len(each) < len(each[0].history.together) for each in passes):
        print("not trained again: these seeds share their dropout with some that are left out here")
        return
    found = confirm([run for each in passes for run in each], jobs=1)
    gap = float((found["recorded"] - found["again"]).abs().mean())
    claim("trained again, the recorded accuracies come back within two points on average", gap < 0.02)


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


def claim(text: str, found: Any, paper: float | None = None) -> None:
    """Print what became of a claim of the text in this run; at the defaults a test compares the printed line.

    The words are those of `vgmr.statistics.verdicts.verdict`; a check without an interval is a yes or a no, which
    is no verdict.

    Args:
        found: an `Interval` or a row of a table of `vgmr.comparison`, of which the claim says that it lies above
            zero; or true or false.
        paper: the paper's effect, above zero, where the text states one.
    """
    if isinstance(found, bool | np.bool_):
        print(f"{'yes' if found else 'no'}: {text}")
        return
    numbers = evidence(found)
    difference, low, high = (numbers[name] for name in ("difference", "low", "high"))
    print(f"{verdict(difference, low, high, paper)}: {text} ({difference:+.3f} [{low:+.3f}, {high:+.3f}])")


def answers(questions: Mapping[str, pd.DataFrame], place: str = "dataset") -> Markdown:
    """A list of questions, each with what became of it: verdict, difference in points and 95% interval.

    Where a column p_holm is there, a verdict held or contradicted that it does not bear out is said to be one.

    Args:
        questions: rows of a table of `vgmr.comparison` by question, of which a yes says that they lie above zero;
            a column verdict is kept, where there is none `vgmr.statistics.verdicts.verdict` gives it.
        place: column that names a row in the answer, if the rows have it.
    """
    said = []
    for question, rows in questions.items():
        parts = []
        for row in rows.dropna(subset=["difference"]).to_dict("records"):
            limits = [float(row[name]) for name in ("difference", "low", "high")]
            word = row.get("verdict") or verdict(*limits)
            numbers = "{:+.1f} points [{:+.1f}, {:+.1f}]".format(*(100 * value for value in limits))
            if word in VERDICTS[:2] and row.get("p_holm", 0.0) >= 0.05:
                numbers += f", not after Holm's correction (p = {row['p_holm']:.2f})"
            parts.append(f"{row[place]}: {word}, {numbers}" if place in row else f"{word}, {numbers}")
        said.append(f"- **{question}** {'; '.join(parts) or 'no test here: the two models are the same'}.")
    return Markdown("\n".join(said))
