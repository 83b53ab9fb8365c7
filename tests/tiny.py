"""A small notebook for tests of batches, and a look at the processes that they leave behind."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import nbformat
import psutil

PARAMETERS = """
seed: int = 0  # is squared
rate: float = 0.5  # a share
names: list[str] = ["a"]  # several
mode: str = "fine"  # what goes wrong
pause: float = 0.0  # seconds
log: str | None = None  # file that gets a line from every run that comes to its end; FILE.begun when it begins
"""
BODY = """
import os, subprocess, time
from IPython.display import display

assert mode != "bad", "<b>bad</b>"
if mode == "dead":
    os.kill(os.getpid(), 9)
if mode == "parent":
    subprocess.Popen(["sleep", "300"])
if log:
    with open(log + ".begun", "a") as file:
        file.write(f"{seed} {os.getppid()}\\n")
time.sleep(pause)
"""
RECORD = """
values = {"square": seed**2, "nested": {"share": rate}, "names": names}
display({"application/vnd.vgmr.record+json": {"name": "tiny", "values": values}, "text/plain": ""}, raw=True)
if log:
    with open(log, "a") as file:
        file.write(f"{seed}\\n")
"""


def make_notebook(path: Path) -> Path:
    """Write the notebook; its kernel starts quickly, since it imports nothing large."""
    cells = [
        nbformat.v4.new_markdown_cell("# Tiny"),
        nbformat.v4.new_code_cell(PARAMETERS.strip(), metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(BODY.strip()),
        nbformat.v4.new_code_cell(RECORD.strip()),
    ]
    book = nbformat.v4.new_notebook(cells=cells)
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(book, path)
    return path


def processes(marker: str) -> list[psutil.Process]:
    """Those with JUPYTER_RUNTIME_DIR=marker in their environment: workers, kernels, and what these started."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            marked = process.environ().get("JUPYTER_RUNTIME_DIR") == marker
            if marked and process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def wait_for(what, seconds: float = 1200.0):
    """Until `what()` is true; its value. Patient: a machine may be slow for any reason."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := what():
            return value
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s")
