"""Gradients along a training: how modalities agree, what a balancing method makes of them, loss landscapes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import combinations, permutations

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgmr.balancing import ARL, Balancing, Relearning
from vgmr.classifier import Classifier
from vgmr.data.types import Batch
from vgmr.experiment import experiment_data, train
from vgmr.fusion.base import evaluating
from vgmr.inference import mean_loss
from vgmr.loop.steps import make_optimizer
from vgmr.objective import Objective
from vgmr.settings import Experiment

WATCHED = 64  # samples, evenly out of the training part, on which the gradients are compared


def common_parameters(model: Classifier) -> list[nn.Parameter]:
    """What eq. 14 is about: positions, shared encoder and head, without maps of one modality and the refiner."""
    return [*model.backbone.shared_parameters(), *model.backbone.head_parameters()]


def gradients(
    model: Classifier,
    batch: Batch,
    keeps: Sequence[Collection[str]],
    parameters: Sequence[nn.Parameter] | None = None,
    through: Sequence[Collection[str]] | None = None,
) -> list[Tensor]:
    """Gradients (P,) of the task loss in evaluation mode, flat, one for each of `keeps`, from one forward pass.

    Args:
        keeps: modalities that reach the fusion. VGMR still sees all of them.
        parameters: with respect to which, `common_parameters` by default; zero where one has no part in it.
        through: for each of `keeps`, the modalities whose encodings pass gradients on, None for all of them; the
            others' count as constants.
    """
    parameters = common_parameters(model) if parameters is None else parameters
    found = []
    with evaluating(model), torch.enable_grad():
        encodings = model(batch.features, batch.mask).encodings
        for keep, passing in zip(keeps, keeps if through is None else through, strict=True):
            used = {name: h if name in passing else h.detach() for name, h in encodings.items()}
            loss = F.cross_entropy(model.backbone.fuse(used, keep, batch.mask), batch.label)
            parts = torch.autograd.grad(
                loss, parameters, retain_graph=True, allow_unused=True, materialize_grads=True
            )
            found.append(torch.cat([part.flatten() for part in parts]))
    return found


def cosine(first: Tensor, second: Tensor) -> float:
    """Cosine of the angle between two (P,) gradients, eq. 14; NaN where one of them is zero."""
    first, second = first.double(), second.double()
    return float(first @ second / (first.norm() * second.norm()))


def permuted(batch: Batch, name: str, order: Tensor) -> Batch:
    """The same batch with the rows of one modality in another `order` (B,), apart from their labels."""
    features = batch.features | {name: batch.features[name][order]}
    return Batch(features, batch.mask | {name: batch.mask[name][order]}, batch.label, batch.group)


def gradient_cosines(model: Classifier, batch: Batch) -> pd.DataFrame:
    """Eq. 14 for every ordered pair of modalities: one row per pair.

    Columns: one, other; cosine, between the gradients of the loss with `one` kept and of the loss with both kept;
    own, the part of that cosine that the second gradient gets through the encoding of `one`, so that
    cosine - own came through `other`; shuffled, the cosine on a batch where the rows of `other` are permuted.
    """
    order = torch.randperm(len(batch), generator=torch.Generator().manual_seed(0)).to(batch.label.device)
    rows = []
    for other in batch.features:
        ones = [name for name in batch.features if name != other]
        alone, together = [[one] for one in ones], [[one, other] for one in ones]
        true = gradients(model, batch, [*alone, *together, *together], through=[*alone, *together, *alone])
        mixed = gradients(model, permuted(batch, other, order), [*alone, *together])
        for index, one in enumerate(ones):
            single, both, passing = true[index :: len(ones)]
            rows.append(
                {
                    "one": one,
                    "other": other,
                    "cosine": cosine(single, both),
                    "own": cosine(single, passing) * float(passing.norm() / both.norm()),
                    "shuffled": cosine(*mixed[index :: len(ones)]),
                }
            )
    return pd.DataFrame(rows)


def halves(label: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Rows (N,) in two random halves, sizes at most one apart, of every class and in all.

    Raises:
        ValueError: fewer than two rows.
    """
    if len(label) < 2:
        raise ValueError(f"expected at least two samples to halve, got {len(label)}")
    order = torch.randperm(len(label), generator=generator)
    rows = order[label.cpu()[order].argsort(stable=True)].to(label.device)
    return rows[::2], rows[1::2]


