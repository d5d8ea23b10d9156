from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from manta.apis.overviews import LogOverview
from manta.cli.live.folding import HELD, Folding


def line(text: str, index: int = 0, at: float = 0.0, iteration: int = 0) -> LogOverview:
    return LogOverview(at, "id", "node-1", "w", index, iteration, 0, "stdout", text)


def fold(folding: Folding, *lines: LogOverview) -> list[tuple[str, int]]:
    return [(folded.item.text, folded.times) for folded in folding.fold(lines)]


def test_equal_lines_that_come_at_once_are_one() -> None:
    folding = Folding()
    assert fold(folding, *[line("a")] * 140, line("b"), line("a")) == [
        ("a", 140),
        ("b", 1),
        ("a", 1),
    ]
    assert folding.rest() == []


def test_a_line_is_shown_at_once_and_its_repetitions_later() -> None:
    folding = Folding()
    assert fold(folding, line("a")) == [("a", 1)]
    assert fold(folding, line("a"), line("a")) == []
    assert fold(folding, line("b")) == [("a", 2), ("b", 1)]
    assert fold(folding, line("b")) == []
    assert [(folded.item.text, folded.times) for folded in folding.rest()] == [("b", 1)]
    assert folding.rest() == []


def test_a_line_that_goes_on_coming_is_shown_now_and_then() -> None:
    folding = Folding()
    fold(folding, line("a", at=0.0))
    assert fold(folding, line("a", at=HELD)) == []
    assert fold(folding, line("a", at=HELD + 1)) == [("a", 2)]
    assert fold(folding, line("a", at=HELD + 2)) == []


def test_what_differs_is_not_folded() -> None:
    folding = Folding()
    assert fold(folding, line("a"), line("a", index=1), line("a", iteration=1)) == [("a", 1)] * 3
    assert fold(folding, line(""), line("")) == [("", 1), ("", 1)]


@given(st.lists(st.lists(st.builds(line, st.sampled_from("ab"), st.integers(0, 2)))))
def test_no_line_is_lost(pages: list[list[LogOverview]]) -> None:
    folding = Folding()
    shown = [folded for page in pages for folded in folding.fold(page)] + folding.rest()
    for text in "ab":
        for index in range(3):
            came = sum((x.text, x.index) == (text, index) for page in pages for x in page)
            told = sum(f.times for f in shown if (f.item.text, f.item.index) == (text, index))
            assert came == told
