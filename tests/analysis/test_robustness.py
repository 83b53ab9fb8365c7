"""Corruptions on one scale: where they strike, what they leave alone; differences of curves by hand."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from vgmr.analysis.robustness import (
    accuracy_curve,
    area,
    corruptions,
    curves,
    occlusion,
    one_missing,
    out_of_step,
    scores,
)
from vgmr.backbones import PooledBackbone
from vgmr.classifier import Classifier
from vgmr.comparison import differences
from vgmr.data import held, load
from vgmr.data.types import Batch
from vgmr.inference import predict
from vgmr.prefusion import Identity
from vgmr.refiner import VGMR
from vgmr.runs import run
from vgmr.settings import Experiment

DIMS = {"text": 6, "audio": 4}


def made(size: int = 60, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    mask, features = {}, {}
    for steps, (name, d) in zip((8, 5), DIMS.items(), strict=True):
        length = torch.randint(2, steps + 1, (size,), generator=generator)
        mask[name] = torch.arange(steps) < length.unsqueeze(1)
        x = torch.randn(size, steps, d, generator=generator) + 3
        features[name] = x.masked_fill(~mask[name].unsqueeze(2), 0.0)
    part = Batch(features, mask, torch.arange(size) % 3)
    part.check(3)
    return part


PART = made()
CORRUPTIONS = corruptions(made(seed=1))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_severity_0_is_the_identity_and_more_of_it_is_not(name):
    clean, corrupted = CORRUPTIONS[name](PART, 0.0), CORRUPTIONS[name](PART, 1.0)
    assert all(torch.equal(clean.features[m], PART.features[m]) for m in DIMS)
    assert name == "noise weight" or not any(hit.any() for hit in clean.corrupted.values())
    assert any(hit.any() for hit in corrupted.corrupted.values())
    assert not all(torch.equal(corrupted.features[m], PART.features[m]) for m in DIMS)
    corrupted.check(3)


@pytest.mark.parametrize("name", [name for name in CORRUPTIONS if name not in ("asynchrony", "conflict")])
def test_padding_stays_zero_and_what_is_not_corrupted_stays(name):
    corrupted = CORRUPTIONS[name](PART, 0.5)
    for m in DIMS:
        same = corrupted.features[m] == PART.features[m]
        assert same[~corrupted.corrupted[m].expand_as(same)].all()
        assert not corrupted.features[m].masked_select(~PART.mask[m].unsqueeze(2)).any()


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_draws_follow_the_seed(name):
    first, again = (corruptions(PART, seed=3)[name](PART, 0.5) for _ in range(2))
    assert all(torch.equal(first.features[m], again.features[m]) for m in DIMS)
    other = corruptions(PART, seed=4)[name](PART, 0.5)
    assert name == "asynchrony" or not all(torch.equal(first.features[m], other.features[m]) for m in DIMS)


def test_one_missing_takes_one_modality_of_each_corrupted_sample():
    part = made(2000)
    for share in (0.3, 1.0):
        gone = torch.stack([(x == 0).flatten(1).all(1) for x in one_missing(part, share).features.values()])
        assert gone.sum(0).max() == 1
        assert float(gone.any(0).float().mean()) == pytest.approx(share, abs=0.03)
        assert float(gone[0].float().mean()) == pytest.approx(share / 2, abs=0.03)


def test_occlusion_is_one_block_of_neighbouring_channels_for_the_whole_sequence():
    corrupted = occlusion(PART, 0.5)
    for m, d in DIMS.items():
        real = PART.mask[m]
        zero = (corrupted.features[m] == 0)[:, 0]
        assert (zero.sum(1) == d // 2).all()
        assert (zero[:, 1:] != zero[:, :-1]).sum(1).max() <= 2
        for row in range(len(PART)):
            assert (corrupted.features[m][row][real[row]] == 0).eq(zero[row]).all()
    starts = (corrupted.features["text"] == 0)[:, 0].int().argmax(1)
    assert set(starts.tolist()) == {0, 1, 2, 3}, "every place of the block occurs"
    assert not occlusion(PART, 1.0).features["text"].any()
    for m, x in occlusion(PART, 0.2).features.items():
        assert ((x == 0)[:, 0].sum(1) == 1).all(), f"of {m}: 1.2 and 0.8 channels are one"


def test_out_of_step_rotates_all_but_the_last():
    corrupted = out_of_step(PART, 1.0)
    shift = round(float(PART.lengths()["text"].median()) / 2)
    row = int(PART.lengths()["text"].argmax())
    real = PART.mask["text"][row]
    torch.testing.assert_close(
        corrupted.features["text"][row][real], PART.features["text"][row][real].roll(shift, 0)
    )
    assert torch.equal(corrupted.features["audio"], PART.features["audio"])


@pytest.mark.parametrize("refined", [False, True])
def test_a_model_that_pools_over_time_does_not_see_time_order(refined):
    """VGMR's gates act step by step and its summaries pool over time, so it does not see it either."""
    torch.manual_seed(0)
    prefusion = VGMR(DIMS, 4) if refined else Identity(DIMS)
    model = Classifier(prefusion, PooledBackbone(DIMS, 3, width=5)).eval()
    torch.testing.assert_close(predict(model, out_of_step(PART, 1.0)), predict(model, PART))


