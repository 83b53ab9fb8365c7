"""What the notebooks train: variants, settings, searched learning rates, and the plan of every record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from vgmr.analysis import cost
from vgmr.balancing import METHODS
from vgmr.data import folds, load
from vgmr.data.types import MultimodalData
from vgmr.experiment import experiment_data, train
from vgmr.refiner import FORMS
from vgmr.settings import Experiment
from vgmr.studies import systems
from vgmr.studies.search import RATES, SEARCH_SEEDS, Choice, choose, with_seed
from vgmr.studies.variants import ADOPTED, CONTROLS, FORM, VARIANTS

# Quick scale: what the training notebooks train by default. One patience for all; a search begins at these epochs.
PATIENCE = 12
STUDIES: dict[str, dict[str, Any]] = {
    "uci-mfeat": {"data_options": {"conflict": 0.3}, "epochs": 40, "batch_size": 64, "width": 64},
    "digit-views": {"data_options": {"conflict": 0.5}, "epochs": 60, "batch_size": 64, "width": 64},
    "digits": {"data_options": {"conflict": 0.3}, "epochs": 30, "batch_size": 64, "width": 32},
    "mosi-utterance": {"epochs": 20, "batch_size": 32, "width": 64},
    "mosi-words": {"epochs": 20, "batch_size": 64, "width": 32},
    "utd-mhad": {
        "data_options": {"inertial_stride": 12, "skeleton_stride": 4},
        "epochs": 40,
        "batch_size": 32,
        "width": 32,
    },
    "avdigits": {"epochs": 60, "batch_size": 64, "width": 32},
    "cremad-ratings": {"epochs": 20, "batch_size": 128, "width": 64},
    "synthetic": {
        "data_options": {"samples": 240, "steps": 6, "redundant": 0.16, "unique": 0.16},
        "epochs": 5,
        "batch_size": 64,
        "width": 16,
    },
}
# Reported trainings of each variant behind the pooled backbone: seeds, each on all folds where a set has folds.
SEEDS = {"uci-mfeat": 20, "digit-views": 20, "cremad-ratings": 5, "mosi-words": 20, "utd-mhad": 3, "avdigits": 4}
FOLDED = ("utd-mhad", "cremad-ratings")
LONGER = {"avdigits": 2}  # epochs over those of the search: two variants still improved at its end
FEWER = 10  # seeds of everything that is not a main comparison, on the published split or splits of their own


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
    width = chosen.pop("width")
    return {"dataset": dataset, "latent_dim": 16, "patience": PATIENCE, **chosen, **behind(backbone, width)}


def controlled(common: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What the paper's Tables 1, 5 and 6 compare, as variants: fusion heads, MMPareto, modules before fusion.

    Args:
        common: settings that all trainings share; the other fusion heads go into its `backbone_options`.
    """
    options = common["backbone_options"]
    return {
        "Summation": {**VARIANTS["plain"], "backbone_options": {**options, "head": "sum"}},
        "Tensor Fusion": {**VARIANTS["plain"], "backbone_options": {**options, "head": "tensor"}},
        "MMPareto": {**VARIANTS["plain"], "method": "mmpareto"},
        "Cross-Attention": {"prefusion": "cross-attention", "form": "paper"},
        "Sigmoid+Tanh gate": {"prefusion": "sigmoid-tanh", "form": "paper"},
        **VARIANTS,
    }


