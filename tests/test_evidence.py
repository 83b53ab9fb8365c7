"""Anchors that did not see the sample: hand values, a planted truth that is found, a shuffled one that is not."""

import copy
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from reference import randomise
from sklearn.linear_model import LogisticRegression
from torch.nn import functional as F

from vgmr.backbones import PooledBackbone, TransformerBackbone
from vgmr.balancing.ogm_ge import OGMGE
from vgmr.classifier import Classifier
from vgmr.corruption import Drawn
from vgmr.data.types import Batch, MultimodalData
from vgmr.loop.steps import known
from vgmr.refiner import FORMS, VGMR
from vgmr.refining.evidence import (
    DECAYS,
    Anchor,
    Evidence,
    fold_of,
    out_of_fold_regression,
    pooled,
    relative_agreement,
)
from vgmr.training import fit, fit_seeds

DIMS = {"voice": 6, "face": 5, "word": 4}
CLASSES = 4


def made(size: int, seed: int, dims=DIMS, steps: int = 12) -> Batch:
    """Smooth sequences around a course of their class, ragged, every modality telling the class by itself."""
    course = torch.Generator().manual_seed(0)
    generator = torch.Generator().manual_seed(seed)
    label = torch.arange(size) % CLASSES
    length = torch.randint(steps // 2, steps + 1, (size, 1), generator=generator)
    mask = torch.arange(steps) < length
    place = (torch.arange(steps) + 0.5) / length
    features = {}
    for name, dim in dims.items():
        level, slope = torch.randn(2, CLASSES, dim, generator=course)
        x = level[label][:, None] + slope[label][:, None] * torch.cos(3.14159 * place)[..., None]
        x = x + 0.5 * torch.randn(size, 1, dim, generator=generator)
        x = x + 0.1 * torch.randn(size, steps, dim, generator=generator)
        features[name] = x * mask[..., None]
    return Batch(features, {name: mask.clone() for name in dims}, label)


def data(dims=DIMS) -> MultimodalData:
    parts = made(240, 1, dims), made(80, 2, dims), made(200, 3, dims)
    return MultimodalData("made", *parts, classes=tuple("abcd"), source="", licence="", fingerprint="", notes={})


def auroc(low: torch.Tensor, high: torch.Tensor) -> float:
    """Probability that one of `low` lies below one of `high`; ties count half."""
    difference = high[:, None] - low[None]
    return float((difference > 0).double().mean() + 0.5 * (difference == 0).double().mean())


def told(values, corrupted) -> float:
    value = torch.cat([values[name] for name in corrupted])
    hit = torch.cat([where.flatten(1).any(1) for where in corrupted.values()])
    return auroc(value[hit], value[~hit])


@pytest.fixture(scope="module")
def trained():
    made_data = data()
    torch.manual_seed(0)
    model = Classifier(VGMR.calibrated(DIMS, CLASSES, latent_dim=8), PooledBackbone(DIMS, CLASSES, 16))
    fit(model, made_data, epochs=12, learning_rate=1e-2)
    return model, made_data


# The planted truth


@pytest.mark.parametrize("kind", ["conflict", "noise", "missing"])
def test_the_value_finds_the_corrupted_modality_and_so_does_the_gate(trained, kind):
    model, made_data = trained
    test = Drawn.like(made_data.train, [kind], 0.5)(made_data.test, torch.Generator().manual_seed(4))
    refinement = model.prefusion(test.features, test.mask)
    assert told(refinement.global_value, test.corrupted) > 0.95
    opened = {name: gate.mean((1, 2)) for name, gate in refinement.effective_gate.items()}
    assert told(opened, test.corrupted) > 0.9


def test_a_shuffled_truth_is_not_found(trained):
    model, made_data = trained
    test = Drawn.like(made_data.train, ["conflict"], 0.5)(made_data.test, torch.Generator().manual_seed(4))
    values = model.prefusion(test.features, test.mask).global_value
    order = torch.randperm(len(test), generator=torch.Generator().manual_seed(0))
    shuffled = {name: where[order] for name, where in test.corrupted.items()}
    assert abs(told(values, shuffled) - 0.5) < 0.1


def test_permuted_values_cost_accuracy_and_the_truth_gains_it(trained):
    model, made_data = trained
    test = Drawn.like(made_data.train, ["conflict"], 1.0)(made_data.test, torch.Generator().manual_seed(4))

    def right(value=None) -> float:
        refined = model.prefusion(test.features, test.mask, value)
        logits = model.backbone.fuse(model.backbone.encode(refined.features, test.mask))
        return float((logits.argmax(1) == test.label).float().mean())

    values = model.prefusion(test.features, test.mask).global_value
    order = torch.randperm(len(test), generator=torch.Generator().manual_seed(0))
    truth = {name: (~where.flatten(1).any(1)).float() for name, where in test.corrupted.items()}
    assert right({name: value[order] for name, value in values.items()}) < right() - 0.05
    assert right(truth) >= right() - 0.005
    assert right(values) == right()


def test_the_channel_value_finds_dead_and_noisy_channels(trained):
    model, made_data = trained
    for kind in ("dropout", "noise"):
        drawn = Drawn.like(made_data.train, [kind], 1.0)
        test = drawn(made_data.test, torch.Generator().manual_seed(4))
        values = model.prefusion(test.features, test.mask).channel_value
        low = torch.cat([values[name][where.any(1)] for name, where in test.corrupted.items()])
        high = torch.cat([values[name][~where.any(1)] for name, where in test.corrupted.items()])
        assert auroc(low, high) > 0.95


def test_with_two_modalities_the_sample_in_conflict_is_found_but_not_which_one_lies():
    dims = {name: DIMS[name] for name in ("voice", "face")}
    made_data = data(dims)
    vgmr = VGMR.calibrated(dims, CLASSES).eval()
    vgmr.prepare(made_data.train.features, made_data.train.mask, made_data.train.label)
    drawn = Drawn.like(made_data.train, ["conflict"], 0.5)
    test = drawn(made_data.test, torch.Generator().manual_seed(4))
    refinement = vgmr(test.features, test.mask)
    hit = torch.stack([where.flatten(1).any(1) for where in test.corrupted.values()])
    agreement = (refinement.posterior["voice"] * refinement.posterior["face"]).sum(1)
    assert auroc(agreement[hit.any(0)], agreement[~hit.any(0)]) > 0.95
    value = torch.stack(list(refinement.global_value.values()))[:, hit.any(0)]
    lies = hit[:, hit.any(0)]
    assert abs(auroc(value[lies], value[~lies]) - 0.5) < 0.15
    noisy = Drawn.like(made_data.train, ["noise"], 0.5)(made_data.test, torch.Generator().manual_seed(4))
    assert told(vgmr(noisy.features, noisy.mask).global_value, noisy.corrupted) > 0.95


# What the parts compute


def test_relative_agreement_by_hand():
    posterior = {
        "a": torch.tensor([[1.0, 0.0], [0.5, 0.5]]),
        "b": torch.tensor([[1.0, 0.0], [0.5, 0.5]]),
        "c": torch.tensor([[0.2, 0.8], [0.5, 0.5]]),
    }
    value = relative_agreement(posterior)
    # support: a 1/2 (1 + .2) = .6, b the same, c 1/2 (.2 + .2) = .2
    torch.testing.assert_close(value["a"], torch.tensor([1.0, 1.0]))
    torch.testing.assert_close(value["c"], torch.tensor([0.2 / 0.6, 1.0]))


def test_agreement_of_the_confident_is_that_of_exact_arithmetic():
    generator = torch.Generator().manual_seed(0)
    for count in (2, 3, 5):
        logits = torch.randn(count, 400, 8, generator=generator)
        for place in range(count):  # from unsure to sure beyond what float32 can hold, of different classes
            logits[place, :200, place] += torch.linspace(0, 120, 200)
        posterior = dict(zip("abcde", logits.softmax(2), strict=False))
        exact = {}
        for name, own in posterior.items():
            others = [other for one, other in posterior.items() if one != name]
            exact[name] = sum((own.double() * other.double()).sum(1) for other in others)
        best = torch.stack(list(exact.values())).amax(0)
        found = relative_agreement(posterior)
        assert (best < 1e-6).sum() > 20 and (best > 1e-3).sum() > 200
        for name, value in found.items():
            expected = torch.where(best > 1e-30, exact[name] / best, 1.0).float()
            there = (best > 1e-30) | (best == 0)
            torch.testing.assert_close(value[there], expected[there], atol=2e-4, rtol=1e-3, msg=f"{count}, {name}")
        if count == 2:
            assert all(((value - 1).abs() < 3e-4).all() for value in found.values())


def test_where_no_two_support_each_other_nobody_is_distrusted():
    for dtype in (torch.float16, torch.float32, torch.float64):
        sure = torch.eye(3, dtype=dtype)
        value = relative_agreement({"a": sure[:1], "b": sure[1:2], "c": sure[2:]})
        assert all(torch.equal(one, torch.ones(1, dtype=dtype)) for one in value.values())


def test_mixed_precision_does_not_trust_whom_nobody_supports():
    sure = 1e-6 * torch.rand(3, 1, 6, generator=torch.Generator().manual_seed(0))
    sure[0, 0, 0] = sure[1, 0, 1] = sure[2, 0, 2] = 1.0
    sure[0, 0, 1], sure[2, 0, 0] = 1e-5, 1e-8
    posterior = dict(zip("abc", sure, strict=True))
    expected = relative_agreement(posterior)
    for dtype in (torch.float16, torch.bfloat16):
        with torch.autocast("cpu", dtype):
            for name, value in relative_agreement(posterior).items():
                torch.testing.assert_close(value, expected[name], msg=f"{dtype}, {name}")


def test_inputs_far_out_of_range_have_finite_answers(trained):
    model, part = trained[0], trained[1].test
    for factor in (3.0, 30.0, 1000.0):
        features = {name: factor * x for name, x in part.features.items()}
        refinement = model.prefusion(features, part.mask)
        for name in features:
            assert torch.isfinite(refinement.global_value[name]).all(), (factor, name)
            assert torch.isfinite(refinement.features[name]).all(), (factor, name)


def test_pooled_by_hand_and_without_padding():
    x = torch.tensor([[[1.0], [3.0], [2.0], [0.0]]])
    mask = torch.tensor([[True, True, True, False]])
    shape, roughness = pooled(x, mask, 2)
    wave = torch.cos(torch.pi * torch.tensor([1 / 6, 1 / 2, 5 / 6]))
    torch.testing.assert_close(shape, torch.tensor([[2.0, float((wave * x[0, :3, 0]).mean())]]))
    torch.testing.assert_close(roughness, torch.tensor([[(2 / 3) ** 0.5, 1.5]]))
    for one, other in zip(pooled(x[:, :3], None, 2), (shape, roughness), strict=True):
        torch.testing.assert_close(one, other)
    single, none = pooled(x[:, :1], None, 3)
    torch.testing.assert_close(single, torch.tensor([[1.0, 0.0, -1.0]]))
    torch.testing.assert_close(pooled(x[:, :1], mask[:, :1], 3)[0], single)
    assert not none.any()


def test_the_fold_follows_the_sequence_and_not_its_place():
    batch = made(50, 5)
    fold = fold_of(batch.features["voice"], 4)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(1))
    assert torch.equal(fold_of(batch.features["voice"][order], 4), fold[order])
    assert torch.equal(fold_of(F.pad(batch.features["voice"], (0, 0, 0, 3)), 4), fold)
    assert set(fold.tolist()) == {0, 1, 2, 3}


