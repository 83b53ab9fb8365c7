"""`vgmr search`: the search for VGMR's one default, over the open data sets at once, by one command."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pandas as pd

from vgmr.files import try_place, write
from vgmr.notebook.run import parameters
from vgmr.studies import behind
from vgmr.studies.search import SEARCH_SEEDS, TRIAL_RATE, TRIALS, search_default

NOTEBOOKS = ("06_training_ucf101", "07_training_ave", "08_training_cremad")
SHARED = ("dataset", "data_options", "epochs", "batch_size", "latent_dim", "length_buckets")
KEPT = Path("notebooks/parameters/searched/default.json")


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
    """`vgmr search [--jobs N]`; writes what it found to notebooks/parameters/searched/default.json."""
    parser = argparse.ArgumentParser("vgmr search", description="search one default for VGMR on validation")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at once")
    options = parser.parse_args(arguments)
    if options.jobs < 1:
        raise ValueError(f"--jobs must be 1 or more, got {options.jobs}")
    chosen = studies()
    try_place(KEPT)
    table = search_default(chosen, options.jobs)
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
