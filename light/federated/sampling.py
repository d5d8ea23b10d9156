"""Which clients take part in a round, by seed.

Each client draws a number that follows from the seed, the iteration and its name alone, and those
with the greatest are chosen. So the choice is the same in whatever order the clients are given, on
every machine, and changes little when a client joins or leaves.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from manta.light import arguments
from manta.light.federated import hyperparameters
from manta.light.federated.errors import TooFewClients

try:  # as for the seeds of attempts: hashlib would load OpenSSL
    from _blake2 import blake2b
except ImportError:
    from hashlib import blake2b

_BITS = 53  # of a float's fraction


def sample_uniform(
    clients: Iterable[str], count: int, *, seed: int, iteration: int = 0
) -> list[str]:
    """`count` different clients, each with the same chance; in order of their names.

    Raises TooFewClients where there are fewer, ValueError for a count below 1.

    >>> sample_uniform(["a", "b", "c", "d"], 2, seed=1, iteration=3)
    ['a', 'b']
    """
    return _sample(dict.fromkeys(clients, 1.0), count, seed, iteration)


def sample_by_size(
    sizes: Mapping[str, float], count: int, *, seed: int, iteration: int = 0
) -> list[str]:
    """`count` different clients, drawn one after another with chances in proportion to how many
    examples each has; in order of their names.

    Clients of size 0 are never drawn. By exponential keys (Efraimidis and Spirakis 2006). Aggregate
    with equal weights: their sizes are in the chances already. Raises TooFewClients where fewer
    have a size above 0, ValueError for a negative size and a count below 1.

    >>> sample_by_size({"a": 10, "b": 1000, "c": 1000, "d": 0}, 2, seed=2)
    ['b', 'c']
    """
    for client, size in sizes.items():
        hyperparameters.not_negative(f"The size of client {client!r:.80}", size)
    return _sample(sizes, count, seed, iteration)


def sample_by_availability(
    availability: Mapping[str, float], count: int, *, seed: int, iteration: int = 0
) -> list[str]:
    """`count` different clients, drawn one after another with chances in proportion to how likely
    each is to answer; in order of their names.

    Availability is a probability from 0 to 1, such as the fraction of rounds in which a client
    answered, or a bool; clients of 0 are never drawn. Raises TooFewClients where fewer are
    available, ValueError for what is no probability and a count below 1.

    >>> sample_by_availability({"a": 1.0, "b": 0.0, "c": 0.5}, 2, seed=1)
    ['a', 'c']
    """
    for client, value in availability.items():
        if not 0 <= arguments.number(f"The availability of client {client!r:.80}", +value) <= 1:
            raise ValueError(
                f"The availability of client {client!r:.80} is {value!r:.60}: give a probability "
                "from 0 to 1."
            )
    return _sample(availability, count, seed, iteration)


def _sample(chances: Mapping[str, float], count: int, seed: int, iteration: int) -> list[str]:
    hyperparameters.count("count", count)
    arguments.whole("seed", seed)
    arguments.whole("iteration", iteration)
    keys = {
        client: (math.log(_drawn(client, seed, iteration)) / chance, client)
        for client, chance in chances.items()
        if chance > 0
    }
    if len(keys) < count:
        raise TooFewClients(f"{count} clients are to be drawn, and there are {len(keys)}.")
    return sorted(sorted(keys, key=keys.__getitem__, reverse=True)[:count])


def _drawn(client: str, seed: int, iteration: int) -> float:
    """A number above 0 and below 1."""
    text = f"{seed}/{iteration}/{client}".encode("utf-8", "surrogatepass")
    drawn = int.from_bytes(blake2b(text, digest_size=8).digest(), "big") >> (64 - _BITS)
    return float((drawn + 0.5) / 2**_BITS)
