"""MulT: every modality's steps attend to those of every other, no alignment needed (Tsai et al., 2019)."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgmr.fusion.attention import ByteDropout, attend, bias_of, drawn_as_bytes
from vgmr.fusion.base import Backbone, check_sizes
from vgmr.refining.inputs import check_share


def sinusoids(length: int, width: int, like: Tensor) -> Tensor:
    """Positions of the steps 1, 2, ...: (length, width), sines in the first half and cosines in the second."""
    half, device = width // 2, "cpu" if like.device.type == "mps" else like.device  # MPS has no float64
    rate = 1e4 ** -(torch.arange(half, device=device, dtype=torch.float64) / (half - 1))
    angle = torch.arange(1, length + 1, device=device, dtype=torch.float64).unsqueeze(1) * rate
    return torch.cat([angle.sin(), angle.cos()], 1).to(like.dtype).to(like.device)


class Attention(nn.MultiheadAttention):
    """The parameters of `nn.MultiheadAttention`, with keys and values that may have been computed before."""

    def __init__(self, width: int, num_heads: int, dropout: float):
        check_share("dropout", dropout)
        super().__init__(width, num_heads, dropout, batch_first=True)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
        """(B, T, width) and projected keys and values (B, S, width) to (B, T, width).

        Args:
            query: not yet projected.
            bias: what `bias_of` gives; None if every step may be seen.
        """
        width, scale = self.embed_dim, self.head_dim**-0.5
        query = F.linear(query, self.in_proj_weight[:width] * scale, self.in_proj_bias[:width] * scale)
        q, k, v = (x.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for x in (query, key, value))
        p = self.dropout if self.training else 0.0
        if self.training and drawn_as_bytes(q) and not torch.is_autocast_enabled("cpu"):
            attended = attend(q, k, v, bias, p)  # the fused kernel is slow backwards there
        else:
            attended = F.scaled_dot_product_attention(q, k, v, bias, p, scale=1.0)
        result: Tensor = self.out_proj(attended.transpose(1, 2).flatten(2))
        return result

    def project_source(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of (B, S, width)."""
        width = self.embed_dim
        key, value = F.linear(x, self.in_proj_weight[width:], self.in_proj_bias[width:]).chunk(2, 2)
        return key, value


