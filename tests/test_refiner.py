"""The refiner: equal to a literal reference, what must hold for any input, and what it refuses."""

import copy
import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import made_inputs, numpy_weights, randomise, real_steps, refine_sample

from vgmr import VGMR
from vgmr.prefusion import CrossAttention, FeatureMLP, Identity, SigmoidTanhGate, count_parameters
from vgmr.refining.maps import ModalityMaps, masked_mean, scaled, spare

few = settings(max_examples=20, derandomize=True, deadline=None)

DIMS = {"text": 4, "audio": 3, "vision": 2, "touch": 5}
LENGTHS = {"text": 4, "audio": 5, "vision": 1, "touch": 3}
SWITCHES = ("use_global_value", "use_channel_value", "use_agreement", "use_discrepancy")
PER_STEP = ("features", "gate", "effective_gate")


def made_vgmr(dims, seed=0, scale=0.7, **options):
    vgmr = VGMR(dims, **{"latent_dim": 3, **options}).double().eval()
    randomise(vgmr, seed, scale)
    return vgmr


@st.composite
def cases(draw):
    """A refiner in float64 with inputs: 2 to 4 modalities, ragged masks or none, any strength."""
    names = draw(st.permutations(list(DIMS)))[: draw(st.integers(2, 4))]
    dims = {name: draw(st.integers(1, 5)) for name in names}
    lengths = {name: draw(st.integers(1, 6)) for name in names}
    seed = draw(st.integers(0, 2**16))
    vgmr = made_vgmr(
        dims,
        seed,
        amplification=draw(st.sampled_from([0.0, 0.3, 0.5, 1.0])),
        retention=draw(st.sampled_from([0.0, 0.2, 0.7, 1.0])),
        norm=draw(st.sampled_from(["layer", "none"])),
    )
    return vgmr, *made_inputs(dims, draw(st.integers(1, 4)), lengths, seed + 1, draw(st.booleans()))


def all_true(features):
    return {name: torch.ones(x.shape[:2], dtype=torch.bool) for name, x in features.items()}


def assert_same(one, other, atol=1e-10):
    for what in ("features", "global_value", "channel_value", "gate", "effective_gate"):
        for name, value in getattr(one, what).items():
            torch.testing.assert_close(
                value, getattr(other, what)[name], atol=atol, rtol=0, msg=lambda m, n=name, w=what: f"{n} {w}: {m}"
            )


def assert_equals_reference(vgmr, features, mask, norm, switches=None):
    got = vgmr(features, mask)
    weights, real = numpy_weights(vgmr), all_true(features) if mask is None else mask
    for row in range(len(next(iter(features.values())))):
        expected = refine_sample(
            weights,
            real_steps(features, mask, row),
            vgmr.amplification,
            vgmr.retention,
            norm,
            **(switches or {}),
        )
        for name in features:
            for what in PER_STEP:
                value = getattr(got, what)[name][row][real[name][row]]
                torch.testing.assert_close(value, torch.as_tensor(expected[name][what]), atol=1e-9, rtol=0)
            for what in ("global_value", "channel_value"):
                value = getattr(got, what)[name][row]
                torch.testing.assert_close(value, torch.as_tensor(expected[name][what]), atol=1e-9, rtol=0)
            assert not got.features[name][row][~real[name][row]].any()


# Equality with the literal reference


@pytest.mark.parametrize("values", list(itertools.product([True, False], repeat=4)))
@pytest.mark.parametrize("count", [2, 3, 4])
def test_equals_the_literal_reference_for_every_switch(count, values):
    switches = dict(zip(SWITCHES, values, strict=True))
    dims = {name: DIMS[name] for name in list(DIMS)[:count]}
    for norm, ragged in itertools.product(["layer", "none"], [True, False]):
        vgmr = made_vgmr(dims, count, norm=norm, **switches)
        features, mask = made_inputs(dims, 3, LENGTHS | {"vision": 2}, count, ragged)
        assert_equals_reference(vgmr, features, mask, norm, switches)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("rho", [0.0, 0.2, 0.9, 1.0])
def test_equals_the_literal_reference_for_every_strength(alpha, rho):
    dims = {"text": 4, "audio": 3}
    vgmr = made_vgmr(dims, 5, amplification=alpha, retention=rho)
    assert_equals_reference(vgmr, *made_inputs(dims, 2, LENGTHS, 6), "layer")


