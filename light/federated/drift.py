"""SCAFFOLD, FedNova and FedDyn: against the drift of clients whose data differ.

Where clients take several steps between two rounds, each moves towards the optimum of its own
data. SCAFFOLD and FedDyn correct each step by what they remember of earlier rounds; FedNova
removes the bias towards those that take more steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from manta.light.federated import hyperparameters
from manta.light.federated.arrays import ABOUT, Arrays, Form, delta, prefixed, unprefixed
from manta.light.federated.averaging import (
    Averaging,
    FedAvg,
    MeanRound,
    checked_state,
    moved,
    proximal_gradient,
    zeros_like,
)
from manta.light.federated.errors import BadUpdate
from manta.light.federated.lazy import np
from manta.light.federated.rounds import Client, Round, Sent

STEPS = f"{ABOUT}steps"


@dataclass(frozen=True, kw_only=True)
class SCAFFOLD(FedAvg):
    """SCAFFOLD (Karimireddy et al. 2020, arXiv:1910.06378), with option II of its algorithm 1.

    The server keeps a control variate c and client i its own, cᵢ, all 0 at first. A client adds
    c - cᵢ to each of its K gradients, and steps by ηₗ from x to y. Then

        cᵢ⁺ = cᵢ - c + (x - y) / (K ηₗ)

    is its next one, and it sends y - x and cᵢ⁺ - cᵢ. With Σ over the clients S of the round:

        x ← x + η Σ nᵢ (y - x) / Σ nᵢ        c ← c + Σ nᵢ (cᵢ⁺ - cᵢ) / N

    `total_weight` is N, the weight of *all* clients that there are, whether or not they take part
    in a round: their number where each counts 1, as in the paper. The state has `control:NAME`, c,
    for each parameter, and clients need it; what a client keeps has the same names. `finish` of the
    client needs `steps`, K, and `learning_rate`, ηₗ, of plain SGD. It streams: memory for two
    models.

    >>> import numpy as np
    >>> strategy = SCAFFOLD(total_weight=2)
    >>> model = {"x": np.array([1.0])}
    >>> part = strategy.client(model)
    >>> sent = part.finish({"x": np.array([0.0])}, steps=2, learning_rate=0.25)
    >>> sent.update
    {'x': array([-1.]), 'control:x': array([2.])}
    >>> outcome = aggregate(strategy, model, [("a", sent.update, 1)])
    >>> outcome.params, outcome.state
    ({'x': array([0.])}, {'control:x': array([1.])})
    >>> strategy.client(outcome.params, outcome.state, sent.own).correction(outcome.params)
    {'x': array([-1.])}
    """

    total_weight: float

    def __post_init__(self) -> None:
        super().__post_init__()
        hyperparameters.positive("total_weight", self.total_weight)

    def client(
        self, params: Arrays, state: Arrays | None = None, own: Arrays | None = None
    ) -> Client:
        initial = self.initial_state(self.parameters(params))
        return _ScaffoldClient(params, checked_state(initial, state), checked_state(initial, own))

    def update_forms(self, params: Arrays) -> dict[str, Form]:
        controls = {
            name: Form(array.shape, array.dtype)
            for name, array in self.initial_state(self.parameters(params)).items()
        }
        return super().update_forms(params) | controls

    def initial_state(self, parameters: Arrays) -> dict[str, Any]:
        return prefixed("control", zeros_like(parameters))

    def step(
        self, parameters: Arrays, mean: dict[str, Any], state: Arrays, weight: float
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        changes = {name: mean.pop(name) for name in state}
        control = moved(state, changes, weight / self.total_weight)
        return moved(parameters, mean, self.server_learning_rate), control


class _ScaffoldClient(Client):
    def __init__(self, params: Arrays, control: Arrays, own: Arrays) -> None:
        super().__init__(params)
        self._control = unprefixed("control", control)
        self._own = unprefixed("control", own)

    def correction(self, params: Arrays) -> dict[str, Any]:
        return {name: np.asarray(c - self._own[name]) for name, c in self._control.items()}

    def finish(
        self, trained: Arrays, *, steps: int | None = None, learning_rate: float | None = None
    ) -> Sent:
        change = delta(trained, self.params)
        distance = _steps("SCAFFOLD", steps) * _rate("SCAFFOLD", learning_rate)
        gained = {
            name: np.asarray(-control - change[name] / distance, control.dtype)
            for name, control in self._control.items()
        }  # what is added to its own control
        own = {name: np.asarray(self._own[name] + gain) for name, gain in gained.items()}
        return Sent(change | prefixed("control", gained), prefixed("control", own))


def _steps(who: str, steps: int | None) -> int:
    if steps is None:
        raise ValueError(f"{who} needs to know how many steps were taken: give finish(steps=...).")
    hyperparameters.count("steps", steps)
    return steps


def _rate(who: str, rate: float | None) -> float:
    if rate is None:
        raise ValueError(f"{who} needs to know the step size: give finish(learning_rate=...).")
    hyperparameters.positive("learning_rate", rate)
    return rate


@dataclass(frozen=True, kw_only=True)
class FedNova(FedAvg):
    """FedNova (Wang et al. 2020, arXiv:2007.07481): each client's update per step that it took.

    Client i takes τᵢ steps from x to y, and sends dᵢ = (y - x) / aᵢ and aᵢ, where aᵢ = τᵢ for plain
    SGD; with momentum ρ, as torch's SGD has it,

        aᵢ = (τᵢ - ρ (1 - ρ^τᵢ) / (1 - ρ)) / (1 - ρ)

    With weights pᵢ = nᵢ / Σ nᵢ:

        x ← x + η (Σ pᵢ aᵢ) Σ pᵢ dᵢ

    `momentum` is ρ, `server_learning_rate` η. `finish` of the client needs `steps`, τᵢ; the update
    has them as `about:steps`. Buffers become their weighted mean. It streams: memory for one model.

    >>> import numpy as np
    >>> strategy, model = FedNova(), {"x": np.array([0.0])}
    >>> slow = strategy.client(model).finish({"x": np.array([1.0])}, steps=1).update
    >>> fast = strategy.client(model).finish({"x": np.array([3.0])}, steps=9).update
    >>> fast
    {'x': array([0.33333333]), 'about:steps': array(9.)}
    >>> aggregate(strategy, model, [("slow", slow, 1), ("fast", fast, 1)]).params
    {'x': array([3.33333333])}
    """

    momentum: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        hyperparameters.decay("momentum", self.momentum)

    def start(self, params: Arrays, state: Arrays | None = None) -> Round:
        round = MeanRound(self, params, state)
        round.filter_with(_positive_steps)
        return round

    def client(
        self, params: Arrays, state: Arrays | None = None, own: Arrays | None = None
    ) -> Client:
        return _NovaClient(params, self.parameters(params), self.momentum)

    def update_forms(self, params: Arrays) -> dict[str, Form]:
        return {**super().update_forms(params), STEPS: Form((), np.dtype(np.float64))}

    def step(
        self, parameters: Arrays, mean: dict[str, Any], state: Arrays, weight: float
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        steps = float(mean.pop(STEPS))
        return moved(parameters, mean, self.server_learning_rate * steps), {}


def _positive_steps(client: str, update: Arrays) -> Arrays:
    steps = float(update[STEPS])
    if steps <= 0:
        raise BadUpdate(client, STEPS, f"is {steps}: a client takes at least one step")
    return update


class _NovaClient(Client):
    def __init__(self, params: Arrays, parameters: Arrays, momentum: float) -> None:
        super().__init__(params)
        self._names = parameters.keys()
        self._momentum = momentum

    def finish(
        self, trained: Arrays, *, steps: int | None = None, learning_rate: float | None = None
    ) -> Sent:
        change = delta(trained, self.params)
        taken, rho = _steps("FedNova", steps), self._momentum
        effective = (taken - rho * (1 - rho**taken) / (1 - rho)) / (1 - rho)
        per_step = {name: np.asarray(change[name] / effective) for name in self._names}
        return Sent({**change, **per_step, STEPS: np.array(effective, np.float64)}, {})


@dataclass(frozen=True, kw_only=True)
class FedDyn(Averaging):
    """FedDyn, dynamic regularisation (Acar et al. 2021, arXiv:2111.04263).

    Client i keeps gᵢ, 0 at first. It minimises its loss Lᵢ(w) - ⟨gᵢ, w⟩ + α/2 ‖w - x‖², that is, it
    adds -gᵢ + α (w - x) to each gradient, and gets from x to y. Then

        gᵢ ← gᵢ - α (y - x)

    and it sends y - x. The server keeps h, 0 at first. With Σ over the clients of the round:

        h ← h - α Σ nᵢ (y - x) / N        x ← x + Σ nᵢ (y - x) / Σ nᵢ - h / α

    `alpha` is α. `total_weight` is N, the weight of *all* clients that there are, whether or not
    they take part in a round: their number where each counts 1, as in the paper. The state has
    `drift:NAME`, h, and what a client keeps `gradient:NAME`, gᵢ, for each parameter. It streams:
    memory for two models.

    >>> import numpy as np
    >>> strategy = FedDyn(alpha=0.5, total_weight=2)
    >>> model = {"x": np.array([1.0])}
    >>> sent = strategy.client(model).finish({"x": np.array([3.0])})
    >>> sent.update, sent.own
    ({'x': array([2.])}, {'gradient:x': array([-1.])})
    >>> outcome = aggregate(strategy, model, [("a", sent.update, 1)])
    >>> outcome.params, outcome.state
    ({'x': array([4.])}, {'drift:x': array([-0.5])})
    >>> strategy.client(model, own=sent.own).correction({"x": np.array([2.0])})
    {'x': array([1.5])}
    """

    alpha: float
    total_weight: float

    def __post_init__(self) -> None:
        super().__post_init__()
        hyperparameters.positive("alpha", self.alpha)
        hyperparameters.positive("total_weight", self.total_weight)

    def client(
        self, params: Arrays, state: Arrays | None = None, own: Arrays | None = None
    ) -> Client:
        parameters = self.parameters(params)
        initial = prefixed("gradient", zeros_like(parameters))
        return _DynClient(params, parameters, checked_state(initial, own), self.alpha)

    def initial_state(self, parameters: Arrays) -> dict[str, Any]:
        return prefixed("drift", zeros_like(parameters))

    def step(
        self, parameters: Arrays, mean: dict[str, Any], state: Arrays, weight: float
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        share = self.alpha * weight / self.total_weight
        drift = {
            name: np.asarray(old - share * mean[name])
            for name, old in unprefixed("drift", state).items()
        }
        for name, array in drift.items():
            mean[name] -= array / self.alpha
        return moved(parameters, mean, 1.0), prefixed("drift", drift)


class _DynClient(Client):
    def __init__(self, params: Arrays, parameters: Arrays, own: Arrays, alpha: float) -> None:
        super().__init__(params)
        self._parameters = parameters
        self._gradient = unprefixed("gradient", own)
        self._alpha = alpha

    def correction(self, params: Arrays) -> dict[str, Any]:
        pull = proximal_gradient(params, self._parameters, self._alpha)
        return {name: np.asarray(pull[name] - old) for name, old in self._gradient.items()}

    def finish(
        self, trained: Arrays, *, steps: int | None = None, learning_rate: float | None = None
    ) -> Sent:
        change = delta(trained, self.params)
        gradient = {
            name: np.asarray(old - self._alpha * change[name])
            for name, old in self._gradient.items()
        }
        return Sent(change, prefixed("gradient", gradient))
