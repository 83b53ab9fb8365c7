"""One notebook from the command line: its parameters, its place, and nobody else who writes there."""

import ast
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vgmr.notebook import run

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(1800)  # seconds; nothing here depends on the machine's speed


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A project with one notebook, the working directory, and a home in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    tiny.make_notebook(tmp_path / "notebooks" / "01_tiny.ipynb")
    return tmp_path


def place(given: str) -> Path:
    return run.destination(given, Path("notebooks/01_tiny.ipynb"))


def test_where_an_executed_notebook_goes(folder):
    (folder / "there").mkdir()
    assert place("a.ipynb") == folder / "a.ipynb"
    assert place("there") == place("there/") == folder / "there" / "01_tiny.ipynb"
    assert place("new/") == folder / "new" / "01_tiny.ipynb"
    assert place("~/a.ipynb") == folder / "home" / "a.ipynb"
    assert place("{number}/%s $HOME*.ipynb") == folder / "{number}" / "%s $HOME*.ipynb"
    assert not [path for path in folder.rglob("*") if path.is_file() and path.parent.name != "notebooks"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("s3://bucket/a.ipynb", "got the address"),
        ("gs://bucket/a.ipynb", "got the address"),
        ("", "got an empty one"),
        ("~nobody-at-all/a.ipynb", "a user that does not exist"),
        ("file/a.ipynb", "file is a file; expected a folder for a.ipynb"),
        ("file/b/a.ipynb", "file is a file; expected a folder"),
        ("notebooks/01_tiny.ipynb", "is the notebook itself"),
        ("notebooks", "is the notebook itself"),
        ("link.ipynb", "is the notebook itself"),
        ("x" * 300, "File name too long"),
        ("notebooks/02_other.ipynb", "is there, and no run wrote it; give another file, or take it away"),
        ("book.ipynb", "is there, and no run wrote it"),
        ("out", "expected a name that ends in .ipynb, or a folder that ends in /"),
        ("report.html", "expected a name that ends in .ipynb"),
        ("C:\\\\x\\\\a.ipynb", "got the address"),
        ("z.ipynb", "z-tables is a file; expected a folder for table.csv"),
    ],
)
def test_places_that_cannot_be_are_refused(folder, given, said):
    (folder / "file").write_text("")
    (folder / "z-tables").write_text("")
    (folder / "book.ipynb").write_text("all that I know")
    (folder / "link.ipynb").symlink_to("notebooks/01_tiny.ipynb")
    tiny.make_notebook(folder / "notebooks" / "02_other.ipynb")
    before = sorted(folder.rglob("*"))
    with pytest.raises((ValueError, OSError), match=said) as error:
        place(given)
    assert "\n" not in str(error.value) and sorted(folder.rglob("*")) == before


def test_what_a_run_wrote_makes_way_and_a_link_stays(folder):
    (folder / "old.ipynb").write_text('{"metadata": {"papermill": {}}}')
    (folder / "empty.ipynb").touch()
    for link, target in (("link.ipynb", "old.ipynb"), ("new.ipynb", "deep/er.ipynb")):
        (folder / link).symlink_to(target)
        assert place(link) == folder / target == place(target)
    assert place("empty.ipynb") == folder / "empty.ipynb"


def test_a_name_that_no_notebook_can_hold_is_refused_before_the_run(folder):
    strange = os.fsdecode(b"d\xfcrr")
    with pytest.raises(ValueError, match="is not named in UTF-8, as notebooks are; give another place"):
        place(f"{strange}.ipynb")
    moved = folder / strange / "01_tiny.ipynb"
    moved.parent.mkdir()
    moved.write_bytes(Path("notebooks/01_tiny.ipynb").read_bytes())
    with pytest.raises(ValueError, match="is not named in UTF-8"):
        run.destination("a.ipynb", moved)
    assert place("dürr.ipynb") == folder / "dürr.ipynb"


def test_a_place_without_space_is_refused(folder, monkeypatch):
    def full(path, mode):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OSError, match=r"a\.ipynb cannot be written: No space left on device; give another place"):
        place("out/a.ipynb")


