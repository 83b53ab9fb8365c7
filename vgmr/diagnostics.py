"""What value and gate do, sample by sample."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from vgmr.backbones import Classifier
from vgmr.balancing.base import Balancing
from vgmr.corruption import missing
from vgmr.data.batch import Batch, MultimodalData, fingerprint
from vgmr.evaluation import auroc
from vgmr.objective import Objective
from vgmr.refiner import VGMR, masked_mean
from vgmr.training import make_optimizer, predict


@torch.inference_mode()
def value_and_gate(model: Classifier, part: Batch) -> pd.DataFrame:
    """One row per sample and modality: values, gates, and whether the modality is known to be struck.

    Columns: sample, modality, global_value, channel_value (mean over channels), channel_deviation (over
    channels, within the sample), gate, effective_gate (means over real steps and channels), struck (any entry;
    False where nothing is known), label, prediction.

    Raises:
        ValueError: the model's pre-fusion module is not VGMR.
    """
    if not isinstance(model.prefusion, VGMR):
        raise ValueError(f"expected a model with VGMR before fusion, got {type(model.prefusion).__name__}")
    was_training = model.training
    model.eval()
    frames = []
    for rows in torch.arange(len(part), device=part.label.device).split(256):
        batch = part.index(rows)
        output = model(batch.features, batch.mask)
        refinement = output.refinement
        for name in batch.features:
            mask, channel = batch.mask[name], refinement.channel_value[name]
            struck = torch.zeros(len(rows), dtype=torch.bool)
            if batch.struck is not None:
                struck = batch.struck[name].flatten(1).any(1)
            columns = {
                "sample": rows,
                "global_value": refinement.global_value[name],
                "channel_value": channel.mean(1),
                "channel_deviation": channel.std(1),
                "gate": masked_mean(refinement.gate[name], mask).mean(1),
                "effective_gate": masked_mean(refinement.effective_gate[name], mask).mean(1),
                "struck": struck,
                "label": batch.label,
                "prediction": output.logits.argmax(1),
            }
            frame = pd.DataFrame({column: value.cpu().numpy() for column, value in columns.items()})
            frame.insert(1, "modality", name)
            frames.append(frame)
    model.train(was_training)
    return pd.concat(frames, ignore_index=True)


def detection(frame: pd.DataFrame, column: str, lower_is_struck: bool = True) -> float:
    """How well `column` of `value_and_gate` tells struck samples of a modality: AUROC, mean over modalities.

    Modalities of which all samples are struck, or none, are left out. 1/2 is chance. `lower_is_struck` says which
    way a struck modality is expected to deviate; below 1/2 it went the other way.

    Raises ValueError if no modality is left.
    """
    sign = -1.0 if lower_is_struck else 1.0
    areas = []
    for _, rows in frame.groupby("modality"):
        if rows["struck"].nunique() < 2:
            continue
        score = torch.from_numpy(sign * rows[column].to_numpy(dtype=float, copy=True))
        areas.append(auroc(score, torch.from_numpy(rows["struck"].to_numpy(copy=True))))
    if not areas:
        raise ValueError(f"no modality of {sorted(frame['modality'].unique())} has struck and other samples")
    return sum(areas) / len(areas)


def branch_gradients(
    model: Classifier, method: Balancing, batch: Batch, epoch: int, objective: Objective | None = None
) -> dict[str, Tensor]:
    """The gradient that `method` leaves in each modality's branch after one step on `batch`, as one vector.

    Copies take the step, so model, method and random state stay as they are; `method` must have been started.
    """
    copied, own = copy.deepcopy(model).train(), copy.deepcopy(method)
    still = torch.optim.SGD([*copied.parameters(), *own.parameters()], lr=0.0)
    with torch.random.fork_rng():
        own.step(copied, batch, objective or Objective(), still, epoch)
    found = {}
    for name in copied.backbone.dims:
        branch = copied.branch_parameters(name)
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in branch]
        found[name] = torch.cat([part.flatten() for part in parts])
    return found


def gradient_change(
    model: Classifier, method: Balancing, batch: Batch, epoch: int, objective: Objective | None = None
) -> pd.DataFrame:
    """What a balancing method makes of the gradients of one step, against plain training at the same weights.

    One row per modality: modality, epoch, length (of the branch's gradient, 1 as in plain training), cosine (of
    the angle between the two). The random state is the same for both.
    """
    plain = branch_gradients(model, Balancing(), batch, epoch, objective)
    balanced = branch_gradients(model, method, batch, epoch, objective)
    return pd.DataFrame(
        [
            {
                "modality": name,
                "epoch": epoch,
                "length": float(balanced[name].norm() / plain[name].norm().clamp(min=1e-30)),
                "cosine": float(torch.cosine_similarity(balanced[name], plain[name], dim=0)),
            }
            for name in plain
        ]
    )


def movement(
    model: Classifier,
    batches: Sequence[Batch],
    name: str,
    optimizer: str,
    learning_rate: float,
    scale: float = 1.0,
    noise: float = 0.0,
    on_update: bool = False,
) -> Tensor:
    """How far one modality's weights move in a step per batch when their gradients are scaled, as one vector.

    The gradients are those of the cross-entropy at the initial weights, batch by batch, so that every call meets
    the same ones, without dropout; other weights stay. There is no weight decay.

    Args:
        name: the modality whose `Classifier.modulable` weights move.
        scale: constant factor of the gradients.
        noise: standard deviation of what is added to each gradient, in standard deviations of the unscaled one.
        on_update: scale what the optimiser does instead of the gradient.
    """
    still, moved = copy.deepcopy(model).eval(), copy.deepcopy(model)
    gradients: list[tuple[Tensor, ...]] = []
    for batch in batches:
        loss = F.cross_entropy(still(batch.features, batch.mask).logits, batch.label)
        gradients.append(torch.autograd.grad(loss, still.modulable(name)))
    own = moved.modulable(name)
    before = torch.cat([weight.detach().flatten() for weight in own])
    stepper = make_optimizer(optimizer, moved, learning_rate, weight_decay=0.0)
    generator = torch.Generator().manual_seed(0)
    for step in gradients:
        for weight, gradient in zip(own, step, strict=True):
            draw = torch.randn(gradient.shape, generator=generator)
            weight.grad = (1.0 if on_update else scale) * gradient + noise * gradient.std() * draw
        start = [weight.detach().clone() for weight in own]
        stepper.step()
        if on_update:
            with torch.no_grad():
                for weight, old in zip(own, start, strict=True):
                    weight.copy_(torch.lerp(old, weight, scale))
    return torch.cat([weight.detach().flatten() for weight in own]) - before


def with_idle_modality(data: MultimodalData, source: str, name: str = "idle", seed: int = 0) -> MultimodalData:
    """The same data and a modality that carries nothing: `source` with its samples shuffled within each part.

    Its features look like real ones, and the label cannot be told from them.

    Raises:
        ValueError: `source` is unknown or `name` is taken.
    """
    if source not in data.modalities or name in data.modalities:
        raise ValueError(f"expected source of {data.modalities} and another name, got {source!r} and {name!r}")
    generator = torch.Generator().manual_seed(seed)

    def add(part: Batch) -> Batch:
        rows = torch.randperm(len(part), generator=generator).to(part.label.device)
        return replace(
            part,
            features={**part.features, name: part.features[source][rows]},
            mask={**part.mask, name: part.mask[source][rows]},
            struck=None if part.struck is None else {**part.struck, name: part.struck[source][rows]},
        )

    return replace(
        data,
        train=add(data.train),
        validation=add(data.validation),
        test=add(data.test),
        fingerprint=fingerprint({"of": data.fingerprint, "idle": [source, name, seed]}),
    )


def removal_by_place(model: Classifier, part: Batch) -> pd.DataFrame:
    """Accuracy without each modality, by the place where it is removed; one row per modality.

    Columns: modality; behind (its refined features are absent where modalities meet; the others were refined with
    it at hand); before (its features are zero before the refiner, and it is absent behind it); zeros (zero before
    the refiner, and taken for real behind it).
    """
    rows = []
    for name in part.features:
        others = [other for other in part.features if other != name]
        without = missing(part, name)
        answers = {
            "behind": predict(model, part, others),
            "before": predict(model, without, others),
            "zeros": predict(model, without),
        }
        right = {place: float((x.argmax(1) == part.label).float().mean()) for place, x in answers.items()}
        rows.append({"modality": name, **right})
    return pd.DataFrame(rows)
