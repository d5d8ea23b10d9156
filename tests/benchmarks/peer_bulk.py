"""100 MB from memory to memory between two processes: one way, and both ways at once.

Each form moves fresh random bytes, in turns, and is compared with a bare TCP stream and with bare
CURVE of the same run. The bare ones move pieces of 1 MiB: TCP into the receiver's memory, zmq as
messages that nobody looks at. "AES over zmq" is what sealing over a pair of zmq sockets would be at
best: pieces sealed and opened as messages, and nothing else. CPU is of both processes. Ratios are
of the best runs, which other load on the machine has disturbed least.
"""

from __future__ import annotations

import fcntl
import mmap
import multiprocessing
import os
import resource
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import zmq
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from manta.transports.sealed.endpoint import BulkEndpoint
from manta.transports.sealed.tickets import Ticket
from manta.transports.security.admission import Admission
from manta.transports.security.keys import KeyPair
from tests.support.curve import CurveEndpoint

SIZE = 100_000_000
PIECE = 1 << 20
RUNS = 5


class Source:
    """Fresh random bytes in a sealed memfd, mapped and touched."""

    def __init__(self) -> None:
        data = memoryview(AESGCM(os.urandom(32)).encrypt(bytes(12), bytes(SIZE), None))[:SIZE]
        self.fd = os.memfd_create("source", os.MFD_ALLOW_SEALING)
        os.truncate(self.fd, SIZE)
        at = 0
        while at < SIZE:
            at += os.pwrite(self.fd, data[at:], at)
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK)
        self.view = memoryview(mmap.mmap(self.fd, SIZE, prot=mmap.PROT_READ))
        self.digest = blake3(self.view).hexdigest()

    def close(self) -> None:
        self.view = memoryview(b"")  # zmq may hold the mapping a little longer
        os.close(self.fd)


class BareTcp:
    """A connection for each direction."""

    def __init__(self, where: Any, secrets: list[str], first: int) -> None:
        self.first = first
        self._listening = None
        if where is None:
            self._listening = socket.create_server(("127.0.0.1", 0))
            self.where = self._listening.getsockname()
        else:
            self._ends = [socket.create_connection(where) for _ in range(2)]

    def begin(self) -> None:
        if self._listening is not None:
            self._ends = [self._listening.accept()[0] for _ in range(2)]
            self._listening.close()

    def send(self, source: Source) -> None:
        self._ends[self.first].sendall(source.view)

    def receive(self, into: memoryview) -> None:
        stream = self._ends[1 - self.first]
        while into:
            into = into[stream.recv_into(into, min(len(into), PIECE)) :]

    def close(self) -> None:
        for end in self._ends:
            end.close()


class BareZmq:
    """A PAIR for each direction."""

    def __init__(
        self, where: Any, secrets: list[str], first: int, *, curve: bool = False, aes: bool = False
    ) -> None:
        self.first = first
        self._context = zmq.Context()
        self._sockets = [self._context.socket(zmq.PAIR) for _ in range(2)]
        keys = [KeyPair.from_secret(secret) for secret in secrets]
        own, other = keys[first], keys[1 - first]
        for made in self._sockets:
            if curve:
                made.curve_publickey, made.curve_secretkey = (
                    own.public.encode(),
                    own.secret.encode(),
                )
                if first:
                    made.curve_server = True
                else:
                    made.curve_serverkey = other.public.encode()
        if where is None:
            self.where = [made.bind_to_random_port("tcp://127.0.0.1") for made in self._sockets]
        else:
            for made, port in zip(self._sockets, where, strict=True):
                made.connect(f"tcp://127.0.0.1:{port}")
        self._aead = AESGCM(bytes(32)) if aes else None
        self._sealed = self._opened = 0

    def begin(self) -> None:
        self._sockets[self.first].send(b"")
        self._sockets[1 - self.first].recv()

    def send(self, source: Source) -> None:
        out = self._sockets[self.first]
        for at in range(0, SIZE, PIECE):
            piece = source.view[at : at + PIECE]
            if self._aead is not None:
                self._sealed += 1
                plain, piece = piece, memoryview(bytearray(len(piece) + 16))
                self._aead.encrypt_into(self._sealed.to_bytes(12, "big"), plain, None, piece)
            out.send(piece, copy=False)

    def receive(self, into: memoryview) -> None:
        arriving = self._sockets[1 - self.first]
        while into:
            frame = arriving.recv(copy=False)
            length = len(frame)
            if self._aead is not None:
                length -= 16
                self._opened += 1
                nonce = self._opened.to_bytes(12, "big")
                self._aead.decrypt_into(nonce, frame.buffer, None, into[:length])
            into = into[length:]

    def close(self) -> None:
        self._context.destroy(linger=0)


class Manta:
    """An endpoint."""

    def __init__(
        self,
        where: Any,
        secrets: list[str],
        first: int,
        *,
        form: str = "sealed",
        memfd: bool = False,
        adopts: bool = False,
    ) -> None:
        self.first = first
        self._memfd, self._adopts = memfd, adopts
        keys = [KeyPair.from_secret(secret) for secret in secrets]
        own, other = keys[first], keys[1 - first].public
        kind: Any = CurveEndpoint if form == "curve" else BulkEndpoint
        self._endpoint = kind(own, Admission([other]))
        self._folder = tempfile.TemporaryDirectory()
        if where is None:
            plain = f"unix://{self._folder.name}/bulk"
            address = self._endpoint.listen(plain if form == "plain" else "tcp://127.0.0.1:0")
            tickets = [] if form == "curve" else [self._endpoint.ticket(other).pack()]
            self.where = (address, tickets)
        else:
            self._endpoint.dial(other, where[0], *map(Ticket.unpack, where[1]))
        self._peer = self._endpoint.peer(other)
        self._sent = self._received = 0

    def begin(self) -> None:
        while self._peer.state is not None:
            time.sleep(0.01)

    def send(self, source: Source) -> None:
        self._sent += 1
        memfd = source.fd if self._memfd else -1
        _wait(partial(self._peer.send, _name(self._sent), [source.view], memfd=memfd))

    def receive(self, into: memoryview) -> None:
        self._received += 1
        if self._adopts:
            _wait(partial(self._peer.adopt, _name(self._received), SIZE, lambda _: None))
        else:
            _wait(partial(self._peer.expect, _name(self._received), into))

    def close(self) -> None:
        self._endpoint.close()
        self._folder.cleanup()


