"""The half-split baseline of gradient cosines: made gradients of known cosine, models of known answers."""

import pytest
import torch
from made_batches import DIMS, batch, transformer

from vgmr.analysis.gradients import (
    common_parameters,
    cosine,
    gradients,
    half_cosines,
    half_split,
    halves,
    split_measures,
)
from vgmr.backbones import PooledBackbone
from vgmr.classifier import Classifier
from vgmr.data import Batch
from vgmr.prefusion import Identity


def three_classes(size: int = 12) -> Batch:
    part = batch(size, padded=False)
    return Batch(part.features, part.mask, torch.arange(size) % 3)


def small() -> Classifier:
    return transformer(classes=3, seed=1, max_length=4, num_heads=1, feedforward_dim=4)


def test_halves_hold_every_row_once_and_each_class_to_one_row():
    label = torch.tensor([0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2])
    first, second = halves(label, torch.Generator().manual_seed(3))
    assert sorted([*first.tolist(), *second.tolist()]) == list(range(len(label)))
    counts = [label[rows].bincount(minlength=3) for rows in (first, second)]
    assert int((counts[0] - counts[1]).abs().max()) <= 1
    assert abs(len(first) - len(second)) <= 1
    with pytest.raises(ValueError, match="at least two samples to halve, got 1"):
        halves(label[:1], torch.Generator())


def test_the_gradient_of_all_is_the_mean_of_those_of_equal_halves():
    model, part = small(), three_classes()
    first, second = halves(part.label, torch.Generator().manual_seed(0))
    whole, one, other = (
        gradients(model, rows, [["sound"]])[0] for rows in (part, part.index(first), part.index(second))
    )
    torch.testing.assert_close(whole, (one + other) / 2, atol=1e-6, rtol=0)


def test_halves_that_are_copies_have_baseline_one_and_the_full_cosine():
    model, part = small(), three_classes()
    table = half_cosines(model, part, part).set_index(["one", "other", "group"])
    alone, both = gradients(model, part, [["video"], ["sound", "video"]])
    row = table.loc["video", "sound", "all"]
    assert row["baseline"] == pytest.approx(1, abs=1e-6)
    assert row["raw"] == row["disattenuated"] == pytest.approx(cosine(alone, both), abs=1e-6)
    assert set(table.index.get_level_values("group")) == {"all", "shared", "head"}
    size = sum(p.numel() for p in model.backbone.shared_parameters())
    assert table.loc["video", "sound", "head"]["raw"] == pytest.approx(cosine(alone[size:], both[size:]), abs=1e-6)
    assert len(alone) == sum(p.numel() for p in common_parameters(model))


def test_a_modality_that_adds_nothing_leaves_no_conflict_in_any_split():
    torch.manual_seed(2)
    backbone = PooledBackbone(DIMS, 3, width=4)
    for parameter in backbone.encoder["video"].parameters():
        torch.nn.init.zeros_(parameter)
    table = half_split(Classifier(Identity(DIMS), backbone), three_classes(), repeats=4)
    silent = table[(table["one"] == "sound") & (table["other"] == "video")]
    assert len(silent) == 4
    assert silent["adjusted"].abs().max() < 1e-9
    assert (silent["disattenuated"] - 1).abs().max() < 1e-9
    assert silent["baseline"].nunique() == 4  # the halves differ between repeats
    spoken = table[(table["one"] == "video") & (table["other"] == "sound")]
    assert (spoken["raw"] - 1).abs().min() > 0.01


@pytest.mark.parametrize("true", [-0.3, 0.0, 0.6])
@pytest.mark.parametrize(("noise", "baseline"), [(0.4, 0.86), (0.8, 0.61)])
def test_made_gradients_give_their_cosine_back(true, noise, baseline):
    """Two directions of known cosine, and noise that is the same in both within a half."""
    generator = torch.Generator().manual_seed(0)
    size, rows, within = 300, [], []
    for _ in range(200):
        first, second = torch.linalg.qr(torch.randn(size, 2, generator=generator, dtype=torch.float64)).Q.T
        second = true * first + (1 - true**2) ** 0.5 * second
        shared = noise * torch.randn(2, size, generator=generator, dtype=torch.float64) / size**0.5
        one, both = first + shared, second + shared
        rows.append(split_measures((one[0], one[1]), (both[0], both[1])))
        within.append(cosine(one[0], both[0]))
    mean = {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}
    assert mean["baseline"] == pytest.approx(baseline, abs=0.02)
    assert mean["raw"] == pytest.approx(true * baseline, abs=0.02)
    assert mean["adjusted"] == pytest.approx(mean["raw"] - mean["baseline"])
    assert mean["disattenuated"] == pytest.approx(true, abs=0.02)
    # the same samples in both would have raised it: the reason to take different halves
    assert sum(within) / len(within) > true * baseline + 0.05


def test_no_cosine_is_made_up_where_halves_disagree():
    x, y = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    found = split_measures((x, -x), (x + y, x - y))
    assert torch.isnan(torch.tensor(found["disattenuated"]))
    assert found["baseline"] == pytest.approx(0)
