"""200 runs on four dask workers, one of them killed, the driver interrupted and started again; what a run costs.

Not collected by pytest: `python tests/acceptance_batch.py` (about five minutes on two cores).
"""

from __future__ import annotations

import csv
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import papermill
import tiny

RUNS, WORKERS, MEASURED = 200, 4, 12
OWN = ("--host", "127.0.0.1", "--no-dashboard")


def start(*command: str) -> subprocess.Popen:
    with open("log.txt", "a") as log:
        return subprocess.Popen([sys.executable, *command], stderr=log, stdout=log)


def survive(folder: Path, log: Path) -> None:
    """The interrupted sweep; prints what was seen, stops at the first thing that is wrong."""
    output, place, begun = (
        folder / "notebooks" / "executed" / "sweep",
        folder / "scheduler.json",
        Path(f"{log}.begun"),
    )
    sweep = folder / "sweep.yaml"
    seeds = list(range(RUNS))
    sweep.write_text(
        json.dumps([{"notebook": "01", "parameters": {"seed": seeds, "pause": 0.2, "log": str(log)}}])
    )
    command = ("-m", "distributed.cli.dask_scheduler", *OWN, "--port", "0", "--scheduler-file", str(place))
    scheduler = start(*command)
    worker = ("-m", "distributed.cli.dask_worker", *OWN, "--no-nanny", "--nthreads", "1")
    workers = [start(*worker, "--scheduler-file", str(place)) for _ in range(WORKERS)]
    address = tiny.wait_for(lambda: place.exists() and json.loads(place.read_text() or "{}").get("address"))

    def finished() -> int:
        assert driver.poll() is None, Path("log.txt").read_text()[-2000:]
        return len(list(output.glob("*.json")))

    started = time.perf_counter()
    driver = start("-m", "vgmr", "batch", str(sweep), "--dask", address)
    tiny.wait_for(lambda: finished() >= RUNS // 5, 600)
    seen = len(begun.read_text().split())
    victim = int(tiny.wait_for(lambda: begun.read_text().split()[seen:])[1])
    os.kill(victim, signal.SIGKILL)
    print(f"worker killed in the middle of a run, {finished()} of {RUNS} finished")
    tiny.wait_for(lambda: finished() >= RUNS // 2, 600)
    driver.send_signal(signal.SIGTERM)
    assert driver.wait(60) == 128 + signal.SIGTERM
    before = {file: file.stat().st_mtime_ns for file in output.glob("*.json")}
    print(f"driver interrupted, {len(before)} of {RUNS} finished")
    assert start("-m", "vgmr", "batch", str(sweep), "--dask", address).wait(900) == 0
    print(f"driver started again and done, {time.perf_counter() - started:.0f} s in all")

    with (output / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == RUNS == len({row["id"] for row in rows})
    assert all(row["status"] == "finished" and (output / row["path"]).exists() for row in rows)
    assert [float(row["records.tiny.square"]) for row in rows] == [seed**2 for seed in seeds]
    assert {file: file.stat().st_mtime_ns for file in before} == before, "a finished run was repeated"
    done = sorted(int(line) for line in log.read_text().split())
    assert done == seeds, "a run came to its end twice, or not at all"
    print(f"{len(rows)} rows, no id twice, every run came to its end once")
    known = {process.pid for process in (*workers, scheduler)}
    tiny.wait_for(
        lambda: {process.pid for process in tiny.processes(os.environ["JUPYTER_RUNTIME_DIR"])} <= known, 60
    )
    for process in (*workers, scheduler):
        process.kill()
        process.wait()
    left = tiny.processes(os.environ["JUPYTER_RUNTIME_DIR"])
    assert not left, left
    print("no process left behind")


def processor_seconds() -> float:
    """Of this process and of all that it started and that is over."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(part.ru_utime + part.ru_stime for part in usage)


def cost(folder: Path) -> None:
    """Wall and processor seconds of a run in a sweep, less those of papermill alone, in turns, one at a time."""
    from vgmr.notebook.sweep import execute, expand

    notebook = folder / "notebooks" / "01_tiny.ipynb"
    tasks = expand([{"notebook": str(notebook), "parameters": {"seed": list(range(MEASURED))}}])

    def bare(task) -> None:
        target = folder / "bare" / f"{task.name}.ipynb"
        target.parent.mkdir(exist_ok=True)
        options = {"kernel_name": "python3", "progress_bar": False, "cwd": str(notebook.parent)}
        papermill.execute_notebook(str(notebook), str(target), task.overrides, **options)

    spent: dict[str, list[tuple[float, float]]] = {"papermill alone": [], "in a sweep": []}
    for task in tasks:
        for name, work in (
            ("papermill alone", bare),
            ("in a sweep", lambda task: execute(task, folder / "out", 60)),
        ):
            wall, processor = time.perf_counter(), processor_seconds()
            work(task)
            spent[name].append((time.perf_counter() - wall, processor_seconds() - processor))
    medians = {
        name: [sorted(part)[MEASURED // 2] for part in zip(*pairs, strict=True)] for name, pairs in spent.items()
    }
    for name, (wall, processor) in medians.items():
        print(f"{name}: {wall:.3f} s wall, {processor:.3f} s processor (median of {MEASURED})")
    differences = [
        sorted(sweep[part] - alone[part] for alone, sweep in zip(*spent.values(), strict=True))[MEASURED // 2]
        for part in (0, 1)
    ]
    print(f"overhead per run: {differences[0] * 1e3:.0f} ms wall, {differences[1] * 1e3:.0f} ms processor")


def main() -> None:
    """Both parts, in a folder of their own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        os.environ["JUPYTER_RUNTIME_DIR"] = str(folder / "runtime")
        os.environ["PYTHONPATH"] = str(Path(__file__).parent.parent)
        os.chdir(folder)
        tiny.make_notebook(folder / "notebooks" / "01_tiny.ipynb")
        cost(folder)
        survive(folder, folder / "log")


if __name__ == "__main__":
    main()
