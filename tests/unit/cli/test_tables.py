"""Tables at a terminal that is narrower than they are."""

from __future__ import annotations

import click
import pytest

from manta.console import text

HEADER = ["ID", "NAME", "REASON"]
ROWS = [
    ["920320e39d88742f", "averages", "waits for places of the node gpu-worker-17 in the cluster"],
    ["f32e19339a0e3af1", "rounds", "ran"],
]


def shown(room: int | None) -> list[str]:
    return text.table(HEADER, ROWS, room=room, ids=(0,), words=(2,))


def test_without_a_terminal_nothing_is_cut() -> None:
    assert shown(None)[1] == "  ".join(ROWS[0])


@pytest.mark.parametrize("room", [40, 60, 80, 120])
def test_no_line_is_wider_than_the_terminal(room: int) -> None:
    assert max(map(len, shown(room))) <= room


def test_words_are_folded_between_them_and_ids_keep_their_beginnings() -> None:
    assert shown(56) == [
        "ID        NAME      REASON",
        "920320e3  averages  waits for places of the node",
        "                    gpu-worker-17 in the cluster",
        "f32e1933  rounds    ran",
    ]


def test_where_there_is_no_room_to_fold_words_are_cut() -> None:
    assert shown(34)[1] == "920320e3  averages  waits for pla…"


def test_colours_are_no_width() -> None:
    rows = [[click.style(cell, fg="green") for cell in row[:2]] + row[2:] for row in ROWS]
    lines = text.table(HEADER, rows, room=56, ids=(0,), words=(2,))
    assert [click.unstyle(line) for line in lines] == shown(56)


def test_a_sentence_is_folded_for_a_terminal_only() -> None:
    assert text.folded("one two three", 8) == ["one two", "three"]
    assert text.folded("one two three", None) == ["one two three"]