def test_the_fold_is_an_exact_sum_whatever_the_size():
    """Sequences of many values are taken a few at a time; no whole number is lost to rounding."""
    x = 50 * torch.randn(5, 300, 400, generator=torch.Generator().manual_seed(0))
    by_hand = [sum((row * 4096).round().long().flatten().tolist()) % 7 for row in x]
    assert fold_of(x, 7).tolist() == by_hand


class OnMps(torch.Tensor):
    """A tensor that says it lies on MPS, which has no float64."""

    device = property(lambda self: torch.device("mps"))

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        assert torch.float64 not in (kwargs or {}).values(), "MPS has no float64"
        return super().__torch_function__(function, types, args, kwargs)


def test_the_fold_is_the_same_on_a_device_without_float64():
    x = 50 * torch.randn(5, 30, 40, generator=torch.Generator().manual_seed(0))
    assert fold_of(x.as_subclass(OnMps), 7).tolist() == fold_of(x, 7).tolist()


def test_no_sequence_has_no_fold():
    assert fold_of(torch.ones(0, 3, 2), 4).shape == (0,)
    vgmr = VGMR.calibrated({"a": 2, "b": 3}, 2).train()
    assert vgmr({"a": torch.ones(0, 3, 2), "b": torch.ones(0, 4, 3)}).features["b"].shape == (0, 4, 3)


