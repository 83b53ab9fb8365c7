"""MMIM: reference numbers of its three bounds, what the official likelihood does wrong, who learns when."""

import math
from dataclasses import replace

import pytest
import torch
from made_models import THREE, TWO, digits, make_model

from vgmr.backbones import PooledBackbone
from vgmr.balancing import MMIM, Loop, make_method
from vgmr.balancing.mmim import GaussianBound, class_entropy, entropy_groups, noise_contrast
from vgmr.classifier import Classifier
from vgmr.data import Batch, load
from vgmr.fusion.supervised_concat import InfoMaxConcat
from vgmr.fusion.tensor_fusion import TensorFusion
from vgmr.loop.steps import make_optimizer
from vgmr.objective import Objective
from vgmr.prefusion import Identity
from vgmr.training import fit


def wave(*shape, c=0.0):
    size = torch.Size(shape).numel()
    return torch.cos(0.7 * torch.arange(size, dtype=torch.float64) + c).view(shape)


def fill(*layers):
    i = 1
    for tensor in [tensor for layer in layers for tensor in (layer.weight, layer.bias)]:
        index = torch.arange(i, i + tensor.numel(), dtype=torch.float64)
        tensor.data = (0.2 + 0.4 * index.sin()).view(tensor.shape)
        i += tensor.numel()


def bound():
    made = GaussianBound(3, 4).double()
    fill(made.mean[0], made.mean[2], made.log_variance[0], made.log_variance[2], made.narrow)
    return made, wave(6, 3), wave(6, 4, c=1)


def test_reference_numbers():
    made, x, y = bound()
    assert float(made.log_likelihood(x, y, official=True).detach()) == pytest.approx(-1.168651, abs=1e-5)
    assert float(made.log_likelihood(x, y).detach()) == pytest.approx(-2.341208, abs=1e-5)
    narrow, group = torch.tanh(made.narrow(y)), torch.tensor([1, 0, 1, 0, 1, 0])
    entropy = class_entropy(torch.cat([narrow, narrow]), torch.cat([group, group]), 2)
    assert float(entropy.detach()) == pytest.approx(-2.514821, abs=1e-5)
    project = torch.nn.Linear(4, 3).double()
    fill(project)
    assert float(noise_contrast(project(wave(4, 4, c=1)), wave(4, 3)).detach()) == pytest.approx(
        1.638129, abs=1e-5
    )


def test_by_hand():
    made = GaussianBound(2, 2).double()
    for layer in (made.mean[2], made.log_variance[2]):
        layer.weight.data.zero_(), layer.bias.data.zero_()
    x = torch.randn(5, 2).double()
    assert float(made.log_likelihood(x, torch.zeros(5, 2).double()).detach()) == 0
    off = torch.tensor([1.0, 0.0]).double().expand(5, 2)
    assert float(made.log_likelihood(x, off).detach()) == -0.5
    same = torch.ones(4, 3).double()
    assert float(noise_contrast(same, torch.randn(4, 3).double())) == pytest.approx(torch.tensor(4.0).log())


def test_the_official_likelihood_drives_the_variance_to_infinity():
    torch.manual_seed(0)
    x = torch.randn(256, 1)
    y = 0.5 * x + torch.randn(256, 1)
    spread = {}
    for official in (True, False):
        torch.manual_seed(1)
        made = GaussianBound(1, 1)
        optimizer = torch.optim.Adam(made.parameters(), 0.02)
        for _ in range(400):
            optimizer.zero_grad()
            (-made.log_likelihood(x, y, official)).backward()
            optimizer.step()
        spread[official] = float(made.log_variance(x).mean().detach())
    assert spread[True] > 3 and abs(spread[False]) < 0.3


def test_with_more_than_two_classes_a_little_is_added_to_the_diagonal():
    corners = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]).double()
    vectors, group = torch.cat([corners, 3 * corners, 0 * corners]), torch.arange(3).repeat_interleave(4)
    expected = (math.log(0.5 + 1e-4) + math.log(4.5 + 1e-4) + math.log(1e-4)) / 3
    assert float(class_entropy(vectors, group, 3)) == pytest.approx(expected, abs=1e-9)
    assert float(class_entropy(vectors[:8], group[:8], 2)) == pytest.approx(math.log(1.5), abs=1e-9)


def test_a_class_that_is_missing_gives_no_nan():
    vectors, one = torch.randn(6, 2), torch.zeros(6, dtype=torch.int64)
    torch.testing.assert_close(class_entropy(vectors, one, 2), class_entropy(vectors, one, 1))
    assert float(class_entropy(vectors[:2], one[:2], 2)) == 0


def test_vectors_that_do_not_vary_have_no_entropy_and_no_gradient():
    """Such as those of a modality that is blank."""
    vectors, group = torch.randn(12, 2).double(), torch.arange(12) % 2
    vectors[group == 1] = 0.7
    vectors.requires_grad_()
    entropy = class_entropy(vectors, group, 2)
    torch.testing.assert_close(entropy, class_entropy(vectors[group == 0], group[group == 0], 1))
    entropy.backward()
    assert vectors.grad[group == 0].all() and not vectors.grad[group == 1].any()
    assert float(class_entropy(torch.full((6, 2), 0.7), torch.zeros(6).long(), 2)) == 0


