"""Many runs on dask workers that are killed, a scheduler that is restarted, a driver that is interrupted; costs.

Not collected by pytest: `python tests/acceptance_batch.py` (200 runs, about five minutes on two idle cores), or
`python tests/acceptance_batch.py --runs 1000 --kills 3 --restarts 1 --interruptions 2`.
"""

from __future__ import annotations

import argparse
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

MEASURED = 12
OWN = ("--host", "127.0.0.1", "--no-dashboard")
PATIENCE = 900  # seconds without any progress


def start(*command: str) -> subprocess.Popen:
    with open("log.txt", "a", encoding="utf-8") as log:
        return subprocess.Popen([sys.executable, *command], stderr=log, stdout=log)


class Cluster:
    """A dask scheduler with workers of one thread, on this machine."""

    def __init__(self, folder: Path, workers: int) -> None:
        self.place = folder / "scheduler.json"
        self.place.unlink(missing_ok=True)
        listen = (*OWN, "--port", "0", "--scheduler-file", str(self.place))
        self.scheduler = start("-m", "distributed.cli.dask_scheduler", *listen)
        worker = ("-m", "distributed.cli.dask_worker", *OWN, "--no-nanny", "--nthreads", "1")
        self.workers = [start(*worker, "--scheduler-file", str(self.place)) for _ in range(workers)]
        self.address = tiny.wait_for(self._address, PATIENCE)

    def _address(self) -> str | None:
        text = self.place.read_text(encoding="utf-8") if self.place.exists() else ""
        return json.loads(text)["address"] if text.strip() else None

    def end(self) -> None:
        """Kill what is left."""
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()


def survive(folder: Path, log: Path, given: argparse.Namespace) -> None:
    """The disturbed sweep; prints what was seen, stops at the first thing that is wrong."""
    output, begun = folder / "notebooks" / "executed" / "sweep", Path(f"{log}.begun")
    sweep, seeds = folder / "sweep.yaml", list(range(given.runs))
    content = [{"notebook": "01", "parameters": {"seed": seeds, "pause": 0.2, "log": str(log)}}]
    sweep.write_text(json.dumps(content), encoding="utf-8")
    cluster = Cluster(folder, given.workers)
    before: dict[Path, int] = {}

    def drive() -> subprocess.Popen:
        return start("-m", "vgmr", "batch", str(sweep), "--dask", cluster.address)

    def finished() -> int:
        return len(list(output.glob("01*.json")))

    def reach(count: int) -> None:
        """Wait while there is progress."""
        seen, last = -1, time.monotonic()
        while (now := finished()) < count:
            assert driver.poll() is None, Path("log.txt").read_text(encoding="utf-8")[-2000:]
            if now > seen:
                seen, last = now, time.monotonic()
            assert time.monotonic() - last < PATIENCE, f"no progress at {now}"
            time.sleep(0.2)

    def note() -> None:
        before.update({file: file.stat().st_mtime_ns for file in output.glob("01*.json")})

    disturbances = [
        *("kill" for _ in range(given.kills)),
        *("restart" for _ in range(given.restarts)),
        *("interrupt" for _ in range(given.interruptions)),
    ]
    disturbances.sort(key=lambda what: (disturbances.count(what), what))  # then in turns
    turns = [disturbances[place::3] for place in range(3)]
    started = time.perf_counter()
    driver = drive()
    for number, what in enumerate([what for turn in turns for what in turn], 1):
        reach(number * given.runs // (len(disturbances) + 1))
        print(f"{time.perf_counter() - started:.0f} s: {finished()} of {given.runs} finished; {what}", flush=True)
        if what == "kill":
            seen = len(begun.read_text(encoding="utf-8").split())
            parts = tiny.wait_for(
                lambda seen=seen: begun.read_text(encoding="utf-8").split()[seen + 1 :], PATIENCE
            )
            os.kill(int(parts[0]), signal.SIGKILL)
        elif what == "interrupt":
            driver.send_signal(signal.SIGTERM)
            assert driver.wait(PATIENCE) == 128 + signal.SIGTERM
            note()
            driver = drive()
        else:
            cluster.scheduler.kill()
            assert driver.wait(PATIENCE) == 1, "the driver says that the scheduler is gone"
            assert "is gone; the same command goes on" in Path("log.txt").read_text(encoding="utf-8")
            note()
            for worker in cluster.workers:
                worker.wait(PATIENCE)
            cluster = Cluster(folder, given.workers)
            driver = drive()
    reach(given.runs)
    assert driver.wait(PATIENCE) == 0
    print(f"{time.perf_counter() - started:.0f} s: done", flush=True)

    with (output / "results.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == given.runs == len({row["id"] for row in rows})
    assert all(row["status"] == "finished" and (output / row["path"]).exists() for row in rows)
    assert [float(row["records.tiny.square"]) for row in rows] == [seed**2 for seed in seeds]
    again = [file.name for file, then in before.items() if file.stat().st_mtime_ns != then]
    assert not again, f"finished runs were repeated: {again}"
    done = sorted(int(line) for line in log.read_text(encoding="utf-8").split())
    assert sorted(set(done)) == seeds, "a run did not come to its end"
    twice = len(done) - len(seeds)  # a worker died between the last cell and the result
    assert twice <= given.kills + given.workers * given.restarts, twice
    print(f"{len(rows)} rows, no id twice, {twice} runs executed once more since their worker died at their end")
    marker = os.environ["JUPYTER_RUNTIME_DIR"]
    known = {process.pid for process in (*cluster.workers, cluster.scheduler)}
    tiny.wait_for(lambda: {process.pid for process in tiny.processes(marker)} <= known, PATIENCE)
    cluster.end()
    assert not tiny.processes(marker), tiny.processes(marker)
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
    parser = argparse.ArgumentParser(description="runs of a batch under disturbances, and what a run costs")
    for name, default in (("runs", 200), ("workers", 4), ("kills", 1), ("restarts", 0), ("interruptions", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        os.environ["JUPYTER_RUNTIME_DIR"] = str(folder / "runtime")
        os.environ["PYTHONPATH"] = str(Path(__file__).parent.parent)
        os.chdir(folder)
        tiny.make_notebook(folder / "notebooks" / "01_tiny.ipynb")
        cost(folder)
        survive(folder, folder / "log", given)


if __name__ == "__main__":
    main()
