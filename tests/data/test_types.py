"""`Batch`, `MultimodalData`, `load` and the helpers of every loader."""

import hashlib
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import vgmr.data
from vgmr.data import load, names
from vgmr.data.types import Batch, MultimodalData, fingerprint, holdout, is_constant, joined, pad

LENGTHS = {"text": [3, 1, 2, 3], "audio": [1, 2, 2, 1]}


def ragged(shift: float = 0.0, **changes) -> Batch:
    """Four samples; entry (sample, step, channel) of text is 100 sample + 10 step + channel + shift."""
    features, mask = {}, {}
    for name, steps, d in (("text", 3, 2), ("audio", 2, 1)):
        sample, step, channel = torch.meshgrid(
            torch.arange(4), torch.arange(steps), torch.arange(d), indexing="ij"
        )
        real = torch.arange(steps) < torch.tensor(LENGTHS[name])[:, None]
        features[name] = ((100 * sample + 10 * step + channel).float() + shift) * real[:, :, None]
        mask[name] = real
    corrupted = {name: (x > 200).any(2, keepdim=True) for name, x in features.items()}
    batch = Batch(features, mask, torch.tensor([0, 1, 2, 0]), torch.tensor([7, 7, 8, 9]), corrupted)
    return replace(batch, **changes)


def dataset(**changes) -> MultimodalData:
    parts = {"train": ragged(), "validation": ragged(1), "test": ragged(2)}
    content = {"classes": ("a", "b", "c"), "source": "made", "licence": "none", "fingerprint": "0", **parts}
    content["overlap"] = "made so"
    return MultimodalData("made", **{**content, **changes})


def same(one: Batch, other: Batch) -> bool:
    def equal(a, b):
        return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)

    return (
        equal(one.features, other.features)
        and equal(one.mask, other.mask)
        and equal(one.corrupted, other.corrupted)
        and torch.equal(one.label, other.label)
        and torch.equal(one.group, other.group)
    )


# Batch


def test_what_a_batch_says_of_itself():
    batch = ragged()
    assert len(batch) == 4
    assert batch.dims == {"text": 2, "audio": 1}
    assert {name: length.tolist() for name, length in batch.lengths().items()} == LENGTHS


@given(st.lists(st.integers(0, 3), max_size=6))
def test_index_takes_everything_of_a_sample_together(rows):
    whole, taken = ragged(), ragged().index(torch.tensor(rows, dtype=torch.int64))
    assert taken.label.tolist() == [[0, 1, 2, 0][row] for row in rows]
    assert taken.group.tolist() == [[7, 7, 8, 9][row] for row in rows]
    for position, row in enumerate(rows):
        for name in whole.features:
            assert torch.equal(taken.features[name][position], whole.features[name][row])
            assert torch.equal(taken.mask[name][position], whole.mask[name][row])
            assert torch.equal(taken.corrupted[name][position], whole.corrupted[name][row])


def test_index_and_select_without_group_and_corrupted():
    bare = ragged(group=None, corrupted=None)
    for batch in (bare.index(torch.tensor([1])), bare.select(["text"]), bare.to("cpu")):
        assert batch.group is None and batch.corrupted is None


def test_select_keeps_the_samples_and_the_order_asked_for():
    batch = ragged().select(["audio"])
    assert list(batch.features) == list(batch.mask) == list(batch.corrupted) == ["audio"]
    assert torch.equal(batch.features["audio"], ragged().features["audio"])
    assert batch.group.tolist() == [7, 7, 8, 9] and batch.label.tolist() == [0, 1, 2, 0]
    assert list(ragged().select(["audio", "text"]).features) == ["audio", "text"]


def test_to_moves_everything():
    """The meta device stands for any other."""
    moved = ragged().to("meta")
    tensors = [moved.label, moved.group]
    for group in (moved.features, moved.mask, moved.corrupted):
        tensors += group.values()
    assert len(tensors) == 8 and all(tensor.is_meta for tensor in tensors)
    assert same(ragged().to("cpu"), ragged())
    assert not replace(ragged(), padded=False).to("cpu").padded and ragged().to("cpu").padded


def test_a_good_batch_passes_its_check():
    ragged().check(3)
    ragged(group=None, corrupted=None).check(4)


def text(change) -> Batch:
    """The good batch with `change` made to its text features."""
    batch = ragged()
    return replace(batch, features={**batch.features, "text": change(batch.features["text"].clone())})


def text_mask(change) -> Batch:
    batch = ragged()
    return replace(batch, mask={**batch.mask, "text": change(batch.mask["text"].clone())})


def put(x, where, value):
    x[where] = value
    return x


