"""MMPareto: joint and unimodal gradients of each branch, weighted so that neither is worked against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from vgmr.balancing.uniform import Uniform
from vgmr.classifier import Classifier
from vgmr.fusion.base import check_weights


def joint_weight(joint: Sequence[Tensor], unimodal: Sequence[Tensor]) -> Tensor:
    """The weight c of the joint gradient: 1/2 where both agree, else that of the shortest convex combination.

    As in the official solver, only the ends are clipped: .999 where g . u >= |g|^2, .001 where g . u >= |u|^2,
    which in a conflict means that one of the two is zero. An interior solution stays what it is.
    """
    g, u = (torch.cat([part.flatten() for part in parts]) for parts in (joint, unimodal))
    longest = torch.maximum(g.abs().max(), u.abs().max())
    scale = torch.where(longest > 0, longest, 1.0)
    g, u = g / scale, u / scale  # squares of gradients near 1e-16 would leave the range of float32
    product, g_square, u_square = g @ u, g @ g, u @ u
    squared = g_square + u_square - 2 * product
    shortest = (u_square - product) / torch.where(squared > 0, squared, 1.0)
    shortest = torch.where(product >= u_square, 0.001, torch.where(product >= g_square, 0.999, shortest))
    return torch.where(product > 0, 0.5, shortest)


def combine(
    joint: Sequence[Tensor],
    unimodal: Sequence[Tensor],
    weight: Tensor,
    strength: float = 1.5,
    rescale: str = "tensor",
) -> list[Tensor]:
    """h = 2 c g + 2 (1 - c) u, brought back to the length of g + u where it is shorter, times `strength`.

    Args:
        joint, unimodal: g and u, one tensor per parameter of a branch.
        weight: c, from `joint_weight`.
        strength: gamma.
        rescale: one ratio of lengths per "tensor" or for the whole "encoder". There is none where h all but
            vanishes against g + u, since its direction is then rounding error.
    """
    mixed = [2 * weight * g + 2 * (1 - weight) * u for g, u in zip(joint, unimodal, strict=True)]
    wanted = torch.stack([(g + u).norm() for g, u in zip(joint, unimodal, strict=True)])
    given = torch.stack([h.norm() for h in mixed])
    if rescale == "encoder":
        wanted, given = wanted.norm().expand_as(wanted), given.norm().expand_as(given)
    usable = (given > 1e-6 * wanted) & (given > 0)
    ratio = torch.where(usable, (wanted / given.clamp(min=1e-30)).clamp(min=1.0), 1.0)
    return [strength * factor * h for factor, h in zip(ratio, mixed, strict=True)]


class MMPareto(Uniform):
    """Pareto integration of joint and unimodal gradients (Wei and Hu, ICML 2024).

    Two gradients per branch: of the joint loss, with VGMR's own terms, and of the unimodal loss of that modality.
    Everything else gets the plain sum of all losses' gradients: heads, a shared encoder, and in VGMR's maps
    of one modality what the unimodal loss of another leaves there. AdamW cancels `strength` and the rescaling, not
    the change of direction. Defined for every head, and the same for any number of modalities.

    Args:
        strength: gamma, 1.5 in the official code.
        rescale: "tensor", as in the official code, or "encoder", as the paper's text reads.
    """

    def __init__(self, strength: float = 1.5, rescale: str = "tensor"):
        super().__init__()
        if rescale not in ("tensor", "encoder"):
            raise ValueError(f"rescale must be 'tensor' or 'encoder', got {rescale!r}")
        check_weights(strength=strength)
        self.strength, self.rescale = strength, rescale

    def backward(self, model: Classifier, joint: Tensor, unimodal: Mapping[str, Tensor]) -> None:
        parameters = [p for p in (*model.parameters(), *self.parameters()) if p.requires_grad]

        def gradients(loss: Tensor, keep_graph: bool) -> dict[int, Tensor]:
            found = torch.autograd.grad(loss, parameters, retain_graph=keep_graph, allow_unused=True)
            return {id(p): g for p, g in zip(parameters, found, strict=True) if g is not None}

        total = gradients(joint, keep_graph=True)
        own = {}
        for left, (name, loss) in zip(reversed(range(len(unimodal))), unimodal.items(), strict=True):
            own[name] = gradients(loss, keep_graph=left > 0)
        merged: dict[int, list[Tensor]] = {}
        weights: dict[str, Tensor] = {}
        for name in self.names:
            branch = [id(p) for p in model.branch_parameters(name) if id(p) in total and id(p) in own[name]]
            if not branch:
                continue
            g, u = [total.pop(key) for key in branch], [own[name].pop(key) for key in branch]
            weights[name] = joint_weight(g, u)
            mixed = combine(g, u, weights[name], self.strength, self.rescale)
            for key, gradient in zip(branch, mixed, strict=True):
                merged[key] = [gradient]
        self.note(weights)
        for part in (total, *own.values()):
            for key, gradient in part.items():
                merged.setdefault(key, []).append(gradient)
        for parameter in parameters:
            parts = merged.get(id(parameter))
            parameter.grad = None if parts is None else sum(parts[1:], start=parts[0])
