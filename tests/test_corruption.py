"""Corruptions strike where they say and nowhere else."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vgmr import corruption
from vgmr.data import load
from vgmr.data.types import Batch

DIMS = {"text": 3, "audio": 2}
STEPS = {"text": 7, "audio": 12}


def ragged(size: int = 6, seed: int = 0, classes: int = 3) -> Batch:
    """Random values, random lengths, every class there; padding zero."""
    generator = torch.Generator().manual_seed(seed)
    features, mask = {}, {}
    for name, d in DIMS.items():
        length = torch.randint(1, STEPS[name] + 1, (size,), generator=generator)
        mask[name] = torch.arange(STEPS[name]) < length[:, None]
        features[name] = torch.randn(size, STEPS[name], d, generator=generator) * mask[name].unsqueeze(2)
    return Batch(features, mask, torch.arange(size) % classes, torch.arange(size))


CORRUPTIONS = {
    "noise": lambda batch, share, seed: corruption.noise(batch, batch, share, seed=seed),
    "block noise": lambda batch, share, seed: corruption.noise(batch, batch, share, granularity=3, seed=seed),
    "missing": lambda batch, share, seed: corruption.missing(batch, "audio", share, seed),
    "temporal masking": lambda batch, share, seed: corruption.temporal_masking(batch, share, seed=seed),
    "sensor dropout": lambda batch, share, seed: corruption.sensor_dropout(batch, share, seed=seed),
    "asynchrony": lambda batch, share, seed: corruption.asynchrony(batch, round(10 * share), "text"),
    "conflict": lambda batch, share, seed: corruption.conflict(batch, share, seed=seed),
}
every = pytest.mark.parametrize("corrupt", CORRUPTIONS.values(), ids=CORRUPTIONS)
draws = given(st.floats(0, 1), st.integers(0, 10_000))


def spread(batch: Batch, name: str) -> torch.Tensor:
    """`corrupted` in the shape of the features."""
    return batch.corrupted[name].expand_as(batch.features[name])


@every
@draws
def test_outside_corrupted_nothing_changes_by_a_bit(corrupt, share, seed):
    before = ragged(seed=seed)
    after = corrupt(before, share, seed)
    for name, x in before.features.items():
        untouched = ~spread(after, name) & after.mask[name].unsqueeze(2)
        assert torch.equal(after.features[name][untouched], x[untouched])
        assert torch.equal(after.mask[name][untouched.all(2)], before.mask[name][untouched.all(2)])
    assert torch.equal(after.label, before.label) and torch.equal(after.group, before.group)
    after.check(3)


@every
@draws
def test_the_input_stays_as_it_is(corrupt, share, seed):
    before, copy = ragged(seed=seed), ragged(seed=seed)
    corrupt(before, share, seed)
    for name in DIMS:
        assert torch.equal(before.features[name], copy.features[name])
        assert torch.equal(before.mask[name], copy.mask[name])
    assert before.corrupted is None


@every
@draws
def test_padding_is_never_corrupted(corrupt, share, seed):
    after = corrupt(ragged(seed=seed), share, seed)
    for name, mask in after.mask.items():
        assert not after.features[name][~mask].any()
        assert not (spread(after, name) & ~mask.unsqueeze(2)).any()


@every
def test_deterministic_and_drawn_by_its_seed(corrupt, request):
    batch = ragged(60)
    first, second, other = (corrupt(batch, 0.3, seed) for seed in (4, 4, 5))
    for name in DIMS:
        assert torch.equal(first.features[name], second.features[name])
        assert torch.equal(first.corrupted[name], second.corrupted[name])
    if "asynchrony" not in request.node.name:
        assert any(not torch.equal(first.features[name], other.features[name]) for name in DIMS)


@every
def test_a_share_of_nothing_strikes_nothing(corrupt):
    batch = ragged()
    after = corrupt(batch, 0.0, 0)
    for name in DIMS:
        assert torch.equal(after.features[name], batch.features[name]) and not after.corrupted[name].any()


@every
def test_marks_add_up(corrupt):
    first = corruption.temporal_masking(ragged(), 0.5, ["text"], seed=1)
    second = corrupt(first, 0.4, 2)
    for name in DIMS:
        assert (spread(second, name) | ~spread(first, name)).all(), "what was marked stays marked"


def full(size: int, steps: int = 10) -> Batch:
    generator = torch.Generator().manual_seed(1)
    features = {name: torch.randn(size, steps, d, generator=generator) for name, d in DIMS.items()}
    mask = {name: torch.ones(size, steps, dtype=torch.bool) for name in DIMS}
    return Batch(features, mask, torch.arange(size) % 2)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("corrupt", ["noise", "block noise", "missing", "sensor dropout"])
def test_as_much_is_corrupted_as_was_asked_for(corrupt, share):
    """At least 2,000 independent draws each, so the share has a deviation of at most 0.011."""
    after = CORRUPTIONS[corrupt](full(2000), share, 3)
    assert abs(float(spread(after, "audio").float().mean()) - share) < 0.04


def test_modalities_not_asked_for_stay():
    for function in (corruption.temporal_masking, corruption.sensor_dropout, corruption.conflict):
        after = function(ragged(), 1.0, ["audio"], seed=1)
        assert torch.equal(after.features["text"], ragged().features["text"])
        assert not after.corrupted["text"].any() and after.corrupted["audio"].any()
    after = corruption.noise(ragged(), ragged(), 1.0, modalities=["audio"])
    assert torch.equal(after.features["text"], ragged().features["text"])


# Noise


def shifted_train() -> Batch:
    """Real audio steps around (5, -3) with deviations (2, 1/2); half of every sequence is padding."""
    batch = full(400)
    mask = (torch.arange(10) < 5).expand(400, 10)
    x = batch.features["audio"] * torch.tensor([2, 0.5]) + torch.tensor([5.0, -3.0])
    features = {**batch.features, "audio": x * mask.unsqueeze(2)}
    return Batch(features, {**batch.mask, "audio": mask}, batch.label)


def test_noise_has_mean_and_deviation_of_the_training_part():
    drawn = corruption.noise(full(2000), shifted_train(), 1.0).features["audio"].flatten(0, 1)
    torch.testing.assert_close(drawn.mean(0), torch.tensor([5.0, -3.0]), atol=0.12, rtol=0)
    torch.testing.assert_close(drawn.std(0), torch.tensor([2, 0.5]), atol=0, rtol=0.05)


def test_weight_of_the_noise():
    """x' = (1 - w) x + w e, section 4.8: with w = 1/4 the noise stays when 3/4 x is taken away."""
    batch = full(2000)
    weighted = corruption.noise(batch, shifted_train(), 1.0, weight=0.25, seed=1).features["audio"]
    whole = corruption.noise(batch, shifted_train(), 1.0, weight=1.0, seed=1).features["audio"]
    torch.testing.assert_close(weighted, 0.75 * batch.features["audio"] + 0.25 * whole)
    none = corruption.noise(batch, shifted_train(), 1.0, weight=0.0)
    assert torch.equal(none.features["audio"], batch.features["audio"])


