"""The maps of one modality: pooling over time, and the learned maps of Eqs. (2), (3) and (9) to (11).

Axes as in `vgmr.refiner`, where modalities meet.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook


def masked_mean(x: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over real time steps, of which every sample has one at least: (B, T, d) -> (B, d)."""
    if x.shape[1] == 1:
        return x.squeeze(1)
    if mask is None:
        return x.mean(1)
    weight = mask.to(x.dtype)
    # a row product is ten times as fast for wide sequences; where gradients go back, as kept rows were trained
    total = torch.einsum("btd,bt->bd", x, weight) if learned(x) else (weight.unsqueeze(1) @ x).squeeze(1)
    return total / weight.sum(1, keepdim=True)


def masked_max(x: Tensor, mask: Tensor | None) -> Tensor:
    """Maximum over real time steps: (B, T, d) -> (B, d)."""
    real = x if mask is None else torch.where(mask.unsqueeze(2), x, -torch.inf)
    return real.amax(1)


def spare(x: Tensor, *others: Tensor) -> bool:
    """Whether the memory of `x`, which nobody else needs, can take what comes of it and `others`.

    So it is where that is of the type of `x`, but never in a traced graph or within torch.func.
    """
    if torch.compiler.is_compiling():
        return False
    wrapped = any(map(torch._C._functorch.is_functorch_wrapped_tensor, (x, *others)))
    return not wrapped and all(torch.result_type(x, other) == x.dtype for other in others)


def scaled(x: Tensor, other: Tensor, owned: bool = True) -> Tensor:
    """x * other, in the memory of `x` where that is `owned`, needed by nobody else, and can take it."""
    return x.mul_(other) if owned and spare(x, other) else x * other


def learned(x: Tensor) -> bool:
    """Whether `x` passes a gradient on, also where a batch of torch.func hides that it does."""
    if not torch.compiler.is_compiling():
        while not x.requires_grad and torch._C._functorch.is_functorch_wrapped_tensor(x):
            x = torch._C._functorch.get_unwrapped(x)
    return x.requires_grad


def hooked(module: nn.Module) -> bool:
    """Whether hooks of its own see what `module` reads and gives; those of all modules count FLOPs, say."""
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def watched(modules: Iterable[nn.Module]) -> bool:
    """Whether hooks see what `modules` read and give; then its memory is somebody else's as well."""
    if torch.compiler.is_compiling():
        return False  # nothing is made in place there
    return _has_any_global_hook() or any(map(hooked, modules))


def is_linear(module: nn.Module | None) -> bool:
    """Whether all that `module` does is `nn.Linear` of its weights, so that these may be used in its place.

    So it is not for a layer that is pruned, quantised or adapted (LoRA), nor for one that hooks look at.
    """
    same = getattr(getattr(module, "forward", None), "__func__", None) is nn.Linear.forward
    return same and module is not None and not hooked(module)


def mlp(width_in: int, width_out: int) -> nn.Sequential:
    """The paper's lightweight two-layer MLP; GELU and hidden width = output width are our choice."""
    return nn.Sequential(nn.Linear(width_in, width_out), nn.GELU(), nn.Linear(width_out, width_out))


class ValueMaps(nn.Module):
    """The maps from summaries to values. No width is a modality's own: modalities can share them."""

    def __init__(self, latent_dim: int = 0, interaction_dim: int = 0):
        super().__init__()
        if latent_dim:
            self._make(latent_dim, interaction_dim)

    def _make(self, latent_dim: int, interaction_dim: int) -> None:
        self.summary_encoder = mlp(2 * latent_dim, latent_dim)  # E^s
        self.interaction_encoder = mlp(interaction_dim, latent_dim)  # E^i
        self.value_encoder = mlp(2 * latent_dim, latent_dim)  # E^v
        self.global_value = nn.Linear(latent_dim, 1)  # w, b
        self.channel_value = nn.Linear(latent_dim, latent_dim)  # W, b^c

    def summarise(self, latent: Tensor, mask: Tensor | None) -> Tensor:
        """s of Eq. (3): (B, T, d) -> (B, d)."""
        return self.summary(masked_mean(latent, mask), masked_max(latent, mask))

    def summary(self, mean: Tensor, largest: Tensor) -> Tensor:
        """s of Eq. (3) from the mean and the maximum over time, (B, d) each."""
        summary: Tensor = self.summary_encoder(torch.cat([mean, largest], 1))
        return summary

    def values(self, summary: Tensor, interaction_input: Tensor) -> tuple[Tensor, Tensor]:
        """v^g (B,) and v^c (B, d) of Eq. (10), by way of r and u of Eq. (9)."""
        interaction = self.interaction_encoder(interaction_input)
        state = self.value_encoder(torch.cat([summary, interaction], 1))
        return torch.sigmoid(self.global_value(state)).squeeze(1), torch.sigmoid(self.channel_value(state))


