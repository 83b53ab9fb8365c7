"""Intervals, Holm and pooling written out in loops, against many random and degenerate inputs."""

import itertools
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from vgmr.comparison import compare, contrasts, differences
from vgmr.data import load
from vgmr.data.digits import sklearn_digits
from vgmr.data.splits import held_out
from vgmr.statistics.answers import answers
from vgmr.statistics.intervals import holm, interval, over_seeds, random_effects
from vgmr.statistics.verdicts import verdict


def literal(d, group=None):
    """Mean, low, high, error, degrees of freedom, both variances, smallest effect; loops only."""
    seeds, samples = range(len(d)), range(len(d[0]))
    S, N = len(d), len(d[0])
    m = sum(d[s][i] for s in seeds for i in samples) / (S * N)
    b = [sum(d[s]) / N for s in seeds]
    a = [sum(d[s][i] for s in seeds) / S for i in samples]
    v_seed = sum((x - m) ** 2 for x in b) / (S - 1) / S
    K, v_sample = N, sum((x - m) ** 2 for x in a) / (N - 1) / N
    if group is not None:
        members = [[i for i in samples if group[i] == g] for g in sorted(set(group))]
        K = len(members)
        v_sample = K / (K - 1) * sum(sum(a[i] - m for i in own) ** 2 for own in members) / N**2
    rest = sum((d[s][i] - b[s] - a[i] + m) ** 2 for s in seeds for i in samples)
    v_rest = rest / ((S - 1) * (N - 1)) / (S * N)
    v = max(v_seed + v_sample - v_rest, v_seed, v_sample)
    spread = v_seed**2 / (S - 1) + v_sample**2 / (K - 1)
    if v**0.5 <= 1e-9 * abs(m):
        return m, m, m, 0.0, None, v_seed, v_sample, float("nan")
    df = v**2 / spread if spread else S - 1
    reach, power = (stats.t.ppf(share, df) * v**0.5 for share in (0.975, 0.8))
    return m, m - reach, m + reach, v**0.5, df, v_seed, v_sample, reach + power


@pytest.mark.parametrize("kind", ["any", "seeds alike", "samples alike", "numbers", "few", "all the same"])
@pytest.mark.parametrize("grouped", [False, True])
def test_intervals_are_the_formulas(kind, grouped):
    rng = np.random.default_rng(len(kind) + grouped)
    for _ in range(200):
        seeds, samples = rng.integers(2, 7), rng.integers(3, 14)
        d = rng.integers(-1, 2, (seeds, samples)).astype(float)
        if kind == "seeds alike":
            d[:] = d[:1]
        if kind == "samples alike":
            d[:] = d[:, :1]
        if kind == "numbers":
            d = rng.normal(size=d.shape)
        if kind == "few":
            d *= rng.random(d.shape) < 0.1
        if kind == "all the same":
            d[:] = rng.normal()
        group = [*rng.integers(0, 3, samples - 2).tolist(), 3, 4] if grouped else None
        found, expected = interval(d, group), literal(d.tolist(), group)
        own = [
            found.mean,
            found.low,
            found.high,
            found.error,
            found.df,
            found.seed_variance,
            found.sample_variance,
        ]
        for one, other in zip([*own, found.smallest_effect], expected, strict=True):
            assert other is None or one == pytest.approx(other, rel=1e-8, abs=1e-12, nan_ok=True)
        assert 0 < found.p <= 1
        word = verdict(found.mean, found.low, found.high)
        assert word == "undecided" or found.high > found.low


