"""What all strategies have in common: a round at the server, and a client's part of it.

At the server, `round = strategy.start(params, state)` begins a round with the global model,
`round.add(client, update, weight)` takes one client's update, and `round.finish()` returns the next
model and the state for the next round.

At a client, `part = strategy.client(params, state, own)` begins from the global model,
`part.correction(params)` is what each step of training adds to its gradients, and
`part.finish(trained)` returns the update to be sent and what the client keeps for itself.

Models, updates, states and what clients keep are all plain `{name: array}` dicts, which results,
globals and letters carry. What is given is never changed in place.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple

from manta.light import arguments
from manta.light.federated.arrays import Arrays, Form, check_update, delta
from manta.light.federated.errors import BadUpdate, BadWeight, NoUpdates, RoundFinished

OnBadUpdate = Literal["refuse", "leave_out"]
ON_BAD_UPDATE = ("refuse", "leave_out")


class Outcome(NamedTuple):
    """What a round has come to."""

    params: dict[str, Any]
    """The next global model."""
    state: dict[str, Any]
    """What the strategy needs in the next round; empty for some."""
    clients: tuple[str, ...]
    """Whose updates it is made of."""
    left_out: dict[str, str]
    """Whose updates were left out as they could not be used, and why."""


class Sent(NamedTuple):
    """What a client has at the end of its part of a round."""

    update: dict[str, Any]
    """For the server."""
    own: dict[str, Any]
    """For the client's own next round; it is not sent. Empty for some strategies."""


class Round(ABC):
    """One round at the server."""

    takes_several = False
    """Whether a client may send more than one update in a round."""

    def __init__(self, forms: Mapping[str, Form], on_bad_update: OnBadUpdate) -> None:
        self.forms = forms
        """What the arrays of an update must be like, once it is decoded."""
        self.left_out: dict[str, str] = {}
        """Whose updates were left out so far, and why."""
        self._on_bad_update = on_bad_update
        self._clients: dict[str, None] = {}
        self._decoders: list[Callable[[str, Arrays], Arrays]] = []
        self._filters: list[Callable[[str, Arrays], Arrays]] = []
        self._kept: Arrays = {}
        self._order: tuple[str, ...] = ()
        self._count = 0
        self._is_finished = False

    @property
    def clients(self) -> tuple[str, ...]:
        """Whose updates were taken so far, in order."""
        return tuple(self._clients)

    def add(self, client: str, update: Arrays, weight: float = 1.0) -> bool:
        """Takes one client's update; False where it was left out.

        `client` names who sent it, and `weight`, a number above 0, is how much it counts: usually
        the number of examples that it was trained on. Arrays are read before the call returns;
        strategies that need all updates together keep them.

        Raises BadUpdate, and BadWeight, for an update with other names, shapes or dtypes than the
        model's, with NaN or infinite values, or from a client that has sent one already; with
        `on_bad_update="leave_out"` it is recorded in `left_out` instead. Raises RoundFinished.
        """
        self._check_open()
        if not isinstance(client, str):
            raise TypeError(f"A client is named by a str, not by {client!r:.60}.")
        if client in self._clients and not self.takes_several:
            self.reject(BadUpdate(client, None, "it has sent another in this round"))
            return False
        try:
            number = _weight(client, weight)
            for decode in self._decoders:
                update = decode(client, update)
            check_update(client, update, self.forms)
            for change in self._filters:
                update = change(client, update)
            self._take(client, update, number)
        except BadUpdate as error:
            self.reject(error)
            return False
        self.left_out.pop(client, None)
        self._clients[client] = None
        self._count += 1
        return True

    def reject(self, error: BadUpdate) -> None:
        """Raises the error, or records whose update is left out, and why, as the policy is."""
        self._check_open()
        if self._on_bad_update == "refuse":
            raise error
        self.left_out[error.client] = error.reason

    def finish(self) -> Outcome:
        """Ends the round. Raises NoUpdates, RoundFinished, and what the strategy says."""
        self._check_open()
        if not self._clients:
            reasons = [f"{name!r:.80}: {reason}" for name, reason in self.left_out.items()]
            more = f" and {len(reasons) - 3} more" if len(reasons) > 3 else ""
            why = f" Left out were {'; '.join(reasons[:3])}{more}." if reasons else ""
            raise NoUpdates(f"There is no update to aggregate.{why}")
        params, state, clients = self._outcome()
        self._is_finished = True
        made = {**params, **self._kept}
        ordered = {name: made[name] for name in self._order or made}
        return Outcome(ordered, state, clients, dict(self.left_out))

    def decode_with(self, decode: Callable[[str, Arrays], Arrays]) -> None:
        """Has each update decoded before all else is done with it, by what may raise BadUpdate."""
        self._decoders.insert(0, decode)

    def filter_with(self, change: Callable[[str, Arrays], Arrays]) -> None:
        """Has each update changed once it is checked, by what may raise BadUpdate."""
        self._filters.append(change)

    def keep(self, arrays: Arrays, order: Iterable[str]) -> None:
        """Has these arrays in the next model as they are; all are then in this order."""
        self._kept = {**self._kept, **arrays}
        self._order = tuple(order)

    @abstractmethod
    def _take(self, client: str, update: Arrays, weight: float) -> None:
        """Takes what was checked. Raises BadUpdate."""

    @abstractmethod
    def _outcome(self) -> tuple[dict[str, Any], dict[str, Any], tuple[str, ...]]:
        """The model, the state, and the clients that they are made of."""

    def _check_open(self) -> None:
        if self._is_finished:
            raise RoundFinished("This round is finished: begin another one with start().")


