"""The Value-Gated Modality Refiner (VGMR), section 3 of the paper, equation by equation.

Axes: B samples, T_m time steps and d_m features of modality m, d latent dimension. Symbols of the paper stand
beside the code that computes them; what the paper leaves open are arguments, with the choice made as default.
The maps that a modality has of its own are those of `vgmr.refining.maps`; here modalities meet.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vgmr.refining.evidence import Evidence, Judged, Judgement, relative_agreement
from vgmr.refining.inputs import check_dims, check_inputs, check_like, check_share, check_value, is_trusted, whole
from vgmr.refining.maps import ModalityMaps, ValueMaps, learned, masked_max, masked_mean, scaled, watched
from vgmr.refining.refinement import Refinement

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
            value that of each channel. "both": learned, from the summaries and from that.
        num_classes: classes that anchors tell apart, or parts that scores are cut into; needed for anchors.
        evidence_frequencies: how finely the anchors see the course over time; 1 for single vectors.
        retain: multiply the refined features by the global value, behind the norm, so that a modality without
            value is taken out whatever alpha and rho are; the paper's form does not.
        sharing: one set of maps from summaries to values (E^s, E^i, E^v and what follows) for all modalities.
        rank: None is the paper's: phi, f^x and f^h read every channel of a step. With r of 1 or more they read r
            linear combinations of them, and f^x adds one weight for each channel by itself. With 0 there are
            neither f^x nor f^h: the gate has the values alone, and is one for a whole sequence. Values of anchors
            are one for each channel: f^c too reads r combinations of them, and weighs each by itself.
        per_step: a gate for every step, as in the paper. False: one for a whole sequence. phi reads the channels'
            means and maxima over time, f^x and f^h read the means.
        sparsity: share of the channels whose gate stays at 1/2, 0 to below 1: at each step those whose logits are
            nearest to 0. Sorting takes time of its own, but with one gate for a sequence.

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
        sharing: bool = False,
        rank: int | None = None,
        per_step: bool = True,
        sparsity: float = 0.0,
    ):
        super().__init__()
        self.dims = check_dims(dims, at_least=2)
        if value_from not in VALUE_SOURCES:
            raise ValueError(f"value_from must be one of {', '.join(VALUE_SOURCES)}, got {value_from!r}")
        if value_from != "summaries" and num_classes is None:
            raise ValueError(f"values from {value_from} need num_classes, the number of classes of the anchors")
        shares = {"amplification": amplification, "retention": retention, "dropout": dropout, "sparsity": sparsity}
        for what, given in shares.items():
            check_share(what, given)
        if norm not in ("layer", "none"):
            raise ValueError(f"norm must be 'layer' or 'none', got {norm!r}")
        if sparsity == 1:
            raise ValueError(f"sparsity must lie in 0 to below 1, got {sparsity}")
        if sharing and value_from == "anchors":
            raise ValueError("sharing is of the maps to learned values, and values from anchors are not learned")
        if rank is not None and (rank != 0 or isinstance(rank, bool)):
            rank = whole("rank, where it is not 0 or None,", rank)
        if rank == 0 and not (use_global_value or use_channel_value):
            raise ValueError("with rank 0 the gate has the values alone: use the global or the channel value")
        latent_dim = whole("latent_dim", latent_dim)
        self.latent_dim, self.norm = latent_dim, norm
        self.amplification, self.retention = amplification, retention
        self.use_agreement, self.use_discrepancy = use_agreement, use_discrepancy
        self.rank, self.per_step = rank, per_step and rank != 0
        self.steady = not self.per_step and norm == "none"
        self.value_from, self.learns_value, self.retain = value_from, value_from != "anchors", retain
        self.others = {name: sorted(set(self.dims) - {name}) for name in self.dims}  # Eq. (4)
        blocks = 2 + (len(self.dims) - 1) * (1 + use_agreement + use_discrepancy)
        told = len(self.dims) * (num_classes or 0) + 2 if value_from == "both" else 0
        interaction_dim = blocks * latent_dim + told
        self.maps = nn.ModuleDict(
            {
                name: ModalityMaps(
                    dim,
                    latent_dim,
                    interaction_dim,
                    dropout,
                    norm,
                    use_global_value,
                    use_channel_value,
                    neutral_start,
                    self.learns_value,
                    sharing,
                    rank,
                    self.per_step,
                    sparsity,
                )
                for name, dim in self.dims.items()
            }
        )
        self.shared = ValueMaps(latent_dim, interaction_dim) if sharing else None
        self.evidence: Evidence | None = None
        if value_from != "summaries":
            assert num_classes is not None
            self.evidence = Evidence(self.dims, num_classes, frequencies=evidence_frequencies)

    def extra_repr(self) -> str:
        """The settings of the method, and whether the module is a folded copy."""
        folded = any(self.of(name).folded is not None for name in self.dims)
        return (
            f"latent_dim={self.latent_dim}, amplification={self.amplification}, retention={self.retention}, "
            f"norm={self.norm!r}, value_from={self.value_from!r}, rank={self.rank}, per_step={self.per_step}"
            f"{', folded for inference' if folded else ''}"
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
            features, mask: as in `forward`; a sample changed after this may be judged by an anchor that saw it.
            label: (N,), classes as int64, or real numbers, which are cut into `num_classes` parts of like size.
        """
        if self.evidence is not None:
            self.evidence.prepare(*check_inputs(self.dims, features, mask), label)

    def forward(
        self,
        features: Mapping[str, Tensor],
        mask: Mapping[str, Tensor] | None = None,
        value: Mapping[str, Tensor] | None = None,
        pooled: bool = False,
    ) -> Refinement:
        """Eqs. (1) to (13) and the refinement of section 3.7.

        Args:
            features: name -> (B, T_m, d_m); in training with `pooled` also what `Evidence.judged` gives.
            mask: name -> (B, T_m) bool, True where a step is real; None if all are.
            value: name -> (B,), put in the place of the global values: the truth, or those of other samples.
            pooled: refine the means over time alone, (B, 1, d_m), which are the means of the refined features
                where `steady` holds (one gate for a sequence, no norm); for backbones that read nothing else.

        Raises:
            ValueError: see `check_inputs`; `pooled` where the gate differs between steps.
        """
        if pooled and not self.steady:
            raise ValueError('refining means needs a gate the same at all steps: per_step=False, norm="none"')
        described = {}
        if isinstance(features, Judged):
            judged = features.judgement_of(self.evidence if pooled and self.training else None)
            checked, masks = dict(features), dict.fromkeys(self.dims)
        else:
            checked, masks = check_inputs(self.dims, features, mask)
            check_like(self, checked)
            described = {} if self.evidence is None else self.evidence.describe(checked, masks)
            judged = self.judge(described, checked if self.training else None)
        evidence, over_time, mean = {}, {}, {}
        for name, x in checked.items():
            seen = x
            if self.per_step:
                hidden, evidence[name] = self.of(name).project(x)
                seen = x if hidden is None else hidden
            if self.learns_value:
                over_time[name] = (masked_mean(seen, masks[name]), masked_max(seen, masks[name]))
            if not self.per_step:
                if over_time:
                    mean[name] = over_time[name][0]
                elif name in described and not learned(x):
                    mean[name] = described[name][0][:, : x.shape[2]]  # the first frequency is the mean
                else:
                    mean[name] = masked_mean(x, masks[name])
                evidence[name] = self.of(name).project(mean[name].unsqueeze(1))[1]
        latent = {name: self.of(name).pooled_latent(*pair) for name, pair in over_time.items()}
        refinement = self.valued(latent, *judged, check_value(value, self.dims, checked))
        for name, x in checked.items():
            seen, real = (mean[name].unsqueeze(1), None) if pooled else (x, masks[name])
            self.refine(name, seen, real, evidence[name], refinement)
        return refinement

    def valued(
        self,
        latent: Mapping[str, tuple[Tensor, Tensor]],
        posterior: dict[str, Tensor],
        anchored: Mapping[str, Tensor],
        typical: Mapping[str, Tensor],
        value: Mapping[str, Tensor] | None = None,
    ) -> Refinement:
        """A refinement that holds the values alone, Eqs. (3) to (10).

        Args:
            latent: what `pooled_latent` gives, by name; empty where the value is not learned.
            posterior, anchored, typical: what `judge` gives.
            value: as in `forward`.
        """
        refinement = Refinement({}, {}, {}, {}, {}, posterior=posterior)
        summary = {name: self.value_maps(name).summary(*pair) for name, pair in latent.items()}
        for name in self.dims:
            if self.learns_value:
                told = [posterior[other] for other in [name, *self.others[name]]] if posterior else []
                told += [anchored[name].unsqueeze(1), typical[name].mean(1, keepdim=True)] if posterior else []
                global_value, channel_value = self.value_maps(name).values(
                    summary[name], torch.cat([self.interaction_input(name, summary), *told], 1)
                )
            else:
                global_value, channel_value = anchored[name], typical[name]
            if value is not None:
                global_value = value[name].to(channel_value.dtype)
            refinement.global_value[name], refinement.channel_value[name] = global_value, channel_value
        return refinement

    def refine(
        self, name: str, x: Tensor, mask: Tensor | None, evidence: Tensor | None, refinement: Refinement
    ) -> None:
        """Put gate and refined features of a modality into `refinement`, beside its values: Eqs. (11) to (13).

        Args:
            x: (B, T, d_m), zero in padding; its memory is taken where that was cut here, if no gradient is needed.
            evidence: (B, T, d_m), what `project` gives.
        """
        maps, strength = self.of(name), (1 - self.retention) * self.amplification
        global_value = refinement.global_value[name]
        gate = maps.gate(evidence, global_value, refinement.channel_value[name])
        # rho + (1 - rho) (1 + alpha (2 G - 1)), Eqs. (12) and (13), with the constants drawn together
        effective_gate = (gate * (2 * strength)).add_(1 - strength)
        if self.steady:  # so is the dropout: a channel of a whole sequence
            if self.retain:
                effective_gate = effective_gate * global_value[:, None, None]
            refined = maps.dropout(effective_gate) * x
        else:
            owned = not watched(maps.children())
            free = owned and not torch.is_grad_enabled()
            copied = mask is not None and not is_trusted()  # with padding cut, x is nobody else's
            refined = maps.dropout(maps.norm(scaled(x, effective_gate, free and copied)))
            kept = mask
            if self.retain:
                worth = global_value.unsqueeze(1)
                effective_gate = scaled(effective_gate, worth.unsqueeze(2), free or not x.requires_grad)
                kept = worth if kept is None else kept * worth
            refined = refined if kept is None else scaled(refined, kept.unsqueeze(2), owned)
        refinement.features[name] = refined
        refinement.gate[name] = gate.expand_as(x)
        refinement.effective_gate[name] = effective_gate.expand_as(x)

    def judge(
        self, described: Mapping[str, tuple[Tensor, Tensor]], trained: Mapping[str, Tensor] | None = None
    ) -> Judgement:
        """Posteriors (B, C), values (B,) and channel values (B, d_m) of the anchors, by name; or nothing.

        Args:
            described: what `Evidence.describe` gives.
            trained: the features where they may stand in the training part; then by anchors that did not see them.
        """
        if self.evidence is None:
            return {}, {}, {}
        posterior, typical, channel = self.evidence.judge(described, trained)
        agreement = relative_agreement(posterior)
        return posterior, {name: agreement[name] * typical[name] for name in posterior}, channel

    def fold(self) -> VGMR:
        """A copy for inference, phi, f^x and f^h one product of X; equal to 1e-5 on standardised features.

        Layers that are pruned need torch's `prune.remove` first, which makes them whole.
        """
        folded = copy.deepcopy(self).eval().requires_grad_(False)
        for name in self.dims:
            folded.of(name).fold()
        return folded

    def value_maps(self, name: str) -> ValueMaps:
        """The maps to the values of the modality `name`, its own or the shared ones."""
        return self.of(name) if self.shared is None else self.shared

    def of(self, name: str) -> ModalityMaps:
        """The maps of the modality `name`."""
        maps = self.maps[name]
        assert isinstance(maps, ModalityMaps)
        return maps
