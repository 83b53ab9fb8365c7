"""Corruption drawn in training, the targets of the value, and the forms by name."""

import math
from dataclasses import replace

import pytest
import torch
from test_evidence import CLASSES, DIMS, data, made
from torch.nn import functional as F

from vgmr.backbones import PooledBackbone
from vgmr.classifier import Classifier
from vgmr.contributions import contributions, contributions_by_swap, contributions_out_of_fold
from vgmr.corruption import KINDS, Drawn
from vgmr.data.types import joined
from vgmr.experiment import build, experiment_data
from vgmr.fusion.pre_gating import PreGating
from vgmr.objective import Objective, corruption_loss, value_loss
from vgmr.refiner import VGMR
from vgmr.refining.refinement import Refinement
from vgmr.settings import Experiment
from vgmr.training import fit


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_changes_one_modality_of_its_share_and_says_where(kind):
    train, batch = made(200, 1), made(400, 2)
    corrupted = Drawn.like(train, [kind], 0.4)(batch, seeded())
    hit = torch.stack([where.flatten(1).any(1) for where in corrupted.corrupted.values()])
    assert (hit.sum(0) <= 1).all()
    # conflicts with a sample of the same class are none
    expected = 0.4 * (0.75 if kind == "conflict" else 1)
    assert abs(float(hit.any(0).float().mean()) - expected) < 0.08
    for name, where in corrupted.corrupted.items():
        x, before = corrupted.features[name], batch.features[name]
        changed = where.flatten(1).any(1)
        assert torch.equal(x[~changed], before[~changed]) or kind == "conflict"
        if kind != "conflict":
            assert torch.equal(corrupted.mask[name], batch.mask[name])
            assert not (x != before)[~where.expand_as(x)].any()
        assert not x[~corrupted.mask[name]].any() and not where[~corrupted.mask[name]].any()
    corrupted.check(CLASSES)


def test_kinds_are_what_they_are_called():
    train, batch = made(200, 1), made(300, 2)
    name = "voice"

    def after(kind):
        made_batch = Drawn.like(train, [kind], 1.0, [name])(batch, seeded())
        return made_batch.features[name], made_batch.corrupted[name], made_batch.mask[name]

    x, mask = batch.features[name], batch.mask[name]
    real = train.features[name][train.mask[name]]
    drawn = after("noise")[0][mask]
    torch.testing.assert_close(drawn.mean(0), real.mean(0), atol=0.15, rtol=0)
    torch.testing.assert_close(drawn.std(0), real.std(0), atol=0.15, rtol=0)
    assert not after("missing")[0].any()
    gone = (after("masking")[0] == 0).all(2) & mask
    assert ((gone.sum(1) / mask.sum(1) - 0.5).abs() < 0.15).all()
    assert ((gone[:, 1:] & ~gone[:, :-1]).sum(1) <= 1).all(), "one stretch"
    hidden = after("occlusion")[1]
    assert (hidden.any(1).sum(1) == 3).all() and not hidden.all(2).any()
    dead = after("dropout")[1]
    assert abs(float(dead.any(1).float().mean()) - 0.5) < 0.05
    torch.testing.assert_close(after("asynchrony")[0].sum(1), x.sum(1))
    moved = (after("shift")[0] - x)[:, 0]
    torch.testing.assert_close((after("shift")[0] - x)[mask], moved[:, None].expand_as(x)[mask], atol=1e-5, rtol=0)
    other, where, _ = after("conflict")
    rows = where.flatten(1).any(1)
    sources = [(x == other[row]).flatten(1).all(1) for row in rows.nonzero().squeeze(1).tolist()]
    own = batch.label[rows]
    assert all(
        found.any() and (batch.label[found] != label).all() for found, label in zip(sources, own, strict=True)
    )


