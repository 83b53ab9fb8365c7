"""Costs side by side in one run, at the paper's efficiency setting (Table 7), as ratios to the plain model.

One thread, CPU seconds of the process, the variants interleaved round by round, medians of the per-round ratios:
wall time with several threads on a loaded machine says nothing. On a GPU, wall time around synchronised work.
"""

from __future__ import annotations

import copy
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from vgmr.backbones import BACKBONES, Classifier, make_backbone
from vgmr.balancing import METHODS, Balancing, Relearning, make_method
from vgmr.data import load
from vgmr.data.types import Batch, MultimodalData
from vgmr.experiment import Experiment, build, chosen_device, experiment_data
from vgmr.files import try_place, user_path, write
from vgmr.inference import predict, subset_logits
from vgmr.objective import Objective, contributions
from vgmr.paper import figures
from vgmr.prefusion import Identity, count_parameters
from vgmr.refiner import VGMR
from vgmr.training import fit, make_optimizer, mini_batches, train_epoch, use_byte_dropout
from vgmr.work import bar

VARIANTS = ("none", "mlp", "cross-attention", "sigmoid-tanh", "vgmr")
_LABELS = {
    "none": "plain",
    "mlp": "Concat+MLP",
    "cross-attention": "Cross-Attention",
    "sigmoid-tanh": "Sigmoid+Tanh gate",
    "vgmr": figures.FORM,
}
_TABLE_7 = {variant: figures.COSTS[label] for variant, label in _LABELS.items()}
_CONCAT = figures.COSTS["plain"]
PAPER = {variant: (row[2] / _CONCAT[2], row[3] / _CONCAT[3]) for variant, row in _TABLE_7.items()}
PAPER_EXTRA = {variant: round(row[1] * 1e6) for variant, row in _TABLE_7.items()}
PAPER_METHODS = {
    name: figures.COSTS["plain" if name == "none" else name][2] / _CONCAT[2]
    for name in ("none", "grad-blending", "agm")
}


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
    model, batch = copy.deepcopy(model).to("meta"), batch.to("meta")
    with torch.no_grad():
        inference = _flops(lambda: model.eval()(batch.features, batch.mask))
    return inference, _flops(lambda: _backward(model.train(), batch, objective))


def _bare_epoch(model: Classifier, batches: list[Batch]) -> None:
    """Forward, backward, step on batches that lie ready: what no loop can do without."""
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    model.train()
    for batch in batches:
        optimizer.zero_grad(set_to_none=True)
        _backward(model, batch)
        optimizer.step()


def _loop_epoch(model: Classifier, part: Batch) -> None:
    """What `fit` does in an epoch, but for validation: the same steps, fed by index and through the protocol."""
    batches = mini_batches(part, 32, torch.Generator().manual_seed(0))
    train_epoch(model, batches, make_optimizer("adamw", model, 1e-3), Objective(), Balancing(), 0)


def bench(
    rounds: int = 7,
    steps: int = 4,
    device: str = "cpu",
    byte_dropout: bool = False,
    progress: bool = True,
    variants: Sequence[str] = VARIANTS,
) -> dict[str, Any]:
    """Parameters, FLOPs, training and inference time of every pre-fusion variant before the plain Transformer.

    Setting: text 768, audio 74, vision 35, 50 steps, batch 32, latent width 164, value supervision on.

    Args:
        rounds: interleaved repetitions.
        steps: training steps per epoch and round.
        device: "cpu" or "cuda".
        byte_dropout: measure with `use_byte_dropout`.
        progress: show a bar over rounds.
        variants: some of `VARIANTS`, "none" and "vgmr" among them.

    Returns a JSON-able dict: device, setting, rows (one per variant; FLOPs of one inference pass and of one
    training step; ratios to "none"), loop_overhead (of an epoch of the loop in `fit` over bare steps on batches
    that lie ready, for vgmr, share), contribution_share (contribution targets over one forward pass) and
    removal_share (`subset_logits`, the modality-removal table, over one evaluation pass, for vgmr).

    Raises:
        ValueError: `variants` without "none" or "vgmr".
    """
    if not {"none", "vgmr"} <= set(variants):
        raise ValueError(f'variants must have "none" and "vgmr", got {list(variants)}')
    chosen_device(device)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    data = load("synthetic", like="mosei", samples=32 * steps).to(device)
    data = replace(data, validation=data.validation.index(torch.arange(2, device=device)))
    batches = [data.train.index(rows) for rows in torch.arange(32 * steps, device=device).split(32)]
    models = {
        variant: build(Experiment("synthetic", variant, "transformer", latent_dim=164), data).to(device)
        for variant in variants
    }
    if byte_dropout:
        for model in models.values():
            use_byte_dropout(model)
    folded = copy.deepcopy(models["vgmr"]).eval()
    assert isinstance(folded.prefusion, VGMR)
    folded.prefusion = folded.prefusion.fold()
    times = _measure(models, folded, data, batches, rounds, device, progress)
    measured = {**models, "vgmr folded": folded}
    flops = {name: _counted(model, batches[0]) for name, model in measured.items()}
    result = {
        "device": torch.cuda.get_device_name() if device == "cuda" else "CPU, 1 thread",
        "setting": f"batch 32, 50 steps, text 768, audio 74, vision 35; {rounds} rounds of {steps} steps",
        "rows": [_row(name, models, flops, times) for name in measured],
        "loop_overhead": _ratio(times["loop vgmr"], times["bare vgmr"]) - 1,
        "contribution_share": _ratio(times["contributions"], times["infer none"]),
        "removal_share": _ratio(times["removal"], times["evaluation"]),
    }
    torch.set_num_threads(threads)
    return result