@given(st.integers(1, 14), st.integers(0, 10_000))
def test_noise_strikes_whole_blocks(granularity, seed):
    batch = ragged(seed=seed)
    after = corruption.noise(batch, batch, 0.5, granularity=granularity, seed=seed)
    for name in DIMS:
        corrupted = after.corrupted[name].squeeze(2)
        for start in range(0, STEPS[name], granularity):
            block = slice(start, start + granularity)
            real = batch.mask[name][:, block]
            assert torch.equal(corrupted[:, block], corrupted[:, block].any(1, keepdim=True) & real)


@pytest.mark.parametrize("granularity", [1.5, 0, True, "2"])
def test_blocks_are_of_whole_steps(granularity):
    with pytest.raises(ValueError, match=f"granularity .*got .*{granularity}"):
        corruption.noise(full(4), full(4), 0.5, granularity=granularity)


def test_blocks_of_one_step_are_corrupted_one_by_one():
    """Neighbours agree in half of the cases; in blocks of five, four of five neighbours must."""

    def agreement(granularity: int) -> float:
        corrupted = (
            corruption.noise(full(500), full(500), 0.5, granularity=granularity).corrupted["text"].squeeze(2)
        )
        return float((corrupted[:, 1:] == corrupted[:, :-1]).float().mean())

    assert abs(agreement(1) - 0.5) < 0.03
    assert abs(agreement(5) - (8 + 0.5) / 9) < 0.03


