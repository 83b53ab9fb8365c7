"""From a blind value to one that sees: what notebook 17 trains and measures, all under the same corruptions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import pandas as pd
import torch
from joblib import Parallel, delayed
from torch import Tensor

from vgmr.analysis import calibration
from vgmr.balancing import make_method
from vgmr.classifier import Classifier
from vgmr.contributions import contributions
from vgmr.corruption import KINDS, Drawn
from vgmr.data import folds
from vgmr.data.types import Batch, MultimodalData
from vgmr.experiment import build, experiment_data
from vgmr.inference import predict
from vgmr.loop.seeds import why_alone
from vgmr.machine.devices import one_thread
from vgmr.objective import Objective, value_loss
from vgmr.prefusion import count_parameters
from vgmr.refiner import VGMR
from vgmr.refining.evidence import Judgement
from vgmr.settings import Experiment, filled
from vgmr.studies.forms import FORM_COMMON, FORM_STUDIES, TRAINED_KINDS
from vgmr.studies.search import OWN_SPLIT, SEARCH_SEEDS
from vgmr.studies.variants import VARIANTS
from vgmr.training import fit, fit_seeds

PLAIN, MLP, VALUE_FREE, PAPER, CALIBRATED = VARIANTS
CAN_CLOSE: dict[str, Any] = {"form": "neutral", "amplification": 1.0, "retention": 0.0}
# Each step keeps what the one before changed; the last is the calibrated form.
STEPS: dict[str, dict[str, Any]] = {
    PAPER: VARIANTS[PAPER],
    "a gate that can close": CAN_CLOSE,
    "told what was corrupted": {**CAN_CLOSE, "value_target": "corruption", "value_weight": 1.0},
    "agreement of anchors": {**CAN_CLOSE, "value_from": "anchors"},
    "relative to the best supported": {**CAN_CLOSE, "value_from": "anchors"},
    CALIBRATED: VARIANTS[CALIBRATED],
}
ABSOLUTE = "agreement of anchors"
RIVALS: dict[str, dict[str, Any]] = {
    **{name: VARIANTS[name] for name in (PLAIN, MLP, VALUE_FREE)},
    "Sigmoid+Tanh gate": {"prefusion": "sigmoid-tanh", "form": "paper"},
    "Cross-Attention": {"prefusion": "cross-attention", "form": "paper"},
    "OGM-GE": {"prefusion": "none", "method": "ogm-ge", "form": "paper"},
}
SETTINGS: dict[str, dict[str, Any]] = {
    **FORM_STUDIES,
    "avdigits": {"batch_size": 64, "learning_rate": 1e-2, "length_buckets": True},
    "mosi-words": {"batch_size": 64, "learning_rate": 3e-3, "length_buckets": True},
}
FOLDED = ("utd-mhad", "avdigits", "mosi-words")  # a seed stands for a fold
REPEATS = {"uci-mfeat": 20, "utd-mhad": 8, "avdigits": 6, "digits": 20}
LENGTH: dict[str, Any] = {"epochs": 30, "patience": 8}
RATES = (3e-3, 1e-2, 3e-2)
DRAWN_AT = 1_000_003  # added to the seed of a test's corruptions, so that none was drawn in training


class PlainAgreement(VGMR):
    """VGMR with values from anchors that are not divided by those of the best supported modality."""

    def judge(
        self, described: Mapping[str, tuple[Tensor, Tensor]], trained: Mapping[str, Tensor] | None = None
    ) -> Judgement:
        """As in `VGMR`, but the value is the mean over the others of p_m . p_n, times how typical m is."""
        assert self.evidence is not None
        posterior, typical, channel = self.evidence.judge(described, trained)
        total = torch.stack(list(posterior.values())).sum(0)
        support = {name: (one * (total - one)).sum(1) / (len(posterior) - 1) for name, one in posterior.items()}
        return posterior, {name: support[name] * typical[name] for name in posterior}, channel


class Impact(Objective):
    """The paper's objective with |delta| in the place of delta: how much a modality moves the loss, either way."""

    def of_value(self, model: Classifier, output: Any, batch: Batch) -> Tensor:
        """L_value towards sigmoid(|delta_m| / temperature), 1/2 to 1."""
        delta = contributions(model.backbone, output.encodings, batch.label, output.mask, self.task)
        return value_loss(output.refinement, {name: one.abs() for name, one in delta.items()}, self.temperature)


