"""TETFN: MulT's scheme, but two other modalities meet through the text (Wang et al., Pattern Recognition, 2023).

After the version of a public collection of such systems; the paper itself is not confirmed to leave positions out.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from vgmr.fusion.base import check_sizes, find_anchor
from vgmr.fusion.crossmodal import Asked, CrossmodalStack, PairedStacks, across


class _States(nn.Module):
    """All states of an LSTM, projected without bias: (B, T, dim) to (B, T, width)."""

    def __init__(self, dim: int, hidden_dim: int, width: int):
        super().__init__()
        self.recurrent = nn.LSTM(dim, hidden_dim, batch_first=True)
        self.linear = nn.Linear(hidden_dim, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        states: Tensor = self.linear(self.recurrent(x)[0])
        return states


class TextEnhancedFusion(PairedStacks):
    """A stack for every ordered pair of modalities, a self-attention memory per target, an MLP.

    Between two modalities other than the anchor the source first asks the anchor, then the target asks what came
    of it. Encodings are projected sequences, (B, T_m, width), vectors their maxima over real steps. An absent
    target has a slot of zeros, an absent source or anchor leaves its attention out and the rest of the stack as it
    is, so the model still answers without text. With four and more modalities there is one such detour for each
    ordered pair, which is ours. The original trains it with Self-MM's labels, the method "self-mm".

    Args:
        dims: feature dimension by modality name: the anchor and at least two others.
        num_outputs: classes, or 1 for regression.
        anchor: through which the others meet; "text" by default.
        width: even and at least 4, divisible by `num_heads`; memories have (modalities - 1) width.
        num_heads, num_layers: of all stacks, but one layer where the source asks the anchor.
        hidden_dim: of the LSTMs that read all modalities but the anchor.
        post_dim: of `fused`.
        dropout: in the stacks.
        positions: also in the stacks with the anchor and in the memories; the others always have them.
        causal: no step sees what comes later.

    Raises:
        ValueError: no anchor, fewer than two others, or a width that does not fit.
    """

    def __init__(
        self,
        dims: Mapping[str, int],
        num_outputs: int,
        anchor: str | None = None,
        width: int = 32,
        num_heads: int = 4,
        num_layers: int = 1,
        hidden_dim: int = 16,
        post_dim: int = 32,
        dropout: float = 0.1,
        positions: bool = False,
        causal: bool = True,
    ):
        check_sizes("TextEnhancedFusion", width=width, num_heads=num_heads, num_layers=num_layers)
        check_sizes("TextEnhancedFusion", hidden_dim=hidden_dim, post_dim=post_dim)
        super().__init__(dims, num_outputs, width)
        self.anchor = find_anchor(self.dims, anchor, type(self).__name__)
        if len(self.dims) < 3:
            raise ValueError(
                f"TextEnhancedFusion lets two modalities meet through a third, got {self.names}; for two use mult"
            )
        self.causal = causal
        rates: dict[str, Any] = dict.fromkeys(("attention_dropout", "relu_dropout", "dropout"), dropout)
        rates["embedding_dropout"] = 0.0

        def stack(width: int, layers: int, placed: bool) -> CrossmodalStack:
            return CrossmodalStack(width, num_heads, layers, **rates, positions=placed)

        self.encoder = nn.ModuleDict(
            {
                name: nn.Linear(dim, width, bias=False) if name == self.anchor else _States(dim, hidden_dim, width)
                for name, dim in self.dims.items()
            }
        )
        detours = [pair for pair in self.ordered if self.anchor not in pair]
        self.detour = {pair: i for i, pair in enumerate(detours)}
        self.pairs = nn.ModuleList(
            [stack(width, num_layers, positions or pair in detours) for pair in self.ordered]
        )
        self.through = nn.ModuleList([stack(width, 1, True) for _ in detours])
        self.memories = nn.ModuleList([stack(self.memory_width, num_layers, positions) for _ in self.names])
        self.first = nn.Linear(len(self.dims) * self.memory_width, post_dim)
        self.second = nn.Linear(post_dim, post_dim)
        self.output = nn.Linear(post_dim, num_outputs)

    def encode_one(self, name: str, x: Tensor, mask: Tensor | None) -> Tensor:
        """The projected sequence, of states for all but the anchor: (B, T_m, d_m) to (B, T_m, width)."""
        projected: Tensor = self.encoder[name](x)
        return projected

    def vectors(
        self, encodings: Mapping[str, Tensor], mask: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Maxima over real steps, name -> (B, width)."""
        if mask is None:
            return {name: x.amax(1) for name, x in encodings.items()}
        return {name: x.masked_fill(~mask[name].unsqueeze(2), -torch.inf).amax(1) for name, x in encodings.items()}

    def asked(
        self,
        wanted: Sequence[tuple[str, str, tuple[str, ...]]],
        encodings: Mapping[str, Tensor],
        masks: Mapping[str, Tensor | None],
    ) -> list[tuple[Hashable, Tensor | None]]:
        """The source, or what the source found in the anchor."""
        detours: dict[Hashable, Asked] = {
            (target, source, self.anchor in present): (
                cast(CrossmodalStack, self.through[self.detour[target, source]]),
                encodings[source],
                encodings[self.anchor] if self.anchor in present else None,
                masks[source],
                masks[self.anchor],
            )
            for target, source, present in wanted
            if source in present and (target, source) in self.detour
        }
        found = dict(zip(detours, across(list(detours.values()), self.causal), strict=True))
        direct = super().asked(wanted, encodings, masks)
        answers = []
        for (target, source, present), (there, sequence) in zip(wanted, direct, strict=True):
            way = (target, source, self.anchor in present)
            answers.append((way, found[way]) if there and way in found else (there, sequence))
        return answers

    def read(self, summary: Tensor) -> Tensor:
        """relu of a linear layer on all memories, (B, post_dim)."""
        return torch.relu(self.first(summary))

    def classify(self, fused: Tensor) -> Tensor:
        """Two layers: (B, post_dim) to (B, num_outputs)."""
        outputs: Tensor = self.output(torch.relu(self.second(fused)))
        return outputs
