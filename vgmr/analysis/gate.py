"""What value and gate do: on clean and corrupted samples, entry by entry, and how well they tell them apart."""

from __future__ import annotations

import pandas as pd
import torch
import torch.nn.functional as F
from scipy.stats import rankdata
from torch import Tensor

from vgmr.analysis.calibration import channel_deviation, values
from vgmr.classifier import Classifier
from vgmr.data.types import Batch
from vgmr.fusion.base import evaluating
from vgmr.refiner import VGMR
from vgmr.refining.maps import masked_mean
from vgmr.refining.refinement import Refinement

STATISTICS = ("global_value", "channel_value", "channel_deviation", "gate", "target")
LEVELS = ("sample", "modality", "step", "channel")


def value_and_gate(model: Classifier, part: Batch) -> pd.DataFrame:
    """One row per sample and modality: values, gates, and whether the modality is known to be corrupted.

    Columns: sample, modality, global_value, channel_value (mean over channels), channel_deviation (over
    channels, within the sample), gate (mean over real steps and channels), target (what the values would be
    trained towards here, sigmoid of `contributions` in nats), corrupted (any entry; False where nothing is known).

    Raises:
        ValueError: the model's pre-fusion module is not VGMR.
    """
    told = values(model, part)
    if part.corrupted is None:
        told["corrupted"] = False
    return told[["sample", "modality", "channel_value", "channel_deviation", "corrupted"]].assign(
        global_value=told["value"],
        gate=told["raw_gate"],
        target=torch.tensor(told["contribution"].to_numpy()).sigmoid().numpy(),
    )


def response(model: Classifier, clean: Batch, corrupted: Batch) -> pd.DataFrame:
    """Table 4: values and gate of corrupted modalities, before and after, over the same samples.

    Args:
        corrupted: `clean` after a corruption; only its corrupted rows (sample, modality) are counted.

    Columns: modality, statistic (of `value_and_gate`), clean, noisy, difference (means over samples).
    """
    before, after = value_and_gate(model, clean), value_and_gate(model, corrupted)
    rows = []
    for name, noisy in after[after["corrupted"]].groupby("modality", sort=False):
        for statistic in STATISTICS:
            old = before.loc[noisy.index, statistic].to_numpy(dtype=float)
            new = noisy[statistic].to_numpy(dtype=float)
            row = {"clean": old.mean(), "noisy": new.mean(), "difference": new.mean() - old.mean()}
            rows.append({"modality": name, "statistic": statistic, **row})
    return pd.DataFrame(rows)


def saliency(model: Classifier, part: Batch) -> dict[str, Tensor]:
    """|dL/dX|, L the loss of each sample's own predicted class: name -> (N, T_m, d_m), padding zero."""
    features = {name: x.clone().requires_grad_() for name, x in part.features.items()}
    with evaluating(model):
        logits = model(features, part.mask).logits
    loss = F.cross_entropy(logits, logits.argmax(1), reduction="sum")
    gradients = torch.autograd.grad(loss, list(features.values()))
    return {
        name: gradient.abs() * part.mask[name].unsqueeze(2)
        for name, gradient in zip(features, gradients, strict=True)
    }


def jumps(part: Batch) -> dict[str, Tensor]:
    """Mean distance of each entry to its real neighbours in time: name -> (N, T_m, d_m); 0 where it has none."""
    found = {}
    for name, x in part.features.items():
        both = (part.mask[name][:, 1:] & part.mask[name][:, :-1]).unsqueeze(2)
        apart = (x[:, 1:] - x[:, :-1]).abs() * both
        count = F.pad(both.float(), (0, 0, 1, 0)) + F.pad(both.float(), (0, 0, 0, 1))
        found[name] = (F.pad(apart, (0, 0, 1, 0)) + F.pad(apart, (0, 0, 0, 1))) / count.clamp(min=1)
    return found


@torch.no_grad()
def _refine(model: Classifier, part: Batch) -> Refinement:
    if not isinstance(model.prefusion, VGMR):
        raise ValueError(f"expected a model with VGMR before fusion, got {type(model.prefusion).__name__}")
    with evaluating(model):
        refinement: Refinement = model.prefusion(part.features, part.mask)
    return refinement


def refinement_difference(model: Classifier, part: Batch) -> dict[str, Tensor]:
    """E * X - X, Figure 6: name -> (N, T_m, d_m); negative where a positive feature is suppressed, padding zero.

    Raises ValueError if the model's pre-fusion module is not VGMR.
    """
    gate = _refine(model, part).effective_gate
    return {name: (gate[name] - 1) * x * part.mask[name].unsqueeze(2) for name, x in part.features.items()}


def suppression(model: Classifier, part: Batch) -> pd.DataFrame:
    """One row per sample and modality: how much of the features' size the refiner takes away, Figure 6.

    Columns: sample, modality, share (mean over real entries of the positive part of |X| - |E * X|, over mean |X|;
    0 to 1).
    """
    frames = []
    for name, difference in refinement_difference(model, part).items():
        x, mask = part.features[name], part.mask[name]
        change = (x + difference).abs() - x.abs()
        size = masked_mean(x.abs(), mask).mean(1).clamp(min=1e-12)
        taken = masked_mean((-change).clamp(min=0), mask).mean(1)
        columns = {"sample": range(len(part)), "modality": name, "share": (taken / size).numpy()}
        frames.append(pd.DataFrame(columns))
    return pd.concat(frames, ignore_index=True)


