"""Disagreement of single models, on answers that fit on a page."""

from types import SimpleNamespace

import pytest

from vgmr.analysis.disagreement import by_class, disagreements


def run(prediction, fold=0):
    experiment = SimpleNamespace(seed=0, fold=fold, data_options={})
    return SimpleNamespace(
        experiment=experiment, prediction=prediction, label=[0, 0, 1, 1], group=[7, 7, 8, 8], fingerprint="one"
    )


def test_conflict_and_who_is_right_in_it():
    table = disagreements([run([0, 1, 1, 0])], [run([0, 0, 0, 0])], {"both": [run([0, 0, 1, 1])]})
    assert table["conflict"].tolist() == [False, True, True, False]
    assert table["group"].tolist() == [7, 7, 8, 8] and table["sample"].is_unique
    rows = by_class(table, ["zero", "one"], ["both"]).set_index("class")
    assert rows.loc["zero"].tolist() == [0.5, 0.0, 1.0, 0.0, 1.0]
    assert rows.loc["one"].tolist() == [0.5, 1.0, 0.0, 0.0, 1.0]


def test_folds_keep_their_samples_apart():
    table = disagreements(*[[run([0] * 4, 0), run([1] * 4, 1)]] * 2, {})
    assert table["sample"].is_unique and not table["conflict"].any() and len(table) == 8


def test_runs_that_do_not_pair_are_refused():
    with pytest.raises(ValueError):
        disagreements([run([0] * 4)], [], {})


def test_seeds_with_splits_of_their_own_have_samples_of_their_own():
    def drawn(seed):
        options = {"split_seed": seed}
        experiment = SimpleNamespace(seed=seed, fold=None, dataset="uci-mfeat", data_options=options)
        return SimpleNamespace(
            experiment=experiment, fingerprint=f"split {seed}", prediction=[0, 1], label=[0, seed], group=None
        )

    runs = [drawn(0), drawn(1)]
    table = disagreements(runs, runs, {})
    assert table.groupby("sample")["label"].nunique().max() == 1 and table["sample"].nunique() == 4
