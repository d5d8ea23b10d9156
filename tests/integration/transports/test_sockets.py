"""The socket factory: its options read back from the sockets, and what it refuses."""

from __future__ import annotations

import re
import socket as std_socket
from contextlib import closing
from pathlib import Path

import pytest
import zmq

from manta.testing.transports import RecordingHandler
from manta.transports.addresses import split_address
from manta.transports.blobs.memory_depot import MemoryDepot
from manta.transports.bulk.curve import CurveBulk
from manta.transports.bulk.options import Verdict
from manta.transports.errors import AddressInUse, LocalTransportError
from manta.transports.security.admission import Admission
from manta.transports.security.keys import KeyPair
from manta.transports.security.routing_ids import is_harmless
from manta.transports.security.zap import ZapServer
from manta.transports.zeromq.sockets import SocketFactory, SocketOptions


@pytest.fixture
def keys():
    return KeyPair.generate()


@pytest.fixture
def factory(context, zap, keys):
    zap.register("home", Admission(guests=True))
    return SocketFactory(context, keys, zap=zap)


def read_back(socket):
    names = [
        *("LINGER", "SNDTIMEO", "HANDSHAKE_IVL", "CONNECT_TIMEOUT", "HEARTBEAT_IVL"),
        *("HEARTBEAT_TIMEOUT", "HEARTBEAT_TTL", "RECONNECT_IVL", "RECONNECT_IVL_MAX"),
        *("SNDHWM", "RCVHWM", "MAXMSGSIZE", "BACKLOG"),
    ]
    return {name: socket.getsockopt(getattr(zmq, name)) for name in names}


def test_every_option_has_a_bound(factory, keys):
    for socket in (
        factory.server(zmq.ROUTER, "home"),
        factory.client(zmq.DEALER, KeyPair.generate().public),
    ):
        values = read_back(socket)
        assert 0 <= values["LINGER"] <= 2000
        assert 0 < values["SNDTIMEO"] <= 5000
        assert 0 < values["HANDSHAKE_IVL"] <= 5000
        assert 0 < values["CONNECT_TIMEOUT"] <= 5000
        assert 0 < values["HEARTBEAT_IVL"] < values["HEARTBEAT_TIMEOUT"] <= 5000
        assert 0 < values["HEARTBEAT_TTL"] <= 5000
        assert 0 < values["RECONNECT_IVL"] < values["RECONNECT_IVL_MAX"] <= 5000
        assert 0 < values["SNDHWM"] <= 1000
        assert 0 < values["RCVHWM"] <= 1000
        assert 0 < values["MAXMSGSIZE"] <= 4 * 1024 * 1024 + 64
        assert values["BACKLOG"] >= 512
        assert socket.getsockopt(zmq.MECHANISM) == zmq.CURVE
        name = socket.getsockopt(zmq.ROUTING_ID)
        assert is_harmless(name) if socket.type == zmq.DEALER else name == b""


def sockets_in_use(harness):
    """Those of both planes as a manager and a node have them: listeners and what dialled them."""
    server, client = harness.transport(), harness.transport()
    admission = Admission([client.public_key])
    listener = server.listen("tcp://127.0.0.1:0", RecordingHandler(), admission)
    link = client.dial(listener.address, server.public_key, RecordingHandler())
    harness.wait(lambda: link.state is None)
    yield listener.socket, link._dealer.socket
    keys, depot = KeyPair.generate(), MemoryDepot(1_000_000)
    with closing(depot), closing(CurveBulk(keys, depot)) as bulk:
        address = bulk.listen(
            "tcp://127.0.0.1:0", Admission([keys.public]), lambda *_: Verdict.GRANTED
        )
        peer = bulk.dial(address, keys.public)
        peer.push(depot.put(b"word"), 4, timeout=20).result(20)
        yield bulk._listeners[0]._socket, peer._connection._socket


def test_every_socket_in_use_is_bounded(harness):
    for sockets in sockets_in_use(harness):
        for socket in sockets:
            values = read_back(socket)
            assert 0 <= values["LINGER"] <= 2000
            assert 0 < values["SNDTIMEO"] <= 5000
            assert 0 < values["HANDSHAKE_IVL"] <= 5000
            assert 0 < values["CONNECT_TIMEOUT"] <= 5000
            assert 0 < values["HEARTBEAT_IVL"] < values["HEARTBEAT_TIMEOUT"] <= 30_000
            assert 0 < values["HEARTBEAT_TTL"] <= 30_000
            assert 0 < values["SNDHWM"] <= 1000
            assert 0 < values["RCVHWM"] <= 1000
            assert 0 < values["MAXMSGSIZE"] <= 4 * 1024 * 1024 + 1024
            assert socket.getsockopt(zmq.MECHANISM) == zmq.CURVE
            assert socket.context.get(10) == 0, "small frames are copied"


def test_the_factory_alone_makes_sockets_for_the_network():
    """The others that call `socket` stay within the process."""
    root = Path(__file__).parents[3]
    made = re.compile(r"context\.socket\(")
    files = {
        str(path.relative_to(root))
        for room in ("actors", "light", "manta", "node", "transports")
        for path in (root / room).rglob("*.py")
        if made.search(path.read_text())
    }
    assert files == {
        "transports/security/zap.py",
        "transports/zeromq/sockets.py",
    }


