"""What the studies of the value add to the package: two changed parts, and tables that come back as they were."""

from dataclasses import replace

import pandas as pd
import pytest
import torch
from test_evidence import CLASSES, DIMS, data

from vgmr.analysis.calibration import detection, values
from vgmr.analysis.gate import suppression
from vgmr.backbones import PooledBackbone
from vgmr.classifier import Classifier
from vgmr.corruption import Drawn
from vgmr.experiment import train
from vgmr.inference import predict
from vgmr.objective import value_loss
from vgmr.prefusion import Identity
from vgmr.refiner import VGMR
from vgmr.refining.refinement import Refinement
from vgmr.studies import calibration, value


def test_values_of_plain_agreement_divided_by_the_largest_are_the_calibrated_ones():
    torch.manual_seed(0)
    x = {name: torch.randn(40, 1, 5) for name in "abc"}
    label = torch.arange(40) % 3
    plain = calibration.PlainAgreement({name: 5 for name in x}, value_from="anchors", num_classes=3).eval()
    relative = VGMR({name: 5 for name in x}, value_from="anchors", num_classes=3).eval()
    for one in (plain, relative):
        one.prepare(x, None, label)
    described = plain.evidence.describe(x, dict.fromkeys(x))
    _, found, _ = plain.judge(described)
    posterior, wanted, _ = relative.judge(relative.evidence.describe(x, dict.fromkeys(x)))
    by_hand = ((posterior["b"] + posterior["c"]) / 2 * posterior["a"]).sum(1)
    typical = plain.evidence.judge(described)[1]
    torch.testing.assert_close(found["a"], by_hand * typical["a"])
    largest = torch.stack([found[name] / typical[name] for name in x]).amax(0)
    torch.testing.assert_close(found["a"] / largest, wanted["a"])


def test_impact_has_no_target_below_one_half():
    values = Refinement({}, {"a": torch.full((2,), 0.5)}, {"a": torch.full((2, 3), 0.5)})
    assert float(value_loss(values, {"a": torch.tensor([-9.0, -9.0]).abs()})) == pytest.approx(0.5, abs=1e-3)
    assert float(value_loss(values, {"a": torch.zeros(2)})) == 0


@pytest.fixture(scope="module")
def one():
    """An untrained model whose anchors are fitted, and test samples of which some are in conflict."""
    torch.manual_seed(0)
    made_data = data()
    vgmr = VGMR.calibrated(DIMS, CLASSES, latent_dim=8)
    vgmr.prepare(made_data.train.features, made_data.train.mask, made_data.train.label)
    drawn = Drawn.like(made_data.train, ["conflict"], 0.4)
    test = drawn(made_data.test, torch.Generator().manual_seed(1))
    model = Classifier(vgmr, PooledBackbone(DIMS, CLASSES, 16)).eval()
    return calibration.Trained(3, model, replace(made_data, test=test), 0.5)


def right(model, part, **options):
    return (predict(model, part, **options).argmax(1) == part.label).float()


def test_samples_are_hit_or_whole(one):
    test = one.data.test
    hit = torch.stack([where.flatten(1).any(1) for where in test.corrupted.values()]).any(0)
    assert torch.equal(calibration.hit_samples(test), hit) and 0.1 < hit.float().mean() < 0.6
    whole = calibration.whole_samples(test)
    assert whole.corrupted is None and torch.equal(whole.label, test.label[~hit])
    assert all(torch.equal(x, test.features[name][~hit]) for name, x in whole.features.items())
    assert not calibration.hit_samples(whole).any() and len(calibration.whole_samples(whole)) == len(whole)


def test_the_oracle_leaves_out_what_is_corrupted_and_nothing_else(one):
    test = one.data.test
    found = calibration.oracle(one.model, test)
    expected = right(one.model, test)
    for name, where in test.corrupted.items():
        rows = where.flatten(1).any(1)
        expected[rows] = right(one.model, test, keep=[other for other in DIMS if other != name])[rows]
    assert torch.equal(found, expected) and not torch.equal(found, right(one.model, test))


def test_what_is_measured_of_a_model_by_kind(one):
    test, clean = one.data.test, calibration.whole_samples(one.data.test)
    kinds = calibration.kinds_of(one)
    found = pd.DataFrame(calibration.measured(one)).set_index(["kind", "measure"])["value"]
    assert set(found.index.get_level_values("kind")) == {"clean", "all", "own", *kinds} and "noise" in kinds
    assert found["clean", "accuracy"] == pytest.approx(float(right(one.model, clean).mean()))
    assert found["all", "accuracy"] == pytest.approx(float(right(one.model, test).mean()))
    hit = test.index(calibration.hit_samples(test).nonzero().squeeze(1))
    for kind, part in {"own": hit, **kinds}.items():
        assert kind == "own" or (len(part) == len(clean) and torch.equal(part.label, clean.label))
        assert found[kind, "accuracy"] == found[kind, "own"] == pytest.approx(float(right(one.model, part).mean()))
        assert found[kind, "oracle"] == pytest.approx(float(calibration.oracle(one.model, part).mean()))
    for kind, struck in kinds.items():
        low, high = [], []
        for part in (clean, struck):
            for name, of_sample in one.model.prefusion(part.features, part.mask).global_value.items():
                hit = torch.zeros(len(part), dtype=torch.bool)
                if part.corrupted is not None:
                    hit = part.corrupted[name].flatten(1).any(1)
                low, high = [*low, of_sample[hit]], [*high, of_sample[~hit]]
        apart = torch.cat(high)[:, None] - torch.cat(low)
        by_hand = float(((apart > 0).double() + (apart == 0).double() / 2).mean())
        assert found[kind, "value"] == pytest.approx(by_hand, abs=1e-4) and found[kind, "sample"] >= 0.5, kind
    assert len({round(found[kind, "value"], 2) for kind in kinds}) > 2, "some kinds are harder to see"


