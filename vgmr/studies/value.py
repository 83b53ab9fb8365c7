"""Why the paper's value is blind: what notebook 14 trains, and the causes that it measures, with controls."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pandas as pd
import torch
from joblib import Parallel, delayed

from vgmr import corruption
from vgmr.analysis import calibration, gate
from vgmr.classifier import Classifier
from vgmr.data.types import MultimodalData, joined
from vgmr.inference import predict
from vgmr.objective import Objective
from vgmr.refiner import VGMR
from vgmr.studies.calibration import (
    CALIBRATED,
    PAPER,
    PLAIN,
    RIVALS,
    SETTINGS,
    STEPS,
    Impact,
    Trained,
    by_seed,
    experiments,
    hit_samples,
    kinds_of,
    oracle,
    trained,
    whole_samples,
    with_clean,
)
from vgmr.studies.forms import FORM_COMMON

# Variants by label and target of the value; the calibrated form's value is not trained and has none.
VALUED = ((PAPER, "delta"), (PAPER, "impact"), (CALIBRATED, "anchors"))
VALUE_SETS = ("uci-mfeat", "utd-mhad", "mosi-words")
SEEDS = 5
STRENGTHS = (0.25, 0.5, 1.0)
LOUD = (1.0, 8.0)
Row = dict[str, Any]


def causes(one: Trained) -> Iterator[Row]:
    """Causes 1, 3, 4 and 5, one row per number: question, case, modality, name, value."""
    model, data = one.model, one.data
    clean = whole_samples(data.test)
    for row in calibration.harmful(model, {"train": data.train, "test": data.test}).to_dict("records"):
        yield {"question": "harmful", "case": row["part"], "modality": row["modality"], "value": row["share"]}
    for row in calibration.gate_terms(model, clean).to_dict("records"):
        yield {"question": "terms", "name": row["term"], "modality": row["modality"], "value": row["deviation"]}
    if max(data.max_lengths.values()) > 1:
        noisy = kinds_of(one, ["noise"])["noise"]
        hit = noisy.corrupted or {}
        truth = {name: torch.cat([torch.zeros_like(where), where]) for name, where in hit.items()}
        both = replace(joined(clean, noisy), corrupted=truth)
        for row in calibration.blindness(data.train, both).to_dict("records"):
            place = {"name": row["moments"], "modality": row["modality"]}
            yield {"question": "moments", **place, "value": row["auroc"]}
    if isinstance(model.prefusion, VGMR) and model.prefusion.learns_value:
        for row in calibration.summary_alignment(model, clean).to_dict("records"):
            for name in ("alignment", "axes"):
                place = {"case": row["summaries"], "modality": f"{row['first']}, {row['second']}"}
                yield {"question": "axes", "name": name, **place, "value": row[name]}


def detections(one: Trained) -> Iterator[Row]:
    """Cause 2 and what the value finds: AUROC by kind, strength, modality and class."""
    clean = whole_samples(one.data.test)
    generator = torch.Generator().manual_seed(one.seed)
    for kind, hit in kinds_of(one).items():
        same = all(torch.equal(clean.mask[name], hit.mask[name]) for name in hit.mask)
        for strength in STRENGTHS if same else STRENGTHS[-1:]:
            seen = hit
            if strength < 1:
                blend = {name: torch.lerp(clean.features[name], x, strength) for name, x in hit.features.items()}
                seen = replace(hit, features=blend)
            frame = with_clean(one.model, clean, seen)
            order = torch.randperm(len(frame), generator=generator).numpy()
            tables = {"all": calibration.detection(frame)}
            tables["shuffled"] = calibration.detection(
                frame.assign(corrupted=frame["corrupted"].to_numpy()[order])
            )
            if strength == 1:
                tables["modality"] = calibration.detection(frame, "modality")
                if kind in ("noise", "conflict"):
                    tables["label"] = calibration.detection(frame, "label")
            for by, table in tables.items():
                for row in table.to_dict("records"):
                    place = {"case": kind, "name": row["score"], "strength": strength}
                    modality = str(row.get("modality", row.get("label", by)))
                    yield {"question": f"AUROC by {by}", **place, "modality": modality, "value": row["auroc"]}


def worth(one: Trained, plain: Classifier) -> Iterator[Row]:
    """The oracle's headroom, the permutation test and its positive control, in conflict: accuracies."""
    part = one.data.test
    if part.corrupted is None:
        drawn = corruption.Drawn.like(one.data.train, ["conflict"], 0.3)
        part = drawn(part, torch.Generator().manual_seed(one.seed))
    hit = hit_samples(part)
    for row in calibration.headroom(one.model, part, permutations=10, seed=one.seed).to_dict("records"):
        yield {"question": "worth", "case": row["samples"], "name": row["values"], "value": row["accuracy"]}
    knowing, blind = oracle(plain, part), (predict(plain, part).argmax(1) == part.label).float()
    for name, right in (("plain", blind), ("plain, oracle", knowing)):
        for case, rows in (("all", torch.ones_like(hit)), ("corrupted", hit), ("whole", ~hit)):
            yield {"question": "worth", "case": case, "name": name, "value": float(right[rows].mean())}


