"""Slow literal trainings: one sample at a time, in float64, by plain loops, to hold the methods against.

`Literal` is plain training of a small model; a subclass writes down one method as its equations read. `follow`
takes the same steps with the library and with its literal form and compares every parameter after each.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from vgmr.backbones import PooledBackbone
from vgmr.balancing import Balancing, Loop
from vgmr.classifier import Classifier
from vgmr.data import Batch, MultimodalData
from vgmr.fusion.heads import TensorHead
from vgmr.loop.steps import make_optimizer
from vgmr.objective import Objective
from vgmr.refining.refinement import Refinement

RATE, DECAY, MOMENTUM = 0.3, 0.02, 0.9


@contextmanager
def doubles() -> Iterator[None]:
    """All that is made within is float64."""
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


class Doubling(nn.Module):
    """Before fusion: the features as they are, in float64."""

    def __init__(self, dims):
        super().__init__()
        self.dims = dims

    def forward(self, features, mask=None):
        return Refinement({name: x.double() for name, x in features.items()})


class WithCommonLayer(PooledBackbone):
    """A layer of each modality's own, one that serves them all, and a head."""

    def __init__(self, dims, num_outputs, width, head):
        super().__init__(dims, num_outputs, width, 0.0, "concat" if head == "tensor" else head)
        self.common = nn.Linear(width, width)
        if head == "tensor":
            self.head, self.readout = TensorHead(dims, width, num_outputs, rank=2), head

    def encode_one(self, name, x, mask):
        return torch.tanh(self.common(super().encode_one(name, x, mask)))

    def shared_parameters(self):
        return list(self.common.parameters())


def draw(seed: int, classes: int = 3, head: str = "concat") -> tuple[Classifier, MultimodalData]:
    """A model and data of random sizes and padding: two modalities for even seeds, three for odd ones.

    With `classes` 0 the labels are scores. The names' order is not the alphabet's.
    """
    chance = torch.Generator().manual_seed(seed)

    def whole(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=chance))

    shapes = {name: (whole(1, 4), whole(2, 4)) for name in ("sound", "text", "image")[: 2 + seed % 2]}

    def part(count: int) -> Batch:
        features, masks = {}, {}
        for name, (steps, dim) in shapes.items():
            length = torch.randint(1, steps + 1, (count, 1), generator=chance)
            masks[name] = torch.arange(steps) < length
            x = torch.randn(count, steps, dim, generator=chance, dtype=torch.float32)
            features[name] = x * masks[name].unsqueeze(2)
        label = torch.randn(count, generator=chance, dtype=torch.float32)
        if classes:
            label = (torch.arange(count) % classes)[torch.randperm(count, generator=chance)]
        return Batch(features, masks, label)

    parts = [part(whole(10, 13)) for _ in range(3)]
    names = tuple(f"class {index}" for index in range(classes))
    data = MultimodalData("drawn", *parts, names, "a generator", "none", "none")
    torch.manual_seed(seed)
    dims = {name: dim for name, (_, dim) in shapes.items()}
    width = whole(4, 9)
    model = Classifier(Doubling(dims), WithCommonLayer(dims, classes or 1, width, head))
    if head == "concat":  # one modality leads
        model.backbone.head.linear.weight.data[:, :width] *= 15
    return model, data


def mean(values):
    """Of a list of numbers or tensors."""
    return sum(values) / len(values)


def probabilities(z: Tensor) -> Tensor:
    """Softmax of the logits (C,) of one sample."""
    return z.exp() / z.exp().sum()


def cross_entropy(z: Tensor, y: int) -> Tensor:
    """Of the logits (C,) of one sample and its class."""
    return -probabilities(z)[y].log()


def mean_cross_entropy(answers: Iterable[Tensor], label: Tensor) -> Tensor:
    """Over samples."""
    return mean([cross_entropy(z, y) for z, y in zip(answers, label, strict=True)])


def entropy(z: Tensor) -> Tensor:
    """Of what the logits (C,) of one sample predict, in nats."""
    return -sum(p * p.log() for p in probabilities(z))


