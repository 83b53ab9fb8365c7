"""Diagnosing & Re-learning: purity, how far a reset goes, when it comes and what it leaves alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from made_models import THREE, digits, make_model, names_of

from vgmr.balancing import Relearning, relearning
from vgmr.balancing.relearning import encoding_purity, purity, reset_share
from vgmr.loop.steps import make_optimizer
from vgmr.training import fit


@pytest.mark.parametrize(("gap", "share"), [(0.0, 0.0), (0.05, 0.14889), (0.2, 0.53705), (1.0, 0.99505)])
def test_share(gap, share):
    assert reset_share(gap) == pytest.approx(share, abs=5e-6)


def test_purity():
    label = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2, 2])
    cluster = np.array([0, 0, 1, 1, 1, 1, 2, 2, 2, 0])
    assert purity(cluster, label) == 0.8
    assert label.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 2]


def test_purity_of_encodings():
    label = torch.arange(60) % 3
    apart = torch.stack([10.0 * label, 0.1 * torch.randn(60)], 1)
    assert encoding_purity(apart, label, 3) == 1
    assert encoding_purity(torch.randn(600, 2), torch.arange(600) % 3, 3) < 0.45


def trained(method, **options):
    model = make_model(prefusion="vgmr")
    initial = {name: p.detach().clone() for name, p in model.named_parameters()}
    method.start(model, digits(), 10, 0)
    optimizer = make_optimizer("adamw", model, 1e-2)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return model, initial, optimizer


def test_branches_go_their_share_of_the_way_back_and_nothing_else_moves():
    method = Relearning()
    model, initial, optimizer = trained(method)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    gaps = {"left": 0.05, "right": 0.0, "spectrum": 1.0}
    method.reset(model, gaps, optimizer)
    branches = {p: name for name in THREE for p in names_of(model, model.branch_parameters(name))}
    assert set(before) - set(branches) == {"backbone.head.linear.weight", "backbone.head.linear.bias"}
    for name, parameter in model.named_parameters():
        left = 1 - reset_share(gaps[branches[name]]) if name in branches else 1.0
        if left == 1:
            assert torch.equal(parameter, before[name])
        else:
            way, old_way = parameter - initial[name], before[name] - initial[name]
            torch.testing.assert_close(way.norm(), left * old_way.norm(), atol=1e-6, rtol=1e-4)
    assert all(p in optimizer.state for p in model.parameters())


def test_the_optimisers_state_can_be_forgotten():
    method = Relearning(reset_state=True)
    model, _, optimizer = trained(method)
    method.reset(model, dict.fromkeys(THREE, 0.1), optimizer)
    assert {id(p) for p in optimizer.state} == {id(p) for p in model.head_parameters()}


def test_resets_come_at_multiples_of_the_interval_at_most_so_often(monkeypatch):
    epochs = []
    monkeypatch.setattr(Relearning, "gaps", lambda *arguments: dict.fromkeys(THREE, 0.05))
    original = Relearning.epoch_end

    def observed(self, model, data, epoch, loop):
        before = int(self.resets)
        original(self, model, data, epoch, loop)
        if int(self.resets) > before:
            epochs.append(epoch)

    monkeypatch.setattr(Relearning, "epoch_end", observed)
    history = fit(make_model(), digits(), epochs=8, batch_size=512, method=Relearning(interval=2, times=2))
    assert epochs == [2, 4]
    assert history.coefficients == {name: [pytest.approx(0.14889, abs=5e-6)] * 2 for name in THREE}


def test_parts_of_like_size_are_compared(monkeypatch):
    sizes = []
    monkeypatch.setattr(
        relearning, "encoding_purity", lambda encoding, label, count, starts: sizes.append(len(label)) or 0.5
    )
    data = digits()
    for matched in (True, False):
        method = Relearning(size_matched=matched)
        method.start(make_model(), data, 10, 0)
        assert method.gaps(make_model(), data) == dict.fromkeys(THREE, 0.0)
    held = len(data.validation)
    assert sizes == [held] * 6 + [len(data.train)] * 3 + [held] * 3


def test_parts_with_fewer_samples_than_classes_are_refused_before_training():
    data = digits()
    small = replace(data, validation=data.validation.index(torch.arange(9)))
    with pytest.raises(
        ValueError, match=r"clusters the validation part into 10 classes .* got 9; use larger parts"
    ):
        Relearning().start(make_model(), small, 10, 0)


def test_the_number_of_starts_is_an_option(monkeypatch):
    import sklearn.cluster

    seen = []

    class Counted(sklearn.cluster.KMeans):
        def __init__(self, n_clusters, *, n_init, random_state):
            seen.append(n_init)
            super().__init__(n_clusters, n_init=n_init, random_state=random_state)

    monkeypatch.setattr(sklearn.cluster, "KMeans", Counted)
    for starts in (10, 1):
        method = Relearning(starts=starts)
        method.start(make_model(), digits(), 10, 0)
        method.gaps(make_model(), digits())
    assert seen == [10] * 6 + [1] * 6
