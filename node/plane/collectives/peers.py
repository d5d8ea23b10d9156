"""What a desk says to the planes of other nodes, and hears of them."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import Protocol

from manta.node.plane.collectives import messages
from manta.node.plane.collectives.calls import Outside
from manta.node.plane.collectives.messages import (
    CallName,
    CollectiveSaid,
    Introduced,
    Places,
    Side,
    tagged,
)
from manta.node.plane.collectives.post import Change, Post
from manta.transports.collectives.messages import Message
from manta.transports.errors import RemoteProtocolError

UNHEARD = 20_000
"""Messages that a peer may leave unheard."""
EARLY = 10_000
"""Messages that wait for a roster."""


class Listener(Protocol):
    def take(self, node: str, said: CollectiveSaid) -> bool:
        """A message that is the next of its sender; False if it has to wait for the roster. Raises
        RemoteProtocolError."""

    def begun_anew(self, node: str) -> None:
        """Its process is another than before."""

    def lost_by(self, node: str) -> None:
        """It has lost this node, and gone on without."""


class Peers:
    """By the ids of their nodes."""

    def __init__(
        self, swarm_id: str, token: bytes, first: int, listener: Listener, outside: Outside
    ) -> None:
        """`token` is the desk's own; serials begin with `first`."""
        self._swarm_id = swarm_id
        self._side = Side(token, 0)
        self._first = first
        self._listener = listener
        self._outside = outside
        self._posts: dict[str, Post] = {}
        self._early: list[tuple[str, CollectiveSaid]] = []

    def say(self, node: str, name: CallName, places: Places, message: Message) -> None:
        post = self._post(node)
        said = post.say(name, places, tagged(message))
        if post.kept > UNHEARD:
            self._outside.cut(self._swarm_id, node, f"{post.kept} messages are unheard there")
        elif said is not None and self._outside.is_up(self._swarm_id, node):
            self._outside.tell(self._swarm_id, node, said)

    def link_up(self, node: str) -> None:
        self._outside.tell(self._swarm_id, node, self._post(node).link_up())

    def lost(self, node: str) -> None:
        if (post := self._posts.get(node)) is not None:
            self._posts[node] = post.after_loss()
        self._drop_early(node)

    def begin_anew(self) -> None:
        """All that was said is forgotten here: others take this for another process."""
        token = blake2b(self._side.desk, digest_size=8).digest()
        self._side, self._early = Side(token, 0), []
        for node, post in self._posts.items():
            self._posts[node] = post.begun_anew(self._side)
            if self._outside.is_up(self._swarm_id, node):
                self.link_up(node)

    def handle(self, node: str, message: messages.Message) -> None:
        """Raises RemoteProtocolError."""
        post = self._post(node)
        answers: list[messages.Message] = []
        change, next_ = Change.NONE, None
        if isinstance(message, Introduced):
            answers, change = post.introduced(message)
        elif isinstance(message, CollectiveSaid):
            is_next, answers = post.hear(message)
            next_ = message if is_next else None
        else:
            post.heard(message)
        for one in answers:
            self._outside.tell(self._swarm_id, node, one)
        if change is not Change.NONE:
            self._drop_early(node)
        if change is Change.ANEW:
            self._listener.begun_anew(node)
        elif change is Change.LOST:
            self._listener.lost_by(node)
        if next_ is not None:
            self._take(node, next_)

    def _take(self, node: str, said: CollectiveSaid) -> None:
        """Raises RemoteProtocolError."""
        if self._listener.take(node, said):
            return
        if len(self._early) >= EARLY:
            raise RemoteProtocolError(f"{len(self._early)} messages wait for a roster")
        self._early.append((node, said))

    def take_early(self, is_known: Callable[[str], bool]) -> None:
        """What waited for a roster may be heard now."""
        early, self._early = self._early, []
        for node, said in early:
            if not is_known(node):
                continue
            try:
                self._take(node, said)
            except RemoteProtocolError as error:
                self._outside.cut(self._swarm_id, node, str(error))

    def _drop_early(self, node: str) -> None:
        self._early = [one for one in self._early if one[0] != node]

    def _post(self, node: str) -> Post:
        found = self._posts.get(node)
        if found is None:
            found = self._posts[node] = Post(self._side, self._first)
        return found
