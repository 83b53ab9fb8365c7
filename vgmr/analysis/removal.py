"""What a method loses without a modality: absent at test, or trained again without it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from vgmr.balancing import METHODS
from vgmr.experiment import Run

FORMS = ("VGMR", "VGMR, paper's form")


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