def test_a_blank_modality_is_trained_with():
    data = load("synthetic", samples=300, steps=3, labels="regression")
    parts = {
        name: replace(part, features={**part.features, "audio": torch.zeros_like(part.features["audio"])})
        for name, part in data.parts.items()
    }
    model = Classifier(Identity(data.dims), PooledBackbone(data.dims, 1, width=16, dropout=0.0))
    options = {"epochs": 1, "method": make_method("mmim"), "objective": Objective(task="regression")}
    assert len(fit(model, replace(data, **parts), **options).train_loss) == 1


def test_every_pair_has_a_predictor_of_its_own():
    """Also where two pairs of names read alike once joined."""
    names = ("face", "face_left", "hand", "left_hand")
    train = digits().train
    features, mask = ({name: part["left"] for name in names} for part in (train.features, train.mask))
    data = replace(digits(), train=Batch(features, mask, train.label))
    model = Classifier(Identity(data.dims), InfoMaxConcat(data.dims, 10, width=4, averaged=names))
    method = MMIM()
    method.start(model, data, 1, 0)
    assert len(method.bounds) == len(method.pairs) == 6


def test_predictors_learn_between_epochs_and_encoders_within():
    data = digits()
    model = Classifier(Identity(data.dims), InfoMaxConcat(data.dims, len(data.classes), width=8, averaged=THREE))
    method = MMIM()
    method.start(model, data, 3, 0)
    optimizer = make_optimizer("sgd", model, 0.1, method=method)
    before = [p.clone() for p in model.parameters()]
    learnt = [p.clone() for p in method.predictors]
    method.epoch_start(model, data, 0, Loop(optimizer, lambda *arguments: None))
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
    assert not any(torch.equal(p, q) for p, q in zip(method.predictors, learnt, strict=True))
    learnt = [p.clone() for p in method.predictors]
    for _ in range(3):
        method.step(model, data.train.index(torch.arange(48)), Objective(), optimizer, 0)
    assert all(torch.equal(p, q) for p, q in zip(method.predictors, learnt, strict=True))
    assert not any(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
    assert set(method.noted()) == {"contrast", "information"}


def test_pairs_and_refusals():
    method = MMIM(anchor="left")
    method.start(make_model(), digits(), 3, 0)
    assert method.pairs == [("left", "right"), ("left", "spectrum")]
    with pytest.raises(ValueError, match="variant must be 'corrected' or 'official', got 'new'"):
        MMIM(variant="new")
    with pytest.raises(ValueError, match="anchor: unknown modality 'top'; there are"):
        MMIM(anchor="top").start(make_model(TWO), digits(TWO), 3, 0)
    with pytest.raises(ValueError, match="MMIM reads what the last layers read, and PooledBackbone has no such"):
        MMIM().start(make_model(head="shared"), digits(), 3, 0)


def test_vectors_that_shrink_do_not_raise_the_bound_for_ever():
    """Predicted without error and ever more surely, y is worth no more than half the floor for each channel."""
    made = GaussianBound(3, 4).double()
    torch.nn.init.zeros_(made.mean[2].weight)
    torch.nn.init.zeros_(made.mean[2].bias)
    torch.nn.init.zeros_(made.log_variance[2].weight)
    y = torch.zeros(5, 4).double()
    for sure in (-4.0, -40.0, -4000.0):
        torch.nn.init.constant_(made.log_variance[2].bias, sure)
        found = made.log_likelihood(torch.randn(5, 3).double(), y)
        assert float(found.detach()) == pytest.approx(4 * 4.0 / 2)


def test_a_single_training_sample_will_do():
    data = load("synthetic", samples=60, steps=3, labels="regression")
    data = replace(data, train=data.train.index(torch.tensor([0])))
    model = Classifier(Identity(data.dims), PooledBackbone(data.dims, 1, width=4))
    history = fit(model, data, epochs=1, method=make_method("mmim"), objective=Objective(task="regression"))
    assert len(history.train_loss) == 1


def test_scores_are_grouped_by_sign_and_have_an_entropy():
    assert entropy_groups(torch.tensor([2.0, 0.0, -0.5])).tolist() == [1, -1, 0]
    assert entropy_groups(torch.tensor([2, 0])).tolist() == [2, 0]
    data = load("synthetic", samples=60, steps=3, labels="regression")
    model = Classifier(Identity(data.dims), InfoMaxConcat(data.dims, 1, width=4, averaged=list(data.dims)[:1]))
    method, terms = MMIM(), []
    method.start(model, data, 1, 0)
    method.epoch_start(model, data, 0, Loop(None, None))
    for _ in range(3):
        output = model.eval()(data.train.features, data.train.mask)
        method.losses(model, output, data.train, torch.zeros(()), 0)
        terms.append(method.noted()["information"])
    assert terms[0] == terms[1] != terms[2], "the entropy comes with the third batch"


def test_stage_a_moves_no_running_statistics_and_heeds_no_mode():
    data = digits()
    learnt = []
    for training in (True, False):
        torch.manual_seed(0)
        model = Classifier(Identity(data.dims), TensorFusion(data.dims, 10, width=4, sequential=())).train(
            training
        )
        before = {name: x.clone() for name, x in model.named_buffers()}
        method = MMIM()
        method.start(model, data, 1, 0)
        method.epoch_start(model, data, 0, Loop(None, None))
        assert all(torch.equal(x, before[name]) for name, x in model.named_buffers())
        assert model.training == training
        learnt.append([p.clone() for p in method.predictors])
    assert all(torch.equal(p, q) for p, q in zip(*learnt, strict=True))
