"""The search is the same for all, and what it chose is kept and found."""

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from vgmr import studies
from vgmr.analysis import cost, gradients, removal
from vgmr.data import folds, load
from vgmr.experiment import Run, build, experiment_data
from vgmr.loop.history import History
from vgmr.paper import figures
from vgmr.prefusion import count_parameters
from vgmr.runs import run, run_all
from vgmr.settings import Experiment
from vgmr.studies import ADOPTED, FORM, search
from vgmr.studies import COMPARED as METHODS

COMMON = {"dataset": "digits", "epochs": 1, "batch_size": 256, "latent_dim": 2}


@pytest.fixture
def few(monkeypatch, tmp_path):
    monkeypatch.setenv("VGMR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(search, "SEARCH_SEEDS", (100,))
    monkeypatch.setattr(search, "MOST_DOUBLINGS", 0)
    return {name: studies.VARIANTS[name] for name in ("plain", ADOPTED)}


def test_search_scores_validation_at_every_rate(few, monkeypatch):
    found = search.search(few, COMMON, jobs=1, rates=(3e-2, 1e-3))
    table = found.scores
    assert list(table.index) == ["plain", ADOPTED] and found.epochs == 1
    assert list(table.columns) == [1e-3, 3e-2]
    again = run(Experiment(**COMMON, **few["plain"], learning_rate=3e-2, seed=100))
    assert table.loc["plain", 3e-2] == again.metrics["validation_accuracy"]


def test_choice_is_the_best_rate_and_survives_on_disk(few, tmp_path, capsys):
    chosen = search.search(few, COMMON, jobs=1, rates=(1e-3, 3e-2))
    best = chosen.scores.idxmax(axis=1)
    path = tmp_path / "kept" / "digits.json"
    search.write_choice(path, chosen, {**COMMON, "root": "somewhere"})
    content = json.loads(path.read_text())
    assert content["settings"] == COMMON, "a folder on one machine says nothing on another"
    assert search.read_choice(path, few, COMMON) == {
        name: {"learning_rate": best[name], "epochs": 1} for name in few
    }
    assert [entry.name for entry in path.parent.iterdir()] == ["digits.json"]
    assert capsys.readouterr().out == "learning rates as searched, kept as digits.json: 1 epochs\n"
    with pytest.warns(UserWarning, match="searched under other settings than these; searched again"):
        assert search.read_choice(path, few, {**COMMON, "epochs": 2}) is None
    assert search.read_choice(path.with_name("none.json"), few, COMMON) is None


def test_without_a_kept_search_there_is_one(few, tmp_path, monkeypatch):
    """No rate is assumed: a missing or damaged file, or one that lacks a variant, is made good by a search."""
    asked = []
    made = search.Search(pd.DataFrame({1e-2: [0.5, 0.5]}, list(few)), 3, dict.fromkeys(few, 1e-2), [])
    monkeypatch.setattr(search, "search", lambda *given, **_: (asked.append(given), made)[1])
    folder, expected = tmp_path / "kept", {name: {"learning_rate": 1e-2, "epochs": 3} for name in few}
    assert search.choose("some", few, COMMON, folder=folder) == expected
    assert len(asked) == 1 and not folder.exists(), "nothing is written unless asked for"
    search.choose("some", few, COMMON, again=True, folder=folder)
    assert search.choose("some", few, COMMON, folder=folder) == expected and len(asked) == 2
    path = folder / "some.json"
    for damaged in (path.read_text()[:-20], json.dumps({**json.loads(path.read_text()), "learning_rate": {}}), ""):
        path.write_text(damaged)
        with pytest.warns(UserWarning, match="some.json: no intact search for these variants"):
            search.choose("some", few, COMMON, folder=folder)
    assert len(asked) == 5


def planned_searches():
    """What `vgmr records` looks up: variants and shared settings by the name of the kept search."""
    found = {f"{dataset}-pooled": (studies.VARIANTS, studies.study(dataset)) for dataset in studies.STUDIES}
    for dataset, backbone in studies.CONTROLLED:
        common = studies.study(dataset, backbone)
        found[f"{dataset}-{backbone}-controlled"] = studies.controlled(common), common
    for optimizer in ("adamw", "sgd"):
        common = studies.balancing_study("uci-mfeat", optimizer)
        found[f"uci-mfeat-pooled-balancing-{optimizer}"] = [*METHODS, *(f"none{end}" for end in ENDINGS)], common
    return found


ENDINGS = tuple(
    f" + {name}" for name in ("VGMR, paper's form", "VGMR, calibrated", "parameter-matched MLP", "value-free gate")
)


def test_kept_searches_are_found_from_any_folder_and_are_what_is_looked_up(tmp_path, monkeypatch, capsys):
    """None that is kept is stale: a warning that it is searched again would be an error here."""
    monkeypatch.setattr(search, "search", lambda *_: pytest.fail("searched"))
    kept = {path.stem for path in (ROOT / "parameters/searched").glob("*.json")} & set(planned_searches())
    assert "uci-mfeat-pooled" in kept
    for folder in (ROOT, ROOT.parent, tmp_path):
        monkeypatch.chdir(folder)
        for name in kept:
            found = search.choose(name, *planned_searches()[name])
            assert {"learning_rate", "epochs"} == set(found["plain" if "plain" in found else "none"])
    assert "searching" not in capsys.readouterr().out


def planted(best, epochs=0.0):
    """Runs whose validation accuracy is highest at the rate best[variant], and whose best epoch is a share."""

    def run_all(cells, jobs):
        runs = {}
        for (name, rate), (one, *_) in cells.items():
            score = 1 / (1 + abs(math.log10(rate / best[name])))
            history = History(best_epoch=int(epochs(one.epochs) if callable(epochs) else 0))
            runs[name, rate] = [replace(run_of([0.0])[0], metrics={"validation_accuracy": score}, history=history)]
        return runs

    return run_all


def test_a_rate_at_which_a_training_diverges_is_no_choice(monkeypatch, tmp_path):
    plain = planted({"plain": 3e-2})

    def run_all(cells, jobs):
        if any(rate > 2e-2 for _, rate in cells):
            raise FloatingPointError("the loss is no longer finite")
        return plain(cells, jobs)

    monkeypatch.setattr(search, "run_all", run_all)
    found = search.search({"plain": {"prefusion": "none"}}, COMMON)
    assert found.rates == {"plain": 1e-2} and found.scores.loc["plain"].isna().tolist() == [
        False,
        False,
        False,
        True,
    ]
    search.write_choice(tmp_path / "kept.json", found, COMMON)
    kept = json.loads((tmp_path / "kept.json").read_text(encoding="utf-8"))
    assert kept["validation_accuracy"]["plain"] == {"0.001": 0.4037, "0.003": 0.5, "0.01": 0.677, "0.03": None}
    with pytest.raises(FloatingPointError, match=r"the loss of plain is not finite at any rate from 0\.03"):
        search.search({"plain": {"prefusion": "none"}}, COMMON, rates=[3e-2, 1e-1])


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


def test_rates_that_are_given_are_all_that_is_tried(monkeypatch, tmp_path):
    best = {"plain": 3e-2, "VGMR": 3e-3}
    monkeypatch.setattr(search, "run_all", planted(best, lambda epochs: epochs - 1))
    variants = {"plain": {"prefusion": "none"}, "VGMR": {}}
    found = search.choose("few", variants, {**COMMON, "epochs": 10}, True, 1, tmp_path, rates=(1e-2, 3e-3))
    assert found == {
        "plain": {"learning_rate": 1e-2, "epochs": 10},
        "VGMR": {"learning_rate": 3e-3, "epochs": 10},
    }
    kept = json.loads((tmp_path / "few.json").read_text())
    assert [list(scores) for scores in kept["validation_accuracy"].values()] == [["0.003", "0.01"]] * 2
    assert len(kept["warnings"]) == 2 and all("still improves" in line for line in kept["warnings"])
    assert search.choose("few", variants, {**COMMON, "epochs": 10}, folder=tmp_path) == found


def test_seeds_of_a_published_split_share_it():
    found = studies.repeated({**COMMON, "learning_rate": 3e-2}, 3)
    assert found == [Experiment(**COMMON, learning_rate=3e-2, seed=seed) for seed in range(3)]


@pytest.mark.parametrize("dataset", search.OWN_SPLIT)
def test_each_seed_has_a_split_of_its_own_where_the_split_is_ours(dataset):
    common = studies.study(dataset)
    found = studies.repeated(common, 3)
    assert [one.seed for one in found] == [0, 1, 2] == [one.data_options["split_seed"] for one in found]
    for one in found:
        assert {**one.data_options, "split_seed": None} == {**common["data_options"], "split_seed": None}
    assert "split_seed" not in common["data_options"], "the settings are left as they were"
    given = {**common, "data_options": {**common["data_options"], "split_seed": 7}}
    with pytest.raises(
        ValueError, match=f"every seed draws a split of {dataset} of its own.* leave split_seed=7 out"
    ):
        studies.repeated(given, 3)
    if dataset == "digit-views":  # needs no file
        assert len({tuple(experiment_data(one).test.label.tolist()) for one in found}) == 3


def test_folded_trainings_are_seeds_times_folds():
    found = studies.repeated(studies.study("avdigits"), 2, folded=True)
    assert [(one.seed, one.fold) for one in found] == [(s, f) for s in (0, 1) for f in range(folds("avdigits"))]
    assert folds("avdigits") == 6
    with pytest.raises(ValueError, match="data set 'digits' has no folds; these have: "):
        studies.repeated(COMMON, 1, folded=True)


def test_what_is_reported_on_folds_has_some_and_seeds_are_given_for_it():
    assert set(studies.FOLDED) <= set(studies.SEEDS) <= set(studies.STUDIES)
    assert all(folds(dataset) >= 6 for dataset in studies.FOLDED)
    assert not set(studies.FOLDED) & set(search.OWN_SPLIT)


def test_search_seeds_are_no_reported_seeds():
    assert min(search.SEARCH_SEEDS) >= 100


def test_controlled_variants_differ_in_one_thing_and_the_paper_has_a_figure_for_each():
    common = studies.study("utd-mhad", "transformer")
    variants = studies.controlled(common)
    ours = {ADOPTED, "value-free gate"}
    assert set(variants) - set(figures.scores("mosei", "transformer")) == ours, "the form adopted, and a control"
    assert not set(figures.scores("mosei", "transformer")) - set(variants)
    built = {name: Experiment(**{**common, **options}) for name, options in variants.items()}
    heads = {name: dict(one.backbone_options).pop("head", "concat") for name, one in built.items()}
    assert {name for name, head in heads.items() if head != "concat"} == {"Summation", "Tensor Fusion"}
    assert all(
        dict(one.backbone_options, head="") == dict(common["backbone_options"], head="") for one in built.values()
    )
    assert {name for name, one in built.items() if one.method != "none"} == {"MMPareto"}


def test_modules_before_fusion_have_equal_budgets_at_quick_scale():
    """Width steps are coarse beside three channels; for cross-attention in steps of its four heads."""
    common = studies.study("digits", "transformer")
    variants = studies.controlled(common)
    data = experiment_data(Experiment(**common))
    sizes = {
        name: count_parameters(build(Experiment(**{**common, **options}), data).prefusion)
        for name, options in variants.items()
        if options.get("prefusion") != "none"
    }
    calibrated = sizes.pop(ADOPTED)
    assert len(sizes) == 5 and max(sizes.values()) < 1.1 * min(sizes.values())
    assert 0 < calibrated < min(sizes.values()), "its values are counted, not learned"


ROOT = Path(__file__).parent.parent / "notebooks"


def test_a_data_set_without_quick_settings_is_refused():
    with pytest.raises(ValueError, match="for 'mosei'; there are some for: uci-mfeat, digit-views, digits, "):
        studies.study("mosei")


def test_sgd_is_searched_at_rates_of_its_own(few, monkeypatch):
    monkeypatch.setattr(search, "run_all", planted({"plain": 3e-2, ADOPTED: 3e-1}))
    found = search.search(few, {**COMMON, "optimizer": "sgd"}, jobs=1)
    assert list(found.scores.columns) == [*search.SGD_RATES, 3e-1, 1.0]


def test_all_methods_are_compared_alone_and_the_papers_behind_vgmr_and_its_controls():
    variants = studies.balancing_variants(30)
    assert list(variants) == [*METHODS, *(f"{name}{end}" for end in ENDINGS for name in studies.WITH_VGMR)]
    for name, options in variants.items():
        method, _, ending = name.partition(" + ")
        assert Experiment("digits", **options).method == method
        front = {name: options[name] for name in studies.VARIANTS[ending or "plain"]}
        assert front == studies.VARIANTS[ending or "plain"]


@pytest.mark.parametrize("epochs", [1, 2, 8, 30, 100])
def test_options_that_count_epochs_follow_the_length_of_the_training(epochs):
    options = {name: studies.method_options(name, epochs) for name in METHODS}
    assert -(-epochs // options["grad-blending"]["super_epoch"]) <= 3
    assert options["relearning"]["interval"] >= 1 and options["arl"]["start_epoch"] <= epochs / 6
    assert {name for name, chosen in options.items() if chosen} == {"grad-blending", "relearning", "arl"}


def test_sgd_decays_less_and_takes_longer_and_all_else_is_the_study():
    assert studies.balancing_study("digits") == studies.study("digits")
    sgd = studies.balancing_study("digits", "sgd")
    own = {"optimizer": "sgd", "weight_decay": 1e-4, "epochs": 60}
    assert sgd == {**studies.study("digits"), **own}


def test_balancing_takes_each_method_at_its_searched_rate_and_vgmr_at_its_own(monkeypatch):
    asked = []

    def choose(name, variants, *rest):
        asked.append((name, list(variants)))
        return {label: {"learning_rate": 0.5 + i, "epochs": 12 * (i + 1)} for i, label in enumerate(variants)}

    monkeypatch.setattr(studies, "choose", choose)
    plan = studies.balancing("digits", "sgd")
    searched = [*METHODS, *(f"none{end}" for end in ENDINGS)]
    assert asked == [("digits-pooled-balancing-sgd", searched)]
    for name, own in plan.items():
        place = searched.index(name if name in searched else f"none + {name.partition(' + ')[2]}")
        assert (own["learning_rate"], own["epochs"]) == (0.5 + place, 12 * (place + 1)), name
        assert own["method_options"] == studies.method_options(own["method"], own["epochs"])
    assert Experiment(**plan["arl + VGMR, calibrated"], seed=3).weight_decay == 1e-4


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
def test_watching_trains_as_a_run_does(few, method, first, monkeypatch):
    options = {"arl": {"start_epoch": 1}, "relearning": {"interval": 2}}.get(method, {})
    experiment = Experiment(**{**COMMON, "epochs": 3}, prefusion="none", method=method, method_options=options)
    trained, train = [], gradients.train
    monkeypatch.setattr(gradients, "train", lambda *a, **b: trained.append(train(*a, **b)) or trained[0])
    seen = gradients.acts({"one": experiment}).set_index("measure")["epoch"]
    assert trained[0].metrics["accuracy"] == run(experiment).metrics["accuracy"]
    assert set(seen["length"]) == set(seen["cosine"]) == {0, 1, 2}
    assert seen["set"].min() == first if first is not None else "set" not in seen


def test_step_costs_are_ratios_to_the_baseline():
    every = {
        name: Experiment(**options, **COMMON)
        for name, options in studies.balancing_variants(1).items()
        if " + " not in name
    }
    ratio = cost.step_costs(every, "none", rounds=1, steps=1)
    assert ratio["none"] == 1 and list(ratio.index) == list(METHODS) and ratio.min() > 0


# Ablations


CHOSEN = {name: {"learning_rate": 1e-3 * (1 + i), "epochs": 2 + i} for i, name in enumerate(studies.VARIANTS)}


@pytest.fixture
def chosen(monkeypatch):
    """Rates and epochs of all variants; of methods those of the variant that they are, or of the plain one."""

    def choose(name, variants, *_):
        named = {label: next((one for one in (ADOPTED, FORM) if label.endswith(one)), label) for label in variants}
        return {label: CHOSEN.get(variant, CHOSEN["plain"]) for label, variant in named.items()}

    monkeypatch.setattr(studies, "choose", choose)


def test_an_ablation_changes_what_it_says_and_nothing_else(chosen):
    todo = studies.ablations("digits")
    full = {name: vars(todo[name, ""][0]) for name in studies.VARIANTS}
    assert {name: {key: one[key] for key in CHOSEN[name]} for name, one in full.items()} == CHOSEN
    changes = {(FORM, label): change for group in studies.ABLATIONS.values() for label, change in group.items()}
    changes |= {(ADOPTED, label): change for label, change in studies.CALIBRATED_CHANGES.items()}
    for (variant, label), change in changes.items():
        for seed, one in enumerate(todo[variant, label]):
            written = {"form": "paper"} if variant == ADOPTED else {}  # its switches are written out
            differs = {name: value for name, value in vars(one).items() if value != full[variant][name]}
            assert differs == change | written | ({"seed": seed} if seed else {}), "a default is no change"
    assert set(todo) == {(name, end) for name in studies.VARIANTS for end in ("", studies.NULL)} | set(changes)
    assert {len(found) for found in todo.values()} == {studies.FEWER}


def test_the_null_is_the_next_seeds(chosen):
    todo = studies.ablations("digit-views")
    for name in studies.VARIANTS:
        full, later = todo[name, ""], todo[name, studies.NULL]
        assert [one.seed for one in (*full, *later)] == list(range(2 * studies.FEWER))
        assert [one.data_options["split_seed"] for one in later] == [one.seed for one in later]
        assert replace(later[3], seed=0, data_options={}) == replace(full[5], seed=0, data_options={})


def test_the_papers_ablations_are_ours():
    ours = [label for group in studies.TABLE_3 for label in studies.ABLATIONS[group]]
    assert set(figures.ABLATIONS) == {"full", *ours}


# Removing modalities


def test_each_method_is_trained_with_all_and_without_each_modality(chosen):
    todo = studies.removals("digits")
    names = experiment_data(todo["plain", ""][0]).modalities
    methods = ["plain", FORM, ADOPTED, *(name for name in METHODS if name != "none")]
    assert list(todo) == [(method, gone) for method in methods for gone in ("", *names)]
    for (method, gone), experiments in todo.items():
        assert [one.seed for one in experiments] == list(range(studies.FEWER))
        assert experiments[0].modalities == (tuple(n for n in names if n != gone) if gone else None)
        assert experiments[0].method == (method if method in METHODS else "none")
        kept = {name: value for name, value in vars(experiments[0]).items() if name != "modalities"}
        assert kept == {name: vars(todo[method, ""][0])[name] for name in kept}


def test_what_notebooks_11_and_12_train_alike_is_the_same(chosen):
    for dataset in ("digit-views", "digits"):
        removed, changed = studies.removals(dataset), studies.ablations(dataset)
        for label in ("plain", FORM, ADOPTED):
            assert removed[label, ""] == changed[label, ""]


def test_of_two_modalities_only_the_plain_model_loses_one(chosen, monkeypatch):
    options = {"data_options": {"like": "ave", "samples": 8}, "width": 4, "epochs": 4}
    monkeypatch.setitem(studies.STUDIES, "synthetic", options)
    lost = [key for key in studies.removals("synthetic") if key[1]]
    assert lost == [("plain", "audio"), ("plain", "visual")]


def test_the_controls_lose_each_modality_at_the_settings_they_have_with_all(chosen):
    whole, lost = studies.training("digit-views"), studies.removal_controls("digit-views")
    names = experiment_data(whole["plain"][0]).modalities
    assert list(lost) == [(control, gone) for control in studies.CONTROLS for gone in names]
    for (control, gone), experiments in lost.items():
        assert {one.modalities for one in experiments} == {tuple(n for n in names if n != gone)}
        assert [replace(one, modalities=None) for one in experiments] == whole[control][: studies.FEWER]


# What is committed


def test_a_training_notebook_has_all_variants_and_the_plain_model_on_each_modality(chosen):
    todo = studies.training("digit-views")
    names = experiment_data(todo["plain"][0]).modalities
    assert list(todo) == [*studies.VARIANTS, *(f"{name} alone" for name in names)]
    for label, found in todo.items():
        assert len(found) == studies.SEEDS["digit-views"] == len(set(found))
        variant = label if label in studies.VARIANTS else "plain"
        assert {found[0].learning_rate} == {CHOSEN[variant]["learning_rate"]} and found[0].fold is None
    assert todo[f"{names[0]} alone"][0].modalities == tuple(names[:1])


def test_every_record_has_one_name_and_nothing_is_made_before_it_is_asked_for(monkeypatch):
    monkeypatch.setattr(studies, "choose", lambda *_: pytest.fail("asked"))
    plans = studies.planned()
    assert list(plans)[: len(studies.SEEDS)] == [f"training-{dataset}" for dataset in studies.SEEDS]
    assert all(f"09-controlled-{dataset}" in plans for dataset, _ in studies.CONTROLLED)
    assert all(f"18-systems-{dataset}" in plans for dataset in studies.systems.HOSTS)


def test_both_optimisers_are_reported(chosen):
    found = studies.balanced("digit-views")
    assert {name for name, _ in found} == {"adamw", "sgd"}
    assert all({one.optimizer for one in group} == {name} for (name, _), group in found.items())
    assert len(found) == 2 * len(studies.balancing_variants(1)) and {len(one) for one in found.values()} == {10}


@pytest.mark.parametrize("prefusion", ["none", "vgmr"])
def test_idle_worths_train_the_experiment_with_one_modality_more(prefusion):
    made = {"like": "mosi", "samples": 400, "steps": 1}
    one = Experiment("synthetic", prefusion, data_options=made, modalities=("audio", "vision"), epochs=4)
    run = SimpleNamespace(experiment=replace(one, norm="none", learning_rate=1e-2))
    found = removal.idle_worths({"x": [run]}).set_index("modality")["value"]
    assert list(found.index) == ["audio", "vision", "idle"]
    assert found["vision"] > 0.1 and abs(found["idle"]) < 0.07, "200 test samples, two deviations"


def test_places_and_idle_worths_have_a_row_for_each_run(few):
    one = Experiment("synthetic", data_options={"like": "ave", "samples": 16, "steps": 1}, epochs=1, latent_dim=2)
    runs = run_all([one, replace(one, seed=1)], jobs=1, progress=False)
    places = removal.removals_by_place(runs)
    assert places["seed"].tolist() == [0, 0, 1, 1] and places["modality"].tolist() == ["audio", "visual"] * 2
    for row, one in zip(places.to_dict("records"), [runs[0], runs[0], runs[1], runs[1]], strict=True):
        other = {"audio": "visual", "visual": "audio"}[row["modality"]]
        assert row["behind"] == pytest.approx(one.subset_accuracy[other])
    idle = removal.idle_worths({"x": runs})
    assert idle["seed"].tolist() == [0] * 3 + [1] * 3 and set(idle["label"]) == {"x"}
    assert idle["modality"].tolist() == ["audio", "visual", "idle"] * 2


def test_data_that_no_comparison_could_be_made_of_are_refused_before_anything_is_trained(monkeypatch):
    made = load("synthetic", samples=8, steps=3)
    one = replace(made, test=replace(made.test, group=torch.zeros(4, dtype=torch.int64)))
    assert studies.opened("synthetic", None, {"samples": 8, "steps": 3}).fingerprint == made.fingerprint
    monkeypatch.setattr(studies, "load", lambda *_, fold=None: one)
    with pytest.raises(ValueError, match=r"synthetic: all 4 test samples are of one group .* give another split"):
        studies.opened("synthetic", None, {})
    assert studies.opened("synthetic", None, {}, folded=True) is one, "other folds are tested as well"
    with pytest.raises(
        ValueError, match="folds=True tests every fold, data_options names fold 3: give folds=False"
    ):
        studies.opened("synthetic", None, {"fold": 3}, folded=True)
