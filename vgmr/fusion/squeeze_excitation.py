"""SE: scale the channels of each modality by a gate of its own time average (Hu et al., 2018)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from vgmr.fusion.base import check_sizes
from vgmr.refining.inputs import check_dims, check_inputs, check_like
from vgmr.refining.maps import masked_mean
from vgmr.refining.refinement import Refinement


class SqueezeExcitation(nn.Module):
    """Squeeze and excitation on sequences, in VGMR's place: a gate that knows nothing of the other modalities.

    Args:
        dims: feature dimension by modality name.
        hidden_dim: width of the gate's bottleneck, for all modalities; by default d_m / `reduction`, at least 1
            (the released code gives 0 for d_m < `reduction`, and with it a constant gate of 1/2).
        reduction: r.
    """

    def __init__(self, dims: Mapping[str, int], hidden_dim: int | None = None, reduction: int = 16):
        super().__init__()
        self.dims = check_dims(dims)
        check_sizes("SqueezeExcitation", reduction=reduction, hidden_dim=1 if hidden_dim is None else hidden_dim)
        self.excite = nn.ModuleDict()
        for name, dim in self.dims.items():
            inner = max(1, dim // reduction) if hidden_dim is None else hidden_dim
            self.excite[name] = nn.Sequential(
                nn.Linear(dim, inner, bias=False), nn.ReLU(), nn.Linear(inner, dim, bias=False), nn.Sigmoid()
            )

    def excitation(self, name: str, x: Tensor, mask: Tensor | None) -> Tensor:
        """The gate e, (B, d_m) in (0, 1)."""
        gate: Tensor = self.excite[name](masked_mean(x, mask))
        return gate

    def forward(self, features: Mapping[str, Tensor], mask: Mapping[str, Tensor] | None = None) -> Refinement:
        """name -> (B, T_m, d_m), from the same shapes; padding stays zero."""
        checked, masks = check_inputs(self.dims, features, mask)
        check_like(self, checked)
        return Refinement(
            {name: x * self.excitation(name, x, masks[name]).unsqueeze(1) for name, x in checked.items()}
        )
