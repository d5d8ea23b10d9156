"""Handshake, records and tickets of sealed bulk: what is changed or repeated does not open."""

from __future__ import annotations

import os

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st
from zmq.utils import z85

from manta.transports.errors import DownReason, LocalTransportError, RemoteProtocolError
from manta.transports.sealed import noise
from manta.transports.sealed.noise import Cipher, Handshake
from manta.transports.sealed.records import (
    MAX_CHUNK,
    MAX_TEXT,
    Head,
    Kind,
    PlainRecords,
    SealedRecords,
)
from manta.transports.sealed.tickets import (
    CALL,
    GREETING,
    REFUSALS,
    REPLY,
    Caller,
    Denied,
    Door,
    Ticket,
    Tickets,
)
from manta.transports.security.keys import KeyPair

# Noise_KK_25519_AESGCM_SHA256 of the vectors that the implementation Cacophony published.
PROLOGUE = bytes.fromhex("4a6f686e2047616c74")
INITIATOR = {
    "static": "e61ef9919cde45dd5f82166404bd08e38bceb5dfdfded0a34c8df7ed542214d1",
    "ephemeral": "893e28b9dc6ca8d611ab664754b8ceb7bac5117349a4439a6b0569da977c464a",
    "peer": "31e0303fd6418d2f8c0e78b91f22e8caed0fbe48656dcf4767e4834f701b8f62",
}
RESPONDER = {
    "static": "4a3acbfdb163dec651dfa3194dece676d437029c62a408b4c5ea9114246e4893",
    "ephemeral": "bbdb4cdbd309f1a1f2e1456967fe288cadd6f712d65dc7b7793d5e63da6b375b",
    "peer": "6bc3822a2aa7f4e6981d6538692b3cdf3e6df9eea6ed269eb41d93c22757b75a",
}
TRANSCRIPT = "c03693acd830588fac76dd414c9e100e8c601d27511de855100239f7705fa3f2"
MESSAGES = [
    (
        "4c756477696720766f6e204d69736573",
        "ca35def5ae56cec33dc2036731ab14896bc4c75dbb07a61f879f8e3afa4c7944"
        "8564738a841228e693caeec4c497a8bd562231c3e51a1f03c4fd45dfe3a67870",
    ),
    (
        "4d757272617920526f746862617264",
        "95ebc60d2b1fa672c1f46a8aa265ef51bfe38e7ccb39ec5be34069f144808843"
        "b94504c4d83506f5dd2568b68490eba8ed6f9cf2cca194a273c56d7ae3c558",
    ),
    ("462e20412e20486179656b", "6a5c10a201d4e3a08f79f64949e55731f774913a4d949bda3fcebf"),
    ("4361726c204d656e676572", "4e8a1bf06926fdd74e2f516e2b0c11cc1dc3387fadeb75389d4342"),
    (
        "4a65616e2d426170746973746520536179",
        "c1df7194ca8ea51d4dd99059bc9b90288112d47237d8481f1773fb26a31629a05c",
    ),
    (
        "457567656e2042f6686d20766f6e2042617765726b",
        "3edba4feaf590ee88dd8f5fba51db4bee651cf41afd410fe476c524ac9b1db24252fc55ff8",
    ),
]


def side(fields, initiator):
    keys = {name: bytes.fromhex(value) for name, value in fields.items()}
    return Handshake(initiator=initiator, prologue=PROLOGUE, **keys)


def test_published_vectors():
    here, there = side(INITIATOR, True), side(RESPONDER, False)
    plain = [bytes.fromhex(text) for text, _ in MESSAGES]
    sealed = [bytes.fromhex(text) for _, text in MESSAGES]
    assert here.write(plain[0]) == sealed[0]
    assert there.read(sealed[0]) == plain[0]
    assert there.write(plain[1]) == sealed[1]
    assert here.read(sealed[1]) == plain[1]
    assert here.transcript == there.transcript == bytes.fromhex(TRANSCRIPT)
    (out, back), (answer, arrives) = here.ciphers(), there.ciphers()
    for at, (sends, opens) in enumerate([(out, arrives), (answer, back)] * 2, 2):
        assert sends.seal(plain[at]) == sealed[at]
        assert opens.open(sealed[at]) == plain[at]


