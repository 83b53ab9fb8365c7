"""The objective: leave-one-out contributions, value supervision and regulariser, against numbers and loops."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import made_inputs, randomise
from torch.nn import functional as F

from vgmr import VGMR, Batch, Classifier, Objective, PooledBackbone, Refinement, TransformerBackbone
from vgmr.contributions import contributions, contributions_before_refiner
from vgmr.fusion.tensor_fusion import TensorFusion
from vgmr.objective import regulariser, value_loss
from vgmr.prefusion import CrossAttention, FeatureMLP, Identity, SigmoidTanhGate

few = settings(max_examples=20, derandomize=True, deadline=None)

DIMS = {"text": 4, "audio": 3, "vision": 2}
LENGTHS = {"text": 4, "audio": 6, "vision": 3}


def pooled(head="concat", dims=DIMS):
    return PooledBackbone(dims, 3, width=5, head=head)


def transformer(head="concat", dims=DIMS):
    return TransformerBackbone(
        dims, 3, max_length=12, width=8, num_layers=2, num_heads=2, feedforward_dim=6, head=head
    )


both = pytest.mark.parametrize("make", [pooled, transformer])


def made_model(make=pooled, prefusion=None, head="concat", seed=0):
    model = Classifier(VGMR(DIMS, 3) if prefusion is None else prefusion, make(head)).double().eval()
    randomise(model, seed, 0.5)
    return model


class Exact(Batch):
    """In float64, for numbers to many digits; a batch that is trained on is float32, and refuses these."""

    def __post_init__(self) -> None:
        """Nothing is refused."""


def made_batch(size=4, seed=0, ragged=True):
    features, mask = made_inputs(DIMS, size, LENGTHS, seed)
    if not ragged:
        mask = {name: torch.ones_like(real) for name, real in mask.items()}
    label = torch.randint(0, 3, (size,), generator=torch.Generator().manual_seed(seed))
    return Exact(features, mask, label)


def cross_entropy_by_hand(logits, label):
    """Of one sample, in nats."""
    return math.log(sum(math.exp(x) for x in logits.tolist())) - logits[label].item()


# Contributions


@both
@pytest.mark.parametrize("head", ["concat", "sum", "tensor"])
@given(st.integers(0, 2**16))
@settings(few, max_examples=5)
def test_contributions_equal_a_separate_pass_per_modality(make, head, seed):
    """delta_m = loss without m - loss of all, each sample alone, with ragged masks."""
    model, batch = made_model(make, head=head, seed=seed), made_batch(4, seed)
    output = model(batch.features, batch.mask)
    got = contributions(model.backbone, output.encodings, batch.label)
    assert list(got) == list(DIMS)
    full = model(batch.features, batch.mask).logits
    for name in DIMS:
        without = model(batch.features, batch.mask, keep=set(DIMS) - {name}).logits
        for row, label in enumerate(batch.label.tolist()):
            expected = cross_entropy_by_hand(without[row], label) - cross_entropy_by_hand(full[row], label)
            assert got[name][row].item() == pytest.approx(expected, abs=1e-6)


def test_contribution_with_a_pencil():
    """Two classes, one-hot encodings, head rows (ln 3, 0 | 0, ln 2) for class 0 and zeros for class 1.

    Encodings a = [1], b = [1]: logits [ln 3 * 1 + ln 2 * 1, 0] = [ln 6, 0]: loss of label 0 is ln(7/6).
    Without a: [ln 2, 0]: ln(3/2); so delta_a = ln(3/2) - ln(7/6) = ln(9/7) > 0: a helps label 0.
    Without b: [ln 3, 0]: ln(4/3); delta_b = ln(8/7).
    For label 1 the losses are ln 7, ln 3 and ln 4: delta_a = ln(3/7) < 0, delta_b = ln(4/7): both harm.
    """
    backbone = PooledBackbone({"a": 1, "b": 1}, 2, width=1).double()
    backbone.head.linear.weight.data = torch.tensor([[math.log(3), math.log(2)], [0.0, 0.0]]).double()
    backbone.head.linear.bias.data.zero_()
    encodings = {"a": torch.ones(2, 1).double(), "b": torch.ones(2, 1).double()}
    got = contributions(backbone, encodings, torch.tensor([0, 1]))
    assert got["a"].tolist() == pytest.approx([math.log(9 / 7), math.log(3 / 7)], abs=1e-7)
    assert got["b"].tolist() == pytest.approx([math.log(8 / 7), math.log(4 / 7)], abs=1e-7)


@both
def test_contributions_have_no_gradient_and_leave_none(make):
    model, batch = made_model(make), made_batch()
    output = model(batch.features, batch.mask)
    assert all(x.requires_grad for x in output.encodings.values())
    for found in (
        contributions(model.backbone, output.encodings, batch.label),
        contributions_before_refiner(model, batch),
    ):
        assert not any(delta.requires_grad for delta in found.values())
        assert {delta.shape for delta in found.values()} == {(4,)}
    assert all(parameter.grad is None for parameter in model.parameters())


def test_contributions_share_the_dropout_of_the_pass():
    """In training mode nothing new is drawn: the same encodings give the same answer, bit by bit."""
    model, batch = made_model().train(), made_batch()
    encodings = model(batch.features, batch.mask).encodings
    state = torch.get_rng_state()
    one = contributions(model.backbone, encodings, batch.label)
    two = contributions(model.backbone, encodings, batch.label)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(one[name], two[name]) for name in DIMS)


def test_a_modality_that_the_head_ignores_contributes_nothing():
    """Encodings go to the head in alphabetical order: audio, text, vision."""
    model, batch = made_model(), made_batch()
    with torch.no_grad():
        model.backbone.head.linear.weight[:, 5:10] = 0
    got = contributions(model.backbone, model(batch.features, batch.mask).encodings, batch.label)
    assert not got["text"].any()
    assert got["audio"].abs().min() > 0
    assert got["vision"].abs().min() > 0


@both
def test_contributions_before_the_refiner_equal_the_naive_computation(make):
    model, batch = made_model(make), made_batch()
    got = contributions_before_refiner(model, batch)
    full = model(batch.features, batch.mask).logits
    for absent in DIMS:
        for row, label in enumerate(batch.label.tolist()):
            sample = {name: x[row : row + 1].clone() for name, x in batch.features.items()}
            mask = {name: real[row : row + 1] for name, real in batch.mask.items()}
            sample[absent].zero_()
            refined = model.prefusion(sample, mask).features
            encodings = model.backbone.encode(refined, mask)
            logits = model.backbone.fuse(encodings, [name for name in DIMS if name != absent])
            expected = cross_entropy_by_hand(logits[0], label) - cross_entropy_by_hand(full[row], label)
            assert got[absent][row].item() == pytest.approx(expected, abs=1e-6)


def test_removal_before_and_after_the_refiner_differ_only_through_the_refiner():
    batch = made_batch()
    for prefusion, same in ((Identity(DIMS), True), (VGMR(DIMS, 3), False)):
        model = made_model(prefusion=prefusion)
        after = contributions(model.backbone, model(batch.features, batch.mask).encodings, batch.label)
        before = contributions_before_refiner(model, batch)
        for name in DIMS:
            assert torch.allclose(after[name], before[name], atol=1e-9) == same


def test_contributions_before_the_refiner_leave_the_batch_untouched():
    model, batch = made_model(), made_batch()
    copies = {name: x.clone() for name, x in batch.features.items()}
    contributions_before_refiner(model, batch)
    assert all(torch.equal(copies[name], x) for name, x in batch.features.items())


def test_contributions_before_the_refiner_draw_nothing_and_move_nothing():
    """In training mode too: a comparison of passes that differ in dropout would compare the dropout."""
    model, batch = made_model(lambda _: TensorFusion(DIMS, 3)).train(), made_batch()
    state, weights = torch.get_rng_state(), {name: x.clone() for name, x in model.state_dict().items()}
    one, two = (contributions_before_refiner(model, batch) for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in DIMS)
    assert torch.equal(torch.get_rng_state(), state) and all(part.training for part in model.modules())
    assert all(torch.equal(weights[name], x) for name, x in model.state_dict().items()), "statistics of BatchNorm"


# Value supervision


def doubles(*rows):
    return torch.tensor(rows, dtype=torch.float64)


def test_value_loss_with_a_pencil():
    """Two samples, two modalities, two channels; sigmoid(ln 3) = 3/4, sigmoid(0) = 1/2, sigmoid(-ln 3) = 1/4.

    a: targets 3/4, 1/2. Global values 1/2, 1/2 miss by 1/4, 0: squares 1/16, 0.
       Channel means (3/4 + 1/4)/2 = 1/2 and (1 + 1/2)/2 = 3/4 miss by 1/4, 1/4: 1/16, 1/16.
       Sums per sample 2/16, 1/16; mean over the batch 3/32.
    b: targets 1/4, 1/2. Global values 1/4, 3/4: 0, 1/16. Channel means 1/4, 1/2: 0, 0. Mean 1/32.
    Mean over the modalities: (3/32 + 1/32) / 2 = 1/16.
    """
    refinement = Refinement(
        {},
        {"a": doubles(0.5, 0.5), "b": doubles(0.25, 0.75)},
        {"a": doubles([0.75, 0.25], [1.0, 0.5]), "b": doubles([0.25, 0.25], [0.5, 0.5])},
    )
    three = math.log(3)
    contribution = {"a": doubles(three, 0.0), "b": doubles(-three, 0.0)}
    assert value_loss(refinement, contribution).item() == pytest.approx(1 / 16, abs=1e-12)
    halved = {name: delta * 2.5 for name, delta in contribution.items()}
    assert value_loss(refinement, halved, temperature=2.5).item() == pytest.approx(1 / 16, abs=1e-12)


@given(st.integers(0, 2**16), st.sampled_from([0.3, 1.0, 4.0]), st.integers(1, 4))
@few
def test_value_loss_equals_the_naive_loops(seed, temperature, size):
    """mean over m of [(v^g - t)^2 + (mean_k v^c_k - t)^2], mean over the batch."""
    model, batch = made_model(seed=seed), made_batch(size, seed)
    refinement = model.prefusion(batch.features, batch.mask)
    contribution = {name: torch.randn(size).double() for name in DIMS}
    total = 0.0
    for row in range(size):
        for name in DIMS:
            target = 1 / (1 + math.exp(-contribution[name][row].item() / temperature))
            channels = refinement.channel_value[name][row].tolist()
            total += (refinement.global_value[name][row].item() - target) ** 2
            total += (sum(channels) / len(channels) - target) ** 2
    expected = total / len(DIMS) / size
    assert value_loss(refinement, contribution, temperature).item() == pytest.approx(expected, abs=1e-12)


def test_value_loss_is_zero_at_its_target_only():
    """Removal changes nothing: the target is 1/2."""
    calm = Refinement({}, {"a": doubles(0.5)}, {"a": doubles([0.2, 0.8])})
    assert value_loss(calm, {"a": doubles(0.0)}).item() == 0
    assert value_loss(calm, {"a": doubles(1.0)}).item() > 0.1


# Regulariser


def test_regulariser_with_a_pencil():
    """Two samples, two modalities; s_min = 0.1, deviations over the batch of two (half the distance).

    a: global 0.5, 0.6: deviation 0.05, short of 0.1 by 0.05.
       Channels (0.5, 0.5) and (0.4, 0.6): deviations 0 and 0.1, mean 0.05, short by 0.05.
       Gate, three real steps of d_m = 1: 0.5, 0.8, 0.8 (a padded 0.0 is left out): mean 0.7, (0.2)^2 = 0.04.
    b: global 0.2, 0.8: deviation 0.3, nothing. Channels (0.1, 0.9) twice: 0.4, nothing. Gate 0.5: nothing.
    Together (0.05 + 0.05 + 0.04 + 0) / 2 = 0.07.
    """
    refinement = Refinement(
        {},
        {"a": doubles(0.5, 0.6), "b": doubles(0.2, 0.8)},
        {"a": doubles([0.5, 0.4], [0.5, 0.6]), "b": doubles([0.1, 0.1], [0.9, 0.9])},
        {"a": doubles([[0.5], [0.8]], [[0.8], [0.0]]), "b": doubles([[0.5]], [[0.5]])},
    )
    mask = {
        "a": torch.tensor([[True, True], [True, False]]),
        "b": torch.tensor([[True], [True]]),
    }
    assert regulariser(refinement, mask).item() == pytest.approx(0.07, abs=1e-12)
    # without a mask the gate of a has mean 2.1 / 4 = 0.525 and costs 0.000625
    assert regulariser(refinement).item() == pytest.approx((0.1 + 0.000625) / 2, abs=1e-12)
    # s_min = 0.5: a lacks 0.45 + 0.45 + 0.04, b lacks 0.2 + 0.1
    assert regulariser(refinement, mask, 0.5).item() == pytest.approx((0.94 + 0.3) / 2, abs=1e-12)


@given(st.integers(0, 2**16), st.sampled_from([0.0, 0.1, 0.4]), st.integers(1, 5), st.booleans())
@few
def test_regulariser_equals_the_naive_loops(seed, minimum, size, ragged):
    model, batch = made_model(seed=seed), made_batch(size, seed, ragged)
    refinement = model.prefusion(batch.features, batch.mask)

    def deviation(values):
        mean = sum(values) / len(values)
        return math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))

    total = 0.0
    for name in DIMS:
        total += max(0.0, minimum - deviation(refinement.global_value[name].tolist()))
        channels = refinement.channel_value[name].T.tolist()
        total += max(0.0, minimum - sum(deviation(channel) for channel in channels) / len(channels))
        seen = [
            value
            for row in range(size)
            for t, step in enumerate(refinement.gate[name][row].tolist())
            for value in step
            if batch.mask[name][row, t]
        ]
        total += (sum(seen) / len(seen) - 0.5) ** 2
    got = regulariser(refinement, batch.mask, minimum)
    assert got.item() == pytest.approx(total / len(DIMS), abs=1e-9)
    if not ragged:
        torch.testing.assert_close(regulariser(refinement, None, minimum), got)


def test_gate_mean_counts_real_steps_only():
    """Whatever the gate of a padded step, and however many there are, the penalty is the same."""
    model, batch = made_model(), made_batch(4, 3)
    refinement = model.prefusion(batch.features, batch.mask)
    expected = regulariser(refinement, batch.mask)
    for name, gate in refinement.gate.items():
        spoilt = gate.masked_fill(~batch.mask[name].unsqueeze(2), 0.99)
        refinement.gate[name] = F.pad(spoilt, (0, 0, 0, 5), value=0.01)
    longer = {name: F.pad(real, (0, 5)) for name, real in batch.mask.items()}
    torch.testing.assert_close(regulariser(refinement, longer), expected)


@both
def test_a_batch_of_one_sample_gives_numbers_and_gradients(make):
    """The deviation over one sample is zero: 0.1 is missing twice, and no gradient is NaN."""
    model, batch = made_model(make), made_batch(1)
    output = model(batch.features, batch.mask)
    gates = [(output.refinement.gate[name][batch.mask[name]].mean() - 0.5) ** 2 for name in DIMS]
    penalty = regulariser(output.refinement, batch.mask)
    assert penalty.item() == pytest.approx(0.2 + sum(gates).item() / 3, abs=1e-9)
    Objective()(model, output, batch).backward()
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name


def test_regulariser_pushes_values_apart_and_gates_to_the_middle():
    """A gradient step from nearly equal values and an open gate lowers the penalty in each part."""
    values = torch.tensor([0.50, 0.51], dtype=torch.float64, requires_grad=True)
    channels = torch.tensor([[0.50], [0.51]], dtype=torch.float64, requires_grad=True)
    gate = torch.full((2, 1, 1), 0.8, dtype=torch.float64, requires_grad=True)
    regulariser(Refinement({}, {"a": values}, {"a": channels}, {"a": gate})).backward()
    assert values.grad[0] > 0 > values.grad[1]
    assert channels.grad[0] > 0 > channels.grad[1]
    assert (gate.grad > 0).all()


# Objective


def by_hand(model, output, batch, objective, warmth=1.0):
    contribution = (
        contributions(model.backbone, output.encodings, batch.label)
        if objective.removal == "after"
        else contributions_before_refiner(model, batch)
    )
    logits = output.logits
    task = sum(cross_entropy_by_hand(logits[row], label) for row, label in enumerate(batch.label.tolist()))
    value = value_loss(output.refinement, contribution, objective.temperature).item()
    penalty = regulariser(output.refinement, batch.mask, objective.minimum_deviation).item()
    weight = warmth * objective.value_weight
    return task / len(batch) + weight * value + objective.regulariser_weight * penalty


@both
@pytest.mark.parametrize(
    "objective",
    [
        Objective(),
        Objective(value_weight=2.0, regulariser_weight=3.0, temperature=0.5, minimum_deviation=0.4),
        Objective(value_weight=2.0, removal="before"),
        Objective(value_weight=0.0, regulariser_weight=3.0),
        Objective(value_weight=2.0, regulariser_weight=0.0),
    ],
)
def test_objective_is_the_sum_of_its_terms(make, objective):
    model, batch = made_model(make), made_batch(5, 2)
    output = model(batch.features, batch.mask)
    got = objective(model, output, batch)
    assert got.shape == ()
    assert got.item() == pytest.approx(by_hand(model, output, batch, objective), abs=1e-9)


def test_defaults_are_those_of_the_method():
    objective = Objective()
    assert (objective.value_weight, objective.regulariser_weight) == (0.1, 0.01)
    assert (objective.temperature, objective.minimum_deviation, objective.removal) == (1.0, 0.1, "after")


def test_removal_before_the_refiner_is_another_objective():
    model, batch = made_model(), made_batch()
    randomise(model.prefusion, 0, 2.0)
    output = model(batch.features, batch.mask)
    after, before = (Objective(5.0, removal=removal)(model, output, batch) for removal in ("after", "before"))
    assert abs(after - before).item() > 1e-6


def test_value_term_grows_linearly_in_the_warm_up():
    """Three epochs of warm-up: 1/4, 2/4, 3/4 of the weight, then all of it; the regulariser is there at once."""
    model, batch = made_model(), made_batch()
    output = model(batch.features, batch.mask)
    objective = Objective(value_weight=2.0, regulariser_weight=1.0, warmup_epochs=3)
    for epoch, warmth in enumerate([0.25, 0.5, 0.75, 1.0, 1.0, 1.0]):
        expected = by_hand(model, output, batch, objective, warmth)
        assert objective(model, output, batch, epoch).item() == pytest.approx(expected, abs=1e-9)
    assert torch.equal(Objective()(model, output, batch, 0), Objective()(model, output, batch, 7))


def test_weights_of_zero_leave_cross_entropy_bit_by_bit():
    model, batch = made_model(), made_batch()
    output = model(batch.features, batch.mask)
    expected = F.cross_entropy(output.logits, batch.label)
    off = Objective(value_weight=0.0, regulariser_weight=0.0)
    assert torch.equal(off(model, output, batch), expected)
    assert not torch.equal(Objective()(model, output, batch), expected)


@pytest.mark.parametrize(
    "prefusion",
    [Identity(DIMS), FeatureMLP(DIMS, 4), CrossAttention(DIMS, 4), SigmoidTanhGate(DIMS, 4)],
    ids=lambda module: type(module).__name__,
)
def test_without_vgmr_the_objective_is_cross_entropy_bit_by_bit(prefusion):
    model, batch = made_model(prefusion=prefusion), made_batch()
    output = model(batch.features, batch.mask)
    expected = F.cross_entropy(output.logits, batch.label)
    for removal in ("after", "before"):
        objective = Objective(value_weight=5.0, regulariser_weight=5.0, removal=removal)
        assert torch.equal(objective(model, output, batch), expected)


def test_values_that_are_not_learned_have_neither_value_loss_nor_regulariser():
    model, batch = made_model(prefusion=VGMR.calibrated(DIMS, 3, latent_dim=3)), made_batch()
    output = model(batch.features, batch.mask)
    assert output.refinement.gate
    assert torch.equal(Objective(5.0, 5.0)(model, output, batch), F.cross_entropy(output.logits, batch.label))


class Gated(torch.nn.Module):
    """Someone's own module with a gate, which does not say whether its values are learned."""

    def __init__(self):
        super().__init__()
        self.dims, self.inner = DIMS, VGMR(DIMS, 3)

    def forward(self, features, mask=None):
        return self.inner(features, mask)