def test_asynchrony_turns_every_sequence_by_any_number_of_steps_but_none():
    batch = made(600, 2)
    drawn = Drawn.like(batch, ["asynchrony"], 1.0, ["voice"])(batch, seeded())
    length, turned = batch.mask["voice"].sum(1), set()
    for row, steps in enumerate(length.tolist()):
        before, after = (x["voice"][row, :steps] for x in (batch.features, drawn.features))
        by = [k for k in range(steps) if torch.equal(after, before.roll(k, 0))]
        assert len(by) == 1 and bool(by[0]) == (steps > 1)
        assert drawn.corrupted["voice"][row, :steps].all() == (steps > 1)
        turned.add((steps, by[0]))
    assert turned >= {(steps, k) for steps in length.unique().tolist() for k in range(1, steps)}


def test_draws_differ_from_call_to_call_and_repeat_with_the_generator():
    train, batch = made(100, 1), made(100, 2)
    drawn = Drawn.like(train, KINDS)
    generator = seeded(3)
    one, two, again = drawn(batch, generator), drawn(batch, generator), drawn(batch, seeded(3))
    assert not torch.equal(one.features["face"], two.features["face"])
    for name in DIMS:
        assert torch.equal(one.features[name], again.features[name])
    assert torch.equal(batch.features["face"], made(100, 2).features["face"]), "the batch itself stays"


def test_what_is_known_of_corruptions_moves_with_the_sequence_in_a_conflict():
    """A whole sequence in the place of a corrupted one is whole; a corrupted one stays so where it comes to."""
    batch = made(400, 2)
    before = (torch.arange(400) >= 200)[:, None, None]
    known = replace(batch, corrupted=dict.fromkeys(DIMS, before))
    drawn = Drawn.like(batch, ["conflict", "dropout"], 1.0, ["voice"])(known, seeded())
    x, mask, hit = (part["voice"] for part in (drawn.features, drawn.mask, drawn.corrupted))
    rows = {batch.features["voice"][row][batch.mask["voice"][row]].numpy().tobytes(): row for row in range(400)}
    seen = set()
    for row in range(400):
        source = rows.get(x[row][mask[row]].numpy().tobytes())
        if source is None or source == row:
            assert hit[row].all() or row < 200, "a corruption in place adds to what was known"
            continue
        conflicts = bool(batch.label[source] != batch.label[row])
        assert hit[row][mask[row]].unique().tolist() == [conflicts or source >= 200]
        seen.add((row >= 200, source >= 200, conflicts))
    assert len(seen) == 8
    assert torch.equal(drawn.corrupted["face"], before)


def test_wrong_kinds_are_refused():
    train = made(20, 1)
    for kinds in (["fog"], [], "noise"):
        with pytest.raises(ValueError, match="kinds must be some of"):
            Drawn.like(train, kinds)
    with pytest.raises(ValueError, match="unknown modalities"):
        Drawn.like(train, ["noise"], modalities=["smell"])
    with pytest.raises(ValueError, match=r"modalities must name at least one of \['.*got \[\]"):
        Drawn.like(train, ["noise"], modalities=[])


@pytest.mark.parametrize("prefusion", ["none", "mlp", "vgmr"])
def test_any_variant_trains_under_corruption_and_validates_on_both(prefusion):
    experiment = Experiment(
        "digits",
        prefusion=prefusion,
        epochs=1,
        latent_dim=4,
        training_corruption={"kinds": ["conflict", "noise"], "share": 0.5},
    )
    made_data = experiment_data(experiment)
    drawn = Drawn.like(made_data.train, **experiment.training_corruption)
    histories = []
    for corruption in (drawn, drawn, None):
        history = fit(build(experiment, made_data), made_data, epochs=1, corruption=corruption)
        histories.append((history.train_loss, history.validation_loss))
    assert histories[0] == histories[1] != histories[2]
    assert len(joined(made_data.validation, made_data.validation)) == 2 * len(made_data.validation)


# Targets of the value


