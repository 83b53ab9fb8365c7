"""Training-stage balancing of modalities: eight published methods and two controls behind one protocol.

"none" is the training of `fit` as it is; "uniform" adds unimodal losses and nothing else, and belongs in every
comparison, since four of the methods contain such losses.
"""

from __future__ import annotations

import inspect
from typing import Any

from vgmr.balancing.agm import AGM
from vgmr.balancing.arl import ARL
from vgmr.balancing.base import Balancing, Loop
from vgmr.balancing.grad_blending import GradBlending
from vgmr.balancing.mla import MLA
from vgmr.balancing.mmim import MMIM
from vgmr.balancing.mmpareto import MMPareto
from vgmr.balancing.ogm_ge import OGMGE
from vgmr.balancing.pmr import PMR
from vgmr.balancing.relearning import Relearning
from vgmr.balancing.self_mm import SelfMM
from vgmr.balancing.uniform import Uniform
from vgmr.balancing.unis_mmc import UniSMMC

METHODS: dict[str, type[Balancing]] = {
    "none": Balancing,
    "uniform": Uniform,
    "grad-blending": GradBlending,
    "ogm-ge": OGMGE,
    "pmr": PMR,
    "agm": AGM,
    "mmpareto": MMPareto,
    "relearning": Relearning,
    "mla": MLA,
    "arl": ARL,
    "unis-mmc": UniSMMC,
    "mmim": MMIM,
    "self-mm": SelfMM,
}


def make_method(name: str, **options: Any) -> Balancing:
    """A fresh method by name, for one training.

    Args:
        name: a key of `METHODS`.
        options: arguments of the method's class.

    Raises:
        ValueError: an unknown method or option, with the list of those that exist, or an option out of range.
    """
    if name not in METHODS:
        raise ValueError(f"unknown method {name!r}; there are: {', '.join(METHODS)}")
    known = list(inspect.signature(METHODS[name]).parameters)
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(
            f"unknown option {', '.join(unknown)} of method {name!r}; there are: {', '.join(known) or 'none'}"
        )
    return METHODS[name](**options)


__all__ = [
    "AGM",
    "ARL",
    "METHODS",
    "MLA",
    "MMIM",
    "OGMGE",
    "PMR",
    "Balancing",
    "GradBlending",
    "Loop",
    "MMPareto",
    "Relearning",
    "SelfMM",
    "UniSMMC",
    "Uniform",
    "make_method",
]
