"""The outcome of an attempt to connect, and when to try again. Pure.

A zmq client socket says little: its monitor reports steps of the connection
(zmq_socket_monitor(3)), and silence means something too. Seen with libzmq 4.3.5:

    connection refused          CLOSED, without CONNECTED
    nobody answers              nothing
    accepted, closed at once    CONNECTED, DISCONNECTED
    key denied (ZAP 400)        CONNECTED, HANDSHAKE_FAILED_AUTH 400
    busy (ZAP 300)              CONNECTED, nothing: but the server sent its greeting
    frozen                      CONNECTED, nothing: and no greeting
    wrong server key            CONNECTED, HANDSHAKE_FAILED_NO_DETAIL (EPIPE) at once
    busy, and quick to decide   the same, but after its WELCOME, which a wrong key never gets
    no CURVE there              CONNECTED, HANDSHAKE_FAILED_PROTOCOL
"""

from __future__ import annotations

import errno
from enum import IntFlag

from manta.transports.errors import DownReason

PATIENCE = 4.0  # seconds for an attempt, so that its outcome is known within 5
WELCOMED = 128  # bytes received: more than a greeting (64), fewer than with a WELCOME (234)
GREETING_AFTER = 1.0  # seconds until an unfinished handshake is looked into


class Event(IntFlag):
    """The monitor events that matter; their values are libzmq's."""

    CONNECTED = 0x0001
    CLOSED = 0x0080
    DISCONNECTED = 0x0200
    HANDSHAKE_FAILED_NO_DETAIL = 0x0800
    HANDSHAKE_SUCCEEDED = 0x1000
    HANDSHAKE_FAILED_PROTOCOL = 0x2000
    HANDSHAKE_FAILED_AUTH = 0x4000


class Attempt:
    """One attempt to connect."""

    def __init__(self) -> None:
        self.connected = False
        self.greeted = False  # the server was seen to speak ZMTP
        self.welcomed = False  # more came than a greeting: the server holds the key
        self.admitted = False  # the handshake succeeded
        self.answered = False  # HELLO came back: the link is up

    def on_event(self, event: int, value: int) -> DownReason | None:
        """Apply a monitor event; returns why the attempt failed or the connection ended."""
        if event == Event.CONNECTED:
            self.connected = True
        elif event == Event.HANDSHAKE_SUCCEEDED:
            self.admitted = True
        elif event == Event.HANDSHAKE_FAILED_AUTH:
            return DownReason.DENIED if value == 400 else DownReason.BUSY
        elif event == Event.HANDSHAKE_FAILED_PROTOCOL:
            return DownReason.PROTOCOL
        elif event == Event.HANDSHAKE_FAILED_NO_DETAIL:
            if self.welcomed:
                return DownReason.BUSY
            return self.on_deadline() if value == errno.EAGAIN else DownReason.WRONG_KEY
        elif event in (Event.DISCONNECTED, Event.CLOSED):
            return DownReason.LOST if self.admitted else DownReason.UNREACHABLE
        return None

    def on_deadline(self) -> DownReason:
        """Why nothing more came in time."""
        if not self.connected:
            return DownReason.UNREACHABLE
        is_silent = self.admitted or not self.greeted
        return DownReason.SILENT if is_silent else DownReason.BUSY


_WAITS = {
    DownReason.LOST: (0.02, 1.0),
    DownReason.SILENT: (0.1, 1.0),
    DownReason.UNREACHABLE: (0.1, 1.0),
    DownReason.UNKNOWN_HOST: (0.1, 1.0),
    DownReason.BUSY: (0.5, 2.0),
    DownReason.CLOSED: (0.2, 1.0),
}
"""Seconds: the first wait, which doubles, and the longest."""


def backoff(reason: DownReason, failures: int, random: float) -> float:
    """Seconds until the next attempt, after so many failures in a row.

    `random`, from 0 to 1, spreads the peers of a server that was lost. A peer that was
    refused waits longest, since only people change that.
    """
    base, longest = _WAITS.get(reason, (1.0, 5.0))
    wait: float = min(longest, base * 2 ** min(failures - 1, 10))
    return wait * (0.5 + random)
