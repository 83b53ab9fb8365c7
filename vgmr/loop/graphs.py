"""Steps without Python on a GPU: CUDA graphs, launched as a whole."""

from __future__ import annotations

import gc
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from vgmr.balancing.base import Balancing
from vgmr.objective import Objective

WARM = 10  # steps before the capture, which costs as much as a few of them
OWN = ("torch", "vgmr")
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def replayable(model: nn.Module, objective: Any, method: Any) -> bool:
    """Whether steps can be captured: on the GPU in use, all doing the same."""
    return _on_current_gpu(model) and acts_alike(model, objective, method)


def acts_alike(model: nn.Module, objective: Any, method: Any) -> bool:
    """Whether all steps of a training do the same, so that one may stand for the others.

    It takes the package's modules without hooks, since what someone else wrote may count, draw numbers or choose
    in Python, which a graph would never do again; and no balancing method, since they do.
    """
    return (
        type(objective) is Objective
        and type(method) is Balancing
        and all(type(module).__module__.partition(".")[0] in OWN for module in model.modules())
        and not any(getattr(module, hooks) for module in model.modules() for hooks in HOOKS)
        and not _has_any_global_hook()
    )


def _on_current_gpu(model: nn.Module) -> bool:
    device = next(model.parameters()).device
    return device.type == "cuda" and device.index == torch.cuda.current_device()


class Replayed:
    """A step over a batch that is captured after `WARM` calls with batches of the same shapes, and then replayed.

    A step that waits for the device, as one that looks at a value does, cannot be captured: it is taken as it is.

    Args:
        step: from a batch to its loss, a tensor; the same operations for all batches of the same shapes. The
            batch has `features`, `mask`, `label` and `corrupted`, as `vgmr.Batch`. Where the step waits, it must
            do so before it changes anything, as it is then taken once more.
    """

    def __init__(self, step: Callable[[Any], Tensor]):
        self.step = step
        self.waits = False
        self._taken: dict[Hashable, int] = {}
        self._graphs: dict[Hashable, tuple[torch.cuda.CUDAGraph, list[Tensor], Tensor]] = {}

    def __call__(self, batch: Any) -> Tensor:
        """The step's loss."""
        tensors = _tensors(batch)
        kind = (getattr(batch, "padded", None), *((x.shape, x.dtype) for x in tensors))
        taken = self._taken[kind] = self._taken.get(kind, 0) + 1
        if self.waits or taken < WARM:
            return self.step(batch)
        if taken == WARM:
            return self._watched(batch)
        if kind not in self._graphs:
            try:
                self._graphs[kind] = self._captured(batch)
            except RuntimeError:
                self.waits = True
                return self.step(batch)
        graph, own, loss = self._graphs[kind]
        torch._foreach_copy_(own, tensors)
        graph.replay()
        return loss.clone()

    def _watched(self, batch: Any) -> Tensor:
        """An eager step that finds out whether the step waits for the device."""
        before = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("error")
        try:
            return self.step(batch)
        except RuntimeError:
            self.waits = True
        finally:
            torch.cuda.set_sync_debug_mode(before)
        return self.step(batch)

    def _captured(self, batch: Any) -> tuple[torch.cuda.CUDAGraph, list[Tensor], Tensor]:
        own, graph = _copied(batch), torch.cuda.CUDAGraph()
        random = torch.cuda.default_generators[batch.label.get_device()]
        before = random.clone_state()
        try:
            # the outer stream is the one to go back to, which a capture that fails forgets
            with _no_garbage(), torch.cuda.stream(torch.cuda.current_stream()), torch.cuda.graph(graph):
                loss = self.step(own)
        except BaseException:
            random.graphsafe_set_state(before)  # else it draws nothing any more
            raise
        return graph, _tensors(own), loss


@contextmanager
def _no_garbage() -> Iterator[None]:
    """Nothing is collected within: a graph of an earlier training that is freed in a capture spoils it."""
    gc.collect()
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _copied(batch: Any) -> Any:
    """The batch with memory of its own."""
    parts = {name: getattr(batch, name) for name in ("features", "mask", "corrupted")}
    fresh: dict[str, Any] = {
        name: part and {key: x.clone(memory_format=torch.contiguous_format) for key, x in part.items()}
        for name, part in parts.items()
    }
    fresh["label"] = batch.label.clone()
    return batch._replace(**fresh) if hasattr(batch, "_replace") else replace(batch, **fresh)


def _tensors(batch: Any) -> list[Tensor]:
    named = [batch.features, batch.mask or {}, batch.corrupted or {}]
    return [batch.label, *(x for tensors in named for x in tensors.values())]
