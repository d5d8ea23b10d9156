"""Strategies and stopping rules travel as plain values, and come back as they were."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from manta.light import federated
from manta.light.federated.described import described, from_description
from manta.light.federated.errors import BadDescription
from manta.light.federated.rounds import Strategy

THINGS: list[Any] = [
    federated.FedAvg(on_bad_update="leave_out", buffers=["*.mean"]),
    federated.FedAvgM(),
    federated.FedProx(proximal_mu=0.1),
    federated.FedAdam(),
    federated.FedYogi(),
    federated.FedAdagrad(),
    federated.SCAFFOLD(total_weight=3),
    federated.FedNova(),
    federated.FedDyn(alpha=0.1, total_weight=3),
    federated.FedBuff(buffer_size=2),
    federated.Median(mixing=1),
    federated.TrimmedMean(trim=1),
    federated.GeometricMedian(),
    federated.Krum(byzantine=1),
    federated.MultiKrum(byzantine=1),
    federated.Clipped(federated.FedAvg(), 1.0),
    federated.Compressed(federated.Clipped(federated.FedAdam(), 2.0), federated.TopK(0.1)),
    federated.Compressed(federated.FedAvg(), federated.RandomK(0.1)),
    federated.Compressed(federated.FedAvg(), federated.EightBit()),
    federated.Compressed(federated.FedAvg(), federated.OneBit()),
    federated.FedBN(federated.FedAvg(), personal=["norm.*"]),
    federated.Ditto(federated.FedAvg(), proximal_lambda=0.1),
    federated.Reached("accuracy", at_least=0.9),
    federated.Plateau("loss", rounds=3, improvement=0.01, best="least"),
]


@pytest.mark.parametrize("thing", THINGS, ids=lambda thing: type(thing).__name__)
def test_what_is_described_is_made_again(thing: Any) -> None:
    again = from_description(described(thing))
    assert type(again) is type(thing)
    assert described(again) == described(thing)


def test_every_strategy_is_tried() -> None:
    public = (getattr(federated, name) for name in federated.__all__)
    kinds = {one for one in public if isinstance(one, type) and issubclass(one, Strategy)}
    assert kinds - {Strategy} == {type(one) for one in THINGS if isinstance(one, Strategy)}


@dataclass(frozen=True)
class Own(federated.FedAvg):
    """A strategy of a user's."""


@pytest.mark.parametrize("thing", [Own(), federated.Clipped(Own(), 1.0), "FedAvg", None])
def test_what_nodes_can_not_make_is_refused_with_what_to_do(thing: Any) -> None:
    with pytest.raises(TypeError, match=r"give one of its strategies, or an aggregator and a wor"):
        described(thing)


@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        {"kind": 7},
        {"kind": "FedFuture"},
        {"kind": "aggregate"},
        {"kind": "Outcome"},
        {"kind": "FedAvg", "unknown": 1},
        {"kind": "FedProx", "proximal_mu": -1},
        {"kind": "Clipped", "strategy": {"kind": "nothing"}, "max_norm": 1.0},
        {"kind": "Reached", "metric": "loss"},
    ],
)
def test_a_description_that_will_not_do_is_told(value: Any) -> None:
    with pytest.raises(BadDescription):
        from_description(value)
