"""The Value-Gated Modality Refiner (VGMR), section 3 of the paper, equation by equation.

Axes: B samples, T_m time steps and d_m features of modality m, d latent dimension. Symbols of the paper stand
beside the code that computes them; `method.md`'s open choices are arguments, with the choice made as default.
"""

from __future__ import annotations

import contextlib
import copy
import operator
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgmr.evidence import Evidence, relative_agreement


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


def whole(what: str, value: Any) -> int:
    """`value`, a whole number of at least 1 of any integer type, as int; or ValueError in one line."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or operator.index(value) < 1:
        raise ValueError(f"{what} must be a whole number of at least 1, got {value!r}")
    return operator.index(value)


def check_dims(dims: Mapping[str, int], at_least: int = 1) -> dict[str, int]:
    """The modalities and their feature dimensions, or ValueError in one line."""
    if not isinstance(dims, Mapping):
        raise ValueError(f"expected dims as a dict, modality name -> dimension, got {type(dims).__name__}")
    if len(dims) < at_least:
        raise ValueError(
            f"expected at least {at_least} modalities to compare with each other, got {len(dims)}: {list(dims)}"
        )
    for name in dims:
        if not isinstance(name, str) or not name or "." in name:
            raise ValueError(f"a modality name must be a non-empty string without a dot, got {name!r}")
        if hasattr(nn.ModuleDict(), name):
            raise ValueError(f"{name!r} is a name that torch keeps for itself; call this modality otherwise")
    return {name: whole(f"{name}: a feature dimension", dim) for name, dim in dims.items()}


_trusted = ContextVar("trusted", default=False)


@contextlib.contextmanager
def trusted_values() -> Iterator[None]:
    """Inside, `check_inputs` looks at shapes and types but not at values: for loops over data checked before."""
    token = _trusted.set(True)
    try:
        yield
    finally:
        _trusted.reset(token)


def _may_look_at(x: Tensor) -> bool:
    """Whether values of `x` can be read here at no cost: not on a GPU, in a traced graph, or within torch.func."""
    if torch.compiler.is_compiling() or x.device.type != "cpu" or _trusted.get():
        return False
    return not torch._C._functorch.is_functorch_wrapped_tensor(x)


def check_like(module: nn.Module, features: Mapping[str, Tensor]) -> None:
    """Raise ValueError in one line where features differ from the weights of `module` in type or device."""
    weight = next((x for x in module.parameters() if x.is_floating_point()), None)
    if weight is None or torch.compiler.is_compiling():
        return
    kind = weight.device.type
    mixed = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    for name, x in features.items():
        if (x.dtype != weight.dtype and not mixed) or x.device != weight.device:
            raise ValueError(
                f"{name}: expected {weight.dtype} features on {weight.device}, as the model is, got {x.dtype} on "
                f"{x.device}; x.to(device, dtype) converts them, model.to(...) the model"
            )


def check_inputs(
    dims: Mapping[str, int], features: Mapping[str, Tensor], mask: Mapping[str, Tensor] | None
) -> tuple[dict[str, Tensor], dict[str, Tensor | None]]:
    """Features with padding set to zero, and masks, both in the order of `dims`.

    Args:
        dims: expected feature dimension by modality name.
        features: name -> (B, T_m, d_m) floating point.
        mask: name -> (B, T_m) bool, True where a step is real; None if all are.

    Raises:
        ValueError: no dict of tensors, a modality that is unknown or missing, a wrong shape or type, a sample
            without a real step, NaN or infinite values in real steps. Values are looked at on the CPU only and
            not within `trusted_values`, traced graphs or torch.func; `Batch.check` does it once for a data set.
    """
    for what, given in (("features", features), ("mask", mask)):
        if given is None and what == "mask":
            continue
        if not isinstance(given, Mapping):
            raise ValueError(f"{what}: expected a dict, modality name -> tensor, got {type(given).__name__}")
        for name, x in given.items():
            if not isinstance(x, Tensor):
                hint = "; torch.as_tensor(x) makes one" if hasattr(x, "__array__") else ""
                raise ValueError(f"{what}: expected a tensor for {name!r}, got {type(x).__name__}{hint}")
        unknown, missing = sorted(set(given) - set(dims)), sorted(set(dims) - set(given))
        if unknown or missing:
            raise ValueError(
                f"{what}: expected the modalities {list(dims)}, got {list(given)}"
                + (f"; unknown: {', '.join(unknown)}" if unknown else "")
                + (f"; missing: {', '.join(missing)}" if missing else "")
            )
    size = next(iter(features.values())).shape[0]
    checked: dict[str, Tensor] = {}
    masks: dict[str, Tensor | None] = {}
    for name, dim in dims.items():
        x = features[name]
        if x.ndim != 3 or x.shape[2] != dim or x.shape[0] != size or not x.shape[1]:
            hint = "; a single vector per sample needs a time axis: x.unsqueeze(1)" if x.ndim == 2 else ""
            raise ValueError(f"{name}: expected features of shape ({size}, T, {dim}), got {tuple(x.shape)}{hint}")
        if not x.is_floating_point():
            raise ValueError(f"{name}: expected floating point features, got {x.dtype}")
        real = None if mask is None else mask[name]
        if real is not None:
            if real.dtype != torch.bool or real.shape != x.shape[:2]:
                got = f"{real.dtype} {tuple(real.shape)}"
                raise ValueError(f"{name}: expected a bool mask of shape {tuple(x.shape[:2])}, got {got}")
            x = x.masked_fill(~real.unsqueeze(2), 0.0)
        if _may_look_at(x):
            if real is not None and not real.any(1).all():
                row = int((~real.any(1)).nonzero()[0])
                raise ValueError(
                    f"{name}: sample {row} has no real time step in its mask; each needs at least one"
                )
            if not torch.isfinite(x.detach().sum()) and not torch.isfinite(x).all():
                row = int((~torch.isfinite(x)).flatten(1).any(1).nonzero()[0])
                raise ValueError(f"{name}: sample {row} holds NaN or infinite features; clean them before")
        checked[name], masks[name] = x, real
    return checked, masks


def masked_mean(x: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over real time steps: (B, T, d) -> (B, d)."""
    if mask is None:
        return x.mean(1)
    weight = mask.to(x.dtype)
    return torch.einsum("btd,bt->bd", x, weight) / weight.sum(1, keepdim=True)


