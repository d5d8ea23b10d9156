"""Rounds of sums: what several nodes add up makes the model that a server makes of updates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from manta.light.federated import (
    SCAFFOLD,
    Clipped,
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedBN,
    FedDyn,
    FedNova,
    FedProx,
    FedYogi,
    Median,
    Strategy,
)
from manta.light.federated.averaging import MeanRound
from manta.light.federated.errors import BadUpdate, NoUpdates
from manta.light.federated.tasks import mean_round

MODEL = {
    "w": np.array([1.0, 2.0, 3.0], np.float32),
    "half": np.array(1.0, np.float16),
    "batches": np.array(7),
}
STRATEGIES = [
    FedAvg(server_learning_rate=0.5),
    FedAvgM(),
    FedProx(proximal_mu=0.5),
    FedAdagrad(),
    FedAdam(buffers=["half"]),
    FedYogi(),
    SCAFFOLD(total_weight=6),
    FedNova(momentum=0.5),
    FedDyn(alpha=0.1, total_weight=6),
    FedBN(FedAvg(), personal=["half"]),
    Clipped(FedAvg(), max_norm=1.0),
]


def updates(strategy: Strategy, model: Any, state: Any) -> list[tuple[str, Any, int]]:
    found = []
    for rank in range(3):
        part = strategy.client(model, state)
        trained = {
            name: array if array.dtype.kind == "i" else (array + array.dtype.type(rank - 0.5))
            for name, array in part.params.items()
        }
        trained = {name: np.asarray(array) for name, array in trained.items()}
        sent = part.finish(trained, steps=rank + 1, learning_rate=0.1)
        found.append((f"{rank}", sent.update, rank + 1))
    return found


def added(one: Any, other: Any) -> Any:
    if isinstance(one, dict):
        return {name: added(one[name], other[name]) for name in one}
    return one + other


def summed(rounds: list[MeanRound]) -> Any:
    total, *others = (each.sums() for each in rounds)
    for each in others:
        total = added(total, each)
    return total


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda one: type(one).__name__)
def test_a_sum_of_nodes_makes_the_model_that_their_updates_make(strategy: Strategy) -> None:
    model: Any = MODEL
    other: Any = MODEL
    state: Any = None
    its: Any = None
    for _ in range(2):
        round = strategy.start(model, state)
        rounds = []
        for client, update, weight in updates(strategy, model, state):
            round.add(client, update, weight)
            rounds.append(mean_round(strategy, other, its))
            rounds[-1].add(client, update, weight)
        model, state, *_ = round.finish()
        last = mean_round(strategy, other, its)
        last.add_sums(summed(rounds))
        other, its, clients, _ = last.finish()
        assert clients == ("a sum of 3",)
    for mine, theirs in ((other, model), (its, state)):
        assert mine.keys() == theirs.keys()
        for name, array in theirs.items():
            assert mine[name].dtype == array.dtype
            np.testing.assert_allclose(mine[name], array, rtol=1e-5)


def test_who_is_left_out_adds_nothing() -> None:
    strategy = FedAvg(on_bad_update="leave_out")
    model = {"w": np.array([0.0])}
    rounds = [mean_round(strategy, model, None) for _ in range(3)]
    for round, value in zip(rounds, (1.0, np.nan, 3.0), strict=True):
        round.add("c", {"w": np.array([value])}, 2.0)
    total = summed(rounds)
    assert (total["clients"], total["weight"]) == (2, 4.0)
    last = mean_round(strategy, model, None)
    last.add_sums(total)
    assert last.finish().params == {"w": np.array([2.0])}


def test_a_sum_of_nobody_is_no_model() -> None:
    strategy = FedAvg()
    last = mean_round(strategy, MODEL, None)
    last.add_sums(mean_round(strategy, MODEL, None).sums())
    with pytest.raises(NoUpdates):
        last.finish()


def test_an_update_is_checked_where_it_is_added() -> None:
    with pytest.raises(BadUpdate, match="NaN"):
        mean_round(FedAvg(), {"w": np.array([0.0])}, None).add("c", {"w": np.array([np.nan])})


def test_what_needs_each_update_has_no_sums() -> None:
    with pytest.raises(TypeError, match="Median needs each client's update"):
        mean_round(Median(), MODEL, None)