def test_shares_are_checked_and_corrupted_adds_up():
    for corrupt in (one_missing, occlusion):
        with pytest.raises(ValueError, match=r"^share must lie in 0 to 1, got 1\.5"):
            corrupt(PART, 1.5)
    before = {m: torch.ones(len(PART), 1, 1, dtype=torch.bool) for m in DIMS}
    assert all(hit.all() for hit in occlusion(replace(PART, corrupted=before), 0.5).corrupted.values())


def test_curves_start_at_the_clean_accuracy(tmp_path, monkeypatch):
    monkeypatch.setenv("VGMR_CACHE", str(tmp_path))
    runs = [run(Experiment("digits", "none", seed=seed, epochs=1)) for seed in (0, 1)]
    frame = curves(runs, [0, 1])
    assert len(frame) == 2 * 8 * 2 and list(frame["corruption"].unique()) == list(CORRUPTIONS)
    for position, found in enumerate(runs):
        rows = frame[(frame["run"] == position) & (frame["severity"] == 0)]
        assert (rows["accuracy"] == found.metrics["accuracy"]).all() and (rows["seed"] == position).all()
        blind = frame[(frame["run"] == position) & (frame["severity"] == 1)].set_index("corruption")["accuracy"]
        assert blind["noise ratio"] < 0.2 and blind["occlusion"] < 0.2, "nothing is left to read"
    first = accuracy_curve(runs[1].model(), *_case(runs[1], "noise ratio"), [0, 1])
    assert first == frame.query("run == 1 and corruption == 'noise ratio'")["accuracy"].tolist()
    assert "fold" not in frame, "these runs have none"


def test_curves_name_the_fold_and_are_scored_on_its_test_part(tmp_path, monkeypatch):
    monkeypatch.setenv("VGMR_CACHE", str(tmp_path))
    monkeypatch.setattr(held, "load", folded)
    runs = [run(Experiment("digits", "none", epochs=1, fold=fold)) for fold in (1, 0)]
    frame = curves(runs, [0, 1]).set_index(["run", "severity", "corruption"])
    for position, fold in enumerate((1, 0)):
        own = frame.loc[position]
        assert (own["fold"] == fold).all() and (
            own.loc[0.0, "accuracy"] == runs[position].metrics["accuracy"]
        ).all()
        last = accuracy_curve(runs[position].model(), *_case(runs[position], "conflict"), [0, 1])[1]
        assert own.loc[(1.0, "conflict"), "accuracy"] == last
    assert runs[0].label != runs[1].label


def folded(name, root=None, fold=0, **options):
    """Digits whose test part is its even or its odd half."""
    data = load(name, root, **options)
    rows = torch.arange(fold, len(data.test), 2)
    return replace(data, test=data.test.index(rows), fingerprint=f"{data.fingerprint}{fold}")


def _case(found, name):
    from vgmr.experiment import experiment_data

    data = experiment_data(found.experiment)
    return data.test, corruptions(data.train, seed=found.experiment.seed)[name]


def frame_of(**values):
    """One data set and corruption; model -> accuracies (seeds, severities 0, 0.5, 1)."""
    rows = [
        ("made", "noise", model.replace("_", " "), seed, severity, value)
        for model, table in values.items()
        for seed, line in enumerate(table)
        for severity, value in zip((0.0, 0.5, 1.0), line, strict=True)
    ]
    return pd.DataFrame(rows, columns=["data", "corruption", "model", "seed", "severity", "accuracy"])


def test_scores_by_hand():
    frame = frame_of(plain=[[0.9, 0.6, 0.3], [0.9, 0.7, 0.5]], refined=[[0.1, 0.1, 0.1], [1.0, 0.8, 0.6]])
    table = scores(frame.sample(frac=1, random_state=0), {"made": 0.1})
    wide = table.pivot(index=["model", "seed"], columns="quantity", values="value")
    assert wide.loc["plain", 0].to_dict() == pytest.approx(
        {"clean": 0.9, "area": 0.6, "drop": 0.3, "retention": 0.5 / 0.8}
    )
    assert wide.loc["refined", 1]["retention"] == pytest.approx(0.7 / 0.9)
    assert np.isnan(wide.loc["refined", 0]["retention"]), "nothing above chance to keep"


def test_a_constant_factor_above_chance_is_a_lead_in_area_and_none_in_retention():
    plain = np.array([[0.8, 0.6, 0.2], [0.7, 0.6, 0.3]])
    table = scores(frame_of(plain=plain, refined=0.1 + (plain - 0.1) * 1.1), {"made": 0.1})
    found = differences(table, ["quantity"], baseline="plain", label="model").set_index("quantity")
    assert found.loc["area", "low"] > 0
    assert found.loc["retention", ["low", "high"]].tolist() == pytest.approx([0, 0], abs=1e-9)