def at_level(x: Tensor, mask: Tensor, level: str) -> Tensor:
    """Means of (N, T, d) over the real entries of a level: step (N, T), channel (N, d), else (N,).

    Raises ValueError for a level that is not one of `LEVELS`.
    """
    if level not in LEVELS:
        raise ValueError(f"unknown level {level!r}; there are: {', '.join(LEVELS)}")
    if level == "step":
        return x.mean(2)
    by_channel = masked_mean(x, mask)
    return by_channel if level == "channel" else by_channel.mean(1)


def row_auroc(score: Tensor, truth: Tensor, real: Tensor | None = None) -> float:
    """`auroc` within each row of (R, K) tensors, then its mean over rows; entries that are not `real` never count.

    Rows of which all real entries are corrupted, or none, are left out; NaN if no row is left.
    """
    real = torch.ones_like(truth) if real is None else real
    corrupted, other = truth & real, ~truth & real
    ranks = torch.from_numpy(rankdata(score.double().masked_fill(~real, torch.inf).numpy(), axis=1))
    positive, negative = corrupted.sum(1).double(), other.sum(1).double()
    area = ((ranks * corrupted).sum(1) - positive * (positive + 1) / 2) / (positive * negative)
    return float(area[(positive > 0) & (negative > 0)].mean())


def _entry_scores(model: Classifier, part: Batch) -> dict[str, dict[str, Tensor]]:
    """Everything said of single entries, by score and modality, (N, T_m, d_m); high means corrupted."""
    gate = _refine(model, part).gate
    scores = {
        "gate": {name: -x for name, x in gate.items()},
        "gradient": saliency(model, part),
        "magnitude": {name: x.abs() for name, x in part.features.items()},
    }
    if max(x.shape[1] for x in part.features.values()) > 1:
        scores["jump"] = jumps(part)
    return scores


@torch.no_grad()
def _sample_scores(model: Classifier, part: Batch) -> dict[str, dict[str, Tensor]]:
    """What is said of whole samples or modalities, by score and modality, (N,); high means corrupted."""
    with evaluating(model):
        output = model(part.features, part.mask)
    refinement, log_probability = output.refinement, output.logits.log_softmax(1)
    entropy = -(log_probability.exp() * log_probability).sum(1)
    return {
        "global value": refinement.global_value,
        "channel value": {name: x.mean(1) for name, x in refinement.channel_value.items()},
        "channel deviation": {name: channel_deviation(x) for name, x in refinement.channel_value.items()},
        "entropy": dict.fromkeys(part.features, entropy),
    }


def _truth(part: Batch, level: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Where the batch was corrupted, and which entries are real, by modality, in the shapes of `at_level`."""
    if part.corrupted is None:
        raise ValueError("expected a batch that knows where it was corrupted; corrupt it first")
    truth, real = {}, {}
    for name, mask in part.mask.items():
        hit = (part.corrupted[name] & mask.unsqueeze(2)).expand(-1, -1, part.dims[name])
        truth[name] = at_level(hit.float(), mask, level) > 0
        real[name] = mask if level == "step" else torch.ones_like(truth[name])
    return truth, real


def localisation(model: Classifier, part: Batch, level: str, seed: int = 0) -> pd.DataFrame:
    """How well each score says where `part` was corrupted: AUROC, 1/2 is chance, in the direction fixed here.

    Expected where corrupted: lower gate; higher values, channel deviation, entropy, gradient (`saliency`),
    magnitude |X|, distance to the neighbours in time (`jumps`). Controls: "random" must be 1/2, "truth" 1, and
    "shuffled" (the gate against the truth of other samples) 1/2.

    Args:
        level: "sample" compares samples, within a modality; "modality" the modalities of a sample, "step" the real
            time steps and "channel" the channels of a modality in one sample. At "modality" and "channel" every
            score is first standardised over samples, since each modality and channel has a level of its own.

    Columns: score, modality ("all" at level "modality"), auroc.

    Raises ValueError for an unknown level, a model without VGMR, or a batch without truth.
    """
    truth, real = _truth(part, level)
    names = list(truth)
    # a stream of its own: from the seed of the corruption, random scores would be the very draws that corrupted
    generator = torch.Generator().manual_seed(1_000_003 + seed)
    scores = {
        score: {name: at_level(x, part.mask[name], level) for name, x in by_name.items()}
        for score, by_name in _entry_scores(model, part).items()
    }
    if level in ("sample", "modality"):
        scores |= _sample_scores(model, part)
    if level == "modality":
        del scores["entropy"]  # the same for all modalities of a sample
    scores["random"] = {name: torch.rand(x.shape, generator=generator) for name, x in truth.items()}
    if level in ("modality", "channel"):
        scores = {
            score: {name: (x - x.mean(0)) / x.std(0).clamp(min=1e-9) for name, x in by_name.items()}
            for score, by_name in scores.items()
        }
    scores |= {"truth": {name: x.float() for name, x in truth.items()}, "shuffled": scores["gate"]}
    order = torch.randperm(len(part), generator=generator)
    rows = []
    for score, by_name in scores.items():
        aim = {name: x[order] for name, x in truth.items()} if score == "shuffled" else truth
        kinds = (by_name, aim, real)
        if level == "modality":
            tables = {"all": [torch.stack([kind[name] for name in names], 1) for kind in kinds]}
        else:
            tables = {name: [kind[name] for kind in kinds] for name in names}
        for name, table in tables.items():
            row = [x.unsqueeze(0) for x in table] if level == "sample" else table
            rows.append({"score": score, "modality": name, "auroc": row_auroc(*row)})
    return pd.DataFrame(rows)
