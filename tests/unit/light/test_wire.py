"""Frames are cut right wherever the stream is torn, and what is too long is refused at once."""

from __future__ import annotations

import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manta.light.wire import NOT_TEXT, BrokenFrame, Frames, frame

MESSAGES = st.lists(st.dictionaries(st.text(max_size=5), st.binary(max_size=50), max_size=3))


@given(MESSAGES, st.lists(st.integers(1, 40), min_size=1))
def test_frames_survive_any_tearing(messages: list[dict[str, bytes]], sizes: list[int]) -> None:
    stream = b"".join(frame(message) for message in messages)
    frames = Frames(10_000)
    found = []
    at = turn = 0
    while at < len(stream):
        size = sizes[turn % len(sizes)]
        frames.feed(stream[at : at + size], [])
        while (body := frames.next()) is not None:
            found.append(body)
        at += size
        turn += 1
    assert found == [frame(message)[4:] for message in messages]


def test_a_frame_that_is_too_long_is_refused_by_its_header() -> None:
    frames = Frames(100)
    frames.feed(struct.pack("<I", 101), [])
    with pytest.raises(BrokenFrame, match="a frame of 101 bytes, where 100 are allowed"):
        frames.next()


def test_descriptors_that_were_not_sent_cannot_be_taken() -> None:
    with pytest.raises(BrokenFrame, match="without the descriptors"):
        Frames(100).take(1)


def test_descriptors_that_nothing_claims_are_bounded() -> None:
    frames = Frames(100, fds=1)
    first, second = (os.open("/dev/null", os.O_RDONLY) for _ in range(2))
    frames.feed(b"", [first])
    with pytest.raises(BrokenFrame, match="descriptors that no message announced"):
        frames.feed(b"", [second])
    frames.close()
    for fd in (first, second):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


def test_a_node_names_files_by_any_bytes_and_a_task_sends_text() -> None:
    name = os.fsdecode(b"caf\xe9")
    assert b"caf\xe9" in frame({"folder": name}, NOT_TEXT)
    with pytest.raises(UnicodeEncodeError):
        frame({"folder": name})
