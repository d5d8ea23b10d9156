"""Both ends of bulk transfers, in virtual time, over links that are cut at random."""

from __future__ import annotations

import os
import random
from concurrent.futures import Future

import pytest

from manta.transports.blobs.digests import digest_of
from manta.transports.bulk.client import BulkClient, Request
from manta.transports.bulk.flow import RequestTimer
from manta.transports.bulk.options import BulkOptions, Verdict
from manta.transports.bulk.server import BulkServer
from manta.transports.bulk.transfers import Statistics
from manta.transports.bulk.wire import (
    Accept,
    Chunk,
    Credit,
    Done,
    OpenFetch,
    OpenPush,
    compress,
    pack,
    payload_of,
    unpack,
)
from manta.transports.errors import (
    BlobCorrupt,
    BlobMissing,
    BlobRefused,
    BlobTooLarge,
    BulkError,
    BulkTimeout,
    DownReason,
    RemoteProtocolError,
    VersionMismatch,
)
from manta.transports.security.admission import Admission

KEY = "k" * 40
OPTIONS = BulkOptions(chunk=100, window=400, peer_budget=1000, max_opened=4, max_served=5)


class DictDepot:
    """A depot in a dict; `room` bytes a blob."""

    def __init__(self, room: int = 1 << 30) -> None:
        self.blobs: dict[str, bytes] = {}
        self.room = room
        self.open = 0

    def put(self, blob: bytes) -> str:
        digest = digest_of(blob)
        self.blobs[digest] = blob
        return digest

    def source(self, digest):
        if digest not in self.blobs:
            raise BlobMissing(f"the blob {digest[:12]} is not here")
        self.open += 1
        return DictSource(self, self.blobs[digest])

    def sink(self, digest, size):
        return None if digest in self.blobs else self.draft(digest, size)

    def draft(self, digest, size):
        if size > self.room:
            raise BlobRefused("no room")
        self.open += 1
        return DictSink(self, digest)


class DictSource:
    def __init__(self, depot, blob):
        self.depot, self.blob, self.size = depot, blob, len(blob)
        self.ready = self.size

    def read(self, offset, length):
        return self.blob[offset : offset + length]

    def close(self):
        self.depot.open -= 1


class DictSink:
    def __init__(self, depot, digest):
        self.depot, self.digest, self.data = depot, digest, bytearray()

    @property
    def written(self):
        return len(self.data)

    def write(self, data):
        self.data += data

    def commit(self):
        self.depot.open -= 1
        if digest_of(self.data) != self.digest:
            raise BlobCorrupt("not what was announced")
        self.depot.blobs[self.digest] = bytes(self.data)

    def abort(self):
        self.depot.open -= 1


class World:
    """A client and a server, and a link that can be cut."""

    def __init__(self, options=OPTIONS, authorize=lambda *_: Verdict.GRANTED, seed=0) -> None:
        self.now = 0.0
        self.options = options
        self.random = random.Random(seed)
        self.near, self.far = DictDepot(), DictDepot()
        self.there: list[list[bytes]] = []
        self.back: list[list[bytes]] = []
        self.up = False
        self.route = 0
        self.total, self.served = Statistics(), Statistics()
        self.admission = Admission([KEY])
        self.authorize = authorize
        self.pushed: list[tuple[str, str]] = []
        self.client = BulkClient("tcp://far:1", self.near, self.to_server, options, self.total)
        self.start_server()

    def start_server(self):
        self.server = BulkServer(
            self.far,
            self.admission,
            self.authorize,
            lambda key, digest: self.pushed.append((key, digest)),
            self.to_client,
            self.options,
            self.served,
        )

    def to_server(self, frames):
        if self.up:
            self.there.append([bytes(frame) for frame in frames])
        return self.up

    def to_client(self, route, frames):
        if not self.up or route != str(self.route).encode():
            return False
        self.back.append([bytes(frame) for frame in frames])
        return True

    def connect(self):
        self.route += 1
        self.up = True
        self.client.connected()

    def cut(self):
        self.up = False
        self.there.clear()
        self.back.clear()
        self.client.lost(DownReason.UNREACHABLE)

    def request(self, operation, digest, size, timeout=100.0) -> Future[None]:
        future: Future[None] = Future()
        timer = RequestTimer(self.now, timeout, self.options.repeat_after)
        self.client.start(Request(operation, digest, size, future, timer))
        return future

    def step(self) -> bool:
        """Deliver one message; False when there is none."""
        queues = [queue for queue in (self.there, self.back) if queue]
        if not queues:
            return False
        queue = self.random.choice(queues)
        header, *payload = queue.pop(0)
        message = unpack(header)
        data = payload[0] if payload else None
        if queue is self.there:
            self.server.received(str(self.route).encode(), KEY, message, data, self.now)
        else:
            self.client.received(message, data, self.now)
        return True

    def run(self):
        while self.step():
            pass

    def advance(self, seconds):
        for _ in range(int(seconds * 10)):
            self.now += 0.1
            self.client.tick(self.now)
            self.server.tick(self.now)
            self.run()