def test_what_is_said_of_a_model_in_notebook_14(one):
    torch.manual_seed(1)
    plain = Classifier(Identity(DIMS), PooledBackbone(DIMS, CLASSES, 16)).eval()
    test, clean = one.data.test, calibration.whole_samples(one.data.test)
    keys = ["question", "case", "modality", "name", "strength"]
    found = {tuple(row.get(key, "") for key in keys): row["value"] for row in value.described(one, plain)}
    hit, blind = calibration.hit_samples(test), right(plain, test)
    knowing = calibration.oracle(plain, test)
    for case, kept in (("all", hit | ~hit), ("corrupted", hit), ("whole", ~hit)):
        assert found["worth", case, "", "plain", ""] == pytest.approx(float(blind[kept].mean()))
        assert found["worth", case, "", "plain, oracle", ""] == pytest.approx(float(knowing[kept].mean()))
    measured = pd.DataFrame(calibration.measured(one)).set_index(["kind", "measure"])["value"]
    areas = {strength: found["AUROC by all", "noise", "all", "value", strength] for strength in (0.25, 0.5, 1.0)}
    assert areas[1.0] == pytest.approx(measured["noise", "value"]) and areas[0.25] < areas[0.5] < areas[1.0]
    assert found["AUROC by shuffled", "noise", "shuffled", "value", 1.0] == pytest.approx(0.5, abs=0.1)
    taken = suppression(one.model, clean)
    only = (right(one.model, clean) > right(plain, clean)).nonzero().squeeze(1).tolist()
    for name in DIMS:
        own = taken[taken["modality"] == name].set_index("sample")["share"]
        assert found["suppression", "all", name, "", ""] == pytest.approx(own.mean())
        assert found["suppression", "only VGMR right", name, "", ""] == pytest.approx(own.loc[only].mean())
        assert 1 / CLASSES < found["alone", "", name, "", ""] <= 1
        changes = [found["response", "difference", name, "global_value", loud] for loud in (1.0, 8.0)]
        assert changes[1] < min(0, changes[0]), "the louder the noise, the lower the value of what it is in"


def test_values_of_the_conflict_that_the_data_come_with_are_those_of_the_test_part(one):
    found = pd.DataFrame(calibration.measured(one)).set_index(["kind", "measure"])["value"]
    told = detection(values(one.model, one.data.test)).set_index("score")["auroc"]
    assert {name: found["own", name] for name in told.index} == told.to_dict()


def weights(model):
    return torch.cat([x.flatten() for x in model.parameters()])


def test_models_of_a_study_are_those_that_a_training_gives_and_each_repeat_has_its_seed():
    short = {**calibration.STEPS[calibration.PAPER], "epochs": 2}
    todo = calibration.experiments("digits", short, seeds=(4, 5))
    assert [one.seed for one in todo] == [4, 5]
    found = calibration.trained(todo)
    for one, made in zip(found, todo, strict=True):
        alone = train(made)
        assert (
            one.seed == made.seed and one.validation == alone.history.validation_accuracy[alone.history.best_epoch]
        )
        torch.testing.assert_close(weights(one.model), weights(alone.model()))
    (other,) = calibration.trained(todo[:1], objective=calibration.Impact)
    assert not torch.equal(weights(other.model), weights(found[0].model))
    bare = calibration.experiments("digits", {**calibration.STEPS[calibration.ABSOLUTE], "epochs": 1}, seeds=(0,))
    for label, kind in ((calibration.ABSOLUTE, calibration.PlainAgreement), ("", VGMR)):
        assert type(calibration.trained(bare, label)[0].model.prefusion) is kind


def test_a_table_by_seed_comes_back():
    table = pd.DataFrame(
        {"case": ["x", None, "x"], "strength": 1.0, "seed": [0, 0, 1], "value": [0.5, 0.25, 0.75]}
    )
    wide = calibration.by_seed(table)
    assert len(wide) == 2 and {"0", "1"} <= set(wide)
    back = calibration.one_by_one(wide).sort_values(["seed", "value"])
    assert back["value"].tolist() == [0.25, 0.5, 0.75] and back["case"].tolist() == ["", "x", "x"]


def test_each_repeat_has_a_split_or_fold_of_its_own():
    mfeat = calibration.experiments("uci-mfeat", calibration.STEPS[calibration.PAPER], seeds=range(3))
    assert [one.data_options["split_seed"] for one in mfeat] == [0, 1, 2]
    utd = calibration.experiments("utd-mhad", calibration.RIVALS[calibration.PLAIN], seeds=(7, 8))
    assert [one.fold for one in utd] == [7, 0]
    assert all(one.training_corruption for one in utd)
    clean = calibration.experiments("utd-mhad", calibration.RIVALS[calibration.PLAIN], False, (0,))
    assert not clean[0].training_corruption


def test_variants_say_their_form():
    assert {label for label, _ in value.VALUED} == {calibration.PAPER, calibration.CALIBRATED}
    (paper,) = calibration.experiments("uci-mfeat", calibration.STEPS[calibration.PAPER], seeds=(0,))
    assert (paper.value_from, paper.amplification, paper.retain) == ("summaries", 0.5, False)
    (last,) = calibration.experiments("uci-mfeat", calibration.STEPS[calibration.CALIBRATED], seeds=(0,))
    assert (last.value_from, last.retain) == ("anchors", True)
