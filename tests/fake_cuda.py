"""CUDA graphs without a GPU: operations are recorded once and done again on the same memory."""

from contextlib import contextmanager, nullcontext

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from espnetv2.deploy import engine_cudagraph


class Tape(TorchDispatchMode):
    """Runs operations and remembers each with the very tensors that it read and wrote."""

    def __init__(self):
        super().__init__()
        self.steps = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        self.steps.append((operation, args, kwargs or {}, result))
        return result


class Graph:
    """As `torch.cuda.CUDAGraph`: a replay reads the recorded inputs' memory, writes the outputs'.

    What was written in the recording itself is spoilt, because a GPU only records and computes
    nothing then.
    """

    def __init__(self):
        self.steps, self.replays = [], 0

    def replay(self):
        self.replays += 1
        for operation, args, kwargs, result in self.steps:
            for old, new in zip(
                _tensors(result), _tensors(operation(*args, **kwargs)), strict=True
            ):
                if old.data_ptr() != new.data_ptr():  # else a view, or changed in place
                    old.copy_(new)

    def spoil(self):
        read = {id(one) for _, args, _, _ in self.steps for one in _tensors(args)}
        for _, _, _, result in self.steps:
            for one in _tensors(result):
                if id(one) not in read and one.is_floating_point():
                    one.fill_(float("nan"))


class Stream:
    def wait_stream(self, other):
        assert isinstance(other, Stream)


def install(monkeypatch):
    """Let the engine take the CPU for a GPU; gives the list of all graphs made."""
    made = []

    class Listed(Graph):
        def __init__(self):
            super().__init__()
            made.append(self)

    @contextmanager
    def recording(graph):
        with Tape() as tape:
            yield
        graph.steps = tape.steps
        graph.spoil()

    current = Stream()
    monkeypatch.setattr(engine_cudagraph, "_gpu", lambda name: torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: current)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Listed)
    monkeypatch.setattr(torch.cuda, "graph", recording)
    return made


def _tensors(value):
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, tuple | list):
        return [one for part in value for one in _tensors(part)]
    return []
