"""Control messages: what is right is read back, all else is a RemoteProtocolError."""

from __future__ import annotations

import random
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manta.transports import frames
from manta.transports.errors import MessageTooLarge, RemoteProtocolError, VersionMismatch
from manta.transports.frames import Bye, Head, Hello, Kind, Limits
from manta.transports.interface import Buffer

LIMITS = Limits(frame_bytes=100_000, parts=8, message_bytes=150_000)


def decode(wire, limits=LIMITS):
    """What the receiver does with all the frames of one message."""
    head = frames.decode_head(bytes(wire[0]), limits)
    frames.check_parts(head, [len(part) for part in wire[1:]])
    return head, list(wire[1:]) if head.parts is None else head.parts


@given(st.lists(st.binary(max_size=20_000), max_size=7))
def test_a_message_is_read_back(message):
    wire, cost = frames.encode(message, LIMITS)
    head, parts = decode(wire)
    assert parts == message
    assert head.kind == Kind.DATA
    assert cost == frames.cost(head.sizes)


@pytest.mark.parametrize("size", [frames.INLINE_BYTES, frames.INLINE_BYTES + 1])
def test_small_messages_travel_in_the_head_alone(size):
    wire, _ = frames.encode([bytes(size)], LIMITS)
    assert len(wire) == (1 if size <= frames.INLINE_BYTES else 2)


def test_views_count_bytes_and_not_items():
    view = memoryview(bytes(4000)).cast("I")
    wire, _ = frames.encode([view, b"x"], LIMITS)
    assert decode(wire)[1] == [bytes(4000), b"x"]
    assert decode(frames.encode([view], LIMITS)[0])[1] == [bytes(4000)]


@pytest.mark.parametrize(
    "message",
    [[bytes(100_001)], [b""] * 9, [bytes(80_000), bytes(80_000)]],
    ids=["frame", "parts", "message"],
)
def test_the_sender_is_held_to_the_limits_too(message):
    with pytest.raises(MessageTooLarge, match="as a blob"):
        frames.encode(message, LIMITS)


def test_sizes_are_checked_before_the_parts_are_there():
    head = frames.encode([bytes(90_000)], LIMITS)[0][0]
    small = Limits(frame_bytes=1000, parts=8, message_bytes=150_000)
    with pytest.raises(RemoteProtocolError, match="90000 bytes, 1000 are allowed"):
        frames.decode_head(bytes(head), small)
    with pytest.raises(RemoteProtocolError, match="a message of 90000"):
        frames.decode_head(bytes(head), Limits(100_000, 8, 1000))
    many = frames.encode([b""] * 8, LIMITS)[0][0]
    with pytest.raises(RemoteProtocolError, match="8 parts"):
        frames.decode_head(bytes(many), Limits(100_000, 7, 150_000))


@pytest.mark.parametrize("sizes", [[], [4], [6], [5, 0], [5] * 2])
def test_parts_must_be_what_the_head_declares(sizes):
    head = Head(Kind.DATA, 0, 0, (5,), None)
    with pytest.raises(RemoteProtocolError, match="declares 1 of 5"):
        frames.check_parts(head, sizes)


def test_a_head_that_holds_its_parts_is_followed_by_none():
    wire, _ = frames.encode([b"small"], LIMITS)
    with pytest.raises(RemoteProtocolError, match="declares 0"):
        decode([*wire, b""])


def test_hello_is_read_back_and_may_grow():
    hello = Hello(LIMITS, 1_000_000, 5000)
    head = frames.decode_head(frames.encode_hello(hello), LIMITS)
    assert head.kind == Kind.HELLO
    assert frames.decode_hello(head) == hello
    assert head.parts is not None
    grown = head._replace(parts=[bytes(head.parts[0]) + b"what a later minor version adds"])
    assert frames.decode_hello(grown) == hello


@pytest.mark.parametrize(
    "hello",
    [
        b"",
        b"short",
        frames._HELLO.pack(0, 1, 100, 1, 1),
        frames._HELLO.pack(100, 0, 100, 1, 1),
        frames._HELLO.pack(100, 1, 100, 0, 1),
        frames._HELLO.pack(100, 1, 100, 1, 0),
    ],
)
def test_a_hello_that_cannot_be_is_refused(hello):
    with pytest.raises(RemoteProtocolError, match="HELLO"):
        frames.decode_hello(Head(Kind.HELLO, 1, 0, (len(hello),), [hello]))


