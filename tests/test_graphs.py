"""Steps are captured once they were taken a few times, and replayed; those that wait are left as they are.

A stand-in for the device keeps what a capture recorded; tests/test_cuda.py does the same on a real one.
"""

import gc
from contextlib import contextmanager, nullcontext

import pytest
import torch
from torch import nn

from vgmr import VGMR, Batch, Classifier, Objective, PooledBackbone
from vgmr.balancing import make_method
from vgmr.balancing.base import Balancing
from vgmr.loop import graphs
from vgmr.loop.graphs import WARM, Replayed, replayable

DIMS = {"a": 3, "b": 2}


def batch(samples=4, start=0.0, steps=2):
    features = {name: torch.full((samples, steps, dim), start) for name, dim in DIMS.items()}
    mask = {name: torch.ones(samples, steps, dtype=torch.bool) for name in DIMS}
    return Batch(features, mask, torch.zeros(samples, dtype=torch.int64))


@pytest.fixture
def device(monkeypatch):
    """What a device would do: a graph remembers the step that was taken while it was captured."""
    state = {"mode": 0, "captured": 0, "capturing": None}

    class Graph:
        def replay(self):
            self.again()

    @contextmanager
    def graph(one):
        state["captured"] += 1
        state["capturing"] = one
        yield
        state["capturing"] = None

    class Generator:
        state = "drawing"

        def clone_state(self):
            return self.state

        def graphsafe_set_state(self, before):
            self.state = before

    state["random"] = Generator()
    monkeypatch.setattr(torch.cuda, "default_generators", [state["random"]])
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: "the stream before")
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext(stream))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: state["mode"])
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", lambda mode: state.update(mode=mode))
    return state


class Step:
    """A loss, and a count of the steps that were taken in Python."""

    def __init__(self, device, waits=False):
        self.device, self.waits, self.calls = device, waits, 0

    def __call__(self, batch):
        self.calls += 1
        if self.waits and self.device["mode"] == "error":
            raise RuntimeError("called a synchronizing CUDA operation")
        loss = torch.zeros(())

        def take():
            loss.copy_(sum(x.sum() for x in batch.features.values()))

        take()
        if self.device["capturing"] is not None:
            self.device["capturing"].again = take
        return loss


def test_a_step_is_captured_once_and_sees_the_next_data(device):
    step = Step(device)
    replayed = Replayed(step)
    losses = [replayed(batch(start=float(start))) for start in range(WARM + 5)]
    assert step.calls == WARM + 1 and device["captured"] == 1
    expected = [float(start) * 4 * 2 * sum(DIMS.values()) for start in range(WARM + 5)]
    assert [float(loss) for loss in losses] == expected, "each loss is a copy of its own"


def test_a_batch_whose_samples_share_memory_is_copied(device):
    replayed, shared = Replayed(Step(device)), batch(start=1.0)
    shared.features["a"] = torch.ones(1, 2, 3).expand(4, 2, 3)
    losses = [float(replayed(shared)) for _ in range(WARM + 3)]
    assert losses == [40.0] * (WARM + 3) and device["captured"] == 1


def test_every_shape_has_a_graph_of_its_own(device):
    step = Step(device)
    replayed = Replayed(step)
    for _ in range(WARM + 2):
        replayed(batch())
        replayed(batch(samples=3))
    assert device["captured"] == 2 and step.calls == 2 * (WARM + 1)
    assert float(replayed(batch(samples=3, start=1.0))) == 3 * 2 * 5
    replayed(batch(steps=5))
    assert device["captured"] == 2


def test_a_step_that_waits_for_the_device_is_never_captured(device):
    step = Step(device, waits=True)
    replayed = Replayed(step)
    losses = [float(replayed(batch(start=1.0))) for _ in range(2 * WARM)]
    assert replayed.waits and device["captured"] == 0 and device["mode"] == 0
    assert losses == [40.0] * (2 * WARM)
    assert step.calls == 2 * WARM + 1, "the step that was refused is taken again"


def test_a_capture_that_fails_leaves_the_step_as_it_is(device, monkeypatch):
    """And nothing is collected in a capture, which a freed graph of an earlier training spoils."""
    step, collecting = Step(device), []

    @contextmanager
    def fails(graph):
        collecting.append(gc.isenabled())
        device["random"].state = "of a graph that is none"
        yield
        raise RuntimeError("operation failed due to a previous error during capture")

    monkeypatch.setattr(torch.cuda, "graph", fails)
    replayed = Replayed(step)
    assert [float(replayed(batch(start=1.0))) for _ in range(2 * WARM)] == [40.0] * (2 * WARM)
    assert replayed.waits and collecting == [False] and gc.isenabled()
    assert device["random"].state == "drawing"
    assert step.calls == 2 * WARM + 1


def test_what_may_be_replayed(monkeypatch):
    class Foreign(nn.Module):
        pass

    def made(*others):
        model = Classifier(VGMR(DIMS, 4), PooledBackbone(DIMS, 2, width=4))
        model.others = nn.ModuleList(others)
        return model

    assert not replayable(made(), Objective(), Balancing()), "no GPU"
    monkeypatch.setattr(graphs, "_on_current_gpu", lambda model: True)
    assert replayable(made(), Objective(), Balancing())
    assert not replayable(made(Foreign()), Objective(), Balancing())
    assert not replayable(made(), lambda *_: None, Balancing())
    hooked = made()
    hooked.backbone.head.register_forward_hook(lambda *_: None)
    assert not replayable(hooked, Objective(), Balancing())
    assert not replayable(made(), Objective(), make_method("ogm-ge"))