def test_regressions_equal_those_of_a_library_at_one_decay(monkeypatch):
    monkeypatch.setattr("vgmr.refining.evidence.DECAYS", (0.05,))
    batch = made(90, 6)
    x = batch.features["voice"].mean(1)
    fold = torch.arange(90) // 30
    weight, bias = out_of_fold_regression(x, batch.label, fold, 3, CLASSES, steps=300)
    for k in range(3):
        rows = fold != k
        peer = LogisticRegression(C=1 / (0.05 * int(rows.sum())), tol=1e-8, max_iter=2000)
        peer.fit(x[rows], batch.label[rows])
        ours = (x @ weight[k] + bias[k]).softmax(1)
        torch.testing.assert_close(ours, torch.from_numpy(peer.predict_proba(x)).float(), atol=2e-3, rtol=0)


@pytest.mark.parametrize(("shuffled", "expected"), [(False, 0.01), (True, 0.3)])
def test_the_weight_decay_is_the_one_that_predicts_left_out_rows_best(monkeypatch, shuffled, expected):
    batch = made(200, 8)
    x, fold = batch.features["voice"].mean(1), torch.arange(200) // 4 % 4
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0)) if shuffled else torch.arange(200)
    label = batch.label[order]

    def loss(*decays):
        monkeypatch.setattr("vgmr.refining.evidence.DECAYS", decays)
        weight, bias = out_of_fold_regression(x, label, fold, 4, CLASSES, steps=200)
        logits = (x @ weight + bias.unsqueeze(1))[fold, torch.arange(200)]
        return float(F.cross_entropy(logits, label))

    losses = {decay: loss(decay) for decay in DECAYS}
    assert min(losses, key=losses.get) == expected
    assert loss(*DECAYS) == pytest.approx(losses[expected], rel=1e-3)


