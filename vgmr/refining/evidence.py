"""What each modality says by itself, judged by anchors that did not see the sample.

The evidence of the calibrated form. The paper compares summaries whose axes nothing ties together. Here modalities
are compared in the one space where agreement means something, that of the classes. Everything is fitted once,
before the training, and then fixed.

Axes: B samples, T steps, d features, P pooled features, K folds, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgmr.refining.inputs import check_targets, whole

SUPPORTED = 1e-3  # of an agreement, in 0 to 1; below it a difference of float32 is too coarse
DECAYS = (0.3, 0.1, 0.03, 0.01)  # tried in this order, each starting where the last one ended


def pooled(x: Tensor, mask: Tensor | None, frequencies: int) -> tuple[Tensor, Tensor]:
    """How a sequence runs, without its labels: (B, T, d) -> shape (B, frequencies * d) and roughness (B, 2 d).

    The shape holds means of x_t cos(pi k u_t) over real steps, with u_t in 0 to 1 the place in the sequence; k = 0
    is the mean. The roughness holds the deviation over time and the mean of |x_t - x_{t-1}|: noise that leaves the
    mean alone shows there. `x` must be zero where the mask is False.
    """
    steps = x.shape[1]
    if steps == 1:
        order = torch.arange(frequencies, device=x.device)
        wave = (order % 2 == 0) * (1 - order % 4)  # cos(pi k / 2), at the middle of the sequence
        return (wave[:, None] * x).flatten(1), x.new_zeros(x.shape[0], 2 * x.shape[2])
    order = torch.arange(frequencies, device=x.device, dtype=x.dtype)
    jump = (x[:, 1:] - x[:, :-1]).abs_()
    if mask is None:
        place = (torch.arange(steps, device=x.device, dtype=x.dtype) + 0.5) / steps
        waves = torch.cos(math.pi * order[:, None] * place) / steps
        jump = jump.mean(1)
        shape, square = torch.matmul(waves, x), (x * x).mean(1)
    else:
        real = mask.to(x.dtype)
        length = real.sum(1, keepdim=True)
        place = (real.cumsum(1) - 0.5) / length
        share = (real / length).unsqueeze(1)
        waves = torch.cos(math.pi * order[:, None] * place.unsqueeze(1)) * share
        pair = real[:, 1:] * real[:, :-1]
        pair = pair / pair.sum(1, keepdim=True).clamp_min(1)
        jump = (pair.unsqueeze(1) @ jump).squeeze(1)
        shape, square = waves @ x, (share @ (x * x)).squeeze(1)
    deviation = (square - shape[:, 0] ** 2).clamp_min(0).sqrt()
    return shape.flatten(1), torch.cat([deviation, jump], 1)


def fold_of(x: Tensor, folds: int) -> Tensor:
    """The fold of each sequence, (B, T, d) -> (B,) int64, from its content alone.

    So a sequence stands in the same fold wherever it turns up, in any batch, padded or swapped into another
    sample, and the anchor of that fold has never seen it. Sums of whole numbers in float64 are exact up to 2**53.
    """
    exact = torch.int64 if x.device.type == "mps" else torch.float64  # MPS has none
    size = max(1, x.shape[1] * x.shape[2])
    some = x.detach().split(len(x) if torch.compiler.is_compiling() else max(1, 2**18 // size))
    return torch.cat([(part * 4096).round_().sum((1, 2), dtype=exact) for part in some]).long() % folds


def relative_agreement(posterior: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Mean over the others of p_m . p_n, divided by that of the best supported modality; name -> (B,) in (0, 1].

    A modality is distrusted because others support each other, not because all are weak. With two modalities it
    is 1 for both: their agreement is the same number, and says that they conflict, never which one lies. So it is
    for all where no two support each other at all.

    Where all are sure of different classes, the others as a difference are lost to rounding: there their support
    is summed pair by pair.
    """
    stacked = torch.stack(list(posterior.values()))  # (M, B, C)
    others = (stacked.sum(0, keepdim=True) - stacked) / (len(stacked) - 1)
    support = (stacked * others).sum(2)
    pairs = (stacked[:, None] * stacked).sum(3)  # no product of matrices, which autocast would round
    little = pairs.masked_fill(torch.eye(len(stacked), dtype=torch.bool, device=pairs.device)[..., None], 0).sum(1)
    least = little.amax(0)
    sure = torch.where(least >= torch.finfo(least.dtype).tiny, little / least, 1.0)
    relative = torch.where(support.amax(0) > SUPPORTED, support / support.amax(0), sure)
    return dict(zip(posterior, relative, strict=True))


