"""What a federated swarm is made of, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from manta import Module, Task
from manta.apis.errors import InvalidArgument
from manta.apis.swarm import graph_of
from manta.federated import FederatedSwarm
from manta.light.federated import Clipped, Compressed, FedAvg, FedBuff, Krum, Median, Reached, TopK
from manta.light.federated.rounds import Strategy

MODEL = {"w": np.zeros(2)}
WORKER = Module("from manta.light import federated\n", name="worker")
EVALUATOR = Module("from manta.light import federated\n", name="evaluator")


def made(**given: Any) -> FederatedSwarm:
    return FederatedSwarm(**{"worker": WORKER, "strategy": FedAvg(), "model": MODEL, **given})


def aliases(swarm: FederatedSwarm) -> list[str]:
    return [vertex.alias for vertex in graph_of(swarm).vertices]


def test_a_round_is_a_worker_and_an_aggregator() -> None:
    swarm = made(rounds=7)
    assert (aliases(swarm), swarm.max_iteration) == (["worker", "aggregator"], 7)


def test_evaluators_and_a_scheduler_are_there_when_they_have_something_to_do() -> None:
    whole = ["worker", "aggregator", "evaluator", "scheduler"]
    assert aliases(made(evaluate=EVALUATOR)) == whole
    assert aliases(made(stop=Reached("loss", at_most=1))) == [*whole[:2], "scheduler"]


def test_a_fraction_of_the_nodes_is_drawn() -> None:
    worker = made(fraction=0.5, quorum=0.8, deadline=5.0).worker
    assert (worker.method, worker.maximum) == ("random", 0.5)
    assert (worker.quorum, worker.deadline) == (0.8, 5.0)
    assert made().worker.method == "all"


def test_a_derived_class_may_change_a_piece() -> None:
    class Own(FederatedSwarm):
        def execute(self) -> Task:
            return self.extra(super().execute())

        def __init__(self) -> None:
            super().__init__(WORKER, FedAvg(), MODEL)
            self.extra = Task(Module("def main():\n    pass\n", name="extra"), method="any")

    assert aliases(Own()) == ["worker", "aggregator", "extra"]


class Mine(Strategy):
    """A strategy of a user's."""

    def start(self, params: Any, state: Any = None) -> Any:
        raise NotImplementedError

    client = start  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"model": {}}, "give the first model as {name: array}"),
        ({"model": [1.0]}, "give the first model as {name: array}"),
        ({"model": {"w": 0.0}}, "'w' is a builtins.float, no array"),
        ({"model": {"w": np.array(["a"])}}, "dtype"),
        ({"strategy": "FedAvg"}, "give one of manta.light.federated"),
        ({"strategy": FedAvg}, "give one of manta.light.federated"),
        ({"strategy": None}, "give one of manta.light.federated"),
        ({"strategy": Mine()}, "an aggregator and a worker of your own"),
        ({"strategy": FedBuff(buffer_size=2)}, "whose rounds are asynchronous"),
        ({"strategy": Clipped(FedBuff(buffer_size=2), 1.0)}, "whose rounds are asynchronous"),
        ({"fraction": 0}, "fraction"),
        ({"fraction": 1.5}, "fraction"),
        ({"rounds": 0}, "max_iteration"),
        ({"min_clients": 0}, "min_clients"),
        ({"quorum": 2}, "quorum"),
        ({"stop": "accuracy > 0.9"}, "give federated.Reached"),
        ({"worker": Task(WORKER), "fraction": 0.5}, "give them to the Task"),
        ({"worker": None}, "module"),
        ({"private": True, "strategy": Median()}, "Median, which needs each client's update"),
        ({"private": True, "strategy": Clipped(Krum(byzantine=1), 1.0)}, "choose a strategy"),
        ({"private": True, "strategy": FedAvg(integers="max")}, 'do with integers="keep"'),
        ({"private": True, "strategy": Compressed(FedAvg(), TopK(0.1))}, "Compressed, which"),
        ({"private": True, "quorum": 0.5}, "a sum is of all workers"),
        ({"private": True, "worker": Task(WORKER, deadline=5.0)}, "a sum is of all workers"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        made(**given)
    assert sentence in str(refused.value)