@pytest.mark.parametrize("options", [{"weight": -0.1}, {"weight": 1.1}, {"weight": "loud"}, {"granularity": 0}])
def test_noise_refuses(options):
    ((what, value),) = options.items()
    asked = {"weight": "lie in 0 to 1", "granularity": "be a whole number of at least 1"}[what]
    with pytest.raises(ValueError, match=f"^{what} must {asked}, got {value!r}$"):
        corruption.noise(ragged(), ragged(), 0.5, **options)


# Missing, masked, dropped


def test_missing_is_zero_in_whole_samples():
    after = corruption.missing(ragged(100), "audio", 0.5)
    gone = after.corrupted["audio"].flatten(1).any(1)
    assert 30 < int(gone.sum()) < 70
    assert not after.features["audio"][gone].any()
    assert after.features["audio"][~gone].flatten(1).any(1).all()
    assert not corruption.missing(ragged(), "audio").features["audio"].any(), "all by default"


@given(st.floats(0, 1), st.integers(0, 10_000))
def test_temporal_masking_is_one_stretch_of_the_right_length(share, seed):
    batch = ragged(seed=seed)
    after = corruption.temporal_masking(batch, share, seed=seed)
    for name in DIMS:
        corrupted = after.corrupted[name].squeeze(2)
        assert ((corrupted.sum(1) - share * batch.mask[name].sum(1)).abs() <= 0.5 + 1e-5).all()
        edges = torch.nn.functional.pad(corrupted.int(), (1, 1)).diff(dim=1).abs().sum(1)
        assert set(edges.tolist()) <= {0, 2}
        assert not after.features[name][corrupted].any()


def test_temporal_masking_begins_anywhere():
    corrupted = corruption.temporal_masking(full(2000), 0.3).corrupted["text"].squeeze(2)
    begins = corrupted.int().argmax(1).bincount(minlength=8)
    assert corrupted.sum(1).eq(3).all() and len(begins) == 8
    assert (begins / 2000 - 1 / 8).abs().max() < 0.03, "eight places for three of ten steps, alike"


def test_sensor_dropout_takes_whole_channels():
    batch = ragged(200)
    after = corruption.sensor_dropout(batch, 0.4)
    for name in DIMS:
        dead = after.corrupted[name].any(1, keepdim=True)
        assert torch.equal(after.corrupted[name], dead & batch.mask[name].unsqueeze(2))
        assert not after.features[name][dead.expand_as(after.features[name])].any()
        assert 0.3 < dead.float().mean() < 0.5


# Asynchrony


def test_asynchrony_by_hand():
    x = torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 0], [8, 0, 0, 0]]).unsqueeze(2)
    batch = Batch({"text": x}, {"text": x.squeeze(2) != 0}, torch.zeros(3, dtype=torch.int64))

    def moved(shift: int) -> list[list[float]]:
        return corruption.asynchrony(batch, shift, "text").features["text"].squeeze(2).tolist()

    assert moved(1) == [[4, 1, 2, 3], [7, 5, 6, 0], [8, 0, 0, 0]]
    assert moved(-1) == [[2, 3, 4, 1], [6, 7, 5, 0], [8, 0, 0, 0]]
    assert moved(4) == [[1, 2, 3, 4], [7, 5, 6, 0], [8, 0, 0, 0]]
    corrupted = corruption.asynchrony(batch, 4, "text").corrupted["text"].squeeze(2)
    assert corrupted.tolist() == [[False] * 4, [True] * 3 + [False], [False] * 4], "a full turn changes nothing"


