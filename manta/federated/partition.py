"""Divides a data set among nodes, for experiments: evenly, skewed by label or amount, by whose the
records are, or by time.

Each function returns, for each node, the increasing indices of its records. Every record goes to
one node, but for those that a function says it leaves out. What is drawn follows from the seed. A
node without records, or with fewer than `minimum`, raises EmptyShard, which says what to change.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from manta.apis.errors import InvalidArgument

if TYPE_CHECKING:
    import numpy as np

    Shards = list[np.ndarray]


class EmptyShard(InvalidArgument):
    """A node would have fewer records than it must have."""


def iid(records: int, nodes: int, *, seed: int = 0, minimum: int = 1) -> Shards:
    """Shuffled and divided evenly: shards differ by at most one record.

    >>> [len(shard) for shard in iid(10, 3)]
    [4, 3, 3]
    """
    import numpy

    _check(nodes, records=records)
    order = numpy.random.default_rng(seed).permutation(records)
    return _checked(numpy.array_split(order, nodes), minimum, "fewer nodes")


def dirichlet(labels: Any, nodes: int, *, alpha: float, seed: int = 0, minimum: int = 1) -> Shards:
    """Skewed by label: of each label, the nodes' shares are drawn from a Dirichlet distribution.

    All its parameters are `alpha`: at 100 shards are nearly alike, at 0.1 a node has most of a few
    labels. `labels` has one label for each record. From Hsu et al. 2019, arXiv:1909.06335, in the
    form of Yurochkin et al. 2019, arXiv:1905.12022.

    >>> shards = dirichlet([0, 1] * 50, 2, alpha=0.5, seed=1)
    >>> sum(len(shard) for shard in shards)
    100
    """
    import numpy

    _check(nodes, alpha=alpha)
    given = _column("labels", labels)
    draw = numpy.random.default_rng(seed)
    owners = numpy.empty(len(given), int)
    for label in numpy.unique(given):
        records = draw.permutation(numpy.flatnonzero(given == label))
        shares = draw.dirichlet([alpha] * nodes)
        cuts = numpy.rint(numpy.cumsum(shares)[:-1] * len(records)).astype(int)
        for node, part in enumerate(numpy.split(records, cuts)):
            owners[part] = node
    return _checked(
        _by_owner(owners, nodes), minimum, "a larger alpha, fewer nodes or another seed"
    )


def shards(
    labels: Any, nodes: int, *, per_node: int = 2, seed: int = 0, minimum: int = 1
) -> Shards:
    """Skewed by label: sorted by label, cut into even pieces, `per_node` of which each node gets.

    So a node has about `per_node` labels. From McMahan et al. 2017, arXiv:1602.05629.

    >>> [shard.tolist() for shard in shards([0, 1, 0, 1], 2, per_node=1, seed=1)]
    [[0, 2], [1, 3]]
    """
    import numpy

    _check(nodes, per_node=per_node)
    given = _column("labels", labels)
    draw = numpy.random.default_rng(seed)
    shuffled = draw.permutation(len(given))
    in_order = shuffled[numpy.argsort(given[shuffled], kind="stable")]
    pieces = numpy.array_split(in_order, nodes * per_node)
    dealt = draw.permutation(len(pieces)).reshape(nodes, per_node)
    found = [numpy.concatenate([pieces[piece] for piece in hand]) for hand in dealt]
    return _checked(found, minimum, "fewer nodes or fewer pieces per node")


def quantity(records: int, nodes: int, *, alpha: float, seed: int = 0, minimum: int = 1) -> Shards:
    """Skewed by amount: shuffled, and the nodes' shares are drawn from a Dirichlet distribution.

    All its parameters are `alpha`: the smaller, the more they differ. From Li et al. 2022,
    arXiv:2102.02079.

    >>> sum(len(shard) for shard in quantity(100, 3, alpha=1.0))
    100
    """
    import numpy

    _check(nodes, alpha=alpha, records=records)
    draw = numpy.random.default_rng(seed)
    order = draw.permutation(records)
    cuts = numpy.rint(numpy.cumsum(draw.dirichlet([alpha] * nodes))[:-1] * records).astype(int)
    return _checked(
        numpy.split(order, cuts), minimum, "a larger alpha, fewer nodes or another seed"
    )


def by_id(ids: Any, nodes: int | None = None, *, seed: int = 0, minimum: int = 1) -> Shards:
    """As the data are: all records of one id, a hospital or a writer for example, to one node.

    `ids` has one id for each record. Without `nodes`, each id is a node, in their order; with it,
    ids are shuffled and dealt, the one with most records first, always to whoever has the fewest.

    >>> [shard.tolist() for shard in by_id(["a", "b", "a", "c"])]
    [[0, 2], [1], [3]]
    """
    import numpy

    given = _column("ids", ids)
    names, owners = numpy.unique(given, return_inverse=True)
    if nodes is None:
        return _checked(_by_owner(owners, len(names)), minimum, "without ids of few records")
    _check(nodes)
    sizes = numpy.bincount(owners)
    order = numpy.random.default_rng(seed).permutation(len(names))
    held, node_of = numpy.zeros(nodes, int), numpy.empty(len(names), int)
    for name in order[numpy.argsort(-sizes[order], kind="stable")]:
        node_of[name] = held.argmin()
        held[node_of[name]] += sizes[name]
    return _checked(_by_owner(node_of[owners], nodes), minimum, "fewer nodes than there are ids")


def by_time(times: Any, nodes: int, *, minimum: int = 1) -> Shards:
    """As time passed: the earliest records to the first node, and so on, evenly.

    `times` has one time for each record: numbers or dates. Records of one time may be on two nodes.

    >>> [shard.tolist() for shard in by_time([3.0, 1.0, 2.0, 4.0], 2)]
    [[1, 2], [0, 3]]
    """
    import numpy

    _check(nodes)
    order = numpy.argsort(_column("times", times), kind="stable")
    return _checked(numpy.array_split(order, nodes), minimum, "fewer nodes")


def _column(what: str, values: Any) -> Any:
    """Raises InvalidArgument for what does not sort, or is no column."""
    import numpy

    column = numpy.asarray(values)
    if column.ndim != 1 or not column.size or column.dtype.kind == "O":
        raise InvalidArgument(
            f"{what} has the shape {column.shape} and dtype {column.dtype.name}: give one number, "
            "text or date for each record."
        )
    if column.dtype.kind in "fmM" and (column != column).any():
        raise InvalidArgument(f"{what} has missing values, NaN or NaT: fill or leave them out.")
    return column


def _check(nodes: Any, *, alpha: Any = 1.0, per_node: Any = 1, records: Any = 1) -> None:
    for what, value in (("nodes", nodes), ("per_node", per_node), ("records", records)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InvalidArgument(f"{what} is {value!r:.60}: give a whole number, 1 or more.")
    if not isinstance(alpha, int | float) or not 0 < alpha < float("inf"):
        raise InvalidArgument(f"alpha is {alpha!r:.60}: give a number above 0.")


def _by_owner(owners: Any, nodes: int) -> Shards:
    import numpy

    return [numpy.flatnonzero(owners == node) for node in range(nodes)]


def _checked(found: Sequence[Any], minimum: int, remedy: str) -> Shards:
    """The shards, sorted. Raises EmptyShard."""
    import numpy

    short = [node for node, shard in enumerate(found) if len(shard) < minimum]
    if short:
        who = ", ".join(map(str, short[:5])) + (", ..." if len(short) > 5 else "")
        has = "no record" if minimum == 1 else f"fewer than {minimum} records"
        raise EmptyShard(
            f"{len(short)} of {len(found)} nodes have {has} (numbers {who}): try {remedy}."
        )
    return [numpy.sort(shard) for shard in found]