@given(cases())
@few
def test_equals_the_literal_reference_for_any_shape(case):
    vgmr, features, mask = case
    norm = "layer" if isinstance(next(iter(vgmr.maps.values())).norm, torch.nn.LayerNorm) else "none"
    assert_equals_reference(vgmr, features, mask, norm)


def counted_folding(monkeypatch):
    calls = []
    real = ModalityMaps.gate_weight

    def counting(self):
        calls.append(self.projection.in_features)
        return real(self)

    monkeypatch.setattr(ModalityMaps, "gate_weight", counting)
    return calls


@pytest.mark.parametrize("batch", [2, 3])
def test_training_product_folds_only_where_it_saves_and_equals_the_literal_maps(batch, monkeypatch):
    """Two steps of each modality: 2 * 2 rows do not exceed d_m = 4, 3 * 2 rows do; 2 * 2 rows exceed d_m = 3."""
    calls = counted_folding(monkeypatch)
    dims = {"text": 4, "audio": 3}
    vgmr = made_vgmr(dims, 1).train()
    vgmr.apply(lambda module: setattr(module, "p", 0.0) if isinstance(module, torch.nn.Dropout) else None)
    features, mask = made_inputs(dims, batch, {"text": 2, "audio": 2}, 2)
    assert_equals_reference(vgmr, features, mask, "layer")
    assert calls == ([3] if batch == 2 else [4, 3])


def test_gradient_through_the_folded_training_product_is_that_of_the_literal_maps(monkeypatch):
    dims = {"text": 4, "audio": 3, "vision": 2}
    features, mask = made_inputs(dims, 5, {"text": 3, "audio": 4, "vision": 2}, 4)
    folded = made_vgmr(dims, 3)
    literal = copy.deepcopy(folded)

    def gradients(vgmr):
        inputs = {name: x.clone().requires_grad_() for name, x in features.items()}
        refinement = vgmr(inputs, mask)
        sum((refinement.features[name] ** 3).sum() for name in dims).backward()
        found = {f"input {name}": x.grad for name, x in inputs.items()}
        return found | {name: parameter.grad for name, parameter in vgmr.named_parameters()}

    calls = counted_folding(monkeypatch)
    fast = gradients(folded)
    assert calls == [4, 3, 2]

    def project(self, x):
        latent = self.projection(x)
        return latent, self.gate_from_features(x) + self.gate_from_latent(latent)

    monkeypatch.setattr(ModalityMaps, "project", project)
    slow = gradients(literal)
    assert calls == [4, 3, 2]
    for name, gradient in slow.items():
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(fast[name], gradient, atol=1e-10, rtol=1e-10, msg=lambda m, n=name: f"{n}: {m}")


