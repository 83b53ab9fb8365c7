"""Collapsed solutions of the notebooks' exercises run as they are written.

A solution is a block ```python ... ``` within <details> ... </details> of a Markdown cell. It runs in a kernel, in
the folder of the notebooks, after those of the code cells above it that it needs: the one that calls `setup()`,
the parameters, and whatever gives a name, or changes a thing, that it or they use. Its assertions are the test.
"""

import ast
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parent.parent.parent / "notebooks"
DETAILS = re.compile(r"<details>(.*?)</details>", re.S)
BLOCK = re.compile(r"^```python\n(.*?)^```", re.S | re.M)
CHANGING = {"append", "extend", "update", "add", "copy_", "to", "prepare", "eval", "requires_grad_"}


def solutions(source: str) -> list[str]:
    return [block for details in DETAILS.findall(source) for block in BLOCK.findall(details)]


def names(code: str) -> tuple[set[str], set[str]]:
    """Names that code gives to things or whose things it changes; all names that it uses."""
    given, used = set(), set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Name):
            (used if isinstance(node.ctx, ast.Load) else given).add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            given.add(node.name)
        elif isinstance(node, ast.alias):
            given.add((node.asname or node.name).split(".")[0])
        elif isinstance(node, ast.Subscript | ast.Attribute) and isinstance(node.value, ast.Name):
            stored = isinstance(node.ctx, ast.Store | ast.Del)
            if stored or (isinstance(node, ast.Attribute) and node.attr in CHANGING):
                given.add(node.value.id)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "fit":
            given |= {argument.id for argument in node.args if isinstance(argument, ast.Name)}
    return given, used


def needed(before: list, solution: str) -> list[int]:
    """Places of the cells in `before` on which a solution rests."""
    wanted, kept = names(solution)[1], []
    for place in reversed(range(len(before))):
        cell = before[place]
        given, used = names(cell.source)
        always = "parameters" in cell.metadata.get("tags", []) or "setup" in used
        if always or given & wanted:
            kept.append(place)
            wanted |= used
    return kept[::-1]


def exercises(path: Path) -> list:
    """Code cells to run in order: those that solutions need, and the solutions."""
    before, kept, found = [], {}, []
    for cell in nbformat.read(path, 4).cells:
        tags = cell.metadata.get("tags", [])
        if cell.cell_type == "code" and not {"colab", "widget"} & set(tags):
            before.append(cell)
        for block in solutions(cell.source) if cell.cell_type == "markdown" else []:
            kept |= {place: before[place] for place in needed(before, block)}
            found.append((len(before), nbformat.v4.new_code_cell(block)))
    cells = [(place, 0, cell) for place, cell in kept.items()]
    cells += [(place - 1, 1, cell) for place, cell in found]
    return [cell for _, _, cell in sorted(cells, key=lambda one: one[:2])]


NOTEBOOKS = [path for path in sorted(FOLDER.glob("[0-9][0-9]_*.ipynb")) if "```python" in path.read_text("utf-8")]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_solutions_run_as_written(path):
    cells = exercises(path)
    assert cells, f"{path.name}: python blocks, but none within <details>"
    book = nbformat.v4.new_notebook(cells=cells)
    options = {
        "timeout": 250,
        "startup_timeout": 200,
        "kernel_name": "python3",
        "resources": {"metadata": {"path": str(FOLDER)}},
    }
    NotebookClient(book, **options).execute()


def test_a_solution_takes_the_cells_that_it_needs_and_no_others():
    lines = [
        "import math\nsetup()",
        "a = [1]",
        "b = 2",
        "a.append(3)",
        "def f(x):\n    return x + len(a)",
        "c = b",
    ]
    cells = [nbformat.v4.new_code_cell(line) for line in lines]
    assert needed(cells, "assert f(1) == 3") == [0, 1, 3, 4]
    assert needed(cells, "assert math.pi") == [0]


def test_solutions_are_python_blocks_within_details():
    text = "```python\nno\n```\n<details><summary>Solution</summary>\n\n```python\nx = 1\n```\nSo.\n</details>"
    assert solutions(text) == ["x = 1\n"]
