"""FedBuff: rounds that do not wait for the slow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from manta.light.federated import hyperparameters
from manta.light.federated.arrays import ABOUT, Arrays, Form
from manta.light.federated.averaging import FedAvg, MeanRound, checked_state
from manta.light.federated.errors import BadUpdate, TooFewUpdates
from manta.light.federated.lazy import np
from manta.light.federated.rounds import Client, Sent

VERSION = f"{ABOUT}version"


@dataclass(frozen=True, kw_only=True)
class FedBuff(FedAvg):
    """Buffered asynchronous aggregation (Nguyen et al. 2022, arXiv:2106.06639).

    Clients begin from the newest model whenever they are free, and send updates whenever they are
    done. Once `buffer_size` of them, K, have come, the model moves:

        x ← x + η Σ nₖ s(τₖ) Δₖ / Σ nₖ        with        s(τ) = (1 + τ)^-a

    τ, the staleness, is how many times the model has moved since the client began; a is
    `staleness_exponent`, ½ in the paper. An update that is staler than `max_staleness` can't be
    used. The state has the model's version, `about:version`, which the clients need and send back:
    it counts how often the model has moved. `is_full` of the round says when to `finish` it, which
    raises TooFewUpdates before. It streams: memory for one model.

    >>> import numpy as np
    >>> strategy, model = FedBuff(buffer_size=2), {"w": np.array([0.0])}
    >>> slow = strategy.client(model).finish({"w": np.array([4.0])}).update
    >>> state = {"about:version": np.array(3)}
    >>> fast = strategy.client(model, state).finish({"w": np.array([1.0])}).update
    >>> round = strategy.start(model, state)
    >>> round.add("slow", slow), round.add("fast", fast), round.is_full
    (True, True, True)
    >>> round.finish().params  # (4 / √4 + 1) / 2
    {'w': array([1.5])}
    """

    buffer_size: int
    staleness_exponent: float = 0.5
    max_staleness: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        hyperparameters.count("buffer_size", self.buffer_size)
        hyperparameters.not_negative("staleness_exponent", self.staleness_exponent)
        if self.max_staleness is not None:
            hyperparameters.count("max_staleness", self.max_staleness, 0)

    @property
    def adds_up(self) -> bool:
        """False: each update has a staleness of its own."""
        return False

    def start(self, params: Arrays, state: Arrays | None = None) -> BufferedRound:
        return BufferedRound(self, params, state)

    def client(
        self, params: Arrays, state: Arrays | None = None, own: Arrays | None = None
    ) -> Client:
        checked = checked_state(self.initial_state(self.parameters(params)), state)
        return _BufferedClient(params, checked[VERSION])

    def update_forms(self, params: Arrays) -> dict[str, Form]:
        return {**super().update_forms(params), VERSION: Form((), np.dtype(np.int64))}

    def initial_state(self, parameters: Arrays) -> dict[str, Any]:
        return {VERSION: np.array(0, np.int64)}

    def weight_of(self, staleness: int) -> float:
        """s(τ), from 0 to 1."""
        return float((1 + staleness) ** -self.staleness_exponent)


class BufferedRound(MeanRound):
    """The buffer between two moves of the model. A client may be in it more than once."""

    takes_several = True

    def __init__(self, strategy: FedBuff, params: Arrays, state: Arrays | None) -> None:
        super().__init__(strategy, params, state)
        self._buff = strategy
        self._version = int(self._state[VERSION])

    @property
    def is_full(self) -> bool:
        """Whether there are as many updates as the model waits for."""
        return self._count >= self._buff.buffer_size

    def _take(self, client: str, update: Arrays, weight: float) -> None:
        staleness = self._version - int(update[VERSION])
        most = self._buff.max_staleness
        if not 0 <= staleness <= self._version:
            raise BadUpdate(
                client,
                VERSION,
                f"is {int(update[VERSION])}, and the model's is {self._version}: it is no version "
                "that there was",
            )
        if most is not None and staleness > most:
            raise BadUpdate(client, VERSION, f"is {staleness} moves old, of at most {most}")
        self._sum.add(update, weight * self._buff.weight_of(staleness), counted=weight)
        self._note_integers(update)

    def _outcome(self) -> tuple[dict[str, Any], dict[str, Any], tuple[str, ...]]:
        if not self.is_full:
            raise TooFewUpdates(
                f"FedBuff waits for {self._buff.buffer_size} updates, and has {self._count}: add "
                "more before finish()."
            )
        params, _, clients = super()._outcome()
        return params, {VERSION: np.array(self._version + 1, np.int64)}, clients


class _BufferedClient(Client):
    def __init__(self, params: Arrays, version: Any) -> None:
        super().__init__(params)
        self._version = version

    def finish(
        self, trained: Arrays, *, steps: int | None = None, learning_rate: float | None = None
    ) -> Sent:
        sent = super().finish(trained, steps=steps, learning_rate=learning_rate)
        return Sent({**sent.update, VERSION: np.array(self._version, np.int64)}, sent.own)
