"""Runs: cached by all that determines them, whole or not at all, the same in many processes as in one."""

import functools
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_audio_visual import write_voice

from vgmr import experiment as module
from vgmr import runs
from vgmr.data import held
from vgmr.experiment import experiment_data
from vgmr.inference import predict
from vgmr.machine.devices import chosen_device, one_thread
from vgmr.records import keys
from vgmr.runs import read_run, run, run_all
from vgmr.settings import PREFUSIONS, Experiment

QUICK = Experiment("digits", prefusion="none", epochs=1, batch_size=256, form="paper")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VGMR_CACHE", str(tmp_path))
    held._loaded.cache_clear()
    return tmp_path / "runs"


def without_time(one):
    return replace(one, seconds=0, peak_memory=0, path="", history=replace(one.history, seconds=0))


# run


def test_a_run_is_found_again(trained, cache):
    first, second = run(QUICK), run(QUICK)
    assert trained == [0]
    assert first == second and first.experiment == QUICK
    assert len(list(cache.iterdir())) == 1
    assert sorted(path.name for path in next(cache.iterdir()).iterdir()) == ["model.safetensors", "run.json"]


def test_what_a_run_says():
    finished = run(QUICK)
    data = experiment_data(QUICK)
    assert finished.label == data.test.label.tolist()
    hits = sum(a == b for a, b in zip(finished.prediction, finished.label, strict=True))
    assert finished.metrics["accuracy"] == pytest.approx(hits / 359)
    assert finished.metrics["majority_accuracy"] == data.majority_rate
    assert finished.metrics["validation_accuracy"] == finished.history.validation_accuracy[0]
    assert set(finished.metrics) == {
        "accuracy",
        "macro_f1",
        "validation_accuracy",
        "majority_accuracy",
        "majority_macro_f1",
    }
    assert finished.prefusion_parameters == 0
    assert finished.parameters == (4 + 1) * 64 * 2 + (5 + 1) * 64 + (3 * 64 + 1) * 10
    assert finished.fingerprint == data.fingerprint and finished.stand_in is False
    assert set(finished.environment) == {"python", "torch", "numpy", "machine", "commit", "instructions"}
    assert finished.environment["instructions"] == torch.backends.cpu.get_cpu_capability()
    assert finished.seconds > 0 and finished.peak_memory > 50


def test_the_model_gives_the_recorded_predictions():
    finished = run(replace(QUICK, prefusion="vgmr"))
    model = finished.model()
    assert not model.training
    assert predict(model, experiment_data(QUICK).test).argmax(1).tolist() == finished.prediction
    assert finished.prefusion_parameters > 0


def test_accuracy_with_every_subset_of_the_modalities():
    """Each is that of `predict` with the others left out; the head's bias alone is one constant answer."""
    finished = run(QUICK)
    test, model = experiment_data(QUICK).test, finished.model()
    names = list(test.features)
    assert len(finished.subset_accuracy) == 2 ** len(names)
    assert finished.subset_accuracy["+".join(names)] == finished.metrics["accuracy"]
    for key, value in finished.subset_accuracy.items():
        answer = predict(model, test, keep=key.split("+") if key else []).argmax(1)
        assert value == pytest.approx(float((answer == test.label).float().mean()))


def test_checkpoints_are_the_weights_after_each_epoch():
    finished = run(replace(QUICK, epochs=3, checkpoints=True))
    data = experiment_data(QUICK)
    for epoch, seen in enumerate(finished.history.validation_accuracy):
        answer = predict(finished.model(epoch), data.validation).argmax(1)
        assert float((answer == data.validation.label).float().mean()) == pytest.approx(seen)
    best = finished.model(finished.history.best_epoch).state_dict()
    assert all(torch.equal(x, best[name]) for name, x in finished.model().state_dict().items())
    with pytest.raises(ValueError, match="checkpoints=True"):
        run(QUICK).model(0)


def test_keeping_checkpoints_changes_nothing_else():
    one, other = run(QUICK), run(replace(QUICK, checkpoints=True))
    assert one.prediction == other.prediction and one.metrics == other.metrics