@pytest.fixture
def world():
    world = World()
    yield world
    world.client.fail(BulkError("over"))
    world.server.close()
    assert (world.near.open, world.far.open) == (0, 0)


@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 5000])
def test_push_and_fetch(world, size):
    world.connect()
    out, back = os.urandom(size), os.urandom(size) + b"!"
    pushed = world.request("push", world.near.put(out), size)
    fetched = world.request("fetch", world.far.put(back), size + 1)
    world.run()
    assert pushed.result(0) is None
    assert fetched.result(0) is None
    assert out in world.far.blobs.values()
    assert back in world.near.blobs.values()
    assert not world.server.busy
    assert not world.client.busy


def test_what_is_there_already_is_not_moved(world):
    world.connect()
    digest = world.near.put(b"x" * 1000)
    world.far.put(b"x" * 1000)
    pushed, fetched = world.request("push", digest, 1000), world.request("fetch", digest, 1000)
    world.run()
    assert pushed.done()
    assert fetched.done()
    assert world.total.sent == world.served.sent == 0


def test_errors_arrive_as_what_they_are(world):
    world.connect()
    digest = world.near.put(b"x" * 1000)
    world.far.room = 10
    refused = world.request("push", digest, 1000)
    missing_here = world.request("push", "a" * 64, 10)
    missing_there = world.request("fetch", "b" * 64, 10)
    wrong_size = world.request("fetch", world.far.put(b"y"), 7)
    world.run()
    for future, kind in (
        (refused, BlobRefused),
        (missing_here, BlobMissing),
        (missing_there, BlobMissing),
        (wrong_size, BlobCorrupt),
    ):
        assert type(future.exception(0)) is kind


@pytest.mark.parametrize("operation", ["push", "fetch"])
def test_a_corrupt_source_is_found_by_the_receiver(world, operation):
    world.connect()
    digest = digest_of(b"right")
    depot = world.near if operation == "push" else world.far
    depot.blobs[digest] = b"wrong"
    future = world.request(operation, digest, 5)
    world.run()
    assert isinstance(future.exception(0), BlobCorrupt)


def test_what_can_never_be_taken_arrives_as_that():
    def authorize(key, operation, digest, size):
        raise BlobTooLarge("the quota is 4 B")

    world = World(authorize=authorize)
    world.connect()
    refused = world.request("push", world.near.put(b"large"), 5)
    world.run()
    with pytest.raises(BlobTooLarge, match="the quota is 4 B"):
        refused.result(0)


def test_authorize_is_asked_for_each_transfer():
    asked = []

    def authorize(key, operation, digest, size):
        asked.append((key, operation, digest, size))
        return Verdict.GRANTED if operation == "fetch" else Verdict.REFUSED

    world = World(authorize=authorize)
    world.connect()
    pushed = world.request("push", world.near.put(b"a"), 1)
    fetched = world.request("fetch", world.far.put(b"b"), 1)
    world.run()
    with pytest.raises(BlobRefused, match="may not push"):
        pushed.result(0)
    assert fetched.result(0) is None
    assert asked == [(KEY, "push", digest_of(b"a"), 1), (KEY, "fetch", digest_of(b"b"), 1)]


