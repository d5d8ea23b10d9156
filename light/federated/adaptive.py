"""Adaptive server optimisers: FedAdagrad, FedAdam and FedYogi (Reddi et al. 2021).

"Adaptive Federated Optimization", arXiv:2003.00295, algorithm 2. The weighted mean of the updates
is taken for the negative of a gradient.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

from manta.light.federated import hyperparameters
from manta.light.federated.arrays import BLOCK, Arrays, prefixed, unprefixed
from manta.light.federated.averaging import Averaging, constant_like
from manta.light.federated.lazy import np


@dataclass(frozen=True, kw_only=True)
class Adaptive(Averaging):
    """What the three have in common.

    With Δ, the weighted mean of the updates:

        m ← β₁ m + (1 - β₁) Δ        x ← x + η m / (√v + τ)

    and v as each says; m begins as 0 and v as τ². `server_learning_rate` is η, `beta_1` β₁, and
    `tau` τ, the degree of adaptivity: the smaller, the more. The state has `momentum:NAME`, m, and
    `variance:NAME`, v, for each parameter. Buffers become their weighted mean.
    """

    server_learning_rate: float = 0.1
    beta_1: float = 0.9
    tau: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        hyperparameters.positive("server_learning_rate", self.server_learning_rate)
        hyperparameters.decay("beta_1", self.beta_1)
        hyperparameters.positive("tau", self.tau)

    @abstractmethod
    def variance(self, old: Any, squared: Any) -> Any:
        """The next v, from the last one and Δ², element by element."""

    def initial_state(self, parameters: Arrays) -> dict[str, Any]:
        # One number each, of the form of an array: no memory of the model's size.
        first = {name: constant_like(array, 0.0) for name, array in parameters.items()}
        second = {name: constant_like(array, self.tau**2) for name, array in parameters.items()}
        return prefixed("momentum", first) | prefixed("variance", second)

    def step(
        self, parameters: Arrays, mean: dict[str, Any], state: Arrays, weight: float
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        first, second = unprefixed("momentum", state), unprefixed("variance", state)
        made = {}
        for name, array in parameters.items():
            made[name] = change = mean.pop(name)
            old, its = first[name], second[name]
            first[name] = m = np.empty_like(change)
            second[name] = v = np.empty_like(change)
            for at in (slice(at, at + BLOCK) for at in range(0, change.size, BLOCK)):
                step, into, squares = (one.reshape(-1)[at] for one in (change, m, v))
                into[:] = self.beta_1 * old.reshape(-1)[at] + (1 - self.beta_1) * step
                squares[:] = self.variance(its.reshape(-1)[at], np.square(step))
                scale = np.sqrt(squares) + self.tau
                step[:] = array.reshape(-1)[at] + self.server_learning_rate * into / scale
        return made, prefixed("momentum", first) | prefixed("variance", second)


@dataclass(frozen=True, kw_only=True)
class FedAdagrad(Adaptive):
    """FedAdagrad (Reddi et al. 2021, arXiv:2003.00295): `v ← v + Δ²`.

    `Adaptive` has the formula of the step. `beta_1` is 0 by default, as in the paper's experiments.

    >>> import numpy as np
    >>> strategy = FedAdagrad(server_learning_rate=1.0, tau=3.0)
    >>> update = {"w": np.array([4.0])}  # v = 3² + 4², so the step is 4 / (5 + 3)
    >>> aggregate(strategy, {"w": np.array([1.0])}, [("a", update, 1)]).params
    {'w': array([1.5])}
    """

    beta_1: float = 0.0

    def variance(self, old: Any, squared: Any) -> Any:
        return old + squared


@dataclass(frozen=True, kw_only=True)
class FedAdam(Adaptive):
    """FedAdam (Reddi et al. 2021, arXiv:2003.00295): `v ← β₂ v + (1 - β₂) Δ²`.

    `Adaptive` has the formula of the step. `beta_2` is β₂. As in the paper, there is no correction
    of bias.

    >>> import numpy as np
    >>> strategy = FedAdam(server_learning_rate=1.0, beta_1=0.5, beta_2=0.5, tau=2.0)
    >>> update = {"w": np.array([2.0])}  # m = 1, v = (2² + 2²) / 2, so the step is 1 / (2 + 2)
    >>> outcome = aggregate(strategy, {"w": np.array([1.0])}, [("a", update, 1)])
    >>> outcome.params, outcome.state
    ({'w': array([1.25])}, {'momentum:w': array([1.]), 'variance:w': array([4.])})
    """

    beta_2: float = 0.99

    def __post_init__(self) -> None:
        super().__post_init__()
        hyperparameters.decay("beta_2", self.beta_2)

    def variance(self, old: Any, squared: Any) -> Any:
        return self.beta_2 * old + (1 - self.beta_2) * squared


@dataclass(frozen=True, kw_only=True)
class FedYogi(FedAdam):
    """FedYogi (Reddi et al. 2021, arXiv:2003.00295): `v ← v - (1 - β₂) Δ² sign(v - Δ²)`.

    `Adaptive` has the formula of the step. `beta_2` is β₂.

    >>> import numpy as np
    >>> strategy = FedYogi(server_learning_rate=1.0, beta_1=0.0, beta_2=0.5, tau=1.0)
    >>> update = {"w": np.array([4.0])}  # v = 1 + 16 / 2 = 9, so the step is 4 / (3 + 1)
    >>> aggregate(strategy, {"w": np.array([0.0])}, [("a", update, 1)]).params
    {'w': array([1.])}
    """

    def variance(self, old: Any, squared: Any) -> Any:
        return old - (1 - self.beta_2) * squared * np.sign(old - squared)