def test_the_options_are_those_that_were_asked_for(context, zap, keys):
    zap.register("home", Admission())
    options = SocketOptions(linger=1, send_timeout=2, handshake=3, frame_bytes=1000, send_hwm=7)
    factory = SocketFactory(context, keys, zap=zap, options=options)
    values = read_back(factory.server(zmq.ROUTER, "home"))
    assert [values[n] for n in ("LINGER", "SNDTIMEO", "HANDSHAKE_IVL", "SNDHWM")] == [1, 2, 3, 7]
    assert values["MAXMSGSIZE"] == 1064


def test_a_server_is_behind_curve_and_an_enforced_domain(factory):
    server = factory.server(zmq.ROUTER, "home")
    assert server.getsockopt(zmq.CURVE_SERVER) == 1
    assert server.getsockopt_string(zmq.ZAP_DOMAIN) == "home"
    assert server.getsockopt(zmq.ZAP_ENFORCE_DOMAIN) == 1


def test_a_client_pins_its_servers_key(factory, keys):
    server = factory.server(zmq.ROUTER, "home")
    address = factory.bind(server, "tcp://127.0.0.1:0")
    for pinned, arrives in ((KeyPair.generate().public, False), (keys.public, True)):
        client = factory.client(zmq.DEALER, pinned)
        factory.connect(client, address)
        client.send(b"hello")
        assert bool(server.poll(5000 if arrives else 200)) is arrives
    with pytest.raises(LocalTransportError, match="not a CURVE key"):
        factory.client(zmq.DEALER, "no key")


def test_a_router_reports_who_is_gone_and_keeps_thieves_out(factory):
    router = factory.server(zmq.ROUTER, "home")
    factory.bind(router, "tcp://127.0.0.1:0")
    with pytest.raises(zmq.ZMQError) as caught:  # MANDATORY cannot be read back
        router.send_multipart([b"nobody", b"x"])
    assert caught.value.errno == zmq.EHOSTUNREACH


def test_no_server_without_a_live_handler_for_its_domain(context, keys):
    """Each of these, but for the check, would let anybody in or nobody."""
    for zap in (None, ZapServer(context)):
        with pytest.raises(LocalTransportError, match="no live ZAP handler"):
            SocketFactory(context, keys, zap=zap).server(zmq.ROUTER, "home")
    zap = ZapServer(context)
    zap.start()
    factory = SocketFactory(context, keys, zap=zap)
    with pytest.raises(LocalTransportError, match="no live ZAP handler"):
        factory.server(zmq.ROUTER, "unregistered")
    zap.register("home", Admission())
    server = factory.server(zmq.ROUTER, "home")
    zap.stop()
    with pytest.raises(LocalTransportError, match="no live ZAP handler"):
        factory.bind(server, "tcp://127.0.0.1:0")


def test_only_a_socket_of_the_factorys_own_is_bound(context, factory):
    plain = context.socket(zmq.ROUTER)
    with pytest.raises(LocalTransportError, match="make it with `server`"):
        factory.bind(plain, "tcp://127.0.0.1:0")
    client = factory.client(zmq.DEALER, KeyPair.generate().public)
    with pytest.raises(LocalTransportError, match="make it with `server`"):
        factory.bind(client, "tcp://127.0.0.1:0")


def test_a_port_of_zero_takes_a_free_one(factory):
    address = factory.bind(factory.server(zmq.ROUTER, "home"), "tcp://127.0.0.1:0")
    assert split_address(address)[1] > 0
    with pytest.raises(AddressInUse, match="another process listens there"):
        factory.bind(factory.server(zmq.ROUTER, "home"), address)


@pytest.mark.parametrize("address", ["tcp://localhost:0", "tcp://*:0"])
def test_names_and_all_addresses_can_be_bound(factory, address, keys):
    server = factory.server(zmq.ROUTER, "home")
    port = split_address(factory.bind(server, address))[1]
    client = factory.client(zmq.DEALER, keys.public)
    factory.connect(client, f"tcp://127.0.0.1:{port}")
    client.send(b"hello")
    assert server.poll(5000)


def test_a_socket_that_the_parent_opened_is_served(factory, keys):
    """Socket activation: the descriptor stays the caller's own."""
    with std_socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        address = f"tcp://127.0.0.1:{listening.getsockname()[1]}"
        for _ in range(2):  # and again, as after a restart of the listener
            server = factory.server(zmq.ROUTER, "home")
            assert factory.bind(server, address, fd=listening.fileno()) == address
            client = factory.client(zmq.DEALER, keys.public)
            factory.connect(client, address)
            client.send(b"hello")
            assert server.poll(5000)
            assert server.recv_multipart()[1] == b"hello"
            client.close()
            server.close()


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("tcp://nosuchname.invalid:0", "'nosuchname.invalid' is not known here"),
        ("tcp://203.0.113.1:0", "does not have that address"),
        ("ipc:///tmp/x", "write tcp://HOST:PORT"),
        ("localhost:1", "write tcp://HOST:PORT"),
        ("tcp://localhost", "write tcp://HOST:PORT"),
        ("tcp://:1", "write tcp://HOST:PORT"),
        ("tcp://localhost:99999", "ports end at 65535"),
    ],
)
def test_an_address_that_cannot_be_is_one_clear_sentence(factory, address, sentence):
    with pytest.raises(LocalTransportError, match=sentence):
        factory.bind(factory.server(zmq.ROUTER, "home"), address)
