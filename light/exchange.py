"""What the instances of a swarm say to each other: a part of `World`.

Values are whatever results may be. The default timeout is the task's own, else 300 s. A wait
that cannot end raises and names who was waited for: PeerLost when an instance failed, finished
without the call or lost its node, NothingSent when nobody is left who could send, Timeout or
SwarmStopped.
"""

from __future__ import annotations

import math
import time
from _thread import TIMEOUT_MAX, RLock
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from manta.light import arguments
from manta.light.context import MISSING, Context, Part, current
from manta.light.errors import CollectiveError, PeerLost, RequestFailed, Timeout
from manta.light.reduction import OPS, check_forms, form_of, reduce

DEFAULT_TIMEOUT = 300.0


class Peer(str):
    """An instance of this task in this iteration: the id of its node, and what else is known.

    It can stand wherever a node's id can, and equals `world.node_id` there. `share` is its part
    of the work by measured speed. Two instances on one node are equal; `rank` tells them apart.
    """

    __slots__ = ("node_alias", "node_id", "rank", "share")

    rank: int
    node_id: str
    node_alias: str
    share: float

    def __new__(cls, rank: int, node_id: str, node_alias: str, share: float) -> Peer:
        peer = super().__new__(cls, node_id)
        peer.rank, peer.node_id, peer.node_alias, peer.share = rank, node_id, node_alias, share
        return peer

    def __getnewargs__(self) -> tuple[int, str, str, float]:  # type: ignore[override]
        return self.rank, self.node_id, self.node_alias, self.share

    def __repr__(self) -> str:
        return (
            f"Peer(rank={self.rank}, node_id={self.node_id!r}, "
            f"node_alias={self.node_alias!r}, share={self.share})"
        )


