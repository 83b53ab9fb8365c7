"""Intervals cover what they say, by simulation and by hand; weighted statistics and Holm against slow ones."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from vgmr.statistics import intervals as statistics
from vgmr.statistics.intervals import holm, interval, over_seeds, resampled, weighted_f1, weighted_pearson

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
            one, other = (weighted_f1(answer[way, seed], label, weight) for way in (0, 1))
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
    full, holed = statistics._balanced(d, np.arange(7)), np.ones((4, 7), bool)
    found = statistics._unbalanced(d, holed, np.arange(7), False)
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
        (np.zeros((2, 3)), ["a", None, "b"], "one for every sample"),
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


def test_what_seeds_and_samples_hold_in_common_is_counted_once_by_resampling_too():
    """Planted: seeds, samples and the rest add 1/240 each to the variance of the mean; both ways hold the rest."""
    rng = np.random.default_rng(1)
    d = rng.normal(size=(6, 40)) + 40**-0.5 * rng.normal(size=(6, 1)) + 6**-0.5 * rng.normal(size=40)
    found = resampled(lambda seed, weight: weight @ d[seed] / 40, 6, 40, resamples=4000)
    exact = interval(d)
    assert exact.error**2 > 1.15 * max(exact.seed_variance, exact.sample_variance)
    assert (found.error, found.df) == (pytest.approx(exact.error, rel=0.05), pytest.approx(exact.df, rel=0.1))


def test_resampled_groups_are_drawn_whole_and_few_of_them_count_as_few():
    d = simulated(8, 200, 5, np.random.default_rng(0))[0]
    group = np.repeat(np.arange(5), 40)
    found = resampled(lambda seed, weight: weight @ d[seed] / 200, 8, 200, group, resamples=4000)
    exact = interval(d, group)
    assert found.sample_variance == pytest.approx(exact.sample_variance, rel=0.1)
    assert found.sample_variance != pytest.approx(interval(d).sample_variance, rel=0.2)


# Weighted metrics, against copies of the samples


@given(
    arrays(int, 12, elements=st.integers(0, 3)),
    arrays(int, 12, elements=st.integers(0, 3)),
    arrays(int, 12, elements=st.integers(0, 3)),
)
def test_weights_are_copies(prediction, label, weight):
    from sklearn.metrics import f1_score

    weight[0] = 1
    copies = np.repeat(np.arange(12), weight)
    (f1,) = weighted_f1(prediction, label, weight[None].astype(float))
    assert f1 == pytest.approx(f1_score(label[copies], prediction[copies], average="macro"))
    (r,) = weighted_pearson(prediction, label, weight[None].astype(float))
    varied = np.ptp(prediction[copies]) and np.ptp(label[copies])
    expected = np.corrcoef(prediction[copies], label[copies])[0, 1] if varied else 0.0
    assert r == pytest.approx(expected, abs=1e-6)


def test_holm_by_hand_and_by_family():
    table = pd.DataFrame({"p": [0.01, 0.04, 0.03, np.nan], "table": ["a", "a", "b", "b"]})
    assert holm(table)["p_holm"].tolist()[:3] == pytest.approx([0.03, 0.06, 0.06])
    assert np.isnan(holm(table)["p_holm"][3])
    assert holm(table, ["table"])["p_holm"].tolist()[:3] == pytest.approx([0.02, 0.04, 0.03])
