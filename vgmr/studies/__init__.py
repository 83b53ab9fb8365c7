"""What the notebooks train: variants, settings, searched learning rates, and the plan of every record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from vgmr.experiment import Experiment, Run, experiment_data
from vgmr.runs import recorded, run_all
from vgmr.studies.search import choose

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {"prefusion": "none"},
    "Concat+MLP": {"prefusion": "mlp"},
    "VGMR, paper's form": {"prefusion": "vgmr", "norm": "layer"},
    "VGMR": {"prefusion": "vgmr", "norm": "none", "neutral_start": True},
}
SEEDS = {"pooled": 5, "transformer": 5}  # reported trainings per variant

# The balancing methods that are defined for every study here, and searched.
COMPARED = tuple(
    ["none", "uniform", "grad-blending", "ogm-ge", "pmr", "agm", "mmpareto", "relearning", "mla", "arl"]
)

# Quick scale: what the quickstart and the training notebooks train by default, so that all share their runs.
STUDIES: dict[str, dict[str, Any]] = {
    "digits": {"data_options": {"conflict": 0.3}, "epochs": 30, "batch_size": 64, "width": 64},
    "mosi-utterance": {"epochs": 12, "batch_size": 32, "width": 64},
    "utd-mhad": {
        "data_options": {"inertial_stride": 12, "skeleton_stride": 4},
        "epochs": 30,
        "batch_size": 32,
        "length_buckets": True,
        "width": 32,
    },
    "avdigits": {"epochs": 8, "batch_size": 64, "length_buckets": True, "width": 32},
    "cremad-ratings": {"epochs": 10, "batch_size": 128, "width": 64},
}
TRANSFORMER_STUDIES: dict[str, dict[str, Any]] = {"digits": {"epochs": 15, "width": 32}}


def behind(
    backbone: str, width: int, num_layers: int = 1, num_heads: int = 2, feedforward_dim: int = 64
) -> dict[str, Any]:
    """The settings of an `Experiment` that name its backbone; all but `width` are for the Transformer alone."""
    options = {"width": width}
    if backbone == "transformer":
        options |= {"num_layers": num_layers, "num_heads": num_heads, "feedforward_dim": feedforward_dim}
    return {"backbone": backbone, "backbone_options": options}


def study(dataset: str, backbone: str = "pooled") -> dict[str, Any]:
    """The settings that all trainings on an open data set share at quick scale.

    Raises:
        ValueError: a data set that has none, with those that have.
    """
    if dataset not in STUDIES:
        raise ValueError(f"no quick settings for {dataset!r}; there are some for: {', '.join(STUDIES)}")
    chosen = dict(STUDIES[dataset])
    if backbone == "transformer":
        chosen |= TRANSFORMER_STUDIES.get(dataset, {})
    width = chosen.pop("width")
    return {"dataset": dataset, "latent_dim": 16, **chosen, **behind(backbone, width)}


def controlled(common: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What the paper's Tables 1, 5 and 6 compare, as variants: fusion heads, MMPareto, modules before fusion.

    Args:
        common: settings that all trainings share; the other fusion heads go into its `backbone_options`.
    """
    options = common["backbone_options"]
    return {
        "Summation": {"prefusion": "none", "backbone_options": {**options, "head": "sum"}},
        "Tensor Fusion": {"prefusion": "none", "backbone_options": {**options, "head": "tensor"}},
        "plain": VARIANTS["plain"],
        "MMPareto": {"prefusion": "none", "method": "mmpareto"},
        "Concat+MLP": VARIANTS["Concat+MLP"],
        "Cross-Attention": {"prefusion": "cross-attention"},
        "Sigmoid+Tanh gate": {"prefusion": "sigmoid-tanh"},
        "VGMR, paper's form": VARIANTS["VGMR, paper's form"],
        "VGMR": VARIANTS["VGMR"],
    }