def alone(modalities: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The plain model on each single modality, as variants."""
    return {f"{name} alone": {**VARIANTS["plain"], "modalities": (name,)} for name in modalities}


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


COMPARED = tuple(name for name in METHODS if name not in ("mmim", "self-mm"))  # for any number of classes
WITH_VGMR = ("none", "ogm-ge", "arl")  # the paper's Table 8
# by what it adds to a method's name
IN_FRONT = {"": "plain", **{f" + {name}": name for name in (FORM, ADOPTED, *CONTROLS)}}


def balancing_variants(epochs: int) -> dict[str, dict[str, Any]]:
    """Methods of `COMPARED` alone, "NAME", those of `WITH_VGMR` with VGMR or a control in front, "NAME + FORM"."""
    return {
        f"{name}{ending}": {**VARIANTS[variant], "method": name, "method_options": method_options(name, epochs)}
        for ending, variant in IN_FRONT.items()
        for name in (WITH_VGMR if ending else COMPARED)
    }


def balancing_study(dataset: str, optimizer: str = "adamw") -> dict[str, Any]:
    """The settings that all trainings of one comparison of balancing methods share.

    SGD decays by 0.0001, and its search begins at twice the epochs, since VGMR takes longer under it.
    """
    common = study(dataset)
    if optimizer != "sgd":
        return common
    return common | {"optimizer": "sgd", "weight_decay": 1e-4, "epochs": 2 * common["epochs"]}


def balancing(dataset: str, optimizer: str = "adamw") -> dict[str, dict[str, Any]]:
    """The settings of every variant of `balancing_variants` on an open data set, all but the seed.

    `choose` searches or reads rate and epochs, DATASET-pooled-balancing-OPTIMIZER: each method's alone, and each
    form's with the method "none", which it keeps with every method.
    """
    common = balancing_study(dataset, optimizer)
    variants = balancing_variants(common["epochs"])
    searched = {name: options for name, options in variants.items() if name in METHODS or name.startswith("none")}
    chosen = choose(f"{dataset}-pooled-balancing-{optimizer}", searched, common)
    found = {}
    for name, options in variants.items():
        own = chosen[name if name in chosen else name.replace(options["method"], "none", 1)]
        given = {"method_options": method_options(options["method"], own["epochs"])}
        found[name] = {**common, **options, **own, **given}
    return found


def repeated(settings: Mapping[str, Any], seeds: int, folded: bool = False) -> list[Experiment]:
    """One experiment per seed, or per seed and fold of the data set.

    Where the split is ours to draw, each seed has its own; see `vgmr.studies.search.OWN_SPLIT`.
    """
    places: list[dict[str, Any]] = [{}]
    if folded:
        places = [{"fold": fold} for fold in range(folds(settings["dataset"]))]
    return [Experiment(**{**with_seed(settings, seed), **place}) for seed in range(seeds) for place in places]


def opened(
    dataset: str, root: str | None, data_options: Mapping[str, Any], folded: bool = False
) -> MultimodalData:
    """The data of a training notebook; where every fold is tested in turn, those of the first.

    Raises:
        ValueError: every fold is asked for, and one of them in `data_options`; or all that is tested is of one
            group, so that no comparison would have an interval.
    """
    if folded and "fold" in data_options:
        raise ValueError(
            f"folds=True tests every fold, data_options names fold {data_options['fold']}: give folds=False for "
            "that one"
        )
    first = {"fold": 0} if folded else {}
    data = load(dataset, root, **{**data_options, **first})
    if not folded and data.test.group is not None and len(data.test.group.unique()) == 1:
        raise ValueError(
            f"{data.name}: all {len(data.test)} test samples are of one group (person or video), and an interval "
            "needs two or more; give another split, or no groups"
        )
    return data


# Notebook 19: cheaper forms of VGMR
SHORT = {FORM: "paper", ADOPTED: "calibrated"}  # as in `vgmr.analysis.cost.CHEAP`
# with seeds, the first ones of `SEEDS`
CHEAP_SETS = {"uci-mfeat": 20, "digit-views": 20, "cremad-ratings": 5, "utd-mhad": 3}


# Notebook 11: what is changed in VGMR, one factor at a time; the first two groups are the paper's Table 3.
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
    "form": {"no LayerNorm": {"norm": "none"}, "neutral start": {"neutral_start": True}},
    "strength": {
        "gate strength 0": {"amplification": 0.0},
        "gate strength 0.2": {"amplification": 0.25},
        "gate can close": {"amplification": 1.0, "retention": 0.0},
    },
    "value supervision": {
        "value weight 0": {"value_weight": 0.0},
        "value weight 1": {"value_weight": 1.0},
        "temperature 0.3": {"temperature": 0.3},
    },
    "regulariser": {"regulariser weight 0": {"regulariser_weight": 0.0}},
    "width": {"latent width 8": {"latent_dim": 8}, "latent width 32": {"latent_dim": 32}},
}
TABLE_3 = ("value signals", "evidence")
CALIBRATED_CHANGES: dict[str, dict[str, Any]] = {
    "values from summaries": {"value_from": "summaries"},
    "values from summaries that do not scale": {"value_from": "summaries", "retain": False},
    "values do not scale the features": {"retain": False},
    "gate of the paper's strength": {"amplification": 0.5, "retention": 0.2},
    "LayerNorm": {"norm": "layer"},
    "no value in the gate": {"use_global_value": False, "use_channel_value": False},
}
NULL = "other seeds"


def _settled(dataset: str) -> dict[str, dict[str, Any]]:
    """The settings of each of `VARIANTS` on an open data set, all but the seed."""
    common = study(dataset)
    chosen = choose(f"{dataset}-pooled", VARIANTS, common)
    return {name: {**common, **options, **chosen[name]} for name, options in VARIANTS.items()}


def ablations(dataset: str) -> dict[tuple[str, str], list[Experiment]]:
    """What notebook 11 trains, by variant and change, "" for none: `VARIANTS`, and each of VGMR's parts changed.

    Changes of `ABLATIONS` are made in the paper's form, those of `CALIBRATED_CHANGES` in the calibrated one, at
    the rate of the unchanged form. `NULL` are the next seeds of each variant: a difference by chance alone.
    """
    settled = _settled(dataset)
    todo: dict[tuple[str, str], dict[str, Any]] = {(name, ""): {} for name in VARIANTS}
    todo |= {(FORM, label): change for group in ABLATIONS.values() for label, change in group.items()}
    # a form sets only what is at its default, so the calibrated form is written out before parts of it are changed
    todo |= {
        (ADOPTED, label): {**FORMS["calibrated"], "form": "paper", **c} for label, c in CALIBRATED_CHANGES.items()
    }
    found = {
        (variant, label): repeated({**settled[variant], **change}, FEWER)
        for (variant, label), change in todo.items()
    }
    return found | {(name, NULL): repeated(own, 2 * FEWER)[FEWER:] for name, own in settled.items()}


def cheap_refiners(dataset: str) -> dict[str, list[Experiment]]:
    """What notebook 19 trains beside `training`: the forms of `vgmr.analysis.cost.CHEAP`, by FORM, SWITCHES.

    At the rate of the full form, which is among `training`, with the same seeds and folds.

    Raises:
        ValueError: a data set that is not in `CHEAP_SETS`, with those that are.
    """
    if dataset not in CHEAP_SETS:
        raise ValueError(f"no study of cheap refiners on {dataset!r}; there are: {', '.join(CHEAP_SETS)}")
    settled = _settled(dataset)
    return {
        f"{form}, {label}": repeated({**settled[variant], **switches}, CHEAP_SETS[dataset], dataset in FOLDED)
        for variant, form in SHORT.items()
        for label, switches in cost.CHEAP[form].items()
    }


def without_each(experiments: Sequence[Experiment], modalities: Sequence[str]) -> dict[str, list[Experiment]]:
    """The experiments with all modalities but one, by the one that is left out."""
    return {
        gone: [replace(one, modalities=tuple(name for name in modalities if name != gone)) for one in experiments]
        for gone in modalities
    }


def removals(dataset: str) -> dict[tuple[str, str], list[Experiment]]:
    """What is trained with all modalities and without each, by method and the modality left out, "" for none.

    Methods are "plain", VGMR in both forms and those of `COMPARED`, at the rates of `balancing`. With two
    modalities only "plain" is trained without one: no other method is defined for a single modality.
    """
    found, common = balancing(dataset), study(dataset)
    methods = {"plain": found["none"]} | {form: found[f"none + {form}"] for form in (FORM, ADOPTED)}
    methods |= {name: found[name] for name in COMPARED if name != "none"}
    names = experiment_data(Experiment(**common)).modalities
    todo = {}
    for method, options in methods.items():
        todo[method, ""] = repeated(options, FEWER)
        if len(names) > 2 or method == "plain":
            todo |= {(method, gone): rest for gone, rest in without_each(todo[method, ""], names).items()}
    return todo


def removal_controls(dataset: str) -> dict[tuple[str, str], list[Experiment]]:
    """The controls of `removals`: `CONTROLS` trained without each modality, by control and the modality left out.

    With all modalities they are among `training`. With two modalities there are none, as for the other methods.
    """
    whole = training(dataset)
    names = experiment_data(Experiment(**study(dataset))).modalities
    return {
        (control, gone): rest
        for control in (CONTROLS if len(names) > 2 else ())
        for gone, rest in without_each(whole[control][:FEWER], names).items()
    }


def standing(
    common: Mapping[str, Any], chosen: Choice, modalities: Sequence[str], seeds: int, folded: bool
) -> dict[str, list[Experiment]]:
    """The variants of `chosen` at their rates and epochs, and the plain model on each modality alone.

    On the data sets of `LONGER` all have more epochs than in the search. A single modality is learned more slowly
    than all together, so it gets plain's rate and twice its epochs.

    Args:
        common: settings that all share.
        seeds: trainings of each, on every fold where `folded`.
    """
    more = LONGER.get(common["dataset"], 1)
    rows = {name: {**VARIANTS[name], **own, "epochs": more * own["epochs"]} for name, own in chosen.items()}
    longer = {**chosen["plain"], "epochs": 2 * more * chosen["plain"]["epochs"]}
    rows |= {name: {**options, **longer} for name, options in alone(modalities).items()}
    return {name: repeated({**common, **options}, seeds, folded) for name, options in rows.items()}


def estimate(common: Mapping[str, Any], variants: Sequence[str], seeds: int, jobs: int) -> str:
    """How long a search and the reported trainings will take, from one epoch of plain and one of the last variant.

    The epoch is trained here, on the data and the device of `common`; patience may end trainings earlier.
    """
    spent = {
        name: train(Experiment(**{**common, **VARIANTS[name], "epochs": 1})).history.seconds
        for name in (variants[0], variants[-1])
    }
    epoch, passes = max(spent.values()), common["epochs"]
    searched = epoch * passes * len(variants) * len(RATES) * len(SEARCH_SEEDS) / jobs / 60
    reported = epoch * passes * (len(variants) + 3) * seeds / jobs / 60
    each = " and ".join(f"{seconds:.1f} s ({name})" for name, seconds in spent.items())
    return (
        f"one epoch took {each}; at {passes} epochs and {jobs} trainings at once a search takes about "
        f"{searched:.1f} minutes, more where it has to be widened, and the reported trainings at most "
        f"{reported:.1f}"
    )


# What is committed

CONTROLLED = (("uci-mfeat", "pooled"), ("utd-mhad", "transformer"))


def training(dataset: str) -> dict[str, list[Experiment]]:
    """The standing rows on a data set, and the plain model on each modality alone."""
    common = study(dataset)
    chosen = choose(f"{dataset}-pooled", VARIANTS, common)
    modalities = experiment_data(Experiment(**common)).modalities
    return standing(common, chosen, modalities, SEEDS[dataset], dataset in FOLDED)


def controls(dataset: str, backbone: str) -> dict[str, list[Experiment]]:
    """`controlled` on a data set: the fusion heads and pre-fusion modules of the paper's Tables 1, 5 and 6."""
    common = study(dataset, backbone)
    variants = controlled(common)
    chosen = choose(f"{dataset}-{backbone}-controlled", variants, common)
    seeds = SEEDS[dataset] if backbone == "pooled" else FEWER
    return {name: repeated({**common, **options, **chosen[name]}, seeds) for name, options in variants.items()}


def balanced(dataset: str) -> dict[tuple[str, str], list[Experiment]]:
    """`balancing` under both optimisers, by optimiser and variant."""
    return {
        (optimizer, name): repeated(settings, FEWER)
        for optimizer in ("adamw", "sgd")
        for name, settings in balancing(dataset, optimizer).items()
    }


# Tables that the repository keeps beside its rows of trainings, each made by the notebook that its number names.
TABLES = (
    "04-leak",
    "04-words",
    "06-scale",
    "07-conflict",
    "09-cost",
    "10-acts",
    "12-idle-modality",
    "12-removal-by-place",
    "13-robustness-utd-mhad",
    "14-value",
    "15-cosines-utd-mhad",
    "15-halves-utd-mhad",
    "15-losses-utd-mhad",
    "15-norms-utd-mhad",
    "15-slices-utd-mhad",
    "17-calibration",
    "17-digits",
    "18-costs-uci-mfeat",
    "18-costs-utd-mhad",
    "19-seconds",
    "20-beside",
    "20-dials",
    "20-pairs",
    "20-spans",
)


def planned() -> dict[str, Callable[[], Mapping[Any, Sequence[Experiment]]]]:
    """What `vgmr records` trains, in this order: a function that lists the experiments, by the record's name."""
    return {
        **{f"training-{dataset}": partial(training, dataset) for dataset in SEEDS},
        **{f"09-controlled-{dataset}": partial(controls, dataset, backbone) for dataset, backbone in CONTROLLED},
        **{f"11-ablations-{dataset}": partial(ablations, dataset) for dataset in ("uci-mfeat", "cremad-ratings")},
        "10-balancing-uci-mfeat": partial(balanced, "uci-mfeat"),
        "12-removals-uci-mfeat": partial(removals, "uci-mfeat"),
        "12-controls-uci-mfeat": partial(removal_controls, "uci-mfeat"),
        **{f"18-systems-{dataset}": partial(systems.plugged, dataset) for dataset in systems.HOSTS},
        **{f"19-cheap-{dataset}": partial(cheap_refiners, dataset) for dataset in CHEAP_SETS},
    }