def test_targets_by_hand():
    refinement = VGMR(DIMS, 4)(made(6, 3).features)
    half = {name: torch.full_like(value, 0.5) for name, value in refinement.global_value.items()}
    channel = {name: torch.full_like(value, 0.5) for name, value in refinement.channel_value.items()}
    even = refinement._replace(global_value=half, channel_value=channel)
    where = {name: torch.zeros(6, 1, 1, dtype=torch.bool) for name in DIMS}
    torch.testing.assert_close(corruption_loss(even, where), torch.tensor(2 * 0.6931472))
    where["face"][:3] = True
    low = {name: torch.where(hit.flatten(), 0.1, 0.9) for name, hit in where.items()}
    sure = refinement._replace(
        global_value=low, channel_value={name: one[:, None].expand(6, 4) for name, one in low.items()}
    )
    torch.testing.assert_close(corruption_loss(sure, where), torch.tensor(2 * -0.9).mul(0) + 2 * 0.1053605)


def test_a_value_that_mixed_precision_rounds_to_1_has_a_finite_loss():
    full = {"a": torch.ones(2, dtype=torch.bfloat16)}
    refinement = Refinement({}, full, {"a": torch.ones(2, 3, dtype=torch.bfloat16)})
    for hit in (True, False):
        assert corruption_loss(refinement, {"a": torch.full((2, 1, 1), hit)}).isfinite()


def test_out_of_fold_contributions_by_hand():
    posterior = {"a": torch.tensor([[0.8, 0.2]]), "b": torch.tensor([[0.4, 0.6]])}
    delta = contributions_out_of_fold(posterior, torch.tensor([0]))
    product = 0.8 * 0.4 / (0.8 * 0.4 + 0.2 * 0.6)
    torch.testing.assert_close(delta["a"], torch.tensor([product / 0.4]).log())
    torch.testing.assert_close(delta["b"], torch.tensor([product / 0.8]).log())
    assert delta["b"] < 0 < delta["a"]


def test_a_posterior_of_zero_counts_as_a_millionth():
    """Without a the product is 1/2 to 1/2, with it 1e-6 to 1: ln 2 less ln(1 + 1e6)."""
    posterior = {"a": torch.tensor([[0.0, 1.0]]), "b": torch.tensor([[0.5, 0.5]])}
    delta = contributions_out_of_fold(posterior, torch.tensor([0]))
    torch.testing.assert_close(delta["a"], torch.tensor([2 / (1 + 1e6)]).log())


def test_sequences_are_swapped_only_where_every_step_is_real():
    """With masks the padding of one sample would be taken for steps of the next."""
    batch = made(5, 3)
    backbone = PreGating(DIMS, CLASSES, width=3).eval()
    encodings = backbone.encode(batch.features, None)
    with pytest.raises(ValueError, match="swapped encodings must be one vector per sample, and PreGating has seq"):
        contributions_by_swap(backbone, encodings, batch.label, batch.mask)
    delta = contributions_by_swap(backbone, encodings, batch.label)
    moved = {**encodings, "face": encodings["face"][torch.tensor([4, 0, 1, 2, 3])]}
    losses = [F.cross_entropy(backbone.fuse(one), batch.label, reduction="none") for one in (moved, encodings)]
    torch.testing.assert_close(delta["face"], losses[0] - losses[1])


def test_swapped_contributions_are_those_of_another_sample():
    batch = made(5, 3)
    model = Classifier(VGMR(DIMS, 4), PooledBackbone(DIMS, CLASSES, 8)).eval()
    output = model(batch.features, batch.mask)
    delta = contributions_by_swap(model.backbone, output.encodings, batch.label)
    for row in range(5):
        swapped = {name: one[row : row + 1].clone() for name, one in output.encodings.items()}
        swapped["face"] = output.encodings["face"][row - 1 : row or None]
        losses = [
            torch.nn.functional.cross_entropy(model.backbone.fuse(one), batch.label[row : row + 1])
            for one in (swapped, {name: one[row : row + 1] for name, one in output.encodings.items()})
        ]
        torch.testing.assert_close(delta["face"][row], losses[0] - losses[1], atol=1e-5, rtol=1e-4)


