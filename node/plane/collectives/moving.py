"""The transfers of a swarm's meetings, over the bulk of its plane."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from manta.node.plane.collectives import transfers
from manta.node.plane.collectives.calls import Mover, Outside
from manta.node.plane.collectives.kept import Calls
from manta.node.plane.collectives.meeting import Meeting
from manta.node.plane.collectives.pieces import Piece
from manta.transports.collectives.plans import Transfer


class Moving:
    """Implements `meeting.Moving`. `then` is called after anything has happened to a meeting."""

    def __init__(
        self,
        swarm_id: str,
        epoch: str,
        calls: Calls,
        outside: Outside,
        then: Callable[[Meeting], None],
    ) -> None:
        self._swarm_id = swarm_id
        self._epoch = epoch
        self._calls = calls
        self._outside = outside
        self._then = then
        self._begun: dict[tuple[Meeting, str], tuple[Mover, bytes]] = {}
        """What has not ended: it can be given up also where the peer is known no longer."""

    def expect(
        self, meeting: Meeting, transfer: Transfer, memory: memoryview, *, adopts: bool
    ) -> None:
        mover, id_ = self._begin(meeting, transfer)
        progress = partial(self._received, meeting, transfer.key)
        done = partial(self._moved, meeting, transfer.key)
        adopted = partial(meeting.adopted, transfer.key) if adopts else None
        mover.expect(id_, memory, progress, done, adopted)

    def send(self, meeting: Meeting, transfer: Transfer, piece: Piece) -> None:
        mover, id_ = self._begin(meeting, transfer)
        memfd = -1
        if piece.parcel is not None:
            memfd = self._outside.memfd(piece.parcel.id)
        elif piece.block is not None and not piece.block.is_file:
            memfd = piece.block.fd
        done = partial(self._moved, meeting, transfer.key)
        mover.send(id_, piece.view, done, memfd, piece.offset)

    def ready(self, meeting: Meeting, transfer: Transfer, upto: int) -> None:
        if (begun := self._begun.get((meeting, transfer.key))) is not None:
            mover, id_ = begun
            mover.ready(id_, upto)

    def cancel(self, meeting: Meeting, transfer: Transfer, *, sends: bool) -> None:
        if (begun := self._begun.get((meeting, transfer.key))) is not None:
            mover, id_ = begun
            (mover.cancel if sends else mover.refuse)(id_)

    def _begin(self, meeting: Meeting, transfer: Transfer) -> tuple[Mover, bytes]:
        call = self._calls.of(meeting)
        assert call is not None, "a meeting that is kept no longer moves nothing"
        where = self._swarm_id, self._epoch, call.name, call.places
        id_ = transfers.transfer_id(*where, transfer.key)
        begun = self._outside.move(self._swarm_id, call.nodes[transfer.peer]), id_
        self._begun[meeting, transfer.key] = begun
        return begun

    def _received(self, meeting: Meeting, key: str, upto: int) -> None:
        meeting.received(key, upto)
        self._then(meeting)

    def _moved(self, meeting: Meeting, key: str, why: str | None) -> None:
        self._begun.pop((meeting, key), None)
        meeting.has_ended(key, why)
        self._then(meeting)