def alone(modalities: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The plain model on each single modality, as variants."""
    return {f"{name} alone": {"prefusion": "none", "modalities": (name,)} for name in modalities}


def method_options(method: str, epochs: int) -> dict[str, Any]:
    """Options of a method whose defaults count epochs and mean a longer training than ours.

    Grad-Blending estimates three times, Relearning resets three times, ARL scales behind the first sixth. OGM-GE's
    window and PMR's entropy term follow the number of epochs by themselves.
    """
    options: dict[str, dict[str, Any]] = {
        "grad-blending": {"super_epoch": max(1, -(-epochs // 3))},
        "relearning": {"interval": max(1, epochs // 4)},
        "arl": {"start_epoch": epochs // 6},
    }
    return options.get(method, {})


def balancing_variants(epochs: int) -> dict[str, dict[str, Any]]:
    """Every method of `COMPARED` alone, "NAME", and with VGMR before fusion, "NAME + VGMR"."""
    variants: dict[str, dict[str, Any]] = {}
    for ending, before_fusion in (("", VARIANTS["plain"]), (" + VGMR", VARIANTS["VGMR"])):
        for name in COMPARED:
            variants[f"{name}{ending}"] = {
                **before_fusion,
                "method": name,
                "method_options": method_options(name, epochs),
            }
    return variants


def balancing_study(dataset: str, optimizer: str = "adamw", backbone: str = "pooled") -> dict[str, Any]:
    """The settings that all trainings of one comparison of balancing methods share; SGD decays by 0.0001."""
    common = study(dataset, backbone)
    return common | {"optimizer": "sgd", "weight_decay": 1e-4} if optimizer == "sgd" else common


def balancing(
    dataset: str, optimizer: str = "adamw", backbone: str = "pooled", again: bool = False, jobs: int = 2
) -> dict[str, dict[str, Any]]:
    """The settings of every variant of `balancing_variants` on an open data set, all but the seed.

    `choose` searches or reads the learning rates, DATASET-BACKBONE-balancing-OPTIMIZER: each method's
    alone, and VGMR's with the method "none", which it keeps in front of every method.
    """
    common = balancing_study(dataset, optimizer, backbone)
    variants = balancing_variants(common["epochs"])
    front = "none + VGMR"
    searched = {name: options for name, options in variants.items() if name in COMPARED or name == front}
    rates = choose(f"{dataset}-{backbone}-balancing-{optimizer}", searched, common, again, jobs)
    return {
        name: {**common, **options, "learning_rate": rates[name if name in searched else front]}
        for name, options in variants.items()
    }


def seeded(
    variants: Mapping[str, Mapping[str, Any]], rates: Mapping[str, float], common: Mapping[str, Any], seeds: int
) -> dict[str, list[Experiment]]:
    """`seeds` experiments of each variant, at its own learning rate."""
    return {
        name: [
            Experiment(**{**common, **options, "learning_rate": rates[name], "seed": seed})
            for seed in range(seeds)
        ]
        for name, options in variants.items()
    }


def train(
    variants: Mapping[str, Mapping[str, Any]],
    rates: Mapping[str, float],
    common: Mapping[str, Any],
    seeds: int,
    jobs: int = 2,
    progress: bool = True,
    record: str | None = None,
    again: bool = False,
) -> dict[str, list[Run]]:
    """`seeds` trainings of each variant at its own learning rate, by variant name.

    Args:
        record: name of a record that holds them, curves and all; see `vgmr.runs.recorded`, also for `again`.
    """
    experiments = seeded(variants, rates, common, seeds)
    if record is None:
        return run_all(experiments, jobs, progress)
    return recorded(record, experiments, again, jobs, curves=True)


# Notebook 11: what is changed in VGMR, one factor at a time, by group; the first two are the paper's Table 3.
ABLATIONS: dict[str, dict[str, dict[str, Any]]] = {
    "value signals": {
        "no global value": {"use_global_value": False},
        "no channel value": {"use_channel_value": False},
        "no value in the gate": {"use_global_value": False, "use_channel_value": False},
    },
    "evidence": {
        "no agreement": {"use_agreement": False},
        "no discrepancy": {"use_discrepancy": False},
        "neither of the two": {"use_agreement": False, "use_discrepancy": False},
    },
    "form": {"LayerNorm": {"norm": "layer"}, "gates begin random": {"neutral_start": False}},
    "strength": {
        "gate strength 0": {"amplification": 0.0},
        "gate strength 0.2": {"amplification": 0.25},
        "gate strength 0.8": {"amplification": 1.0},
    },
    "value supervision": {
        "value weight 0": {"value_weight": 0.0},
        "value weight 1": {"value_weight": 1.0},
        "temperature 0.3": {"temperature": 0.3},
        "temperature 3": {"temperature": 3.0},
        "target from before": {"removal": "before"},
    },
    "regulariser": {
        "regulariser weight 0": {"regulariser_weight": 0.0},
        "regulariser weight 0.1": {"regulariser_weight": 0.1},
    },
    "width": {"latent width 8": {"latent_dim": 8}, "latent width 32": {"latent_dim": 32}},
}
TABLE_3 = ("value signals", "evidence")
NULLS = ("names reversed", "other seeds")


def ablations(dataset: str, rates: Mapping[str, float], seeds: int = 5) -> dict[str, list[Experiment]]:
    """What notebook 11 trains on a data set: `VARIANTS`, each changed VGMR, and pairs that differ by chance alone.

    Labels are those of `VARIANTS` or "VARIANT: change". Changes of `TABLE_3` are made in the paper's form too. Of
    the controls, "names reversed" gives the modalities in reverse order, hence other initial weights and other
    dropout under the same seed, and "other seeds" are the next ones.

    Args:
        rates: learning rate by variant; changes get that of the variant they are made in, without a search.
    """
    names = tuple(experiment_data(Experiment(**study(dataset))).modalities)
    common = {**study(dataset)}
    changes: dict[str, dict[str, Any]] = {name: {"variant": name} for name in VARIANTS}
    for group, entries in ABLATIONS.items():
        for variant in ("VGMR", "VGMR, paper's form") if group in TABLE_3 else ("VGMR",):
            changes |= {f"{variant}: {label}": {"variant": variant, **change} for label, change in entries.items()}
    for variant in VARIANTS:
        changes[f"{variant}: names reversed"] = {"variant": variant, "modalities": names[::-1]}
        changes[f"{variant}: other seeds"] = {"variant": variant}
    todo = {}
    for label, change in changes.items():
        variant = change.pop("variant")
        options = {**common, **VARIANTS[variant], "learning_rate": rates[variant], **change}
        first = seeds if label.endswith("other seeds") else 0
        todo[label] = [Experiment(**options, seed=seed) for seed in range(first, first + seeds)]
    return todo


def removals(dataset: str, seeds: int = 5) -> dict[tuple[str, str], list[Experiment]]:
    """What is trained with all modalities and without each, by method and the modality left out, "" for none.

    Methods are "plain", VGMR in both forms and those of `vgmr.balancing`, at the learning rates of `balancing`.
    With two modalities only "plain" is trained without one: no other method is defined for a single modality.
    """
    found, common = balancing(dataset), study(dataset)
    form = "VGMR, paper's form"
    rates = choose(f"{dataset}-pooled", VARIANTS, common, again=False)
    methods = {"plain": found["none"], form: {**common, **VARIANTS[form], "learning_rate": rates[form]}}
    methods |= {"VGMR": found["none + VGMR"], **{name: found[name] for name in COMPARED if name != "none"}}
    names = experiment_data(Experiment(**common)).modalities
    todo = {}
    for method, options in methods.items():
        todo[method, ""] = [Experiment(**options, seed=seed) for seed in range(seeds)]
        if len(names) > 2 or method == "plain":
            for gone in names:
                rest = tuple(name for name in names if name != gone)
                todo[method, gone] = [replace(one, modalities=rest) for one in todo[method, ""]]
    return todo


# What is committed


def training(dataset: str, backbone: str) -> dict[str, list[Experiment]]:
    """The four variants on a data set, and with the pooled backbone the plain model on each modality alone."""
    common = study(dataset, backbone)
    rates = choose(f"{dataset}-{backbone}", VARIANTS, common)
    single = alone(experiment_data(Experiment(**common)).modalities) if backbone == "pooled" else {}
    variants = VARIANTS | single
    return seeded(variants, rates | dict.fromkeys(single, rates["plain"]), common, SEEDS[backbone])


def controls(dataset: str) -> dict[str, list[Experiment]]:
    """`controlled` on a data set, behind the Transformer."""
    common = study(dataset, "transformer")
    variants = controlled(common)
    return seeded(
        variants, choose(f"{dataset}-transformer-controlled", variants, common), common, SEEDS["transformer"]
    )


def balanced(dataset: str) -> dict[tuple[str, str], list[Experiment]]:
    """Every balancing method under both optimisers, alone and with VGMR in front, by optimiser and variant."""
    return {
        (optimizer, name): [Experiment(**settings, seed=seed) for seed in range(SEEDS["pooled"])]
        for optimizer in ("adamw", "sgd")
        for name, settings in balancing(dataset, optimizer).items()
    }


def changed(dataset: str) -> dict[str, list[Experiment]]:
    """`ablations` on a data set at its searched rates."""
    return ablations(dataset, choose(f"{dataset}-pooled", VARIANTS, study(dataset)), SEEDS["pooled"])


def planned() -> dict[str, Callable[[], Mapping[Any, Sequence[Experiment]]]]:
    """What `vgmr records` trains: a function that lists the experiments, by the record's name."""
    plans: dict[str, Callable[[], Mapping[Any, Sequence[Experiment]]]] = {}
    for dataset in ("mosi-utterance", "utd-mhad", "avdigits", "cremad-ratings"):
        plans[f"training-{dataset}-pooled"] = partial(training, dataset, "pooled")
    for dataset in ("utd-mhad", "avdigits"):
        plans[f"training-{dataset}-transformer"] = partial(training, dataset, "transformer")
    for dataset in ("utd-mhad", "digits"):
        plans[f"09-controlled-{dataset}"] = partial(controls, dataset)
    for dataset in ("utd-mhad", "avdigits"):
        plans[f"10-balancing-{dataset}"] = partial(balanced, dataset)
    for dataset in ("mosi-utterance", "utd-mhad", "avdigits"):
        plans[f"11-ablations-{dataset}"] = partial(changed, dataset)
        plans[f"12-removals-{dataset}"] = partial(removals, dataset, SEEDS["pooled"])
    return plans
