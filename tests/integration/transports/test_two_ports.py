"""Ports of one process share its descriptors: what comes to one ends nothing on another."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator

import pytest

from manta.testing.transports import RecordingHandler
from manta.transports.blobs.memory_depot import MemoryDepot
from manta.transports.bulk.curve import CurveBulk
from manta.transports.bulk.options import Verdict
from manta.transports.security.admission import Admission
from manta.transports.security.keys import KeyPair
from manta.transports.zeromq.transport import ZmqTransport

HERE = "tcp://127.0.0.1:0"
# In a process of its own, whose sockets take none of the descriptors.
PEER = textwrap.dedent(
    """
    import socket, struct, sys, time
    from manta.testing.curve import CurveClient
    from manta.transports.frames import Hello, Limits, encode, encode_hello
    from manta.transports.security.keys import KeyPair
    first, second, server_key, secret = sys.argv[1:]
    print("ready", flush=True)
    sys.stdin.readline()
    stranger = socket.create_connection(("127.0.0.1", int(first.rsplit(":", 1)[1])))
    stranger.recv(1)  # it was accepted
    stranger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stranger.close()
    time.sleep(0.1)  # until its descriptor is free
    client = CurveClient(second, server_key, KeyPair.from_secret(secret)).connect()
    client.send(encode_hello(Hello(Limits(), 8 << 20, 60000)))
    client.receive()
    for part in encode([bytes(7000)], Limits())[0] * 12:
        client.send(part)  # more than a stranger may
    print("cut" if client.wait_cut(2.5) else "served", flush=True)
    """
)


@contextlib.contextmanager
def links(transport: ZmqTransport) -> Iterator[tuple[str, object]]:
    listener = transport.listen(HERE, RecordingHandler(), Admission(guests=True))
    yield listener.address, transport.call_soon


@contextlib.contextmanager
def bulk(_: ZmqTransport) -> Iterator[tuple[str, object]]:
    depot = MemoryDepot(1 << 20)
    plane = CurveBulk(KeyPair.generate(), depot)
    try:
        yield plane.listen(HERE, Admission(), lambda *_: Verdict.GRANTED), plane._loop.call
    finally:
        plane.close()
        depot.close()


@pytest.mark.parametrize("port", [links, bulk])
def test_who_resets_a_connection_to_one_port_ends_no_link_on_another(port) -> None:
    """What libzmq told of it is read when an honest peer of the other port has its descriptor."""
    known, transport, busy = KeyPair.generate(), ZmqTransport(KeyPair.generate()), threading.Event()
    with contextlib.closing(transport), port(transport) as (first, call):
        second = transport.listen(HERE, RecordingHandler(), Admission([known.public]))
        arguments = [first, second.address, transport.public_key, known.secret]
        pipe = subprocess.PIPE
        with subprocess.Popen(
            [sys.executable, "-c", PEER, *arguments], stdin=pipe, stdout=pipe, text=True
        ) as peer:
            assert peer.stdin is not None
            assert peer.stdout is not None
            peer.stdout.readline()
            call(lambda: busy.wait(0.6))  # the thread that reads it is busy for a moment
            peer.stdin.write("go\n")
            peer.stdin.flush()
            assert peer.stdout.readline() == "served\n"