def test_small_case_by_hand():
    """One sample, d_m = d = 1, alpha 1/2, rho 1/5, no LayerNorm; L stands for ln 3, so sigmoid(L) = 3/4.

    A two-layer MLP with hidden weights w, hidden bias 100, output weight 1 and output bias -100 is the map
    x -> w.x, since GELU(z) = z to the last bit for z near 100 (and Phi(100) is 1).

    a = [1, 3] (and a padded 99), b = [2].
    H_a = a = [1, 3]: mean 2, max 3. E^s_a takes 3 mean - max:  s_a = 6 - 3 = 3.
    H_b = b - 1 = [1]: mean 1, max 1. E^s_b takes mean + max:   s_b = 2.
    I_a = [s_a, s_b, s_a s_b, |s_a - s_b|, c_a] = [3, 2, 6, 1, 2]; I_b = [2, 3, 6, 1, 3].
    E^i_a takes [1, 2, 1, -3, 1]: r_a = 3 + 4 + 6 - 3 + 2 = 12;  E^v_a takes [-2, 2/3]: u_a = -6 + 8 = 2.
    E^i_b takes [3, 0, 1, -1, -3]: r_b = 6 + 6 - 1 - 9 = 2;      E^v_b takes [1, 1]: u_b = 4.
    v^g_a = sigmoid(u L/2) = 3/4, v^c_a = sigmoid(-u L/2) = 1/4; centred 1/4 and -1/4.
    v^g_b = sigmoid(-u L/2 + L) = sigmoid(-L) = 1/4, v^c_b = sigmoid(u L/4) = 3/4; centred -1/4 and 1/4.
    Gate logits of a at x: f^x = 3 L x, f^h = -2 L H, f^g = 8 L / 4 = 2 L, f^c = -16 L / 4 = -4 L; together
    L x - 2 L: -L at 1 and L at 3.  G = 1/4, 3/4;  A = 3/4, 5/4;  E = 1/5 + 4/5 A = 4/5, 6/5;
    refined: 1 * 4/5 = 0.8, 3 * 6/5 = 3.6.
    Gate logit of b: f^x = -L x + 2 L = 0, f^h = L H = L, f^g = 4 L / -4 + L = 0, f^c = -8 L / 4 = -2 L:
    -L.  G = 1/4, E = 4/5, refined: 2 * 4/5 = 1.6.
    """
    three = math.log(3)
    vgmr = VGMR({"a": 1, "b": 1}, latent_dim=1, norm="none").double().eval()

    def put(name, weight, bias=0.0):
        linear = vgmr.get_submodule(f"maps.{name}")
        linear.weight.data = torch.tensor([weight], dtype=torch.float64)
        linear.bias.data = torch.tensor([bias], dtype=torch.float64)

    def put_mlp(name, weight):
        put(f"{name}.0", weight, 100.0)
        put(f"{name}.2", [1.0], -100.0)

    put("a.projection", [1.0])
    put("b.projection", [1.0], -1.0)
    put_mlp("a.summary_encoder", [3.0, -1.0])
    put_mlp("b.summary_encoder", [1.0, 1.0])
    put_mlp("a.interaction_encoder", [1.0, 2.0, 1.0, -3.0, 1.0])
    put_mlp("b.interaction_encoder", [3.0, 0.0, 1.0, -1.0, -3.0])
    put_mlp("a.value_encoder", [-2.0, 2 / 3])
    put_mlp("b.value_encoder", [1.0, 1.0])
    put("a.global_value", [three / 2])
    put("b.global_value", [-three / 2], three)
    put("a.channel_value", [-three / 2])
    put("b.channel_value", [three / 4])
    put("a.gate_from_features", [3 * three])
    put("b.gate_from_features", [-three], 2 * three)
    put("a.gate_from_latent", [-2 * three])
    put("b.gate_from_latent", [three])
    put("a.gate_from_global", [8 * three])
    put("b.gate_from_global", [4 * three], three)
    put("a.gate_from_channel", [16 * three])
    put("b.gate_from_channel", [-8 * three])
    features = {"a": torch.tensor([[[1.0], [3.0], [99.0]]]), "b": torch.tensor([[[2.0]]])}
    mask = {"a": torch.tensor([[True, True, False]]), "b": torch.tensor([[True]])}
    got = vgmr({name: x.double() for name, x in features.items()}, mask)

    def close(value, expected):
        assert value.flatten().tolist() == pytest.approx(expected, abs=1e-12)

    close(got.global_value["a"], [3 / 4])
    close(got.global_value["b"], [1 / 4])
    close(got.channel_value["a"], [1 / 4])
    close(got.channel_value["b"], [3 / 4])
    close(got.gate["a"][:, :2], [1 / 4, 3 / 4])
    close(got.gate["b"], [1 / 4])
    close(got.effective_gate["a"][:, :2], [4 / 5, 6 / 5])
    close(got.effective_gate["b"], [4 / 5])
    close(got.features["a"], [0.8, 3.6, 0.0])
    close(got.features["b"], [1.6])


# What must hold


@pytest.mark.parametrize("options", [{"amplification": 0.0}, {"retention": 1.0}], ids=["alpha 0", "rho 1"])
@pytest.mark.parametrize("norm", ["layer", "none"])
def test_without_strength_only_the_norm_is_left(options, norm):
    vgmr = made_vgmr(DIMS, 1, norm=norm, **options)
    features, mask = made_inputs(DIMS, 3, LENGTHS, 2)
    got = vgmr(features, mask)
    for name, x in features.items():
        assert torch.equal(got.effective_gate[name], torch.ones_like(x))
        expected = vgmr.maps[name].norm(x) if norm == "layer" else x
        torch.testing.assert_close(got.features[name], expected * mask[name].unsqueeze(2), atol=1e-12, rtol=0)
        assert (got.gate[name] - 0.5).abs().max() > 0.1


@given(cases(), st.sampled_from([0.3, 30.0]))
@few
def test_effective_gate_stays_within_its_bounds(case, scale):
    vgmr, features, mask = case
    randomise(vgmr, 0, scale)
    alpha, rho = vgmr.amplification, vgmr.retention
    low, high = rho + (1 - rho) * (1 - alpha), rho + (1 - rho) * (1 + alpha)
    for effective_gate in vgmr(features, mask).effective_gate.values():
        assert effective_gate.min() >= low - 1e-12
        assert effective_gate.max() <= high + 1e-12


