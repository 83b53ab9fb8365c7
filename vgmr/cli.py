"""The `vgmr` command."""

from __future__ import annotations

import gc
import io
import os
import signal
import sys
import threading
import warnings
from importlib import import_module
from typing import Any

from vgmr.machine.files import settle_places

COMMANDS = {
    "run": ("vgmr.notebook.run:main", "execute a notebook with parameters"),
    "batch": ("vgmr.notebook.sweep:main", "execute a grid of notebooks and parameters, here or on a cluster"),
    "data": ("vgmr.data.manage:run", "list, check or prepare data sets"),
    "records": ("vgmr.studies.records:main", "train what the repository keeps, or check it"),
    "search": ("vgmr.studies.forms:main", "search one form for VGMR on the open data"),
    "notebooks": ("vgmr.notebook.publish:main", "execute and clean the committed notebooks, or check them"),
    "bench": ("vgmr.analysis.cost:main", "measure cost as ratios to the plain model"),
}


TRACEBACK = "VGMR_TRACEBACK"  # environment variable for developers: errors come with their traceback
PLAIN = (ValueError, ImportError, RuntimeError, FloatingPointError, OSError)  # their message says it all


def one_line(error: BaseException) -> str:
    """An error as one line: what a user needs of it."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        text = f"{error.filename}: {error.strerror}"
    else:
        text = " ".join(str(error).split())
    if not isinstance(error, PLAIN) or not text:
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
        text += f" (set {TRACEBACK}=1 to see where)"
    return text


def main(arguments: list[str] | None = None) -> int:
    """Run `vgmr COMMAND ...`; returns the exit status, 128 and the signal's number after an interruption.

    Whatever goes wrong is one line on standard error.
    """
    process_ends = arguments is None
    arguments = sys.argv[1:] if arguments is None else arguments
    _open_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what an ASCII terminal cannot show must not end a run
            stream.reconfigure(errors="backslashreplace")
    name = f"vgmr {arguments[0]}" if arguments and arguments[0] in COMMANDS else "vgmr"
    signals: list[int] = []
    before = _signals(signals)
    format_before = warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: f"{name}: warning: {message}\n"
    try:
        status = _do(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output has seen enough
        _give_up_output()
        return 141
    except BaseException as error:
        number = getattr(error, "number", None) if type(error).__name__ == "Interrupted" else None
        number = number or next(iter(signals), signal.SIGINT if isinstance(error, KeyboardInterrupt) else None)
        if number is not None:
            print(f"{name}: interrupted", file=sys.stderr)
            if process_ends:  # what ends beside it may fail at that, which nobody needs to read
                sys.unraisablehook = lambda _: None
            return 128 + number
        if not isinstance(error, Exception) or os.environ.get(TRACEBACK):
            _give_up_output()
            raise
        print(f"{name}: {one_line(error)}", file=sys.stderr)
        _give_up_output()
        return 1
    finally:
        warnings.formatwarning = format_before
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if process_ends and signals else handler)
        if process_ends:
            gc.freeze()  # else everything alive is searched for garbage once more, which takes seconds
    return status


def _do(arguments: list[str]) -> int:
    """The command that is meant, or what commands there are; returns the exit status."""
    if arguments and arguments[0] in COMMANDS:
        settle_places()
        module, _, function = COMMANDS[arguments[0]][0].partition(":")
        status: int = getattr(import_module(module), function)(arguments[1:])
        return status
    asked = bool(arguments) and arguments[0] in ("-h", "--help")
    if arguments and not asked:
        print(f"unknown command {arguments[0]!r}", file=sys.stderr)
    print("usage: vgmr COMMAND ...\n")
    for name, (_, purpose) in COMMANDS.items():
        print(f"  {name:10}{purpose}")
    return 0 if asked else 2


def _open_streams() -> None:
    """Standard streams that came closed lead to nowhere, here and in what is started: nothing else takes their
    numbers.
    """
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            nowhere = open(os.devnull, "r" if name == "stdin" else "w", encoding="utf-8")  # noqa: SIM115
            os.set_inheritable(nowhere.fileno(), True)
            setattr(sys, name, nowhere)


def _give_up_output() -> None:
    """Lead output that cannot be written, as to a full disk or a closed pipe, to nowhere.

    It was told already, and Python would tell it again at its end.
    """
    try:
        sys.stdout.flush()
    except OSError:
        with open(os.devnull, "w", encoding="utf-8") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())


def _signals(came: list[int]) -> dict[int, Any]:
    """SIGINT and SIGTERM raise KeyboardInterrupt and are noted in `came`; returns the handlers before."""
    if threading.current_thread() is not threading.main_thread():
        return {}

    def interrupt(number: int, _: object) -> None:
        came.append(number)
        raise KeyboardInterrupt

    return {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
