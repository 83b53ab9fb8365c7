"""Whether the value sees what is corrupted, whether the gate uses it, and what knowing it would be worth.

The six causes of a blind value, each as a measurement with its control, and the permutation test: values permuted
among test samples with all else fixed must cost accuracy, and the truth in their place must gain it.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import pandas as pd
import torch
from torch import Tensor

from vgmr.classifier import Classifier, Output
from vgmr.contributions import contributions
from vgmr.data.types import Batch
from vgmr.evaluation import auroc
from vgmr.fusion.base import evaluating
from vgmr.inference import one_pass, predict
from vgmr.refiner import VGMR
from vgmr.refining.evidence import pooled
from vgmr.refining.maps import masked_max, masked_mean


def truth(part: Batch) -> dict[str, Tensor]:
    """1.0 where a modality of a sample is whole, 0.0 where any of it is corrupted; name -> (N,).

    Raises:
        ValueError: nothing is known of corruptions in this part.
    """
    if part.corrupted is None:
        raise ValueError("nothing is known of corruptions in this part; corrupt it, or take data that say where")
    return {name: (~where.flatten(1).any(1)).float() for name, where in part.corrupted.items()}


def accuracy_on(model: Classifier, part: Batch) -> float:
    """Share of right answers, 0 to 1."""
    return float((predict(model, part).argmax(1) == part.label).float().mean())


@torch.no_grad()
def answers(model: Classifier, part: Batch, value: Mapping[str, Tensor] | None = None) -> Tensor:
    """Logits (N, classes) in evaluation mode, with `value`, name -> (N,), in the place of VGMR's global values."""
    pieces = []
    with evaluating(model):
        for rows in torch.arange(len(part), device=part.label.device).split(256):
            batch = part.index(rows)
            given = None if value is None else {name: one[rows] for name, one in value.items()}
            refinement = model.prefusion(batch.features, batch.model_mask, value=given)
            encodings = model.backbone.encode(refinement.features, batch.model_mask)
            pieces.append(model.backbone.fuse(encodings, None, batch.model_mask))
    return torch.cat(pieces)


def channel_deviation(value: Tensor) -> Tensor:
    """Deviation over channels, (B, d) -> (B,); 0 where there is one."""
    return value.std(1, correction=min(1, value.shape[1] - 1))


def values(model: Classifier, part: Batch) -> pd.DataFrame:
    """What stands against each modality of each sample; one row per sample and modality.

    Columns: sample, modality, label, corrupted (if known), value (global), channel_value and channel_deviation
    (mean and deviation over channels), gate and raw_gate (means of the effective gate and of that of Eq. (11) over
    real steps and channels), contribution (with the true label, in nats), agreement (mean over the others of
    p_m . p_n, where VGMR has anchors).

    Raises:
        ValueError: the model's pre-fusion module is not VGMR.
    """

    def take(output: Output, batch: Batch) -> dict[str, dict[str, Tensor]]:
        refinement = output.refinement
        delta = contributions(model.backbone, output.encodings, batch.label, batch.model_mask)
        columns: dict[str, dict[str, Tensor]] = {}
        for name, gate in refinement.effective_gate.items():
            real, channel = batch.mask[name], refinement.channel_value[name]
            columns[name] = {
                "value": refinement.global_value[name],
                "channel_value": channel.mean(1),
                "channel_deviation": channel_deviation(channel),
                "gate": (gate.mean(2) * real).sum(1) / real.sum(1),
                "raw_gate": masked_mean(refinement.gate[name], real).mean(1),
                "contribution": delta[name],
            }
            if refinement.posterior:
                others = [one for other, one in refinement.posterior.items() if other != name]
                columns[name]["agreement"] = torch.stack(
                    [(refinement.posterior[name] * one).sum(1) for one in others]
                ).mean(0)
        return columns

    pieces = one_pass(model, part, take)
    if not pieces[0]:
        raise ValueError(f"expected a model with VGMR before fusion, got {type(model.prefusion).__name__}")
    whole = None if part.corrupted is None else truth(part)
    frames = []
    for name in pieces[0]:
        columns = {
            what: torch.cat([piece[name][what] for piece in pieces]).cpu().numpy() for what in pieces[0][name]
        }
        frame = pd.DataFrame(
            {"sample": range(len(part)), "modality": name, "label": part.label.cpu().numpy(), **columns}
        )
        if whole is not None:
            frame["corrupted"] = whole[name].cpu().numpy() == 0
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


