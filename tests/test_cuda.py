"""The same on a GPU: trainings, seeds in one pass, methods, systems, what is measured."""

from dataclasses import replace

import pytest
import torch

from vgmr import Batch, Classifier, Experiment, Objective, PooledBackbone, fit, load, predict, run
from vgmr.analysis import cost
from vgmr.balancing import METHODS, make_method
from vgmr.contributions import contributions
from vgmr.corruption import Drawn
from vgmr.experiment import build
from vgmr.loop import alone, graphs, seeds
from vgmr.prefusion import Identity
from vgmr.runs import run_all
from vgmr.systems import BACKBONES
from vgmr.training import fit_seeds

pytestmark = pytest.mark.cuda

DEVICE = "cuda"
DATA = {"samples": 96, "steps": 6}
FORMS = ("paper", "calibrated")
SMALL = {"num_layers": 1, "feedforward_dim": 16, "num_heads": 2}


@pytest.fixture(scope="module")
def data():
    return load("synthetic", **DATA)


def experiment(form="paper", backbone="pooled", **options):
    steady = {"width": 8, "dropout": 0.0, **(SMALL if backbone == "transformer" else {})}
    given = {"backbone_options": steady, "dropout": 0.0, "latent_dim": 8, "epochs": 2, **options}
    return Experiment("synthetic", backbone=backbone, form=form, data_options=DATA, **given)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("backbone", ["pooled", "transformer"])
def test_an_experiment_names_the_gpu_and_agrees_with_the_processor(tmp_path, monkeypatch, form, backbone):
    monkeypatch.setenv("VGMR_CACHE", str(tmp_path))
    there, here = (run(experiment(form, backbone, device=name)) for name in ("auto", "cpu"))
    assert there.device.startswith("cuda (") and here.device == "cpu"
    assert there.peak_memory > 0
    assert there.history.train_loss == pytest.approx(here.history.train_loss, rel=1e-3)


@pytest.mark.parametrize("form", FORMS)
def test_seeds_in_one_pass_are_the_seeds_alone(data, form):
    far = data.to(DEVICE)
    alone, together = (
        [build(experiment(form, seed=seed), data).to(DEVICE) for seed in range(3)] for _ in range(2)
    )
    for seed, model in enumerate(alone):
        fit(model, far, epochs=1, seed=seed)
    fit_seeds(together, far, range(3), epochs=1)
    for one, other in zip(alone, together, strict=True):
        for name, x in one.state_dict().items():
            torch.testing.assert_close(other.state_dict()[name], x, atol=1e-4, rtol=1e-4, msg=name)


@pytest.mark.parametrize("method", METHODS)
def test_methods(data, method):
    few, outputs = data.to(DEVICE), len(data.classes)
    if method in ("mmim", "self-mm"):  # for scores
        scored = {name: replace(part, label=part.label - 0.5) for name, part in few.parts.items()}
        few, outputs = replace(few, classes=(), **scored), 1
    head = "shared" if method == "mla" else "concat"
    model = Classifier(Identity(few.dims), PooledBackbone(few.dims, outputs, width=8, head=head)).to(DEVICE)
    history = fit(model, few, epochs=2, method=make_method(method), objective=Objective(task=few.task))
    assert torch.tensor(history.train_loss).isfinite().all()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("system", BACKBONES)
def test_systems_behind_both_forms(data, system, form):
    model = build(experiment(form, system, backbone_options={}), data).to(DEVICE)
    fit(model, data.to(DEVICE), epochs=1)
    logits = predict(model, data.to(DEVICE).test)
    assert logits.device.type == DEVICE
    torch.testing.assert_close(logits.cpu(), predict(model.cpu(), data.test), atol=1e-3, rtol=1e-3)


@pytest.fixture
def watched(monkeypatch):
    """The replayed steps of all trainings."""
    made = []

    class Watched(graphs.Replayed):
        def __init__(self, step):
            super().__init__(step)
            made.append(self)

    for module in (alone, seeds):
        monkeypatch.setattr(module, "Replayed", Watched)
    return made


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("system", BACKBONES)
def test_replayed_steps_are_the_steps(data, watched, monkeypatch, system, form):
    far = data.to(DEVICE)
    found = {}
    for way in ("replayed", "one by one"):
        model = build(experiment(form, system, backbone_options={"dropout": 0.0}), data).to(DEVICE)
        history = fit(model, far, epochs=3, batch_size=4)
        found[way] = history.train_loss
        monkeypatch.setattr(alone, "replayable", lambda *_: False)
    (replayed,) = watched
    if system == "tetfn":  # waits for the device
        assert replayed.waits and not replayed._graphs
    else:
        assert replayed._graphs and not replayed.waits
    assert found["replayed"] == pytest.approx(found["one by one"], rel=1e-3)