def _name(number: int) -> bytes:
    return number.to_bytes(16, "big")


def _wait(call: Callable[..., None]) -> None:
    errors: list[object] = []
    ended = threading.Event()

    def done(error: object) -> None:
        errors.append(error)
        ended.set()

    call(done=done)
    ended.wait()
    if errors != [None]:
        raise RuntimeError(errors[0])


FORMS: dict[str, Callable[..., Any]] = {
    "TCP": BareTcp,
    "zmq": BareZmq,
    "CURVE": partial(BareZmq, curve=True),
    "AES over zmq": partial(BareZmq, aes=True),
    "manta, sealed": Manta,
    "manta, curve": partial(Manta, form="curve"),
    "manta, plain": partial(Manta, form="plain"),
    "manta, plain, from a memfd": partial(Manta, form="plain", memfd=True),
    "manta, plain, memfd adopted": partial(Manta, form="plain", memfd=True, adopts=True),
}
UNSEEN = ("zmq", "CURVE", "manta, plain, memfd adopted")
"""Their bytes are not in the receiver's memory in the end."""


def moved(end: Any, ways: str, into: memoryview, source: Source) -> None:
    """This process's part of a run."""
    if ways == "both":
        sender = threading.Thread(target=end.send, args=(source,))
        sender.start()
        end.receive(into)
        sender.join()
    elif end.first:
        end.receive(into)
    else:
        end.send(source)


def cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def other_side(pipe: Connection, form: str, where: Any, secrets: list[str]) -> None:
    end = FORMS[form](where, secrets, 0)
    end.begin()
    into = memoryview(bytearray(SIZE))
    source: Source | None = None
    while (ways := pipe.recv()) != "stop":
        if ways == "prepare":
            source = Source()
            pipe.send(source.digest)
            continue
        assert source is not None
        before = cpu()
        moved(end, ways, into, source)
        pipe.send(cpu() - before)
        if ways == "both":
            source.close()
    end.close()


class Rig:
    """One form, with its other process."""

    def __init__(self, form: str) -> None:
        self.form = form
        secrets = [KeyPair.generate().secret for _ in range(2)]
        self.end = FORMS[form](None, secrets, 1)
        spawn = multiprocessing.get_context("spawn")
        self.pipe, theirs = spawn.Pipe()
        self.process = spawn.Process(
            target=other_side, args=(theirs, form, self.end.where, secrets), daemon=True
        )
        self.process.start()
        theirs.close()
        self.end.begin()
        self.seconds: dict[str, list[float]] = {"one": [], "both": []}
        self.cpu: list[float] = []

    def run(self, into: memoryview) -> None:
        self.pipe.send("prepare")
        source, digest = Source(), self.pipe.recv()
        for ways, times in self.seconds.items():
            before, start = cpu(), time.perf_counter()
            self.pipe.send(ways)
            moved(self.end, ways, into, source)
            theirs = self.pipe.recv()
            times.append(time.perf_counter() - start)
            if ways == "one":
                self.cpu.append(cpu() - before + theirs)
            if self.form not in UNSEEN and blake3(into).hexdigest() != digest:
                raise RuntimeError(f"{self.form}: what arrived is not what was sent")
        source.close()

    def stop(self) -> None:
        self.pipe.send("stop")
        self.end.close()
        self.process.join()

    def rate(self, ways: str, of: Callable[[list[float]], float]) -> float:
        """GB/s, both directions counted."""
        size = SIZE if ways == "one" else 2 * SIZE
        return size / 1e9 / of(self.seconds[ways][1:])


def main() -> None:
    into = memoryview(bytearray(SIZE))
    rigs = [Rig(form) for form in FORMS]
    for _ in range(RUNS):  # in turns, since the machine's load changes
        for rig in rigs:
            rig.run(into)
    for rig in rigs:
        rig.stop()
    tcp, curve = rigs[0], next(rig for rig in rigs if rig.form == "CURVE")
    print(f"{'GB/s, median and best of ' + str(RUNS - 1):30}", end="")
    print(f"{'one way':>12}{'both ways':>14}{'of TCP':>14}{'of CURVE':>14}{'CPU s/GB':>10}")
    for rig in rigs:
        print(f"{rig.form:30}", end="")
        for ways in rig.seconds:
            print(f"{rig.rate(ways, statistics.median):7.2f}{rig.rate(ways, min):6.2f}", end=" ")
        for bare in (tcp, curve):
            ratios = [rig.rate(ways, min) / bare.rate(ways, min) for ways in rig.seconds]
            print(f"{ratios[0]:7.2f}{ratios[1]:6.2f}", end=" ")
        print(f"{min(rig.cpu[1:]) / (SIZE / 1e9):9.2f}")


if __name__ == "__main__":
    main()
