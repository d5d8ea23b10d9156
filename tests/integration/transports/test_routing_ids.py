"""Nobody ends a process by an id that libzmq has yet to give."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from contextlib import ExitStack
from pathlib import Path

import pytest
import zmq

from manta.testing.curve import CurveClient
from manta.testing.transports import RecordingHandler, echo
from manta.transports import frames
from manta.transports.blobs.memory_depot import MemoryDepot
from manta.transports.bulk.curve import CurveBulk
from manta.transports.bulk.options import BulkOptions, Verdict
from manta.transports.bulk.wire import Cancel, pack
from manta.transports.frames import Bye, Hello, Kind, Limits
from manta.transports.security import zap
from manta.transports.security.admission import Admission
from manta.transports.security.keys import KeyPair
from manta.transports.zeromq.links import LinkOptions
from manta.transports.zeromq.routing_ids import RoutingIds, new_context
from manta.transports.zeromq.sockets import SocketOptions
from manta.transports.zeromq.transport import ZmqTransport

ROOT = Path(__file__).parents[3]
HELLO = frames.encode_hello(Hello(Limits(), 8 * 1024 * 1024, 5000))
UNSEEDED = (0x6B8B4567, 0xE43C9869, 0x2AE8944A, 0xF4B0DC51)
"""The numbers with which the first ROUTERs begin in every process in which nobody seeds `rand`."""


def id_of(number: int) -> bytes:
    return b"\0" + (number % 2**32).to_bytes(4, "big")


CHOSEN = {"a name": b"node-1", "unseeded": id_of(UNSEEDED[0]), "long": bytes(200)}


@pytest.fixture
def early(monkeypatch):
    """The answer of the ZAP handler comes before libzmq has read what the peer chose."""
    monkeypatch.setattr(zap, "NO_ROUTING_ID", b"")


def test_one_place_makes_contexts() -> None:
    """Each other would have the ids of an unseeded process."""
    made = re.compile(r"(?<![\w.])(zmq|asyncio|green)\.Context\(|Context\.(instance|shadow)")
    files = {
        str(path.relative_to(ROOT))
        for room in ("actors", "light", "manta", "node", "transports")
        for path in (ROOT / room).rglob("*.py")
        if made.search(path.read_text())
    }
    assert files == {"transports/zeromq/routing_ids.py"}


def test_ids_differ_from_process_to_process() -> None:
    program = textwrap.dedent(
        """
        import zmq
        from manta.transports.zeromq.routing_ids import RoutingIds, new_context
        with new_context() as context, context.socket(zmq.ROUTER) as router:
            print(RoutingIds.of(router, context)._first)
        """
    )
    first = {
        subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout
        for _ in range(3)
    }
    assert len(first) == 3
    assert str(UNSEEDED[0]).encode() + b"\n" not in first


def test_ids_that_the_router_gave_are_told_from_others() -> None:
    ids = RoutingIds(id_of(2**32 - 2))
    assert ids.gave(id_of(2**32 - 1))
    assert ids.gave(id_of(3)), "the numbers begin again"
    assert ids.gave(id_of(2**32 - 1)), "they need not be heard from in order"
    for chosen in (b"", b"node-1", b"\0abcde", b"\1abcd", id_of(2**32 - 3), id_of(UNSEEDED[0])):
        assert not ids.gave(chosen), chosen
    assert ids.gave(id_of(60_000))
    assert ids.gave(id_of(120_000)), "what was chosen changes nothing"


def test_the_first_id_is_that_of_who_asked_and_the_next_ones_follow() -> None:
    with new_context() as context, context.socket(zmq.ROUTER) as router:
        ids = RoutingIds.of(router, context)
        port = router.bind_to_random_port("tcp://127.0.0.1")
        for number in range(1, 4):
            with context.socket(zmq.DEALER) as dealer:
                dealer.linger = 0
                dealer.connect(f"tcp://127.0.0.1:{port}")
                dealer.send(b"")
                routing_id, _ = router.recv_multipart()
                assert routing_id == id_of(ids._first + number)
                assert ids.gave(routing_id)


SERVER = """
    import sys
    from manta.testing.transports import RecordingHandler, echo
    from manta.transports.security import zap
    from manta.transports.security.admission import Admission
    from manta.transports.security.keys import KeyPair
    from manta.transports.security.strangers import StrangerLimits
    from manta.transports.zeromq.transport import ZmqTransport
    if sys.argv[1:] == ["early"]:
        zap.NO_ROUTING_ID = b""
    transport = ZmqTransport(KeyPair.generate())
    admission = Admission(guests=True, limits=StrangerLimits(burst=100, burst_per_source=100))
    listener = transport.listen("tcp://127.0.0.1:0", RecordingHandler(echo), admission)
    print(listener.address, transport.public_key, flush=True)
    sys.stdin.read()
    transport.close()
