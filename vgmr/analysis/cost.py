"""Costs side by side in one run, at the paper's efficiency setting (Table 7), as ratios to the plain model.

One thread, CPU seconds of the process, the variants interleaved round by round, medians of the per-round ratios:
wall time with several threads on a loaded machine says nothing. On a GPU, wall time around synchronised work.
Plain work is measured twice in every round; how far it is from itself says how far ratios can be trusted.
"""

from __future__ import annotations

import copy
import json
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from vgmr.analysis import scale
from vgmr.balancing import METHODS, Balancing, Relearning, make_method
from vgmr.balancing.base import Loop
from vgmr.classifier import Classifier
from vgmr.contributions import contributions
from vgmr.data import load
from vgmr.data.types import Batch, MultimodalData
from vgmr.experiment import build, experiment_data
from vgmr.inference import predict, subset_logits
from vgmr.loop.alone import Alone
from vgmr.loop.graphs import WARM, Replayed
from vgmr.loop.lists import listing_after
from vgmr.loop.seeds import Together, pays_together
from vgmr.loop.steps import known, make_optimizer, mini_batches, optimizer_of, prepare, train_epoch
from vgmr.machine.devices import chosen_device, one_thread
from vgmr.machine.files import try_place, user_path, write
from vgmr.machine.work import bar, keep_freed_memory
from vgmr.objective import Objective
from vgmr.paper import figures
from vgmr.prefusion import Identity, count_parameters
from vgmr.refiner import VGMR
from vgmr.refining.inputs import trusted_values
from vgmr.settings import Experiment
from vgmr.systems import BACKBONES, make_backbone
from vgmr.training import fit

VARIANTS = ("none", "mlp", "cross-attention", "sigmoid-tanh", "vgmr")
LABELS = {
    "none": "plain",
    "mlp": "parameter-matched MLP",
    "cross-attention": "Cross-Attention",
    "sigmoid-tanh": "Sigmoid+Tanh gate",
    "vgmr": figures.FORM,
}
MOSEI_LIKE = "batch 32, 50 steps, text 768, audio 74, vision 35"
_TABLE_7 = {variant: figures.COSTS[label] for variant, label in LABELS.items()}
_CONCAT = figures.COSTS["plain"]
PAPER = {variant: (row[2] / _CONCAT[2], row[3] / _CONCAT[3]) for variant, row in _TABLE_7.items()}
PAPER_EXTRA = {variant: round(row[1] * 1e6) for variant, row in _TABLE_7.items()}
PAPER_METHODS = {
    name: figures.COSTS["plain" if name == "none" else name][2] / _CONCAT[2]
    for name in ("none", "grad-blending", "agm")
}


def _device(name: str) -> str:
    return torch.cuda.get_device_name() if name == "cuda" else "CPU, 1 thread"


def _seconds(work: Callable[[], Any], device: str) -> float:
    if device == "cpu":
        started = time.process_time()
        work()
        return time.process_time() - started
    torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - started


def _flops(work: Callable[[], Any]) -> int:
    """FLOPs of matrix products in `work`, with fused attention kernels taken apart so that they count."""
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            work()
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    return int(counter.get_total_flops())


def _backward(model: Classifier, batch: Batch, objective: Objective | None = None) -> None:
    (objective or Objective())(model, model(batch.features, batch.mask), batch).backward()


def _counted(model: Classifier, batch: Batch, objective: Objective | None = None) -> tuple[int, int]:
    """FLOPs of one inference pass and of one training step; shapes decide them, so nothing is computed."""
    return _counted_inference(model, batch), _counted_training(model, batch, objective)


def _counted_inference(model: Classifier, batch: Batch) -> int:
    model, batch = copy.deepcopy(model).to("meta").eval(), batch.to("meta")
    with torch.no_grad():
        return _flops(lambda: model(batch.features, batch.mask))


def _counted_training(model: Classifier, batch: Batch, objective: Objective | None = None) -> int:
    model, batch = copy.deepcopy(model).to("meta").train(), batch.to("meta")
    return _flops(lambda: _backward(model, batch, objective))


def _bare_epoch(model: Classifier, batches: list[Batch]) -> None:
    """Forward, backward, step on batches that lie ready: what no loop can do without."""
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    model.train()
    for batch in batches:
        optimizer.zero_grad(set_to_none=True)
        _backward(model, batch)
        optimizer.step()


def _loop_step(model: Classifier, optimizer: torch.optim.Optimizer | None = None) -> Callable[[Batch], Tensor]:
    """A step as plain training takes it, through the protocol of balancing methods."""
    optimizer = optimizer or make_optimizer("adamw", model, 1e-3)
    objective, method = Objective(), Balancing()
    return lambda batch: method.step(model, batch, objective, optimizer, 0)


def _loop_epoch(model: Classifier, part: Batch, optimizer: torch.optim.Optimizer | None = None) -> None:
    """What `fit` does in an epoch, but for validation: the same steps, fed by index and through the protocol."""
    train_epoch(model, mini_batches(part, 32, torch.Generator().manual_seed(0)), _loop_step(model, optimizer))


