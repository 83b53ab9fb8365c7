"""One notebook executed by machine, with checked parameters.

What executes it is imported when it is needed: a wrong name or parameter is refused at once.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import errno
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from vgmr.machine.files import locked, try_place, user_path
from vgmr.machine.work import bar_options
from vgmr.notebook.given import RECORD, TABLES, described, fits, read_file, shown, trouble

FOLDER = Path("notebooks")
TYPES = {"int": int, "float": float, "str": str, "bool": bool, "list": list, "tuple": tuple, "dict": dict}
CELL_TIMEOUT = 24 * 3600  # seconds; without a limit a lost message between kernel and client waits for ever
START_TIMEOUT = 180  # seconds
START_ATTEMPTS = 3
LONGEST = 2000  # characters that are said of an error
HOW_ONLY = ("again", "jobs", "device")  # parameters that say how results come about, not which
PATHS = ("root", "folder")  # parameters that hold a path: the notebook runs in its own folder
NOT_LITERAL = (ValueError, SyntaxError, TypeError, MemoryError, RecursionError)  # of ast.literal_eval
GUARD = 'read _; kill -9 -"$1" 2>/dev/null'  # reading ends when the other end of the pipe is gone


def notebooks() -> list[Path]:
    """All numbered notebooks, in order."""
    return sorted(FOLDER.glob("[0-9][0-9]_*.ipynb"))


def find_notebook(name: str) -> Path:
    """A notebook by path, by name or by the number it begins with, in ./notebooks.

    Raises:
        FileNotFoundError: none, or several, with the list of those that exist.
    """
    there = notebooks()
    if name.endswith(".ipynb") and (path := user_path(name)).is_file():
        return next((one for one in there if one.resolve() == path.resolve()), path)
    found = [path for path in there if path.stem == name or path.stem.split("_")[0] == name]
    if len(found) != 1:
        listed = ", ".join(path.stem for path in there)
        listed = listed or f"none in {FOLDER.resolve()}; go to the repository's folder, or give a path to one"
        raise FileNotFoundError(f"no notebook {shown(name)}; there are: {listed}")
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
        with contextlib.suppress(TypeError):  # int[str]
            return annotated_type(node.value)[tuple(annotated_type(item) for item in inner)]
    raise ValueError(f"type {ast.unparse(node)!r} is not one of {', '.join(TYPES)}, None or made of them")


def cells(notebook: Path) -> list[dict[str, Any]]:
    """The cells of a notebook file, each source as one string, without nbformat's slow validation.

    Raises:
        ValueError: the file is not a notebook.
    """
    try:
        content = json.loads(notebook.read_text(encoding="utf-8"))
        found: list[dict[str, Any]] = content["cells"]
        if content["nbformat"] != 4:
            raise ValueError
        for cell in found:
            labels = cell["metadata"].get("tags", [])
            if not (isinstance(cell["cell_type"], str) and isinstance(labels, list)):
                raise TypeError
        return [{**cell, "source": "".join(cell["source"])} for cell in found]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError(f"{notebook} is not a notebook of format 4") from None


def tags(cell: Mapping[str, Any]) -> list[str]:
    """The tags of a cell."""
    found: list[str] = cell.get("metadata", {}).get("tags", [])
    return found


def parameters(notebook: Path) -> dict[str, tuple[Any, Any]]:
    """The parameters of a notebook: name -> (type, default), from the annotated lines of its parameters cell.

    Raises:
        ValueError: not a notebook, a cell that cannot be read, or a second one, which would undo what is given.
    """
    tagged = [cell["source"] for cell in cells(notebook) if "parameters" in tags(cell)]
    if len(tagged) > 1:
        raise ValueError(f"{notebook}: expected one cell tagged parameters, got several; keep one")
    try:
        body = ast.parse("".join(tagged)).body
    except NOT_LITERAL as error:
        raise ValueError(f"{notebook}, the cell tagged parameters: {error}") from None
    found: dict[str, tuple[Any, Any]] = {}
    for line in body:
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and line.value:
            try:
                found[line.target.id] = annotated_type(line.annotation), ast.literal_eval(line.value)
            except NOT_LITERAL as error:
                raise ValueError(f"{notebook}, parameter {line.target.id}: {error}") from None
    return found


def check_overrides(
    notebook: Path, given: Mapping[str, Any], known: Mapping[str, tuple[Any, Any]] | None = None
) -> dict[str, Any]:
    """Parameters as the notebook's annotations want them; strings are read as Python literals where they must be.

    Args:
        known: the notebook's `parameters`, where they were read before.

    Raises:
        ValueError: an unknown name, with the list of real ones, a value of another type, one that is none of
            JSON, a negative rate or seed, too small a count, or an empty list in place of one that is not.
    """
    known = parameters(notebook) if known is None else known
    checked = {}
    for name, value in given.items():
        if name not in known:
            listed = ", ".join(known) or "none"
            raise ValueError(f"{notebook.stem} has no parameter {shown(name)}; there are: {listed}")
        annotation = known[name][0]
        if value == "None" and fits(None, annotation):
            value = None
        if isinstance(value, str) and not fits(value, annotation):
            with contextlib.suppress(*NOT_LITERAL):
                value = ast.literal_eval(value)
        if isinstance(value, list) and not fits(value, annotation) and fits(tuple(value), annotation):
            value = tuple(value)  # which no file can hold
        if not fits(value, annotation):
            expected = f"{described(annotation)}, such as {shown(known[name][1])}"
            raise ValueError(f"{notebook.stem}, parameter {name}: expected {expected}, got {shown(value)}")
        if value == [] and known[name][1]:
            raise ValueError(f"{notebook.stem}, parameter {name}: expected one or more, got []")
        if why := trouble(value, name):
            raise ValueError(f"{notebook.stem}, parameter {name}: {why}")
        checked[name] = value
    return checked


def from_here(given: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters with those of `PATHS` as absolute paths: the notebook runs in its own folder."""
    paths = {name: given[name] for name in PATHS if isinstance(given.get(name), str)}
    return {**given, **{name: str(user_path(path)) for name, path in paths.items() if path not in ("", "None")}}