def bench_methods(
    rounds: int = 3, steps: int = 4, device: str = "cpu", byte_dropout: bool = False, progress: bool = True
) -> dict[str, Any]:
    """Training time per epoch of every balancing method, at the setting of `bench` and without a refiner.

    Each method runs at its defaults through `fit`, in its window; Grad-Blending for a super-epoch of ten epochs
    with its trials; to Diagnosing & Re-learning the share of a diagnosis that falls on one epoch is added. Plain
    epochs are measured before and after each; the row "none" tells how far such ratios can be trusted.

    Returns a JSON-able dict: device, setting and rows (one per method; ratios to "none").
    """
    chosen_device(device)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    data = load("synthetic", like="mosei", samples=32 * steps).to(device)
    short = replace(data, validation=data.validation.index(torch.arange(2, device=device)))
    epochs = {name: 10 if name == "grad-blending" else 1 for name in METHODS}
    options = {name: {"start_epoch": -1} if name == "arl" else {} for name in METHODS}
    models = {
        name: build(Experiment("synthetic", "none", "transformer", method=name), data).to(device)
        for name in METHODS
    }
    if byte_dropout:
        for model in models.values():
            use_byte_dropout(model)
    relearning = Relearning()
    relearning.start(models["relearning"], data, 1, 0)

    def train(name: str) -> None:
        fit(models[name], short, epochs=epochs[name], method=make_method(name, **options[name]))

    work: dict[str, Callable[[], Any]] = {name: partial(train, name) for name in METHODS}
    work["diagnosis"] = partial(relearning.gaps, models["relearning"], data)
    seconds: dict[str, list[float]] = {name: [] for name in work}
    ratios: dict[str, list[float]] = {name: [] for name in work}
    train("none")
    for _ in bar(range(rounds), desc="rounds", disable=not progress, leave=False):
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
    torch.set_num_threads(threads)
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else "CPU, 1 thread",
        "setting": f"batch 32, 50 steps, text 768, audio 74, vision 35; {rounds} rounds of {steps} steps",
        "rows": rows,
    }


_RECURRENT = {"text": 128, "audio": 1, "vision": 1}  # of these, text alone is read by an LSTM
SYSTEM_SIZES: dict[str, dict[str, Any]] = {  # of the released code; systems that are not here have their defaults
    "tfn": {"width": {"text": 64, "audio": 4, "vision": 16}, "hidden_dim": _RECURRENT},
    "lmf": {"width": {"text": 64, "audio": 16, "vision": 128}, "hidden_dim": _RECURRENT},
    "mult": {"width": 30, "num_heads": 5, "num_layers": 5, "memory_layers": 5},
    "pcag": {"width": 64},
}


