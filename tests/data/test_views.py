"""Sets of views: uci-mfeat on the real files and the digits as vectors; parts, truth of a conflict, floors."""

import shutil

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits as sklearn_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from vgmr.data import load
from vgmr.data.digits import VECTORS, strokes
from vgmr.data.fetch import problems
from vgmr.data.uci_mfeat import SOURCE, VIEWS
from vgmr.data.views import conflicting


def vector(part, name):
    return part.features[name][:, 0].double().numpy()


def rate(data, name):
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    model.fit(vector(data.train, name), data.train.label)
    return model.score(vector(data.test, name), data.test.label)


def sizes(data):
    return [len(part) for part in data.parts.values()]


def hits(part):
    return torch.stack([hit.flatten() for hit in part.corrupted.values()])


@pytest.mark.parametrize(
    ("name", "expected"), [("uci-mfeat", [1000, 400, 600]), ("digit-views", [1079, 359, 359])]
)
def test_every_split_seed_gives_other_parts_of_the_same_sizes(name, expected, real_data):
    first, *others = (load(name, split_seed=seed, conflict=0.0) for seed in range(3))
    assert sizes(first) == expected and all(sizes(other) == expected for other in others)
    assert all(other.fingerprint != first.fingerprint for other in others)
    assert not any(hits(part).any() for part in first.parts.values())
    assert first.train.label.bincount().float().std() < 3


def test_uci_mfeat_files_are_the_published_ones(real_data):
    assert problems(SOURCE, real_data / SOURCE.folder, content=True) == {}
    data = load("uci-mfeat", views=tuple(VIEWS), standardise=False)
    assert data.dims == VIEWS and data.max_lengths == dict.fromkeys(VIEWS, 1)
    rows = torch.cat([part.features["pix"][:, 0] for part in data.parts.values()])
    assert len(rows.unique(dim=0)) >= 1990 and rows.min() == 0 and rows.max() == 6
    first = torch.tensor([-10.297, -11.667, 11.561, -2.0813])
    kar = torch.cat([part.features["kar"][:, 0, :4] for part in data.parts.values()])
    assert (kar - first).abs().amax(1).min() < 1e-4, "the first published row is there"


@pytest.mark.parametrize(("name", "low", "high"), [("fou", 0.74, 0.86), ("kar", 0.92, 0.98), ("zer", 0.76, 0.86)])
def test_uci_mfeat_floors_of_one_view(name, low, high, real_data):
    assert low <= rate(load("uci-mfeat"), name) <= high


@pytest.mark.parametrize("name", VECTORS)
def test_any_one_digit_view_tells_the_digit_fairly_well(name):
    data = load("digit-views", views=tuple(VECTORS), conflict=0.0)
    assert data.dims == VECTORS
    assert 0.80 <= rate(data, name) <= 0.92


@given(st.floats(0, 1), st.integers(0, 10**6), st.integers(2, 4))
def test_a_conflict_is_what_its_truth_says(share, seed, count):
    generator = np.random.default_rng(seed)
    label = generator.integers(3, size=40)
    label[:3] = range(3)
    # every value names its sample and its view
    views = {f"v{k}": (100 * k + np.arange(40.0))[:, None, None] for k in range(count)}
    rows = np.sort(generator.permutation(np.arange(3, 40))[:20])
    rows[:3] = range(3)
    batch, origin = conflicting(views, label, rows, share, np.random.default_rng(seed))
    lies = hits(batch)
    assert int(lies.sum()) == round(share * 20) and lies.sum(0).max() <= 1
    for position, name in enumerate(views):
        came_from = batch.features[name].flatten().long().numpy() - 100 * position
        assert np.array_equal(came_from, origin[position])
        assert np.array_equal(came_from == rows, ~lies[position].numpy())
        assert np.isin(came_from, rows).all(), "the part's own samples only"
        assert ((label[came_from] != label[rows]) == lies[position].numpy()).all()
    assert np.array_equal(batch.label.numpy(), label[rows])


@pytest.mark.parametrize("name", ["uci-mfeat", "digit-views"])
def test_in_the_share_of_every_part_one_view_lies(name, real_data):
    data = load(name, conflict=0.3)
    for part in data.parts.values():
        assert int(hits(part).sum()) == round(0.3 * len(part)) and hits(part).sum(0).max() == 1
        assert all(0.06 < share < 0.14 for share in hits(part).float().mean(1))
    other = load(name, conflict=0.3, conflict_seed=1)
    assert torch.equal(data.test.label, other.test.label) and data.fingerprint != other.fingerprint


def test_strokes_of_straight_edges():
    images = np.zeros((2, 8, 8))
    images[0, :, 1] = 1  # an upright line in the left half: its gradient points right, direction 0
    images[1, 5] = 2  # a level line in the lower half: 90 degrees, direction 3
    found = strokes(images).reshape(2, 2, 2, 6)
    assert found[0, :, 0, 0].tolist() == [4 * 1.5, 4 * 1.5] and found[0].sum() == 12
    assert found[1, 1, :, 3].tolist() == [8, 8] and found[1].sum() == 16
    assert np.allclose(strokes(16 - sklearn_digits().images), strokes(sklearn_digits().images)), "no sign"


@pytest.mark.parametrize("name", ["uci-mfeat", "digit-views"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"views": ("nothing", "left")}, "two or more of"),
        ({"views": "kar"}, "two or more of"),
        ({"views": ()}, "two or more of"),
        ({"conflict": 1.5}, "conflict must lie in 0 to 1"),
        ({"conflict": -0.1}, "conflict must lie in 0 to 1"),
        ({"views": {"left", "right", "kar", "fou"}}, "views must be a list such as"),
        ({"views": None}, "views must be a list such as .*got None"),
        ({"split_seed": -1}, "split_seed must be a whole number of at least 0, got -1"),
        ({"conflict_seed": "one"}, "conflict_seed must be a whole number of at least 0, got 'one'"),
    ],
)
def test_refusals(name, options, message, real_data):
    with pytest.raises(ValueError, match=message):
        load(name, **options)


def test_uci_mfeat_damaged_and_missing(real_data, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no files of uci-mfeat .* from https://archive.ics.uci.edu"):
        load("uci-mfeat", str(tmp_path))
    for path in SOURCE.files:
        shutil.copyfile(real_data / "uci-mfeat" / path, tmp_path / path)
    content = (tmp_path / "mfeat-zer.csv").read_bytes()
    (tmp_path / "mfeat-zer.csv").write_bytes(content.replace(b"0.83147", b"0.83148", 1))
    with pytest.raises(ValueError, match=r"mfeat-zer\.csv: SHA-256"):
        load("uci-mfeat", str(tmp_path))
    assert "partial" in load("uci-mfeat", str(tmp_path), allow_partial=True).notes
    (tmp_path / "mfeat-zer.csv").write_bytes(content.replace(b"0.83147", b"nan", 1))
    with pytest.raises(ValueError, match="row 2 holds no finite number"):
        load("uci-mfeat", str(tmp_path), allow_partial=True)
    (tmp_path / "mfeat-zer.csv").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="expected 2000 rows"):
        load("uci-mfeat", str(tmp_path), allow_partial=True)
    (tmp_path / "mfeat-zer.csv").unlink()
    with pytest.raises(FileNotFoundError, match="incomplete or changed"):
        load("uci-mfeat", str(tmp_path))


def test_uci_mfeat_is_not_downloaded(monkeypatch, tmp_path):
    monkeypatch.delenv("VGMR_DATA", raising=False)
    monkeypatch.setenv("VGMR_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="has no known address and is not downloaded"):
        load("uci-mfeat")
