"""What became of an attempt to connect, from what libzmq tells; and when to try again."""

from __future__ import annotations

import errno

import pytest
import zmq

from manta.transports.errors import DownReason
from manta.transports.zeromq.attempts import Attempt, Event, backoff

CONNECTED = (Event.CONNECTED, 20)
DISCONNECTED = (Event.DISCONNECTED, 20)
ADMITTED = (Event.HANDSHAKE_SUCCEEDED, 0)


def test_the_events_are_libzmqs():
    for event in Event:
        assert getattr(zmq, f"EVENT_{event.name}") == event


@pytest.mark.parametrize(
    ("events", "greeted", "reason"),
    [
        ([(Event.CLOSED, 20)], False, DownReason.UNREACHABLE),
        ([], False, DownReason.UNREACHABLE),
        ([CONNECTED, DISCONNECTED], False, DownReason.UNREACHABLE),
        ([CONNECTED, (Event.HANDSHAKE_FAILED_AUTH, 400)], False, DownReason.DENIED),
        ([CONNECTED, (Event.HANDSHAKE_FAILED_AUTH, 500)], False, DownReason.BUSY),
        ([CONNECTED], True, DownReason.BUSY),
        ([CONNECTED], False, DownReason.SILENT),
        (
            [CONNECTED, (Event.HANDSHAKE_FAILED_NO_DETAIL, errno.EPIPE)],
            False,
            DownReason.WRONG_KEY,
        ),
        (
            [CONNECTED, (Event.HANDSHAKE_FAILED_NO_DETAIL, errno.EAGAIN)],
            True,
            DownReason.BUSY,
        ),
        ([CONNECTED, (Event.HANDSHAKE_FAILED_PROTOCOL, 0)], False, DownReason.PROTOCOL),
        ([CONNECTED, ADMITTED], True, DownReason.SILENT),
        ([CONNECTED, ADMITTED, DISCONNECTED], False, DownReason.LOST),
    ],
)
def test_each_failure_is_told_apart(events, greeted, reason):
    attempt = Attempt()
    attempt.greeted = greeted
    verdict = None
    for event, value in events:
        assert verdict is None
        verdict = attempt.on_event(event, value)
    assert (verdict or attempt.on_deadline()) is reason


def test_a_server_that_has_sent_its_welcome_holds_the_key():
    attempt = Attempt()
    attempt.on_event(*CONNECTED)
    attempt.welcomed = True
    failed = attempt.on_event(Event.HANDSHAKE_FAILED_NO_DETAIL, errno.EPIPE)
    assert failed is DownReason.BUSY


@pytest.mark.parametrize("reason", DownReason)
def test_waits_grow_to_a_bound_and_are_spread(reason):
    waits = [backoff(reason, failures, 0.5) for failures in range(1, 40)]
    assert waits == sorted(waits)
    assert 0 < waits[0] <= 1.0
    assert waits[-1] <= 5.0
    for failures in (1, 5, 1000):
        middle = backoff(reason, failures, 0.5)
        assert backoff(reason, failures, 0.0) == pytest.approx(middle / 2)
        assert backoff(reason, failures, 1.0) == pytest.approx(middle * 1.5)


def test_who_only_lost_the_connection_is_back_within_two_seconds():
    """The first attempts of a client whose server restarts."""
    for reason in (DownReason.LOST, DownReason.UNREACHABLE, DownReason.SILENT):
        assert max(backoff(reason, failures, 1.0) for failures in range(1, 100)) <= 1.5
