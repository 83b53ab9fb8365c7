"""One notebook executed by machine, with checked parameters."""

from __future__ import annotations

import argparse
import ast
import contextlib
import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import papermill
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.exceptions import PapermillExecutionError

from vgmr.files import user_path
from vgmr.notebook.lesson import RECORD, described, fits

TYPES = {"int": int, "float": float, "str": str, "bool": bool, "list": list, "tuple": tuple, "dict": dict}
CELL_TIMEOUT = 24 * 3600  # seconds; without a limit a lost message between kernel and client waits for ever
START_TIMEOUT = 180  # seconds
START_ATTEMPTS = 3
GUARD = 'read _; kill -9 -"$1" 2>/dev/null'  # reading ends when the other end of the pipe is gone


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


def cells(notebook: Path) -> list[dict[str, Any]]:
    """The cells of a notebook file, each source as one string, without nbformat's slow validation.

    Raises:
        ValueError: the file is not a notebook.
    """
    try:
        found: list[dict[str, Any]] = json.loads(notebook.read_text())["cells"]
        return [{**cell, "source": "".join(cell["source"])} for cell in found]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{notebook} is not a notebook of format 4") from None


def tags(cell: Mapping[str, Any]) -> list[str]:
    """The tags of a cell."""
    found: list[str] = cell.get("metadata", {}).get("tags", [])
    return found


def parameters(notebook: Path) -> dict[str, tuple[Any, Any]]:
    """The parameters of a notebook: name -> (type, default), from the annotated lines of its parameters cell."""
    found = {}
    for cell in cells(notebook):
        if "parameters" in tags(cell):
            for line in ast.parse(cell["source"]).body:
                if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and line.value:
                    try:
                        found[line.target.id] = annotated_type(line.annotation), ast.literal_eval(line.value)
                    except ValueError as error:
                        raise ValueError(f"{notebook}, parameter {line.target.id}: {error}") from None
    return found


def check_overrides(
    notebook: Path, given: Mapping[str, Any], known: Mapping[str, tuple[Any, Any]] | None = None
) -> dict[str, Any]:
    """Parameters as the notebook's annotations want them; strings are read as Python literals where they must be.

    Args:
        known: the notebook's `parameters`, where they were read before.

    Raises:
        ValueError: an unknown name, with the list of real ones, or a value of another type.
    """
    known = parameters(notebook) if known is None else known
    checked = {}
    for name, value in given.items():
        if name not in known:
            raise ValueError(f"{notebook.stem} has no parameter {name!r}; there are: {', '.join(known)}")
        annotation = known[name][0]
        if value == "None" and fits(None, annotation):
            value = None
        if isinstance(value, str) and not fits(value, annotation):
            with contextlib.suppress(ValueError, SyntaxError):
                value = ast.literal_eval(value)
        if not fits(value, annotation):
            raise ValueError(f"{notebook.stem}, parameter {name}: expected {described(annotation)}, got {value!r}")
        checked[name] = value
    return checked


