"""Parameters, records and explorers of `vgmr.notebook.lesson`; execution by `vgmr.notebook.run`."""

import base64
import io
import json
from types import SimpleNamespace
from typing import Literal, Optional

import ipywidgets as widgets
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vgmr.notebook import lesson as notebook
from vgmr.notebook import publish
from vgmr.notebook import run as batch


@pytest.mark.parametrize(
    ("value", "annotation", "fitting"),
    [
        (3, int, True),
        (3.0, int, False),
        (True, int, False),
        (3, float, True),
        (True, float, False),
        ("3", float, False),
        (None, str | None, True),
        (3, str | None, False),
        ([1, 2], list[int], True),
        ([1, "2"], list[int], False),
        ("[1, 2]", list[int], False),
    ],
)
def test_fits(value, annotation, fitting):
    assert notebook.fits(value, annotation) is fitting


def test_check_parameters(capsys):
    space = {"__annotations__": {"seeds": int, "dataset": str}, "seeds": 3, "dataset": "digits", "other": 1}
    notebook.check_parameters(space, dataset=["digits", "synthetic"])
    assert capsys.readouterr().out == "seeds=3, dataset='digits'\n"
    with pytest.raises(TypeError, match=r"parameter seeds: expected int, got str '3'"):
        notebook.check_parameters({**space, "seeds": "3"})
    with pytest.raises(ValueError, match=r"parameter dataset: expected one of \['digits'\], got 'digit'"):
        notebook.check_parameters({**space, "dataset": "digit"}, dataset=["digits"])
    with pytest.raises(ValueError, match=r"^parameter seeds: seeds must be at least 2, got 1$"):
        notebook.check_parameters({**space, "seeds": 1})


def test_check_parameters_with_a_list():
    space = {"__annotations__": {"datasets": list[str]}}
    notebook.check_parameters({**space, "datasets": ["a", "b"]}, datasets={"a": 1, "b": 2})
    notebook.check_parameters({**space, "datasets": []})
    notebook.check_parameters({"__annotations__": {"sizes": list[int]}, "sizes": [1, 1]})
    with pytest.raises(ValueError, match=r"parameter datasets: expected each name once, got \['a', 'b', 'a'\]"):
        notebook.check_parameters({**space, "datasets": ["a", "b", "a"]}, datasets=["a", "b"])
    for wrong in ([], ["a", "nope"]):
        with pytest.raises(ValueError, match=r"parameter datasets: expected one or more of \['a', 'b'\], got \["):
            notebook.check_parameters({**space, "datasets": wrong}, datasets={"a": 1, "b": 2})


def test_a_check_without_an_interval_is_a_yes_or_a_no_and_no_verdict(capsys):
    notebook.claim("water is wet", True)
    notebook.claim("fire is wet", False)
    assert capsys.readouterr().out == "yes: water is wet\nno: fire is wet\n"


def test_explore_redraws_when_a_control_moves():
    def draw(height: float):
        figure, ax = plt.subplots(figsize=(2, 1))
        ax.bar([0], [height])
        ax.set_ylim(0, 1)
        return figure

    slider = widgets.FloatSlider(0.1, min=0, max=1)
    box = notebook.explore(draw, height=slider)
    picture = box.children[-1]
    before = picture.value
    slider.value = 0.9
    assert picture.value != before
    assert Image.open(io.BytesIO(picture.value)).size[0] > 100
    assert "height" in slider._dom_classes
    slider.value = 0.1
    assert picture.value == before
    assert not plt.get_fignums()


def test_explore_shows_the_line_that_the_picture_comes_with():
    slider = widgets.IntSlider(1, min=0, max=9)
    box = notebook.explore(
        lambda count: (plt.figure(figsize=(1, 1)), f"count {count}" if count else ""), count=slider
    )
    line = box.children[-2]
    assert (line.value, line.layout.display) == ("count 1", "flex")
    slider.value = 7
    assert line.value == "count 7"
    slider.value = 0
    assert line.layout.display == "none"


NOTEBOOK = """
seeds: int = 2  # trainings
rate: float = 0.5  # a share
name: str = "x"  # a name
names: list[str] = ["a"]  # several
root: str | None = None  # a folder
"""


