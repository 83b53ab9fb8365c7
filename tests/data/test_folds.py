"""Folds: whole groups, each sample tested once, on made groups and on the real files."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vgmr.data import folds, load
from vgmr.data.types import fold_parts

TESTED = {"utd-mhad": (8, 861, 8), "cremad-ratings": (10, 7442, 91), "avdigits": (6, 3000, 6)}
TESTED |= {"mosi-utterance": (10, 752, 31)}


@given(st.integers(3, 8), st.integers(0, 40), st.integers(0, 10**6))
def test_every_group_is_tested_once_and_validates_once(count, more, seed):
    generator = np.random.default_rng(seed)
    group = np.concatenate([np.arange(count), generator.integers(count + more, size=100)]) * 7
    parts = np.stack([fold_parts(group, fold, count) for fold in range(count)])
    assert (parts == 2).sum(0).tolist() == [1] * len(group) == (parts == 1).sum(0).tolist()
    for row in parts:
        assert all(len(set(row[group == value])) == 1 for value in set(group.tolist()))
        assert {0, 1, 2} == set(row.tolist())
    largest = np.unique(group, return_counts=True)[1].max()
    sizes = (parts == 2).sum(1)
    assert sizes.max() - sizes.min() <= largest or len(set(group.tolist())) == count


def test_as_many_folds_as_groups_go_in_the_order_of_groups():
    group = np.array([5, 3, 9, 3, 7])
    assert fold_parts(group, 0, 4).tolist() == [1, 2, 0, 2, 0]
    assert fold_parts(group, 3, 4).tolist() == [0, 1, 2, 1, 0]


@pytest.mark.parametrize("fold", [-1, 4, True, 1.0, "1"])
def test_a_fold_that_is_not_there(fold):
    with pytest.raises(ValueError, match="fold must be a whole number from 0 to 3, got"):
        fold_parts(np.arange(5), fold, 4)
    with pytest.raises(ValueError, match="at least 4 groups, got 3"):
        fold_parts(np.arange(3), 0, 4)


SPLITS = {
    "utd-mhad": "shared",
    "cremad-ratings": "actors",
    "avdigits": "speakers",
    "mosi-utterance": "within-test",
}


@pytest.mark.parametrize("name", SPLITS)
def test_a_fold_and_a_split_are_refused_together_before_any_file_is_sought(name, tmp_path):
    with pytest.raises(ValueError, match=f"fold 0 stands in place of split '{SPLITS[name]}'; give one of them"):
        load(name, str(tmp_path), fold=0, split=SPLITS[name])


@pytest.mark.parametrize("name", TESTED)
def test_real_folds(name, real_data, monkeypatch, tmp_path_factory):
    count, tested, groups = TESTED[name]
    assert folds(name) == count
    seen, sizes, prints = [], [], set()
    shown = {"avdigits": (0, 3), "utd-mhad": (0, 7)}.get(name, range(count))
    for fold in shown:
        data = load(name, fold=fold)
        assert not data.overlap or name == "cremad-ratings"
        found = [set(part.group.tolist()) for part in data.parts.values()]
        assert not (found[0] & found[1] or found[0] & found[2] or found[1] & found[2])
        assert sum(len(part) for part in data.parts.values()) == tested
        seen += sorted(found[2])
        sizes.append(len(data.test))
        prints.add(data.fingerprint)
        assert "warning" not in data.notes
    assert len(prints) == len(sizes)
    if name == "avdigits":
        assert sizes == [500, 500] and seen == [0, 3]
    elif name == "utd-mhad":
        assert seen == [1, 8]
    else:
        assert sum(sizes) == tested and sorted(seen) == sorted(set(seen)) and len(seen) == groups


def test_each_fold_of_avdigits_tests_other_images(real_data):
    first, other = (load("avdigits", fold=fold, standardise=False) for fold in (0, 1))
    images = [{x.tobytes() for x in data.test.features["image"].numpy()} for data in (first, other)]
    assert len(images[0] & images[1]) < 0.5 * len(images[0])
    train = {x.tobytes() for x in first.train.features["image"].numpy()}
    assert not train & images[0]


@pytest.mark.parametrize(
    ("name", "options", "of_numpy"),
    [
        ("avdigits", {"fold": 1}, {"fold": np.int64(1)}),
        ("utd-mhad", {"validation_subjects": [3, 7]}, {"validation_subjects": np.array([3, 7])}),
        ("utd-mhad", {"validation_subjects": [3, 7]}, {"validation_subjects": (np.int64(3), 7)}),
        ("cremad-ratings", {"seed": 2}, {"seed": np.int32(2)}),
        ("mosi-words", {"fold": 3, "longest": 20}, {"fold": np.int64(3), "longest": np.uint8(20)}),
    ],
)
def test_numbers_of_numpy_are_the_same_numbers(name, options, of_numpy, real_data, tmp_path, monkeypatch):
    monkeypatch.setenv("VGMR_CACHE", str(tmp_path))
    first, again = load(name, **options), load(name, **of_numpy)
    assert first.fingerprint == again.fingerprint and first.notes == again.notes


def test_sets_without_folds_are_refused_with_those_that_have_some(real_data):
    with pytest.raises(ValueError, match=r"'digits' has no folds; these have: .*avdigits.*utd-mhad"):
        folds("digits")
    with pytest.raises(ValueError, match="unknown parameter fold for data set 'digits'"):
        load("digits", fold=0)
    for name in TESTED:
        with pytest.raises(ValueError, match="fold must be a whole number"):
            load(name, fold=folds(name))
    assert torch.is_tensor(load("cremad-ratings", fold=9).test.label)
