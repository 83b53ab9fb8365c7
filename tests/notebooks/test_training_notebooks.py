"""The training notebooks differ in data and text only, and run on files in the paper's formats."""

from pathlib import Path

import made_audio_visual as av
import made_sentiment as sentiment
import nbformat
import pytest

from vgmr.data.extract.images import ImageNetwork
from vgmr.data.gated.cremad import load_cremad
from vgmr.data.gated.ucf101 import load_ucf101
from vgmr.notebook.run import parameters, run_notebook

FOLDER = Path(__file__).parent.parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("0[4-8]_training_*.ipynb"))
SMALL = {"epochs": 1, "batch_size": 8, "width": 4, "latent_dim": 2, "seeds": 2, "jobs": 1, "backbones": ["pooled"]}


def code(path: Path) -> list[str]:
    cells = nbformat.read(path, 4).cells
    return [c.source for c in cells if c.cell_type == "code" and "parameters" not in c.metadata.get("tags", [])]


def test_there_is_one_notebook_for_each_data_set_of_the_paper():
    papers = [parameters(path)["paper_dataset"][1] for path in NOTEBOOKS]
    assert papers == ["mosi", "mosei", "ucf101", "ave", "cremad"]


@pytest.mark.parametrize("path", NOTEBOOKS[1:], ids=lambda path: path.stem)
def test_training_notebooks_share_their_code(path):
    assert code(path) == code(NOTEBOOKS[0])
    assert list(parameters(path)) == list(parameters(NOTEBOOKS[0]))


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
    monkeypatch.setenv("VGMR_CACHE", str(tmp_path / "cache"))
    options = MADE[path](tmp_path / "files") | {"allow_partial": True}
    given = {**SMALL, "root": str(tmp_path / "files"), "data_options": options}
    found = run_notebook(path, given, tmp_path / path.name, progress=False)
    (name,) = found
    paper = parameters(path)["paper_dataset"][1]
    assert name == f"training {paper}"
    assert found[name]["seeds"] == 2 and found[name]["stand-in"] is False
    assert "pooled, VGMR" in found[name]
