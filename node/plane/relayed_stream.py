"""One end of a stream that others relay: bytes between a socket of this process and the relay."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Protocol

from manta.transports.relay import wire
from manta.transports.relay.wire import (
    MAX_DATA,
    OVERHEAD,
    REPORT,
    RESERVE,
    WINDOW,
    Purpose,
    Said,
)
from manta.transports.zeromq.io_thread import IoThread

_KEPT = 1.0
"""Seconds for which a stream keeps credit that it does not use."""


class Owner(Protocol):
    def say(self, said: Said) -> None: ...

    def has_room(self, stream: RelayedStream) -> bool:
        """Whether the relay takes data now; if not, the stream's `resume` is called when it
        does."""

    def stream_ended(self, stream: RelayedStream, why: str) -> None:
        """By its socket; on the I/O thread."""


class RelayedStream:
    """`connect` makes the socket, on a thread of its own, which then writes to it: what the socket
    does not take waits there, as much as was granted. All else is for the I/O thread."""

    def __init__(
        self,
        io: IoThread,
        owner: Owner,
        number: int,
        key: str,
        purpose: Purpose,
        connect: Callable[[], socket.socket],
        waits_for: socket.socket | None = None,
    ) -> None:
        """`waits_for`: a socket that listens, at which `connect` waits."""
        self.number, self.key, self.purpose = number, key, purpose
        self._io = io
        self._owner = owner
        self._connect = connect
        self._waits_for = waits_for
        self._socket: socket.socket | None = None
        self._credit = 0
        self._used = 0  # of it, since it was last looked at
        self._is_looked_at = False
        self._taken = 0
        self._granted = 0
        self._is_read = False
        self._ended = False
        self._queue: SimpleQueue[bytes | None] = SimpleQueue()
        threading.Thread(target=self._write, name=f"manta-relayed-{key[:8]}", daemon=True).start()

    def begin(self) -> None:
        """Has the peer send."""
        self._grant(WINDOW)

    def credited(self, size: int) -> None:
        self._credit += size
        self._look_later()
        self.resume()

    def received(self, data: bytes) -> bool:
        """False if more came than was granted."""
        self._granted -= wire.cost(data)
        self._queue.put(data)
        return self._granted >= 0

    def end(self) -> None:
        """Nothing more is moved; the socket is closed."""
        if self._ended:
            return
        self._ended = True
        self._pause()
        self._queue.put(None)
        if (sock := self._socket or self._waits_for) is not None:
            with suppress(OSError):  # the other end was faster
                sock.shutdown(socket.SHUT_RDWR)

    # --- from the socket to the relay ---------------------------------------------------------

    def _joined(self, sock: socket.socket) -> None:
        self._socket = sock
        if self._ended:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self.resume()

    def resume(self) -> None:
        """Reads from the socket as far as there is credit."""
        has_any = self._credit > OVERHEAD
        if self._socket is not None and has_any and not self._is_read and not self._ended:
            self._is_read = True
            self._io.add_reader(self._socket.fileno(), self._read)

    def _pause(self) -> None:
        if self._is_read and self._socket is not None:
            self._is_read = False
            self._io.remove_reader(self._socket.fileno())

    def _read(self) -> None:
        assert self._socket is not None
        if not self._owner.has_room(self):
            self._pause()
            return
        try:
            most = min(MAX_DATA, self._credit - OVERHEAD)
            data = self._socket.recv(most, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._broken("the connection at the other end was closed")
            return
        self._credit -= wire.cost(data)
        self._used += wire.cost(data)
        if self._credit <= OVERHEAD:
            self._pause()
        self._owner.say(wire.data(self.number, data))

    def _look_later(self) -> None:
        if self._credit > RESERVE and not self._is_looked_at and not self._ended:
            self._is_looked_at, self._used = True, 0
            self._io.call_later(_KEPT, self._look)

    def _look(self) -> None:
        """Gives back what is more than it has used lately: other streams may need it."""
        self._is_looked_at = False
        surplus = self._credit - max(RESERVE, self._used)
        if surplus > 0 and not self._ended:
            self._credit -= surplus
            self._owner.say(wire.giving_back(self.number, surplus))
        self._look_later()

    # --- from the relay to the socket ---------------------------------------------------------

    def _write(self) -> None:
        """A thread's whole life."""
        try:
            sock = self._connect()
        except OSError as error:
            self._io.call(partial(self._broken, f"nobody takes the stream: {error}"))
            return
        try:
            sock.settimeout(None)
            goes_on = self._io.call(partial(self._joined, sock))
            while goes_on and (data := self._queue.get()) is not None:
                sock.sendall(data)
                goes_on = self._io.call(partial(self._took, wire.cost(data)))
        except OSError:
            self._io.call(partial(self._broken, "the connection at the other end was closed"))
        finally:
            if not self._io.call(partial(self._close, sock)):
                sock.close()

    def _close(self, sock: socket.socket) -> None:
        self._pause()
        sock.close()
        self._socket = None

    def _took(self, size: int) -> None:
        self._taken += size
        if self._taken >= REPORT and not self._ended:
            self._grant(self._taken)
            self._taken = 0

    def _grant(self, size: int) -> None:
        self._granted += size
        self._owner.say(wire.credit(self.number, size))

    def _broken(self, why: str) -> None:
        if not self._ended:
            self.end()
            self._owner.stream_ended(self, why)
