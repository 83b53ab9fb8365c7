"""Made data in the shapes of the paper's data sets, with every kind of evidence on its own dial."""

from __future__ import annotations

from math import isfinite
from numbers import Real

import numpy as np
import torch

from vgmr.data.types import Batch, MultimodalData, check_shares, check_whole, fingerprint

SHAPES: dict[str, tuple[dict[str, tuple[int, int]], int]] = {
    "mosi": ({"text": (50, 768), "audio": (50, 5), "vision": (50, 20)}, 2),
    "mosei": ({"text": (50, 768), "audio": (50, 74), "vision": (50, 35)}, 2),
    "ucf101": ({"rgb": (16, 512), "flow": (16, 512)}, 101),
    "ave": ({"audio": (10, 128), "visual": (10, 512)}, 28),
    "cremad": ({"audio": (188, 64), "visual": (3, 512)}, 6),
}


def load_synthetic(
    like: str = "mosei",
    samples: int = 1000,
    steps: int | None = None,
    redundant: float = 1.0,
    unique: float = 1.0,
    synergistic: float = 0.0,
    noise: float = 0.0,
    conflict: float = 0.0,
    padding: float = 0.0,
    balance: float | None = None,
    seed: int = 0,
    labels: str = "classes",
) -> MultimodalData:
    """A stand-in: Gaussian background plus class evidence placed in known channels and steps.

    A modality's evidence for a class is a fixed direction over a quarter of its channels, added to half of its
    steps. *Redundant* evidence shows the class in every modality; *unique* evidence shows it in one modality
    per sample, drawn anew for each; *synergistic* evidence gives each modality a code that alone says nothing,
    while the codes' sum modulo the number of classes is the class.

    Args:
        like: whose shapes: mosi, mosei, ucf101, ave or cremad.
        samples: size of the training part; validation has a quarter, test a half of it.
        steps: longest sequence, to make the stand-in cheaper; None keeps the data set's own lengths.
        redundant, unique, synergistic: strength of each kind of evidence, in deviations of the background.
        noise: share of steps, and of channels, of each sample overwritten by noise of three deviations.
        conflict: share of samples in which one random modality shows the evidence of another class.
        padding: largest share of a sequence that is padding; lengths are uniform.
        balance: share of class 0; None makes the classes equally likely.
        seed: draws everything.
        labels: "classes", or "regression" for scores from -3 to 3, whose size and sign the evidence of the shapes
            with two classes carries.

    Returns data whose `corrupted` marks corrupted steps and channels and conflicting modalities.

    Raises:
        ValueError: unknown `like` or `labels`, a strength that is not finite, a share outside 0 to 1, `samples`
            below 8, `steps` below 1 or a negative `seed`.
    """
    if like not in SHAPES:
        raise ValueError(f"unknown like={like!r}; there are: {', '.join(SHAPES)}")
    for strength in (redundant, unique, synergistic):
        if not isinstance(strength, Real) or not isfinite(strength):
            raise ValueError(f"redundant, unique and synergistic must be finite numbers, got {strength!r}")
    check_shares(noise=noise, conflict=conflict, padding=padding, balance=0 if balance is None else balance)
    if labels not in ("classes", "regression"):
        raise ValueError(f"labels must be classes or regression, got {labels!r}")
    if labels == "regression" and SHAPES[like][1] != 2:
        raise ValueError(f"scores need the shapes of mosi or mosei, which have two classes, got like={like!r}")
    check_whole(1, steps=1 if steps is None else steps)
    check_whole(8, samples=samples)
    check_whole(seed=seed)
    full, num_classes = SHAPES[like]
    shapes = {name: (length if steps is None else min(steps, length), d) for name, (length, d) in full.items()}
    generator = np.random.default_rng(seed)
    channels = {name: generator.permutation(d)[: max(2, d // 4)] for name, (_, d) in shapes.items()}
    codes = {}
    for name in shapes:
        code = generator.normal(size=(3, num_classes, len(channels[name])))
        codes[name] = code - code.mean(1, keepdims=True)

    def part(size: int) -> Batch:
        probability = np.full(num_classes, 1 / num_classes)
        if balance is not None:
            probability[:] = (1 - balance) / (num_classes - 1)
            probability[0] = balance
        label = generator.choice(num_classes, size, p=probability)
        strength = np.ones(size)
        if labels == "regression":  # class 1 is the upper half of the scale
            strength = 3 * generator.random(size)
        carrier = generator.integers(len(shapes), size=size)
        clash = np.where(generator.random(size) < conflict, generator.integers(len(shapes), size=size), -1)
        wrong = (label + generator.integers(1, num_classes, size)) % num_classes
        shares = generator.integers(num_classes, size=(len(shapes), size))
        shares[-1] = (label - shares[:-1].sum(0)) % num_classes
        features, masks, corrupted = {}, {}, {}
        for position, (name, (longest, d)) in enumerate(shapes.items()):
            shown = np.where(clash == position, wrong, label)
            evidence = redundant * codes[name][0, shown]
            evidence = evidence * strength[:, None]
            evidence += unique * strength[:, None] * (carrier == position)[:, None] * codes[name][1, shown]
            evidence += synergistic * codes[name][2, shares[position]]
            length = np.ceil(longest * (1 - padding * generator.random(size))).clip(1).astype(int)
            mask = np.arange(longest) < length[:, None]
            active = generator.random((size, longest)) < 0.5
            x = generator.normal(size=(size, longest, d)).astype(np.float32)
            x[:, :, channels[name]] += active[:, :, None] * evidence[:, None, :]
            hit_steps = (generator.random((size, longest)) < noise) & mask
            hit_channels = generator.random((size, d)) < noise
            hit = hit_steps[:, :, None] | (hit_channels[:, None, :] & mask[:, :, None])
            x = np.where(hit, 3 * generator.normal(size=x.shape), x)
            features[name] = torch.from_numpy((x * mask[:, :, None]).astype(np.float32))
            masks[name] = torch.from_numpy(mask)
            corrupted[name] = torch.from_numpy(hit | ((clash == position)[:, None, None] & mask[:, :, None]))
        told = torch.from_numpy(label)
        if labels == "regression":
            told = torch.from_numpy((2 * label - 1) * strength).float()
        return Batch(features, masks, told, corrupted=corrupted)

    parts = [part(samples), part(max(2, samples // 4)), part(max(4, samples // 2))]
    return MultimodalData(
        "synthetic",
        train=parts[0],
        validation=parts[1],
        test=parts[2],
        classes=() if labels == "regression" else tuple(f"class {index}" for index in range(num_classes)),
        source=f"made by vgmr in the shapes of {like}",
        licence="MIT",
        fingerprint=fingerprint(
            {
                "data": "synthetic",
                "version": 1,
                "like": like,
                "steps": steps,
                "strengths": [redundant, unique, synergistic],
                "shares": [noise, conflict, padding, balance],
                "seed": seed,
                **({"labels": labels} if labels != "classes" else {}),
            },
            *(batch.label.numpy() for batch in parts),
        ),
        stand_in=True,
    )
