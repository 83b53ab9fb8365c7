"""`Experiment` says what to run, `Run` what came of it; runs are cached on disk by all that determines them."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed
from safetensors.torch import load_file, save_file
from torch import nn
from tqdm.auto import tqdm

from vgmr import corruption
from vgmr.backbones import Classifier, PooledBackbone, TransformerBackbone
from vgmr.balancing import METHODS, make_method
from vgmr.data import load
from vgmr.data.types import MultimodalData
from vgmr.evaluation import accuracy, confusion, macro_f1, paired_difference
from vgmr.files import cache_folder, environment, peak_memory
from vgmr.inference import subset_logits
from vgmr.objective import TARGETS, Objective
from vgmr.prefusion import (
    CrossAttention,
    FeatureMLP,
    Identity,
    SigmoidTanhGate,
    count_parameters,
    width_for_budget,
)
from vgmr.refiner import FORMS, VGMR
from vgmr.training import OPTIMIZERS, History, fit, use_byte_dropout

PREFUSIONS = ("none", "mlp", "cross-attention", "sigmoid-tanh", "vgmr")
BACKBONES = ("pooled", "transformer")


@dataclass(frozen=True)
class Experiment:
    """One training, flat and complete; see the functions that take these values for what they mean.

    `prefusion` other than "none" and "vgmr" gets the width whose parameters equal VGMR's at `latent_dim`.
    `backbone_options` go to the backbone, `data_options` to the data set's loader, `method_options` to the method,
    one of `vgmr.balancing`. With the method "mla" the head is "shared", unless `backbone_options` say otherwise.
    `training_noise` are arguments of `vgmr.corruption.noise` for the training and the validation part; the test
    part stays as it is. `training_corruption` are arguments of `vgmr.corruption.Drawn.like`: drawn anew for every
    mini-batch of any variant. `form`, a name in `vgmr.refiner.FORMS`, sets those of VGMR's switches that are
    at their defaults here, which are the paper's; the calibrated form learns no value, so the value's loss and the
    regulariser do nothing in it. `checkpoints` keeps the weights after every epoch.
    """

    dataset: str
    prefusion: str = "vgmr"
    backbone: str = "pooled"
    seed: int = 0
    root: str | None = None
    data_options: Mapping[str, Any] = field(default_factory=dict)
    modalities: tuple[str, ...] | None = None
    backbone_options: Mapping[str, Any] = field(default_factory=dict)
    latent_dim: int = 32
    amplification: float = 0.5
    retention: float = 0.2
    norm: str = "layer"
    dropout: float = 0.1
    use_global_value: bool = True
    use_channel_value: bool = True
    use_agreement: bool = True
    use_discrepancy: bool = True
    neutral_start: bool = False
    form: str = "paper"
    value_from: str = "summaries"
    retain: bool = False
    value_target: str = "contribution"
    value_weight: float = 0.1
    regulariser_weight: float = 0.01
    temperature: float = 1.0
    warmup_epochs: int = 0
    removal: str = "after"
    epochs: int = 30
    batch_size: int = 32
    learning_rate: float = 1e-3
    prefusion_learning_rate: float | None = None
    weight_decay: float = 0.01
    length_buckets: bool = False
    byte_dropout: bool = False
    device: str = "cpu"
    method: str = "none"
    method_options: Mapping[str, Any] = field(default_factory=dict)
    optimizer: str = "adamw"
    training_noise: Mapping[str, Any] = field(default_factory=dict)
    training_corruption: Mapping[str, Any] = field(default_factory=dict)
    checkpoints: bool = False

    def __post_init__(self) -> None:
        if self.root is not None:
            object.__setattr__(self, "root", str(self.root))
        if isinstance(self.modalities, str):
            raise ValueError(f"modalities must be a tuple of names, got {self.modalities!r}")
        for what, value, choices in (
            ("prefusion", self.prefusion, PREFUSIONS),
            ("backbone", self.backbone, BACKBONES),
            ("method", self.method, METHODS),
            ("optimizer", self.optimizer, OPTIMIZERS),
            ("form", self.form, FORMS),
            ("value_target", self.value_target, TARGETS),
        ):
            if value not in choices:
                raise ValueError(f"unknown {what} {value!r}; there are: {', '.join(choices)}")
        make_method(self.method, **self.method_options)
        for name, value in FORMS[self.form].items():
            if getattr(self, name) == type(self).__dataclass_fields__[name].default:
                object.__setattr__(self, name, value)


@dataclass(frozen=True)
class Run:
    """What came of an `Experiment`.

    Attributes:
        metrics: accuracy, macro_f1 (test part, scored once), validation_accuracy, majority_accuracy and
            majority_macro_f1 (of answering the most frequent class); all 0 to 1.
        subset_accuracy: test accuracy with every subset of the modalities present; see
            `vgmr.inference.subset_logits`.
        prediction, label: of the test part, as lists of class numbers.
        parameters, prefusion_parameters: trainable values in all, and before fusion.
        seconds: wall time of the training; peak_memory: of the process, in MiB.
        stand_in: the data are made, not real.
        environment: versions, machine and commit.
        path: folder on disk; empty for a run read from a record, which has no history, predictions or weights.
    """

    experiment: Experiment
    metrics: dict[str, float]
    subset_accuracy: dict[str, float]
    history: History
    prediction: list[int]
    label: list[int]
    parameters: int
    prefusion_parameters: int
    seconds: float
    peak_memory: float
    fingerprint: str
    stand_in: bool
    environment: dict[str, str]
    path: str

    def model(self, epoch: int | None = None) -> Classifier:
        """The trained model at its best epoch, in evaluation mode, or as it was after `epoch`, from 0."""
        if not self.path:
            raise ValueError("this run was read from a record, which holds no weights; train it with `run`")
        if epoch is not None and not self.experiment.checkpoints:
            raise ValueError("weights by epoch are kept only with checkpoints=True")
        file = "model.safetensors" if epoch is None else f"epoch-{epoch:03d}.safetensors"
        data = experiment_data(self.experiment)
        if data.fingerprint != self.fingerprint:
            raise ValueError(
                f"{self.experiment.dataset} is not the data that this run was trained on; run it again"
            )
        model = build(self.experiment, data)
        model.load_state_dict(load_file(Path(self.path) / file))
        return model.eval()


@lru_cache(maxsize=8)
def _loaded(dataset: str, root: str | None, options: str) -> MultimodalData:
    return load(dataset, root, **json.loads(options))


def experiment_data(experiment: Experiment) -> MultimodalData:
    """The data of an experiment, loaded once per process."""
    data = _loaded(experiment.dataset, experiment.root, json.dumps(dict(experiment.data_options), sort_keys=True))
    return data if experiment.modalities is None else data.select(list(experiment.modalities))


def build(experiment: Experiment, data: MultimodalData) -> Classifier:
    """The untrained model of an experiment; initial weights follow from its seed.

    The backbone draws its weights first, so that it starts the same behind every pre-fusion module.
    """
    torch.manual_seed(experiment.seed)
    dims, num_classes = data.dims, len(data.classes)
    options = dict(experiment.backbone_options)
    if experiment.method == "mla":
        options.setdefault("head", "shared")
    backbone: PooledBackbone | TransformerBackbone
    if experiment.backbone == "pooled":
        backbone = PooledBackbone(dims, num_classes, **options)
    else:
        longest = max(data.max_lengths.values())
        backbone = TransformerBackbone(dims, num_classes, **{"max_length": longest, **options})
    return Classifier(make_prefusion(experiment, dims, num_classes, max(data.max_lengths.values())), backbone)


def make_prefusion(
    experiment: Experiment, dims: Mapping[str, int], num_classes: int | None = None, longest: int = 6
) -> nn.Module:
    """The pre-fusion module of an experiment; classes and longest sequence matter where anchors are used."""

    def vgmr() -> VGMR:
        return VGMR(
            dims,
            experiment.latent_dim,
            experiment.amplification,
            experiment.retention,
            experiment.dropout,
            experiment.norm,
            experiment.use_global_value,
            experiment.use_channel_value,
            experiment.use_agreement,
            experiment.use_discrepancy,
            experiment.neutral_start,
            experiment.value_from,
            num_classes,
            min(6, longest),
            experiment.retain,
        )

    if experiment.prefusion == "none":
        return Identity(dims)
    if experiment.prefusion == "vgmr":
        return vgmr()
    rival, multiple = {
        "mlp": (FeatureMLP, 1),
        "cross-attention": (CrossAttention, 4),
        "sigmoid-tanh": (SigmoidTanhGate, 1),
    }[experiment.prefusion]
    with torch.device("meta"):
        budget = count_parameters(vgmr())
    width = width_for_budget(lambda width: rival(dims, width), budget, multiple)
    module: nn.Module = rival(dims, width, dropout=experiment.dropout)
    return module


def _digest_of_code(with_methods: bool) -> str:
    folder = Path(__file__).parent
    names = ["evidence", "refiner", "prefusion", "backbones", "objective", "training", "experiment", "corruption"]
    files = [folder / f"{name}.py" for name in [*names, "balancing/base", "data/types"]]
    if with_methods:
        files += sorted(folder.glob("balancing/*.py"))
    scoring = "".join(inspect.getsource(score) for score in (confusion, accuracy, macro_f1, subset_logits))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files) + scoring.encode()).hexdigest()


# taken at import, so that a run is filed under the code that trained it
_CODE = {with_methods: _digest_of_code(with_methods) for with_methods in (False, True)}


def _run_folder(experiment: Experiment, data: MultimodalData) -> Path:
    settings = {name: value for name, value in asdict(experiment).items() if name != "root"}
    everything = [settings, data.fingerprint, _CODE[experiment.method != "none"], torch.__version__]
    key = hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()[:24]
    return cache_folder() / "runs" / key


def read_run(folder: Path) -> Run:
    """A finished run from its folder."""
    content = json.loads((folder / "run.json").read_text())
    options = content.pop("experiment")
    if options["modalities"] is not None:
        options["modalities"] = tuple(options["modalities"])
    return Run(
        experiment=Experiment(**options), history=History(**content.pop("history")), path=str(folder), **content
    )


def run(experiment: Experiment) -> Run:
    """Train and score an experiment, or read it from the cache if it was finished before.

    The test part is scored here, once, after the best epoch was chosen on the validation part. A run appears on
    disk whole or not at all.
    """
    data = experiment_data(experiment)
    folder = _run_folder(experiment, data)
    if (folder / "run.json").exists():
        return replace(read_run(folder), experiment=experiment)
    torch.set_num_threads(1)
    described = environment()
    data = data.to(experiment.device)
    model = build(experiment, data).to(experiment.device)
    if experiment.byte_dropout:
        use_byte_dropout(model)
    seen = data
    if experiment.training_noise:
        noisy = [
            corruption.noise(part, data.train, **experiment.training_noise)
            for part in (data.train, data.validation)
        ]
        seen = replace(data, train=noisy[0], validation=noisy[1])
    unfinished = folder.with_name(f".unfinished-{uuid.uuid4().hex}")
    started = time.perf_counter()
    try:
        history = fit(
            model,
            seen,
            epochs=experiment.epochs,
            batch_size=experiment.batch_size,
            learning_rate=experiment.learning_rate,
            prefusion_learning_rate=experiment.prefusion_learning_rate,
            weight_decay=experiment.weight_decay,
            objective=Objective(
                experiment.value_weight,
                experiment.regulariser_weight,
                experiment.temperature,
                removal=experiment.removal,
                warmup_epochs=experiment.warmup_epochs,
                target=experiment.value_target,
            ),
            length_buckets=experiment.length_buckets,
            seed=experiment.seed,
            method=make_method(experiment.method, **experiment.method_options),
            optimizer=experiment.optimizer,
            corruption=(
                corruption.Drawn.like(data.train, **experiment.training_corruption)
                if experiment.training_corruption
                else None
            ),
            checkpoint=partial(_save_epoch, unfinished) if experiment.checkpoints else None,
        )
        content = {
            "experiment": asdict(experiment),
            **_scores(model, data, history),
            "history": asdict(history),
            "parameters": count_parameters(model),
            "prefusion_parameters": count_parameters(model.prefusion),
            "seconds": time.perf_counter() - started,
            "peak_memory": peak_memory(),
            "fingerprint": data.fingerprint,
            "stand_in": data.stand_in,
            "environment": described,
        }
        _save_weights(model, unfinished / "model.safetensors")
        (unfinished / "run.json").write_text(json.dumps(content))
        if folder.exists() and not (folder / "run.json").exists():
            shutil.rmtree(folder)
        os.replace(unfinished, folder)
    except OSError:
        if not (folder / "run.json").exists():  # else another process finished the same run first
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return read_run(folder)


def _save_weights(model: Classifier, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.cpu().contiguous() for name, value in model.state_dict().items()}, path)


def _save_epoch(folder: Path, epoch: int, model: Classifier) -> None:
    _save_weights(model, folder / f"epoch-{epoch:03d}.safetensors")


def _scores(model: Classifier, data: MultimodalData, history: History) -> dict[str, Any]:
    """Everything that is said of the test part, from one pass over it."""
    label, classes = data.test.label, len(data.classes)
    predictions = {keep: logits.argmax(1) for keep, logits in subset_logits(model, data.test).items()}
    prediction = next(iter(predictions.values()))
    counts = confusion(prediction, label, classes)
    constant = confusion(label.mode().values.expand_as(label), label, classes)
    return {
        "metrics": {
            "accuracy": accuracy(counts),
            "macro_f1": macro_f1(counts),
            "validation_accuracy": history.validation_accuracy[history.best_epoch],
            "majority_accuracy": accuracy(constant),
            "majority_macro_f1": macro_f1(constant),
        },
        "subset_accuracy": {
            keep: accuracy(confusion(answer, label, classes)) for keep, answer in predictions.items()
        },
        "prediction": prediction.tolist(),
        "label": label.tolist(),
    }


def run_all(experiments: Iterable[Experiment], jobs: int = 2, progress: bool = True) -> list[Run]:
    """Run many experiments, `jobs` processes with one thread each, in the order given.

    Finished ones are read from the cache, so an interrupted call goes on where it stopped.
    """
    todo = list(experiments)
    folders = [_run_folder(experiment, experiment_data(experiment)) for experiment in todo]
    missing = {
        folder: experiment
        for folder, experiment in zip(folders, todo, strict=True)
        if not (folder / "run.json").exists()
    }
    workers = min(jobs, len(missing))
    done = len(todo) - len(missing)
    with tqdm(total=len(todo), initial=done, desc="runs", disable=not progress, leave=False) as bar:
        results: Iterable[Run]
        if workers > 1:
            parallel = Parallel(workers, return_as="generator_unordered", batch_size=1)
            results = parallel(delayed(run)(experiment) for experiment in missing.values())
        else:
            results = map(run, missing.values())
        for _ in results:
            bar.update()
    return [run(experiment) for experiment in todo]


def compare(variants: Mapping[str, Sequence[Run]], baseline: str, metric: str = "accuracy") -> pd.DataFrame:
    """One row per variant: mean and deviation over seeds, and the paired difference to `baseline`.

    The first row is a constant answer, the test part's most frequent class. Columns: mean, deviation (over seeds),
    difference, low, high (95% interval), seeds, parameters; metrics are shares in 0 to 1.

    Raises:
        ValueError: an unknown baseline, fewer than two seeds, variants run on other data, or with other seeds
            than the baseline.
    """
    if baseline not in variants:
        raise ValueError(f"unknown baseline {baseline!r}; there are: {', '.join(variants)}")
    if len(variants[baseline]) < 2:
        raise ValueError(f"differences over seeds need at least two of them, got {len(variants[baseline])}")
    reference = {run.experiment.seed: run for run in variants[baseline]}
    rows: dict[str, dict[str, Any]] = {}
    if len({run.fingerprint for runs in variants.values() for run in runs}) > 1:
        raise ValueError("the variants were not run on the same data; compare one data set at a time")
    rates = {run.metrics[f"majority_{metric}"] for runs in variants.values() for run in runs}
    if len(rates) > 1:
        raise ValueError("the variants were not run on the same test data; compare one data set at a time")
    rows["majority class"] = {"mean": rates.pop()}
    for name, runs in variants.items():
        if {run.experiment.seed for run in runs} != set(reference) or len(runs) != len(reference):
            raise ValueError(f"{name}: expected the seeds {sorted(reference)} of {baseline}, once each")
        values = np.array([run.metrics[metric] for run in runs])
        row = {"mean": values.mean(), "deviation": values.std(ddof=1), "seeds": len(runs)}
        row["parameters"] = runs[0].parameters
        if name != baseline:
            difference = paired_difference(
                values.tolist(), [reference[run.experiment.seed].metrics[metric] for run in runs]
            )
            row |= {"difference": difference.mean, "low": difference.low, "high": difference.high}
        rows[name] = row
    columns = ["mean", "deviation", "difference", "low", "high", "seeds", "parameters"]
    table = pd.DataFrame.from_dict(rows, orient="index").reindex(columns=columns)
    return table.astype({"seeds": "Int64", "parameters": "Int64"})
