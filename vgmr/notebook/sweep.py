"""Many notebooks with many parameters, on this machine or on a cluster; what is finished is never run again.

Every run has an id made of its notebook's code and of all its parameters. Whoever executes it holds a lock,
writes the executed notebook and a small JSON file with the result, each of them whole or not at all, and only then
lets go. So a run can be asked for as often as one likes: it is done once.

Two engines take the same function. On this machine joblib runs it in threads: every notebook has a kernel process
of its own, so there are no worker processes whose death could take others with it. `--dask ADDRESS` gives it to
the workers of a running dask scheduler; these must see the notebooks and the output folder under the same paths,
and the folder must know file locks. A run whose worker dies is given to another one.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import html
import itertools
import json
import math
import os
import pickle
import sys
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from vgmr.machine.files import environment, locked, try_place, user_path, write
from vgmr.machine.work import bar
from vgmr.notebook.given import fits, read_file, shown
from vgmr.notebook.run import (
    CELL_TIMEOUT,
    FOLDER,
    Interrupted,
    Kernel,
    cells,
    check_overrides,
    find_notebook,
    from_here,
    in_thread,
    named_in_utf8,
    parameters,
    run_notebook,
    tags,
)

if TYPE_CHECKING:
    import pandas as pd

RUNNING = ".running"  # folder with a lock for every run, and a file with the cell that it is in
TOKEN = ".seen"  # file in that folder, by which a worker tells that it sees the driver's disk
ORIGIN = ".sweep"  # file in the output folder with the path of the sweep whose results it holds
MOST_RUNS = 100_000
KEYS = ("notebook", "parameters")
RETRIES = 2
DASK_PATIENCE = 60  # seconds
WIDTH = 60  # of the line on a bar
LOOKS = 10  # for the result of a run on a disk that lags, half a second apart
Engine = Callable[["Work", Sequence["Task"]], Iterator[tuple["Task", str | None]]]


@dataclass(frozen=True)
class Task:
    """One notebook with one set of parameters.

    Attributes:
        digest: of the notebook's code.
        overrides: parameters that the sweep gives.
        parameters: all of them, defaults included.
    """

    notebook: Path
    digest: str
    overrides: Mapping[str, Any]
    parameters: Mapping[str, Any]

    @property
    def id(self) -> str:
        """The same for the same code and the same values, however they were given."""
        everything = [self.notebook.stem, self.digest, _plain(self.parameters)]
        return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def name(self) -> str:
        """Of the files of this run."""
        return f"{self.notebook.stem}-{self.id}"


def _plain(value: Any) -> Any:
    """3.0 is 3, a tuple is a list."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def digest(notebook: Path) -> str:
    """SHA-256 of a notebook's code: neither prose nor outputs count, nor the generated installation cell."""
    code = [
        cell["source"] for cell in cells(notebook) if cell["cell_type"] == "code" and "colab" not in tags(cell)
    ]
    return hashlib.sha256(json.dumps(code).encode()).hexdigest()


def expand(entries: Sequence[Any]) -> list[Task]:
    """The runs of a sweep, in order, each once: every list is a grid, a list as a value is a list in a list.

    Args:
        entries: each with `notebook` (path, name or number, or a list of them) and maybe `parameters`.

    Raises:
        ValueError, FileNotFoundError: one line on what is wrong, before anything runs, such as a notebook that
            cannot be told from another one by name and code.
    """
    found: dict[str, Task] = {}
    for number, entry in enumerate(entries, 1):
        place = f"entry {number} of the sweep"
        if not isinstance(entry, dict) or "notebook" not in entry or set(entry) - set(KEYS):
            raise ValueError(f"{place}: expected {' and '.join(KEYS)}, got {shown(entry)}")
        grid = {} if entry.get("parameters") is None else entry["parameters"]
        if not isinstance(grid, dict):
            raise ValueError(f"{place}: expected parameters as 'name: value', got {shown(grid)}")
        if entry["notebook"] == []:
            raise ValueError(f'{place}: expected one or more notebooks, such as "01", got []')
        for name in _many(entry["notebook"]):
            if not isinstance(name, str):
                raise ValueError(f'{place}: write the notebook in quotes, such as "01", got {shown(name)}')
            try:
                notebook = named_in_utf8(find_notebook(name).resolve())
                for task in _combinations(notebook, grid):
                    if (other := found.setdefault(task.id, task).notebook) != notebook:
                        raise ValueError(f"{notebook} has the name and the code of {other}; rename one of them")
            except (ValueError, FileNotFoundError) as error:
                raise type(error)(f"{place}: {error}") from None
    return list(found.values())