def split_measures(single: tuple[Tensor, Tensor], both: tuple[Tensor, Tensor]) -> dict[str, float]:
    """Cosine of two gradients, each known from two halves of the samples, with what sampling alone takes off.

    raw: mean cosine of one's gradient in a half and the other's in the *other* half, as noise that the two share
    within a half would raise it; baseline: cosine between the halves of `both`, below 1 by sampling alone;
    adjusted: raw - baseline; disattenuated: the mean product across halves over the root of the products within
    each gradient, an estimate of the cosine without sampling noise, NaN where that root is of no positive number.

    Args:
        single, both: (P,) gradients of each half.
    """
    (a, b), (c, d) = ([half.double() for half in pair] for pair in (single, both))
    raw = (cosine(a, d) + cosine(b, c)) / 2
    baseline, within = cosine(c, d), float(a @ b) * float(c @ d)
    across = float(a @ d + b @ c) / 2
    clean = across / within**0.5 if float(a @ b) > 0 and float(c @ d) > 0 else float("nan")
    return {"raw": raw, "baseline": baseline, "adjusted": raw - baseline, "disattenuated": clean}


def half_cosines(model: Classifier, first: Batch, second: Batch) -> pd.DataFrame:
    """`split_measures` of two given halves, one row per ordered pair of modalities and group of parameters.

    Columns: one, other, group ("all" of `common_parameters`, "shared" encoder and positions, where there are any,
    "head"), raw, baseline, adjusted, disattenuated.
    """
    names, parameters = list(first.features), common_parameters(model)
    keeps = [(name,) for name in names] + [*combinations(names, 2)]
    shared = sum(parameter.numel() for parameter in model.backbone.shared_parameters())
    groups = {"all": slice(None)} | ({"shared": slice(shared), "head": slice(shared, None)} if shared else {})
    found = [dict(zip(keeps, gradients(model, half, keeps, parameters), strict=True)) for half in (first, second)]
    rows = []
    for one, other in permutations(names, 2):
        pair = (one, other) if (one, other) in found[0] else (other, one)
        for group, place in groups.items():
            single = found[0][(one,)][place], found[1][(one,)][place]
            both = found[0][pair][place], found[1][pair][place]
            rows.append({"one": one, "other": other, "group": group, **split_measures(single, both)})
    return pd.DataFrame(rows)


def half_split(model: Classifier, batch: Batch, seed: int = 0, repeats: int = 10) -> pd.DataFrame:
    """Eq. 14 with the half-split baseline of Uni-X: `half_cosines` of random halves, alike in their classes.

    A cosine between gradients of finitely many samples is below 1 without any conflict; the baseline says how far.
    Unlike in the public code all halves are of one size. A model with noisier gradients has a lower baseline and a
    smaller difference to it, so raw, baseline and disattenuated belong side by side.

    Returns the columns of `half_cosines`, and repeat.
    """
    generator = torch.Generator().manual_seed(seed)
    tables = []
    for repeat in range(repeats):
        first, second = (batch.index(rows) for rows in halves(batch.label, generator))
        tables.append(half_cosines(model, first, second).assign(repeat=repeat))
    return pd.concat(tables, ignore_index=True)


def gradient_norms(model: Classifier, batch: Batch) -> dict[str, float]:
    """Norm of the task loss's gradient by each modality's own part of the backbone, alike behind any refiner."""
    own = {
        name: [p for module in model.backbone.branch_modules(name) for p in module.parameters()]
        for name in model.backbone.dims
    }
    every = [parameter for parameters in own.values() for parameter in parameters]
    (flat,) = gradients(model, batch, [list(own)], every)
    sizes = [sum(parameter.numel() for parameter in parameters) for parameters in own.values()]
    return {name: float(part.norm()) for name, part in zip(own, flat.split(sizes), strict=True)}


