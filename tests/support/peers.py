"""Endpoints of bulk between peers, in any form, and what became of their transfers."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

from manta.transports.errors import BulkError
from manta.transports.sealed.endpoint import BulkEndpoint
from manta.transports.sealed.options import PeerOptions
from manta.transports.security.admission import Admission
from manta.transports.security.keys import KeyPair
from tests.support.curve import CurveEndpoint

QUICK = PeerOptions(heartbeat=0.2, silence=2.0, patience=1.0, handshake=1.0)


def wait(condition, timeout=10.0):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"did not come about in {timeout:g} s"
        time.sleep(0.001)


class Outcome:
    """What became of a transfer."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self.error: BulkError | None = None
        self.upto = 0

    def done(self, error):
        assert not self.ended.is_set()
        self.error = error
        self.ended.set()

    def progress(self, upto):
        assert not self.ended.is_set()
        self.upto = upto

    def result(self, timeout=20.0):
        assert self.ended.wait(timeout), "it did not end"
        if self.error is not None:
            raise self.error


class Side:
    """An endpoint, and what it knows of another."""

    def __init__(self, form="sealed", options=QUICK, limits=None, changed=None) -> None:
        self.form = form
        self.keys = KeyPair.generate()
        self.admission = Admission(limits=limits)
        kind: Any = CurveEndpoint if form == "curve" else BulkEndpoint
        self.endpoint = kind(self.keys, self.admission, options=options, changed=changed)
        self.address = ""

    def listen(self, folder: Path) -> str:
        if self.form == "plain":
            os.chmod(folder, 0o700)
        where = f"unix://{folder}/bulk" if self.form == "plain" else "tcp://127.0.0.1:0"
        self.address = self.endpoint.listen(where)
        return self.address

    def meet(self, other: Side, address: str = "") -> None:
        """`other` listens; this side dials it."""
        for one, its in ((self, other), (other, self)):
            one.admission.allow(its.keys.public)
        arguments = [other.keys.public, address or other.address]
        if self.form != "curve":
            arguments.append(other.endpoint.ticket(self.keys.public))
        self.endpoint.dial(*arguments)

    def peer(self, other: Side):
        return self.endpoint.peer(other.keys.public)

    def send(self, other, number, data, **options):
        outcome = Outcome()
        self.peer(other).send(
            name(number), [data], done=outcome.done, progress=outcome.progress, **options
        )
        return outcome

    def expect(self, other, number, size):
        outcome, memory = Outcome(), bytearray(size)
        self.peer(other).expect(
            name(number), memoryview(memory), done=outcome.done, progress=outcome.progress
        )
        return outcome, memory


def name(number: int) -> bytes:
    return number.to_bytes(16, "big")
