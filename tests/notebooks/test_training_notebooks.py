"""The training notebooks share a skeleton, each has its lesson; they run on the paper's files and own clips."""

from pathlib import Path

import made_audio_visual as av
import made_sentiment as sentiment
import nbformat
import pytest
import torch
from PIL import Image

from vgmr.data.extract.images import ImageNetwork
from vgmr.data.gated.cremad import load_cremad
from vgmr.data.gated.ucf101 import load_ucf101
from vgmr.data.own import extract
from vgmr.notebook.run import parameters, run_notebook
from vgmr.studies import SEEDS, behind, study

FOLDER = Path(__file__).parent.parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("0[4-8]_training_*.ipynb"))
SMALL = {"epochs": 1, "batch_size": 8, "width": 4, "latent_dim": 2, "seeds": 2, "jobs": 1, "folds": False}
ONE_RATE = {"learning_rate": 0.003}


def code(path: Path, lesson: bool = False) -> list[str]:
    """Code cells but for the parameters; those of the notebook's own lesson, or all others."""
    cells = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    tagged = [(cell.source, cell.metadata.get("tags", [])) for cell in cells]
    return [source for source, tags in tagged if "parameters" not in tags and ("lesson" in tags) == lesson]


def test_there_is_one_notebook_for_each_data_set_of_the_paper():
    papers = [parameters(path)["paper_dataset"][1] for path in NOTEBOOKS]
    assert papers == ["mosi", "mosei", "ucf101", "ave", "cremad"]


@pytest.mark.parametrize("path", NOTEBOOKS[1:], ids=lambda path: path.stem)
def test_training_notebooks_share_their_code(path):
    assert code(path) == code(NOTEBOOKS[0])
    assert list(parameters(path)) == list(parameters(NOTEBOOKS[0]))


def test_each_has_a_lesson_of_its_own():
    lessons = [tuple(code(path, lesson=True)) for path in NOTEBOOKS]
    assert all(lessons) and len(set(lessons)) == len(lessons)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_defaults_are_the_settings_of_the_record(path):
    """Else the notebook would search and train everything again instead of reading what is kept."""
    default = {name: value for name, (_, value) in parameters(path).items()}
    names = ("dataset", "data_options", "epochs", "patience", "batch_size", "latent_dim")
    model = ("width", "num_layers", "num_heads", "feedforward_dim")
    settings = {name: default[name] for name in names} | behind(
        default["backbone"], **{name: default[name] for name in model}
    )
    wanted = study(default["dataset"])
    assert {name: value for name, value in settings.items() if value != {}} == wanted
    assert default["seeds"] == SEEDS.get(default["dataset"], 3)  # made data have no record


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_paper_scale_parameters_are_real_ones(path):
    import yaml

    from vgmr.notebook.run import check_overrides

    name = parameters(path)["paper_dataset"][1]
    text = (FOLDER / "parameters" / "paper" / f"{name}.yaml").read_text()
    checked = check_overrides(path, yaml.safe_load(text))
    assert checked["num_layers"] == 3 and checked["latent_dim"] == 164
    assert path.stem[:2] in text.splitlines()[0]


def made_mosi(root: Path) -> dict:
    sentiment.write_mmsa(root, "mosi")
    return {}


def made_mosei(root: Path) -> dict:
    sentiment.write_mult(root, "mosei", aligned=False)
    return {}


def made_ucf101(root: Path) -> dict:
    av.write_ucf101(root)
    network = av.StandIn()
    load_ucf101(root, frames=3, extractor=network, allow_partial=True)
    return {"frames": 3, "extractor": ImageNetwork(network).name}


def made_ave(root: Path) -> dict:
    av.write_ave(root)
    return {}


def made_cremad(root: Path) -> dict:
    av.write_cremad(root)
    network = av.StandIn()
    load_cremad(root, extractor=network, allow_partial=True)
    return {"extractor": ImageNetwork(network).name}


MADE = dict(zip(NOTEBOOKS, (made_mosi, made_mosei, made_ucf101, made_ave, made_cremad), strict=True))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_training_notebook_runs_on_the_papers_files(path, tmp_path, monkeypatch):
    """The first one searches its rates, as all do by default; the others are given one, to be quicker."""
    monkeypatch.setenv("VGMR_CACHE", str(tmp_path / "cache"))
    options = MADE[path](tmp_path / "files") | {"allow_partial": True}
    given = {**SMALL, "root": str(tmp_path / "files"), "data_options": options}
    given |= {} if path == NOTEBOOKS[0] else ONE_RATE
    output = tmp_path / path.name
    found = run_notebook(path, given, output, progress=False)
    paper = parameters(path)["paper_dataset"][1]
    assert list(found) == [f"training {paper}"]
    values = found[f"training {paper}"]
    assert values["seeds"] == 2 and values["made data"] is False
    assert {"pooled: VGMR, paper's form over plain", "pooled: VGMR, calibrated over plain"} <= set(values)
    shown = output.read_text()
    assert "one epoch took" in shown and f"**{paper}**: " in shown


def test_training_notebook_runs_in_regression(tmp_path, monkeypatch):
    monkeypatch.setenv("VGMR_CACHE", str(tmp_path / "cache"))
    sentiment.write_mmsa(tmp_path / "files", "mosi")
    options = {"labels": "regression", "allow_partial": True}
    given = {**SMALL, **ONE_RATE, "root": str(tmp_path / "files"), "data_options": options}
    found = run_notebook(NOTEBOOKS[0], given, tmp_path / "04.ipynb", progress=False)["training mosi"]
    assert found["metric"] == "mae" and "pooled: VGMR, paper's form over plain" in found
    assert not [key for key in found if "calibrated" in key]


def test_training_notebook_runs_on_own_clips(tmp_path, monkeypatch, real_data):
    """A table of recordings and their speakers' words, extracted, then trained on by notebook 06."""
    monkeypatch.setenv("VGMR_CACHE", str(tmp_path / "cache"))
    own_clips(real_data / "free-spoken-digit-dataset" / "recordings", tmp_path / "clips")
    extract(tmp_path / "clips" / "table.csv", tmp_path / "own", video=pixels, frames=2)
    given = {**SMALL, **ONE_RATE, "dataset": "own", "root": str(tmp_path / "own"), "data_options": {}}
    output = tmp_path / "06.ipynb"
    found = run_notebook(NOTEBOOKS[2], given, output, progress=False)
    assert list(found) == ["training own"]
    assert "**own**: " in output.read_text()


def own_clips(recordings: Path, folder: Path) -> None:
    """A table of 48 spoken digits of six people, each beside two grey images of it."""
    folder.mkdir()
    rows = ["id,label,audio,video,group"]
    chosen = [
        path
        for path in sorted(recordings.glob("*.wav"))
        if path.stem[0] in "03" and path.stem.endswith(("_0", "_1", "_2", "_3"))
    ]
    for path in chosen:
        frames = folder / path.stem
        frames.mkdir()
        for number in range(2):
            shade = 40 if path.stem[0] == "0" else 200
            Image.new("RGB", (8, 8), (shade, shade, 20 * number)).save(frames / f"{number}.png")
        rows.append(f"{path.stem},{path.stem[0]},{path},{frames},{path.stem.split('_')[1]}")
    (folder / "table.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")


def pixels(images: torch.Tensor) -> torch.Tensor:
    """Mean colour of each image."""
    return images.float().flatten(2).mean(2)
