"""TETFN: MulT's scheme, but two other modalities meet through the text (Wang et al., Pattern Recognition, 2023).

After the version of a public collection of such systems; the paper itself is not confirmed to leave positions out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vgmr.fusion.base import Backbone
from vgmr.fusion.crossmodal import CrossmodalStack


class _States(nn.Module):
    """All states of an LSTM, projected without bias: (B, T, dim) to (B, T, width)."""

    def __init__(self, dim: int, hidden_dim: int, width: int):
        super().__init__()
        self.recurrent = nn.LSTM(dim, hidden_dim, batch_first=True)
        self.linear = nn.Linear(hidden_dim, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        states: Tensor = self.linear(self.recurrent(x)[0])
        return states


class TextEnhancedFusion(Backbone):
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
        super().__init__(dims, num_outputs, width)
        self.anchor = "text" if anchor is None else anchor
        if self.anchor not in self.dims:
            raise ValueError(
                f"TextEnhancedFusion needs an anchor; give anchor=..., one of {self.names}, got {self.anchor!r}"
            )
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
        self.others = {name: [other for other in self.names if other != name] for name in self.names}
        pairs = [(target, source) for target in self.names for source in self.others[target]]
        detours = [pair for pair in pairs if self.anchor not in pair]
        self.place = {pair: i for i, pair in enumerate(pairs)}
        self.detour = {pair: i for i, pair in enumerate(detours)}
        self.pairs = nn.ModuleList([stack(width, num_layers, positions or pair in detours) for pair in pairs])
        self.through = nn.ModuleList([stack(width, 1, True) for _ in detours])
        memory = (len(self.dims) - 1) * width
        self.memories = nn.ModuleList([stack(memory, num_layers, positions) for _ in self.names])
        self.first = nn.Linear(len(self.dims) * memory, post_dim)
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

    def summaries(
        self,
        encodings: Mapping[str, Tensor],
        keeps: Sequence[Collection[str] | None],
        mask: Mapping[str, Tensor] | None = None,
    ) -> list[Tensor]:
        """The joined memories of each subset, (B, modalities (modalities - 1) width); each stack runs once."""
        masks = {name: None if mask is None else mask[name] for name in self.names}
        done: dict[tuple[object, ...], Tensor] = {}

        def once(key: tuple[object, ...], stack: nn.Module, *given: Any) -> Tensor:
            if key not in done:
                done[key] = stack(*given)
            return done[key]

        def asked(target: str, source: str, present: list[str]) -> Tensor | None:
            """The source, or what the source found in the anchor; None where the source is absent."""
            if source not in present:
                return None
            if (target, source) not in self.detour:
                return encodings[source]
            there = self.anchor in present
            return once(
                ("through", target, source, there),
                self.through[self.detour[target, source]],
                encodings[source],
                encodings[self.anchor] if there else None,
                masks[source],
                masks[self.anchor],
                self.causal,
            )

        def pair(target: str, source: str, present: list[str]) -> Tensor:
            there = source in present
            through = there and (target, source) in self.detour and self.anchor in present
            return once(
                ("pair", target, source, there, through),
                self.pairs[self.place[target, source]],
                encodings[target],
                asked(target, source, present),
                masks[target],
                masks[source],
                self.causal,
            )

        def memory(target: str, present: list[str]) -> Tensor:
            key = ("memory", target, *present)
            if key not in done:
                joined = torch.cat([pair(target, other, present) for other in self.others[target]], 2)
                stack = self.memories[self.names.index(target)]
                assert isinstance(stack, CrossmodalStack)
                done[key] = stack.remember(joined, masks[target], self.causal, last_only=True)
            return done[key]

        first = encodings[self.names[0]]
        silent = first.new_zeros(len(first), self.first.in_features // len(self.names))
        found = []
        for keep in keeps:
            present = self.present(keep)
            slots = [memory(name, present) if name in present else silent for name in self.names]
            found.append(torch.cat(slots, 1))
        return found

    def fused(
        self,
        encodings: Mapping[str, Tensor],
        keep: Collection[str] | None = None,
        mask: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """relu of a linear layer on all memories, (B, post_dim)."""
        return torch.relu(self.first(self.summaries(encodings, [keep], mask)[0]))

    def fuse_many(
        self,
        encodings: Mapping[str, Tensor],
        keeps: Sequence[Collection[str]],
        mask: Mapping[str, Tensor] | None = None,
    ) -> list[Tensor]:
        """`fuse` for several subsets; stacks that they have in common run once."""
        return [self.classify(torch.relu(self.first(one))) for one in self.summaries(encodings, keeps, mask)]

    def classify(self, fused: Tensor) -> Tensor:
        """Two layers: (B, post_dim) to (B, num_outputs)."""
        outputs: Tensor = self.output(torch.relu(self.second(fused)))
        return outputs
