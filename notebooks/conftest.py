"""A notebook whose data can be neither found nor downloaded is skipped with the reason, but not in CI."""

import os
from pathlib import Path

import pytest

from vgmr.data import load
from vgmr.notebook.run import parameters


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
