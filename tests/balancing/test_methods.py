"""What all balancing methods have in common."""

from contextlib import nullcontext
from copy import deepcopy
from dataclasses import asdict, replace

import pytest
import torch
from made_models import (
    THREE,
    differing,
    digits,
    gradients,
    make_model,
    start,
    take_step,
)
from torch import nn

from vgmr.backbones import PooledBackbone
from vgmr.balancing import AGM, ARL, METHODS, OGMGE, PMR, Balancing, GradBlending, Relearning, make_method, uniform
from vgmr.balancing.agm import signal_scale
from vgmr.balancing.arl import dependence_weights
from vgmr.balancing.base import Loop
from vgmr.balancing.grad_blending import blend_weights
from vgmr.balancing.ogm_ge import damping
from vgmr.balancing.pmr import pull_and_hold
from vgmr.classifier import Classifier
from vgmr.experiment import build
from vgmr.fusion.base import Backbone
from vgmr.inference import predict
from vgmr.loop.steps import make_optimizer
from vgmr.objective import Objective
from vgmr.prefusion import Identity
from vgmr.runs import run
from vgmr.settings import Experiment
from vgmr.training import fit


class UnscaledARL(ARL):
    def factors(self, logits):
        return torch.ones(len(logits))


NEUTRAL = {
    "the protocol": Balancing,
    "ogm-ge": lambda: OGMGE(0.0, noise=False, window=(0, 9)),
    "pmr": lambda: PMR(0.0, 0.0),
    "agm": lambda: AGM(0.0, clip=None),
    "arl": lambda: UnscaledARL(0.0, start_epoch=-1),
    "relearning": lambda: Relearning(0.0, interval=2),
    "grad-blending": lambda: GradBlending(weights=dict.fromkeys(THREE, 0.0)),
}


def trained(method, kind, prefusion="vgmr"):
    model = make_model(prefusion=prefusion, dropout=0.2)
    fit(model, digits(), epochs=3, batch_size=150, method=method, optimizer=kind, learning_rate=0.01)
    return model


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_neutral_settings_are_plain_training_bit_by_bit(kind):
    """24 steps with dropout, so that also the random numbers are the same."""
    plain = trained(None, kind).state_dict()
    for name, method in NEUTRAL.items():
        assert not differing(trained(method(), kind).state_dict(), plain), name
    assert differing(trained(OGMGE(window=(0, 9)), kind).state_dict(), plain)


WINDOWED = {
    "ogm-ge": lambda: OGMGE(window=(2, 4)),
    "pmr": lambda: PMR(entropy_weight=0.0, window=(2, 4)),
    "agm": lambda: AGM(window=(2, 4)),
}


@pytest.mark.parametrize("name", WINDOWED)
@pytest.mark.parametrize("prefusion", ["none", "vgmr"])
def test_outside_its_window_a_method_changes_nothing(name, prefusion):
    model = make_model(prefusion=prefusion)
    plain = gradients(Balancing(), model)
    method = WINDOWED[name]()
    optimizer = start(method, model)
    for epoch, active in ((1, False), (2, True), (4, True), (5, False)):
        # AGM scales by one where nothing differs from the average
        take_step(method, model, optimizer, epoch, torch.arange(32, 64))
        changed = differing(take_step(method, model, optimizer, epoch), plain)
        assert bool(changed) == active, epoch


def test_outside_its_window_the_update_is_plain_too():
    model, plain = make_model(), make_model()
    method, nothing = OGMGE(window=(2, 4), apply_to="update"), Balancing()
    for each, one in ((method, model), (nothing, plain)):
        optimizer = start(each, one, "adamw", 0.01)
        take_step(each, one, optimizer, 5)
    assert not differing(model.state_dict(), plain.state_dict())


def test_by_default_the_first_half_is_modulated():
    method = OGMGE()
    for epochs, last in ((10, 4), (5, 2), (1, 0)):
        method.start(make_model(), digits(), epochs, 0)
        assert method.active == (0, last)