def length(*tensors: Tensor) -> Tensor:
    """Euclidean norm of all entries together."""
    return sum((x * x).sum() for x in tensors).sqrt()


def signal_times(x: Tensor, factor: float) -> Tensor:
    """`x`, through which a gradient passes back multiplied by `factor`."""
    return factor * x + (1 - factor) * x.detach()


class Literal:
    """Plain training by SGD with momentum and weight decay; `terms` or `gradients` is what methods change.

    Attributes:
        p: parameters of the model, and with "method." before their name of the method.
        notes: coefficients by name, one for each time they were made.
    """

    def __init__(self, model: Classifier, method: Balancing, data: MultimodalData):
        self.method, self.data = method, data
        self.names, self.width = list(model.backbone.dims), model.backbone.width
        self.head = model.backbone.readout
        self.p = {name: p.detach().clone().requires_grad_() for name, p in named(model, method).items()}
        self.frozen: set[str] = set()  # parameters that the optimiser never moves
        self.velocity: dict[str, Tensor] = {}
        self.notes: dict[str, list[float]] = {}

    def linear(self, place: str, x: Tensor) -> Tensor:
        return self.p[place + ".weight"] @ x + self.p[place + ".bias"]

    def encode(self, batch: Batch, row: int, name: str) -> Tensor:
        """The vector (width,) of one modality of one sample."""
        x, real = batch.features[name][row].double(), batch.mask[name][row]
        inner = self.linear(f"backbone.encoder.{name}.0", mean([x[step] for step in range(len(x)) if real[step]]))
        inner = inner * (1 + torch.erf(inner / math.sqrt(2))) / 2
        return torch.tanh(self.linear("backbone.common", inner))

    def encode_all(self, batch: Batch) -> list[dict[str, Tensor]]:
        """The vectors of each sample by modality."""
        return [{name: self.encode(batch, row, name) for name in self.names} for row in range(len(batch))]

    def part_of_head(self, name: str, vector: Tensor) -> Tensor:
        """W_m h_m of a concatenation head, whose columns go by the alphabet."""
        first = sorted(self.names).index(name) * self.width
        return self.p["backbone.head.linear.weight"][:, first : first + self.width] @ vector

    def answer(self, vectors: dict[str, Tensor], keep: Collection[str] | None = None) -> Tensor:
        """Logits (C,) of one sample from its vectors, with the modalities `keep` (None: all)."""
        keep = self.names if keep is None else keep
        if self.head == "concat":
            bias = self.p["backbone.head.linear.bias"]
            return sum((self.part_of_head(name, vectors[name]) for name in keep), bias)
        assert self.head == "tensor"
        product = torch.ones(1)
        for name in sorted(self.names):
            narrow = self.linear(f"backbone.head.narrow.{name}", vectors[name])
            part = torch.cat([torch.ones(1), narrow if name in keep else 0 * narrow])
            product = torch.stack([a * b for a in product for b in part])
        return self.linear("backbone.head.linear", product)

    def joint_loss(self, batch: Batch, vectors: list[dict[str, Tensor]]) -> Tensor:
        answers = [self.answer(of_sample) for of_sample in vectors]
        if batch.label.is_floating_point():
            return mean([(z[0] - y.double()).abs() for z, y in zip(answers, batch.label, strict=True)])
        return mean_cross_entropy(answers, batch.label)

    def slopes(self, loss: Tensor) -> dict[str, Tensor]:
        """Gradient of a loss by the name of each parameter that it depends on."""
        names = [name for name in self.p if name not in self.frozen]
        found = torch.autograd.grad(loss, [self.p[name] for name in names], retain_graph=True, allow_unused=True)
        return {name: slope for name, slope in zip(names, found, strict=True) if slope is not None}

    def branch(self, name: str) -> list[str]:
        """Parameters of one modality's own layer."""
        return [f"backbone.encoder.{name}.0.{what}" for what in ("weight", "bias")]

    def note(self, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.notes.setdefault(name, []).append(float(value))

    def terms(self, batch: Batch, vectors: list[dict[str, Tensor]], epoch: int) -> Tensor:
        """What is added to the joint loss."""
        return torch.zeros(())

    def gradients(self, batch: Batch, epoch: int) -> dict[str, Tensor]:
        vectors = self.encode_all(batch)
        return self.slopes(self.joint_loss(batch, vectors) + self.terms(batch, vectors, epoch))

    def move(self, slopes: dict[str, Tensor]) -> None:
        """One step of SGD for the parameters in `slopes`."""
        for name, slope in slopes.items():
            slope = slope + DECAY * self.p[name].detach()
            self.velocity[name] = MOMENTUM * self.velocity.get(name, 0) + slope
            self.p[name] = (self.p[name].detach() - RATE * self.velocity[name]).requires_grad_()

    def epoch_start(self, epoch: int) -> None:
        pass

    def step(self, batch: Batch, epoch: int) -> None:
        self.move(self.gradients(batch, epoch))

    def epoch_end(self, epoch: int) -> None:
        pass


def named(model: Classifier, method: Balancing) -> dict[str, nn.Parameter]:
    return {**dict(model.named_parameters()), **{f"method.{name}": p for name, p in method.named_parameters()}}


def plain_steps(model: Classifier, part: Batch, epochs: int, seed: int) -> None:
    """The trial trainings of `follow`: one step an epoch on the whole part, without momentum."""
    parameters = list(model.parameters())
    for _ in range(epochs):
        loss = nn.functional.cross_entropy(model(part.features, part.mask).logits, part.label)
        slopes = torch.autograd.grad(loss, parameters, allow_unused=True)
        with torch.no_grad():
            for parameter, slope in zip(parameters, slopes, strict=True):
                if slope is not None:
                    parameter -= RATE * slope


def follow(
    method: Balancing,
    literal: type[Literal],
    seed: int,
    *,
    classes: int = 3,
    head: str = "concat",
    epochs: int = 3,
    batches: int = 2,
    tolerance: float = 1e-9,
) -> Literal:
    """Train a drawn model with `method` and its twin by `literal`, and compare them after every step."""
    with doubles():
        model, data = draw(seed, classes, head)
        method.start(model, data, epochs, seed)
        method.double()  # scores come as float32
        part = method.training_part(data)
        optimizer = make_optimizer("sgd", model, RATE, weight_decay=DECAY, method=method)
        loop, objective = Loop(optimizer, plain_steps), Objective(task=data.task)
        twin = literal(model, method, data)
        order = torch.Generator().manual_seed(seed)

        def compare(where: str) -> None:
            for name, parameter in named(model, method).items():
                torch.testing.assert_close(
                    parameter.detach(),
                    twin.p[name].detach(),
                    atol=tolerance,
                    rtol=tolerance,
                    msg=lambda text, name=name: f"{where}, {name}: {text}",
                )

        for epoch in range(epochs):
            method.epoch_start(model, data, epoch, loop)
            twin.epoch_start(epoch)
            compare(f"before epoch {epoch}")
            model.train()
            for index, rows in enumerate(torch.randperm(len(part), generator=order).tensor_split(batches)):
                batch = part.index(rows)
                method.step(model, batch, objective, optimizer, epoch)
                twin.step(batch, epoch)
                compare(f"epoch {epoch}, batch {index}")
            method.epoch_end(model, data, epoch, loop)
            twin.epoch_end(epoch)
            compare(f"after epoch {epoch}")
        for name, value in method.noted().items():
            assert abs(value - mean(twin.notes[name])) < 1e3 * tolerance, name
        batch = data.test
        answers = torch.stack([twin.answer(vectors) for vectors in twin.encode_all(batch)])
        torch.testing.assert_close(
            model.eval()(batch.features, batch.mask).logits, answers, atol=1e-8 + tolerance, rtol=1e-6
        )
    return twin