@pytest.mark.parametrize("objective", [Objective(2.0, 0.0), Objective(0.0, 3.0), Objective(2.0, 3.0)])
def test_a_gate_of_ones_own_has_the_terms_of_values_that_are_learned(objective):
    model, batch = made_model(prefusion=Gated()), made_batch(5, 2)
    output = model(batch.features, batch.mask)
    assert objective(model, output, batch).item() == pytest.approx(
        by_hand(model, output, batch, objective), abs=1e-9
    )


@pytest.mark.parametrize("removal", ["after", "before"])
def test_value_term_teaches_the_values_and_never_the_backbone(removal):
    """Its targets carry no gradient: the backbone's gradients are those of the task alone, the values' are not."""
    batch = made_batch()

    def gradients(objective):
        model = made_model()
        objective(model, model(batch.features, batch.mask), batch).backward()
        return {name: parameter.grad for name, parameter in model.named_parameters()}

    plain = gradients(Objective(value_weight=0.0, regulariser_weight=0.0))
    taught = gradients(Objective(value_weight=5.0, regulariser_weight=0.0, removal=removal))
    for name, gradient in taught.items():
        if name.startswith("backbone"):
            assert torch.equal(gradient, plain[name]), name
        elif "global_value" in name or "channel_value" in name or "value_encoder" in name:
            assert not torch.equal(gradient, plain[name]), name


