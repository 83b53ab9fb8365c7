"""What nbval runs beside the cells: the solutions of a notebook's exercises, as they are written.

A solution is a block ```python ... ``` within <details> ... </details> of a Markdown cell. It runs after the last
code cell, in the same kernel, where a reader would paste it; its assertions are the test.

A notebook whose data can be neither found nor downloaded is skipped with the reason, but not in CI.
"""

import os
import re
from collections import defaultdict
from pathlib import Path

import nbformat
import pytest
from nbval.plugin import IPyNbCell, IPyNbFile

from vgmr.data import load
from vgmr.notebook.publish import python_blocks
from vgmr.notebook.run import parameters

DETAILS = re.compile(r"<details>(.*?)</details>", re.S)


def solutions(book) -> list[str]:
    """The code of all solutions in a notebook, in order."""
    texts = [cell.source for cell in book.cells if cell.cell_type == "markdown"]
    return [block for text in texts for details in DETAILS.findall(text) for block in python_blocks(details)]


def with_solutions(self, cells=IPyNbFile.collect):
    """The cells of a notebook, then its solutions."""
    own = list(cells(self))
    yield from own
    for number, block in enumerate(solutions(self.nb), 1):
        cell, options = nbformat.v4.new_code_cell(block), defaultdict(bool, check=False)
        place = {"name": f"Solution {number}", "cell_num": len(own) + number - 1}
        yield IPyNbCell.from_parent(self, cell=cell, options=options, **place)


IPyNbFile.collect = with_solutions


def missing(notebook: Path) -> str:
    """Why the data that a notebook trains on by default are not at hand; empty if they are."""
    known = parameters(notebook)
    names = known["datasets"][1] if "datasets" in known else [known["dataset"][1]] if "dataset" in known else []
    for name in names:
        options = known["data_options"][1] if "data_options" in known else {}
        try:
            load(name, **options)
        except OSError as error:
            return f"{name}: {error}"
    return ""


def pytest_collection_modifyitems(items):
    if os.environ.get("CI"):
        return
    reasons = {}
    for item in items:
        if item.path.suffix == ".ipynb":
            reasons.setdefault(item.path, missing(item.path))
            if reasons[item.path]:
                item.add_marker(pytest.mark.skip(reason=reasons[item.path]))
