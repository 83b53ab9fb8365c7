"""MulT: every modality's steps attend to those of every other, no alignment needed (Tsai et al., 2019)."""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgmr.fusion.attention import ByteDropout, attend, bias_of, drawn_as_bytes
from vgmr.fusion.base import Backbone, check_sizes
from vgmr.refining.inputs import check_share
from vgmr.refining.maps import spare, watched

LARGEST = 2**24  # values that a pass without gradients computes at once


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
        rate = self.dropout if self.training else 0.0
        result: Tensor = self.out_proj(_by_heads(query, key, value, self.num_heads, bias, rate, self.training))
        return result

    def project_source(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of (B, S, width)."""
        width = self.embed_dim
        key, value = F.linear(x, self.in_proj_weight[width:], self.in_proj_bias[width:]).chunk(2, 2)
        return key, value


def _by_heads(
    query: Tensor, key: Tensor, value: Tensor, num_heads: int, bias: Tensor | None, rate: float, training: bool
) -> Tensor:
    """Attention of each head by itself: (B, T, width), (B, S, width) twice, all projected, to (B, T, width)."""
    q, k, v = (x.unflatten(2, (num_heads, -1)).transpose(1, 2) for x in (query, key, value))
    if training and drawn_as_bytes(q) and not torch.is_autocast_enabled("cpu"):
        attended = attend(q, k, v, bias, rate)  # the fused kernel is slow backwards there
    else:
        attended = F.scaled_dot_product_attention(q, k, v, bias, rate, scale=1.0)
    return attended.transpose(1, 2).flatten(2)


class _Layer(nn.Module):
    """The parameters of a layer."""

    def __init__(self, width: int, num_heads: int, attention_dropout: float):
        super().__init__()
        self.attention = Attention(width, num_heads, attention_dropout)
        self.widen = nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)
        self.norm_attention = nn.LayerNorm(width)
        self.norm_feedforward = nn.LayerNorm(width)


class _Weights(NamedTuple):
    """What a layer of K stacks computes with: weights (K, out, in) and biases (K, 1, out).

    The affine parts of both norms and the scale of queries are drawn into the maps behind.
    """

    inputs: Tensor
    inputs_bias: Tensor
    output: Tensor
    output_bias: Tensor
    widen: Tensor
    widen_bias: Tensor
    narrow: Tensor
    narrow_bias: Tensor


class CrossmodalStack(nn.Module):
    """Pre-norm Transformer layers in which a target's steps query a source that stays as it came in.

    Each layer: Z + attention(LN Z, LN S, LN S), one LN for both, then Z + feed-forward(LN Z); a last LN behind
    all. With the target as its own source it is plain self-attention, each layer on what the one before gave.
    Since S is the same in every layer, keys and values of all layers are one product; dropout is `ByteDropout`.
    `across` and `remember_all` take several stacks in one pass.

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
        self.width, self.num_heads, self.positions = width, num_heads, positions
        self.layers = nn.ModuleList([_Layer(width, num_heads, attention_dropout) for _ in range(num_layers)])
        self.norm = nn.LayerNorm(width)
        self.relu_dropout, self.dropout = ByteDropout(relu_dropout), ByteDropout(dropout)
        self.embedding_dropout = ByteDropout(embedding_dropout)

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
        return across([(self, target, source, target_mask, source_mask)], causal)[0]

    def remember(
        self, x: Tensor, mask: Tensor | None = None, causal: bool = False, last_only: bool = False
    ) -> Tensor:
        """Self-attention: (B, T, width) to the same; with `last_only` to its last real step, (B, width)."""
        return remember_all([(self, x, mask)], causal, last_only)[0]

    @property
    def attention_dropout(self) -> float:
        """The share of attention weights that training drops, in every layer."""
        layer = cast(_Layer, self.layers[0])
        return layer.attention.dropout

    def alike(self) -> Hashable:
        """What stacks must have in common to be computed in one pass."""
        drops = (self.attention_dropout, self.relu_dropout.p, self.dropout.p, self.embedding_dropout.p)
        return self.width, self.num_heads, len(self.layers), self.positions, self.training, *drops

    def owns(self) -> bool:
        """Whether what its parts read and give is seen by no hooks, so that its memory can be written over."""
        return not watched(self.children())

    def place(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Scaled by sqrt(width), with positions at real steps: (B, T, width) to the same shape."""
        x = x * self.width**0.5
        if not self.positions:
            return x
        where = sinusoids(x.shape[1], self.width, x)
        return x + (where if mask is None else where * mask.unsqueeze(2))

    def attend(
        self,
        z: Tensor,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        bias: Tensor | None,
        layer: _Weights,
        steps: tuple[int, int],
    ) -> Tensor:
        """Z + attention, with all that is asked projected: (K, B T, width), (K, B S, width), `steps` T and S."""
        rate = self.attention_dropout if self.training else 0.0
        ways = zip((query, key, value), (steps[0], steps[1], steps[1]), strict=True)
        q, k, v = (x.unflatten(1, (-1, count)).flatten(0, 1) for x, count in ways)
        attended = _by_heads(q, k, v, self.num_heads, bias, rate, self.training).reshape(z.shape)
        owned = self.owns()
        return _added(self.dropout(_linear(attended, layer.output, layer.output_bias), owned=owned), z, owned)

    def feed(self, z: Tensor, layer: _Weights) -> Tensor:
        """Z + feed-forward: (K, B T, width) to the same shape."""
        owned = self.owns()
        inner = self.relu_dropout(_linear(self.normed(z), layer.widen, layer.widen_bias), owned=owned)
        inner = torch.relu_(inner) if owned else torch.relu(inner)
        return _added(self.dropout(_linear(inner, layer.narrow, layer.narrow_bias), owned=owned), z, owned)

    def normed(self, z: Tensor) -> Tensor:
        """Each step of (..., width) with mean 0 and variance 1; the affine part is in the maps behind."""
        return F.layer_norm(z, (self.width,), eps=self.norm.eps)


def _added(x: Tensor, other: Tensor, owned: bool) -> Tensor:
    """x + other, in the memory of `x` where that is `owned`, needed by nobody else, and can take it."""
    return x.add_(other) if owned and spare(x, other) else x + other


def _linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(K, B T, in) through K linear maps to (K, B T, out)."""
    return torch.baddbmm(bias, x, weight.mT)


def _weights(stacks: Sequence[CrossmodalStack]) -> list[_Weights]:
    """Those of every layer."""
    first = stacks[0]
    layers = [stack.layers[i] for i in range(len(first.layers)) for stack in stacks]

    def every(place: str) -> Tensor:
        read = operator.attrgetter(place)
        return torch.stack([read(layer) for layer in layers])

    def behind(norm: str, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        shift = weight @ every(f"{norm}.bias").unsqueeze(2)
        return weight * every(f"{norm}.weight").unsqueeze(1), bias + shift.squeeze(2)

    scale = first.norm.weight.new_ones(3 * first.width)
    scale[: first.width] = (first.width // first.num_heads) ** -0.5
    inputs, inputs_bias = every("attention.in_proj_weight"), every("attention.in_proj_bias")
    maps = [
        *behind("norm_attention", inputs * scale.unsqueeze(1), inputs_bias * scale),
        every("attention.out_proj.weight"),
        every("attention.out_proj.bias"),
        *behind("norm_feedforward", every("widen.weight"), every("widen.bias")),
        every("narrow.weight"),
        every("narrow.bias"),
    ]
    parts = ((x if x.ndim == 3 else x.unsqueeze(1)).unflatten(0, (-1, len(stacks))).unbind() for x in maps)
    return [_Weights(*layer) for layer in zip(*parts, strict=True)]


def _last_norm(stacks: Sequence[CrossmodalStack], z: Tensor, steps: int) -> Tensor:
    """(K, B T, width) to (K, B, T, width), with the affine part of each stack's own."""
    weight, bias = (torch.stack([getattr(one.norm, part) for one in stacks]) for part in ("weight", "bias"))
    affine = torch.addcmul(bias.unsqueeze(1), stacks[0].normed(z), weight.unsqueeze(1))
    return affine.unflatten(1, (-1, steps))


def _placed(
    stacks: Sequence[CrossmodalStack], sequences: Sequence[Tensor], masks: Sequence[Tensor | None]
) -> Tensor:
    """What K stacks read, before dropout: (K, B T, width)."""
    return torch.stack([stacks[0].place(*it) for it in zip(sequences, masks, strict=True)]).flatten(1, 2)


Asked = tuple[CrossmodalStack, Tensor, Tensor | None, Tensor | None, Tensor | None]


def across(asked: Sequence[Asked], causal: bool) -> list[Tensor]:
    """`CrossmodalStack.forward` of each (stack, target, source, target mask, source mask).

    Stacks that are `alike` and read shapes that are equal are computed in one pass.
    """

    def one_pass(asked: Sequence[Any]) -> Tensor:
        stacks, targets, sources, target_masks, source_masks = zip(*asked, strict=True)
        first, width, layers = stacks[0], stacks[0].width, _weights(stacks)
        samples, steps = targets[0].shape[:2]
        z = first.embedding_dropout(_placed(stacks, targets, target_masks), owned=first.owns())
        if sources[0] is None:
            for layer in layers:
                z = first.feed(z, layer)
            return _last_norm(stacks, z, steps)
        placed, found = _placed(stacks, sources, source_masks), []
        for part in (slice(width, 2 * width), slice(2 * width, 3 * width)):  # keys, values of all layers
            weight = torch.cat([layer.inputs[:, part] for layer in layers], 1)
            bias = torch.cat([layer.inputs_bias[..., part] for layer in layers], 2)
            of_all = _linear(first.normed(first.embedding_dropout(placed)), weight, bias)
            found.append(of_all.chunk(len(layers), 2))
        seen = _bias([_allowed(x, y, mask, other, causal) for _, x, y, mask, other in asked], z, samples)
        for layer, key, value in zip(layers, *found, strict=True):
            query = _linear(first.normed(z), layer.inputs[:, :width], layer.inputs_bias[..., :width])
            z = first.feed(first.attend(z, query, key, value, seen, layer, (steps, sources[0].shape[1])), layer)
        return _last_norm(stacks, z, steps)

    shapes = [(*(None if x is None else x.shape for x in it[1:]),) for it in asked]
    return _in_groups(asked, shapes, one_pass)


def remember_all(
    asked: Sequence[tuple[CrossmodalStack, Tensor, Tensor | None]], causal: bool, last_only: bool
) -> list[Tensor]:
    """`CrossmodalStack.remember` of each (stack, sequence, mask), in one pass as in `across`.

    With `last_only` the last layer asks for that step alone.
    """

    def one_pass(asked: Sequence[Any]) -> Tensor:
        stacks, sequences, masks = zip(*asked, strict=True)
        first, width, layers = stacks[0], stacks[0].width, _weights(stacks)
        samples, steps = sequences[0].shape[:2]
        z = first.embedding_dropout(_placed(stacks, sequences, masks), owned=first.owns())
        bias = _bias([_allowed(x, x, mask, mask, causal) for _, x, mask in asked], z, samples)
        for layer in layers[:-1] if last_only else layers:
            projected = _linear(first.normed(z), layer.inputs, layer.inputs_bias).chunk(3, 2)
            z = first.feed(first.attend(z, *projected, bias, layer, (steps, steps)), layer)
        if not last_only:
            return _last_norm(stacks, z, steps)
        layer, normed = layers[-1], first.normed(z)
        key, value = _linear(normed, layer.inputs[:, width:], layer.inputs_bias[..., width:]).chunk(2, 2)
        row = torch.arange(len(stacks) * samples, device=z.device)
        last = row.new_full(row.shape, steps) if masks[0] is None else torch.cat([mask.sum(1) for mask in masks])
        z, normed = (
            x.flatten(0, 1)[row * steps + last - 1].view(len(stacks), samples, width) for x in (z, normed)
        )
        real = [None if mask is None else mask[:, None, None, :] for mask in masks]  # none is later than the last
        bias = _bias(real, z, samples)
        query = _linear(normed, layer.inputs[:, :width], layer.inputs_bias[..., :width])
        z = first.feed(first.attend(z, query, key, value, bias, layer, (1, steps)), layer)
        return _last_norm(stacks, z, 1).squeeze(2)

    shapes = [(x.shape, mask is None) for _, x, mask in asked]
    return _in_groups(asked, shapes, one_pass)


def _in_groups(
    asked: Sequence[Any], shapes: Sequence[Hashable], one_pass: Callable[[Sequence[Any]], Tensor]
) -> list[Tensor]:
    """What `one_pass` gives, (K, ...), of alike stacks and equal shapes at a time, in the order of `asked`.

    In traced graphs, whose shapes may be open, of one at a time. Where gradients need it, all is held anyway; else
    a pass takes only as many stacks as `LARGEST` allows.
    """
    groups: dict[Hashable, list[int]] = {}
    for i, (it, shape) in enumerate(zip(asked, shapes, strict=True)):
        groups.setdefault(i if torch.compiler.is_compiling() else (it[0].alike(), shape), []).append(i)
    found: dict[int, Tensor] = {}
    for group in groups.values():
        most = len(group)
        if most > 1 and not torch.is_grad_enabled():
            stack, target = asked[group[0]][:2]
            most = max(1, LARGEST // (4 * target.numel() + 12 * len(stack.layers) * stack.width**2))
        for part in (group[start : start + most] for start in range(0, len(group), most)):
            found |= dict(zip(part, one_pass([asked[i] for i in part]), strict=True))
    return [found[i] for i in range(len(asked))]


def _bias(allowed: Sequence[Tensor | None], like: Tensor, samples: int) -> Tensor | None:
    """What `bias_of` gives of K stacks in a row: (K B or 1, 1, T or 1, S); None if everything is seen."""
    if allowed[0] is None or allowed[0].shape[0] != samples:  # without masks all see the same
        return bias_of(allowed[0], like)
    return bias_of(torch.cat([x for x in allowed if x is not None]), like)


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
        wanted: Sequence[tuple[str, str, tuple[str, ...]]],
        encodings: Mapping[str, Tensor],
        masks: Mapping[str, Tensor | None],
    ) -> list[tuple[Hashable, Tensor | None]]:
        """What names the sequence that a target asks, and the sequence, None where there is none.

        Args:
            wanted: target, source, and the modalities that are present.
        """
        return [
            (source in present, encodings[source] if source in present else None) for _, source, present in wanted
        ]

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
        everyone = [tuple(self.present(keep)) for keep in keeps]
        wanted = [
            (target, source, present)
            for present in everyone
            for target in present
            for source in self.others[target]
        ]
        pairs: dict[Hashable, Hashable] = {}
        stacks: dict[Hashable, Asked] = {}
        for (target, source, present), (which, sequence) in zip(
            wanted, self.asked(wanted, encodings, masks), strict=True
        ):
            pairs[target, source, present] = (target, source, which)
            stack = cast(CrossmodalStack, self.pairs[self.ordered.index((target, source))])
            stacks[target, source, which] = (stack, encodings[target], sequence, masks[target], masks[source])
        across_all = dict(zip(stacks, across(list(stacks.values()), self.causal), strict=True))
        memories: dict[Hashable, tuple[CrossmodalStack, Tensor, Tensor | None]] = {}
        for target, present in dict.fromkeys((target, present) for target, _, present in wanted):
            joined = torch.cat([across_all[pairs[target, other, present]] for other in self.others[target]], 2)
            memory = cast(CrossmodalStack, self.memories[self.names.index(target)])
            memories[target, present] = (memory, joined, masks[target])
        slots = dict(
            zip(memories, remember_all(list(memories.values()), self.causal, last_only=True), strict=True)
        )
        first = encodings[self.names[0]]
        silent = first.new_zeros(first.shape[0], self.memory_width)
        return [torch.cat([slots.get((name, present), silent) for name in self.names], 1) for present in everyone]

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
