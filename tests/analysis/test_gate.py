"""What value and gate show: what was planted is found, and nothing where there is nothing."""

from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from made_batches import DIMS, batch
from torch import nn

from vgmr import corruption
from vgmr.analysis.calibration import detection
from vgmr.analysis.gate import (
    LEVELS,
    jumps,
    localisation,
    refinement_difference,
    response,
    row_auroc,
    saliency,
    suppression,
    value_and_gate,
)
from vgmr.backbones import PooledBackbone
from vgmr.classifier import Classifier
from vgmr.contributions import contributions
from vgmr.data import Batch
from vgmr.evaluation import auroc
from vgmr.prefusion import Identity
from vgmr.refiner import VGMR
from vgmr.refining.maps import masked_mean


def test_value_and_gate_are_those_of_the_refiner_over_real_steps():
    torch.manual_seed(0)
    model = Classifier(VGMR(DIMS, latent_dim=4), PooledBackbone(DIMS, 2, width=3)).eval()
    part = batch()
    frame = value_and_gate(model, part)
    with torch.no_grad():
        refinement = model(part.features, part.mask).refinement
    assert len(frame) == len(part) * len(DIMS)
    row = frame[(frame["sample"] == 0) & (frame["modality"] == "sound")].iloc[0]
    assert row["global_value"] == pytest.approx(float(refinement.global_value["sound"][0]), abs=1e-6)
    assert row["channel_value"] == pytest.approx(float(refinement.channel_value["sound"][0].mean()), abs=1e-6)
    assert row["channel_deviation"] == pytest.approx(float(refinement.channel_value["sound"][0].std()), abs=1e-6)
    assert row["gate"] == pytest.approx(float(refinement.gate["sound"][0, :2].mean()), abs=1e-6)
    everything = float(refinement.gate["sound"][0].mean())
    assert row["gate"] != pytest.approx(everything, abs=1e-6), "a masked step must not count"
    output = model(part.features, part.mask)
    gain = contributions(model.backbone, output.encodings, part.label)["sound"][0]
    assert row["target"] == pytest.approx(float(gain.sigmoid()), abs=1e-6)
    corrupted = frame[frame["corrupted"]]
    assert list(zip(corrupted["sample"], corrupted["modality"], strict=True)) == [(3, "video")]


def test_value_and_gate_needs_the_refiner():
    model = Classifier(Identity(DIMS), PooledBackbone(DIMS, 2, width=3))
    with pytest.raises(ValueError, match="expected a model with VGMR before fusion, got Identity"):
        value_and_gate(model, batch())


def area(frame):
    return detection(frame).set_index("score")["auroc"]["gate"]


def test_detection_finds_a_planted_signal_and_nothing_in_shuffled_truth():
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(4000, generator=generator) < 0.3
    low = torch.randn(4000, generator=generator) - 2 * truth
    frame = pd.DataFrame({"modality": "sound", "gate": low.numpy(), "corrupted": truth.numpy()})
    assert area(frame) == pytest.approx(0.921, abs=0.02)  # Phi(2 / sqrt 2)
    assert area(frame.assign(gate=-frame["gate"])) == pytest.approx(1 - area(frame))
    shuffled = frame.assign(corrupted=truth[torch.randperm(4000, generator=generator)].numpy())
    assert area(shuffled) == pytest.approx(0.5, abs=0.03)


@torch.no_grad()
def hand_set() -> Classifier:
    """A model whose gate is sigmoid(-X), entry by entry: a detector of raised features."""
    model = Classifier(VGMR(DIMS, latent_dim=4), PooledBackbone(DIMS, 2, width=3))
    for name in DIMS:
        maps = model.prefusion.of(name)
        for parameter in maps.parameters():
            parameter.zero_()
        maps.gate_from_features.weight -= torch.eye(len(maps.gate_from_features.weight))
    return model.eval()


def planted(size: int, where: str, seed: int = 3) -> Batch:
    """Padded batch in which a third of the channels, steps or whole modalities stand 20 deviations too high."""
    generator = torch.Generator().manual_seed(seed)
    features, mask, corrupted = {}, {}, {}
    for name, dim in DIMS.items():
        length = torch.randint(2, 7, (size, 1), generator=generator)
        mask[name] = torch.arange(6) < length
        shape = {"channel": (size, 1, dim), "step": (size, 6, 1), "modality": (size, 1, 1)}[where]
        corrupted[name] = torch.rand(shape, generator=generator) < 1 / 3
        x = torch.randn(size, 6, dim, generator=generator) + 20 * corrupted[name]
        features[name] = x * mask[name].unsqueeze(2)
    return Batch(features, mask, torch.randint(2, (size,), generator=generator), corrupted=corrupted)


def areas(frame: pd.DataFrame) -> dict[str, float]:
    return frame.groupby("score")["auroc"].mean().to_dict()


