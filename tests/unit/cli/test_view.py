from __future__ import annotations

import io
import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manta.apis.overviews import (
    ErrorOverview,
    EventOverview,
    LogOverview,
    MetricsOverview,
    SwarmOverview,
)
from manta.cli.live.folding import Folded
from manta.cli.live.timing import PARTS, Span, shares
from manta.cli.live.view import SwarmView, log_line
from manta.console import text
from manta.console.lines import Words, styled
from manta.console.terminal import Screen
from manta.protocol.node import Timings


def event(
    kind: str, at: float = 0.0, alias: str = "", index: int = -1, iteration: int = 0
) -> EventOverview:
    return EventOverview(
        at, kind, f"{alias or 'swarm'} {kind}.", iteration, alias, index, "n", None
    )


def metric(iteration: int, node: str, value: float, name: str = "acc", index: int = 0) -> object:
    return MetricsOverview(0.0, "id", node, "task", index, iteration, 0, {name: value}, None)


def log(words: str, stream: str = "stdout") -> LogOverview:
    return LogOverview(0.0, "id", "node-1", "worker", 0, 0, 0, stream, words)


def unstyled(lines: Sequence[Words]) -> list[str]:
    return [str(line) for line in lines]


def test_a_round_from_its_beginning_to_its_end() -> None:
    view = SwarmView()
    assert view.live(0.0) == []
    assert view.event(event("iteration", 10.0)) == []
    view.event(event("placed", 10.0, "worker"))
    for index in range(2):
        view.event(event("started", 10.1, "worker", index))
    view.event(event("finished", 10.2, "worker", 1))
    assert unstyled(view.live(10.5)) == ["iteration   0    0.50 s   worker 1/2"]
    view.event(event("finished", 10.3, "worker", 0))
    view.event(event("finished", 10.3, "worker"))  # the task as a whole
    view.metric(metric(0, "node-1", 0.5))  # type: ignore[arg-type]
    view.metric(metric(0, "node-2", 0.75))  # type: ignore[arg-type]
    (line,) = unstyled(view.event(event("iteration", 12.0)))
    assert line == "iteration   0    2.00 s   acc mean 0.6250 (0.5000 to 0.7500)"
    assert view.live(13.0) == []


def test_a_long_swarm_keeps_no_more_than_it_shows() -> None:
    view = SwarmView(10_000)
    for iteration in range(1000):
        at = float(iteration)
        view.event(event("iteration", at, iteration=iteration))
        for index in range(3):
            view.event(event("started", at, "worker", index, iteration))
        view.event(event("finished", at, "worker", 0, iteration - 1))
        view.event(event("finished", at, "worker", 0, iteration - 9))
    assert len(view._iterations) == 2
    (line, bar) = unstyled(view.live(1000.0))
    assert line.startswith("iteration 999")
    assert "16 min 40 s" in bar


def test_progress_is_shown_while_it_lasts() -> None:
    view = SwarmView()
    view.event(event("iteration"))
    view.event(event("started", 0.0, "train", 0))
    view.event(EventOverview(0.0, "progress", "", 0, "train", 0, "n", 0.25))
    assert "train 0/1 25%" in str(view.live(1.0)[0])


@pytest.mark.parametrize(
    "kind", ["failed", "retried", "lost", "waiting", "ignored", "notice", "quorum"]
)
def test_trouble_is_told_at_once(kind: str) -> None:
    assert unstyled(SwarmView().event(event(kind, alias="w"))) == [f"w {kind}."]


def test_unknown_events_are_passed_over() -> None:
    assert SwarmView().event(event("of a later version", iteration=-1)) == []


def shown(*metrics: object) -> SwarmView:
    view = SwarmView()
    for item in metrics:
        view.metric(item)  # type: ignore[arg-type]
    return view


def test_the_ending_has_the_last_values_by_node_and_not_the_lines_again() -> None:
    view = shown(
        *(metric(i, f"node-{n}", i + n / 10) for i in range(2) for n in (1, 2, 10)),
        metric(0, "node-2", 3.0, "center"),
        metric(1, "node-1", 4.0, "center"),
    )
    assert unstyled(view.metrics.table()) == [
        "iteration 1  acc",
        "node-1       1.1",
        "node-2       1.2",
        "node-10      2.0",
    ]
    assert shown(metric(0, "node-1", 3.0), metric(1, "node-2", 4.0)).metrics.table() == []
    assert shown().metrics.table() == []


def test_a_table_of_nodes_that_run_several_instances() -> None:
    view = shown(metric(0, "a", 1.0, index=0), metric(0, "a", 2.0, index=1), metric(0, "b", 3.0))
    assert [line.split()[0] for line in unstyled(view.metrics.table())[1:]] == ["a.0", "a.1", "b.0"]


def test_a_long_table_keeps_beginning_and_end() -> None:
    lines = unstyled(shown(*(metric(0, f"n{i}", float(i)) for i in range(100))).metrics.table())
    assert len(lines) == 22
    assert lines[11].split() == ["..."]
    assert lines[-1].split() == ["n99", "99"]


