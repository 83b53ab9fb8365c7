"""How the information of two modalities about the class splits: redundant, unique to each, synergistic. In bits.

Two ways. `decomposition` takes small tables of counts and the library `dit`: Williams and Beer's I_min (2010),
which takes equal amounts for equal information, and a later measure, I_BROJA (Bertschinger et al., 2014).
`of_features` and `of_samples` take sequences: classifiers that did not see a sample give p(y | x_1), p(y | x_2)
and p(y | x_1, x_2), and what they say splits sample by sample as Ince's common change in surprisal (2017) does.
Classifiers see at most what is there, so its amounts are lower bounds but for chance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations, pairwise
from typing import Any
from warnings import catch_warnings

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from vgmr.analysis.calibration import values
from vgmr.classifier import Classifier
from vgmr.data.types import Batch
from vgmr.inference import shapley_weights, subset_logits, subsets
from vgmr.refining.evidence import pooled

MEASURES = {"I_min": "PID_WB", "I_BROJA": "PID_BROJA"}
# dit looks for I_BROJA, the largest synergy that fits, from a random place, and may end short of it
STARTS = 3
PARTS = ("redundancy", "unique_first", "unique_second", "synergy")


def decomposition(first: Tensor, second: Tensor, target: Tensor, measure: str = "I_min") -> dict[str, float]:
    """The four parts of I(target; first, second), counted from whole numbers, (N,) each; needs the package dit.

    Raises:
        ValueError: an unknown measure.
        ModuleNotFoundError: dit is not installed.
    """
    if measure not in MEASURES:
        raise ValueError(f"unknown measure {measure!r}; there are: {', '.join(MEASURES)}")
    try:
        import dit
        from dit import pid
    except ModuleNotFoundError:
        raise ModuleNotFoundError("decompositions by dit need it: pip install 'vgmr[notebooks]'") from None
    rows, counts = torch.stack([first, second, target], 1).unique(dim=0, return_counts=True)
    outcomes = [tuple(row) for row in rows.tolist()]
    distribution = dit.Distribution(outcomes, (counts / counts.sum()).tolist())
    nodes = (((0,), (1,)), ((0,),), ((1,),), ((0, 1),))
    found, state = [], np.random.get_state()
    try:
        for seed in range(1 if measure == "I_min" else STARTS):
            np.random.seed(seed)
            parts = getattr(pid, MEASURES[measure])(distribution)
            found.append({part: float(parts[node]) for part, node in zip(PARTS, nodes, strict=True)})
    finally:
        np.random.set_state(state)
    return max(found, key=lambda parts: parts["synergy"])


def of_posteriors(
    first: Tensor, second: Tensor, label: Tensor, bins: int = 3, measure: str = "I_min"
) -> dict[str, float]:
    """`decomposition` of two posteriors, (N, C) each: for each class whether it is that, mean over classes.

    A posterior's probability of the class is cut into `bins` parts of like size. What a modality does not say by
    itself is not in its posterior: the synergy of features is lost here.

    Args:
        label: (N,) int64.
    """
    parts = []
    for one in label.unique().tolist():
        cut_first, cut_second = _cut(first[:, one], bins), _cut(second[:, one], bins)
        parts.append(decomposition(cut_first, cut_second, (label == one).long(), measure))
    return {part: sum(one[part] for one in parts) / len(parts) for part in PARTS}


def _cut(x: Tensor, bins: int) -> Tensor:
    inner = torch.linspace(0, 1, bins + 1, dtype=x.dtype)[1:-1]
    return torch.bucketize(x.contiguous(), x.quantile(inner))


def pointwise_terms(first: Tensor, second: Tensor, both: Tensor, label: Tensor) -> dict[str, Tensor]:
    """The four parts by sample, (N,) each, and `total`, from posteriors given either source and both, (N, C).

    i_1 + i_2 - i_12 counts as redundant where all four have one sign: both sources then change the surprise at the
    label in the same direction, and what they share is that. Parts can be negative: misinformation, or chance.

    Args:
        label: (N,) int64; how often each class comes there is what is known without any source.
    """
    prior = torch.bincount(label, minlength=both.shape[1]).double() / len(label)
    one, two, joint = (
        (p.double().clamp_min(1e-6).gather(1, label[:, None]).squeeze(1) / prior[label]).log2()
        for p in (first, second, both)
    )
    common = one + two - joint
    same = (one.sign() == two.sign()) & (one.sign() == joint.sign()) & (one.sign() == common.sign())
    redundancy = common * same
    parts = (redundancy, one - redundancy, two - redundancy, joint - one - two + redundancy, joint)
    return dict(zip((*PARTS, "total"), parts, strict=True))


def described(part: Batch, frequencies: int = 1) -> dict[str, np.ndarray[Any, Any]]:
    """Each modality's course over time as a vector per sample, (N, frequencies * d_m); 1 is the mean over time."""
    return {name: pooled(x, part.mask[name], frequencies)[0].numpy() for name, x in part.features.items()}


