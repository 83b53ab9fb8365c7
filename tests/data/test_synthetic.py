"""The made data: every dial does what it says, shown by models that know nothing of how the data were made."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from vgmr.data import load
from vgmr.data.synthetic import SHAPES, load_synthetic
from vgmr.data.types import Batch

SILENT = {"redundant": 0.0, "unique": 0.0, "synergistic": 0.0}


def pooled(batch: Batch, names: list[str]) -> np.ndarray:
    return torch.cat([batch.features[name].mean(1) for name in names], 1).numpy()


def linear(data, names: list[str]) -> LogisticRegression:
    model = LogisticRegression(C=0.1, max_iter=60)
    return model.fit(pooled(data.train, names), data.train.label.numpy())


def accuracy(data, names: list[str]) -> float:
    """Test accuracy of a linear model on time means of the modalities `names`."""
    return linear(data, names).score(pooled(data.test, names), data.test.label.numpy())


@pytest.mark.parametrize("like", SHAPES)
def test_shapes(like):
    data = load("synthetic", like=like, samples=8)
    shapes, num_classes = SHAPES[like]
    assert {name: tuple(x.shape[1:]) for name, x in data.train.features.items()} == shapes
    assert len(data.classes) == num_classes
    assert [len(part) for part in data.parts.values()] == [8, 2, 4]
    assert data.stand_in and like in data.source
    assert all(mask.all() for part in data.parts.values() for mask in part.mask.values())
    assert not any(hit.any() for part in data.parts.values() for hit in part.corrupted.values())


def test_shapes_are_those_of_the_real_data():
    assert SHAPES["mosei"] == ({"text": (50, 768), "audio": (50, 74), "vision": (50, 35)}, 2)
    assert {name: classes for name, (_, classes) in SHAPES.items()} == {
        "mosi": 2,
        "mosei": 2,
        "ucf101": 101,
        "ave": 28,
        "cremad": 6,
    }


def test_deterministic_and_drawn_by_its_seed():
    first, second, other = (load_synthetic("cremad", 8, noise=0.2, conflict=0.5, seed=seed) for seed in (1, 1, 2))
    for name, x in first.train.features.items():
        assert torch.equal(x, second.train.features[name])
        assert torch.equal(first.train.corrupted[name], second.train.corrupted[name])
        assert not torch.equal(x, other.train.features[name])
    assert first.fingerprint == second.fingerprint != other.fingerprint


def test_fingerprint_changes_with_every_parameter():
    changes = [
        {},
        {"like": "ave"},
        {"samples": 12},
        {"redundant": 0.5},
        {"unique": 0.5},
        {"synergistic": 0.5},
        {"noise": 0.1},
        {"conflict": 0.1},
        {"padding": 0.1},
        {"balance": 0.5},
        {"seed": 1},
    ]
    prints = {load_synthetic(**{"like": "cremad", "samples": 8, **change}).fingerprint for change in changes}
    assert len(prints) == len(changes)


def test_without_evidence_there_is_nothing_to_learn():
    """Six classes: chance is 1/6 with a deviation of 0.024 over 250 test samples."""
    data = load_synthetic("cremad", 500, **SILENT)
    assert accuracy(data, data.modalities) < 1 / 6 + 4 * 0.024
    x = data.train.features["visual"]
    assert abs(float(x.mean())) < 0.01 and abs(float(x.std()) - 1) < 0.01, "the background has deviation 1"


def test_redundant_evidence_is_complete_in_every_modality():
    data = load_synthetic("cremad", 300, **{**SILENT, "redundant": 1.5})
    for name in data.modalities:
        assert accuracy(data, [name]) > 0.85, name


def test_unique_evidence_lies_in_one_modality_per_sample():
    """A modality that carries in half of the samples cannot pass 1/2 + 1/2 * 1/6; both together can."""
    data = load_synthetic("cremad", 500, **{**SILENT, "unique": 2.0})
    for name in data.modalities:
        assert 0.40 < accuracy(data, [name]) < 7 / 12 + 0.1, name
    assert accuracy(data, data.modalities) > 0.8


def test_synergistic_evidence_lies_in_the_codes_together_only():
    """Two classes: a modality's code is the sign of its first principal component, the class their product."""
    data = load_synthetic("mosi", 120, **{**SILENT, "synergistic": 3.0}, seed=2)
    signs = {"train": 1.0, "test": 1.0}
    for name in data.modalities:
        assert 0.25 < accuracy(data, [name]) < 0.75, name
        x = pooled(data.train, [name])
        centre = x.mean(0)
        direction = np.linalg.svd(x - centre, full_matrices=False)[2][0]
        for part in signs:
            signs[part] = signs[part] * np.sign((pooled(data.parts[part], [name]) - centre) @ direction)
    assert 0.25 < accuracy(data, data.modalities) < 0.75, "nothing linear in all three either"
    way = np.sign((signs["train"] * (2 * data.train.label.numpy() - 1)).sum())
    assert ((way * signs["test"] > 0) == data.test.label.numpy()).mean() > 0.95


def test_evidence_lies_in_a_quarter_of_the_channels_and_half_of_the_steps():
    data = load_synthetic("cremad", 200, **{**SILENT, "redundant": 8.0})
    x, label = data.train.features["audio"], data.train.label
    means = torch.stack([x[label == value].mean((0, 1)) for value in range(6)])
    assert int((means.std(0) > 0.5).sum()) == 16, "of 64 channels"
    channel = int(means.abs().max(0).values.argmax())
    value = int(means[:, channel].abs().argmax())
    shown = x[label == value][:, :, channel] * means[value, channel].sign() > 4
    assert abs(float(shown.float().mean()) - 0.5) < 0.03