def test_what_is_not_a_number_is_shown_and_counted() -> None:
    nan = float("nan")
    view = shown(metric(0, "a", 0.5), metric(0, "b", nan), metric(0, "c", 0.75))
    assert view.metrics.summary(0) == ["acc mean    nan (1 of 3 nan, 0.5000 to 0.7500)"]
    assert [line.split()[1] for line in unstyled(view.metrics.table())[1:]] == [
        "0.50",
        "nan",
        "0.75",
    ]
    alone = shown(metric(0, "a", nan))
    assert alone.metrics.summary(0) == ["acc nan"]
    both = shown(metric(0, "a", nan), metric(0, "b", nan))
    assert both.metrics.summary(0) == ["acc mean nan (2 of 2 nan)"]
    infinite = shown(metric(0, "a", float("inf")), metric(0, "b", 1.0))
    assert infinite.metrics.summary(0) == ["acc mean inf (  1 to inf)"]


def test_columns_hold_from_line_to_line() -> None:
    view = SwarmView(3)
    for iteration, values in enumerate([(1.0, 0.5), (0.25, 0.125), (12.5, 1.0)]):
        for node, value in zip("ab", values, strict=True):
            view.metric(metric(iteration, node, value))  # type: ignore[arg-type]
            view.metric(metric(iteration, node, 10.0, "n"))  # type: ignore[arg-type]
    lines = ["   ".join(view.metrics.summary(iteration)) for iteration in (0, 1)]
    assert lines == [
        "acc mean 0.7500 (0.5000 to 1.0000)   n mean 10 (10 to 10)",
        "acc mean 0.1875 (0.1250 to 0.2500)   n mean 10 (10 to 10)",
    ]
    assert view.metrics.summary(2)[0] == "acc mean  6.7500 ( 1.0000 to 12.5000)"


def test_a_bar_moves_with_the_progress_that_tasks_tell() -> None:
    view = SwarmView()
    view.event(event("iteration"))
    for index in range(2):
        view.event(event("started", 0.0, "train", index))
    assert len(view.live(1.0)) == 1, "no end is known"
    told = EventOverview(0.0, "progress", "train.0 is at 50%: epoch 2", 0, "train", 0, "n", 0.5)
    view.event(told)
    (_, bar) = unstyled(view.live(1.0))
    assert bar.endswith(" 22%   1.00 s   train.0 is at 50%: epoch 2")
    view.event(event("finished", 0.0, "train", 0))
    assert " 45% " in str(view.live(1.0)[1])
    view.event(event("started", 0.0, "next", 0))
    assert " 45% " in str(view.live(1.0)[1]), "it does not go back"


def ended(status: str, reason: str) -> SwarmOverview:
    values = {"status": status, "reason": reason, "iteration": 1}
    given = [values.get(field) for field in SwarmOverview.__struct_fields__]
    return SwarmOverview(*given)  # type: ignore[arg-type]


def test_a_failure_is_told_once() -> None:
    said = "w.1 failed on n in iteration 1: ValueError: no"
    view = SwarmView(3)
    view.event(EventOverview(0.0, "failed", said, 1, "w", 1, "n", None))
    assert unstyled(view.ending(ended("FAILED", f"{said}."), [], 80)) == [
        "",
        "FAILED in iteration 1.",
    ]
    twice = view.ending(ended("FAILED", f"{said} (attempt 2 of 2)."), [], 80)
    assert unstyled(twice)[-1] == "FAILED in iteration 1 (attempt 2 of 2)."
    other = view.ending(ended("FAILED", "the quorum was missed"), [], 80)
    assert unstyled(other)[-1] == "FAILED: the quorum was missed"


def test_last_lines_are_shown_unless_the_logs_were() -> None:
    lines = ("a", "a", "b")
    error = ErrorOverview(
        *[
            {"traceback": "T", "last_lines": lines, "status": "FAILED", "alias": "w"}.get(field, 0)
            for field in ErrorOverview.__struct_fields__
        ]  # type: ignore[arg-type]
    )
    view = SwarmView()
    assert "  a  x 2" in view.ending(ended("FAILED", ""), [error], 80)
    view.logs([log("a")])
    assert "Its last lines:" not in view.ending(ended("FAILED", ""), [error], 80)


def line(words: str, stream: str = "stdout", **how: bool) -> str:
    return str(log_line(Folded(log(words, stream)), **how))


def test_log_lines() -> None:
    assert line("hello") == "node-1 worker.0 | hello"
    assert line("oh", "error") == "node-1 worker.0 | ERROR oh"
    assert line("") == "node-1 worker.0 |"
    assert line("hello", iteration=True) == "node-1 worker.0 #0 | hello"
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d node-1 worker.0 #0 \| a", line("a", times=True)
    )