def test_default_bounds_are_reached_and_are_0_6_and_1_4():
    vgmr = made_vgmr({"text": 40, "audio": 40}, 0, scale=30.0)
    features, mask = made_inputs({"text": 40, "audio": 40}, 4, {"text": 3, "audio": 3})
    effective_gate = torch.cat([x.flatten() for x in vgmr(features, mask).effective_gate.values()])
    assert effective_gate.min().item() == pytest.approx(0.6, abs=1e-9)
    assert effective_gate.max().item() == pytest.approx(1.4, abs=1e-9)


@given(cases(), st.sampled_from([1e6, float("inf"), float("nan")]))
@few
def test_values_in_padded_steps_change_nothing(case, junk):
    vgmr, features, mask = case
    mask = all_true(features) if mask is None else mask
    other = {name: x.masked_fill(~mask[name].unsqueeze(2), junk) for name, x in features.items()}
    one, two = vgmr(features, mask), vgmr(other, mask)
    for what in ("features", "global_value", "channel_value", "gate", "effective_gate"):
        for name in features:
            assert torch.equal(getattr(one, what)[name], getattr(two, what)[name])
    for name, x in two.features.items():
        assert not x[~mask[name]].any()


@given(cases(), st.integers(1, 7))
@few
def test_more_padding_changes_nothing(case, amount):
    vgmr, features, mask = case
    mask = all_true(features) if mask is None else mask
    longer = {name: torch.nn.functional.pad(x, (0, 0, 0, amount), value=7.0) for name, x in features.items()}
    longer_mask = {name: torch.nn.functional.pad(real, (0, amount)) for name, real in mask.items()}
    one, two = vgmr(features, mask), vgmr(longer, longer_mask)
    for name, x in features.items():
        for what in PER_STEP:
            getattr(two, what)[name] = getattr(two, what)[name][:, : x.shape[1]]
    assert_same(one, two)


@given(cases())
@few
def test_no_mask_is_a_mask_of_real_steps(case):
    vgmr, features, _ = case
    assert_same(vgmr(features), vgmr(features, all_true(features)))


@given(cases(), st.integers(0, 3))
@few
def test_one_sample_changes_no_other(case, row):
    vgmr, features, mask = case
    size = len(next(iter(features.values())))
    row %= size
    changed = {name: x.clone() for name, x in features.items()}
    for x in changed.values():
        x[row] = 5 - 3 * x[row]
    one, two = vgmr(features, mask), vgmr(changed, mask)
    for what in ("features", "global_value", "channel_value", "gate", "effective_gate"):
        for name in features:
            before, after = getattr(one, what)[name], getattr(two, what)[name]
            others = torch.arange(size) != row
            torch.testing.assert_close(before[others], after[others], atol=1e-12, rtol=0)


@given(cases())
@few
def test_a_batch_is_its_samples_one_by_one(case):
    """Also across the choice of the folded product, which depends on the batch size."""
    vgmr, features, mask = case
    whole = vgmr(features, mask)
    for row in range(len(next(iter(features.values())))):
        alone = vgmr(
            {name: x[row : row + 1] for name, x in features.items()},
            None if mask is None else {name: x[row : row + 1] for name, x in mask.items()},
        )
        for what in ("features", "global_value", "channel_value", "gate", "effective_gate"):
            for name in features:
                expected = getattr(whole, what)[name][row]
                torch.testing.assert_close(getattr(alone, what)[name][0], expected, atol=1e-10, rtol=0)


@given(cases(), st.randoms(use_true_random=False))
@few
def test_order_of_names_changes_only_the_order_of_the_result(case, random):
    vgmr, features, mask = case
    names = list(features)
    random.shuffle(names)
    norm = "layer" if isinstance(next(iter(vgmr.maps.values())).norm, torch.nn.LayerNorm) else "none"
    other = VGMR({name: vgmr.dims[name] for name in names}, 3, vgmr.amplification, vgmr.retention, norm=norm)
    other = other.double().eval()
    other.load_state_dict(vgmr.state_dict())
    given_otherwise = {name: features[name] for name in sorted(names)}
    result = other(given_otherwise, mask)
    assert list(result.features) == names
    assert list(vgmr(given_otherwise, mask).features) == list(vgmr.dims)
    one, two = vgmr(features, mask), result
    for what in ("features", "global_value", "channel_value", "gate", "effective_gate"):
        for name in names:
            assert torch.equal(getattr(one, what)[name], getattr(two, what)[name])


