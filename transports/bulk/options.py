"""Limits and times of bulk transfers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

from manta.transports.bulk.wire import MAX_CHUNK, MAX_HEADER
from manta.transports.zeromq.connections import IntakeOptions
from manta.transports.zeromq.intake import FRAME, Bounds
from manta.transports.zeromq.sockets import SocketOptions

Operation = Literal["push", "fetch"]
MIB = 1 << 20


class Verdict(Enum):
    """Whether a peer may push or fetch a blob."""

    GRANTED = "granted"
    UNPROVEN = "unproven"  # it may push it, but has to send all of it, also if it is here
    REFUSED = "refused"  # a fetch is answered as if the blob was not here
    LATER = "later"  # not known yet: the peer asks again


@dataclass(frozen=True)
class BulkOptions:
    """Sizes in bytes, times in seconds."""

    chunk: int = 512 * 1024
    window: int = 2 * MIB  # of one transfer; what a lost connection may cost
    small_window: int = 32 * 1024  # the same, to this side, where others use up what all share
    peer_budget: int = 8 * MIB  # in flight from or to one peer, over all its transfers
    max_served: int = 64  # transfers that one peer may have open
    max_opened: int = 16  # transfers opened at one peer; the others wait here
    repeat_after: float = 5.0  # of silence, a request is repeated
    unlinked: float = math.inf  # without a connection, a peer is given up
    silence: float = math.inf  # after which a peer from whom nothing is heard is given up
    standstill: float = math.inf  # after which a peer is given up that sends no part of a blob
    idle: float = 60.0  # of silence, a transfer or a connection is given up
    first: float = 5.0  # after its handshake, in which a connection must bring a message
    message: float = 120.0  # in which a message that began must end: 1 MiB at 9 KB/s
    total: int = 256 * MIB  # that zmq may hold of all peers together: twice what is granted to them
    backoff: float = 0.1  # before the second attempt to connect, doubled each time
    backoff_max: float = 2.0
    io_threads: int = 2
    sockets: SocketOptions = field(
        default_factory=lambda: SocketOptions(linger=500, frame_bytes=MAX_CHUNK, reconnect=-1)
    )

    @property
    def bounds(self) -> Bounds:
        """What a peer may have on its way."""
        message = MAX_HEADER + MAX_CHUNK + 2 * FRAME + MIB // 4
        return Bounds(self.peer_budget + 2 * MIB, message, self.message)

    @property
    def intake(self) -> IntakeOptions:
        """What the peers of a listener may have on their way."""
        return IntakeOptions(
            self.bounds,
            handshake=self.sockets.handshake / 1000,
            hello=self.first,
            silence=2 * self.idle,  # the dialling side hangs up first: what it awaits, it repeats
            total=self.total,
        )

    def window_of(self, size: int) -> int:
        """The window of a blob's transfer."""
        return max(1, min(self.window, size))
