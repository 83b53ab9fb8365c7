"""Intervals cover what they say, by simulation and by hand; corrections and pooling against slow references."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from vgmr import comparison
from vgmr.comparison import (
    VERDICTS,
    compare,
    contrasts,
    differences,
    holm,
    interval,
    judged,
    over_seeds,
    pooled,
    rank_agreement,
    resampled,
    verdict,
)

# Coverage: two classifiers whose true difference is known, met by S seeds and N samples of G groups

EASE, SKILL = np.array([0.9, 0.7]), {"seed": 0.04, "sample": 0.9, "group": 0.3}


def true_difference(groups: int) -> float:
    spread = np.sqrt(1 + SKILL["seed"] ** 2 + SKILL["sample"] ** 2 + 0.8**2 + (groups > 0) * SKILL["group"] ** 2)
    return float(np.diff(stats.norm.cdf(EASE[::-1] / spread))[0])


def simulated(seeds: int, samples: int, groups: int, rng: np.random.Generator):
    """Right answers of A minus those of B, (S, N) in -1, 0, 1: a sample's ease is common to both."""
    group = np.arange(samples) % groups if groups else None
    ease = EASE[:, None, None] + SKILL["sample"] * rng.standard_normal(samples).astype(np.float32)
    ease = ease + 0.8 * rng.standard_normal((2, 1, samples)) + SKILL["seed"] * rng.standard_normal((2, seeds, 1))
    if groups:
        ease = ease + SKILL["group"] * rng.standard_normal((2, 1, groups))[..., group]
    right = ease + rng.standard_normal((2, seeds, samples), dtype=np.float32) > 0
    return right[0].astype(float) - right[1], group


def coverage(seeds: int, samples: int, groups: int, replicas: int = 400) -> tuple[float, float]:
    """Share of intervals that hold the truth: over seeds and samples, and over seeds only."""
    rng, truth, hits = np.random.default_rng(seeds + samples + groups), true_difference(groups), []
    for _ in range(replicas):
        d, group = simulated(seeds, samples, groups, rng)
        both, seeds_only = interval(d, group), over_seeds(d.mean(1))
        hits.append([both.low <= truth <= both.high, seeds_only.low <= truth <= seeds_only.high])
    two_way, one_way = np.mean(hits, axis=0)
    return float(two_way), float(one_way)


@pytest.mark.parametrize("groups", [0, 4, 8])
@pytest.mark.parametrize("samples", [360, 1500])
@pytest.mark.parametrize("seeds", [5, 20])
def test_the_interval_covers_95_percent_and_that_over_seeds_does_not(seeds, samples, groups):
    both, seeds_only = coverage(seeds, samples, groups)
    assert 0.93 <= both <= 0.98
    assert seeds_only < 0.93


@pytest.mark.parametrize("groups", [0, 8])
@pytest.mark.parametrize("own", ["a quarter each", "none twice"])
def test_the_interval_covers_where_every_seed_has_its_own_test_part(own, groups):
    rng, truth, hits = np.random.default_rng(3), true_difference(groups), []
    for _ in range(200):
        d, group = simulated(6, 600, groups, rng)
        there = np.argsort(rng.random(d.shape), axis=1) < 150
        if own == "none twice":
            there = np.arange(600) % 6 == np.arange(6)[:, None]
        columns = there.any(0)
        known = None if group is None else group[columns]
        found = interval(np.where(there, d, np.nan)[:, columns], known)
        hits.append(found.low <= truth <= found.high)
    assert 0.93 <= np.mean(hits) <= 1.0


def test_the_interval_of_a_macro_f1_covers():
    rng, hits = np.random.default_rng(4), []
    for _ in range(100):
        label = rng.integers(3, size=240)
        ease = 1 + 0.8 * rng.standard_normal(240) + 0.8 * rng.standard_normal((2, 1, 240))
        right = ease + rng.standard_normal((2, 6, 240)) > 0
        answer = np.where(right, label, (label + rng.integers(1, 3, size=(2, 6, 240))) % 3)

        def difference(seed, weight, answer=answer, label=label):
            one, other = (comparison.weighted_f1(answer[way, seed], label, weight) for way in (0, 1))
            return one - other

        found = resampled(difference, 6, 240, resamples=200)
        hits.append(found.low <= 0 <= found.high)
    assert 0.93 <= np.mean(hits) <= 1.0


# The interval by hand


