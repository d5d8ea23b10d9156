"""Personalisation: FedBN, whose clients keep some arrays, and Ditto, whose clients keep a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from manta.light.federated import hyperparameters
from manta.light.federated.arrays import (
    Arrays,
    check_same,
    forms_of,
    matching,
    prefixed,
    unprefixed,
)
from manta.light.federated.averaging import checked_state, proximal_gradient
from manta.light.federated.errors import BadModel
from manta.light.federated.rounds import Client, Round, Sent, Strategy

_OWN = "personal"


@dataclass(frozen=True)
class FedBN(Strategy):
    """Arrays that stay with each client, around another strategy.

    FedBN (Li et al. 2021, arXiv:2102.07623) keeps all of batch normalisation, parameters, buffers
    and counters, where the data are: they are never sent and never averaged. `personal` names
    these arrays, or has patterns with `*` and `?`; with those of the last layers this is FedPer
    (Arivazhagan et al. 2019, arXiv:1912.00818). What a client keeps has `personal:NAME` of each.
    The server's own stay as they are: a client that is new begins from them. `buffers` of the
    strategy inside concern what is shared only. Raises BadModel where nothing is left to share.

    >>> import numpy as np
    >>> strategy = FedBN(FedAvg(), personal=["bn.*"])
    >>> model = {"w": np.array([0.0]), "bn.scale": np.array([1.0])}
    >>> sent = strategy.client(model).finish({"w": np.array([2.0]), "bn.scale": np.array([5.0])})
    >>> sent.update
    {'w': array([2.])}
    >>> outcome = aggregate(strategy, model, [("a", sent.update, 1)])
    >>> outcome.params
    {'w': array([2.]), 'bn.scale': array([1.])}
    >>> strategy.client(outcome.params, outcome.state, sent.own).params
    {'w': array([2.]), 'bn.scale': array([5.])}
    """

    strategy: Strategy
    personal: Sequence[str]

    def __post_init__(self) -> None:
        if isinstance(self.personal, str) or not self.personal:
            raise ValueError(f"personal is {self.personal!r:.60}: give a list of names, not empty.")

    @property
    def adds_up(self) -> bool:
        """As the strategy that it rides on."""
        return self.strategy.adds_up

    def start(self, params: Arrays, state: Arrays | None = None) -> Round:
        personal, shared = self._split(params)
        round = self.strategy.start(shared, state)
        round.keep(personal, order=params)
        return round

    def client(
        self, params: Arrays, state: Arrays | None = None, own: Arrays | None = None
    ) -> Client:
        personal, shared = self._split(params)
        mine, others = _owned(prefixed(_OWN, personal), own)
        inner = self.strategy.client(shared, state, others)
        return _KeepingClient({**params, **unprefixed(_OWN, mine)}, inner)

    def _split(self, params: Arrays) -> tuple[dict[str, Any], dict[str, Any]]:
        forms_of(params)
        names = matching(params, self.personal, "personal")
        if len(names) == len(params):
            raise BadModel("Every array of the model is personal: there is nothing to share.")
        return (
            {name: array for name, array in params.items() if name in names},
            {name: array for name, array in params.items() if name not in names},
        )


def _owned(initial: dict[str, Any], own: Arrays | None) -> tuple[Arrays, dict[str, Any] | None]:
    """What a client kept for itself and what for the strategy inside. Raises BadState."""
    if not own:
        return initial, None
    mine = {name: array for name, array in own.items() if name.startswith(f"{_OWN}:")}
    others = {name: array for name, array in own.items() if name not in mine}
    return checked_state(initial, mine), others


class _KeepingClient(Client):
    def __init__(self, params: Arrays, inner: Client) -> None:
        super().__init__(params)
        self._inner = inner

    def correction(self, params: Arrays) -> dict[str, Any]:
        return self._inner.correction({name: params[name] for name in self._inner.params})

    def finish(
        self, trained: Arrays, *, steps: int | None = None, learning_rate: float | None = None
    ) -> Sent:
        check_same(trained, self.params)
        shared = {name: trained[name] for name in self._inner.params}
        sent = self._inner.finish(shared, steps=steps, learning_rate=learning_rate)
        kept = {name: array for name, array in trained.items() if name not in shared}
        return Sent(sent.update, {**sent.own, **prefixed(_OWN, kept)})


@dataclass(frozen=True)
class Ditto(Strategy):
    """A personal model beside the global one (Li et al. 2021, arXiv:2012.04221).

    Clients train the global model as the strategy inside has it. Besides, each trains a model v
    that it keeps, on its own loss plus λ/2 ‖v - x‖², with x the global model: it adds λ (v - x),
    the `personal_correction`, to each of v's gradients. `proximal_lambda` is λ: with 0, clients
    learn alone. Give v to `finish` as `personal`; what a client keeps has it as `personal:NAME`.

    >>> import numpy as np
    >>> strategy, model = Ditto(FedAvg(), proximal_lambda=0.5), {"w": np.array([0.0])}
    >>> part = strategy.client(model)
    >>> part.personal
    {'w': array([0.])}
    >>> part.personal_correction({"w": np.array([4.0])})
    {'w': array([2.])}
    >>> sent = part.finish({"w": np.array([1.0])}, personal={"w": np.array([4.0])})
    >>> sent.update, sent.own
    ({'w': array([1.])}, {'personal:w': array([4.])})
    """

    strategy: Strategy
    proximal_lambda: float

    def __post_init__(self) -> None:
        hyperparameters.not_negative("proximal_lambda", self.proximal_lambda)

    @property
    def adds_up(self) -> bool:
        """As the strategy that it rides on."""
        return self.strategy.adds_up

    def start(self, params: Arrays, state: Arrays | None = None) -> Round:
        return self.strategy.start(params, state)

    def client(
        self, params: Arrays, state: Arrays | None = None, own: Arrays | None = None
    ) -> DittoClient:
        mine, others = _owned(prefixed(_OWN, params), own)
        inner = self.strategy.client(params, state, others)
        return DittoClient(inner, unprefixed(_OWN, mine), self.proximal_lambda)


class DittoClient(Client):
    """A client that trains the global model and one of its own."""

    def __init__(self, inner: Client, personal: Arrays, weight: float) -> None:
        super().__init__(inner.params)
        self.personal = dict(personal)
        """The personal model, as it was kept, or the global one at first."""
        self._inner = inner
        self._weight = weight

    def correction(self, params: Arrays) -> dict[str, Any]:
        return self._inner.correction(params)

    def personal_correction(self, personal: Arrays) -> dict[str, Any]:
        """What is to be added to the gradient of the loss at the personal model, for all floats."""
        floats = {name: a for name, a in self.params.items() if a.dtype.kind == "f"}
        return proximal_gradient(personal, floats, self._weight)

    def finish(
        self,
        trained: Arrays,
        *,
        steps: int | None = None,
        learning_rate: float | None = None,
        personal: Arrays | None = None,
    ) -> Sent:
        """As of any client; `personal` is the personal model once trained, as it was if None."""
        mine = self.personal if personal is None else personal
        check_same(mine, self.params, "The personal model")
        sent = self._inner.finish(trained, steps=steps, learning_rate=learning_rate)
        return Sent(sent.update, {**sent.own, **prefixed(_OWN, mine)})