"""


@pytest.mark.parametrize("answer", ["late", "early"])
def test_who_claims_ids_ends_nothing(harness, answer) -> None:
    """Those that an unseeded process would give next, before honest peers come."""
    command = [sys.executable, "-c", textwrap.dedent(SERVER), answer]
    pipe = subprocess.PIPE
    with (
        subprocess.Popen(command, text=True, stdin=pipe, stdout=pipe) as server,
        ExitStack() as held,
    ):
        assert server.stdin is not None
        assert server.stdout is not None
        address, public_key = server.stdout.readline().split()
        claims = [
            CurveClient(address, public_key, routing_id=id_of(first + number)).connect()
            for first in UNSEEDED
            for number in range(10)
        ]
        for client in claims:
            held.enter_context(client)
        for client in claims[::2]:  # the others only hold theirs
            client.send(HELLO)
            kind = frames.decode_head(client.receive()[0], Limits()).kind
            assert answer == "late" or kind == Kind.BYE
        for _ in range(15):
            link = harness.transport().dial(address, public_key, RecordingHandler())
            harness.wait(lambda link=link: link.state is None)
        assert server.poll() is None
        server.stdin.close()
        assert server.wait(20) == 0


@pytest.fixture
def listener(harness):
    transport, handler = harness.transport(), RecordingHandler(echo)
    opened = transport.listen("tcp://127.0.0.1:0", handler, Admission(guests=True))
    opened.server_key = transport.public_key
    return opened


@pytest.mark.parametrize("chosen", CHOSEN.values(), ids=CHOSEN.keys())
def test_a_choice_is_replaced_at_the_handshake(listener, chosen) -> None:
    kinds = []
    for _ in range(10):  # nor are the later ones kept out by the first
        client = CurveClient(listener.address, listener.server_key, routing_id=chosen).connect()
        with client:
            client.send(HELLO)
            kinds.append(frames.decode_head(client.receive()[0], Limits()).kind)
    assert kinds.count(Kind.HELLO) >= 8, "a busy machine answers too soon now and then"
    assert all(listener._ids.gave(link.routing_id) for link in listener.handler.links)


@pytest.mark.parametrize("chosen", CHOSEN.values(), ids=CHOSEN.keys())
def test_a_choice_that_stood_costs_the_connection(listener, early, chosen) -> None:
    with CurveClient(listener.address, listener.server_key, routing_id=chosen) as client:
        client.connect()
        client.send(HELLO)
        head = frames.decode_head(client.receive()[0], Limits())
        assert (head.kind, frames.decode_bye(head)) == (Kind.BYE, Bye.PROTOCOL)
        assert client.wait_cut()
    assert listener.handler.links == []


def test_a_choice_is_not_held_in_silence(early) -> None:
    options, sockets = LinkOptions(hello=0.2), SocketOptions(handshake=300)
    transport = ZmqTransport(KeyPair.generate(), options=options, sockets=sockets)
    try:
        listener = transport.listen("tcp://127.0.0.1:0", RecordingHandler(), Admission(guests=True))
        server = listener.address, transport.public_key
        with CurveClient(*server, routing_id=id_of(UNSEEDED[0])).connect() as client:
            assert client.wait_cut()
    finally:
        transport.close()


@pytest.fixture
def bulk():
    keys, admission = KeyPair.generate(), Admission()
    depot = MemoryDepot(1_000_000)
    made = CurveBulk(keys, depot, options=BulkOptions(first=0.5))
    address = made.listen("tcp://127.0.0.1:0", admission, lambda *_: Verdict.GRANTED)

    def client(**options):
        known = KeyPair.generate()
        admission.allow(known.public)
        return CurveClient(address, keys.public, known, **options).connect()

    yield client
    made.close()
    depot.close()


CANCEL = pack(Cancel(bytes(16)))


@pytest.mark.parametrize("chosen", CHOSEN.values(), ids=CHOSEN.keys())
def test_a_choice_is_replaced_on_the_bulk_port(bulk, chosen) -> None:
    with ExitStack() as held:
        clients = [held.enter_context(bulk(routing_id=chosen)) for _ in range(10)]
        for client in clients:
            client.send(CANCEL)
        clients[-1].wait_cut(0.7)
        cut = sum(client.wait_cut(0.0) for client in clients)
    assert cut <= 2, "a busy machine answers too soon now and then"


@pytest.mark.parametrize("chosen", CHOSEN.values(), ids=CHOSEN.keys())
def test_a_choice_that_stood_costs_the_connection_on_the_bulk_port(bulk, early, chosen) -> None:
    with bulk(routing_id=chosen) as client:
        client.send(CANCEL)
        assert client.wait_cut()


def test_a_choice_is_not_held_in_silence_on_the_bulk_port(bulk, early) -> None:
    with bulk(routing_id=id_of(UNSEEDED[0])) as client:
        assert client.wait_cut()