def mlp(width_in: int, width_out: int) -> nn.Sequential:
    """The paper's lightweight two-layer MLP; GELU and hidden width = output width are our choice."""
    return nn.Sequential(nn.Linear(width_in, width_out), nn.GELU(), nn.Linear(width_out, width_out))


class ModalityMaps(nn.Module):
    """The maps of one modality m; every modality has its own."""

    def __init__(
        self,
        dim: int,
        latent_dim: int,
        interaction_dim: int,
        dropout: float,
        norm: str,
        use_global_value: bool,
        use_channel_value: bool,
        neutral_start: bool,
        learns_value: bool = True,
    ):
        super().__init__()
        self.latent_dim = latent_dim
        self.projection = nn.Linear(dim, latent_dim)  # phi
        if learns_value:
            self.summary_encoder = mlp(2 * latent_dim, latent_dim)  # E^s
            self.interaction_encoder = mlp(interaction_dim, latent_dim)  # E^i
            self.value_encoder = mlp(2 * latent_dim, latent_dim)  # E^v
            self.global_value = nn.Linear(latent_dim, 1)  # w, b
            self.channel_value = nn.Linear(latent_dim, latent_dim)  # W, b^c
        self.gate_from_features = nn.Linear(dim, dim)  # f^x
        self.gate_from_latent = nn.Linear(latent_dim, dim)  # f^h
        self.gate_from_global = nn.Linear(1, dim) if use_global_value else None  # f^g
        channels = latent_dim if learns_value else dim
        self.gate_from_channel = nn.Linear(channels, dim) if use_channel_value else None  # f^c
        self.norm = nn.LayerNorm(dim) if norm == "layer" else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.folded: nn.Linear | None = None
        if neutral_start:
            for gate in (
                self.gate_from_features,
                self.gate_from_latent,
                self.gate_from_global,
                self.gate_from_channel,
            ):
                if gate is not None:
                    nn.init.zeros_(gate.weight)
                    nn.init.zeros_(gate.bias)

    def gate_weight(self) -> tuple[Tensor, Tensor]:
        """f^x(X) + f^h(phi(X)) as one affine map of X: its weight (d_m, d_m) and bias (d_m,)."""
        outer, inner = self.gate_from_latent, self.projection
        weight = self.gate_from_features.weight + outer.weight @ inner.weight
        return weight, self.gate_from_features.bias + outer.bias + outer.weight @ inner.bias

    def project(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """H of Eq. (2), (B, T, d), and the feature evidence f^x(X) + f^h(H) of Eq. (11), (B, T, d_m)."""
        if self.folded is not None:
            product, latent_dim = self.folded(x), self.latent_dim
            return product[..., :latent_dim], product[..., latent_dim : latent_dim + x.shape[2]]
        latent = self.projection(x)
        # folding costs d_m rows and saves B * T of them; traced graphs fold for any number of samples
        if torch.compiler.is_compiling() or x.shape[0] * x.shape[1] > x.shape[2]:
            return latent, F.linear(x, *self.gate_weight())
        return latent, self.gate_from_features(x) + self.gate_from_latent(latent)

    def summarise(self, latent: Tensor, mask: Tensor | None) -> Tensor:
        """s of Eq. (3): (B, T, d) -> (B, d)."""
        real = latent if mask is None else latent.masked_fill(~mask.unsqueeze(2), -torch.inf)
        summary: Tensor = self.summary_encoder(torch.cat([masked_mean(latent, mask), real.amax(1)], 1))
        return summary

    def values(self, summary: Tensor, interaction_input: Tensor) -> tuple[Tensor, Tensor]:
        """v^g (B,) and v^c (B, d) of Eq. (10), by way of r and u of Eq. (9)."""
        interaction = self.interaction_encoder(interaction_input)
        state = self.value_encoder(torch.cat([summary, interaction], 1))
        return torch.sigmoid(self.global_value(state)).squeeze(1), torch.sigmoid(self.channel_value(state))

    def gate(self, evidence: Tensor, global_value: Tensor, channel_value: Tensor) -> Tensor:
        """G of Eq. (11): (B, T, d_m)."""
        context = evidence.new_zeros(1)
        if self.gate_from_global is not None:
            context = context + self.gate_from_global(global_value.unsqueeze(1) - 0.5)
        if self.gate_from_channel is not None:
            context = context + self.gate_from_channel(channel_value - 0.5)
        return torch.sigmoid(evidence + context.unsqueeze(-2))


VALUE_SOURCES = ("summaries", "anchors", "both")

# arguments of `VGMR` by name of the form
FORMS: dict[str, dict[str, Any]] = {
    "paper": {},
    "neutral": {"norm": "none", "neutral_start": True},
    "calibrated": {
        "norm": "none",
        "neutral_start": True,
        "amplification": 1.0,
        "retention": 0.0,
        "value_from": "anchors",
        "retain": True,
    },
}


class VGMR(nn.Module):
    """Refine each modality by what the others make of it, before any fusion.

    `features = vgmr(features, mask).features` leaves all shapes as they were, so any model can stand behind.

    Args:
        dims: feature dimension d_m by modality name, at least two.
        latent_dim: d, the width in which summaries are compared.
        amplification: the paper's alpha in 0 to 1, Eq. (12); 0 switches the gate off.
        retention: the paper's rho in 0 to 1, Eq. (13); 1 switches the gate off.
        dropout: in R_m, 0 to 1.
        norm: "layer" is the paper's R_m (LayerNorm, then Dropout); "none" leaves the LayerNorm out and with it
            keeps the scale of each step.
        use_global_value, use_channel_value: the terms f^g and f^c of Eq. (11).
        use_agreement, use_discrepancy: the blocks a and q of Eq. (8); a dropped block narrows the first layer
            behind it.
        neutral_start: begin with every gate at 1/2, so that the model behind first sees what it would see
            without VGMR (but for the norm); else the maps to the gate begin like any linear layer. The paper
            leaves it open.
        value_from: where the values come from. "summaries" is the paper's: learned from the summaries, Eqs. (3)
            to (10). "anchors": fixed before the training by `prepare`; the global value is the relative agreement
            of the modality's posterior with the others' times how typical its course over time is, the channel
            value that of each channel, see `vgmr.evidence`. "both": learned, from the summaries and from that.
        num_classes: of the anchors' posteriors; needed unless the values come from the summaries alone.
        evidence_frequencies: how finely the anchors see the course over time; 1 for single vectors.
        retain: multiply the refined features by the global value, behind the norm, so that a modality without
            value is taken out whatever alpha and rho are; the paper's form does not.

    Raises:
        ValueError: fewer than two modalities, or an argument out of its range.
    """

    def __init__(
        self,
        dims: Mapping[str, int],
        latent_dim: int = 32,
        amplification: float = 0.5,
        retention: float = 0.2,
        dropout: float = 0.1,
        norm: str = "layer",
        use_global_value: bool = True,
        use_channel_value: bool = True,
        use_agreement: bool = True,
        use_discrepancy: bool = True,
        neutral_start: bool = False,
        value_from: str = "summaries",
        num_classes: int | None = None,
        evidence_frequencies: int = 6,
        retain: bool = False,
    ):
        super().__init__()
        self.dims = check_dims(dims, at_least=2)
        if value_from not in VALUE_SOURCES:
            raise ValueError(f"value_from must be one of {', '.join(VALUE_SOURCES)}, got {value_from!r}")
        if value_from != "summaries" and num_classes is None:
            raise ValueError(f"values from {value_from} need num_classes, the number of classes of the anchors")
        for what, value in (("amplification", amplification), ("retention", retention), ("dropout", dropout)):
            if not 0 <= value <= 1:
                raise ValueError(f"{what} must lie in 0 to 1, got {value}")
        if norm not in ("layer", "none"):
            raise ValueError(f"norm must be 'layer' or 'none', got {norm!r}")
        latent_dim = whole("latent_dim", latent_dim)
        self.latent_dim, self.norm = latent_dim, norm
        self.amplification, self.retention = amplification, retention
        self.use_agreement, self.use_discrepancy = use_agreement, use_discrepancy
        self.value_from, self.learns_value, self.retain = value_from, value_from != "anchors", retain
        self.others = {name: sorted(set(self.dims) - {name}) for name in self.dims}  # Eq. (4)
        blocks = 2 + (len(self.dims) - 1) * (1 + use_agreement + use_discrepancy)
        told = len(self.dims) * (num_classes or 0) + 2 if value_from == "both" else 0
        self.maps = nn.ModuleDict(
            {
                name: ModalityMaps(
                    dim,
                    latent_dim,
                    blocks * latent_dim + told,
                    dropout,
                    norm,
                    use_global_value,
                    use_channel_value,
                    neutral_start,
                    self.learns_value,
                )
                for name, dim in self.dims.items()
            }
        )
        self.evidence: Evidence | None = None
        if value_from != "summaries":
            assert num_classes is not None
            self.evidence = Evidence(self.dims, num_classes, frequencies=evidence_frequencies)

    def extra_repr(self) -> str:
        """The settings of the method, and whether the module is a folded copy."""
        folded = any(self.of(name).folded is not None for name in self.dims)
        return (
            f"latent_dim={self.latent_dim}, amplification={self.amplification}, retention={self.retention}, "
            f"norm={self.norm!r}, value_from={self.value_from!r}{', folded for inference' if folded else ''}"
        )

    def interaction_input(self, name: str, summary: Mapping[str, Tensor]) -> Tensor:
        """I of Eq. (8): own summary, the others', agreement and discrepancy with each, their mean."""
        own, others = summary[name], [summary[other] for other in self.others[name]]
        agreement = [own * other for other in others] if self.use_agreement else []  # Eq. (6), (7)
        discrepancy = [(own - other).abs() for other in others] if self.use_discrepancy else []
        context = torch.stack(others).mean(0)  # Eq. (5)
        return torch.cat([own, *others, *agreement, *discrepancy, context], 1)

    @classmethod
    def calibrated(cls, dims: Mapping[str, int], num_classes: int, **options: Any) -> VGMR:
        """The form with a value that sees; `options` are those of `VGMR`. Call `prepare`, or `fit`, before use."""
        return cls(dims, **{**FORMS["calibrated"], "num_classes": num_classes, **options})

    def prepare(self, features: Mapping[str, Tensor], mask: Mapping[str, Tensor] | None, label: Tensor) -> None:
        """Fit the anchors to a training part, once and before the training; `fit` does so by itself.

        Until then all are uniform and every value is near 1. Nothing to do where values come from summaries.

        Args:
            features, mask: as in `forward`.
            label: (N,), classes as int64, or real numbers, which are cut into `num_classes` parts of like size.
        """
        if self.evidence is not None:
            self.evidence.prepare(*check_inputs(self.dims, features, mask), label)

    def forward(
        self,
        features: Mapping[str, Tensor],
        mask: Mapping[str, Tensor] | None = None,
        value: Mapping[str, Tensor] | None = None,
    ) -> Refinement:
        """Eqs. (1) to (13) and the refinement of section 3.7.

        Args:
            features: name -> (B, T_m, d_m).
            mask: name -> (B, T_m) bool, True where a step is real; None if all are.
            value: name -> (B,), put in the place of the global values: the truth, or those of other samples.

        Raises:
            ValueError: see `check_inputs`.
        """
        checked, masks = check_inputs(self.dims, features, mask)
        check_like(self, checked)
        evidence, summary = {}, {}
        for name, x in checked.items():
            latent, evidence[name] = self.of(name).project(x)
            if self.learns_value:
                summary[name] = self.of(name).summarise(latent, masks[name])
        posterior, anchored, typical = self.judge(checked, masks)
        refinement = Refinement({}, {}, {}, {}, {}, posterior=posterior)
        strength = (1 - self.retention) * self.amplification
        for name, x in checked.items():
            maps = self.of(name)
            if self.learns_value:
                told = [posterior[other] for other in [name, *self.others[name]]] if posterior else []
                told += [anchored[name].unsqueeze(1), typical[name].mean(1, keepdim=True)] if posterior else []
                global_value, channel_value = maps.values(
                    summary[name], torch.cat([self.interaction_input(name, summary), *told], 1)
                )
            else:
                global_value, channel_value = anchored[name], typical[name]
            if value is not None:
                global_value = value[name].to(x.dtype)
            gate = maps.gate(evidence[name], global_value, channel_value)
            # rho + (1 - rho) (1 + alpha (2 G - 1)), Eqs. (12) and (13), with the constants drawn together
            effective_gate = gate * (2 * strength) + (1 - strength)
            refined = maps.dropout(maps.norm(effective_gate * x))
            kept = masks[name]
            if self.retain:
                worth = global_value.unsqueeze(1)
                effective_gate = effective_gate * worth.unsqueeze(2)
                kept = worth if kept is None else kept * worth
            refinement.features[name] = refined if kept is None else refined * kept.unsqueeze(2)
            refinement.global_value[name] = global_value
            refinement.channel_value[name] = channel_value
            refinement.gate[name] = gate
            refinement.effective_gate[name] = effective_gate
        return refinement

    def judge(
        self, features: Mapping[str, Tensor], mask: Mapping[str, Tensor | None]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        """Posteriors (B, C), values (B,) and channel values (B, d_m) of the anchors, by name; or nothing.

        In training mode by those that did not see the sample.
        """
        if self.evidence is None:
            return {}, {}, {}
        posterior, typical, channel = self.evidence(features, mask, self.training)
        agreement = relative_agreement(posterior)
        return posterior, {name: agreement[name] * typical[name] for name in features}, channel

    def fold(self) -> VGMR:
        """A copy for inference in which phi, f^x and f^h are one product of X; equal within 1e-5."""
        folded = copy.deepcopy(self).eval().requires_grad_(False)
        for name, dim in self.dims.items():
            maps = folded.of(name)
            if maps.folded is not None:
                continue
            weight, bias = maps.gate_weight()
            weight = torch.cat([maps.projection.weight, weight])
            bias = torch.cat([maps.projection.bias, bias])
            surplus = -len(weight) % 16  # rows of zeros: matrix products of odd widths are slower
            product = nn.Linear(dim, len(weight) + surplus, device=weight.device, dtype=weight.dtype)
            product.weight.data = F.pad(weight, (0, 0, 0, surplus))
            product.bias.data = F.pad(bias, (0, surplus))
            maps.folded = product.requires_grad_(False)
            del maps.projection, maps.gate_from_features, maps.gate_from_latent
        return folded

    def of(self, name: str) -> ModalityMaps:
        """The maps of the modality `name`."""
        maps = self.maps[name]
        assert isinstance(maps, ModalityMaps)
        return maps
