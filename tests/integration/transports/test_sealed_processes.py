"""Bulk between the processes of two peers: what it costs in memory, and what a frozen one does."""

from __future__ import annotations

import mmap
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from manta.transports.errors import DownReason
from manta.transports.sealed.options import PeerOptions
from manta.transports.security.keys import KeyPair
from tests.support.children import Child
from tests.support.peers import Outcome, Side, name, wait

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc"),
]

MIB = 1 << 20
TOTAL = (1024 if os.environ.get("MANTA_FULL") else 256) * MIB
"""In full with MANTA_FULL=1."""
ROOT = Path(__file__).parents[3]
DIAL = """
import sys
from manta.transports.sealed.endpoint import BulkEndpoint
from manta.transports.sealed.tickets import Ticket
from manta.transports.security.admission import Admission
from manta.transports.security.keys import KeyPair
from tests.support.curve import CurveEndpoint

def dial(secret, far, address, ticket):
    keys, admission = KeyPair.from_secret(secret), Admission([far])
    if not ticket:
        return CurveEndpoint(keys, admission).dial(far, address)
    return BulkEndpoint(keys, admission).dial(far, address, Ticket.unpack(bytes.fromhex(ticket)))
"""
SENDER = (
    DIAL
    + """
from tests.integration.transports.test_sealed_processes import Memory, shared
secret, far, address, ticket, size = sys.argv[1:]
memory, source = Memory(), shared(int(size))
for at in range(0, int(size), 4096):
    source[at] = at >> 12 & 255
peer = dial(secret, far, address, ticket)
import threading
ended = threading.Event()
peer.send(bytes(15) + b"1", [source], done=lambda error: ended.set(), progress=memory.look)
ended.wait()
print(memory.grown, flush=True)
sys.stdin.read()
"""
)
RECEIVERS = (
    DIAL
    + """
far, address, count, *arguments = sys.argv[1:]
place = memoryview(bytearray(256 * 1024))
def expect(peer, number):
    def done(error):
        if error is None:
            expect(peer, number + 1)
    peer.expect(number.to_bytes(16, "big"), place, done=done)
for secret, ticket in zip(arguments[::2], arguments[1::2]):
    expect(dial(secret, far, address, ticket), 0)
print("up", flush=True)
sys.stdin.read()
"""
)


def shared(size: int) -> memoryview:
    """Memory that does not count as a process's own."""
    fd = os.memfd_create("test")
    os.truncate(fd, size)
    try:
        return memoryview(mmap.mmap(fd, size))
    finally:
        os.close(fd)


class Memory:
    """How much a process's own memory grew at most, as far as it was looked at."""

    def __init__(self) -> None:
        self._before = self._now()
        self.grown = 0

    def look(self, _: int = 0) -> None:
        self.grown = max(self.grown, self._now() - self._before)

    @staticmethod
    def _now() -> int:
        found = re.search(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text())
        assert found is not None
        return int(found[1]) * 1024


@contextmanager
def child(code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    with Child(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def ticket_of(side: Side, key: str) -> str:
    return "" if side.form == "curve" else side.endpoint.ticket(key).pack().hex()


@pytest.mark.parametrize("form", ["sealed", "plain", "curve"])
def test_memory_is_bounded_by_the_windows_however_much_moves(tmp_path, form):
    keys = KeyPair.generate()
    side = Side(form)
    try:
        side.listen(tmp_path)
        side.admission.allow(keys.public)
        destination, outcome, memory = shared(TOTAL), Outcome(), Memory()
        side.endpoint.peer(keys.public).expect(
            name(ord("1")), destination, done=outcome.done, progress=memory.look
        )
        ticket = ticket_of(side, keys.public)
        arguments = (keys.secret, side.keys.public, side.address, ticket, str(TOTAL))
        with child(SENDER, *arguments) as sender:
            outcome.result(100)
            assert sender.stdout is not None
            theirs = int(sender.stdout.readline())
        assert all(destination[at] == at >> 12 & 255 for at in range(0, TOTAL, 4096))
        assert memory.grown < 24 * MIB
        assert theirs < 24 * MIB
        print(f"{form}: {memory.grown / MIB:.1f} and {theirs / MIB:.1f} MiB for {TOTAL // MIB}")
    finally:
        side.endpoint.close()


def test_one_frozen_peer_of_twenty_costs_little_memory_and_the_others_nothing():
    options = PeerOptions(silence=4.0)
    keys = [KeyPair.generate() for _ in range(20)]
    side = Side(options=options)
    try:
        side.listen(Path())
        for one in keys:
            side.admission.allow(one.public)
        peers = [side.endpoint.peer(one.public) for one in keys]
        arguments = [
            [part for one in group for part in (one.secret, ticket_of(side, one.public))]
            for group in (keys[:1], keys[1:])
        ]
        common = (side.keys.public, side.address, "20")
        with (
            child(RECEIVERS, *common, *arguments[0]) as frozen,
            child(RECEIVERS, *common, *arguments[1]),
        ):
            wait(lambda: all(peer.state is None for peer in peers), 30)
            data, numbers = os.urandom(256 * 1024), dict.fromkeys(peers, 0)

            def send(peer):
                outcome = Outcome()
                peer.send(name(numbers[peer]), [data], done=outcome.done)
                numbers[peer] += 1
                return outcome

            for outcome in [send(peer) for peer in peers]:
                outcome.result()
            frozen.send_signal(signal.SIGSTOP)
            memory, moved = Memory(), 0
            stuck: list[Outcome] = []
            until = time.monotonic() + 60
            while moved < TOTAL or peers[0].state is None:
                assert time.monotonic() < until
                if len(stuck) < 500:
                    stuck.append(send(peers[0]))
                for outcome in [send(peer) for peer in peers[1:]]:
                    outcome.result()
                    moved += len(data)
                memory.look()
            assert peers[0].state is DownReason.SILENT
            assert all(peer.state is None for peer in peers[1:])
            assert memory.grown < 32 * MIB
            print(f"{memory.grown / MIB:.1f} MiB more beside a frozen peer")
            frozen.send_signal(signal.SIGCONT)
            for outcome in stuck:  # none of them is lost
                outcome.result(30)
    finally:
        side.endpoint.close()