def session():
    """Ciphers of a new connection: one side's two, and the other's."""
    near, far = KeyPair.generate(), KeyPair.generate()
    here, there = (
        Handshake(
            initiator=initiator,
            static=z85.decode(own.secret),
            peer=z85.decode(other.public),
            ephemeral=os.urandom(32),
            prologue=b"",
        )
        for initiator, own, other in ((True, near, far), (False, far, near))
    )
    there.read(here.write())
    here.read(there.write())
    return here.ciphers(), there.ciphers()


@pytest.mark.parametrize("message", [0, 1])
@given(at=st.integers(0, 47), bit=st.integers(0, 7))
@settings(max_examples=30, deadline=None)
def test_a_bit_of_the_handshake_flipped(message, at, bit):
    here, there = side(INITIATOR, True), side(RESPONDER, False)

    def flipped(data):
        changed = bytearray(data)
        changed[at] ^= 1 << bit
        return bytes(changed)

    call = here.write()
    if message == 1:
        there.read(call)
        there, here, call = here, there, there.write()
    # The first bit of a public key counts for nothing (RFC 7748), but is hashed.
    with pytest.raises(RemoteProtocolError):
        there.read(flipped(call))


def test_a_public_key_that_is_none():
    there = side(RESPONDER, False)
    with pytest.raises(RemoteProtocolError, match="public key is none"):
        there.read(bytes(48))
    with pytest.raises(RemoteProtocolError, match="too short"):
        there.read(bytes(47))


def test_who_holds_another_key_does_not_get_through():
    other = os.urandom(32).hex()
    here = side({**INITIATOR, "static": other}, True)
    with pytest.raises(RemoteProtocolError):
        side(RESPONDER, False).read(here.write())


class Wire:
    """What one side sent, read by the other."""

    def __init__(self) -> None:
        (send, receive), (_, arrives) = session()
        self.sender = SealedRecords(send, receive)
        self.receiver = SealedRecords(receive, arrives)

    def sealed(self, head, payload=None):
        return b"".join(bytes(part) for part in self.sender.frames(head, payload))

    def open(self, data):
        at = self.receiver.head_bytes
        head = self.receiver.head(data[:at])
        into = memoryview(bytearray(head.length))

        def read(view):
            nonlocal at
            view[:] = data[at : at + len(view)]
            at += len(view)

        if head.length:
            self.receiver.payload(head, into, read)
        assert at == len(data)
        return head, bytes(into)


CHUNK = Head(Kind.CHUNK, b"t" * 16, 5, 100, 11)


def test_what_is_sealed_opens_at_the_other_end():
    wire = Wire()
    for head, payload in (
        (CHUNK, b"hello world"),
        (Head(Kind.PING), b""),
        (Head(Kind.CREDIT, b"t" * 16, 5, 9), b""),
        (CHUNK, b"hello again"),
    ):
        data = wire.sealed(head, payload or None)
        assert payload not in data or not payload
        assert head.transfer not in data
        assert wire.open(data) == (head, payload)


@given(at=st.integers(0, 82), bit=st.integers(0, 7))
@settings(max_examples=60, deadline=None)
def test_a_flipped_bit_does_not_open(at, bit):
    wire = Wire()
    data = bytearray(wire.sealed(CHUNK, b"hello world"))
    assert len(data) == 83
    data[at] ^= 1 << bit
    with pytest.raises(RemoteProtocolError, match="not the one that the peer sealed next"):
        wire.open(bytes(data))


@given(st.permutations(range(4)), st.lists(st.integers(0, 3), max_size=3))
@settings(max_examples=60, deadline=None)
def test_records_open_in_their_order_and_once(order, repeated):
    wire = Wire()
    sent = [wire.sealed(CHUNK, b"%011d" % number) for number in range(4)]
    expected = 0
    for number in [*order, *repeated]:
        if number == expected:
            assert wire.open(sent[number])[1] == b"%011d" % number
            expected += 1
            continue
        with pytest.raises(RemoteProtocolError):
            wire.open(sent[number])
        break  # which costs the connection


@pytest.mark.parametrize("cut", [0, 1, 55, 57, 82])
def test_what_is_cut_short_does_not_open(cut):
    wire = Wire()
    data = wire.sealed(CHUNK, b"hello world")[:cut]
    with pytest.raises((RemoteProtocolError, ValueError)):
        wire.open(data)


def test_a_record_of_the_other_direction_or_connection_does_not_open():
    (send, receive), _ = session()
    reflected = SealedRecords(send, receive)
    data = bytes(reflected.frames(Head(Kind.PING), None)[0])
    with pytest.raises(RemoteProtocolError):
        reflected.head(data)
    with pytest.raises(RemoteProtocolError):
        Wire().open(data)