def hole() -> Batch:
    """Sample 2 of text all zero, its first step marked as padding and the other two as real."""
    batch = text(lambda x: put(x, 2, 0.0))
    return replace(
        batch, mask={**batch.mask, "text": put(batch.mask["text"], 2, torch.tensor([False, True, True]))}
    )


WRONG = {
    "names": (
        lambda: ragged(mask={"text": ragged().mask["text"]}),
        "mask names ['text'] differ",
        "['audio', 'text']",
    ),
    "flat": (
        lambda: text(lambda x: x[:, 0]),
        "text: expected float32 features of shape (4, T, d)",
        "x[:, None] makes",
    ),
    "double": (lambda: text(torch.Tensor.double), "text: expected float32", "torch.float64"),
    "fewer samples": (
        lambda: text(lambda x: x[:3]),
        "text: expected float32 features of shape (4, T, d)",
        "(3, 3, 2)",
    ),
    "mask type": (lambda: text_mask(torch.Tensor.float), "text: expected a bool mask", "torch.float32"),
    "mask shape": (
        lambda: text_mask(lambda mask: mask[:, :2]),
        "text: expected a bool mask of shape (4, 3)",
        "(4, 2)",
    ),
    "no steps": (
        lambda: text_mask(lambda mask: put(mask, 1, False)),
        "text: sample 1 has no real time step",
        "at least one, such as the mean of the training part",
    ),
    "NaN": (
        lambda: text(lambda x: put(x, (2, 1, 0), float("nan"))),
        "text: sample 2 holds NaN or infinite",
        "clean",
    ),
    "infinite": (
        lambda: text(lambda x: put(x, (3, 0, 1), -float("inf"))),
        "text: sample 3 holds NaN or infinite",
        "",
    ),
    "padding": (lambda: text(lambda x: put(x, (1, 2, 1), 0.5)), "text: padded time steps must hold zeros", ""),
    "hole": (lambda: hole(), "text: sample 2", "padding"),
    "label type": (lambda: ragged(label=torch.tensor([0.0, 1, 2, 0])), "label: expected int64", "torch.float32"),
    "label shape": (lambda: ragged(label=torch.zeros(4, 1, dtype=torch.int64)), "label: expected int64", "(4, 1)"),
    "label low": (
        lambda: ragged(label=torch.tensor([0, -1, 2, 0])),
        "label: expected 0 to 2 for 3 classes",
        "-1 to 2",
    ),
    "label high": (
        lambda: ragged(label=torch.tensor([0, 1, 3, 0])),
        "label: expected 0 to 2 for 3 classes",
        "0 to 3",
    ),
    "group size": (lambda: ragged(group=torch.tensor([7, 7, 8])), "group", "3"),
    "corrupted names": (
        lambda: ragged(corrupted={"text": torch.zeros(4, 1, 1, dtype=torch.bool)}),
        "corrupted",
        "text",
    ),
    "no modality": (lambda: Batch({}, {}, torch.tensor([0, 1])), "at least one modality", "none"),
    "nothing selected": (lambda: ragged().select([]), "at least one modality", "got []", "['text', 'audio']"),
    "corrupted shape": (
        lambda: ragged(corrupted={name: torch.zeros(3, 1, 1, dtype=torch.bool) for name in LENGTHS}),
        "corrupted",
        "3, 1, 1",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_check_refuses_in_one_line(wrong):
    """Modality, what was expected, what came. A mask with a hole in it is refused: padding stands at the end."""
    make, *parts = WRONG[wrong]
    with pytest.raises(ValueError) as caught:
        make().check(3)
    message = str(caught.value)
    assert "\n" not in message and all(part in message for part in parts), message


def test_check_looks_at_dicts_again_that_were_written_into():
    """What is taken of a batch is not looked at in every step; `check`, before a training, finds it."""
    batch = ragged().span(0, 3)
    batch.mask["text"] = batch.mask["text"][:, :-1]
    with pytest.raises(ValueError, match=r"^text: expected a bool mask of shape"):
        batch.check(3)


def test_samples_of_a_subclass_are_a_batch_without_what_is_its_own():
    """Weights of all samples beside some of them would be those of others."""

    @dataclass(frozen=True)
    class Weighted(Batch):
        weight: torch.Tensor | None = None

        def __post_init__(self):
            assert not hasattr(self, "made"), "it is made once"
            object.__setattr__(self, "made", True)

    plain = ragged()
    parts = plain.features, plain.mask, plain.label, plain.group, plain.corrupted
    batch = Weighted(*parts, weight=torch.arange(4.0))
    batch.check(3)
    taken = batch.index(torch.tensor([3, 1]))
    assert type(taken) is Batch and vars(taken).keys() == vars(plain).keys() and taken.padded


def test_types_are_not_changed_by_the_way():
    with pytest.raises(ValueError, match=r"torch.float64"):
        ragged().to(torch.float64)


# MultimodalData


def test_what_data_say_of_themselves():
    longer = ragged().features["text"], ragged().mask["text"]
    features = {**ragged().features, "text": torch.nn.functional.pad(longer[0], (0, 0, 0, 2))}
    mask = {**ragged().mask, "text": torch.nn.functional.pad(longer[1], (0, 2))}
    data = dataset(test=ragged(features=features, mask=mask, corrupted=None))
    data.check()
    assert list(data.parts) == ["train", "validation", "test"] and data.modalities == ["text", "audio"]
    assert data.dims == {"text": 2, "audio": 1}
    assert data.max_lengths == {"text": 5, "audio": 2}, "the test part counts too"
    assert data.majority_rate == 0.5, "class 0 has two of the four test labels"


def test_majority_rate_is_that_of_the_test_part():
    assert dataset(train=ragged(label=torch.tensor([1, 1, 1, 1]))).majority_rate == 0.5


def test_select_and_to_change_every_part():
    data = dataset().select(["audio"]).to("meta")
    for part in data.parts.values():
        assert list(part.features) == ["audio"] and part.features["audio"].is_meta
    with pytest.raises(ValueError, match=r"unknown modalities \['video'\]; made has \['text', 'audio'\]"):
        dataset().select(["audio", "video"])


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_check_names_the_part(part):
    dataset().check()
    broken = dataset(**{part: ragged(label=torch.tensor([0, 1, 2, 9]))})
    with pytest.raises(ValueError, match=f"^made, {part}: label: expected 0 to 2 for 3 classes, got 0 to 9$"):
        broken.check()


@pytest.mark.parametrize(
    ("classes", "line"),
    [
        (("a",), "made: expected two classes or more, got ('a',); give () for regression"),
        (("a", "b", "a"), "made: expected every class name once, got 'a' more than once; rename or merge"),
        ("abc", "made: expected a tuple of class names, got 'abc'; give ('a', 'b')"),
    ],
)
def test_check_refuses_classes_that_are_no_names(classes, line):
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        dataset(classes=classes).check()


def test_check_refuses_a_part_that_is_none():
    with pytest.raises(
        ValueError, match=r"^made, validation: expected a Batch, got NoneType; every part needs one$"
    ):
        dataset(validation=None).check()


def test_data_without_a_modality_are_refused():
    with pytest.raises(ValueError, match=r"^expected at least one modality to select, got \[\]; give some of"):
        dataset().select([])
    bare = Batch({}, {}, torch.tensor([0, 1, 2]))
    with pytest.raises(ValueError, match=r"^made, train: features: expected at least one .*, got none"):
        dataset(train=bare, validation=bare, test=bare).check()


def test_check_refuses_parts_with_other_dimensions():
    other = ragged(features={**ragged().features, "text": ragged().features["text"][:, :, :1]})
    with pytest.raises(ValueError, match=r"made, test: dims \{'text': 1, 'audio': 1\} differ .*'text': 2"):
        dataset(test=other).check()


# Standardisation


def test_standardised_by_hand():
    """Audio in training has real steps 0; 100, 110; 200, 210; 300: mean 920 / 6, counted by hand."""
    real = np.array([0, 100, 110, 200, 210, 300], float)
    mean, deviation = 920 / 6, np.sqrt((real**2).mean() - (920 / 6) ** 2)
    x = dataset().standardised().train.features["audio"][:, :, 0].numpy()
    expected = (np.array([[0, 0], [100, 110], [200, 210], [300, 0]]) - mean) / deviation
    expected[[0, 3], 1] = 0
    np.testing.assert_allclose(x, expected, rtol=1e-5)


def test_standardised_training_steps_have_mean_0_and_deviation_1():
    train = dataset().standardised().train
    for name, x in train.features.items():
        real = x[train.mask[name]]
        torch.testing.assert_close(real.mean(0), torch.zeros(x.shape[2]), atol=1e-6, rtol=0)
        torch.testing.assert_close(real.std(0, correction=0), torch.ones(x.shape[2]))


def test_standardisation_sees_the_training_part_only():
    changed = dataset(test=ragged(1e4), validation=ragged(-1e4)).standardised()
    assert same(changed.train, dataset().standardised().train)
    shifted = dataset(test=ragged(0)).standardised()
    assert same(shifted.test, shifted.train), "the same values come out the same in every part"


def test_padding_stays_zero_and_is_no_step():
    data = dataset().standardised()
    data.check()
    for part in data.parts.values():
        for name, x in part.features.items():
            assert not x[~part.mask[name]].any() and x[part.mask[name]].any()


def test_a_channel_without_information_in_training_is_0_in_every_part_and_counted():
    x = torch.arange(24.0).reshape(4, 3, 2)
    mask = {"text": torch.ones(4, 3, dtype=torch.bool)}
    label = torch.tensor([0, 1, 2, 0])
    batch = Batch({"text": torch.stack([x[..., 0], torch.full((4, 3), 5.0)], 2)}, mask, label)
    later = Batch({"text": torch.stack([x[..., 0], torch.full((4, 3), 1e6)], 2)}, mask, label)
    data = dataset(train=batch, validation=later, test=later, notes={"seen": 1}).standardised()
    for part in data.parts.values():
        assert not part.features["text"][..., 1].any() and part.features["text"][..., 0].std() > 0.9
    assert data.notes == {"seen": 1, "channels without information in training, set to 0": {"text": 1}}
    assert dataset().standardised().notes == {}


@given(st.floats(-12, 12), st.floats(-3, 3), st.integers(0, 1000))
def test_the_size_of_a_channel_does_not_matter(power, offset, seed):
    """Volts or nanovolts: standardised features are the same, and nothing is taken for constant."""
    x = torch.randn(4, 3, 2, generator=torch.Generator().manual_seed(seed)) + offset
    mask = {"text": torch.ones(4, 3, dtype=torch.bool)}

    def made(scale):
        batch = Batch({"text": x * scale}, mask, torch.tensor([0, 1, 2, 0]))
        return dataset(train=batch, validation=batch, test=batch).standardised()

    plain, scaled = made(1.0), made(10.0**power)
    assert scaled.notes == {}
    torch.testing.assert_close(scaled.test.features["text"], plain.test.features["text"], rtol=1e-3, atol=1e-4)


@given(st.floats(-12, 12))
def test_a_constant_is_a_constant_at_any_size(power):
    x = torch.full((4, 3, 1), 10.0**power)
    batch = Batch({"text": x}, {"text": torch.ones(4, 3, dtype=torch.bool)}, torch.tensor([0, 1, 2, 0]))
    data = dataset(train=batch, validation=batch, test=batch).standardised()
    assert not data.test.features["text"].any() and data.notes


# Parts apart, blank modalities, what a batch refuses when made


def rows(start, group=None, scale=1.0):
    x = scale * (start + torch.arange(12.0).reshape(4, 3, 1))
    group = None if group is None else torch.tensor(group)
    return Batch({"text": x}, {"text": torch.ones(4, 3, dtype=torch.bool)}, torch.tensor([0, 1, 2, 0]), group)


def test_a_group_or_a_sample_in_two_parts_is_refused_unless_allowed():
    apart = {"train": rows(0, [1, 1, 2, 2]), "validation": rows(20, [3, 3, 3, 3]), "test": rows(40, [4, 4, 5, 5])}
    dataset(**apart, overlap="").check()
    shared = {**apart, "test": rows(40, [4, 2, 5, 5])}
    message = r"^made: train and test share 1 groups \(first: sample 2 of train\); split by group, or say in"
    with pytest.raises(ValueError, match=message):
        dataset(**shared, overlap="").check()
    dataset(**shared, overlap="the published lists share speakers").check()
    same_row = {**apart, "test": rows(26, [4, 4, 5, 5])}
    with pytest.raises(ValueError, match=r"validation and test share 2 identical samples \(first: sample 2"):
        dataset(**same_row, overlap="").check()
    padded = rows(26, [4, 4, 5, 5])
    padded = replace(
        padded,
        features={"text": torch.nn.functional.pad(padded.features["text"], (0, 0, 0, 2))},
        mask={"text": torch.nn.functional.pad(padded.mask["text"], (0, 2))},
    )
    with pytest.raises(ValueError, match="share 2 identical samples"):
        dataset(**{**apart, "test": padded}, overlap="").check()


def test_samples_are_not_identical_whose_values_stand_in_other_modalities():
    def parted(text, audio):
        x, mask = pad([np.array([[value]]) for value in (5, 6, 7)] + [np.array(text)[:, None]])
        y, other = pad([np.array([[value]]) for value in (5, 6, 7)] + [np.array(audio)[:, None]])
        return Batch({"a": y, "b": x}, {"a": other, "b": mask}, torch.tensor([0, 1, 2, 0]))

    def shifted(batch, by):
        features = {name: (x + by) * batch.mask[name][..., None] for name, x in batch.features.items()}
        return replace(batch, features=features)

    one, other = parted([1, 2], [3]), parted([2], [3, 1])
    first = {name: x[3:] for name, x in other.features.items()}
    last = Batch(first, {name: x[3:] for name, x in other.mask.items()}, torch.tensor([0]))
    dataset(train=one, validation=shifted(one, 50), test=last, overlap="").check()


def test_a_modality_that_never_changes_in_a_part_is_warned_of(monkeypatch):
    def constant(part):
        batch = getattr(dataset(), part)
        x = torch.full_like(batch.features["text"], -23.0) * batch.mask["text"][..., None]
        return dataset(**{part: replace(batch, features={**batch.features, "text": x})})

    for part in ("train", "test"):
        monkeypatch.setattr(vgmr.data, "loader", lambda name, part=part: lambda: constant(part))
        line = f"text is the same in every step of every sample of the {part} part; look at its files"
        with pytest.warns(UserWarning, match=f"^made: {line}$"):
            assert load("made").notes["warnings"] == [line]
    one = ragged().index(torch.tensor([1])).select(["text"])
    assert not is_constant(one, "text"), "one step is no sign"


@pytest.mark.parametrize("value", ["no", 1, None])
def test_what_is_true_or_false_takes_nothing_else(value):
    with pytest.raises(ValueError, match=f"^standardise must be True or False, got {value!r}$"):
        load("digits", standardise=value)
    with pytest.raises(ValueError, match=f"^allow_partial must be True or False, got {value!r}$"):
        load("utd-mhad", allow_partial=value)


def test_batches_and_data_are_equal_to_themselves_only():
    batch, data = ragged(), dataset()
    assert batch == batch and batch != ragged() and len({batch, ragged()}) == 2
    assert data == data and data != dataset() and len({data, dataset()}) == 2


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_a_blank_modality_is_refused_by_name(part, monkeypatch):
    good = dataset()
    blank = getattr(good, part)
    blank = replace(blank, features={**blank.features, "audio": torch.zeros_like(blank.features["audio"])})
    broken = replace(good, **{part: blank})
    monkeypatch.setattr(vgmr.data, "loader", lambda name: lambda: broken)
    with pytest.raises(ValueError, match=f"^made, {part}: audio holds no value but 0"):
        load("made")
    monkeypatch.setattr(vgmr.data, "loader", lambda name: lambda: good)
    assert load("made").modalities == ["text", "audio"]


def test_slices_masks_and_indices():
    batch = ragged(row=torch.arange(4))
    for which, expected in {
        (1, 3): [1, 2],
        (None, 2): [0, 1],
        (2, None): [2, 3],
    }.items():
        taken = batch[slice(*which)]
        assert taken.row.tolist() == expected and same(taken, batch.index(torch.tensor(expected)))
    assert batch[torch.tensor([True, False, False, True])].row.tolist() == [0, 3]
    assert batch[torch.tensor([3, 3, 0])].row.tolist() == [3, 3, 0]
    assert batch[::2].row.tolist() == [0, 2] and len(batch[5:]) == 0
    assert batch[::-1].row.tolist() == [3, 2, 1, 0] and batch[-2:].row.tolist() == [2, 3]
    assert batch[::2].to("cpu").select(["text"]).row.tolist() == [0, 2]
    for wrong in (0, torch.tensor([True, False]), torch.tensor([0.5]), [0, 1], "text"):
        with pytest.raises(TypeError, match=r"by a slice, a bool mask of shape \(4,\) or an int64 index"):
            batch[wrong]
    with pytest.raises(ValueError, match=r"^unknown modalities \['smell'\]; the batch has \['text', 'audio'\]$"):
        batch.select(["text", "smell"])
    for whole in (batch, dataset()):
        with pytest.raises(ValueError, match=r"^expected a list of modalities, got 'audio'; give \['audio'\]$"):
            whole.select("audio")
    for wrong in ([-1], [0, 4]):
        with pytest.raises(
            IndexError, match=rf"^expected samples 0 to 3, got {min(wrong)} to {max(wrong)}; count"
        ):
            batch[torch.tensor(wrong)]
    assert len(batch[torch.tensor([], dtype=torch.int64)]) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label": np.array([0, 1, 2, 0])}, "label: expected a torch tensor, got a numpy array; use torch.from_n"),
        ({"label": [0, 1, 2, 0]}, "label: expected a torch tensor, got list"),
        ({"label": torch.tensor([0, 1, 2, 0], dtype=torch.int32)}, "label: expected int64 classes"),
        ({"features": {"text": np.zeros((4, 3, 2))}}, "features of text: expected a torch tensor, got a numpy"),
        ({"features": {0: torch.zeros(4, 3, 2)}}, "features: expected names of modalities as text, got 0"),
        (
            {"label": torch.zeros(4, 1).long()},
            "label.float() converts them, label.flatten() those of shape (B, 1)",
        ),
        ({"features": [torch.zeros(4, 3, 2)]}, "features: expected a dict of modality name -> tensor, got list"),
        ({"group": np.zeros(4)}, "group: expected a torch tensor, got a numpy array"),
        ({"row": torch.zeros(4)}, "row: expected int64 of shape (4,), got torch.float32"),
    ],
)
def test_a_batch_says_what_it_expected_when_it_is_made(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        ragged(**changes)
    assert "\n" not in str(caught.value)


def test_regression_has_values_and_no_classes():
    value = torch.tensor([0.5, -3.0, 2.0, 0.0])
    parts = {part: ragged(shift, label=value) for shift, part in enumerate(("train", "validation", "test"))}
    data = dataset(**parts, classes=())
    data.check()
    assert data.task == "regression" and dataset().task == "classification"
    assert data.train.index(torch.tensor([1])).label.tolist() == [-3.0]
    with pytest.raises(ValueError, match="has no majority class"):
        _ = data.majority_rate
    with pytest.raises(ValueError, match=r"label: expected int64 for 3 classes, got torch\.float32"):
        dataset(**parts).check()
    with pytest.raises(
        ValueError, match=r"label: expected float32 for regression \(no classes\), got torch.int64"
    ):
        dataset(classes=()).check()
    with pytest.raises(ValueError, match="label: holds NaN"):
        dataset(**{**parts, "test": ragged(label=value / 0)}, classes=()).check()


@pytest.mark.parametrize(
    ("sequences", "message"),
    [
        ([np.zeros(3)], r"sequence 0: expected \(T, d\).*x\[None\].*got shape \(3,\)"),
        ([np.zeros((2, 3)), np.zeros((2, 4))], r"sequence 1: .*got shape \(2, 4\)"),
        ([], "no sequences to pad"),
        ([np.ones((1, 2)), [[1.0, 2.0]]], "sequence 1: expected an array of plain numbers, got list of no type"),
        ([np.ma.masked_array([[1.0, 2.0]], mask=[[0, 1]])], "plain numbers, got MaskedArray of float64"),
        ([np.array([[1 + 2j]])], "plain numbers, got ndarray of complex128"),
        ([np.array([["2020-01-01"]], "M8[D]")], "plain numbers, got ndarray of datetime64"),
        ([np.array([["a"]])], "plain numbers, got ndarray of <U1"),
        ({0: np.ones((1, 2))}.values(), r"expected a list of arrays, got dict_values; list\(\.\.\.\) makes one"),
        ((np.ones((1, 2)) for _ in range(2)), "expected a list of arrays, got generator"),
        (
            [torch.ones(1, 2, requires_grad=True)],
            r"sequence 0: .*got a tensor with a gradient, sparse or of bfloat16",
        ),
        ([torch.ones(1, 2).bfloat16()], r"x\.detach\(\)\.to_dense\(\)\.float\(\) makes them"),
        ([torch.ones(1, 2).to_sparse()], "expected plain numbers, got a tensor with a gradient, sparse or of"),
    ],
)
def test_pad_says_what_it_expected(sequences, message):
    with pytest.raises(ValueError, match=message):
        pad(sequences)


@pytest.mark.parametrize("length", [-1, 0, 2.0, True])
def test_pad_takes_a_length_of_whole_steps(length):
    with pytest.raises(ValueError, match=f"^length must be a whole number of at least 1, got {length}$"):
        pad([np.ones((2, 3))], length)


def test_parts_are_joined_at_the_longest_sequence():
    features = {name: torch.ones(2, 1, width) for name, width in ragged().dims.items()}
    mask = {name: torch.ones(2, 1, dtype=torch.bool) for name in features}
    found = joined(ragged(), Batch(features, mask, torch.tensor([1, 0])))
    for name, x in ragged().features.items():
        assert torch.equal(found.features[name][:4], x) and torch.equal(
            found.features[name][4:, :1], features[name]
        )
        assert found.lengths()[name].tolist() == [*ragged().lengths()[name].tolist(), 1, 1]
    assert found.label.tolist() == [0, 1, 2, 0, 1, 0] and found.group is None
    assert joined(ragged(), ragged()).group.tolist() == 2 * ragged().group.tolist()


# pad, holdout, fingerprint


def test_pad_by_hand():
    features, mask = pad([np.array([[1, 2]]), np.array([[3, 4], [5, 6], [7, 8]])])
    assert features.dtype == torch.float32 and mask.dtype == torch.bool
    assert features.tolist() == [[[1, 2], [0, 0], [0, 0]], [[3, 4], [5, 6], [7, 8]]]
    assert mask.tolist() == [[True, False, False], [True, True, True]]
    cut, mask = pad([np.array([[1, 2]]), np.array([[3, 4], [5, 6], [7, 8]])], length=2)
    assert cut.tolist() == [[[1, 2], [0, 0]], [[3, 4], [5, 6]]] and mask.tolist() == [[True, False], [True, True]]


@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=80), st.sampled_from([0.1, 0.2, 0.25, 0.5]), st.integers(0, 5)
)
def test_holdout_is_a_stratified_partition(label, share, seed):
    label = np.array(label)
    kept, out = holdout(label, share, seed)
    assert np.array_equal(np.sort(np.concatenate([kept, out])), np.arange(len(label)))
    assert (np.diff(kept) > 0).all() and (np.diff(out) > 0).all()
    for value in np.unique(label):
        assert (label[out] == value).sum() == round(share * (label == value).sum())


