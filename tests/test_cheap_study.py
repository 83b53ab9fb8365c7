"""The study of cheap refiners: what it trains, without training."""

from dataclasses import asdict

import pytest

from vgmr import studies
from vgmr.refiner import FORMS, VGMR
from vgmr.studies import CHEAP, CHEAP_SETS, cheap_refiners


@pytest.mark.parametrize("dataset", CHEAP_SETS)
def test_a_cheap_form_differs_from_the_full_one_in_its_switches_alone(dataset):
    """Run by run, so that they are compared on the same seeds, splits and folds, at the same rate."""
    full, cheap = studies.training(dataset), cheap_refiners(dataset)
    assert {(variant, label) for variant, of in CHEAP.items() for label in of} == set(cheap)
    for (variant, label), experiments in cheap.items():
        assert len(experiments) <= len(full[variant])
        for one, other in zip(experiments, full[variant], strict=False):
            changed = {name for name, value in asdict(one).items() if value != asdict(other)[name]}
            assert changed == set(CHEAP[variant][label])
    assert len({one for each in cheap.values() for one in each}) == sum(map(len, cheap.values()))


def test_every_cheap_form_can_be_made_and_none_has_more_parameters():
    def size(switches):
        vgmr = VGMR({"one": 40, "two": 30}, 16, num_classes=3, **switches)
        return sum(x.numel() for x in vgmr.parameters())

    for variant, cheaper in CHEAP.items():
        form = FORMS[studies.VARIANTS[variant]["form"]]
        for label, switches in cheaper.items():
            assert size({**form, **switches}) < size(form) or label == "sparse gate"


def test_cheap_forms_are_planned():
    assert {f"19-cheap-{dataset}" for dataset in CHEAP_SETS} <= set(studies.planned())


def test_an_unknown_data_set_is_refused():
    with pytest.raises(ValueError, match="there are: uci-mfeat, utd-mhad, cremad-ratings"):
        cheap_refiners("mosi")
