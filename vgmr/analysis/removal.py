"""What a model loses without a modality, by the place of its removal, and what an idle one is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd
import torch

from vgmr.backbones import Classifier
from vgmr.corruption import missing
from vgmr.data.types import Batch, MultimodalData, fingerprint
from vgmr.evaluation import shapley
from vgmr.experiment import Experiment, Run, experiment_data, train
from vgmr.inference import predict
from vgmr.runs import run_all


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
            corrupted=None if part.corrupted is None else {**part.corrupted, name: part.corrupted[source][rows]},
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


def worth_beside_idle(experiment: Experiment, source: str) -> dict[str, float]:
    """Shapley value of each modality in test accuracy, after a training with an idle copy of `source` beside them.

    See `with_idle_modality`; all but the modalities is as in the experiment.
    """
    found = train(experiment, with_idle_modality(experiment_data(experiment), source))
    return shapley(found.subset_accuracy)


def idle_worths(runs: Mapping[str, Sequence[Run]]) -> pd.DataFrame:
    """`worth_beside_idle` for every run, with its last modality as source: label, seed, modality, value."""
    rows = []
    for label, found in runs.items():
        for run in found:
            source = experiment_data(run.experiment).modalities[-1]
            values = worth_beside_idle(run.experiment, source)
            rows += [
                {"label": label, "seed": run.experiment.seed, "modality": name, "value": value}
                for name, value in values.items()
            ]
    return pd.DataFrame(rows)


def removals_by_place(runs: Sequence[Run]) -> pd.DataFrame:
    """`removal_by_place` on the test part, for every run; with a column seed."""
    tables = []
    for fresh in run_all([run.experiment for run in runs], jobs=1, progress=False):
        table = removal_by_place(fresh.model(), experiment_data(fresh.experiment).test)
        tables.append(table.assign(seed=fresh.experiment.seed))
    return pd.concat(tables, ignore_index=True)
