"""What notebook 18 trains: every system, every variant in front of it, the same search for each."""

from types import SimpleNamespace

import pytest
import torch

from vgmr import studies
from vgmr.analysis.cost import made_data
from vgmr.experiment import build
from vgmr.prefusion import count_parameters
from vgmr.refiner import FORMS
from vgmr.studies import systems
from vgmr.systems import BACKBONES

SHAPES = {
    "uci-mfeat": {"fou": (1, 76), "kar": (1, 64), "zer": (1, 47)},
    "utd-mhad": {"accelerometer": (9, 3), "gyroscope": (9, 3), "skeleton": (11, 60)},
}
CHOSEN = {"learning_rate": 3e-3, "epochs": 7}


@pytest.fixture
def asked(monkeypatch):
    found = {}

    def choose(name, variants, common, again=False, jobs=2, rates=None):
        found[name] = (list(variants), dict(common), rates)
        return {name: dict(CHOSEN) for name in variants}

    monkeypatch.setattr(systems, "choose", choose)
    return found


def test_every_system_is_a_host():
    given = {of["backbone"] for of in systems.HOSTS["uci-mfeat"].values()}
    assert given == set(BACKBONES)


@pytest.mark.parametrize("dataset", list(systems.HOSTS))
def test_each_variant_stands_before_each_host_and_nothing_else_differs(dataset, asked):
    todo = systems.plugged(dataset)
    hosts = systems.HOSTS[dataset]
    tried = {host: [variant for one, variant in todo if one == host] for host in hosts}
    assert all(names == list(studies.VARIANTS) for names in tried.values())
    for (host, variant), group in todo.items():
        plain = todo[host, "plain"]
        assert len(set(group)) == systems.SEEDS >= 5
        for one, other in zip(group, plain, strict=True):
            changed = {name for name in vars(one) if getattr(one, name) != getattr(other, name)}
            assert changed <= {
                "prefusion",
                "form",
                *studies.VARIANTS[variant],
                *FORMS["calibrated"],
                *FORMS["neutral"],
            }
    (names, common, rates) = asked[f"{dataset}-plugged"]
    assert names == [f"{host}: {variant}" for host, variant in todo]
    assert rates == systems.RATES and common == systems.shared(dataset)


@pytest.mark.parametrize("dataset", list(systems.HOSTS))
def test_every_host_takes_the_data_behind_every_variant(dataset, asked):
    data = made_data(SHAPES[dataset], 8, 4, 3)
    for (host, variant), group in systems.plugged(dataset).items():
        model = build(group[0], data)
        assert isinstance(model.backbone, BACKBONES[systems.HOSTS[dataset][host]["backbone"]])
        output = model.eval()(data.test.features, data.test.mask)
        assert torch.isfinite(output.logits).all(), (host, variant)


def test_a_size_is_of_the_refiner_not_of_the_host(asked):
    data = made_data(SHAPES["uci-mfeat"], 8, 4, 3)
    sizes = {}
    for (_, variant), group in systems.plugged("uci-mfeat").items():
        sizes.setdefault(variant, set()).add(count_parameters(build(group[0], data).prefusion))
    assert all(len(found) == 1 for found in sizes.values())
    (control,), (form,) = sizes["parameter-matched MLP"], sizes[studies.FORM]
    assert abs(control / form - 1) < 0.02


def test_what_is_not_in_the_study_is_refused():
    with pytest.raises(ValueError, match="no study of systems on 'digits'; there are: uci-mfeat, utd-mhad"):
        systems.plugged("digits")


def test_costs_have_a_row_for_each_place(monkeypatch):
    monkeypatch.setattr(systems, "step_costs", lambda todo, baseline: {name: len(name) for name in todo})
    found = systems.step_table("utd-mhad")
    assert list(zip(found["host"], found["variant"], strict=True)) == list(systems.before("utd-mhad"))
    assert (found["host_step"] == found["host"].str.len()).all()
    assert (found["step"] == found["variant"].str.len()).all()


@pytest.mark.parametrize("group", [None, [4, 7]])
def test_the_mean_over_hosts_by_hand(group):
    def run(seed, *prediction):
        return SimpleNamespace(
            experiment=SimpleNamespace(seed=seed, fold=None, data_options={}),
            prediction=list(prediction),
            label=[0, 1],
            group=group,
            fingerprint="",
            metrics={},
        )

    runs = {
        ("one", "plain"): [run(0, 0, 0), run(1, 1, 1)],
        ("other", "plain"): [run(0, 0, 1), run(1, 0, 0)],
        ("one", "better"): [run(0, 0, 1), run(1, 0, 1)],
        ("other", "better"): [run(0, 0, 1), run(1, 1, 1)],
        ("one", "not everywhere"): [run(0, 0, 0), run(1, 0, 0)],
    }
    found = systems.over_hosts(runs)
    assert list(found.index) == ["better"]
    # shares right, plain: seed 0 (1, 1/2), seed 1 (1/2, 1/2); better: (1, 1), (1/2, 1)
    assert found.loc["better", "mean"] == pytest.approx(0.875)
    assert found.loc["better", "difference"] == pytest.approx(0.25)
    assert found.loc["better", "counted"] == "seeds and samples" and found.loc["better", "samples"] == 2
