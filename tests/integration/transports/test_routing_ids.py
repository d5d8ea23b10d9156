"""Nobody ends a process by an id that libzmq has yet to give."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
from contextlib import ExitStack
from pathlib import Path

import pytest

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
from manta.transports.security.routing_ids import is_harmless, new_routing_id
from manta.transports.security.strangers import StrangerLimits
from manta.transports.zeromq import sockets
from manta.transports.zeromq.links import LinkOptions
from manta.transports.zeromq.sockets import SocketOptions
from manta.transports.zeromq.transport import ZmqTransport

ROOT = Path(__file__).parents[3]
HELLO = frames.encode_hello(Hello(Limits(), 8 * 1024 * 1024, 5000))
UNSEEDED = (0x6B8B4567, 0xE43C9869, 0x2AE8944A, 0xF4B0DC51)
"""The numbers with which the first ROUTERs begin in every process in which nobody seeds `rand`."""


def id_of(number: int) -> bytes:
    return b"\0" + (number % 2**32).to_bytes(4, "big")


CHOSEN = {
    "a name": b"node-1",
    "unseeded": id_of(UNSEEDED[0]),
    "long": bytes(200),
}


@pytest.fixture
def early(monkeypatch):
    """The answer of the ZAP handler comes before libzmq has read what the peer chose."""
    monkeypatch.setattr(zap, "identity", lambda routing_id: b"")


def test_one_place_makes_contexts() -> None:
    """Each other would have the ids of an unseeded process."""
    made = re.compile(r"(?<![\w.])(zmq|asyncio|green)\.Context\(|Context\.(instance|shadow)")
    files = {
        str(path.relative_to(ROOT))
        for room in ("actors", "light", "manta", "node", "transports")
        for path in (ROOT / room).rglob("*.py")
        if made.search(path.read_text())
    }
    assert files == {"transports/zeromq/sockets.py"}


def test_ids_that_libzmq_gives_differ_from_process_to_process_and_rand_is_left_alone() -> None:
    program = textwrap.dedent(
        """
        import ctypes, zmq
        from manta.testing.transports import RecordingHandler
        from manta.transports.security.keys import KeyPair
        from manta.transports.zeromq.sockets import SocketFactory, new_context
        from manta.transports.zeromq.transport import ZmqTransport
        client = ZmqTransport(KeyPair.generate())
        client.dial("tcp://127.0.0.1:1", client.public_key, RecordingHandler())
        print(ctypes.CDLL(None).rand())
        client.close()
        context = new_context()
        with (
            SocketFactory(context, KeyPair.generate())._make(zmq.ROUTER) as router,
            context.socket(zmq.DEALER) as dealer,
        ):
            router.bind("inproc://here")
            dealer.connect("inproc://here")
            dealer.send(b"")
            print(router.recv_multipart()[0])
        context.term()
        """
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, check=True, text=True
        ).stdout.splitlines()
        for _ in range(3)
    ]
    program = "import ctypes; print([ctypes.CDLL(None).rand() for _ in range(100)])"
    unseeded = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert {int(drawn) for drawn, _ in said} <= set(json.loads(unseeded.stdout))
    assert len({first for _, first in said}) == 3
    assert not {repr(id_of(first)) for first in UNSEEDED} & {first for _, first in said}


def test_ids_that_are_made_here_are_none_that_libzmq_gives() -> None:
    made = [new_routing_id() for _ in range(1000)]
    assert all(map(is_harmless, made))
    assert len(set(made)) == 1000
    libzmq_s = [id_of(first + number) for first in UNSEEDED for number in range(100)]
    for other in (b"", *CHOSEN.values(), *libzmq_s, bytes(15), bytes(17), bytes(255)):
        assert not is_harmless(other), other


SERVER = """
    import sys
    from manta.testing.transports import RecordingHandler, echo
    from manta.transports.security import zap
    from manta.transports.security.admission import Admission
    from manta.transports.security.keys import KeyPair
    from manta.transports.security.strangers import StrangerLimits
    from manta.transports.zeromq.transport import ZmqTransport
    if sys.argv[1:] == ["early"]:
        identity = zap.identity
        answers = iter([*[True] * 40, *[True, False] * 1000])
        zap.identity = lambda routing_id: b"" if next(answers) else identity(routing_id)
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
        # To every other one of these libzmq gives an id, in the place of a claim that is held.
        for _ in range(15):
            link = harness.transport().dial(address, public_key, RecordingHandler())
            harness.wait(lambda link=link: link.state is None)
        assert server.poll() is None
        server.stdin.close()
        assert server.wait(20) == 0