def test_shifted_modality_keeps_its_summary():
    """The three real steps of text start at step 0, 1 or 4 of seven: every value and all of audio stay."""
    dims = {"text": 4, "audio": 3}
    vgmr = made_vgmr(dims, 3)
    steps, _ = made_inputs(dims, 2, {"text": 3, "audio": 2}, 4)
    seen, summaries = [], []
    for start in (0, 1, 4):
        text, real = torch.zeros(2, 7, 4).double(), torch.zeros(2, 7, dtype=torch.bool)
        text[:, start : start + 3], real[:, start : start + 3] = steps["text"], True
        mask = {"text": real, "audio": torch.ones(2, 2, dtype=torch.bool)}
        maps = vgmr.maps["text"]
        summaries.append(maps.summarise(maps.project(text)[0], real))
        refinement = vgmr({"text": text, "audio": steps["audio"]}, mask)
        for what in PER_STEP:
            getattr(refinement, what)["text"] = getattr(refinement, what)["text"][:, start : start + 3]
        seen.append(refinement)
    for summary, refinement in zip(summaries[1:], seen[1:], strict=True):
        torch.testing.assert_close(summary, summaries[0], atol=1e-12, rtol=0)
        assert_same(seen[0], refinement, 1e-12)


def test_lengths_need_no_alignment_and_shapes_stay():
    features, mask = made_inputs(DIMS, 2, LENGTHS)
    got = made_vgmr(DIMS)(features, mask)
    for name, x in features.items():
        assert got.features[name].shape == got.gate[name].shape == got.effective_gate[name].shape == x.shape
        assert got.global_value[name].shape == (2,)
        assert got.channel_value[name].shape == (2, 3)


@pytest.mark.parametrize("lengths", [{"text": 1, "audio": 1}, {"text": 3, "audio": 2}], ids=["literal", "folded"])
def test_gradcheck(lengths, monkeypatch):
    calls = counted_folding(monkeypatch)
    dims = {"text": 3, "audio": 2}
    vgmr = made_vgmr(dims, 7, latent_dim=2)
    features, mask = made_inputs(dims, 2, lengths, 8)
    names = [name for name, _ in vgmr.named_parameters()]

    def run(text, audio, *parameters):
        replaced = dict(zip(names, parameters, strict=True))
        got = torch.func.functional_call(vgmr, replaced, ({"text": text, "audio": audio}, mask))
        return tuple(
            value for part in (got.features, got.global_value, got.channel_value) for value in part.values()
        )

    inputs = [x.requires_grad_() for x in features.values()]
    parameters = [value.detach().clone().requires_grad_() for value in vgmr.parameters()]
    assert torch.autograd.gradcheck(run, (*inputs, *parameters))
    assert bool(calls) == (lengths["text"] == 3)


def test_gradient_is_finite_and_zero_in_padding_that_holds_nan():
    features, mask = made_inputs(DIMS, 3, LENGTHS, 3)
    features = {
        name: x.masked_fill(~mask[name].unsqueeze(2), float("nan")).requires_grad_()
        for name, x in features.items()
    }
    vgmr = made_vgmr(DIMS)
    sum((x**2).sum() for x in vgmr(features, mask).features.values()).backward()
    for name, x in features.items():
        assert torch.isfinite(x.grad).all()
        assert not x.grad[~mask[name]].any()
    assert all(torch.isfinite(parameter.grad).all() for parameter in vgmr.parameters())


def test_dropout_acts_in_training_only_and_on_the_refined_features():
    vgmr = made_vgmr({"text": 40, "audio": 30}, dropout=0.5)
    features, mask = made_inputs({"text": 40, "audio": 30}, 4, {"text": 5, "audio": 5})
    calm = vgmr(features, mask)
    torch.manual_seed(0)
    shaken = vgmr.train()(features, mask)
    for name, x in calm.features.items():
        kept = shaken.features[name] != 0
        torch.testing.assert_close(shaken.features[name][kept], 2 * x[kept])
        assert 0.4 < kept[mask[name]].double().mean() < 0.6
        torch.testing.assert_close(shaken.gate[name], calm.gate[name])


def test_every_modality_has_maps_of_its_own():
    """Perturbing one modality's gate map changes that modality's features and no other's."""
    features, mask = made_inputs(DIMS, 2, LENGTHS)
    for name in DIMS:
        vgmr = made_vgmr(DIMS, norm="none")
        before = vgmr(features, mask).features
        with torch.no_grad():
            vgmr.maps[name].gate_from_features.bias.add_(1.0)
        after = vgmr(features, mask).features
        assert [other for other in DIMS if not torch.equal(before[other], after[other])] == [name]


