"""The search is the same for all, and what it chose is kept and found."""

import json
from pathlib import Path

import pandas as pd
import pytest

from vgmr import protocol
from vgmr.batch import parameters
from vgmr.experiment import Experiment

COMMON = {"dataset": "digits", "epochs": 1, "batch_size": 256, "latent_dim": 2}


@pytest.fixture
def few(monkeypatch, tmp_path):
    monkeypatch.setenv("VGMR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(protocol, "RATES", (1e-3, 3e-2))
    monkeypatch.setattr(protocol, "SEARCH_SEEDS", (100,))
    return {name: protocol.VARIANTS[name] for name in ("plain", "VGMR")}


def test_search_scores_validation_at_every_rate(few, monkeypatch):
    from vgmr.experiment import run

    table = protocol.search(few, COMMON, jobs=1, progress=False)
    assert list(table.index) == ["plain", "VGMR"]
    assert list(table.columns) == [1e-3, 3e-2]
    again = run(Experiment(**COMMON, **few["plain"], learning_rate=3e-2, seed=100))
    assert table.loc["plain", 3e-2] == again.metrics["validation_accuracy"]


def test_choice_is_the_best_rate_and_survives_on_disk(few, tmp_path, capsys):
    table = protocol.search(few, COMMON, jobs=1, progress=False)
    path = tmp_path / "kept" / "digits.json"
    protocol.write_choice(path, table, {**COMMON, "root": "somewhere"})
    content = json.loads(path.read_text())
    assert content["settings"] == COMMON, "a folder on one machine says nothing on another"
    assert protocol.read_choice(path, few, COMMON) == {name: table.loc[name].idxmax() for name in few}
    assert [entry.name for entry in path.parent.iterdir()] == ["digits.json"]
    assert "other settings" not in capsys.readouterr().out
    protocol.read_choice(path, few, {**COMMON, "epochs": 2})
    assert "under other settings" in capsys.readouterr().out


def test_without_a_search_all_variants_get_one_rate(few, tmp_path):
    assert protocol.read_choice(tmp_path / "none.json", few, COMMON) == {"plain": 1e-3, "VGMR": 1e-3}


def test_train_groups_runs_by_variant_and_seed(few):
    runs = protocol.train(few, {"plain": 1e-3, "VGMR": 3e-2}, COMMON, seeds=2, jobs=1, progress=False)
    assert {name: [run.experiment.seed for run in found] for name, found in runs.items()} == {
        "plain": [0, 1],
        "VGMR": [0, 1],
    }
    assert runs["VGMR"][0].experiment.learning_rate == 3e-2


def test_search_seeds_are_no_reported_seeds():
    assert min(protocol.SEARCH_SEEDS) >= 100


def test_the_paper_has_figures_for_one_setting_only():
    assert protocol.paper("mosei", "transformer")["VGMR, paper's form"] == 0.8446
    assert protocol.paper("mosei", "pooled") == protocol.paper("mosi", "transformer") == {}


def test_summary_is_text_with_interval_where_there_is_one():
    columns = ["mean", "difference", "low", "high"]
    table = pd.DataFrame([[0.5, None, None, None], [0.61, 0.11, 0.05, 0.2]], ["plain", "VGMR"], columns)
    assert protocol.summary(table, "pooled, ") == {
        "pooled, plain": "0.500",
        "pooled, VGMR": "0.610, difference +0.110 [+0.050, +0.200]",
    }


def test_shown_leaves_empty_columns_out():
    table = pd.DataFrame({"mean": [0.51234], "paper, mosi": [None], "seeds": pd.array([5], "Int64")}, ["plain"])
    html = protocol.shown(table, "a caption").to_html()
    assert "0.512" in html and "a caption" in html and "paper" not in html and "0.51234" not in html


ROOT = Path(__file__).parent.parent / "notebooks"
TRAINED = {"mosi-utterance": "04", "utd-mhad": "06", "avdigits": "07", "cremad-ratings": "08"}


@pytest.mark.parametrize("dataset", TRAINED)
def test_studies_are_what_the_training_notebooks_train(dataset):
    (notebook,) = ROOT.glob(f"{TRAINED[dataset]}_*.ipynb")
    given = {name: default for name, (_, default) in parameters(notebook).items()}
    assert given["dataset"] == dataset
    common = {key: given[key] for key in ("dataset", "data_options", "epochs", "batch_size", "length_buckets")}
    for backbone in given["backbones"]:
        options = {key: given[key] for key in ("width", "num_layers", "num_heads", "feedforward_dim")}
        expected = Experiment(latent_dim=given["latent_dim"], **common, **protocol.behind(backbone, **options))
        assert Experiment(**protocol.study(dataset, backbone)) == expected


def test_a_data_set_without_quick_settings_is_refused():
    with pytest.raises(ValueError, match="no quick settings for 'mosei'; there are some for: digits, mosi-utt"):
        protocol.study("mosei")


def test_sgd_is_searched_at_rates_of_its_own(few):
    table = protocol.search(few, {**COMMON, "optimizer": "sgd"}, jobs=1, progress=False)
    assert list(table.columns) == list(protocol.SGD_RATES)
