"""The records of a spool: what was kept comes back, whole or not at all."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from manta.node.plane import spool_records
from manta.node.plane.spool_records import Begin, Record
from manta.transports.exchange import kept
from manta.transports.exchange.kept import Kept, KeptBroadcast, KeptLetter, Received
from manta.transports.exchange.messages import Parcel

names = st.text(min_size=1, max_size=5)
counts = st.integers(0, (1 << 53) - 1)
values = st.binary(max_size=50) | st.builds(
    Parcel, st.binary(min_size=16, max_size=16), st.integers(1, 1 << 40)
)
serials = st.sets(st.integers(0, 50), min_size=1).map(kept.spans)
items = (
    st.builds(KeptLetter, names, names, counts, values)
    | st.builds(KeptBroadcast, names, counts, values)
    | st.builds(Received, names, names, counts, names, counts, serials)
)
ends = st.builds(
    Kept, counts, names, counts, counts, st.lists(items, min_size=1, max_size=8).map(tuple)
)
BEGIN = spool_records.begin("id-1", "swarm-1", "epoch-1")


def read(data: bytes) -> tuple[list[Record], list[Kept], str]:
    records, _, flaw = spool_records.decode(data)
    return records, spool_records.whole(records), flaw


@given(st.lists(ends, max_size=5))
def test_what_was_kept_is_read_again(kept: list[Kept]) -> None:
    records, found, flaw = read(BEGIN + b"".join(map(spool_records.encode, kept)))
    assert records[0] == Begin(spool_records.VERSION, "id-1", "swarm-1", "epoch-1")
    assert (found, flaw) == (kept, "")


@settings(max_examples=200)
@given(st.lists(ends, min_size=1, max_size=4), st.data())
def test_of_a_torn_file_the_whole_beginning_counts(kept: list[Kept], data: st.DataObject) -> None:
    parts = [BEGIN, *map(spool_records.encode, kept)]
    whole = b"".join(parts)
    end = data.draw(st.integers(0, len(whole) - 1))
    _, found, _ = read(whole[:end])
    intact = sum(len(b"".join(parts[: at + 1])) <= end for at in range(1, len(parts)))
    assert found == kept[:intact]


@settings(max_examples=200)
@given(st.lists(ends, min_size=1, max_size=4), st.data())
def test_a_flipped_bit_costs_what_comes_after_it(kept: list[Kept], data: st.DataObject) -> None:
    whole = bytearray(BEGIN + b"".join(map(spool_records.encode, kept)))
    at = data.draw(st.integers(0, len(whole) * 8 - 1))
    whole[at // 8] ^= 1 << at % 8
    _, found, flaw = read(bytes(whole))
    assert flaw
    assert found == kept[: len(found)]


def test_an_end_of_many_megabytes_is_one_end() -> None:
    letters = tuple(KeptLetter("id-2", "x", serial, bytes(60_000)) for serial in range(300))
    end = Kept(0, "t", 0, 0, letters)
    data = spool_records.encode(end)
    assert read(BEGIN + data)[1] == [end]
    records, found, flaw = read(BEGIN + data[:-1])
    assert len(records) > 2
    assert not found
    assert flaw
    assert read(BEGIN + data[:5_000_000] + spool_records.encode(end))[1] == []


def test_records_of_another_beginning_end_the_file() -> None:
    end = spool_records.encode(Kept(0, "t", 0, 0, (KeptBroadcast("m", 1, b"v"),)))
    assert read(end)[2]
    assert len(read(BEGIN + end + BEGIN + end)[1]) == 1


@given(st.binary(max_size=200))
def test_whatever_lies_there_is_no_more_than_damaged(data: bytes) -> None:
    read(data)
    read(BEGIN + data)