def test_training_noise_strikes_training_and_validation_only(monkeypatch):
    seen = []
    fit = module.fit

    @functools.wraps(fit)
    def noted(model, data, **named):
        seen.append(data)
        return fit(model, data, **named)

    monkeypatch.setattr(module, "fit", noted)
    run(replace(QUICK, training_noise={"share": 0.5, "seed": 3}))
    data = experiment_data(QUICK)
    expected = module.corruption.noise(data.train, data.train, 0.5, seed=3)
    assert all(torch.equal(x, expected.features[name]) for name, x in seen[0].train.features.items())
    assert not any(torch.equal(x, data.train.features[name]) for name, x in seen[0].train.features.items())
    assert not any(
        torch.equal(x, data.validation.features[name]) for name, x in seen[0].validation.features.items()
    )
    assert all(torch.equal(x, data.test.features[name]) for name, x in seen[0].test.features.items())


def test_that_the_data_are_made_is_carried_over():
    made = Experiment("synthetic", "none", data_options={"like": "cremad", "samples": 8}, epochs=1)
    assert run(made).stand_in is True
    assert read_run(next((runs.cache_folder() / "runs").iterdir())).stand_in is True


def test_a_run_of_some_modalities():
    chosen = replace(QUICK, modalities=("right", "left"))
    assert run(chosen).experiment.modalities == ("right", "left")
    assert run(chosen).parameters == 2 * (4 + 1) * 64 + (2 * 64 + 1) * 10


OTHER = {
    "dataset": "synthetic",
    "prefusion": "mlp",
    "backbone": "transformer",
    "seed": 1,
    "data_options": {"conflict": 0.1},
    "modalities": ("left",),
    "backbone_options": {"width": 8},
    "latent_dim": 33,
    "amplification": 0.4,
    "retention": 0.3,
    "norm": "none",
    "dropout": 0.2,
    "use_global_value": False,
    "use_channel_value": False,
    "use_agreement": False,
    "use_discrepancy": False,
    "neutral_start": True,
    "value_weight": 0.2,
    "regulariser_weight": 0.02,
    "temperature": 0.5,
    "warmup_epochs": 1,
    "removal": "before",
    "epochs": 2,
    "batch_size": 16,
    "learning_rate": 0.01,
    "prefusion_learning_rate": 0.1,
    "weight_decay": 0.02,
    "length_buckets": True,
    "byte_dropout": True,
    "device": "cuda",
    "method": "uniform",
    "method_options": {"alpha": 0.5},
    "optimizer": "sgd",
    "training_noise": {"share": 0.3},
    "training_corruption": {"kinds": ["missing"]},
    "form": "calibrated",
    "value_from": "both",
    "retain": True,
    "value_target": "swap",
    "checkpoints": True,
    "fold": 1,
    "patience": 2,
    "sharing": True,
    "rank": 2,
    "per_step": False,
    "sparsity": 0.1,
}


@pytest.mark.parametrize("name", [field.name for field in fields(Experiment) if field.name != "root"])
def test_the_key_changes_with_every_field(name):
    """A field added later fails here until it is known that it changes the key."""
    data = experiment_data(QUICK)
    base = replace(QUICK, method="ogm-ge") if name == "method_options" else QUICK
    changed = replace(base, **{name: OTHER.get(name, "unheard of")})
    assert getattr(changed, name) != getattr(base, name)
    assert runs.run_folder(changed, data.fingerprint) != runs.run_folder(base, data.fingerprint)


def test_the_key_changes_with_data_and_code_but_not_with_the_root(monkeypatch):
    data = experiment_data(QUICK)
    folder = runs.run_folder(QUICK, data.fingerprint)
    assert runs.run_folder(replace(QUICK, root="elsewhere"), data.fingerprint) == folder
    assert runs.run_folder(QUICK, "other") != folder
    monkeypatch.setattr(keys, "code_of", lambda _: "other")
    assert runs.run_folder(QUICK, data.fingerprint) != folder