@pytest.mark.parametrize(
    ("level", "where"),
    [("sample", "modality"), ("modality", "modality"), ("step", "step"), ("channel", "channel")],
)
def test_localisation_finds_what_is_planted_and_its_controls_hold(level, where):
    found = areas(localisation(hand_set(), planted(1500, where), level))
    assert found["gate"] > 0.99 and found["magnitude"] > 0.99
    assert found["truth"] == 1
    assert found["random"] == pytest.approx(0.5, abs=0.03)
    assert found["shuffled"] == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize(("level", "where"), [("modality", "modality"), ("channel", "channel")])
def test_modalities_and_channels_with_levels_of_their_own_are_compared_on_one_scale(level, where):
    part = planted(400, where)
    own = {"sound": torch.tensor([100.0, 900.0, 500.0]), "video": torch.tensor([3000.0, 7000.0])}
    raised = {name: (x + own[name]) * part.mask[name].unsqueeze(2) for name, x in part.features.items()}
    assert areas(localisation(hand_set(), replace(part, features=raised), level))["magnitude"] > 0.95


def test_steps_keep_their_own_scores():
    """The second step is the louder one in every sample, and struck in half of them: within a sample it tells."""
    mask = {name: torch.ones(40, 2, dtype=torch.bool) for name in DIMS}
    features = {name: torch.tensor([1.0, 9.0]).view(1, 2, 1).expand(40, 2, dim) for name, dim in DIMS.items()}
    where = (torch.arange(40) % 2 == 0).view(40, 1, 1) & torch.tensor([False, True]).view(1, 2, 1)
    part = Batch(features, mask, torch.arange(40) % 2, corrupted=dict.fromkeys(DIMS, where))
    assert areas(localisation(hand_set(), part, "step"))["magnitude"] == 1


def test_entropy_is_that_of_the_answer_and_equal_seeds_say_equal_things():
    torch.manual_seed(0)
    model = Classifier(VGMR(DIMS, latent_dim=4), PooledBackbone(DIMS, 3, width=3)).eval()
    part = planted(60, "modality")
    with torch.no_grad():
        p = model(part.features, part.mask).logits.softmax(1)
    told = localisation(model, part, "sample", seed=5)
    found = told.set_index(["score", "modality"])["auroc"]
    for name in DIMS:
        expected = auroc(torch.special.entr(p).sum(1), part.corrupted[name].flatten())
        assert found["entropy", name] == pytest.approx(expected) and abs(expected - 0.5) > 0.02
    pd.testing.assert_frame_equal(told, localisation(model, part, "sample", seed=5))
    other = localisation(model, part, "sample", seed=6).set_index(["score", "modality"])["auroc"]
    assert all((found[what] != other[what]).all() for what in ("random", "shuffled"))


def test_a_gate_set_by_hand_is_the_sigmoid_of_minus_x():
    model, part = hand_set(), planted(5, "step")
    gate = model.prefusion(part.features, part.mask).gate
    for name, x in part.features.items():
        torch.testing.assert_close(gate[name], torch.sigmoid(-x))


def test_random_scores_do_not_repeat_the_draws_of_a_corruption_of_the_same_seed():
    clean = replace(planted(1500, "step"), corrupted=None)
    part = corruption.noise(clean, clean, 0.3, seed=7)
    found = areas(localisation(hand_set(), part, "step", seed=7))
    assert found["random"] == pytest.approx(0.5, abs=0.03)


def test_masked_steps_never_count():
    model = hand_set()
    for level in LEVELS:
        part = planted(40, "modality" if level == "sample" else level)
        spoiled = replace(
            part,
            features={name: x + 99 * ~part.mask[name].unsqueeze(2) for name, x in part.features.items()},
            corrupted={name: hit | ~part.mask[name].unsqueeze(2) for name, hit in part.corrupted.items()},
        )
        before, after = areas(localisation(model, part, level)), areas(localisation(model, spoiled, level))
        for score in ("gate", "gradient", "truth"):
            assert after[score] == pytest.approx(before[score], abs=1e-6), (level, score)
    pd.testing.assert_frame_equal(suppression(model, part), suppression(model, spoiled), atol=1e-6)
    for name, x in refinement_difference(model, spoiled).items():
        assert not x.masked_select(~part.mask[name].unsqueeze(2)).any()
    for name, x in jumps(spoiled).items():
        torch.testing.assert_close(x, jumps(part)[name])


def test_what_is_said_of_a_model_does_not_depend_on_its_mode():
    """In training its dropout is on, and anchors that did not see a training sample judge it."""
    torch.manual_seed(0)
    part = planted(60, "modality")
    vgmr = VGMR.calibrated(DIMS, 2, latent_dim=4)
    vgmr.prepare(part.features, part.mask, part.label)
    model = Classifier(vgmr, PooledBackbone(DIMS, 2, width=3, dropout=0.9))
    found = []
    for training in (False, True):
        model.train(training)
        tables = [suppression(model, part), *(localisation(model, part, level) for level in LEVELS)]
        found.append([*tables, pd.DataFrame(refinement_difference(model, part)["sound"].flatten(1).numpy())])
        assert model.training == training
    for one, other in zip(*found, strict=True):
        pd.testing.assert_frame_equal(one, other)


