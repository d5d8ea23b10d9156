"""The tasks of a federated swarm, to be derived from: what `manta.federated.FederatedSwarm` wires.

In each round, workers train the global model on their nodes' data, an aggregator makes the next
model of their updates, evaluators measure it, and a scheduler decides whether to go on. They share
the globals `model`, `strategy_state`, `history`, and `federated`, which says how.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

from manta.light.errors import RequestFailed
from manta.light.federated.arrays import Arrays
from manta.light.federated.averaging import MeanRound
from manta.light.federated.described import from_description
from manta.light.federated.errors import BadUpdate, NoUpdates, TooFewClients
from manta.light.federated.lazy import np
from manta.light.federated.metrics import check_metrics, mean_metrics
from manta.light.federated.rounds import Client, Round, Strategy
from manta.light.task import Task

SETTINGS, MODEL, STATE, HISTORY = "federated", "model", "strategy_state", "history"
"""Tags of globals."""
UPDATE, SUM, ROUND, EVALUATED = "update", "sum", "round", "evaluated"
"""Tags of results."""
NEEDS_EACH = (
    "needs each client's update, and with private=True none leaves its node: choose a strategy "
    "that needs their weighted sum alone, as FedAvg, FedAvgM, FedProx, FedAdagrad, FedAdam, "
    'FedYogi, SCAFFOLD, FedNova and FedDyn do with integers="keep"'
)
_OWN = "federated"


class Trained(NamedTuple):
    """What `Worker.train` returns."""

    params: Arrays
    """The trained model."""
    examples: float
    """How many it was trained on: how much it counts."""
    metrics: Mapping[str, float] = {}
    """Numbers by name; their means over all clients, weighted by examples, are the round's."""
    steps: int | None = None
    """How many steps of the optimiser it took, where the strategy needs it."""
    learning_rate: float | None = None
    """The size of these steps, where the strategy needs it."""


class Evaluated(NamedTuple):
    """What `Evaluator.evaluate` returns."""

    metrics: Mapping[str, float]
    """Numbers by name; their means over all nodes, weighted by examples, are the round's."""
    examples: float
    """How many they were measured on."""


class _Member(Task):
    def strategy(self) -> Strategy:
        """The strategy: that of the swarm, unless this is overridden, in all tasks alike."""
        strategy = from_description(self.world.globals[SETTINGS]["strategy"])
        if not isinstance(strategy, Strategy):
            raise TypeError(f"The swarm's strategy is {strategy!r:.80}, which is none.")
        return strategy


class Worker(_Member, ABC):
    """Trains the global model on its node. `setup()` may load what all rounds need."""

    @abstractmethod
    def train(self, client: Client) -> Trained:
        """Trains from `client.params`, which are not to be changed in place.

        `client.correction(params)` is what the strategy adds to each step's gradients.
        """

    def execute(self) -> None:
        """Runs one round's part."""
        world = self.world
        mine = [peer for peer in world.peers if peer.node_id == world.node_id]
        key = _OWN if len(mine) == 1 else f"{_OWN}.{world.rank}"
        own = self.local.get_state(key, default={})
        client = self.strategy().client(world.globals[MODEL], world.get(STATE), own)
        trained = self.train(client)
        if not isinstance(trained, Trained):
            raise TypeError(
                f"{type(self).__name__}.train() returned {type(trained).__name__}: return "
                "federated.Trained(params, examples)."
            )
        # Arithmetic makes scalars of arrays without dimensions.
        params = {
            name: np.asarray(array) if isinstance(array, np.generic) else array
            for name, array in trained.params.items()
        }
        update, kept = client.finish(
            params, steps=trained.steps, learning_rate=trained.learning_rate
        )
        if kept:
            self.local.set_state(key, kept)
        if world.globals[SETTINGS].get("private"):
            self._add_up(update, trained)
            return
        sent = {"arrays": update, "examples": trained.examples, "metrics": dict(trained.metrics)}
        world.results.add(UPDATE, sent)

    def _add_up(self, update: Arrays, trained: Trained) -> None:
        """Adds what the round needs up with the other workers, none of whom is given an update,
        and publishes the sum where the node's owner lets it leave."""
        world = self.world
        round = mean_round(self.strategy(), world.globals[MODEL], world.get(STATE))
        client = f"{world.rank}"
        check_metrics(client, trained.metrics)
        taken = round.add(client, update, weight=trained.examples)
        for reason in round.left_out.values():
            self.logger.warning("left out of the sum: %s", reason)
        weight = float(trained.examples) if taken else 0.0
        metrics = {name: weight * float(value) for name, value in trained.metrics.items()}
        total = world.all_reduce({**round.sums(), "metrics": metrics}, private=True)
        try:
            world.results.add(SUM, total)
        except RequestFailed as error:
            self.logger.info("others may publish the sum: %s", error)