def test_an_interrupted_run_leaves_nothing(monkeypatch, cache):
    def interrupted(*given, **named):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "fit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(QUICK)
    assert not cache.exists() or list(cache.iterdir()) == []


def test_a_run_that_cannot_be_written_is_returned_and_leaves_nothing(monkeypatch, cache):
    expected = run(QUICK)
    monkeypatch.setenv("VGMR_CACHE", str(cache.parent / "full"))

    def full(*given):
        raise OSError("no space left")

    monkeypatch.setattr(runs, "save_file", full)
    with pytest.warns(UserWarning, match="could not be written .no space left.; the run is not kept"):
        found = run(QUICK)
    assert without_time(found) == without_time(expected)
    assert predict(found.model(), experiment_data(QUICK).test).argmax(1).tolist() == found.prediction
    assert list((cache.parent / "full" / "runs").iterdir()) == []


def test_a_leftover_does_not_count(trained, cache):
    """Neither an unfinished folder nor one without its run.json; both kinds do not stop a run."""
    (cache / ".unfinished-left").mkdir(parents=True)
    (cache / ".unfinished-left" / "run.json").write_text("{}")
    runs.run_folder(QUICK, experiment_data(QUICK).fingerprint).mkdir()
    with pytest.warns(UserWarning, match="a run on disk is refused and made again"):
        assert run(QUICK).metrics and trained == [0]
    assert run(QUICK).metrics and trained == [0]
    assert len(list(cache.iterdir())) == 2


def test_two_processes_that_finish_the_same_run_agree(monkeypatch, cache):
    """The other one's folder appears while this one trains."""
    first = run(QUICK)
    folder = next(cache.iterdir())
    content = {path.name: path.read_bytes() for path in folder.iterdir()}
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    fit = module.fit

    @functools.wraps(fit)
    def meanwhile(*given, **named):
        folder.mkdir()
        for name, raw in content.items():
            (folder / name).write_bytes(raw)
        return fit(*given, **named)

    monkeypatch.setattr(module, "fit", meanwhile)
    assert run(QUICK) == first
    assert [path.name for path in cache.iterdir()] == [folder.name]


@pytest.mark.parametrize(
    ("field", "message"),
    [
        (
            {"prefusion": "vgrm"},
            "unknown prefusion 'vgrm'; there are: none, mlp, cross-attention, sigmoid-tanh, se, confidence, vgmr",
        ),
        ({"backbone": "resnet"}, "unknown backbone 'resnet'; there are: pooled, transformer"),
    ],
)
def test_unknown_parts_are_refused_at_once(field, message):
    with pytest.raises(ValueError, match=message):
        Experiment("digits", **field)


@pytest.mark.parametrize("prefusion", PREFUSIONS)
def test_the_backbone_starts_the_same_behind_every_module(prefusion):
    data = experiment_data(QUICK)
    plain = module.build(QUICK, data).backbone.state_dict()
    other = module.build(replace(QUICK, prefusion=prefusion), data).backbone.state_dict()
    assert all(torch.equal(x, other[name]) for name, x in plain.items())


# run_all


def test_many_processes_give_the_same_bits_as_one(tmp_path, monkeypatch):
    todo = [replace(QUICK, seed=seed, prefusion="vgmr") for seed in (3, 1)]
    together = run_all(todo, jobs=2, progress=False)
    assert [finished.experiment.seed for finished in together] == [3, 1], "in the order given"
    monkeypatch.setenv("VGMR_CACHE", str(tmp_path / "other"))
    alone = [run(one) for one in todo]
    for one, other in zip(alone, together, strict=True):
        assert one.path != other.path
        assert without_time(one) == without_time(other)
        for a, b in zip(one.model().parameters(), other.model().parameters(), strict=True):
            assert torch.equal(a, b)