def from_here(given: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters with `root` as an absolute path: the notebook runs in its own folder."""
    root = given.get("root")
    if root in (None, "", "None"):
        return dict(given)
    return {**given, "root": str(user_path(root))}


def records(notebook: Path) -> dict[str, dict[str, Any]]:
    """What an executed notebook recorded: name -> values."""
    found = {}
    for cell in cells(notebook):
        for output in cell.get("outputs", []):
            content = output.get("data", {}).get(RECORD)
            if content is not None:
                found[content["name"]] = content["values"]
    return found


class Kernel:
    """The process that executes a notebook.

    It has a process group of its own. A guard, a shell that waits at the end of a pipe, kills that group when the
    process that drives the notebook ends, in whatever way, and at the end of the run: nothing that the notebook
    started is left behind.

    Attributes:
        peak_memory: MiB, the most the kernel itself held until the end of its last finished cell; None where the
            system does not tell (/proc).
    """

    def __init__(self, report: Callable[[str], None] | None = None) -> None:
        self.report = report
        self.ready = False
        self.cell = 0
        self.peak_memory: float | None = None
        self._cells = 0
        self._pid = 0
        self._guard: subprocess.Popen[bytes] | None = None

    def options(self) -> dict[str, Any]:
        """What nbclient needs to start this kernel and to tell of it."""

        class Manager(AsyncKernelManager):
            async def start_kernel(manager, **options: Any) -> None:  # type: ignore[override]
                await super().start_kernel(**options)
                self._started(manager.provisioner.pid)  # type: ignore[union-attr]

        return {
            "kernel_manager_class": Manager,
            "extra_arguments": ["--IPKernelApp.log_level=ERROR"],  # else each one warns of its loopback sockets
            "on_notebook_start": self._connected,
            "on_cell_start": self._cell_started,
            "on_cell_complete": self._cell_completed,
        }

    def _started(self, pid: int) -> None:
        self._pid = pid
        command = ["sh", "-c", GUARD, "guard", str(pid)]
        self._guard = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)

    def _connected(self, notebook: Any) -> None:
        self.ready = True
        self._cells = len(notebook.cells)

    def _cell_started(self, cell: Any, cell_index: int) -> None:
        self.cell = cell_index + 1
        if self.report is not None and cell.cell_type == "code":
            line = next((line for line in cell.source.splitlines() if line.strip()), "").strip()
            self.report(f"cell {self.cell}/{self._cells}: {line}")

    def _cell_completed(self, cell: Any, cell_index: int) -> None:
        with contextlib.suppress(OSError):
            found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{self._pid}/status").read_text())
            if found:
                self.peak_memory = int(found[1]) / 1024

    def end(self) -> None:
        """Kill what is left of the process group."""
        if self._guard is not None:
            self._guard.communicate()
            self._guard = None


@contextlib.contextmanager
def ended(kernel: Kernel) -> Iterator[None]:
    """Ends the kernel in any case."""
    try:
        yield
    finally:
        kernel.end()


def run_notebook(
    notebook: Path,
    overrides: Mapping[str, Any],
    output: Path,
    progress: bool = True,
    timeout: int = CELL_TIMEOUT,
    kernel: Kernel | None = None,
) -> dict[str, dict[str, Any]]:
    """Execute a notebook with checked parameters into `output`, and return what it recorded.

    The result appears under its name when the run is over; the last state of a failed run stays beside it as
    `NAME.failed.ipynb`. A kernel that does not start is started again, a few times.

    Args:
        timeout: seconds for every cell.
        kernel: tells of the running cell, and of memory afterwards.

    Raises:
        RuntimeError: a cell failed or took too long, or the kernel died, with the cell.
    """
    checked = check_overrides(notebook, overrides)
    output.parent.mkdir(parents=True, exist_ok=True)
    unfinished = output.with_suffix(".failed.ipynb")
    kernel = kernel or Kernel()
    for attempt in range(1, START_ATTEMPTS + 1):
        try:
            with ended(kernel):
                papermill.execute_notebook(
                    str(notebook.resolve()),
                    str(unfinished.resolve()),
                    checked,
                    kernel_name="python3",
                    resources={"metadata": {"path": str(notebook.resolve().parent)}},
                    progress_bar={"desc": notebook.stem} if progress else False,
                    start_timeout=START_TIMEOUT,
                    execution_timeout=timeout,
                    **kernel.options(),
                )
            break
        except PapermillExecutionError as error:
            cause = f"{error.ename}: {error.evalue}"
            raise RuntimeError(
                f"{notebook.stem} failed in cell {error.exec_count}: {cause}; see {unfinished}"
            ) from error
        except CellTimeoutError as error:
            raise RuntimeError(
                f"{notebook.stem} failed in cell {kernel.cell}: not done in {timeout} s; see {unfinished}"
            ) from error
        except (RuntimeError, OSError) as error:
            if not kernel.ready and attempt < START_ATTEMPTS:
                continue
            if not isinstance(error, DeadKernelError):
                raise
            raise RuntimeError(
                f"{notebook.stem} failed in cell {kernel.cell}: the kernel died (killed, or out of memory); "
                f"see {unfinished}"
            ) from error
    os.replace(unfinished, output)
    return records(output)


def read_yaml(path: Path, kind: type, expected: str) -> Any:
    """The content of a YAML or JSON file; ValueError if it is not of the kind."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text()) or kind()
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(content, kind):
        raise ValueError(f"{path}: expected {expected}, got a {type(content).__name__}")
    return content


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
        overrides |= read_yaml(options.file, dict, "lines 'name: value'")
    for item in options.parameters:
        name, equals, value = item.partition("=")
        if not equals:
            raise ValueError(f"-p takes NAME=VALUE, got {item!r}")
        overrides[name] = value
    output = options.output or notebook.parent / "executed" / notebook.name
    for name, values in run_notebook(notebook, from_here(overrides), output).items():
        print(f"\n{name}")
        for key, value in values.items():
            print(f"  {key}: {value if isinstance(value, str) else json.dumps(value)}")
    print(f"\nexecuted notebook: {output}")
    return 0
