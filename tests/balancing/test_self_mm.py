"""Self-MM: reference numbers of the labels, their identities, and what it refuses."""

from dataclasses import replace

import pytest
import torch
from made_models import THREE, digits, make_model

from vgmr.balancing import SelfMM
from vgmr.balancing.self_mm import centres, lean, renewed
from vgmr.classifier import Classifier
from vgmr.fusion.supervised_concat import SelfSupervisedConcat
from vgmr.loop.steps import make_optimizer
from vgmr.objective import Objective
from vgmr.prefusion import Identity

LABEL = torch.tensor([2.0, 1.0, -1.0, -2.0]).double()
JOINT = torch.tensor([[2.0, 0.0], [1.0, 1.0], [-1.0, 0.0], [-2.0, 1.0]]).double()
OWN = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0], [-1.0, 0.0]]).double()


def test_reference_numbers_of_two_epochs():
    positive, negative = centres(JOINT, LABEL)
    assert positive.tolist() == [1.5, 0.5] and negative.tolist() == [-1.5, 0.5]
    joint, single = lean(JOINT, positive, negative), lean(OWN, *centres(OWN, LABEL))
    second = renewed(LABEL, LABEL, single, joint, 2, 3.0)
    expected = torch.tensor([0.618034, 0.368305, -0.865027, -1.711584]).double()
    torch.testing.assert_close(second, expected, atol=1e-6, rtol=0)
    answer = torch.tensor([1.0, 1.0, 0.0, 0.0]).double()
    loss = (torch.tanh((second - LABEL).abs()) * (answer - second).abs()).mean()
    assert float(loss) == pytest.approx(0.321592, abs=1e-6)
    third = renewed(LABEL, second, lean(OWN, *centres(OWN, second)), joint, 3, 3.0)
    expected = torch.tensor([0.272543, 0.210381, -0.831283, -1.639480]).double()
    torch.testing.assert_close(third, expected, atol=1e-6, rtol=0)


def test_a_modality_like_the_fusion_keeps_the_label_and_scale_does_not_matter():
    joint = lean(JOINT, *centres(JOINT, LABEL))
    torch.testing.assert_close(renewed(LABEL, LABEL, joint, joint, 2, 3.0), LABEL, atol=1e-6, rtol=0)
    doubled = lean(2 * OWN, *centres(2 * OWN, LABEL))
    torch.testing.assert_close(doubled, lean(OWN, *centres(OWN, LABEL)), atol=1e-6, rtol=0)


def two_classes():
    data = digits()
    parts = {}
    for name in ("train", "validation", "test"):
        part = getattr(data, name)
        parts[name] = replace(part, label=part.label % 2)
    return replace(data, classes=("even", "odd"), **parts)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_the_dropout_is_that_of_the_unimodal_networks(dropout):
    data = two_classes()
    model = Classifier(Identity(data.dims), SelfSupervisedConcat(data.dims, 2, width=8, averaged=THREE)).eval()
    method = SelfMM(dropout=dropout)
    method.start(model, data, 3, 0)
    batch = method.training_part(data).index(torch.arange(64))
    method.label.neg_()  # a term is 0 where a label is the truth
    output = model(batch.features, batch.mask)
    found = [method.losses(model, output, batch, output.logits.sum(), 0)[1] for _ in range(2)]
    for name in THREE:
        assert found[0][name] > 0
        assert torch.equal(found[0][name], found[1][name]) == (not dropout)


def test_labels_stay_in_the_first_epoch_and_move_within_bounds_after():
    data = two_classes()
    model = Classifier(Identity(data.dims), SelfSupervisedConcat(data.dims, 2, width=8, averaged=THREE))
    method = SelfMM()
    method.start(model, data, 3, 0)
    optimizer = make_optimizer("sgd", model, 0.1, method=method)
    batches = [method.training_part(data).index(rows) for rows in torch.arange(96).split(32)]
    for epoch in range(2):
        for batch in batches:
            method.step(model, batch, Objective(), optimizer, epoch)
        for name in THREE:
            own = getattr(method, f"label_{name}")[:96]
            same = torch.equal(own, method.label[:96])
            assert same == (epoch == 0) and float(own.abs().max()) <= 1 and torch.isfinite(own).all()


def test_a_training_part_of_one_sign_keeps_its_labels():
    data = two_classes()
    one = replace(data, train=replace(data.train, label=torch.ones_like(data.train.label)))
    model = Classifier(Identity(data.dims), SelfSupervisedConcat(data.dims, 2, width=8, averaged=THREE))
    method = SelfMM()
    method.start(model, one, 3, 0)
    optimizer = make_optimizer("sgd", model, 0.1, method=method)
    for epoch in range(3):
        method.step(model, method.training_part(one).index(torch.arange(32)), Objective(), optimizer, epoch)
    assert all(torch.equal(getattr(method, f"label_{name}"), method.label) for name in THREE)


def test_refusals():
    with pytest.raises(ValueError, match="signed labels, regression or two classes, got 10 classes"):
        SelfMM().start(make_model(), digits(), 3, 0)
