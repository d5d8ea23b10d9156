"""What a desk says to the planes of other nodes, and hears of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import Protocol

from manta.node.plane.collectives import messages
from manta.node.plane.collectives.calls import Outside
from manta.node.plane.collectives.early import Early, MessageRoom
from manta.node.plane.collectives.memory import Pool
from manta.node.plane.collectives.messages import (
    CallName,
    CollectiveSaid,
    Introduced,
    Places,
    Side,
)
from manta.node.plane.collectives.post import Change, Heard, Post
from manta.transports.collectives.messages import Message
from manta.transports.errors import RemoteProtocolError

FULL = 8 << 20
"""Bytes that a peer has yet to hear, from which on calls that it has a part in wait, until they are
half as many: which is more than it may hear before it says so (`post.WINDOW`)."""
UNHEARD = 256 << 20
"""Bytes that a peer may leave unheard, beside twice those that small values may have here, which
members gave: who does not listen to what it was told is gone on without."""
ROOM_AGAIN = 0.01
"""Seconds until a link that took no more is tried again."""
PATIENCE = 10.0
"""Seconds without room for a long message after which the call that it is about is refused."""
STALLED_AGAIN = 0.05
"""Seconds until what there was no room for is asked for again, if there is any."""
REPORTED = 0.5
"""Seconds after which it is said of little that it has come, so that nobody keeps it for long."""


class Listener(Protocol):
    def take(self, node: str, heard: Heard) -> bool:
        """The next message of its sender; False if it has to wait for the roster. Raises
        RemoteProtocolError."""

    def refuse(self, node: str, said: CollectiveSaid, size: int) -> bool:
        """A message of so many bytes begins, for which there can be no room; False if it has to
        wait for the roster. Raises RemoteProtocolError."""

    def begun_anew(self, node: str) -> None:
        """Its process is another than before."""

    def lost_by(self, node: str) -> None:
        """It has lost this node, and gone on without."""

    def lost(self, node: str, why: str) -> None:
        """This node goes on without it."""

    def took(self, node: str) -> None:
        """It has heard what calls waited for, or is gone on without."""


class Peers:
    """By the ids of their nodes."""

    def __init__(
        self,
        swarm_id: str,
        token: bytes,
        first: int,
        listener: Listener,
        outside: Outside,
        pool: Pool,
        room: MessageRoom,
    ) -> None:
        """`token` is the desk's own; serials begin with `first`."""
        self._swarm_id = swarm_id
        self._side = Side(token, 0)
        self._first = first
        self._listener = listener
        self._outside = outside
        self._pool = pool
        self._posts: dict[str, Post] = {}
        self._early = Early(swarm_id, room)
        self._full: set[str] = set()
        """Nodes that have yet to hear so much that calls wait."""
        self._crowded: dict[str, None] = {}
        """Nodes whose link took no more: the one that waits longest first."""
        self._stalled: dict[str, CollectiveSaid] = {}
        """By node: what there was no room for."""
        self._since: dict[str, float] = {}
        """By node: since when there is no room for a long message."""
        self._again_at: float | None = None
        self._unreported: dict[str, None] = {}
        """Nodes of which something was heard that they do not know of."""
        self._report_at = math.inf

    # --- what is said ---------------------------------------------------------------------------

    def say(self, node: str, name: CallName, places: Places, message: Message) -> None:
        post = self._post(node)
        post.say(name, places, message)
        if post.size > FULL:
            self._full.add(node)
        if post.size > UNHEARD + 2 * self._pool.most_small:
            self._give_up(node)
        else:
            self._send(node)

    @property
    def longest(self) -> int:
        """Bytes of a message that there can be room for."""
        return self._early.longest

    def full(self, nodes: Iterable[str]) -> str | None:
        """One of these nodes that has to hear more before further calls are begun."""
        return next((node for node in nodes if node in self._full), None) if self._full else None

    def _send(self, node: str) -> None:
        """What the peer listens to, as far as the link takes it."""
        post = self._posts[node]
        while self._outside.has_room(self._swarm_id, node):
            if (message := post.next()) is None:
                self._crowded.pop(node, None)
                return
            self._outside.tell(self._swarm_id, node, message)
        if self._outside.is_up(self._swarm_id, node):
            self._crowded[node] = None
            self._look_again(ROOM_AGAIN)

    def unheard(self) -> set[str]:
        """The nodes that have yet to hear something. They are to say so as soon as they have."""
        found = {node for node, post in self._posts.items() if post.kept}
        for node in found:
            if (message := self._posts[node].ask()) is not None:
                self._outside.tell(self._swarm_id, node, message)
        return found

    def _give_up(self, node: str) -> None:
        """It never listens."""
        size = self._posts[node].size
        why = f"it does not listen: {size / (1 << 20):,.0f} MiB that it was told are unheard there"
        self.lost(node)
        self._outside.cut(self._swarm_id, node, why)
        self._listener.lost(node, why)
        self._listener.took(node)

    def link_up(self, node: str) -> None:
        self._outside.tell(self._swarm_id, node, self._post(node).link_up())

    def lost(self, node: str) -> None:
        if (post := self._posts.get(node)) is not None:
            self._posts[node] = post.after_loss()
        self._forget(node)
        self._full.discard(node)

    def begin_anew(self) -> None:
        """All that was said is forgotten here: others take this for another process."""
        self._side = Side(blake2b(self._side.desk, digest_size=8).digest(), 0)
        self._full.clear()
        for node, post in self._posts.items():
            self._posts[node] = post.begun_anew(self._side)
            self._forget(node)
            if self._outside.is_up(self._swarm_id, node):
                self.link_up(node)

    # --- what is heard --------------------------------------------------------------------------

    def handle(self, node: str, message: messages.Message) -> None:
        """Raises RemoteProtocolError."""
        post, was_full = self._post(node), node in self._full
        if isinstance(message, CollectiveSaid):
            self._hear(node, post, message)
        elif isinstance(message, Introduced):
            answers, change = post.introduced(message)
            self._tell(node, answers)
            if change is not Change.NONE:
                self._forget(node)
            if change is Change.ANEW:
                self._listener.begun_anew(node)
            elif change is Change.LOST:
                self._listener.lost_by(node)
        else:
            post.heard(message)
            if message.asks and (told := post.report(soon=False)) is not None:
                self._tell(node, [told])
        self._send(node)
        if was_full and self._posts[node].size <= FULL // 2:
            self._full.discard(node)
            self._listener.took(node)

    def _tell(self, node: str, told: Iterable[messages.Message]) -> None:
        for one in told:
            self._outside.tell(self._swarm_id, node, one)

    def _hear(self, node: str, post: Post, part: CollectiveSaid) -> None:
        """Raises RemoteProtocolError."""
        listens, answers = post.listens(part)
        self._tell(node, answers)
        if not listens:
            return
        length = post.length(part)
        if length and not self._early.begin(node, length):
            in_vain = length > self._early.longest or self._is_impatient(node)
            if in_vain:
                self._since.pop(node, None)
            if not (in_vain and self._listener.refuse(node, part, length)):
                post.stall()
                self._stall(node, part)
                return
            post.pass_over()
        if (heard := post.hear(part)) is not None:
            if self._take(node, heard):
                self._early.came(node)
            elif not self._early.add(node, heard):
                post.unhear()
                self._stall(node, part)
                return
        self._since.pop(node, None)
        if (told := post.report()) is not None:
            self._tell(node, [told])
        elif post.has_untold and node not in self._unreported:
            if not self._unreported:
                self._report_at = self._outside.clock() + REPORTED
            self._unreported[node] = None

    def _report(self) -> None:
        unreported, self._unreported = self._unreported, {}
        self._report_at = math.inf
        for node in unreported:
            if (told := self._posts[node].report(soon=False)) is not None:
                self._tell(node, [told])

    def _take(self, node: str, heard: Heard) -> bool:
        """Raises RemoteProtocolError."""
        return not self._early.has(node, heard.call) and self._listener.take(node, heard)

    def take_early(self, is_known: Callable[[str], bool], call: CallName | None = None) -> None:
        """What waited for a roster may be heard now; of one call, or of all."""
        if call is None:
            for node in list(self._stalled):
                self._resume(node)
        for node, queue in self._early.pop(call):
            while queue:
                if is_known(node) and not self._hear_early(node, queue[0]):
                    self._early.put_back(node, queue)
                    break
                self._early.heard(node, queue.popleft())

    def _hear_early(self, node: str, heard: Heard) -> bool:
        try:
            return self._listener.take(node, heard)
        except RemoteProtocolError as error:
            self._outside.cut(self._swarm_id, node, str(error))
            return True

    def _forget(self, node: str) -> None:
        """What it said and was told is over."""
        self._early.drop(node)
        self._crowded.pop(node, None)
        self._stalled.pop(node, None)
        self._since.pop(node, None)
        self._unreported.pop(node, None)

    def _post(self, node: str) -> Post:
        found = self._posts.get(node)
        if found is None:
            found = self._posts[node] = Post(self._side, self._first, self._counted)
        return found

    def _counted(self, size: int) -> None:
        if size > 0:
            self._pool.count_small(size, self._swarm_id)
        else:
            self._pool.give_small(-size, self._swarm_id)

    def close(self) -> None:
        self._early.close()
        for post in self._posts.values():
            post.close()

    # --- what there is no room for --------------------------------------------------------------

    def _is_impatient(self, node: str) -> bool:
        return self._outside.clock() >= self._since.get(node, math.inf) + PATIENCE

    def _stall(self, node: str, part: CollectiveSaid) -> None:
        self._stalled[node] = part
        self._since.setdefault(node, self._outside.clock())
        self._look_again(STALLED_AGAIN)

    def _look_again(self, after: float) -> None:
        at = self._outside.clock() + after
        self._again_at = at if self._again_at is None else min(at, self._again_at)

    def _resume(self, node: str) -> None:
        del self._stalled[node]
        self._tell(node, [self._posts[node].resume()])

    @property
    def due(self) -> float | None:
        """When there is something to be done."""
        if not self._unreported:
            return self._again_at
        return self._report_at if self._again_at is None else min(self._again_at, self._report_at)

    def tick(self, now: float) -> None:
        if self._report_at <= now:
            self._report()
        if self._again_at is None or self._again_at > now:
            return
        self._again_at = None
        for node in list(self._crowded):
            self._send(node)
        for node, part in list(self._stalled.items()):
            if self._early.fits(node, len(part.part) + part.left) or self._is_impatient(node):
                self._resume(node)
        if self._stalled:
            self._look_again(STALLED_AGAIN)
