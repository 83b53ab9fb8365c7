"""Metrics against hand counts and scikit-learn; the interval against enumeration and simulation."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from vgmr.backbones import PooledBackbone
from vgmr.classifier import Classifier
from vgmr.data.types import Batch
from vgmr.evaluation import accuracy, auroc, confusion, macro_f1, shapley
from vgmr.inference import predict, subset_logits
from vgmr.prefusion import Identity
from vgmr.refiner import VGMR

PREDICTION = torch.tensor([0, 0, 1, 1, 2, 0])
LABEL = torch.tensor([0, 1, 1, 1, 0, 0])


def test_confusion_by_hand():
    assert confusion(PREDICTION, LABEL, 3).tolist() == [[2, 0, 1], [1, 2, 0], [0, 0, 0]]


def test_metrics_by_hand():
    """Class 0: 2 hits of 3 true and 3 predicted, F1 2/3; class 1: 4/5; class 2: predicted once, never true, 0."""
    counts = confusion(PREDICTION, LABEL, 3)
    assert accuracy(counts) == pytest.approx(4 / 6)
    assert macro_f1(counts) == pytest.approx((2 / 3 + 4 / 5 + 0) / 3)
    assert macro_f1(confusion(PREDICTION, LABEL, 9)) == macro_f1(counts), "classes that never occur do not count"


def test_constant_answer_on_mosei():
    """3,309 of MOSEI's 4,659 test samples are of one class: the paper's 0.7102 with a macro-F1 of 0.415."""
    label = (torch.arange(4659) < 3309).long()
    counts = confusion(torch.ones_like(label), label, 2)
    assert accuracy(counts) == pytest.approx(0.7102, abs=5e-5)
    assert macro_f1(counts) == pytest.approx(0.415, abs=5e-4)


answers = st.integers(2, 6).flatmap(
    lambda classes: st.tuples(
        st.just(classes),
        st.lists(st.tuples(*[st.integers(0, classes - 1)] * 2), min_size=1, max_size=60),
    )
)


@given(answers)
def test_metrics_are_those_of_scikit_learn(drawn):
    classes, pairs = drawn
    prediction, label = torch.tensor(pairs).T
    counts = confusion(prediction, label, classes)
    assert np.array_equal(counts.numpy(), metrics.confusion_matrix(label, prediction, labels=range(classes)))
    assert accuracy(counts) == pytest.approx(metrics.accuracy_score(label, prediction))
    assert macro_f1(counts) == pytest.approx(metrics.f1_score(label, prediction, average="macro"))


# Paired differences


# AUROC


def test_auroc_by_hand():
    """Struck 3, 1 against others 2, 1: 3 beats both, 1 ties with one and loses to one: 2.5 of 4."""
    score, truth = torch.tensor([3.0, 1, 2, 1]), torch.tensor([True, True, False, False])
    assert auroc(score, truth) == 2.5 / 4
    assert auroc(-score, truth) == 1.5 / 4
    assert auroc(torch.tensor([1.0, 2]), torch.tensor([False, True])) == 1


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=60))
def test_auroc_is_that_of_scikit_learn_with_ties(cases):
    score, truth = torch.tensor([case[0] for case in cases]).float(), torch.tensor([case[1] for case in cases])
    if truth.all() or not truth.any():
        with pytest.raises(ValueError, match="expected corrupted and other cases, got"):
            auroc(score, truth)
    else:
        assert auroc(score, truth) == pytest.approx(metrics.roc_auc_score(truth, score))


def test_constant_scores_are_chance():
    assert auroc(torch.zeros(9), torch.arange(9) < 3) == 0.5


def test_auroc_takes_zeros_and_ones_for_truth():
    score, truth = torch.tensor([3.0, 2, 1, 0]), torch.tensor([0, 0, 1, 1])
    assert auroc(score, truth) == auroc(score, truth.bool()) == 0


# What each modality is worth


def test_shapley_by_hand():
    """Orders ab and ba: a adds 0.3 or 0.2, b adds 0.1 or 0.2 (from 0.5)."""
    value = {"a+b": 0.9, "a": 0.8, "b": 0.7, "": 0.5}
    assert shapley(value) == pytest.approx({"a": (0.3 + 0.2) / 2, "b": (0.2 + 0.1) / 2})


@given(st.lists(st.floats(0, 1), min_size=8, max_size=8))
def test_shapley_is_the_mean_over_all_orders(values):
    names = ("a", "b", "c")
    keys = ["+".join(keep) for size in range(4) for keep in itertools.combinations(names, size)]
    value = dict(zip(keys, values, strict=True))
    expected = dict.fromkeys(names, 0.0)
    for order in itertools.permutations(names):
        for position, name in enumerate(order):
            with_it, without = ("+".join(sorted(order[:end])) for end in (position + 1, position))
            expected[name] += (value[with_it] - value[without]) / 6
    assert shapley(value) == pytest.approx(expected, abs=1e-6)


def test_a_modality_that_never_matters_is_worth_nothing():
    value = {"a+b": 0.9, "a": 0.9, "b": 0.4, "": 0.4}
    assert shapley(value) == pytest.approx({"a": 0.5, "b": 0})


def test_shapley_needs_every_subset():
    with pytest.raises(ValueError, match=r"missing \['b', ''\]"):
        shapley({"a+b": 0.9, "a": 0.9})


@pytest.mark.parametrize("refined", [False, True])
def test_subset_logits_are_those_of_single_passes(refined):
    torch.manual_seed(0)
    dims = {"text": 3, "audio": 2, "vision": 4}
    model = Classifier(VGMR(dims, 4) if refined else Identity(dims), PooledBackbone(dims, 3, width=5))
    features = {name: torch.randn(9, 4, d) for name, d in dims.items()}
    mask = {name: torch.ones(9, 4, dtype=torch.bool) for name in dims}
    part = Batch(features, mask, torch.zeros(9, dtype=torch.int64))
    found = subset_logits(model, part, batch_size=4)
    assert next(iter(found)) == "text+audio+vision" and len(found) == 8 and model.training
    for key, logits in found.items():
        torch.testing.assert_close(logits, predict(model, part, keep=key.split("+") if key else []))


# Robustness


@pytest.mark.parametrize(("score", "said"), [([0.1, float("nan"), 0.3], "3, 1 of them NaN"), ([0.1], "got 1")])
def test_auroc_refuses_scores_that_rank_nothing(score, said):
    with pytest.raises(ValueError, match=f"a score for each of 3 cases, .*{said}"):
        auroc(torch.tensor(score), torch.tensor([True, False, False]))