@pytest.fixture
def small_notebook(tmp_path):
    cells = [
        nbformat.v4.new_code_cell(NOTEBOOK.strip(), metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(
            "from vgmr.notebook.lesson import record\nassert name != 'bad', name\n"
            "record('small', {'seeds': seeds, 'rate': rate, 'third': 1 / 3, 'names': names})"
        ),
    ]
    book = nbformat.v4.new_notebook(cells=cells)
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path = tmp_path / "small.ipynb"
    nbformat.write(book, path)
    return path


def test_overrides_are_typed_and_known(small_notebook):
    given = {"seeds": "3", "rate": "1e-4", "name": "7", "names": "['b', 'c']"}
    expected = {"seeds": 3, "rate": 1e-4, "name": "7", "names": ["b", "c"]}
    assert batch.check_overrides(small_notebook, {"root": "data"}) == {"root": "data"}
    assert batch.check_overrides(small_notebook, given) == expected
    with pytest.raises(ValueError, match="no parameter 'seed'; there are: seeds, rate, name, names, root"):
        batch.check_overrides(small_notebook, {"seed": 3})
    with pytest.raises(ValueError, match=r"parameter seeds: expected int, such as 2, got 3\.5"):
        batch.check_overrides(small_notebook, {"seeds": "3.5"})
    with pytest.raises(ValueError, match=r"parameter rate: expected float, such as 0\.5, got 'high'"):
        batch.check_overrides(small_notebook, {"rate": "high"})


def test_run_notebook_records_and_leaves_nothing_half_done(small_notebook, tmp_path):
    output = tmp_path / "out" / "small.ipynb"
    found = batch.run_notebook(small_notebook, {"seeds": "5"}, output, progress=False)
    assert found == {"small": {"seeds": 5, "rate": 0.5, "third": 0.333333, "names": ["a"]}}
    assert batch.records(output) == found
    assert [path.name for path in output.parent.iterdir()] == ["small.ipynb"]
    failing = tmp_path / "out" / "failing.ipynb"
    with pytest.raises(Exception, match="AssertionError"):
        batch.run_notebook(small_notebook, {"name": "bad"}, failing, progress=False)
    assert not failing.exists()


def test_tables_of_a_run_lie_beside_its_output(small_notebook, tmp_path):
    """Hundreds of runs of one notebook neither overwrite each other's tables nor write where the notebook lies."""
    book = nbformat.read(small_notebook, 4)
    made = ["import pandas", "from vgmr.notebook.lesson import table"]
    made.append("table(pandas.DataFrame({'seeds': [seeds]}), 'few')")
    book.cells.append(nbformat.v4.new_code_cell("\n".join(made)))
    nbformat.write(book, small_notebook)
    for seeds in (3, 4):
        batch.run_notebook(
            small_notebook, {"seeds": seeds}, tmp_path / "out" / f"seeds-{seeds}.ipynb", progress=False
        )
        kept = tmp_path / "out" / f"seeds-{seeds}-tables" / "few.csv"
        assert kept.read_text(encoding="utf-8") == f"seeds\n{seeds}\n"
    assert not (tmp_path / "tables").exists()


def test_find_notebook(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "01_first.ipynb").write_text("{}")
    assert batch.find_notebook("01").name == batch.find_notebook("01_first").name == "01_first.ipynb"
    with pytest.raises(FileNotFoundError, match="no notebook '02'; there are: 01_first"):
        batch.find_notebook("02")


@given(
    st.dictionaries(
        st.text("abc", min_size=1),
        st.floats(-5, 5) | st.integers() | st.lists(st.integers()) | st.text(),
        max_size=4,
    )
)
def test_record_is_json_able_and_rounded(values):
    shown = []
    original, notebook.display = notebook.display, lambda content, raw: shown.append(content)
    try:
        notebook.record("any", values)
    finally:
        notebook.display = original
    content = json.loads(json.dumps(shown[0][notebook.RECORD]))
    assert content["name"] == "any"
    for key, value in values.items():
        assert content["values"][key] == (float(f"{value:.6g}") if isinstance(value, float) else value)


def test_evidence_keeps_floats_and_claims_use_the_four_words(capsys):
    row = {"label": "VGMR", "difference": 0.01, "low": 0.0004, "high": 0.02, "error": 0.005, "df": 9.0, "p": None}
    kept = notebook.evidence(row, paper=0.0191)
    assert kept == {"difference": 0.01, "low": 0.0004, "high": 0.02, "error": 0.005, "df": 9.0, "paper": 0.0191}
    notebook.claim("it gains", row)
    notebook.claim("it gains much", row | {"low": -0.001, "difference": 0.003, "high": 0.008}, paper=0.02)
    assert capsys.readouterr().out == (
        "held: it gains (+0.010 [+0.000, +0.020])\n"
        "smaller than the paper's: it gains much (+0.003 [-0.001, +0.008])\n"
    )


def test_a_table_is_short_to_read_and_whole_on_disk(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frame = pd.DataFrame({"label": ["plain"], "mean": [0.51234], "paper": [None], "seeds": [5]})
    html = notebook.table(frame, "accuracy", "a caption").to_html()
    assert "0.512" in html and "a caption" in html and "paper" not in html and "0.51234" not in html
    assert (tmp_path / "tables" / "accuracy.csv").read_text(encoding="utf-8").splitlines()[1] == "plain,0.51234,,5"
    assert notebook.table(frame, "accuracy", "a caption").to_html() == html, "a notebook built twice is the same"


def test_no_p_is_shown_as_zero(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frame = pd.DataFrame({"difference": [0.0001, 0.02, 0.03], "p_holm": [0.4, 0.0002, None]})
    html = notebook.table(frame, "few").to_html()
    assert "0.400" in html and html.count("&lt; 0.001") == 1 and html.count(">0.000<") == 1, "a difference may be"
    assert "&lt; 0.01" in notebook.table(pd.concat([frame, frame], ignore_index=True), "few", "", 2).to_html()
    assert "0.0002" in (tmp_path / "tables" / "few.csv").read_text(encoding="utf-8")


@pytest.fixture
def project(tmp_path, monkeypatch, small_notebook):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text('[project.urls]\nRepository = "https://github.com/someone/something"')
    folder = tmp_path / "notebooks"
    folder.mkdir()
    book = nbformat.read(small_notebook, 4)
    tagged = {"metadata": {"tags": ["nbval-check-output"]}}
    book.cells = [
        nbformat.v4.new_markdown_cell("# A title"),
        nbformat.v4.new_markdown_cell("", metadata={"tags": ["badge"]}),
        nbformat.v4.new_code_cell("", metadata={"tags": ["colab"]}),
        *book.cells,
        *(nbformat.v4.new_code_cell(f"print( {number} )", **tagged) for number in range(3)),
        nbformat.v4.new_markdown_cell("", metadata={"tags": ["navigation"]}),
    ]
    path = folder / "01_small.ipynb"
    nbformat.write(book, path)
    return path.relative_to(tmp_path)


def test_build_makes_a_notebook_that_passes_its_check(project):
    assert "not executed from top to bottom" in publish.problems(project)
    publish.build(project)
    assert publish.problems(project) == []
    text = project.read_text()
    assert "colab.research.google.com/github/someone/something/blob/main/notebooks/01_small.ipynb" in text
    assert "print(1)" in text
    publish.build(project)
    assert project.read_text() == text, "building twice changes nothing"


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda book: book.cells[3].update(execution_count=9), "not executed from top to bottom"),
        (lambda book: book.metadata.update(widgets={}), "stray metadata"),
        (lambda book: book.cells[3].metadata.update(execution={}), "stray cell metadata"),
        (lambda book: book.cells[1].update(source="[badge](nowhere)"), "generated cell badge is missing or stale"),
        (lambda book: book.cells[3].update(source="seeds = 2"), "parameter without type or comment: seeds = 2"),
        (lambda book: book.cells[5].metadata.update(tags=[]), "fewer than three cells tagged"),
        (
            lambda book: book.cells[4].outputs.append(nbformat.v4.new_output("stream", name="stderr", text="!")),
            "stderr",
        ),
    ],
)
def test_problems_finds_what_is_off(project, spoil, complaint):
    book = publish.prepared(project)
    for count, cell in enumerate((cell for cell in book.cells if cell.cell_type == "code"), 1):
        cell.execution_count = count
    nbformat.write(book, project)
    assert publish.problems(project) == []
    spoil(book)
    nbformat.write(book, project)
    assert any(complaint in line for line in publish.problems(project))


