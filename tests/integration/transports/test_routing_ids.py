"""Nobody ends a process by an id that libzmq has yet to give."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
import zmq

from manta.testing.transports import RecordingHandler
from manta.transports import frames
from manta.transports.blobs.memory_depot import MemoryDepot
from manta.transports.bulk.curve import CurveBulk
from manta.transports.frames import Bye, Hello, Kind, Limits
from manta.transports.security.admission import Admission
from manta.transports.security.keys import KeyPair
from manta.transports.zeromq.routing_ids import RoutingIds, new_context

HELLO = frames.encode_hello(Hello(Limits(), 8 * 1024 * 1024, 5000))
UNSEEDED = (0x6B8B4567, 0xE43C9869, 0x2AE8944A, 0xF4B0DC51)
"""The numbers with which the first ROUTERs begin in every process in which nobody seeds `rand`."""


def id_of(number: int) -> bytes:
    return b"\0" + (number % 2**32).to_bytes(4, "big")


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
    from manta.transports.security.admission import Admission
    from manta.transports.security.keys import KeyPair
    from manta.transports.zeromq.transport import ZmqTransport
    transport = ZmqTransport(KeyPair.generate())
    admission = Admission(guests=True, guest_burst=100)
    listener = transport.listen("tcp://127.0.0.1:0", RecordingHandler(echo), admission)
    print(listener.address, transport.public_key, flush=True)
    sys.stdin.read()
    transport.close()
"""


def test_who_claims_ids_ends_nothing_and_is_cut_off(harness, bare) -> None:
    """Those that an unseeded process would give next, before honest peers come."""
    command = [sys.executable, "-c", textwrap.dedent(SERVER)]
    with subprocess.Popen(
        command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        address, public_key = server.stdout.readline().split()
        claims = [
            bare(address, public_key, routing_id=id_of(first + number))
            for first in UNSEEDED
            for number in range(10)
        ]
        for dealer in claims[::2]:  # the others only hold theirs
            dealer.send(HELLO)
            head = frames.decode_head(dealer.recv_multipart()[0], Limits())
            assert (head.kind, frames.decode_bye(head)) == (Kind.BYE, Bye.PROTOCOL)
        for _ in range(15):
            link = harness.transport().dial(address, public_key, RecordingHandler())
            harness.wait(lambda link=link: link.state is None)
        assert server.poll() is None
        server.stdin.close()
        assert server.wait(20) == 0


@pytest.mark.parametrize("name", [b"node-1", id_of(UNSEEDED[0])], ids=["own", "unseeded"])
def test_a_chosen_id_is_cut_off_on_the_bulk_port(bare, name: bytes) -> None:
    keys, known = KeyPair.generate(), KeyPair.generate()
    bulk = CurveBulk(keys, MemoryDepot(1_000_000))
    try:
        address = bulk.listen("tcp://127.0.0.1:0", Admission([known.public]), lambda *_: True)
        dealer = bare(address, keys.public, known, routing_id=name, reconnect_ivl=-1)
        with dealer.get_monitor_socket(zmq.EVENT_DISCONNECTED) as monitor:
            dealer.send(b"whatever")
            assert monitor.poll(5000), "the connection was not ended"
            dealer.disable_monitor()
    finally:
        bulk.close()
