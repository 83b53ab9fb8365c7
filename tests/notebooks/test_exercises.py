"""Solutions of exercises are tested: nbval runs each, as it is written, behind the cells of its notebook."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbval.plugin import IPyNbFile

FOLDER = Path(__file__).parent.parent.parent / "notebooks"
NOTEBOOKS = [path for path in sorted(FOLDER.glob("[0-9][0-9]_*.ipynb")) if "```python" in path.read_text("utf-8")]


@pytest.fixture(scope="module")
def solutions():
    specification = importlib.util.spec_from_file_location("beside_notebooks", FOLDER / "conftest.py")
    module = importlib.util.module_from_spec(specification)
    before = IPyNbFile.collect
    try:
        specification.loader.exec_module(module)
    finally:
        IPyNbFile.collect = before
    return module.solutions


def collected(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--nbval-lax",
        "--nbval-current-env",
    ]
    return subprocess.run([*command, *arguments], cwd=folder, capture_output=True, text=True, encoding="utf-8")


def test_every_solution_is_run(solutions):
    listed = collected(FOLDER, "--collect-only", *(path.name for path in NOTEBOOKS)).stdout.splitlines()
    assert len(NOTEBOOKS) > 15
    for path in NOTEBOOKS:
        found = solutions(nbformat.read(path, 4))
        assert found, f"{path.name}: python blocks, but none within <details>"
        run = [line.rpartition("::")[2] for line in listed if f"{path.name}::Solution" in line]
        assert run == [f"Solution {number}" for number in range(1, len(found) + 1)]


def test_solutions_are_python_blocks_within_details(solutions):
    text = "```python\nno\n```\n<details><summary>Solution</summary>\n\n```python\nx = 1\n```\nSo.\n</details>"
    cells = [nbformat.v4.new_markdown_cell(text), nbformat.v4.new_code_cell("'''<details>```python'''")]
    assert solutions(nbformat.v4.new_notebook(cells=cells)) == ["x = 1\n"]


@pytest.mark.parametrize(("solution", "status"), [("assert a == 1", 0), ("assert a == 2", 1)])
def test_a_solution_uses_the_cells_and_a_wrong_one_fails(tmp_path, solution, status):
    (tmp_path / "conftest.py").write_bytes((FOLDER / "conftest.py").read_bytes())
    text = f"<details><summary>Solution</summary>\n\n```python\n{solution}\n```\n\n</details>"
    cells = [nbformat.v4.new_code_cell("a = 1"), nbformat.v4.new_markdown_cell(text)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "01_made.ipynb")
    done = collected(tmp_path, "01_made.ipynb")
    assert done.returncode == status, done.stdout
    assert ("2 passed" in done.stdout) == (status == 0)