def _combinations(notebook: Path, grid: Mapping[str, Any]) -> Iterator[Task]:
    known, code = parameters(notebook), digest(notebook)
    defaults = {name: default for name, (_, default) in known.items()}
    for name, values in grid.items():
        if values == []:
            raise ValueError(f"{name} has no values")
    runs = math.prod(len(_many(values)) for values in grid.values())
    if runs > MOST_RUNS:
        raise ValueError(f"{runs:,} runs are more than {MOST_RUNS:,}; make several sweeps of it")
    for values in itertools.product(*map(_many, grid.values())):
        given = from_here(dict(zip(grid, values, strict=True)))
        try:
            checked = check_overrides(notebook, given, known)
        except ValueError as error:
            lists = [(grid[name], kind) for name, (kind, _) in known.items() if isinstance(grid.get(name), list)]
            meant = any(fits(values, kind) or fits(tuple(values), kind) for values, kind in lists)
            hint = "; every list is a grid: for a list as a value write [[a, b]]" if meant else ""
            raise ValueError(f"{error}{hint}") from None
        yield Task(notebook, code, checked, defaults | checked)


def _many(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


KINDS: dict[str, Any] = {  # what a result must hold
    "id": str,
    "notebook": str,
    "status": str,
    "error": str | None,
    "given": dict,
    "parameters": dict,
    "records": dict,
    "seconds": float | int | None,
    "peak_memory": float | int | None,
    "path": str | None,
    "environment": dict,
}


def result(task: Task, folder: Path) -> dict[str, Any] | None:
    """What is known of a run in an output folder: its JSON file, or None if there is none that is whole.

    A file that is damaged counts as missing, and a warning names it.
    """
    path = folder / f"{task.name}.json"
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError):
        found = None
    whole = (
        isinstance(found, dict)
        and all(name in found and isinstance(found[name], kind) for name, kind in KINDS.items())
        and found["id"] == task.id
        and found["status"] in ("finished", "failed")
        and all(isinstance(values, dict) for values in found["records"].values())
        and all(isinstance(value, str) for value in found["environment"].values())
        and "commit" in found["environment"]
        and (found["status"] == "finished" or found["error"])
        and all(0 <= (found[name] or 0) < math.inf for name in ("seconds", "peak_memory"))
    )
    if not whole:
        warnings.warn(f"{path} is no whole result of this run; it counts as missing", stacklevel=2)
        return None
    return dict(found)


def finished(task: Task, folder: Path) -> bool:
    """Whether it need not run again."""
    found = result(task, folder)
    return found is not None and found["status"] == "finished"


def execute(task: Task, folder: Path, timeout: int) -> None:
    """Do one run, unless it is finished or somebody else is just finishing it, and write what came of it.

    A failing notebook raises nothing: it is a result too. While it runs, a file tells the cell that it is in.
    """
    from jupyter_core.utils import ensure_event_loop

    status = folder / RUNNING / task.name
    with locked(status.with_name(f"{task.name}.lock")):
        if finished(task, folder):
            return

        def report(line: str) -> None:
            status.write_text(line, encoding="utf-8", errors="replace")

        kernel = Kernel(report)
        started = time.perf_counter()
        found: dict[str, Any] = {"status": "finished", "error": None, "records": {}}
        output = folder / f"{task.name}.ipynb"
        try:
            if digest(task.notebook) != task.digest:
                raise RuntimeError(f"{task.notebook.name} was edited since the sweep began; start it again")
            found["records"] = run_notebook(task.notebook, task.overrides, output, False, timeout, kernel)
        except Exception as error:  # whatever it is, it must not stop the others
            output = output.with_suffix(".failed.ipynb")
            reason = str(error).removesuffix(f"; see {output}") or type(error).__name__
            found |= {"status": "failed", "error": reason}
        finally:
            loop = ensure_event_loop()  # nbclient made one for this thread and does not close it
            if not loop.is_running():
                loop.close()
            status.unlink(missing_ok=True)
        keep(task, folder, found, output, time.perf_counter() - started, kernel.peak_memory)


