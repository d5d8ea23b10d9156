"""Who has a lock. Pure.

Theory of operation. The first member of the view that was committed last serves the locks. Each
member tells it all that it has and wants, whenever that changes and at each commit; it grants what
nobody has to who asked first, and nothing before all members of the view have told it what they
have. So a lock passes to another server with its holder, and one of a member that is lost is free.
Whoever is not heard by the server of its side of a partition is served there by another.

| a lock here | leaves when |
|---|---|
| free | it is wanted: wanted |
| wanted | it is granted in the present view: had; it is dropped: free |
| had | it is dropped: free |
"""

from __future__ import annotations

from typing import NamedTuple

from manta.mesh.said import Ballot, Granted, Holders, Locking
from manta.mesh.said import Locks as Told
from manta.mesh.views import View


class Tell(NamedTuple):
    peer: str
    message: Locking


class Got(NamedTuple):
    """The lock is had."""

    name: str


Action = Tell | Got


class Locks:
    """Of one peer, which may be the server as well."""

    def __init__(self, me: str, view: View) -> None:
        self._me = me
        self._view = view
        self._count = 0
        self._wants: dict[str, int] = {}
        self._has: dict[str, int] = {}
        self.holders: dict[str, str] = {}
        """Of locks that are wanted: who has them, as the server told last."""
        self._told: dict[str, Told] = {}
        """As the server: what each member told last, also of views that are to come."""
        self._queues: dict[str, list[tuple[str, int]]] = {}
        self._granted: dict[str, tuple[str, int]] = {}

    @property
    def _server(self) -> str:
        return self._view.members[0]

    # --- the member here ------------------------------------------------------------------------

    def want(self, name: str) -> list[Action]:
        self._count += 1
        self._wants[name] = self._count
        return self._tell()

    def drop(self, name: str) -> list[Action]:
        """It is neither wanted nor had any more."""
        had = self._has.pop(name, None) or self._wants.pop(name, None)
        self.holders.pop(name, None)
        return self._tell() if had is not None else []

    def _tell(self) -> list[Action]:
        wants, has = tuple(self._wants.items()), tuple(self._has.items())
        told = Told(self._view.ballot, has, wants)
        if self._server != self._me:
            return [Tell(self._server, told)]
        return self._take(self._me, told)

    def committed(self, view: View) -> list[Action]:
        """Another view was committed."""
        self._view = view
        self._queues.clear()
        self._granted.clear()
        self.holders.clear()
        self._told = {one: told for one, told in self._told.items() if told.view >= view.ballot}
        actions: list[Action] = []
        for peer, told in self._told.items():
            if told.view == view.ballot and peer in view.members and self._server == self._me:
                actions += self._take(peer, told)
        return [*actions, *self._tell()]

    def heard(self, peer: str, said: Locking) -> list[Action]:
        is_now = said.view == self._view.ballot
        match said:
            case Told():
                if said.view >= self._view.ballot:
                    self._told[peer] = said
                if is_now and peer in self._view.members and self._server == self._me:
                    return self._take(peer, said)
            case Granted(_, name, number) if is_now and peer == self._server:
                return self._take_grant(name, number)
            case Holders(_, of) if is_now and peer == self._server:
                self.holders = {name: id_ for name, id_ in of if name in self._wants}
        return []

    def _take_grant(self, name: str, number: int) -> list[Action]:
        if self._wants.get(name) != number:
            return self._tell()  # it was dropped meanwhile
        del self._wants[name]
        self.holders.pop(name, None)
        self._has[name] = number
        return [Got(name), *self._tell()]

    # --- the server -----------------------------------------------------------------------------

    def _take(self, peer: str, said: Told) -> list[Action]:
        self._told[peer] = said
        has, wants = dict(said.has), dict(said.wants)
        for name, (holder, number) in list(self._granted.items()):
            if holder == peer and has.get(name) != number and wants.get(name) != number:
                del self._granted[name]
        for name, number in has.items():
            self._granted[name] = peer, number
        for name, queue in list(self._queues.items()):
            queue[:] = [one for one in queue if one[0] != peer or wants.get(name) == one[1]]
        for name, number in wants.items():
            waits = self._queues.setdefault(name, [])
            if (peer, number) not in waits and self._granted.get(name) != (peer, number):
                waits.append((peer, number))
        return self._grant()

    def _grant(self) -> list[Action]:
        members, ballot = set(self._view.members), self._view.ballot
        if not members <= self._now_told(ballot):
            return []
        actions: list[Action] = []
        waiting: dict[str, list[tuple[str, str]]] = {}
        for name, queue in list(self._queues.items()):
            if queue and name not in self._granted:
                peer, number = self._granted[name] = queue.pop(0)
                if peer == self._me:
                    actions += self._take_grant(name, number)
                else:
                    actions.append(Tell(peer, Granted(ballot, name, number)))
            for peer, _ in queue:
                waiting.setdefault(peer, []).append((name, self._granted[name][0]))
            if not queue:
                self._queues.pop(name, None)
        for peer, of in waiting.items():
            if peer == self._me:
                self.holders = dict(of)
            else:
                actions.append(Tell(peer, Holders(ballot, tuple(of))))
        return actions

    def _now_told(self, ballot: Ballot) -> set[str]:
        return {one for one, told in self._told.items() if told.view == ballot}