def test_the_interval_is_the_two_way_analysis_of_variance():
    d = np.array([[1.0, 0, 1, 0], [1, 1, 1, 0], [0, 0, 1, -1]])
    seed, sample, rest = np.var([0.5, 0.75, 0.0], ddof=1) / 3, 0.0, 0.0
    means = [2 / 3, 1 / 3, 1.0, -1 / 3]
    sample = np.var(means, ddof=1) / 4
    for s, row in enumerate([0.5, 0.75, 0.0]):
        for i, column in enumerate(means):
            rest += (d[s, i] - row - column + 5 / 12) ** 2 / (2 * 3) / 12
    variance = max(seed + sample - rest, seed, sample)
    df = variance**2 / (seed**2 / 2 + sample**2 / 3)
    found = interval(d)
    assert found.mean == pytest.approx(5 / 12)
    assert (found.seed_variance, found.sample_variance) == pytest.approx((seed, sample))
    assert (found.error, found.df) == pytest.approx((variance**0.5, df))
    reach = stats.t.ppf(0.975, df) * variance**0.5
    assert (found.low, found.high) == pytest.approx((5 / 12 - reach, 5 / 12 + reach))
    assert found.smallest_effect == pytest.approx(reach + stats.t.ppf(0.8, df) * variance**0.5)
    assert found.p == pytest.approx(2 * stats.t.sf(5 / 12 / variance**0.5, df))
    assert (found.seeds, found.samples) == (3, 4)
    assert found.seed_share == pytest.approx(seed / (seed + sample)) and found.sample_share == 1 - found.seed_share


def test_groups_enter_as_sums():
    d = np.array([[1.0, 0, 1, 0], [1, 1, 1, -1]])
    a = d.mean(0) - d.mean()
    expected = 2 / 1 * ((a[0] + a[1]) ** 2 + (a[2] + a[3]) ** 2) / 16
    assert interval(d, ["x", "x", "y", "y"]).sample_variance == pytest.approx(expected)
    alone, everyone = interval(d, list("abcd")), interval(d)
    assert alone == everyone


@given(arrays(float, (4, 7), elements=st.sampled_from([-1.0, 0.0, 1.0])))
def test_an_almost_full_table_is_like_a_full_one(d):
    full, holed = comparison._balanced(d, np.arange(7)), np.ones((4, 7), bool)
    found = comparison._unbalanced(d, holed, np.arange(7), False)
    assert found.mean == pytest.approx(full.mean)
    rest = d - d.mean(1, keepdims=True) - d.mean(0) + d.mean()
    residual = (rest**2).sum() / 18 / 28
    inside = min(full.seed_variance, full.sample_variance) > residual
    if inside:  # no component is cut at zero
        assert found.error == pytest.approx(full.error, abs=1e-9)


@given(arrays(float, (3, 5), elements=st.sampled_from([-1.0, 0.0, 1.0])))
def test_turned_round_it_is_mirrored(d):
    there, back = interval(d), interval(-d)
    assert (there.mean, there.low, there.p) == pytest.approx((-back.mean, -back.high, back.p))


def test_no_difference_anywhere_has_no_width():
    found = interval(np.zeros((3, 4)))
    assert (found.mean, found.low, found.high, found.p) == (0, 0, 0, 1)


@pytest.mark.parametrize(
    ("d", "group", "expected"),
    [
        (np.zeros((1, 5)), None, "at least two of each"),
        (np.zeros(5), None, "at least two of each"),
        (np.zeros((2, 3)), ["a", "a", "a"], "at least two groups"),
        (np.zeros((2, 3)), ["a", "b"], "a group for each of 3 samples, got 2"),
        (np.array([[np.nan, np.nan], [0, 1]]), None, "at least one value for every seed"),
    ],
)
def test_what_has_no_interval_is_refused(d, group, expected):
    with pytest.raises(ValueError, match=expected):
        interval(d, group)


def test_over_seeds_is_students():
    found = over_seeds([1.0, 2.0, 6.0])
    low, high = stats.t.interval(0.95, 2, 3.0, stats.sem([1, 2, 6]))
    assert (found.low, found.high, found.samples) == (pytest.approx(low), pytest.approx(high), 0)
    assert found.p == pytest.approx(stats.ttest_1samp([1, 2, 6], 0).pvalue)
    with pytest.raises(ValueError, match="two seeds"):
        over_seeds([1.0])


def test_resampled_means_agree_with_the_formula():
    d = simulated(8, 200, 0, np.random.default_rng(0))[0]
    found = resampled(lambda seed, weight: weight @ d[seed] / 200, 8, 200, resamples=4000)
    exact = interval(d)
    assert found.mean == pytest.approx(exact.mean) and found.seed_variance == pytest.approx(exact.seed_variance)
    assert found.error == pytest.approx(exact.error, rel=0.05)


# Weighted metrics, against copies of the samples


