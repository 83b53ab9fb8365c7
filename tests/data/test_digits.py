"""The digits: real images, known conflicts."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits as sklearn_digits

from vgmr.data import load
from vgmr.data.digits import VIEWS, load_digits

IMAGES = sklearn_digits().images
TARGET = sklearn_digits().target
PUBLISHED = "11972405b6c18227bc1346e9d67db6a8b3bfdc9cb7543ece8d9e13b772d98836"


def views(image: np.ndarray) -> dict[str, np.ndarray]:
    spectrum = np.log1p(np.abs(np.fft.fft2(image)[:, :5]))
    return {"left": image[:, :4], "right": image[:, 4:], "spectrum": spectrum}


def shown_classes(name: str, view: torch.Tensor) -> torch.Tensor:
    """(B, 10) bool: the classes of the images of scikit-learn that have this view, found by comparing with all."""
    table = torch.from_numpy(np.stack([views(image)[name] for image in IMAGES])).flatten(1)
    distance = torch.cdist(view.double().flatten(1), table, compute_mode="donot_use_mm_for_euclid_dist")
    return (distance < 1e-4).double() @ torch.eye(10, dtype=torch.float64)[TARGET] > 0


def test_parts():
    data = load_digits()
    data.check()
    assert {name: len(part) for name, part in data.parts.items()} == {
        "train": 1079,
        "validation": 359,
        "test": 359,
    }
    assert data.dims == {"left": 4, "right": 4, "spectrum": 5}
    assert data.max_lengths == {"left": 8, "right": 8, "spectrum": 8}
    assert data.classes == tuple("0123456789") and not data.stand_in
    together = torch.cat([part.label for part in data.parts.values()])
    assert torch.equal(together.bincount(), torch.from_numpy(np.bincount(TARGET))), "every image once"


def test_every_image_is_in_one_part():
    """Without conflict the two halves give the whole image back; equal images are counted as often as they are."""
    parts = load_digits(conflict=0).parts.values()
    whole = torch.cat([torch.cat([part.features["left"], part.features["right"]], 2) for part in parts])
    label = torch.cat([part.label for part in parts])
    got = sorted((image.numpy().tobytes(), int(digit)) for image, digit in zip(whole, label, strict=True))
    real = sorted((image.astype(np.float32).tobytes(), int(d)) for image, d in zip(IMAGES, TARGET, strict=True))
    assert got == real


def test_stratified_by_class():
    for name, share in {"train": 0.6, "validation": 0.2, "test": 0.2}.items():
        counts = load_digits().parts[name].label.bincount().numpy()
        assert np.abs(counts - share * np.bincount(TARGET)).max() <= 1


def test_fingerprint_is_the_published_one():
    """Changes only with the images, the split or the conflicts; then old runs must not be found again."""
    assert load_digits().fingerprint == PUBLISHED
    assert load("digits").fingerprint == PUBLISHED


def test_deterministic_and_drawn_by_its_seeds():
    first, second = load_digits(), load_digits()
    for name, part in first.parts.items():
        for view in VIEWS:
            assert torch.equal(part.features[view], second.parts[name].features[view])
            assert torch.equal(part.corrupted[view], second.parts[name].corrupted[view])
    others = [load_digits(conflict=0.2), load_digits(conflict_seed=1), load_digits(split_seed=1)]
    assert len({data.fingerprint for data in [first, *others]}) == 4
    assert torch.equal(others[1].test.label, first.test.label), "the conflict's seed leaves the parts as they are"
    assert not torch.equal(others[2].test.label, first.test.label)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.55, 1.0])
def test_share_of_conflicts_is_exact_and_one_view_each(share):
    for part in load_digits(conflict=share).parts.values():
        corrupted = torch.cat([part.corrupted[name].flatten(1) for name in VIEWS], 1)
        assert corrupted.shape == (len(part), 3)
        assert corrupted.sum(1).max() <= 1
        assert int(corrupted.sum()) == round(share * len(part))


def test_each_view_is_corrupted_about_as_often():
    part = load_digits(conflict=1.0).train
    for name in VIEWS:
        assert 0.28 < part.corrupted[name].float().mean() < 0.39, "a third, within 3.5 deviations"


def test_corrupted_views_are_of_another_class_and_the_others_of_the_own():
    for part in load_digits(conflict=0.4, conflict_seed=3).parts.values():
        own = torch.eye(10, dtype=torch.bool)[part.label]
        for name in VIEWS:
            shown = shown_classes(name, part.features[name])
            assert shown.any(1).all(), "every view is that of a real image"
            corrupted = part.corrupted[name].flatten()
            assert (shown & own)[~corrupted].any(1).all()
            assert (shown & ~own)[corrupted].any(1).all()
            assert not (shown & own)[corrupted].any()


def test_uncorrupted_views_belong_to_one_image():
    part = load_digits(conflict=0.4).test
    clean = load_digits(conflict=0).test
    assert torch.equal(part.label, clean.label)
    for name in VIEWS:
        differs = (part.features[name] != clean.features[name]).flatten(1).any(1)
        assert torch.equal(differs, part.corrupted[name].flatten())


def test_a_conflict_never_crosses_parts():
    """The other image comes from the same part, so that none of the test part is seen in training."""
    dirty, clean = load_digits(conflict=1.0), load_digits(conflict=0)
    for name, part in dirty.parts.items():
        for view in VIEWS:
            own = {x.numpy().tobytes() for x in clean.parts[name].features[view]}
            assert all(x.numpy().tobytes() in own for x in part.features[view])


def test_spectrum_of_one_image_by_hand():
    """The defining sum of the Fourier transform, for the first image of the test part."""
    part = load_digits(conflict=0).test
    image = torch.cat([part.features["left"][0], part.features["right"][0]], 1).double().numpy()
    expected = np.empty((8, 5))
    row, column = np.mgrid[:8, :8]
    for u in range(8):
        for v in range(5):
            wave = np.exp(-2j * np.pi * (u * row + v * column) / 8)
            expected[u, v] = np.log(1 + abs((image * wave).sum()))
    np.testing.assert_allclose(part.features["spectrum"][0].numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_conflict_is_a_share(share):
    with pytest.raises(ValueError, match="conflict must lie in 0 to 1, got"):
        load_digits(conflict=share)


@pytest.mark.parametrize("name", ["split_seed", "conflict_seed"])
@pytest.mark.parametrize("seed", [-1, 0.5, "x"])
def test_seeds_are_whole_numbers_from_0_on(name, seed):
    with pytest.raises(ValueError, match=f"{name} must be a whole number of at least 0, got {seed!r}"):
        load_digits(**{name: seed})
