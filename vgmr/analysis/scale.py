"""How cost and memory of the refiner grow with length, width and number of modalities; nothing is timed.

FLOPs are counted on shapes alone, so that five thousand steps cost nothing; memory is what autograd keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from vgmr.refiner import VGMR

AXES = {
    "length": (50, 150, 500, 1500, 5000),
    "width": (32, 128, 512, 2048, 4096),
    "modalities": (2, 3, 6, 12),
}


def measured(
    length: int = 50,
    width: int = 256,
    modalities: int = 3,
    samples: int = 32,
    latent_dim: int = 164,
    **switches: Any,
) -> dict[str, float]:
    """FLOPs (forward), parameters, and MiB of activations that wait for the backward pass.

    With `torch.utils.checkpoint` around the refiner only its inputs wait, and everything is computed again.

    Args:
        switches: other arguments of `VGMR`, such as rank and sharing.
    """
    with torch.device("meta"):
        dims = {f"m{place}": width for place in range(modalities)}
        vgmr = VGMR(dims, latent_dim, **switches).train()
        features = {name: torch.empty(samples, length, width) for name in dims}
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            vgmr(features)

        def again() -> Any:
            return checkpoint(lambda x: list(vgmr(x).features.values()), features, use_reentrant=False)

        return {
            "flops": float(counter.get_total_flops()),
            "parameters": float(sum(x.numel() for x in vgmr.parameters())),
            "kept_mib": kept_mib(vgmr, features, lambda: vgmr(features)),
            "kept_mib_checkpointed": kept_mib(vgmr, features, again),
        }


def kept_mib(model: nn.Module, features: Mapping[str, Tensor], work: Callable[[], Any]) -> float:
    """MiB of activations that autograd keeps in `work`; weights, buffers and features are there anyway."""
    there = (*model.parameters(), *model.buffers(), *features.values())
    owned = {x.untyped_storage()._cdata for x in there}
    kept: dict[int, Tensor] = {}

    def pack(x: Tensor) -> Tensor:
        if x.untyped_storage()._cdata not in owned:
            kept[x.untyped_storage()._cdata] = x
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        output = work()
    del output
    return sum(x.untyped_storage().nbytes() for x in kept.values()) / 2**20


def scaling(**switches: Any) -> pd.DataFrame:
    """`measured` along each of `AXES`, the others at 50 steps, width 256 and three modalities.

    Columns: axis, size, and those of `measured`.
    """
    return pd.DataFrame(
        [
            {"axis": axis, "size": size, **measured(**{axis: size}, **switches)}
            for axis, sizes in AXES.items()
            for size in sizes
        ]
    )


def exponents(table: pd.DataFrame) -> pd.DataFrame:
    """Slopes in log-log of what grows in `scaling` over all sizes and over the two largest; 1 is linear.

    Columns: axis, what, exponent, last (of the two largest).
    """
    rows = []
    for axis, group in table.groupby("axis", sort=False):
        size = np.log(group["size"].to_numpy(float))
        for what in ("flops", "parameters", "kept_mib"):
            value = np.log(group[what].to_numpy(float))
            last = (value[-1] - value[-2]) / (size[-1] - size[-2])
            rows.append({"axis": axis, "what": what, "exponent": np.polyfit(size, value, 1)[0], "last": last})
    return pd.DataFrame(rows)