class Trained(NamedTuple):
    """A trained model, the seed (or fold) that it stands for, its data and its best validation accuracy."""

    seed: int
    model: Classifier
    data: MultimodalData
    validation: float


def experiments(
    dataset: str, options: Mapping[str, Any], corrupted: bool = True, seeds: Sequence[int] | None = None
) -> list[Experiment]:
    """One experiment per repeat: a split of its own (both sets of digits), or a fold, and a seed of its own.

    Args:
        options: those of an `Experiment`, such as an entry of `STEPS`.
        corrupted: half of every mini-batch has one modality corrupted, by kinds of `TRAINED_KINDS`.
        seeds: which; by default `REPEATS` of the data set, from 0.
    """
    common: dict[str, Any] = {**FORM_COMMON, **SETTINGS[dataset]}
    if not corrupted:
        common["training_corruption"] = {}
    found = []
    for seed in range(REPEATS[dataset]) if seeds is None else seeds:
        own: dict[str, Any] = {"fold": seed % folds(dataset)} if dataset in FOLDED else {}
        if dataset in (*OWN_SPLIT, "digits"):
            own = {"data_options": {**common["data_options"], "split_seed": seed}}
        found.append(Experiment(dataset, seed=seed, **{**common, **options, **own}))
    return found


def absolute(one: Experiment, data: MultimodalData, model: Classifier) -> Classifier:
    """The model with `PlainAgreement` in front."""
    frequencies = min(6, max(data.max_lengths.values()))
    options = filled(VGMR, one, num_classes=len(data.classes), evidence_frequencies=frequencies)
    return Classifier(PlainAgreement(data.dims, **options), model.backbone)


def trained(todo: Sequence[Experiment], label: str = "", objective: type[Objective] = Objective) -> list[Trained]:
    """The models of experiments that differ in seed, split or fold only; in one pass where that is possible.

    Args:
        label: `ABSOLUTE` puts `PlainAgreement` in front.
        objective: `Impact` for |delta|.
    """
    with one_thread():
        data = [experiment_data(one) for one in todo]
        models = [build(one, each) for one, each in zip(todo, data, strict=True)]
        if label == ABSOLUTE:
            models = [absolute(*each) for each in zip(todo, data, models, strict=True)]
        loss = objective(**filled(Objective, todo[0], target=todo[0].value_target))
        settings = filled(fit, todo[0], objective=loss, corruption=None, checkpoint=None, method=None)
        del settings["seed"]
        drawn = [
            Drawn.like(each.train, **one.training_corruption) if one.training_corruption else None
            for one, each in zip(todo, data, strict=True)
        ]
        alone = todo[0].method != "none" or len(todo) < 4 or todo[0].dataset != "uci-mfeat"
        if not alone and not why_alone(models, data, loss, None, drawn[0]):
            # standardised features: the first split's statistics serve all
            histories = fit_seeds(models, data, [one.seed for one in todo], **{**settings, "corruption": drawn[0]})
        else:
            histories = []
            for one, model, each, corruption in zip(todo, models, data, drawn, strict=True):
                method = make_method(one.method, **one.method_options)
                own = {"seed": one.seed, "method": method, "corruption": corruption}
                histories.append(fit(model, each, **{**settings, **own}))
    return [
        Trained(one.seed, model.eval(), each, history.validation_accuracy[history.best_epoch])
        for one, model, each, history in zip(todo, models, data, histories, strict=True)
    ]


