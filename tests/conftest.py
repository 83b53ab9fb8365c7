"""Shared fixtures."""

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture
def real_data() -> Path:
    """Folder with the real public data; where there is none the test is skipped, but never in CI."""
    root = os.environ.get("VGMR_DATA")
    if root and Path(root).is_dir():
        return Path(root)
    message = "VGMR_DATA does not name a folder with the real data"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)
