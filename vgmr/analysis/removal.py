"""What a model loses without a modality, by the place of its removal, and what an idle one is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd
import torch

from vgmr.balancing import METHODS
from vgmr.classifier import Classifier
from vgmr.corruption import missing
from vgmr.data.types import Batch, MultimodalData, fingerprint
from vgmr.evaluation import shapley
from vgmr.experiment import Run, experiment_data, train
from vgmr.inference import predict
from vgmr.runs import run_all

FORMS = ("VGMR, calibrated", "VGMR, paper's form")


def with_idle_modality(data: MultimodalData, source: str, name: str = "idle") -> MultimodalData:
    """The same data and a modality that carries nothing: `source` with its samples shuffled within each part.

    Its features look like real ones, and the label cannot be told from them.

    Raises:
        ValueError: `source` is unknown or `name` is taken.
    """
    if source not in data.modalities or name in data.modalities:
        raise ValueError(f"expected source of {data.modalities} and another name, got {source!r} and {name!r}")
    generator = torch.Generator().manual_seed(0)

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
        fingerprint=fingerprint({"of": data.fingerprint, "idle": [source, name, 0]}),
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


def idle_worths(runs: Mapping[str, Sequence[Run]]) -> pd.DataFrame:
    """Shapley value of each modality in test accuracy, after a training with an idle copy of the last beside them.

    See `with_idle_modality`; all but the modalities is as in the experiment of each run. Columns: label, seed,
    modality, value.
    """
    rows = []
    for label, found in runs.items():
        for run in found:
            data = experiment_data(run.experiment)
            fresh = train(run.experiment, with_idle_modality(data, data.modalities[-1]))
            rows += [
                {"label": label, "seed": run.experiment.seed, "modality": name, "value": value}
                for name, value in shapley(fresh.subset_accuracy).items()
            ]
    return pd.DataFrame(rows)


def removals_by_place(runs: Sequence[Run]) -> pd.DataFrame:
    """`removal_by_place` on the test part, for every run; with a column seed."""
    tables = []
    for fresh in run_all([run.experiment for run in runs], jobs=1, progress=False):
        table = removal_by_place(fresh.model(), experiment_data(fresh.experiment).test)
        tables.append(table.assign(seed=fresh.experiment.seed))
    return pd.concat(tables, ignore_index=True)


def removal_values(runs: Mapping[tuple[str, str], Sequence[Run]]) -> pd.DataFrame:
    """Test accuracy with all modalities and without each, one row per method, way, modality and seed.

    Columns: method, way ("all", "zeroed": absent where modalities meet, "retrained": trained without it), modality
    (that is gone; "" with all), seed, accuracy, change (accuracy less that with all at the same seed). To be
    handed to `vgmr.comparison.differences` by method, way and modality.

    Args:
        runs: by method and the modality that it was trained without, "" for all.
    """
    rows = []
    for (method, gone), found in runs.items():
        whole = {run.experiment.seed: run.metrics["accuracy"] for run in runs[method, ""]}
        for run in found:
            cases = {("retrained" if gone else "all", gone): run.metrics["accuracy"]}
            if not gone:
                names = max(run.subset_accuracy, key=lambda keep: len(keep.split("+"))).split("+")
                for name in names:
                    rest = "+".join(other for other in names if other != name)
                    cases["zeroed", name] = run.subset_accuracy[rest]
            seed = run.experiment.seed
            rows += [(method, *case, seed, value, value - whole[seed]) for case, value in cases.items()]
    return pd.DataFrame(rows, columns=["method", "way", "modality", "seed", "accuracy", "change"])


def removal_claims(values: pd.DataFrame, strongest: str) -> pd.DataFrame:
    """What the paper's claims on Table 9 say should be above zero, by claim, method, way, modality and seed.

    Claims: (a) a method loses more without the strongest modality than without the other that it misses most; (b)
    a method of `vgmr.balancing` gains without a weaker modality; (c) VGMR loses without a modality. Columns:
    claim, method, way, modality, seed, value. To be handed to `vgmr.comparison.differences` by the first four.

    Args:
        values: of `removal_values`.
        strongest: the modality that dominates.
    """
    frames = []
    for (method, way), part in values[values["way"] != "all"].groupby(["method", "way"], sort=False):
        change = part.pivot(index="seed", columns="modality", values="change")
        weaker = [name for name in dict.fromkeys(part["modality"]) if name != strongest]
        found: dict[tuple[str, str], pd.Series] = {}
        if strongest in change and weaker:
            missed = min(weaker, key=lambda name: change[name].mean())
            found["a", strongest] = change[missed] - change[strongest]
        if method in METHODS:
            found |= {("b", name): change[name] for name in weaker}
        if method in FORMS:
            found |= {("c", name): -change[name] for name in [*weaker, strongest] if name in change}
        for (claim, modality), series in found.items():
            frame = series.rename("value").reset_index()
            frames.append(frame.assign(claim=claim, method=str(method), way=str(way), modality=modality))
    return pd.concat(frames, ignore_index=True)[["claim", "method", "way", "modality", "seed", "value"]]
