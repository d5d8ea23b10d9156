"""The ZAP handler: whom it admits, and that it cannot be brought down."""

from __future__ import annotations

import logging
import threading

import pytest
import zmq
from zmq.utils import z85

from manta.transports.errors import LocalTransportError
from manta.transports.security import zap as zap_module
from manta.transports.security.admission import Admission
from manta.transports.security.keys import KeyPair
from manta.transports.security.routing_ids import is_harmless
from manta.transports.security.strangers import StrangerLimits
from manta.transports.security.zap import ZapServer, answer, identity
from manta.transports.zeromq.sockets import SocketFactory


def request(key, *, domain=b"home", mechanism=b"CURVE", version=b"1.0"):
    return [version, b"id", domain, b"127.0.0.1", b"", mechanism, z85.decode(key.encode())]


@pytest.fixture
def key():
    return KeyPair.generate().public


def test_known_keys_are_admitted_by_their_name(key):
    *reply, metadata = answer(request(key), {"home": Admission([key])})
    assert reply == [b"1.0", b"id", b"200", b"OK", key.encode()]
    assert metadata == identity(metadata[-16:])
    assert is_harmless(metadata[-16:])


def test_unknown_ones_are_denied_and_those_too_many_asked_to_come_back(key):
    assert answer(request(key), {"home": Admission()})[2] == b"400"
    crowded = Admission(guests=True, limits=StrangerLimits(rate=0, burst=0))
    assert answer(request(key), {"home": crowded})[2] == b"300"
    assert answer(request(key, domain=b"closing"), {"home": Admission([key])})[2] == b"300"


def test_whatever_is_not_curve_is_denied(key):
    domains = {"home": Admission([key], guests=True)}
    good = request(key)
    wrong = [
        request(key, mechanism=b"PLAIN"),
        request(key, mechanism=b"NULL"),
        request(key, version=b"2.0"),
        good[:6],
        [*good, b"more"],
        [*good[:6], b"short"],
        good[:1],
        [],
    ]
    for bad in wrong:
        reply = answer(bad, domains)
        assert reply[2] == b"400"
        assert reply[4] == b""


class Failing(Admission):
    def decide(self, key, address=""):
        raise SystemExit("not even this ends the handler")


class Broken(Admission):
    def decide(self, key, address=""):
        raise ZeroDivisionError


def ask(context, key, domain=b"home"):
    """As libzmq would."""
    asker = context.socket(zmq.DEALER)
    asker.rcvtimeo = 5000
    asker.connect(zap_module.ENDPOINT)
    asker.send_multipart([b"", *request(key, domain=domain)])
    reply = asker.recv_multipart()
    asker.close(0)
    return reply


def test_a_decision_that_fails_is_put_off_and_the_handler_lives(context, zap, key, caplog):
    zap.register("broken", Broken())
    zap.register("home", Admission([key]))
    with caplog.at_level(logging.CRITICAL):
        assert ask(context, key, b"broken")[3] == b"300"
    assert ask(context, key)[3] == b"200"


def test_it_comes_back_from_the_worst(context, zap, key, caplog):
    zap.register("failing", Failing())
    zap.register("home", Admission([key]))
    with caplog.at_level(logging.CRITICAL):
        asker = context.socket(zmq.DEALER)
        asker.connect(zap_module.ENDPOINT)
        asker.send_multipart([b"", *request(key, domain=b"failing")])
        asker.close(100)
        asked = threading.Event()
        for _ in range(50):
            if zap.restarts:
                break
            asked.wait(0.1)
    assert zap.restarts == 1
    assert ask(context, key)[3] == b"200"
    assert zap.healthy


def test_garbage_is_answered_or_ignored_and_the_handler_lives(context, zap, key):
    zap.register("home", Admission([key]))
    vandal = context.socket(zmq.DEALER)
    vandal.connect(zap_module.ENDPOINT)
    for garbage in (
        [b""],
        [b"", b""],
        [b"x"],
        [b"", b"1.0", b"\xff"],
        [b"x"] * 50,
        [b"", *[b""] * 6],
    ):
        vandal.send_multipart(garbage)
    assert ask(context, key)[3] == b"200"
    assert zap.restarts == 0
    vandal.close(0)


def test_it_proves_itself_again_and_again(context, monkeypatch):
    monkeypatch.setattr(zap_module, "PROBE_INTERVAL", 0.05)
    zap = ZapServer(context)
    assert not zap.healthy
    zap.start()
    try:
        first = zap.proved_at
        for _ in range(100):
            if zap.proved_at > first:
                break
            threading.Event().wait(0.02)
        assert zap.proved_at > first
        assert zap.healthy
    finally:
        zap.stop()


def test_one_that_missed_its_probes_is_not_relied_on(zap, monkeypatch):
    zap.register("home", Admission())
    assert zap.serves("home")
    monkeypatch.setattr(zap, "proved_at", zap.proved_at - 60)
    assert not zap.serves("home")


def test_a_context_has_one_handler(context, zap):
    with pytest.raises(LocalTransportError, match="has a ZAP handler already"):
        ZapServer(context).start()
    assert zap.healthy
    zap.stop()
    again = ZapServer(context)
    again.start()
    assert again.healthy
    again.stop()
    again.stop()


def test_the_next_handler_may_start_as_soon_as_one_has_stopped(context):
    for _ in range(2000):
        server = ZapServer(context)
        server.start()
        server.stop()


def test_a_domain_belongs_to_one_listener(zap):
    zap.register("home", Admission())
    for domain in ("home", ""):
        with pytest.raises(LocalTransportError, match="empty or taken"):
            zap.register(domain, Admission())
    zap.unregister("home")
    zap.register("home", Admission())


def test_real_handshakes_bring_the_key_with_every_message(context, zap, bare):
    server_keys, known, unknown = (KeyPair.generate() for _ in range(3))
    zap.register("home", Admission([known.public]))
    factory = SocketFactory(context, server_keys, zap=zap)
    router = factory.server(zmq.ROUTER, "home")
    address = factory.bind(router, "tcp://127.0.0.1:0")
    bare(address, server_keys.public, unknown).send(b"let me in")
    dealer = bare(address, server_keys.public, known)
    for number in range(3):
        dealer.send(b"%d" % number)
    for number in range(3):
        name, body = router.recv_multipart(copy=False)
        assert name.get("User-Id") == known.public
        assert body.bytes == b"%d" % number
    assert not router.poll(200)


def test_without_the_handler_nobody_gets_in(context, zap, bare):
    """Why `serves` is asked before each bind."""
    keys = KeyPair.generate()
    zap.register("home", Admission(guests=True))
    factory = SocketFactory(context, keys, zap=zap)
    router = factory.server(zmq.ROUTER, "home")
    address = factory.bind(router, "tcp://127.0.0.1:0")
    zap.stop()
    bare(address, keys.public).send(b"anybody there?")
    assert not router.poll(300)