def test_padding_counts_for_no_target_where_modalities_meet_as_sequences():
    torch.manual_seed(0)
    model, batch = Classifier(VGMR(DIMS, 4), PreGating(DIMS, CLASSES, 4)).eval(), made(8, 3)
    output = model(batch.features, batch.mask)
    expected, blind = (
        value_loss(output.refinement, contributions(model.backbone, output.encodings, batch.label, mask))
        for mask in (output.mask, None)
    )
    assert not torch.isclose(expected, blind, rtol=1e-4)
    torch.testing.assert_close(Objective().of_value(model, output, batch), expected)
    with pytest.raises(ValueError, match="swapped encodings must be one vector per sample"):
        Objective(target="swap").of_value(model, output, batch)


@pytest.mark.parametrize("target", ["swap", "out-of-fold", "corruption"])
def test_every_target_teaches_the_learned_value(target):
    made_data = data()
    vgmr = VGMR(DIMS, 4, value_from="both", num_classes=CLASSES)
    vgmr.prepare(made_data.train.features, made_data.train.mask, made_data.train.label)
    model = Classifier(vgmr, PooledBackbone(DIMS, CLASSES, 8))
    batch = Drawn.like(made_data.train, ["noise"])(made_data.train, seeded())
    output = model(batch.features, batch.mask)
    Objective(1.0, 0.0, target=target).of_value(model, output, batch).backward()
    assert vgmr.of("face").global_value.weight.grad.abs().sum() > 0


def test_the_loss_against_wholeness_with_a_pencil():
    """-ln v where a modality is whole and -ln (1 - v) where any entry is corrupted, of both values added."""
    values = {"face": torch.tensor([0.8, 0.3]), "voice": torch.tensor([1.0, 0.0])}
    channels = {"face": torch.tensor([[0.5, 0.7], [0.1, 0.3]]), "voice": torch.tensor([[1.0, 1.0], [0.0, 0.0]])}
    where = {"face": torch.zeros(2, 3, 1).bool(), "voice": torch.tensor([False, True]).view(2, 1, 1)}
    where["face"][1, 2] = True
    refinement = Refinement({}, global_value=values, channel_value=channels)
    expected = -(math.log(0.8) + math.log(0.7) + math.log(0.6) + math.log(0.8)) / 4
    assert float(corruption_loss(refinement, where)) == pytest.approx(expected, abs=1e-5)
    wrong = corruption_loss(refinement, {"voice": ~where["voice"]})
    assert float(wrong) == pytest.approx(-2 * math.log(1e-6), rel=1e-2)


def test_a_target_that_cannot_be_had_is_refused():
    batch = made(8, 3)
    model = Classifier(VGMR(DIMS, 4), PooledBackbone(DIMS, CLASSES, 8))
    output = model(batch.features, batch.mask)
    for target, words in (("corruption", "known corruption"), ("out-of-fold", 'value_from="both"')):
        with pytest.raises(ValueError, match=words):
            Objective(target=target)(model, output, batch)
    with pytest.raises(ValueError, match="target must be one of"):
        Objective(target="luck")


# Forms


def test_forms_by_name_set_what_stands_at_its_default():
    calibrated = Experiment("digits", form="calibrated")
    assert (calibrated.amplification, calibrated.retention, calibrated.norm) == (1.0, 0.0, "none")
    assert calibrated.value_from == "anchors" and calibrated.retain
    assert Experiment("digits", form="calibrated", amplification=0.7).amplification == 0.7
    neutral = Experiment("digits", form="neutral")
    old = Experiment("digits", form="paper", norm="none", neutral_start=True)
    data_of = experiment_data(old)
    one, other = build(neutral, data_of).state_dict(), build(old, data_of).state_dict()
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert Experiment("digits", form="calibrated") == Experiment("digits")


def test_the_calibrated_form_has_fewer_parameters_and_none_in_its_anchors():
    made_data = experiment_data(Experiment("digits"))
    paper, calibrated = (
        build(Experiment("digits", form=form), made_data).prefusion for form in ("paper", "calibrated")
    )
    count = [sum(one.numel() for one in vgmr.parameters()) for vgmr in (paper, calibrated)]
    assert count[1] < count[0]
    assert not list(calibrated.evidence.parameters())