def test_figures_get_alt_text():
    defined = publish.functions("def draw(share):\n    ax.set(xlabel='share of samples', ylabel='a')")
    alt = publish.described("plots.seed_points(runs, ax)\nplt.show()", "The result", {})
    assert alt.startswith("The result: Every seed's difference to the baseline's score at the same seed as a dot")
    coloured = "plots.architecture()\nax.bar(x, y, color=[plots.COLOURS['corrupted'], plots.look('plain')[0]])"
    alt = publish.described(coloured, "Colours", {})
    assert alt.startswith("Colours: The Value-Gated Modality Refiner for one modality m") and "marker" not in alt
    assert publish.described("draw(0.1)", "Try it", defined) == "Try it: labelled share of samples."
    assert publish.described("plt.plot(x)", "What now?", defined) == "What now?: figure."


def test_clean_writes_alt_text_without_executing(project, capsys):
    book = publish.prepared(project)
    colours = np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)
    drawn = io.BytesIO()
    Image.fromarray(colours).save(drawn, "PNG")
    content = {"image/png": base64.b64encode(drawn.getvalue()).decode()}
    figure = nbformat.v4.new_output("display_data", content, metadata={"image/png": {"width": 3}})
    for count, cell in enumerate((cell for cell in book.cells if cell.cell_type == "code"), 1):
        cell.execution_count = count
    book.cells[5].outputs.append(figure)
    nbformat.write(book, project)
    assert publish.main(["check"]) == 1 and "a figure without alt text" in capsys.readouterr().out
    assert publish.main(["clean"]) == publish.main(["check"]) == 0
    output = nbformat.read(project, 4).cells[5].outputs[0]
    assert output.metadata == {"image/png": {"alt": "A title: figure."}}
    with Image.open(io.BytesIO(base64.b64decode(output.data["image/png"]))) as small:
        assert small.size == (40, 40) and len(small.convert("RGB").getcolors(1600)) <= 256
        assert np.abs(np.asarray(small.convert("RGB"), float) - colours).mean() < 30