def keep(
    task: Task,
    folder: Path,
    found: Mapping[str, Any],
    output: Path | None = None,
    seconds: float | None = None,
    peak_memory: float | None = None,
) -> None:
    """Write the result of a run.

    Args:
        found: status, error and records.
        seconds: wall time, the start of the kernel included.
        peak_memory: of the kernel, MiB.
    """
    content = {
        "id": task.id,
        "notebook": task.notebook.stem,
        "given": task.overrides,
        "parameters": task.parameters,
        **found,
        "seconds": None if seconds is None else round(seconds, 3),
        "peak_memory": None if peak_memory is None else round(peak_memory, 1),
        "path": output.name if output is not None and output.exists() else None,
        "environment": {"vgmr": version("vgmr"), **environment()},
    }
    write(folder / f"{task.name}.json", json.dumps(content, indent=1))


@dataclass
class Work:
    """What an engine does with every task."""

    folder: Path
    timeout: int
    stopped: threading.Event = field(default_factory=threading.Event)


def _attempt(work: Work, task: Task) -> tuple[Task, str | None]:
    try:
        if not work.stopped.is_set():
            execute(task, work.folder, work.timeout)
    except Exception as error:  # a full disk, say: the others may still get through
        return task, f"{type(error).__name__}: {error}"
    return task, None


def on_this_machine(jobs: int) -> Engine:
    """`jobs` notebooks at once, each in its own kernel process, driven by a thread."""
    from joblib import Parallel, delayed

    def engine(work: Work, tasks: Sequence[Task]) -> Iterator[tuple[Task, str | None]]:
        parallel = Parallel(jobs, backend="threading", batch_size=1, return_as="generator_unordered")
        yield from parallel(delayed(_attempt)(work, task) for task in tasks)

    return engine


def on_dask(address: str) -> Engine:
    """As many notebooks at once as the workers of a dask scheduler have threads.

    Raises:
        ImportError: dask is not installed.
    """
    try:
        from distributed import Client, as_completed, get_worker
    except ImportError:
        raise ImportError('--dask needs dask: pip install "vgmr[cluster]"') from None

    # these two travel by value, so that the scheduler, which opens what passes through it, need not import torch
    def unpacked(content: bytes, token: tuple[str, str]) -> str:
        here = str(get_worker().address)
        if not Path(token[0]).exists() or Path(token[0]).read_text(encoding="utf-8") != token[1]:
            raise RuntimeError(f"worker {here} does not see {Path(token[0]).parent.parent}")
        pickle.loads(content)()
        return here

    def trouble(token: tuple[str, str], notebooks: dict[str, bytes], answer: str, dask_worker: Any = None) -> str:
        try:
            folder = Path(token[0]).parent
            if not Path(token[0]).exists() or Path(token[0]).read_text(encoding="utf-8") != token[1]:
                return f"does not see the output folder {folder.parent}"
            for name, digest in notebooks.items():
                if not Path(name).exists() or hashlib.sha256(Path(name).read_bytes()).digest() != digest:
                    return f"does not see the notebook {name}, or sees another version of it"
            own = hashlib.sha256(str(dask_worker.address).encode()).hexdigest()[:16]
            (folder / f"{answer}-{own}").write_text(own, encoding="utf-8")
            import vgmr.notebook.sweep  # noqa: F401
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return ""

    def probe(client: Any, work: Work, tasks: Sequence[Task]) -> tuple[str, str]:
        """Whether every worker reads the notebooks and shares the output folder; the folder's token."""
        token = _token(work.folder)
        paths = dict.fromkeys(task.notebook for task in tasks)
        notebooks = {str(path): hashlib.sha256(path.read_bytes()).digest() for path in paths}
        answer = f"answer-{uuid.uuid4().hex[:12]}"
        try:
            for worker, why in client.run(trouble, token, notebooks, answer, on_error="return").items():
                own = hashlib.sha256(worker.encode()).hexdigest()[:16]
                if not why and not _appears(work.folder / RUNNING / f"{answer}-{own}"):
                    why = f"writes to another disk than this one as {work.folder}"
                if why:
                    raise RuntimeError(
                        f"the dask worker {worker} {why}; all must see the notebooks and the output folder "
                        "under the same paths"
                    )
        finally:
            for path in (work.folder / RUNNING).glob(f"{answer}-*"):
                path.unlink(missing_ok=True)
        return token

    def engine(work: Work, tasks: Sequence[Task]) -> Iterator[tuple[Task, str | None]]:
        try:
            client = Client(address, timeout=DASK_PATIENCE)
        except (OSError, ValueError) as error:
            raise RuntimeError(f"no dask scheduler answers at {address!r}: {error}") from None
        with client:
            token = probe(client, work, tasks)
            futures = {}
            where = hashlib.sha256(str(work.folder).encode()).hexdigest()[:8]
            for task in tasks:
                # the same key from two drivers is one task; after a failure it is another one
                earlier = work.folder / f"{task.name}.json"
                state = earlier.stat().st_mtime_ns if earlier.exists() else 0
                work_of_task = pickle.dumps(partial(execute, task, work.folder, work.timeout))
                key = f"{task.name}-{where}-{state}"
                futures[client.submit(unpacked, work_of_task, token, key=key, retries=RETRIES)] = task
            for future in as_completed(futures):
                task = futures[future]
                try:
                    worker = future.result()
                except Exception as error:  # its workers died again and again, or cannot import vgmr
                    if future.cancelled() and not work.stopped.is_set():
                        raise RuntimeError(
                            f"the dask scheduler at {address} is gone; the same command goes on"
                        ) from None
                    yield task, f"{type(error).__name__}: {error}"
                    continue
                there = _appears(work.folder / f"{task.name}.json") and result(task, work.folder) is not None
                lost = (
                    f"worker {worker} says that it is done, but {work.folder} has no readable result of it; "
                    "does that machine see this folder?"
                )
                yield task, None if there else lost

    return engine


