"""Data and model of an `Experiment`; `train` trains and scores it, `Run` is what came of it."""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from vgmr import corruption
from vgmr.balancing import Balancing, make_method
from vgmr.classifier import Classifier
from vgmr.data.held import held
from vgmr.data.types import MultimodalData
from vgmr.evaluation import scores
from vgmr.fusion.base import Backbone
from vgmr.fusion.confidence import ConfidenceGate
from vgmr.inference import subset_logits
from vgmr.loop.history import History
from vgmr.loop.seeds import pays_together, why_alone
from vgmr.loop.steps import use_byte_dropout
from vgmr.machine.devices import chosen_device, one_thread
from vgmr.machine.files import environment, peak_memory
from vgmr.objective import Objective
from vgmr.prefusion import Identity, count_parameters, width_for_budget
from vgmr.refiner import VGMR
from vgmr.settings import RIVALS, Experiment, filled
from vgmr.systems import BACKBONES
from vgmr.training import fit, fit_seeds

SCORE_PARTS = 4  # classes of like size into which anchors cut the scores of a regression
Watch = Callable[[int, Classifier, Balancing], None]


@dataclass(frozen=True)
class Run:
    """What came of an `Experiment`.

    Attributes:
        metrics: accuracy, macro_f1 (test part, scored once), validation_accuracy, majority_accuracy and
            majority_macro_f1 (of answering the most frequent class); all 0 to 1. In regression those of
            `vgmr.evaluation.regression_scores`, validation_mae, and with "majority_" before their names those of
            answering the median.
        subset_accuracy: test accuracy with every subset of the modalities present; see
            `vgmr.inference.subset_logits`.
        prediction, label: of the test part, as lists of class numbers.
        parameters, prefusion_parameters: trainable values in all, and before fusion.
        seconds: wall time of the training; peak_memory: in MiB, of the process, on a GPU of all tensors there.
        stand_in: the data are made, not real.
        environment: versions, machine, the processor's instructions that torch uses, and commit.
        path: folder on disk; empty for a run that is not on disk, such as one read from a record, which has
            neither coefficients nor weights.
        device: what it was trained on.
        group: of the test part's samples, such as the speaker; empty where the data have no groups.
        key: of all that determines the run, see `vgmr.records.keys.key`; empty where it is not known.
        trained: the model of a run that was just trained; None for one that was read.
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
    device: str = "cpu"
    group: list[int] = field(default_factory=list)
    key: str = ""
    trained: Classifier | None = field(default=None, compare=False, repr=False)

    def model(self, epoch: int | None = None) -> Classifier:
        """The trained model at its best epoch, in evaluation mode, or as it was after `epoch`, from 0."""
        if epoch is None and self.trained is not None:
            return self.trained
        if not self.path:
            raise ValueError("this run is not on disk, which holds no weights then; train it with `run`")
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


def experiment_data(experiment: Experiment) -> MultimodalData:
    """The data of an experiment, loaded once per process, and again where files or tensors were changed."""
    options = dict(experiment.data_options)
    if experiment.fold is not None:
        options["fold"] = experiment.fold
    data = held(experiment.dataset, experiment.root, json.dumps(options, sort_keys=True))
    return data if experiment.modalities is None else data.select(list(experiment.modalities))


def build(experiment: Experiment, data: MultimodalData) -> Classifier:
    """The untrained model of an experiment; initial weights follow from its seed.

    The backbone draws its weights first, so that it starts the same behind every pre-fusion module.
    """
    torch.manual_seed(experiment.seed)
    options = dict(experiment.backbone_options)
    if experiment.method == "mla":
        options.setdefault("head", "shared")
    kind: Callable[..., Backbone] = BACKBONES[experiment.backbone]
    if "max_length" in inspect.signature(kind).parameters:
        options.setdefault("max_length", max(data.max_lengths.values()))
    backbone = kind(data.dims, len(data.classes) or 1, **options)
    return Classifier(make_prefusion(experiment, data), backbone)


def make_prefusion(experiment: Experiment, data: MultimodalData) -> nn.Module:
    """The pre-fusion module of an experiment."""
    dims, frequencies = data.dims, min(6, max(data.max_lengths.values()))
    if experiment.prefusion == "none":
        return Identity(dims)
    parts = len(data.classes) or SCORE_PARTS
    options = filled(VGMR, experiment, num_classes=parts, evidence_frequencies=frequencies)
    if experiment.prefusion == "vgmr":
        return VGMR(dims, **options)
    if experiment.prefusion == "confidence":
        if not data.classes:
            raise ValueError("prefusion 'confidence' names classes; choose another one for a regression")
        return ConfidenceGate(dims, len(data.classes))
    rival, multiple = RIVALS[experiment.prefusion]
    with torch.device("meta"):
        budget = count_parameters(VGMR(dims, **options))
    width = width_for_budget(lambda width: rival(dims, width), budget, multiple)
    return rival(dims, width, **filled(rival, experiment))


def train(experiment: Experiment, data: MultimodalData | None = None, watch: Watch | None = None) -> Run:
    """Train and score an experiment: the one training of all runs and analyses; nothing is kept on disk.

    The test part is scored here, once, after the best epoch was chosen on the validation part.

    Args:
        data: in place of the experiment's own.
        watch: called with the epoch, from 0, the model and the method after every epoch's validation.

    Raises:
        ValueError: the device is not there, or `fit` refuses.
    """
    device = chosen_device(experiment.device)
    data = (experiment_data(experiment) if data is None else data).to(device)
    with one_thread():
        model, seen, arguments = _ready(experiment, data)
        method = arguments["method"]
        if watch is not None:
            arguments["checkpoint"] = lambda epoch, model: watch(epoch, model, method)
        started = time.perf_counter()
        history = fit(model, seen, seed=experiment.seed, **arguments)
        return _run(experiment, model, data, history, time.perf_counter() - started)


def alike(experiment: Experiment) -> Experiment:
    """The experiment less what may differ in one pass over several seeds: seed, fold, seed of the split."""
    options = {name: value for name, value in experiment.data_options.items() if name != "split_seed"}
    return replace(experiment, seed=0, fold=None, data_options=options)


def together(experiments: Sequence[Experiment]) -> bool:
    """Whether these, which differ in seed and fold only, are trained in one pass: it is possible, and it pays."""
    first = experiments[0]
    if len(experiments) < 2 or first.method != "none" or first.checkpoints:
        return False
    pair = [_ready(one, experiment_data(one).to(chosen_device(one.device))) for one in experiments[:2]]
    (model, data, arguments), (other, more, _) = pair
    if not pays_together(model, data, len(experiments), first.batch_size):
        return False
    return not why_alone([model, other], [data, more], arguments["objective"], None, arguments["corruption"])


def train_together(experiments: Sequence[Experiment]) -> list[Run]:
    """`train` for experiments that differ in seed and fold only, in one pass; see `vgmr.training.fit_seeds`.

    Seeds draw their dropout from one stream, so a run depends on which seeds were trained with it, and the same
    group gives the same runs. `seconds` is the share of each in the time of the pass.
    """
    device = chosen_device(experiments[0].device)
    data = [experiment_data(one).to(device) for one in experiments]
    with one_thread():
        models, seen, arguments = zip(*map(_ready, experiments, data), strict=True)
        started = time.perf_counter()
        given = {name: value for name, value in arguments[0].items() if name != "method"}
        histories = fit_seeds(models, seen, [one.seed for one in experiments], **given)
        seconds = (time.perf_counter() - started) / len(experiments)
        return [_run(*found, seconds) for found in zip(experiments, models, data, histories, strict=True)]


def _ready(experiment: Experiment, data: MultimodalData) -> tuple[Classifier, MultimodalData, dict[str, Any]]:
    """The untrained model, the data that it is trained on, and the arguments of `fit` but for the seed."""
    device = data.train.label.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    model = build(experiment, data).to(device)
    if experiment.byte_dropout:
        use_byte_dropout(model)
    seen = data
    if experiment.training_noise:
        both = (data.train, data.validation)
        noisy = [corruption.noise(part, data.train, **experiment.training_noise) for part in both]
        seen = replace(data, train=noisy[0], validation=noisy[1])
    drawn = None
    if experiment.training_corruption:
        drawn = corruption.Drawn.like(data.train, **experiment.training_corruption)
    target = {"target": experiment.value_target, "task": data.task}
    arguments = filled(
        fit,
        experiment,
        objective=Objective(**filled(Objective, experiment, **target)),
        method=make_method(experiment.method, **experiment.method_options),
        corruption=drawn,
    )
    arguments.pop("seed", None)
    return model, seen, arguments


def _run(experiment: Experiment, model: Classifier, data: MultimodalData, history: History, seconds: float) -> Run:
    device = data.train.label.device
    scored = _scores(model, data, history)
    on_gpu = device.type == "cuda"
    return Run(
        experiment=experiment,
        history=history,
        parameters=count_parameters(model),
        prefusion_parameters=count_parameters(model.prefusion),
        seconds=seconds,
        peak_memory=torch.cuda.max_memory_allocated(device) / 2**20 if on_gpu else peak_memory(),
        fingerprint=data.fingerprint,
        stand_in=data.stand_in,
        environment=environment() | {"instructions": torch.backends.cpu.get_cpu_capability()},
        path="",
        device=f"cuda ({torch.cuda.get_device_name(device)})" if on_gpu else device.type,
        trained=model.cpu(),
        **scored,
    )


def _scores(model: Classifier, data: MultimodalData, history: History) -> dict[str, Any]:
    """Everything that is said of the test part, from one pass over it."""
    label, classes = data.test.label, len(data.classes)
    answers = subset_logits(model, data.test)
    logits = next(iter(answers.values()))
    if classes:
        constant = F.one_hot(label.mode().values.expand_as(label), classes)
        validation = {"validation_accuracy": history.validation_accuracy[history.best_epoch]}
        prediction = logits.argmax(1).tolist()
    else:
        constant = label.median().expand_as(label).unsqueeze(1)
        validation = {"validation_mae": history.validation_loss[history.best_epoch]}
        prediction = logits.squeeze(1).tolist()
    majority = {f"majority_{name}": value for name, value in scores(constant, label, classes).items()}
    return {
        "metrics": {**scores(logits, label, classes), **validation, **majority},
        "subset_accuracy": {keep: scores(answer, label, classes)["accuracy"] for keep, answer in answers.items()},
        "prediction": prediction,
        "label": label.tolist(),
        "group": [] if data.test.group is None else data.test.group.tolist(),
    }
