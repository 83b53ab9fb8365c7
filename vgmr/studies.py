"""The one protocol of all training notebooks: same variants, same small search on validation, same seeds."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from vgmr.analysis.diagnostics import gradient_change, removal_by_place, with_idle_modality
from vgmr.backbones import Classifier
from vgmr.balancing import ARL, METHODS, Balancing, Relearning, make_method
from vgmr.evaluation import shapley
from vgmr.experiment import Experiment, Run, build, experiment_data
from vgmr.experiment import train as train_once
from vgmr.files import write
from vgmr.objective import Objective
from vgmr.runs import recorded, run_all
from vgmr.training import make_optimizer

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {"prefusion": "none"},
    "Concat+MLP": {"prefusion": "mlp"},
    "VGMR, paper's form": {"prefusion": "vgmr", "norm": "layer"},
    "VGMR": {"prefusion": "vgmr", "norm": "none", "neutral_start": True},
}
RATES = (1e-3, 3e-3, 1e-2)
SGD_RATES = (1e-2, 3e-2, 1e-1)
SEARCH_SEEDS = (100, 101)

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

TRIALS: dict[str, dict[str, Any]] = {
    "paper's form": {},
    "layer norm, neutral start": {"neutral_start": True},
    "no norm": {"norm": "none"},
    "no norm, neutral start": {"norm": "none", "neutral_start": True},
    "no norm, latent 8": {"norm": "none", "latent_dim": 8},
    "no norm, latent 32": {"norm": "none", "latent_dim": 32},
    "no norm, dropout 0.3": {"norm": "none", "dropout": 0.3},
    "no norm, value weight 1": {"norm": "none", "value_weight": 1.0},
    "no norm, no value, no regulariser": {"norm": "none", "value_weight": 0.0, "regulariser_weight": 0.0},
    "no norm, regulariser weight 0.1": {"norm": "none", "regulariser_weight": 0.1},
    "no norm, refiner three times slower": {"norm": "none", "prefusion_learning_rate": 1e-3},
    "no norm, value warm-up": {"norm": "none", "warmup_epochs": 5},
}
TRIAL_RATE = 3e-3


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
    """Every method of `vgmr.balancing` alone, "NAME", and with VGMR before fusion, "NAME + VGMR"."""
    variants: dict[str, dict[str, Any]] = {}
    for ending, before_fusion in (("", VARIANTS["plain"]), (" + VGMR", VARIANTS["VGMR"])):
        for name in METHODS:
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
    searched = {name: options for name, options in variants.items() if name in METHODS or name == front}
    rates = choose(f"{dataset}-{backbone}-balancing-{optimizer}", searched, common, again, jobs)
    return {
        name: {**common, **options, "learning_rate": rates[name if name in searched else front]}
        for name, options in variants.items()
    }


@dataclass(frozen=True)
class Watched:
    """What a method did in one training.

    Attributes:
        coefficients: columns modality, epoch, value; what the method noted, mean over the steps of an epoch.
        gradients: rows of `vgmr.analysis.diagnostics.gradient_change`, after each epoch.
        accuracy: of the test part.
    """

    coefficients: pd.DataFrame
    gradients: pd.DataFrame
    accuracy: float


def watch(experiment: Experiment, samples: int = 64) -> Watched:
    """Train as `vgmr.experiment.run` does, without keeping anything, and look at every epoch's gradients.

    Args:
        samples: evenly out of the training part, on which the gradients are compared.
    """
    data = experiment_data(experiment)
    batch = data.train.index(torch.linspace(0, len(data.train) - 1, samples).long())
    changes: list[pd.DataFrame] = []
    methods: list[Balancing] = []

    def look(epoch: int, model: Classifier, method: Balancing) -> None:
        device = next(model.parameters()).device
        changes.append(gradient_change(model, method, batch.to(device), epoch))
        methods.append(method)

    found = train_once(experiment, watch=look)
    method = methods[-1]
    first, step = 0, 1
    if isinstance(method, ARL):
        first = method.start_epoch + 1
    if isinstance(method, Relearning):
        first = step = method.interval
    rows = [
        {"modality": name, "epoch": first + step * place, "value": value}
        for name, values in found.history.coefficients.items()
        for place, value in enumerate(values)
    ]
    noted = pd.DataFrame(rows, columns=["modality", "epoch", "value"])
    return Watched(noted, pd.concat(changes, ignore_index=True), found.metrics["accuracy"])


def step_costs(experiments: Mapping[str, Experiment], baseline: str, rounds: int = 5, steps: int = 4) -> pd.Series:
    """CPU time of one training step, as a ratio to `baseline`: medians over interleaved rounds.

    Every method acts in these steps: OGM-GE as in the first epoch, the others as in the last. What methods do
    between epochs is not in it: trials of Grad-Blending, prototypes of PMR, diagnoses of Relearning.
    """
    ready = {}
    for name, experiment in experiments.items():
        data = experiment_data(experiment)
        model, method = build(experiment, data), make_method(experiment.method, **experiment.method_options)
        method.start(model, data, experiment.epochs, experiment.seed)
        stepper = make_optimizer(experiment.optimizer, model, experiment.learning_rate, method=method)
        batch = data.train.index(torch.arange(experiment.batch_size))
        epoch = 0 if experiment.method == "ogm-ge" else experiment.epochs - 1
        ready[name] = partial(method.step, model, batch, Objective(), stepper, epoch)
    times: dict[str, list[float]] = {name: [] for name in ready}
    for _ in range(rounds + 1):
        for name, take in ready.items():
            started = time.process_time()
            for _ in range(steps):
                take()
            times[name].append(time.process_time() - started)
    ratio = {
        name: statistics.median(own / plain for own, plain in zip(seen[1:], times[baseline][1:], strict=True))
        for name, seen in times.items()
    }
    return pd.Series(ratio, name=f"step, times {baseline}")


def search(
    variants: Mapping[str, Mapping[str, Any]], common: Mapping[str, Any], jobs: int = 2, progress: bool = True
) -> pd.DataFrame:
    """Mean validation accuracy of each variant (rows) at each learning rate (columns); equal budget for all.

    Tries `RATES`, or `SGD_RATES` with SGD, over `SEARCH_SEEDS`, which no reported training uses; test scores are
    not looked at.
    """
    rates = SGD_RATES if common.get("optimizer") == "sgd" else RATES
    cells = [(name, rate) for name in variants for rate in rates]
    experiments = [
        Experiment(**{**common, **variants[name], "learning_rate": rate, "seed": seed})
        for name, rate in cells
        for seed in SEARCH_SEEDS
    ]
    runs = run_all(experiments, jobs, progress)
    scores = pd.DataFrame(
        [
            {"variant": name, "rate": rate, "accuracy": run.metrics["validation_accuracy"]}
            for (name, rate), run in zip((cell for cell in cells for _ in SEARCH_SEEDS), runs, strict=True)
        ]
    )
    table = scores.pivot_table(index="variant", columns="rate", values="accuracy")
    return table.loc[list(variants)]


def search_default(studies: Mapping[str, Mapping[str, Any]], jobs: int = 2, progress: bool = True) -> pd.DataFrame:
    """One default for all: validation accuracy of each of `TRIALS` above plain, by study, one factor at a time.

    Args:
        studies: settings that all trainings of a study share, by the study's name.

    Returns trials (rows) by studies (columns), plus `mean`; differences are means over `SEARCH_SEEDS`. Test
    scores are not looked at.
    """
    options = {"plain": {"prefusion": "none"}, **TRIALS}
    cells = [(study, trial, seed) for study in studies for trial in options for seed in SEARCH_SEEDS]
    experiments = [
        Experiment(**{**studies[study], "learning_rate": TRIAL_RATE, **options[trial], "seed": seed})
        for study, trial, seed in cells
    ]
    scores = pd.DataFrame(cells, columns=["study", "trial", "seed"])
    scores["accuracy"] = [run.metrics["validation_accuracy"] for run in run_all(experiments, jobs, progress)]
    table = scores.pivot_table(index="trial", columns="study", values="accuracy").loc[list(options), list(studies)]
    difference = table.drop(index="plain") - table.loc["plain"]
    return difference.assign(mean=difference.mean(axis=1))


def write_choice(path: Path, table: pd.DataFrame, common: Mapping[str, Any]) -> None:
    """Keep what `search` found: the settings it ran under, all scores, and the best rate of each variant."""
    content = {
        "settings": {key: value for key, value in common.items() if key != "root"},
        "seeds": list(SEARCH_SEEDS),
        "validation_accuracy": {
            name: {f"{rate:g}": round(score, 4) for rate, score in row.items()} for name, row in table.iterrows()
        },
        "learning_rate": {name: float(rate) for name, rate in table.idxmax(axis=1).items()},
    }
    write(path, (json.dumps(content, indent=1) + "\n").encode())


def read_choice(path: Path, variants: Mapping[str, Any], common: Mapping[str, Any]) -> dict[str, float]:
    """The learning rate of each variant as searched before, plain's for one that was not; prints where it is from.

    Where no search was kept, all get 0.001.
    """
    if not path.exists():
        print(f"no search kept as {path}: learning rate 0.001 for all")
        return dict.fromkeys(variants, 1e-3)
    content = json.loads(path.read_text(encoding="utf-8"))
    rates = content["learning_rate"]
    same = content["settings"] == json.loads(
        json.dumps({key: value for key, value in common.items() if key != "root"})
    )
    print(f"learning rates as searched, kept as {path}" + ("" if same else ", under other settings than these"))
    return {name: rates[name] if name in rates else rates["plain"] for name in variants}


def choose(
    name: str, variants: Mapping[str, Mapping[str, Any]], common: Mapping[str, Any], again: bool, jobs: int = 2
) -> dict[str, float]:
    """The learning rate of each variant, kept in parameters/searched/NAME.json; `again` searches it anew."""
    kept = Path("parameters/searched") / f"{name}.json"
    if again:
        write_choice(kept, search(variants, common, jobs), common)
    return read_choice(kept, variants, common)


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
    experiments = {
        name: [
            Experiment(**{**common, **options, "learning_rate": rates[name], "seed": seed})
            for seed in range(seeds)
        ]
        for name, options in variants.items()
    }
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
    methods |= {"VGMR": found["none + VGMR"], **{name: found[name] for name in METHODS if name != "none"}}
    names = experiment_data(Experiment(**common)).modalities
    todo = {}
    for method, options in methods.items():
        todo[method, ""] = [Experiment(**options, seed=seed) for seed in range(seeds)]
        if len(names) > 2 or method == "plain":
            for gone in names:
                rest = tuple(name for name in names if name != gone)
                todo[method, gone] = [replace(one, modalities=rest) for one in todo[method, ""]]
    return todo


def worth_beside_idle(experiment: Experiment, source: str) -> dict[str, float]:
    """Shapley value of each modality in test accuracy, after a training with an idle copy of `source` beside them.

    See `vgmr.analysis.diagnostics.with_idle_modality`; all but the modalities is as in the experiment.
    """
    found = train_once(experiment, with_idle_modality(experiment_data(experiment), source))
    return shapley(found.subset_accuracy)


def idle_worths(runs: Mapping[str, Sequence[Run]]) -> pd.DataFrame:
    """`worth_beside_idle` for every run, with its last modality as source: label, seed, modality, value."""
    rows = []
    for label, found in runs.items():
        for run in found:
            source = experiment_data(run.experiment).modalities[-1]
            values = worth_beside_idle(run.experiment, source)
            rows += [
                {"label": label, "seed": run.experiment.seed, "modality": name, "value": value}
                for name, value in values.items()
            ]
    return pd.DataFrame(rows)


def removals_by_place(runs: Sequence[Run]) -> pd.DataFrame:
    """`vgmr.analysis.diagnostics.removal_by_place` on the test part, for every run; with a column seed."""
    tables = []
    for fresh in run_all([run.experiment for run in runs], jobs=1, progress=False):
        table = removal_by_place(fresh.model(), experiment_data(fresh.experiment).test)
        tables.append(table.assign(seed=fresh.experiment.seed))
    return pd.concat(tables, ignore_index=True)
