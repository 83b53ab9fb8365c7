"""Workers end with the process that started them; bars leave few lines in a log file."""

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import tiny

from vgmr.machine import work

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.timeout(1800)  # seconds; nothing here depends on the machine's speed
DRIVER = """
import os, sys, time
from vgmr.machine.work import in_processes

def slow(number):
    open(f"{sys.argv[1]}/{os.getpid()}", "w").close()
    time.sleep(100)

if __name__ == "__main__":
    list(in_processes(slow, range(4), 2))
"""


KEEPING = """
import ctypes, resource, sys
import torch
from vgmr.machine.work import keep_freed_memory

ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: a fault is one small page on every machine
if sys.argv[1] == "keep":
    keep_freed_memory()

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

found = []
for _ in range(5):  # as many blocks at once as a step has, all free at its end
    before = faults()
    blocks = [torch.ones(1_000_000) for _ in range(40)]
    del blocks
    found.append(faults() - before)
print(min(found))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other C libraries are left alone")
def test_freed_memory_is_kept_for_the_next_step():
    """Memory of 160 MB that is used again is still there, where a library that gives all back faults it in anew.

    By itself the C library gives back what no small block happens to lie above, so it is told to map large ones.
    """
    found = {
        how: int(
            subprocess.run(
                [sys.executable, "-c", KEEPING, how],
                env=os.environ | {"MALLOC_MMAP_THRESHOLD_": "1000000"},
                check=True,
                capture_output=True,
                text=True,
            ).stdout
        )
        for how in ("keep", "as it was")
    }
    assert found["keep"] < 1000 < 35_000 < found["as it was"]


def squared(number):
    return number**2


def test_every_item_is_worked_on_once():
    assert sorted(work.in_processes(squared, range(5), 2)) == [0, 1, 4, 9, 16]


def alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_no_worker_outlives_the_driver(tmp_path, number):
    script, begun = tmp_path / "driver.py", tmp_path / "begun"
    begun.mkdir()
    script.write_text(DRIVER)
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{tmp_path}"}
    driver = subprocess.Popen([sys.executable, script, begun], env=environment, stderr=subprocess.PIPE)
    tiny.wait_for(lambda: len(list(begun.iterdir())) == 2)
    pids = [int(path.name) for path in begun.iterdir()]
    driver.send_signal(number)
    told = driver.communicate()[1].decode()
    tiny.wait_for(lambda: not alive(pids))
    assert "KeyboardInterrupt" not in told or number == signal.SIGINT


def test_a_bar_in_a_log_file_is_lines(monkeypatch):
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    for _ in work.bar(range(1000), desc="runs"):
        pass
    lines = log.getvalue().splitlines()
    assert 1 <= len(lines) <= 3 and "\r" not in log.getvalue()
    assert "1000/1000" in lines[-1]


def test_a_bar_on_a_terminal_is_left_as_it_is(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    assert work.bar_options() == {}
