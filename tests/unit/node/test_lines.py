"""How what a task prints becomes lines."""

from __future__ import annotations

import os
import random

import msgpack
import pytest

from manta.node.task_server import streams
from manta.node.task_server.streams import REDRAWN_EVERY, Lines, LogStream


def lines_of(*chunks: bytes) -> list[str]:
    lines = Lines()
    return [text for chunk in chunks for text in lines.feed(chunk)] + lines.rest()


def test_lines_end_at_line_feeds_only() -> None:
    assert lines_of(b"a\nb\r\n\n", "c\x0b\x0c\u2028d".encode()) == [
        "a",
        "b",
        "",
        "c\x0b\x0c\u2028d",
    ]
    assert lines_of(b"") == []
    assert lines_of(b"\xff\xfe broken\n") == ["\ufffd\ufffd broken"]


@pytest.mark.parametrize("character", ["x", "é", "日", "🦈"])
@pytest.mark.parametrize("end", ["\n", ""])
def test_long_lines_are_cut_between_characters(character: str, end: str) -> None:
    text = "a" + character * 30_000
    data = (text + end).encode()
    for size in (1_000, 65_536, len(data)):
        found = lines_of(*(data[at : at + size] for at in range(0, len(data), size)))
        assert "".join(found) == text
        assert len(found) > 1
        assert all(len(line.encode()) <= 16 * 1024 for line in found)


def test_bytes_that_are_no_text_are_cut_as_well() -> None:
    assert [len(line) for line in lines_of(b"\x80" * 20_000)] == [16_384, 3_616]


def draw(count: int) -> list[str]:
    return [f"{number:3d}%|{'█' * (number // 4):25s}|" for number in range(count + 1)]


@pytest.mark.parametrize("seed", range(5))
def test_a_progress_bar_is_one_line_at_its_end(seed: int) -> None:
    states = draw(100)
    data = ("before\n" + "".join("\r" + state for state in states) + "\nafter\n").encode()
    chance = random.Random(seed)
    cuts = sorted(chance.sample(range(len(data)), 40))
    chunks = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    assert lines_of(*chunks) == ["before", states[-1], "after"]


def test_a_bar_that_ends_each_state_with_a_return() -> None:
    assert lines_of(b"1%\r", b"2%\r3%\r", b"\ndone\n") == ["3%", "done"]
    assert lines_of(b"1%\r2%\r") == ["2%"]


def test_a_bar_that_is_wiped_out_leaves_nothing() -> None:
    assert lines_of(b"\r50%", b"\r     \rdone\n") == ["done"]
    assert lines_of(b"\r50%", b"\r     \r") == []
    assert lines_of(b"\r50%", b"\r     \r\n") == []


def test_the_latest_state_is_shown_now_and_then() -> None:
    lines = Lines()
    assert lines.feed(b"\r1%") == []
    assert [lines.is_redrawing, lines.redrawn(100.0), lines.is_redrawing] == [True, ["1%"], False]
    assert lines.redrawn(200.0) == []
    shown = []
    for second in range(60):
        lines.feed(f"\r{second}%".encode())
        shown += lines.redrawn(200.0 + second)
    assert shown == [f"{second}%" for second in range(0, 60, int(REDRAWN_EVERY))]
    assert lines.is_redrawing
    assert lines.redrawn(300.0) == ["59%"]
    assert lines.feed(b"\nnext\n") == ["next"], "what was shown is not shown again"
    assert lines.feed(b"\r59%\n") == ["59%"]


def test_a_line_that_is_not_redrawn_waits_for_its_end() -> None:
    lines = Lines()
    assert lines.feed(b"Epoch 1: ") == []
    assert not lines.is_redrawing
    assert lines.redrawn(100.0) == []
    assert lines.feed(b"done\n") == ["Epoch 1: done"]
    lines.feed(b"one\r")
    assert lines.redrawn(200.0) == ["one"]


def test_a_bar_takes_no_more_memory_than_its_latest_state() -> None:
    lines = Lines()
    for number in range(10_000):
        assert lines.feed(b"\r" + b"#" * 100 + str(number).encode()) == []
    assert lines.rest() == ["#" * 100 + "9999"]
    assert lines_of(b"\r".join(b"%d" % number for number in range(10_000)) + b"\n") == ["9999"]


def test_of_nested_bars_the_outer_gives_a_line_a_step_and_the_inner_is_redrawn() -> None:
    lines = Lines()
    found = []
    for epoch in range(3):
        found += lines.feed(f"\repochs {epoch}/3".encode())
        for batch in range(100):
            found += lines.feed(b"\n") + lines.feed(f"\rbatches {batch}/100\x1b[A".encode())
    assert found == ["epochs 0/3", "epochs 1/3", "epochs 2/3"]
    assert lines.redrawn(100.0) == ["batches 99/100"]


def test_nothing_moves_the_cursor_out_of_a_line_and_colours_stay() -> None:
    assert lines_of(b"\x1b[2J\x1b[1;1Hx\x1b[31mred\x1b[0m\x1b[K\x1b[3A\n") == [
        "x\x1b[31mred\x1b[0m"
    ]
    assert lines_of(b"\x1b[2K\r\x1b[?25lloading\x1b[?25h\n") == ["loading"]


def test_all_records_that_wait_are_read_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "_RECORDS", 2)
    stream = LogStream()
    try:
        for _ in range(8):
            os.write(stream.end, msgpack.packb([1.0, "info", "x\n" * 6_000]))
        assert stream.drain() == [("info", 1.0, "x")] * 48_000
    finally:
        os.close(stream.end)
        stream.close()
