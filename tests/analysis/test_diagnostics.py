"""Diagnostics find what was planted and nothing where there is nothing."""

from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vgmr import corruption
from vgmr.analysis import gradients as diagnostics
from vgmr.analysis.gate import (
    LEVELS,
    behaviour,
    channel_noise,
    close_where_large,
    detection,
    jumps,
    localisation,
    refinement_difference,
    response,
    row_auroc,
    saliency,
    suppression,
    value_and_gate,
)
from vgmr.analysis.gradients import branch_gradients, gradient_change, movement
from vgmr.analysis.removal import removal_by_place, with_idle_modality
from vgmr.backbones import Classifier, PooledBackbone, TransformerBackbone
from vgmr.balancing import OGMGE, Balancing, Uniform
from vgmr.data import Batch, MultimodalData, load
from vgmr.evaluation import auroc, shapley
from vgmr.inference import subset_logits
from vgmr.objective import contributions
from vgmr.prefusion import Identity
from vgmr.refiner import VGMR, masked_mean
from vgmr.training import fit

DIMS = {"sound": 3, "video": 2}


def batch(size: int = 6) -> Batch:
    generator = torch.Generator().manual_seed(0)
    features = {name: torch.randn(size, 4, dim, generator=generator) for name, dim in DIMS.items()}
    mask = {name: torch.ones(size, 4, dtype=torch.bool) for name in DIMS}
    mask["sound"][0, 2:] = False
    features["sound"][0, 2:] = 0
    corrupted = {name: torch.zeros(size, 1, 1, dtype=torch.bool) for name in DIMS}
    corrupted["video"][3] = True
    return Batch(features, mask, torch.zeros(size, dtype=torch.int64), corrupted=corrupted)


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


def test_detection_finds_a_planted_signal_and_nothing_in_shuffled_truth():
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(4000, generator=generator) < 0.3
    low = torch.randn(4000, generator=generator) - 2 * truth
    frame = pd.DataFrame({"modality": "sound", "gate": low.numpy(), "corrupted": truth.numpy()})
    assert detection(frame, "gate") == pytest.approx(0.921, abs=0.02)  # Phi(2 / sqrt 2)
    assert detection(frame, "gate", lower_is_corrupted=False) == pytest.approx(1 - detection(frame, "gate"))
    shuffled = frame.assign(corrupted=truth[torch.randperm(4000, generator=generator)].numpy())
    assert detection(shuffled, "gate") == pytest.approx(0.5, abs=0.03)


def hand_set() -> Classifier:
    return close_where_large(Classifier(VGMR(DIMS, latent_dim=4), PooledBackbone(DIMS, 2, width=3)))


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
    assert row["suppression"] == pytest.approx((0.8 + 1.6) / 4)
    assert row["share"] == pytest.approx(2.4 / 7)
    assert row["change"] == pytest.approx((0.4 - 0.8 - 1.6) / 7)
    assert suppression(model, part).set_index("modality").loc["video", "share"] == pytest.approx(0)


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
    assert row["clean_deviation"] == pytest.approx(float(before.global_value["sound"][hit].std()), abs=1e-6)


def test_channel_noise_strikes_whole_channels_with_the_training_parts_size():
    clean = replace(load("digits").test, corrupted=None)
    part = channel_noise(clean, clean, 0.4, seed=1)
    for name, x in part.features.items():
        hit = part.corrupted[name].any(1)
        assert float(hit.float().mean()) == pytest.approx(0.4, abs=0.05)
        changed = (x != clean.features[name]).any(1)
        assert torch.equal(changed, hit)
        assert not x.masked_select(~part.mask[name].unsqueeze(2)).any()


def test_behaviour_answers_every_question_for_one_model():
    data = load("digits")
    model = Classifier(VGMR(data.dims, latent_dim=4), PooledBackbone(data.dims, len(data.classes), width=3))
    frame = behaviour(model, data)
    assert not frame["value"].isna().any()
    assert set(frame["question"]) == {"response", "loudness", "localisation", "suppression", "agreement"}
    truth = frame[(frame["question"] == "localisation") & (frame["name"] == "truth")]
    assert (truth["value"] == 1).all() and set(truth["case"]) >= {"noise, channel", "conflict, modality"}
    difference = frame[(frame["question"] == "response") & (frame["case"] == "difference")]
    loud = frame[(frame["question"] == "loudness") & (frame["case"] == "1")]
    merged = difference.merge(loud, on=["modality", "name"])
    assert len(merged) == len(loud) > 0
    assert (merged["value_x"] - merged["value_y"]).abs().max() == 0


