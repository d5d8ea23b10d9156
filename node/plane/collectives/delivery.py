"""Gives outcomes to those who wait for them."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import partial
from typing import Protocol

from manta.node.plane.collectives.answers import answer
from manta.node.plane.collectives.calls import Ask, Outside, Wait
from manta.node.plane.collectives.gathering import needs_all
from manta.node.plane.collectives.meeting import Meeting
from manta.node.plane.collectives.memory import Pool
from manta.node.plane.collectives.pieces import Piece
from manta.node.plane.parcels import NoRoom
from manta.node.plane.value_room import KeptNoLonger
from manta.transports.collectives.actions import Outcome
from manta.transports.collectives.calls import Kind

log = logging.getLogger("manta.node.plane")


class Waits(Protocol):
    """Those of a desk."""

    def waiting(self, meeting: Meeting, rank: int) -> list[Wait]:
        """Of that member, for what comes of it."""

    def is_waiting(self, ask: Ask) -> bool: ...

    def is_answered(self, ask: Ask) -> None:
        """It waits no longer."""

    def fail_wait(self, ask: Ask, error: str, sentence: str) -> None: ...


class Delivery:
    def __init__(self, pool: Pool, waits: Waits, outside: Outside) -> None:
        self._pool = pool
        self._waits = waits
        self._outside = outside

    def deliver(self, meeting: Meeting, rank: int, outcome: Outcome) -> None:
        """To those that wait for it by now, or once it can be given."""
        waiting = self._waits.waiting(meeting, rank)
        if not waiting:
            return
        try:
            goes_on = meeting.arranging.begin(
                outcome.buffers, partial(self._arranged, meeting, rank, outcome)
            )
        except NoRoom as error:
            self._fail(waiting, "ResourceExhaustionError", str(error))
            return
        if not goes_on:
            self._tell(waiting, meeting, outcome)

    def pass_by(self, wait: Wait) -> None:
        """It need not wait, and gets nothing."""
        self._waits.is_answered(wait.ask)
        wait.ask.reply(*answer(wait.body.n, [], {}, "", self._fd_of))

    def _arranged(
        self, meeting: Meeting, rank: int, outcome: Outcome, error: Exception | None
    ) -> None:
        waiting = self._waits.waiting(meeting, rank)
        if error is None:
            self._tell(waiting, meeting, outcome)
        else:
            sentence = f"What came of it could not be brought together: {error}"
            self._fail(waiting, "RequestFailed", sentence)

    def _tell(self, waiting: Iterable[Wait], meeting: Meeting, outcome: Outcome) -> None:
        error, sentence, warning = "", "", ""
        if meeting.kernel is not None and outcome.notes:
            try:
                concluded, warning = meeting.kernel.conclude(outcome.notes)
            except ValueError as broken:
                concluded = None
                error, sentence = "CollectiveError", str(broken)
            if concluded is not None:
                error, sentence = type(concluded).__name__, str(concluded)
        for wait in waiting:
            if outcome.lost and not wait.passes and needs_all(wait.body):
                named = meeting.placement.named(sorted(outcome.lost), outcome.lost)
                self._fail([wait], "PeerLost", f"gather waits for {named} in vain.")
            elif error:
                self._fail([wait], error, sentence)
            else:
                self._answer(wait, meeting, outcome, warning)

    def _answer(self, wait: Wait, meeting: Meeting, outcome: Outcome, warning: str) -> None:
        ask, is_gathered = wait.ask, wait.body.kind in (Kind.ALL_GATHER, Kind.GATHER)
        try:
            values = [
                (buffer.at if is_gathered else wait.rank, meeting.piece(buffer))
                for buffer in outcome.buffers
            ]
            told, fds = answer(wait.body.n, values, outcome.lost, warning, self._fd_of)
        except KeptNoLonger as error:
            self._fail([wait], "PeerLost", str(error))
            return
        except Exception as error:  # whatever it is, nobody is to wait for ever
            log.exception("The outcome of %s could not be told.", wait.name)
            self._fail([wait], "RequestFailed", f"What came of it can't be given: {error}")
            return
        for lent in {piece.block for _, piece in values if piece.block is not None}:
            self._pool.lend(lent, ask.at)
        self._waits.is_answered(ask)
        ask.reply(told, fds)

    def _fd_of(self, piece: Piece) -> int:
        """Raises KeptNoLonger."""
        if piece.block is not None:
            return piece.block.fd
        assert piece.parcel is not None
        fd = self._outside.own(piece.parcel.id)
        if fd is None:
            raise KeptNoLonger("What came of a collective", "this node")
        return fd

    def _fail(self, waiting: Iterable[Wait], error: str, sentence: str) -> None:
        for wait in waiting:
            if self._waits.is_waiting(wait.ask):
                self._waits.fail_wait(wait.ask, error, sentence)
