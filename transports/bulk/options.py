"""Limits and times of bulk transfers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from manta.transports.bulk.wire import MAX_CHUNK
from manta.transports.zeromq.sockets import SocketOptions

Operation = Literal["push", "fetch"]
MIB = 1 << 20


@dataclass(frozen=True)
class BulkOptions:
    """Sizes in bytes, times in seconds."""

    chunk: int = 512 * 1024
    window: int = 2 * MIB  # of one transfer; what a lost connection may cost
    peer_budget: int = 8 * MIB  # in flight from or to one peer, over all its transfers
    max_served: int = 64  # transfers that one peer may have open
    max_opened: int = 16  # transfers opened at one peer; the others wait here
    repeat_after: float = 5.0  # of silence, a request is repeated
    idle: float = 60.0  # of silence, a transfer or a connection is given up
    backoff: float = 0.1  # before the second attempt to connect, doubled each time
    backoff_max: float = 2.0
    io_threads: int = 2
    sockets: SocketOptions = field(
        default_factory=lambda: SocketOptions(linger=500, frame_bytes=MAX_CHUNK, reconnect=-1)
    )

    def window_of(self, size: int) -> int:
        """The window of a blob's transfer."""
        return max(1, min(self.window, size))