@pytest.mark.parametrize("removal", ["after", "before"])
def test_padding_changes_no_loss(removal):
    model, batch = made_model(), made_batch()
    longer = Exact(
        {
            name: F.pad(x.masked_fill(~batch.mask[name].unsqueeze(2), 9.0), (0, 0, 0, 4), value=9.0)
            for name, x in batch.features.items()
        },
        {name: F.pad(real, (0, 4)) for name, real in batch.mask.items()},
        batch.label,
    )
    objective = Objective(value_weight=2.0, regulariser_weight=2.0, removal=removal)
    one, two = (objective(model, model(each.features, each.mask), each) for each in (batch, longer))
    torch.testing.assert_close(one, two)


def test_training_with_the_value_term_brings_the_values_to_their_targets():
    """The refiner alone learns, towards targets that are held fixed."""
    model, batch = made_model(), made_batch(8, 1)
    with torch.no_grad():
        contribution = contributions(model.backbone, model(batch.features, batch.mask).encodings, batch.label)
    optimizer = torch.optim.Adam(model.prefusion.parameters(), 0.03)

    def loss():
        return value_loss(model.prefusion(batch.features, batch.mask), contribution)

    first = loss().item()
    for _ in range(150):
        optimizer.zero_grad()
        value = loss()
        value.backward()
        optimizer.step()
    assert loss().item() < 0.1 * first


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"removal": "during"}, "^removal must be 'after' or 'before' the refiner, got 'during'$"),
        ({"temperature": 0.0}, r"^temperature must be positive and finite, got 0\.0$"),
        ({"temperature": float("inf")}, r"^temperature must be positive and finite, got inf$"),
        ({"temperature": -1.0}, r"^temperature must be positive and finite, got -1\.0$"),
    ],
)
def test_bad_options_are_refused_in_one_line(options, message):
    with pytest.raises(ValueError, match=message):
        Objective(**options)
