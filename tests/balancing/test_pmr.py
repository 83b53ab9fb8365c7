"""PMR: distances, coefficients, prototypes, and which gradients change."""

import pytest
import torch
import torch.nn.functional as F
from made_models import THREE, differing, digits, gradients, make_model, names_of, start

from vgmr.balancing import PMR, Balancing
from vgmr.balancing.base import Loop
from vgmr.balancing.pmr import class_means, pull_and_hold
from vgmr.classifier import Output
from vgmr.data import Batch
from vgmr.inference import encode_all
from vgmr.refining.refinement import Refinement


def made_terms(encodings, prototypes, label, **options):
    """The terms of PMR for given encodings (modalities, B, d) and prototypes (modalities, C, d)."""
    method = PMR(**options)
    method.names = [f"m{index}" for index in range(len(encodings))]
    method.prototypes, method.hold_epochs = prototypes, 1
    given = dict(zip(method.names, encodings, strict=True))
    output = Output(torch.zeros(1), given, Refinement({}), given)
    return method.losses(None, output, Batch({}, {}, label), torch.tensor(0.0), 0)[1], method.noted()


def test_distances_are_euclidean_and_not_squared():
    prototypes = torch.tensor([[[3.0, 4.0], [0.0, 1.0]]])
    distance = torch.cdist(torch.zeros(1, 1, 2), prototypes)[0, 0]
    assert distance.tolist() == [5, 1]
    q = (-distance).softmax(0)
    torch.testing.assert_close(q, torch.tensor([0.0180, 0.9820]), atol=5e-5, rtol=0)
    label = torch.tensor([1])
    # a second modality whose prototypes are equally far: q = (1/2, 1/2), so it is slow and the first is fast
    both = torch.cat([prototypes, torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])])
    terms, pull = made_terms(torch.zeros(2, 1, 2), both, label, alpha=1.0, entropy_weight=1.0)
    assert pull == {"m0": 0, "m1": pytest.approx(0.9640, abs=5e-5)}
    # the first: - hold * H with H = 0.0901, hold = 0.982 / 0.5 - 1
    assert float(terms["m0"]) == pytest.approx(-0.9640 * 0.0901, abs=5e-5)
    assert float(terms["m1"]) == pytest.approx(0.9640 * 0.6931, abs=1e-4)


def test_prototypical_loss_of_the_slow_modality():
    """PCE(y = 1) = 0.0181 at distances (5, 1), weighted by clip(1 / rho - 1, 0, 1)."""
    prototypes = torch.tensor([[[3.0, 4.0], [0.0, 1.0]], [[9.0, 0.0], [0.0, 0.0]]])
    terms, pull = made_terms(torch.zeros(2, 1, 2), prototypes, torch.tensor([1]), alpha=1e4, entropy_weight=0.0)
    slow = pull["m0"]
    assert slow == pytest.approx((1 / (1 + torch.e**-9)) / 0.9820 - 1, abs=5e-5)
    assert float(terms["m0"]) / 1e4 / slow == pytest.approx(0.0181, abs=5e-5)
    assert float(terms["m1"]) == 0


@pytest.mark.parametrize(
    ("score", "pull", "hold"),
    [
        ((20.0, 10.0), (0.0, 1.0), (1.0, 0.0)),
        ((10.0, 25.0), (1.0, 0.0), (0.0, 1.0)),
        ((12.0, 10.0), (0.0, 0.2), (0.2, 0.0)),
        ((10.0, 20.0, 25.0), (1.0, 0.25, 0.0), (0.0, 1.0, 1.0)),
    ],
)
def test_coefficients(score, pull, hold):
    beta, gamma = pull_and_hold(torch.tensor(score))
    torch.testing.assert_close(beta, torch.tensor(pull))
    torch.testing.assert_close(gamma, torch.tensor(hold))


def test_prototypes_are_class_means_of_evaluation_encodings():
    model = make_model(dropout=0.5)
    method = PMR(share=1.0, momentum=0.5)
    start(method, model)
    train = digits().train
    encodings = encode_all(model, train)
    for position, name in enumerate(THREE):
        for value in range(10):
            expected = encodings[name][train.label == value].mean(0)
            torch.testing.assert_close(method.prototypes[position, value], expected, atol=1e-5, rtol=1e-5)
    first = method.prototypes.clone()
    stacked = torch.stack([encodings[name] for name in THREE])
    method.refresh(2 * stacked, train.label)
    torch.testing.assert_close(method.prototypes, 1.5 * first, atol=1e-5, rtol=1e-5)
    order = torch.randperm(len(train))
    moved = class_means(stacked[:, order], train.label[order], torch.zeros_like(first))
    torch.testing.assert_close(moved, first, atol=1e-5, rtol=1e-5)


