"""Work in several processes that never outlive this one, and bars that suit a terminal as well as a log file."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any, TypeVar

from tqdm.auto import tqdm

WATCH = 0.2  # seconds between two looks at the parent process
# joblib's process that cleans up after a death tells of every piece; this is how Python is told not to show it
QUIET = "ignore::UserWarning:joblib.externals.loky.backend.resource_tracker"
LOG_INTERVAL = 60  # seconds between two lines of a bar in a log file
Item = TypeVar("Item")
Result = TypeVar("Result")


def keep_freed_memory() -> None:
    """Have this process keep memory that it frees; glibc gives it back, and every step faults it in anew.

    For workers, and for what times steps as those take them; where the C library is another, nothing happens.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(-3, 1 << 25)  # M_MMAP_THRESHOLD, at its maximum
    mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD


def _start_worker(parent: int) -> None:
    """Called in a worker process: end it when process `parent` is gone, and leave Ctrl-C to that one."""
    with contextlib.suppress(ValueError):  # not the main thread
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    keep_freed_memory()


@contextlib.contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Processes that are started in the block ignore Ctrl-C from their first moment on."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def in_processes(function: Callable[[Item], Result], items: Iterable[Item], jobs: int) -> Iterator[Result]:
    """What `function` makes of every item, in the order of completion, in `jobs` processes of one thread each.

    However this process ends, its workers end within a moment: at an exception, at Ctrl-C and when it is killed.
    """
    from joblib import Parallel, delayed

    told = os.environ.get("PYTHONWARNINGS", "")
    if QUIET not in told:
        os.environ["PYTHONWARNINGS"] = f"{told},{QUIET}" if told else QUIET
    options: dict[str, Any] = {"initializer": _start_worker, "initargs": (os.getpid(),)}
    parallel = Parallel(jobs, return_as="generator_unordered", batch_size=1, **options)
    with _deaf_to_interrupts():
        results = parallel(delayed(function)(item) for item in items)
    yield from results


class Lines:
    """A file to which a bar writes lines of their own in place of overwriting its last state."""

    def __init__(self, file: IO[str]) -> None:
        self.file = file

    def write(self, text: str) -> int:
        """Write what is not blank as a line."""
        if line := text.strip():
            self.file.write(f"{line}\n")
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""
        self.file.flush()


def bar_options() -> dict[str, Any]:
    """Options of a tqdm bar on standard error: where that is a log file, one line a minute and the last state."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if hasattr(shell, "kernel") or sys.stderr.isatty():
        return {}
    return {"file": Lines(sys.stderr), "mininterval": LOG_INTERVAL, "maxinterval": LOG_INTERVAL, "miniters": 0}


def bar(*given: Any, **options: Any) -> tqdm:
    """A tqdm bar on standard error, see `bar_options`."""
    return tqdm(*given, **{**bar_options(), **options})