def test_masked_mean_by_hand():
    """Steps 1, 3 and a padded 100: (1 + 3) / 2 = 2; one real step 7: 7."""
    x = torch.tensor([[[1.0], [3.0], [100.0]], [[7.0], [100.0], [100.0]]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    assert masked_mean(x, mask).tolist() == [[2.0], [7.0]]
    assert masked_mean(x[:1, :2], None).tolist() == [[2.0]]


# Widths, parameter counts, ablations


def test_interaction_width_is_8d_for_three_and_5d_for_two():
    for names, width in ((["text", "audio", "vision"], 8), (["text", "audio"], 5), (list(DIMS), 11)):
        vgmr = VGMR({name: DIMS[name] for name in names}, latent_dim=6)
        for name in names:
            first = vgmr.maps[name].interaction_encoder[0]
            assert (first.in_features, first.out_features) == (width * 6, 6)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_dropped_blocks_narrow_the_first_layer(count):
    dims = {name: DIMS[name] for name in list(DIMS)[:count]}
    for agreement, discrepancy in itertools.product([True, False], repeat=2):
        vgmr = VGMR(dims, latent_dim=7, use_agreement=agreement, use_discrepancy=discrepancy)
        expected = 7 * (2 + (count - 1) * (1 + agreement + discrepancy))
        assert {vgmr.maps[name].interaction_encoder[0].in_features for name in dims} == {expected}


def test_dropped_values_take_their_gate_maps_along():
    vgmr = VGMR(DIMS, use_global_value=False, use_channel_value=False)
    assert not [name for name in vgmr.state_dict() if "gate_from_global" in name or "gate_from_channel" in name]


def test_without_both_values_the_gate_sees_its_own_features_alone():
    features, mask = made_inputs(DIMS, 2, LENGTHS)
    vgmr = made_vgmr(DIMS, use_global_value=False, use_channel_value=False)
    other = {**features, "audio": 3 - 2 * features["audio"]}
    one, two = vgmr(features, mask), vgmr(other, mask)
    assert torch.equal(one.gate["text"], two.gate["text"])
    assert not torch.equal(one.global_value["text"], two.global_value["text"])
    full = made_vgmr(DIMS)
    assert not torch.equal(full(features, mask).gate["text"], full(other, mask).gate["text"])


def test_parameter_count_of_the_paper():
    """Latent 164 at text 768, audio 74, vision 35 adds 2,329,587 values; the paper says 2.32 M."""
    assert count_parameters(VGMR({"text": 768, "audio": 74, "vision": 35}, latent_dim=164)) == 2_329_587


def test_defaults_are_those_of_the_paper():
    vgmr = VGMR(DIMS)
    assert (vgmr.amplification, vgmr.retention) == (0.5, 0.2)
    assert all(isinstance(maps.norm, torch.nn.LayerNorm) for maps in vgmr.maps.values())


# Folding for inference


@pytest.mark.parametrize("ragged", [True, False])
def test_folded_copy_is_equal(ragged):
    dims = {"text": 768, "audio": 74, "vision": 35}
    torch.manual_seed(0)
    vgmr = VGMR(dims, latent_dim=164).eval()
    features, mask = made_inputs(dims, 4, {"text": 12, "audio": 20, "vision": 9}, 1, ragged, dtype=torch.float32)
    assert_same(vgmr(features, mask), vgmr.fold()(features, mask), atol=1e-5)


@given(cases())
@few
def test_folded_copy_is_equal_for_any_shape(case):
    vgmr, features, mask = case
    assert_same(vgmr(features, mask), vgmr.fold()(features, mask), atol=1e-10)


def test_folded_copy_needs_no_literal_maps_and_leaves_the_original_untouched():
    vgmr = VGMR({"text": 768, "audio": 74}, latent_dim=20).train()
    before = copy.deepcopy(vgmr.state_dict())
    folded = vgmr.fold()
    gone = ("projection", "gate_from_features", "gate_from_latent")
    assert not [name for name, _ in folded.named_parameters() if any(part in name for part in gone)]
    assert not folded.training
    assert not any(parameter.requires_grad for parameter in folded.parameters())

    assert vgmr.training
    assert all(parameter.requires_grad for parameter in vgmr.parameters())
    assert all(maps.folded is None for maps in vgmr.maps.values())
    assert list(vgmr.state_dict()) == list(before)
    with torch.no_grad():
        for parameter in folded.parameters():
            parameter.zero_()
    assert all(torch.equal(value, before[name]) for name, value in vgmr.state_dict().items())


def test_folded_copy_keeps_the_switches():
    features, mask = made_inputs(DIMS, 2, LENGTHS)
    for values in itertools.product([True, False], repeat=4):
        vgmr = made_vgmr(DIMS, 2, **dict(zip(SWITCHES, values, strict=True)))
        assert_same(vgmr(features, mask), vgmr.fold()(features, mask))


# Bad input: one line that says what was expected and what came


def one_line(error):
    message = str(error.value)
    assert "\n" not in message
    return message


ALL = {
    "identity": Identity,
    "mlp": lambda dims: FeatureMLP(dims, 4),
    "attention": lambda dims: CrossAttention(dims, 4),
    "gate": lambda dims: SigmoidTanhGate(dims, 4),
    "vgmr": lambda dims: VGMR(dims, 4),
}
TWO = {"text": 4, "audio": 3}


def good():
    return made_inputs(TWO, 3, {"text": 2, "audio": 5}, dtype=torch.float32)


def bad_inputs():
    """label -> (features, mask, what the message must say)."""
    x, mask = good()
    spoilt = x["audio"].clone()
    spoilt[1, 0, 2] = float("nan")
    endless = x["audio"].clone()
    endless[2, 0, 0] = float("-inf")
    empty = mask["audio"].clone()
    empty[2] = False
    return {
        "unknown": (x | {"vision": x["text"]}, None, ["features", "unknown: vision", "['text', 'audio']"]),
        "missing": ({"text": x["text"]}, None, ["features", "missing: audio"]),
        "renamed": (
            {"text": x["text"], "sound": x["audio"]},
            None,
            ["features", "unknown: sound", "missing: audio"],
        ),
        "mask missing": (x, {"text": mask["text"]}, ["mask", "missing: audio"]),
        "mask unknown": (x, mask | {"vision": mask["text"]}, ["mask", "unknown: vision"]),
        "dimension": (x | {"audio": x["audio"][..., :2]}, None, ["audio", "(3, T, 3)", "(3, 5, 2)"]),
        "two axes": (x | {"audio": x["audio"][:, 0]}, None, ["audio", "(3, T, 3)", "(3, 3)", "unsqueeze(1)"]),
        "four axes": (x | {"audio": x["audio"].unsqueeze(0)}, None, ["audio", "(3, T, 3)", "(1, 3, 5, 3)"]),
        "batch size": (x | {"audio": x["audio"][:2]}, None, ["audio", "(3, T, 3)", "(2, 5, 3)"]),
        "no steps": (x | {"audio": x["audio"][:, :0]}, None, ["audio", "(3, T, 3)", "(3, 0, 3)"]),
        "integers": (x | {"audio": x["audio"].long()}, None, ["audio", "floating point", "torch.int64"]),
        "mask length": (x, mask | {"audio": mask["audio"][:, :4]}, ["audio", "bool", "(3, 5)", "(3, 4)"]),
        "mask of int": (x, mask | {"audio": mask["audio"].long()}, ["audio", "bool", "torch.int64"]),
        "mask of float": (x, mask | {"audio": mask["audio"].float()}, ["audio", "bool", "torch.float32"]),
        "mask axes": (x, mask | {"audio": mask["audio"].unsqueeze(2)}, ["audio", "(3, 5)", "(3, 5, 1)"]),
        "no real step": (x, mask | {"audio": empty}, ["audio", "sample 2", "no real time step"]),
        "nan": (x | {"audio": spoilt}, mask, ["audio", "sample 1", "NaN"]),
        "nan, no mask": (x | {"audio": spoilt}, None, ["audio", "sample 1", "NaN"]),
        "infinite": (x | {"audio": endless}, mask, ["audio", "sample 2", "infinite"]),
    }


@pytest.mark.parametrize("label", bad_inputs())
def test_bad_input_is_refused_in_one_line(label):
    features, mask, parts = bad_inputs()[label]
    messages = set()
    for make in ALL.values():
        with pytest.raises(ValueError) as error:
            make(TWO)(features, mask)
        messages.add(one_line(error))
    assert len(messages) == 1
    assert all(part in messages.copy().pop() for part in parts), messages


@pytest.mark.parametrize("which", ALL)
@pytest.mark.parametrize("junk", [float("nan"), float("inf")])
def test_padding_may_hold_anything(which, junk):
    features, mask = good()
    torch.manual_seed(0)
    module = ALL[which](TWO).eval()
    spoilt = {name: x.masked_fill(~mask[name].unsqueeze(2), junk) for name, x in features.items()}
    expected, got = module(features, mask).features, module(spoilt, mask).features
    for name in TWO:
        assert torch.isfinite(got[name]).all()
        assert torch.equal(got[name], expected[name])
    assert all(torch.isnan(x).any() or torch.isinf(x).any() for x in spoilt.values())


def test_large_finite_features_are_no_error():
    """Their sum overflows float32, each by itself does not."""
    features, _ = good()
    features["audio"] = torch.full_like(features["audio"], 3e38)
    Identity(TWO)(features)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"amplification": -0.1}, ["amplification", "0 to 1", "-0.1"]),
        ({"amplification": 1.5}, ["amplification", "0 to 1", "1.5"]),
        ({"amplification": float("nan")}, ["amplification", "nan"]),
        ({"retention": -0.1}, ["retention", "0 to 1", "-0.1"]),
        ({"retention": 1.1}, ["retention", "0 to 1", "1.1"]),
        ({"dropout": 1.1}, ["dropout", "0 to 1", "1.1"]),
        ({"dropout": -1}, ["dropout", "0 to 1", "-1"]),
        ({"norm": "batch"}, ["norm", "'layer' or 'none'", "'batch'"]),
        ({"latent_dim": 0}, ["latent_dim", "at least 1", "0"]),
    ],
)
def test_arguments_out_of_range_are_refused_in_one_line(options, parts):
    with pytest.raises(ValueError) as error:
        VGMR(TWO, **options)
    assert all(part in one_line(error) for part in parts)


