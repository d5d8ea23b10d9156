"""Accepts connections for bulk, and admits those that hold a ticket. Nothing else of them is read.

It lives on the I/O thread, where strangers cost no thread: a descriptor and 96 bytes each, as many
and as long as `Strangers` says.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from manta.transports.errors import DownReason, TransportError
from manta.transports.sealed.tickets import CALL, REFUSALS, Denied, Door
from manta.transports.sealed.user import check_user
from manta.transports.security.admission import Decision
from manta.transports.security.strangers import Strangers, source_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from manta.transports.sealed.options import PeerOptions
    from manta.transports.sealed.tickets import Session, Tickets
    from manta.transports.security.admission import Admission
    from manta.transports.security.keys import KeyPair
    from manta.transports.security.strangers import Cut
    from manta.transports.zeromq.io_thread import IoThread

    Admitted = Callable[[str, socket.socket, Session, str], object]

_BATCH = 64  # connections accepted before others have their turn
_LOOK = 0.5  # seconds
_PAUSE = 0.2  # seconds, where no descriptor is left

_log = logging.getLogger(__name__)


class _Arriving:
    """A connection that has not shown its ticket."""

    def __init__(self, stream: socket.socket, door: Door, form: str, source: str) -> None:
        self.stream = stream
        self.door = door
        self.form = form
        self.source = source
        self.call = b""


class Arrivals:
    """Streams that have not shown a ticket, of all listeners. Lives on the I/O thread."""

    def __init__(
        self,
        io: IoThread,
        keys: KeyPair,
        tickets: Tickets,
        admission: Admission,
        options: PeerOptions,
        admitted: Admitted,
    ) -> None:
        self._io = io
        self._keys = keys
        self._tickets = tickets
        self._admission = admission
        self._admitted = admitted
        self._strangers = Strangers(admission.limits, handshake=options.handshake, hello=0.0)
        self._arriving: dict[int, _Arriving] = {}
        self._closed = False

    def __len__(self) -> int:
        return len(self._arriving)

    def start(self) -> None:
        self._look()

    def close(self) -> None:
        self._closed = True
        for fd in [*self._arriving]:
            self._drop(fd)

    def greet(self, stream: socket.socket, form: str, source: str) -> None:
        """Serve a stream; its `source` is what bounds it with others."""
        if self._closed:
            stream.close()
            return
        try:
            stream.setblocking(False)
            if form == "plain":
                check_user(stream)
            elif stream.family != socket.AF_UNIX:
                stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            door = Door(self._keys, self._tickets, form, os.urandom(32), os.urandom(32))
            stream.send(door.greeting)
        except (OSError, TransportError) as error:
            _log.debug("a connection for bulk ended at once: %s", error)
            stream.close()
            return
        fd = stream.fileno()
        self._arriving[fd] = _Arriving(stream, door, form, source)
        self._io.add_reader(fd, partial(self._read, fd))
        self._cut(self._strangers.accepted(fd, source, time.monotonic()))

    def _read(self, fd: int) -> None:
        one = self._arriving[fd]
        try:
            new = one.stream.recv(CALL - len(one.call))
        except BlockingIOError:
            return
        except OSError:
            new = b""
        one.call += new
        if not new:
            self._drop(fd)
        elif len(one.call) == CALL:
            self._decide(fd, one)

    def _decide(self, fd: int, one: _Arriving) -> None:
        """Admit it, or say why not, which is as much as is sent to who has no ticket."""
        try:
            key, reply, session = one.door.admit(one.call)
            decision = self._admission.decide(key, one.source)
            if decision is not Decision.ALLOW:
                raise Denied(DownReason.BUSY if decision is Decision.BUSY else DownReason.DENIED)
            one.stream.send(reply)
        except Denied as denied:
            with suppress(OSError):
                one.stream.send(REFUSALS[denied.reason])
            self._drop(fd)
        except OSError:
            self._drop(fd)
        else:
            del self._arriving[fd]
            self._io.remove_reader(fd)
            self._strangers.gone(fd)
            self._admitted(key, one.stream, session, one.form)

    def _look(self) -> None:
        if self._closed:
            return
        self._io.call_later(_LOOK, self._look)  # first: whatever fails, it goes on
        now = time.monotonic()
        self._cut(self._strangers.overdue(now))
        for sentence in self._admission.tally.sentences(now):
            _log.warning("%s", sentence)

    def _cut(self, cuts: Iterable[Cut]) -> None:
        for cut in cuts:
            self._admission.tally.count(cut.fate, cut.source)
            self._drop(cut.connection)

    def _drop(self, fd: int) -> None:
        one = self._arriving.pop(fd, None)
        if one is not None:
            self._io.remove_reader(fd)
            self._strangers.gone(fd)
            one.stream.close()


class StreamListener:
    """One socket that listens, over TCP or, for this user's processes, at a path."""

    def __init__(self, io: IoThread, listening: socket.socket, arrivals: Arrivals) -> None:
        self._io = io
        self._listening = listening
        self._arrivals = arrivals
        self._closed = False

    def start(self) -> None:
        self._listening.setblocking(False)
        self._resume()

    def close(self) -> None:
        """Idempotent."""
        if not self._closed:
            self._closed = True
            self._pause()
            self._listening.close()

    def _pause(self) -> None:
        self._io.remove_reader(self._listening.fileno())

    def _resume(self) -> None:
        if not self._closed:
            self._io.add_reader(self._listening.fileno(), self._accept)

    def _accept(self) -> None:
        is_local = self._listening.family == socket.AF_UNIX
        for _ in range(_BATCH):
            try:
                stream, address = self._listening.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE):
                    _log.warning("no descriptor is left for a connection: %s", error)
                    self._pause()
                    self._io.call_later(_PAUSE, self._resume)
                    return
                continue  # it was gone before it was accepted
            form, source = ("plain", "local") if is_local else ("sealed", source_of(address[0]))
            self._arrivals.greet(stream, form, source)
