"""Many runs: the grid, results, resuming, and what survives killed kernels, drivers and workers."""

import contextlib
import csv
import io
import json
import os
import signal
import subprocess
import sys
import threading
import warnings
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pandas as pd
import papermill
import pytest
import tiny
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vgmr.notebook import run as batch
from vgmr.notebook import sweep

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(1800)  # seconds; nothing here depends on the machine's speed
STARTED: list[subprocess.Popen] = []


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A project with one notebook, the working directory; its processes are told by their runtime folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    tiny.make_notebook(tmp_path / "notebooks" / "01_tiny.ipynb")
    yield tmp_path
    for process in tiny.processes(str(tmp_path / "runtime")):
        process.kill()
    while STARTED:
        STARTED.pop().wait()


def ours(folder: Path) -> list:
    return tiny.processes(str(folder / "runtime"))


def write_sweep(folder: Path, **grid) -> Path:
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump([{"notebook": "01", "parameters": grid}]))
    return path


def results(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "notebooks" / "executed" / "sweep" / "results.csv")


# The grid


def test_lists_are_a_grid(folder):
    tiny.make_notebook(folder / "notebooks" / "02_other.ipynb")
    entries = [
        {"notebook": ["01", "02_other"], "parameters": {"seed": [1, 2], "rate": "1e-3", "names": [["b", "c"]]}},
        {"notebook": "01"},
    ]
    tasks = sweep.expand(entries)
    assert [(task.notebook.stem, task.overrides) for task in tasks] == [
        ("01_tiny", {"seed": 1, "rate": 0.001, "names": ["b", "c"]}),
        ("01_tiny", {"seed": 2, "rate": 0.001, "names": ["b", "c"]}),
        ("02_other", {"seed": 1, "rate": 0.001, "names": ["b", "c"]}),
        ("02_other", {"seed": 2, "rate": 0.001, "names": ["b", "c"]}),
        ("01_tiny", {}),
    ]
    assert tasks[0].parameters == {
        **{"seed": 1, "rate": 0.001, "names": ["b", "c"], "mode": "fine", "pause": 0.0, "log": None}
    }
    assert len({task.name for task in tasks}) == 5


def test_the_same_run_given_twice_is_one(folder):
    given = [{"seed": 0}, {}, {"rate": 0.5, "pause": 0}, {"seed": [0, 0]}]
    assert len(sweep.expand([{"notebook": "01", "parameters": values} for values in given])) == 1


def test_two_notebooks_of_one_name_and_code_are_refused(folder):
    """Their runs would be one."""
    for place in ("a", "b"):
        tiny.make_notebook(folder / place / "01_x.ipynb")
    entries = [{"notebook": ["a/01_x.ipynb", "b/01_x.ipynb"]}]
    with pytest.raises(
        ValueError, match=r"1 of the sweep: .*b/01_x\.ipynb has the name and the code of .*a/01_x\."
    ):
        sweep.expand(entries)
    book = json.loads((folder / "b" / "01_x.ipynb").read_text())
    book["cells"][2]["source"] += "\npass"
    (folder / "b" / "01_x.ipynb").write_text(json.dumps(book))
    assert len(sweep.expand(entries)) == 2


def test_an_id_is_of_code_and_parameters(folder):
    path = folder / "notebooks" / "01_tiny.ipynb"
    entries = [{"notebook": "01"}]
    before = sweep.expand(entries)[0].id
    book = json.loads(path.read_text())
    book["cells"][0]["source"] = "# Another title"
    book["cells"][2]["execution_count"] = 3
    path.write_text(json.dumps(book))
    assert sweep.expand(entries)[0].id == before
    book["cells"][3]["source"] += "\nvalues"
    path.write_text(json.dumps(book))
    assert sweep.expand(entries)[0].id != before