def clusters(part: Batch, count: int) -> dict[str, Tensor]:
    """Each modality as whole numbers, (N,) int64, for `decomposition`: k-means clusters of its mean over time."""
    from sklearn.cluster import KMeans

    means = KMeans(count, n_init=4, random_state=0)
    return {name: torch.from_numpy(means.fit_predict(x)).long() for name, x in described(part).items()}


def posteriors(
    sources: Sequence[np.ndarray[Any, Any]],
    label: Tensor,
    components: int,
    unseen: Sequence[np.ndarray[Any, Any]] | None,
    group: Tensor | None,
) -> Tensor:
    """What a classifier that did not see a sample says of it, (N, C).

    Each source, (N, P_i), is reduced to `components` principal components; one hidden layer of 32 sees all, and
    so finds what only the sources together show. Of two weight decays and five shares of the classes' mere
    frequencies mixed in, those that predict the left-out samples best: where nothing is told, nothing is claimed.

    Args:
        label: (N,) int64, every class among them.
        unseen: the sources of other samples, (U, P_i) each; then the answer is for these, (U, C), by a classifier
            that is fitted to all of `sources`.
        group: (N,), such as persons, who are left out whole: a classifier that knows the person claims too much.
    """
    from sklearn.compose import ColumnTransformer
    from sklearn.decomposition import PCA
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.metrics import log_loss
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, cross_val_predict
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    ends = np.cumsum([0, *(source.shape[1] for source in sources)])
    told, truth = np.concatenate(list(sources), 1), label.numpy()
    kind = StratifiedKFold if group is None else StratifiedGroupKFold
    parts = list(kind(4, shuffle=True, random_state=0).split(told, truth, group))

    def network(decay: float) -> Any:
        reduced = ColumnTransformer(
            [
                (f"source {place}", PCA(min(components, stop - start), random_state=0), slice(start, stop))
                for place, (start, stop) in enumerate(pairwise(ends))
            ]
        )
        layer = MLPClassifier((32,), solver="lbfgs", alpha=decay, max_iter=60, random_state=0)
        return make_pipeline(reduced, StandardScaler(), layer)

    prior = np.bincount(truth) / len(truth)
    tried: dict[tuple[float, float], np.ndarray[Any, Any]] = {}
    with catch_warnings(action="ignore", category=ConvergenceWarning):  # so few iterations are the intention
        for decay in (0.1, 3.0):
            answer = cross_val_predict(network(decay), told, truth, cv=parts, method="predict_proba")
            tried |= {(decay, share): share * prior + (1 - share) * answer for share in (0, 0.1, 0.3, 0.6, 1)}
        decay, share = min(tried, key=lambda choice: log_loss(truth, tried[choice]))
        if unseen is None:
            return torch.from_numpy(tried[decay, share])
        answer = network(decay).fit(told, truth).predict_proba(np.concatenate(list(unseen), 1))
    return torch.from_numpy(share * prior + (1 - share) * answer)