def hit_samples(part: Batch) -> Tensor:
    """Whether any modality of a sample is corrupted, (N,); nowhere where nothing is known of that."""
    if part.corrupted is None:
        return torch.zeros(len(part), dtype=torch.bool)
    return torch.stack([where.flatten(1).any(1) for where in part.corrupted.values()]).any(0)


def whole_samples(part: Batch) -> Batch:
    """The samples of which nothing is corrupted."""
    return replace(part.index((~hit_samples(part)).nonzero().squeeze(1)), corrupted=None)


def with_clean(model: Classifier, clean: Batch, hit: Batch) -> pd.DataFrame:
    """`calibration.values` of samples before and after a corruption, as one table; a sample counts as two."""
    before = calibration.values(model, clean).assign(corrupted=False)
    after = calibration.values(model, hit)
    return pd.concat([before, after.assign(sample=after["sample"] + len(clean))], ignore_index=True)


def oracle(model: Classifier, part: Batch) -> Tensor:
    """Right or not, (N,), where the corrupted modality is left out at fusion: what knowing it would be worth."""
    whole = calibration.truth(part)
    logits = predict(model, part)
    for name, kept in whole.items():
        without = predict(model, part, keep=[other for other in whole if other != name])
        logits = torch.where((kept == 0).unsqueeze(1), without, logits)
    return (logits.argmax(1) == part.label).float()


def kinds_of(one: Trained, kinds: Sequence[str] = KINDS) -> dict[str, Batch]:
    """The whole samples of the test part, each with one modality corrupted, by kind; kinds that change nothing
    there, such as a delay of single vectors, are left out."""
    clean, found = whole_samples(one.data.test), {}
    for kind in kinds:
        generator = torch.Generator().manual_seed(DRAWN_AT + one.seed)
        hit = Drawn.like(one.data.train, [kind], 1.0)(clean, generator)
        if hit_samples(hit).float().mean() > 0.5:
            found[kind] = hit
    return found


def measured(one: Trained) -> list[dict[str, Any]]:
    """Tidy numbers of one model on its test part: kind, measure, value.

    Measures: accuracy (on corrupted samples; kind "clean": on whole ones; kind "all": on the test part as it is),
    value, gate, contribution (AUROC of a low one for a corrupted modality, among all modalities of the samples
    before and after), sample (AUROC of low agreement for a corrupted sample), own, permuted and truth (accuracy on
    corrupted samples with these values), oracle (accuracy where the corrupted modality is left out at fusion).
    Kind "own" is the conflict that a data set comes with.
    """
    model, data = one.model, one.data
    clean = whole_samples(data.test)
    parts = kinds_of(one)
    rows = [{"kind": "clean", "measure": "accuracy", "value": calibration.accuracy_on(model, clean)}]
    if (hit := hit_samples(data.test)).any():
        rows.append({"kind": "all", "measure": "accuracy", "value": calibration.accuracy_on(model, data.test)})
        parts = {"own": data.test.index(hit.nonzero().squeeze(1)), **parts}
    for kind, part in parts.items():
        numbers: dict[Any, float] = {
            "accuracy": calibration.accuracy_on(model, part),
            "oracle": float(oracle(model, part).mean()),
        }
        if isinstance(model.prefusion, VGMR) and model.prefusion.of(next(iter(part.features))).gate_from_global:
            frame = calibration.values(model, data.test) if kind == "own" else with_clean(model, clean, part)
            numbers |= calibration.detection(frame).set_index("score")["auroc"].to_dict()
            if "agreement" in frame:
                numbers["sample"] = calibration.conflict_detection(frame)
            room = calibration.headroom(model, part, permutations=5).set_index(["values", "samples"])["accuracy"]
            numbers |= {what: room[what, "all"] for what in ("own", "permuted", "truth")}
        rows += [{"kind": kind, "measure": measure, "value": value} for measure, value in numbers.items()]
    return rows