def records(notebook: Path) -> dict[str, dict[str, Any]]:
    """What an executed notebook recorded: name -> values; what is no record is left out, with a warning."""
    found = {}
    for cell in cells(notebook):
        for output in cell.get("outputs", []):
            match output.get("data", {}).get(RECORD):
                case {"name": str(name), "values": dict(values)}:
                    found[name] = values
                case None:
                    pass
                case other:
                    warnings.warn(f"{notebook}: no name and values in the record {shown(other)}", stacklevel=2)
    return found


def given(notebook: Path) -> dict[str, Any]:
    """Parameters that a notebook was run with, where results depend on them and they are not its defaults."""
    defaults = {name: default for name, (_, default) in parameters(notebook).items()}
    found = {}
    for cell in cells(notebook):
        if "injected-parameters" in tags(cell):
            for line in ast.parse(cell["source"]).body:
                if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name):
                    found[line.targets[0].id] = ast.literal_eval(line.value)
    return {
        name: value
        for name, value in found.items()
        if name not in HOW_ONLY and (name not in defaults or defaults[name] != value)
    }


class Kernel(contextlib.AbstractContextManager["Kernel"]):
    """The process that executes a notebook, and what it started: `with` ends all of it in any case.

    It has a process group of its own. A guard, a shell that waits at the end of a pipe, kills that group when the
    process that drives the notebook ends, in whatever way, and at the end of the run: nothing that the notebook
    started is left behind.

    Attributes:
        tables: where `lesson.table` puts its files; None for the folder tables beside the notebook.
        peak_memory: MiB, the most the kernel itself held until the end of its last finished cell; None where the
            system does not tell (/proc).
    """

    def __init__(self, report: Callable[[str], None] | None = None) -> None:
        self.report = report
        self.tables: Path | None = None
        self.ready = False
        self.cell = 0
        self.peak_memory: float | None = None
        self._cells: list[Any] = []
        self._pid = 0
        self._guard: subprocess.Popen[bytes] | None = None

    def options(self) -> dict[str, Any]:
        """What nbclient needs to start this kernel and to tell of it."""
        from jupyter_client.manager import AsyncKernelManager

        class Manager(AsyncKernelManager):
            async def start_kernel(manager, **options: Any) -> None:  # type: ignore[override]
                if self.tables is not None:
                    options["env"] = {**(options.get("env") or os.environ), TABLES: str(self.tables)}
                await super().start_kernel(**options)
                self._started(manager.provisioner.pid)  # type: ignore[union-attr]

        return {
            "kernel_manager_class": Manager,
            "extra_arguments": ["--IPKernelApp.log_level=CRITICAL"],  # else each one warns of its loopback sockets
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
        self._cells = notebook.cells

    def _cell_started(self, cell: Any, cell_index: int) -> None:
        self.cell = len(_run_cells(self._cells[: cell_index + 1]))  # as the kernel counts
        if self.report is not None and cell.cell_type == "code":
            line = next((line for line in cell.source.splitlines() if line.strip()), "").strip()
            self.report(f"cell {self.cell}/{len(_run_cells(self._cells))}: {line}")

    def _cell_completed(self, cell: Any, cell_index: int) -> None:
        with contextlib.suppress(OSError):
            found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{self._pid}/status").read_text(encoding="utf-8"))
            if found:
                self.peak_memory = int(found[1]) / 1024

    def __exit__(self, *_: object) -> None:
        if self._guard is not None:
            self._guard.communicate()
            self._guard = None


def named_in_utf8(path: Path) -> Path:
    """The same path; ValueError where a notebook, which is UTF-8 and names its files, could not hold it."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"{path} is not named in UTF-8, as notebooks are; give another place, or set PYTHONUTF8=1 if it is"
        ) from None
    return path


def destination(given: str | Path, notebook: Path) -> Path:
    """Where an executed notebook goes: the file that the user names, or the notebook's name in a folder.

    The place is tried, so that nothing fails after hours of work.

    Raises:
        ValueError: an address, no path, a name that is not UTF-8 or of no notebook, the notebook itself, or a file
            that no run wrote.
        OSError: the folder cannot be made or written, or has no space.
    """
    path = user_path(given)
    named_in_utf8(notebook.resolve())
    if path.is_dir() or str(given).endswith(("/", os.sep)):
        path = path / notebook.name
    path = path.resolve() if path.is_symlink() else path  # a link stays, and what it names is written
    if path.exists() and path.samefile(notebook):
        raise ValueError(f"--output {path} is the notebook itself; give another file")
    if path.is_file() and not _of_a_run(path):
        raise ValueError(f"--output {path} is there, and no run wrote it; give another file, or take it away")
    if not path.exists() and path.suffix.lower() != ".ipynb":
        raise ValueError(
            f"--output {path}: expected a name that ends in .ipynb, or a folder that ends in {os.sep}"
        )
    named_in_utf8(path.resolve())
    try_place(path)
    if (tables := tables_of(path)).exists():
        try_place(tables / "table.csv")
    return path


def tables_of(output: Path) -> Path:
    """The folder with the tables of an executed notebook."""
    return output.resolve().with_name(f"{output.stem}-tables").resolve()


@contextlib.contextmanager
def _in_place_of(tables: Path) -> Iterator[Path]:
    """A folder whose tables take the place of those in `tables` at the end of the block; if it fails, they go."""
    fresh = tables.with_name(f".{tables.name}")
    shutil.rmtree(fresh, ignore_errors=True)  # of a run that was killed
    try:
        yield fresh
        names = [path.relative_to(fresh) for path in fresh.rglob("*") if path.is_file()]
        for name in names:
            (tables / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(fresh / name, tables / name)
        for old in set(tables.glob("*.csv")) - {tables / name for name in names}:
            old.unlink()
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _of_a_run(path: Path) -> bool:
    """Whether a file is an executed notebook, or empty: what may make way for the next run."""
    if not path.stat().st_size:
        return True
    try:
        return "papermill" in json.loads(path.read_bytes())["metadata"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return False


def _run_cells(cells: Sequence[Any]) -> list[Any]:
    """Those that a kernel executes."""
    code = [cell for cell in cells if cell.cell_type == "code" and cell.source.strip()]
    return [cell for cell in code if "skip-execution" not in tags(cell)]


def ran(book: Any) -> str:
    """Why an executed notebook did not come to its end, though nothing failed; empty if it did.

    A cell that calls sys.exit(0) ends the kernel without an error.
    """
    code = _run_cells(book.cells)
    done = [number for number, cell in enumerate(code, 1) if cell.execution_count is not None]
    if not code or (done and done[-1] == len(code)):
        return ""
    return f"ended by itself in cell {done[-1] if done else 0} of {len(code)}; the cells after it never ran"


def run_notebook(
    notebook: Path,
    overrides: Mapping[str, Any],
    output: Path,
    progress: bool = True,
    timeout: int = CELL_TIMEOUT,
    kernel: Kernel | None = None,
) -> dict[str, dict[str, Any]]:
    """Execute a notebook with checked parameters into `output`, and return what it recorded.

    The result appears under its name when the run is over, its tables in a folder `NAME-tables` beside it; the
    last state of a failed run stays as `NAME.failed.ipynb`, beside what an earlier run wrote, whose tables
    (.csv) a finished one takes away. A kernel that does not start is started again, a few times.

    Args:
        timeout: seconds for every cell.
        kernel: tells of the running cell, and of memory afterwards.

    Raises:
        RuntimeError: a cell failed or took too long, or the kernel died, with the cell.
    """
    checked = check_overrides(notebook, overrides)
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill.exceptions import PapermillExecutionError
    from papermill.translators import PythonTranslator, papermill_translators

    class Translator(PythonTranslator):
        """papermill's own one makes a tuple a string."""

        translate = staticmethod(repr)

    papermill_translators.register("python", Translator)
    output.parent.mkdir(parents=True, exist_ok=True)
    unfinished = output.with_suffix(".failed.ipynb")
    logging.getLogger("papermill").setLevel(logging.ERROR)  # it does not know `str | None`, and names are checked
    kernel = kernel or Kernel()

    def failed(cell: int, why: str) -> RuntimeError:
        why = why if len(why) <= LONGEST else f"{why[:LONGEST]} ... ({len(why):,} characters)"
        return RuntimeError(f"{notebook.stem} failed in cell {cell}: {why}; see {unfinished}")

    with _in_place_of(tables_of(output)) as kernel.tables:
        for attempt in range(1, START_ATTEMPTS + 1):
            try:
                with kernel:
                    book = papermill.execute_notebook(
                        _literal(notebook),
                        _literal(unfinished),
                        checked,
                        kernel_name="python3",
                        language="python",
                        resources={"metadata": {"path": str(notebook.resolve().parent)}},
                        progress_bar={"desc": notebook.stem, **bar_options()} if progress else False,
                        start_timeout=START_TIMEOUT,
                        execution_timeout=timeout,
                        **kernel.options(),
                    )
                break
            except PapermillExecutionError as error:
                raise failed(error.exec_count, f"{error.ename}: {error.evalue}") from error
            except CellTimeoutError as error:
                raise failed(kernel.cell, f"not done in {timeout} s") from error
            except (RuntimeError, OSError) as error:
                if not kernel.ready and attempt < START_ATTEMPTS:
                    continue
                if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                    unfinished.unlink(missing_ok=True)
                    error.filename = error.filename or str(unfinished)
                if not isinstance(error, DeadKernelError):
                    raise
                raise failed(kernel.cell, "the kernel died (killed, or out of memory)") from error
        if why := ran(book):
            raise RuntimeError(f"{notebook.stem} {why}; see {unfinished}")
    os.replace(unfinished, output)
    return records(output)


def _literal(path: Path) -> str:
    """For papermill, which fills braces in paths."""
    return str(path.resolve()).replace("{", "{{").replace("}", "}}")


@contextlib.contextmanager
def writing(output: Path) -> Iterator[None]:
    """Alone with the file `output`.

    Raises:
        RuntimeError: somebody else writes it.
    """
    lock = output.with_name(f".{output.name}.lock")
    try:
        with locked(lock, wait=False):
            try:
                yield
            finally:
                with contextlib.suppress(OSError):
                    lock.unlink()
    except TimeoutError:
        raise RuntimeError(f"another run writes {output} just now; wait, or give another --output") from None


class Interrupted(Exception):
    """SIGTERM or Ctrl-C came.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM and SIGINT raise Interrupted in the main thread, once."""
    numbers = (signal.SIGTERM, signal.SIGINT)

    def interrupt(number: int, _: object) -> None:
        for other in numbers:
            signal.signal(other, lambda *_: None)  # of SIG_IGN Python complains where one is under way
        raise Interrupted(number)

    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


Result = TypeVar("Result")


def in_thread(work: Callable[[], Result], look: Callable[[], None] = lambda: None) -> Result:
    """Do work in a thread, so that a signal reaches this one at once; `look` is called twice a second.

    What the thread started ends with this process.

    Raises:
        Interrupted: by a signal.
        BaseException: what the work raised.
    """
    done: Future[Result] = Future()

    def do() -> None:
        try:
            done.set_result(work())
        except BaseException as reason:
            done.set_exception(reason)

    thread = threading.Thread(target=do, daemon=True)
    with interruptible():
        thread.start()
        while thread.is_alive():
            thread.join(0.5)
            look()
    return done.result()


def _typed(text: str) -> str:
    """What was typed in UTF-8, in whatever locale this process runs."""
    try:
        return os.fsencode(text).decode()
    except UnicodeError:
        return text


def read_parameters(items: list[str], file: Path | None = None) -> dict[str, Any]:
    """Parameters from a file, and from NAME=VALUE, which win.

    Raises:
        ValueError: no NAME=VALUE, or a name twice.
    """
    found: dict[str, Any] = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not equals:
            raise ValueError(f"-p takes NAME=VALUE, got {shown(item)}")
        if name in found:
            raise ValueError(f"-p {name} is given twice; keep one of them")
        found[name] = _typed(value)
    return found if file is None else {**read_file(file, dict, "lines 'name: value'"), **found}


def main(arguments: list[str]) -> int:
    """`vgmr run NOTEBOOK [-p NAME=VALUE]... [-f FILE] [--output FILE]`."""
    parser = argparse.ArgumentParser("vgmr run", description="execute a notebook and show what it recorded")
    parser.add_argument("notebook", help="path, name or number, such as 01")
    parser.add_argument("-p", dest="parameters", metavar="NAME=VALUE", action="append", default=[])
    parser.add_argument(
        "-f", dest="files", metavar="FILE", action="append", default=[], help="YAML or JSON file with parameters"
    )
    parser.add_argument(
        "--output", metavar="PATH", help="executed notebook, or its folder; default notebooks/executed/NAME.ipynb"
    )
    options = parser.parse_args(arguments)
    notebook = find_notebook(options.notebook)
    if len(options.files) > 1:
        raise ValueError(f"expected one -f, got {len(options.files)}; put the parameters in one file")
    overrides = read_parameters(options.parameters, *map(user_path, options.files))
    overrides = check_overrides(notebook, from_here(overrides))
    output = destination(
        notebook.parent / "executed" / notebook.name if options.output is None else options.output, notebook
    )
    with writing(output):
        found = in_thread(lambda: run_notebook(notebook, overrides, output))
    for name, values in found.items():
        print(f"\n{name}")
        for key, value in values.items():
            print(f"  {key}: {value if isinstance(value, str) else json.dumps(value)}")
    print(f"\nexecuted notebook: {output}")
    return 0