@pytest.mark.parametrize(
    "other",
    [
        CHUNK._replace(transfer=b"u" * 16),
        CHUNK._replace(offset=6),
        CHUNK._replace(limit=101),
        CHUNK._replace(code=1),
    ],
)
def test_a_payload_opens_with_its_own_head_only(other):
    (send, _), (_, arrives) = session()
    sealed = bytearray(11 + noise.TAG)
    send.seal_into(b"hello world", CHUNK.pack(), sealed)
    into = bytearray(11)
    with pytest.raises(RemoteProtocolError):
        arrives.open_into(sealed, other.pack(), into)


def test_keys_are_replaced_at_both_ends_at_the_same_record(monkeypatch):
    monkeypatch.setattr(noise, "RECORDS", 8)
    (send, _), (_, arrives) = session()
    keys = set()
    for number in range(50):
        keys.add(send._aead)
        assert arrives.open(send.seal(b"%d" % number)) == b"%d" % number
    assert len(keys) == 7


def test_a_key_seals_no_more_than_it_may():
    """NIST SP 800-38D bounds one key's blocks; 2**36 bytes leave an advantage of 2**-65."""
    assert noise.RECORDS * (MAX_CHUNK + MAX_TEXT) < 1.01 * 2**36


class Recording:
    """In place of AESGCM: notes each use of a key with a nonce."""

    used: list[tuple[bytes, bytes]] = []

    def __init__(self, key):
        self._key = bytes(key)
        self._real = REAL(key)

    def encrypt(self, nonce, data, bound):
        self.used.append((self._key, nonce))
        return self._real.encrypt(nonce, data, bound)

    def encrypt_into(self, nonce, data, bound, out):
        self.used.append((self._key, nonce))
        return self._real.encrypt_into(nonce, data, bound, out)

    def decrypt(self, nonce, data, bound):
        return self._real.decrypt(nonce, data, bound)


REAL = AESGCM


