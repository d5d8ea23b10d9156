"""What a task prints and logs, as lines.

The node makes the pipes and hands out only the writing ends, so that nobody else can make the
reading ends block.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Iterator
from typing import Protocol

from manta.light.wire import MAX_LOG_TEXT, BrokenFrame, whole_characters
from manta.node.task_server.wire import log_record

Line = tuple[str, float, str]
"""Stream, seconds since the epoch, text."""

_CHUNK = 64 * 1024
_LONGEST_LINE = 16 * 1024  # bytes; a longer one is cut
REDRAWN_EVERY = 5.0
"""Seconds between the states of a progress bar that become lines."""
_UP = b"\x1b[A"
_UP_AND_DOWN = re.compile(rb"(?:\x1b\[A)+\n+")  # how the inner of two bars begins anew
_CURSOR = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-ln-~]|[78DEMc])")
_RECORDS = 64  # read at a time
_LARGEST_DRAIN = 1024 * 1024  # the most that a pipe holds
_LONGEST_QUEUE = 1024  # records; more than a socket holds


class Stream(Protocol):
    """One source of lines."""

    ended: bool

    @property
    def is_redrawing(self) -> bool:
        """Whether `read` may give a line later, without anything new to read."""

    def fileno(self) -> int: ...

    def read(self) -> list[Line]:
        """Lines that have arrived, if any."""

    def drain(self) -> list[Line]:
        """All that has been written by now, an unfinished line too."""

    def close(self) -> None: ...


class Lines:
    """Cuts bytes into lines, and long lines between characters.

    A carriage return begins a line anew, as on a terminal: only what is drawn last counts. Of a
    line that is redrawn and does not end, `redrawn` shows the latest state now and then.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._shown: bytes | None = None
        """The state of the unfinished line that has been shown."""
        self._due = 0.0

    def feed(self, data: bytes) -> list[str]:
        """Takes bytes in; returns the lines that they complete."""
        data = self._rest + data
        if _UP in data:
            data = _UP_AND_DOWN.sub(b"\r", data)
        *lines, rest = data.split(b"\n")
        found = [text for line in lines for text in self._ended(line)]
        if b"\r" in rest:  # what was drawn before is not needed any more
            rest = b"\r" + _latest(rest) + b"\r" * rest.endswith(b"\r")
        while len(rest) > _LONGEST_LINE:
            at = whole_characters(rest, _LONGEST_LINE)
            found.append(_text(rest[:at]))
            rest = rest[at:]
        self._rest = rest
        return found

    @property
    def is_redrawing(self) -> bool:
        """Whether the unfinished line has a state that has not been shown."""
        return b"\r" in self._rest and self._is_news(_latest(self._rest))

    def redrawn(self, now: float) -> list[str]:
        """The latest state of a line that is redrawn, if it is time to show one."""
        if not self.is_redrawing or now < self._due:
            return []
        self._due = now + REDRAWN_EVERY
        self._shown = _latest(self._rest)
        return [_text(self._shown)]

    def rest(self) -> list[str]:
        """Takes out the unfinished line."""
        rest, self._rest = self._rest, b""
        return self._ended(rest) if rest else []

    def _is_news(self, state: bytes) -> bool:
        return state != self._shown and bool(state.strip())

    def _ended(self, line: bytes) -> list[str]:
        is_redrawn = b"\r" in line.removesuffix(b"\r")
        line = _latest(line)
        if is_redrawn and not self._is_news(line):
            texts = []
        else:
            texts = [_text(piece) for piece in _pieces(line)]
        self._shown = None
        return texts


class PipeStream:
    """Standard output or error."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ended = False
        self._fd, self.end = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._fd, False)
        self._lines = Lines()

    @property
    def is_redrawing(self) -> bool:
        return self._lines.is_redrawing

    def fileno(self) -> int:
        return self._fd

    def read(self) -> list[Line]:
        return self._lines_of(self._take())

    def drain(self) -> list[Line]:
        lines: list[Line] = []
        for _ in range(_LARGEST_DRAIN // _CHUNK):
            data = self._take()
            if not data:
                break
            lines += self._lines_of(data)
        return lines + [(self.name, time.time(), text) for text in self._lines.rest()]

    def close(self) -> None:
        os.close(self._fd)

    def _lines_of(self, data: bytes) -> list[Line]:
        now = time.time()
        texts = self._lines.feed(data) + self._lines.redrawn(time.monotonic())
        return [(self.name, now, text) for text in texts]

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

    is_redrawing = False

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
            except OSError as error:
                self.ended = True
                lines.append(("error", time.time(), f"The log can't be read: {error.strerror}."))
                break
            except BrokenFrame:
                lines.append(("error", time.time(), "A record of the log can't be read."))
                continue
            lines += [(level, at, _visible(line)) for line in text.removesuffix("\n").split("\n")]
        return lines

    def drain(self) -> list[Line]:
        lines: list[Line] = []
        for _ in range(_LONGEST_QUEUE // _RECORDS):  # who is left behind may go on writing
            if self.ended or not (more := self.read()):
                break
            lines += more
        return lines

    def close(self) -> None:
        self._socket.close()


def _latest(line: bytes) -> bytes:
    """What a line shows that was drawn several times."""
    return line.rstrip(b"\r").rpartition(b"\r")[2]


def _pieces(line: bytes) -> Iterator[bytes]:
    while len(line) > _LONGEST_LINE:
        at = whole_characters(line, _LONGEST_LINE)
        yield line[:at]
        line = line[at:]
    yield line


def _text(line: bytes) -> str:
    return _visible(line.decode(errors="replace"))


def _visible(line: str) -> str:
    """A line without what would move the cursor out of it; colours stay."""
    return _CURSOR.sub("", line.rstrip("\r").rpartition("\r")[2])