COEFFICIENTS = {
    "damping": damping,
    "pull": lambda x: pull_and_hold(x)[0],
    "hold": lambda x: pull_and_hold(x)[1],
    "signal": lambda x: signal_scale(x, x.square(), 0.3),
    "dependence": lambda x: dependence_weights(x.square(), x),
    "blend": lambda x: blend_weights(torch.stack([x, x.square()], 1), torch.stack([x / 2, x], 1)),
}


@pytest.mark.parametrize("name", COEFFICIENTS)
@pytest.mark.parametrize("count", [2, 3])
def test_relabelled_modalities_have_relabelled_coefficients(name, count):
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        x = torch.rand(count, generator=generator) + 0.2
        order = torch.randperm(count, generator=generator)
        torch.testing.assert_close(COEFFICIENTS[name](x[order]), COEFFICIENTS[name](x)[order])


ACTIVE = {
    "ogm-ge": lambda: OGMGE(noise=False),
    "pmr": PMR,
    "agm": AGM,
    "arl": lambda: ARL(start_epoch=-1),
    "mmpareto": lambda: make_method("mmpareto"),
}


def contrary_heads(model):
    """Heads whose gradients conflict with those of the joint head, alike under any names."""
    joint, width = model.backbone.head, model.backbone.width
    heads = {}
    for position, name in enumerate(joint.names):
        heads[name] = nn.Linear(width, joint.linear.out_features)
        heads[name].weight.data = -10 * joint.linear.weight.data[:, width * position : width * (position + 1)]
        heads[name].bias.data.zero_()
    return nn.ModuleDict({name: heads[name] for name in model.backbone.dims})


def coefficients(method, model, data, rows):
    method.start(model, data, 10, 0)
    optimizer = make_optimizer("sgd", model, 0.0, method=method)
    method.epoch_start(model, data, 0, Loop(optimizer, lambda *arguments: None))
    method.step(model, data.train.index(rows), Objective(), optimizer, 0)
    return method.noted()


@pytest.mark.parametrize("name", ACTIVE)
def test_renamed_modalities_end_to_end(name, monkeypatch):
    """The same model and data under names whose order is reversed."""
    monkeypatch.setattr(uniform, "unimodal_heads", lambda model, count, seed: contrary_heads(model))
    new = {"left": "z", "right": "y", "spectrum": "x"}
    data, model = digits(), make_model()
    # the same weights, of the head by columns
    dims = {new[old]: dim for old, dim in reversed(data.dims.items())}
    other = Classifier(Identity(dims), PooledBackbone(dims, 10, 8, 0.0))
    state = {}
    for key, value in model.state_dict().items():
        parts = key.split(".")
        if "head" in parts and key.endswith("weight"):
            value = torch.cat(value.split(8, 1)[::-1], 1)
        state[".".join(new.get(part, part) for part in parts)] = value
    other.load_state_dict(state)

    def renamed(batch):
        turned = {"features": batch.features, "mask": batch.mask}
        turned = {k: {new[old]: v[old] for old in reversed(list(v))} for k, v in turned.items()}
        return replace(batch, **turned, corrupted=None)

    turned = replace(data, train=renamed(data.train), validation=renamed(data.validation))
    rows = torch.arange(40)
    method, again = ACTIVE[name](), ACTIVE[name]()
    before = coefficients(method, model, data, rows)
    after = coefficients(again, other, turned, rows)
    assert set(before) == set(THREE) and len(set(before.values())) > 1
    assert after == {new[old]: pytest.approx(value, abs=1e-5) for old, value in before.items()}


@pytest.mark.parametrize("name", ACTIVE)
def test_a_duplicated_batch_has_the_same_coefficients(name, monkeypatch):
    monkeypatch.setattr(uniform, "unimodal_heads", lambda model, count, seed: contrary_heads(model))
    model, data = make_model(), digits()
    once = coefficients(ACTIVE[name](), model, data, torch.arange(32))
    twice = coefficients(ACTIVE[name](), model, data, torch.arange(32).repeat(2))
    assert len(set(once.values())) > 1
    assert twice == {key: pytest.approx(value, abs=1e-5) for key, value in once.items()}


RESUMED = {
    "uniform": {},
    "grad-blending": {"weights": {"left": 0.1, "right": 0.2, "spectrum": 0.3}},
    "ogm-ge": {},
    "pmr": {"momentum": 0.5},
    "agm": {},
    "mmpareto": {},
    "relearning": {},
    "mla": {"projection": "rls"},
    "arl": {"start_epoch": -1},
    "unis-mmc": {},
}


