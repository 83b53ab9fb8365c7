"""Diagnosing & Re-learning: pull overtrained encoders back towards their initial weights."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from vgmr.balancing.base import Balancing, Loop
from vgmr.classifier import Classifier
from vgmr.data.types import MultimodalData
from vgmr.fusion.base import check_sizes, check_weights
from vgmr.inference import encode_all


def purity(cluster: np.ndarray, label: np.ndarray) -> float:
    """Share of samples that belong to the most frequent class of their cluster; two (N,) int64 arrays."""
    counts = np.zeros((cluster.max() + 1, label.max() + 1), np.int64)
    np.add.at(counts, (cluster, label), 1)
    return float(counts.max(1).sum() / len(label))


def encoding_purity(encoding: Tensor, label: Tensor, num_classes: int, starts: int = 10) -> float:
    """Purity of k-means clusters, as many as classes, of encodings (N, d) scaled to -1 to 1 by channel.

    Args:
        starts: of k-means, of which the best counts.
    """
    from sklearn.cluster import KMeans  # takes as long to import as all the rest
    from sklearn.preprocessing import MinMaxScaler

    scaled = MinMaxScaler((-1, 1)).fit_transform(encoding.double().cpu().numpy())
    cluster = KMeans(num_classes, n_init=starts, random_state=0).fit_predict(scaled)
    return purity(cluster, label.cpu().numpy())


def reset_share(gap: float, strength: float = 3.0) -> float:
    """a = tanh(strength gap), the part of the way back to the initial weights."""
    return math.tanh(strength * gap)


class Relearning(Balancing):
    """Diagnosing and re-learning (Wei et al., ECCV 2024).

    Trains plainly. After every `interval` epochs the purity of each modality's clustered encodings is compared
    between training and validation part; the larger the gap, the farther the branch goes back to its initial
    weights. A branch is the modality's own layers and pre-fusion maps: a shared encoder, heads and buffers are
    never reset, so with the Transformer backbone only the linear maps are. It sees the validation labels, never
    those of the test part. Defined for every head, and for one modality.

    Args:
        strength: lambda.
        interval: resets come after epoch `interval`, 2 `interval`, ..., counted from 0.
        times: at most so many.
        size_matched: diagnose as many training samples as there are validation samples, since small parts seem
            purer; the official code takes all (False).
        reset_state: also forget the optimiser's state of the branches, advisable with AdamW; the official code
            does not.
        starts: of each k-means; 10, where the official call takes scikit-learn's default of its day (today 1).
    """

    regression = False
    resets: Tensor

    def __init__(
        self,
        strength: float = 3.0,
        interval: int = 20,
        times: int = 3,
        size_matched: bool = True,
        reset_state: bool = False,
        starts: int = 10,
    ):
        super().__init__()
        check_sizes(interval=interval, starts=starts)
        check_weights(strength=strength, times=times)
        self.starts = starts
        self.strength, self.interval, self.times = strength, interval, times
        self.size_matched, self.reset_state = size_matched, reset_state

    def start(self, model: Classifier, data: MultimodalData, epochs: int, seed: int) -> None:
        super().start(model, data, epochs, seed)
        for what, part in (("training", data.train), ("validation", data.validation)):
            if len(part) < len(data.classes):
                raise ValueError(
                    f"Relearning clusters the {what} part into {len(data.classes)} classes and needs as many "
                    f"samples, got {len(part)}; use larger parts or another method"
                )
        self.seed = seed
        for name in self.names:
            for position, parameter in enumerate(model.branch_parameters(name)):
                self.register_buffer(f"initial_{position}_{name}", parameter.detach().clone())
        self.register_buffer("resets", torch.zeros((), dtype=torch.int64))

    def epoch_end(self, model: Classifier, data: MultimodalData, epoch: int, loop: Loop) -> None:
        if epoch == 0 or epoch % self.interval or int(self.resets) >= self.times:
            return
        self.resets += 1
        self.reset(model, self.gaps(model, data), loop.optimizer)

    def gaps(self, model: Classifier, data: MultimodalData) -> dict[str, float]:
        """|purity in training - purity in validation| by modality."""
        train = data.train
        if self.size_matched and len(data.validation) < len(train):
            generator = torch.Generator().manual_seed(self.seed)
            rows = torch.randperm(len(train), generator=generator)[: len(data.validation)]
            train = train.index(rows.to(train.label.device))
        found: dict[str, list[float]] = {name: [] for name in self.names}
        for part in (train, data.validation):
            encodings = encode_all(model, part)
            for name in self.names:
                found[name].append(encoding_purity(encodings[name], part.label, len(data.classes), self.starts))
        return {name: abs(seen - unseen) for name, (seen, unseen) in found.items()}

    @torch.no_grad()
    def reset(self, model: Classifier, gaps: dict[str, float], optimizer: torch.optim.Optimizer) -> None:
        """Move each branch the share `reset_share` of its gap back to where it began."""
        shares = {name: reset_share(gaps[name], self.strength) for name in self.names}
        self.note({name: torch.tensor(share) for name, share in shares.items()})
        for name, share in shares.items():
            for position, parameter in enumerate(model.branch_parameters(name)):
                initial = self.get_buffer(f"initial_{position}_{name}")
                parameter.copy_(share * initial + (1 - share) * parameter)
                if self.reset_state:
                    optimizer.state.pop(parameter, None)