def test_people_count_in_the_interval_and_are_paired():
    """By hand: two seeds, three folds; the second model's lead in area is 0.1 times the fold, for every seed."""
    folds = []
    for fold in range(3):
        plain = np.array([[0.9, 0.6, 0.3], [0.8, 0.7, 0.4]]) - 0.1 * fold
        folds.append(frame_of(plain=plain, refined=plain + 0.1 * fold).assign(fold=fold))
    frame = pd.concat(folds)
    table = scores(frame.sample(frac=1, random_state=0), {"made": 0.1})
    assert len(table) == 2 * 2 * 3 * 4 and "fold" not in table
    own = table.set_index(["model", "seed", "sample", "quantity"])["value"]
    assert own["plain", 0, 2, "area"] == pytest.approx(0.4) and own["refined", 1, 2, "clean"] == pytest.approx(0.8)
    found = differences(table, ["quantity"], baseline="plain", label="model").set_index("quantity").loc["area"]
    reach = stats.t.ppf(0.975, 2) * np.sqrt(0.01 / 3)  # the three folds' leads are 0, 0.1 and 0.2
    assert found["difference"] == pytest.approx(0.1)
    assert (found["low"], found["high"]) == pytest.approx((0.1 - reach, 0.1 + reach))
    assert found["seed_variance"] == pytest.approx(0) and found["sample_variance"] == pytest.approx(0.01 / 3)
    assert (found["seeds"], found["samples"]) == (2, 3) and found["counted"] == "seeds and samples"


def test_scores_need_whole_curves():
    frame = frame_of(plain=[[0.9, 0.6, 0.3]] * 2)
    with pytest.raises(ValueError, match=r"made, noise: expected every model and seed at the severities"):
        scores(frame.iloc[:-1], {"made": 0.1})
    people = pd.concat([frame.assign(fold=fold) for fold in (0, 1)])
    with pytest.raises(ValueError, match=r"expected every model and seed and fold at the severities"):
        scores(people.iloc[:-1], {"made": 0.1})
    with pytest.raises(ValueError, match="expected severity 0, the clean data, among"):
        scores(frame[frame["severity"] > 0], {"made": 0.1})


def test_area_by_hand():
    """Trapezoids 0.25 * 0.8 + 0.25 * 0.5 + 0.5 * 0.3 = 0.475 over a range of 1; the line through 1 and 0.4."""
    assert area([0, 0.25, 0.5, 1], [1.0, 0.6, 0.4, 0.2]) == pytest.approx(0.475)
    assert area([0, 0.5], [1.0, 0.4]) == pytest.approx(0.7), "divided by the range of severities"


@given(st.floats(0, 1))
def test_a_flat_curve_has_its_height_as_area(height):
    assert area([0, 0.1, 1], [height] * 3) == pytest.approx(height)


@pytest.mark.parametrize(("x", "y"), [([0], [1.0]), ([0, 1], [1.0]), ([0, 0], [1.0, 1.0]), ([1, 0], [1.0, 0.5])])
def test_curves_need_rising_severities_and_a_value_for_each(x, y):
    with pytest.raises(ValueError, match="expected a value for each of at least two rising severities"):
        area(x, y)


def test_accuracy_curve_sees_real_steps_only():
    """Zeroing the real steps ruins a model that reads the label off them; garbage in padding does not."""
    torch.manual_seed(0)
    dims, label = {"a": 2}, torch.arange(40) % 2
    model = Classifier(Identity(dims), PooledBackbone(dims, 2, width=2, dropout=0))
    with torch.no_grad():
        model.backbone.encoder["a"][0].weight.copy_(torch.eye(2))
        model.backbone.encoder["a"][0].bias.zero_()
        model.backbone.head.linear.weight.copy_(torch.eye(2))
        model.backbone.head.linear.bias.copy_(torch.tensor([0.1, 0.0]))
    mask = (torch.arange(5) < 3).expand(40, 5)
    x = torch.eye(2)[label].unsqueeze(1).expand(40, 5, 2).masked_fill(~mask.unsqueeze(2), 0.0)
    part = Batch({"a": x}, {"a": mask}, label)

    def faded(part, severity):
        return replace(part, features={"a": part.features["a"] * (1 - severity)})

    def dirty_padding(part, severity):
        noise = 100 * severity * torch.randn(40, 5, 2)
        return replace(
            part, features={"a": part.features["a"] + noise.masked_fill(part.mask["a"].unsqueeze(2), 0)}
        )

    assert accuracy_curve(model, part, faded, [0, 0.5, 1]) == [1.0, 1.0, 0.5]
    assert accuracy_curve(model, part, dirty_padding, [0, 1]) == [1.0, 1.0]
