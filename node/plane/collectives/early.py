"""What peers say of collectives before it can be heard, and the room for it.

A message waits for the roster that says where its call is carried out; the parts of a long one wait
for the last. All of it counts as small values of the node's. What there is no room for is not
heard, and its sender keeps it: see `post`.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque

from manta.node.plane.collectives.memory import Pool
from manta.node.plane.collectives.messages import CallName
from manta.node.plane.collectives.post import OVERHEAD, Heard
from manta.node.plane.parcels import NoRoom
from manta.node.plane.shares import SharedRoom

OF_A_NODE = 8 << 20
"""Bytes of what one node said in a swarm, or of one message that is longer."""
OF_ALL = 64 << 20
"""Bytes of what all have said, which swarms share, or of one message of each that is longer."""


class MessageRoom:
    """Of a plane: for all swarms together."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._taken: Counter[tuple[str, str]] = Counter()
        """Bytes by swarm and node."""
        self._all = SharedRoom(OF_ALL)

    @property
    def most(self) -> int:
        """Bytes of a message."""
        return self._pool.most_small_of_one

    def of(self, swarm_id: str, node: str) -> int:
        """Bytes of what the node said in that swarm."""
        return self._taken[swarm_id, node]

    def take(self, swarm_id: str, node: str, size: int) -> bool:
        """False if there is none."""
        mine = self._taken[swarm_id, node]
        is_first = not self._all.of(swarm_id)
        if (mine and mine + size > OF_A_NODE) or not (is_first or self._all.fits(swarm_id, size)):
            return False
        try:
            self._pool.take_small(size, swarm_id)
        except NoRoom:
            return False
        self._taken[swarm_id, node] += size
        self._all.take(swarm_id, size)
        return True

    def fits(self, swarm_id: str, node: str, size: int) -> bool:
        if not self.take(swarm_id, node, size):
            return False
        self.give(swarm_id, node, size)
        return True

    def give(self, swarm_id: str, node: str, size: int) -> None:
        if not size:
            return
        self._pool.give_small(size, swarm_id)
        self._all.give(swarm_id, size)
        self._taken[swarm_id, node] -= size
        if not self._taken[swarm_id, node]:
            del self._taken[swarm_id, node]


class Early:
    """Of a swarm: whole messages, in the order in which each node said them."""

    def __init__(self, swarm_id: str, room: MessageRoom) -> None:
        self._swarm_id = swarm_id
        self._room = room
        self._by_call: dict[CallName, dict[str, deque[Heard]]] = {}
        """And by the node that said it."""
        self._by_node: defaultdict[str, set[CallName]] = defaultdict(set)
        self._coming: dict[str, int] = {}
        """By node: the bytes of a long message that is not whole."""

    def begin(self, node: str, size: int) -> bool:
        """A long message begins to come. False if there is no room for it."""
        self.came(node)
        if not self._room.take(self._swarm_id, node, OVERHEAD + size):
            return False
        self._coming[node] = OVERHEAD + size
        return True

    def fits(self, node: str, size: int) -> bool:
        return self._room.fits(self._swarm_id, node, OVERHEAD + size)

    @property
    def longest(self) -> int:
        """Bytes of a message that there is room for, if all others are heard."""
        return self._room.most - OVERHEAD

    def came(self, node: str) -> None:
        """It needs its room no longer."""
        self._room.give(self._swarm_id, node, self._coming.pop(node, 0))

    def has(self, node: str, call: CallName) -> bool:
        return node in self._by_call.get(call, ())

    def add(self, node: str, heard: Heard) -> bool:
        """A message waits from now on, a long one in the room that it has. False if there is
        none."""
        size = _size(heard)
        if not (self._coming.pop(node, 0) or self._room.take(self._swarm_id, node, size)):
            return False
        self._by_call.setdefault(heard.call, {}).setdefault(node, deque()).append(heard)
        self._by_node[node].add(heard.call)
        return True

    def pop(self, call: CallName | None = None) -> list[tuple[str, deque[Heard]]]:
        """What waits, of one call or of all. It takes its room until it is `heard`, or is
        `put_back`."""
        names = list(self._by_call) if call is None else [call]
        found = [(name, self._by_call.pop(name, {})) for name in names]
        for name, queues in found:
            for node in queues:
                self._forget(node, name)
        return [one for _, queues in found for one in queues.items()]

    def put_back(self, node: str, queue: deque[Heard]) -> None:
        """None of it could be heard."""
        name = queue[0].call
        self._by_call.setdefault(name, {})[node] = queue
        self._by_node[node].add(name)

    def heard(self, node: str, heard: Heard) -> None:
        self._room.give(self._swarm_id, node, _size(heard))

    def drop(self, node: str) -> None:
        """Nothing that it has said counts."""
        self.came(node)
        for name in self._by_node.pop(node, ()):
            for heard in self._by_call[name].pop(node):
                self.heard(node, heard)
            if not self._by_call[name]:
                del self._by_call[name]

    def close(self) -> None:
        for node in {*self._by_node, *self._coming}:
            self.drop(node)

    def _forget(self, node: str, name: CallName) -> None:
        self._by_node[node].discard(name)
        if not self._by_node[node]:
            del self._by_node[node]


def _size(heard: Heard) -> int:
    return OVERHEAD + heard.size
