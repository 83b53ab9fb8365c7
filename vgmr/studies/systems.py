"""VGMR in front of the fusion systems that the paper names: what notebook 18 trains, at quick widths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from vgmr.analysis.cost import step_costs
from vgmr.comparison import differences
from vgmr.records.kept import tabled
from vgmr.settings import Experiment
from vgmr.statistics.answers import Scored, answers
from vgmr.studies.search import choose, with_seed
from vgmr.studies.variants import VARIANTS

VIEWS = ("fou", "kar", "zer")
SEEDS = 5
RATES = (3e-3, 1e-2)  # of every search here, over the two search seeds
SMALL = {"num_heads": 2, "feedforward_dim": 64}
# By data set: what all trainings share.
SETTINGS: dict[str, dict[str, Any]] = {
    "uci-mfeat": {"data_options": {"conflict": 0.3}, "epochs": 20, "batch_size": 64},
    "utd-mhad": {"data_options": {"inertial_stride": 24, "skeleton_stride": 8}, "epochs": 30, "batch_size": 32},
}
SHARED: dict[str, Any] = {"latent_dim": 16, "patience": 8}
# A host is a backbone, or one and the training method that belongs to the system.
_SYSTEMS: dict[str, dict[str, Any]] = {
    "Concat": {"backbone": "pooled", "backbone_options": {"width": 32}},
    "Transformer": {"backbone": "transformer", "backbone_options": {"width": 32, "num_layers": 1, **SMALL}},
    "TFN": {"backbone": "tfn", "backbone_options": {"width": 16}},
    "LMF": {"backbone": "lmf", "backbone_options": {"width": 32}},
    "GMU": {"backbone": "gmu", "backbone_options": {"width": 32}},
    "PCAG": {"backbone": "pcag", "backbone_options": {"width": 32}},
    "MulT": {"backbone": "mult", "backbone_options": {"width": 16, "num_heads": 2}},
    "MISA": {"backbone": "misa", "backbone_options": {"width": 32, "averaged": VIEWS, "feedforward_dim": 64}},
    "MAG": {"backbone": "mag", "backbone_options": {"anchor": "kar", "num_layers": 1, **SMALL}},
    "MMIM's network": {"backbone": "mmim", "backbone_options": {"averaged": VIEWS}},
    "Self-MM's network": {"backbone": "self-mm", "backbone_options": {"averaged": VIEWS}},
    "TETFN": {"backbone": "tetfn", "backbone_options": {"anchor": "kar", "width": 16, "num_heads": 2}},
    "ConfSMoE": {"backbone": "conf-moe", "backbone_options": {"width": 32}},
    "UniS-MMC": {"backbone": "pooled", "backbone_options": {"width": 32}, "method": "unis-mmc"},
}
# By data set: the hosts, with what makes each.
HOSTS: dict[str, dict[str, dict[str, Any]]] = {
    "uci-mfeat": _SYSTEMS,
    "utd-mhad": {host: _SYSTEMS[host] for host in ("Transformer", "PCAG", "ConfSMoE", "MulT")},
}


def shared(dataset: str) -> dict[str, Any]:
    """The settings that all trainings on a data set share.

    Raises:
        ValueError: a data set that is not in the study, with those that are.
    """
    if dataset not in HOSTS:
        raise ValueError(f"no study of systems on {dataset!r}; there are: {', '.join(HOSTS)}")
    return {"dataset": dataset, **SHARED, **SETTINGS[dataset]}


def before(dataset: str) -> dict[tuple[str, str], dict[str, Any]]:
    """Settings of every host with every variant in front of it, by host and variant."""
    return {
        (host, variant): {**options, **own}
        for host, options in HOSTS[dataset].items()
        for variant, own in VARIANTS.items()
    }


def plugged(dataset: str) -> dict[tuple[str, str], list[Experiment]]:
    """The trainings of every variant in front of every host of `HOSTS`, one for each of `SEEDS`.

    `choose` searches or reads the rate of each, DATASET-plugged. Trainings may last three times as long as those
    of the search, the same for all, since several hosts still improved at its end.
    """
    common, todo = shared(dataset), before(dataset)
    named = {f"{host}: {variant}": options for (host, variant), options in todo.items()}
    chosen = choose(f"{dataset}-plugged", named, common, rates=RATES)
    return {
        place: [
            Experiment(**with_seed({**common, **options, **own, "epochs": 3 * own["epochs"]}, seed))
            for seed in range(SEEDS)
        ]
        for (place, options), own in zip(todo.items(), chosen.values(), strict=True)
    }


def over_hosts(runs: Mapping[tuple[str, str], Sequence[Scored]]) -> pd.DataFrame:
    """Difference to plain of each variant's mean over hosts: per seed and sample the share that answers right.

    Rows are variants that stand before every host; columns those of `vgmr.comparison.differences`.

    Args:
        runs: by host and variant, all of the same seeds on the same data.
    """
    hosts, tidy = {host for host, _ in runs}, []
    for variant in dict.fromkeys(variant for _, variant in runs):
        found = [answers(each) for (_, own), each in runs.items() if own == variant]
        if len(found) == len(hosts):
            right = [np.where(np.isnan(one.label), np.nan, one.label == one.prediction) for one in found]
            share = pd.DataFrame(np.mean(right, 0), index=found[0].seeds).rename_axis("seed").reset_index()
            tall = share.melt("seed", var_name="sample").dropna(subset="value").assign(label=variant)
            group = found[0].group
            tidy.append(tall if group is None else tall.assign(group=tall["sample"].map(dict(enumerate(group)))))
    return differences(pd.concat(tidy), [], baseline="plain").set_index("label")


def step_table(dataset: str) -> pd.DataFrame:
    """CPU time of one training step as ratios, by host and variant.

    Columns host, variant, step (times that of the host alone), host_step (the host alone, times that of the first
    host).
    """
    common, rows = shared(dataset), []
    todo = {place: Experiment(**{**common, **options}) for place, options in before(dataset).items()}
    hosts = list(HOSTS[dataset])
    alone = step_costs({host: todo[host, "plain"] for host in hosts}, hosts[0])
    for host in hosts:
        steps = step_costs({variant: one for (of, variant), one in todo.items() if of == host}, "plain")
        rows += [
            {"host": host, "variant": variant, "step": ratio, "host_step": alone[host]}
            for variant, ratio in steps.items()
        ]
    return pd.DataFrame(rows)


def costs(dataset: str, again: bool = False) -> pd.DataFrame:
    """`step_table`, kept as 18-costs-DATASET."""
    parameters = {"dataset": dataset, "hosts": list(HOSTS[dataset]), "variants": list(VARIANTS)}
    return tabled(f"18-costs-{dataset}", parameters, partial(step_table, dataset), again)
