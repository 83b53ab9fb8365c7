"""What the studies of the value add to the package: two changed parts, and tables that come back as they were."""

import pandas as pd
import pytest
import torch

from vgmr.objective import value_loss
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
