"""`vgmr search`, for the calibrated form: every form under the same corruptions, scored on validation alone."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

import pandas as pd
import torch
from joblib import Parallel, delayed

from vgmr.analysis.calibration import accuracy_on, detection, values
from vgmr.corruption import Drawn
from vgmr.experiment import experiment_data, train
from vgmr.machine.files import in_repository, try_place, write
from vgmr.settings import Experiment
from vgmr.studies.search import SEARCH_SEEDS, SEARCHED
from vgmr.studies.variants import CONTROLS, VARIANTS

KEPT = "forms.json"
# Nothing that it measures corruption with is among the kinds it trains on.
RIVALS = ("plain", *CONTROLS)
OPEN_GATE = {"form": "neutral", "amplification": 1.0, "retention": 0.0, "retain": True}
BOTH = {**OPEN_GATE, "value_from": "both", "value_weight": 1.0}
FORM_TRIALS: dict[str, dict[str, Any]] = {
    **{name: VARIANTS[name] for name in RIVALS},
    "paper": {"form": "paper"},
    "neutral": {"form": "neutral"},
    "learned, a gate that can close": OPEN_GATE,
    "learned by what was corrupted": {**OPEN_GATE, "value_target": "corruption", "value_weight": 1.0},
    "learned by swaps": {**OPEN_GATE, "value_target": "swap", "temperature": 0.3, "value_weight": 1.0},
    "summaries and anchors, by what was corrupted": {**BOTH, "value_target": "corruption"},
    "summaries and anchors, by out-of-fold contributions": {**BOTH, "value_target": "out-of-fold"},
    "calibrated": {"form": "calibrated"},
    "calibrated, no channel value": {"form": "calibrated", "use_channel_value": False},
    "calibrated, retained by the gate alone": {**OPEN_GATE, "value_from": "anchors", "retain": False},
}
TRAINED_KINDS = ("masking", "dropout", "shift")
UNSEEN_KINDS = ("conflict", "noise", "missing")
FORM_STUDIES: dict[str, dict[str, Any]] = {
    "uci-mfeat": {"data_options": {"conflict": 0.3}, "batch_size": 64, "learning_rate": 3e-3},
    "digit-views": {"data_options": {"conflict": 0.5}, "batch_size": 64, "learning_rate": 3e-3},
    "digits": {"data_options": {"conflict": 0.0}, "batch_size": 64, "learning_rate": 1e-2},
    "utd-mhad": {
        "data_options": {"inertial_stride": 12, "skeleton_stride": 4},
        "batch_size": 32,
        "learning_rate": 1e-2,
        "length_buckets": True,
    },
}
FORM_COMMON: dict[str, Any] = {
    "epochs": 20,
    "latent_dim": 16,
    "backbone_options": {"width": 32},
    "training_corruption": {"kinds": list(TRAINED_KINDS)},
}


def validate_form(experiment: Experiment) -> dict[str, float]:
    """Train, and score the validation part: as it is, and with one modality of each sample corrupted.

    What the run says of the test part, as every run does, is not looked at.

    Returns accuracies "clean" and by kind of `UNSEEN_KINDS`, and "value" and "gate", the mean over these kinds of
    the AUROC of a low value, or closed gate, for a corrupted modality; these two for VGMR only.
    """
    data = experiment_data(experiment)
    model = train(experiment, data).model()
    scores = {"clean": accuracy_on(model, data.validation)}
    areas = []
    for kind in UNSEEN_KINDS:
        hit = Drawn.like(data.train, [kind], 1.0)(data.validation, torch.Generator().manual_seed(1))
        scores[kind] = accuracy_on(model, hit)
        if experiment.prefusion == "vgmr":
            areas.append(detection(values(model, hit)).set_index("score")["auroc"])
    if areas:
        mean = pd.concat(areas, axis=1).mean(axis=1)
        scores |= {"value": float(mean["value"]), "gate": float(mean["gate"])}
    return scores


def search_forms(
    trials: Mapping[str, Mapping[str, Any]] = FORM_TRIALS, seeds: tuple[int, ...] = SEARCH_SEEDS, jobs: int = 1
) -> pd.DataFrame:
    """One row per study, form and seed: columns study, form, seed and those of `validate_form`."""
    todo = [
        (study, form, seed, Experiment(study, seed=seed, **{**FORM_COMMON, **settings, **options}))
        for study, settings in FORM_STUDIES.items()
        for form, options in trials.items()
        for seed in seeds
    ]
    scored = Parallel(jobs)(delayed(validate_form)(experiment) for *_, experiment in todo)
    return pd.DataFrame(
        [
            {"study": study, "form": form, "seed": seed, **scores}
            for (study, form, seed, _), scores in zip(todo, scored, strict=True)
        ]
    )


def chosen_forms(table: pd.DataFrame) -> dict[str, str]:
    """The form to report on each study, the best on the *others* by mean accuracy; "all" is chosen on all of them.

    The mean is over "clean" and `UNSEEN_KINDS`, then seeds, then studies. Rivals are no forms.
    """
    forms = table[~table["form"].isin(RIVALS)]
    mean = forms.assign(score=forms[["clean", *UNSEEN_KINDS]].mean(axis=1)).pivot_table(
        index="form", columns="study", values="score"
    )
    left_out = {str(study): str(mean.drop(columns=study).mean(axis=1).idxmax()) for study in mean}
    return {**left_out, "all": str(mean.mean(axis=1).idxmax())}


def main(arguments: list[str]) -> int:
    """`vgmr search [--jobs N]`; writes what it found to `KEPT` among the repository's kept searches."""
    parser = argparse.ArgumentParser("vgmr search", description="search a form for VGMR on validation")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at once")
    options = parser.parse_args(arguments)
    if options.jobs < 1:
        raise ValueError(f"--jobs must be 1 or more, got {options.jobs}")
    path = in_repository(SEARCHED) / KEPT
    try_place(path)
    table = search_forms(jobs=options.jobs)
    means = table.drop(columns="seed").groupby(["study", "form"], sort=False).mean().round(4)
    print(means.to_string())
    content = {
        "seeds": list(SEARCH_SEEDS),
        "trained_kinds": list(TRAINED_KINDS),
        "forms": FORM_TRIALS,
        "studies": FORM_STUDIES,
        "common": FORM_COMMON,
        "validation": json.loads(table.round(4).to_json(orient="records")),
        "chosen": chosen_forms(table),
    }
    write(path, (json.dumps(content, indent=1) + "\n").encode())
    print(f"chosen, leaving each study out: {content['chosen']}; written to {path}")
    return 0