@one_thread()
def bench(
    rounds: int = 7,
    steps: int = 4,
    device: str = "cpu",
    progress: bool = True,
    variants: Sequence[str] = VARIANTS,
) -> dict[str, Any]:
    """Parameters, FLOPs, training and inference time of every pre-fusion variant before the plain Transformer.

    Setting: text 768, audio 74, vision 35, 50 steps, batch 32, latent width 164, value supervision on.

    Args:
        steps: training steps per epoch and round.
        variants: some of `VARIANTS`, "none" and "vgmr" among them.

    Returns a JSON-able dict: device, setting, rows (one per variant; FLOPs of one inference pass and of one
    training step; ratios to "none", of training with their range over rounds; on a GPU graph_ratio, steps
    replayed as a CUDA graph over the same one by one, graph_training_ratio, such steps over those of "none",
    and graph_seconds_per_epoch), itself (plain training over plain
    training), loop_overhead (of an epoch of the loop in `fit` over bare steps on batches
    that lie ready, for vgmr, share), contribution_share (contribution targets over one forward pass) and
    removal_share (`subset_logits`, the modality-removal table, over one evaluation pass, for vgmr).

    Raises:
        ValueError: `variants` without "none" or "vgmr".
    """
    if not {"none", "vgmr"} <= set(variants):
        raise ValueError(f'variants must have "none" and "vgmr", got {list(variants)}')
    chosen_device(device)
    data = load("synthetic", like="mosei", samples=32 * steps).to(device)
    data = replace(data, validation=data.validation.index(torch.arange(2, device=device)))
    batches = [data.train.index(rows) for rows in torch.arange(32 * steps, device=device).split(32)]
    kinds = {name: Experiment("synthetic", name, "transformer", latent_dim=164, form="paper") for name in variants}
    models = {name: build(kind, data).to(device) for name, kind in kinds.items()}
    folded = _folded(models["vgmr"]).eval()
    times = _measure(models, folded, data, batches, rounds, device, progress)
    measured = {**models, "vgmr folded": folded}
    flops = {name: _counted(model, batches[0]) for name, model in measured.items()}
    return {
        "device": _device(device),
        "setting": f"{MOSEI_LIKE}; {rounds} rounds of {steps} steps",
        "rows": [_row(name, models, flops, times) for name in measured],
        "itself": _ratio(times["fit none again"], times["fit none"]),
        "loop_overhead": _ratio(times["loop vgmr"], times["bare vgmr"]) - 1,
        "contribution_share": _ratio(times["contributions"], times["infer none"]),
        "removal_share": _ratio(times["removal"], times["evaluation"]),
    }


@one_thread()
def bench_methods(rounds: int = 3, steps: int = 4, device: str = "cpu") -> dict[str, Any]:
    """Training time per epoch of every balancing method, at the setting of `bench` and without a refiner.

    Each method runs at its defaults through `fit`, in its window; Grad-Blending for a super-epoch of ten epochs
    with its trials; to Diagnosing & Re-learning the share of a diagnosis that falls on one epoch is added. Plain
    epochs are measured before and after each; the row "none" tells how far such ratios can be trusted.

    Returns a JSON-able dict: device, setting and rows (one per method; ratios to "none").
    """
    chosen_device(device)
    data = load("synthetic", like="mosei", samples=32 * steps).to(device)
    short = replace(data, validation=data.validation.index(torch.arange(2, device=device)))
    epochs = {name: 10 if name == "grad-blending" else 1 for name in METHODS}
    options = {name: {"start_epoch": -1} if name == "arl" else {} for name in METHODS}
    kinds = {name: Experiment("synthetic", "none", "transformer", method=name) for name in METHODS}
    models = {name: build(kind, data).to(device) for name, kind in kinds.items()}
    relearning = Relearning()
    relearning.start(models["relearning"], data, 1, 0)

    def train(name: str) -> None:
        fit(models[name], short, epochs=epochs[name], method=make_method(name, **options[name]))

    work: dict[str, Callable[[], Any]] = {name: partial(train, name) for name in METHODS}
    work["diagnosis"] = partial(relearning.gaps, models["relearning"], data)
    seconds: dict[str, list[float]] = {name: [] for name in work}
    ratios: dict[str, list[float]] = {name: [] for name in work}
    train("none")
    for _ in bar(range(rounds), desc="rounds", leave=False):
        before = _seconds(work["none"], device)
        for name in work:
            one = _seconds(work[name], device) / epochs.get(name, relearning.interval)
            after = _seconds(work["none"], device)
            seconds[name].append(one)
            ratios[name].append(2 * one / (before + after))
            before = after
    for values in (seconds, ratios):
        values["relearning"] = [sum(pair) for pair in zip(values["relearning"], values["diagnosis"], strict=True)]
    rows = [
        {
            "method": name,
            "training_ratio": statistics.median(ratios[name]),
            "training_ratio_paper": PAPER_METHODS.get(name),
            "training_seconds_per_epoch": statistics.median(seconds[name]),
        }
        for name in METHODS
    ]
    return {
        "device": _device(device),
        "setting": f"{MOSEI_LIKE}; {rounds} rounds of {steps} steps",
        "rows": rows,
    }