@given(st.lists(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=30), max_size=6))
@settings(max_examples=40, deadline=None)
def test_no_nonce_is_used_twice_with_a_key_whatever_is_sent_and_reconnected(connections):
    """Each connection: who sends, and whether it is a chunk or a head alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(noise, "AESGCM", Recording)
        patch.setattr(noise, "RECORDS", 8)
        Recording.used = []
        for sends in connections:
            (near, back), (far, arrives) = session()
            here, there = SealedRecords(near, back), SealedRecords(far, arrives)
            for is_here, is_chunk in sends:
                records = here if is_here else there
                records.frames(
                    CHUNK if is_chunk else Head(Kind.PING), b"x" * 11 if is_chunk else None
                )
    assert len(Recording.used) == len(set(Recording.used))


def test_plain_records_are_as_they_are():
    records = PlainRecords()
    head, payload = records.frames(CHUNK, b"hello world")
    assert records.head(head) == CHUNK
    assert payload == b"hello world"


@pytest.mark.parametrize(
    "head",
    [
        Head(Kind.CHUNK, limit=MAX_CHUNK + 1, length=MAX_CHUNK + 1),
        Head(Kind.CHUNK, limit=10, length=0),
        Head(Kind.CHUNK, offset=9, limit=10, length=2),
        Head(Kind.CHUNK, offset=11, limit=10, length=1),
        Head(Kind.OPEN, limit=(1 << 62) + 1),
        Head(Kind.OPEN, limit=1 << 63),
        Head(Kind.OPEN, offset=1 << 63, limit=2),
        Head(Kind.OPEN, limit=2, length=1),
        Head(Kind.CREDIT, offset=3, limit=2),
        Head(Kind.REFUSE, length=MAX_TEXT + 1),
        Head(Kind.BYE, length=0xFFFFFFFF),
        Head(Kind.CANCEL, limit=1),
        Head(Kind.PING, offset=1),
    ],
)
def test_a_head_beyond_its_bounds_is_refused(head):
    with pytest.raises(RemoteProtocolError, match=r"beyond its bounds|malformed"):
        Head.unpack(head.pack())


@given(st.binary(max_size=80))
@settings(max_examples=500, deadline=None)
def test_garbage_is_no_head(data):
    try:
        head = Head.unpack(data)
    except RemoteProtocolError:
        return
    assert head.length <= MAX_CHUNK
    assert head.offset <= head.limit <= 1 << 62


# --- tickets --------------------------------------------------------------------------------------


@pytest.fixture
def listener():
    return KeyPair.generate()


@pytest.fixture
def caller():
    return KeyPair.generate()


def meet(listener, caller, tickets, ticket, *, server=None, form="sealed", change=None):
    door = Door(listener, tickets, "sealed", os.urandom(32), os.urandom(32))
    dialler = Caller(caller, server or listener.public, ticket, form, os.urandom(32))
    call = dialler.call(door.greeting)
    assert (len(door.greeting), len(call)) == (GREETING, CALL)
    key, reply, theirs = door.admit(change(call) if change else call)
    assert {len(reply), *map(len, REFUSALS.values())} == {REPLY}
    return key, dialler.finish(reply), theirs


def test_who_holds_a_ticket_is_admitted_by_its_key(listener, caller):
    tickets = Tickets()
    ticket = Ticket.unpack(tickets.issue(caller.public, os.urandom(48)).pack())
    for _ in range(2):  # also on its next connection
        key, here, there = meet(listener, caller, tickets, ticket)
        assert key == caller.public
        assert there.receive.open(here.send.seal(b"hello")) == b"hello"
        assert here.receive.open(there.send.seal(b"back")) == b"back"
    assert ticket.secret.hex() not in repr(ticket)
    assert repr(ticket.secret) not in repr(ticket)


def denied(reason, *arguments, **options):
    with pytest.raises(Denied) as caught:
        meet(*arguments, **options)
    assert caught.value.reason is reason


def test_nobody_else_is(listener, caller):
    tickets = Tickets()
    ticket = tickets.issue(caller.public, os.urandom(48))
    thief = KeyPair.generate()
    denied(DownReason.DENIED, listener, caller, tickets, Ticket(os.urandom(16), ticket.secret))
    denied(DownReason.DENIED, listener, caller, tickets, Ticket(ticket.id, os.urandom(32)))
    denied(DownReason.DENIED, listener, thief, tickets, ticket)
    denied(DownReason.DENIED, listener, caller, tickets, ticket, server=thief.public)
    denied(DownReason.PROTOCOL, listener, caller, tickets, ticket, form="plain")
    denied(DownReason.DENIED, listener, caller, tickets, ticket, change=lambda call: call[:-1])
    tickets.issue(caller.public, os.urandom(48))
    denied(DownReason.DENIED, listener, caller, tickets, ticket)
    newest = tickets.issue(caller.public, os.urandom(48))
    meet(listener, caller, tickets, newest)
    tickets.withdraw(caller.public)
    denied(DownReason.DENIED, listener, caller, tickets, newest)


@given(at=st.integers(0, CALL - 1), bit=st.integers(0, 7))
@settings(max_examples=40, deadline=None)
def test_a_call_with_a_flipped_bit_is_denied(at, bit):
    listener, caller, tickets = KeyPair.generate(), KeyPair.generate(), Tickets()
    ticket = tickets.issue(caller.public, bytes(48))

    def flipped(call):
        changed = bytearray(call)
        changed[at] ^= 1 << bit
        return bytes(changed)

    denied(DownReason.DENIED, listener, caller, tickets, ticket, change=flipped)


def test_a_call_counts_on_its_own_connection_only(listener, caller):
    tickets = Tickets()
    ticket = tickets.issue(caller.public, os.urandom(48))
    first, second = (
        Door(listener, tickets, "sealed", os.urandom(32), os.urandom(32)) for _ in range(2)
    )
    call = Caller(caller, listener.public, ticket, "sealed", os.urandom(32)).call(first.greeting)
    first.admit(call)
    with pytest.raises(Denied):
        second.admit(call)


def test_a_listener_with_another_key_is_found_out(listener, caller):
    """It holds the ticket's secret, as a relay might."""
    tickets = Tickets()
    ticket = tickets.issue(caller.public, os.urandom(48))
    dialler = Caller(caller, listener.public, ticket, "sealed", os.urandom(32))
    dialler.call(b"MANTAB\1S" + bytes(32))
    with pytest.raises(Denied) as caught:
        dialler.finish(b"\1" + Cipher(bytes(32)).seal(bytes(32)))
    assert caught.value.reason is DownReason.WRONG_KEY
    for reason, reply in REFUSALS.items():
        with pytest.raises(Denied) as refused:
            dialler.finish(reply)
        assert refused.value.reason is reason
    with pytest.raises(LocalTransportError, match="a ticket has 48 bytes"):
        Ticket.unpack(b"short")
