"""When a federated swarm has trained enough: rules over the metrics of its rounds so far."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from manta.light import arguments
from manta.light.federated import hyperparameters
from manta.light.federated.errors import UnknownMetric

History = Sequence[Mapping[str, float]]
"""The metrics of each round, by name, the latest last."""


@dataclass(frozen=True)
class StoppingRule(ABC):
    """Says from the metrics of all rounds whether to stop."""

    metric: str

    @abstractmethod
    def holds(self, history: History) -> bool:
        """Whether the round that is last in `history` is to be the last one.

        Raises UnknownMetric where that round has no such metric.
        """

    def _values(self, history: History) -> list[float]:
        """The metric in each round that has it."""
        if history and self.metric not in history[-1]:
            known = ", ".join(map(repr, sorted(history[-1]))) or "none"
            raise UnknownMetric(
                f"The stopping rule looks at {self.metric!r:.80}, and the metrics of this round "
                f"are {known}: correct one or the other."
            )
        return [float(one[self.metric]) for one in history if self.metric in one]


@dataclass(frozen=True)
class Reached(StoppingRule):
    """Stops once a metric is at least, or at most, a value. NaN reaches nothing.

    >>> Reached("accuracy", at_least=0.9).holds([{"accuracy": 0.8}, {"accuracy": 0.91}])
    True
    """

    at_least: float | None = None
    at_most: float | None = None

    def __post_init__(self) -> None:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("Reached takes either at_least or at_most: give one of them.")
        for name in ("at_least", "at_most"):
            if (value := getattr(self, name)) is not None:
                arguments.number(name, value)

    def holds(self, history: History) -> bool:
        values = self._values(history)
        if not values:
            return False
        if self.at_least is not None:
            return values[-1] >= self.at_least
        assert self.at_most is not None
        return values[-1] <= self.at_most


@dataclass(frozen=True)
class Plateau(StoppingRule):
    """Stops once a metric has not improved for `rounds` rounds (early stopping; Prechelt 1998).

    A round improves on all before it if it is better by more than `improvement`: greater, or with
    `best="least"` smaller. NaN improves nothing.

    >>> losses = [{"loss": value} for value in (3.0, 2.0, 2.1, 2.0)]
    >>> Plateau("loss", rounds=2, best="least").holds(losses)
    True
    """

    rounds: int = 5
    improvement: float = 0.0
    best: Literal["greatest", "least"] = "greatest"

    def __post_init__(self) -> None:
        hyperparameters.count("rounds", self.rounds)
        hyperparameters.not_negative("improvement", self.improvement)
        arguments.one_of("best", self.best, ("greatest", "least"))

    def holds(self, history: History) -> bool:
        sign = 1 if self.best == "greatest" else -1
        record, since = float("-inf"), 0
        for value in self._values(history):
            if sign * value > record + self.improvement:
                record, since = sign * value, 0
            else:
                since += 1
        return since >= self.rounds
