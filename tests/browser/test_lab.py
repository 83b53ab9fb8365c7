"""The notebooks as a reader meets them: JupyterLab in a real browser."""

import os
import shutil
from pathlib import Path

import nbformat
import pytest
from lab import browser_context, chromium, drive, explorers, place, server, sift

pytestmark = pytest.mark.timeout(900)  # the first time, the quickstart trains
NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


def with_widget(explorer: bool) -> list[Path]:
    """Notebooks with an explorer, or with a table that menus sift."""
    found = []
    for path in sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb")):
        cells = [cell for cell in nbformat.read(path, 4).cells if "widget" in cell.metadata.get("tags", [])]
        if any(("explore(" in cell.source) == explorer for cell in cells):
            found.append(path)
    return found


# Every explorer runs as a cell in the tests of notebooks; these are driven too, the quickstart in its own test.
DRIVEN = ("03", "14", "17", "18", "20")
EXPLORED = [path for path in with_widget(True) if path.stem[:2] in DRIVEN]
SIFTED = with_widget(False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A copy of the notebooks, so that nothing under version control changes."""
    copied = tmp_path_factory.mktemp("lab") / "notebooks"
    shutil.copytree(NOTEBOOKS, copied, ignore=shutil.ignore_patterns("executed", ".ipynb_checkpoints"))
    return copied


@pytest.fixture(scope="module")
def lab(folder, tmp_path_factory):
    """What `drive` needs first: a browser window, the server's address and its token."""
    if not chromium():
        message = "no chromium on this machine; Debian and Ubuntu have it as the package chromium"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    with server(folder, tmp_path_factory.mktemp("home")) as (address, token), browser_context() as context:
        yield context, address, token


def test_the_quickstart_runs_and_its_explorer_answers(lab, folder):
    path = place(nbformat.read(NOTEBOOKS / "01_quickstart.ipynb", 4), folder / "quickstart.ipynb")
    (lines,) = drive(*lab, path.name)
    assert len(set(lines)) > 1 and all("VGMR, calibrated says" in line for line in lines)


@pytest.mark.parametrize("original", EXPLORED, ids=lambda path: path.stem)
def test_explorers_answer(lab, folder, original):
    path = place(explorers(original), folder / f"explorers-{original.stem}.ipynb")
    drive(*lab, path.name)


@pytest.mark.parametrize("original", SIFTED, ids=lambda path: path.stem)
def test_every_table_is_sifted_by_its_menus(lab, folder, original):
    # the whole notebook: its table rests on what the others recorded
    path = place(nbformat.read(original, 4), folder / f"table-{original.stem}.ipynb")
    assert sift(*lab, path.name) >= 2


def test_a_dead_slider_is_noticed(lab, folder):
    book = explorers(NOTEBOOKS / "01_quickstart.ipynb")
    book.cells.append(nbformat.v4.new_code_cell("for control in _.children:\n    control.unobserve_all('value')"))
    path = place(book, folder / "dead.ipynb")
    with pytest.raises(AssertionError, match="the figure did not change with slider 0"):
        drive(*lab, path.name, patience=8)


def test_a_failing_cell_is_noticed(lab, folder):
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0")])
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        drive(*lab, place(book, folder / "failing.ipynb").name)


def test_a_request_to_another_machine_is_noticed(lab, folder):
    book = explorers(NOTEBOOKS / "03_method_walkthrough.ipynb")
    picture = (
        "from IPython.display import HTML, display\ndisplay(HTML('<img src=\"https://elsewhere.example/a.png\">'))"
    )
    book.cells.append(nbformat.v4.new_code_cell(picture))
    with pytest.raises(AssertionError, match=r"asked other machines: .*elsewhere\.example"):
        drive(*lab, place(book, folder / "outside.ipynb").name)