KILLED = """
import functools, os, signal
from dataclasses import replace
from vgmr import experiment as module
fit, seeds = module.fit, []
from vgmr.runs import run_all
from vgmr.settings import Experiment
@functools.wraps(fit)
def third_kills(*given, **named):
    seeds.append(named["seed"])
    if len(seeds) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return fit(*given, **named)
module.fit = third_kills
quick = Experiment("digits", prefusion="none", epochs=1, batch_size=256, form="paper")
run_all([replace(quick, seed=seed, batch_size=256 - seed) for seed in range(5)], jobs=1, progress=False)
"""


def test_a_killed_call_goes_on_where_it_stopped(trained, cache):
    done = subprocess.run([sys.executable, "-c", KILLED], env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == -signal.SIGKILL
    assert len(list(cache.glob("*/run.json"))) == 2
    todo = [replace(QUICK, seed=seed, batch_size=256 - seed) for seed in range(5)]  # unlike, so one by one
    runs = run_all(todo, jobs=1, progress=False)
    assert trained == [2, 3, 4]
    assert [finished.experiment.seed for finished in runs] == [0, 1, 2, 3, 4]


# Several seeds in one pass


def seeds(count, **changes):
    return [replace(QUICK, seed=seed, **changes) for seed in range(count)]


def test_alike_are_those_that_differ_in_seed_fold_and_split_only():
    one = replace(QUICK, data_options={"conflict": 0.1, "split_seed": 3}, seed=3, fold=2)
    same = replace(one, data_options={"conflict": 0.1, "split_seed": 4}, seed=4, fold=None)
    assert module.alike(one) == module.alike(same) == replace(QUICK, data_options={"conflict": 0.1})
    for changes in ({"latent_dim": 8}, {"data_options": {"conflict": 0.2}}, {"form": "calibrated"}):
        assert module.alike(replace(one, **changes)) != module.alike(one)


@pytest.mark.parametrize(
    ("count", "changes", "pays"),
    [
        (4, {}, True),
        (4, {"prefusion": "vgmr"}, True),
        (3, {}, False),
        (1, {}, False),
        (4, {"method": "ogm-ge"}, False),
        (4, {"checkpoints": True}, False),
    ],
)
def test_one_pass_is_for_four_alike_of_the_package_own_steps(count, changes, pays):
    assert module.together(seeds(count, **changes)) is pays


def test_one_pass_gives_the_runs_that_one_by_one_would(cache):
    todo = [replace(QUICK, seed=seed, backbone_options={"dropout": 0.0}) for seed in (5, 2)]
    for found, one in zip(module.train_together(todo), todo, strict=True):
        alone = module.train(one)
        assert found.experiment == one and found.history.together == [5, 2]
        assert found.history.train_loss == pytest.approx(alone.history.train_loss, abs=1e-4)
        answer, other = (predict(each.model(), experiment_data(one).test) for each in (found, alone))
        assert torch.allclose(answer, other, atol=1e-3) and answer.argmax(1).tolist() == found.prediction
        assert found.label == alone.label and found.fingerprint == alone.fingerprint
    assert not cache.exists()


def test_a_pass_whose_run_is_missing_is_trained_again_to_the_same_bits(trained, cache):
    first = run_all(seeds(4), jobs=1, progress=False)
    assert trained == [] and [one.history.together for one in first] == [[0, 1, 2, 3]] * 4
    shutil.rmtree(first[2].path)
    kept = {path: path.stat().st_mtime_ns for path in cache.iterdir()}
    again = run_all(seeds(4), jobs=1, progress=False)
    assert [without_time(one) for one in again] == [without_time(one) for one in first]
    assert {path: path.stat().st_mtime_ns for path in kept} == kept, "those that were there are left alone"


def test_a_pass_takes_no_run_that_was_trained_in_another(trained, cache):
    """Found where a table changed because three of its runs lay in the cache, trained one by one before."""
    fresh = run_all(seeds(4), jobs=1, progress=False)
    shutil.rmtree(cache)
    alone, few = run(seeds(4)[1]), run_all([seeds(5)[0], *seeds(5)[2:]], jobs=1, progress=False)
    assert trained == [1] and few[0].history.together == [0, 2, 3, 4]
    again = run_all(seeds(4), jobs=1, progress=False)
    assert [without_time(one) for one in again] == [without_time(one) for one in fresh]
    assert run(seeds(4)[1]) == alone and len(list(cache.iterdir())) == 1 + 4 + 4
    assert run_all(seeds(4), jobs=1, progress=False) == again and trained == [1], "each is found again"


# One training


WATCHED = {
    "method": "ogm-ge",
    "optimizer": "sgd",
    "learning_rate": 0.05,
    "prefusion": "vgmr",
    "value_weight": 2.0,
    "regulariser_weight": 0.5,
    "temperature": 0.3,
    "removal": "before",
    "warmup_epochs": 2,
    "prefusion_learning_rate": 0.0,
    "weight_decay": 0.2,
    "training_noise": {"share": 0.5},
    "byte_dropout": True,
    "epochs": 3,
}


def test_every_setting_reaches_the_training_that_is_watched(cache):
    one = replace(QUICK, **WATCHED)
    seen = []
    watched = module.train(one, watch=lambda epoch, model, method: seen.append((epoch, type(method).__name__)))
    assert seen == [(epoch, "OGMGE") for epoch in range(3)]
    assert without_time(watched) == replace(without_time(run(one)), key="")
    start = module.build(one, experiment_data(one)).prefusion.state_dict()
    assert all(torch.equal(x, start[name]) for name, x in watched.model().prefusion.state_dict().items())
    for name in WATCHED:
        other = module.train(replace(one, **{name: getattr(QUICK, name)}))
        assert other.history.train_loss != watched.history.train_loss or name in ("prefusion",), name


def test_a_training_on_given_data_and_without_disk(cache):
    from vgmr.analysis.removal import with_idle_modality

    data = with_idle_modality(experiment_data(QUICK), "left")
    found = module.train(QUICK, data)
    assert len(found.subset_accuracy) == 16 and found.fingerprint == data.fingerprint and found.path == ""
    assert found.model() is found.trained and not found.trained.training
    assert not cache.exists()


def test_the_number_of_threads_is_given_back():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        run(QUICK)
        assert torch.get_num_threads() == 2
        with pytest.raises(KeyError), one_thread():
            assert torch.get_num_threads() == 1
            raise KeyError
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_an_experiment_has_a_hash_and_does_not_change():
    one = Experiment("digits", backbone_options={"width": 8}, data_options={"views": [8, {"a": 1}]})
    same = Experiment("digits", backbone_options={"width": 8}, data_options={"views": [8, {"a": 1}]})
    assert hash(one) == hash(same) and len({one, same, replace(one, seed=1)}) == 2
    assert pickle.loads(pickle.dumps(one)) == one and hash(pickle.loads(pickle.dumps(one))) == hash(one)
    given = {"conflict": 0.1}
    kept = Experiment("digits", data_options=given)
    given["conflict"] = 0.9
    assert kept.data_options == {"conflict": 0.1}
    with pytest.raises(TypeError, match="do not change"):
        kept.data_options["conflict"] = 0.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": "mnist"}, "unknown data set 'mnist'; there are: "),
        (
            {"dataset": object()},
            r"^data set must be a name, got object; give it one .*, or train with vgmr.fit",
        ),
        ({"method": dict}, r"^method must be a name, got type; give it one .* there are: none, uniform"),
        (
            {"backbone_options": {"widht": 8}},
            "unknown option widht of backbone 'pooled'; there are: width, dropout, ",
        ),
        ({"norm": "batch"}, "unknown norm 'batch'; there are: layer, none"),
        ({"epochs": 0}, "epochs must be a whole number of at least 1, got 0"),
        ({"epochs": 2.0}, r"epochs must be a whole number of at least 1, got 2\.0"),
        ({"seed": -1}, "seed must be a whole number of at least 0, got -1"),
        ({"seed": True}, "seed must be a whole number of at least 0, got True"),
        ({"fold": -1}, "fold must be a whole number of at least 0, got -1"),
        ({"fold": "a"}, "fold must be a whole number of at least 0, got 'a'"),
        ({"learning_rate": float("nan")}, "learning_rate must be a number of at least 0, got nan"),
        ({"use_global_value": "False"}, "use_global_value must be True or False, got 'False'"),
        ({"neutral_start": 0}, "neutral_start must be True or False, got 0"),
        ({"checkpoints": [1]}, r"checkpoints must be True or False, got \[1\]"),
        ({"training_noise": 0.3}, r"training_noise must be a dict, option -> value, got 0\.3"),
        ({"fold": 1, "data_options": {"fold": 2}}, "fold 1 and data_options with fold 2: give one of them"),
        ({"method_options": "alpha"}, "method_options must be a dict, option -> value, got 'alpha'"),
        ({"data_options": {"root": "x"}}, "data_options hold 'root', which stands outside; give root= of Exp"),
        ({"data_options": {"name": "x"}}, "data_options hold 'name', which stands outside; give dataset= of Exp"),
        (
            {"data_options": {"video": object()}},
            "data_options: expected numbers, text or lists of them, got object",
        ),
        ({"data_options": [1]}, r"data_options must be a dict, option -> value, got \[1\]"),
    ],
)
def test_what_cannot_be_trained_is_refused_when_it_is_made(changes, message):
    with pytest.raises(ValueError, match=message):
        Experiment(**{"dataset": "digits", **changes})