@given(st.lists(st.integers(0, 9), min_size=1, max_size=80), st.sampled_from([0.1, 0.3, 0.5]), st.integers(0, 5))
def test_holdout_by_group_shares_no_group(group, share, seed):
    """At least the share is held out, and less than the share plus the last group taken."""
    group = np.array(group)
    kept, out = holdout(np.zeros(len(group), int), share, seed, group)
    assert np.array_equal(np.sort(np.concatenate([kept, out])), np.arange(len(group)))
    assert not set(group[kept]) & set(group[out])
    largest = np.unique(group, return_counts=True)[1].max()
    assert len(out) < share * len(group) + largest
    assert share * len(group) <= len(out) or len(set(group[kept])) == 1, "one group always stays"


def test_holdout_by_group_never_holds_everything_out():
    """A small group drawn first must not pull the one large group after it: nothing would be left to train on."""
    group = np.array([0] * 9 + [1])
    for seed in range(8):
        kept, out = holdout(np.zeros(10, int), 0.2, seed, group)
        assert len(kept) and len(out), seed


def test_holdout_is_drawn_by_its_seed():
    label = np.repeat([0, 1], 50)
    assert np.array_equal(holdout(label, 0.2, 3)[1], holdout(label, 0.2, 3)[1])
    assert not np.array_equal(holdout(label, 0.2, 3)[1], holdout(label, 0.2, 4)[1])
    speaker = np.repeat([f"speaker {number}" for number in range(10)], 10)
    assert len(holdout(label, 0.2, 3, speaker)[1]) == 20, "groups may have names"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"share": 20}, "share must lie in 0 to 1, got 20"),
        ({"share": -0.1}, "share must lie in 0 to 1, got -0.1"),
        ({"label": np.eye(2)[[0, 1, 0]]}, "expected a label of shape (N,), got (3, 2); give one value per row"),
        ({"group": np.arange(2)}, "expected a group of shape (3,), got (2,); give one value per row"),
    ],
)
def test_holdout_says_what_it_expected(given, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        holdout(**{"label": np.array([0, 1, 0]), "share": 0.2, "seed": 0, **given})


@pytest.mark.parametrize("kind", ["i2", "i4", "i8", "f4", "f8"])
def test_fingerprint_is_the_same_in_both_byte_orders(kind):
    little, big = (np.arange(12).reshape(3, 4).astype(order + kind) for order in "<>")
    assert little.tobytes() != big.tobytes()
    assert fingerprint({}, little) == fingerprint({}, big)
    assert fingerprint({}, little.T) == fingerprint({}, np.ascontiguousarray(little.T)), "layout in memory is none"


def test_fingerprint_by_hand():
    numbers = b"<i8(3,)" + bytes([0] * 8 + [1] + [0] * 7 + [2] + [0] * 7)
    expected = hashlib.sha256(b'{"data": "made", "version": 1}' + numbers + b"raw").hexdigest()
    assert fingerprint({"version": 1, "data": "made"}, np.arange(3), b"raw") == expected


def test_fingerprint_refuses_what_text_says_too_little_of():
    """Long arrays are shortened in it, objects in arrays are hashed by their place in memory."""
    for value in (np.arange(5000), [1, {"deep": torch.ones(2)}], {"a", "b"}, object()):
        with pytest.raises(
            ValueError, match=r"expected text and numbers as parameters, got \w+; give it as an array"
        ):
            fingerprint({"rows": value})
    with pytest.raises(ValueError, match="expected arrays of numbers or text, got objects"):
        fingerprint({}, np.array(["a", None], object))
    plain = {"a": [1, 2.5, True, None, "x"], "b": (Path("c"), np.int64(3))}
    assert (
        fingerprint(plain) == hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()
    )


def test_fingerprint_changes_with_any_bit():
    array = np.arange(12, dtype=np.int64)
    seen = {fingerprint({"a": 1}, array)}
    for bit in range(0, 12 * 64, 7):
        changed = bytearray(array.tobytes())
        changed[bit // 8] ^= 1 << bit % 8
        seen.add(fingerprint({"a": 1}, np.frombuffer(bytes(changed), np.int64)))
    seen |= {
        fingerprint({"a": 2}, array),
        fingerprint({"b": 1}, array),
        fingerprint({"a": 1}, array.reshape(3, 4)),
        fingerprint({"a": 1}, array.astype(np.int32)),
        fingerprint({"a": 1}, array, b"\0"),
        fingerprint({"a": 1}, array.tobytes()),
    }
    assert len(seen) == 1 + len(range(0, 12 * 64, 7)) + 6
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in seen)
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1}), "the order of parameters is none"


