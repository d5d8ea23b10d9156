"""A peer has no room for what its members bring to a collective: the call is refused to all.

What a member brings counts before any other peer is told of it, and nobody can have an outcome
without it. So what is refused has come to nothing on all peers. Those that are told so go on: what
they gave is dropped, and nobody waits for it again. When a next attempt of a member begins the call
anew, it is to be told the same.

Yet it may have been begun anew before, by a peer that forgot what came of it and has less room now.
So a peer gives nothing and announces nobody where it refuses a call that was begun anew, or where
the call was refused before: it asks all others, as after a loss. If one has the outcome, that is
what its members get; if none has, nobody comes to have it, and the call fails. One that is lost,
and a member of which had finished, may have it, and be back: while nobody was told that the call is
refused, it fails as all calls do that need a lost peer.

Where each member gets what is its own (`gather`, `scatter`, `reduce_scatter`) nobody is asked: what
some have been given stays theirs.
"""

from __future__ import annotations

from manta.transports.collectives.actions import Action, Why
from manta.transports.collectives.calls import Call
from manta.transports.collectives.course import Course
from manta.transports.collectives.others import Others
from manta.transports.collectives.roll import Roll

NO_ROOM = "ResourceExhaustionError"
"""The error of a call that is refused."""
NOT = Why()
"""It was not refused."""


class Refusal:
    """As one peer says or knows it. `why` is a sentence; empty while there is room."""

    def __init__(
        self, roll: Roll, course: Course, others: Others, why: Why, *, is_anew: bool
    ) -> None:
        self._roll = roll
        self._course = course
        self._others = others
        self._is_anew = is_anew
        self.why, self.was_told = why

    @property
    def stands(self) -> bool:
        """Is there no room, and no outcome that is known?"""
        return bool(self.why) and not self._roll.is_known

    def seek(self, call: Call) -> list[Action] | tuple[str, str]:
        """Has others say whether they have the outcome; the error and its sentence if none has."""
        if not self.was_told and (sentence := self._others.lost_holders(call)):
            return "PeerLost", sentence
        if not (self._is_anew and self._others.may_hold(call)):
            return NO_ROOM, self.why
        return self._roll.seek(self._course.peers)