@pytest.mark.parametrize("name", RESUMED)
@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_a_resumed_training_takes_the_same_next_steps(name, kind):
    # Self-MM refuses ten classes; MMIM has an optimiser of its own, which restarts with the epoch's stage A
    assert set(RESUMED) == set(METHODS) - {"none", "mmim", "self-mm"}
    head = "shared" if name == "mla" else "concat"

    def fresh(seed):
        method, model = make_method(name, **RESUMED[name]), make_model(head=head, seed=seed)
        return method, model, start(method, model, kind, 0.02)

    def go_on(method, model, optimizer):
        for index in range(2):
            take_step(method, model, optimizer, rows=torch.arange(32) + 32 * index)
        loop = Loop(optimizer, lambda *arguments: None)
        if name == "relearning":
            method.reset(model, dict.fromkeys(THREE, 0.1), optimizer)
        elif name != "mla":  # whose place in the epoch would begin anew
            method.epoch_start(model, digits(), 1, loop)
        take_step(method, model, optimizer, epoch=1, rows=torch.arange(40, 90))
        return {key: value.clone() for key, value in model.state_dict().items()}

    method, model, optimizer = fresh(0)
    for _ in range(3):
        take_step(method, model, optimizer)
    saved = [{key: value.clone() for key, value in part.state_dict().items()} for part in (model, method)]
    steps = optimizer.state_dict()
    resumed, copy, copied = fresh(1)
    copied.load_state_dict(deepcopy(steps))
    copy.load_state_dict(saved[0])
    resumed.load_state_dict(saved[1])
    assert not differing(go_on(resumed, copy, copied), go_on(method, model, optimizer))


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_the_optimiser_has_a_group_for_each_learning_rate(kind):
    model, method = make_model(prefusion="vgmr"), make_method("uniform")
    method.start(model, digits(), 1, 0)
    optimizer = make_optimizer(kind, model, 0.1, 0.2, 0.3, method)
    found = [
        (group["lr"], group["weight_decay"], {id(p) for p in group["params"]}) for group in optimizer.param_groups
    ]
    assert sorted(found, key=lambda group: group[0]) == [
        (0.1, 0.3, {id(p) for p in (*model.backbone.parameters(), *method.parameters())}),
        (0.2, 0.3, {id(p) for p in model.prefusion.parameters()}),
    ]
    (single,) = make_optimizer(kind, model, 0.1, method=method).param_groups
    assert {id(p) for p in single["params"]} == {id(p) for p in (*model.parameters(), *method.parameters())}
    assert kind == "adamw" or optimizer.param_groups[0]["momentum"] == 0.9


@pytest.mark.parametrize(("name", "options"), [("mla", {"projection": "rls"}), ("ogm-ge", {"window": (0, 1)})])
def test_an_experiment_with_a_method_is_cached_and_read_again(name, options, tmp_path, monkeypatch):
    monkeypatch.setenv("VGMR_CACHE", str(tmp_path))
    experiment = Experiment(
        "digits", "none", method=name, method_options=options, optimizer="sgd", learning_rate=0.05, epochs=2
    )
    first, again = run(experiment), run(experiment)
    assert first.path == again.path and asdict(first.history) == asdict(again.history)
    assert again.experiment.method == name
    assert list(again.history.coefficients) == ([] if name == "mla" else list(THREE))
    test = digits().test
    assert predict(again.model(), test).argmax(1).tolist() == again.prediction
    plain = run(replace(experiment, method="none", method_options={}))
    assert plain.path != first.path and plain.prediction != first.prediction


def test_mla_has_its_head_in_an_experiment_unless_told_otherwise():
    data = digits()
    heads = [
        (Experiment("digits", "none", method="mla"), "SharedHead"),
        (Experiment("digits", "none"), "ConcatHead"),
        (Experiment("digits", "none", method="mla", backbone_options={"head": "sum"}), "SumHead"),
    ]
    for experiment, head in heads:
        assert type(build(experiment, data).backbone.head).__name__ == head