# load


def test_load_lists_what_there_is():
    with pytest.raises(ValueError, match=r"unknown data set 'digit'; there are: .*digits.*synthetic"):
        load("digit")
    with pytest.raises(ValueError, match=r"unknown data set \['digits'\]; there are: "):
        load(["digits"])
    choices = "there are: conflict, conflict_seed, split_seed$"
    with pytest.raises(ValueError, match=f"unknown parameter conflicts for data set 'digits'; {choices}"):
        load("digits", conflicts=0.5)
    with pytest.raises(
        ValueError, match="unknown parameter x, y for data set 'synthetic'; there are: balance, conf"
    ):
        load("synthetic", y=1, x=2)


def test_a_module_may_hold_several_sets_and_what_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(vgmr.data._MODULES, "my-digits", "digits")
    with pytest.raises(ValueError, match=r"^vgmr\.data\.digits has no function load_my_digits"):
        load("my-digits")
    monkeypatch.setattr("vgmr.data.digits.load_my_digits", lambda: dataset(), raising=False)
    assert load("my-digits").modalities == ["text", "audio"] and len(load("digits").test) == 359
    monkeypatch.setitem(vgmr.data._MODULES, "nowhere", "nowhere")
    with pytest.raises(ValueError, match=r"there is no module vgmr\.data\.nowhere, in which data set 'nowhere'"):
        load("nowhere")