@pytest.mark.parametrize("encode", [frames.encode_ping, frames.encode_pong])
def test_pings_and_pongs_carry_their_count(encode):
    assert frames.decode_received(frames.decode_head(encode(2**40), LIMITS)) == 2**40
    with pytest.raises(RemoteProtocolError, match="without its count"):
        frames.decode_received(Head(Kind.PONG, 1, 0, (1,), [b"x"]))


@pytest.mark.parametrize("reason", Bye)
@pytest.mark.parametrize("major", [0, 1, 2, 255])
def test_any_version_reads_a_bye(reason, major):
    bye = bytearray(frames.encode_bye(reason))
    bye[0] = major
    head = frames.decode_head(bytes(bye) + b"whatever else", LIMITS)
    assert frames.decode_bye(head) is reason


def test_an_unknown_reason_to_leave_is_a_goodbye():
    assert frames.decode_bye(Head(Kind.BYE, 250, 0, (), [])) is Bye.CLOSING


def test_another_minor_version_interoperates():
    wire = bytearray(frames.encode([b"from a later version"], LIMITS)[0][0])
    wire[1] = 77
    head, parts = decode([wire])
    assert head.minor == 77
    assert parts == [b"from a later version"]


def test_another_major_version_is_told_apart_by_its_hello():
    with pytest.raises(VersionMismatch, match=r"version 2\.3, this side 1\.0"):
        frames.decode_head(bytes((2, 3, Kind.HELLO, 0)) + b"as version 2 has it", LIMITS)
    with pytest.raises(RemoteProtocolError, match="not a message of the protocol") as caught:
        frames.decode_head(b"GET / HTTP/1.1", LIMITS)
    assert not isinstance(caught.value, VersionMismatch)


@pytest.mark.parametrize("kind", [0, 6, 255])
def test_an_unknown_kind_is_refused(kind):
    with pytest.raises(RemoteProtocolError, match=f"number {kind}"):
        frames.decode_head(bytes((1, 0, kind, 0, 0, 0)), LIMITS)


def test_two_peers_keep_the_limits_of_both():
    assert frames.common(Limits(100, 5, 1000), Limits(200, 3, 500)) == Limits(100, 3, 500)


@pytest.mark.parametrize("limits", [(0, 1, 100), (100, 0, 100), (100, 1, 2**33), (100, 2**16, 100)])
def test_limits_that_the_wire_cannot_carry_are_refused(limits):
    with pytest.raises(ValueError, match="limit"):
        Limits(*limits)


def read_all(wire):
    """Every decoder on these frames; nothing but RemoteProtocolError may come of it."""
    try:
        head, _ = decode(wire)
        decoders = {
            Kind.HELLO: frames.decode_hello,
            Kind.PING: frames.decode_received,
            Kind.PONG: frames.decode_received,
            Kind.BYE: frames.decode_bye,
        }
        if head.kind in decoders:
            decoders[Kind(head.kind)](head)
    except RemoteProtocolError:
        return False
    return True


@settings(max_examples=300)
@given(st.lists(st.binary(max_size=300), min_size=1, max_size=10))
def test_random_frames_do_no_harm(wire):
    read_all(wire)


def test_mutated_messages_do_no_harm_and_take_no_memory():
    """A few thousand in each run; the seed replays them."""
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    valid: list[list[Buffer]] = [
        frames.encode([b"x" * 50], LIMITS)[0],
        frames.encode([b"x" * 50, b"", b"y" * 9000], LIMITS)[0],
        frames.encode([bytes(3)] * 8, LIMITS)[0],
        [frames.encode_hello(Hello(LIMITS, 1_000_000, 5000))],
        [frames.encode_ping(7)],
        [frames.encode_pong(7)],
        [frames.encode_bye(Bye.VERSION)],
    ]
    read = 0
    tracemalloc.start()
    try:
        for number in range(5000):
            wire = [bytearray(part) for part in rng.choice(valid)]
            for _ in range(rng.randrange(4)):
                mutate(rng, wire)
            try:
                read += read_all([bytes(part) for part in wire])
            except Exception as error:
                raise AssertionError(f"message {number} of seed {seed}: {wire}") from error
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 0 < read < 5000
    assert peak < 5_000_000, f"seed {seed}"


def mutate(rng, wire):
    part = rng.choice(wire)
    what = rng.randrange(5)
    if what == 0 and part:
        part[rng.randrange(min(len(part), 40))] = rng.randrange(256)
    elif what == 1:
        del part[rng.randrange(len(part) + 1) :]
    elif what == 2:
        part.extend(rng.randbytes(rng.randrange(1, 20)))
    elif what == 3 and len(wire) > 1:
        wire.remove(part)
    else:
        wire.insert(rng.randrange(len(wire) + 1), bytearray(rng.randbytes(rng.randrange(30))))
