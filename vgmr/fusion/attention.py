"""Dropout whose masks are cheap to draw on a CPU, and attention with it."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgmr.refining.inputs import check_share
from vgmr.refining.maps import scaled


def byte_mask(x: Tensor, p: float) -> Tensor | None:
    """Zero for a share p of the values of `x`, else what keeps their mean; p below 1 is rounded to 1/256, below 1.

    Torch draws a mask on a CPU value by value; here one random word gives eight. None where nothing is dropped.
    """
    if p == 1:
        return torch.zeros_like(x)
    threshold = min(round(256 * p), 255)
    if not threshold:
        return None
    words = x.new_empty(x.numel() // 8 + 1, dtype=torch.int64)
    # the full range: without bounds random_ never sets the sign bit, and every eighth byte is below 128
    words.random_(-(2**63), None)
    drawn = words.view(torch.uint8)[: x.numel()].view(x.shape)
    kept = drawn.clamp(threshold - 1, threshold).sub_(threshold - 1)  # 0 or 1
    return kept.to(x.dtype).mul_(256 / (256 - threshold))


def drawn_as_bytes(x: Tensor) -> bool:
    """Whether masks for `x` are drawn as bytes: on a CPU, but in no traced graph, which cannot hold that draw."""
    return x.device.type in ("cpu", "meta") and not torch.compiler.is_compiling()


class ByteDropout(nn.Module):
    """Dropout with masks drawn as bytes, several times cheaper on a CPU; p below 1 is rounded to 1/256, below 1.

    On other devices and in traced graphs torch's own.

    Raises:
        ValueError: p outside 0 to 1.
    """

    def __init__(self, p: float):
        super().__init__()
        check_share("dropout", p)
        self.p = p

    def forward(self, x: Tensor, owned: bool = False) -> Tensor:
        """x, in training with a share p zero and the rest scaled by 1 / (1 - p).

        Args:
            owned: nobody else needs the memory of `x`.
        """
        if not self.training:
            return x
        if not drawn_as_bytes(x):
            return F.dropout(x, self.p)
        mask = byte_mask(x, self.p)
        return x if mask is None else scaled(x, mask, owned)


class _Attended(torch.autograd.Function):
    """Attention and its weights, by products that are as wide as a sequence is long.

    As wide as a head, as torch takes them, such products are slow on a CPU.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        score = query @ key.mT
        weight = (score if bias is None else score.add_(bias)).softmax(-1)
        return (value.mT @ (weight if mask is None else weight * mask).mT).mT, weight

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        query, key, value, _, mask = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(query, key, value, mask, output[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor | None, of_weight: Tensor | None) -> tuple[Tensor | None, ...]:
        query, key, value, mask, weight = ctx.saved_tensors  # with a gradient of the weights: differentiated twice
        of_value = None
        if gradient is not None:
            gradient = gradient.contiguous()
            of_value = (gradient.mT @ (weight if mask is None else weight * mask)).mT
            through = gradient @ value.mT
            through = through if mask is None else through.mul_(mask)
            of_weight = through if of_weight is None else of_weight + through
        if of_weight is None:
            return (None,) * 5
        of_score = torch._softmax_backward_data(of_weight, weight, -1, weight.dtype)
        return (key.mT @ of_score.mT).mT, (query.mT @ of_score).mT, of_value, None, None


def bias_of(allowed: Tensor | None, like: Tensor) -> Tensor | None:
    """What is added to scores: minus infinity where bool `allowed` is False, else 0; None for None."""
    if allowed is None:
        return None
    return torch.zeros(allowed.shape, dtype=like.dtype, device=like.device).masked_fill_(~allowed, -torch.inf)


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, p: float) -> Tensor:
    """softmax(q k^T + bias) v in training, with dropout of the weights as in `ByteDropout`.

    Args:
        query, key, value: (B, heads, T or S, d), the query scaled.
        bias: what `bias_of` gives of (B or 1, 1, T or 1, S).
        p: share of the weights to be dropped.
    """
    query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
    mask = byte_mask(query.new_empty(()).expand(*query.shape[:-1], key.shape[-2]), p)
    result: Tensor = _Attended.apply(query, key, value, bias, mask)[0]
    return result
