"""What an attempt asks its node, over as many connections as its threads need at once."""

from __future__ import annotations

import mmap
import os
import sys
import time
from _thread import get_ident  # importing threading costs each forked attempt a tenth
from itertools import count
from typing import TYPE_CHECKING, Any

from manta.light import wire
from manta.light.context import MISSING, Brief, Entry, Part
from manta.light.errors import (
    BY_NAME,
    LightError,
    NodeLost,
    NotInTask,
    RequestFailed,
    ResourceExhaustionError,
)
from manta.light.runtime.plane import PlaneConnection
from manta.transports.codec.values import decode, encode

if TYPE_CHECKING:
    from collections.abc import Callable

_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 0.5
_OVER = "The attempt is over, and its threads can't ask any more: have them end before it does."
_NONE = encode(None).to_bytes()  # what most attempts return
_NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)
"""A value may be larger than the memory: only what is written to needs any."""
_UNTRACKED: dict[str, Any] = {"trackfd": False} if sys.version_info >= (3, 13) else {}


class _Closed(OSError):
    """The node closed the connection."""


class AttemptClient:
    """Sends requests to the node: any thread may ask, and none waits for another's answer."""

    def __init__(self, path: str, token: str, brief: Brief, fd: int) -> None:
        """Takes over `fd`, the connection that came with the order, for the first thread that asks;
        opens others at `path`."""
        self.brief = brief
        self.moving = 0.0
        """Seconds for which the attempt's own thread waited for the node and moved values."""
        self._path = path
        self._token = token
        self._fd = fd
        self._owner = self._thread = 0
        self._channels: list[_Channel] = []
        self._free: list[_Channel] = []
        self._numbers = count()  # threads, and handlers of signals, take from these atomically
        self._closed = False

    def open(self, owner: int) -> None:
        """Called in the process, `owner`, and the thread that run the attempt."""
        self._owner = owner
        self._thread = get_ident()

    def close(self) -> None:
        """Ends all connections: requests that still wait get no answer."""
        self._closed = True
        for channel in self._channels:
            channel.end(is_idle=channel in self._free)
        if next(self._numbers) == 0:  # nothing was asked
            try:
                os.close(self._fd)
            except OSError:
                return  # user code closed all descriptors that it did not know

    def call(self, request: str, /, **fields: Any) -> Any:
        """Raises RequestFailed or its kin, NodeLost, TypeError."""
        if os.getpid() != self._owner:
            raise NotInTask(
                "World, Local and Results belong to the process that runs the attempt: "
                "use them there, and pass values to the processes that you start."
            )
        if request in wire.ORDERED_BY_BARRIERS:
            self.brief.is_unsettled = True
        return self._on_a_channel(lambda channel: channel.call(request, fields))

    def payload(self, value: Any) -> bytes | int:
        """A value in the form that requests carry. Raises TypeError for one that can't be sent."""
        if value is None:
            return _NONE
        payload: bytes | int = self._on_a_channel(lambda channel: channel.payload(value))
        return payload

    def _on_a_channel(self, job: Callable[[_Channel], Any]) -> Any:
        started = time.monotonic()
        channel = self._take()
        try:
            return job(channel)
        finally:
            self._free.append(channel)
            if get_ident() == self._thread:
                self.moving += time.monotonic() - started

    def _take(self) -> _Channel:
        if self._closed:
            raise NodeLost(_OVER)
        try:
            return self._free.pop()
        except IndexError:
            return self._add()

    def _add(self) -> _Channel:
        number = next(self._numbers)
        if number >= wire.MAX_CHANNELS:
            raise ResourceExhaustionError(
                f"{wire.MAX_CHANNELS} threads of {self.brief.name} wait for the node, and no more "
                "may at a time: use fewer threads."
            )
        connection = self._handed_over() if number == 0 else None
        channel = _Channel(self._path, self._token, number, connection)
        self._channels.append(channel)
        return channel

    def _handed_over(self) -> wire.MessageSocket | None:
        try:
            return wire.MessageSocket.of(self._fd)
        except OSError:
            return None  # user code closed all descriptors that it did not know