REGRESSION = ("none", "mmim", "self-mm")  # for values as well as classes


@pytest.mark.parametrize("name", METHODS)
def test_a_method_for_classes_refuses_a_regression_in_one_line(name):
    data = digits()
    scores = {part: replace(rows, label=rows.label.float()) for part, rows in data.parts.items()}
    regression = replace(data, classes=(), **scores)
    model = Classifier(Identity(data.dims), PooledBackbone(data.dims, 1, 8))
    if name in REGRESSION:
        make_method(name).start(model, regression, 10, 0)
        return
    with pytest.raises(ValueError, match="is defined for classes only and this is a regression; take the method"):
        make_method(name).start(model, regression, 10, 0)


NONSENSE = [
    ("agm", {"alpha": float("nan")}, "alpha must be a number of at least 0, got nan"),
    ("agm", {"limit": -5}, "limit must be a number of at least 0, got -5"),
    ("agm", {"clip": 0}, "clip must be a positive norm, or None for no clipping, got 0"),
    ("agm", {"window": 5}, r"window must be two epochs, the first and the last, such as \(0, 9\), got 5"),
    ("pmr", {"window": (1,)}, r"window must be two epochs, .* got \(1,\)"),
    ("ogm-ge", {"window": (0.5, 2)}, r"window must be two epochs, .* got \(0.5, 2\)"),
    ("ogm-ge", {"alpha": -1}, "alpha must be a number of at least 0, got -1"),
    ("pmr", {"alpha": "much"}, "alpha must be a number of at least 0, got 'much'"),
    ("pmr", {"temperature": float("nan")}, "temperature > 0, got .* nan"),
    ("pmr", {"temperature": None}, "temperature > 0, got 0.1, 0.0 and None"),
    ("pmr", {"momentum": "much"}, "0 <= momentum < 1 and temperature > 0, got 0.1, 'much' and 1.0"),
    ("pmr", {"entropy_epochs": -1}, "entropy_epochs must be a whole number of at least 0, got -1"),
    ("pmr", {"entropy_epochs": float("nan")}, "entropy_epochs must be a whole number of at least 0, got nan"),
    ("mmpareto", {"strength": -1}, "strength must be a number of at least 0, got -1"),
    ("relearning", {"interval": 1.5}, "interval must be at least 1, got 1.5; give a whole number"),
    ("relearning", {"times": -1}, "times must be a number of at least 0, got -1"),
    ("mla", {"weights": {"left": float("nan")}}, "weights: expected positive numbers by modality, got"),
    ("mla", {"weights": [0.5, 0.5]}, r"weights: expected positive numbers by modality, got \[0.5, 0.5\]"),
    ("arl", {"clip": 0}, "clip must be a positive norm, got 0"),
    ("arl", {"temperature": -1}, "temperature must be a number of at least 0, got -1"),
    ("arl", {"start_epoch": "late"}, "start_epoch must be a whole number, got 'late'"),
    ("grad-blending", {"super_epoch": 1.5}, "super_epoch must be at least 1, got 1.5; give a whole number"),
    ("grad-blending", {"least_overfitting": 0}, "least_overfitting must be a positive number, got 0"),
    ("grad-blending", {"held_out": "much"}, "expected 0 < held_out < 1, got 'much'"),
    ("grad-blending", {"weights": 0.5}, "expected weights by modality, as a dict, got 0.5"),
    ("grad-blending", {"weights": {"left": "much"}}, "expected weights by modality, none negative, with a sum of"),
    ("unis-mmc", {"weight": -1}, "weight must be a number of at least 0, got -1"),
    ("unis-mmc", {"temperature": float("nan")}, "temperature must be positive, got nan"),
    ("unis-mmc", {"temperature": "much"}, "temperature must be positive, got 'much'"),
    ("unis-mmc", {"dropout": float("nan")}, "dropout must lie in 0 to 1, got nan"),
    ("mmim", {"contrast_weight": float("nan")}, "contrast_weight must be a number of at least 0, got nan"),
    ("self-mm", {"limit": -1}, "limit must be a number of at least 0, or None, got -1"),
    ("self-mm", {"dropout": "much"}, "dropout must lie in 0 to 1, got 'much'"),
]