def responses(one: Trained, share: float = 0.3) -> Iterator[Row]:
    """Table 4: means of value and gate before and after noise in a share of a modality's steps, by loudness."""
    data, clean = one.data, whole_samples(one.data.test)
    for loud in LOUD:
        louder = replace(data.train, features={name: loud * x for name, x in data.train.features.items()})
        for modality in data.modalities:
            noisy = corruption.noise(clean, louder, share, modalities=[modality], seed=one.seed)
            for row in gate.response(one.model, clean, noisy).to_dict("records"):
                for case in ("clean", "noisy", "difference"):
                    place = {"case": case, "modality": modality, "name": row["statistic"], "strength": loud}
                    yield {"question": "response", **place, "value": row[case]}


def suppressions(one: Trained, plain: Classifier) -> Iterator[Row]:
    """Figures 6 and 7: share of |X| taken away by modality, over all samples and where VGMR alone is right.

    And how good each modality is alone, by anchors fitted to it: the one that is best is the strongest.
    """
    clean = whole_samples(one.data.test)
    table = gate.suppression(one.model, clean)
    only = (predict(one.model, clean).argmax(1) == clean.label) & (predict(plain, clean).argmax(1) != clean.label)
    kept = set(only.nonzero().squeeze(1).tolist())
    for case, rows in (("all", table), ("only VGMR right", table[table["sample"].isin(kept)])):
        for modality, share in rows.groupby("modality", sort=False)["share"].mean().items():
            yield {"question": "suppression", "case": case, "modality": modality, "value": float(share)}
    for modality, right in alone(one.data).items():
        yield {"question": "alone", "modality": modality, "value": right}


def alone(data: MultimodalData) -> dict[str, float]:
    """Test accuracy of logistic regressions on each modality's course over time, by name."""
    frequencies = min(6, max(data.max_lengths.values()))
    vgmr = VGMR.calibrated(data.dims, len(data.classes), evidence_frequencies=frequencies).eval()
    vgmr.prepare(data.train.features, data.train.mask, data.train.label)
    test = whole_samples(data.test)
    posterior = vgmr(test.features, test.mask).posterior
    return {name: float((one.argmax(1) == test.label).float().mean()) for name, one in posterior.items()}


def described(one: Trained, plain: Classifier) -> list[Row]:
    """Everything that notebook 14 says of one model."""
    parts = (causes(one), detections(one), worth(one, plain), responses(one), suppressions(one, plain))
    return [row for part in parts for row in part]


def models(dataset: str, label: str, target: str = "", seeds: int = SEEDS) -> list[Trained]:
    """Trained on the data as they come, nothing corrupted besides; `target` as in `VALUED`."""
    todo = experiments(dataset, {**RIVALS, **STEPS}[label], corrupted=False, seeds=range(seeds))
    return trained(todo, label, Impact if target == "impact" else Objective)


def cell(dataset: str, label: str, target: str) -> pd.DataFrame:
    """All numbers of one variant on a data set, over seeds."""
    frames = [
        pd.DataFrame(described(one, plain.model)).assign(seed=one.seed)
        for one, plain in zip(models(dataset, label, target), models(dataset, PLAIN), strict=True)
    ]
    return pd.concat(frames, ignore_index=True).assign(dataset=dataset, label=label, target=target)


def parameters() -> dict[str, Any]:
    """What the table of notebook 14 depends on, for `vgmr.records.kept.tabled`."""
    settings = {name: SETTINGS[name] for name in VALUE_SETS}
    common = {**FORM_COMMON, "training_corruption": {}}  # nothing is corrupted on purpose, see `models`
    return {"seeds": SEEDS, "valued": [list(pair) for pair in VALUED], "common": common, "settings": settings}


def value_study(jobs: int = 1) -> pd.DataFrame:
    """One row per number, one column per seed; keys dataset, label, target and those of `described`."""
    todo = [(dataset, *variant) for dataset in VALUE_SETS for variant in VALUED]
    found = pd.concat(Parallel(jobs)(delayed(cell)(*each) for each in todo), ignore_index=True)
    return by_seed(found.fillna({"strength": 1.0}))
