"""The study of cheap refiners: what it trains, without training."""

import pytest

from vgmr.studies.cheap import SETS, cheap_refiners


@pytest.mark.parametrize("dataset", SETS)
def test_every_label_has_its_seeds_and_no_two_are_the_same_training(dataset):
    experiments = cheap_refiners(dataset, range(2))
    assert all([one.seed for one in each] == [0, 1] for each in experiments.values())
    assert len({one for each in experiments.values() for one in each}) == 2 * len(experiments)
    assert experiments["calibrated: rank 0"][0].rank == 0
    assert "calibrated: shared" not in experiments


def test_an_unknown_data_set_is_refused():
    with pytest.raises(ValueError, match="there are: uci-mfeat, utd-mhad, cremad-ratings"):
        cheap_refiners("mosi")
