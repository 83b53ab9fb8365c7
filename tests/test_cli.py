"""The `vgmr` command from outside: one line for whatever goes wrong, 130 for an interruption."""

import os
import random
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import nbformat
import pytest
import tiny

from vgmr import cli

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.timeout(1800)  # seconds; nothing here depends on the machine's speed


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A project with one notebook, the working directory, with a cache, a home and processes of its own."""
    for name in ("VGMR_CACHE", "HOME", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("VGMR_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    tiny.make_notebook(tmp_path / "notebooks" / "01_tiny.ipynb")
    yield tmp_path
    for process in tiny.processes(str(tmp_path / "jupyter_runtime_dir")):
        process.kill()


def raising(monkeypatch, error: BaseException) -> None:
    def command(_):
        raise error

    monkeypatch.setitem(cli.COMMANDS, "run", ("vgmr.raised:command", ""))
    monkeypatch.setattr(cli, "import_module", lambda _: type("Module", (), {"command": staticmethod(command)}))


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("two\nlines"), "two lines"),
        (OSError(28, "No space left on device", "/x/y"), "/x/y: No space left on device"),
        (PermissionError("no"), "no"),
        (TypeError("of 3"), "TypeError: of 3 (set VGMR_TRACEBACK=1 to see where)"),
        (AssertionError(), "AssertionError (set VGMR_TRACEBACK=1 to see where)"),
        (KeyError("a"), "KeyError: 'a' (set VGMR_TRACEBACK=1 to see where)"),
        (RecursionError("deep"), "deep"),
        (MemoryError(), "MemoryError (set VGMR_TRACEBACK=1 to see where)"),
    ],
)
def test_every_error_is_one_line(monkeypatch, capsys, error, line):
    raising(monkeypatch, error)
    assert cli.main(["run"]) == 1
    assert capsys.readouterr().err == f"vgmr run: {line}\n"
    monkeypatch.setenv(cli.TRACEBACK, "1")
    with pytest.raises(type(error)):
        cli.main(["run"])


def test_an_interruption_is_130_and_leaves_the_handlers(monkeypatch, capsys):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    raising(monkeypatch, KeyboardInterrupt())
    assert cli.main(["run"]) == 130
    assert capsys.readouterr().err == "vgmr run: interrupted\n"
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_warnings_are_one_line(monkeypatch, capsys):
    monkeypatch.setattr(cli, "import_module", lambda _: type("M", (), {"main": staticmethod(told)}))
    before = warnings.formatwarning
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert cli.main(["bench"]) == 0
    assert warnings.formatwarning is before


def told(_):
    assert warnings.formatwarning("so it is", UserWarning, "file", 3) == "vgmr bench: warning: so it is\n"
    return 0


HEAVY = (
    "torch",
    "numpy",
    "pandas",
    "scipy",
    "matplotlib",
    "ipywidgets",
    "papermill",
    "nbclient",
    "joblib",
    "dask",
)
LOOKED = """
import sys
from vgmr.cli import main
for words in {lines}:
    print(main(words), *[name for name in {heavy} if name in sys.modules], len(sys.modules))
