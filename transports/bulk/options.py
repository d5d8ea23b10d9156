"""The numbers of bulk transfers."""

from __future__ import annotations

from dataclasses import dataclass, field

from manta.transports.bulk.wire import MAX_CHUNK
from manta.transports.zeromq.sockets import SocketOptions

MIB = 1 << 20


@dataclass(frozen=True)
class BulkOptions:
    """Sizes in bytes, times in seconds."""

    chunk: int = 512 * 1024
    window: int = 2 * MIB  # of one transfer; what a lost connection may cost
    peer_budget: int = 8 * MIB  # under way from or to one peer, over all its transfers
    max_served: int = 64  # transfers that one peer may have open
    max_opened: int = 16  # transfers opened at one peer, the others wait here
    ask_again: float = 5.0  # after so long a silence
    idle: float = 60.0  # after which a transfer or a connection is given up
    backoff: float = 0.1  # before the second attempt to connect, then twice as long, ...
    backoff_max: float = 2.0
    io_threads: int = 2
    sockets: SocketOptions = field(
        default_factory=lambda: SocketOptions(linger=500, frame_bytes=MAX_CHUNK, reconnect=-1)
    )

    def window_of(self, size: int) -> int:
        """What a blob of that size needs of the budget."""
        return max(1, min(self.window, size))
