"""Notebooks executed by machine, with checked parameters."""

from __future__ import annotations

import argparse
import ast
import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
import papermill

from vgmr.notebook import RECORD, fits

TYPES = {"int": int, "float": float, "str": str, "bool": bool, "list": list, "tuple": tuple, "dict": dict}
CELL_TIMEOUT = 600  # seconds; without a limit a lost message between kernel and client waits for ever


def find_notebook(name: str) -> Path:
    """A notebook by path, by name or by the number it begins with, in ./notebooks.

    Raises:
        FileNotFoundError: none, or several, with the list of those that exist.
    """
    if Path(name).suffix == ".ipynb" and Path(name).is_file():
        return Path(name)
    folder = Path("notebooks")
    there = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    found = [path for path in there if path.stem == name or path.stem.split("_")[0] == name]
    if len(found) != 1:
        listed = ", ".join(path.stem for path in there) or f"none in {folder.resolve()}"
        raise FileNotFoundError(f"no notebook {name!r}; there are: {listed}")
    return found[0]


def parameters(notebook: Path) -> dict[str, tuple[Any, Any]]:
    """The parameters of a notebook: name -> (type, default), from the annotated lines of its parameters cell."""
    found = {}
    for cell in nbformat.read(notebook, as_version=4).cells:
        if "parameters" in cell.metadata.get("tags", []):
            for line in ast.parse(cell.source).body:
                if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and line.value:
                    annotation = eval(ast.unparse(line.annotation), {"__builtins__": {}}, TYPES)
                    found[line.target.id] = annotation, ast.literal_eval(line.value)
    return found


def check_overrides(notebook: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as the notebook's annotations want them; strings are read as Python literals where they must be.

    Raises:
        ValueError: an unknown name, with the list of real ones, or a value of another type.
    """
    known = {name: annotation for name, (annotation, _) in parameters(notebook).items()}
    checked = {}
    for name, value in given.items():
        if name not in known:
            raise ValueError(f"{notebook.stem} has no parameter {name!r}; there are: {', '.join(known)}")
        if isinstance(value, str) and not fits(value, known[name]):
            with contextlib.suppress(ValueError, SyntaxError):
                value = ast.literal_eval(value)
        if not fits(value, known[name]):
            wanted = getattr(known[name], "__name__", known[name])
            raise ValueError(f"{notebook.stem}, parameter {name}: expected {wanted}, got {value!r}")
        checked[name] = value
    return checked


def records(notebook: Path) -> dict[str, dict[str, Any]]:
    """What an executed notebook recorded: name -> values."""
    found = {}
    for cell in nbformat.read(notebook, as_version=4).cells:
        for output in cell.get("outputs", []):
            content = output.get("data", {}).get(RECORD)
            if content is not None:
                found[content["name"]] = content["values"]
    return found


def run_notebook(
    notebook: Path, overrides: Mapping[str, Any], output: Path, progress: bool = True
) -> dict[str, dict[str, Any]]:
    """Execute a notebook with checked parameters into `output`, and return what it recorded.

    The result appears under its name when the run is over; the last state of a failed run stays beside it as
    `NAME.failed.ipynb`.
    """
    checked = check_overrides(notebook, overrides)
    output.parent.mkdir(parents=True, exist_ok=True)
    unfinished = output.with_suffix(".failed.ipynb")
    papermill.execute_notebook(
        str(notebook),
        str(unfinished),
        checked,
        kernel_name="python3",
        cwd=str(notebook.parent),
        progress_bar={"desc": notebook.stem} if progress else False,
        execution_timeout=CELL_TIMEOUT,
    )
    os.replace(unfinished, output)
    return records(output)


def main(arguments: list[str]) -> int:
    """`vgmr run NOTEBOOK [-p NAME=VALUE]... [-f FILE] [--output FILE]`."""
    parser = argparse.ArgumentParser("vgmr run", description="execute a notebook and show what it recorded")
    parser.add_argument("notebook", help="path, name or number, such as 01")
    parser.add_argument("-p", dest="parameters", metavar="NAME=VALUE", action="append", default=[])
    parser.add_argument("-f", dest="file", type=Path, metavar="FILE", help="YAML or JSON file with parameters")
    parser.add_argument("--output", type=Path, help="executed notebook; default notebooks/executed/NAME.ipynb")
    options = parser.parse_args(arguments)
    notebook = find_notebook(options.notebook)
    overrides: dict[str, Any] = {}
    if options.file is not None:
        import yaml

        overrides |= yaml.safe_load(options.file.read_text()) or {}
    for item in options.parameters:
        name, equals, value = item.partition("=")
        if not equals:
            raise ValueError(f"-p takes NAME=VALUE, got {item!r}")
        overrides[name] = value
    if overrides.get("root"):
        overrides["root"] = str(Path(overrides["root"]).resolve())  # the notebook runs in its own folder
    output = options.output or notebook.parent / "executed" / notebook.name
    for name, values in run_notebook(notebook, overrides, output).items():
        print(f"\n{name}")
        for key, value in values.items():
            print(f"  {key}: {value if isinstance(value, str) else json.dumps(value)}")
    print(f"\nexecuted notebook: {output}")
    return 0
