"""Gossip averaging: each peer knows a number, and all come to know the mean of all numbers.

In each round a peer hears the values of its neighbors and moves towards them, with the weights of
Metropolis and Hastings (Xiao, Boyd and Lall 2005): the mean of all stays what it is, and nobody
needs to know more than its neighbors and how many neighbors those have. How fast the values come
together depends on the topology alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt

from manta.roster.topologies import Topology

Values = Mapping[int, float]
"""By rank."""


def averaged(mine: float, degree: int, heard: Mapping[int, tuple[float, int]]) -> float:
    """Returns what a peer knows after a round.

    `heard` has the value and the number of neighbors of each neighbor that was heard, by rank.
    """
    return mine + sum(
        (value - mine) / (1 + max(degree, theirs)) for value, theirs in heard.values()
    )


def round_of(topology: Topology, values: Values) -> dict[int, float]:
    """Returns what all know after a round in which nobody fails."""
    size = len(values)
    beside = [topology.neighbors(rank, size) for rank in range(size)]
    return {
        rank: averaged(
            values[rank],
            len(beside[rank]),
            {other: (values[other], len(beside[other])) for other in beside[rank]},
        )
        for rank in range(size)
    }


def error(values: Values, mean: float) -> float:
    """Returns how far the values are from the mean: the root of their mean squared distance."""
    return sqrt(sum((value - mean) ** 2 for value in values.values()) / len(values))


def errors(topology: Topology, values: Values, rounds: int) -> list[float]:
    """Returns the error before the first round and after each."""
    mean = sum(values.values()) / len(values)
    found = [error(values, mean)]
    for _ in range(rounds):
        values = round_of(topology, values)
        found.append(error(values, mean))
    return found
