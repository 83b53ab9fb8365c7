"""How the information of two modalities about the class splits: redundant, unique to each, synergistic. In bits.

Two ways. `decomposition` takes small tables of counts and the library `dit`: Williams and Beer's I_min (2010),
which takes equal amounts for equal information, and a later measure, I_BROJA (Bertschinger et al., 2014).
`of_features` takes sequences: classifiers that did not see a sample give p(y | x_1), p(y | x_2), p(y | x_1, x_2),
and what they say splits sample by sample as Ince's common change in surprisal (2017) does.
Classifiers see at most what is there, so its amounts are lower bounds but for chance.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from vgmr.analysis.calibration import values
from vgmr.data.types import Batch
from vgmr.evaluation import shapley
from vgmr.evidence import pooled
from vgmr.experiment import Run, experiment_data

MEASURES = {"I_min": "PID_WB", "I_BROJA": "PID_BROJA"}
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
    found = getattr(pid, MEASURES[measure])(dit.Distribution(outcomes, (counts / counts.sum()).tolist()))
    nodes = (((0,), (1,)), ((0,),), ((1,),), ((0, 1),))
    return dict(zip(PARTS, (float(found[node]) for node in nodes), strict=True))


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


def pointwise(first: Tensor, second: Tensor, both: Tensor, label: Tensor) -> dict[str, float]:
    """The four parts from posteriors given either source and both, (N, C) each, and what they sum to, `total`.

    i_1 + i_2 - i_12 counts as redundant where all four have one sign: both sources then change the surprise at the
    label in the same direction, and what they share is that. Parts can be negative: misinformation, or chance.

    Args:
        label: (N,) int64.
    """
    prior = torch.bincount(label, minlength=both.shape[1]).double() / len(label)
    one, two, joint = (
        (p.double().clamp_min(1e-6).gather(1, label[:, None]).squeeze(1) / prior[label]).log2()
        for p in (first, second, both)
    )
    common = one + two - joint
    same = (one.sign() == two.sign()) & (one.sign() == joint.sign()) & (one.sign() == common.sign())
    redundancy = float((common * same).mean())
    alone, other, total = float(one.mean()), float(two.mean()), float(joint.mean())
    parts = (redundancy, alone - redundancy, other - redundancy, total - alone - other + redundancy)
    return dict(zip(PARTS, parts, strict=True)) | {"total": total}


def _described(part: Batch, name: str, frequencies: int = 1) -> np.ndarray[Any, Any]:
    shape, _ = pooled(part.features[name], part.mask[name], frequencies)
    described: np.ndarray[Any, Any] = shape.numpy()
    return described


def posteriors(
    sources: Sequence[np.ndarray[Any, Any]], label: Tensor, components: int = 8, folds: int = 4, seed: int = 0
) -> Tensor:
    """What a classifier that did not see a sample says of it, (N, C).

    Each source, (N, P_i), is reduced to `components` principal components; one hidden layer of 32 sees all, and
    so finds what only the sources together show. Of two weight decays and five shares of the classes' mere
    frequencies mixed in, those that predict the left-out samples best: where nothing is told, nothing is claimed.
    """
    from sklearn.compose import ColumnTransformer
    from sklearn.decomposition import PCA
    from sklearn.metrics import log_loss
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    ends = np.cumsum([0, *(source.shape[1] for source in sources)])
    reduced = ColumnTransformer(
        [
            (f"source {place}", PCA(min(components, stop - start), random_state=seed), slice(start, stop))
            for place, (start, stop) in enumerate(pairwise(ends))
        ]
    )
    told, truth = np.concatenate(list(sources), 1), label.numpy()
    parts = StratifiedKFold(folds, shuffle=True, random_state=seed)
    tried = []
    for decay in (0.1, 3.0):
        network = MLPClassifier((32,), solver="lbfgs", alpha=decay, max_iter=60, random_state=seed)
        model = make_pipeline(reduced, StandardScaler(), network)
        tried.append(_quietly(lambda m=model: cross_val_predict(m, told, truth, cv=parts, method="predict_proba")))
    prior = np.bincount(truth) / len(truth)
    tried = [share * prior + (1 - share) * answer for answer in tried for share in (0, 0.1, 0.3, 0.6, 1)]
    best = min(tried, key=lambda answer: log_loss(truth, answer))
    return torch.from_numpy(best)


def _quietly(work: Any) -> Any:
    """Without sklearn's warning that so few iterations do not converge, which is the intention."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return work()