class _Channel:
    """One request at a time; each is carried out once, even across a reconnect."""

    def __init__(
        self, path: str, token: str, number: int, connection: wire.MessageSocket | None = None
    ) -> None:
        self._path = path
        self._greeting = {"k": "attempt", "token": token, "channel": number}
        self._number = 0
        self._connection = connection
        self._has_ended = False
        self._plane = PlaneConnection(lambda: self.exchange({"k": "open_exchange"}))

    def call(self, request: str, fields: dict[str, Any]) -> Any:
        if request in wire.PLANE_REQUESTS:
            if self._has_ended:
                raise NodeLost(_OVER)
            return self._plane.call(request, fields, outcome)
        if "value" in fields:
            fields["value"] = self.payload(fields["value"])
        return self.exchange({"k": request, **fields})

    def payload(self, value: Any) -> bytes | int:
        encoded = encode(value)
        if encoded.nbytes <= wire.INLINE_LIMIT:
            return encoded.to_bytes()
        number, fd = self.exchange({"k": "memory", "size": encoded.nbytes})
        try:
            for part in encoded.parts():
                _write(fd, memoryview(part).cast("B"))
        except OSError as error:
            raise ResourceExhaustionError(
                f"No room for a value of {encoded.nbytes} bytes: {error.strerror}."
            ) from error
        finally:
            os.close(fd)
        return int(number)

    def exchange(self, message: dict[str, Any]) -> Any:
        message["n"] = self._number + 1
        data = wire.frame(message)
        if len(data) > wire.MAX_TO_NODE:
            raise ValueError(
                f"{message['k']} takes {wire.MAX_TO_NODE} bytes at once, not {len(data)}: give "
                "fewer, or write them as one value."
            )
        self._number += 1
        while True:
            try:
                if self._connection is None:
                    self._connect()
                assert self._connection is not None
                self._connection.send_data(data)
                return self._answer(self._connection)
            except LightError:  # the node's answer; among them Timeout is an OSError
                raise
            except (OSError, wire.BrokenFrame):
                self._close()
            except BaseException:  # a signal: half a frame may have left, or an answer may come
                self._close()
                raise

    def _connect(self) -> None:
        """Raises NodeLost."""
        deadline = time.monotonic() + wire.PATIENCE
        pause = _FIRST_PAUSE
        while True:
            if self._has_ended:
                raise NodeLost(_OVER)
            try:
                connection = wire.MessageSocket.to(self._path)
                connection.send(self._greeting)
            except OSError as error:
                if time.monotonic() > deadline:
                    raise NodeLost(
                        f"The node's service did not come back within {wire.PATIENCE:.0f} s "
                        f"({error}): the node was stopped, or has failed."
                    ) from error
            else:
                self._connection = connection
                return
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def end(self, is_idle: bool) -> None:
        """Ends the channel; a thread that waits in it wakes up and closes it."""
        self._has_ended = True
        if self._connection is not None:
            self._connection.shut()  # also where another process has it as well
        self._plane.shut()
        if is_idle:
            self._close()
            self._plane.close()

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _answer(self, connection: wire.MessageSocket) -> Any:
        message, fds = self._receive(connection)
        if "plain" in message:
            return message["plain"]
        if "memory" in message:
            return message["memory"], fds[0]
        if fds and "size" not in message:
            return fds[0]
        if "count" in message:
            return [_entry(*self._receive(connection)) for _ in range(message["count"])]
        return _value(message, fds)

    def _receive(self, connection: wire.MessageSocket) -> tuple[dict[str, Any], list[int]]:
        """The next message about the current request.

        Messages about earlier requests, which a signal may have cut short, are skipped.
        """
        while True:
            received = connection.receive(heeds_signals=True)
            if received is None:
                raise _Closed
            message, fds = received
            if message["k"] == "refused":
                raise NodeLost(message["sentence"])
            if message["n"] == self._number:
                _check(message)
                return message, fds
            for fd in fds:
                os.close(fd)


def _write(fd: int, data: memoryview) -> None:
    """Writes into a memfd: much faster than a mapping, which faults page by page."""
    while data:
        data = data[os.write(fd, data) :]


def _check(message: dict[str, Any]) -> None:
    """Raises the error that it tells of."""
    if message["k"] == "error":
        raise BY_NAME.get(message["kind"], RequestFailed)(message["sentence"])


def outcome(message: dict[str, Any], fds: list[int]) -> Any:
    """What an answer of the plane stands for. Raises the error that it tells of."""
    _check(message)
    if "parts" in message or "room" in message:  # `manta.light.collectives` makes of it what it is
        return message, fds
    return message["plain"] if "plain" in message else _value(message, fds)


def _value(message: dict[str, Any], fds: list[int]) -> Any:
    if "data" in message:
        return decode(bytearray(message["data"]))  # writable, as a mapped one is
    if "size" not in message:
        return MISSING
    try:
        private = mmap.MAP_PRIVATE | _NO_RESERVE
        protection = mmap.PROT_READ | mmap.PROT_WRITE
        memory = mmap.mmap(fds[0], message["size"], private, protection, **_UNTRACKED)
    finally:
        os.close(fds[0])
    return decode(memory)


def _entry(message: dict[str, Any], fds: list[int]) -> Entry | Part:
    if "rank" in message:
        return Part(message["rank"], _value(message, fds))
    names = ("node_id", "alias", "index", "iteration", "attempt")
    return Entry(value=_value(message, fds), **{name: message[name] for name in names})