def components(d, group):
    """Error, both variances and the mean of a table with holes, by the method of moments on dense matrices.

    A component with levels Z adds s^2 |Z_k' M Z|^2 to the expected sum of squares |Z_k' M y|^2 of way k, where M
    takes the mean away; the mean of all cells has the variance s^2 |Z' 1|^2 / n^2 from it.
    """
    seed, sample = np.nonzero(~np.isnan(d))
    y, n = d[seed, sample], len(seed)
    ways = {"seed": seed, "sample": sample, "rest": np.arange(n)}
    if group is not None:
        ways["group"] = np.unique(group, return_inverse=True)[1][sample]
    if len(set(sample)) == n:
        del ways["sample"]
    Z = {name: np.eye(way.max() + 1)[way] for name, way in ways.items()}
    M = np.eye(n) - 1 / n
    squares = [((Z[k].T @ M @ y) ** 2).sum() for k in ways]
    table = [[((Z[k].T @ M @ Z[j]) ** 2).sum() for j in ways] for k in ways]
    found = np.linalg.lstsq(np.array(table), np.array(squares), rcond=None)[0].clip(0)
    part = {j: s * (Z[j].sum(0) ** 2).sum() / n**2 for j, s in zip(ways, found, strict=True)}
    by_sample = part.get("sample", 0) + part.get("group", 0)
    v_seed, v_sample = part["seed"] + part["rest"], by_sample + part["rest"]
    units = len(set(group)) if group is not None else d.shape[1]
    variance = part["seed"] + by_sample + part["rest"]
    df = variance**2 / (v_seed**2 / (len(d) - 1) + v_sample**2 / (units - 1))
    return y.mean(), variance**0.5, df, v_seed, v_sample


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("holes", ["some", "a row of its own for every sample"])
def test_intervals_of_tables_with_holes_are_those_of_the_method_of_moments(holes, grouped):
    rng = np.random.default_rng(grouped)
    for _ in range(20):
        d = rng.normal(size=(4, 12)) + rng.normal(size=(4, 1)) + rng.normal(size=12)
        group = rng.permutation(np.arange(12) % 5)
        d += rng.normal(size=5)[group]
        there = rng.random(d.shape) < 0.6
        there[np.arange(12) % 4, np.arange(12)] = True
        if holes != "some":
            there = np.arange(12) % 4 == np.arange(4)[:, None]
        d[~there] = np.nan
        known = group if grouped else None
        found = interval(d, known)
        own = (found.mean, found.error, found.df, found.seed_variance, found.sample_variance)
        assert own == pytest.approx(components(d, known), rel=1e-8)
        assert (found.seeds, found.samples) == (4, 12)


def test_what_never_varies_decides_nothing():
    """Numbers that are equal up to their last bits have no spread, so neither a p of zero nor a verdict."""
    for found in (
        interval([[1, 1], [1, 1]]),
        interval([[0.1] * 3] * 3),
        over_seeds([-0.5] * 3),
        over_seeds([0.1] * 3),
    ):
        assert found.low == found.high and found.p == 1 and np.isnan(found.smallest_effect)
        assert verdict(found.mean, found.low, found.high, abs(found.mean)) == "undecided"
    (row,) = differences(pd.DataFrame({"seed": [0, 1, 2], "value": -0.5}), []).to_dict("records")
    assert verdict(row["difference"], row["low"], row["high"]) == "undecided" and row["p_holm"] == 1


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_none_are_refused(bad):
    with pytest.raises(ValueError, match="finite value for each seed"):
        over_seeds([0.1, bad, 0.2])
    with pytest.raises(ValueError, match="finite number for each seed, got NaN or infinity"):
        differences(pd.DataFrame({"seed": [0, 1, 2], "value": [0.1, bad, 0.2]}), [])
    with pytest.raises(ValueError, match="finite effects and errors"):
        random_effects(np.array([0.1, 0.2]), np.array([0.1, bad]))
    if np.isinf(bad):
        with pytest.raises(ValueError, match="expected finite differences, got 1 infinite"):
            interval([[0.1, bad], [0.2, 0.3]])


def test_holm_is_the_step_down_in_loops():
    rng = np.random.default_rng(1)
    for count in range(1, 9):
        p, last, expected = rng.random(count).round(1), 0.0, [0.0] * count
        for step, place in enumerate(sorted(range(count), key=lambda i, p=p: p[i])):
            last = max(last, min(1.0, (count - step) * p[place]))
            expected[place] = last
        assert holm(pd.DataFrame({"p": p}))["p_holm"].tolist() == pytest.approx(expected)


