"""What the diagnostics of the value say where the truth is known."""

from dataclasses import replace

import pandas as pd
import pytest
import torch
from test_evidence import CLASSES, DIMS, data

from vgmr.analysis.calibration import (
    accuracy_on,
    answers,
    blindness,
    centred_alignment,
    conflict_detection,
    detection,
    gate_terms,
    harmful,
    headroom,
    lowest_gate,
    summary_alignment,
    truth,
    values,
)
from vgmr.backbones import PooledBackbone
from vgmr.classifier import Classifier
from vgmr.corruption import KINDS, Drawn
from vgmr.data.types import Batch
from vgmr.inference import predict
from vgmr.prefusion import Identity
from vgmr.refiner import VGMR
from vgmr.refining.maps import masked_max, masked_mean
from vgmr.training import fit


@pytest.fixture(scope="module")
def trained():
    made_data = data()
    models = {}
    for form, vgmr in (
        ("paper", VGMR(DIMS, 8)),
        ("calibrated", VGMR.calibrated(DIMS, CLASSES, latent_dim=8)),
    ):
        torch.manual_seed(0)
        models[form] = Classifier(vgmr, PooledBackbone(DIMS, CLASSES, 16))
        fit(models[form], made_data, epochs=8, learning_rate=1e-2)
    test = Drawn.like(made_data.train, ["conflict"], 0.5)(made_data.test, torch.Generator().manual_seed(4))
    return models, made_data, test


def test_values_are_those_of_the_module_and_detection_counts_pairs(trained):
    models, _, test = trained
    frame = values(models["calibrated"], test)
    refinement = models["calibrated"].prefusion(test.features, test.mask)
    assert len(frame) == 3 * len(test)
    for name, rows in frame.groupby("modality"):
        torch.testing.assert_close(
            torch.tensor(rows["value"].to_numpy()), refinement.global_value[name], atol=1e-6, rtol=1e-5
        )
        assert ((rows["corrupted"] == 1).to_numpy() == (truth(test)[name] == 0).numpy()).all()
        real, gate = test.mask[name], refinement.effective_gate[name].mean(2)
        expected = {
            "gate": (gate * real).sum(1) / real.sum(1),
            "channel_value": refinement.channel_value[name].mean(1),
            "agreement": sum(
                (refinement.posterior[name] * p).sum(1) / 2 for n, p in refinement.posterior.items() if n != name
            ),
        }
        for what, one in expected.items():
            torch.testing.assert_close(torch.tensor(rows[what].to_numpy()), one.detach(), atol=1e-6, rtol=1e-5)
    found = detection(frame).set_index("score")["auroc"]
    low, high = (frame["value"][frame["corrupted"] == one].to_numpy() for one in (True, False))
    by_hand = ((high[:, None] > low) + 0.5 * (high[:, None] == low)).mean()
    assert found["value"] == pytest.approx(by_hand, abs=1e-9) and by_hand > 0.95
    assert found["gate"] > 0.9 and found["agreement"] > 0.9
    assert set(detection(frame, "modality")["modality"]) == set(DIMS)
    assert conflict_detection(frame) > 0.95


def test_the_papers_value_is_blind_where_the_calibrated_sees(trained):
    models, _, test = trained
    found = detection(values(models["paper"], test)).set_index("score")["auroc"]
    assert found["value"] < 0.75 and "agreement" not in found


def test_headroom_tells_decoration_from_use(trained):
    models, _, test = trained
    table = headroom(models["calibrated"], test).set_index(["values", "samples"])["accuracy"]
    assert table["own", "all"] - table["permuted", "all"] > 0.02
    assert table["truth", "all"] >= table["own", "all"] - 0.01
    own = float((predict(models["calibrated"], test).argmax(1) == test.label).float().mean())
    assert table["own", "all"] == pytest.approx(own)
    # a gate without a value: nothing can change
    torch.manual_seed(0)
    vgmr = VGMR(DIMS, 8, use_global_value=False, use_channel_value=False)
    idle = Classifier(vgmr, PooledBackbone(DIMS, CLASSES, 16))
    table = headroom(idle, test).set_index(["values", "samples"])["accuracy"]
    assert table["own", "all"] == table["permuted", "all"] == table["truth", "all"]


