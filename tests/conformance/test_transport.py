"""What every transport keeps, over real sockets and in memory alike."""

from __future__ import annotations

import contextlib

import pytest

from manta.testing.memory.network import public_key_of
from manta.testing.transports import Harness, MemoryHarness, RecordingHandler, ZmqHarness, echo
from manta.transports.errors import (
    AddressInUse,
    DownReason,
    LinkDown,
    LinkOverflow,
    LocalTransportError,
    MessageTooLarge,
    RemoteProtocolError,
)
from manta.transports.security.admission import Admission
from manta.transports.security.keys import KeyPair
from manta.transports.security.strangers import StrangerLimits
from manta.transports.zeromq.links import LinkOptions

ANY_PORT = "tcp://127.0.0.1:0"


@pytest.fixture(params=["zmq", "memory"])
def harness(request):
    made = ZmqHarness() if request.param == "zmq" else MemoryHarness()
    yield made
    made.close()


class Pair:
    """A server and a client that is linked to it."""

    def __init__(self, harness: Harness, on_message=None, admit=True, **admission):
        self.harness = harness
        self.server, self.client = harness.transport(), harness.transport()
        known = [self.client.public_key] if admit else []
        self.admission = Admission(known, **admission)
        self.at_server, self.at_client = RecordingHandler(on_message), RecordingHandler()
        self.listener = self.server.listen(ANY_PORT, self.at_server, self.admission)
        self.link = self.client.dial(self.listener.address, self.server.public_key, self.at_client)

    def up(self):
        self.harness.wait(lambda: bool(self.at_client.links and self.at_server.links))
        return self


def test_a_link_comes_up_at_both_ends(harness):
    pair = Pair(harness).up()
    assert pair.link.state is None
    assert pair.link.peer_key == pair.server.public_key
    assert pair.link.address == pair.listener.address
    accepted = pair.at_server.link
    assert (accepted.state, accepted.peer_key, accepted.address) == (
        None,
        pair.client.public_key,
        "",
    )
    assert pair.at_client.links == [pair.link]
    assert pair.at_client.downs == []


def test_the_address_has_the_port_that_was_taken(harness):
    pair = Pair(harness)
    scheme, _, port = pair.listener.address.rpartition(":")
    assert scheme == "tcp://127.0.0.1"
    assert int(port) > 0


@pytest.mark.parametrize(
    "message",
    [
        [],
        [b""],
        [b"one"],
        [b"several", b"", b"parts"],
        [b"\0\1\2" * 100_000],
        [b"small", b"large" * 50_000, bytearray(b"mutable"), memoryview(b"a view")],
    ],
    ids=["no parts", "empty", "one", "several", "large", "mixed"],
)
def test_messages_arrive_as_they_were_sent_both_ways(harness, message):
    pair = Pair(harness, echo).up()
    pair.link.send(message)
    harness.wait(lambda: bool(pair.at_client.messages))
    expected = [bytes(part) for part in message]
    assert pair.at_server.messages == [expected]
    assert pair.at_client.messages == [expected]


def test_messages_keep_their_order(harness):
    pair = Pair(harness).up()
    sent = [[b"%d" % number, b"x" * (number % 7 * 4000)] for number in range(500)]
    for message in sent:
        pair.link.send(message)
    harness.wait(lambda: len(pair.at_server.messages) == len(sent))
    assert pair.at_server.messages == sent


def test_a_buffer_is_the_senders_again_after_send(harness):
    pair = Pair(harness).up()
    buffer = bytearray(b"before" * 20_000)
    pair.link.send([buffer])
    buffer[:] = b"after!" * 20_000
    harness.wait(lambda: bool(pair.at_server.messages))
    assert pair.at_server.messages == [[b"before" * 20_000]]


def test_sending_on_a_link_that_is_not_up_is_an_error(harness):
    pair = Pair(harness, admit=False)
    with pytest.raises(LinkDown) as caught:
        pair.link.send([b"too early"])
    assert caught.value.reason is DownReason.CONNECTING
    assert pair.link.state is DownReason.CONNECTING


