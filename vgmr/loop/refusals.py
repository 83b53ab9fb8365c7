"""What `fit` refuses of its arguments, before the first step."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Integral

import torch
from torch import Tensor

from vgmr.balancing.base import Balancing
from vgmr.classifier import Classifier
from vgmr.data.types import Batch, MultimodalData
from vgmr.fusion.base import check_sizes, check_weights, evaluating
from vgmr.loop.steps import Corruption, trim
from vgmr.objective import Objective
from vgmr.refining.inputs import shown, trusted_values
from vgmr.refining.maps import masked_mean


def unsound(
    models: Sequence[Classifier],
    data: Sequence[MultimodalData],
    seeds: Sequence[int],
    objective: Objective | None,
    method: Balancing | None,
    corruption: Corruption | None,
    checkpoint: object,
    counts: Mapping[str, int],
    weights: Mapping[str, float],
) -> Iterator[Exception]:
    """What `fit` refuses of its arguments, in the order in which a reader would look."""
    check_sizes(**counts)
    check_weights(**weights)
    for seed in seeds:
        if not isinstance(seed, Integral) or isinstance(seed, bool) or abs(int(seed)) >= 2**63:
            yield ValueError(f"seed must be a whole number below 2**63, got {shown(seed)}")
    for model in models:
        if not (hasattr(model, "prefusion") and hasattr(model, "backbone")):
            yield TypeError(f"model: expected a Classifier(prefusion, backbone), got {type(model).__name__}")
    for each in data:
        if not isinstance(each, MultimodalData):
            yield TypeError(f"data: expected MultimodalData, with its parts, got {type(each).__name__}")
    if not (method is None or isinstance(method, Balancing)):
        made = "vgmr.balancing.make_method(name)"
        yield TypeError(f"method: expected one made by {made}, got {type(method).__name__}")
    for what, given in (("objective", objective), ("corruption", corruption), ("checkpoint", checkpoint)):
        if isinstance(given, type) or not (given is None or callable(given)):
            yield TypeError(f"{what}: expected an object that can be called, got {type(given).__name__}")
    if not torch.is_grad_enabled():
        yield ValueError("gradients are switched off here, so nothing can learn; call fit outside torch.no_grad()")
    for model in models:
        if not any(x.requires_grad for x in model.parameters()):
            yield ValueError("no parameter of the model can learn; model.requires_grad_(True) lets all of them")
    task = getattr(objective, "task", "classification")
    for each in data:
        if each.task != task:
            yield ValueError(
                f"{each.name} has labels for {each.task}, and the objective is for {task}; "
                f"give objective=Objective(task={each.task!r})"
            )
    for each in data:
        each.train.check_shapes()
    for name in unheeded(models[0], data[0].train):
        yield ValueError(
            f"{type(models[0].backbone).__name__}.fuse changes its answer with the encoding of {name!r} where "
            "keep leaves that out: use the encodings in keep alone; self.present(keep) lists them"
        )
    for name in not_averaged(models[0], data[0].train):
        yield ValueError(
            f"{type(models[0].backbone).__name__} says averages = True, and its encoding of {name!r} reads more "
            "of the sequence than its mean over time: say averages = False in the class"
        )
    if reads_padding(models[0], data[0].train):
        kind = type(models[0].backbone).__name__
        warnings.warn(
            f"{kind} answers otherwise where padding is cut off, which must not count; heed mask in encode_one",
            stacklevel=4,
        )


@contextmanager
def _telling(where: str, given: Mapping[str, Tensor], expected: str) -> Iterator[None]:
    """What torch says of shapes within, as a ValueError in one line with the shapes of what was `given`."""
    try:
        yield
    except (RuntimeError, IndexError) as error:
        said = str(error).split("\n")[0].rstrip(".")
        if type(error) not in (RuntimeError, IndexError) or not re.search("(?i)size|shape|dimension", said):
            raise
        shapes = {name: tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__ for name, x in given.items()}
        raise ValueError(f"{where} fails on {shapes}: {said}; {expected}") from error


@torch.no_grad()
def reads_padding(model: Classifier, part: Batch) -> bool:
    """Whether a backbone from outside the package answers otherwise where the shortest sample's padding is cut."""
    backbone = model.backbone
    if type(backbone).__module__.startswith("vgmr.") or not len(part):
        return False
    one = part.index(torch.stack([*part.lengths().values()]).sum(0).argmin()[None])
    lengths = {name: int(length) for name, length in one.lengths().items()}
    if len({x.shape[1] for x in one.features.values()}) == 1:  # may be aligned, and stay as many
        lengths = dict.fromkeys(lengths, max(lengths.values()))
    try:
        with evaluating(model):
            answer, other = (
                backbone.fuse(backbone.encode(x.features, x.mask), None, x.mask) for x in (one, trim(one, lengths))
            )
    except Exception:  # of one number of steps only
        return False
    largest = float(answer.abs().nan_to_num().max())
    return not torch.allclose(answer, other, rtol=1e-3, atol=1e-3 * largest, equal_nan=True)


