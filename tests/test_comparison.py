"""Tables of differences hold what the intervals say, pooling agrees with a slow one, verdicts follow a rule."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from vgmr import comparison
from vgmr.comparison import compare, contrasts, differences, pooled
from vgmr.data.splits import held_out
from vgmr.statistics.answers import answers, rank_agreement, sample_names
from vgmr.statistics.intervals import interval, over_seeds
from vgmr.statistics.verdicts import judged

# Runs


@dataclass
class Setting:
    seed: int
    fold: int | None = None
    data_options: dict = field(default_factory=dict)


def made(prediction, label, seed=0, fold=None, fingerprint="x", **more):
    return SimpleNamespace(
        experiment=Setting(seed, fold),
        prediction=prediction,
        label=label,
        fingerprint=fingerprint,
        metrics={"majority_accuracy": 0.5},
        parameters=7,
        **more,
    )


LABEL = [0, 0, 1, 1]
RUNS = {
    "plain": [made([0, 0, 0, 0], LABEL, 0), made([0, 0, 0, 1], LABEL, 1)],
    "VGMR": [made([0, 0, 1, 1], LABEL, 0), made([0, 0, 1, 0], LABEL, 1)],
    "other": [made([1, 0, 1, 1], LABEL, 0), made([1, 1, 1, 1], LABEL, 1)],
}


WHOLE = {"plain": 1.0, "VGMR": 2.0}  # scores that happen to be whole


def test_compare_has_a_row_per_variant_and_keeps_floats():
    table = compare(RUNS, "plain").set_index("label")
    assert list(table.index) == ["majority class", "plain", "VGMR", "other"]
    assert table["mean"].tolist() == [0.5, 0.625, 0.875, 0.625]
    expected = interval([[0, 0, 1, 1], [0, 0, 1, -1]])
    row = table.loc["VGMR"]
    assert (row.difference, row.low, row.high) == (expected.mean, expected.low, expected.high)
    assert row.p_holm >= row.p and (row.seeds, row.samples, row.parameters) == (2, 4, 7)
    assert table.loc["plain", ["difference", "low", "p"]].isna().all()
    f1 = compare(RUNS, "plain", "macro_f1").set_index("label")
    assert f1["mean"]["VGMR"] == pytest.approx((1 + (0.8 + 2 / 3) / 2) / 2)


def test_regression_is_compared_by_error_and_correlation():
    label = [0.1, -1.0, 2.0, 0.5]
    runs = {
        name: [
            made(
                [x + (seed + 1) * shift * sign for x, sign in zip(label, (1, -1, 1, 1), strict=True)], label, seed
            )
            for seed in range(2)
        ]
        for name, shift in (("plain", 0.4), ("VGMR", 0.2))
    }
    table = compare(runs, "plain", "mae").set_index("label")
    assert table["difference"]["VGMR"] == pytest.approx(-0.3) and "majority class" not in table.index
    assert compare(runs, "plain", "pearson").set_index("label")["difference"]["VGMR"] > 0


@pytest.mark.parametrize("answer", [[0.0, 1.5, 2.0], [0.0, -1.0, 2.0]], ids=["one fraction", "one below zero"])
def test_one_number_that_is_no_class_makes_scores_of_all(answer):
    runs = {"plain": [made(answer, [0.0, 1.0, 2.0], seed) for seed in (0, 1)]}
    with pytest.raises(ValueError, match="predict scores, no classes: metric must be mae or pearson"):
        compare(runs, "plain")
    assert compare(runs, "plain", "mae")["mean"].notna().all()


def test_where_no_sample_comes_back_the_spread_of_a_macro_f1_is_that_of_the_seeds():
    """F1 is 1 where both are right, and 1/3 where class 0 is the answer to both: (2/3 + 0) / 2."""
    half, whole = [0, 0], [0, 1]
    runs = {
        name: [made(answer, whole, seed, fingerprint=str(seed)) for seed, answer in enumerate(found)]
        for name, found in (("one", (whole, half, whole)), ("other", (half, half, whole)))
    }
    row = contrasts(runs, [("one", "other")], "macro_f1").loc[0]
    expected = over_seeds([2 / 3, 0.0, 0.0])
    assert (row["difference"], row["low"], row["high"]) == pytest.approx(
        (expected.mean, expected.low, expected.high)
    )
    assert (row["seeds"], row["samples"], row["mean"]) == (3, 6, pytest.approx(7 / 9))


def test_samples_are_named_by_the_split_only_where_it_has_as_many():
    setting = Setting(0, data_options={"split_seed": 3})
    setting.dataset = "digits"
    whole = len(held_out("digits", 3))
    for size, names in ((whole, list(held_out("digits", 3))), (2, [("x", None, 0), ("x", None, 1)])):
        run = made([0] * size, [0] * size)
        run.experiment = setting
        assert sample_names(run) == names


def test_the_constant_answer_is_weighed_by_the_samples_of_each_test_part():
    parts = [([0.1, -1.0, 2.5], 0.8), ([0.5], 0.4)]
    runs = [made(label, label, seed, fingerprint=str(seed)) for seed, (label, _) in enumerate(parts)]
    for one, (_, error) in zip(runs, parts, strict=True):
        one.metrics = {"majority_mae": error}
    table = compare({"plain": runs}, "plain", "mae")
    assert table["label"].tolist() == ["constant answer", "plain"]
    assert table["mean"].tolist() == pytest.approx([(3 * 0.8 + 0.4) / 4, 0.0])


@pytest.mark.parametrize("metric", ["mae", "pearson"])
def test_runs_of_classes_are_not_compared_as_scores(metric):
    with pytest.raises(ValueError, match=f"classes, no scores: metric must be accuracy .*'{metric}'$") as refusal:
        compare(RUNS, "plain", metric)
    assert "\n" not in str(refusal.value)
    with pytest.raises(ValueError, match="classes, no scores"):
        compare({"plain": RUNS["plain"]}, "plain", metric)
    whole = {name: [made([0.0, 1.0, shift], [0.0, 1.0, 2.0], s) for s in (0, 1)] for name, shift in WHOLE.items()}
    assert compare(whole, "plain", metric)["difference"].notna().any()
    rounded = {
        name: [made([0, 1, int(shift)], [0.0, 1.0, 2.0], s) for s in (0, 1)] for name, shift in WHOLE.items()
    }
    assert compare(rounded, "plain", metric)["difference"].notna().any(), "labels that are numbers make scores"


def test_folds_of_a_seed_stand_side_by_side():
    runs = [made([s, f], [0, 1], s, f, group=["p", "q"]) for s in (0, 1) for f in (0, 1)]
    found = answers(runs)
    assert found.prediction.tolist() == [[0, 0, 0, 1], [1, 0, 1, 1]] and found.group == ["p", "q"] * 2
    assert answers([made([0, 1], [0, 1], group=[])]).group is None
    with pytest.raises(ValueError, match="seed 0, fold 0: expected one run, got two"):
        answers([*runs, runs[0]])


def test_each_seeds_own_test_part_has_its_own_columns_but_for_samples_known_to_be_the_same():
    apart = [made([0, 1], [0, 1], seed, fingerprint=str(seed)) for seed in (0, 1)]
    assert answers(apart).prediction.shape == (2, 4)
    known = [made([0, 1], [0, 1], seed, fingerprint=str(seed), sample=[seed, 7]) for seed in (0, 1)]
    cells = answers(known)
    assert cells.keys == (0, 7, 1) and np.isnan(cells.label).sum() == 2


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ({**RUNS, "late": [made(LABEL, LABEL, 2), made(LABEL, LABEL, 3)]}, "expected the seeds"),
        ({**RUNS, "else": [made(LABEL, LABEL, s, fingerprint="y") for s in (0, 1)]}, "one data set at a time"),
        ({**RUNS, "empty": [made([], LABEL, s) for s in (0, 1)]}, "predictions are kept"),
        ({**RUNS, "void": [made([], [], s) for s in (0, 1)]}, "got 0 for 0; train again"),
        ({**RUNS, "lost": [made([0.0, 1, np.nan, 1], LABEL, s) for s in (0, 1)]}, "seed 0: expected finite"),
    ],
)
def test_runs_that_cannot_be_paired_are_refused(runs, expected):
    with pytest.raises(ValueError, match=expected):
        compare(runs, "plain")


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="unknown baseline 'x'; there are: plain"):
        compare(RUNS, "x")
    with pytest.raises(TypeError, match="the runs of each variant as a list, got int"):
        answers(7)
    with pytest.raises(ValueError, match="unknown metric 'f2'; there are: accuracy"):
        compare(RUNS, "plain", "f2")
    with pytest.raises(ValueError, match="unknown variants"):
        contrasts(RUNS, [("plain", "y")])


# Tidy values


def test_differences_per_seed_say_that_samples_are_not_in_them():
    tidy = pd.DataFrame(
        [
            ("d", name, seed, value)
            for name, values in (("plain", [1, 2, 4]), ("VGMR", [1.5, 2.5, 5]))
            for seed, value in enumerate(values)
        ],
        columns=["dataset", "label", "seed", "value"],
    )
    (row,) = differences(tidy, ["dataset"], baseline="plain").to_dict("records")
    expected = over_seeds([0.5, 0.5, 1.0])
    assert (row["label"], row["against"], row["counted"]) == ("VGMR", "plain", comparison.SEEDS_ONLY)
    assert (row["mean"], row["low"], row["samples"]) == (3.0, expected.low, 0)
    own = differences(tidy, ["dataset", "label"], reference=1.0)
    assert own["difference"].tolist() == pytest.approx([4 / 3, 2.0])
    with pytest.raises(ValueError, match=r"only one of both has \[2\]"):
        differences(tidy.iloc[:5], ["dataset"], baseline="plain")
    with pytest.raises(ValueError, match=r"{'dataset': 'd'}: expected rows of the baseline 'x', there are \['pl"):
        differences(tidy, ["dataset"], baseline="x")
    with pytest.raises(ValueError, match=r"missing \['seed', 'worth'\]"):
        differences(tidy.drop(columns="seed"), ["dataset"], value="worth")
    with pytest.raises(ValueError, match="some come twice"):
        differences(pd.concat([tidy, tidy]), ["dataset"], baseline="plain")


def test_groups_come_in_the_order_of_their_rows_and_none_is_lost_for_want_of_a_name():
    rows = [(fold, name, seed) for fold in (1.0, np.nan, 0.0) for name in ("z", "plain", "a") for seed in (0, 1)]
    tidy = pd.DataFrame(rows, columns=["fold", "label", "seed"])
    tidy["value"] = np.arange(len(tidy)) ** 2.0
    found = differences(tidy, ["fold"], baseline="plain")
    assert found["label"].tolist() == ["z", "a"] * 3
    assert found["fold"].tolist() == pytest.approx([1, 1, np.nan, np.nan, 0, 0], nan_ok=True)
    # from 36 to 121: z has 36 and 49, the baseline 64 and 81, a has 100 and 121
    assert found.loc[found["fold"].isna(), "difference"].tolist() == [-30, 38]
    assert differences(tidy, ["label", "fold"])["label"].tolist() == ["z", "plain", "a"] * 3


def test_a_table_says_how_much_of_the_spread_is_of_seeds_and_of_samples():
    """Seeds' means .5 and 1, samples' means 1, .5, 1, .5: variances of the mean 1/16 and 1/48."""
    d = np.array([[1.0, 0, 1, 0], [1, 1, 1, 1]])
    tidy = pd.DataFrame([(s, i, d[s, i]) for s in range(2) for i in range(4)], columns=["seed", "sample", "value"])
    both = differences(tidy, []).loc[0]
    assert (both["seed_variance"], both["sample_variance"]) == pytest.approx((1 / 16, 1 / 48))
    assert (both["seed_share"], both["sample_share"]) == pytest.approx((3 / 4, 1 / 4))
    alone = differences(tidy[tidy["sample"] == 1].drop(columns="sample"), []).loc[0]
    assert alone["seed_share"] == 1 and np.isnan(alone["sample_share"])
    assert compare(RUNS, "plain").set_index("label").loc["VGMR", ["seed_share", "sample_share"]].sum() == 1


def test_differences_per_sample_are_over_both():
    d = np.array([[1.0, 0, 1, 0], [1, 1, 1, -1]])
    rows = [("a", s, i, d[s, i], i // 2) for s in range(2) for i in range(4)]
    tidy = pd.DataFrame(rows, columns=["label", "seed", "sample", "value", "group"])
    (row,) = differences(tidy, ["label"]).to_dict("records")
    expected = interval(d, [0, 0, 1, 1])
    assert (row["low"], row["counted"]) == (expected.low, comparison.BOTH_WAYS)
    named = tidy.assign(sample=tidy["sample"].map(dict(enumerate("dbca"))), group=[0, 0, 1, 1] * 2)
    (mixed,) = differences(named.iloc[[0, 1, 7, 2, 3, 5, 4, 6]], ["label"]).to_dict("records")
    assert mixed["low"] == pytest.approx(interval(d, [0, 0, 1, 1]).low)
    tidy.loc[3, "value"] = np.nan
    with pytest.raises(ValueError, match="for each seed and sample, got NaN"):
        differences(tidy, ["label"])


def effects(values, errors):
    return pd.DataFrame(
        {
            "label": "VGMR",
            "difference": values,
            "error": errors,
            "low": 0.0,
            "high": 0.0,
            "df": 9.0,
            "p": 1.0,
            "smallest_effect": 0.0,
        }
    )


def test_pooled_over_equal_data_sets_is_the_students_interval():
    (row,) = pooled(effects([0.0, 0.1, 0.2], [1e-6] * 3)).to_dict("records")
    low, high = stats.t.interval(0.95, 2, 0.1, stats.sem([0.0, 0.1, 0.2]))
    assert (row["difference"], row["low"], row["high"]) == (
        pytest.approx(0.1),
        pytest.approx(low),
        pytest.approx(high),
    )
    assert row["tau"] == pytest.approx(0.1, rel=1e-3) and row["datasets"] == 3


def test_pooled_weighs_by_precision_where_data_sets_agree():
    (row,) = pooled(effects([0.1, 0.13], [0.01, 0.03])).to_dict("records")
    assert row["difference"] == pytest.approx((0.1 / 1e-4 + 0.13 / 9e-4) / (1e4 + 1 / 9e-4)) and row["tau"] == 0
    reach = stats.t.ppf(0.975, 1) * (1e4 + 1 / 9e-4) ** -0.5
    assert row["high"] - row["difference"] == pytest.approx(reach)
    single = effects([0.1], [0.01]).assign(low=0.08)
    assert pooled({"one": single}).loc[0, ["difference", "low", "datasets"]].tolist() == [0.1, 0.08, 1]


def test_pooled_leaves_out_rows_without_a_difference_and_no_others():
    tables = {name: compare(RUNS, "plain").assign(parameters=pd.NA) for name in ("one", "other")}
    found = pooled(tables).set_index("label")
    assert list(found.index) == ["VGMR", "other"] and found["datasets"].tolist() == [2, 2]
    assert found["difference"].tolist() == pytest.approx([0.25, 0.0])


# Judged tables, ranks


def test_judged_adds_the_papers_difference_and_the_word():
    table = judged(compare(RUNS, "plain"), {"VGMR": 0.02, "other": -0.1}).set_index("label")
    assert table["verdict"]["VGMR"] == "undecided" and table["verdict"]["plain"] == ""
    assert table["paper"]["VGMR"] == 0.02 and table["paper"]["other"] == -0.1


def test_rank_agreement_of_the_published_order_itself_is_one():
    found = rank_agreement(RUNS, {"VGMR": 0.9, "plain": 0.8})
    assert found.mean == pytest.approx(0.5)  # 1 at seed 0; equal at seed 1
    worse = {
        "VGMR": [made(LABEL, LABEL, s) for s in (0, 1)],
        "plain": [made([1, 1, 0, 0], LABEL, s) for s in (0, 1)],
    }
    assert rank_agreement(worse, {"VGMR": 0.9, "plain": 0.8}).mean == 1


@pytest.mark.parametrize("published", [{}, {"plain": 0.8}, {"plain": 0.8, "VGMR": 0.8}, {"another": 0.1}])
def test_ranks_need_two_published_accuracies_that_differ(published):
    with pytest.raises(ValueError, match="published accuracies of at least two variants that differ"):
        rank_agreement(RUNS, published)
