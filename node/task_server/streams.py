"""What a task prints and logs, as lines.

The node makes the pipes and hands out only the writing ends, so that nobody else can make the
reading ends block.
"""

from __future__ import annotations

import os
import socket
import time
from typing import Protocol

from manta.light.wire import MAX_LOG_TEXT, BrokenFrame
from manta.node.task_server.wire import log_record

Line = tuple[str, float, str]
"""Stream, seconds since the epoch, text."""

_CHUNK = 64 * 1024
_LONGEST_LINE = 16 * 1024  # bytes; a longer one is cut
_RECORDS = 64  # read at a time
_LARGEST_DRAIN = 1024 * 1024  # the most that a pipe holds


class Stream(Protocol):
    """One source of lines."""

    ended: bool

    def fileno(self) -> int: ...

    def read(self) -> list[Line]:
        """Lines that have arrived, if any."""

    def drain(self) -> list[Line]:
        """All that has been written by now, an unfinished line too."""

    def close(self) -> None: ...


class Lines:
    """Cuts bytes into lines."""

    def __init__(self) -> None:
        self._rest = b""

    @property
    def waiting(self) -> int:
        """How many bytes of an unfinished line there are."""
        return len(self._rest)

    def feed(self, data: bytes) -> list[str]:
        """Takes bytes in; returns the lines that they complete."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        while len(self._rest) > _LONGEST_LINE:
            lines.append(self._rest[:_LONGEST_LINE])
            self._rest = self._rest[_LONGEST_LINE:]
        return [
            _text(line[at : at + _LONGEST_LINE])
            for line in lines
            for at in range(0, len(line) or 1, _LONGEST_LINE)
        ]

    def rest(self) -> str:
        """Takes out the unfinished line."""
        rest, self._rest = self._rest, b""
        return _text(rest)


class PipeStream:
    """Standard output or error."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ended = False
        self._fd, self.end = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._fd, False)
        self._lines = Lines()

    def fileno(self) -> int:
        return self._fd

    def read(self) -> list[Line]:
        data = self._take()
        now = time.time()
        return [(self.name, now, text) for text in self._lines.feed(data)]

    def drain(self) -> list[Line]:
        lines: list[Line] = []
        for _ in range(_LARGEST_DRAIN // _CHUNK):
            before = self._lines.waiting
            more = self.read()
            lines += more
            if not more and self._lines.waiting == before:
                break
        if self._lines.waiting:
            lines.append((self.name, time.time(), self._lines.rest()))
        return lines

    def close(self) -> None:
        os.close(self._fd)

    def _take(self) -> bytes:
        if self.ended:
            return b""
        try:
            data = os.read(self._fd, _CHUNK)
        except BlockingIOError:
            return b""
        self.ended = not data
        return data


class LogStream:
    """Records of the task's logger, each a datagram."""

    def __init__(self) -> None:
        self.ended = False
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.end = theirs.detach()

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self) -> list[Line]:
        lines: list[Line] = []
        for _ in range(_RECORDS):
            try:
                data = self._socket.recv(2 * MAX_LOG_TEXT, socket.MSG_DONTWAIT)
                at, level, text = log_record(data)
            except BlockingIOError:
                break
            except (BrokenFrame, OSError):
                self.ended = True
                lines.append(("error", time.time(), "The log can't be read any more: bad record."))
                break
            lines += [(level, at, line) for line in text.splitlines() or [""]]
        return lines

    def drain(self) -> list[Line]:
        lines: list[Line] = []
        while not self.ended and len(lines) < 10_000 and (more := self.read()):
            lines += more
        return lines

    def close(self) -> None:
        self._socket.close()


def _text(line: bytes) -> str:
    return line.removesuffix(b"\r").decode(errors="replace")