def test_options_may_be_numbers_of_numpy_and_paths():
    given = {
        "text": Path("a") / "b",
        "rate": np.int64(8000),
        "rates": [np.float32(0.5)],
        "kinds": np.array([1, 2]),
    }
    one = Experiment("own", data_options=given)
    assert one.data_options == {"text": str(Path("a") / "b"), "rate": 8000, "rates": [0.5], "kinds": [1, 2]}
    assert keys.from_settings(keys.settings(one)) == one


def test_data_are_loaded_again_where_a_file_or_a_tensor_was_changed(tmp_path):
    generator, table = np.random.default_rng(0), tmp_path / "table.csv"
    lines = ["id,label,audio"]
    for number in range(20):
        write_voice(tmp_path / f"{number}.wav", generator.normal(0, 0.1, 1000))
        lines.append(f"{number},{'ab'[number % 2]},{number}.wav")
    table.write_text("\n".join(lines))
    one = Experiment("own", root=str(table))
    first = experiment_data(one)
    assert experiment_data(one) is first and keys.fingerprint(one) == first.fingerprint
    table.write_text("\n".join(lines).replace(",a,", ",c,"))
    second = experiment_data(one)
    assert second.classes == ("b", "c") and keys.fingerprint(one) == second.fingerprint != first.fingerprint
    write_voice(tmp_path / "3.wav", generator.normal(0, 0.1, 2000))
    third = experiment_data(one)
    assert third.fingerprint != second.fingerprint and keys.fingerprint(one) == third.fingerprint
    third.train.features["audio"].zero_()
    fourth = experiment_data(one)
    assert fourth.train.features["audio"].any() and experiment_data(one) is fourth
    fourth.train.features["audio"] = torch.zeros(1)
    assert experiment_data(one).train.features["audio"].shape == third.train.features["audio"].shape