def test_an_unreachable_peer_is_told_apart_and_found_when_it_comes(harness):
    client, server = harness.transport(), harness.transport()
    probe = server.listen(ANY_PORT, RecordingHandler(), Admission())
    address = probe.address
    probe.close()
    handler = RecordingHandler()
    link = client.dial(address, server.public_key, handler)
    harness.wait(lambda: link.state is DownReason.UNREACHABLE, timeout=60)
    server.listen(address, RecordingHandler(), Admission([client.public_key]))
    harness.wait(lambda: link.state is None)
    assert handler.reasons == [DownReason.UNREACHABLE]


def test_a_denied_key_is_told_so_and_let_in_once_it_is_known(harness):
    pair = Pair(harness, admit=False)
    harness.wait(lambda: pair.link.state is DownReason.DENIED, timeout=60)
    with pytest.raises(LinkDown) as caught:
        pair.link.send([b"refused"])
    assert caught.value.reason is DownReason.DENIED
    pair.admission.allow(pair.client.public_key)
    pair.up()
    assert pair.at_client.reasons == [DownReason.DENIED]


def test_guests_are_let_in_at_their_rate(harness):
    pair = Pair(harness, admit=False, guests=True, limits=StrangerLimits(rate=0.001, burst=1)).up()
    other = harness.transport()
    link = other.dial(pair.listener.address, pair.server.public_key, RecordingHandler())
    harness.wait(lambda: link.state is DownReason.BUSY, timeout=60)


def test_a_wrong_server_key_is_told_apart(harness):
    pair = Pair(harness)
    handler = RecordingHandler()
    link = pair.client.dial(pair.listener.address, public_key_of("another server"), handler)
    harness.wait(lambda: bool(handler.reasons), timeout=60)
    assert (handler.reasons, link.state) == ([DownReason.WRONG_KEY], DownReason.WRONG_KEY)


def test_who_is_cut_off_is_not_heard_any_more(harness):
    pair = Pair(harness, echo).up()
    pair.link.send([b"heard"])
    harness.wait(lambda: bool(pair.at_client.messages))
    accepted = pair.at_server.link
    with harness.frozen(pair.server):
        for _ in range(100):
            pair.link.send([b"not heard"])
    assert pair.listener.cut(pair.client.public_key) in (0, 1)
    heard = len(pair.at_server.messages)
    assert accepted.state is DownReason.REVOKED
    with pytest.raises(LinkDown) as caught:
        accepted.send([b"not sent"])
    assert caught.value.reason is DownReason.REVOKED
    harness.wait(lambda: pair.link.state is DownReason.DENIED)
    assert len(pair.at_server.messages) == heard
    assert pair.at_server.reasons == [DownReason.REVOKED]
    pair.admission.allow(pair.client.public_key)
    harness.wait(lambda: pair.link.state is None)


def test_cut_closes_every_link_of_the_key_and_no_other(harness):
    pair = Pair(harness).up()
    second = pair.client.dial(pair.listener.address, pair.server.public_key, RecordingHandler())
    bystander = harness.transport()
    pair.admission.allow(bystander.public_key)
    third = bystander.dial(pair.listener.address, pair.server.public_key, RecordingHandler())
    harness.wait(lambda: len(pair.at_server.links) == 3)
    ours = pair.client.public_key
    assert {id(link) for link in pair.listener.links(ours)} == {
        id(link) for link in pair.at_server.links if link.peer_key == ours
    }
    assert pair.listener.cut(pair.client.public_key) == 2
    assert pair.listener.cut(pair.client.public_key) == 0
    assert not pair.listener.links(pair.client.public_key)
    harness.wait(lambda: {pair.link.state, second.state} == {DownReason.DENIED})
    assert third.state is None