@pytest.mark.parametrize(
    ("entries", "complaint"),
    [
        ([{"notebook": "09"}], "^entry 1 of the sweep: no notebook '09'; there are: 01_tiny"),
        (
            [{"notebook": "01", "parameters": {"rate": [1, -1], "names": [["a"]]}}],
            "rate must not be negative, got -1$",
        ),
        ([{"notebook": "01", "parameters": {"sede": [1]}}], "has no parameter 'sede'; there are: .*, log$"),
        ([{"notebook": 1}], 'entry 1 of the sweep: write the notebook in quotes, such as "01", got 1'),
        ([{"notebook": "01", "parameter": {}}], "entry 1 of the sweep: expected notebook and parameters, got"),
        ([{"notebook": "01"}, {"seeds": 3}], "entry 2 of the sweep: expected notebook and parameters"),
        (["01"], "entry 1 of the sweep: expected notebook"),
        (
            [{"notebook": "01", "parameters": {"sede": 1}}],
            "01_tiny has no parameter 'sede'; there are: seed, rate, names, mode, pause, log",
        ),
        (
            [{"notebook": "01", "parameters": {"seed": [1, "two"]}}],
            "parameter seed: expected int, such as 0, got 'two'",
        ),
        (
            [{"notebook": "01", "parameters": {"names": ["a", "b"]}}],
            r"names: expected list\[str\], such as \['a'\], got 'a'; every list is a grid: .* write \[\[a, b\]\]",
        ),
        ([{"notebook": "01", "parameters": {"seed": []}}], "seed has no values"),
        ([{"notebook": "01", "parameters": [1]}], "expected parameters as 'name: value'"),
        ([{"notebook": "01", "parameters": []}], "expected parameters as 'name: value'"),
        ([{"notebook": "01", "parameters": 0}], "expected parameters as 'name: value'"),
        (
            [{"notebook": "01"}, {"notebook": []}],
            r"entry 2 of the sweep: expected one or more notebooks, .* got \[\]",
        ),
    ],
)
def test_what_is_wrong_is_refused_before_anything_runs(folder, entries, complaint):
    with pytest.raises((ValueError, FileNotFoundError), match=complaint):
        sweep.expand(entries)


def test_the_command_refuses_in_one_line(folder):
    (folder / "sweep.yaml").write_text("- notebook: [")
    with pytest.raises(ValueError, match=r"sweep\.yaml, line 1: not YAML"):
        sweep.main(["sweep.yaml"])
    (folder / "sweep.yaml").write_text("notebook: '01'")
    with pytest.raises(ValueError, match="expected a list of entries"):
        sweep.main(["sweep.yaml"])
    (folder / "sweep.yaml").write_text("")
    with pytest.raises(ValueError, match="has no entries"):
        sweep.main(["sweep.yaml"])
    with pytest.raises(ValueError, match="must be 1 or more"):
        sweep.main(["sweep.yaml", "--jobs", "0"])
    assert not (folder / "notebooks" / "executed").exists()


def test_dask_that_is_missing_is_named(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ImportError, match=r"pip install \"vgmr\[cluster\]\""):
        sweep.main([str(write_sweep(folder)), "--dask", "tcp://127.0.0.1:1"])


# Results


class Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found, self.tags = [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.found += [value for name, value in attributes if name in ("href", "src")]


def test_failures_stop_nothing_and_are_repeated_alone(folder, capsys):
    """One notebook fails, one kernel dies and one cell never ends: the others finish; then the cause goes away."""
    entries = [
        {"seed": [1, 2], "rate": 0.25},
        {"mode": "bad"},
        {"mode": "dead"},
        {"pause": 1000.0},
        {"mode": "parent"},
    ]
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump([{"notebook": "01", "parameters": values} for values in entries]))
    assert sweep.main([str(path), "--jobs", "3", "--timeout", "25"]) == 1
    assert "6 runs: 3 finished, 3 failed" in capsys.readouterr().out
    tiny.wait_for(lambda: not ours(folder))

    table = results(folder)
    assert list(table["status"]) == ["finished"] * 2 + ["failed"] * 3 + ["finished"]
    assert list(table["parameters.seed"]) == [1, 2, 0, 0, 0, 0]
    assert list(table["records.tiny.square"][:2]) == [1, 4]
    assert list(table["records.tiny.nested.share"][:2]) == [0.25, 0.25]
    assert json.loads(table["records.tiny.names"][0]) == ["a"]
    assert table["error"][2] == "01_tiny failed in cell 3: AssertionError: <b>bad</b>"
    assert table["error"][3] == "01_tiny failed in cell 3: the kernel died (killed, or out of memory)"
    assert table["error"][4] == "01_tiny failed in cell 3: not done in 25 s"
    assert table["seconds"].gt(0.3).all()
    assert table["peak_memory"][:2].between(20, 300).all()
    output = folder / "notebooks" / "executed" / "sweep"
    assert all((output / name).exists() for name in table["path"])
    assert not any(str(folder) in name for name in table["path"])
    assert batch.records(output / table["path"][1])["tiny"]["square"] == 4

    page = (output / "index.html").read_text()
    reader = Links()
    reader.feed(page)
    assert reader.found == ["results.csv", *table["path"]]
    assert "b" not in reader.tags and "AssertionError: &lt;b&gt;bad" in page
    assert "//" not in page.replace("<!DOCTYPE html>", "")

    before = {name: (output / f"01_tiny-{name}.json").stat().st_mtime_ns for name in table["id"]}
    assert sweep.main([str(path), "--jobs", "3", "--timeout", "1"]) == 1
    after = {name: (output / f"01_tiny-{name}.json").stat().st_mtime_ns for name in table["id"]}
    assert [after[name] > before[name] for name in table["id"]] == list(table["status"] == "failed")


