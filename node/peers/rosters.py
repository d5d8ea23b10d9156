"""The rosters that the plane wants: whom the tasks of each swarm wait for. Pure.

A roster is asked for from when it is wanted until it is wanted no more; the manager then tells the
whole and what changes. What does not continue what is held is asked for again. What is held stays
when the connection is lost, since nothing better is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from manta.protocol.roster import Roster, RosterTold, WantRoster
from manta.roster import differences

MOST_PARTS = 1000
"""Of one telling: a manager that sends more is not heard."""


class RosterChanged(msgspec.Struct, frozen=True, tag=True):
    """All of it."""

    swarm_id: str
    roster: Roster


class RosterDiffers(msgspec.Struct, frozen=True, tag=True):
    """Makes it of the one that was told last: most of it stays as it is."""

    swarm_id: str
    parts: tuple[RosterTold, ...]


RosterNews = RosterChanged | RosterDiffers
RosterAction = RosterNews | WantRoster
"""A WantRoster that was answered with a failure is told by `failed`."""


@dataclass
class _Wanted:
    version: int = 0
    """Of what is held; 0 if that cannot be continued, and the whole has to come."""
    roster: Roster | None = None
    parts: list[RosterTold] = field(default_factory=list)
    asked: bool = False
    """The manager tells, or is about to; else it is asked with the next heartbeat."""
    broken: int = 0
    """The version of the last telling that did not continue what is held."""


class Rosters:
    def __init__(self) -> None:
        self._wanted: dict[str, _Wanted] = {}
        self._connected = False

    def roster(self, swarm_id: str) -> Roster | None:
        """As it was told last."""
        wanted = self._wanted.get(swarm_id)
        return None if wanted is None else wanted.roster

    def all(self) -> list[RosterChanged]:
        """What a plane that knows nothing is told."""
        return [
            RosterChanged(swarm_id, wanted.roster)
            for swarm_id, wanted in self._wanted.items()
            if wanted.roster is not None
        ]

    # What the plane says.

    def want(self, swarm_id: str) -> list[RosterAction]:
        if swarm_id in self._wanted:
            return []
        wanted = self._wanted[swarm_id] = _Wanted()
        return self._ask(swarm_id, wanted)

    def enough(self, swarm_id: str) -> list[RosterAction]:
        """It is wanted no more."""
        wanted = self._wanted.pop(swarm_id, None)
        if wanted is None or not wanted.asked:
            return []
        return [WantRoster(swarm_id, wanted=False)]

    def over(self, swarm_id: str) -> None:
        """This node has no part in the swarm any more."""
        self._wanted.pop(swarm_id, None)

    # What the manager says.

    def registered(self, *, has_rosters: bool) -> list[RosterAction]:
        """A connection began, with a manager that tells rosters or does not."""
        self._connected = has_rosters
        for wanted in self._wanted.values():
            wanted.version, wanted.parts, wanted.asked = 0, [], False
        return self.heard({})

    def disconnected(self) -> None:
        self._connected = False

    def heard(self, versions: Mapping[str, int]) -> list[RosterAction]:
        """A heartbeat was answered, with the versions that were told last: what failed, or was not
        heard, is asked for again."""
        actions: list[RosterAction] = []
        for swarm_id, wanted in self._wanted.items():
            if versions.get(swarm_id, wanted.version) != wanted.version:
                wanted.version, wanted.parts, wanted.asked = 0, [], False
            actions += self._ask(swarm_id, wanted)
        return actions

    def failed(self, swarm_id: str) -> None:
        """The manager was not reached, or refused."""
        if (wanted := self._wanted.get(swarm_id)) is not None:
            wanted.asked = False

    def told(self, part: RosterTold) -> list[RosterAction]:
        wanted = self._wanted.get(part.swarm_id)
        if wanted is None:
            return []  # it is wanted no more
        if part.part == 0:
            wanted.parts = []
        first = wanted.parts[0] if wanted.parts else part
        continues = (first.version, part.part) == (part.version, len(wanted.parts))
        if not continues or part.part >= MOST_PARTS or part.since not in (0, wanted.version):
            return self._again(part, wanted)
        wanted.parts.append(part)
        if part.more:
            return []
        parts, wanted.parts = wanted.parts, []
        try:
            roster = differences.apply(parts, wanted.roster)
        except ValueError:
            return self._again(part, wanted)
        wanted.version, wanted.roster = part.version, roster
        if parts[0].since == 0:
            return [RosterChanged(part.swarm_id, roster)]
        return [RosterDiffers(part.swarm_id, tuple(parts))]

    def _again(self, part: RosterTold, wanted: _Wanted) -> list[RosterAction]:
        """Asks once for all parts of a telling that does not continue what is held."""
        again = wanted.broken == part.version
        wanted.version, wanted.parts, wanted.asked, wanted.broken = 0, [], False, part.version
        return [] if again else self._ask(part.swarm_id, wanted)

    def _ask(self, swarm_id: str, wanted: _Wanted) -> list[RosterAction]:
        if wanted.asked or not self._connected:
            return []
        wanted.asked = True
        return [WantRoster(swarm_id)]
