"""Rounds of FedAvg without training in Flower's simulation: `flower_rounds.py MEGABYTES NODES
ROUNDS`. Prints the seconds of each round but the first, as JSON."""

from __future__ import annotations

import json
import sys
import time
from itertools import pairwise
from typing import Any

import numpy as np
from flwr.client import Client, ClientApp, NumPyClient
from flwr.common import Context, ndarrays_to_parameters
from flwr.server import ServerApp, ServerAppComponents, ServerConfig
from flwr.server.strategy import FedAvg
from flwr.simulation import run_simulation


class Untrained(NumPyClient):
    def fit(self, parameters: Any, config: Any) -> Any:
        model = parameters[0] + 1  # as after training: another one
        return [model], 1, {}


def untrained(context: Context) -> Client:
    return Untrained().to_client()


class Timed(FedAvg):
    """Notes when each round has been averaged."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.ends: list[float] = []

    def aggregate_fit(self, *arguments: Any) -> Any:
        averaged = super().aggregate_fit(*arguments)
        self.ends.append(time.perf_counter())
        return averaged


def main(megabytes: float, nodes: int, rounds: int) -> None:
    model = np.random.default_rng().standard_normal(int(megabytes * 1e6 / 4), np.float32)
    strategy = Timed(
        fraction_fit=1.0,
        fraction_evaluate=0.0,
        min_fit_clients=nodes,
        min_available_clients=nodes,
        initial_parameters=ndarrays_to_parameters([model]),
    )

    def serve(context: Context) -> ServerAppComponents:
        return ServerAppComponents(strategy=strategy, config=ServerConfig(num_rounds=rounds))

    run_simulation(
        server_app=ServerApp(server_fn=serve),
        client_app=ClientApp(client_fn=untrained),
        num_supernodes=nodes,
        backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
    )
    ends = strategy.ends
    print(json.dumps([end - begin for begin, end in pairwise(ends)]))


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