def test_row_auroc_equals_auroc_row_by_row():
    generator = torch.Generator().manual_seed(1)
    score = torch.randint(5, (30, 9), generator=generator).float()
    truth = torch.rand(30, 9, generator=generator) < 0.3
    real = torch.rand(30, 9, generator=generator) < 0.8
    expected = []
    for row in range(30):
        kept = truth[row][real[row]]
        if 0 < int(kept.sum()) < len(kept):
            expected.append(auroc(score[row][real[row]], kept))
    assert row_auroc(score, truth, real) == pytest.approx(sum(expected) / len(expected))


def test_suppression_by_hand():
    """E = (0.6, 1.4) on X = ((2, 1), (-4, 0)) leaves |E X| = ((1.2, 1.4), (2.4, 0))."""
    dims = {"sound": 2, "video": 1}
    model = Classifier(VGMR(dims, latent_dim=2), PooledBackbone(dims, 2, width=3)).eval()
    for maps in model.prefusion.maps.values():
        for parameter in maps.parameters():
            parameter.data.zero_()
    model.prefusion.maps["sound"].gate_from_features.bias.data = torch.tensor([-100.0, 100.0])
    sound, video = torch.tensor([[[2.0, 1.0], [-4.0, 0.0]]]), torch.ones(1, 1, 1)
    mask = {"sound": torch.ones(1, 2, dtype=torch.bool), "video": torch.ones(1, 1, dtype=torch.bool)}
    part = Batch({"sound": sound, "video": video}, mask, torch.zeros(1, dtype=torch.int64))
    difference = refinement_difference(model, part)
    torch.testing.assert_close(difference["sound"], torch.tensor([[[-0.8, 0.4], [1.6, 0.0]]]))
    row = suppression(model, part).set_index("modality").loc["sound"]
    assert row["share"] == pytest.approx(2.4 / 7)
    assert suppression(model, part).set_index("modality").loc["video", "share"] == pytest.approx(0)
    silent = replace(part, features={**part.features, "sound": torch.zeros_like(sound)})
    assert suppression(model, silent)["share"].tolist() == pytest.approx([0, 0]), "nothing is there to take away"


class Linear(nn.Module):
    """Logits (w . mean of the real sound, 0)."""

    def __init__(self, weight: torch.Tensor):
        super().__init__()
        self.weight = weight

    def forward(self, features, mask):
        first = masked_mean(features["sound"], mask["sound"]) @ self.weight
        nothing = 0 * features["video"].sum((1, 2))
        return SimpleNamespace(logits=torch.stack([first, nothing], 1))


def test_saliency_is_the_gradient_of_a_linear_model():
    """With p = sigmoid(|s|) the predicted class's probability, |dL/dx_t| = (1 - p) |w| / T at each real step."""
    weight, part = torch.tensor([1.0, -2.0, 0.5]), planted(20, "step")
    found = saliency(Linear(weight), part)
    score = masked_mean(part.features["sound"], part.mask["sound"]) @ weight
    slope = (1 - score.abs().sigmoid()) / part.mask["sound"].sum(1)
    expected = slope[:, None, None] * weight.abs() * part.mask["sound"].unsqueeze(2)
    torch.testing.assert_close(found["sound"], expected)
    assert not found["video"].any()


def test_jumps_are_mean_distances_to_real_neighbours():
    x = torch.tensor([[[1.0], [4.0], [2.0], [0.0]]])
    mask = torch.tensor([[True, True, True, False]])
    part = Batch({"sound": x}, {"sound": mask}, torch.zeros(1, dtype=torch.int64))
    torch.testing.assert_close(jumps(part)["sound"].flatten(), torch.tensor([3.0, 2.5, 2.0, 0.0]))


def test_response_is_taken_over_the_same_corrupted_samples():
    torch.manual_seed(0)
    model = Classifier(VGMR(DIMS, latent_dim=4), PooledBackbone(DIMS, 2, width=3)).eval()
    clean = replace(planted(50, "step"), corrupted=None)
    corrupted = corruption.missing(clean, "sound", 0.5)
    table = response(model, clean, corrupted)
    assert set(table["modality"]) == {"sound"}
    hit = corrupted.corrupted["sound"].flatten(1).any(1)
    with torch.no_grad():
        before, after = (model(part.features, part.mask).refinement for part in (clean, corrupted))
    row = table.set_index("statistic").loc["global_value"]
    assert row["clean"] == pytest.approx(float(before.global_value["sound"][hit].mean()), abs=1e-6)
    assert row["noisy"] == pytest.approx(float(after.global_value["sound"][hit].mean()), abs=1e-6)
    assert row["difference"] == pytest.approx(row["noisy"] - row["clean"])


def test_what_has_no_answer_is_refused():
    with pytest.raises(ValueError, match="unknown level 'word'; there are: sample, modality, step, channel"):
        localisation(hand_set(), planted(5, "step"), "word")
    with pytest.raises(ValueError, match="corrupt it first"):
        localisation(hand_set(), replace(planted(5, "step"), corrupted=None), "step")
    with pytest.raises(ValueError, match="got Identity"):
        suppression(Classifier(Identity(DIMS), PooledBackbone(DIMS, 2, width=3)), batch())