@pytest.mark.parametrize(
    ("dims", "parts"),
    [
        ({"text": 4}, ["at least 2", "got 1", "text"]),
        ({}, ["at least 2", "got 0"]),
        ({"text": 4, "audio.left": 3}, ["without a dot", "'audio.left'"]),
        ({"text": 4, "": 3}, ["non-empty", "''"]),
        ({"text": 4, 7: 3}, ["string", "7"]),
        ({"text": 4, "audio": 0}, ["audio", "at least 1", "0"]),
        ({"text": 4, "audio": 2.5}, ["audio", "dimension", "2.5"]),
    ],
)
def test_bad_dims_are_refused_in_one_line(dims, parts):
    with pytest.raises(ValueError) as error:
        VGMR(dims)
    assert all(part in one_line(error) for part in parts)


def test_neutral_start_begins_with_gates_of_one_half_and_can_leave_them():
    """Every E is 1, so X~ = R(X); each gate map gets a gradient. The default does not start there."""
    vgmr = VGMR(DIMS, 3, dropout=0.0, norm="none", neutral_start=True).double()
    features, mask = made_inputs(DIMS, 4, LENGTHS)
    got = vgmr(features, mask)
    for name, x in features.items():
        assert torch.equal(got.gate[name], torch.full_like(x, 0.5))
        torch.testing.assert_close(got.features[name], x * mask[name].unsqueeze(2), atol=1e-12, rtol=0)
    sum((x**3).sum() for x in got.features.values()).backward()
    for name, parameter in vgmr.named_parameters():
        assert "gate_from" not in name or parameter.grad.any(), name
    default = VGMR(DIMS, 3).double()(features, mask)
    assert not torch.equal(default.gate["text"], torch.full_like(features["text"], 0.5))


def test_memory_is_taken_by_results_of_its_own_type_alone():
    """Never within torch.func, where the memory is that of a whole batch."""
    whole, half = torch.ones(3), torch.ones(3, dtype=torch.bfloat16)
    assert spare(whole, half) and spare(half, half) and not spare(half, whole)
    assert scaled(half.clone(), whole).dtype == scaled(half.clone(), whole, False).dtype == torch.float32
    within = []
    torch.vmap(lambda x: within.append(spare(x, x)) or x)(whole)
    assert within == [False]


@pytest.mark.parametrize("name", ["type", "values", "float"])
def test_names_that_torch_keeps_for_itself_are_refused_in_one_line(name):
    """`ModuleDict` has methods of these names and raises KeyError, which says nothing about modalities."""
    with pytest.raises(ValueError) as error:
        VGMR({"text": 4, name: 3})
    assert repr(name) in one_line(error)
