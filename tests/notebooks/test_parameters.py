"""Parameters that a notebook cannot take are refused at once; those at the ends of their range are taken."""

from pathlib import Path

import matplotlib.pyplot as plt
import pytest

from vgmr.notebook.run import cells, check_overrides, find_notebook, tags

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def repository(monkeypatch):
    monkeypatch.chdir(ROOT)


def begun(number: str, until: str, **given) -> dict:
    """What the code cells of a notebook define, up to the one that holds `until`, with these parameters."""
    space: dict = {}
    for cell in cells(find_notebook(number)):
        if cell["cell_type"] != "code" or "colab" in tags(cell):
            continue
        exec(cell["source"], space)
        if "parameters" in tags(cell):
            space |= given
        if until in cell["source"]:
            return space
    raise AssertionError(f"{number} has no cell with {until}")


@pytest.mark.parametrize(
    ("number", "given", "said"),
    [
        *[(number, {"seeds": 1}, "seeds must be at least 2") for number in ("01", "04", "09", "10", "12", "13")],
        *[(number, {"seeds": 0}, "seeds must be at least 2") for number in ("01", "11", "13", "15")],
        *[(number, {"datasets": []}, "expected one or more") for number in ("02", "09", "11", "13", "15", "18")],
        ("02", {"draws": 0}, "draws must be at least 1"),
        ("15", {"epochs": 0}, "epochs must be at least 1"),
        ("14", {"seed": -1}, "seed must not be negative"),
    ],
)
def test_refused_before_a_kernel_starts(number, given, said):
    with pytest.raises(ValueError, match=said):
        check_overrides(find_notebook(number), given)


def test_no_data_set_means_all_where_the_notebook_says_so():
    assert check_overrides(find_notebook("19"), {"datasets": "[]"}) == {"datasets": []}


@pytest.mark.parametrize(
    ("number", "given"),
    [
        *[(number, {"datasets": ["nope"]}) for number in ("02", "09", "11", "13", "15", "18")],
        ("14", {"seed": 7}),
        ("17", {"live": 20}),
    ],
)
def test_refused_where_parameters_are_checked(number, given):
    with pytest.raises(ValueError, match=rf"parameter {next(iter(given))}: expected one .*, got "):
        begun(number, "check_parameters(", **given)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # matplotlib turns tensors into arrays
@pytest.mark.parametrize(("conflict", "pictures"), [(0.0, 2), (0.5, 6), (1.0, 4)])
def test_the_quickstart_shows_the_pictures_that_there_are(conflict, pictures):
    space = begun("01", "figure, axes", conflict=conflict)
    assert len(space["shown"]) == pictures
    plt.close("all")
