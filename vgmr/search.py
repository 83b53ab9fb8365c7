"""`vgmr search`: the searches for VGMR's one default and for its form, over open data sets, by one command."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pandas as pd

from vgmr.files import try_place, write
from vgmr.notebook.run import parameters
from vgmr.studies import behind
from vgmr.studies.forms import FORM_COMMON, FORM_STUDIES, FORM_TRIALS, TRAINED_KINDS, chosen_forms, search_forms
from vgmr.studies.search import SEARCH_SEEDS, TRIAL_RATE, TRIALS, search_default

NOTEBOOKS = ("06_training_ucf101", "07_training_ave", "08_training_cremad")
SHARED = ("dataset", "data_options", "epochs", "batch_size", "latent_dim", "length_buckets")
KEPT = Path("notebooks/parameters/searched/default.json")
KEPT_FORMS = KEPT.with_name("forms.json")


def studies() -> dict[str, dict[str, Any]]:
    """What the search trains on: digits, and the training notebooks' own quick settings, with their backbones.

    `mosi-utterance` is left out: its validation part is contaminated, so nothing can be chosen on it.
    """
    digits = {"dataset": "digits", "epochs": 20, "batch_size": 64, "latent_dim": 16}
    found = {f"digits, {backbone}": digits | behind(backbone, 32) for backbone in ("pooled", "transformer")}
    for name in NOTEBOOKS:
        given = {key: value for key, (_, value) in parameters(Path(f"notebooks/{name}.ipynb")).items()}
        shared = {key: given[key] for key in SHARED}
        for backbone in given["backbones"]:
            options = {key: given[key] for key in ("width", "num_layers", "num_heads", "feedforward_dim")}
            found[f"{given['dataset']}, {backbone}"] = shared | behind(backbone, **options)
    return found


def adopted(table: pd.DataFrame) -> str:
    """The trial with the highest mean among those that are below plain in no study; else the least harmful one."""
    differences = table.drop(columns="mean")
    harmless = table[(differences >= 0).all(axis=1)]
    return str(harmless["mean"].idxmax() if len(harmless) else differences.min(axis=1).idxmax())


def main(arguments: list[str]) -> int:
    """`vgmr search [default | forms] [--jobs N]`; writes what it found to notebooks/parameters/searched/."""
    parser = argparse.ArgumentParser(
        "vgmr search", description="search a default or a form for VGMR on validation"
    )
    parser.add_argument("what", nargs="?", choices=("default", "forms"), default="default", help="what to search")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at once")
    options = parser.parse_args(arguments)
    if options.jobs < 1:
        raise ValueError(f"--jobs must be 1 or more, got {options.jobs}")
    return _forms(options.jobs) if options.what == "forms" else _default(options.jobs)


def _forms(jobs: int) -> int:
    try_place(KEPT_FORMS)
    table = search_forms(jobs=jobs)
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
    write(KEPT_FORMS, (json.dumps(content, indent=1) + "\n").encode())
    print(f"chosen, leaving each study out: {content['chosen']}; written to {KEPT_FORMS}")
    return 0


def _default(jobs: int) -> int:
    chosen = studies()
    try_place(KEPT)
    table = search_default(chosen, jobs)
    print(table.round(3).to_string())
    content = {
        "seeds": list(SEARCH_SEEDS),
        "learning_rate": TRIAL_RATE,
        "trials": TRIALS,
        "studies": chosen,
        "validation_accuracy_above_plain": table.round(4).to_dict(orient="index"),
        "adopted": adopted(table),
    }
    write(KEPT, (json.dumps(content, indent=1) + "\n").encode())
    print(f"adopted: {content['adopted']}; written to {KEPT}")
    return 0
