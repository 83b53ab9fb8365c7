"""The same on a GPU: trainings, seeds in one pass, methods, systems, what is measured."""

from dataclasses import replace

import pytest
import torch

from vgmr import Classifier, Experiment, Objective, PooledBackbone, fit, load, predict, run
from vgmr.analysis import cost
from vgmr.balancing import METHODS, make_method
from vgmr.contributions import contributions
from vgmr.corruption import Drawn
from vgmr.experiment import build
from vgmr.prefusion import Identity
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
    assert {row["variant"] for row in result["rows"] if row.get("graph_ratio", 1) < 1} == {"none", "vgmr"}