@pytest.mark.parametrize(
    ("value", "annotation", "fitting"),
    [
        ((1, "a"), tuple[int, str], True),
        ((1, 2), tuple[int, str], False),
        ((1,), tuple[int, str], False),
        ((1, 2, 3), tuple[int, ...], True),
        ((1, "a"), tuple[int, ...], False),
        ([1, 2], tuple[int, ...], False),
        ({"a": "x"}, dict[str, int], False),
        ({1: 1}, dict[str, int], False),
        ({"a": [1.0]}, dict[str, list[float]], True),
        ({}, dict[str, int], True),
        ("a", Literal["a", "b"], True),
        ("c", Literal["a", "b"], False),
        (True, Literal[1, 2], False),
        (None, Literal["a"] | None, True),
        (3, Optional[float], True),  # noqa: UP045
        ([["a"], []], list[list[str]], True),
        ([["a"], [1]], list[list[str]], False),
    ],
)
def test_fits_looks_inside(value, annotation, fitting):
    assert notebook.fits(value, annotation) is fitting


def test_answers_say_verdict_and_points_of_every_row():
    rows = pd.DataFrame(
        {"dataset": ["a", "b"], "difference": [0.012, -0.002], "low": [0.004, -0.01], "high": [0.02, 0.006]}
    )
    text = notebook.answers({"Does it help?": rows, "And here?": rows[:1].assign(verdict="contradicted")}).data
    first, second = text.splitlines()
    assert first == (
        "- **Does it help?** a: held, +1.2 points [+0.4, +2.0]; b: undecided, -0.2 points [-1.0, +0.6]."
    )
    assert second == "- **And here?** a: contradicted, +1.2 points [+0.4, +2.0]."
    corrected = notebook.answers({"And corrected?": rows.assign(p_holm=[0.08, 0.5])}).data
    assert corrected == (
        "- **And corrected?** a: held, +1.2 points [+0.4, +2.0], not after Holm's correction (p = 0.08); "
        "b: undecided, -0.2 points [-1.0, +0.6]."
    )


def test_a_record_is_confirmed_by_the_whole_pass_or_not_at_all(monkeypatch, capsys):
    def run(seed, together):
        return SimpleNamespace(seed=seed, history=SimpleNamespace(together=together))

    trained, drift = [], []

    def confirm(runs, jobs):
        trained.append([one.seed for one in runs])
        return pd.DataFrame({"recorded": [0.8] * len(runs), "again": [0.8 + drift[-1]] * len(runs)})

    monkeypatch.setattr(notebook, "confirm", confirm)
    for far, word in ((0.001, "yes"), (0.05, "no")):
        drift.append(far)
        notebook.confirmed([[run(seed, [0, 1, 2]) for seed in range(5)], [run(seed, []) for seed in range(5)]])
        assert capsys.readouterr().out.startswith(f"{word}: trained again")
    assert trained == [[0, 1, 2, 0]] * 2
    notebook.confirmed([[run(seed, [0, 1, 2]) for seed in range(2)]])
    assert "left out here" in capsys.readouterr().out and len(trained) == 2


def test_a_table_for_reading_has_methods_by_their_names_and_all_else_as_it_is():
    frame = pd.DataFrame({"label": ["ogm-ge", "none"], "optimizer": ["sgd", "adamw"], "view": ["none", "fou"]})
    found = notebook.readable(frame)
    assert found.to_dict("list") == {
        "label": ["OGM-GE", "plain"],
        "optimizer": ["SGD", "AdamW"],
        "view": ["none", "fou"],
    }
    assert list(frame["label"]) == ["ogm-ge", "none"]