@pytest.mark.parametrize("name", ["digits", "synthetic"])
def test_load_refuses_a_root_for_what_is_built_in(name, tmp_path):
    with pytest.raises(ValueError, match=f"'{name}' is made or built in and takes no root"):
        load(name, root=str(tmp_path))


def test_names_are_what_load_knows():
    assert names() == sorted(names()) and {"digits", "synthetic"} <= set(names())


def test_load_standardises_unless_told_otherwise():
    raw, data = load("digits", standardise=False), load("digits")
    assert raw.train.features["left"].max() == 16, "pixels are 0 to 16"
    assert same_features(raw.standardised(), data)
    assert not same_features(raw, data)
    assert raw.fingerprint == data.fingerprint


def same_features(one: MultimodalData, other: MultimodalData) -> bool:
    return all(
        torch.equal(x, other.parts[part].features[name])
        for part, batch in one.parts.items()
        for name, x in batch.features.items()
    )


def test_a_span_is_a_view_of_its_samples():
    part = load("synthetic", samples=20).train
    some = part.span(3, 8)
    assert len(some) == 5
    for name, x in some.features.items():
        assert torch.equal(x, part.features[name][3:8]) and x.data_ptr() == part.features[name][3].data_ptr()
    assert torch.equal(some.label, part[3:8].label) and len(part.span(len(part) - 2, len(part) + 5)) == 2