@pytest.mark.parametrize("count", [1, 2])
def test_a_training_fits_the_anchors_to_real_steps_of_its_own_data(count):
    every = [replace(data(), train=made(240, seed)) for seed in range(count)]
    models = [Classifier(VGMR.calibrated(DIMS, CLASSES), PooledBackbone(DIMS, CLASSES, 8)) for _ in every]
    fit_seeds(models, every, list(range(count)), epochs=1)
    for model, each in zip(models, every, strict=True):
        fresh = Evidence(DIMS, CLASSES)
        fresh.prepare(each.train.features, each.train.mask, each.train.label)
        for name, x in fresh.state_dict().items():
            torch.testing.assert_close(model.prefusion.evidence.state_dict()[name], x, msg=name)


def test_a_training_sample_is_judged_by_an_anchor_that_did_not_see_its_label():
    """Its label changed, everything that it is told out of fold stays; in fold it does not."""
    batch = made(80, 7)
    row, changed = 11, batch.label.clone()
    changed[row] = (changed[row] + 1) % CLASSES
    answers = []
    for label in (batch.label, changed):
        evidence = Evidence(DIMS, CLASSES)
        evidence.prepare(batch.features, batch.mask, label)
        one = {name: x[row : row + 1] for name, x in batch.features.items()}
        real = {name: mask[row : row + 1] for name, mask in batch.mask.items()}
        described = evidence.describe(one, real)
        answers.append([evidence.judge(described, trained)[0] for trained in (one, None)])
    for name in DIMS:
        # the decay is chosen by all rows, so it may differ between the two; it does not here
        torch.testing.assert_close(answers[0][0][name], answers[1][0][name], atol=1e-3, rtol=0)
        assert (answers[0][1][name] - answers[1][1][name]).abs().max() > 0.01


def test_labels_that_cannot_be_learned_are_not_learned_out_of_fold():
    batch = made(200, 8)
    label = torch.randint(CLASSES, (200,), generator=torch.Generator().manual_seed(0))
    evidence = Evidence(DIMS, CLASSES)
    evidence.prepare(batch.features, batch.mask, label)
    described = evidence.describe(batch.features, batch.mask)
    right = [
        [(p.argmax(1) == label).float().mean() for p in evidence.judge(described, trained)[0].values()]
        for trained in (batch.features, None)
    ]
    assert max(right[0]) < 0.4 < min(right[1]) + 0.15


def test_numbers_as_labels_are_cut_into_equal_parts():
    batch = made(80, 7)
    one, other = Evidence(DIMS, CLASSES), Evidence(DIMS, CLASSES)
    number = batch.label + 0.001 * torch.arange(80)
    one.prepare(batch.features, batch.mask, number)
    other.prepare(batch.features, batch.mask, batch.label)
    for name, value in one.state_dict().items():
        torch.testing.assert_close(value, other.state_dict()[name], msg=name)