def test_answers_with_the_models_own_values_are_its_own(trained):
    models, _, test = trained
    own = models["paper"].prefusion(test.features, test.mask).global_value
    torch.testing.assert_close(answers(models["paper"], test, own), predict(models["paper"], test))


def test_corrupted_parts_hold_every_kind_and_say_where(trained):
    _, made_data, _ = trained
    draws = {kind: Drawn.like(made_data.train, [kind], 1.0) for kind in KINDS}
    parts = {kind: drawn(made_data.test, torch.Generator().manual_seed(0)) for kind, drawn in draws.items()}
    for kind, part in parts.items():
        hit = torch.stack(list(truth(part).values())) == 0
        assert (hit.sum(0) <= 1).all() and hit.any(), kind
        for name, where in part.corrupted.items():
            same = part.features[name] == made_data.test.features[name]
            assert same[~where.expand_as(same)].all() or kind == "conflict", kind


def test_gate_terms_by_hand(trained):
    models, _, test = trained
    vgmr = models["paper"].prefusion
    table = gate_terms(models["paper"], test).set_index(["modality", "term"])["deviation"]
    value = vgmr(test.features, test.mask).global_value["face"]
    weight = vgmr.of("face").gate_from_global.weight[:, 0].abs().mean().detach()
    assert table["face", "global"] == pytest.approx(float(value.detach().std() * weight), rel=1e-4)
    maps, real = vgmr.of("face"), test.mask["face"].unsqueeze(2)
    with torch.no_grad():
        channel = maps.gate_from_channel(vgmr(test.features, test.mask).channel_value["face"] - 0.5)
        own = maps.gate_from_features(test.features["face"])
        evidence = (own + maps.gate_from_latent(maps.projection(test.features["face"]))) * real
    assert table["face", "channel"] == pytest.approx(float(channel.std(0).mean()), rel=1e-4)
    by_hand = (evidence.sum(1) / real.sum(1)).std(0).mean()
    assert table["face", "features"] == pytest.approx(float(by_hand), rel=1e-4)


def test_terms_that_are_switched_off_are_left_out(trained):
    _, _, test = trained
    vgmr = VGMR(DIMS, 8, use_global_value=False)
    table = gate_terms(Classifier(vgmr, PooledBackbone(DIMS, CLASSES, 16)), test)
    assert set(table["term"]) == {"features", "channel"}


def test_accuracy_is_the_share_of_right_answers(trained):
    models, _, test = trained
    right = predict(models["calibrated"], test).argmax(1) == test.label
    assert accuracy_on(models["calibrated"], test) == pytest.approx(int(right.sum()) / len(test))
    assert accuracy_on(models["calibrated"], test.index(right.nonzero().squeeze(1))) == 1
    with pytest.raises(ValueError, match="expected a model with VGMR before fusion, got Identity"):
        values(Classifier(Identity(DIMS), PooledBackbone(DIMS, CLASSES, 16)), test)


def test_a_sample_is_in_conflict_where_its_least_agreement_is_low():
    rows = [(0, 0.9, False), (0, 0.2, True), (1, 0.8, False), (1, 0.3, False), (2, 0.95, True), (2, 0.1, False)]
    assert conflict_detection(pd.DataFrame(rows, columns=["sample", "agreement", "corrupted"])) == 1


def test_noise_like_the_first_moments_is_seen_by_the_second(trained):
    _, made_data, _ = trained
    noisy = Drawn.like(made_data.train, ["noise"], 0.5)(made_data.test, torch.Generator().manual_seed(4))
    table = blindness(made_data.train, noisy).pivot(index="modality", columns="moments", values="auroc")
    assert (table["second"] > 0.95).all() and (table["second"] > table["first"] + 0.2).all()
    whole = replace(noisy, corrupted={**noisy.corrupted, "face": torch.zeros(len(noisy), 1, 1, dtype=torch.bool)})
    assert set(blindness(made_data.train, whole)["modality"]) == set(DIMS) - {"face"}, "nothing of it to tell"