@given(
    st.lists(
        st.sampled_from(["a", "{b}", "..", ".", "~", "ü", " ", "s3:", "", "*", "%", "\\", "\x00"]), max_size=5
    )
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_path_is_a_place_or_one_line(folder, parts):
    inside = folder / "a" / "b" / "c" / "d" / "e" / "f"
    inside.mkdir(parents=True, exist_ok=True)
    os.chdir(inside)
    try:
        found = run.destination("/".join(parts).lstrip("/"), folder / "notebooks" / "01_tiny.ipynb")
    except (ValueError, OSError) as error:
        assert "\n" not in str(error)
    else:
        assert found.is_absolute() and found.parent.is_dir() and not found.exists()


def test_paths_are_literal_and_no_parameter_is_called_unknown(folder):
    """A brace is a brace, also in the notebook's own folder; papermill does not know `str | None`."""
    tiny.make_notebook(folder / "{note} books" / "01_tiny.ipynb")
    command = ["run", "{note} books/01_tiny.ipynb", "-p", "seed=3", "-p", "log=x", "--output", "out/{seed}.ipynb"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "vgmr", *command], capture_output=True, encoding="utf-8", env=environment
    )
    assert done.returncode == 0 and "square: 9" in done.stdout, done.stderr
    assert "unknown parameter" not in done.stderr and "\r" not in done.stderr
    assert [path.name for path in (folder / "out").iterdir()] == ["{seed}.ipynb"]


def test_two_runs_into_one_output_are_refused(folder):
    with run.writing(folder / "a.ipynb"):
        with (
            pytest.raises(RuntimeError, match=r"another run writes .*a\.ipynb just now"),
            run.writing(folder / "a.ipynb"),
        ):
            pass
        with run.writing(folder / "b.ipynb"):
            pass
    with run.writing(folder / "a.ipynb"):
        pass
    assert not list(folder.glob(".*"))


def test_paths_count_from_where_the_user_is(folder):
    assert run.from_here({"root": "~/d", "seed": 1}) == {"root": str(folder / "home" / "d"), "seed": 1}
    assert run.from_here({"folder": "d"}) == {"folder": str(folder / "d")}
    assert run.from_here({"root": None}) == {"root": None}
    assert run.from_here({"root": "None"}) == {"root": "None"}
    with pytest.raises(ValueError, match="address"):
        run.from_here({"root": "s3://bucket"})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"rate": "-0.5"}, "parameter rate: rate must not be negative, got -0.5"),
        ({"rate": float("inf")}, "expected a finite number"),
        ({"rate": "1e999"}, "expected a finite number"),
        ({"mode": "\udcff"}, "is not valid text"),
        ({"names": "[" * 3000}, "expected list"),
        ({"seed": "9" * 5000}, "expected int"),
        ({"names": [{"a"}]}, "expected list"),
        ({"names": "[]"}, r"parameter names: expected one or more, got \[\]"),
        ({"seed": "-1"}, "parameter seed: seed must not be negative, got -1"),
    ],
)
def test_values_that_no_notebook_can_take(folder, given, said):
    with pytest.raises(ValueError, match=said) as error:
        run.check_overrides(Path("notebooks/01_tiny.ipynb"), given)
    assert len(str(error.value)) < 400