def _token(folder: Path) -> tuple[str, str]:
    """A file in the output folder and what is written in it, the same for all drivers."""
    path = folder / RUNNING / TOKEN
    with locked(path.with_suffix(".lock")):
        if not path.exists() or not path.stat().st_size:
            write(path, uuid.uuid4().hex)
    return str(path), path.read_text(encoding="utf-8")


def _appears(path: Path) -> bool:
    """Whether a file is there; a network disk may lag by seconds, and opening the folder makes it look again."""
    for _ in range(LOOKS):
        os.listdir(path.parent)
        if path.exists():
            return True
        time.sleep(0.5)
    return False


def run_all(tasks: Sequence[Task], folder: Path, engine: Engine, timeout: int = CELL_TIMEOUT) -> None:
    """Do all runs that are not finished, and show how far they are.

    Raises:
        Interrupted: by a signal; what is finished stays, and kernels of this machine end with this process.
        RuntimeError: the engine cannot go on.
    """
    todo = {task.name: task for task in tasks if not finished(task, folder)}
    work = Work(folder, timeout)

    def drive() -> None:
        for task, error in engine(work, list(todo.values())):
            if work.stopped.is_set():
                return  # what the engine says while this process ends is no result
            if error is not None and not finished(task, folder):
                try:
                    keep(task, folder, {"status": "failed", "error": error, "records": {}})
                except OSError:  # a full disk may be why it failed
                    print(f"{task.name}: {error}", file=sys.stderr)
            todo.pop(task.name)

    with bar(total=len(tasks), initial=len(tasks) - len(todo), unit="run") as shown_bar:

        def look() -> None:
            shown_bar.set_postfix_str(running(folder, set(todo.copy())), refresh=False)
            shown_bar.update(len(tasks) - len(todo) - shown_bar.n)
            if sys.stderr.isatty():
                shown_bar.refresh()

        try:
            in_thread(drive, look)
        finally:
            work.stopped.set()


def running(folder: Path, names: set[str]) -> str:
    """The run that went on to a new cell last, with that cell."""
    newest, line = 0.0, ""
    with contextlib.suppress(OSError, UnicodeDecodeError), os.scandir(folder / RUNNING) as entries:
        for entry in entries:
            if entry.name in names and (state := entry.stat()).st_size and state.st_mtime > newest:
                cell = Path(entry.path).read_text(encoding="utf-8")
                newest, line = state.st_mtime, f"{entry.name} {cell}"
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…"


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by dotted names, after a prefix; a list is JSON text."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = json.dumps(value) if isinstance(value, list | tuple) else value
    return found