def test_a_full_disk_fails_its_run_and_no_other(folder, monkeypatch, capsys):
    path = write_sweep(folder, seed=[1, 2])
    first, _ = sweep.expand(yaml.safe_load(path.read_text()))
    write = sweep.write

    def full(path, content):
        if path.name == f"{first.name}.json":
            raise OSError(28, "No space left on device", str(path))
        write(path, content)

    monkeypatch.setattr(sweep, "write", full)
    assert sweep.main([str(path)]) == 1
    assert list(results(folder)["status"]) == ["missing", "finished"]
    assert f"{first.name}: OSError: [Errno 28] No space left on device: '{folder}/" in capsys.readouterr().err


def test_a_failed_run_is_mended(folder):
    """The notebook fails until a file is there, as with data that were missing."""
    path = folder / "notebooks" / "01_tiny.ipynb"
    book = json.loads(path.read_text())
    book["cells"][2]["source"] = "open('wanted')"
    path.write_text(json.dumps(book))
    task = sweep.expand([{"notebook": "01"}])[0]
    sweep.execute(task, folder / "out", 60)
    assert sorted(file.suffix for file in (folder / "out").glob("01*")) == [".ipynb", ".json"]
    found = sweep.result(task, folder / "out")
    assert found["status"] == "failed" and found["path"].endswith(".failed.ipynb")
    (folder / "notebooks" / "wanted").touch()
    sweep.execute(task, folder / "out", 60)
    found = sweep.result(task, folder / "out")
    assert found["status"] == "finished" and found["path"] == f"{task.name}.ipynb" and found["error"] is None
    assert sorted(file.name for file in (folder / "out").glob("01*")) == [
        f"{task.name}.ipynb",
        f"{task.name}.json",
    ]


def test_a_notebook_edited_during_the_sweep_is_noticed(folder):
    task = sweep.expand([{"notebook": "01"}])[0]
    path = folder / "notebooks" / "01_tiny.ipynb"
    path.write_text(path.read_text().replace("seed**2", "seed**3"))
    sweep.execute(task, folder / "out", 60)
    assert "was edited since the sweep began" in sweep.result(task, folder / "out")["error"]


def test_two_at_once_do_a_run_once(folder):
    task = sweep.expand([{"notebook": "01", "parameters": {"pause": 0.5, "log": str(folder / "log")}}])[0]
    threads = [threading.Thread(target=sweep.execute, args=(task, folder / "out", 60)) for _ in range(2)]
    for thread in threads:
        thread.start()
    line = tiny.wait_for(lambda: sweep.running(folder / "out", {task.name}))
    for thread in threads:
        thread.join()
    assert line.startswith(f"{task.name} cell ")
    assert (folder / "log").read_text() == "0\n"
    assert sweep.running(folder / "out", {task.name}) == ""