@one_thread()
def bench_rounds(rounds: int = 5, steps: int = 2) -> pd.DataFrame:
    """Time of one training step and one inference pass of every model of Table 7, round by round, interleaved.

    Setting of `bench`, on one thread; AGM and Grad-Blending train the plain model, Grad-Blending with its trials.
    What the calibrated form fits once, before a training, is not in its steps; it is a row of its own.

    Returns a tidy table: what (training, inference or preparation), label, seed (the round), value (natural
    logarithm of CPU seconds). `vgmr.comparison.differences` to "plain" makes logarithms of ratios of it.
    """
    data = load("synthetic", like="mosei", samples=32 * steps)
    data = replace(data, validation=data.validation.index(torch.arange(2)))
    kinds: dict[str, dict[str, Any]] = {
        label: {"prefusion": prefusion, "form": "paper"} for prefusion, label in LABELS.items()
    }
    kinds["VGMR, calibrated"] = {"form": "calibrated"}
    kinds |= {name: {"prefusion": "none", "method": name} for name in ("agm", "grad-blending")}
    work: dict[str, Callable[[], Any]] = {}
    shares: dict[str, int] = {}
    for label, options in kinds.items():
        chosen = Experiment("synthetic", backbone="transformer", latent_dim=164, **options)
        model, epochs = build(chosen, data), 10 if chosen.method == "grad-blending" else 1
        training = partial(fit, model, data, epochs=epochs, method=make_method(chosen.method))
        for what, one in (("training", training), ("inference", partial(predict, model, data.train))):
            work[f"{what}|{label}"], shares[f"{what}|{label}"] = one, epochs if what == "training" else 1
        if label == "VGMR, calibrated":
            work[f"preparation|{label}"], shares[f"preparation|{label}"] = partial(prepare, model, data.train), 1
    times = _rounds(work, rounds)
    whole_fit, once = "training|VGMR, calibrated", times["preparation|VGMR, calibrated"]
    times[whole_fit] = [whole - part for whole, part in zip(times[whole_fit], once, strict=True)]
    return pd.DataFrame(
        [
            (*name.split("|"), place, math.log(seconds / shares[name] / steps))
            for name, values in times.items()
            for place, seconds in enumerate(values)
        ],
        columns=["what", "label", "seed", "value"],
    )


_RECURRENT = {"text": 128, "audio": 1, "vision": 1}  # of these, text alone is read by an LSTM
SYSTEM_SIZES: dict[str, dict[str, Any]] = {  # of the released code; systems that are not here have their defaults
    "tfn": {"width": {"text": 64, "audio": 4, "vision": 16}, "hidden_dim": _RECURRENT},
    "lmf": {"width": {"text": 64, "audio": 16, "vision": 128}, "hidden_dim": _RECURRENT},
    "mult": {"width": 30, "num_heads": 5, "num_layers": 5, "memory_layers": 5},
    "misa": {"width": 128, "hidden_dim": {"audio": 74, "vision": 35}, "feedforward_dim": 2048, "dropout": 0.5},
    "pcag": {"width": 64},
    "tetfn": {"width": 50, "num_heads": 5, "num_layers": 2, "hidden_dim": 32, "post_dim": 64},
    "conf-moe": {"width": 128, "num_experts": 8},
}


@one_thread()
def bench_systems(rounds: int = 3, device: str = "cpu") -> dict[str, Any]:
    """Cost of every fusion system, alone and behind VGMR, at the setting of `bench` with one output.

    Systems have the sizes of `SYSTEM_SIZES`; one training step has value supervision where VGMR is there, so the
    system's own cost of leaving modalities out is in it.

    Returns a JSON-able dict: device, setting and rows (system, with and without VGMR; ratios to the plain
    Transformer).
    """
    data = load("synthetic", like="mosei", samples=32).to(device)
    batch = replace(data.train, label=data.train.label.float())
    models: dict[str, Classifier] = {}
    for name in BACKBONES:
        for refiner in (False, True):
            backbone = make_backbone(name, data.dims, 1, **SYSTEM_SIZES.get(name, {}))
            before = VGMR(data.dims, 164) if refiner else Identity(data.dims)
            model = Classifier(before, backbone).to(device)
            models[f"{name} + vgmr" if refiner else name] = model
    objective = Objective(task="regression")

    def train(model: Classifier) -> None:
        with trusted_values():  # as in `fit`, which looks at the values once
            _backward(model.train(), batch, objective)
        model.zero_grad()

    @torch.inference_mode()
    def infer(model: Classifier) -> None:
        model.eval()(batch.features, batch.mask)

    work: dict[str, Callable[[], Any]] = {}
    for name, model in models.items():
        work |= {f"train {name}": partial(train, model), f"infer {name}": partial(infer, model)}
    times = _rounds(work, rounds, device, progress=True)
    plain = "transformer"
    flops = {name: _counted(model, batch, objective) for name, model in models.items()}
    rows = [
        {
            "system": name,
            "parameters": count_parameters(model),
            "flops": flops[name][0],
            "training_ratio": _ratio(times[f"train {name}"], times[f"train {plain}"]),
            "training_flop_ratio": flops[name][1] / flops[plain][1],
            "inference_ratio": _ratio(times[f"infer {name}"], times[f"infer {plain}"]),
            "inference_flop_ratio": flops[name][0] / flops[plain][0],
            "training_seconds_per_sample": statistics.median(times[f"train {name}"]) / 32,
        }
        for name, model in models.items()
    ]
    return {
        "device": _device(device),
        "setting": f"{MOSEI_LIKE}, one output; {rounds} rounds",
        "rows": rows,
    }


SEED_MODELS = {  # feature widths and steps of "uci-mfeat", "utd-mhad" and CMU-MOSI
    "uci-mfeat": {"fou": (1, 76), "kar": (1, 64), "zer": (1, 47)},
    "utd-mhad": {"accelerometer": (46, 3), "gyroscope": (46, 3), "skeleton": (51, 60)},
    "mosi": {"text": (50, 768), "audio": (50, 5), "vision": (50, 20)},
}