def table(tasks: Sequence[Task], folder: Path) -> pd.DataFrame:
    """One row per run, in the order of the sweep: `parameters.NAME`, `records.NAME.KEY`, seconds, MiB, path."""
    import pandas as pd

    start, end = ("notebook", "id", "status"), ("seconds", "peak_memory", "path", "error")
    rows = []
    for task in tasks:
        found = result(task, folder) or {"status": "missing"}
        rows.append(
            {
                "notebook": task.notebook.stem,
                "id": task.id,
                "status": found["status"],
                **_flat(task.parameters, "parameters."),
                **_flat(found.get("records", {}), "records."),
                **{name: found.get(name) for name in end},
                **_flat(found.get("environment", {}), "environment."),
            }
        )
    names = list(dict.fromkeys(itertools.chain(*rows)))
    order = (start, ("parameters",), ("records",), end, ("environment",))
    columns = [name for group in order for name in names if name in group or name.split(".")[0] in group]
    return pd.DataFrame(rows, columns=columns)


PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 15px/1.4 sans-serif; margin: 2em; }} table {{ border-collapse: collapse; }}
th, td {{ text-align: left; vertical-align: top; padding: .3em .8em; border-bottom: 1px solid #ccc; }}
td.number {{ text-align: right; }} pre {{ margin: 0; white-space: pre-wrap; max-width: 50em; }}
.failed {{ color: #b00020; font-weight: bold; }} .missing {{ color: #666; }}
</style></head><body><h1>{title}</h1><p>{summary}. All values: <a href="results.csv">results.csv</a>.</p>
<table><thead><tr><th>run</th><th>status</th><th>parameters</th><th>recorded</th><th>seconds</th><th>MiB</th></tr>
</thead><tbody>
{rows}
</tbody></table></body></html>
"""


def page(tasks: Sequence[Task], folder: Path, title: str) -> str:
    """HTML of all runs, with links to the executed notebooks; it needs no other file and no network."""
    found = [result(task, folder) or {"status": "missing"} for task in tasks]
    rows = "\n".join(_row(task, values) for task, values in zip(tasks, found, strict=True))
    return PAGE.format(title=html.escape(title), summary=summary(found), rows=rows)


def _row(task: Task, found: Mapping[str, Any]) -> str:
    def lines(values: Mapping[str, Any]) -> str:
        return html.escape("\n".join(f"{name}: {value}" for name, value in values.items()))

    def more(head: str, text: str) -> str:
        return f"<details><summary>{head}</summary><pre>{text}</pre></details>" if text else ""

    name, path, error = html.escape(task.name), found.get("path"), found.get("error")
    link = f'<a href="{quote(path)}">{name}</a>' if path else name
    defaults = {key: value for key, value in task.parameters.items() if key not in task.overrides}
    seconds, memory = found.get("seconds"), found.get("peak_memory")
    recorded = _flat(found.get("records", {}))
    values = [
        f"<td>{link}</td>",
        f'<td class="{found["status"]}">{found["status"]}{more("error", html.escape(error or ""))}</td>',
        f"<td><pre>{lines(_flat(task.overrides))}</pre>{more('defaults', lines(defaults))}</td>",
        f"<td>{more(f'{len(recorded)} values', lines(recorded))}</td>",
        f'<td class="number">{"" if seconds is None else f"{seconds:.1f}"}</td>',
        f'<td class="number">{"" if memory is None else f"{memory:.0f}"}</td>',
    ]
    return f"<tr>{''.join(values)}</tr>"


def summary(found: Sequence[Mapping[str, Any]]) -> str:
    """How many runs are in which state."""
    counts = {
        state: sum(values["status"] == state for values in found) for state in ("finished", "failed", "missing")
    }
    return f"{len(found)} runs: " + ", ".join(f"{count} {state}" for state, count in counts.items() if count)


def conclude(tasks: Sequence[Task], folder: Path, title: str) -> int:
    """Write results.csv and index.html, and say what came of the runs; returns the exit status."""
    write(folder / "results.csv", table(tasks, folder).to_csv(index=False))
    write(folder / "index.html", page(tasks, folder, title))
    found = [result(task, folder) or {"status": "missing"} for task in tasks]
    for task, values in zip(tasks, found, strict=True):
        if values["status"] == "failed":
            print(f"{task.name}: {str(values['error']).splitlines()[0]}", file=sys.stderr)
    print(f"{summary(found)}\n{folder / 'results.csv'}\n{folder / 'index.html'}")
    names = {task.name for task in tasks}
    if others := [path for path in folder.glob("*-????????????.json") if path.stem not in names]:
        print(f"{len(others)} results in this folder are of runs that the sweep no longer has; they stay as files")
    gone = [values["path"] for values in found if values.get("path") and not (folder / values["path"]).is_file()]
    if gone:
        print(f"{len(gone)} executed notebooks are gone, such as {gone[0]}; to repeat a run, delete its JSON file")
    commits = [values["environment"]["commit"] for values in found if values["status"] == "finished"]
    if older := [commit for commit in commits if commit != environment()["commit"]]:
        print(
            f"{len(older)} runs were finished by other commits than {environment()['commit']}: "
            f"{', '.join(sorted(set(older)))}; to repeat a run, delete its JSON file"
        )
    return int(any(values["status"] != "finished" for values in found))


def prepare_folder(folder: Path, sweep: Path, tasks: Sequence[Task], locks: bool = False) -> None:
    """Make and try an output folder for these runs, and note there whose results it holds.

    Args:
        locks: whether it must know locks.

    Raises:
        ValueError: it holds the results of another sweep, or is not named in UTF-8.
        RuntimeError: it knows no locks.
        OSError: it cannot be written, or is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"--output {folder} is a file; give a folder")
    named_in_utf8(folder)
    ours = (folder / ORIGIN).exists() or any((folder / f"{task.name}.json").exists() for task in tasks)
    for name in ("results.csv", "index.html"):
        if (folder / name).exists() and not ours:
            raise ValueError(f"--output {folder} holds a {name} that no sweep wrote; give another folder")
    for task in tasks:
        for path in (folder / f"{task.name}.json", folder / f"{task.name}.ipynb"):
            if path.exists() and not path.is_file():
                raise OSError(f"{path} is in the way of a result; take it away")
    longest = max((task.name for task in tasks), key=len)
    for name in ("results.csv", "index.html", f"{RUNNING}/{TOKEN}", f"{longest}.failed.ipynb"):
        try_place(folder / name)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with locked(folder / RUNNING / f"{ORIGIN}.lock"):
            path = folder / ORIGIN
            named = path.read_text(encoding="utf-8", errors="replace").strip() if path.exists() else ""
            other = Path(named or ".")
            if other.is_file() and other.resolve() != sweep.resolve():
                raise ValueError(
                    f"{folder} holds the results of {other}; give another folder for {sweep} with --output"
                )
            write(path, str(sweep.resolve()).encode(errors="replace"))
    for warning in told:
        if locks:
            raise RuntimeError(f"{warning.message}; with --dask the output folder must know locks")
        warnings.warn(str(warning.message), stacklevel=2)


def main(arguments: list[str]) -> int:
    """`vgmr batch SWEEP.yaml [--jobs N | --dask ADDRESS] [--output FOLDER] [--timeout SECONDS]`."""
    parser = argparse.ArgumentParser("vgmr batch", description="execute a grid of notebooks and parameters")
    parser.add_argument("sweep", help="YAML file: a list of entries with notebook and parameters")
    engines = parser.add_mutually_exclusive_group()
    engines.add_argument("--jobs", type=int, default=1, help="notebooks at once on this machine; default 1")
    engines.add_argument(
        "--dask", metavar="ADDRESS", help="scheduler to use instead, such as tcp://127.0.0.1:8786"
    )
    parser.add_argument("--output", help="folder; default notebooks/executed/SWEEP")
    parser.add_argument("--timeout", type=int, default=CELL_TIMEOUT, help="seconds for every cell")
    options = parser.parse_args(arguments)
    if options.jobs < 1 or options.timeout < 1:
        raise ValueError("--jobs and --timeout must be 1 or more")
    sweep = user_path(options.sweep)
    tasks = expand(read_file(sweep, list, "a list of entries '- notebook: ...'"))
    if not tasks:
        raise ValueError(f"{sweep} has no entries; write '- notebook: \"01\"'")
    name = sweep.stem
    given = FOLDER / "executed" / name if options.output is None else options.output
    folder = user_path(given).resolve()
    engine = on_dask(options.dask) if options.dask else on_this_machine(options.jobs)
    prepare_folder(folder, sweep, tasks, locks=bool(options.dask))
    try:
        run_all(tasks, folder, engine, options.timeout)
    except Interrupted as interruption:
        conclude(tasks, folder, name)
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 128 + interruption.number
    return conclude(tasks, folder, name)
