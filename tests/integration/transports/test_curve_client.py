"""The handwritten client against a real listener: what it can say, and what becomes of that."""

from __future__ import annotations

import contextlib
import random
import struct

import pytest

from manta.testing import curve
from manta.testing.curve import COMMAND, SEALED_COMMAND, CurveClient, Hangup, NotWelcome
from manta.testing.transports import RecordingHandler, echo
from manta.transports import frames
from manta.transports.frames import Bye, Hello, Kind, Limits
from manta.transports.security.admission import Admission
from manta.transports.security.keys import KeyPair
from manta.transports.security.strangers import StrangerLimits

HELLO = frames.encode_hello(Hello(Limits(), 8 * 1024 * 1024, 5000))


@pytest.fixture
def listener(harness):
    """An echo that takes guests."""
    transport = harness.transport()
    handler = RecordingHandler(echo)
    admission = Admission(guests=True, limits=StrangerLimits(burst=1000, burst_per_source=1000))
    opened = transport.listen("tcp://127.0.0.1:0", handler, admission)
    opened.handler, opened.server_key = handler, transport.public_key
    return opened


@pytest.fixture
def client(listener):
    with CurveClient(listener.address, listener.server_key) as made:
        yield made


def data(text: bytes) -> bytes:
    return bytes(frames.encode([text], Limits())[0][0])


def test_it_speaks_as_an_honest_client_does(listener, client):
    client.connect()
    client.send(HELLO)
    assert frames.decode_head(client.receive()[0], Limits()).kind == Kind.HELLO
    client.send(data(b"word"))
    assert client.receive() == [data(b"word")]
    assert listener.handler.links[0].peer_key == client.keys.public


def test_a_message_in_several_parts_goes_both_ways(listener, client):
    client.connect()
    client.send(HELLO)
    client.receive()
    encoded = frames.encode([b"x" * 9000, b"", b"y" * 300], Limits())[0]
    client.send(*map(bytes, encoded))
    assert client.receive() == list(map(bytes, encoded))


def test_a_ping_is_answered_with_its_context(client):
    client.connect()
    client.ping(context=b"context")
    flags, body = client.receive_frame()
    assert (flags, body) == (SEALED_COMMAND, b"\4PONGcontext")


def test_a_key_that_is_denied_hears_so(harness):
    transport = harness.transport()
    listener = transport.listen("tcp://127.0.0.1:0", RecordingHandler(), Admission())
    client = CurveClient(listener.address, transport.public_key)
    with client, pytest.raises(NotWelcome, match="400"):
        client.connect()


def test_another_servers_key_ends_the_handshake(listener):
    client = CurveClient(listener.address, KeyPair.generate().public)
    with client, pytest.raises(Hangup):
        client.connect()


def step(client, upto):
    for name in ("greet", "say_hello", "await_welcome", "initiate", "await_ready")[:upto]:
        getattr(client, name)()


@pytest.mark.parametrize("upto", range(5))
def test_a_handshake_can_stop_at_each_step(listener, client, upto):
    step(client, upto)
    assert not client.wait_cut(0.2)
    assert listener.handler.links == []


BAD = {
    "another mechanism": lambda c: c.send_raw(curve.greeting(b"NULL")),
    "an older protocol": lambda c: c.send_raw(curve.greeting(version=(1, 0))),
    "a hello that is cut short": lambda c: (
        c.greet(),
        c.send_raw(curve.frame(c.hello()[:-1], COMMAND)),
    ),
    "an initiate before hello": lambda c: (
        c.greet(),
        c.send_raw(curve.frame(curve.command(b"INITIATE", bytes(300)), COMMAND)),
    ),
    "a second hello": lambda c: (step(c, 3), c.say_hello()),
    "a forged initiate": lambda c: (
        step(c, 3),
        c.send_raw(curve.frame(curve.command(b"INITIATE", bytes(400)), COMMAND)),
    ),
    "a frame that claims too much": lambda c: (
        c.connect(),
        c.send_raw(curve.frame(b"", size=2**40)),
    ),
    "a frame in the clear": lambda c: (c.connect(), c.send_raw(curve.frame(b"in the clear"))),
    "a replay": lambda c: (c.connect(), c.send_raw(2 * c.sealed(HELLO))),
    "a bad box": lambda c: (
        c.connect(),
        c.send_raw(curve.frame(curve.command(b"MESSAGE", struct.pack("!Q", 99) + bytes(40)))),
    ),
}


@pytest.mark.parametrize("say", BAD.values(), ids=BAD.keys())
def test_what_breaks_zmtp_ends_the_connection(listener, client, say):
    say(client)
    assert client.wait_cut()
    with CurveClient(listener.address, listener.server_key).connect() as other:
        other.send(HELLO)
        other.receive()


def test_a_known_key_that_keeps_no_rule_is_soon_told_to_wait(harness):
    """And nobody else, nor a stranger for what others did."""
    transport, known = harness.transport(), KeyPair.generate()
    admission = Admission([known.public], guests=True)
    listener = transport.listen("tcp://127.0.0.1:0", RecordingHandler(), admission)
    for _ in range(5):
        with CurveClient(listener.address, transport.public_key, known).connect() as client:
            client.send(b"noise")
            assert client.wait_cut()
    client = CurveClient(listener.address, transport.public_key, known, timeout=20.0)
    with client, pytest.raises(Hangup):
        client.connect()
    for _ in range(6):
        with CurveClient(listener.address, transport.public_key).connect() as client:
            client.send(b"noise")
            assert client.wait_cut()


def test_random_connections_do_no_harm(listener):
    """Frames, flags, sizes, properties and orders that nobody would choose."""
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    bodies = (b"", HELLO, curve.ping(), b"\4PING", b"\x09SUBSCRIBE\0", b"\xff", bytes(9000))
    for _ in range(30):
        chosen = rng.choice([b"", rng.randbytes(5), rng.randbytes(300)])
        client = CurveClient(listener.address, listener.server_key, routing_id=chosen)
        client.timeout = 0.5
        with client, contextlib.suppress(Hangup, NotWelcome, TimeoutError):
            step(client, 3)
            if rng.random() < 0.3:
                names = (b"Identity", b"Socket-Type", rng.randbytes(rng.randrange(256)))
                properties = [(name, rng.randbytes(rng.randrange(99))) for name in names]
                rng.shuffle(properties)
                client.send_raw(curve.frame(client.initiation(properties), COMMAND))
            else:
                client.initiate()
                client.await_ready()
            for _ in range(10):
                sealed = client.sealed(
                    rng.choice(bodies), more=rng.random() < 0.3, flags=rng.randrange(8)
                )
                client.send_raw(sealed if rng.random() < 0.9 else rng.randbytes(50))
    with CurveClient(listener.address, listener.server_key).connect() as other:
        other.send(HELLO)
        assert other.receive(), f"seed {seed}"


def test_slow_bytes_arrive_whole(listener, client):
    client.connect()
    client.trickle(client.sealed(HELLO), 0.001)
    assert frames.decode_head(client.receive()[0], Limits()).kind == Kind.HELLO


def test_what_keeps_no_rule_of_links_is_told_so(client):
    client.connect()
    client.send(b"noise")
    head = frames.decode_head(client.receive()[0], Limits())
    assert (head.kind, frames.decode_bye(head)) == (Kind.BYE, Bye.PROTOCOL)
    assert client.wait_cut()