def test_files_of_gated_sets_are_looked_at_and_those_of_published_ones_are_not(tmp_path, monkeypatch):
    monkeypatch.setenv("VGMR_DATA", str(tmp_path))
    assert (
        held.state("utd-mhad", None)
        == held.state("digits", None)
        == held.state("mosi", str(tmp_path / "no"))
        == ""
    )
    (tmp_path / "mosi").mkdir()
    (tmp_path / "mosi" / "aligned_50.pkl").write_bytes(b"1")
    before = held.state("mosi", None)
    assert before == held.state("mosi", str(tmp_path)) == held.state("mosi", str(tmp_path / "mosi")) != ""
    (tmp_path / "mosi" / "aligned_50.pkl").write_bytes(b"12")
    assert held.state("mosi", None) != before != held.state("mosi", str(tmp_path / "mosi" / "aligned_50.pkl"))


def test_a_fold_is_one_of_the_loaders(monkeypatch):
    asked = []
    load = held.load

    def noted(name, root, fold=None, **options):
        asked.append((name, fold, options))
        return load(name, root, **options)

    monkeypatch.setattr(held, "load", noted)
    for fold in (None, 0, 2):
        experiment_data(Experiment("digits", data_options={"conflict": 0.1}, fold=fold))
    assert asked == [("digits", fold, {"conflict": 0.1}) for fold in (None, 0, 2)]
    monkeypatch.undo()
    with pytest.raises(ValueError, match="fold"):
        experiment_data(Experiment("synthetic", data_options={"like": "mosi"}, fold=0))


