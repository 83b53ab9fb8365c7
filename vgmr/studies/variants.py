"""What stands in front of a backbone in every comparison: nothing, two controls, two forms of VGMR."""

from __future__ import annotations

from typing import Any

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {"prefusion": "none", "form": "paper"},
    "parameter-matched MLP": {"prefusion": "mlp", "form": "paper"},
    "value-free gate": {
        "form": "neutral",
        "amplification": 1.0,
        "retention": 0.0,
        "use_global_value": False,
        "use_channel_value": False,
        "value_weight": 0.0,
    },
    "VGMR, paper's form": {"form": "paper"},
    "VGMR, calibrated": {"form": "calibrated"},
}
CONTROLS = ("parameter-matched MLP", "value-free gate")
FORM, ADOPTED = "VGMR, paper's form", "VGMR, calibrated"