class _Layer(nn.Module):
    def __init__(self, width: int, num_heads: int, attention_dropout: float, relu_dropout: float, dropout: float):
        super().__init__()
        self.attention = Attention(width, num_heads, attention_dropout)
        self.widen = nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)
        self.norm_attention = nn.LayerNorm(width)
        self.norm_feedforward = nn.LayerNorm(width)
        self.relu_dropout = ByteDropout(relu_dropout)
        self.dropout = ByteDropout(dropout)

    def attend(self, z: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
        return z + self.dropout(self.attention.attend(self.norm_attention(z), key, value, bias))

    def attend_self(self, z: Tensor, rows: Tensor | None, bias: Tensor | None) -> Tensor:
        """With all steps as queries, or the one of each sample that `rows` (B,) names."""
        normed = self.norm_attention(z)
        key, value = self.attention.project_source(normed)
        if rows is not None:
            z, normed = (x[torch.arange(x.shape[0], device=x.device), rows].unsqueeze(1) for x in (z, normed))
        return z + self.dropout(self.attention.attend(normed, key, value, bias))

    def feed(self, z: Tensor) -> Tensor:
        inner = self.relu_dropout(torch.relu(self.widen(self.norm_feedforward(z))))
        result: Tensor = z + self.dropout(self.narrow(inner))
        return result

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight (2 width, width) and bias of keys and values with the affine part of the norm drawn in."""
        width = self.attention.embed_dim
        weight, bias = self.attention.in_proj_weight[width:], self.attention.in_proj_bias[width:]
        return weight * self.norm_attention.weight, bias + weight @ self.norm_attention.bias


class CrossmodalStack(nn.Module):
    """Pre-norm Transformer layers in which a target's steps query a source that stays as it came in.

    Each layer: Z + attention(LN Z, LN S, LN S), one LN for both, then Z + feed-forward(LN Z); a last LN behind
    all. With the target as its own source it is plain self-attention, each layer on what the one before gave.
    Since S is the same in every layer, keys and values of all layers are one product; dropout is `ByteDropout`.

    Args:
        width: even and at least 4, divisible by `num_heads`.
        num_heads, num_layers: of attention.
        attention_dropout, relu_dropout, dropout, embedding_dropout: on attention weights, within the feed-forward,
            on what is added to the residual path, on the inputs (drawn apart for queries, keys and values).
        positions: add sinusoids to the inputs.

    Raises:
        ValueError: a width that is odd, below 4 or not divisible, a dropout outside 0 to 1.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        num_layers: int,
        attention_dropout: float = 0.1,
        relu_dropout: float = 0.1,
        dropout: float = 0.1,
        embedding_dropout: float = 0.25,
        positions: bool = True,
    ):
        super().__init__()
        check_sizes("CrossmodalStack", width=width, num_heads=num_heads, num_layers=num_layers)
        if width < 4 or width % 2 or width % num_heads:
            raise ValueError(f"expected an even width of at least 4 that {num_heads} heads divide, got {width}")
        self.width, self.positions = width, positions
        self.layers = nn.ModuleList(
            [_Layer(width, num_heads, attention_dropout, relu_dropout, dropout) for _ in range(num_layers)]
        )
        self.norm = nn.LayerNorm(width)
        self.embedding_dropout = ByteDropout(embedding_dropout)

    def place(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Scaled by sqrt(width), with positions at real steps: (B, T, width) to the same shape."""
        x = x * self.width**0.5
        if not self.positions:
            return x
        where = sinusoids(x.shape[1], self.width, x)
        return x + (where if mask is None else where * mask.unsqueeze(2))

    def forward(
        self,
        target: Tensor,
        source: Tensor | None,
        target_mask: Tensor | None = None,
        source_mask: Tensor | None = None,
        causal: bool = False,
    ) -> Tensor:
        """(B, T, width) and (B, S, width) to (B, T, width).

        Args:
            target: whose steps ask.
            source: what they ask; None leaves the attention out, as if the source was never measured, and the rest
                of each layer as it is.
            target_mask, source_mask: (B, T) and (B, S) bool.
            causal: step i sees steps up to i + |real length of the target - that of the source| only.
        """
        z = self.embedding_dropout(self.place(target, target_mask))
        if source is None:
            for layer in self._layers():
                z = layer.feed(z)
        else:
            bias = bias_of(_allowed(target, source, target_mask, source_mask, causal), z)
            for layer, (key, value) in zip(
                self._layers(), self._keys_and_values(source, source_mask), strict=True
            ):
                z = layer.feed(layer.attend(z, key, value, bias))
        result: Tensor = self.norm(z)
        return result

    def remember(
        self, x: Tensor, mask: Tensor | None = None, causal: bool = False, last_only: bool = False
    ) -> Tensor:
        """Self-attention: (B, T, width) to the same shape, or with `last_only` to the last real step, (B, width).

        The last layer then asks for that step alone.
        """
        z = self.embedding_dropout(self.place(x, mask))
        bias = bias_of(_allowed(x, x, mask, mask, causal), x)
        *before, last = self._layers()
        for layer in before:
            z = layer.feed(layer.attend_self(z, None, bias))
        if not last_only:
            result: Tensor = self.norm(last.feed(last.attend_self(z, None, bias)))
            return result
        length = mask.sum(1) if mask is not None else torch.full((x.shape[0],), x.shape[1], device=x.device)
        everything = bias_of(None if mask is None else mask[:, None, None, :], x)  # no step is later than the last
        result = self.norm(last.feed(last.attend_self(z, length - 1, everything))).squeeze(1)
        return result

    def _layers(self) -> list[_Layer]:
        return [layer for layer in self.layers if isinstance(layer, _Layer)]

    def _keys_and_values(self, source: Tensor, mask: Tensor | None) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of each layer, in two products over all of them."""
        placed = self.place(source, mask)
        folded = [layer.folded() for layer in self._layers()]
        found = []
        for part in (0, 1):
            weight = torch.cat([both.chunk(2)[part] for both, _ in folded])
            bias = torch.cat([both.chunk(2)[part] for _, both in folded])
            normed = F.layer_norm(self.embedding_dropout(placed), (self.width,), eps=self.norm.eps)
            found.append(F.linear(normed, weight, bias).chunk(len(folded), 2))
        return list(zip(*found, strict=True))


def _allowed(
    target: Tensor, source: Tensor, target_mask: Tensor | None, source_mask: Tensor | None, causal: bool
) -> Tensor | None:
    """What each step of the target may see, (B or 1, 1, T or 1, S) bool; None for everything."""
    allowed = None if source_mask is None else source_mask[:, None, None, :]
    if not causal:
        return allowed
    ahead = _ahead(target, source, target_mask, source_mask)
    return ahead if allowed is None else allowed & ahead


def _ahead(target: Tensor, source: Tensor, target_mask: Tensor | None, source_mask: Tensor | None) -> Tensor:
    """What each step may see by real lengths, (B or 1, 1, T, S) bool."""
    lengths = [
        torch.tensor([x.shape[1]], device=x.device) if mask is None else mask.sum(1)
        for x, mask in ((target, target_mask), (source, source_mask))
    ]
    offset = (lengths[0] - lengths[1]).abs().view(-1, 1, 1, 1)
    i = torch.arange(target.shape[1], device=target.device).view(-1, 1)
    j = torch.arange(source.shape[1], device=target.device)
    return (j - i) <= offset


class PairedStacks(Backbone):
    """What MulT and TETFN share: a stack for every ordered pair source -> target, a memory for every target.

    Encodings are sequences, (B, T_m, width). An absent target has a slot of zeros, an absent source leaves the
    attention out of its stacks, whose residual path and feed-forward stay. The memory's last real step is pooled.
    A subclass sets `causal`, makes `pairs`, in the order of `ordered`, and `memories`, in that of `names`, and
    writes `read` and `classify`.

    Attributes:
        ordered: target and source of every stack.
        causal: no step sees what comes later.
    """

    causal: bool
    pairs: nn.ModuleList
    memories: nn.ModuleList

    def __init__(self, dims: Mapping[str, int], num_outputs: int, width: int):
        super().__init__(dims, num_outputs, width, at_least=2)
        self.others = {name: [other for other in self.names if other != name] for name in self.names}
        self.ordered = [(target, source) for target in self.names for source in self.others[target]]
        self.memory_width = (len(self.dims) - 1) * width

    def asked(
        self,
        target: str,
        source: str,
        present: list[str],
        encodings: Mapping[str, Tensor],
        masks: Mapping[str, Tensor | None],
        done: dict[Hashable, Tensor],
    ) -> tuple[Hashable, Tensor | None]:
        """The sequence that `target` asks, None where there is none, and what names it among all subsets.

        Args:
            done: what was computed before, by name; a subclass that computes something keeps it there.
        """
        there = source in present
        return there, encodings[source] if there else None

    def read(self, summary: Tensor) -> Tensor:
        """Joined memories, (B, modalities (modalities - 1) width), to what `classify` takes."""
        raise NotImplementedError

    def summaries(
        self,
        encodings: Mapping[str, Tensor],
        keeps: Sequence[Collection[str] | None],
        mask: Mapping[str, Tensor] | None = None,
    ) -> list[Tensor]:
        """The joined memories of each subset, (B, modalities (modalities - 1) width); each stack runs once."""
        masks = {name: None if mask is None else mask[name] for name in self.names}
        done: dict[Hashable, Tensor] = {}

        def pair(target: str, source: str, present: list[str]) -> Tensor:
            which, sequence = self.asked(target, source, present, encodings, masks, done)
            key = ("pair", target, source, which)
            if key not in done:
                stack = self.pairs[self.ordered.index((target, source))]
                done[key] = stack(encodings[target], sequence, masks[target], masks[source], self.causal)
            return done[key]

        def memory(target: str, present: list[str]) -> Tensor:
            key = ("memory", target, *present)
            if key not in done:
                joined = torch.cat([pair(target, other, present) for other in self.others[target]], 2)
                stack = self.memories[self.names.index(target)]
                assert isinstance(stack, CrossmodalStack)
                done[key] = stack.remember(joined, masks[target], self.causal, last_only=True)
            return done[key]

        first = encodings[self.names[0]]
        silent = first.new_zeros(first.shape[0], self.memory_width)
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
        """What `classify` takes, from the modalities `keep`."""
        return self.read(self.summaries(encodings, [keep], mask)[0])

    def fuse_many(
        self,
        encodings: Mapping[str, Tensor],
        keeps: Sequence[Collection[str]],
        mask: Mapping[str, Tensor] | None = None,
    ) -> list[Tensor]:
        """`fuse` for several subsets; stacks and memories that they have in common run once."""
        return [self.classify(self.read(summary)) for summary in self.summaries(encodings, keeps, mask)]


class CrossmodalTransformer(PairedStacks):
    """MulT: a stack for every ordered pair source -> target, a self-attention memory per target, an MLP.

    Encodings are projected sequences, (B, T_m, width); modalities may have lengths of their own. An absent target
    leaves its slot of the MLP zero; an absent source leaves the attention out of its stacks, whose residual path
    and feed-forward stay. The memory's last real step is pooled; padding is attended to nowhere, while the
    released code does so and pools the last padded step.

    Args:
        dims: feature dimension by modality name, at least two.
        num_outputs: classes, or 1 for regression.
        width: w, even and at least 4; memories have (modalities - 1) w.
        num_heads: divides w.
        num_layers, memory_layers: of pairs and of memories. The original has width 30, 5 heads, 5 and 5 layers.
        attention_dropout: on attention weights of memories and where the source is `words`; else none.
        relu_dropout, dropout, embedding_dropout: see `CrossmodalStack`; the last one also on the raw `words`.
        output_dropout: in the MLP.
        words: the modality that has the further dropouts, as text has in the original.
        causal: no step sees what comes later, as in the original; its author found it not to matter.

    Raises:
        ValueError: fewer than two modalities, a width that does not fit, or a dropout outside 0 to 1.
    """

    def __init__(
        self,
        dims: Mapping[str, int],
        num_outputs: int,
        width: int = 32,
        num_heads: int = 4,
        num_layers: int = 1,
        memory_layers: int = 1,
        attention_dropout: float = 0.1,
        relu_dropout: float = 0.1,
        dropout: float = 0.1,
        embedding_dropout: float = 0.25,
        output_dropout: float = 0.0,
        words: str = "text",
        causal: bool = False,
    ):
        check_sizes("CrossmodalTransformer", width=width, num_heads=num_heads)
        check_sizes("CrossmodalTransformer", num_layers=num_layers, memory_layers=memory_layers)
        super().__init__(dims, num_outputs, width)
        self.words, self.causal = words, causal
        rates: dict[str, Any] = {
            "relu_dropout": relu_dropout,
            "dropout": dropout,
            "embedding_dropout": embedding_dropout,
        }
        self.word_dropout = ByteDropout(embedding_dropout)
        self.project = nn.ModuleDict({name: nn.Linear(dim, width, bias=False) for name, dim in self.dims.items()})
        self.pairs = nn.ModuleList(
            [
                CrossmodalStack(
                    width, num_heads, num_layers, attention_dropout if source == words else 0.0, **rates
                )
                for _, source in self.ordered
            ]
        )
        self.memories = nn.ModuleList(
            [
                CrossmodalStack(self.memory_width, num_heads, memory_layers, attention_dropout, **rates)
                for _ in self.names
            ]
        )
        joined = len(dims) * self.memory_width
        self.widen, self.narrow = nn.Linear(joined, joined), nn.Linear(joined, joined)
        self.output_dropout = ByteDropout(output_dropout)
        self.output = nn.Linear(joined, num_outputs)

    def encode_one(self, name: str, x: Tensor, mask: Tensor | None) -> Tensor:
        """The projected sequence: (B, T_m, d_m) to (B, T_m, width)."""
        projected: Tensor = self.project[name](self.word_dropout(x) if name == self.words else x)
        return projected

    def read(self, summary: Tensor) -> Tensor:
        """What the last linear layer reads, (B, modalities (modalities - 1) width)."""
        inner = self.output_dropout(torch.relu(self.widen(summary)))
        result: Tensor = self.narrow(inner) + summary
        return result

    def classify(self, fused: Tensor) -> Tensor:
        """The last linear layer: to (B, num_outputs)."""
        logits: Tensor = self.output(fused)
        return logits