def test_what_a_peer_may_not_fetch_is_as_what_is_not_here():
    world = World(authorize=lambda *_: Verdict.REFUSED)
    world.connect()
    here, nowhere = world.far.put(b"secret"), digest_of(b"none")
    refusals = [world.request("fetch", digest, 6) for digest in (here, nowhere)]
    refusals.append(world.request("fetch", here, 7))
    world.run()
    said = {str(one.exception(0)).replace(nowhere[:12], here[:12]) for one in refusals}
    assert said == {f"the blob {here[:12]} is not here"}
    assert {type(one.exception(0)) for one in refusals} == {BlobMissing}
    granted = World()
    granted.connect()
    missing = granted.request("fetch", nowhere, 6)
    granted.run()
    assert str(missing.exception(0)) == f"the blob {nowhere[:12]} is not here"


def test_who_may_not_know_that_a_blob_is_here_sends_all_of_it():
    world = World(authorize=lambda *_: Verdict.UNPROVEN)
    world.connect()
    blob = bytes(5000)
    digest = world.far.put(blob)
    forged = digest_of(b"known, not had")
    world.far.blobs[forged] = b"known, not had"
    world.near.blobs[forged] = b"something else"
    pushed = world.request("push", world.near.put(blob), 5000)
    guessed = world.request("push", forged, 14)
    world.run()
    assert pushed.result(0) is None
    assert world.served.received >= 5000
    assert isinstance(guessed.exception(0), BlobCorrupt)
    assert world.pushed == [(KEY, digest)]
    assert world.far.blobs == {digest: blob, forged: b"known, not had"}
    # Nor does it learn of it by a size that no depot has room for.
    world.far.room = 4999
    huge = [world.request("push", one, 5000) for one in (digest, digest_of(b"none"))]
    world.near.blobs[digest_of(b"none")] = blob
    world.run()
    assert all(isinstance(one.exception(0), BulkError) for one in huge)


def test_who_may_know_of_a_blob_need_not_send_it():
    world = World()
    world.connect()
    world.far.put(bytes(5000))
    pushed = world.request("push", world.near.put(bytes(5000)), 5000)
    world.run()
    assert pushed.result(0) is None
    assert world.served.received == 0


def test_another_s_push_does_not_prove_one_s_own():
    verdicts = {"other": Verdict.UNPROVEN, KEY: Verdict.UNPROVEN}
    world = World(authorize=lambda key, *_: verdicts[key])
    world.admission.allow("other")
    world.connect()
    blob = bytes(5000)
    other = OpenPush(b"2" * 16, digest_of(blob), len(blob))
    world.server.received(b"elsewhere", "other", other, None, world.now)
    assert world.request("push", world.near.put(blob), len(blob)) is not None
    world.run()
    assert world.pushed == [(KEY, digest_of(blob))]
    assert world.server.busy  # the other one has yet to send it
    world.server.drop("other")


def test_what_is_not_decided_yet_is_asked_again():
    verdicts = [Verdict.LATER, Verdict.LATER, Verdict.GRANTED]
    world = World(authorize=lambda *_: verdicts.pop(0))
    world.connect()
    fetched = world.request("fetch", world.far.put(b"a"), 1)
    world.run()
    assert not fetched.done()
    world.advance(20)
    assert fetched.result(0) is None
    assert verdicts == []