def test_closing_a_dialled_link_says_goodbye(harness):
    pair = Pair(harness).up()
    pair.link.close()
    assert pair.link.state is DownReason.CLOSED
    with pytest.raises(LinkDown) as caught:
        pair.link.send([b"too late"])
    assert caught.value.reason is DownReason.CLOSED
    harness.wait(lambda: bool(pair.at_server.downs and pair.at_client.downs))
    pair.link.close()
    harness.rest(0.5)
    assert pair.at_server.reasons == [DownReason.CLOSED]
    assert pair.at_client.reasons == [DownReason.CLOSED]


def test_an_owner_is_not_called_from_inside_its_own_call(harness):
    told = []

    def hang_up(link, message):
        link.close()
        told.append(list(pair.at_server.downs))

    pair = Pair(harness, hang_up).up()
    pair.link.send([b"hang up"])
    with contextlib.suppress(LinkDown):  # it may have been heard already
        pair.link.send([b"not heard any more"])
    harness.wait(lambda: bool(pair.at_server.downs))
    assert told == [[]]
    assert pair.at_server.reasons == [DownReason.CLOSED]


def test_what_was_sent_before_a_goodbye_arrives(harness):
    pair = Pair(harness).up()
    for number in range(200):
        pair.link.send([b"%d" % number])
    pair.link.close()
    harness.wait(lambda: bool(pair.at_server.downs))
    assert len(pair.at_server.messages) == 200


def test_a_dialled_link_comes_back_when_the_server_closes_it(harness):
    pair = Pair(harness).up()
    pair.at_server.link.close()
    harness.wait(lambda: len(pair.at_server.links) == 2 and pair.link.state is None)
    assert pair.at_client.reasons[0] is DownReason.CLOSED
    assert pair.at_server.reasons == [DownReason.CLOSED]
    pair.link.send([b"again"])
    harness.wait(lambda: pair.at_server.messages == [[b"again"]])


def test_a_dialled_link_survives_a_restart_of_the_server(harness):
    keys = KeyPair.generate()
    first, client = harness.transport(keys), harness.transport()
    admission = Admission([client.public_key])
    address = first.listen(ANY_PORT, RecordingHandler(), admission).address
    link = client.dial(address, keys.public, RecordingHandler())
    harness.wait(lambda: link.state is None)
    first.close()
    harness.wait(lambda: link.state is not None)
    heard = RecordingHandler()
    harness.transport(keys).listen(address, heard, admission)
    harness.wait(lambda: link.state is None)
    link.send([b"hello again"])
    harness.wait(lambda: heard.messages == [[b"hello again"]])


def test_a_taken_port_is_one_clear_sentence(harness):
    pair = Pair(harness)
    other = harness.transport()
    with pytest.raises(AddressInUse, match=r"cannot listen on tcp://.*another process"):
        other.listen(pair.listener.address, RecordingHandler(), Admission())
    pair.listener.close()
    other.listen(pair.listener.address, RecordingHandler(), Admission())


def test_a_message_beyond_the_limits_is_refused_and_costs_nothing(harness):
    pair = Pair(harness).up()
    for message in ([bytes(4 * 1024 * 1024 + 1)], [b""] * 65, [bytes(3 * 1024 * 1024)] * 2):
        with pytest.raises(MessageTooLarge, match="as a blob"):
            pair.link.send(message)
    largest = bytes(4 * 1024 * 1024)
    pair.link.send([largest])
    harness.wait(lambda: pair.at_server.messages == [[largest]])


def test_a_peer_that_does_not_read_costs_its_window_and_no_more(harness):
    pair = Pair(harness, echo).up()
    megabyte = bytes(1024 * 1024)
    sent = 0
    with harness.frozen(pair.server):
        for _ in range(7):
            assert pair.link.is_half_full == (sent >= 4)
            pair.link.send([megabyte])
            sent += 1
        with pytest.raises(LinkOverflow, match="slower than this side sends"):
            pair.link.send(
                [megabyte]
            )  # of 8 MiB, since each message costs a little more than its bytes
    harness.wait(lambda: len(pair.at_server.messages) == sent)
    harness.wait(lambda: len(pair.at_client.messages) == sent)
    pair.link.send([megabyte])  # there is room again
    assert not pair.link.is_half_full