def test_the_iteration_is_shown_where_there_are_several() -> None:
    assert unstyled(SwarmView(1).logs([log("a")])) == ["node-1 worker.0 | a"]
    assert unstyled(SwarmView(2).logs([log("a")])) == ["node-1 worker.0 #0 | a"]
    endless = SwarmView()
    endless.event(event("iteration", iteration=1))
    assert unstyled(endless.logs([log("a")])) == ["node-1 worker.0 #0 | a"]


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("10%\r50%\r100%", "100%"),
        ("50%\r", "50%"),
        ("\r", ""),
        ("over", "over"),
        ("one\rnode-2 worker.0 | two", "node-2 worker.0 | two"),
        ("a\tb", "a       b"),
    ],
)
def test_a_redraw_replaces_the_text_not_whose_it_is(words: str, shown: str) -> None:
    assert line(words) == f"node-1 worker.0 | {shown}".rstrip()


def test_the_width_of_characters_that_take_two_columns_or_none() -> None:
    assert text.width("日本") == 4
    assert text.width("e\u0301") == 1
    assert text.width("\u1112\u1161\u11ab") == text.width("한") == 2
    assert text.width("가\ud7cb\u11a8") == 2
    assert text.width("❤\ufe0f" * 3) == 6
    assert text.width("1\ufe0f\u20e3") == 2
    assert str(text.clipped("日本語", 4)) == "日…"


@pytest.mark.parametrize(
    ("duration", "shown"),
    [(0, "0 ms"), (0.0123, "12 ms"), (0.5, "0.50 s"), (12.34, "12.3 s"), (125, "2 min 05 s")],
)
def test_seconds(duration: float, shown: str) -> None:
    assert text.seconds(duration) == shown


@given(st.floats())
def test_any_number_can_be_shown(value: float) -> None:
    assert text.number(value)
    assert len(text.numbers([value, None, 1.0])) == 3


@given(st.text(st.characters(categories=["L"]), max_size=50), st.integers(1, 40))
def test_clipped(words: str, columns: int) -> None:
    red = styled(words, fg="red")
    clipped = text.clipped(red, columns)
    assert text.width(clipped) <= max(columns, 1)
    assert text.clipped(red, 1000) == red


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_screen_redraws_on_a_terminal_only() -> None:
    terminal, file = Terminal(), io.StringIO()
    for stream in (terminal, file):
        screen = Screen(stream)
        screen.show(["one"], ["moving"])
        screen.show(["two"], ["moved"])
        screen.show([])
    first, second = ("\x1b[?7l" + one + "\n\x1b[?7h" for one in ("moving", "moved"))
    assert terminal.getvalue() == f"one\n{first}\x1b[1F\x1b[Jtwo\n{second}\x1b[1F\x1b[J"
    assert file.getvalue() == "one\ntwo\n"


def test_no_colour_where_it_is_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    terminal = Terminal()
    Screen(terminal).show([styled("red", fg="red")])
    assert terminal.getvalue() == "red\n"


def test_where_the_time_went() -> None:
    parts = shares(
        100.0,
        110.0,
        [
            Span(101.0, 104.0, Timings(computing=2.0, starting=0.5)),
            Span(101.0, 103.0, Timings(computing=2.0)),  # not on the way to the end
            Span(105.0, 109.0, Timings(queued=0.5, computing=3.0, moving=0.5)),
        ],
    )
    assert parts == pytest.approx(
        {
            "placing": 1 + 0.5 + 1 + 1,
            "waiting": 0.0,
            "starting": 1.0,
            "loading": 0.0,
            "computing": 5.0,
            "moving": 0.5,
        }
    )


def test_waiting_for_a_node_is_not_placing() -> None:
    parts = shares(
        100.0,
        140.0,
        [
            Span(100.0, 101.0, Timings(loading=0.25, computing=0.75)),
            Span(101.0, 121.0, Timings(), interrupted=True),  # on the node that was lost
            Span(131.0, 140.0, Timings(computing=9.0)),
        ],
        waits=[122.0],
    )
    wanted = {"placing": 1.0, "waiting": 29.0, "loading": 0.25, "computing": 9.75}
    assert parts == pytest.approx({**dict.fromkeys(PARTS, 0.0), **wanted})


times = st.floats(0, 10)


@given(
    st.lists(
        st.builds(
            lambda a, b, t, lost: Span(min(a, b), max(a, b), Timings(*t), lost),
            times,
            times,
            st.tuples(*[st.floats(0, 20)] * 6),
            st.booleans(),
        )
    ),
    st.lists(times),
)
def test_shares_always_add_up(spans: list[Span], waits: list[float]) -> None:
    parts = shares(0.0, 10.0, spans, waits)
    assert set(parts) == set(PARTS)
    assert all(value >= 0 for value in parts.values())
    assert sum(parts.values()) == pytest.approx(10.0, abs=0.01)


def test_a_bar_shows_how_far_a_swarm_has_come() -> None:
    view = SwarmView(max_iteration=4)
    for iteration in range(3):
        item = EventOverview(100.0 + iteration, "iteration", "", iteration, "", -1, "", None)
        view.event(item)
    bar = str(view.live(107.0)[-1])
    assert bar == "━" * 40 + "  50%   7.00 s"
    assert len(SwarmView(max_iteration=1).live(107.0)) == 0