def test_corrupted_entries_are_those_with_a_deviation_of_three():
    share = 0.2
    data = load_synthetic("cremad", 100, **SILENT, noise=share)
    for name, x in data.train.features.items():
        hit = data.train.corrupted[name]
        assert hit.shape == x.shape
        assert abs(float(x[hit].std()) - 3) < 0.05 and abs(float(x[~hit].std()) - 1) < 0.02
        steps, channels = hit.all(2), hit.all(1)
        assert torch.equal(hit, steps.unsqueeze(2) | channels.unsqueeze(1)), "whole steps and whole channels"
        assert abs(float(hit.float().mean()) - (1 - (1 - share) ** 2)) < 0.03
    channels = data.train.corrupted["audio"].all(1)
    assert abs(float(channels.float().mean()) - share) < 0.02


def test_noise_of_one_strikes_all():
    data = load_synthetic("ave", 8, noise=1.0)
    assert all(hit.all() for hit in data.train.corrupted.values())


def test_a_conflict_is_marked_and_shows_another_class():
    """The codes follow from the seed alone, so a model of the clean data reads what each modality shows."""
    options = {"like": "cremad", "samples": 400, **SILENT, "redundant": 3.0}
    clean, dirty = load_synthetic(**options), load_synthetic(**options, conflict=0.5)
    corrupted = torch.stack([hit.flatten(1).any(1) for hit in dirty.train.corrupted.values()])
    assert corrupted.sum(0).max() == 1
    assert abs(float(corrupted.any(0).float().mean()) - 0.5) < 4 * 0.025
    assert abs(float(corrupted[0].float().sum() / corrupted.sum()) - 0.5) < 4 * 0.036, "either modality alike"
    for name in clean.modalities:
        hit = dirty.train.corrupted[name].flatten(1)
        assert torch.equal(hit.any(1), hit.all(1)), "a conflict strikes the whole modality"
        right = linear(clean, [name]).predict(pooled(dirty.train, [name])) == dirty.train.label.numpy()
        assert right[hit.any(1).numpy()].mean() < 0.2 and right[~hit.any(1).numpy()].mean() > 0.8


def test_padding():
    data = load_synthetic("cremad", 300, padding=0.5, noise=0.3, conflict=0.3)
    data.check()
    length = data.train.lengths()["audio"]
    assert 94 <= int(length.min()) < 100 and 182 < int(length.max()) <= 188, "of 188 steps, half of them at least"
    assert abs(float(length.double().mean()) - 141) < 4 * 27 / 300**0.5, "uniform"
    for part in data.parts.values():
        for name, mask in part.mask.items():
            assert (mask.int().diff(dim=1) <= 0).all(), "at the end"
            assert not part.features[name][~mask].any() and not part.corrupted[name][~mask].any()
    load("synthetic", like="cremad", samples=8, padding=1.0)


def test_balance():
    """The majority class of MOSEI's test part has 71%; over 800 samples that has a deviation of 0.016."""

    def rates(**options) -> torch.Tensor:
        return load_synthetic("ave", 800, **options).train.label.bincount(minlength=28) / 800

    assert abs(float(rates(balance=0.71)[0]) - 0.71) < 0.06
    assert (rates(balance=0.71)[1:] - 0.29 / 27).abs().max() < 0.02
    assert rates(balance=0.0)[0] == 0
    assert (rates() - 1 / 28).abs().max() < 0.03


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"like": "mosie"}, "unknown like='mosie'; there are: mosi, mosei, ucf101, ave, cremad"),
        ({"noise": 1.5}, "noise must lie in 0 to 1, got 1.5"),
        ({"conflict": -0.1}, "conflict must lie in 0 to 1, got -0.1"),
        ({"padding": float("nan")}, "padding must lie in 0 to 1, got nan"),
        ({"balance": 2.0}, "balance must lie in 0 to 1, got 2.0"),
        ({"samples": 7}, "samples must be a whole number of at least 8, got 7"),
        ({"samples": 12.5}, "samples must be a whole number of at least 8, got 12.5"),
        ({"steps": 0}, "steps must be a whole number of at least 1, got 0"),
        ({"steps": "6"}, "steps must be a whole number of at least 1, got '6'"),
        ({"conflict": "much"}, "conflict must lie in 0 to 1, got 'much'"),
        ({"unique": float("nan")}, "redundant, unique and synergistic must be finite numbers, got nan"),
        ({"redundant": "1"}, "redundant, unique and synergistic must be finite numbers, got '1'"),
        ({"seed": -1}, "seed must be a whole number of at least 0, got -1"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError) as caught:
        load_synthetic(**options)
    assert str(caught.value) == message


def test_made_scores_scale_the_evidence():
    data = load("synthetic", samples=400, steps=4, labels="regression", unique=0.0)
    data.check()
    score = data.train.label
    assert (
        data.task == "regression"
        and score.dtype == torch.float32
        and -3 <= float(score.min()) < float(score.max()) <= 3
    )
    text = data.train.features["text"].mean(1)
    strong, weak = text[score.abs() > 2].norm(dim=1).mean(), text[score.abs() < 1].norm(dim=1).mean()
    assert strong > 1.1 * weak


def test_scores_need_two_classes():
    with pytest.raises(ValueError, match="scores need the shapes of mosi or mosei"):
        load("synthetic", like="ave", labels="regression")
    with pytest.raises(ValueError, match="labels must be"):
        load("synthetic", labels="seven")