def test_what_has_no_answer_is_refused():
    with pytest.raises(ValueError, match="unknown level 'word'; there are: sample, modality, step, channel"):
        localisation(hand_set(), planted(5, "step"), "word")
    with pytest.raises(ValueError, match="corrupt it first"):
        localisation(hand_set(), replace(planted(5, "step"), corrupted=None), "step")
    with pytest.raises(ValueError, match="got Identity"):
        suppression(Classifier(Identity(DIMS), PooledBackbone(DIMS, 2, width=3)), batch())


def pooled() -> Classifier:
    torch.manual_seed(0)
    return Classifier(Identity(DIMS), PooledBackbone(DIMS, 2, width=3))


def test_plain_training_changes_no_gradient_and_looking_changes_nothing():
    model, part = pooled(), batch()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    frame = gradient_change(model, Balancing(), part, epoch=4)
    assert [*frame["length"], *frame["cosine"]] == pytest.approx([1.0] * 4)
    assert set(frame["modality"]) == set(DIMS) and set(frame["epoch"]) == {4}
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_gradient_change_is_that_of_the_methods_own_step():
    model, part, method = pooled(), batch(), Uniform()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    method.names = list(DIMS)
    method.heads = torch.nn.ModuleDict({name: torch.nn.Linear(3, 2) for name in DIMS})
    mine = branch_gradients(model, method, part, 0)
    for name in DIMS:
        output = model.train()(part.features, part.mask)
        loss = torch.nn.functional.cross_entropy(output.logits, part.label)
        loss = loss + torch.nn.functional.cross_entropy(method.heads[name](output.encodings[name]), part.label)
        expected = torch.cat([g.flatten() for g in torch.autograd.grad(loss, model.branch_parameters(name))])
        torch.testing.assert_close(mine[name], expected)
    damped = OGMGE(alpha=100.0, noise=False)
    damped.names, damped.active = list(DIMS), (0, 0)
    assert gradient_change(model, damped, part, 0)["length"].min() < 0.99  # biases stay as they are
    assert gradient_change(model, damped, part, 1)["length"].tolist() == pytest.approx([1.0, 1.0])


