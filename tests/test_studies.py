"""The search is the same for all, and what it chose is kept and found."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from vgmr import studies as protocol
from vgmr.analysis import cost, gradients, removal
from vgmr.experiment import Experiment, Run, build, experiment_data
from vgmr.notebook.run import parameters
from vgmr.paper import figures
from vgmr.prefusion import count_parameters
from vgmr.runs import run
from vgmr.studies import COMPARED as METHODS
from vgmr.studies import search
from vgmr.training import History

COMMON = {"dataset": "digits", "epochs": 1, "batch_size": 256, "latent_dim": 2}


@pytest.fixture
def few(monkeypatch, tmp_path):
    monkeypatch.setenv("VGMR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(search, "SEARCH_SEEDS", (100,))
    monkeypatch.setattr(search, "MOST_DOUBLINGS", 0)
    return {name: protocol.VARIANTS[name] for name in ("plain", "VGMR")}


def test_search_scores_validation_at_every_rate(few, monkeypatch):
    from vgmr.runs import run

    found = search.search(few, COMMON, jobs=1, progress=False, rates=(3e-2, 1e-3))
    table = found.scores
    assert list(table.index) == ["plain", "VGMR"] and found.epochs == 1
    assert list(table.columns) == [1e-3, 3e-2]
    again = run(Experiment(**COMMON, **few["plain"], learning_rate=3e-2, seed=100))
    assert table.loc["plain", 3e-2] == again.metrics["validation_accuracy"]


def test_choice_is_the_best_rate_and_survives_on_disk(few, tmp_path, capsys):
    chosen = search.search(few, COMMON, jobs=1, progress=False, rates=(1e-3, 3e-2))
    table = chosen.scores
    path = tmp_path / "kept" / "digits.json"
    search.write_choice(path, chosen, {**COMMON, "root": "somewhere"})
    content = json.loads(path.read_text())
    assert content["settings"] == COMMON, "a folder on one machine says nothing on another"
    assert search.read_choice(path, few, COMMON) == {name: table.loc[name].idxmax() for name in few}
    assert [entry.name for entry in path.parent.iterdir()] == ["digits.json"]
    assert "other settings" not in capsys.readouterr().out
    search.read_choice(path, few, {**COMMON, "epochs": 2})
    assert "under other settings" in capsys.readouterr().out


def test_without_a_kept_search_there_is_one(few, tmp_path, monkeypatch):
    """No rate is assumed: a missing or damaged file, or one that lacks a variant, is made good by a search."""
    asked = []
    made = search.Search(pd.DataFrame({1e-2: [0.5, 0.5]}, list(few)), 3, dict.fromkeys(few, 1e-2), [])
    monkeypatch.setattr(search, "search", lambda *given: (asked.append(given), made)[1])
    folder = tmp_path / "kept"
    assert search.choose("some", few, COMMON, folder=folder) == {"plain": 1e-2, "VGMR": 1e-2}
    assert len(asked) == 1 and not folder.exists(), "nothing is written unless asked for"
    search.choose("some", few, COMMON, again=True, folder=folder)
    assert search.choose("some", few, COMMON, folder=folder) == {"plain": 1e-2, "VGMR": 1e-2} and len(asked) == 2
    path = folder / "some.json"
    for damaged in (path.read_text()[:-20], json.dumps({**json.loads(path.read_text()), "learning_rate": {}}), ""):
        path.write_text(damaged)
        with pytest.warns(UserWarning, match="some.json: no intact search for these variants"):
            search.choose("some", few, COMMON, folder=folder)
    assert len(asked) == 5


def test_kept_searches_are_found_from_any_folder(tmp_path, monkeypatch, capsys):
    kept = json.loads((ROOT / "parameters/searched/digits-pooled.json").read_text())
    for folder in (ROOT, ROOT.parent, tmp_path):
        monkeypatch.chdir(folder)
        found = protocol.choose("digits-pooled", protocol.VARIANTS, protocol.study("digits"))
        assert found == kept["learning_rate"] and len(set(found.values())) > 1
    assert "searching" not in capsys.readouterr().out


def planted(best, epochs=0.0):
    """Runs whose validation accuracy is highest at the rate best[variant], and whose best epoch is a share."""

    def run_all(cells, jobs, progress):
        runs = {}
        for (name, rate), (one, *_) in cells.items():
            score = 1 / (1 + abs(math.log10(rate / best[name])))
            history = History(best_epoch=int(epochs(one.epochs) if callable(epochs) else 0))
            runs[name, rate] = [replace(run_of([0.0])[0], metrics={"validation_accuracy": score}, history=history)]
        return runs

    return run_all


def test_the_grid_is_widened_until_the_best_rate_lies_inside(monkeypatch):
    variants = {"plain": {"prefusion": "none"}, "VGMR": {}}
    monkeypatch.setattr(search, "run_all", planted({"plain": 3e-2, "VGMR": 3e-3}))
    found = search.search(variants, COMMON)
    assert found.rates == {"plain": 3e-2, "VGMR": 3e-3} and found.warnings == []
    assert list(found.scores.columns) == [1e-3, 3e-3, 1e-2, 3e-2, 1e-1], "for all, as far as one needs it"
    monkeypatch.setattr(search, "run_all", planted({"plain": 1e-1, "VGMR": 1e-5}))
    found = search.search(variants, COMMON)
    assert list(found.scores.columns) == list(search.GRID)
    assert len(found.warnings) == 2 and "plain: the best rate, 0.1, is at the edge" in found.warnings[0]


def test_epochs_are_doubled_until_the_best_one_is_not_among_the_last(monkeypatch):
    best = {"plain": 3e-3, "VGMR": 3e-3}
    monkeypatch.setattr(search, "run_all", planted(best, lambda epochs: min(epochs - 1, 25)))
    found = search.search({"plain": {"prefusion": "none"}, "VGMR": {}}, {**COMMON, "epochs": 10})
    assert found.epochs == 40 and found.warnings == []
    monkeypatch.setattr(search, "run_all", planted(best, lambda epochs: epochs - 1))
    found = search.search({"plain": {"prefusion": "none"}, "VGMR": {}}, {**COMMON, "epochs": 10})
    assert found.epochs == 80 and "still improves" in found.warnings[0]


def test_train_groups_runs_by_variant_and_seed(few):
    runs = protocol.train(few, {"plain": 1e-3, "VGMR": 3e-2}, COMMON, seeds=2, jobs=1, progress=False)
    assert {name: [run.experiment.seed for run in found] for name, found in runs.items()} == {
        "plain": [0, 1],
        "VGMR": [0, 1],
    }
    assert runs["VGMR"][0].experiment.learning_rate == 3e-2


def test_search_seeds_are_no_reported_seeds():
    assert min(search.SEARCH_SEEDS) >= 100


def test_controlled_variants_differ_in_one_thing_and_the_paper_has_a_figure_for_each():
    common = protocol.study("utd-mhad", "transformer")
    variants = protocol.controlled(common)
    assert set(variants) - set(figures.scores("mosei", "transformer")) == {"VGMR"}, "the form adopted here"
    built = {name: Experiment(**{**common, **options}) for name, options in variants.items()}
    heads = {name: dict(one.backbone_options).pop("head", "concat") for name, one in built.items()}
    assert {name for name, head in heads.items() if head != "concat"} == {"Summation", "Tensor Fusion"}
    assert all(
        dict(one.backbone_options, head="") == dict(common["backbone_options"], head="") for one in built.values()
    )
    assert {name for name, one in built.items() if one.method != "none"} == {"MMPareto"}


def test_modules_before_fusion_have_equal_budgets_at_quick_scale():
    """Width steps are coarse beside three channels; for cross-attention in steps of its four heads."""
    common = protocol.study("digits", "transformer")
    before = [options for options in protocol.controlled(common).values() if options.get("prefusion") != "none"]
    data = experiment_data(Experiment(**common))
    sizes = [count_parameters(build(Experiment(**{**common, **options}), data).prefusion) for options in before]
    assert len(sizes) == 5 and max(sizes) < 1.1 * min(sizes)


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


def test_sgd_is_searched_at_rates_of_its_own(few, monkeypatch):
    monkeypatch.setattr(search, "run_all", planted({"plain": 3e-2, "VGMR": 3e-1}))
    found = search.search(few, {**COMMON, "optimizer": "sgd"}, jobs=1, progress=False)
    assert list(found.scores.columns) == [*search.SGD_RATES, 3e-1, 1.0]


def test_all_methods_are_compared_alone_and_with_vgmr_in_front():
    variants = protocol.balancing_variants(30)
    assert list(variants) == [*METHODS, *(f"{name} + VGMR" for name in METHODS)]
    for name, options in variants.items():
        experiment = Experiment("digits", **options)
        assert experiment.method == name.removesuffix(" + VGMR")
        assert experiment.prefusion == ("vgmr" if name.endswith("VGMR") else "none")


@pytest.mark.parametrize("epochs", [1, 2, 8, 30, 100])
def test_options_that_count_epochs_follow_the_length_of_the_training(epochs):
    options = {name: protocol.method_options(name, epochs) for name in METHODS}
    assert -(-epochs // options["grad-blending"]["super_epoch"]) <= 3
    assert options["relearning"]["interval"] >= 1 and options["arl"]["start_epoch"] <= epochs / 6
    assert {name for name, chosen in options.items() if chosen} == {"grad-blending", "relearning", "arl"}


def test_sgd_decays_less_and_all_else_is_the_study():
    assert protocol.balancing_study("digits") == protocol.study("digits")
    sgd = protocol.balancing_study("digits", "sgd", "transformer")
    assert sgd == {**protocol.study("digits", "transformer"), "optimizer": "sgd", "weight_decay": 1e-4}


def test_balancing_takes_each_method_at_its_searched_rate_and_vgmr_at_its_own(monkeypatch):
    asked = []

    def choose(name, variants, *rest):
        asked.append((name, list(variants)))
        return {label: 0.5 + place for place, label in enumerate(variants)}

    monkeypatch.setattr(protocol, "choose", choose)
    plan = protocol.balancing("digits", "sgd")
    assert asked == [("digits-pooled-balancing-sgd", [*METHODS, "none + VGMR"])]
    assert [plan[name]["learning_rate"] for name in METHODS] == [0.5 + place for place in range(len(METHODS))]
    assert {plan[f"{name} + VGMR"]["learning_rate"] for name in METHODS} == {0.5 + len(METHODS)}
    assert Experiment(**plan["arl + VGMR"], seed=3).weight_decay == 1e-4


def run_of(values, **options):
    return [
        Run(
            Experiment("digits", seed=seed, **options),
            {"accuracy": value, "majority_accuracy": 0.1},
            {},
            History(),
            [],
            [],
            1,
            0,
            1.0,
            1.0,
            "",
            False,
            {},
            "",
        )
        for seed, value in enumerate(values)
    ]


@pytest.mark.parametrize(("method", "first"), [("arl", 2), ("relearning", 2), ("mmpareto", 0), ("mla", None)])
def test_watching_trains_as_a_run_does(few, method, first):
    options = {"arl": {"start_epoch": 1}, "relearning": {"interval": 2}}.get(method, {})
    experiment = Experiment(**{**COMMON, "epochs": 3}, prefusion="none", method=method, method_options=options)
    seen = gradients.watch(experiment, samples=8)
    assert seen.accuracy == run(experiment).metrics["accuracy"]
    assert set(seen.gradients["epoch"]) == {0, 1, 2}
    assert seen.coefficients["epoch"].min() == first if first is not None else seen.coefficients.empty


def test_step_costs_are_ratios_to_the_baseline():
    every = {
        name: Experiment(**options, **COMMON)
        for name, options in protocol.balancing_variants(1).items()
        if "VGMR" not in name
    }
    ratio = cost.step_costs(every, "none", rounds=1, steps=1)
    assert ratio["none"] == 1 and list(ratio.index) == list(METHODS) and ratio.min() > 0


# Ablations


RATES_BY_VARIANT = {"plain": 1e-3, "parameter-matched MLP": 2e-3, "VGMR, paper's form": 3e-3, "VGMR": 4e-3}


def test_an_ablation_changes_what_it_says_and_nothing_else():
    todo = protocol.ablations("digits", RATES_BY_VARIANT, seeds=2)
    full = {name: vars(todo[name][0]) for name in protocol.VARIANTS}
    assert {name: one["learning_rate"] for name, one in full.items()} == RATES_BY_VARIANT
    entries = [(group, *entry) for group, inside in protocol.ABLATIONS.items() for entry in inside.items()]
    for group, label, change in entries:
        for variant in ("VGMR", "VGMR, paper's form") if group in protocol.TABLE_3 else ("VGMR",):
            for seed, one in enumerate(todo[f"{variant}: {label}"]):
                differs = {name: value for name, value in vars(one).items() if value != full[variant][name]}
                assert differs == change | ({"seed": 1} if seed else {}), "a change that is the default is none"
    assert len(todo) == 4 + len(entries) + 6 + 2 * 4


def test_nulls_are_the_same_settings_under_other_draws():
    todo = protocol.ablations("digits", RATES_BY_VARIANT, seeds=2)
    for variant in protocol.VARIANTS:
        full, turned, later = (todo[label] for label in (variant, *(f"{variant}: {n}" for n in protocol.NULLS)))
        assert [one.seed for one in (*full, *turned, *later)] == [0, 1, 0, 1, 2, 3]
        assert turned[0].modalities == tuple(reversed(experiment_data(full[0]).modalities))
        sizes = [
            sum(p.numel() for p in build(one, experiment_data(one)).parameters()) for one in (full[0], turned[0])
        ]
        assert sizes[0] == sizes[1]


def test_the_papers_ablations_are_ours():
    ours = [label for group in protocol.TABLE_3 for label in protocol.ABLATIONS[group]]
    assert set(figures.ABLATIONS) == {"full", *ours}


# Removing modalities


def test_each_method_is_trained_with_all_and_without_each_modality(monkeypatch):
    monkeypatch.setattr(protocol, "choose", lambda name, variants, *_, **__: dict.fromkeys(variants, 1e-3))
    todo = protocol.removals("digits", seeds=2)
    names = experiment_data(todo["plain", ""][0]).modalities
    methods = ["plain", "VGMR, paper's form", "VGMR", *(name for name in METHODS if name != "none")]
    assert list(todo) == [(method, gone) for method in methods for gone in ("", *names)]
    for (method, gone), experiments in todo.items():
        assert [one.seed for one in experiments] == [0, 1]
        assert experiments[0].modalities == (tuple(n for n in names if n != gone) if gone else None)
        assert experiments[0].method == (method if method in METHODS else "none")
        kept = {name: value for name, value in vars(experiments[0]).items() if name != "modalities"}
        assert kept == {name: vars(todo[method, ""][0])[name] for name in kept}


def test_what_notebooks_11_and_12_train_alike_is_the_same(monkeypatch):
    monkeypatch.setattr(protocol, "choose", lambda name, variants, *_, **__: dict.fromkeys(variants, 1e-3))
    for dataset in ("mosi-utterance", "digits"):
        rates = protocol.choose(f"{dataset}-pooled", protocol.VARIANTS, protocol.study(dataset), False)
        for label in ("plain", "VGMR, paper's form", "VGMR"):
            rate = replace(protocol.removals(dataset)[label, ""][3], learning_rate=rates[label])
            assert rate == protocol.ablations(dataset, rates)[label][3]


def test_of_two_modalities_only_the_plain_model_loses_one(monkeypatch):
    options = {"data_options": {"like": "ave", "samples": 8}, "width": 4, "epochs": 4}
    monkeypatch.setitem(protocol.STUDIES, "synthetic", options)
    monkeypatch.setattr(protocol, "choose", lambda name, variants, *_, **__: dict.fromkeys(variants, 1e-3))
    lost = [key for key in protocol.removals("synthetic", seeds=1) if key[1]]
    assert lost == [("plain", "audio"), ("plain", "visual")]


@pytest.mark.parametrize("prefusion", ["none", "vgmr"])
def test_worth_beside_idle_trains_the_experiment_with_one_modality_more(prefusion):
    made = {"like": "mosi", "samples": 400, "steps": 1}
    one = Experiment("synthetic", prefusion, data_options=made, modalities=("audio", "vision"), epochs=4)
    found = removal.worth_beside_idle(replace(one, norm="none", learning_rate=1e-2), "vision")
    assert list(found) == ["audio", "vision", "idle"]
    assert found["vision"] > 0.1 and abs(found["idle"]) < 0.07, "200 test samples, two deviations"


def test_places_and_idle_worths_have_a_row_for_each_run(few):
    one = Experiment("synthetic", data_options={"like": "ave", "samples": 16, "steps": 1}, epochs=1, latent_dim=2)
    runs = protocol.run_all([one, replace(one, seed=1)], jobs=1, progress=False)
    places = removal.removals_by_place(runs)
    assert places["seed"].tolist() == [0, 0, 1, 1] and places["modality"].tolist() == ["audio", "visual"] * 2
    for row, one in zip(places.to_dict("records"), [runs[0], runs[0], runs[1], runs[1]], strict=True):
        other = {"audio": "visual", "visual": "audio"}[row["modality"]]
        assert row["behind"] == pytest.approx(one.subset_accuracy[other])
    idle = removal.idle_worths({"x": runs})
    assert idle["seed"].tolist() == [0] * 3 + [1] * 3 and set(idle["label"]) == {"x"}
    assert idle["modality"].tolist() == ["audio", "visual", "idle"] * 2