def of_samples(part: Batch, train: Batch | None = None, frequencies: int = 1, components: int = 8) -> pd.DataFrame:
    """The decomposition of every pair of modalities at every sample of a part, for classes.

    Columns: first, second, sample, the four parts and `total`, in bits.

    Args:
        train: samples to fit the classifiers to, such as other people's; None leaves out a fourth of `part` at a
            time, of groups where there are some.
        frequencies, components: of `described` and `posteriors`.
    """
    fitted = part if train is None else train
    seen, asked = described(fitted, frequencies), None if train is None else described(part, frequencies)

    def told(*names: str) -> Tensor:
        unseen = None if asked is None else [asked[name] for name in names]
        return posteriors([seen[name] for name in names], fitted.label, components, unseen, fitted.group)

    alone = {name: told(name) for name in seen}
    frames = []
    for first, second in combinations(seen, 2):
        terms = pointwise_terms(alone[first], alone[second], told(first, second), part.label)
        columns = {name: one.numpy() for name, one in terms.items()}
        frames.append(pd.DataFrame({"first": first, "second": second, "sample": range(len(part)), **columns}))
    return pd.concat(frames, ignore_index=True)


def of_features(part: Batch, train: Batch | None = None, **options: Any) -> pd.DataFrame:
    """The decomposition of every pair of modalities: the means of `of_samples`, which has the same arguments.

    Columns: first, second, the four parts and `total`, in bits.
    """
    terms = of_samples(part, train, **options).drop(columns="sample")
    return terms.groupby(["first", "second"], sort=False).mean().reset_index()


def of_modalities(pairs: pd.DataFrame) -> pd.DataFrame:
    """Pairs, as `of_features` or `of_samples` gives them, by modality: means over the others.

    Columns: modality, sample (of samples), information (of it alone), redundancy, unique, synergy.
    """
    by = ["modality", *(["sample"] if "sample" in pairs else [])]
    frames = []
    for place in ("first", "second"):
        unique = pairs[f"unique_{place}"]
        own = {"modality": pairs[place], "information": unique + pairs["redundancy"], "unique": unique}
        frames.append(pairs.assign(**own)[[*by, "information", "redundancy", "unique", "synergy"]])
    return pd.concat(frames).groupby(by, sort=False).mean().reset_index()


def beside(model: Classifier, part: Batch, pairs: pd.DataFrame) -> pd.DataFrame:
    """What a model makes of each modality beside what it holds; one row per sample and modality.

    Args:
        model: with VGMR before fusion.
        pairs: of the same part, as `of_samples` gives them.

    Columns: those of `vgmr.analysis.calibration.values`, worth (Shapley share of log2 p(label) in the game of
    subsets of modalities at fusion, bits), removal (log2 p(label) lost without it there, bits), information,
    redundancy, unique, synergy.
    """
    chance = {
        keep: logits.log_softmax(1).gather(1, part.label[:, None]).squeeze(1) / math.log(2)
        for keep, logits in subset_logits(model, part).items()
    }
    names = list(model.backbone.dims)
    gain = torch.stack([chance["+".join(keep)] - chance[""] for keep in subsets(names)])
    worth = shapley_weights(names).T @ gain  # (M, N)
    full = chance["+".join(names)]
    frames = [
        pd.DataFrame(
            {
                "sample": range(len(part)),
                "modality": name,
                "worth": worth[place].numpy(),
                "removal": (full - chance["+".join(other for other in names if other != name)]).numpy(),
            }
        )
        for place, name in enumerate(names)
    ]
    told = values(model, part).merge(pd.concat(frames), on=["sample", "modality"])
    return told.merge(of_modalities(pairs), on=["sample", "modality"])


MADE = ("value", "gate", "worth", "removal")  # of a modality, by a model
HELD = ("information", "redundancy", "unique", "synergy")  # of a modality, in the data


def within(table: pd.DataFrame) -> pd.DataFrame:
    """Spearman's rank correlation over samples within each modality, mean over modalities, from `beside`.

    That one modality has higher values and more information than another adds nothing here. Where a value does not
    vary there is no correlation, and it counts as 0.

    Columns: of, with, correlation.
    """
    found = table.groupby("modality", sort=False)[[*MADE, *HELD]].corr("spearman").fillna(0)
    mean = found.groupby(level=1).mean().loc[list(MADE), list(HELD)]
    return mean.rename_axis("of").reset_index().melt("of", var_name="with", value_name="correlation")