@pytest.mark.parametrize("error", [RuntimeError("a bug"), RemoteProtocolError("nonsense")])
def test_an_exception_in_a_handler_costs_that_link_only(harness, error):
    def fail(link, message):
        raise error

    pair = Pair(harness, fail).up()
    bystander = harness.transport()
    pair.admission.allow(bystander.public_key)
    other = bystander.dial(pair.listener.address, pair.server.public_key, RecordingHandler())
    harness.wait(lambda: other.state is None)
    pair.link.send([b"provoke"])
    harness.wait(lambda: pair.link.state is DownReason.PROTOCOL)
    harness.wait(lambda: pair.at_server.reasons == [DownReason.PROTOCOL])
    assert other.state is None
    harness.wait(lambda: pair.link.state is None)  # it may try again


def test_an_exception_at_the_dialling_side_costs_the_connection(harness):
    pair = Pair(harness, echo).up()

    def fail(link, message):
        raise RuntimeError("a bug")

    pair.at_client.on_message = fail
    pair.link.send([b"provoke"])
    harness.wait(lambda: pair.at_client.reasons == [DownReason.PROTOCOL])
    harness.wait(lambda: pair.at_server.reasons == [DownReason.PROTOCOL])
    harness.wait(lambda: pair.link.state is None)


def test_many_clients_have_links_of_their_own(harness):
    pair = Pair(harness, echo, admit=False, guests=True).up()
    clients = [harness.transport() for _ in range(5)]
    handlers = [RecordingHandler() for _ in clients]
    links = [
        client.dial(pair.listener.address, pair.server.public_key, handler)
        for client, handler in zip(clients, handlers, strict=True)
    ]
    harness.wait(lambda: all(link.state is None for link in links))
    for number, link in enumerate(links):
        link.send([b"%d" % number])
    harness.wait(lambda: all(handler.messages for handler in handlers))
    assert [handler.messages for handler in handlers] == [[[b"%d" % n]] for n in range(5)]


def test_closing_a_listener_closes_its_links_and_frees_the_port(harness):
    pair = Pair(harness).up()
    pair.listener.close()
    pair.listener.close()
    harness.wait(lambda: pair.at_server.reasons == [DownReason.CLOSED])
    harness.wait(lambda: pair.link.state is DownReason.UNREACHABLE)
    assert pair.at_client.reasons[0] is DownReason.CLOSED


def test_closing_a_transport_ends_all_and_what_comes_after_is_an_error(harness):
    pair = Pair(harness).up()
    pair.client.close()
    pair.client.close()
    harness.wait(lambda: pair.at_client.reasons == [DownReason.CLOSED])
    harness.wait(lambda: pair.at_server.reasons == [DownReason.CLOSED])
    with pytest.raises(LocalTransportError, match="closed"):
        pair.client.dial(pair.listener.address, pair.server.public_key, RecordingHandler())
    with pytest.raises(LocalTransportError, match="closed"):
        pair.client.listen(ANY_PORT, RecordingHandler(), Admission())


@pytest.mark.parametrize("key", ["", "short", "x" * 41, "\\" * 40])
def test_a_key_that_is_none_is_refused_at_once(harness, key):
    with pytest.raises(LocalTransportError, match="not a CURVE key"):
        harness.transport().dial("tcp://127.0.0.1:1", key, RecordingHandler())


def test_a_frozen_peer_is_noticed_by_both_sides():
    options = LinkOptions(heartbeat=0.1, silence=0.5)
    harness = ZmqHarness(options)
    try:
        _notice(harness)
    finally:
        harness.close()


def test_a_frozen_peer_is_noticed_in_memory():
    _notice(MemoryHarness())


def _notice(harness: Harness) -> None:
    pair = Pair(harness).up()
    with harness.frozen(pair.server):
        harness.wait(lambda: pair.link.state is DownReason.SILENT)
    harness.wait(lambda: pair.link.state is None, timeout=60)
    assert pair.at_client.reasons[0] is DownReason.SILENT
    assert len(pair.at_server.downs) >= 1
