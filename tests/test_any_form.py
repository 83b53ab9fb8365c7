"""Any combination of the refiner's options against one literal reference in numpy: a sample, a step at a time."""

import copy
import math
import pickle
import random

import numpy as np
import pytest
import torch
from reference import affine, layer_norm, made_inputs, numpy_weights, randomise, real_steps, sigmoid, two_layers

from vgmr import VGMR
from vgmr.refining.chunks import refine_in_chunks

CLASSES = 3
BY_STEP = ("features", "gate", "effective_gate")
BY_SAMPLE = ("global_value", "channel_value")


def course(x, frequencies):
    """Means of x_t cos(pi k u_t), deviation over time, mean jump: what an anchor reads of real steps (T, d)."""
    steps = len(x)
    waves = [
        sum(x[t] * math.cos(math.pi * k * (t + 0.5) / steps) for t in range(steps)) / steps
        for k in range(frequencies)
    ]
    deviation = np.sqrt(sum((x[t] - waves[0]) ** 2 for t in range(steps)) / steps)
    jump = sum(abs(x[t] - x[t - 1]) for t in range(1, steps)) / max(1, steps - 1) + 0 * x[0]
    return np.concatenate(waves), np.concatenate([deviation, jump])


def judged(weights, name, x, frequencies, trained):
    """Posterior, typicality and that of each channel; in training by the anchor without the sample's own fold."""
    anchor = {
        key.rsplit(".", 1)[1]: one for key, one in weights.items() if key.startswith(f"evidence.anchors.{name}.")
    }
    shape, roughness = course(x, frequencies)
    features = (np.concatenate([shape, roughness]) - anchor["centre"]) / anchor["scale"]
    logits = [features @ weight + bias for weight, bias in zip(anchor["weight"], anchor["bias"], strict=True)]
    posteriors = [np.exp(one - one.max()) / np.exp(one - one.max()).sum() for one in logits]
    fold = int(sum(int(value) for value in np.round(x * 4096).flatten())) % len(posteriors)
    posterior = posteriors[fold] if trained else sum(posteriors) / len(posteriors)
    away = ((np.log(roughness + 0.05) - anchor["usual"]) / anchor["spread"]) ** 2
    dim = x.shape[1]
    surprise = (math.log(away.mean() + 0.05) - anchor["distance"][0]) / anchor["distance"][1]
    return posterior, sigmoid(4 - surprise), sigmoid(4 - np.sqrt((away[:dim] + away[dim:]) / 2))


def literal(vgmr, options, sample, value):
    """What `vgmr` makes of one sample without padding, name -> (T, d_m)."""
    weights, rank = numpy_weights(vgmr), options["rank"]
    per_step = options["per_step"] and rank != 0
    anchored, typical, posterior = {}, {}, {}
    if vgmr.evidence is not None:
        sure = {}
        for m, x in sample.items():
            frequencies = vgmr.evidence.frequencies
            posterior[m], sure[m], typical[m] = judged(weights, m, x, frequencies, vgmr.training)
        support = {m: np.mean([posterior[m] @ posterior[n] for n in sample if n != m]) for m in sample}
        anchored = {m: support[m] / max(support.values()) * sure[m] for m in sample}

    def read(m, step):
        return weights[f"maps.{m}.bottleneck.weight"] @ step if rank else step

    def latent(m, step):
        return affine(weights, f"maps.{m}.projection", read(m, step))

    def evidence(m, step):
        if rank == 0:
            return 0 * step
        told = affine(weights, f"maps.{m}.gate_from_latent", latent(m, step))
        if rank is None:
            return affine(weights, f"maps.{m}.gate_from_features", step) + told
        own = weights[f"maps.{m}.diagonal"] * step
        return own + affine(weights, f"maps.{m}.gate_from_features", read(m, step) + told)

    def told_by_channels(m, value):
        name = f"maps.{m}.gate_from_channel"
        if rank is None or options["value_from"] != "anchors":
            return affine(weights, name, value)
        told = [
            w * v + b for w, v, b in zip(weights[f"{name}.diagonal"], value, weights[f"{name}.bias"], strict=True)
        ]
        for k in range(rank):
            told = told + weights[f"{name}.outer.weight"][:, k] * (weights[f"{name}.inner.weight"][k] @ value)
        return np.array(told)

    owner = {m: "shared" if options["sharing"] else f"maps.{m}" for m in sample}
    summary = {}
    if options["value_from"] != "anchors":
        for m, x in sample.items():
            if per_step:
                hidden = np.stack([latent(m, step) for step in x])
                both = [hidden.mean(0), hidden.max(0)]
            else:
                both = [latent(m, x.mean(0)), latent(m, x.max(0))]
            summary[m] = two_layers(weights, f"{owner[m]}.summary_encoder", np.concatenate(both))
    found = {}
    for m, x in sample.items():
        global_value, channel_value = anchored.get(m), typical.get(m)
        if summary:
            others = sorted(n for n in sample if n != m)
            blocks = [summary[m], *(summary[n] for n in others)]
            blocks += [summary[m] * summary[n] for n in others if options["use_agreement"]]
            blocks += [abs(summary[m] - summary[n]) for n in others if options["use_discrepancy"]]
            blocks.append(sum(summary[n] for n in others) / len(others))
            if posterior:
                blocks += [posterior[n] for n in [m, *others]] + [np.array([anchored[m], typical[m].mean()])]
            interaction = two_layers(weights, f"{owner[m]}.interaction_encoder", np.concatenate(blocks))
            state = two_layers(weights, f"{owner[m]}.value_encoder", np.concatenate([summary[m], interaction]))
            global_value = sigmoid(affine(weights, f"{owner[m]}.global_value", state))[0]
            channel_value = sigmoid(affine(weights, f"{owner[m]}.channel_value", state))
        if value is not None:
            global_value = value[m]
        steps = []
        for step in x:
            logits = evidence(m, step if per_step else x.mean(0))
            if options["use_global_value"]:
                logits = logits + affine(weights, f"maps.{m}.gate_from_global", np.array([global_value - 0.5]))
            if options["use_channel_value"]:
                logits = logits + told_by_channels(m, channel_value - 0.5)
            least = np.argsort(abs(logits))[: int(options["sparsity"] * len(step))]
            logits[least] = 0
            gate = sigmoid(logits)
            effective = vgmr.retention + (1 - vgmr.retention) * (1 + vgmr.amplification * (2 * gate - 1))
            refined = effective * step
            if options["norm"] == "layer":
                refined = layer_norm(weights, f"maps.{m}.norm", refined)
            kept = global_value if options["retain"] else 1.0
            steps.append((refined * kept, gate, effective * kept))
        found[m] = dict(zip(BY_STEP, map(np.stack, zip(*steps, strict=True)), strict=True))
        found[m] |= {"global_value": np.asarray(global_value), "channel_value": channel_value}
    return found


