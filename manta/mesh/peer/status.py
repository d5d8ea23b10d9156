"""What a peer knows of its mesh, for whoever asks. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from manta.protocol.peers import LinksTold, Peer

MOST_EVENTS = 200
"""That are remembered."""


class Happened:
    """Tells events, and remembers the last of them, by numbers from 1 on."""

    def __init__(self, tell: Callable[[dict[str, Any]], None]) -> None:
        self._tell = tell
        self._count = 0
        self.last: deque[dict[str, Any]] = deque(maxlen=MOST_EVENTS)

    def pass_on(self, event: dict[str, Any]) -> None:
        """Tells it, no more."""
        self._tell(event)

    def __call__(self, event: dict[str, Any]) -> None:
        self._count += 1
        view = event.get("view")
        told = {name: event.get(name) for name in ("event", "time", "id", "name", "why")}
        size = None if view is None else len(view["members"])
        self.last.append({"number": self._count, **told, "size": size})
        self._tell(event)


def peers(
    known: Mapping[str, Peer], links: LinksTold, state: Callable[[str], str]
) -> Iterable[dict[str, Any]]:
    """Who is there, and the links to them."""
    linked = {one.node_id: one for one in links}
    for id_, peer in sorted(known.items(), key=lambda one: (one[1].alias, one[0])):
        one: dict[str, Any] = {"id": id_, "name": peer.alias, "state": state(id_)}
        one["addresses"] = list(peer.addresses)
        if (link := linked.get(id_)) is not None:
            one["link"], one["round_trip"] = str(link.kind), link.round_trip
            one["sent"], one["received"] = link.sent, link.received
            one["error"] = link.error
        yield one


def in_vain(
    view: Sequence[str], alive: Collection[str], wanted: int, unlinked: Sequence[str]
) -> str:
    """Of a wait for so many peers. All are given by name; `unlinked` are those without a link."""
    more = ""
    if len(alive) >= wanted and unlinked:
        more = f"; {len(alive)} are there, but no link is up yet with {', '.join(unlinked[:20])}"
    elif len(alive) >= wanted:
        more = (
            f"; {len(alive)} are there, and meet when all members have made one more collective or "
            "wait as well"
        )
    return f"{len(view)} are in the view ({', '.join(view[:20])}){more}"
