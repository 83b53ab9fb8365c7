"""Regression: its loss, contributions, metrics, and a whole training on numbers."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import f1_score

from vgmr import experiment
from vgmr.backbones import PooledBackbone
from vgmr.classifier import Classifier
from vgmr.contributions import (
    contributions,
    contributions_before_refiner,
    contributions_by_swap,
    sample_loss,
)
from vgmr.data.types import Batch, MultimodalData
from vgmr.evaluation import confusion, regression_scores, scores, weighted_f1
from vgmr.objective import Objective, task_loss, value_loss
from vgmr.prefusion import Identity
from vgmr.refiner import VGMR
from vgmr.settings import Experiment

DIMS = {"a": 3, "b": 2}


def batch(size=6):
    generator = torch.Generator().manual_seed(0)
    features = {name: torch.randn(size, 2, dim, generator=generator) for name, dim in DIMS.items()}
    mask = {name: torch.ones(size, 2, dtype=torch.bool) for name in DIMS}
    return Batch(features, mask, torch.randn(size, generator=generator))


def test_loss_is_the_absolute_error():
    logits, label = torch.tensor([[1.0], [-2.0]]), torch.tensor([3.0, -2.5])
    assert sample_loss(logits, label, "regression").tolist() == [2.0, 0.5]
    assert float(task_loss(logits, label, "regression")) == 1.25


def test_as_many_outputs_as_samples_are_no_scores():
    """A square of differences would have a mean too, and be minimised."""
    for shape in ((3, 3), (1, 3), (3,)):
        with pytest.raises(ValueError, match=r"regression: expected outputs \(3, 1\), got \("):
            sample_loss(torch.zeros(shape), torch.zeros(3), "regression")


def test_contributions_are_in_units_of_the_label():
    """z = 2 h_a + 3 h_b + 1 with label 4, by hand."""
    backbone = PooledBackbone({"a": 1, "b": 1}, 1, width=1)
    backbone.head.linear.weight.data = torch.tensor([[2.0, 3.0]])
    backbone.head.linear.bias.data = torch.tensor([1.0])
    encodings = {"a": torch.tensor([[1.0]]), "b": torch.tensor([[0.5]])}
    got = contributions(backbone, encodings, torch.tensor([4.0]), task="regression")
    # full |4.5 - 4| = 0.5; without a |2.5 - 4| = 1.5; without b |3 - 4| = 1
    assert got["a"].tolist() == [1.0] and got["b"].tolist() == [0.5]


def test_both_places_of_removal_agree_without_a_refiner():
    torch.manual_seed(0)
    model, part = Classifier(Identity(DIMS), PooledBackbone(DIMS, 1)).eval(), batch()
    output = model(part.features, part.mask)
    after = contributions(model.backbone, output.encodings, part.label, part.mask, "regression")
    before = contributions_before_refiner(model, part, "regression")
    for name in DIMS:
        torch.testing.assert_close(after[name], before[name])


def test_objective_is_the_error_and_the_terms_of_vgmr():
    torch.manual_seed(0)
    model, part = Classifier(VGMR(DIMS, 4), PooledBackbone(DIMS, 1)).eval().requires_grad_(False), batch()
    output = model(part.features, part.mask)
    plain = Objective(0, 0, task="regression")(model, output, part)
    assert float(plain) == pytest.approx(float((output.logits[:, 0] - part.label).abs().mean()))
    assert float(Objective(task="regression")(model, output, part)) > float(plain)
    with pytest.raises(ValueError, match="task must be one of classification, regression, got 'ranking'"):
        Objective(task="ranking")


@pytest.mark.parametrize("options", [{"target": "swap"}, {"removal": "before"}])
def test_every_way_of_removal_counts_errors_of_numbers(options):
    torch.manual_seed(0)
    model, part = Classifier(VGMR(DIMS, 4), PooledBackbone(DIMS, 1)).eval(), batch()
    output = model(part.features, part.mask)
    gain = (
        contributions_before_refiner(model, part, "regression")
        if "removal" in options
        else contributions_by_swap(model.backbone, output.encodings, part.label, None, "regression")
    )
    assert all(x.abs().max() > 1e-3 for x in gain.values())
    got = Objective(task="regression", **options).of_value(model, output, part)
    torch.testing.assert_close(got, value_loss(output.refinement, gain))


def test_metrics_by_hand():
    label = torch.tensor([-2.0, -0.4, 0.0, 1.0, 2.6])
    answer = torch.tensor([-1.0, 0.2, -0.1, 0.6, 4.0])
    found = regression_scores(answer, label)
    assert found["mae"] == pytest.approx((1 + 0.6 + 0.1 + 0.4 + 1.4) / 5)
    assert found["accuracy"] == pytest.approx(3 / 5)  # wrong at -0.4 and at 0
    assert found["nonzero_accuracy"] == pytest.approx(3 / 4)
    # rounded answers -1, 0, 0, 1, 3 (cut), labels -2, 0, 0, 1, 3
    assert found["seven_class_accuracy"] == pytest.approx(4 / 5)


def test_halves_go_to_the_even_class_as_numpy_rounds_and_a_small_scale_leaves_the_correlation():
    answer = torch.tensor([0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 3.5])
    label = torch.tensor([0.0, 2.0, 2.0, 0.0, -2.0, -2.0, 3.0])
    assert np.round(np.clip(answer.numpy(), -3, 3)).tolist() == label.tolist()
    assert regression_scores(answer, label)["seven_class_accuracy"] == 1
    expected = regression_scores(answer, label)["correlation"]
    assert regression_scores(1e-6 * answer, label)["correlation"] == pytest.approx(expected)
    assert weighted_f1(confusion(torch.tensor([1]), torch.tensor([1]), 2)) == 1


@given(st.integers(0, 10**6))
def test_metrics_are_those_of_known_libraries(seed):
    generator = np.random.default_rng(seed)
    label, answer = generator.integers(-3, 4, 30).astype(float), generator.normal(size=30)
    if not (label < 0).any() or not (label > 0).any():
        return
    found = regression_scores(torch.tensor(answer), torch.tensor(label))
    assert found["correlation"] == pytest.approx(stats.pearsonr(answer, label).statistic)
    assert found["weighted_f1"] == pytest.approx(f1_score(label >= 0, answer >= 0, average="weighted"))
    rated = label != 0
    expected = f1_score(label[rated] > 0, answer[rated] > 0, average="weighted")
    assert found["nonzero_weighted_f1"] == pytest.approx(expected)


def test_metrics_of_the_edge():
    constant = regression_scores(torch.zeros(3), torch.tensor([1.0, -1.0, 2.0]))
    assert constant["correlation"] == 0.0 and constant["mae"] == pytest.approx(4 / 3)
    assert math.isnan(regression_scores(torch.zeros(2), torch.zeros(2))["nonzero_accuracy"])
    zero = regression_scores(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 1.0]))
    assert zero["accuracy"] == 1 and zero["nonzero_accuracy"] == 0.5, "zero is non-negative, and not positive"
    for answer, label in ((2, 1), (2,)), ((2, 1), (2, 1)), ((0,), (0,)):
        with pytest.raises(ValueError, match=r"two equal \(N,\) tensors, got \("):
            regression_scores(torch.zeros(answer), torch.zeros(label))


def test_scores_by_task():
    logits, label = torch.tensor([[2.0, 1.0], [0.0, 3.0], [1.0, 0.0]]), torch.tensor([0, 1, 1])
    assert scores(logits, label, 2)["accuracy"] == pytest.approx(2 / 3)
    assert set(scores(logits, label, 2)) == {"accuracy", "macro_f1"}
    assert scores(logits[:, :1], label.float(), 0)["mae"] == pytest.approx((2 + 1 + 0) / 3)


def test_weighted_f1_weighs_by_truth():
    counts = confusion(torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 1, 1]), 2)
    assert weighted_f1(counts) == pytest.approx((2 * 0.8 + 2 * (2 / 3)) / 4)


def made(size=40):
    """Numbers that both modalities show."""
    generator = torch.Generator().manual_seed(1)
    label = torch.randn(size, generator=generator)
    features = {
        name: label.view(-1, 1, 1) + 0.1 * torch.randn(size, 2, dim, generator=generator)
        for name, dim in DIMS.items()
    }
    mask = {name: torch.ones(size, 2, dtype=torch.bool) for name in DIMS}
    part = Batch(features, mask, label)
    return MultimodalData("made", part, part, part, (), "made", "none", "0", stand_in=True)


def test_a_whole_training_on_numbers(monkeypatch):
    data = made()
    monkeypatch.setattr(experiment, "experiment_data", lambda _: data)
    options = {"epochs": 20, "learning_rate": 1e-2, "device": "cpu", "backbone_options": {"width": 8}}
    run = experiment.train(Experiment("digits", "vgmr", latent_dim=4, **options))
    assert run.metrics["mae"] < 0.5 * run.metrics["majority_mae"]
    assert run.metrics["correlation"] > 0.8 and run.metrics["majority_correlation"] == 0
    assert run.metrics["validation_mae"] == min(run.history.validation_loss)
    assert run.subset_accuracy["a+b"] == run.metrics["accuracy"] > run.subset_accuracy[""]
    assert run.prediction != [round(x) for x in run.prediction] and len(run.prediction) == 40
