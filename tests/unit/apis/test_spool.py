from __future__ import annotations

import gc
import os

import numpy as np
import pytest
from blake3 import blake3

from manta.apis.connect import spool as spool_module
from manta.apis.connect.spool import Spool
from manta.transports.codec.values import decode, encode
from manta.transports.errors import BlobCorrupt, BlobMissing, BlobRefused


def fetched(spool: Spool, data: bytes, pieces: int = 3) -> memoryview:
    digest = blake3(data).hexdigest()
    sink = spool.sink(digest, len(data))
    step = max(1, len(data) // pieces)
    for start in range(0, len(data), step):
        sink.write(data[start : start + step])
    sink.commit()
    return spool.take(digest)


def test_what_is_pushed_is_read_without_a_copy_of_the_whole() -> None:
    value = {"a": np.arange(50_000), "b": b"x" * 70_000, "c": [1, "two"]}
    encoded = encode(value)
    whole = encoded.to_bytes()
    spool = Spool()
    spool.offer("d", encoded)
    source = spool.source("d")
    assert source.size == len(whole)
    for length in (1000, 65_536, len(whole) + 1):
        parts = [bytes(source.read(at, length)) for at in range(0, len(whole), length)]
        assert b"".join(parts) == whole
    assert bytes(source.read(len(whole), 10)) == b""
    source.close()
    spool.withdraw("d", encoded)
    with pytest.raises(BlobMissing):
        spool.source("d")


def test_what_several_offer_can_be_pushed_until_the_last_withdraws_it() -> None:
    one, other = encode(b"x" * 1000), encode(b"x" * 1000)
    spool = Spool()
    for encoded in (one, other, one):
        spool.offer("d", encoded)
    for encoded in (one, one, other):
        assert spool.source("d").size == one.nbytes
        spool.withdraw("d", encoded)
    with pytest.raises(BlobMissing):
        spool.source("d")
    spool.withdraw("d", one)  # after `close`, say


def test_what_is_fetched_can_be_written_to_and_is_nobody_elses() -> None:
    spool = Spool()
    data = encode(np.arange(100_000)).to_bytes()
    first, second = decode(fetched(spool, data)), decode(fetched(spool, data))
    first[:] = 0
    assert (second == np.arange(100_000)).all()


def test_arenas_are_shared_and_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "ARENA", 64 * 1024)
    gc.collect()  # what other tests left is not to be missing at the end
    before = len(os.listdir("/proc/self/fd"))
    spool = Spool()
    views = [fetched(spool, bytes([i]) * 10_000) for i in range(12)]
    large = fetched(spool, b"z" * 200_000)
    assert [view[9_999] for view in views] == list(range(12))
    assert bytes(large) == b"z" * 200_000
    assert len(os.listdir("/proc/self/fd")) > before
    del views, large, spool
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


def test_damage_is_noticed() -> None:
    spool = Spool()
    sink = spool.sink("0" * 64, 3)
    sink.write(b"abc")
    with pytest.raises(BlobCorrupt):
        sink.commit()
    short = spool.sink(blake3(b"abc").hexdigest(), 4)
    short.write(b"abc")
    with pytest.raises(BlobCorrupt):
        short.commit()
    with pytest.raises(BlobCorrupt, match="more than 2"):
        spool.sink("0" * 64, 2).write(b"abc")


def test_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    spool = Spool()
    sink = spool.sink("0" * 64, 3)
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(BlobRefused, match="No space left"):
        sink.write(b"abc")
