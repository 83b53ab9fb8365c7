"""The decomposition: known distributions by hand; what the generator plants is found, nothing else."""

import math

import pandas as pd
import pytest
import torch

from vgmr.analysis.information import (
    HELD,
    MADE,
    PARTS,
    beside,
    clusters,
    decomposition,
    of_features,
    of_modalities,
    of_posteriors,
    of_samples,
    pointwise_terms,
    within,
)
from vgmr.backbones import PooledBackbone
from vgmr.classifier import Classifier
from vgmr.contributions import contributions
from vgmr.data import Batch, load
from vgmr.evaluation import shapley
from vgmr.inference import subset_logits
from vgmr.refiner import VGMR

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
        found = {part: float(one.mean()) for part, one in pointwise_terms(*sources, label).items()}
        assert [found[part] for part in PARTS] == pytest.approx(expected, abs=1e-5)
        assert found["total"] == pytest.approx(sum(expected), abs=1e-5)


def test_terms_of_a_sample_by_hand():
    """Prior 1/2. Right at .8 twice and at .9 together: common log2(1.6^2 / 1.8) > 0, so that much is shared.

    Wrong (.2) and right (.8) with 1/2 together: signs differ, nothing is shared, and the wrong one's part is
    log2(.4) < 0, misinformation.
    """
    label = torch.tensor([0, 0, 1, 1])
    likely, unlikely = [0.8, 0.2], [0.2, 0.8]
    first = torch.tensor([likely, unlikely, unlikely, likely])
    second = torch.tensor([likely, likely, unlikely, unlikely])
    both = torch.tensor([[0.9, 0.1], [0.5, 0.5], [0.1, 0.9], [0.5, 0.5]])
    found = pointwise_terms(first, second, both, label)
    shared = math.log2(1.6 * 1.6 / 1.8)
    assert found["redundancy"].tolist() == pytest.approx([shared, 0, shared, 0], abs=1e-6)
    alone = [math.log2(1.6) - shared, math.log2(0.4)] * 2
    assert found["unique_first"].tolist() == pytest.approx(alone, abs=1e-6)
    assert found["synergy"].tolist() == pytest.approx([0, -math.log2(0.64)] * 2, abs=1e-6)


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


def test_a_source_with_its_samples_in_disorder_leaves_all_to_the_other():
    """Redundant evidence, but the second source tells of other samples. Labels in disorder: nothing is told."""
    part = load("synthetic", like="cremad", samples=400, steps=6, redundant=2.0, unique=0.0).train
    order = torch.randperm(400, generator=torch.Generator().manual_seed(0))
    moved = Batch({**part.features, "visual": part.features["visual"][order]}, part.mask, part.label)
    whole = clusters(moved, 6)
    by_counts = {name: decomposition(*whole.values(), moved.label, name) for name in ("I_min", "I_BROJA")}
    for found in (of_features(moved).iloc[0], *by_counts.values()):
        assert found["unique_first"] > 1.5
        assert max(abs(found["redundancy"]), abs(found["unique_second"])) < 0.1
    blind = of_features(Batch(part.features, part.mask, part.label[order])).iloc[0]
    assert max(abs(blind[name]) for name in PARTS) < 0.05


def test_clusters_carry_the_codes_whose_sum_is_the_class():
    part = load("synthetic", like="cremad", samples=400, steps=6, redundant=0.0, unique=0.0, synergistic=2.0).train
    whole = clusters(part, 6)
    found = decomposition(*whole.values(), part.label)
    assert found["synergy"] > 1.5
    assert max(abs(found[name]) for name in PARTS[:3]) < 0.1


def test_classifiers_fitted_to_a_training_part_tell_of_a_test_part():
    data = load("synthetic", like="cremad", samples=400, steps=6, redundant=1.0, unique=0.0)
    terms = of_samples(data.test, data.train)
    assert len(terms) == len(data.test) and terms["redundancy"].mean() > 1.2
    assert of_features(data.test, data.train).iloc[0]["synergy"] == pytest.approx(terms["synergy"].mean())
    order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(0))
    blind = Batch(data.train.features, data.train.mask, data.train.label[order])
    assert abs(of_samples(data.test, blind)["total"].mean()) < 0.05