def drawn(seed):
    """A prepared refiner in float64 of any form, its options, inputs ragged or whole, perhaps given values."""
    chance = random.Random(seed)
    names = chance.sample(["text", "audio", "vision", "touch", "smell"], chance.randint(2, 5))
    dims = {name: chance.randint(1, 7) for name in names}
    lengths = {name: chance.choice([1, 2, 3, 6]) for name in names}
    value_from = chance.choice(["summaries", "anchors", "both"])
    options = {
        "norm": chance.choice(["layer", "none"]),
        "value_from": value_from,
        "retain": chance.random() < 0.5,
        "sharing": value_from != "anchors" and chance.random() < 0.5,
        "rank": chance.choice([None, None, 0, 1, 2, 8]),
        "per_step": chance.random() < 0.5,
        "sparsity": chance.choice([0.0, 0.0, 0.3, 0.5, 0.99]),
        "use_global_value": chance.random() < 0.7,
        "use_channel_value": chance.random() < 0.7,
        "use_agreement": chance.random() < 0.7,
        "use_discrepancy": chance.random() < 0.7,
    }
    if options["rank"] == 0 and not options["use_channel_value"]:
        options["use_global_value"] = True
    sizes = {"latent_dim": chance.randint(1, 4), "evidence_frequencies": chance.choice([1, 2, 4])}
    strength = {"amplification": chance.choice([0.0, 0.5, 1.0]), "retention": chance.choice([0.0, 0.2, 1.0])}
    vgmr = VGMR(dims, dropout=0.0, num_classes=CLASSES, **options, **sizes, **strength).double()
    randomise(vgmr, seed)
    known = made_inputs(dims, 40, {name: 1 if lengths[name] == 1 else 6 for name in names}, seed + 5)
    vgmr.prepare(*known, torch.arange(40) % CLASSES)
    samples = chance.choice([1, 2, 4])
    given = made_inputs(dims, samples, lengths, seed + 1, chance.random() < 0.6)
    value = {name: torch.rand(samples).double() for name in names} if chance.random() < 0.2 else None
    return vgmr.train(chance.random() < 0.3), options, *given, value


def assert_same(one, other, atol=1e-9):
    for what in (*BY_STEP, *BY_SAMPLE):
        for name, x in getattr(one, what).items():
            torch.testing.assert_close(getattr(other, what)[name], x, atol=atol, rtol=atol)


@pytest.mark.parametrize("seed", range(40))
def test_any_form_is_the_literal_reference_and_so_are_its_copies_and_chunks(seed):
    vgmr, options, features, mask, value = drawn(seed)
    got = vgmr(features, mask, value)
    for row in range(len(next(iter(features.values())))):
        given = None if value is None else {name: float(one[row]) for name, one in value.items()}
        expected = literal(vgmr, options, real_steps(features, mask, row), given)
        for name in features:
            real = slice(None) if mask is None else mask[name][row]
            for what in BY_STEP:
                step = getattr(got, what)[name][row][real]
                torch.testing.assert_close(step, torch.as_tensor(expected[name][what]), atol=1e-8, rtol=1e-8)
            for what in BY_SAMPLE:
                one = getattr(got, what)[name][row]
                torch.testing.assert_close(one, torch.as_tensor(expected[name][what]), atol=1e-8, rtol=1e-8)
    with torch.no_grad():
        assert_same(vgmr(features, mask, value), got)
    assert_same(pickle.loads(pickle.dumps(vgmr))(features, mask, value), got, 0)
    whole = vgmr.eval()(features, mask)
    folded = vgmr.fold()
    for copied in (folded, copy.deepcopy(folded), folded.fold()):
        assert_same(copied(features, mask), whole)
    for module in (vgmr, folded):
        parts = list(refine_in_chunks(module, features, mask, 2))
        for what in BY_STEP:
            for name in features:
                joined = torch.cat([getattr(part, what)[name] for part in parts if name in part.features], 1)
                torch.testing.assert_close(joined, getattr(whole, what)[name], atol=1e-6, rtol=0)
        for part in parts:
            for what in BY_SAMPLE:
                for name in features:
                    one, other = getattr(part, what)[name], getattr(whole, what)[name]
                    torch.testing.assert_close(one, other, atol=1e-6, rtol=0)