"""


def test_what_is_wrong_is_said_before_anything_heavy_is_imported(folder):
    """The modules are counted, not the time: a name, a parameter, a sweep and a command that cannot be."""
    (folder / "sweep.yaml").write_text("- notebook: '01'\n  parameters: {seed: x}\n")
    lines = [
        ["run", "99"],
        ["run", "01", "-p", "no=1"],
        ["run", "01", "-p", "seed=x"],
        ["batch", "sweep.yaml"],
        ["batch", "none.yaml"],
    ]
    lines += [["notebooks", "build", "99"]]
    script = LOOKED.format(lines=lines, heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=folder)
    told = [line.split() for line in done.stdout.splitlines()]
    assert [status for status, *_ in told] == ["1"] * len(lines), done.stderr
    assert [seen[1:-1] for seen in told] == [[]] * len(lines), "heavy modules by command"
    assert int(told[4][-1]) < 400, "modules in all; torch and what the package makes of it are 2,000 more"
    assert "parameter seed: expected int, such as 0, got 'x'" in done.stderr and done.stderr.count("\n") == len(
        lines
    )


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", ["data list", "data check digits", "data --help", "batch --help", "--help"])
def test_output_that_nobody_reads_is_no_error(folder, monkeypatch, command, unbuffered):
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    reading, writing = os.pipe()
    os.close(reading)
    line = [sys.executable, "-m", "vgmr", *command.split()]
    done = subprocess.run(line, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert done.stderr == "" and done.returncode in (0, 141)


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_stop_no_command(folder, closed):
    command = [sys.executable, "-m", "vgmr", "run", "01", "--output", "a.ipynb"]
    done = subprocess.run(["bash", "-c", f'"$@" {closed}', "bash", *command], capture_output=True, text=True)
    assert done.returncode == 0 and (folder / "a.ipynb").exists() and "Traceback" not in done.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_output_is_one_line(folder, unbuffered):
    given = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    for words in ("--help", "fly", "data list"):
        command = f"{sys.executable} -m vgmr {words} > /dev/full"
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=given)
        assert done.returncode == 1 and done.stderr.count("No space left on device") == 1, done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("group", [False, True], ids=["the driver", "all in the terminal"])
@pytest.mark.parametrize("command", ["run", "batch", "build", "bench"])
def test_an_interruption_ends_everything(folder, command, group):
    log = folder / "log"
    (folder / "sweep.yaml").write_text(f"- notebook: '01'\n  parameters: {{pause: 100, log: {log}}}\n")
    if command == "build":
        make_slow(folder, log)
    given = {
        "run": ["run", "01", "-p", "pause=100", "-p", f"log={log}"],
        "batch": ["batch", "sweep.yaml"],
        "build": ["notebooks", "build", "01"],
        "bench": ["bench", "--rounds", "1000"],
    }[command]
    told = folder / "told"
    with told.open("wb") as file:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": file, "start_new_session": True}
        driver = subprocess.Popen([sys.executable, "-m", "vgmr", *given], **quiet)
    if command == "bench":
        tiny.wait_for(lambda: "rounds" in told.read_text())
    else:
        tiny.wait_for(lambda: Path(f"{log}.begun").exists())
    (os.killpg if group else os.kill)(driver.pid, signal.SIGINT)
    assert driver.wait() == 130
    tiny.wait_for(lambda: not tiny.processes(str(folder / "jupyter_runtime_dir")))
    lines = told.read_text()
    assert "interrupted" in lines.splitlines()[-1] and "Traceback" not in lines


def test_what_fails_while_an_interrupted_command_ends_is_not_told(folder):
    script = (
        "import atexit, sys\nfrom vgmr import cli\n"
        "def command(_):\n    atexit.register(lambda: 1 / 0)\n    raise {error}\n"
        "cli._do = command\nsys.argv = ['vgmr', 'run']\nsys.exit(cli.main())"
    )
    told = {}
    for error in ("KeyboardInterrupt", "ValueError('as it is')"):
        line = [sys.executable, "-c", script.format(error=error)]
        told[error] = subprocess.run(line, capture_output=True, text=True).stderr
    assert told["KeyboardInterrupt"] == "vgmr run: interrupted\n"
    assert "ZeroDivisionError" in told["ValueError('as it is')"], "nothing else is hidden"


def make_slow(folder: Path, log: Path) -> None:
    """A notebook as the repository's are, which pauses at its defaults."""
    path = folder / "notebooks" / "01_tiny.ipynb"
    text = path.read_text().replace("pause: float = 0.0", "pause: float = 99.0")
    book = nbformat.reads(text.replace("log: str | None = None", f"log: str | None = '{log}'"), 4)
    (folder / "pyproject.toml").write_text('[project.urls]\nRepository = "https://github.com/some/one"')
    for tag, make in (("badge", "markdown"), ("colab", "code"), ("navigation", "markdown")):
        cell = getattr(nbformat.v4, f"new_{make}_cell")("", metadata={"tags": [tag]})
        book.cells.append(cell)
    nbformat.write(book, path)


def test_a_killed_build_leaves_nobody(folder):
    log = folder / "log"
    make_slow(folder, log)
    command = [sys.executable, "-m", "vgmr", "notebooks", "build", "01"]
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    tiny.wait_for(lambda: Path(f"{log}.begun").exists())
    driver.kill()
    driver.wait()
    tiny.wait_for(lambda: not tiny.processes(str(folder / "jupyter_runtime_dir")))