def snapshot(model: Classifier, train: Batch, validation: Batch) -> dict[str, pd.DataFrame]:
    """All that is followed along a training, at one checkpoint: tables losses, cosines and norms.

    Columns: losses train_loss, validation_loss (task loss, nats); cosines as by `gradient_cosines`; norms
    modality, norm, as by `gradient_norms`. Gradients are those on `validation`.
    """
    norms = gradient_norms(model, validation)
    return {
        "losses": pd.DataFrame(
            {"train_loss": [mean_loss(model, train)], "validation_loss": [mean_loss(model, validation)]}
        ),
        "cosines": gradient_cosines(model, validation),
        "norms": pd.DataFrame({"modality": list(norms), "norm": list(norms.values())}),
    }


def filter_direction(parameters: Sequence[nn.Parameter], seed: int) -> list[Tensor]:
    """A random direction whose rows are as long as those of the weights (Li et al., 2018).

    It is zero for vectors, such as biases and norms. Distance 1 along it changes weights by as much as they are.
    """
    generator = torch.Generator().manual_seed(seed)
    direction = []
    for parameter in parameters:
        drawn = torch.randn(parameter.shape, generator=generator).to(parameter)
        if parameter.ndim < 2:
            direction.append(torch.zeros_like(drawn))
            continue
        length = [tensor.flatten(1).norm(dim=1).clamp(min=1e-12) for tensor in (parameter.detach(), drawn)]
        scale = (length[0] / length[1]).view(-1, *[1] * (parameter.ndim - 1))
        direction.append(drawn * scale)
    return direction


@torch.no_grad()
def loss_slice(
    loss: Callable[[], float],
    parameters: Sequence[nn.Parameter],
    directions: Sequence[Sequence[Tensor]],
    points: Sequence[Sequence[float]],
) -> list[float]:
    """The loss at `parameters` + sum of coordinate times direction; the parameters are put back.

    Args:
        loss: called once per point.
        directions: each as long as `parameters`, such as from `filter_direction`.
        points: coordinates, one for each direction.
    """
    start = [parameter.clone() for parameter in parameters]
    losses = []
    try:
        for point in points:
            for index, (parameter, origin) in enumerate(zip(parameters, start, strict=True)):
                step = sum(x * direction[index] for x, direction in zip(point, directions, strict=True))
                parameter.copy_(origin + step)
            losses.append(loss())
    finally:
        for parameter, origin in zip(parameters, start, strict=True):
            parameter.copy_(origin)
    return losses


def roughness(curve: Sequence[float], order: int = 2) -> float:
    """Mean absolute difference of a curve, by default the second one: 0 for a straight line; NaN if too short.

    Order 1 is the mean change from one point to the next.
    """
    change = np.abs(np.diff(np.asarray(curve, float), order))
    return float(change.mean()) if len(change) else float("nan")


def detour(curve: Sequence[float]) -> float:
    """Way up and down a curve per its range, from highest to lowest: 1 if it turns nowhere."""
    values = np.asarray(curve, float)
    if not np.ptp(values):
        return 1.0
    return float(np.abs(np.diff(values)).sum() / np.ptp(values))


def sign_changes(curve: Sequence[float]) -> float:
    """Share of steps at which a curve changes its sign, 0 to 1; zero counts as positive."""
    return float(np.diff(np.asarray(curve) >= 0).mean())


def branch_gradients(model: Classifier, method: Balancing, batch: Batch, epoch: int) -> dict[str, Tensor]:
    """The gradient that `method` leaves in each modality's branch after one step on `batch`, as one vector.

    Copies take the step, so model, method and random state stay as they are; `method` must have been started.
    """
    copied, own = copy.deepcopy(model).train(), copy.deepcopy(method)
    still = torch.optim.SGD([*copied.parameters(), *own.parameters()], lr=0.0)
    with torch.random.fork_rng():
        own.step(copied, batch, Objective(), still, epoch)
    found = {}
    for name in copied.backbone.dims:
        branch = copied.branch_parameters(name)
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in branch]
        found[name] = torch.cat([part.flatten() for part in parts])
    return found