def test_classes_that_are_not_seen_keep_their_prototype():
    previous = torch.full((1, 3, 2), 7.0)
    means = class_means(torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]), torch.tensor([0, 0]), previous)
    assert means.tolist() == [[[2, 3], [7, 7], [7, 7]]]


def test_a_tenth_of_every_class_gives_prototypes():
    method = PMR()
    start(method, make_model())
    label = digits().train.label
    rows = method._subset(label)
    counts, every = label[rows].bincount(), label.bincount()
    assert (counts >= 1).all() and (counts - 0.1 * every < 1).all() and len(rows.unique()) == len(rows)


def test_equal_modalities_leave_the_loss_alone():
    encodings = torch.randn(1, 6, 4).expand(2, 6, 4)
    prototypes = torch.randn(1, 3, 4).expand(2, 3, 4)
    label = torch.randint(3, (6,))
    for variant in ("paper", "official"):
        terms, _ = made_terms(encodings, prototypes, label, variant=variant, entropy_weight=1.0)
        assert [float(term) for term in terms.values()] == [0, 0]


def test_the_official_variant_pulls_with_full_weight_and_never_holds():
    encodings, prototypes, label = torch.randn(2, 6, 4), torch.randn(2, 3, 4), torch.randint(3, (6,))
    terms, pull = made_terms(encodings, prototypes, label, variant="official", alpha=2.0, entropy_weight=1.0)
    assert sorted(pull.values()) == [0, 1]
    slow = max(pull, key=pull.get)
    position = int(slow[1])
    distance = torch.cdist(encodings[position], prototypes[position])
    torch.testing.assert_close(terms[slow], 2 * F.cross_entropy(-distance, label))


def test_terms_reach_their_own_encoder_only():
    model = make_model()
    plain = gradients(Balancing(), model)
    method = PMR(entropy_weight=0.0)
    changed = gradients(method, model)
    pull = method.noted()
    slow = {name for name, value in pull.items() if value > 0}
    assert slow and slow != set(THREE)
    expected = set().union(*(names_of(model, model.branch_parameters(name)) for name in slow))
    assert differing(changed, plain) == expected


def test_the_entropy_term_ends_after_the_first_tenth():
    model = make_model()
    without = gradients(PMR(entropy_weight=0.0), model)
    assert differing(gradients(PMR(entropy_weight=1.0), model, epoch=0), without)
    assert not differing(gradients(PMR(entropy_weight=1.0), model, epoch=1), without)


def test_wrong_options_are_refused():
    with pytest.raises(ValueError, match="variant must be 'paper' or 'official', got 'code'"):
        PMR(variant="code")
    with pytest.raises(ValueError, match="expected 0 < share <= 1"):
        PMR(share=0.0)


def test_prototypes_before_and_after_the_first_epoch_are_not_smoothed():
    model, data = make_model(), digits()
    method = PMR(share=1.0, momentum=0.5)
    method.start(model, data, 5, 0)
    seen = []
    for epoch in range(3):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1)
        encodings = encode_all(model, data.train)
        fresh = class_means(
            torch.stack([encodings[name] for name in THREE]), data.train.label, torch.zeros_like(method.prototypes)
        )
        before = method.prototypes.clone()
        method.epoch_start(model, data, epoch, Loop(None, None))
        seen.append((before, fresh, method.prototypes.clone()))
    for _, fresh, after in seen[:2]:
        torch.testing.assert_close(after, fresh, atol=1e-5, rtol=1e-5)
    before, fresh, after = seen[2]
    torch.testing.assert_close(after, 0.5 * before + 0.5 * fresh, atol=1e-5, rtol=1e-5)


def test_shares_of_classes_and_of_epochs_are_rounded_up():
    method = PMR()
    method.start(make_model(), digits(), 15, 0)
    assert method.hold_epochs == 2
    label = torch.arange(100).ge(95).long()
    assert label[method._subset(label)].bincount().tolist() == [10, 1]


def test_the_temperature_divides_the_distances():
    model, method = make_model(), PMR(temperature=4.0)
    start(method, model)
    batch, rows = digits().train.index(torch.arange(32)), torch.arange(32)
    output = model(batch.features, batch.mask)
    _, terms = method.losses(model, output, batch, output.logits.sum(), 9)
    distances = [
        (output.vectors[name][:, None] - own).norm(dim=2)
        for name, own in zip(THREE, method.prototypes, strict=True)
    ]
    logs = [(-distance / 4).log_softmax(1) for distance in distances]
    score = torch.stack([log.exp()[rows, batch.label].sum() for log in logs])
    pull = (score.max() / score - 1).clamp(0, 1)
    assert pull.max() > 0
    for name, share, log in zip(THREE, pull, logs, strict=True):
        torch.testing.assert_close(terms[name], share * F.nll_loss(log, batch.label))
