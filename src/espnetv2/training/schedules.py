"""Learning rates as pure functions of the epoch.

The official schedules change the rate once per epoch; `at` takes whole epochs for them. Those that
move within an epoch say so with `smooth` and are asked at fractions.

Paper: espnetv2 sec. 4.1, Eq. 1; official variants as in the authors' repositories.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)


class _Schedule(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @property
    def smooth(self) -> bool:
        """Whether the rate moves within an epoch."""
        return False


class PaperCyclic(_Schedule):
    """The paper's Eq. 1: falls from `maximum` by `minimum` an epoch, restarts every `cycle`.

    >>> [PaperCyclic(name="paper-cyclic").at(epoch, 300) for epoch in range(6)]
    [0.5, 0.4, 0.3, 0.2, 0.1, 0.5]
    """

    name: Literal["paper-cyclic"]
    maximum: PositiveFloat = 0.5
    minimum: PositiveFloat = 0.1
    cycle: PositiveInt = 5
    steps: tuple[NonNegativeInt, ...] = (50, 100, 130, 160, 190, 220, 250, 280)
    factor: PositiveFloat = 0.5

    @model_validator(mode="after")
    def _stays_positive(self) -> PaperCyclic:
        if self.maximum <= (self.cycle - 1) * self.minimum:
            raise ValueError(
                f"the rate falls to nothing: maximum {self.maximum:g} must be more than "
                f"(cycle - 1) * minimum = {(self.cycle - 1) * self.minimum:g}"
            )
        return self

    def at(self, epoch: float, epochs: int) -> float:
        """The rate in a 0-based epoch."""
        whole = int(epoch)
        rate = self.maximum - (whole % self.cycle) * self.minimum  # Eq. 1
        return round(rate * self.factor ** sum(whole >= step for step in self.steps), 12)


class Cyclic(_Schedule):
    """The official code's cycle: one epoch at the minimum, then `cycle` x minimum downwards.

    >>> [Cyclic(name="cyclic", minimum=0.1).at(epoch, 300) for epoch in range(7)]
    [0.1, 0.5, 0.4, 0.3, 0.2, 0.1, 0.5]
    """

    name: Literal["cyclic"]
    minimum: PositiveFloat = 0.1
    cycle: PositiveInt = 5
    steps: tuple[NonNegativeInt, ...] = (51, 101, 131, 161, 191, 221, 251, 281)
    factor: PositiveFloat = 0.5

    def at(self, epoch: float, epochs: int) -> float:
        """The rate in a 0-based epoch."""
        whole = int(epoch)
        minimum = self.minimum * self.factor ** sum(whole >= step for step in self.steps)
        if whole == 0:  # D1: the maximum would diverge at once
            return round(minimum, 5)
        maximum = self.cycle * minimum
        return round(maximum - (whole - 1) % self.cycle * minimum, 5)  # D10


class Hybrid(_Schedule):
    """Cycles for `cyclic_epochs`, then linear to nothing: EdgeNets' segmentation and detection."""

    name: Literal["hybrid"]
    minimum: PositiveFloat
    cycle: PositiveInt = 5
    cyclic_epochs: NonNegativeInt = 61

    def at(self, epoch: float, epochs: int) -> float:
        """The rate in a 0-based epoch."""
        whole = int(epoch)
        if whole < self.cyclic_epochs:
            cycles = Cyclic(name="cyclic", minimum=self.minimum, cycle=self.cycle, steps=())
            return cycles.at(whole, epochs)
        rest = (whole - self.cyclic_epochs + 1) / (epochs - self.cyclic_epochs + 1)
        return round(self.minimum * (1 - rest), 6)  # D10


class Steps(_Schedule):
    """A fixed rate, multiplied by `factor` at each of `steps`."""

    name: Literal["steps"]
    rate: PositiveFloat
    steps: tuple[NonNegativeInt, ...]
    factor: PositiveFloat = 0.1

    def at(self, epoch: float, epochs: int) -> float:
        """The rate in a 0-based epoch."""
        return self.rate * self.factor ** sum(int(epoch) >= step for step in self.steps)


class Poly(_Schedule):
    """`rate (1 - e / E)^power`; power 1 is linear.

    >>> Poly(name="poly", rate=0.01).at(2, 100)
    0.00982
    """

    name: Literal["poly"]
    rate: PositiveFloat
    power: NonNegativeFloat = 0.9
    digits: NonNegativeInt | None = 6  # D10

    def at(self, epoch: float, epochs: int) -> float:
        """The rate in a 0-based epoch."""
        rate: float = self.rate * (1 - int(epoch) / epochs) ** self.power
        return rate if self.digits is None else round(rate, self.digits)


class Cosine(_Schedule):
    """Rises linearly for `warm_up` epochs, then falls as a cosine to `final` x rate; smooth."""

    name: Literal["cosine"]
    rate: PositiveFloat
    warm_up: NonNegativeFloat = 0.0
    final: float = Field(default=0.0, ge=0, le=1)

    @property
    def smooth(self) -> bool:
        """It moves within an epoch."""
        return True

    def at(self, epoch: float, epochs: int) -> float:
        """The rate at a fraction of the run."""
        if epoch < self.warm_up:
            return self.rate * (epoch + 1e-3) / (self.warm_up + 1e-3)
        done = min(1.0, (epoch - self.warm_up) / max(1e-9, epochs - self.warm_up))
        low = self.final * self.rate
        return low + (self.rate - low) * (1 + math.cos(math.pi * done)) / 2


Schedule = Annotated[
    PaperCyclic | Cyclic | Hybrid | Steps | Poly | Cosine, Field(discriminator="name")
]
"""Any of them; `name` tells which."""