def _weight(client: str, weight: Any) -> float:
    try:
        number = arguments.number("weight", weight)
    except (TypeError, ValueError):
        raise BadWeight(client, weight) from None
    if not 0 < number < math.inf:
        raise BadWeight(client, weight)
    return number


class Client:
    """A client's part of a round, from the global model to the update that it sends."""

    def __init__(self, params: Arrays) -> None:
        self.params = dict(params)
        """The model that training begins from."""

    def correction(self, params: Arrays) -> dict[str, Any]:
        """What is to be added to the gradient of the loss at `params`, by name.

        It has the parameters' shapes, and none of buffers and integers. It is empty where a
        strategy corrects nothing.
        """
        return {}

    def finish(
        self, trained: Arrays, *, steps: int | None = None, learning_rate: float | None = None
    ) -> Sent:
        """What the client sends, and what it keeps, once it is trained.

        `steps` is how many steps of the optimiser it took and `learning_rate` their size; some
        strategies need them. Raises BadModel where `trained` differs from the model in names,
        shapes or dtypes, and ValueError for steps or a rate that are needed and missing.
        """
        return Sent(delta(trained, self.params), {})


class Strategy(ABC):
    """A federated algorithm, with its hyperparameters: the server's side and the clients'."""

    @property
    def adds_up(self) -> bool:
        """Whether its server needs no more of the updates than their weighted sum: its rounds are
        then `MeanRound`s, of which a sum may be taken where no update may leave."""
        return False

    @abstractmethod
    def start(self, params: Arrays, state: Arrays | None = None) -> Round:
        """Begins a round at the server, with the global model.

        `state` is that of the last round's outcome, None in the first round. Raises BadModel,
        BadState.
        """

    @abstractmethod
    def client(
        self, params: Arrays, state: Arrays | None = None, own: Arrays | None = None
    ) -> Client:
        """Begins a client's part of a round, with the global model.

        `state` is the server's, as the last round's outcome has it; `own` is what this client kept
        of its last round. Both are None at first. Raises BadModel, BadState.
        """


def aggregate(
    strategy: Strategy,
    params: Arrays,
    updates: Iterable[tuple[str, Arrays, float]],
    state: Arrays | None = None,
) -> Outcome:
    """A whole round at once: of `updates`, each a client, its update and its weight.

    The outcome is that of `start`, `add` in this order, and `finish`, to the bit; what they raise
    is raised here. `updates` may be an iterator that loads one at a time.

    >>> import numpy as np
    >>> from manta.light.federated import FedAvg
    >>> updates = [("a", {"w": np.array([1.0])}, 1), ("b", {"w": np.array([4.0])}, 3)]
    >>> aggregate(FedAvg(), {"w": np.array([10.0])}, updates).params
    {'w': array([13.25])}
    """
    round = strategy.start(params, state)
    for client, update, weight in updates:
        round.add(client, update, weight)
    return round.finish()
