"""Values in time find planted spans, and where they are."""

import pytest
import torch

from vgmr.analysis.windows import Windows, step_detection
from vgmr.corruption import SPANS, span
from vgmr.data import load
from vgmr.data.types import Batch


@pytest.fixture(scope="module")
def made():
    data = load("synthetic", like="mosei", steps=30, samples=300, padding=0.3).select(["audio", "vision"])
    return Windows(data.train, 2), data.test


@pytest.mark.parametrize("kind", SPANS)
def test_planted_spans_are_found_and_better_than_by_a_value_without_time(kind, made):
    windows, test = made
    found = step_detection(windows, span(test, kind, seed=1)).set_index(["modality", "value"])["auroc"]
    assert found["all", "in time"] >= 0.85
    assert found["all", "in time"] > found["all", "pooled"]


def test_values_lie_in_0_to_1_and_padding_has_none(made):
    windows, test = made
    for name, value in windows.values(test).items():
        assert value.shape == test.mask[name].shape
        assert not value[~test.mask[name]].any()
        assert float(value.min()) >= 0 and float(value.max()) <= 1


def test_windows_of_six_steps_by_hand():
    """Two windows of three steps and one between: 0 to 2, 2 to 4 (1.5 rounded to the even 2), 3 to 5."""
    windows = Windows.__new__(Windows)
    windows.windows, windows.count = 2, 3
    x = torch.arange(8.0)[None, :, None]
    mask = (torch.arange(8) >= 2)[None]  # padding in front
    cut = windows.cut(Batch({"a": x}, {"a": mask}, torch.tensor([0])))["a"]
    assert [window.flatten().tolist() for window, _ in cut] == [[2, 3, 4], [4, 5, 6], [5, 6, 7]]
    steps = windows._spread(torch.tensor([[1.0, 0.5, 0.0]]), mask)
    assert steps.tolist() == [[0, 0, 1, 1, 0.75, 0.25, 0.25, 0]]


def test_a_span_is_marked_where_it_changed_and_nowhere_else(made):
    _, test = made
    for kind in SPANS:
        hit = span(test, kind, length=0.4, seed=2)
        assert torch.stack([x.any(2).any(1) for x in hit.corrupted.values()]).sum(0).max() == 1
        for name, where in hit.corrupted.items():
            changed = (hit.features[name] != test.features[name]).any(2)
            assert torch.equal(changed, where.any(2).expand_as(changed))
            assert not (changed & ~test.mask[name]).any()
            share = changed.sum(1)[changed.any(1)] / test.mask[name].sum(1)[changed.any(1)]
            assert share.mean() == pytest.approx(0.4, abs=0.03)


def test_a_span_placed_by_hand_is_there(made):
    """From the middle of what it can be: with a length of .5, from .25 to .75, in audio alone."""
    _, test = made
    hit = span(test, "occluded", length=0.5, seed=2, modalities=["audio"], start=0.5)
    assert not hit.corrupted["vision"].any()
    for where, mask in zip(hit.corrupted["audio"].any(2), test.mask["audio"], strict=True):
        place = (torch.arange(int(mask.sum())) + 0.5) / int(mask.sum())
        assert torch.equal(where[mask], (place >= 0.25) & (place < 0.75))


def test_what_a_span_puts_in_by_hand():
    """All of two sequences of 4 and 8 real steps, behind 4 of padding and none, by relative place.

    floor(8 (j + 1/2) / 4) is 1, 3, 5, 7 and floor(4 (j + 1/2) / 8) is 0, 0, 1, 1, 2, 2, 3, 3.
    """
    short, long = [0.0] * 4 + [1, 2, 3, 4], [10.0, 20, 30, 40, 50, 60, 70, 80]
    x = torch.tensor([short, long]).unsqueeze(2)
    mask = torch.tensor([[False] * 4 + [True] * 4, [True] * 8])
    part = Batch({"a": x}, {"a": mask}, torch.tensor([0, 1]))
    swapped = span(part, "swapped", length=1.0, start=0.0).features["a"].squeeze(2)
    assert swapped.tolist() == [[0, 0, 0, 0, 20, 40, 60, 80], [1, 1, 2, 2, 3, 3, 4, 4]]
    moved = (span(part, "shifted", length=1.0, start=0.0).features["a"] - x).squeeze(2)
    deviation = float(torch.tensor([1.0, 2, 3, 4, *long]).std(correction=0))
    assert not moved[0, :4].any()
    for row in (moved[0, 4:], moved[1]):
        assert (
            row.abs().tolist() == pytest.approx([2 * deviation] * len(row), rel=1e-5)
            and len(row.sign().unique()) == 1
        )


def test_what_cannot_be_is_refused(made):
    _, test = made
    with pytest.raises(ValueError, match="kind must be one of swapped, occluded, shifted, got 'x'"):
        span(test, "x")
    with pytest.raises(ValueError, match="length must lie in 0 to 1"):
        span(test, "swapped", length=1.5)
    with pytest.raises(ValueError, match="start must lie in 0 to 1"):
        span(test, "swapped", start=-0.1)
