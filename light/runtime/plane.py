"""A connection of an attempt to its node's plane, over which it exchanges with other instances.

It is opened when the first request needs it. A small letter takes one system call each way. Of a
large value the task makes a memfd that nobody can change any more, and hands it over.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from typing import TYPE_CHECKING, Any

from manta.light import wire
from manta.light.context import Handover
from manta.light.errors import LightError, NodeLost, ResourceExhaustionError
from manta.transports.codec.values import encode

if TYPE_CHECKING:
    from collections.abc import Callable

_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
_LOOK = struct.pack("@ll", 0, 100_000)
"""A wait of 0.1 s, after which it is looked for signals (see `wire.MessageSocket.receive`)."""


_NOT_HANDED_ON = (
    "The kernel of this task (gVisor's) hands no memory on to its node: send what takes more than "
    f"{wire.INLINE_LIMIT // 1024} KiB as a result or a global, or have the task at another level "
    "of isolation."
)


class PlaneConnection:
    """One request at a time. One that a signal cuts short ends the connection, and with it the
    request; the next one opens another."""

    def __init__(self, connect: Callable[[], int]) -> None:
        """`connect` returns the descriptor of a new connection."""
        self._connect = connect
        self._connection: wire.MessageSocket | None = None
        self._number = 0

    def call(
        self,
        request: str,
        fields: dict[str, Any],
        outcome: Callable[[dict[str, Any], list[int]], Any],
    ) -> Any:
        """`outcome` makes of an answer what it stands for. Raises NodeLost, and what it raises."""
        fds: tuple[int, ...] = ()
        value = fields.get("value")
        if "value" in fields:
            fields["value"], fds = _payload(value)
        try:
            return outcome(*self._exchange({"k": request, **fields}, fds))
        finally:
            if not isinstance(value, Handover):
                for fd in fds:
                    os.close(fd)

    def _exchange(
        self, message: dict[str, Any], fds: tuple[int, ...]
    ) -> tuple[dict[str, Any], list[int]]:
        if self._connection is None:
            self._open()
        connection = self._connection
        assert connection is not None
        self._number += 1
        message["n"] = self._number
        try:
            connection.send(message, fds)
            received = _receive(connection)
        except (OSError, wire.BrokenFrame) as error:
            if fds and isinstance(error, OSError) and error.errno == errno.EINVAL:
                self.close()
                raise ResourceExhaustionError(_NOT_HANDED_ON) from error
            received = None
        except BaseException:  # a signal: half a frame may have left, or an answer may come
            self.close()
            raise
        if received is None:
            self.close()
            raise NodeLost(
                "The node's plane has closed the connection: it has ended, or the attempt is over."
            )
        if received[0]["k"] == "refused":
            self.close()
            raise NodeLost(received[0]["sentence"])
        return received

    def _open(self) -> None:
        connection = wire.MessageSocket.of(self._connect())
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _LOOK)
        self._connection = connection

    def shut(self) -> None:
        """Wakes a thread that waits here; it finds that the connection was closed."""
        if (connection := self._connection) is not None:
            connection.shut()

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _receive(connection: wire.MessageSocket) -> tuple[dict[str, Any], list[int]] | None:
    """The next message; None at the stream's end."""
    while (message := connection.next()) is None:
        try:
            if not connection.fill():
                return None
        except BlockingIOError:  # it takes longer: look for signals less often
            return connection.receive(heeds_signals=True)
    return message


def _payload(value: Any) -> tuple[bytes | list[int], tuple[int, ...]]:
    """A value as requests carry it, and the descriptors that go along. Raises TypeError,
    ResourceExhaustionError."""
    if isinstance(value, Handover):
        return value.payload, value.fds
    encoded = encode(value)
    size = encoded.nbytes
    if size <= wire.INLINE_LIMIT:
        return encoded.to_bytes(), ()
    try:
        fd = os.memfd_create("manta-value", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except (OSError, AttributeError) as error:
        raise ResourceExhaustionError(
            f"No memory for a value of {size} bytes can be made here (memfd_create: {error}): "
            "allow that call in the sandbox of the task, and raise the limit of open files."
        ) from error
    try:
        for part in encoded.parts():
            data = memoryview(part).cast("B")
            while data:  # much faster than a mapping, which faults page by page
                data = data[os.write(fd, data) :]
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException as error:
        os.close(fd)
        if isinstance(error, OSError) and not isinstance(error, LightError):
            raise ResourceExhaustionError(
                f"No room for a value of {size} bytes: {error.strerror}."
            ) from error
        raise
    return [size], (fd,)