def test_parameters_are_utf_8_in_every_locale(folder):
    """Neither a locale of ASCII nor one of Latin-1 changes what arrives in the notebook."""
    path = folder / "p.yaml"
    path.write_text("names: [ü世]\n", encoding="utf-8")
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **ascii_only}
    command = [sys.executable, "-m", "vgmr", "run", "01", "-f", str(path), "-p", "mode=ä世", "--output", "a.ipynb"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", env=environment)
    assert done.returncode == 0, done.stderr
    assert run.records(folder / "a.ipynb")["tiny"]["names"] == ["ü世"]
    injected = next(cell for cell in run.cells(folder / "a.ipynb") if "injected-parameters" in run.tags(cell))
    assert ast.literal_eval(injected["source"].partition("mode = ")[2].splitlines()[0]) == "ä世"


def test_parameters_given_twice_are_refused(folder):
    assert run.read_parameters(["a=1", "b=x=y"]) == {"a": "1", "b": "x=y"}
    with pytest.raises(ValueError, match="-p a is given twice"):
        run.read_parameters(["a=1", "a=2"])
    with pytest.raises(ValueError, match="expected one -f, got 2; put the parameters in one file"):
        run.main(["01", "-f", "p.yaml", "-f", "q.yaml"])
    (folder / "p.yaml").write_text("a: 5\nc: 6")
    assert run.read_parameters(["a=1"], folder / "p.yaml") == {"a": "1", "c": 6}


BROKEN = [b"", b"[]", b'{"cells": 1}', b'{"cells": [[]]}', b'{"cells": [{"cell_type": "code"}]}', b"\xff\xfe"]
BROKEN += [b'{"cells": [{"cell_type": "code", "source": "", "metadata": []}]}', b"[" * 100_000]
CELL = '{"nbformat": 4, "cells": [{"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": %s}]}'
BROKEN += [CELL.replace("4", other).encode() % b'"a: int = 1"' for other in ("3", "5", "null")]
BROKEN += [b'{"nbformat": 4, "cells": [{"cell_type": "code", "source": ""}]}']
BROKEN += [(CELL % source).encode() for source in ('"a: int = ("', '"a: int[str] = 1"', '"a: int = b()"')]


@pytest.mark.parametrize("content", BROKEN, ids=lambda content: repr(content[-30:]))
def test_a_file_that_is_no_notebook_is_refused_in_one_line(folder, content):
    path = folder / "notebooks" / "02_broken.ipynb"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"02_broken\.ipynb") as error:
        run.parameters(path)
    assert "\n" not in str(error.value)


def test_two_cells_of_parameters_are_refused(folder):
    """Values are put after the first, so that a second one would undo them."""
    path = folder / "notebooks" / "01_tiny.ipynb"
    book = json.loads(path.read_text())
    first = next(cell for cell in book["cells"] if "parameters" in cell["metadata"].get("tags", []))
    book["cells"].append(first)
    path.write_text(json.dumps(book))
    with pytest.raises(ValueError, match=r"01_tiny\.ipynb: expected one cell tagged parameters, got several"):
        run.parameters(path)


def test_a_notebook_that_names_no_language_is_python(folder):
    (folder / "home").mkdir()
    path = folder / "notebooks" / "01_tiny.ipynb"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"metadata": {}}))
    assert run.run_notebook(path, {"seed": 3}, folder / "a.ipynb", progress=False)["tiny"]["square"] == 9


@pytest.mark.parametrize("content", [[1], {"values": {}}, {"name": "x", "values": 3}, {"name": 1, "values": {}}])
def test_what_is_no_record_is_left_out_and_named(folder, content):
    path = folder / "a.ipynb"
    outputs = [{"data": {run.RECORD: one}} for one in (content, {"name": "ours", "values": {"a": 1}})]
    cell = {"cell_type": "code", "metadata": {}, "source": "", "outputs": [*outputs, {"data": {}}]}
    path.write_text(json.dumps({"nbformat": 4, "cells": [cell]}))
    with pytest.warns(UserWarning, match=r"a\.ipynb: no name and values in the record"):
        assert run.records(path) == {"ours": {"a": 1}}


def test_several_signals_at_once_are_one_interruption(monkeypatch):
    unraisable = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    numbers = (signal.SIGINT, signal.SIGTERM)
    with pytest.raises(run.Interrupted), run.interruptible():
        signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
        for number in numbers:
            signal.raise_signal(number)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
    assert unraisable == []