def slowly_pooled(effect, error):
    """Paule and Mandel's variance by bisection, Hartung and Knapp's interval."""

    def centred(between):
        weight = [1 / (s**2 + between) for s in error]
        centre = sum(w * e for w, e in zip(weight, effect, strict=True)) / sum(weight)
        return centre, sum(w * (e - centre) ** 2 for w, e in zip(weight, effect, strict=True)), sum(weight)

    low, high = 0.0, 1e4
    for _ in range(200 * (centred(0.0)[1] > len(effect) - 1)):
        middle = (low + high) / 2
        low, high = (middle, high) if centred(middle)[1] > len(effect) - 1 else (low, middle)
    centre, excess, weight = centred(low)
    reach = stats.t.ppf(0.975, len(effect) - 1) * (max(1, excess / (len(effect) - 1)) / weight) ** 0.5
    return centre, centre - reach, centre + reach


def test_pooling_is_that_of_the_books():
    rng = np.random.default_rng(2)
    for _, scale, own in itertools.product(range(30), (0.01, 1.0), (0.01, 1.0)):
        count = rng.integers(2, 6)
        effect, error = scale * rng.normal(size=count), own * rng.random(count) + 1e-4
        found, _ = random_effects(effect, error)
        expected = slowly_pooled(effect.tolist(), error.tolist())
        assert (found.mean, found.low, found.high) == pytest.approx(expected, rel=1e-5, abs=1e-8)


def test_data_sets_of_very_unequal_precision_are_pooled_like_others():
    effect, error = np.array([0.0, 1.0, 0.5]), np.array([0.1, 0.1, 5.0])
    found, tau = random_effects(effect, error)
    assert (found.mean, found.low, found.high) == pytest.approx(slowly_pooled(effect.tolist(), error.tolist()))
    assert tau == pytest.approx(0.24**0.5, rel=1e-3), "the third has next to no weight: 0.5 / (0.01 + tau^2) is 2"


@pytest.mark.parametrize("unit", [1e-7, 1e-3, 100.0])
def test_pooling_knows_no_unit(unit):
    effect, error = np.array([0.0, 0.5, 2.0]), np.array([0.1, 0.2, 0.1])
    (found, tau), (other, spread) = random_effects(effect, error), random_effects(unit * effect, unit * error)
    assert tau > 0.5 and spread == pytest.approx(unit * tau)
    assert (other.mean, other.low, other.p) == pytest.approx((unit * found.mean, unit * found.low, found.p))


def test_a_data_set_in_which_nothing_varied_does_not_rule_the_pool():
    """Its error of zero would give it all the weight and the pool no width."""
    found, _ = random_effects(np.array([0.0, 0.1]), np.array([0.0, 0.1]))
    assert found.mean == pytest.approx(0.05) and found.high > 0.5
    same, _ = random_effects(np.array([0.1, 0.1]), np.array([0.0, 0.0]))
    assert verdict(same.mean, same.low, same.high) == "undecided"


# Answers


def made(prediction, label, seed=0, fold=None, dataset="", fingerprint="x", **options):
    return SimpleNamespace(
        experiment=SimpleNamespace(seed=seed, fold=fold, dataset=dataset, data_options=options),
        prediction=list(prediction),
        label=list(label),
        fingerprint=fingerprint,
        metrics={"majority_accuracy": sum(x == 0 for x in label) / len(label)},
        parameters=7,
    )


def folded(seed_of_answers):
    """Three folds of 5, 2 and 4 samples, two seeds."""
    rng, runs = np.random.default_rng(seed_of_answers), []
    for seed, (fold, size) in itertools.product((0, 1), enumerate((5, 2, 4))):
        runs.append(made(rng.integers(0, 2, size), np.arange(size) % 2, seed, fold))
    return runs


