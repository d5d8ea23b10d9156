"""Federated swarms on real nodes make the models that their strategies make in one process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from manta import Module, Task, UserAPI
from manta.cli.local.cluster import CLUSTER, LocalCluster
from manta.federated import FederatedSwarm
from manta.light.federated import SCAFFOLD, FedAvg, FedNova, Plateau, Reached, TrimmedMean
from manta.testing.clusters import client, running

pytestmark = pytest.mark.timeout(180)

MODEL = {"w": np.array([0.0, 8.0])}
WORKER = '''
import numpy as np

from manta.light import federated


class Worker(federated.Worker):
    """Each node draws the model to its own rank."""

    def train(self, client):
        w = client.params["w"]
        for _ in range(4):
            gradient = w - self.world.rank
            w = w - 0.25 * (gradient + client.correction({"w": w}).get("w", 0))
        distance = float(np.abs(w - self.world.rank).max())
        return federated.Trained(
            {"w": w},
            examples=1 + self.world.rank,
            metrics={"distance": distance},
            steps=4,
            learning_rate=0.25,
        )
'''
LIAR = """
import numpy as np

from manta.light import federated


class Worker(federated.Worker):
    def train(self, client):
        if self.world.rank == 1:
            return WRONG
        return federated.Trained({"w": client.params["w"] + 1}, examples=1)
"""
NAN = 'federated.Trained({"w": np.array([np.nan, 1.0])}, examples=1)'
EVALUATOR = """
from manta.light import federated


class Evaluator(federated.Evaluator):
    def evaluate(self, params):
        return federated.Evaluated({"w": params["w"][1]}, examples=self.world.rank + 1)
