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
from papermill.exceptions import PapermillExecutionError

from vgmr.notebook import RECORD, described, fits

TYPES = {"int": int, "float": float, "str": str, "bool": bool, "list": list, "tuple": tuple, "dict": dict}
CELL_TIMEOUT = 24 * 3600  # seconds; without a limit a lost message between kernel and client waits for ever


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


def annotated_type(node: ast.expr) -> Any:
    """The type that an annotation names, such as `list[int]` or `str | None`, without evaluating it.

    Raises:
        ValueError: anything but int, float, str, bool, list, tuple, dict, None and combinations of them.
    """
    if isinstance(node, ast.Constant) and node.value is None:
        return None
    if isinstance(node, ast.Name) and node.id in TYPES:
        return TYPES[node.id]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return annotated_type(node.left) | annotated_type(node.right)
    if isinstance(node, ast.Subscript):
        inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        return annotated_type(node.value)[tuple(annotated_type(item) for item in inner)]
    raise ValueError(f"type {ast.unparse(node)!r} is not one of {', '.join(TYPES)}, None or made of them")


def parameters(notebook: Path) -> dict[str, tuple[Any, Any]]:
    """The parameters of a notebook: name -> (type, default), from the annotated lines of its parameters cell."""
    found = {}
    for cell in nbformat.read(notebook, as_version=4).cells:
        if "parameters" in cell.metadata.get("tags", []):
            for line in ast.parse(cell.source).body:
                if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and line.value:
                    try:
                        found[line.target.id] = annotated_type(line.annotation), ast.literal_eval(line.value)
                    except ValueError as error:
                        raise ValueError(f"{notebook}, parameter {line.target.id}: {error}") from None
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
        if value == "None" and fits(None, known[name]):
            value = None
        if isinstance(value, str) and not fits(value, known[name]):
            with contextlib.suppress(ValueError, SyntaxError):
                value = ast.literal_eval(value)
        if not fits(value, known[name]):
            raise ValueError(
                f"{notebook.stem}, parameter {name}: expected {described(known[name])}, got {value!r}"
            )
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

    Raises RuntimeError naming the cell and its error if one fails.

    The result appears under its name when the run is over; the last state of a failed run stays beside it as
    `NAME.failed.ipynb`.
    """
    checked = check_overrides(notebook, overrides)
    output.parent.mkdir(parents=True, exist_ok=True)
    unfinished = output.with_suffix(".failed.ipynb")
    try:
        papermill.execute_notebook(
            str(notebook),
            str(unfinished),
            checked,
            kernel_name="python3",
            cwd=str(notebook.parent),
            progress_bar={"desc": notebook.stem} if progress else False,
            execution_timeout=CELL_TIMEOUT,
        )
    except PapermillExecutionError as error:
        cause = f"{error.ename}: {error.evalue}"
        raise RuntimeError(
            f"{notebook.stem} failed in cell {error.exec_count}: {cause}; see {unfinished}"
        ) from error
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

        try:
            content = yaml.safe_load(options.file.read_text()) or {}
        except yaml.YAMLError as error:
            raise ValueError(f"{options.file} is not YAML: {str(error).splitlines()[0]}") from None
        if not isinstance(content, dict):
            raise ValueError(f"{options.file}: expected lines 'name: value', got a {type(content).__name__}")
        overrides |= content
    for item in options.parameters:
        name, equals, value = item.partition("=")
        if not equals:
            raise ValueError(f"-p takes NAME=VALUE, got {item!r}")
        overrides[name] = value
    if overrides.get("root") not in (None, "", "None"):
        overrides["root"] = str(Path(overrides["root"]).resolve())  # the notebook runs in its own folder
    output = options.output or notebook.parent / "executed" / notebook.name
    for name, values in run_notebook(notebook, overrides, output).items():
        print(f"\n{name}")
        for key, value in values.items():
            print(f"  {key}: {value if isinstance(value, str) else json.dumps(value)}")
    print(f"\nexecuted notebook: {output}")
    return 0