# In the refiner


def test_at_the_papers_switches_the_module_is_the_papers_bit_by_bit():
    batch = made(9, 3)
    torch.manual_seed(5)
    before = VGMR(DIMS)
    torch.manual_seed(5)
    after = VGMR(DIMS, **FORMS["paper"], value_from="summaries", num_classes=CLASSES, retain=False)
    assert before.state_dict().keys() == after.state_dict().keys()
    state = copy.deepcopy(after.state_dict())
    after.prepare(batch.features, batch.mask, batch.label)
    for name, value in before.state_dict().items():
        assert torch.equal(value, state[name]) and torch.equal(value, after.state_dict()[name])
    one, other = before.eval()(batch.features, batch.mask), after.eval()(batch.features, batch.mask)
    for name in DIMS:
        assert torch.equal(one.features[name], other.features[name])


@pytest.mark.parametrize("value_from", ["anchors", "both"])
@pytest.mark.parametrize("names", [("voice", "face"), ("voice", "face", "word"), tuple("abcdefghijkl")])
def test_masks_any_number_of_modalities_folding_and_batched_seeds(names, value_from):
    dims = {name: DIMS.get(name, 3) for name in names}
    batch = made(40, 3, dims)
    vgmr = VGMR.calibrated(dims, CLASSES, latent_dim=4, value_from=value_from)
    vgmr.prepare(batch.features, batch.mask, batch.label)
    vgmr.eval()
    got = vgmr(batch.features, batch.mask)
    longer = {name: F.pad(x, (0, 0, 0, 2), value=7.0) for name, x in batch.features.items()}
    padded = vgmr(longer, {name: F.pad(mask, (0, 2)) for name, mask in batch.mask.items()})
    folded = vgmr.fold()(batch.features, batch.mask)
    copies = [vgmr, copy.deepcopy(vgmr)]
    parameters, buffers = torch.func.stack_module_state(copies)

    def call(parameters, buffers, features, mask):
        return torch.func.functional_call(vgmr, (parameters, buffers), (features, mask)).features

    twice = {name: torch.stack([x, x]) for name, x in batch.features.items()}
    masks = {name: torch.stack([x, x]) for name, x in batch.mask.items()}
    for training in (False, True):
        vgmr.train(training)
        alone = vgmr(batch.features, batch.mask).features if not training else None
        stacked = torch.vmap(call, randomness="different")(parameters, buffers, twice, masks)
        for name in dims:
            assert stacked[name].shape[1:] == batch.features[name].shape
            if alone is not None:
                torch.testing.assert_close(stacked[name][1], alone[name], atol=1e-5, rtol=1e-4)
    for name in dims:
        assert got.features[name].shape == batch.features[name].shape
        assert not got.features[name][~batch.mask[name]].any()
        steps = batch.features[name].shape[1]
        torch.testing.assert_close(padded.features[name][:, :steps], got.features[name], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(folded.features[name], got.features[name], atol=1e-5, rtol=1e-4)
        assert (got.global_value[name] > 0).all() and (got.global_value[name] <= 1).all()


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # which torch's own rules call
@pytest.mark.parametrize("value_from", ["anchors", "both"])
def test_forward_derivatives_hold_the_anchors_as_gradients_do(value_from):
    """`torch.no_grad` does not stop them; of one step the deviation is 0, where its root has no derivative."""
    torch.manual_seed(0)
    vgmr = VGMR(DIMS, 4, **{**FORMS["calibrated"], "value_from": value_from}, num_classes=CLASSES).double()
    randomise(vgmr, 0)
    batch = made(20, 7)
    features = {name: x[:4].double() for name, x in batch.features.items()}
    mask = {name: torch.arange(x.shape[1]).expand(4, -1) < 1 for name, x in features.items()}
    vgmr.prepare({name: x.double() for name, x in batch.features.items()}, batch.mask, batch.label)
    vgmr.eval()
    direction = {name: torch.randn_like(x) for name, x in features.items()}
    leaves = {name: x.clone().requires_grad_() for name, x in features.items()}

    def total(features):
        return sum(x.square().sum() for x in vgmr(features, mask).features.values())

    _, along = torch.func.jvp(total, (features,), (direction,))
    gradient = torch.autograd.grad(total(leaves), list(leaves.values()))
    expected = sum((x * y).sum() for x, y in zip(gradient, direction.values(), strict=True))
    torch.testing.assert_close(along, expected)


def test_before_it_is_prepared_no_modality_is_distrusted():
    batch = made(9, 3)
    refinement = VGMR.calibrated(DIMS, CLASSES).eval()(batch.features, batch.mask)
    for value in refinement.global_value.values():
        assert (value > 0.95).all()


def test_a_modality_without_value_is_taken_out():
    batch = made(9, 3)
    value = {name: torch.full((9,), float(name != "face")) for name in DIMS}
    for norm in ("layer", "none"):
        vgmr = VGMR.calibrated(DIMS, CLASSES, norm=norm).eval()
        refined = vgmr(batch.features, batch.mask, value)
        assert not refined.features["face"].any() and refined.features["voice"].any()
        assert not refined.effective_gate["face"].any()


def test_wrong_settings_are_refused_in_one_line():
    for options, words in (
        ({"value_from": "elsewhere"}, "value_from must be one of"),
        ({"value_from": "anchors"}, "num_classes"),
        ({"value_from": "anchors", "num_classes": 1}, "at least 2 classes"),
        ({"value_from": "anchors", "num_classes": 2.0}, "num_classes must be a whole number"),
        ({"value_from": "anchors", "num_classes": "3"}, "num_classes must be a whole number"),
        ({"value_from": "both", "num_classes": 3, "evidence_frequencies": 2.5}, "evidence_frequencies must be"),
    ):
        with pytest.raises(ValueError, match=words):
            VGMR(DIMS, **options)


@pytest.mark.parametrize("given", [torch.nan, 7.0, -3.0, 1.001, -0.001])
def test_a_given_value_lies_in_0_to_1(given):
    batch = made(9, 3)
    value = {name: torch.full((9,), 0.5) for name in DIMS}
    vgmr = VGMR.calibrated(DIMS, CLASSES).eval()
    value["face"][:2] = torch.tensor([1.0000001, -1e-7])  # rounding
    vgmr(batch.features, batch.mask, value)
    value["face"][2] = given
    with pytest.raises(ValueError, match=r"value: expected numbers from 0 to 1 for 'face'"):
        vgmr(batch.features, batch.mask, value)


def test_anchors_are_not_fitted_to_nothing():
    nothing = {name: torch.zeros(0, 5, dim) for name, dim in DIMS.items()}
    with pytest.raises(ValueError, match=r"one entry for each of N = 0 > 0"):
        Evidence(DIMS, CLASSES).prepare(nothing, dict.fromkeys(DIMS), torch.zeros(0, dtype=torch.int64))


def test_anchors_are_not_fitted_in_half_precision():
    batch = made(40, 3)
    vgmr = VGMR.calibrated(DIMS, CLASSES).half()
    before = copy.deepcopy(vgmr.state_dict())
    with pytest.raises(ValueError, match="float16"):
        vgmr.prepare({name: x.half() for name, x in batch.features.items()}, batch.mask, batch.label)
    assert all(torch.equal(x, before[name]) for name, x in vgmr.state_dict().items())


@pytest.mark.parametrize("steps", [2, 12])
def test_anchors_are_fitted_alike_in_mixed_precision_and_where_nothing_learns(steps):
    batch = made(40, 3, steps=steps)
    states = []
    for where in (
        nullcontext,
        torch.no_grad,
        torch.inference_mode,
        partial(torch.autocast, "cpu", torch.bfloat16),
    ):
        vgmr = VGMR.calibrated(DIMS, CLASSES)
        with where():
            vgmr.prepare({name: x * 1 for name, x in batch.features.items()}, batch.mask, batch.label)
        states.append(vgmr.evidence.state_dict())
    for state in states[1:]:
        assert all(torch.equal(x, states[0][name]) for name, x in state.items())
    assert not any(x.is_inference() for x in states[2].values())


def one_gate(rank: int | None = 4, **options) -> Classifier:
    torch.manual_seed(0)
    vgmr = VGMR.calibrated(DIMS, CLASSES, latent_dim=8, rank=rank, per_step=False, **options)
    return Classifier(vgmr, PooledBackbone(DIMS, CLASSES, 8))


@pytest.mark.parametrize("rank", [0, 4, None])
def test_a_gate_for_a_sequence_is_trained_on_means_as_on_the_sequences(monkeypatch, rank):
    """`fit` reads a training part once there; step by step, on sequences, the weights come out the same."""
    data = MultimodalData("made", made(70, 20), made(20, 21), made(20, 22), tuple("abcd"), "", "", "")
    seen, states, losses = [], [], []
    forward = VGMR.forward

    def watched(self, features, *args, **kwargs):
        if self.training:
            seen.append({x.shape[1] for x in features.values()})
        return forward(self, features, *args, **kwargs)

    monkeypatch.setattr(VGMR, "forward", watched)
    for keep_sequences in (False, True):
        if keep_sequences:
            monkeypatch.setattr("vgmr.loop.alone.known", lambda model, part: part)
        model = one_gate(rank, dropout=0.3)
        history = fit(model, data, epochs=3, batch_size=16, seed=3)
        states.append(model.state_dict())
        losses.append(history.train_loss)
        assert seen.pop() == ({12} if keep_sequences else {1})
    torch.testing.assert_close(states[0], states[1], atol=1e-6, rtol=1e-4)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("how", ["length_buckets", "replayed", "method", "corruption"])
def test_where_a_step_is_taken_otherwise_it_reads_the_sequences(monkeypatch, how):
    """A step that takes the tensors of a batch and not the batch would lose what anchors said of them."""
    data = MultimodalData("made", made(40, 25), made(20, 26), made(20, 27), tuple("abcd"), "", "", "")
    steps = []
    forward = VGMR.forward

    def watched(self, features, *args, **kwargs):
        if self.training:
            steps.append(max(x.shape[1] for x in features.values()))
        return forward(self, features, *args, **kwargs)

    monkeypatch.setattr(VGMR, "forward", watched)
    options = {
        "length_buckets": {"length_buckets": True},
        "method": {"method": OGMGE()},
        "corruption": {"corruption": Drawn.like(data.train)},
    }
    if how == "replayed":
        monkeypatch.setattr("vgmr.loop.alone.replayable", lambda *_: True)
        monkeypatch.setattr("vgmr.loop.alone.Replayed", lambda step: step)
    fit(one_gate(), data, epochs=2, batch_size=16, **options.get(how, {}))
    assert steps and max(steps) > 1 and min(steps) > 1


def test_a_sequence_is_read_in_each_step_where_anything_may_look_at_it():
    """A gate for each step, learned values, a backbone that reads sequences: then the part stays as it is."""
    part = made(30, 23)
    paper = VGMR(DIMS, 8, norm="none", rank=0)
    for prefusion in (VGMR.calibrated(DIMS, CLASSES), VGMR.calibrated(DIMS, CLASSES, rank=0, norm="layer"), paper):
        assert known(Classifier(prefusion, PooledBackbone(DIMS, CLASSES, 8)), part) is part
    transformer = TransformerBackbone(DIMS, CLASSES, 12, 8, 1, 2, 16)
    assert known(Classifier(VGMR.calibrated(DIMS, CLASSES, rank=0), transformer), part) is part
    assert known(one_gate(), part).features["voice"].shape == (30, 1, 6)

    class Own(VGMR):
        pass

    subclass = Own.calibrated(DIMS, CLASSES, rank=0)
    assert known(Classifier(subclass, PooledBackbone(DIMS, CLASSES, 8)), part) is part


@pytest.mark.parametrize("whole", [False, True])
def test_marks_of_corruptions_follow_a_sequence_to_its_mean(whole):
    """Data that know where they were corrupted, by step or as a whole, are trained on means as any other."""
    hit = {name: torch.zeros(70, 1 if whole else 12, 1, dtype=torch.bool) for name in DIMS}
    hit["voice"][7, -1] = True
    part = replace(made(70, 20), corrupted=hit)
    data = MultimodalData("made", part, made(20, 21), made(20, 22), tuple("abcd"), "", "", "")
    model, plain = one_gate(), one_gate()
    history = fit(model, data, epochs=1, batch_size=16)
    assert history.train_loss == fit(plain, replace(data, train=made(70, 20)), epochs=1, batch_size=16).train_loss
    marks = known(model, part).corrupted
    assert {name: x.shape for name, x in marks.items()} == dict.fromkeys(DIMS, (70, 1, 1))
    assert [(name, int(row)) for name, x in marks.items() for row in x.nonzero()[:, 0]] == [("voice", 7)]


def test_means_are_refused_by_anchors_that_did_not_judge_them():
    """So no step is taken with values of an earlier fit, and no evaluation with means in place of sequences."""
    part = made(40, 24)
    model = one_gate()
    model.prefusion.prepare(part.features, part.mask, part.label)
    means = known(model, part)
    first = means.index(torch.tensor([3, 1]))
    expected = model.train()(*(lambda b: (b.features, b.mask))(part.index(torch.tensor([3, 1]))))
    found = model(first.features)
    torch.testing.assert_close(found.refinement.global_value, expected.refinement.global_value)
    torch.testing.assert_close(found.refinement.channel_value, expected.refinement.channel_value)
    torch.testing.assert_close(found.refinement.posterior, expected.refinement.posterior)
    for use in (model.eval(), copy.deepcopy(model).train()):
        with pytest.raises(ValueError, match="values of other anchors; give the sequences"):
            use(first.features)
    model.train().prefusion.prepare(part.features, part.mask, part.label.flip(0))
    with pytest.raises(ValueError, match="values of other anchors"):
        model(first.features)


def test_how_typical_a_sequence_is_by_hand():
    """In logs of roughness against the training part's, where the second channel stands still."""
    training, seen = torch.randn(40, 6, 2), torch.randn(5, 6, 2)
    training[..., 1] = 0.7
    anchor = Anchor(2, 2, 2, 1)
    anchor.prepare(training, None, torch.arange(40) % 2)
    _, typical, channel = anchor(seen, None)
    known, found = (np.log(pooled(x.double(), None, 1)[1].numpy() + 0.05) for x in (training, seen))
    away, usual = (((x - known.mean(0)) / np.maximum(known.std(0), 0.05)) ** 2 for x in (found, known))
    surprise, common = (np.log(x.mean(1) + 0.05) for x in (away, usual))
    expected = 1 / (1 + np.exp((surprise - common.mean()) / common.std() - 4))
    np.testing.assert_allclose(typical.numpy(), expected, rtol=1e-3)
    both = (away[:, :2] + away[:, 2:]) / 2
    np.testing.assert_allclose(channel.numpy(), 1 / (1 + np.exp(both**0.5 - 4)), rtol=1e-3)


@pytest.mark.parametrize("steps", [12, 1])
def test_anchors_that_are_fitted_again_forget_the_first_part(steps):
    """Vectors have no course, also where sequences came before them."""
    first, second = made(240, 1), made(240, 2)
    features = {name: x[:, :steps].contiguous() for name, x in second.features.items()}
    mask = {name: real[:, :steps].contiguous() for name, real in second.mask.items()}
    again, fresh = (VGMR.calibrated(DIMS, CLASSES, latent_dim=8).evidence for _ in range(2))
    again.prepare(first.features, first.mask, first.label)
    for evidence in (again, fresh):
        evidence.prepare(features, mask, second.label)
    for name, x in fresh.state_dict().items():
        assert torch.equal(again.state_dict()[name], x), name


@pytest.mark.parametrize("steps", [2, 5])
def test_vectors_padded_to_sequences_have_the_values_of_the_vectors(steps):
    """One real step has no course, however many steps of padding follow it."""
    whole = made(240, 1)
    first = {name: x[:, :1] for name, x in whole.features.items()}
    short = Batch(first, {name: mask[:, :1] for name, mask in whole.mask.items()}, whole.label)
    long = Batch(
        {name: F.pad(x, (0, 0, 0, steps - 1)) for name, x in short.features.items()},
        {name: F.pad(mask, (0, steps - 1)) for name, mask in short.mask.items()},
        short.label,
    )
    found = []
    for part in (short, long):
        vgmr = VGMR.calibrated(DIMS, CLASSES, latent_dim=8).eval()
        vgmr.prepare(part.features, part.mask, part.label)
        found.append(vgmr(part.features, part.mask).global_value)
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, atol=1e-3, rtol=0)


def test_anchors_of_a_model_made_in_inference_mode_are_refused_in_one_line():
    features = {name: torch.randn(6, 1, 2) for name in ("a", "b")}
    with torch.inference_mode():
        vgmr = VGMR.calibrated({"a": 2, "b": 2}, 2)
    with pytest.raises(ValueError, match="made in inference mode and cannot learn; make it outside"):
        vgmr.prepare(features, None, torch.tensor([0, 1] * 3))