def test_adamw_undoes_damping_but_neither_noise_nor_a_damped_update():
    model, batches = pooled(), [batch()] * 8
    for optimizer in ("sgd", "adamw"):
        whole = movement(model, batches, "sound", optimizer, 0.01)
        scaled = movement(model, batches, "sound", optimizer, 0.01, scale=0.1)
        updated = movement(model, batches, "sound", optimizer, 0.01, scale=0.1, on_update=True)
        torch.testing.assert_close(scaled, whole * (0.1 if optimizer == "sgd" else 1.0), rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(updated, whole * 0.1, rtol=1e-3, atol=1e-6)
    noisy = movement(model, batches, "sound", "adamw", 0.01, scale=0.1, noise=1.0)
    assert float(noisy @ whole / whole.square().sum()) < 0.7


# A modality that carries nothing


def test_an_idle_modality_has_the_rows_of_its_source_in_another_order():
    data = load("synthetic", like="ave", samples=60, steps=2, padding=0.5)
    idle = with_idle_modality(data, "audio")
    idle.check()
    assert idle.modalities == ["audio", "visual", "idle"] and idle.fingerprint != data.fingerprint
    for part, before in zip(idle.parts.values(), data.parts.values(), strict=True):
        assert part.features["audio"] is before.features["audio"] and part.label is before.label
        assert not torch.equal(part.features["idle"], part.features["audio"])
        assert torch.equal(
            part.features["idle"].sum((1, 2)).sort()[0], part.features["audio"].sum((1, 2)).sort()[0]
        )
    again = with_idle_modality(data, "audio").test.features["idle"]
    assert torch.equal(again, idle.test.features["idle"])
    with pytest.raises(ValueError, match="expected source of"):
        with_idle_modality(data, "smell")
    with pytest.raises(ValueError, match="another name"):
        with_idle_modality(data, "audio", "visual")


def worth(data: MultimodalData, refined: bool) -> dict[str, float]:
    """Shapley values, in test accuracy, of the modalities of a model trained on `data`."""
    torch.manual_seed(0)
    model = Classifier(
        VGMR(data.dims, 8, norm="none") if refined else Identity(data.dims), PooledBackbone(data.dims, 2, width=16)
    )
    fit(model, data, epochs=8, batch_size=64, learning_rate=3e-3)
    logits = subset_logits(model, data.test)
    right = {keep: float((answer.argmax(1) == data.test.label).float().mean()) for keep, answer in logits.items()}
    return shapley(right)


@pytest.mark.parametrize("refined", [False, True])
def test_a_modality_that_carries_nothing_is_worth_nothing(refined):
    """600 test samples: an accuracy has a deviation of 0.02 at most, two are allowed; a copy counts."""
    data = load("synthetic", like="mosi", samples=1200, steps=2).select(["audio", "vision"])
    found = worth(with_idle_modality(data, "vision"), refined)
    assert abs(found["idle"]) < 0.04
    assert found["audio"] > 0.08 and found["vision"] > 0.08
    copied = replace(
        data,
        **{
            part: replace(
                batch,
                features={**batch.features, "copy": batch.features["vision"]},
                mask={**batch.mask, "copy": batch.mask["vision"]},
                corrupted=None,
            )
            for part, batch in data.parts.items()
        },
    )
    assert worth(copied, refined)["copy"] > 0.08


class Heeding(Identity):
    """The audio goes through only where there is something to see."""

    def forward(self, features, mask=None):
        found = super().forward(features, mask)
        seen = found.features["vision"].abs().sum((1, 2), keepdim=True) > 0
        return found._replace(features={**found.features, "audio": found.features["audio"] * seen})


def test_a_removal_before_the_refiner_changes_what_the_others_become():
    """Behind: as `subset_logits` has it. Before: nothing seen and nothing heard, as without any modality."""
    data = load("synthetic", like="mosi", samples=60, steps=1).select(["audio", "vision"])
    torch.manual_seed(0)
    backbone = PooledBackbone(data.dims, len(data.classes), width=8)
    plain = removal_by_place(Classifier(Identity(data.dims), backbone), data.test).set_index("modality")
    assert plain.index.tolist() == ["audio", "vision"] and plain["behind"].equals(plain["before"])
    model = Classifier(Heeding(data.dims), backbone)
    found = removal_by_place(model, data.test).set_index("modality")
    right = {
        kept: float((logits.argmax(1) == data.test.label).float().mean())
        for kept, logits in subset_logits(model, data.test).items()
    }
    nothing = backbone.encode({name: torch.zeros(1, 1, dim) for name, dim in data.dims.items()}, None)
    silent = backbone.fuse(nothing, {"audio"}).argmax(1)
    assert found["behind"].to_dict() == pytest.approx({"audio": right["vision"], "vision": right["audio"]})
    assert found.loc["audio", "before"] == found.loc["audio", "behind"]
    assert found.loc["vision", "before"] == pytest.approx(float((data.test.label == silent).float().mean()))
    assert found.loc["vision", "before"] != found.loc["vision", "behind"]


# While training: gradients, slices of the loss, curves


def transformer(prefusion=Identity) -> Classifier:
    torch.manual_seed(0)
    backbone = TransformerBackbone(DIMS, 2, 5, width=4, num_layers=1, num_heads=2, feedforward_dim=6)
    return Classifier(prefusion(DIMS), backbone)


def labelled_batch() -> Batch:
    part = batch()
    return Batch(part.features, part.mask, torch.tensor([0, 1, 0, 1, 1, 0]))


def test_cosine_of_identical_losses_is_1_and_of_opposite_ones_minus_1():
    same, again = diagnostics.gradients(transformer(), labelled_batch(), [["sound"], ["sound"]])
    assert diagnostics.cosine(same, again) == pytest.approx(1, abs=1e-12)
    assert diagnostics.cosine(same, -3 * again) == pytest.approx(-1, abs=1e-12)
    assert diagnostics.cosine(torch.tensor([3.0, 4.0]), torch.tensor([4.0, 3.0])) == pytest.approx(24 / 25)


def test_cosine_is_0_where_two_losses_share_no_parameter():
    """The head has columns of its own for each modality."""
    model = Classifier(Identity(DIMS), PooledBackbone(DIMS, 2, width=3))
    weight = [model.backbone.head.linear.weight]
    sound, video = diagnostics.gradients(model, labelled_batch(), [["sound"], ["video"]], weight)
    assert sound.norm() > 0 and video.norm() > 0
    assert diagnostics.cosine(sound, video) == 0


def test_gradients_are_those_of_the_loss():
    """Against a pass of its own and `backward`, in evaluation mode although the model is training."""
    model, part = transformer().train(), labelled_batch()
    (found,) = diagnostics.gradients(model, part, [["video"]])
    assert model.training
    model.eval()
    F.cross_entropy(model(part.features, part.mask, ["video"]).logits, part.label).backward()
    names = {"position", "head.linear.weight", "head.linear.bias"}
    parameters = {
        name: parameter
        for name, parameter in model.backbone.named_parameters()
        if name in names or name.startswith("encoder")
    }
    wanted = torch.cat([parameter.grad.flatten() for parameter in parameters.values()])
    assert len(found) == len(wanted) == sum(p.numel() for p in diagnostics.common_parameters(model))
    assert sorted(found.tolist()) == pytest.approx(sorted(wanted.tolist()), abs=1e-7)
    every = [parameter for name, parameter in model.backbone.named_parameters() if "project" in name]
    assert not {id(p) for p in every} & {id(p) for p in diagnostics.common_parameters(model)}


def test_no_gradient_comes_from_a_padded_step():
    model, part = transformer(), labelled_batch()
    longer = {name: F.pad(x, (0, 0, 0, 1), value=7.0) for name, x in part.features.items()}
    mask = {name: F.pad(m, (0, 1), value=False) for name, m in part.mask.items()}
    (plain,) = diagnostics.gradients(model, part, [list(DIMS)])
    (padded,) = diagnostics.gradients(model, Batch(longer, mask, part.label), [list(DIMS)])
    torch.testing.assert_close(padded, plain)
    real = {name: torch.ones_like(m) for name, m in mask.items()}
    (counted,) = diagnostics.gradients(model, Batch(longer, real, part.label), [list(DIMS)])
    assert not torch.allclose(counted, plain, atol=1e-3), "a real step must count"


@pytest.mark.parametrize("prefusion", [Identity, VGMR])
def test_gradient_cosines_by_pair_against_a_pass_for_each(prefusion):
    model, part = transformer(prefusion), labelled_batch()
    table = diagnostics.gradient_cosines(model, part).set_index(["one", "other"])
    assert sorted(table.index) == [("sound", "video"), ("video", "sound")]
    for one, other in table.index:
        (single,) = diagnostics.gradients(model, part, [[one]])
        (both,) = diagnostics.gradients(model, part, [[one, other]])
        assert table.cosine[one, other] == pytest.approx(diagnostics.cosine(single, both), abs=1e-6)
        through = [diagnostics.gradients(model, part, [[one, other]], through=[[m]])[0] for m in (one, other)]
        encoder = slice(0, -sum(p.numel() for p in model.head_parameters()))
        torch.testing.assert_close((through[0] + through[1])[encoder], both[encoder], atol=1e-6, rtol=1e-4)
        own = float(single.double() @ through[0].double() / (single.norm() * both.norm()))
        assert table.own[one, other] == pytest.approx(own, abs=1e-5)


def test_a_modality_that_the_head_ignores_leaves_the_cosine_at_1():
    model, part = transformer(), labelled_batch()
    with torch.no_grad():
        model.backbone.head.linear.weight[:, 4:] = 0  # video stands second
    encoder = model.backbone.shared_parameters()
    sound, both = diagnostics.gradients(model, part, [["sound"], ["sound", "video"]], encoder)
    assert diagnostics.cosine(sound, both) == pytest.approx(1, abs=1e-6)


def test_permuted_moves_one_modality_and_its_mask_only():
    part, order = labelled_batch(), torch.tensor([1, 0, 2, 3, 4, 5])
    moved = diagnostics.permuted(part, "sound", order)
    assert torch.equal(moved.features["sound"][0], part.features["sound"][1])
    assert moved.mask["sound"].sum(1).tolist() == [4, 2, 4, 4, 4, 4]
    assert torch.equal(moved.features["video"], part.features["video"]) and moved.label is part.label


def test_gradient_norms_are_of_each_modalitys_own_map():
    model, part = transformer(VGMR), labelled_batch()
    norms = diagnostics.gradient_norms(model, part)
    model.eval()
    F.cross_entropy(model(part.features, part.mask).logits, part.label).backward()
    for name in DIMS:
        grads = [parameter.grad.flatten() for parameter in model.backbone.project[name].parameters()]
        assert norms[name] == pytest.approx(float(torch.cat(grads).norm()), rel=1e-4)
    with torch.no_grad():
        model.backbone.head.linear.weight[:, 4:] = 0
    assert diagnostics.gradient_norms(model, part)["video"] == 0


def test_snapshot_holds_the_three_tables_of_one_checkpoint():
    model, part = transformer(VGMR), labelled_batch()
    tables = diagnostics.snapshot(model, part.index(torch.tensor([0, 1])), part)
    wanted = F.cross_entropy(model.eval()(part.features, part.mask).logits, part.label).item()
    assert tables["losses"]["validation_loss"][0] == pytest.approx(wanted, abs=1e-6)
    assert tables["losses"]["train_loss"][0] != pytest.approx(wanted, abs=1e-6)
    pd.testing.assert_frame_equal(tables["cosines"], diagnostics.gradient_cosines(model, part))
    assert dict(tables["norms"].itertuples(index=False, name=None)) == diagnostics.gradient_norms(model, part)


def test_a_slice_of_a_quadratic_is_the_quadratic():
    weight = nn.Parameter(torch.tensor([[3.0, 4.0]]))
    directions = [[torch.tensor([[1.0, 0.0]])], [torch.tensor([[0.0, 2.0]])]]
    points = [(0, 0), (1, 0), (-1, 0.5), (0.25, -1)]
    found = diagnostics.loss_slice(lambda: float((weight**2).sum()), [weight], directions, points)
    assert found == pytest.approx([(3 + x) ** 2 + (4 + 2 * y) ** 2 for x, y in points])
    assert weight.tolist() == [[3.0, 4.0]], "the parameters are put back"


def test_a_slice_that_fails_puts_the_parameters_back():
    weight = nn.Parameter(torch.ones(2, 2))
    with pytest.raises(ZeroDivisionError):
        diagnostics.loss_slice(lambda: 1 / 0, [weight], [[torch.ones(2, 2)]], [(1,)])
    assert weight.tolist() == [[1, 1], [1, 1]]


def test_filter_direction_is_as_long_as_the_weights_row_by_row():
    parameters = [nn.Parameter(torch.tensor([[3.0, 4.0], [0.0, 0.0], [1.0, 0.0]])), nn.Parameter(torch.ones(3))]
    matrix, vector = diagnostics.filter_direction(parameters, 0)
    assert matrix.norm(dim=1).tolist() == pytest.approx([5, 0, 1], abs=1e-6)
    assert vector.tolist() == [0, 0, 0]
    assert not torch.equal(matrix, diagnostics.filter_direction(parameters, 1)[0])


def test_measures_of_curves_by_hand():
    assert diagnostics.roughness([3, 2, 1, 0]) == 0
    assert diagnostics.roughness([0, 1, 0, 1]) == 2  # second differences -2 and 2
    assert diagnostics.roughness([0, 1, -1, 0], order=1) == pytest.approx(4 / 3)
    assert pd.isna(diagnostics.roughness([1, 2]))
    assert diagnostics.detour([5, 4, 1]) == 1
    assert diagnostics.detour([4, 1, 3]) == pytest.approx(5 / 3)
    assert diagnostics.sign_changes([1, -1, -1, 1, 2]) == 0.5
