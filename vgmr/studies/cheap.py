"""Cheaper forms of the refiner: accuracy against cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vgmr.experiment import Experiment
from vgmr.studies import study

# switches of `VGMR` on top of a form; the steady gate needs a form without LayerNorm
CHEAP: dict[str, dict[str, Any]] = {
    "full": {},
    "shared": {"sharing": True},
    "rank 16": {"rank": 16},
    "rank 4": {"rank": 4},
    "rank 0": {"rank": 0},
    "sparse": {"sparsity": 0.75},
    "rank 16, shared": {"rank": 16, "sharing": True},
    "rank 16, sparse": {"rank": 16, "sparsity": 0.75},
    "rank 0, shared": {"rank": 0, "sharing": True},
}
FORMS = ("paper", "neutral", "calibrated")
SETS: dict[str, dict[str, Any]] = {
    "uci-mfeat": {"dataset": "uci-mfeat", "latent_dim": 16, "backbone_options": {"width": 32}, "batch_size": 64},
    "utd-mhad": {},
    "cremad-ratings": {},
}


def cheap_refiners(dataset: str, seeds: Sequence[int] = range(10)) -> dict[str, list[Experiment]]:
    """Plain, and every cheap form of VGMR in the paper's, the neutral and the calibrated form; one list per label.

    Labels are "plain" and "FORM: SWITCHES". In front of the pooled model, at quick scale.

    Args:
        dataset: one of `SETS`.
        seeds: one experiment each.
    """
    if dataset not in SETS:
        raise ValueError(f"no study of cheap refiners on {dataset!r}; there are: {', '.join(SETS)}")
    common = SETS[dataset] or study(dataset)
    variants: dict[str, dict[str, Any]] = {"plain": {"prefusion": "none"}}
    for form in FORMS:
        for label, switches in CHEAP.items():
            if not (form == "calibrated" and switches.get("sharing")):  # no learned values to share
                variants[f"{form}: {label}"] = {"form": form, **switches}
    return {
        label: [Experiment(**{**common, **variant, "seed": seed}) for seed in seeds]
        for label, variant in variants.items()
    }