def by_seed(table: pd.DataFrame) -> pd.DataFrame:
    """A table with columns seed and value as one row per number and one column per seed, for a record."""
    keys = [name for name in table if name not in ("seed", "value")]
    filled_in = table.fillna({name: "" for name in keys if not pd.api.types.is_numeric_dtype(table[name])})
    return filled_in.set_index([*keys, "seed"])["value"].unstack("seed").rename(columns=str).reset_index()


def one_by_one(table: pd.DataFrame) -> pd.DataFrame:
    """What `by_seed` was made of: columns seed and value again."""
    keys = [name for name in table if not str(name).isdigit()]
    tall = table.melt(keys, var_name="seed").dropna(subset=["value"]).astype({"seed": int})
    return tall.fillna({name: "" for name in keys if not pd.api.types.is_numeric_dtype(tall[name])})


Variant = tuple[str, str, bool]  # data set, label, trained with corruptions


def options_of(label: str, rate: float) -> dict[str, Any]:
    """The settings of a variant at a learning rate."""
    return {**RIVALS, **STEPS}[label] | LENGTH | {"learning_rate": rate}


def validated(variant: Variant, rate: float) -> float:
    """Best validation accuracy at a learning rate, mean over `SEARCH_SEEDS`, which are never reported."""
    dataset, label, corrupted = variant
    todo = experiments(dataset, options_of(label, rate), corrupted, SEARCH_SEEDS)
    found = trained(todo, label)
    return sum(one.validation for one in found) / len(found)


def cell(variant: Variant, rate: float) -> pd.DataFrame:
    """Train all repeats of a variant and measure them.

    Columns: those of `measured`, seed, parameters, dataset, label, trained_on, learning_rate.
    """
    dataset, label, corrupted = variant
    frames = [
        pd.DataFrame(measured(one)).assign(seed=one.seed, parameters=count_parameters(one.model.prefusion))
        for one in trained(experiments(dataset, options_of(label, rate), corrupted), label)
    ]
    where = {"dataset": dataset, "label": label, "trained_on": "corruption" if corrupted else "clean data"}
    return pd.concat(frames, ignore_index=True).assign(**where, learning_rate=rate)


FEW = tuple(VARIANTS)
BARE = ("utd-mhad", "uci-mfeat")  # here these are trained without made corruption too
LABELS = dict.fromkeys(BARE, (*RIVALS, *STEPS)) | dict.fromkeys(("avdigits", "digits"), FEW)
MAIN = ("utd-mhad", "uci-mfeat", "avdigits")


def parameters(datasets: Sequence[str] = MAIN) -> dict[str, Any]:
    """What a table of notebook 17 depends on, for `vgmr.records.kept.tabled`."""
    common = {**FORM_COMMON, **LENGTH}
    repeats, settings = ({name: each[name] for name in datasets} for each in (REPEATS, SETTINGS))
    return {"repeats": repeats, "trained kinds": list(TRAINED_KINDS), "common": common, "settings": settings}


def calibration_study(jobs: int = 1, datasets: Sequence[str] = MAIN) -> pd.DataFrame:
    """All variants on some data sets, with the corruptions of training and, those of `FEW` on `BARE`, without.

    Each at the rate of `RATES` with the best validation accuracy. One row per number, one column per seed.
    """
    todo = [(name, label, True) for name in datasets for label in LABELS[name]]
    todo += [(name, label, False) for name in datasets if name in BARE for label in FEW]
    tried = [(variant, rate) for variant in todo for rate in RATES]
    scores = dict(zip(tried, Parallel(jobs)(delayed(validated)(*each) for each in tried), strict=True))
    best = {variant: max(RATES, key=lambda rate: scores[variant, rate]) for variant in todo}
    return by_seed(pd.concat(Parallel(jobs)(delayed(cell)(*each) for each in best.items()), ignore_index=True))