def test_models_need_no_mask_where_nothing_is_padded():
    part = load("synthetic", samples=20).train
    full = replace(part, mask={name: mask | True for name, mask in part.mask.items()})
    assert full.model_mask is full.mask, "nobody has looked yet"
    assert full.noting_padding().model_mask is None
    assert full.noting_padding().index(torch.tensor([1, 2])).model_mask is None
    one = next(iter(full.mask))
    padded = replace(full, mask=full.mask | {one: full.mask[one].index_fill(1, torch.tensor([-1]), False)})
    assert padded.noting_padding().model_mask is padded.mask


def test_samples_of_a_batch_without_padding_have_masks_of_real_steps():
    features = {"voice": torch.rand(4, 3, 2), "text": torch.rand(4, 1, 5)}
    mask = {name: torch.ones(x.shape[:2], dtype=torch.bool) for name, x in features.items()}
    known = Batch(features, mask, torch.arange(4)).noting_padding()
    for taken, rows in ((known.index(torch.tensor([3, 3, 0])), [3, 3, 0]), (known.span(1, 3), [1, 2])):
        assert not taken.padded
        for name, x in features.items():
            assert torch.equal(taken.features[name], x[rows])
            assert torch.equal(taken.mask[name], mask[name][rows])
        cut = {name: x.clone() for name, x in mask.items()}
        cut["voice"][:, 2] = False
        changed = replace(known, mask=cut).index(torch.tensor(rows))
        assert torch.equal(changed.mask["voice"], cut["voice"][rows])