class Exchange:
    """Broadcasts, messages and collectives."""

    # One to all, one to one.

    def broadcast(self, tag: str, value: Any) -> None:
        """Gives a value to all instances of this iteration; the latest under a tag counts.

        Returns at once. In a network it reaches neighbors only.
        """
        context = current()
        request = "say_to_all" if context.brief.direct else "broadcast"
        context.call(request, tag=arguments.tag(tag), value=value)

    def get_broadcast(self, tag: str, timeout: float | None = None) -> Any:
        """Waits for a value under a tag in this iteration and returns the latest.

        Raises Timeout after `timeout` seconds, NothingSent when nobody is left who could send.
        """
        context = current()
        request = "hear_broadcast" if context.brief.direct else "get_broadcast"
        return context.call(request, tag=arguments.tag(tag), timeout=_timeout(timeout))

    def send_to_node(self, node: str, tag: str, value: Any, timeout: float | None = None) -> None:
        """Sends a value to a node, by its id or alias.

        Messages of one sender and tag arrive in order, and none is lost: what nobody received
        waits for the next iteration. Returns at once, unless so many messages to that node are
        unread that it has to wait until some were received.
        Raises UnknownPeer, and ReceiverFull, a Timeout, with which the message was not sent.
        """
        left = _timeout(timeout)
        name, tag = arguments.node(node), arguments.tag(tag)
        context = current()
        if context.brief.direct:
            to = _node_id(context, name)
            context.call("send_letter", to=to, tag=tag, value=value, timeout=left)
        else:
            context.call("send", to=name, tag=tag, value=value, timeout=left)

    def receive_from_node(self, node: str, tag: str, timeout: float | None = None) -> Any:
        """Waits for the next value that the node sent here under the tag.

        Each goes to one instance. A call that a signal cuts short takes none: the next call
        returns the same message. Raises UnknownPeer, Timeout, and PeerLost when nothing that could
        send is left on that node.
        """
        name, tag, left = arguments.node(node), arguments.tag(tag), _timeout(timeout)
        context = current()
        brief = context.brief
        received, receiving = brief.received, brief.receiving
        source = _node_id(context, name)
        request = "receive_letter" if brief.direct else "receive"
        place = source, tag
        received.setdefault(place, 0)
        until = time.monotonic() + left
        while True:
            number = received[place]
            receiving[place] = True
            value = context.call(request, source=source, tag=tag, number=number, timeout=left)
            # No call and no jump from here to `return`, so that neither a signal nor another
            # thread comes between: a message counts as received exactly when it is given out.
            if received[place] == number:
                received[place] = number + 1
                receiving[place] = False
                return value
            left = max(0.001, until - time.monotonic())  # another thread has received that one

    # Collectives: all instances of this task in this iteration make the same calls in the same
    # order, with the same options. An instance that is tried again finds what it and the others
    # contributed before.

    def all_reduce(
        self,
        value: Any,
        op: str = "sum",
        on_peer_lost: str = "raise",
        dtype: Any = None,
        timeout: float | None = None,
    ) -> Any:
        """The reduction of all instances' values, the same to the bit for each of them.

        `value`: a number, an array, a tensor, or a nest of dicts and lists of these, of one form
        everywhere. `op`: sum, mean, min, max or prod. `on_peer_lost`: "raise" raises PeerLost
        when an instance is lost before it contributed, "continue" reduces over what those
        contributed that are left.

        Arrays, tensors and numpy's scalars keep shape and dtype, or come back in `dtype` ("int64",
        numpy.float32, torch.float64, ...). Floats below 32 bits are reduced in float32. Integers
        are exact: an outcome that their dtype can't hold raises CollectiveError, and a mean is
        rounded to the nearest, half to even, with a warning. Bools have no sum (`dtype="int64"`
        counts them), and a mean where all are the same. Python's numbers stay Python's.
        Raises CollectiveError, TypeError for what cannot be reduced.
        """
        arguments.one_of("op", op, OPS)
        name = arguments.dtype(dtype)
        arguments.one_of("on_peer_lost", on_peer_lost, ("raise", "continue"))
        number = _next_number(2)
        goes_on = on_peer_lost == "continue"
        lost = on_peer_lost if goes_on else None
        kind = _call("all_reduce", op=op, dtype=name, on_peer_lost=lost)
        _contribute(number, kind, value, to=None if goes_on else 0)
        if self.rank:  # rank 0 reduces for all
            try:
                (part,) = _collect(number + 1, kind, timeout, ranks=(0,))
            except PeerLost:
                if not goes_on:
                    raise
            else:
                if isinstance(part.value, str):
                    raise CollectiveError(part.value)
                return part.value
        # A lost peer does not come back: what there is to reduce is the same for all.
        parts = _collect(number, kind, timeout, on_loss=on_peer_lost)
        try:
            outcome = reduce([(part.rank, part.value) for part in parts], op, name)
        except Exception as error:
            if not self.rank:  # tell all why there is no outcome: outcomes are never text
                _contribute(number + 1, kind, str(error) or type(error).__name__)
            raise
        if not self.rank:
            _contribute(number + 1, kind, outcome)
        return outcome

    def reduce_scatter(
        self, value: Any, op: str = "sum", timeout: float | None = None, dtype: Any = None
    ) -> Any:
        """This rank's part of the reduction, by the rule of `all_reduce`.

        `value` is a list of `size` parts, or an array that is cut into as many along its first
        axis (as numpy.array_split does). Raises CollectiveError, PeerLost, TypeError.
        """
        arguments.one_of("op", op, OPS)
        name = arguments.dtype(dtype)
        number = _next_number(1)
        kind = _call("reduce_scatter", op=op, dtype=name)
        own = _split(value, self.size)
        # All are told what does not match: arrays of different lengths would be cut at different
        # places, and of the parts in a list a rank sees its own only.
        forms = [form_of(value), *(map(form_of, own) if isinstance(value, list | tuple) else ())]
        for rank, part in enumerate(own):
            _contribute(number, kind, [forms, part], to=rank)
        parts = _collect(number, kind, timeout)
        for at in range(len(forms)):
            where = f"value[{at - 1}]" if at else "value"
            check_forms([(part.rank, part.value[0][at]) for part in parts], where)
        return reduce([(part.rank, part.value[1]) for part in parts], op, name)

    def all_gather(self, value: Any, timeout: float | None = None) -> list[Any]:
        """All instances' values, by rank. Raises PeerLost."""
        number = _next_number(1)
        _contribute(number, "all_gather", value)
        return [_given(part) for part in _collect(number, "all_gather", timeout)]

    def gather(
        self,
        value: Any,
        root: int = 0,
        quorum: float | None = None,
        deadline: float | None = None,
        timeout: float | None = None,
    ) -> list[Any] | dict[int, Any] | None:
        """At rank `root` all instances' values, elsewhere None at once.

        | call | answer at the root, of four of whom rank 2 is late |
        |---|---|
        | `gather(value)` | waits for rank 2: the list `[v0, v1, v2, v3]`, by rank |
        | `gather(value, quorum=0.75)` | the dict `{0: v0, 1: v1, 3: v3}`, by rank |
        | `gather(value, deadline=5)` | after 5 s, the same dict |

        With a quorum or a deadline it is a dict even when all have answered, so that code need not
        ask which it got; a list with gaps would not tell whose each value is. `quorum` is the
        fraction of the instances that is enough. With a `deadline`, in seconds, it waits for all
        until then, and then the quorum decides (without one, a single value is enough).
        Raises PeerLost, Timeout.
        """
        size = self.size
        root = arguments.rank("root", root, size)
        if quorum is not None:
            quorum = arguments.fraction("quorum", quorum)
        if deadline is not None:
            deadline = arguments.seconds("deadline", deadline)
        number = _next_number(1)
        kind = _call("gather", root=root)
        _contribute(number, kind, value, to=root)
        if self.rank != root:
            return None
        if quorum is None and deadline is None:
            return [_given(part) for part in _collect(number, kind, timeout)]
        enough = 1 if quorum is None else max(1, math.ceil(quorum * size - 1e-9))
        if deadline is None:
            parts = _collect(number, kind, timeout, enough=enough, on_loss="continue")
        else:
            parts = _collect(number, kind, deadline, partial=True, on_loss="continue")
        found = {part.rank: _given(part) for part in parts}
        if len(found) < enough:
            alias = current().brief.alias
            missing = ", ".join(f"{alias}.{rank}" for rank in range(size) if rank not in found)
            error = PeerLost if deadline is None else Timeout
            raise error(f"gather has {len(found)} of {size} values: {missing} did not answer.")
        return found

    def scatter(
        self, values: Sequence[Any] | None = None, root: int = 0, timeout: float | None = None
    ) -> Any:
        """Rank `root` gives a list of `size` values, and each rank gets its own.

        Other ranks leave `values` out. Raises PeerLost.
        """
        size = self.size
        root = arguments.rank("root", root, size)
        number = _next_number(1)
        kind = _call("scatter", root=root)
        if self.rank == root:
            given: Any = values
            if not hasattr(given, "__len__") or len(given) != size:
                count = len(given) if hasattr(given, "__len__") else f"{given!r:.60}"
                raise ValueError(
                    f"scatter() at its root takes {size} values, one for each rank, not {count}."
                )
            for rank, value in enumerate(given):
                _contribute(number, kind, value, to=rank)
            return given[root]
        (part,) = _collect(number, kind, timeout, ranks=(root,))
        return part.value

    def barrier(self, timeout: float | None = None) -> None:
        """Waits until all instances of this task have come here. Raises PeerLost, Timeout."""
        number = _next_number(1)
        current().call("contribute", number=number, kind="barrier", to=None)
        _collect(number, "barrier", timeout)

    @contextmanager
    def lock(self, name: str, timeout: float | None = None) -> Iterator[None]:
        """`with world.lock("name"):` runs in one instance of the swarm at a time.

        First come, first served, among the threads of one instance as well. The end of the attempt
        releases it too. Raises Timeout, naming who holds it, and RequestFailed inside the same
        lock.
        """
        name = arguments.name("lock's name", name)
        patience = _timeout(timeout)
        mine: Any = current().brief.locks.setdefault(name, RLock())
        if mine._is_owned():
            raise RequestFailed(
                f"This attempt holds the lock {name!r} already: it would wait for itself forever."
            )
        left = patience
        try:
            if not mine.acquire(blocking=False):
                began = time.monotonic()
                if not mine.acquire(timeout=min(patience, TIMEOUT_MAX)):
                    raise Timeout(
                        f"Waited {patience:g} s in vain: the lock {name!r} is held by another "
                        f"thread of {current().brief.name}."
                    )
                left = max(0.001, patience - (time.monotonic() - began))
            current().call("lock", name=name, timeout=left)
            yield
        finally:  # who gave up waiting, or was taken out by a signal, must leave the queue too
            if mine._is_owned():
                try:
                    current().call("unlock", name=name)
                finally:
                    mine.release()

    # Who is there.

    @property
    def rank(self) -> int:
        """This instance's number among the task's instances in this iteration, from 0."""
        return current().brief.index

    @property
    def size(self) -> int:
        """How many instances the task has in this iteration."""
        return current().brief.size

    @property
    def peers(self) -> list[Peer]:
        """This task's instances in this iteration, by rank, this one among them."""
        return [Peer(*peer) for peer in current().call("list_peers")]

    @property
    def share(self) -> float:
        """This instance's part of the work, by how fast each was in the iteration before.

        The shares of a task's instances add up to 1. In the first iteration they are equal.
        """
        return next(peer.share for peer in self.peers if peer.rank == self.rank)

    # What the next attempt of this instance finds.

    def checkpoint(self, state: Any) -> None:
        """Keeps a state, so that the next attempt can go on from it should this one fail."""
        current().call("checkpoint", value=state)

    def restore(self) -> Any:
        """This instance's last checkpoint in this iteration, whichever attempt made it, or None."""
        state = current().call("restore")
        return None if state is MISSING else state