def of_features(part: Batch, components: int = 8, folds: int = 4, seed: int = 0) -> pd.DataFrame:
    """The decomposition of every pair of modalities from their features' means over time, for classes.

    Columns: first, second, the four parts and `total`, in bits.
    """
    described = {name: _described(part, name) for name in part.features}
    alone = {name: posteriors([x], part.label, components, folds, seed) for name, x in described.items()}
    rows = []
    for first, second in combinations(described, 2):
        both = posteriors([described[first], described[second]], part.label, components, folds, seed)
        split = pointwise(alone[first], alone[second], both, part.label)
        rows.append({"first": first, "second": second, **split})
    return pd.DataFrame(rows)


def of_modalities(pairs: pd.DataFrame) -> pd.DataFrame:
    """Pairs, as `of_features` gives them, by modality: means over the others.

    Columns: modality, information (of it alone), redundancy, unique, synergy.
    """
    rows = []
    for name in dict.fromkeys([*pairs["first"], *pairs["second"]]):
        for place in ("first", "second"):
            for _, pair in pairs[pairs[place] == name].iterrows():
                unique, shared = pair[f"unique_{place}"], pair["redundancy"]
                rows.append(
                    {
                        "modality": name,
                        "information": unique + shared,
                        "redundancy": shared,
                        "unique": unique,
                        "synergy": pair["synergy"],
                    }
                )
    return pd.DataFrame(rows).groupby("modality", sort=False).mean().reset_index()


def beside(runs: Iterable[Run], information: Mapping[str, pd.DataFrame] | None = None) -> pd.DataFrame:
    """What a model makes of each modality beside what it holds; one row per run and modality.

    Args:
        runs: of models with VGMR before fusion, with their weights.
        information: by data set, what `of_modalities` gives; None computes it of the test part.

    Columns: dataset, seed, modality, value and gate (means over the test part), worth (Shapley), removal (accuracy
    lost without it), information, redundancy, unique, synergy.
    """
    known = dict(information or {})
    frames = []
    for run in runs:
        experiment = run.experiment
        test = experiment_data(experiment).test
        if experiment.dataset not in known:
            known[experiment.dataset] = of_modalities(of_features(test))
        frame = values(run.model(), test).groupby("modality", sort=False)[["value", "gate"]].mean().reset_index()
        names = list(test.features)
        full = run.subset_accuracy["+".join(names)]
        without = {name: "+".join(other for other in names if other != name) for name in names}
        worth = shapley(run.subset_accuracy)
        frame.insert(0, "dataset", experiment.dataset)
        frame.insert(1, "seed", experiment.seed)
        frame["worth"] = frame["modality"].map(worth)
        frame["removal"] = frame["modality"].map(
            {name: full - run.subset_accuracy[without[name]] for name in names}
        )
        frames.append(frame.merge(known[experiment.dataset], on="modality"))
    return pd.concat(frames, ignore_index=True)


def correlations(table: pd.DataFrame) -> pd.DataFrame:
    """Spearman's rank correlation of what the model makes of modalities with what they hold, from `beside`.

    Over modalities of all data sets, seeds averaged: runs on one data set are no new modalities.

    Columns: of, with, correlation, modalities (how many).
    """
    mean = table.drop(columns="seed").groupby(["dataset", "modality"]).mean()
    rank = mean.rank()
    rows = [
        {"of": of, "with": with_, "correlation": rank[of].corr(rank[with_]), "modalities": len(mean)}
        for of in ("value", "gate", "worth", "removal")
        for with_ in ("information", "redundancy", "unique", "synergy")
    ]
    return pd.DataFrame(rows)
