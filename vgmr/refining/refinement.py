"""What every pre-fusion module gives to what comes behind it."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Refinement(NamedTuple):
    """What stands before fusion gives to what comes behind; dicts by modality name.

    A tuple with named fields, so that torch's graphs and replicas can take it apart and put it together again.

    Attributes:
        features: (B, T_m, d_m), the same shapes as the input; padded steps hold zeros.
        global_value: (B,) in (0, 1), v^g of Eq. (10).
        channel_value: (B, d) in (0, 1), v^c of Eq. (10).
        gate: (B, T_m, d_m) in (0, 1), G of Eq. (11).
        effective_gate: (B, T_m, d_m), E of Eq. (13); what the features were multiplied by.
        auxiliary: what the module's own loss needs, for modules that have an `auxiliary_loss`.
        posterior: (B, C), what the modality's anchors say of the class; empty where VGMR uses none.

    All but `features` and `auxiliary` are empty for anything but VGMR. Where the value comes from the anchors,
    the channel value is (B, d_m) and speaks of the input's channels.
    """

    features: dict[str, Tensor]
    global_value: dict[str, Tensor] = {}  # noqa: RUF012
    channel_value: dict[str, Tensor] = {}  # noqa: RUF012
    gate: dict[str, Tensor] = {}  # noqa: RUF012
    effective_gate: dict[str, Tensor] = {}  # noqa: RUF012
    auxiliary: dict[str, Tensor] = {}  # noqa: RUF012
    posterior: dict[str, Tensor] = {}  # noqa: RUF012
