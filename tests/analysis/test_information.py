"""The decomposition: known distributions by hand; what the generator plants is found, nothing else."""

import math

import pandas as pd
import pytest
import torch

from vgmr.analysis.information import (
    PARTS,
    correlations,
    decomposition,
    of_features,
    of_modalities,
    of_posteriors,
    pointwise,
)
from vgmr.data import load

BIT = torch.tensor([0, 1])


def table(rule):
    """Both bits of the four equally likely pairs, and what the rule makes of them."""
    first, second = torch.cartesian_prod(BIT, BIT).T
    return first, second, rule(first, second)


@pytest.mark.parametrize("measure", ["I_min", "I_BROJA"])
@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (lambda a, b: a ^ b, (0, 0, 0, 1)),
        (lambda a, b: a, (0, 1, 0, 0)),
        (lambda a, b: b, (0, 0, 1, 0)),
    ],
    ids=["exclusive or", "first", "second"],
)
def test_distributions_of_one_bit_by_hand(rule, expected, measure):
    found = decomposition(*table(rule), measure)
    assert [found[part] for part in PARTS] == pytest.approx(expected, abs=1e-3)


def test_a_copied_bit_is_redundant_and_two_bits_part_the_measures():
    """Target = both bits: I_min takes equal amounts for equal information (1 redundant), I_BROJA does not."""
    for measure in ("I_min", "I_BROJA"):
        assert decomposition(BIT, BIT, BIT, measure)["redundancy"] == pytest.approx(1, abs=1e-3)
    both = table(lambda a, b: 2 * a + b)
    assert decomposition(*both, "I_min")["redundancy"] == pytest.approx(1, abs=1e-3)
    found = decomposition(*both, "I_BROJA")
    assert [found[part] for part in PARTS] == pytest.approx([0, 1, 1, 0], abs=1e-3)


def test_posteriors_that_say_the_same_are_redundant_and_one_that_says_nothing_adds_nothing():
    label = torch.arange(300) % 2
    sure = torch.nn.functional.one_hot(label, 2) * 0.8 + 0.1 + torch.linspace(0, 0.01, 300)[:, None]
    constant = torch.full((300, 2), 0.5)
    same = of_posteriors(sure, sure, label, bins=2)
    assert same["redundancy"] == pytest.approx(1, abs=0.01)
    alone = of_posteriors(sure, constant, label, bins=2)
    assert alone["unique_first"] == pytest.approx(1, abs=0.01)
    assert alone["redundancy"] == pytest.approx(0, abs=0.01)


def test_pointwise_by_hand():
    """Two classes, two samples, prior 1/2. Sources sure of the truth: i = 1 each, 1 together, so 1 redundant.

    Sources at 1/2 and sure together: i = 0, 0, 1: all synergy. The first right at .8, the second knows nothing:
    log2(1.6) unique.
    """
    label = torch.tensor([0, 1])
    sure, blank = torch.eye(2), torch.full((2, 2), 0.5)
    likely = torch.tensor([[0.8, 0.2], [0.2, 0.8]])
    for sources, expected in (
        ((sure, sure, sure), (1, 0, 0, 0)),
        ((blank, blank, sure), (0, 0, 0, 1)),
        ((likely, blank, likely), (0, math.log2(1.6), 0, 0)),
    ):
        found = pointwise(*sources, label)
        assert [found[part] for part in PARTS] == pytest.approx(expected, abs=1e-5)
        assert found["total"] == pytest.approx(sum(expected), abs=1e-5)


def planted(**strengths):
    dials = {"redundant": 0.0, "unique": 0.0, "synergistic": 0.0, **strengths}
    found = of_features(load("synthetic", like="cremad", samples=400, steps=6, **dials).train).iloc[0]
    return {
        "redundant": found["redundancy"],
        "unique": found["unique_first"] + found["unique_second"],
        "synergistic": found["synergy"],
    }


@pytest.mark.parametrize("kind", ["redundant", "unique", "synergistic"])
def test_each_dial_of_the_generator_turns_its_part(kind):
    """Monotone in the dial, the largest part at full strength, of the log2(6) = 2.6 bits of six classes."""
    found = [planted(**{kind: strength}) for strength in (0.0, 0.5, 1.0, 2.0)]
    rising = [one[kind] for one in found]
    assert rising == sorted(rising)
    assert abs(rising[0]) < 0.05
    assert rising[-1] > 1.2
    others = [value for part, value in found[-1].items() if part != kind]
    assert max(others) < 0.35 * rising[-1]


def test_where_nothing_is_planted_nothing_is_found():
    assert max(map(abs, planted().values())) < 0.05


def test_by_modality_pairs_are_averaged():
    pairs = pd.DataFrame(
        [
            ("a", "b", 1.0, 0.5, 0.1, 0.2),
            ("a", "c", 0.0, 1.5, 0.3, 0.4),
            ("b", "c", 0.4, 0.7, 0.0, 0.0),
        ],
        columns=["first", "second", *PARTS],
    )
    found = of_modalities(pairs).set_index("modality")
    assert found.loc["a"].to_dict() == pytest.approx(
        {"information": 1.5, "redundancy": 0.5, "unique": 1.0, "synergy": 0.3}
    )
    assert found.loc["c", "unique"] == pytest.approx(0.15)


def test_rank_correlation_is_over_modalities_with_seeds_averaged():
    """Worth follows what a modality has for itself; a second seed of one modality is no new modality."""
    rows = [
        {"dataset": "d", "seed": seed, "modality": name, "unique": k, "worth": k + noise, "redundancy": -k}
        | {"value": 0.5, "gate": 1.0, "removal": k * k, "information": 0.0, "synergy": k % 2}
        for k, name in enumerate("abcd")
        for seed, noise in enumerate((0.2, -0.2))
    ]
    found = correlations(pd.DataFrame(rows)).set_index(["of", "with"])
    assert found.loc[("worth", "unique"), "correlation"] == pytest.approx(1)
    assert found.loc[("worth", "redundancy"), "correlation"] == pytest.approx(-1)
    assert (found["modalities"] == 4).all()


def test_an_unknown_measure_is_refused():
    with pytest.raises(ValueError, match="unknown measure 'I_x'; there are: I_min, I_BROJA"):
        decomposition(BIT, BIT, BIT, "I_x")
