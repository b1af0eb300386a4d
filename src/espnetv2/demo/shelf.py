"""Networks in engines, kept ready; the one that was used longest ago goes first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import torch

from espnetv2.demo.machine import Offered
from espnetv2.predict.predictor import Predictor, load
from espnetv2.profiling.complexity import Complexity, measure
from espnetv2.weights.load import Loaded, load_network

K = TypeVar("K")
V = TypeVar("V")


class Shelf(Generic[K, V]):
    """A bounded table whose values are made when they are first asked for, each once.

    Args:
        make: From a key to its value; slow ones do not hold up others.
        room: Values that are kept.
    """

    def __init__(self, make: Callable[[K], V], room: int) -> None:
        self._make, self._room = make, room
        self._values: OrderedDict[K, V] = OrderedDict()
        self._makers: dict[K, threading.Lock] = {}
        self._lock = threading.Lock()

    def ready(self, key: K) -> V | None:
        """The value if it is made already."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def get(self, key: K) -> V:
        """The value, made if need be; errors of the maker are raised and nothing is kept."""
        with self._lock:
            maker = self._makers.setdefault(key, threading.Lock())
        with maker:
            found = self.ready(key)
            if found is None:
                found = self._make(key)
                with self._lock:
                    self._values[key] = found
                    while len(self._values) > self._room:
                        self._values.popitem(last=False)
        return found


@dataclass(frozen=True)
class Choice:
    """What a visitor chose."""

    network: Offered
    engine: str
    precision: str


@dataclass
class Ready:
    """A choice, loaded."""

    choice: Choice
    predictor: Predictor
    threads: int
    counted: dict[tuple[int, int], Complexity] = field(default_factory=dict)

    def cost(self, size: tuple[int, int]) -> Complexity:
        """Parameters and multiply-adds at one input size, counted once in the train form.

        By a real pass: one without memory, on torch's meta device, imports a compiler for seconds.
        """
        if size not in self.counted:
            network = self.choice.network
            form = load_network(network.place).network
            self.counted[size] = measure(form, size, name=network.model)
        return self.counted[size]


def open_choice(choice: Choice, threads: int | None) -> Ready:
    """Load a network into its engine; an exported one is made and cached at the first time.

    Raises:
        UserError: The engine cannot run it.
    """
    predictor = load(
        choice.network.place,
        engine=choice.engine,
        precision=choice.precision,
        threads=threads,
    )
    own = getattr(predictor.model, "threads", None)
    return Ready(choice, predictor, own or torch.get_num_threads())


def open_network(network: Offered) -> Loaded:
    """The train form of a network, for *Inside*."""
    return load_network(network.place)