@pytest.mark.parametrize("form", FORMS)
def test_replayed_steps_of_several_seeds_are_the_steps(data, watched, monkeypatch, form):
    far, found = data.to(DEVICE), []
    for _ in range(2):
        models = [build(experiment(form, seed=seed), data).to(DEVICE) for seed in range(3)]
        found.append([one.train_loss for one in fit_seeds(models, far, range(3), epochs=3, batch_size=4)])
        monkeypatch.setattr(seeds, "replayable", lambda *_: False)
    assert any(one._graphs for one in watched)
    for one, other in zip(*found, strict=True):
        assert one == pytest.approx(other, rel=1e-4)


def test_dropout_is_drawn_anew_in_every_replay():
    dropout, x = torch.nn.Dropout(0.5), torch.ones(1000, device=DEVICE)
    batch = Batch({"a": x[:, None, None]}, {"a": x[:, None] > 0}, torch.zeros(1000, device=DEVICE).long())
    replayed = graphs.Replayed(lambda batch: dropout(batch.features["a"]).flatten())
    masks = torch.stack([replayed(batch) for _ in range(graphs.WARM + 4)]) > 0
    assert len(masks.unique(dim=0)) == len(masks)


def test_a_step_that_looks_at_a_value_stays_as_it_is():
    def step(batch):
        return batch.label.sum() * float(batch.features["a"].sum())

    x = torch.ones(4, 1, 1, device=DEVICE)
    batch = Batch({"a": x}, {"a": x[..., 0] > 0}, torch.ones(4, device=DEVICE).long())
    replayed = graphs.Replayed(step)
    assert [float(replayed(batch)) for _ in range(2 * graphs.WARM)] == [16.0] * (2 * graphs.WARM)
    assert replayed.waits and not replayed._graphs


def test_a_capture_that_fails_harms_nothing_after_it(data):
    def step(batch):
        torch.cuda.synchronize()
        return batch.label.sum() + 0.0

    few = data.to(DEVICE).train.index(torch.arange(4, device=DEVICE))
    replayed = graphs.Replayed(step)
    losses = [float(replayed(few)) for _ in range(2 * graphs.WARM)]
    assert replayed.waits and losses == [float(few.label.sum())] * len(losses)
    test_dropout_is_drawn_anew_in_every_replay()


def test_runs_of_several_seeds_are_one_pass(tmp_path, monkeypatch):
    monkeypatch.setenv("VGMR_CACHE", str(tmp_path))
    runs = run_all([experiment(seed=seed, device=DEVICE) for seed in range(3)], jobs=1, progress=False)
    assert [one.history.together for one in runs] == [[0, 1, 2]] * 3


def test_contributions(data):
    model = build(experiment(), data).eval()
    found = {}
    for device in ("cpu", DEVICE):
        part = data.test.to(device)
        with torch.no_grad():
            output = model.to(device)(part.features, part.mask)
        found[device] = contributions(model.backbone, output.encodings, part.label)
    for name, delta in found["cpu"].items():
        torch.testing.assert_close(found[DEVICE][name].cpu(), delta, atol=1e-4, rtol=1e-4)


def test_corruptions_are_drawn_anew(data):
    far = data.to(DEVICE)
    drawn = Drawn.like(far.train, ("noise", "missing", "masking", "asynchrony"))
    history = fit(build(experiment(), data).to(DEVICE), far, epochs=1, corruption=drawn)
    assert torch.tensor(history.train_loss).isfinite().all()


def test_costs_with_a_graph_beside():
    result = cost.bench(1, 1, DEVICE, progress=False, variants=("none", "vgmr"))
    assert result["device"] == torch.cuda.get_device_name()
    assert all(row["graph_ratio"] < 1 for row in result["rows"] if row["variant"] in ("none", "vgmr"))
