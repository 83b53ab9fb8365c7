"""Grad-Blending: the estimate of the weights, what the trials see, and what the losses do."""

import pytest
import torch
import torch.nn.functional as F
from made_models import THREE, differing, digits, gradients, make_model, names_of, start, take_step

from vgmr.balancing import Balancing, GradBlending
from vgmr.balancing.base import Loop
from vgmr.balancing.grad_blending import UnimodalProbe, blend_weights
from vgmr.inference import mean_loss, predict
from vgmr.training import fit

BEFORE = torch.tensor([[2.0, 2.1]] * 3)
AFTER = torch.tensor([[1.2, 1.6], [0.8, 1.4], [0.4, 1.3]])
JOINT_ONLY = dict.fromkeys(THREE, 0.0)


def test_weights_by_hand():
    torch.testing.assert_close(
        blend_weights(BEFORE, AFTER), torch.tensor([0.5784, 0.2915, 0.1301]), atol=6e-5, rtol=0
    )


def test_weights_are_no_fewer_than_0_and_sum_to_1():
    generator = torch.Generator().manual_seed(0)
    for _ in range(100):
        weights = blend_weights(*(3 * torch.rand(2, 4, 2, generator=generator)))
        assert (weights >= 0).all() and float(weights.sum()) == pytest.approx(1, abs=1e-6)


def test_what_got_worse_gets_nothing_and_if_all_did_all_get_the_same():
    worse = AFTER.clone()
    worse[1, 1] = 2.5
    weights = blend_weights(BEFORE, worse)
    assert weights[1] == 0 and weights[0] > 0
    assert blend_weights(BEFORE, BEFORE + 0.1).tolist() == [pytest.approx(1 / 3)] * 3


def test_no_overfitting_at_all_stays_finite():
    level = torch.tensor([[2.0, 2.1], [2.0, 2.1]])
    weights = blend_weights(level, level - torch.tensor([[0.5], [0.5]]))
    assert weights.tolist() == [0.5, 0.5]


def test_loss_is_a_mean_over_samples():
    model = make_model(dropout=0.5)
    part = digits().validation
    torch.testing.assert_close(
        torch.tensor(mean_loss(model, part, batch_size=100)),
        F.cross_entropy(predict(model, part), part.label),
        atol=1e-5,
        rtol=1e-5,
    )
    rows = torch.arange(len(part)).repeat(2)
    assert mean_loss(model, part.index(rows)) == pytest.approx(mean_loss(model, part), abs=1e-5)


def test_a_probe_sees_its_modality_only():
    model = make_model(backbone="transformer")
    head = torch.nn.Linear(8, 10)
    batch = digits().train.index(torch.arange(6))
    probe = UnimodalProbe(model, "right", head)
    encodings = model(batch.features, batch.mask).encodings
    logits = probe(batch.features, batch.mask).logits
    torch.testing.assert_close(logits, head(encodings["right"]))
    logits.sum().backward()
    touched = {name for name, p in model.named_parameters() if p.grad is not None}
    outside = names_of(model, model.head_parameters())
    outside |= names_of(model, [*model.branch_parameters("left"), *model.branch_parameters("spectrum")])
    assert touched == {name for name, _ in model.named_parameters()} - outside


def test_trials_get_copies_and_the_kept_samples():
    model, data = make_model(), digits()
    before = {name: p.clone() for name, p in model.named_parameters()}
    method = GradBlending(super_epoch=3)
    method.start(model, data, 8, 0)
    calls = []

    def train(copy, part, epochs, seed):
        calls.append((type(copy).__name__, len(part), epochs))
        with torch.no_grad():
            for parameter in copy.parameters():
                parameter.mul_(2)

    for epoch in range(8):
        method.epoch_start(model, data, epoch, Loop(None, train))
    kept, held = method.kept.tolist(), method.held.tolist()
    assert sorted(kept + held) == list(range(len(data.train)))
    assert len(held) / len(data.train) == pytest.approx(0.1, abs=0.01)
    assert len(method.training_part(data)) == len(kept)
    probes = ["UnimodalProbe"] * 3 + ["Classifier"]
    assert calls == [(name, len(kept), epochs) for epochs in (3, 3, 2) for name in probes]
    assert not differing(before, {name: p.detach() for name, p in model.named_parameters()})