def test_alignment_does_not_see_a_rotation_and_axes_do():
    generator = torch.Generator().manual_seed(0)
    one = torch.randn(300, 6, generator=generator)
    rotation = torch.linalg.qr(torch.randn(6, 6, generator=generator))[0]
    assert centred_alignment(one, 3 * one @ rotation + 1) == pytest.approx(1, abs=1e-5)
    assert centred_alignment(one, torch.randn(300, 6, generator=generator)) < 0.1


def test_no_rotation_changes_the_alignment_of_summaries_and_their_axes_mean_little(trained):
    models, _, test = trained
    table = summary_alignment(models["paper"], test)
    content = table.pivot(index=["first", "second"], columns="summaries", values="alignment")
    pd.testing.assert_series_equal(content["as they are"], content["second rotated"], check_names=False, atol=1e-4)
    assert table["axes"].abs().max() < 0.6  # as after a random rotation
    assert (table["strength"] >= table["axes"].abs() - 1e-6).all() and (table["strength"] <= 1).all()
    vgmr, summary = models["paper"].prefusion, {}
    with torch.no_grad():
        for name, x in test.features.items():
            latent, mask = vgmr.of(name).project(x)[0], test.mask[name]
            both = vgmr.of(name).pooled_latent(masked_mean(latent, mask), masked_max(latent, mask))
            summary[name] = vgmr.value_maps(name).summary(*both)
    plain = table[table["summaries"] == "as they are"].set_index(["first", "second"])
    for (first, second), row in plain.iterrows():
        pairs = zip(summary[first].T, summary[second].T, strict=True)
        correlation = torch.tensor([float(torch.corrcoef(torch.stack(pair))[0, 1]) for pair in pairs])
        correlation = correlation * (1 - 1 / len(test))
        assert row["axes"] == pytest.approx(float(correlation.mean()), abs=1e-5)
        assert row["strength"] == pytest.approx(float(correlation.abs().mean()), abs=1e-5)
    with pytest.raises(ValueError, match="learned values"):
        summary_alignment(models["calibrated"], test)


def test_harmful_shares_and_the_lowest_gate(trained):
    models, made_data, test = trained
    table = harmful(models["paper"], {"clean": made_data.test, "corrupted": test}).pivot(
        index="modality", columns="part", values="share"
    )
    assert (table["corrupted"] >= table["clean"]).all() and (table["corrupted"] > table["clean"]).any()
    told = values(models["paper"], test)
    for name, rows in told.groupby("modality"):
        assert table.loc[name, "corrupted"] == (rows["contribution"] < -0.1).mean()
    assert lowest_gate(VGMR(DIMS)) == pytest.approx(0.6)
    assert lowest_gate(VGMR(DIMS, amplification=0.25, retention=0.6)) == pytest.approx(0.6 + 0.4 * 0.75)
    assert lowest_gate(VGMR.calibrated(DIMS, CLASSES)) == 0
    with pytest.raises(ValueError, match="nothing is known"):
        truth(made_data.test)


def test_one_channel_does_not_deviate():
    dims = {"a": 1, "b": 3}
    features = {name: torch.randn(6, 4, dim) for name, dim in dims.items()}
    mask = {name: torch.ones(6, 4, dtype=torch.bool) for name in dims}
    part = Batch(features, mask, torch.arange(6) % 2)
    model = Classifier(VGMR.calibrated(dims, 2, latent_dim=4), PooledBackbone(dims, 2, 8))
    model.prefusion.prepare(features, mask, part.label)
    told = values(model, part).set_index("modality")["channel_deviation"]
    assert (told["a"] == 0).all() and (told["b"] > 0).all()
