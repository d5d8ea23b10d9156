"""Who is whose neighbor, by rank: the topologies of swarms' networks and of meshes. Pure.

| topology | neighbors |
|---|---|
| `full` | all others |
| `ring` | the next and the one before; the last is before the first |
| `star` | the first has all others, they have the first |
| `torus` | those above, below, left and right in a grid whose opposite sides touch |
| `random-regular` | as many for each, drawn at random, so that all are connected |
| pairs of ranks | those that a pair joins |

`random-regular:DEGREE:SEED` says how many neighbors each has, and by which seed they are drawn;
without them these are 4 and 0. Members come and go, so every topology fits every size:

* A torus is the squarest grid with exactly as many places, `grid`. Where the size is prime that is
  a single row, which is a ring.
* In a random regular graph, those that are too few for the degree are all neighbors. Where size
  and degree are both odd, one member has a neighbor fewer, since links have two ends each.
* Pairs with ranks that are not there join nobody.

Whoever knows size and topology comes to the same neighbors.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, count, pairwise
from math import isqrt

from manta.roster.chance import chance

NAMES = ("full", "ring", "star", "torus")
"""Those in which a member finds its neighbors without drawing the whole: swarms take these."""
DEGREE = 4
"""Neighbors in a random regular graph, where it is not said how many."""
LEAST_DEGREE, MOST_DEGREE = 2, 32
"""With one neighbor each, more than two members are not connected."""
_REMEDY = (
    'give "full", "ring", "star", "torus", "random-regular", "random-regular:4:7" (of degree 4, by '
    f"the seed 7; degrees go from {LEAST_DEGREE} to {MOST_DEGREE}), or pairs of ranks"
)
_RANDOM = re.compile(r"random-regular(?::([0-9]{1,3})(?::([0-9]{1,18}))?)?")

Link = tuple[int, int]
"""Two ranks, the lower first."""


class InvalidTopology(ValueError):
    """What was given is no topology; the message names it and says what is one."""


@dataclass(frozen=True)
class Topology:
    """One of `NAMES`, "random-regular" or "edges"."""

    name: str
    degree: int = 0
    seed: int = 0
    """`degree` and `seed` of a random regular graph."""
    edges: frozenset[Link] = frozenset()

    @classmethod
    def of(cls, given: object) -> Topology:
        """Reads the text of a topology, or pairs of ranks. Raises InvalidTopology."""
        if not isinstance(given, str):
            return cls("edges", edges=_edges(given))
        if given in NAMES:
            return cls(given)
        match = _RANDOM.fullmatch(given)
        degree = int(match[1] or DEGREE) if match else 0
        if match is None or not LEAST_DEGREE <= degree <= MOST_DEGREE:
            raise InvalidTopology(f"The topology is {_shown(given)}: {_REMEDY}.")
        return cls("random-regular", degree, int(match[2] or 0))

    def __str__(self) -> str:
        if self.name == "random-regular":
            return f"random-regular:{self.degree}:{self.seed}"
        return self.name

    @property
    def form(self) -> str | list[Link]:
        """What `of` makes it of."""
        return str(self) if self.name != "edges" else sorted(self.edges)

    def neighbors(self, rank: int, size: int) -> tuple[int, ...]:
        """Returns the ranks of the neighbors that this one of `size` members has, ascending."""
        if not 0 <= rank < size:
            raise ValueError(f"There is no rank {rank} among {size} members.")
        found: Iterable[int]
        if self.name == "full":
            return (*range(rank), *range(rank + 1, size))
        if self.name == "ring":
            found = ((rank - 1) % size, (rank + 1) % size)
        elif self.name == "star":
            found = range(1, size) if rank == 0 else (0,)
        elif self.name == "torus":
            found = _beside(rank, *grid(size))
        elif self.name == "random-regular":
            return random_regular(size, self.degree, self.seed)[rank]
        else:
            found = (b if a == rank else a for a, b in self.edges if rank in (a, b) and b < size)
        return tuple(sorted({*found} - {rank}))

    def links(self, size: int) -> list[Link]:
        """Returns all links among `size` members, ascending."""
        return [
            (rank, other)
            for rank in range(size)
            for other in self.neighbors(rank, size)
            if rank < other
        ]

    def is_connected(self, size: int) -> bool:
        """Whether a path leads from each member to each other. Only pairs may fail to."""
        return self.name != "edges" or _is_connected(_adjacent(size, self.edges))


def grid(size: int) -> tuple[int, int]:
    """Returns rows and columns of the torus with as many places: rows are the fewer."""
    rows = next((rows for rows in range(isqrt(size), 1, -1) if size % rows == 0), 1)
    return rows, size // rows


def _beside(rank: int, rows: int, columns: int) -> Iterable[int]:
    row, column = divmod(rank, columns)
    for step in (-1, 1):
        yield (row + step) % rows * columns + column
        yield row * columns + (column + step) % columns


@lru_cache(maxsize=16)
def random_regular(size: int, degree: int, seed: int) -> tuple[tuple[int, ...], ...]:
    """Returns by rank the neighbors in a random connected graph in which each has `degree`.

    Ends of links are joined in random pairs. Those that would join a member to itself, or to a
    neighbor, are shuffled again (Steger and Wormald 1999; almost uniform: Kim and Vu 2003). What
    comes to a dead end, or falls apart, is drawn anew. Of graphs with most of all links, those
    that are missing are drawn. Those of degree 2 are seldom connected: then they are rings, and
    one is drawn.
    """
    if size <= degree + 1:
        return tuple((*range(rank), *range(rank + 1, size)) for rank in range(size))
    if degree == 2:
        order = sorted(range(size), key=lambda rank: chance("ring", seed, rank))
        return _adjacent(size, {(a, b) for a, b in pairwise([*order, order[0]])})
    is_dense = 2 * degree >= size
    degrees = [size - 1 - degree if is_dense else degree] * size
    if size * degree % 2:
        degrees[int(chance("fewer", seed) * size)] += 1 if is_dense else -1
    for attempt in count():
        links = _paired(degrees, f"{seed} {attempt}")
        if links is not None:
            if is_dense:
                links = {*combinations(range(size), 2)} - links
            if _is_connected(found := _adjacent(size, links)):
                return found
    raise AssertionError("count() ends")


def _paired(degrees: Sequence[int], seed: str) -> set[Link] | None:
    links: set[Link] = set()
    ends = [rank for rank, degree in enumerate(degrees) for _ in range(degree)]
    for shuffle in count():
        places = sorted(range(len(ends)), key=lambda place: chance(seed, shuffle, place))
        again = []
        for one, other in zip(places[::2], places[1::2], strict=True):
            a, b = sorted((ends[one], ends[other]))
            if a == b or (a, b) in links:
                again += [a, b]
            else:
                links.add((a, b))
        if not again:
            return links
        if all(link in links for link in combinations(sorted({*again}), 2)):
            return None
        ends = again
    raise AssertionError("count() ends")


def _adjacent(size: int, links: Iterable[Link]) -> tuple[tuple[int, ...], ...]:
    found: list[set[int]] = [set() for _ in range(size)]
    for one, other in links:
        if max(one, other) < size:
            found[one].add(other)
            found[other].add(one)
    return tuple(tuple(sorted(others)) for others in found)


def _is_connected(adjacent: tuple[tuple[int, ...], ...]) -> bool:
    todo = [*range(min(1, len(adjacent)))]
    reached = {*todo}
    while todo:
        new = {*adjacent[todo.pop()]} - reached
        reached |= new
        todo += new
    return len(reached) == len(adjacent)


def _edges(given: object) -> frozenset[Link]:
    if not isinstance(given, Iterable) or isinstance(given, bytes):
        raise InvalidTopology(f"The topology is {_shown(given)}: {_REMEDY}.")
    found: set[Link] = set()
    for pair in given:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise InvalidTopology(f"{_shown(pair)} is no pair of ranks: give (0, 1), for example.")
        for rank in pair:
            if not isinstance(rank, int) or isinstance(rank, bool) or rank < 0:
                raise InvalidTopology(
                    f"{_shown(rank)} in the pair {_shown(pair)} is no rank: count from 0."
                )
        one, other = sorted(pair)
        if one == other:
            raise InvalidTopology(f"The pair {_shown(pair)} joins a rank to itself: name two.")
        found.add((one, other))
    if not found:
        raise InvalidTopology("The topology has no pairs: name one, or two ranks that are joined.")
    return frozenset(found)


def _shown(given: object) -> str:
    text = repr(given)
    return text if len(text) <= 60 else f"{text[:57]}..."