def test_tables_are_those_of_the_run_that_finished(folder):
    (folder / "home").mkdir()
    path = folder / "notebooks" / "01_tiny.ipynb"
    book = json.loads(path.read_text())
    book["cells"][2]["source"] = (
        "import os, pathlib\nhere = pathlib.Path(os.environ['VGMR_TABLES'])\nhere.mkdir()\nfor name in names:\n"
        "    (here / f'{name}.csv').write_text(str(seed))\nassert mode != 'bad'"
    )
    path.write_text(json.dumps(book))
    output, tables = folder / "out" / "a.ipynb", folder / "out" / "a-tables"

    def there() -> dict[str, str]:
        return {file.name: file.read_text() for file in tables.iterdir()}

    run.run_notebook(path, {"seed": 1, "names": ["x", "y"]}, output, progress=False)
    (tables / "mine.txt").write_text("mine")
    first = {"x.csv": "1", "y.csv": "1", "mine.txt": "mine"}
    assert there() == first
    with pytest.raises(RuntimeError, match="01_tiny failed in cell 3: AssertionError"):
        run.run_notebook(path, {"seed": 2, "names": ["x"], "mode": "bad"}, output, progress=False)
    assert there() == first and run.records(output)["tiny"]["square"] == 1
    run.run_notebook(path, {"seed": 2, "names": ["x"]}, output, progress=False)
    assert there() == {"x.csv": "2", "mine.txt": "mine"} and run.records(output)["tiny"]["square"] == 4
    assert sorted(file.name for file in output.parent.iterdir()) == ["a-tables", "a.ipynb"]


def test_of_an_endless_error_its_beginning_is_said(folder):
    (folder / "home").mkdir()
    path = folder / "notebooks" / "01_tiny.ipynb"
    book = json.loads(path.read_text())
    book["cells"][2]["source"] = "raise ValueError('so ' * 1_000_000)"
    path.write_text(json.dumps(book))
    with pytest.raises(
        RuntimeError, match=r"cell 2: ValueError: so so .*so \.\.\. \(3,000,012 characters\); see"
    ) as said:
        run.run_notebook(path, {}, folder / "out" / "a.ipynb", progress=False)
    assert len(str(said.value)) < 3000


def test_a_full_disk_is_named_and_leaves_no_cut_notebook(folder, monkeypatch):
    import papermill

    def full(source, unfinished, *_, **__):
        Path(unfinished).write_text('{"cells": [')
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(papermill, "execute_notebook", full)
    with pytest.raises(OSError, match="No space left on device") as error:
        run.run_notebook(Path("notebooks/01_tiny.ipynb"), {}, folder / "out" / "a.ipynb", progress=False)
    assert error.value.filename == str(folder / "out" / "a.failed.ipynb") and not list((folder / "out").iterdir())


def test_a_tuple_stays_one(folder):
    (folder / "home").mkdir()
    path = folder / "notebooks" / "02_tuple.ipynb"
    book = json.loads(Path("notebooks/01_tiny.ipynb").read_text())
    book["cells"][1]["source"] = 'pair: tuple[int, str] = (1, "a")\ndata: dict = {}\nother: str = ""'
    book["cells"][2]["source"] = 'assert repr((pair, data, other)) == """%s"""'
    values = {"pair": (2, "b'\"\\ü"), "data": {"a": (1, [2.5, None, True])}, "other": "(1,)"}
    book["cells"][2]["source"] %= repr(tuple(values.values())).replace("\\", "\\\\")
    path.write_text(json.dumps({**book, "cells": book["cells"][:3]}))
    (folder / "p.json").write_text(json.dumps(values))
    typed = run.read_parameters([f"data={values['data']}"], folder / "p.json")
    for one in (values, typed):
        run.run_notebook(path, one, folder / "a.ipynb", progress=False)
    assert run.given(folder / "a.ipynb") == values
    with pytest.raises(ValueError, match=r"pair: expected tuple\[int, str\], such as \(1, 'a'\), got \[1, 2\]"):
        run.check_overrides(path, {"pair": [1, 2]})


def test_what_to_write_is_said(folder, monkeypatch):
    with pytest.raises(ValueError, match="parameter seed: expected int, such as 0, got 'x'"):
        run.check_overrides(Path("notebooks/01_tiny.ipynb"), {"seed": "x"})
    monkeypatch.chdir(folder / "notebooks")
    with pytest.raises(FileNotFoundError, match="go to the repository's folder, or give a path to one"):
        run.find_notebook("01")