def test_a_kernel_that_does_not_start_is_started_again(folder, monkeypatch):
    real, calls = papermill.execute_notebook, []

    def flaky(*arguments, **options):
        calls.append(options["start_timeout"])
        if len(calls) < batch.START_ATTEMPTS:
            raise RuntimeError("Kernel died before replying to kernel_info")
        return real(*arguments, **options)

    monkeypatch.setattr(papermill, "execute_notebook", flaky)
    found = batch.run_notebook(Path("notebooks/01_tiny.ipynb"), {"seed": 3}, folder / "out.ipynb", progress=False)
    assert found["tiny"]["square"] == 9 and len(calls) == batch.START_ATTEMPTS
    calls.append(0)
    monkeypatch.setattr(papermill, "execute_notebook", lambda *_, **__: flaky.missing)
    with pytest.raises(AttributeError):
        batch.run_notebook(Path("notebooks/01_tiny.ipynb"), {}, folder / "out.ipynb", progress=False)


def test_trouble_of_the_engine_is_raised(folder):
    def engine(work, tasks):
        yield tasks[0], "OSError: disk full"
        raise RuntimeError("the scheduler is gone")

    tasks = sweep.expand([{"notebook": "01", "parameters": {"seed": [1, 2]}}])
    with pytest.raises(RuntimeError, match="the scheduler is gone"):
        sweep.run_all(tasks, folder / "out", engine)
    table = sweep.table(tasks, folder / "out")
    assert list(table["status"]) == ["failed", "missing"] and table["error"][0] == "OSError: disk full"


def test_what_the_engine_says_after_an_interruption_is_no_result(folder):
    """Dask, for one, cancels what it has not done when the driver ends."""
    over = threading.Event()

    def engine(work, tasks):
        os.kill(os.getpid(), signal.SIGTERM)
        work.stopped.wait()
        yield tasks[0], "CancelledError"
        over.set()

    tasks = sweep.expand([{"notebook": "01", "parameters": {"seed": [1, 2]}}])
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(sweep.Interrupted):
        sweep.run_all(tasks, folder / "out", engine)
    assert signal.getsignal(signal.SIGTERM) == before
    assert not over.wait(0.5)
    assert list(sweep.table(tasks, folder / "out")["status"]) == ["missing", "missing"]


# Survival


