"""What one peer that takes nothing costs the nineteen that do."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest

from manta.testing.transports import RecordingHandler
from manta.transports.errors import DownReason, LinkDown, LinkOverflow
from manta.transports.security.admission import Admission
from manta.transports.security.keys import KeyPair
from tests.support.children import freeze

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc"),
]

MIB = 1 << 20
TOTAL = (1024 if os.environ.get("MANTA_FULL") else 256) * MIB
"""In full with MANTA_FULL=1."""
PAYLOAD = bytes(64 * 1024)
PEERS = """
import sys, time
from manta.transports.security.keys import KeyPair
from manta.transports.zeromq.transport import ZmqTransport

class Answering:
    def link_up(self, link): ...
    def link_down(self, link, reason): ...
    def received(self, link, message): link.send([b"taken"])

address, server, *secrets = sys.argv[1:]
peers = [ZmqTransport(KeyPair.from_secret(secret)) for secret in secrets]
for peer in peers:
    peer.dial(address, server, Answering())
time.sleep(300)
"""


class Answers(RecordingHandler):
    def __init__(self) -> None:
        super().__init__()
        self.came: dict[str, threading.Event] = {}
        self.taken: Counter[str] = Counter()

    def received(self, link, message):
        self.taken[link.peer_key] += 1
        self.came[link.peer_key].set()


def memory() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def exchange(handler: Answers, total: int, frozen: str) -> tuple[float, Counter[str]]:
    """Send to each peer in turn; the p95 of those that answer, and what became of each send."""
    times, sent, fate = [], 0, Counter[str]()
    while sent < total:
        for link in handler.links:
            answered = handler.came[link.peer_key] = threading.Event()
            began = time.perf_counter()
            try:
                link.send([PAYLOAD])
            except (LinkOverflow, LinkDown) as error:
                fate[type(error).__name__] += 1
                continue
            fate["sent"] += 1
            if link.peer_key != frozen:
                assert answered.wait(20)
                times.append(time.perf_counter() - began)
                sent += len(PAYLOAD)
    times.sort()
    return times[int(len(times) * 0.95)], fate


def test_one_frozen_peer_of_twenty_costs_the_others_nothing(harness) -> None:
    keys = [KeyPair.generate() for _ in range(20)]
    server, handler = harness.transport(), Answers()
    admission = Admission([one.public for one in keys])
    listener = server.listen("tcp://127.0.0.1:0", handler, admission)
    frozen = keys[0].public
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PEERS, listener.address, server.public_key]
            + [one.secret for one in group]
        )
        for group in (keys[:1], keys[1:])
    ]
    try:
        harness.wait(lambda: len(handler.links) == 20, 30)
        exchange(handler, 16 * MIB, "")
        baseline, _ = exchange(handler, TOTAL // 4, "")
        freeze(processes[0].pid)
        handler.taken.clear()
        before = memory()
        slowed, fate = exchange(handler, TOTAL, frozen)
        grown = memory() - before
        # None of them is lost in silence: those that were accepted are told by the link's end.
        harness.wait(lambda: handler.reasons == [DownReason.SILENT], 30)
        assert fate["LinkOverflow"] + fate["LinkDown"] > 0
        assert handler.taken[frozen] == 0
        assert sum(handler.taken.values()) >= TOTAL // len(PAYLOAD)
        assert grown < 100 * MIB
        assert slowed < 2 * max(baseline, 0.005), "milliseconds are this machine's own noise"
        print(
            f"p95 {baseline * 1e3:.2f} ms, beside a frozen peer {slowed * 1e3:.2f} ms; "
            f"{grown / MIB:.1f} MiB more; of the frozen one's sends: {dict(fate)}"
        )
    finally:
        for process in processes:
            process.kill()
            process.wait()