SCORES = ("value", "channel_value", "gate", "contribution", "agreement")


def detection(frame: pd.DataFrame, by: str | None = None) -> pd.DataFrame:
    """AUROC of a low score for a corrupted modality, from `values`; "contribution" is the supervision's ceiling.

    Args:
        by: a column, such as modality or label, within whose values to look; None for all rows together.

    Returns columns score, auroc and that of `by`; groups in which all or none are corrupted are left out.
    """
    rows = []
    for key, group in [(None, frame)] if by is None else frame.groupby(by):
        hit = torch.tensor(group["corrupted"].to_numpy())
        if hit.all() or not hit.any():
            continue
        for score in (name for name in SCORES if name in frame):
            area = auroc(-torch.tensor(group[score].to_numpy()), hit)
            rows.append({"score": score, **({} if by is None else {by: key}), "auroc": area})
    return pd.DataFrame(rows)


def conflict_detection(frame: pd.DataFrame) -> float:
    """AUROC of low agreement for a *sample* with a corrupted modality: that they conflict, not which lies."""
    sample = frame.groupby("sample").agg(agreement=("agreement", "min"), corrupted=("corrupted", "any"))
    return auroc(-torch.tensor(sample["agreement"].to_numpy()), torch.tensor(sample["corrupted"].to_numpy()))


def headroom(model: Classifier, part: Batch, permutations: int = 10, seed: int = 0) -> pd.DataFrame:
    """Accuracy with the model's own values, permuted ones, and the truth in their place.

    "permuted" gives each sample the values of another one, all modalities together, and is the mean over
    `permutations` draws: where it costs nothing the value is decoration. "truth" is the positive control: where it
    gains nothing the gate cannot use any value.

    Returns columns values ("own", "permuted", "truth"), samples ("all", "corrupted", "whole"), accuracy.
    """
    whole = truth(part)
    hit = ~torch.stack(list(whole.values())).bool().all(0)
    frame = values(model, part)
    by_modality = frame.groupby("modality", sort=False)["value"]
    own = {str(name): torch.tensor(column.to_numpy()) for name, column in by_modality}
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(len(part), generator=generator) for _ in range(permutations)]

    def hits(value: Mapping[str, Tensor] | None = None) -> Tensor:
        return (answers(model, part, value).argmax(1) == part.label).float()

    permuted = [hits({name: one[order] for name, one in own.items()}) for order in orders]
    right = {"own": hits(), "permuted": torch.stack(permuted).mean(0), "truth": hits(whole)}
    groups = {"all": torch.ones_like(hit), "corrupted": hit, "whole": ~hit}
    return pd.DataFrame(
        [
            {"values": what, "samples": group, "accuracy": float(one[rows].mean())}
            for what, one in right.items()
            for group, rows in groups.items()
            if rows.any()
        ]
    )


def harmful(model: Classifier, parts: Mapping[str, Batch]) -> pd.DataFrame:
    """Cause 1: share of contributions below -0.1 nats; columns part, modality, share.

    Where training has next to none of those that the test part has, the value has nothing to learn from.
    """
    rows = []
    for part, batch in parts.items():
        for name, group in values(model, batch).groupby("modality"):
            rows.append({"part": part, "modality": name, "share": float((group["contribution"] < -0.1).mean())})
    return pd.DataFrame(rows)