def gradient_change(model: Classifier, method: Balancing, batch: Batch, epoch: int) -> pd.DataFrame:
    """What a balancing method makes of the gradients of one step, against plain training at the same weights.

    One row per modality: modality, epoch, length (of the branch's gradient, 1 as in plain training), cosine (of
    the angle between the two). The random state is the same for both.
    """
    plain = branch_gradients(model, Balancing(), batch, epoch)
    balanced = branch_gradients(model, method, batch, epoch)
    return pd.DataFrame(
        [
            {
                "modality": name,
                "epoch": epoch,
                "length": float(balanced[name].norm() / plain[name].norm().clamp(min=1e-30)),
                "cosine": float(torch.cosine_similarity(balanced[name], plain[name], dim=0)),
            }
            for name in plain
        ]
    )


def movement(
    model: Classifier,
    batches: Sequence[Batch],
    name: str,
    optimizer: str,
    learning_rate: float,
    scale: float = 1.0,
    noise: float = 0.0,
    on_update: bool = False,
) -> Tensor:
    """How far one modality's weights move in a step per batch when their gradients are scaled, as one vector.

    The gradients are those of the cross-entropy at the initial weights, batch by batch, so that every call meets
    the same ones, without dropout; other weights stay. There is no weight decay.

    Args:
        name: the modality whose `Classifier.modulable` weights move.
        scale: constant factor of the gradients.
        noise: standard deviation of what is added to each gradient, in standard deviations of the unscaled one.
        on_update: scale what the optimiser does instead of the gradient.
    """
    still, moved = copy.deepcopy(model).eval(), copy.deepcopy(model)
    gradients: list[tuple[Tensor, ...]] = []
    for batch in batches:
        loss = F.cross_entropy(still(batch.features, batch.mask).logits, batch.label)
        gradients.append(torch.autograd.grad(loss, still.modulable(name)))
    own = moved.modulable(name)
    before = torch.cat([weight.detach().flatten() for weight in own])
    stepper = make_optimizer(optimizer, moved, learning_rate, weight_decay=0.0)
    generator = torch.Generator().manual_seed(0)
    for step in gradients:
        for weight, gradient in zip(own, step, strict=True):
            draw = torch.randn(gradient.shape, generator=generator)
            weight.grad = (1.0 if on_update else scale) * gradient + noise * gradient.std() * draw
        start = [weight.detach().clone() for weight in own]
        stepper.step()
        if on_update:
            with torch.no_grad():
                for weight, old in zip(own, start, strict=True):
                    weight.copy_(torch.lerp(old, weight, scale))
    return torch.cat([weight.detach().flatten() for weight in own]) - before


def _watched(experiment: Experiment) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What a method noted, mean over the steps of each epoch of a training, and `gradient_change` after each."""
    data = experiment_data(experiment)
    batch = data.train.index(torch.linspace(0, len(data.train) - 1, WATCHED).long())
    changes: list[pd.DataFrame] = []
    methods: list[Balancing] = []

    def look(epoch: int, model: Classifier, method: Balancing) -> None:
        device = next(model.parameters()).device
        changes.append(gradient_change(model, method, batch.to(device), epoch))
        methods.append(method)

    found = train(experiment, watch=look)
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
    return pd.DataFrame(rows, columns=["modality", "epoch", "value"]), pd.concat(changes, ignore_index=True)


def acts(experiments: Mapping[str, Experiment]) -> pd.DataFrame:
    """What balancing methods do in trainings that are not kept: label, measure, modality, epoch, value.

    The measure is "set" (what the method noted), "length" or "cosine" (of `gradient_change`).
    """
    frames = []
    for label, experiment in experiments.items():
        noted, changes = _watched(experiment)
        changes = changes.melt(["modality", "epoch"], var_name="measure")
        frames += [each.assign(label=label) for each in (noted.assign(measure="set"), changes)]
    table = pd.concat(frames, ignore_index=True)[["label", "measure", "modality", "epoch", "value"]]
    return table.astype({"epoch": int, "value": float})