def test_folds_of_unequal_size_count_by_their_samples_and_in_any_order():
    one, other = folded(1), folded(2)
    table = compare({"plain": other, "VGMR": one}, "plain").set_index("label")
    right = [x == y for run in one for x, y in zip(run.prediction, run.label, strict=True)]
    assert table.loc["VGMR", "mean"] == pytest.approx(sum(right) / 22)
    assert table.loc["majority class", "mean"] == pytest.approx((3 + 1 + 2) / 11)
    turned = compare({"plain": other[::-1], "VGMR": [one[i] for i in (4, 0, 2, 5, 1, 3)]}, "plain")
    pd.testing.assert_frame_equal(turned, table.reset_index()[turned.columns])


def test_a_fold_that_one_seed_lacks_is_left_empty_and_lacking_in_one_variant_is_refused():
    one, other = folded(1), folded(2)
    assert contrasts({"a": one[:-1], "b": other[:-1]}, [("a", "b")]).loc[0, "samples"] == 11
    with pytest.raises(ValueError, match="expected the same test data"):
        contrasts({"a": one[:-1], "b": other}, [("a", "b")])


def test_samples_that_come_back_in_another_seeds_test_part_are_the_same_samples():
    """Answers that depend on the image alone: counted as new ones, a sixth of the images looks like all."""
    label = sklearn_digits().target
    ease = np.random.default_rng(0).random(len(label))
    runs = {"sees": [], "plain": []}
    for seed in range(20):
        rows = list(held_out("digit-views", seed))
        for name, share in (("sees", 0.1), ("plain", 0.3)):
            answer = np.where(ease[rows] < share, (label[rows] + 1) % 10, label[rows])
            runs[name].append(
                made(answer, label[rows], seed, None, "digit-views", f"part {seed}", conflict=0.5, split_seed=seed)
            )
    found = contrasts(runs, [("sees", "plain")]).loc[0]
    images = len(set(itertools.chain(*(held_out("digit-views", seed) for seed in range(20)))))
    assert found["samples"] == images < len(label)
    by_image = 1.0 * ((ease >= 0.1) & (ease < 0.3))
    assert found["error"] == pytest.approx(by_image.std() / images**0.5, rel=0.15)
    f1 = contrasts(runs, [("sees", "plain")], "macro_f1").loc[0]
    assert f1["error"] == pytest.approx(found["error"], rel=0.2)
    other = [replace_part(run) for run in runs["plain"]]
    with pytest.raises(ValueError, match="expected the same test data"):
        contrasts({**runs, "plain": other}, [("sees", "plain")])


def replace_part(run):
    return made(
        run.prediction,
        run.label,
        run.experiment.seed,
        None,
        "digit-views",
        "else",
        **vars(run.experiment)["data_options"],
    )


@pytest.mark.parametrize("dataset", ["digits", "digit-views", "uci-mfeat"])
def test_the_tested_samples_are_those_that_the_loader_tests(dataset):
    try:
        parts = [load(dataset, standardise=False, conflict=0.0, split_seed=seed) for seed in (3, 4)]
    except FileNotFoundError as missing:
        pytest.skip(str(missing))
    name = parts[0].modalities[0]
    rows = {}
    for seed, data in zip((3, 4), parts, strict=True):
        places = held_out(dataset, seed)
        assert len(places) == len(data.test)
        for place, x in zip(places, data.test.features[name], strict=True):
            rows.setdefault(place, []).append(x)
    twice = [both for both in rows.values() if len(both) == 2]
    assert len(twice) > 50 and all((one == other).all() for one, other in twice)
    assert held_out("mosi-words", 3) is None


def test_a_sample_twice_is_refused_and_scores_are_no_classes():
    run = made([0, 1], [0, 1])
    run.sample = [5, 5]
    with pytest.raises(ValueError, match="seed 0: expected each test sample once"):
        answers([run])
    whole = {name: [made([0.4, 1.2], [0, 1], seed) for seed in (0, 1)] for name in ("a", "b")}
    with pytest.raises(ValueError, match="predict scores, no classes"):
        contrasts(whole, [("a", "b")])
    assert contrasts(whole, [("a", "b")], "mae").loc[0, "difference"] == 0