@given(st.integers(-30, 30), st.integers(0, 10_000))
def test_asynchrony_rotates_the_real_steps_only(shift, seed):
    batch = ragged(seed=seed)
    after = corruption.asynchrony(batch, shift, "audio")
    for row, length in enumerate(batch.lengths()["audio"].tolist()):
        x, y = batch.features["audio"][row], after.features["audio"][row]
        assert torch.equal(y[:length], x[:length].roll(shift, 0))
        assert sorted(map(tuple, y.tolist())) == sorted(map(tuple, x.tolist()))


# Conflict


@given(st.floats(0, 1), st.integers(0, 10_000))
def test_conflict_takes_a_sample_of_another_class_with_its_length(share, seed):
    batch = ragged(12, seed=seed)
    after = corruption.conflict(batch, share, seed=seed)
    corrupted = torch.stack([hit.flatten(1).any(1) for hit in after.corrupted.values()])
    assert corrupted.sum(0).max() <= 1 and int(corrupted.sum()) == round(share * 12)
    for position, name in enumerate(DIMS):
        for row in corrupted[position].nonzero().flatten().tolist():
            same = (batch.features[name] == after.features[name][row]).flatten(1).all(1)
            same &= (batch.mask[name] == after.mask[name][row]).all(1)
            origin = batch.label[same]
            assert len(origin) == 1 and origin[0] != batch.label[row]


def test_conflict_strikes_every_modality_and_any_other_class():
    batch = full(900)
    batch = Batch(batch.features, batch.mask, torch.arange(900) % 3)
    after = corruption.conflict(batch, 1.0)
    assert abs(float(after.corrupted["text"].flatten(1).any(1).float().mean()) - 0.5) < 0.07
    rows = after.corrupted["text"].flatten(1).any(1).nonzero().flatten()
    first = batch.features["text"][:, 0, 0]
    origin = torch.tensor([int((first == after.features["text"][row, 0, 0]).nonzero()[0]) for row in rows])
    step = (batch.label[origin] - batch.label[rows]) % 3
    assert abs(float((step == 1).float().mean()) - 0.5) < 0.1 and not (step == 0).any()


def test_conflict_needs_two_classes():
    with pytest.raises(ValueError, match="a conflict needs at least two classes in the batch"):
        corruption.conflict(ragged(classes=1), 0.5)


# Errors


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
@pytest.mark.parametrize("corrupt", [name for name in CORRUPTIONS if name != "asynchrony"])
def test_a_share_lies_in_0_to_1(corrupt, share):
    with pytest.raises(ValueError, match=r"^share must lie in 0 to 1, got"):
        CORRUPTIONS[corrupt](ragged(), share, 0)


@pytest.mark.parametrize(
    "call",
    [
        lambda batch: corruption.noise(batch, batch, 0.5, modalities=["text", "video"]),
        lambda batch: corruption.missing(batch, "video"),
        lambda batch: corruption.temporal_masking(batch, 0.5, ["video"]),
        lambda batch: corruption.sensor_dropout(batch, 0.5, ["video"]),
        lambda batch: corruption.asynchrony(batch, 1, "video"),
        lambda batch: corruption.conflict(batch, 0.5, ["video"]),
    ],
)
def test_unknown_modalities_are_named(call):
    with pytest.raises(ValueError, match=r"unknown modalities \['video'\]; there are \['text', 'audio'\]"):
        call(ragged())


@pytest.mark.parametrize("batch_seed", range(3))
def test_noise_without_weight_corrupts_nothing(batch_seed):
    batch = load("synthetic", like="mosi", samples=9, seed=batch_seed).train
    same = corruption.noise(batch, batch, 1.0, weight=0.0)
    assert same.corrupted is not None and not any(hit.any() for hit in same.corrupted.values())
    assert all(torch.equal(x, batch.features[name]) for name, x in same.features.items())
    assert any(hit.any() for hit in corruption.noise(batch, batch, 1.0, weight=1e-6).corrupted.values())
