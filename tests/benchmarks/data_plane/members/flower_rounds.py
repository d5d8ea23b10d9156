"""Rounds of FedAvg without training in Flower's simulation: `flower_rounds.py MEGABYTES NODES
ROUNDS`. Prints the seconds of each round but the first, as JSON."""

from __future__ import annotations

import json
import sys
import time
from itertools import pairwise
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation


def train(message: Message, context: Context) -> Message:
    (model,) = message.content["arrays"].to_numpy_ndarrays()
    records = {
        "arrays": ArrayRecord([model + 1]),  # as after training: another one
        "metrics": MetricRecord({"num-examples": 1}),
    }
    return Message(RecordDict(records), reply_to=message)


class Timed(FedAvg):
    """Notes when each round has been averaged."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.ends: list[float] = []

    def aggregate_train(self, *arguments: Any, **named: Any) -> Any:
        averaged = super().aggregate_train(*arguments, **named)
        self.ends.append(time.perf_counter())
        return averaged


def main(megabytes: float, nodes: int, rounds: int) -> None:
    model = np.random.default_rng().standard_normal(int(megabytes * 1e6 / 4), np.float32)
    strategy = Timed(fraction_evaluate=0.0, min_train_nodes=nodes, min_available_nodes=nodes)
    server, clients = ServerApp(), ClientApp()

    def serve(grid: Grid, context: Context) -> None:
        strategy.start(grid, ArrayRecord([model]), num_rounds=rounds)

    server.main()(serve)
    clients.train()(train)
    run_simulation(
        server_app=server,
        client_app=clients,
        num_supernodes=nodes,
        backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
    )
    print(json.dumps([end - begin for begin, end in pairwise(strategy.ends)]))


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