@torch.no_grad()
def gate_terms(model: Classifier, part: Batch) -> pd.DataFrame:
    """Cause 3: deviation over samples of the gate's logits by the term of Eq. (11) that they come from.

    Mean over the channels of the gate, for steps averaged. Columns modality, term (features, channel, global),
    deviation; terms that are switched off are left out.
    """
    vgmr = model.prefusion
    if not isinstance(vgmr, VGMR):
        raise ValueError(f"the terms are those of VGMR's gate, got {type(vgmr).__name__}")
    rows = []
    with evaluating(model):
        refinement = vgmr(part.features, part.model_mask)
        for name, x in part.features.items():
            maps = vgmr.of(name)
            real = part.mask[name].unsqueeze(2)
            evidence = maps.project(x)[1]
            terms = {} if evidence is None else {"features": (evidence * real).sum(1) / real.sum(1)}
            if maps.gate_from_channel is not None:
                terms["channel"] = maps.gate_from_channel(refinement.channel_value[name] - 0.5)
            if maps.gate_from_global is not None:
                terms["global"] = maps.gate_from_global(refinement.global_value[name].unsqueeze(1) - 0.5)
            for term, logits in terms.items():
                rows.append({"modality": name, "term": term, "deviation": float(logits.std(0).mean())})
    return pd.DataFrame(rows)


def blindness(train: Batch, part: Batch) -> pd.DataFrame:
    """Cause 4: AUROC of a corrupted modality by how unusual its first and its second moments over time are.

    Unusual is the mean over channels of the squared distance from the training part, in deviations: of the mean
    over time, which an affine gate can see, and of deviation and mean jump, which it cannot. For sequences.

    Columns: modality, moments ("first", "second"), auroc.
    """
    whole = truth(part)
    rows = []
    for name in part.features:
        known, seen = (pooled(batch.features[name], batch.mask[name], 1) for batch in (train, part))
        for moments, usual, now in zip(("first", "second"), known, seen, strict=True):
            away = ((now - usual.mean(0)) / usual.std(0).clamp_min(1e-6)).square().mean(1)
            if 0 < whole[name].mean() < 1:
                rows.append({"modality": name, "moments": moments, "auroc": auroc(away, whole[name] == 0)})
    return pd.DataFrame(rows)


def centred_alignment(one: Tensor, other: Tensor) -> float:
    """Linear CKA of two (N, d) tables, 0 to 1; no rotation, shift or scale changes it (Kornblith et al., 2019)."""
    one, other = one - one.mean(0), other - other.mean(0)
    cross = (one.T @ other).square().sum()
    return float(cross / ((one.T @ one).norm() * (other.T @ other).norm()).clamp_min(1e-12))


@torch.no_grad()
def summary_alignment(model: Classifier, part: Batch, seed: int = 0) -> pd.DataFrame:
    """Cause 5: whether s_m and s_n share axes, so that s_m * s_n could mean agreement.

    Columns: first, second, summaries ("as they are", "second rotated"), alignment (linear CKA, which no rotation
    changes), axes (mean correlation of equal coordinates) and strength (the mean of its size, where signs do not
    cancel). Axes that are no better than after a random rotation of one summary mean nothing.
    """
    vgmr = model.prefusion
    if not isinstance(vgmr, VGMR) or not vgmr.learns_value:
        raise ValueError("only VGMR with learned values has summaries")
    with evaluating(model):
        summary = {}
        for name, x in part.features.items():
            hidden, real = vgmr.of(name).project(x)[0], part.mask[name]
            seen = x if hidden is None else hidden
            latent = vgmr.of(name).pooled_latent(masked_mean(seen, real), masked_max(seen, real))
            summary[name] = vgmr.value_maps(name).summary(*latent)
    generator = torch.Generator().manual_seed(seed)
    width = next(iter(summary.values())).shape[1]
    rotation = torch.linalg.qr(torch.randn(width, width, generator=generator))[0]
    rows = []
    for first, second in combinations(summary, 2):
        for how, other in (("as they are", summary[second]), ("second rotated", summary[second] @ rotation)):
            one = (summary[first] - summary[first].mean(0)) / summary[first].std(0).clamp_min(1e-6)
            two = (other - other.mean(0)) / other.std(0).clamp_min(1e-6)
            found = {
                "alignment": centred_alignment(summary[first], other),
                "axes": float((one * two).mean()),
                "strength": float((one * two).mean(0).abs().mean()),
            }
            rows.append({"first": first, "second": second, "summaries": how, **found})
    return pd.DataFrame(rows)


def lowest_gate(vgmr: VGMR) -> float:
    """Cause 6: the effective gate's lower end, rho + (1 - rho)(1 - alpha); 0 where the value retains."""
    return 0.0 if vgmr.retain else 1 - (1 - vgmr.retention) * vgmr.amplification