def test_an_error_in_authorize_refuses(caplog):
    world = World(authorize=lambda *_: 1 // 0)
    world.connect()
    pushed = world.request("push", world.near.put(b"a"), 1)
    world.run()
    assert isinstance(pushed.exception(0), BulkError)
    assert "ZeroDivisionError" in caplog.text


def test_a_denied_peer_gets_nothing_more(world):
    world.connect()
    future = world.request("fetch", world.far.put(bytes(5000)), 5000)
    for _ in range(4):
        world.step()
    world.admission.deny(KEY)
    world.back.clear()
    world.run()
    world.advance(20)
    assert world.back == []
    assert not world.server.busy
    assert not future.done()


def test_a_silent_peer_is_asked_again_and_given_up(world):
    future = world.request("fetch", world.far.put(bytes(5000)), 5000, timeout=30.0)
    world.connect()
    for _ in range(4):
        world.step()
    world.there.clear()  # lost, although nothing says so
    world.back.clear()
    assert world.client.busy
    world.advance(6)
    assert future.result(0) is None
    future = world.request("push", world.near.put(os.urandom(500)), 500, timeout=30.0)
    world.cut()
    world.advance(31)
    with pytest.raises(BulkTimeout, match=r"push to tcp://far:1 .* within 30 s: .*unreachable"):
        future.result(0)


def test_idle_transfers_of_a_vanished_peer_end(world):
    world.connect()
    world.request("push", world.near.put(os.urandom(5000)), 5000)
    world.request("fetch", world.far.put(os.urandom(5000)), 5000)
    for _ in range(6):
        world.step()
    world.cut()
    world.client.fail(BulkError("the process ended"))
    assert world.far.open == 2
    world.advance(61)
    assert world.far.open == 0


def test_what_a_vanished_process_left_does_not_block_its_successor(world):
    world.connect()
    for _ in range(4):
        world.request("push", world.near.put(os.urandom(5000)), 5000)
        world.request("fetch", world.far.put(os.urandom(5000)), 5000)
    for _ in range(10):
        world.step()
    world.cut()
    world.client.fail(BulkError("the process ended"))
    world.connect()
    futures = [
        world.request("push", world.near.put(os.urandom(5000)), 5000),
        world.request("fetch", world.far.put(os.urandom(5000)), 5000),
    ]
    world.advance(16)
    assert [future.result(0) for future in futures] == [None, None]


def test_cancelling(world):
    world.connect()
    future: Future[None] = Future()
    request = Request(
        "fetch", world.far.put(bytes(5000)), 5000, future, RequestTimer(0.0, 9.0, 5.0)
    )
    world.client.start(request)
    for _ in range(3):
        world.step()
    assert future.cancel()
    world.client.forget(request)
    world.run()
    assert not world.client.busy
    assert not world.server.busy


def test_many_requests_wait_for_their_turn(world):
    world.connect()
    blobs = [bytes([number]) * 1500 for number in range(20)]
    futures = [world.request("push", world.near.put(blob), 1500) for blob in blobs]
    assert world.near.open == OPTIONS.max_opened
    world.run()
    assert all(future.result(0) is None for future in futures)
    assert sorted(world.far.blobs.values()) == sorted(blobs)


def test_more_transfers_than_a_peer_may_open_have_to_wait(world):
    world.connect()
    messages = [OpenPush(bytes([n]) * 16, digest_of(bytes([n])), 1) for n in range(6)]
    for message in messages:
        world.server.received(b"1", KEY, message, None, 0.0)
    assert [type(unpack(frames[0])) for frames in world.back] == [Accept] * 5
    world.server.received(b"1", KEY, messages[5], None, 11.0)  # the others have not been heard of
    assert [type(unpack(frames[0])) for frames in world.back] == [Accept] * 6
    world.back.clear()


def test_one_blob_from_several_peers(world):
    other = "o" * 40
    world.admission.allow(other)
    world.connect()
    blob = os.urandom(3000)
    future = world.request("push", world.near.put(blob), 3000)
    opened = OpenPush(b"1" * 16, digest_of(blob), 3000)
    world.server.received(b"1", other, opened, None, 0.0)
    assert isinstance(unpack(world.back.pop()[0]), Accept)
    while not future.done():
        header = unpack(world.back[0][0]) if world.back else None
        if header == Done(b"1" * 16):
            world.back.pop(0)
        world.step()
    assert world.far.open == 0


def test_only_known_messages_in_the_right_direction(world):
    world.connect()
    digest = world.far.put(b"x" * 1000)
    wrong_for_servers = [
        (Accept(b"1" * 16, 0, 0), None),
        (Done(b"1" * 16), None),
        (Chunk(b"1" * 16, 0, 1, False), None),
        (Credit(b"2" * 16, 5000, 6000), None),
        (OpenFetch(b"2" * 16, digest, 999, 0, 0), None),
        (OpenPush(b"2" * 16, digest, 1000), None),
        (OpenFetch(b"2" * 16, digest, 1000, 9, 5), None),
        (Chunk(b"2" * 16, 0, 1, False), b"x"),
    ]
    for message, payload in wrong_for_servers:
        world.server.received(b"1", KEY, OpenFetch(b"2" * 16, digest, 1000, 0, 0), None, 0.0)
        with pytest.raises(RemoteProtocolError):
            world.server.received(b"1", KEY, message, payload, 0.0)
        world.server.drop(KEY)
        assert world.far.open == 0
    world.back.clear()


def test_malformed_frames():
    for frame in (b"", b"\x01", b"\x01\xc0", bytes(5000), pack(Done(b"1" * 16))[:-1]):
        with pytest.raises(RemoteProtocolError):
            unpack(frame)
    with pytest.raises(VersionMismatch, match="version 2"):
        unpack(b"\x02" + pack(Done(b"1" * 16))[1:])
    for message in (Done(b"short"), OpenPush(b"1" * 16, "no digest", 1), Accept(b"1" * 16, -1, 0)):
        with pytest.raises(RemoteProtocolError):
            unpack(pack(message))


def test_compressed_chunks_are_bounded():
    data = b"a" * 1000
    smaller = compress(data)
    assert smaller is not None
    assert compress(os.urandom(1000)) is None
    assert payload_of(Chunk(b"1" * 16, 0, 1000, True), smaller) == data
    for chunk, payload in (
        (Chunk(b"1" * 16, 0, 999, True), smaller),
        (Chunk(b"1" * 16, 0, 1001, True), smaller),
        (Chunk(b"1" * 16, 0, 1000, True), b"garbage"),
        (Chunk(b"1" * 16, 0, 999, False), data),
    ):
        with pytest.raises(RemoteProtocolError):
            payload_of(chunk, payload)


def test_what_compresses_is_compressed():
    world = World(BulkOptions())
    world.connect()
    blob = b"0123456789" * 200_000
    future = world.request("push", world.near.put(blob), len(blob))
    moved = 0
    while world.there or world.back:
        moved += sum(len(frame) for frame in world.there[0]) if world.there else 0
        world.step()
    assert future.done()
    assert world.far.blobs[digest_of(blob)] == blob
    assert moved < len(blob) // 2


@pytest.mark.parametrize("seed", range(40))
def test_cuts_restarts_and_denials_lose_nothing(seed):
    """Whatever happens to the link and the server, everything arrives, once."""
    world = World(seed=seed)
    chance = world.random
    blobs = [chance.randbytes(chance.choice([0, 1, 700, 5000])) for _ in range(6)]
    futures = [
        world.request("push", world.near.put(blob + b"p"), len(blob) + 1, 1e6) for blob in blobs
    ] + [world.request("fetch", world.far.put(blob + b"f"), len(blob) + 1, 1e6) for blob in blobs]
    world.connect()
    for _ in range(300):
        if chance.random() < 0.03:
            world.cut()
            if chance.random() < 0.3:
                world.server.close()
                world.start_server()
            world.now += chance.choice([0.0, 1.0, 30.0, 90.0])
            world.server.tick(world.now)
            world.connect()
        if chance.random() < 0.01 and world.back:
            world.back.pop(chance.randrange(len(world.back)))  # as a full queue would
        world.step()
    world.advance(40)
    assert [future.result(0) for future in futures] == [None] * 12
    assert set(world.near.blobs) == set(world.far.blobs)
    assert (world.near.open, world.far.open) == (0, 0)
    assert not world.client.busy


def test_fuzz_never_breaks_the_server():
    """Any bytes are a message or a RemoteProtocolError, and nothing stays open."""
    world = World()
    world.up = True
    digest = world.far.put(bytes(1000))
    chance = random.Random(32)
    transfer = b"1" * 16
    seeds = [
        pack(message)
        for message in (
            OpenPush(transfer, "a" * 64, 500),
            OpenFetch(transfer, digest, 1000, 0, 400),
            Chunk(transfer, 0, 100, False),
            Chunk(transfer, 0, 100, True),
            Credit(transfer, 100, 500),
            Done(transfer),
        )
    ]
    understood = 0
    for _ in range(10_000):
        frame = bytearray(chance.choice(seeds))
        for _ in range(chance.choice((0, 1, 1, 3))):
            frame[chance.randrange(len(frame))] = chance.randrange(256)
        if chance.random() < 0.2:
            del frame[chance.randrange(len(frame)) :]
        payload = chance.choice((None, b"", bytes(100), chance.randbytes(100)))
        try:
            world.server.received(b"1", KEY, unpack(frame), payload, 0.0)
            understood += 1
        except RemoteProtocolError:
            world.server.drop(KEY)
        world.back.clear()
    world.server.close()
    assert understood > 1000
    assert world.far.open == 0


class Growing(DictSource):
    """Of a blob that arrives."""

    def __init__(self, depot, blob):
        super().__init__(depot, blob)
        self.ready = 0


def growing(world, blob):
    digest, source = digest_of(blob), Growing(world.far, blob)
    world.far.open += 1
    world.far.source = lambda _: source
    return digest, source


def test_a_blob_is_sent_as_far_as_it_has_come(world):
    blob = os.urandom(5000)
    digest, source = growing(world, blob)
    world.connect()
    fetched = world.request("fetch", digest, len(blob))
    world.run()
    assert world.total.received == 0
    for ready in (1, 250, 3000):
        source.ready = ready
        world.server.grown(digest)
        world.run()
        assert world.total.received == ready
    world.server.grown("another")
    source.ready = len(blob)
    world.server.grown(digest)
    world.run()
    assert fetched.result(0) is None
    assert world.near.blobs[digest] == blob


def test_who_fetches_what_does_not_arrive_is_told(world):
    digest, source = growing(world, os.urandom(5000))
    source.ready = 1000
    world.connect()
    fetched = world.request("fetch", digest, 5000)
    world.run()
    world.server.failed(digest, BlobCorrupt("what was passed on was wrong"))
    world.run()
    assert isinstance(fetched.exception(0), BlobCorrupt)
    assert not world.server.busy


def test_a_peer_that_cannot_be_reached_is_given_up():
    world = World(options=BulkOptions(unlinked=2.0))
    fetched = world.request("fetch", world.far.put(bytes(5000)), 5000)
    world.advance(1.5)
    assert not fetched.done()
    world.advance(1)
    assert isinstance(fetched.exception(0), BulkTimeout)
    assert not world.client.busy


class Unreadable(DictSource):
    """Of a file that was changed, as is found when it is read."""

    def read(self, offset, length):
        raise BlobCorrupt("the file was changed")


@pytest.mark.parametrize("operation", ["push", "fetch"])
def test_what_cannot_be_read_to_its_end_fails_and_holds_up_nothing_else(
    world, operation, monkeypatch
):
    depot = world.near if operation == "push" else world.far
    wrong, whole = os.urandom(1000), os.urandom(1000)
    changed, digest = depot.put(wrong), depot.put(whole)

    def source(asked):
        depot.open += 1
        return (Unreadable if asked == changed else DictSource)(depot, depot.blobs[asked])

    monkeypatch.setattr(depot, "source", source)
    world.connect()
    first = world.request(operation, changed, 1000)
    second = world.request(operation, digest, 1000)
    world.run()
    assert second.result(0) is None
    with pytest.raises(BlobCorrupt, match="the file was changed"):
        first.result(0)
    assert not world.server.busy
    assert not world.client.busy