WORDS = [
    "01",
    "02",
    "01_tiny",
    "notebooks/01_tiny.ipynb",
    "x.ipynb",
    "",
    " ",
    ".",
    "..",
    "/",
    "~",
    "~nobody/x",
    "{x}",
]
WORDS += [
    "s3://b/x",
    "file:///x",
    "http://x",
    "a\nb",
    "ü世",
    "\udcff",
    "a" * 300,
    "-1",
    "0",
    "1e400",
    "nan",
    "--",
    "-x",
]
WORDS += [
    "a.yaml",
    "b.json",
    "folder",
    "folder/",
    "file",
    "file/x",
    "folder/x.ipynb",
    "\\",
    "*",
    "$HOME",
    "%s",
    "{0}",
]
OPTIONS = {
    "run": ["-p", "-f", "--output"],
    "batch": ["--jobs", "--output", "--timeout", "--dask"],
    "data": ["list", "check", "prepare", "--root", "mosi", "digits"],
    "search": ["--jobs"],
    "notebooks": ["check", "clean", "readme", "build"],
    "bench": ["--rounds", "--device", "--json", "--methods"],
}
PAIRS = ["seed=1", "seed=x", "seed", "=", "seed=-1", "rate=-1", "names=[", "names=['a', 1]", "mode=\udcff", "no=1"]
PAIRS += ["seed=1", "log=~", "rate=1e999", "seed=" + "9" * 5000, "names=" + "[" * 3000, "mode=" + "{" * 9]
CONTENTS = [
    b"",
    b"a: 1",
    b"- notebook: '01'",
    b"- notebook: 01",
    b"\xff\xfe",
    b"- {notebook: ['01', 2]}",
    b"- [",
    b"{}",
]
CONTENTS += [
    b"- {notebook: '01', parameters: {seed: [[1]]}}",
    b"- {notebook: '01', parameters: {seed: 010}}",
    b"- 1",
]
CONTENTS += [
    b"seed: x",
    b"\x00",
    b"[" * 5000,
    b'{"a": 1, "a": 2}',
    b"- {notebook: '01', parameters: {rate: [-1]}}",
]


def no_net(source):
    raise FileNotFoundError("no net")


def line_of_words(draw: random.Random) -> list[str]:
    command = draw.choice([*OPTIONS, "fly"])
    words = [command]
    for _ in range(draw.randint(0, 4)):
        word = draw.choice([*OPTIONS.get(command, ["-h"]), *draw.sample(WORDS, 3)])
        words.append(word)
        if word == "-p":
            words.append(draw.choice(PAIRS))
        elif word.startswith("--"):
            words.append(draw.choice(WORDS))
    return words


def test_two_hundred_random_command_lines_give_no_traceback(folder, monkeypatch, capsys):
    """Nothing is executed here: what would be is known to be sound and stands still."""
    from vgmr.analysis import cost
    from vgmr.notebook import publish, run, sweep
    from vgmr.studies import forms

    done: list[str] = []
    for module, name in (
        (run, "run_notebook"),
        (sweep, "run_all"),
        (publish, "build"),
    ):
        monkeypatch.setattr(module, name, lambda *_, name=name, **__: done.append(name) or {})
    for name in ("bench", "bench_methods"):
        monkeypatch.setattr(cost, name, lambda *_, **__: sys.exit(done.append("bench")))
    monkeypatch.setattr(forms, "search_forms", lambda *_, **__: sys.exit(done.append("search")))
    monkeypatch.setattr(
        "vgmr.data.fetch.download", lambda source: (_ for _ in ()).throw(FileNotFoundError("no net"))
    )
    draw = random.Random(0)
    (folder / "folder").mkdir()
    (folder / "file").write_text("x")
    for _ in range(200):
        for name in ("a.yaml", "b.json"):
            (folder / name).write_bytes(draw.choice(CONTENTS))
        words = line_of_words(draw)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                status = cli.main(words)
        except SystemExit as error:  # argparse, with its usage
            status = error.code
        told = capsys.readouterr().err
        assert status in (0, 1, 2, None), words
        assert "Traceback" not in told and cli.TRACEBACK not in told, (words, told)
        if status == 1 and words[0] not in ("batch", "notebooks"):
            assert told.count("\n") <= 1, (words, told)
    assert len(done) >= 5