@torch.no_grad()
def unheeded(model: Classifier, part: Batch) -> list[str]:
    """Modalities whose encodings change what the backbone answers although `keep` leaves them out.

    Raises:
        ValueError: on a few samples the backbone fails on shapes, or does not answer (B, num_outputs).
    """
    few, backbone = part.span(0, 4).noting_padding(), model.backbone
    kind, mask, wanted = type(backbone).__name__, few.model_mask, (len(few), backbone.num_outputs)
    promised = "(B, width)" if backbone.width is None else f"(B, {backbone.width})"

    def answer(encodings: Mapping[str, Tensor], keep: list[str] | None) -> Tensor:
        left = "" if keep is None else f" with keep={keep}"
        expected = f"expected encodings {promised} or sequences, and logits {wanted} of them for any keep"
        with _telling(f"{kind}.fuse{left}", encodings, expected):
            logits = backbone.fuse(encodings, keep, mask)
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        if got != wanted:
            raise ValueError(
                f"{kind}.fuse{left}: expected logits of shape (B, num_outputs), here {wanted}, got {got}; "
                "give a row for each sample and a column for each output, (B, 1) for a score"
            )
        return logits

    with evaluating(model), trusted_values():
        refined = model.prefusion(few.features, mask).features
        with _telling(
            f"{kind}.encode", refined, f"expected encode_one from (B, T, d) to {promised} or a sequence"
        ):
            encodings = backbone.encode(refined, mask)
        answer(encodings, None)
        found = []
        for name in encodings if len(encodings) > 1 else ():
            others = [other for other in encodings if other != name]
            one, other = (
                answer({**encodings, name: x}, others) for x in (encodings[name], encodings[name].flip(0))
            )
            if not torch.allclose(one, other, rtol=1e-3, atol=1e-4, equal_nan=True):
                found.append(name)
    return found


@torch.no_grad()
def not_averaged(model: Classifier, part: Batch) -> list[str]:
    """Modalities of which the backbone reads more than the mean over time although it says `averages`."""
    if not (model.backbone.averages and len(part)):
        return []
    few = part.span(0, 4)
    with evaluating(model):
        means = {name: masked_mean(x, few.mask[name]).unsqueeze(1) for name, x in few.features.items()}
        read, expected = model.backbone.encode(few.features, few.mask), model.backbone.encode(means, None)
    return [
        name
        for name, x in read.items()
        if x.shape != expected[name].shape or (x - expected[name]).abs().max() > 1e-3 * expected[name].abs().max()
    ]


def check_labels(model: Classifier, data: MultimodalData) -> None:
    """ValueError where a label is out of the model's range, or a part is unsound, with the part's name."""
    outputs = getattr(model.backbone, "num_outputs", len(data.classes))
    if not data.classes and outputs > 1:
        hint = "give its backbone num_outputs=1"
        raise ValueError(f"{data.name} has scores, and the model has {outputs} outputs; {hint}")
    for name, part in (("train", data.train), ("validation", data.validation)):
        if not len(part):
            raise ValueError(f"{data.name}, {name}: the part has no samples")
        try:
            part.check(min(len(data.classes), outputs))
        except ValueError as error:
            raise ValueError(f"{data.name}, {name}: {error}") from None
