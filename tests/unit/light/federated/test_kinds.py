"""Parameters are optimised, buffers averaged, integers neither."""

from __future__ import annotations

import numpy as np
import pytest

from manta.light.federated import FedAdam, FedAvg, FedBN, Median, aggregate, delta

MODEL = {
    "w": np.array([1.0]),
    "bn.var": np.array([0.5]),
    "bn.batches": np.array(10),
    "mask": np.array([True, False]),
}
CLIENTS = [
    {
        "w": np.array([2.0]),
        "bn.var": np.array([0.1]),
        "bn.batches": np.array(17),
        "mask": np.array([True, True]),
    },
    {
        "w": np.array([4.0]),
        "bn.var": np.array([0.3]),
        "bn.batches": np.array(12),
        "mask": np.array([False, False]),
    },
]
UPDATES = [(f"c{n}", delta(trained, MODEL), 1) for n, trained in enumerate(CLIENTS)]


def test_integers_stay_as_they_are() -> None:
    made = aggregate(FedAvg(), MODEL, UPDATES).params
    assert made["bn.batches"] == 10
    assert made["bn.batches"].dtype == MODEL["bn.batches"].dtype
    assert made["mask"].tolist() == [True, False]
    assert list(made) == list(MODEL)


def test_or_become_the_greatest() -> None:
    made = aggregate(FedAvg(integers="max"), MODEL, UPDATES).params
    assert made["bn.batches"] == 17
    assert made["mask"].tolist() == [True, True]
    assert aggregate(Median(integers="max"), MODEL, UPDATES).params["bn.batches"] == 17


def test_a_variance_is_averaged_whatever_becomes_of_parameters() -> None:
    strategy = FedAdam(server_learning_rate=10.0, buffers=["bn.var"])
    made = aggregate(strategy, MODEL, UPDATES)
    assert made.params["bn.var"] == pytest.approx(0.2)
    assert made.params["w"] > 1.5
    assert set(made.state) == {"momentum:w", "variance:w"}
    # By the optimiser, it would have become negative.
    assert aggregate(FedAdam(server_learning_rate=10.0), MODEL, UPDATES).params["bn.var"] < 0


def test_what_is_personal_stays() -> None:
    strategy = FedBN(FedAvg(), ["bn.*"])
    part = strategy.client(MODEL)
    sent = part.finish(CLIENTS[0])
    assert set(sent.update) == {"w", "mask"}
    made = aggregate(strategy, MODEL, [("a", sent.update, 1)])
    assert list(made.params) == list(MODEL)
    assert made.params["bn.var"] == 0.5
    again = strategy.client(made.params, made.state, sent.own)
    assert again.params["bn.var"] == 0.1
    assert again.params["bn.batches"] == 17
    assert again.params["w"] == 2.0
