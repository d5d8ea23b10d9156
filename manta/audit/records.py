"""The form of an audit log: records in blocks, of which each seals all that came before it. Pure.

A block is one line of JSON: some records, the number of the first, and the BLAKE3 digest of the
line before it, all under an Ed25519 signature (RFC 8032). So a line that is edited, missing,
repeated or moved is found by whoever has the public key, and nobody without the secret one can
write another that fits. What is found of an end that was cut, or of a log that was made anew by
whoever has the key, are heads that were kept elsewhere: the number of the last record, and the
digest of its line. Cf. Schneier and Kelsey, "Secure audit logs to support computer forensics"
(1999), and Crosby and Wallach, "Efficient data structures for tamper-evident logging" (2009).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import msgspec
from blake3 import blake3

from manta.transports.codec.decoders import json_decoder

MOST_OF_A_RECORD = 2 * 1024 * 1024
"""Bytes of a record; of a longer one is kept what it was and by whom."""
MOST_OF_A_BLOCK = 256 * 1024
"""Bytes of records after which a block is closed."""
MOST_OF_A_LINE = MOST_OF_A_BLOCK + MOST_OF_A_RECORD + 1024
DONE = "done"
_SEALED = b'{"seal":"'


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """One act. `about` is what it was about, in values that JSON has."""

    at: float
    """Seconds since the epoch."""
    act: str
    """In words with dashes, as stop-swarm."""
    who: str = ""
    """The user's address; "" for the manager or node itself."""
    outcome: str = DONE
    """Otherwise the code of the refusal."""
    about: dict[str, Any] = {}


class Block(msgspec.Struct, frozen=True):
    first: int
    """The number of its first record; the first of all is 1."""
    previous: str
    """The digest of the line before, "" where there was none."""
    key: str
    """Which key seals it: the beginning of the public one."""
    records: tuple[Record, ...]

    @property
    def last(self) -> int:
        return self.first + len(self.records) - 1


class _Written(msgspec.Struct, frozen=True):
    """A Block whose records are encoded."""

    first: int
    previous: str
    key: str
    records: list[msgspec.Raw]


class Head(msgspec.Struct, frozen=True):
    """Where a log ends: whoever keeps one elsewhere finds that what is before it was changed."""

    number: int = 0
    """Of the last record; 0 for an empty log."""
    digest: str = ""
    """Of the last line."""


class _Sealed(msgspec.Struct, frozen=True):
    """A line: what is sealed is the text of `block`, byte for byte."""

    seal: str
    block: msgspec.Raw


class Seals(Protocol):
    id: str

    def seal(self, content: bytes) -> str:
        """The signature, in hexadecimal digits."""


class Unreadable(ValueError):
    """A line that is no block as it was written."""


def id_of(public: str) -> str:
    """What a block says of the public key that it needs."""
    return public[:16]


def digest_of(line: bytes) -> str:
    """Of a line without its end."""
    return blake3(line).hexdigest()


def decode(line: bytes) -> tuple[Block, str, bytes]:
    """Returns the block of a line, its seal, and what was sealed. Raises Unreadable."""
    try:
        found = json_decoder(_Sealed).decode(line)
        content = bytes(found.block)
        block = json_decoder(Block).decode(content)
    except Exception as error:  # msgspec's errors, text that is no UTF-8, deep nesting
        raise Unreadable(str(error)) from None
    if msgspec.json.encode(_Sealed(found.seal, msgspec.Raw(content))) != line:
        raise Unreadable("it is written in another way than it was")
    if not block.records or block.first < 1:
        raise Unreadable("it has no record")
    return block, found.seal, content


def may_be_torn(text: bytes) -> bool:
    """Whether text without an end of line may be what a crash left of a line."""
    return text[: len(_SEALED)] == _SEALED[: len(text)]


def encode_record(record: Record) -> bytes:
    """As it stands in a block, without what cannot be kept of it."""
    try:
        text = msgspec.json.encode(record)
        flaw = f"{len(text)} bytes, more than a record may have"
    except (TypeError, UnicodeEncodeError, OverflowError) as error:
        text, flaw = b"", f"it cannot be written as JSON: {error}"
    if text and len(text) <= MOST_OF_A_RECORD:
        return text
    who = record.who.encode("utf-8", "replace")[:1000].decode("utf-8", "replace")
    about = {"left_out": flaw[:200]}
    return msgspec.json.encode(msgspec.structs.replace(record, who=who, about=about))


def blocks(head: Head, records: Iterable[bytes], key: Seals) -> Iterator[tuple[bytes, Head]]:
    """Yields the lines that continue a log, each with the head after it."""
    gathered: list[bytes] = []
    size = 0
    for record in records:
        if gathered and size + len(record) > MOST_OF_A_BLOCK:
            line, head = _closed(head, gathered, key)
            yield line, head
            gathered, size = [], 0
        gathered.append(record)
        size += len(record)
    if gathered:
        yield _closed(head, gathered, key)


def _closed(head: Head, records: list[bytes], key: Seals) -> tuple[bytes, Head]:
    block = _Written(head.number + 1, head.digest, key.id, [*map(msgspec.Raw, records)])
    content = msgspec.json.encode(block)
    line = msgspec.json.encode(_Sealed(key.seal(content), msgspec.Raw(content)))
    return line, Head(head.number + len(records), digest_of(line))