def test_a_class_that_only_persons_share_is_not_claimed_of_a_person_left_out():
    """Each person has a look and a class at random: known persons tell the class, unseen ones do not."""
    generator = torch.Generator().manual_seed(0)
    person = torch.arange(240) // 6
    label = torch.randint(2, (40,), generator=generator)[person]
    features, mask = {}, {}
    for name in "ab":
        look = 3 * torch.randn(40, 8, generator=generator)[person]
        features[name] = (look + 0.1 * torch.randn(240, 8, generator=generator)).unsqueeze(1)
        mask[name] = torch.ones(240, 1, dtype=torch.bool)
    assert of_features(Batch(features, mask, label)).iloc[0]["total"] > 0.8
    assert abs(of_features(Batch(features, mask, label, person)).iloc[0]["total"]) < 0.15


def test_beside_a_model_stand_its_shapley_worth_and_removal_in_bits():
    torch.manual_seed(0)
    data = load("synthetic", like="mosi", samples=60, steps=2)
    model = Classifier(VGMR(data.dims, latent_dim=4), PooledBackbone(data.dims, len(data.classes), width=8)).eval()
    terms = of_samples(data.test, data.train)
    found = beside(model, data.test, terms)
    assert len(found) == 3 * len(data.test) and {*MADE, *HELD} <= set(found)
    logits = subset_logits(model, data.test)
    label = data.test.label[7]
    game = {keep: float(x[7].log_softmax(0)[label]) / math.log(2) for keep, x in logits.items()}
    row = found[found["sample"] == 7].set_index("modality")
    assert row["worth"].to_dict() == pytest.approx(shapley(game), abs=1e-5)
    with torch.no_grad():
        output = model(data.test.features, data.test.model_mask)
        gain = contributions(model.backbone, output.encodings, data.test.label, data.test.model_mask)
    bits = {name: float(gain[name][7]) / math.log(2) for name in gain}
    assert row["removal"].to_dict() == pytest.approx(bits, abs=1e-5)
    pair = terms[(terms["sample"] == 7) & ((terms["first"] == "text") | (terms["second"] == "text"))]
    assert row.loc["text", "synergy"] == pytest.approx(pair["synergy"].mean())


def test_correlation_within_a_modality_is_not_that_between_modalities():
    """Over samples the value falls with what is unique in both; over both together it rises."""
    rows = [
        {"modality": name, "sample": k, "value": high - k / 10, "unique": high + k, "gate": 1.0, "worth": k % 3}
        | {"removal": k, "information": k, "redundancy": -k, "synergy": (7 * k) % 10}
        for name, high in (("a", 0.0), ("b", 100.0))
        for k in range(10)
    ]
    found = within(pd.DataFrame(rows)).set_index(["of", "with"])["correlation"]
    assert found["value", "unique"] == pytest.approx(-1)
    assert found["value", "redundancy"] == pytest.approx(1)
    assert found["gate", "unique"] == 0, "what does not vary goes with nothing"
    assert found["removal", "synergy"] == pytest.approx(
        pd.Series(range(10)).corr(pd.Series([7 * k % 10 for k in range(10)]))
    )


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
    twice = {part: 2 * pairs[part] for part in PARTS}
    by_sample = of_modalities(pd.concat([pairs.assign(sample=0), pairs.assign(sample=1, **twice)]))
    kept = by_sample.set_index(["modality", "sample"])["unique"]
    assert kept["c", 0] == pytest.approx(0.15) and kept["c", 1] == pytest.approx(0.3)


def test_an_unknown_measure_is_refused():
    with pytest.raises(ValueError, match="unknown measure 'I_x'; there are: I_min, I_BROJA"):
        decomposition(BIT, BIT, BIT, "I_x")