def bench_systems(
    rounds: int = 3, steps: int = 1, device: str = "cpu", byte_dropout: bool = False, progress: bool = True
) -> dict[str, Any]:
    """Cost of every fusion system, alone and behind VGMR, at the setting of `bench` with one output.

    Systems have the sizes of `SYSTEM_SIZES`; one training step has value supervision where VGMR is there, so the
    system's own cost of leaving modalities out is in it.

    Returns a JSON-able dict: device, setting and rows (system, with and without VGMR; ratios to the plain
    Transformer).
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    data = load("synthetic", like="mosei", samples=32 * steps).to(device)
    batches = [
        replace(data.train.index(rows), label=data.train.label[rows].float())
        for rows in torch.arange(32 * steps, device=device).split(32)
    ]
    models: dict[str, Classifier] = {}
    for name in BACKBONES:
        for refiner in (False, True):
            backbone = make_backbone(name, data.dims, 1, **SYSTEM_SIZES.get(name, {}))
            before = VGMR(data.dims, 164) if refiner else Identity(data.dims)
            models[f"{name} + vgmr" if refiner else name] = Classifier(before, backbone).to(device)
    if byte_dropout:
        for model in models.values():
            use_byte_dropout(model)
    objective = Objective(task="regression")

    def train(model: Classifier) -> None:
        model.train()
        for batch in batches:
            objective(model, model(batch.features, batch.mask), batch).backward()
        model.zero_grad()

    @torch.inference_mode()
    def infer(model: Classifier) -> None:
        model.eval()
        for batch in batches:
            model(batch.features, batch.mask)

    work: dict[tuple[str, str], Callable[[], Any]] = {}
    for name, model in models.items():
        work |= {("train", name): partial(train, model), ("infer", name): partial(infer, model)}
    times: dict[tuple[str, str], list[float]] = {key: [] for key in work}
    for once in work.values():
        once()
    for _ in bar(range(rounds), desc="rounds", disable=not progress, leave=False):
        for key, once in work.items():
            times[key].append(_seconds(once, device))
    rows = []
    plain = "transformer"
    flops = {name: _counted(model, batches[0], objective) for name, model in models.items()}
    for name, model in models.items():
        rows.append(
            {
                "system": name,
                "parameters": count_parameters(model),
                "flops": flops[name][0],
                "training_ratio": _ratio(times["train", name], times["train", plain]),
                "training_flop_ratio": flops[name][1] / flops[plain][1],
                "inference_ratio": _ratio(times["infer", name], times["infer", plain]),
                "inference_flop_ratio": flops[name][0] / flops[plain][0],
                "training_seconds_per_sample": statistics.median(times["train", name]) / (32 * steps),
            }
        )
    torch.set_num_threads(threads)
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else "CPU, 1 thread",
        "setting": f"batch 32, 50 steps, text 768, audio 74, vision 35, one output; {rounds} rounds",
        "rows": rows,
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


def _ratio(values: list[float], reference: list[float]) -> float:
    return statistics.median(value / other for value, other in zip(values, reference, strict=True))


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
    times: dict[str, list[float]] = {name: [] for name in work}
    for name in work:
        work[name]()
    for _ in bar(range(rounds), desc="rounds", disable=not progress, leave=False):
        for name in work:
            times[name].append(_seconds(work[name], device))
    return times


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
        row |= {
            "training_flops": training,
            "training_ratio": _ratio(times[f"fit {name}"], times["fit none"]),
            "training_flop_ratio": training / plain_training,
            "training_ratio_paper": PAPER[variant][0],
            "training_seconds_per_epoch": statistics.median(times[f"fit {name}"]),
        }
    return row


def table(result: Mapping[str, Any]) -> pd.DataFrame:
    """The rows of `bench` or `bench_methods` for reading: ratios to plain, measured, by FLOPs, and the paper's."""
    frame = pd.DataFrame(result["rows"])
    frame = frame.set_index(next(name for name in ("method", "system", "variant") if name in frame))
    columns = {
        "parameters": "parameters",
        "extra_parameters": "extra",
        "extra_parameters_paper": "extra, paper",
        "training_ratio": "training",
        "training_flop_ratio": "training FLOPs",
        "training_ratio_paper": "training, paper",
        "inference_ratio": "inference",
        "inference_flop_ratio": "inference FLOPs",
        "inference_ratio_paper": "inference, paper",
    }
    there = [column for column in columns if column in frame]
    return frame[there].rename(columns=columns).round(3)


def main(arguments: list[str]) -> int:
    """`vgmr bench [--methods | --systems] [--rounds N] [--device D] [--byte-dropout] [--json FILE]`."""
    import argparse

    parser = argparse.ArgumentParser("vgmr bench", description="costs of every pre-fusion variant, as ratios")
    parser.add_argument("--methods", action="store_true", help="balancing methods instead (minutes a round)")
    parser.add_argument("--systems", action="store_true", help="fusion systems, alone and behind VGMR, instead")
    parser.add_argument("--rounds", type=int, help="interleaved repetitions, by default 7, or 3 of these two")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--byte-dropout", action="store_true", help="draw dropout masks as bytes")
    parser.add_argument("--json", help="write all figures to this file")
    options = parser.parse_args(arguments)
    measure: Callable[..., dict[str, Any]] = bench
    if options.methods or options.systems:
        measure = bench_methods if options.methods else bench_systems
    rounds = 7 if measure is bench else 3
    rounds = rounds if options.rounds is None else options.rounds
    target = None if options.json is None else user_path(options.json)
    if rounds < 1:
        raise ValueError(f"--rounds must be 1 or more, got {rounds}")
    if target is not None:
        try_place(target)
    result = measure(rounds, device=options.device, byte_dropout=options.byte_dropout)
    print(f"{result['device']}; {result['setting']}")
    print(table(result).to_string(na_rep="-"))
    if measure is bench:
        print(f"loop over bare steps: {result['loop_overhead']:+.1%}")
        print(f"contribution targets over one forward pass: {result['contribution_share']:.2%}")
        print(f"modality-removal table over one evaluation pass: {result['removal_share']:.2f}")
    if target is not None:
        write(target, json.dumps(result, indent=1))
    return 0