@pytest.fixture
def listener(harness):
    transport, handler = harness.transport(), RecordingHandler(echo)
    limits = StrangerLimits(burst=1000, burst_per_source=1000)
    admission = Admission(guests=True, limits=limits)
    opened = transport.listen("tcp://127.0.0.1:0", handler, admission)
    opened.server_key = transport.public_key
    return opened


def test_a_choice_is_replaced_at_the_handshake(listener) -> None:
    """Which fewer than one in a hundred escapes; a busy machine answers too soon now and then."""
    kinds = []
    for number in range(200):  # nor are the later ones kept out by the first
        chosen = list(CHOSEN.values())[number % len(CHOSEN)]
        client = CurveClient(listener.address, listener.server_key, routing_id=chosen).connect()
        with client:
            client.send(HELLO)
            kinds.append(frames.decode_head(client.receive()[0], Limits()).kind)
    assert kinds.count(Kind.HELLO) >= 196
    assert all(is_harmless(link.routing_id) for link in listener.handler.links)


@pytest.mark.parametrize("chosen", CHOSEN.values(), ids=CHOSEN.keys())
def test_a_choice_that_stood_costs_the_connection(listener, early, chosen) -> None:
    with CurveClient(listener.address, listener.server_key, routing_id=chosen) as client:
        client.connect()
        client.send(HELLO)
        head = frames.decode_head(client.receive()[0], Limits())
        assert (head.kind, frames.decode_bye(head)) == (Kind.BYE, Bye.NO_LINK)
        assert client.wait_cut()
    assert listener.handler.links == []


def test_who_dials_and_is_answered_too_soon_is_served_all_the_same(listener, harness, early):
    link = harness.transport().dial(listener.address, listener.server_key, RecordingHandler())
    harness.wait(lambda: link.state is None)
    assert is_harmless(listener.handler.link.routing_id)


def test_who_chose_no_id_and_was_answered_too_soon_dials_again_and_is_no_offender(
    harness, monkeypatch
) -> None:
    right, answers = zap.identity, iter([b"", b"", b"", None])
    monkeypatch.setattr(zap, "identity", lambda name: right(name) if next(answers) is None else b"")
    monkeypatch.setattr(sockets, "new_routing_id", lambda: b"as in an earlier version")
    server, client = harness.transport(), harness.transport()
    admission = Admission([client.public_key])
    opened = server.listen("tcp://127.0.0.1:0", RecordingHandler(echo), admission)
    link = client.dial(opened.address, server.public_key, RecordingHandler())
    harness.wait(lambda: link.state is None)
    assert not admission._offences._times


def test_handshakes_that_lead_to_nothing_keep_nobody_out(listener, harness) -> None:
    """However many there were: nothing is counted of them."""
    for _ in range(300):
        CurveClient(listener.address, listener.server_key).connect().close()
    link = harness.transport().dial(listener.address, listener.server_key, RecordingHandler())
    harness.wait(lambda: link.state is None)


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


def test_a_choice_is_replaced_on_the_bulk_port(bulk) -> None:
    with ExitStack() as held:
        clients = []
        for number in range(100):
            chosen = list(CHOSEN.values())[number % len(CHOSEN)]
            clients.append(held.enter_context(bulk(routing_id=chosen)))
            clients[-1].send(CANCEL)
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