@pytest.mark.parametrize(("name", "options", "message"), NONSENSE)
def test_options_that_cannot_be_meant_are_refused_in_one_line(name, options, message):
    with pytest.raises(ValueError, match=message) as error:
        make_method(name, **options)
    assert "\n" not in str(error.value)


class Late(Backbone):
    """Late fusion without a head: the sum of what each modality says by itself."""

    def __init__(self, dims, num_outputs):
        super().__init__(dims, num_outputs, width=num_outputs)
        self.encoder = nn.ModuleDict({name: nn.Linear(dim, num_outputs) for name, dim in self.dims.items()})

    def encode_one(self, name, x, mask):
        return self.encoder[name](x.mean(1))

    def fuse(self, encodings, keep=None, mask=None):
        return sum((encodings[n] for n in self.present(keep)), torch.zeros_like(next(iter(encodings.values()))))


def test_agm_without_a_head_to_clip_by():
    data = digits()
    model = Classifier(Identity(data.dims), Late(data.dims, 10))
    with pytest.raises(ValueError, match=r"none of the head of Late can learn; give clip=None$"):
        fit(model, data, epochs=1, method=AGM())
    fit(model, data, epochs=1, batch_size=512, method=AGM(clip=None))
    frozen = make_model()
    frozen.backbone.head.requires_grad_(False)
    with pytest.raises(ValueError, match="none of the head of PooledBackbone can learn"):
        fit(frozen, data, epochs=1, method=AGM())


@pytest.mark.parametrize(("name", "head"), [("arl", "concat"), ("mla", "shared")])
def test_a_modality_before_whose_head_nothing_can_learn(name, head):
    model = make_model(head=head)
    model.backbone.encoder["right"].requires_grad_(False)
    with pytest.raises(ValueError, match="nothing before it can learn for 'right'; ") as error:
        fit(model, digits(), epochs=1, method=make_method(name))
    assert "\n" not in str(error.value)
    behind_vgmr = make_model(head=head, prefusion="vgmr")
    behind_vgmr.backbone.encoder["right"].requires_grad_(False)
    fit(behind_vgmr, digits(), epochs=1, batch_size=512, method=make_method(name))


def test_mla_needs_the_packages_own_shared_head():
    class Shared(Late):
        readout = "shared"

    data = digits()
    with pytest.raises(ValueError, match="MLA trains the SharedHead of a backbone, its `head`; Shared has none"):
        fit(Classifier(Identity(data.dims), Shared(data.dims, 10)), data, epochs=1, method=make_method("mla"))


class Interrupted(Exception):
    """What stops a training within a step."""


@pytest.mark.parametrize("name", METHODS)
def test_a_method_that_was_interrupted_trains_the_same_model_as_a_fresh_one_would(name, monkeypatch):
    """Nothing of the steps before is left in it: neither what it noted nor what it held between two hooks."""
    options = {"ogm-ge": {"apply_to": "update", "window": (0, 9)}, "relearning": {"interval": 1}}.get(name, {})
    data = replace(digits(), classes=("no", "yes")) if name == "self-mm" else digits()
    if name == "self-mm":
        parts = [replace(part, label=part.label % 2) for part in (data.train, data.validation, data.test)]
        data = replace(data, train=parts[0], validation=parts[1], test=parts[2])
    model = make_model(head=METHODS[name].head or "concat", dropout=0.2)
    used, original, taken = make_method(name, **options), METHODS[name].after_step, []

    def after_step(self, model, epoch):
        taken.append(epoch)
        if len(taken) == 3:
            raise Interrupted
        original(self, model, epoch)

    monkeypatch.setattr(METHODS[name], "after_step", after_step)
    with nullcontext() if name == "mla" else pytest.raises(Interrupted):  # which takes its steps by itself
        fit(model, data, epochs=2, batch_size=150, method=used, optimizer="sgd")
    other = deepcopy(model)
    histories = [
        fit(one, data, epochs=2, batch_size=200, method=method, optimizer="sgd", learning_rate=0.01)
        for one, method in ((model, used), (other, make_method(name, **options)))
    ]
    assert histories[0].coefficients == histories[1].coefficients
    assert not differing(model.state_dict(), other.state_dict())