def made_data(shapes: Mapping[str, tuple[int, int]], train: int, validation: int, classes: int) -> MultimodalData:
    """Noise of given shapes, name -> (steps, width), with every step real."""
    generator = torch.Generator().manual_seed(0)

    def part(size: int) -> Batch:
        return Batch(
            {name: torch.randn(size, *shape, generator=generator) for name, shape in shapes.items()},
            {name: torch.ones(size, steps, dtype=torch.bool) for name, (steps, _) in shapes.items()},
            torch.randint(classes, (size,), generator=generator),
        )

    names = tuple(map(str, range(classes)))
    return MultimodalData("noise", part(train), part(validation), part(validation), names, "", "", "")


@one_thread()
def bench_seeds(
    seeds: int = 10,
    rounds: int = 5,
    steps: int = 6,
    shapes: Sequence[str] = tuple(SEED_MODELS),
    device: str = "cpu",
) -> dict[str, Any]:
    """Training steps of `seeds` models in one pass over as many models one by one, by shape and backbone.

    Epochs of `fit_seeds` without validation against `seeds` times those of `fit`, on noise of the shapes of three
    data sets, for VGMR and the plain model; steps in one pass as lists of operations where that pays, which
    `fit_seeds` makes after three hundred.

    Returns a JSON-able dict: device, setting, rows (ratio with its range over rounds; milliseconds and FLOPs of a
    single step; whether `pays_together` takes one pass) and itself (a single epoch over itself).
    """
    chosen_device(device)
    rows, itself = [], []
    cases = [(s, b, p) for s in shapes for b in ("pooled", "transformer") for p in ("none", "vgmr")]
    for shape, backbone, prefusion in bar(cases, desc="models", leave=False):
        data = made_data(SEED_MODELS[shape], 32 * steps, 1, 10).to(device)
        alike = [Experiment("synthetic", prefusion, backbone, seed=seed) for seed in range(seeds)]
        models = [build(one, data).to(device) for one in alike]
        pays = pays_together(models[0], data, seeds)
        single, several = _loops(copy.deepcopy(models[0]), models, data)
        work = {"alone": partial(single.train, 0), "together": partial(several.train, 0)}
        with trusted_values(), listing_after(1) if pays else nullcontext():
            for _ in range(1 if device == "cpu" else 1 + WARM // steps):  # then steps are lists, or replayed
                single.train(0)
                several.train(0)
            times = _rounds(work | {"again": work["alone"]}, rounds, device)
        alone, together, again = (times[who] for who in ("alone", "together", "again"))
        one = [seeds * seconds for seconds in alone]
        itself.append(_ratio(again, alone))
        rows.append(
            {
                "model": f"{shape} {backbone} {prefusion}",
                "seeds": seeds,
                "single_milliseconds": 1e3 * statistics.median(alone) / steps,
                "training_flops": _counted_training(models[0], data.train.index(torch.arange(32, device=device))),
                **_ratios(together, one),
                "in_one_pass": pays,
            }
        )
    return {
        "device": _device(device),
        "setting": f"batch 32, epochs of {steps} steps, {seeds} seeds in one pass over {seeds} one by one; "
        f"{rounds} rounds",
        "rows": rows,
        "itself": statistics.median(itself),
    }


def _loops(model: Classifier, models: Sequence[Classifier], data: MultimodalData) -> tuple[Alone, Together]:
    """The loops of one model and of several, as `fit` and `fit_seeds` make them."""
    feeding = {"batch_size": 32, "length_buckets": False}
    loop = Loop(make_optimizer("adamw", model, 1e-3), lambda *_: None)
    single = Alone(model, data, data.validation, 0, Objective(), Balancing(), loop, None, feeding)
    for each in models:
        prepare(each, data.train)
    every, seeds = [data] * len(models), range(len(models))

    def optimizer(rows: list[list[Tensor]]) -> torch.optim.Optimizer:
        return optimizer_of("adamw", [{"params": row, "lr": 1e-3} for row in rows], 0.01)

    return single, Together(
        models, every, [data.validation for data in every], seeds, Objective(), optimizer, False, None, feeding
    )


class _Shallow(torch.nn.Module):
    """The shallow model of `bench_loop` without this package: mean, linear, GELU, dropout; concat, linear."""

    def __init__(self, shapes: Mapping[str, tuple[int, int]], classes: int):
        super().__init__()
        self.encoders = torch.nn.ModuleDict(
            {
                name: torch.nn.Sequential(torch.nn.Linear(width, 64), torch.nn.GELU(), torch.nn.Dropout(0.1))
                for name, (_, width) in shapes.items()
            }
        )
        self.head = torch.nn.Linear(64 * len(shapes), classes)

    def forward(self, features: Mapping[str, torch.Tensor]) -> torch.Tensor:
        logits: torch.Tensor = self.head(
            torch.cat([encoder(features[name].mean(1)) for name, encoder in self.encoders.items()], 1)
        )
        return logits


@one_thread()
def bench_loop(rounds: int = 41, train: int = 1284, validation: int = 229) -> dict[str, Any]:
    """What `fit` costs per training sample of a shallow model, beside bare steps of the same model.

    Shapes of CMU-MOSI: 1,284 and 229 samples, 50 steps, widths 768, 5, 20, no padding; a mean over time, a linear
    layer of 64, GELU and dropout for each modality, one linear layer on all. Bare steps are torch's modules and
    fused AdamW on random samples of tensors in memory, and a pass over the validation part. A marginal epoch of
    `fit`, with its validation, is a fifth of six epochs less one; what a training adds is one epoch less that.

    Returns a JSON-able dict: device, setting, rows (milliseconds per training sample, ratio to bare steps with its
    range), added_seconds (of a one-epoch `fit` beyond its epoch) and itself (bare steps over themselves).
    """
    shapes = SEED_MODELS["mosi"]
    data = made_data(shapes, train, validation, 2)
    model = build(Experiment("synthetic", "none"), data)
    bare = _Shallow(shapes, 2)
    optimizer = torch.optim.AdamW(bare.parameters(), fused=True)

    def steps() -> None:
        bare.train()
        for rows in torch.randperm(train).split(32):
            features = {name: x.index_select(0, rows) for name, x in data.train.features.items()}
            optimizer.zero_grad(set_to_none=True)
            logits = bare(features)
            torch.nn.functional.cross_entropy(logits, data.train.label.index_select(0, rows)).backward()
            optimizer.step()
        with torch.inference_mode():
            bare.eval()(data.validation.features)

    work: dict[str, Callable[[], Any]] = {
        "bare": steps,
        "short": partial(fit, model, data, epochs=1),
        "long": partial(fit, model, data, epochs=6),
        "bare again": steps,
    }
    times = _rounds(work, rounds, progress=True)
    epoch = [(long - short) / 5 for long, short in zip(times["long"], times["short"], strict=True)]
    rows = [
        {
            "loop": name,
            "milliseconds_per_sample": 1e3 * statistics.median(seconds) / train,
            **_ratios(seconds, times["bare"]),
        }
        for name, seconds in (("bare steps", times["bare"]), ("fit", epoch))
    ]
    return {
        "device": "CPU, 1 thread",
        "setting": f"{train} and {validation} samples, batch 32, 50 steps, text 768, audio 5, vision 20; "
        f"{rounds} rounds",
        "rows": rows,
        "added_seconds": statistics.median(short - one for short, one in zip(times["short"], epoch, strict=True)),
        "itself": _ratio(times["bare again"], times["bare"]),
    }


STEADY: dict[str, Any] = {"rank": 0, "norm": "none"}  # one gate for a whole sequence, so its mean can come first
CHEAP: dict[str, dict[str, dict[str, Any]]] = {  # by form, what makes it cheaper; see `vgmr.refiner.VGMR`
    "paper": {
        "shared maps": {"sharing": True},
        "rank 16": {"rank": 16},
        "rank 4": {"rank": 4},
        "rank 0": {"rank": 0},
        "sparse gate": {"sparsity": 0.75},
        "rank 0, no LayerNorm": STEADY,
        "rank 0, no LayerNorm, shared maps": {**STEADY, "sharing": True},
    },
    "calibrated": {
        "rank 16": {"rank": 16},
        "rank 4": {"rank": 4},
        "rank 0": {"rank": 0},
        "sparse gate": {"sparsity": 0.75},
        "rank 0, sparse gate": {"rank": 0, "sparsity": 0.75},
        "rank 16, one gate": {"rank": 16, "per_step": False},
    },
}


PRICED = {  # backbone, latent width in front of it, whether sequences are padded
    "transformer": ("transformer", 164, True),
    "pooled": ("pooled", 32, True),
    "pooled, no padding": ("pooled", 32, False),
}
AGAIN = "plain, again"


def price(model: Classifier, batch: Batch) -> dict[str, float]:
    """What a model costs whatever the machine: nothing is computed, shapes decide.

    Returns parameters, inference_flops and training_flops (with value supervision) per sample, those of matrix
    products alone, and kept_kib, the KiB per sample of activations that wait for the backward pass. Inference is
    that of a folded copy where the pre-fusion module can be folded.
    """
    shadow, shapes = copy.deepcopy(model).to("meta").train(), batch.to("meta")
    kept = scale.kept_mib(shadow, shapes.features, lambda: shadow(shapes.features, shapes.mask))
    return {
        "parameters": count_parameters(model),
        "inference_flops": _counted_inference(_folded(model), batch) / len(batch),
        "training_flops": _counted_training(model, batch) / len(batch),
        "kept_kib": 1024 * kept / len(batch),
    }


def form_options() -> dict[str, dict[str, Any]]:
    """The plain model, VGMR in both forms, and every cheaper one of `CHEAP`, as settings of an `Experiment`."""
    found: dict[str, dict[str, Any]] = {"plain": {"prefusion": "none"}}
    for form, cheaper in CHEAP.items():
        found[f"{form}, full"] = {"form": form}
        found |= {f"{form}, {name}": {"form": form, **switches} for name, switches in cheaper.items()}
    return found


def priced_data(place: str, samples: int) -> tuple[MultimodalData, dict[str, Any]]:
    """Data and settings of `count_forms` in front of what `PRICED` names.

    Sequences have 10 to 50 steps and are padded to 50; without padding all have 50, and no mask is needed.
    """
    backbone, latent_dim, padded = PRICED[place]
    if backbone == "transformer":
        data = load("synthetic", like="mosei", samples=samples)
    else:
        data = made_data(SEED_MODELS["mosi"], samples, 1, 2)
        if padded:
            length = torch.randint(10, 51, (samples, 1), generator=torch.Generator().manual_seed(0))
            mask = {name: torch.arange(x.shape[1]) < length for name, x in data.train.features.items()}
            features = {name: x * mask[name].unsqueeze(2) for name, x in data.train.features.items()}
            data = replace(data, train=Batch(features, mask, data.train.label))
    return data, {"dataset": "synthetic", "backbone": backbone, "latent_dim": latent_dim}


def count_forms() -> pd.DataFrame:
    """What `price` counts of every form, in front of the Transformer and of a mean; nothing is computed.

    In front of the Transformer at the setting of `bench`; in front of the pooled model at the shapes of CMU-MOSI
    (widths 768, 5, 20, up to 50 steps, latent width 32), where products do not depend on the padding.

    Returns columns: backbone, form, those of `price`, and inference, training and kept, as ratios to plain.
    """
    prices: dict[str, list[dict[str, Any]]] = {}
    for place, (backbone, *_) in PRICED.items():
        if backbone not in prices:
            data, settings = priced_data(place, 32)
            prices[backbone] = [
                {"form": form, **price(build(Experiment(**settings, **options), data), data.train)}
                for form, options in form_options().items()
            ]
    rows = [{"backbone": place, **row} for place, (backbone, *_) in PRICED.items() for row in prices[backbone]]
    table = pd.DataFrame(rows)
    plain = table[table["form"] == "plain"].set_index("backbone")
    for name, column in {"inference": "inference_flops", "training": "training_flops", "kept": "kept_kib"}.items():
        table[name] = table[column] / table["backbone"].map(plain[column])
    return table


@one_thread()
def bench_forms(rounds: int = 7, steps: int = 2, device: str = "cpu", progress: bool = True) -> dict[str, Any]:
    """Time of every form beside what `count_forms` counts, and of the plain model twice, in the same rounds.

    Training is steps of the loop in `fit` with value supervision, without what the calibrated form fits once
    before; inference is that of folded copies.

    Returns a JSON-able dict: device, setting, rows (model, form in front of backbone; FLOP ratios, and ratios of
    time to the plain model with their range over rounds) and itself (plain over plain, the worst of all in
    training and inference).
    """
    chosen_device(device)
    epoch = trusted_values()(_loop_epoch)  # the values of mini-batches are looked at before, as in `fit`
    work: dict[str, Callable[[], Any]] = {}
    for backbone in PRICED:
        data, settings = priced_data(backbone, 32 * steps)
        part = data.train.noting_padding().to(device)  # as `fit` does
        for form, options in form_options().items():
            model = build(Experiment(**settings, **options), data).to(device)
            optimizer = make_optimizer("adamw", model, 1e-3)
            work[f"training {backbone} {form}"] = partial(epoch, model, known(model, part), optimizer)
            work[f"inference {backbone} {form}"] = partial(predict, _folded(model).eval(), part, batch_size=32)
        for way in ("training", "inference"):
            work[f"{way} {backbone} {AGAIN}"] = work[f"{way} {backbone} plain"]
    times = _rounds(work, rounds, device, progress)
    counted = count_forms()
    again = counted[counted["form"] == "plain"].assign(form=AGAIN)
    rows = [_form_row(row, times, 32 * steps) for row in pd.concat([counted, again]).to_dict("records")]
    itself = [row[f"{way}_ratio"] for row in rows[-len(PRICED) :] for way in ("training", "inference")]
    return {
        "device": _device(device),
        "setting": "batch 32, up to 50 steps; Transformer: text 768, audio 74, vision 35; pooled: text 768, "
        f"audio 5, vision 20, padded or all of 50 steps; {rounds} rounds of {steps} steps",
        "rows": rows,
        "itself": max(itself, key=lambda ratio: abs(math.log(ratio))),
    }


def _folded(model: Classifier) -> Classifier:
    """A copy with VGMR's products along time folded into one, where it has them."""
    folded = copy.deepcopy(model)
    if isinstance(folded.prefusion, VGMR):
        folded.prefusion = folded.prefusion.fold()
    return folded


def _form_row(counted: Mapping[Any, Any], times: Mapping[str, list[float]], samples: int) -> dict[str, Any]:
    backbone, form = counted["backbone"], counted["form"]
    row: dict[str, Any] = {"model": f"{form} -> {backbone}", "parameters": counted["parameters"]}
    seconds = times[f"training {backbone} {form}"]
    row["milliseconds_per_sample"] = 1e3 * statistics.median(seconds) / samples
    for way in ("training", "inference"):
        seconds, reference = times[f"{way} {backbone} {form}"], times[f"{way} {backbone} plain"]
        row |= _ratios(seconds, reference, f"{way}_")
        row[f"{way}_flop_ratio"] = counted[way]
    return row | {"kept_ratio": counted["kept"]}


SCALED: dict[str, dict[str, Any]] = {"full": {}, "rank 4": {"rank": 4}, "rank 0": STEADY}


def bench_scale() -> dict[str, Any]:
    """How FLOPs, parameters and kept activations of VGMR grow; counted on shapes, see `vgmr.analysis.scale`.

    Returns a JSON-able dict: device, setting, rows (of `scale.scaling`) and exponents (of `scale.exponents`), of
    the forms in `SCALED`.
    """
    rows, exponents = [], []
    for form, switches in SCALED.items():
        grown = scale.scaling(**switches)
        cases = form + ", " + grown["axis"] + " " + grown["size"].astype(str)
        rows += grown.assign(case=cases)[["case", *grown]].to_dict("records")
        exponents += scale.exponents(grown).assign(form=form).to_dict("records")
    return {
        "device": "no device: shapes alone are looked at",
        "setting": "batch 32, latent width 164; where not varied 50 steps, width 256, 3 modalities",
        "rows": rows,
        "exponents": exponents,
    }


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

    def repeated(take: Callable[[], Any]) -> None:
        for _ in range(steps):
            take()

    times = _rounds({name: partial(repeated, take) for name, take in ready.items()}, rounds)
    ratio = {name: _ratio(seen, times[baseline]) for name, seen in times.items()}
    return pd.Series(ratio, name=f"step, times {baseline}")


def _rounds(
    work: Mapping[str, Callable[[], Any]], rounds: int, device: str = "cpu", progress: bool = False
) -> dict[str, list[float]]:
    """Seconds of every piece of work in every round, interleaved, after one round to warm up.

    The process keeps freed memory, as those that train.
    """
    keep_freed_memory()
    times: dict[str, list[float]] = {name: [] for name in work}
    for take in work.values():
        take()
    for _ in bar(range(rounds), desc="rounds", disable=not progress, leave=False):
        for name, take in work.items():
            times[name].append(_seconds(take, device))
    return times


def _ratio(values: list[float], reference: list[float]) -> float:
    return statistics.median(value / other for value, other in zip(values, reference, strict=True))


def _ratios(values: list[float], reference: list[float], prefix: str = "") -> dict[str, float]:
    """The median, the least and the largest ratio over rounds."""
    ratios = [value / other for value, other in zip(values, reference, strict=True)]
    return {f"{prefix}ratio": statistics.median(ratios), f"{prefix}low": min(ratios), f"{prefix}high": max(ratios)}


def _measure(
    models: Mapping[str, Classifier],
    folded: Classifier,
    data: MultimodalData,
    batches: list[Batch],
    rounds: int,
    device: str,
    progress: bool,
) -> dict[str, list[float]]:
    batch = batches[0]

    @torch.inference_mode()
    def infer(model: Classifier) -> None:
        model.eval()
        for _ in range(2):
            model(batch.features, batch.mask)

    with torch.inference_mode():
        encodings = models["vgmr"].eval()(batch.features, batch.mask).encodings
    work: dict[str, Callable[[], Any]] = {}
    for variant, model in models.items():
        work[f"fit {variant}"] = partial(fit, model, data, epochs=1)
        work[f"infer {variant}"] = partial(infer, model)
    work["infer vgmr folded"] = partial(infer, folded)
    work["bare vgmr"] = partial(_bare_epoch, models["vgmr"], batches)
    work["loop vgmr"] = partial(_loop_epoch, models["vgmr"], data.train)
    work["contributions"] = lambda: [
        contributions(models["vgmr"].backbone, encodings, batch.label) for _ in range(2)
    ]
    work["evaluation"] = partial(predict, models["vgmr"], data.train)
    work["removal"] = partial(subset_logits, models["vgmr"], data.train)
    work["fit none again"] = work["fit none"]
    for variant in models if device == "cuda" else ():
        work |= _eager_and_graph(variant, models[variant], [batch] * len(batches))
    return _rounds(work, rounds, device, progress)


def _eager_and_graph(variant: str, model: Classifier, batches: list[Batch]) -> dict[str, Callable[[], Any]]:
    """As many steps of copies of a model, one by one and replayed; neither looks at values, as `fit` does not."""
    alike, replayed = _loop_step(copy.deepcopy(model).train()), Replayed(_loop_step(copy.deepcopy(model).train()))

    @trusted_values()
    def take(step: Callable[[Batch], Tensor]) -> None:
        for batch in batches:
            step(batch)

    for _ in range(WARM // len(batches) + 1):
        take(replayed)
    return {f"eager {variant}": partial(take, alike), f"graph {variant}": partial(take, replayed)}


def _row(
    name: str,
    models: Mapping[str, Classifier],
    flops: Mapping[str, tuple[int, int]],
    times: Mapping[str, list[float]],
) -> dict[str, Any]:
    variant = name.removesuffix(" folded")
    total = count_parameters(models[variant])
    (inference, training), (plain_inference, plain_training) = flops[name], flops["none"]
    row: dict[str, Any] = {
        "variant": name,
        "parameters": total,
        "extra_parameters": total - count_parameters(models["none"]),
        "extra_parameters_paper": PAPER_EXTRA[variant],
        "flops": inference,
        "inference_ratio": _ratio(times[f"infer {name}"], times["infer none"]),
        "inference_flop_ratio": inference / plain_inference,
        "inference_ratio_paper": PAPER[variant][1],
        "inference_seconds_per_batch": statistics.median(times[f"infer {name}"]) / 2,
    }
    if name in models:
        fitted = _ratios(times[f"fit {name}"], times["fit none"])
        row |= {
            "training_flops": training,
            "training_ratio": fitted.pop("ratio"),
            **fitted,
            "training_flop_ratio": training / plain_training,
            "training_ratio_paper": PAPER[variant][0],
            "training_seconds_per_epoch": statistics.median(times[f"fit {name}"]),
        }
    if f"graph {name}" in times:
        row["graph_ratio"] = _ratio(times[f"graph {name}"], times[f"eager {name}"])
        row["graph_training_ratio"] = _ratio(times[f"graph {name}"], times["graph none"])
        row["graph_seconds_per_epoch"] = statistics.median(times[f"graph {name}"])
    return row


def table(result: Mapping[str, Any]) -> pd.DataFrame:
    """The rows of any measurement here for reading: ratios measured, by FLOPs, and the paper's."""
    frame = pd.DataFrame(result["rows"])
    frame = frame.set_index(frame.columns[0])
    columns = {
        "seeds": "seeds",
        "parameters": "parameters",
        "extra_parameters": "extra",
        "extra_parameters_paper": "extra, paper",
        "milliseconds_per_sample": "ms per sample",
        "single_milliseconds": "ms of one step",
        "ratio": "ratio",
        "training_ratio": "training",
        "low": "from",
        "high": "to",
        "training_low": "from",
        "training_high": "to",
        "training_flop_ratio": "training FLOPs",
        "training_ratio_paper": "training, paper",
        "inference_ratio": "inference",
        "inference_low": "least",
        "inference_high": "most",
        "inference_flop_ratio": "inference FLOPs",
        "inference_ratio_paper": "inference, paper",
        "kept_ratio": "kept activations",
        "graph_ratio": "as a graph, to one by one",
        "graph_training_ratio": "training as a graph",
        "in_one_pass": "in one pass",
        "flops": "FLOPs",
        "kept_mib": "MiB kept",
        "kept_mib_checkpointed": "MiB kept, checkpointed",
    }
    there = [column for column in columns if column in frame]
    return frame[there].rename(columns=columns).round(3)


def lines(result: Mapping[str, Any]) -> list[str]:
    """What a measurement says beside its table, the last of it how sure it is."""
    said = {
        "loop_overhead": "loop over bare steps: {:+.1%}",
        "contribution_share": "contribution targets over one forward pass: {:.2%}",
        "removal_share": "modality-removal table over one evaluation pass: {:.2f}",
        "added_seconds": "a training adds to its epochs: {:.2f} s",
        "itself": "the same work twice: {:.3f}",
    }
    found = [text.format(result[name]) for name, text in said.items() if name in result]
    for one in result.get("exponents", ()):
        found.append(
            f"{one['form']}: {one['what']} as {one['axis']} to the power {one['exponent']:.2f}, "
            f"{one['last']:.2f} between the two largest"
        )
    below = [row for row in result["rows"] if _below(row)] if "rows" in result else []
    if below:
        found.append(
            f"less time than FLOPs: {', '.join(str(next(iter(row.values()))) for row in below)}; VGMR's FLOPs are "
            "large matrix products near the processor's peak, while attention, dropout and norms of the plain "
            "model take time and count few FLOPs"
        )
    if abs(result.get("itself", 1.0) - 1) > 0.03:
        found.append("warning: the same work differs by more than 3% from itself; the machine is too busy")
    return found


def _below(row: Mapping[str, Any]) -> bool:
    """Whether a measured ratio is clearly below that of the FLOPs."""
    return any(
        row.get(f"{way}_ratio", math.inf) < row.get(f"{way}_flop_ratio", 0) - 0.03
        for way in ("training", "inference")
    )


def main(arguments: list[str]) -> int:
    """`vgmr bench [--methods | --systems | --forms | --scale | --seeds S | --loop] [--rounds N] ...`."""
    import argparse

    parser = argparse.ArgumentParser("vgmr bench", description="costs of every pre-fusion variant, as ratios")
    ways: dict[str, tuple[Callable[..., dict[str, Any]], int, str]] = {  # measurement, rounds, purpose
        "methods": (bench_methods, 3, "balancing methods instead (minutes a round)"),
        "systems": (bench_systems, 3, "fusion systems, alone and behind VGMR, instead"),
        "forms": (bench_forms, 7, "cheaper forms of VGMR instead (a minute)"),
        "scale": (lambda rounds: bench_scale(), 1, "how VGMR grows with length, width, modalities instead"),
        "loop": (bench_loop, 41, "the loop of a shallow model over bare steps instead"),
    }
    what = parser.add_mutually_exclusive_group()
    for way, (*_, purpose) in ways.items():
        what.add_argument(f"--{way}", dest="way", action="store_const", const=way, help=purpose)
    what.add_argument("--seeds", type=int, metavar="S", help="S seeds in one pass over S one by one instead")
    parser.add_argument(
        "--rounds",
        type=int,
        help="interleaved repetitions, by default 7; 41 of the loop; 5 of seeds; 3 of methods, systems",
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--json", help="write all figures to this file")
    options = parser.parse_args(arguments)
    if options.seeds is not None and options.seeds < 2:
        raise ValueError(f"--seeds must be 2 or more, got {options.seeds}")
    on_any_device = options.way not in ("scale", "loop")
    if options.device != "cpu" and not on_any_device:
        raise ValueError(f"--{options.way} is measured on the CPU alone; leave --device out")
    settings: dict[str, Any] = {"device": options.device} if on_any_device else {}
    measure, rounds, _ = ways.get(options.way, (bench, 7, ""))
    if options.seeds is not None:
        measure, rounds, settings = bench_seeds, 5, {"seeds": options.seeds, **settings}
    rounds = rounds if options.rounds is None else options.rounds
    target = None if options.json is None else user_path(options.json)
    if rounds < 1:
        raise ValueError(f"--rounds must be 1 or more, got {rounds}")
    if target is not None:
        try_place(target)
    result = measure(rounds=rounds, **settings)
    print(f"{result['device']}; {result['setting']}")
    print(table(result).to_string(na_rep="-"))
    print(*lines(result), sep="\n")
    if target is not None:
        write(target, json.dumps(result, indent=1))
    return 0
