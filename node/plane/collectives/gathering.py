"""The root of a gather: for whom it waits, and until when."""

from __future__ import annotations

from typing import Literal

from manta.node.plane.collectives import arrivals
from manta.node.plane.collectives.meeting import Meeting
from manta.node.plane.requests import CallCollective
from manta.transports.collectives.calls import Kind

Quorum = int | Literal["alive"] | None
Deadline = float | Literal["auto"] | None
GRACE = 30.0
"""Seconds after its deadline in which what a gather has is brought together."""


def lasts(body: CallCollective) -> float:
    """For how long a call waits at most. Whom a gather is still to wait for is decided at its
    deadline; only then may it be late."""
    return body.deadline + GRACE if isinstance(body.deadline, float) else body.timeout


def needs_all(body: CallCollective) -> bool:
    """Whether nobody may be left out of it, though its machine goes on without those that are lost:
    who is to be waited for, its root alone knows."""
    return body.kind is Kind.GATHER and body.quorum is None and body.deadline is None


class Gathering:
    """`quorum` values are enough, at once or, with a deadline, at that; None: all are needed."""

    def __init__(self, size: int, quorum: Quorum, deadline: Deadline, now: float) -> None:
        self._size = size
        self._began = now
        self._arrivals: dict[int, float] = {}
        self._is_auto = deadline == "auto"
        self.due = now + deadline if isinstance(deadline, float) else None
        """When it goes without those that are late."""
        self._needs_all = quorum is None and deadline is None
        self.enough = size
        if isinstance(quorum, int) and deadline is None:
            self.enough = min(quorum, size)

    def look(self, meeting: Meeting, now: float) -> bool:
        """After anything has happened; False once it is over."""
        machine = meeting.machine
        if machine.call is None:
            return True
        if machine.has_failed or machine.has_delivered(machine.call.root):
            return False
        if self._needs_all:
            lost = [rank for rank in machine.away if not machine.has_value(rank)]
            if lost:
                named = meeting.placement.named(lost, machine.away)
                meeting.abort("PeerLost", f"gather waits for {named} in vain.")
            return not lost
        if self._is_auto:
            for rank in range(self._size):
                if rank not in self._arrivals and machine.has_value(rank):
                    self._arrivals[rank] = now - self._began
            after = arrivals.deadline(list(self._arrivals.values()), self._size)
            self.due = None if after is None else self._began + after
        return True