@given(
    arrays(int, 12, elements=st.integers(0, 3)),
    arrays(int, 12, elements=st.integers(0, 3)),
    arrays(int, 12, elements=st.integers(0, 3)),
)
def test_weights_are_copies(prediction, label, weight):
    from sklearn.metrics import f1_score, roc_auc_score

    weight[0] = 1
    copies = np.repeat(np.arange(12), weight)
    (f1,) = comparison.weighted_f1(prediction, label, weight[None].astype(float))
    assert f1 == pytest.approx(f1_score(label[copies], prediction[copies], average="macro"))
    truth = label > 1
    (area,) = comparison.weighted_auroc(prediction.astype(float), truth, weight[None].astype(float))
    both = len(set(truth[copies])) == 2
    assert area == pytest.approx(roc_auc_score(truth[copies], prediction[copies]) if both else 0.5)
    (r,) = comparison.weighted_pearson(prediction, label, weight[None].astype(float))
    varied = np.ptp(prediction[copies]) and np.ptp(label[copies])
    expected = np.corrcoef(prediction[copies], label[copies])[0, 1] if varied else 0.0
    assert r == pytest.approx(expected, abs=1e-6)


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
    assert compare(runs, "plain", "mae").set_index("label")["difference"]["VGMR"] == pytest.approx(-0.3)
    assert compare(runs, "plain", "pearson").set_index("label")["difference"]["VGMR"] > 0


def test_folds_of_a_seed_stand_side_by_side():
    runs = [made([s, f], [0, 1], s, f, group=["p", "q"]) for s in (0, 1) for f in (0, 1)]
    found = comparison.answers(runs)
    assert found.prediction.tolist() == [[0, 0, 0, 1], [1, 0, 1, 1]] and found.group == ["p", "q"] * 2
    assert comparison.answers([made([0, 1], [0, 1], group=[])]).group is None
    with pytest.raises(ValueError, match="seed 0, fold 0: expected one run, got two"):
        comparison.answers([*runs, runs[0]])


def test_each_seeds_own_test_part_has_its_own_columns_but_for_samples_known_to_be_the_same():
    apart = [made([0, 1], [0, 1], seed, fingerprint=str(seed)) for seed in (0, 1)]
    assert comparison.answers(apart).prediction.shape == (2, 4)
    known = [made([0, 1], [0, 1], seed, fingerprint=str(seed), sample=[seed, 7]) for seed in (0, 1)]
    cells = comparison.answers(known)
    assert cells.keys == (0, 7, 1) and np.isnan(cells.label).sum() == 2


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ({**RUNS, "late": [made(LABEL, LABEL, 2), made(LABEL, LABEL, 3)]}, "expected the seeds"),
        ({**RUNS, "else": [made(LABEL, LABEL, s, fingerprint="y") for s in (0, 1)]}, "one data set at a time"),
        ({**RUNS, "empty": [made([], LABEL, s) for s in (0, 1)]}, "predictions are kept"),
    ],
)
def test_runs_that_cannot_be_paired_are_refused(runs, expected):
    with pytest.raises(ValueError, match=expected):
        compare(runs, "plain")


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="unknown baseline 'x'; there are: plain"):
        compare(RUNS, "x")
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
    with pytest.raises(ValueError, match="seeds of the baseline, 3, got 2"):
        differences(tidy.iloc[:5], ["dataset"], baseline="plain")
    with pytest.raises(ValueError, match="some come twice"):
        differences(pd.concat([tidy, tidy]), ["dataset"], baseline="plain")


def test_differences_per_sample_are_over_both():
    d = np.array([[1.0, 0, 1, 0], [1, 1, 1, -1]])
    rows = [("a", s, i, d[s, i], i // 2) for s in range(2) for i in range(4)]
    tidy = pd.DataFrame(rows, columns=["label", "seed", "sample", "value", "group"])
    (row,) = differences(tidy, ["label"]).to_dict("records")
    expected = interval(d, [0, 0, 1, 1])
    assert (row["low"], row["counted"]) == (expected.low, comparison.BOTH_WAYS)


def test_holm_by_hand_and_by_family():
    table = pd.DataFrame({"p": [0.01, 0.04, 0.03, np.nan], "table": ["a", "a", "b", "b"]})
    assert holm(table)["p_holm"].tolist()[:3] == pytest.approx([0.03, 0.06, 0.06])
    assert np.isnan(holm(table)["p_holm"][3])
    assert holm(table, ["table"])["p_holm"].tolist()[:3] == pytest.approx([0.02, 0.04, 0.03])


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


# Verdicts


@pytest.mark.parametrize(
    ("numbers", "paper", "expected"),
    [
        ((0.02, 0.01, 0.03), 0.02, "held"),
        ((0.02, 0.01, 0.03), None, "held"),
        ((-0.02, -0.03, -0.01), 0.02, "contradicted"),
        ((0.001, -0.005, 0.007), 0.02, "smaller than the paper's"),
        ((0.001, -0.005, 0.010), 0.02, "undecided"),
        ((0.001, -0.005, 0.007), None, "undecided"),
        ((0.0, 0.0, 0.0), None, "undecided"),
    ],
)
def test_verdict(numbers, paper, expected):
    assert verdict(*numbers, paper) == expected and expected in VERDICTS


def test_a_verdict_needs_an_interval_and_a_direction():
    with pytest.raises(ValueError, match="low <= difference"):
        verdict(float("nan"), 0.0, 1.0)
    with pytest.raises(ValueError, match="turn the difference round"):
        verdict(0.1, 0.0, 1.0, -0.1)


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
