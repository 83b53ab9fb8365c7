"""Shared fixtures."""

import functools
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

settings.register_profile(
    "project", deadline=None, derandomize=True, max_examples=50, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("project")
torch.set_num_threads(1)


def pytest_collection_modifyitems(config, items):
    """Tests marked `cuda` are there only where a GPU is."""
    if torch.cuda.is_available():
        return
    of_gpu = [item for item in items if item.get_closest_marker("cuda")]
    if of_gpu:
        config.hook.pytest_deselected(items=of_gpu)
        items[:] = [item for item in items if item not in of_gpu]


@pytest.fixture(autouse=True)
def drawn_alike():
    """What a test itself draws without a seed is the same each time, so that a failure comes back."""
    torch.manual_seed(0)
    np.random.seed(0)


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


@pytest.fixture
def trained(monkeypatch):
    """The seeds that were trained, in order."""
    from vgmr import experiment as module

    seeds = []
    fit = module.fit

    @functools.wraps(fit)
    def noted(*given, **named):
        seeds.append(named["seed"])
        return fit(*given, **named)

    monkeypatch.setattr(module, "fit", noted)
    return seeds
