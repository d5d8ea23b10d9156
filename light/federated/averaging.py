"""FedAvg and what differs from it only in the server's step or in the clients' loss.

The mean is taken as updates come in: memory for one sum of the model's size, in float32 where
arrays are of 16 bits and in their own dtype otherwise, whatever the number of clients.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from manta.light import arguments
from manta.light.federated import hyperparameters
from manta.light.federated.arrays import (
    Arrays,
    Form,
    forms_of,
    is_finite,
    kinds,
    prefixed,
    shown,
    squared_norm,
    unprefixed,
)
from manta.light.federated.errors import BadState, Overflow
from manta.light.federated.lazy import np
from manta.light.federated.rounds import (
    ON_BAD_UPDATE,
    Client,
    OnBadUpdate,
    Round,
    Strategy,
)

_AT_A_TIME = 2**19
"""Elements whose products with a weight are in memory together; with fewer, it is slower."""


def wide(dtype: Any) -> Any:
    """What floats of this dtype are summed in."""
    return np.result_type(dtype, np.float32)


class WeightedSum:
    """The weighted mean of arrays that come one after another."""

    def __init__(self, forms: Mapping[str, Form]) -> None:
        self.weight = 0.0
        self._sums = {
            name: np.zeros(form.shape, wide(form.dtype))
            for name, form in forms.items()
            if form.is_float
        }
        self._scratch: dict[Any, Any] = {}

    def add(self, arrays: Arrays, weight: float, counted: float | None = None) -> None:
        """Adds arrays times a weight; `counted` is what it is counted as, where that differs."""
        self.weight += weight if counted is None else counted
        with np.errstate(all="ignore"):  # what overflows is told of the mean
            for name, total in self._sums.items():
                self._add(total.reshape(-1), arrays[name].reshape(-1), weight)

    def _add(self, total: Any, array: Any, weight: float) -> None:
        scratch = self._scratch.get(total.dtype)
        if scratch is None:
            scratch = self._scratch[total.dtype] = np.empty(_AT_A_TIME, total.dtype)
        for at in range(0, total.size, _AT_A_TIME):
            part, into = array[at : at + _AT_A_TIME], total[at : at + _AT_A_TIME]
            if weight != 1:
                part = np.multiply(part, weight, out=scratch[: part.size], dtype=total.dtype)
            np.add(into, part, out=into)

    def parts(self) -> dict[str, Any]:
        """What was added, as values that can be added up with those of others."""
        return {"arrays": dict(self._sums), "weight": self.weight}

    def add_parts(self, parts: Mapping[str, Any]) -> None:
        """Adds what such parts of several have come to."""
        self.weight += parts["weight"]
        with np.errstate(all="ignore"):
            for name, total in self._sums.items():
                np.add(total, parts["arrays"][name], out=total)

    def mean(self) -> dict[str, Any]:
        """The mean of what was added, of which there is some; the sum is used up."""
        sums, self._sums = self._sums, {}
        self._scratch = {}
        if not math.isfinite(self.weight):
            raise Overflow("The sum of all weights is beyond any float: give smaller weights.")
        for total in sums.values():
            with np.errstate(all="ignore"):
                np.divide(total, self.weight, out=total)
        return sums


@dataclass(frozen=True, kw_only=True)
class Averaging(Strategy):
    """What strategies have in common that make one step of one aggregate.

    `buffers` names the float arrays that are not trained, or has patterns with `*` and `?` for
    them: they become their mean, whatever the strategy does to parameters. `integers` says what
    becomes of integers and bools: `"keep"` leaves the server's, `"max"` takes the greatest that
    any client sent. `on_bad_update` says what is done about an update that can't be used:
    `"refuse"` raises, `"leave_out"` goes on without it.
    """

    buffers: Sequence[str] = ()
    integers: Literal["keep", "max"] = "keep"
    on_bad_update: OnBadUpdate = "refuse"

    def __post_init__(self) -> None:
        if isinstance(self.buffers, str):
            raise TypeError(f"buffers is {self.buffers!r:.60}: give a list of names.")
        arguments.one_of("integers", self.integers, ("keep", "max"))
        arguments.one_of("on_bad_update", self.on_bad_update, ON_BAD_UPDATE)

    @property
    def adds_up(self) -> bool:
        """Whether the weighted sum is enough: that of integers says nothing of the greatest."""
        return self.integers == "keep"

    def start(self, params: Arrays, state: Arrays | None = None) -> Round:
        return MeanRound(self, params, state)

    def client(
        self, params: Arrays, state: Arrays | None = None, own: Arrays | None = None
    ) -> Client:
        forms_of(params)
        return Client(params)

    def parameters(self, arrays: Arrays) -> dict[str, Any]:
        """Those of a model's arrays that are trained."""
        return {
            name: arrays[name]
            for name, kind in kinds(arrays, self.buffers).items()
            if kind == "parameter"
        }

    def update_forms(self, params: Arrays) -> dict[str, Form]:
        """What the arrays of an update must be like."""
        return forms_of(params)

    def initial_state(self, parameters: Arrays) -> dict[str, Any]:
        """The state before the first round."""
        return {}

    def step(
        self, parameters: Arrays, mean: dict[str, Any], state: Arrays, weight: float
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The next parameters and the next state.

        `mean` has the mean of all floats of the updates and may be changed in place; `weight` is
        the sum of the clients' weights.
        """
        return moved(parameters, mean, 1.0), {}


def moved(parameters: Arrays, directions: dict[str, Any], rate: float) -> dict[str, Any]:
    """`parameters + rate * directions`, made in the arrays of `directions`."""
    for name, array in parameters.items():
        direction = directions[name]
        if rate != 1:
            np.multiply(direction, rate, out=direction)
        np.add(direction, array, out=direction)
    return {name: directions[name] for name in parameters}


class MeanRound(Round):
    """Sums updates as they come in."""

    def __init__(self, strategy: Averaging, params: Arrays, state: Arrays | None) -> None:
        self._strategy = strategy
        self._params = params
        self._kinds = kinds(params, strategy.buffers)
        self._state = checked_state(strategy.initial_state(strategy.parameters(params)), state)
        super().__init__(strategy.update_forms(params), strategy.on_bad_update)
        self._sum = WeightedSum(self.forms)
        self._greatest = {
            name: params[name]
            for name, kind in self._kinds.items()
            if kind == "integer" and strategy.integers == "max"
        }

    def _take(self, client: str, update: Arrays, weight: float) -> None:
        self._sum.add(update, weight)
        self._note_integers(update)

    def sums(self) -> dict[str, Any]:
        """What was taken so far: `arrays`, weighted, `weight`, and how many `clients`; zeros where
        nothing was. Those of several nodes may be added up, whatever any of them is."""
        return {**self._sum.parts(), "clients": len(self.clients)}

    def add_sums(self, total: Mapping[str, Any]) -> None:
        """Takes what `sums` of several nodes have come to."""
        self._check_open()
        if total["clients"]:
            self._sum.add_parts(total)
            self._clients[f"a sum of {total['clients']}"] = None

    def _note_integers(self, update: Arrays) -> None:
        for name, greatest in self._greatest.items():
            self._greatest[name] = np.asarray(np.maximum(greatest, update[name]))

    def _outcome(self) -> tuple[dict[str, Any], dict[str, Any], tuple[str, ...]]:
        return *self._stepped(self._sum.mean(), self._sum.weight), self.clients

    def _stepped(
        self, mean: dict[str, Any], weight: float
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        params = self._params
        buffers = {name: params[name] for name, kind in self._kinds.items() if kind == "buffer"}
        parameters = self._strategy.parameters(params)
        with np.errstate(all="ignore"):
            floats = moved(buffers, mean, 1.0)
            trained, state = self._strategy.step(parameters, mean, self._state, weight)
            floats |= trained
            made = {name: floats[name].astype(params[name].dtype, copy=False) for name in floats}
        whole = {
            name: np.array(self._greatest.get(name, params[name]), params[name].dtype)
            for name, kind in self._kinds.items()
            if kind == "integer"
        }
        for name, array in {**made, **state}.items():
            if not is_finite(array):
                raise Overflow(
                    f"What {name!r:.80} becomes is too large for {array.dtype.name}: the updates "
                    "or their weights are very large, or the server's learning rate is."
                )
        return {name: (made | whole)[name] for name in params}, state


def checked_state(initial: dict[str, Any], state: Arrays | None) -> Arrays:
    """The state, or the initial one where there is none yet. Raises BadState."""
    if not state:
        return initial
    if state.keys() != initial.keys():
        wants = f"this strategy has {shown(initial)}" if initial else "this strategy has none"
        raise BadState(f"The state has {shown(state)}; for this model, {wants}.")
    for name, array in initial.items():
        given = state[name]
        is_like = getattr(given, "shape", None) == array.shape
        if not is_like or getattr(given, "dtype", None) != array.dtype:
            raise BadState(
                f"The state's {name!r:.80} is not {Form(array.shape, array.dtype)}: it belongs to "
                "another model, or was changed."
            )
    return state


def zeros_like(parameters: Arrays) -> dict[str, Any]:
    """Zeros of the parameters' shapes, in what they are summed in."""
    return {name: np.zeros(array.shape, wide(array.dtype)) for name, array in parameters.items()}


def constant_like(array: Any, value: float) -> Any:
    """An array of an array's shape, in what it is summed in, all of one value, not to be changed:
    without the memory of its size."""
    return np.broadcast_to(np.asarray(value, wide(array.dtype)), array.shape)


@dataclass(frozen=True, kw_only=True)
class FedAvg(Averaging):
    """Federated averaging (McMahan et al. 2017, arXiv:1602.05629).

    With the model x, the update Δₖ = xₖ - x of client k, and its weight nₖ:

        x ← x + η Σ nₖ Δₖ / Σ nₖ

    `server_learning_rate` is η; 1, the default, makes the model the weighted mean of the
    clients' models. It streams: memory for one model whatever the number of clients. Raises as
    `Round` says.

    >>> import numpy as np
    >>> round = FedAvg().start({"w": np.array([1.0, 1.0])})
    >>> round.add("hospital-1", {"w": np.array([1.0, 0.0])}, weight=30)
    True
    >>> round.add("hospital-2", {"w": np.array([0.0, 4.0])}, weight=10)
    True
    >>> round.finish().params
    {'w': array([1.75, 2.  ])}
    """

    server_learning_rate: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        hyperparameters.positive("server_learning_rate", self.server_learning_rate)

    def step(
        self, parameters: Arrays, mean: dict[str, Any], state: Arrays, weight: float
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        return moved(parameters, mean, self.server_learning_rate), {}


@dataclass(frozen=True, kw_only=True)
class FedAvgM(FedAvg):
    """Federated averaging with server momentum (Hsu et al. 2019, arXiv:1909.06335).

    With Δ, the weighted mean of the updates:

        v ← β v + Δ        x ← x + η v

    `server_momentum` is β, `server_learning_rate` η. The state has `momentum:NAME` for each
    parameter.

    >>> import numpy as np
    >>> strategy = FedAvgM(server_momentum=0.5)
    >>> update = {"w": np.array([1.0])}
    >>> first = aggregate(strategy, {"w": np.array([0.0])}, [("a", update, 1)])
    >>> second = aggregate(strategy, first.params, [("a", update, 1)], first.state)
    >>> second.params, second.state
    ({'w': array([2.5])}, {'momentum:w': array([1.5])})
    """

    server_momentum: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        hyperparameters.decay("server_momentum", self.server_momentum)

    def initial_state(self, parameters: Arrays) -> dict[str, Any]:
        zeros = {name: constant_like(array, 0.0) for name, array in parameters.items()}
        return prefixed("momentum", zeros)

    def step(
        self, parameters: Arrays, mean: dict[str, Any], state: Arrays, weight: float
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        momentum = {}
        for name, old in unprefixed("momentum", state).items():
            momentum[name] = new = np.asarray(self.server_momentum * old)
            np.add(new, mean[name], out=new)
            np.copyto(mean[name], new)
        trained = moved(parameters, mean, self.server_learning_rate)
        return trained, prefixed("momentum", momentum)


@dataclass(frozen=True, kw_only=True)
class FedProx(FedAvg):
    """Federated averaging with a proximal term (Li et al. 2020, arXiv:1812.06127).

    Each client minimises its own loss plus the proximal term

        μ/2 ‖w - x‖²        of which the gradient is        μ (w - x)

    with x the global model and w its own. `proximal_mu` is μ. The server does as FedAvg does. The
    client's `correction` is the gradient and its `term` the term itself, over parameters only.

    >>> import numpy as np
    >>> part = FedProx(proximal_mu=0.5).client({"w": np.array([1.0, 1.0])})
    >>> part.correction({"w": np.array([3.0, 1.0])})
    {'w': array([1., 0.])}
    >>> part.term({"w": np.array([3.0, 1.0])})
    1.0
    """

    proximal_mu: float

    def __post_init__(self) -> None:
        super().__post_init__()
        hyperparameters.not_negative("proximal_mu", self.proximal_mu)

    def client(
        self, params: Arrays, state: Arrays | None = None, own: Arrays | None = None
    ) -> ProximalClient:
        return ProximalClient(params, self.parameters(params), self.proximal_mu)


class ProximalClient(Client):
    """A client that is drawn back to where it began."""

    def __init__(self, params: Arrays, parameters: Arrays, mu: float) -> None:
        super().__init__(params)
        self._parameters = parameters
        self._mu = mu

    def correction(self, params: Arrays) -> dict[str, Any]:
        return proximal_gradient(params, self._parameters, self._mu)

    def term(self, params: Arrays) -> float:
        """What is to be added to the loss at `params`."""
        moved = {name: params[name] - start for name, start in self._parameters.items()}
        return self._mu / 2 * squared_norm(moved)


def proximal_gradient(params: Arrays, start: Arrays, mu: float) -> dict[str, Any]:
    """`mu * (params - start)`, the gradient of `mu/2 * ‖params - start‖²`, for the names of
    `start`."""
    return {name: np.asarray(mu * (params[name] - array)) for name, array in start.items()}