class Anchor(nn.Module):
    """K linear classifiers of one modality's pooled features, each fitted without one fold; and what is typical.

    All its tensors are buffers: fitted by `prepare`, never by a gradient. Before that every posterior is uniform
    and every sample typical.
    """

    centre: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor
    usual: Tensor
    spread: Tensor
    distance: Tensor

    def __init__(self, dim: int, num_classes: int, folds: int, frequencies: int):
        super().__init__()
        self.frequencies = frequencies
        width = (frequencies + 2) * dim
        self.register_buffer("centre", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.register_buffer("weight", torch.zeros(folds, width, num_classes))
        self.register_buffer("bias", torch.zeros(folds, num_classes))
        self.register_buffer("usual", torch.zeros(2 * dim))
        self.register_buffer("spread", torch.full((2 * dim,), torch.inf))
        self.register_buffer("distance", torch.tensor([0.0, 1.0]))

    def forward(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Posterior (B, C), the mean over folds, typicality (B,) and that of each channel (B, d), in (0, 1)."""
        return self.judge(*pooled(x, mask, self.frequencies))

    def judge(self, shape: Tensor, roughness: Tensor, fold: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """The same from what `pooled` gives, and the sequences' folds (B,), if they stood in the training part."""
        features = (torch.cat([shape, roughness], 1) - self.centre) / self.scale
        folds, width, classes = self.weight.shape
        logits = features @ self.weight.transpose(0, 1).reshape(width, folds * classes) + self.bias.flatten()
        logits = logits.unflatten(1, (folds, classes))
        if fold is None:
            posterior = logits.softmax(2).mean(1)
        else:
            posterior = logits.gather(1, fold[:, None, None].expand(-1, 1, classes)).squeeze(1).softmax(1)
        away = self.away(roughness)
        channel = torch.sigmoid(4 - away.unflatten(1, (2, -1)).mean(1).sqrt())
        return posterior, torch.sigmoid(4 - self.surprise(away)), channel

    def away(self, roughness: Tensor) -> Tensor:
        """Squared distance of each channel's roughness from the usual, in deviations; (B, 2 d)."""
        return ((torch.log(roughness + 0.05) - self.usual) / self.spread).square()

    def surprise(self, away: Tensor) -> Tensor:
        """How far the whole sequence lies from the usual, in deviations of the training part's own; (B,)."""
        return (torch.log(away.mean(1) + 0.05) - self.distance[0]) / self.distance[1]

    @torch.no_grad()
    def prepare(self, x: Tensor, mask: Tensor | None, label: Tensor) -> None:
        """Fit to a training part: (N, T, d), (N, T) and (N,) int64."""
        shape, roughness = pooled(x, mask, self.frequencies)
        features = torch.cat([shape, roughness], 1)
        deviation = features.std(0, correction=0)
        self.centre.copy_(features.mean(0))
        self.scale.copy_(torch.where(deviation > 1e-6, deviation, 1.0))
        folds, _, classes = self.weight.shape
        fold = fold_of(x, folds)
        weight, bias = out_of_fold_regression((features - self.centre) / self.scale, label, fold, folds, classes)
        self.weight.copy_(weight)
        self.bias.copy_(bias)
        self.usual.zero_()
        self.spread.fill_(torch.inf)
        self.distance.copy_(self.distance.new_tensor([0.0, 1.0]))
        if x.shape[1] > 1 and (mask is None or int(mask.sum(1).max()) > 1):
            level = torch.log(roughness + 0.05)
            self.usual.copy_(level.mean(0))
            self.spread.copy_(level.std(0, correction=0).clamp_min(0.05))
            surprise = self.surprise(self.away(roughness))
            self.distance.copy_(torch.stack([surprise.mean(), surprise.std(correction=0).clamp_min(1e-3)]))


def out_of_fold_regression(
    features: Tensor, label: Tensor, fold: Tensor, folds: int, classes: int, steps: int = 40
) -> tuple[Tensor, Tensor]:
    """Multinomial logistic regressions, the k-th without the rows of fold k: weights (K, P, C), biases (K, C).

    All share the one weight decay of `DECAYS` that predicts the left-out rows best (cross-entropy).

    Args:
        features: (N, P), standardised.
        label: (N,) int64.
        fold: (N,) int64, 0 to K - 1.
        steps: of L-BFGS at each decay.
    """
    seen = (fold != torch.arange(folds, device=fold.device).unsqueeze(1)).to(features.dtype)  # (K, N)
    share = seen / seen.sum(1, keepdim=True).clamp_min(1)
    weight = features.new_zeros(folds, features.shape[1], classes)
    bias = features.new_zeros(folds, classes)
    truth = F.one_hot(label, classes).to(features.dtype)
    best, kept = math.inf, (weight, bias)
    for decay in DECAYS:
        weight, bias = weight.clone().requires_grad_(), bias.clone().requires_grad_()
        stepper = torch.optim.LBFGS([weight, bias], max_iter=steps, line_search_fn="strong_wolfe")

        def log_posterior(weight: Tensor = weight, bias: Tensor = bias) -> Tensor:
            return (features @ weight + bias.unsqueeze(1)).log_softmax(2)  # (K, N, C)

        def closure(
            weight: Tensor = weight,
            bias: Tensor = bias,
            stepper: torch.optim.Optimizer = stepper,
            decay: float = decay,
        ) -> Tensor:
            stepper.zero_grad()
            loss = -(torch.einsum("knc,nc->kn", log_posterior(weight, bias), truth) * share).sum()
            loss = loss + 0.5 * decay * weight.square().sum()
            loss.backward()
            return loss

        with torch.enable_grad():
            stepper.step(closure)
        weight, bias = weight.detach(), bias.detach()
        answer = torch.einsum("knc,nc->kn", log_posterior(weight, bias), truth)
        score = -float((answer * (1 - seen)).sum() / len(label))
        if score < best:
            best, kept = score, (weight, bias)
    return kept


Judgement = tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]  # by name, as `judge` gives them


def by_name(
    judged: Mapping[str, tuple[Tensor, Tensor, Tensor]],
) -> Judgement:
    """Triples by name to three dicts by name."""
    first, second, third = ({name: one[k] for name, one in judged.items()} for k in range(3))
    return first, second, third


class Judged(dict[str, Tensor]):
    """Means over time of training sequences, (N, 1, d) by name, with what anchors said of the sequences.

    Attributes:
        by: `Evidence.fitting` of the anchors that judged.
        judgement: what `VGMR.judge` gave.
    """

    def __init__(self, means: Mapping[str, Tensor], by: object, judgement: Judgement):
        super().__init__(means)
        self.by, self.judgement = by, judgement

    def judgement_of(self, evidence: Evidence | None) -> Judgement:
        """The judgement, or ValueError where it is not that of `evidence`, or of an earlier fit of it."""
        if evidence is None or evidence.fitting is not self.by:
            raise ValueError("features: these are means with the values of other anchors; give the sequences")
        return self.judgement

    def taken(self, take: Callable[[Tensor], Tensor]) -> Judged:
        """Some of the samples: those that `take` takes of a tensor, as in `Batch.index`."""
        means, *judgement = (
            {name: take(x) for name, x in tensors.items()} for tensors in (dict(self), *self.judgement)
        )
        posterior, value, channel = judgement
        return Judged(means, self.by, (posterior, value, channel))


class Evidence(nn.Module):
    """The anchors of all modalities.

    Args:
        dims: feature dimension by modality name.
        num_classes: C.
        folds: K; a training sequence is judged by the anchor that was fitted without its fold.
        frequencies: of the pooled shape; 1 for single vectors.
    """

    def __init__(self, dims: Mapping[str, int], num_classes: int, folds: int = 4, frequencies: int = 6):
        super().__init__()
        num_classes, frequencies = whole("num_classes", num_classes), whole("evidence_frequencies", frequencies)
        if num_classes < 2 or folds < 2:
            raise ValueError(
                f"num_classes: anchors need at least 2 classes and 2 folds, got {num_classes} and {folds}; scores "
                "are cut into as many parts as there are classes"
            )
        self.num_classes, self.frequencies = num_classes, frequencies
        self.fitting = object()  # another one after each `prepare`
        self.anchors = nn.ModuleDict(
            {name: Anchor(dim, num_classes, folds, frequencies) for name, dim in dims.items()}
        )

    def prepare(self, features: Mapping[str, Tensor], mask: Mapping[str, Tensor | None], label: Tensor) -> None:
        """Fit every anchor to a training part; real numbers as labels are cut into C parts of like size.

        In training a sample is known by its content, see `fold_of`: give there what was given here, not the same
        rounded to another type.

        Raises:
            ValueError: labels that are no tensor (N,), too few, not finite, or no classes from 0 to C - 1; float16
                features, in which no anchor can be fitted.
        """
        check_targets(label, len(next(iter(features.values()))), self.num_classes)
        if half := [name for name, x in features.items() if x.dtype == torch.float16]:
            raise ValueError(
                f"{half[0]}: anchors are fitted in float32 or bfloat16, got float16; call half() after training"
            )
        if label.is_floating_point():
            inner = torch.linspace(0, 1, self.num_classes + 1, device=label.device, dtype=label.dtype)[1:-1]
            label = torch.bucketize(label, label.quantile(inner))
        if any(x.is_inference() for x in self.buffers()):
            raise ValueError("anchors: this model was made in inference mode and cannot learn; make it outside")
        # neither in mixed precision nor in inference mode
        with torch.inference_mode(False), torch.autocast(label.device.type, enabled=False):
            for name, x in features.items():
                self._of(name).prepare(x, mask[name], label)
        self.fitting = object()

    @torch.no_grad()
    def describe(
        self, features: Mapping[str, Tensor], mask: Mapping[str, Tensor | None]
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """What `pooled` gives of each modality, without gradient."""
        return {name: pooled(x.detach(), mask[name], self.frequencies) for name, x in features.items()}

    @torch.no_grad()
    def judge(
        self, described: Mapping[str, tuple[Tensor, Tensor]], trained: Mapping[str, Tensor] | None = None
    ) -> Judgement:
        """Posteriors (B, C), typicalities (B,) and those of channels (B, d) by name, without gradient.

        Args:
            described: what `describe` gives.
            trained: the features where they may stand in the training part; then by anchors that never saw them.
        """
        judged = {}
        for name, pair in described.items():
            anchor = self._of(name)
            fold = None if trained is None else fold_of(trained[name], len(anchor.weight))
            judged[name] = anchor.judge(*pair, fold)
        return by_name(judged)

    def judged(
        self,
        features: Mapping[str, Tensor],
        mask: Mapping[str, Tensor | None],
        judge: Callable[[Mapping[str, tuple[Tensor, Tensor]], Mapping[str, Tensor]], Judgement],
    ) -> Judged:
        """A training part as its means and what `VGMR.judge` gives, which stay what they are as weights change."""
        described = self.describe(features, mask)
        means = {name: described[name][0][:, None, : x.shape[2]].contiguous() for name, x in features.items()}
        return Judged(means, self.fitting, judge(described, features))

    def _of(self, name: str) -> Anchor:
        anchor = self.anchors[name]
        assert isinstance(anchor, Anchor)
        return anchor
