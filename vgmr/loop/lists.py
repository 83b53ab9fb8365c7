"""Steps without Python on a CPU: the list of a step's operations, without those that only look at memory."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_leaves, tree_map_only

aten = torch.ops.aten
LISTED_AFTER = ContextVar("steps before a list is made", default=300)  # it costs what 200 to 400 steps save


@contextmanager
def listing_after(steps: int) -> Iterator[None]:
    """Inside, lists are made after so many steps."""
    token = LISTED_AFTER.set(steps)
    try:
        yield
    finally:
        LISTED_AFTER.reset(token)


class Traced:
    """A function on a CPU that is taken as the list of its operations after 300 calls with like shapes.

    Its results are the same; modules, the mapping over seeds and the way back are no longer gone through. Another
    `epoch` is another function. It goes on as it is where no list can be made, as with dropout drawn as bytes.

    Args:
        function: from an epoch and nested tensors to tensors that need no gradient; the same operations for all
            tensors of the same shapes, `torch.autograd.grad` among them.
    """

    def __init__(self, function: Callable[..., Any]):
        self.function = function
        self._taken: dict[Hashable, int] = {}
        self._lists: dict[Hashable, fx.GraphModule | None] = {}

    def __call__(self, epoch: int, *given: Any) -> Any:
        """What the function gives."""
        kind = (epoch, *(_layout(x) if isinstance(x, Tensor) else x for x in tree_leaves(given)))
        taken = self._taken[kind] = self._taken.get(kind, 0) + 1
        if taken <= LISTED_AFTER.get():
            return self.function(epoch, *given)
        if kind not in self._lists:
            self._lists[kind] = self._listed(epoch, given)
        listed = self._lists[kind]
        if listed is None:
            return self.function(epoch, *given)
        with torch.inference_mode():
            return listed(*given)

    def _listed(self, epoch: int, given: tuple[Any, ...]) -> fx.GraphModule | None:
        aside = tree_map_only(Tensor, Tensor.clone, given)  # tracing computes, and may write
        tensors = [[x for x in tree_leaves(some) if isinstance(x, Tensor)] for some in (given, aside)]
        if any(_layout(one) != _layout(copy) for one, copy in zip(*tensors, strict=True)):
            return None
        with torch.random.fork_rng([]):
            try:
                listed: fx.GraphModule = make_fx(partial(self.function, epoch))(*aside)
            except (SyntaxError, RuntimeError):  # what looks at values on its way, as anomaly detection does
                return None
        drawing_faster(listed)
        without_copies(listed, aside)
        without_views(listed, aside)
        listed.graph.on_generate_code(lambda _: _under_short_names)
        listed.recompile()
        return listed


class _Keeping(fx.Interpreter):
    """Keeps what every operation gives."""

    def __init__(self, listed: fx.GraphModule):
        super().__init__(listed, garbage_collect_values=False)
        self.values: dict[fx.Node, Any] = {}

    def run_node(self, node: fx.Node) -> Any:
        self.values[node] = value = super().run_node(node)
        return value


def _seen(listed: fx.GraphModule, given: tuple[Any, ...]) -> tuple[dict[fx.Node, Any], set[int]]:
    """What each operation gives, and the memory that one of them writes into; no number is drawn by it."""
    looking = _Keeping(listed)
    with torch.random.fork_rng([]), torch.inference_mode():
        looking.run(*given)
    taken = [looking.values[x] for node in listed.graph.nodes if _writes(node) for x in node.all_input_nodes]
    return looking.values, {_memory(x) for x in taken if isinstance(x, Tensor)}


def _memory(x: Tensor) -> int:
    return x.untyped_storage()._cdata


def _kind(x: Tensor) -> tuple[Any, ...]:
    return x.dtype, x.is_conj(), x.is_neg()


def _layout(x: Tensor) -> tuple[Any, ...]:
    return _kind(x), tuple(x.shape), x.stride(), x.storage_offset()


def _writes(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    writes = schema is not None and schema.is_mutable
    return writes or "batch_norm" in str(node.target)  # which writes its statistics and does not say so


def _draws(node: fx.Node) -> bool:
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


def drawing_faster(listed: fx.GraphModule) -> None:
    """Take what dropout keeps from numbers in double precision, where that gives the same and is faster.

    Torch draws it so itself, one number after the other, except on processors of Intel.
    """
    graph = listed.graph
    for node in graph.nodes:
        if node.target is aten.bernoulli.p and _drawn_by_comparing(node.args[1]):
            drawn = node.meta["tensor_meta"]
            with graph.inserting_before(node):
                number = graph.call_function(aten.rand.default, (tuple(drawn.shape),), {"dtype": torch.float64})
                kept = graph.call_function(aten.lt_.Scalar, (number, node.args[1]))
                node.replace_all_uses_with(
                    graph.call_function(aten._to_copy.default, (kept,), {"dtype": drawn.dtype})
                )
            graph.erase_node(node)
    listed.recompile()


def _drawn_by_comparing(share: float) -> bool:
    """Whether torch draws so on this processor."""
    with torch.random.fork_rng([]):
        before = torch.get_rng_state()
        drawn, after = torch.empty(1000).bernoulli_(share), torch.get_rng_state()
        torch.set_rng_state(before)
        compared = torch.rand(1000, dtype=torch.float64) < share
        return torch.equal(drawn, compared.float()) and torch.equal(after, torch.get_rng_state())


def without_copies(listed: fx.GraphModule, given: tuple[Any, ...]) -> None:
    """Leave out products with one, as adding a mapped bias has them, where nothing writes into either side."""
    values, written = _seen(listed, given)
    for node in listed.graph.nodes:
        if node.target is aten.mul.Scalar and node.args[1] == 1:
            before, after = values[node.args[0]], values[node]
            alike = before.dtype == after.dtype and before.stride() == after.stride()
            if alike and not {_memory(before), _memory(after)} & written:
                node.replace_all_uses_with(node.args[0])
                listed.graph.erase_node(node)
    listed.recompile()


def without_views(listed: fx.GraphModule, given: tuple[Any, ...]) -> None:
    """Look at memory in one operation, however many views stand above each other, and compute constants once."""
    graph = listed.graph
    values, written = _seen(listed, given)
    first: dict[int, fx.Node] = {}  # of what looks at the same memory
    constant: dict[fx.Node, None] = {}
    known: dict[Hashable, fx.Node] = {}
    for node in list(graph.nodes):
        value = values[node]
        if not isinstance(value, Tensor) or node.op != "call_function" or _writes(node):
            if isinstance(value, Tensor):
                first[_memory(value)] = node
            continue
        place, layout = _memory(value), _layout(value)
        if not _draws(node) and place not in written and constant.keys() >= set(node.all_input_nodes):
            constant[node] = None
        elif place in first and _kind(values[first[place]]) == _kind(value):
            whole = first[place]
            if _layout(values[whole]) == layout:
                node.replace_all_uses_with(whole)
                continue
            if (whole, layout) not in known:
                with graph.inserting_before(node):
                    known[whole, layout] = graph.call_function(aten.as_strided.default, (whole, *layout[1:]))
            node.replace_all_uses_with(known[whole, layout])
        else:
            first[place] = node
    for node in constant:
        if not constant.keys() >= node.users.keys():
            setattr(listed, f"constant_{node.name}", values[node])
            with graph.inserting_before(node):
                node.replace_all_uses_with(graph.create_node("get_attr", f"constant_{node.name}"))
    for node in reversed(graph.nodes):
        if node.op == "call_function" and not (node.users or _writes(node) or _draws(node)):
            graph.erase_node(node)


def _under_short_names(body: list[str]) -> list[str]:
    """Code that looks every operation up once a call, and calls it without what Python has around it."""
    text = "".join(body)
    operations = dict.fromkeys(re.findall(r"torch\.ops\.aten\.\w+\.\w+(?=\()", text))
    for place, operation in enumerate(operations):
        text = text.replace(f"{operation}(", f"operation_{place}(")
    return [*(f"operation_{place} = {one}._op\n" for place, one in enumerate(operations)), text]