"""


def worker(source: str = WORKER) -> Module:
    return Module(source, name="worker")


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with running(LocalCluster, 3) as cluster:
        yield cluster


@pytest.fixture
def api(cluster: LocalCluster) -> Iterator[UserAPI]:
    with client(cluster) as api:
        yield api


def ended(api: UserAPI, swarm: FederatedSwarm) -> tuple[Any, str]:
    deployed = api.deploy_swarm(CLUSTER, swarm)
    overview = api.wait_swarm(deployed, timeout=150)
    return overview, " ".join(error.sentence for error in api.collect_errors(deployed))


def in_one_process(strategy: Any, rounds: int) -> dict[str, Any]:
    """The same rounds, without a swarm."""
    model, state = dict(MODEL), None
    own: list[dict[str, Any]] = [{}, {}, {}]
    for _ in range(rounds):
        round = strategy.start(model, state)
        for rank in range(3):
            part = strategy.client(model, state, own[rank])
            w = part.params["w"]
            for _ in range(4):
                w = w - 0.25 * (w - rank + part.correction({"w": w}).get("w", 0))
            update, own[rank] = part.finish({"w": w}, steps=4, learning_rate=0.25)
            round.add(f"node-{rank}", update, weight=1 + rank)
        model, state = round.finish()[:2]
    return model


@pytest.mark.parametrize("strategy", [FedAvg(), SCAFFOLD(total_weight=6), TrimmedMean(trim=1)])
def test_the_model_is_that_of_the_same_rounds_in_one_process(api: UserAPI, strategy: Any) -> None:
    overview, errors = ended(api, FederatedSwarm(worker(), strategy, MODEL, rounds=3))
    assert overview.status == "COMPLETED", errors
    made = api.select_global(overview.swarm_id, "model")
    np.testing.assert_allclose(made["w"], in_one_process(strategy, 3)["w"], rtol=1e-12)


@pytest.mark.parametrize("strategy", [FedAvg(), SCAFFOLD(total_weight=6), FedNova()])
def test_a_private_swarm_makes_it_of_sums_alone(api: UserAPI, strategy: Any) -> None:
    swarm = FederatedSwarm(
        worker(), strategy, MODEL, rounds=3, private=True, min_clients=3,
        stop=Reached("distance", at_most=-1.0),
    )  # fmt: skip
    overview, errors = ended(api, swarm)
    assert overview.status == "COMPLETED", errors
    made = api.select_global(overview.swarm_id, "model")
    np.testing.assert_allclose(made["w"], in_one_process(strategy, 3)["w"], rtol=1e-9)
    history = api.select_global(overview.swarm_id, "history")
    assert [set(one) for one in history] == [{"distance"}] * 3
    assert set(api.list_result_tags(overview.swarm_id)) == {"sum", "round"}


@pytest.mark.parametrize(
    ("policy", "said"),
    [("leave_out", "2 clients sent updates that can be used"), ("refuse", "array 'w' has NaN")],
)
def test_a_private_swarm_tells_of_updates_that_will_not_do(
    api: UserAPI, policy: Any, said: str
) -> None:
    module = worker(LIAR.replace("WRONG", NAN))
    swarm = FederatedSwarm(
        module, FedAvg(on_bad_update=policy), MODEL, rounds=1, min_clients=3, private=True
    )
    overview, errors = ended(api, swarm)
    assert overview.status == "FAILED"
    assert said in errors


def test_metrics_of_all_rounds_are_kept_and_the_rule_ends_the_swarm(api: UserAPI) -> None:
    swarm = FederatedSwarm(
        worker(),
        FedAvg(),
        MODEL,
        rounds=20,
        evaluate=Module(EVALUATOR, name="evaluator"),
        stop=Reached("w", at_most=2.0),
    )
    overview, errors = ended(api, swarm)
    assert overview.status == "COMPLETED", errors
    history = api.select_global(overview.swarm_id, "history")
    assert 1 < len(history) < 20
    assert set(history[0]) == {"distance", "w"}
    assert [one["w"] <= 2.0 for one in history] == [*[False] * (len(history) - 1), True]
    told = api.get_metrics(overview.swarm_id)
    logged = [one.metrics["w"] for one in told if "w" in one.metrics]
    assert logged == pytest.approx([one["w"] for one in history])


def test_a_plateau_of_what_workers_measure_ends_it_without_evaluators(api: UserAPI) -> None:
    swarm = FederatedSwarm(
        worker(), FedAvg(), MODEL, rounds=30, stop=Plateau("distance", rounds=2, improvement=1e9)
    )
    overview, errors = ended(api, swarm)
    assert overview.status == "COMPLETED", errors
    assert len(api.select_global(overview.swarm_id, "history")) == 3


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (NAN, "array 'w' has NaN"),
        ('federated.Trained({"w": client.params["w"]}, examples=0)', "its weight is 0"),
        ('federated.Trained(client.params, 1, {"loss": "low"})', "metric 'loss' of client"),
        ('federated.Trained(client.params, 1, {"x" * 201: 1.0})', "The metric"),
    ],
)
def test_one_clients_update_that_will_not_do_is_left_out_by_policy(
    api: UserAPI, wrong: str, reason: str
) -> None:
    module = worker(LIAR.replace("WRONG", wrong))
    swarm = FederatedSwarm(
        module, FedAvg(on_bad_update="leave_out"), MODEL, rounds=1, min_clients=2
    )
    overview, errors = ended(api, swarm)
    assert overview.status == "COMPLETED", errors
    (made,) = api.select_results(overview.swarm_id, "round").values()
    assert len(made["clients"]) == 2
    assert [why.startswith(reason) for why in made["left_out"].values()] == [True]
    assert api.select_global(overview.swarm_id, "model")["w"].tolist() == [1.0, 9.0]


@pytest.mark.parametrize(
    ("wrong", "strategy", "sentence"),
    [
        (NAN, FedAvg(), "array 'w' has NaN"),
        (NAN, FedAvg(on_bad_update="leave_out"), "2 clients sent updates that can be used"),
        ('{"w": client.params["w"]}', FedAvg(), "return federated.Trained(params, examples)"),
        ("None", FedAvg(), "return federated.Trained(params, examples)"),
        ('federated.Trained({"v": client.params["w"]}, 1)', FedAvg(), "'v'"),
        ('federated.Trained({"w": np.zeros(3)}, 1)', FedAvg(), "(3,)"),
    ],
)
def test_what_goes_wrong_at_a_client_is_told_and_ends_the_swarm(
    api: UserAPI, wrong: str, strategy: Any, sentence: str
) -> None:
    module = worker(LIAR.replace("WRONG", wrong))
    overview, errors = ended(api, FederatedSwarm(module, strategy, MODEL, rounds=1, min_clients=3))
    assert overview.status == "FAILED"
    assert sentence in errors


def test_a_rule_over_a_metric_that_nobody_measures_is_told(api: UserAPI) -> None:
    swarm = FederatedSwarm(worker(), FedAvg(), MODEL, stop=Reached("accuracy", at_least=1))
    overview, errors = ended(api, swarm)
    assert overview.status == "FAILED"
    assert "looks at 'accuracy', and the metrics of this round are 'distance'" in errors


OWN = '''
from dataclasses import dataclass

from manta.light import federated


@dataclass(frozen=True)
class Halved(federated.FedAvg):
    """Goes half of the way."""

    server_learning_rate: float = 0.5


class Worker(federated.Worker):
    def strategy(self):
        return Halved()

    def train(self, client):
        return federated.Trained({"w": client.params["w"] + 1}, examples=1)


class Aggregator(federated.Aggregator):
    def strategy(self):
        return Halved()
'''


def test_a_strategy_of_the_users_own_comes_with_his_worker_and_aggregator(api: UserAPI) -> None:
    module = worker(OWN)
    swarm = FederatedSwarm(
        Task(module, class_name="Worker"),
        None,
        MODEL,
        rounds=1,
        aggregator=Task(module, class_name="Aggregator", method="any", alias="aggregator"),
    )
    overview, errors = ended(api, swarm)
    assert overview.status == "COMPLETED", errors
    assert api.select_global(overview.swarm_id, "model")["w"].tolist() == [0.5, 8.5]
