"""What value and gate do, sample by sample."""

from __future__ import annotations

import pandas as pd
import torch

from vgmr.backbones import Classifier
from vgmr.data.batch import Batch
from vgmr.evaluation import auroc
from vgmr.refiner import VGMR, masked_mean


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
