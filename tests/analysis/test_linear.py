"""Linear floors: summaries by hand, what LayerNorm leaves and takes, and a leak that is planted."""

import numpy as np
import pytest
import torch

from vgmr import Batch
from vgmr.analysis.linear import leak, linear_answers, only_scale, summaries, without_scale


def batch(x, label, group=None, mask=None):
    mask = torch.ones(x.shape[:2], dtype=torch.bool) if mask is None else mask
    return Batch({"a": x}, {"a": mask}, label, group)


def test_summaries_are_means_over_real_steps():
    x = torch.tensor([[[1.0, 2.0], [3.0, 6.0], [0.0, 0.0]]])
    part = batch(x, torch.tensor([0]), mask=torch.tensor([[True, True, False]]))
    assert summaries(part, ["a"]).tolist() == [[2.0, 4.0]]
    assert summaries(part, ["a"], roughness=True).tolist() == [[2.0, 4.0, 1.0, 2.0, 2.0, 4.0]]


def test_the_scale_of_a_step_is_what_layer_norm_takes():
    x, mask = torch.randn(3, 4, 5), torch.arange(4) < torch.tensor([[4], [2], [3]])
    x = x * mask.unsqueeze(2)
    left, taken = without_scale(x, mask), only_scale(x, mask)
    wanted = torch.nn.functional.layer_norm(x, (5,)) * mask.unsqueeze(2)
    torch.testing.assert_close(left, wanted)
    back = left * (taken[..., 1:] ** 2 + 1e-5).sqrt() + taken[..., :1]
    torch.testing.assert_close(back, x)


def planted(seed: int, known: float):
    """Features that tell the label of the videos 0 to 9 (`known`: how clearly) and nothing of the others."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.arange(200) % 2
    noise = torch.randn(200, 1, 3, generator=generator)
    noise[:, 0, 0] += known * (2 * label - 1)
    return batch(noise, label, torch.arange(200) // 20)


def test_a_planted_leak_is_found_and_none_where_there_is_none():
    seen, unseen = planted(0, 2.0), planted(1, 0.0)
    found = leak(seen, unseen, ["a"])
    assert found["inside"] > 0.9 and found["outside"] < 0.65
    honest = leak(planted(0, 2.0), planted(1, 2.0), ["a"])
    assert honest["inside"] == pytest.approx(honest["outside"], abs=0.06)


def test_linear_answers_follow_a_line():
    x = np.linspace(-1, 1, 40)[:, None]
    assert (linear_answers(x, (x[:, 0] > 0).astype(int), np.array([[-0.9], [0.9]])) == [0, 1]).all()