def start(*command: str) -> subprocess.Popen:
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    STARTED.append(subprocess.Popen([sys.executable, *command], **quiet))
    return STARTED[-1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_driver_loses_nothing_and_leaves_nobody(folder, number):
    log = folder / "log"
    path = write_sweep(folder, seed=list(range(5)), pause=0.7, mode="parent", log=str(log))
    output = folder / "notebooks" / "executed" / "sweep"
    driver = start("-m", "vgmr", "batch", str(path), "--jobs", "2")
    begun = folder / "log.begun"
    tiny.wait_for(lambda: len(list(output.glob("*.json"))) >= 1 and len(begun.read_text().split("\n")) > 3)
    driver.send_signal(number)
    assert driver.wait() == (143 if number == signal.SIGTERM else -9)
    tiny.wait_for(lambda: not ours(folder))
    before = {file: file.stat().st_mtime_ns for file in output.glob("*.json")}
    assert 1 <= len(before) < 5
    if number == signal.SIGTERM:
        counts = results(folder)["status"].value_counts().to_dict()
        assert counts == {"finished": len(before), "missing": 5 - len(before)}
    done = [str(json.loads(file.read_text())["parameters"]["seed"]) for file in before]
    assert sweep.main([str(path), "--jobs", "2"]) == 0
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert list(results(folder)["records.tiny.square"]) == [0, 1, 4, 9, 16]
    runs = log.read_text().split()
    assert set(runs) == set("01234") and all(runs.count(seed) == 1 for seed in done)
    tiny.wait_for(lambda: not ours(folder))


def test_a_killed_dask_worker_loses_nothing(folder, monkeypatch):
    monkeypatch.setattr(sweep, "DASK_PATIENCE", 900)
    log, place = folder / "log", folder / "scheduler.json"
    own = ("--host", "127.0.0.1", "--no-dashboard")
    command = ("-m", "distributed.cli.dask_scheduler", *own, "--port", "0", "--scheduler-file", str(place))
    scheduler = start(*command)
    worker = ("-m", "distributed.cli.dask_worker", *own, "--no-nanny", "--nthreads", "1")
    workers = [start(*worker, "--scheduler-file", str(place)) for _ in range(3)]
    path = write_sweep(folder, seed=list(range(9)), mode=["fine"], pause=1.0, log=str(log))
    address = tiny.wait_for(lambda: place.exists() and json.loads(place.read_text() or "{}").get("address"))
    assert address.startswith("tcp://127.0.0.1:")

    def kill_one_at_work():
        begun = tiny.wait_for(lambda: (folder / "log.begun").exists() and (folder / "log.begun").read_text())
        os.kill(int(begun.split()[1]), signal.SIGKILL)

    killer = threading.Thread(target=kill_one_at_work)
    killer.start()
    assert sweep.main([str(path), "--dask", address]) == 0
    killer.join()
    assert sorted(worker.poll() is None for worker in workers) == [False, True, True]
    table = results(folder)
    assert list(table["records.tiny.square"]) == [seed**2 for seed in range(9)]
    assert table["id"].is_unique and set(table["status"]) == {"finished"}
    assert sorted(log.read_text().split()) == list("012345678")
    left = [*workers, scheduler]
    tiny.wait_for(lambda: {process.pid for process in ours(folder)} <= {process.pid for process in left})


def test_results_are_csv_that_any_reader_takes(folder):
    tasks = sweep.expand([{"notebook": "01", "parameters": {"mode": 'a "quoted", long\nname'}}])
    sweep.keep(tasks[0], folder / "out", {"status": "failed", "error": "a,\nb", "records": {}})
    assert sweep.conclude(tasks, folder / "out", "<sweep>") == 1
    with (folder / "out" / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["parameters.mode"] == 'a "quoted", long\nname' and rows[0]["error"] == "a,\nb"
    assert "<title>&lt;sweep&gt;</title>" in (folder / "out" / "index.html").read_text()


# State on disk, places and locks


DAMAGED = [b"", b"{}", b"[]", b"null", b'{"status": "finished"}', b"\xff\xfe", b"[" * 100_000, b'{"id": 1}']


@pytest.mark.parametrize("content", DAMAGED, ids=lambda content: repr(content[:20]))
def test_a_damaged_result_is_made_again(folder, content):
    task = sweep.expand([{"notebook": "01"}])[0]
    sweep.keep(task, folder, {"status": "finished", "error": None, "records": {}})
    path = folder / f"{task.name}.json"
    assert sweep.finished(task, folder)
    path.write_bytes(content)
    with pytest.warns(UserWarning, match=f"{path} is no whole result of this run"):
        assert not sweep.finished(task, folder)
    with pytest.warns(UserWarning):
        assert list(sweep.table([task], folder)["status"]) == ["missing"]


@pytest.mark.parametrize("name", ["seconds", "peak_memory"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_a_time_or_memory_that_cannot_be_is_damage(folder, name, value):
    task = sweep.expand([{"notebook": "01"}])[0]
    sweep.keep(task, folder, {"status": "finished", "error": None, "records": {}})
    path = folder / f"{task.name}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    with pytest.warns(UserWarning, match=f"{path} is no whole result of this run"):
        assert not sweep.finished(task, folder)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner), max_leaves=4
)


@given(st.dictionaries(st.sampled_from(list(sweep.KINDS)), JSON | st.just({}) | st.just({"a": 1})))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_result_lacks_nothing_or_is_missing(folder, changes):
    task = sweep.expand([{"notebook": "01"}])[0]
    sweep.keep(task, folder, {"status": "finished", "error": None, "records": {}})
    path = folder / f"{task.name}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert len(sweep.table([task], folder)) == 1 and sweep.page([task], folder, "x")
        sweep.finished(task, folder)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            assert sweep.conclude([task], folder, "x") in (0, 1)


def test_a_notebook_that_ends_by_itself_is_not_finished(folder):
    path = folder / "notebooks" / "01_tiny.ipynb"
    book = json.loads(path.read_text())
    book["cells"][2]["source"] = "import sys\nsys.exit(0)"
    path.write_text(json.dumps(book))
    task = sweep.expand([{"notebook": "01"}])[0]
    sweep.execute(task, folder / "out", 600)
    found = sweep.result(task, folder / "out")
    assert found["status"] == "failed"
    assert found["error"] == "01_tiny ended by itself in cell 2 of 3; the cells after it never ran"


def test_two_sweeps_of_one_name_do_not_overwrite_each_other(folder, monkeypatch):
    monkeypatch.setattr(sweep, "run_all", lambda *_: None)
    for name in ("a", "b"):
        (folder / name).mkdir()
        (folder / name / "sweep.yaml").write_text(f"- notebook: '01'\n  parameters: {{mode: {name}}}")
    assert sweep.main(["a/sweep.yaml"]) == 1
    before = (folder / "notebooks" / "executed" / "sweep" / "results.csv").read_text()
    with pytest.raises(ValueError, match=r"holds the results of .*a/sweep.yaml; give another folder"):
        sweep.main(["b/sweep.yaml"])
    assert (folder / "notebooks" / "executed" / "sweep" / "results.csv").read_text() == before
    assert sweep.main(["b/sweep.yaml", "--output", "other"]) == 1
    assert sweep.main(["a/sweep.yaml"]) == 1
    (folder / "a" / "sweep.yaml").unlink()
    assert sweep.main(["b/sweep.yaml"]) == 1, "what is gone holds nothing"


def test_places_are_tried_before_anything_runs(folder, monkeypatch):
    monkeypatch.setattr(sweep, "run_all", lambda *_: pytest.fail("ran"))
    path = str(write_sweep(folder))
    (folder / "file").write_text("")
    for place, said in (("file", "is a file; give a folder"), ("file/x", "is a file"), ("s3://b/x", "address")):
        with pytest.raises((OSError, ValueError), match=said):
            sweep.main([path, "--output", place])
    with pytest.raises(ValueError, match="is not named in UTF-8"):
        sweep.main([path, "--output", os.fsdecode(b"d\xfcrr")])
    task = sweep.expand(yaml.safe_load(Path(path).read_text()))[-1]
    (folder / "out" / f"{task.name}.json").mkdir(parents=True)
    with pytest.raises(OSError, match=rf"{task.name}.json is in the way of a result; take it away"):
        sweep.main([path, "--output", "out"])
    with pytest.raises(ValueError, match="10,000,000,000 runs are more than 100,000"):
        sweep.expand([{"notebook": "01", "parameters": {"seed": [0] * 100_000, "rate": [0.0] * 100_000}}])


def test_what_no_sweep_wrote_is_not_overwritten(folder, monkeypatch):
    monkeypatch.setattr(sweep, "run_all", lambda *_: None)
    path = write_sweep(folder)
    for name in ("results.csv", "index.html"):
        (folder / "out").mkdir(exist_ok=True)
        (folder / "out" / name).write_text("mine")
        with pytest.raises(ValueError, match=rf"out holds a {name} that no sweep wrote; give another folder"):
            sweep.main([str(path), "--output", "out"])
        assert (folder / "out" / name).read_text() == "mine"
        (folder / "out" / name).unlink()
    (task,) = sweep.expand(yaml.safe_load(path.read_text()))
    sweep.keep(task, folder / "out", {"status": "finished", "error": None, "records": {}})
    sweep.conclude([task], folder / "out", "x")
    assert sweep.main([str(path), "--output", "out"]) == 0, "copied without its hidden files, it is found again"


def test_results_out_of_sight_are_told(folder, capsys):
    tasks = sweep.expand([{"notebook": "01", "parameters": {"seed": [1, 2, 3]}}])
    for task in tasks:
        output = folder / "out" / f"{task.name}.ipynb"
        sweep.write(output, "{}")
        sweep.keep(task, folder / "out", {"status": "finished", "error": None, "records": {}}, output)
    assert sweep.conclude(tasks, folder / "out", "x") == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    output.unlink()
    assert sweep.conclude(tasks[1:], folder / "out", "x") == 0
    told = capsys.readouterr().out.splitlines()[3:]
    assert told == [
        "1 results in this folder are of runs that the sweep no longer has; they stay as files",
        f"1 executed notebooks are gone, such as {output.name}; to repeat a run, delete its JSON file",
    ]


def test_runs_of_other_commits_are_told(folder, capsys, monkeypatch):
    tasks = sweep.expand([{"notebook": "01", "parameters": {"seed": [1, 2]}}])
    for task, commit in zip(tasks, ("abc1234", "def5678"), strict=True):
        described = {**sweep.environment(), "commit": commit}
        monkeypatch.setattr(sweep, "environment", lambda described=described: described)
        sweep.keep(task, folder / "out", {"status": "finished", "error": None, "records": {}})
    for chosen, told in (
        (tasks, ["1 runs were finished by other commits than def5678: abc1234"]),
        (tasks[1:], []),
        (tasks[:1], ["1 runs were finished by other commits than def5678: abc1234"]),
    ):
        sweep.conclude(chosen, folder / "out", "x")
        lines = [line for line in capsys.readouterr().out.splitlines() if "other commits" in line]
        assert lines == [f"{line}; to repeat a run, delete its JSON file" for line in told]


def test_links_lead_to_notebooks_of_any_name(folder):
    tiny.make_notebook(folder / "a#b?c%d.ipynb")
    (task,) = sweep.expand([{"notebook": "a#b?c%d.ipynb"}])
    output = folder / f"{task.name}.ipynb"
    output.touch()
    sweep.keep(task, folder, {"status": "finished", "error": None, "records": {}}, output)
    reader = Links()
    reader.feed(sweep.page([task], folder, "x"))
    assert [unquote(urlsplit(link).path) for link in reader.found[1:]] == [output.name]


WITHOUT_LOCKS = """
import errno, fcntl, sys
def flock(*_):
    raise OSError(errno.ENOSYS, "Function not implemented")
fcntl.flock = flock
from vgmr.cli import main
sys.exit(main(["batch", "sweep.yaml", *sys.argv[1:]]))
"""


def test_a_disk_without_locks_is_named_and_serves_one_machine(folder):
    write_sweep(folder, seed=3)
    command = [sys.executable, "-c", WITHOUT_LOCKS]
    done = subprocess.run(command, capture_output=True, encoding="utf-8")
    assert done.returncode == 0 and "1 finished" in done.stdout
    assert "knows no locks" in done.stderr and str(folder) in done.stderr
    done = subprocess.run([*command, "--dask", "tcp://127.0.0.1:1"], capture_output=True, encoding="utf-8")
    assert done.returncode == 1 and "with --dask the output folder must know locks" in done.stderr


def test_a_worker_that_does_not_share_the_disk_is_named(folder, monkeypatch):
    """A worker with another disk cannot be had everywhere: here the token lies on another one, so to speak."""
    monkeypatch.setattr(sweep, "DASK_PATIENCE", 900)
    place = folder / "scheduler.json"
    own = ("--host", "127.0.0.1", "--no-dashboard")
    start("-m", "distributed.cli.dask_scheduler", *own, "--port", "0", "--scheduler-file", str(place))
    worker = ("-m", "distributed.cli.dask_worker", *own, "--no-nanny", "--nthreads", "1")
    start(*worker, "--scheduler-file", str(place))
    address = tiny.wait_for(lambda: place.exists() and json.loads(place.read_text() or "{}").get("address"))
    from distributed import Client

    with Client(address, timeout=900) as client:
        client.wait_for_workers(1)
    path, real = str(write_sweep(folder, seed=[1, 2])), sweep._token
    monkeypatch.setattr(sweep, "_token", lambda out: (real(out)[0], "another disk"))
    with pytest.raises(RuntimeError, match=r"the dask worker tcp://127.* does not see the output folder"):
        sweep.main([path, "--dask", address])
    monkeypatch.setattr(sweep, "_token", real)
    monkeypatch.setattr(sweep, "execute", nothing)
    monkeypatch.setattr(sweep, "LOOKS", 1)
    assert sweep.main([path, "--dask", address]) == 1
    table = results(folder)
    assert list(table["status"]) == ["failed", "failed"]
    said = r"worker tcp://127\S+ says that it is done, but .* no readable result"
    assert table["error"].str.contains(said).all()


nothing = print  # a function that any worker has, and that takes what `execute` takes
