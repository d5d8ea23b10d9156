"""Bytes that are no message, and no record, are refused by whoever decodes them in its own words,
also where a text in them is not UTF-8, or where they are nested deeply."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from manta.mesh import said
from manta.node.capabilities import disk
from manta.node.environments.folders import ENTRY, Folders
from manta.node.journal import records
from manta.node.plane import envelope, spool_records
from manta.node.plane.collectives import messages as between_planes
from manta.protocol.node import Instance, LogLine
from manta.transports.bulk import wire as bulk
from manta.transports.collectives.messages import Aborted
from manta.transports.errors import RemoteProtocolError
from manta.transports.membership import messages as membership

ROOT = Path(__file__).parents[2]
WORD = "ZZZZZZZZ"
"""The text of a message."""
DEEP = b"\x91" * 3000 + b"\xc0"

MESSAGES: dict[str, tuple[bytes, Callable[[bytes], object]]] = {
    "membership": (membership.encode(membership.Refused(WORD)), membership.decode),
    "mesh": (said.pack(said.Word(WORD, b"")), said.unpack),
    "planes": (envelope.pack(WORD, "", envelope.Aside(b"")), envelope.unpack),
    "collectives": (between_planes.packed(Aborted("", WORD)), between_planes.unpacked),
    "bulk": (bulk.pack(bulk.Failed(b"1" * 16, "", WORD)), bulk.unpack),
}


def no_text(message: bytes) -> bytes:
    assert WORD.encode() in message
    return message.replace(WORD.encode(), b"\xff" * len(WORD))


def deep(message: bytes) -> bytes:
    """With an item more, which a later version might have added."""
    at = next(at for at, byte in enumerate(message) if byte & 0xE0 == 0x80)  # a map or an array
    key = b"" if message[at] & 0x10 else b"\xa4more"
    return message[:at] + bytes([message[at] + 1]) + message[at + 1 :] + key + DEEP


@pytest.mark.parametrize("spoil", [no_text, deep])
@pytest.mark.parametrize("kind", MESSAGES)
def test_a_message_that_is_none_costs_its_sender_the_link_and_no_more(
    kind: str, spoil: Callable[[bytes], bytes]
) -> None:
    message, decode = MESSAGES[kind]
    decode(message)
    with pytest.raises(RemoteProtocolError):
        decode(spoil(message))


@pytest.mark.parametrize("spoil", [no_text, deep])
def test_a_record_of_a_journal_that_is_none_ends_it_there(
    spoil: Callable[[bytes], bytes],
) -> None:
    begun = records.encode(records.Begin("s"))
    line = records.encode(
        records.KeptLine(1, LogLine(Instance("s", "w", 0, 0), 0.0, "stdout", WORD))
    )
    assert len(records.decode(begun + line)[0]) == 2
    body = spoil(line[records._HEAD.size :])
    found, size, flaw = records.decode(begun + records.frame(body))
    assert (len(found), size) == (1, len(begun))
    assert flaw
    start = spool_records.begin(WORD, "s", "e")
    assert spool_records.begin_of(start) is not None
    assert spool_records.begin_of(records.frame(spoil(start[records._HEAD.size :]))) is None


JUNK = [
    b"",
    b"{",
    b"\xff\xfe",
    b'{"asked": "\xff", "size": 1, "device": 1, "written": 2.0}',
    b'{"asked": "a", "size": 1, "device": 1, "written": 2.0, "more": ' + b"[" * 50_000,
    b" " * 70_000,
]


@pytest.mark.parametrize("junk", JUNK)
def test_what_a_node_keeps_to_spare_time_is_made_anew_where_it_is_damaged(
    tmp_path: Path, junk: bytes
) -> None:
    (tmp_path / disk.FILE).write_bytes(junk)
    assert disk.kept(tmp_path) == 0.0
    key = "0" * 64
    (tmp_path / "made" / key).mkdir(parents=True)
    (tmp_path / "made" / key / ENTRY).write_bytes(junk)
    folders = Folders(tmp_path / "made", 1 << 20)
    assert folders.there == ()
    assert not (tmp_path / "made" / key).exists()


def test_nobody_names_some_of_what_a_decoder_raises() -> None:
    """They are `MALFORMED`, all of them."""
    some = re.compile(r"(?:except|suppress\().*(?:MsgspecError|msgspec\.DecodeError)")
    files = [
        file
        for room in ("actors", "light", "manta", "node", "transports")
        for file in (ROOT / room).rglob("*.py")
    ]
    assert len(files) > 500
    found = [
        f"{file.relative_to(ROOT)}: {line.strip()}"
        for file in files
        for line in file.read_text().splitlines()
        if some.search(line)
    ]
    assert found == []