def test_devices(monkeypatch):
    assert chosen_device("cpu").type == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert chosen_device("auto").type == "cpu"
    for name in ("cuda", "mps", "cuda:1", "abacus"):
        with pytest.raises(ValueError, match=r"device '[\w:]+'( is not there)?; there are: auto, cpu$"):
            chosen_device(name)
    with pytest.raises(ValueError, match="device 'cuda' is not there"):
        run(replace(QUICK, device="cuda"))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert chosen_device("auto").type == "mps"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert chosen_device("auto").type == chosen_device("cuda:0").type == "cuda"
    with pytest.raises(ValueError, match="device 'cuda:1' is not there"):
        chosen_device("cuda:1")


def test_the_device_is_said():
    assert run(QUICK).device == "cpu" if not torch.cuda.is_available() else run(QUICK).device.startswith("cuda (")


# Nothing on disk is trusted


@pytest.mark.parametrize("file", ["run.json", "model.safetensors"])
@pytest.mark.parametrize("damage", ["empty", "half", "flipped", "other digit", "gone"])
def test_a_damaged_run_is_named_and_made_again(cache, trained, file, damage):
    first = run(QUICK)
    path = next(cache.iterdir()) / file
    raw = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    elif damage == "other digit":  # an accuracy that nobody measured still reads as one
        digit = raw.index(b".") + 1
        raw[digit] = ord("1") if raw[digit] == ord("0") else ord("0")
        path.write_bytes(bytes(raw))
    else:
        raw[len(raw) // 2] ^= 0x15
        path.write_bytes({"empty": b"", "half": bytes(raw[: len(raw) // 2]), "flipped": bytes(raw)}[damage])
    if file == "run.json" and damage == "flipped":
        path.write_text(json.dumps({**json.loads(json.dumps({})), "experiment": {"dataset": "digits"}}))
    with pytest.warns(UserWarning, match=f"a run on disk is refused and made again: .*{first.path}"):
        again = run(QUICK)
    assert trained == [0, 0] and without_time(again) == without_time(first)
    assert run(QUICK) == again and trained == [0, 0]


@given(st.binary(max_size=200))
@settings(max_examples=30)
def test_whatever_stands_in_run_json_is_refused_in_one_line(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("run")
    (folder / "run.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"no intact run") as caught:
        read_run(folder)
    assert str(folder) in str(caught.value)


def test_a_cache_that_cannot_be_written_costs_a_warning_before_the_training(tmp_path, monkeypatch, trained):
    (tmp_path / "file").touch()
    monkeypatch.setenv("VGMR_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="cannot be written.*runs are not kept") as caught:
        found = run_all({"a": [QUICK, replace(QUICK, seed=1)]}, jobs=1, progress=False)
    assert len(caught) == 1 and trained == [0, 1]
    assert [one.experiment.seed for one in found["a"]] == [0, 1]
    assert found["a"][0].model() is not None and found["a"][0].path == ""


@pytest.mark.parametrize("number", [np.int64(3), np.int32(3)])
def test_settings_take_numbers_of_numpy_and_keep_pythons(number):
    names = ("seed", "epochs", "batch_size", "latent_dim", "patience", "rank")
    one = Experiment("digits", **dict.fromkeys(names, number), sparsity=np.float32(0.5))
    assert one == Experiment("digits", **dict.fromkeys(names, 3), sparsity=0.5)
    assert {type(getattr(one, name)) for name in names} == {int} and type(one.sparsity) is float