class NarrowMap(nn.Module):
    """A square linear map of few parameters: diagonal * x + outer(inner(x)) + bias, by way of `rank` values.

    With rank 0 there are neither `inner` nor `outer`. Diagonal and bias are 0 to begin with.
    """

    def __init__(self, dim: int, rank: int):
        super().__init__()
        self.diagonal, self.bias = nn.Parameter(torch.zeros(dim)), nn.Parameter(torch.zeros(dim))
        self.inner = nn.Linear(dim, rank, bias=False) if rank else None
        self.outer = nn.Linear(rank, dim, bias=False) if rank else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, d) to (B, d)."""
        own = torch.addcmul(self.bias, x, self.diagonal)
        return own if self.inner is None or self.outer is None else own + self.outer(self.inner(x))


class ModalityMaps(ValueMaps):
    """The maps of one modality m; every modality has its own.

    With a rank r, phi and f^x read r values z of a step: H = phi(z), and its evidence is
    diagonal * x + f^x(z + f^h(H)). With rank 0 there are neither f^x nor f^h.
    Where the values are not learned, f^c reads a value of each channel, and a rank is that of f^c as well.
    Where a sequence has one gate, phi reads means and maxima over time, f^x and f^h read means.
    """

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
        sharing: bool = False,
        rank: int | None = None,
        per_step: bool = True,
        sparsity: float = 0.0,
    ):
        super().__init__()
        self.latent_dim, self.rank, self.per_step, self.learns_value = latent_dim, rank, per_step, learns_value
        self.gated = dim - int(sparsity * dim)  # channels of a step that may leave 1/2
        self.bottleneck = nn.Linear(dim, rank, bias=False) if rank else None
        inner = rank or dim
        self.projection = nn.Linear(inner, latent_dim) if learns_value or rank != 0 else None  # phi
        if learns_value and not sharing:
            self._make(latent_dim, interaction_dim)
        self.gate_from_features = nn.Linear(inner, dim) if rank != 0 else None  # f^x
        self.gate_from_latent = nn.Linear(latent_dim, rank or dim) if rank != 0 else None  # f^h
        self.diagonal = nn.Parameter(torch.zeros(dim)) if rank else None
        self.gate_from_global = nn.Linear(1, dim) if use_global_value else None  # f^g
        self.gate_from_channel: nn.Linear | NarrowMap | None = None  # f^c
        if use_channel_value and rank is not None and not learns_value:
            self.gate_from_channel = NarrowMap(dim, rank)
        elif use_channel_value:
            self.gate_from_channel = nn.Linear(latent_dim if learns_value else dim, dim)
        self.norm = nn.LayerNorm(dim) if norm == "layer" else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.folded: nn.Linear | None = None
        if neutral_start:
            told = self.gate_from_channel
            ending = [
                self.gate_from_features,
                self.gate_from_global,
                told.outer if isinstance(told, NarrowMap) else told,
            ]
            if rank is None:
                ending.append(self.gate_from_latent)
            for parameter in [one for gate in ending if gate is not None for one in gate.parameters()]:
                nn.init.zeros_(parameter)

    def gate_weight(self) -> tuple[Tensor, Tensor]:
        """f^x(X) + f^h(phi(X)) as one affine map: weight (d_m, d_m) and bias (d_m,).

        With a rank r that of f^x(z + f^h(phi(z))), weight (d_m, r), the diagonal left out.
        """
        outer, features, inner = self.gate_from_latent, self.gate_from_features, self.projection
        assert outer is not None and features is not None and inner is not None
        weight, bias = outer.weight @ inner.weight, outer.weight @ inner.bias
        if self.rank is None:
            return features.weight + weight, features.bias + outer.bias + bias
        return features.weight + features.weight @ weight, features.bias + features.weight @ (outer.bias + bias)

    def foldable(self) -> bool:
        """Whether phi, f^x and f^h are there, and are linear maps and nothing else."""
        return all(map(is_linear, (self.projection, self.gate_from_features, self.gate_from_latent)))

    def fold(self) -> None:
        """Make one product of phi, f^x and f^h, for inference alone; nothing to do where there are none.

        Nor where one of them does more than its product, see `is_linear`: it then stays as it is.
        """
        if self.folded is not None or not self.per_step or not self.foldable():
            return
        weight, bias = self.gate_weight()
        if self.learns_value:
            assert self.projection is not None
            weight = torch.cat([self.projection.weight, weight])
            bias = torch.cat([self.projection.bias, bias])
        surplus = -len(weight) % 16  # rows of zeros: matrix products of odd widths are slower
        own = self.gate_from_global
        told = own if not self.learns_value and type(own) is nn.Linear and is_linear(own) else None
        shape = weight.shape[1], len(weight) + surplus
        product = nn.Linear(*shape, bias=told is None, device=weight.device, dtype=weight.dtype)
        product.weight.data = F.pad(weight, (0, 0, 0, surplus))
        if told is None:
            product.bias.data = F.pad(bias, (0, surplus))
        else:  # one sum for a sample in place of one for each step
            told.bias.data = told.bias + bias
        self.folded = product.requires_grad_(False)
        del self.projection, self.gate_from_features, self.gate_from_latent

    def project(self, x: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """H of Eq. (2), (B, T, d), and the feature evidence f^x(X) + f^h(H) of Eq. (11), (B, T, d_m).

        None for H where no value is learned from it, and for both with rank 0.
        """
        if self.rank == 0:
            return None, None
        dim, needed = x.shape[2], watched(self.children())
        z = x if self.bottleneck is None else self.bottleneck(x)
        if self.folded is not None:
            product, first = self.folded(z), self.latent_dim if self.learns_value else 0
            latent, evidence = product[..., :first], product[..., first : first + dim]
            needed = needed or product.requires_grad  # the rest of it, as it is
        else:
            assert self.projection is not None
            latent = self.projection(z) if self.learns_value else None
            # folding costs d_m rows and saves B * T of them; traced graphs fold for any number of samples
            many = torch.compiler.is_compiling() or x.shape[0] * x.shape[1] > z.shape[2]
            if many and self.foldable():
                evidence = F.linear(z, *self.gate_weight())
            else:
                assert self.gate_from_features is not None and self.gate_from_latent is not None
                told = self.gate_from_latent(self.projection(z) if latent is None else latent)
                evidence = self.gate_from_features(z if self.rank is None else z + told)
                evidence = evidence + told if self.rank is None else evidence
        if needed:
            evidence = evidence.clone()
        if self.diagonal is not None:
            owned = self.per_step and spare(evidence, x, self.diagonal)  # one gate is too little to pay
            into = evidence.addcmul_ if owned else evidence.addcmul
            evidence = into(x, self.diagonal)
        return latent, evidence

    def pooled_latent(self, mean: Tensor, largest: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and maximum over time of H, (B, d) each, as they came; with one gate phi of those of X."""
        if self.per_step:
            return mean, largest
        assert self.projection is not None
        both = torch.stack([mean, largest])
        mean, largest = self.projection(both if self.bottleneck is None else self.bottleneck(both)).unbind(0)
        return mean, largest

    def gate(self, evidence: Tensor | None, global_value: Tensor, channel_value: Tensor) -> Tensor:
        """G of Eq. (11): (B, T, d_m), or (B, 1, d_m) without evidence, whose memory it takes."""
        context = global_value.new_zeros(1)
        if self.gate_from_global is not None:
            context = context + self.gate_from_global(global_value.unsqueeze(1) - 0.5)
        if self.gate_from_channel is not None:
            context = context + self.gate_from_channel(channel_value - 0.5)
        logits = context.unsqueeze(-2)
        if evidence is not None:
            owned = self.per_step and spare(evidence, logits)
            logits = evidence.add_(logits) if owned else evidence + logits
        if self.gated < logits.shape[-1]:
            size = logits.detach().abs()
            least = size.topk(self.gated, -1, sorted=True).values[..., -1:]
            logits = logits * (size >= least)
        return logits.sigmoid_()