def test_offline_estimates_once_over_the_whole_training():
    model, data, seen = make_model(), digits(), []
    method = GradBlending(online=False)
    method.start(model, data, 25, 0)
    for epoch in range(25):
        method.epoch_start(model, data, epoch, Loop(None, lambda copy, part, epochs, seed: seen.append(epochs)))
    assert seen == [25] * 4


def test_the_weights_scale_their_losses():
    model = make_model()
    weights = {"left": 0.2, "right": 0.1, "spectrum": 0.3}
    ours = gradients(GradBlending(weights=weights), model)
    plain, only_left = (
        gradients(Balancing(), model),
        gradients(GradBlending(weights=JOINT_ONLY | {"left": 1}), model),
    )
    for name in names_of(model, model.head_parameters()):
        torch.testing.assert_close(ours[name], 0.4 * plain[name], atol=1e-7, rtol=1e-4)
        assert not only_left[name].any()
    for name in names_of(model, model.branch_parameters("left")):
        torch.testing.assert_close(ours[name], 0.4 * plain[name] + 0.2 * only_left[name], atol=1e-7, rtol=1e-4)


def test_the_joint_loss_alone_is_plain_training_bit_by_bit():
    for kind in ("sgd", "adamw"):
        models = []
        for method in (Balancing(), GradBlending(weights=JOINT_ONLY)):
            models.append(make_model())
            optimizer = start(method, models[-1], kind, 0.01)
            for _ in range(20):
                take_step(method, models[-1], optimizer)
        assert not differing(models[0].state_dict(), models[1].state_dict())


def test_trial_trainings_fall_in_loss_and_leave_the_random_state_alone():
    seen = []

    class Watched(GradBlending):
        def estimate(self, model, data, epochs, seed, loop):
            before = torch.get_rng_state()
            state = {name: value.clone() for name, value in model.state_dict().items()}
            weights = super().estimate(model, data, epochs, seed, loop)
            seen.append(
                (torch.equal(before, torch.get_rng_state()), differing(state, model.state_dict()), weights)
            )
            return weights

    method = Watched(super_epoch=2)
    history = fit(make_model(dropout=0.2), digits(), epochs=3, method=method, learning_rate=5e-3)
    assert [(kept, changed) for kept, changed, _ in seen] == [(True, set()), (True, set())]
    assert all((weights > 0).any() and not (weights == 0.25).all() for *_, weights in seen)
    assert history.train_loss[-1] < history.train_loss[0]
    assert list(history.coefficients) == [*THREE, "joint loss"]
    assert history.coefficients["left"] == [pytest.approx(float(seen[at][2][0])) for at in (0, 0, 1)]


def test_trials_meet_the_corruption_of_the_training():
    """Each of the four trials of two epochs, and the training of two, sees corrupted mini-batches alone."""
    sizes = []

    def blanked(batch, generator):
        sizes.append(len(batch))
        return batch

    data = digits()
    fit(make_model(), data, epochs=2, method=GradBlending(super_epoch=2), corruption=blanked)
    kept = round(0.9 * len(data.train))
    assert sum(sizes) == pytest.approx(10 * kept + len(data.validation), abs=20)


def test_wrong_options_are_refused():
    with pytest.raises(ValueError, match="expected weights by modality, none negative, with a sum of at most 1"):
        GradBlending(weights={"left": 0.9, "right": 0.2})
    with pytest.raises(ValueError, match="weights: expected one for each of"):
        start(GradBlending(weights={"left": 0.9}), make_model())
    with pytest.raises(ValueError, match="0 < held_out < 1, got 1"):
        GradBlending(held_out=1)


def test_fixed_weights_are_taken_up_to_rounding_and_nonsense_is_refused():
    GradBlending(weights={"left": 0.33, "right": 0.56, "spectrum": 0.11})  # 1.0000000000000002
    for wrong in ({}, {"left": float("nan")}, {"left": -0.1}, {"left": 0.6, "right": 0.6}):
        with pytest.raises(
            ValueError, match="expected weights by modality, none negative, with a sum of at most 1"
        ):
            GradBlending(weights=wrong)


def test_a_trial_without_finite_loss_is_no_reason_for_uniform_weights():
    model, data = make_model(), digits()
    method = GradBlending(super_epoch=3)
    method.start(model, data, 8, 0)

    def train(copy, part, epochs, seed):
        if getattr(copy, "name", "") == "right":
            with torch.no_grad():
                copy.head.weight.fill_(float("nan"))

    with pytest.raises(FloatingPointError, match="the trial of right has no finite loss; lower learning_rate"):
        method.epoch_start(model, data, 0, Loop(None, train))