class Aggregator(_Member):
    """Makes the next global model of what the workers sent."""

    def run(self) -> None:
        """Runs one round's part. Raises BadUpdate, TooFewClients, and what the strategy says."""
        world = self.world
        if world.globals[SETTINGS].get("private"):
            round, metrics, count = self._added_up()
        else:
            round, metrics, count = self._taken()
        for client, reason in round.left_out.items():
            self.logger.warning("left out %s: %s", client, reason)
        least = world.globals[SETTINGS]["min_clients"]
        if count < least:
            raise TooFewClients(
                f"{count} clients sent updates that can be used, and min_clients is "
                f"{least}: lower it, or have more nodes take part."
            )
        outcome = round.finish()
        world.globals[MODEL], world.globals[STATE] = outcome.params, outcome.state
        world.log_metrics(metrics)
        made = {"clients": list(outcome.clients), "left_out": outcome.left_out, "metrics": metrics}
        world.results.add(ROUND, made)

    def _taken(self) -> tuple[Round, dict[str, float], int]:
        """Of the updates that workers sent: a round, their metrics, and how many can be used."""
        world = self.world
        round = self.strategy().start(world.globals[MODEL], world.get(STATE))
        measured = []
        for client, sent in world.results.select(UPDATE).items():
            if not isinstance(sent, Mapping) or not {"arrays", "examples"} <= set(sent):
                round.reject(BadUpdate(client, None, "it is not what a federated.Worker sends"))
                continue
            metrics = sent.get("metrics", {})
            try:
                check_metrics(client, metrics)
            except (TypeError, ValueError) as error:
                round.reject(BadUpdate(client, None, str(error).rstrip(".")))
                continue
            if round.add(client, sent["arrays"], weight=sent["examples"]):
                measured.append((client, metrics, sent["examples"]))
        return round, mean_metrics(measured), len(round.clients)

    def _added_up(self) -> tuple[Round, dict[str, float], int]:
        """Of the sum that workers made."""
        world = self.world
        round = mean_round(self.strategy(), world.globals[MODEL], world.get(STATE))
        found = world.results.get_results(SUM)  # the same to the bit
        if not found:
            raise NoUpdates(
                "No worker may publish the sum: have a node take part whose owner lets results "
                "leave, or ask one to allow it."
            )
        total = found[0]
        round.add_sums(total)
        summed = total["metrics"].items() if total["clients"] else ()
        metrics = {name: value / total["weight"] for name, value in summed}
        return round, metrics, total["clients"]


def mean_round(strategy: Strategy, params: Arrays, state: Arrays | None) -> MeanRound:
    """Begins a round of which sums can be taken. Raises TypeError, and what `start` does."""
    round = strategy.start(params, state)
    if not strategy.adds_up or not isinstance(round, MeanRound):
        raise TypeError(f"{type(strategy).__name__} {NEEDS_EACH}.")
    return round


class Evaluator(Task, ABC):
    """Measures the global model on its node."""

    @abstractmethod
    def evaluate(self, params: dict[str, Any]) -> Evaluated:
        """Measures a model, which is not to be changed in place."""

    def run(self) -> None:
        """Runs one round's part."""
        evaluated = self.evaluate(self.world.globals[MODEL])
        if not isinstance(evaluated, Evaluated):
            raise TypeError(
                f"{type(self).__name__}.evaluate() returned {type(evaluated).__name__}: return "
                "federated.Evaluated(metrics, examples)."
            )
        sent = {"metrics": dict(evaluated.metrics), "examples": evaluated.examples}
        self.world.results.add(EVALUATED, sent)


class Scheduler(Task):
    """Keeps the history of the rounds' metrics, and ends the swarm once its rule says so.

    Where evaluators and workers have a metric of the same name, the evaluators' counts.
    """

    def run(self) -> None:
        """Runs one round's part. Raises UnknownMetric."""
        world = self.world
        (made,) = world.results.get_results(ROUND)
        evaluated = mean_metrics(
            (node, sent["metrics"], sent["examples"])
            for node, sent in world.results.select(EVALUATED).items()
        )
        if evaluated:
            world.log_metrics(evaluated)
        history = [*world.get(HISTORY, []), {**made["metrics"], **evaluated}]
        world.globals[HISTORY] = history
        if self.is_enough(history):
            self.logger.info("enough in round %d: %s", len(history), history[-1])
            world.stop_swarm()

    def is_enough(self, history: list[dict[str, float]]) -> bool:
        """Whether the last round in `history` is to be the last one: what the swarm's rule says,
        unless this is overridden."""
        rule = self.world.globals[SETTINGS]["stop"]
        return rule is not None and bool(from_description(rule).holds(history))
