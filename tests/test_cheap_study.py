"""The study of cheap refiners: what it trains, without training."""

from dataclasses import asdict

import pytest

from vgmr import studies
from vgmr.analysis import cost
from vgmr.refiner import FORMS, VGMR
from vgmr.studies import CHEAP_SETS, SHORT, cheap_refiners


@pytest.mark.parametrize("dataset", CHEAP_SETS)
def test_a_cheap_form_differs_from_the_full_one_in_its_switches_alone(dataset):
    """Run by run, so that they are compared on the same seeds, splits and folds, at the same rate."""
    full, cheap = studies.training(dataset), cheap_refiners(dataset)
    variants = {form: variant for variant, form in SHORT.items()}
    assert list(cheap) == [name for name in cost.form_options() if "full" not in name and name != "plain"]
    for label, experiments in cheap.items():
        form, _, name = label.partition(", ")
        assert 0 < len(experiments) <= len(full[variants[form]])
        for one, other in zip(experiments, full[variants[form]], strict=False):
            changed = {name for name, value in asdict(one).items() if value != asdict(other)[name]}
            assert changed == set(cost.CHEAP[form][name])
    assert len({one for each in cheap.values() for one in each}) == sum(map(len, cheap.values()))


def test_no_cheap_form_has_more_parameters():
    def size(switches):
        vgmr = VGMR({"one": 40, "two": 30}, 16, num_classes=3, **switches)
        return sum(x.numel() for x in vgmr.parameters())

    for form, cheaper in cost.CHEAP.items():
        for label, switches in cheaper.items():
            assert size({**FORMS[form], **switches}) < size(FORMS[form]) or label == "sparse gate"


def test_cheap_forms_are_planned():
    assert {f"19-cheap-{dataset}" for dataset in CHEAP_SETS} <= set(studies.planned())


def test_an_unknown_data_set_is_refused():
    with pytest.raises(ValueError, match="there are: uci-mfeat, digit-views, cremad-ratings, utd-mhad"):
        cheap_refiners("mosi")