def _node_id(context: Context, name: str) -> str:
    """Of the node with this id or alias. Raises UnknownPeer."""
    ids = context.brief.node_ids
    if name not in ids:
        found = context.call("find_node", name=name) if context.brief.direct else None
        # Of nodes that have no part in the swarm yet only the manager knows.
        ids[name] = found or context.call("resolve_node", name=name)
    return ids[name]


def _next_number(count: int) -> int:
    brief = current().brief
    number = brief.collectives
    brief.collectives += count
    return number


def _call(operation: str, **options: Any) -> str:
    """A collective with the options that must be the same for all instances; None is left out."""
    given = ", ".join(f"{name}={value!r}" for name, value in options.items() if value is not None)
    return f"{operation}({given})"


def _contribute(number: int, kind: str, value: Any, to: int | None = None) -> None:
    current().call("contribute", number=number, kind=kind, to=to, value=value)


def _collect(
    number: int,
    kind: str,
    timeout: float | None,
    *,
    ranks: tuple[int, ...] = (),
    enough: int | None = None,
    partial: bool = False,
    on_loss: str = "raise",
) -> list[Part]:
    parts: list[Part] = current().call(
        "collect",
        number=number,
        kind=kind,
        ranks=list(ranks),
        enough=enough,
        partial=partial,
        on_loss=on_loss,
        timeout=_timeout(timeout),
    )
    return parts


def _given(part: Part) -> Any:
    return None if part.value is MISSING else part.value


def _split(value: Any, size: int) -> Sequence[Any]:
    if isinstance(value, list | tuple):
        if len(value) != size:
            raise CollectiveError(f"reduce_scatter() takes {size} parts, not {len(value)}.")
        return value
    if hasattr(value, "shape") and len(value.shape):
        if type(value).__module__.partition(".")[0] == "torch":
            import torch

            parts: Sequence[Any] = torch.tensor_split(value, size)
            return parts
        import numpy

        return numpy.array_split(value, size)
    raise TypeError(
        f"reduce_scatter() takes a list of {size} parts or an array, not a {type(value).__name__}."
    )


def _timeout(timeout: float | None) -> float:
    if timeout is None:
        own = current().brief.timeout
        return DEFAULT_TIMEOUT if own is None else arguments.seconds("timeout", own)
    return arguments.seconds("timeout", timeout)
