"""Whether a process stands still."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable

import pytest

from manta.mesh.peer.pulse import BEAT, QUIET, Pulse
from manta.mesh.peer.watching import runs, sender_of
from manta.testing import wait_until
from tests.support.children import freeze

ENOUGH = int(QUIET / BEAT) + 1


def beats(pulse: Pulse, times: Iterable[int], *, runs: bool = False) -> list[bool]:
    return [pulse.stands_still(BEAT * number, runs=runs) for number in times]


def test_who_says_nothing_and_does_nothing_stands_still_and_one_word_ends_that() -> None:
    pulse = Pulse(0.0)
    assert beats(pulse, range(1, ENOUGH + 1)) == [False] * (ENOUGH - 1) + [True]
    pulse.heard(BEAT * (ENOUGH + 1))
    assert beats(pulse, [ENOUGH + 1]) == [False]


def test_who_computes_and_cannot_answer_does_not_stand_still() -> None:
    assert not any(beats(Pulse(0.0), range(1, 10 * ENOUGH), runs=True))


def test_who_was_held_up_itself_does_not_take_the_other_for_it() -> None:
    pulse = Pulse(0.0)
    assert beats(pulse, [1, 2, 100, 101]) == [False] * 4


@pytest.mark.parametrize("does", ["while True: pass", "import time; time.sleep(100)"])
def test_what_a_process_does_is_seen(does: str) -> None:
    child = subprocess.Popen([sys.executable, "-c", f"print(flush=True)\n{does}"], stdout=-1)
    try:
        assert child.stdout is not None
        child.stdout.readline()
        wait_until(lambda: runs(child.pid) is ("while" in does))
        freeze(child.pid)
        assert not runs(child.pid)
    finally:
        child.kill()
        child.communicate()
    assert not runs(child.pid)


def test_who_sends_is_known_by_the_system_though_others_made_the_sockets() -> None:
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    with ours:
        pid = os.fork()
        if pid == 0:
            theirs.send(b"it is me")
            signal.pause()
        try:
            assert sender_of(ours) == pid
            assert ours.recv(100) == b"it is me"
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    theirs.close()


def test_who_sends_where_nobody_asked_for_that_is_nobody() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.send(b"x")
        assert sender_of(ours) == 0
