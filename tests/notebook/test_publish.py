"""What `vgmr notebooks check` says to do."""

import json

import nbformat
import pytest

from vgmr.notebook import publish
from vgmr.notebook.publish import Problem

FOUND = {
    "01_sound": [],
    "02_stale": [Problem("generated cell navigation is missing or stale", "clean")],
    "03_edited": [Problem("not executed from top to bottom"), Problem("generated cell badge is stale", "clean")],
    "04_untagged": [Problem("needs exactly one cell tagged parameters", "hand")],
    "06_wide": [Problem("2 lines of code are wider than 88 columns, such as 'x = 1'", "hand")],
    "05_both": [Problem("parameter without type or comment: x = 1", "hand"), Problem("stray cell metadata")],
}


def said(found, tmp_path, monkeypatch, capsys):
    """The lines of advice that follow the problems."""
    (tmp_path / "notebooks").mkdir(exist_ok=True)
    for name in found:
        nbformat.write(nbformat.v4.new_notebook(), tmp_path / "notebooks" / f"{name}.ipynb")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(publish, "problems", lambda path: found[path.stem])
    status = publish.main(["check"])
    return status, [line for line in capsys.readouterr().out.splitlines() if line.startswith("mend")]


def test_each_problem_is_mended_by_the_least_that_does_it(tmp_path, monkeypatch, capsys):
    status, advice = said(FOUND, tmp_path, monkeypatch, capsys)
    assert status == 1
    assert advice == [
        "mend tags, parameters and cells in the notebook itself, then build it",
        "mend with: vgmr notebooks build 03 05",
        "mend with: vgmr notebooks clean 02",
    ]


def test_without_problems_nothing_is_advised(tmp_path, monkeypatch, capsys):
    assert said({"01_sound": []}, tmp_path, monkeypatch, capsys) == (0, [])


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Of a notebook in a project that holds no other."""
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text('[project.urls]\nRepository = "https://github.com/a/b"\n')
    return publish.FOLDER / "21_own.ipynb"


def test_what_is_off_in_a_notebook_is_said_with_what_to_write(place):
    cell = nbformat.v4.new_code_cell("epochs: int = 2", metadata={"tags": ["parameters"]})
    title = nbformat.v4.new_markdown_cell("# Title")
    nbformat.write(nbformat.v4.new_notebook(cells=[title, cell]), place)
    found = publish.problems(place)
    assert "parameter without type or comment: epochs: int = 2; write NAME: TYPE = VALUE  # what it is" in found
    assert any(line.startswith("fewer than three cells tagged nbval-check-output; tag those") for line in found)


def test_code_that_would_scroll_sideways_is_named(place):
    fits, wide = "x = 1" + " " * 83, "y = 1" + " " * 84
    cells = [nbformat.v4.new_markdown_cell("# Title"), nbformat.v4.new_code_cell(fits)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), place)
    assert not any("wider" in line for line in publish.problems(place))
    cells += [nbformat.v4.new_code_cell(wide), nbformat.v4.new_markdown_cell(f"```python\n{wide}\n```")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), place)
    assert any(line.startswith("2 lines of code are wider than 88 columns") for line in publish.problems(place))


@pytest.mark.parametrize(
    ("source", "unseen"),
    [
        ('table(frame, "costs", "what it costs")', []),
        ('table(frame, "costs", "what it costs")\nclaim("cheap", True)', ["costs"]),
        ('table(frame, "costs", caption="what it costs")\nx = 1', ["costs"]),
        ('table(frame, "costs")\nprint("in a file alone")', []),
        ('shown = table(frame, "costs", "what it costs")\nshown', []),
        ('!ls\ntable(frame, "costs", "what it costs")\n1', []),
        ("", []),
    ],
)
def test_a_table_that_its_cell_does_not_show_is_named(source, unseen):
    """Found on a page where claims had been added below a table, which was gone."""
    assert publish.unseen_tables(source) == unseen


def test_a_text_cell_that_is_too_long_is_named(place):
    for words, said in ((200, []), (201, ["a text cell has 201 words, more than 200: 'so so so so so so'"])):
        cells = [nbformat.v4.new_markdown_cell("# Title"), nbformat.v4.new_markdown_cell("so " * words)]
        nbformat.write(nbformat.v4.new_notebook(cells=[*cells, nbformat.v4.new_code_cell("1")]), place)
        found = [line for line in publish.problems(place) if "text cell" in line]
        assert found == said and all(line.remedy == "hand" for line in found)


@pytest.mark.parametrize(
    "content", ["", "{", "{}", "[]", '{"cells": 3}', '{"nbformat": 99, "cells": []}', "\ufeff{}", "\udcff"]
)
def test_what_is_no_notebook_is_named(tmp_path, content, capsys, monkeypatch):
    path = tmp_path / "notebooks" / "21_own.ipynb"
    path.parent.mkdir()
    path.write_bytes(content.encode(errors="surrogateescape"))
    monkeypatch.chdir(tmp_path)
    for action in ("check", "clean"):
        with pytest.raises(
            ValueError, match=r"notebooks/21_own.ipynb: not a notebook of format 4 \(.+\)"
        ) as error:
            publish.main([action, "21"])
        assert "\n" not in str(error.value)


def test_notebooks_without_what_every_notebook_has_are_described(place):
    title = nbformat.v4.new_markdown_cell("# Title")
    code = nbformat.v4.new_code_cell("x = = 1", metadata={"tags": ["parameters"]})
    nbformat.write(nbformat.v4.new_notebook(cells=[title]), place)
    assert "no cell of code" in publish.problems(place)
    for cell in (title, code):
        del cell["id"]  # as before format 4.5
    place.write_text(json.dumps({"cells": [title, code], "metadata": {}, "nbformat": 4, "nbformat_minor": 4}))
    found = publish.problems(place)
    assert "cell ids are not cell-001 to the last" in found
    assert "the cell tagged parameters is not Python: invalid syntax, line 1" in found
    assert set(publish.cleaned(publish.renewed(place)).metadata) == {"language_info"}


def test_a_notebook_is_checked_by_its_path_too(place, capsys):
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Title")]), place)
    (place.parent.parent / "elsewhere.ipynb").write_bytes(place.read_bytes())
    said = []
    for name in ("21", str(place), str(place.absolute())):
        assert publish.main(["check", name]) == 1
        said.append(capsys.readouterr().out)
    assert "no cell of code" in said[0] and said == [said[0]] * 3
    with pytest.raises(
        ValueError, match=r"elsewhere\.ipynb: expected one of .*notebooks, named such as 01_name\.ipynb"
    ):
        publish.main(["check", "elsewhere.ipynb"])


def test_readme_is_of_all_notebooks(place, monkeypatch):
    monkeypatch.setattr(publish, "write_readme", lambda: pytest.fail("written"))
    with pytest.raises(ValueError, match="readme is of all notebooks, got 01 99; give no names"):
        publish.main(["readme", "01", "99"])


def test_cleaning_leaves_a_whole_notebook_or_the_old_one(tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text('[project.urls]\nRepository = "https://github.com/a/b"\n')
    place = publish.FOLDER / "21_own.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Title")]), place)
    before = place.read_bytes()

    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    monkeypatch.setattr("pathlib.Path.write_text", full)
    with pytest.raises(OSError, match="No space left"):
        publish.main(["clean", "21"])
    assert place.read_bytes() == before and [path.name for path in place.parent.iterdir()] == [place.name]
