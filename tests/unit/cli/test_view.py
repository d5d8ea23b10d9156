from __future__ import annotations

import io

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manta.apis.overviews import EventOverview, LogOverview, MetricsOverview
from manta.cli.live.timing import PARTS, Span, shares
from manta.cli.live.view import SwarmView, log_line
from manta.console import text
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


def unstyled(lines: list[str]) -> list[str]:
    return [click.unstyle(line) for line in lines]


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
    assert line == "iteration   0    2.00 s   acc 0.6250 (0.5000 to 0.7500)"
    assert view.live(13.0) == []


def test_progress_is_shown_while_it_lasts() -> None:
    view = SwarmView()
    view.event(event("iteration"))
    view.event(event("started", 0.0, "train", 0))
    view.event(EventOverview(0.0, "progress", "", 0, "train", 0, "n", 0.25))
    assert "train 0/1 25%" in click.unstyle(view.live(1.0)[0])


@pytest.mark.parametrize("kind", ["failed", "retried", "lost", "waiting", "ignored", "quorum"])
def test_trouble_is_told_at_once(kind: str) -> None:
    assert unstyled(SwarmView().event(event(kind, alias="w"))) == [f"w {kind}."]


def test_unknown_events_are_passed_over() -> None:
    assert SwarmView().event(event("of a later version", iteration=-1)) == []


def table(*metrics: object, columns: int = 100) -> list[str]:
    view = SwarmView()
    for item in metrics:
        view.metric(item)  # type: ignore[arg-type]
    return view.table(columns)


def test_table_by_iteration_and_node() -> None:
    lines = table(
        *(metric(i, f"node-{n}", i + n / 10) for i in range(2) for n in (1, 2, 10)),
        metric(0, "node-2", 3.0, "mean"),
        metric(1, "node-1", 4.0, "mean"),
    )
    assert lines == [
        "           acc",
        "iteration  node-1  node-2  node-10  mean",
        "        0     0.1     0.2      1.0     3",
        "        1     1.1     1.2      2.0     4",
    ]


def test_table_of_nodes_that_run_several_instances() -> None:
    lines = table(metric(0, "a", 1.0, index=0), metric(0, "a", 2.0, index=1), metric(0, "b", 3.0))
    assert lines[1].split() == ["iteration", "a.0", "a.1", "b.0"]


def test_table_that_is_too_wide_is_folded() -> None:
    wide = [metric(0, f"node-{n}", n / 2) for n in range(1, 20)]
    assert table(*wide, columns=60) == [
        "           acc",
        "iteration  mean  min  max",
        "        0   5.0  0.5  9.5",
    ]


def test_long_table_keeps_beginning_and_end() -> None:
    lines = table(*(metric(i, "a", float(i)) for i in range(100)))
    assert len(lines) == 42
    assert lines[21].split() == ["..."]
    assert lines[-1].split() == ["99", "99"]


def test_no_metrics_no_table() -> None:
    assert table() == []


def test_node_that_left_out_an_iteration_has_a_gap() -> None:
    lines = table(metric(0, "a", 1.0), metric(0, "b", 2.0), metric(1, "b", 3.0))
    assert lines[-1].split() == ["1", "3"]


def test_log_lines() -> None:
    assert click.unstyle(log_line(log("hello"))) == "node-1 worker.0 | hello"
    assert click.unstyle(log_line(log("oh", "error"))) == "node-1 worker.0 | ERROR oh"
    assert click.unstyle(log_line(log(""))) == "node-1 worker.0 |"


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
    styled = click.style(words, fg="red")
    clipped = text.clipped(styled, columns)
    assert text.width(clipped) <= max(columns, 1)
    assert text.clipped(styled, 60) == styled


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
    assert terminal.getvalue() == "one\nmoving\n\x1b[1F\x1b[Jtwo\nmoved\n\x1b[1F\x1b[J"
    assert file.getvalue() == "one\ntwo\n"


def test_no_colour_where_it_is_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    terminal = Terminal()
    Screen(terminal).show([click.style("red", fg="red")])
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
        {"placing": 1 + 0.5 + 1 + 1, "starting": 1.0, "computing": 5.0, "moving": 0.5}
    )


times = st.floats(0, 10)


@given(
    st.lists(
        st.builds(
            lambda a, b, t: Span(min(a, b), max(a, b), Timings(*t)),
            times,
            times,
            st.tuples(*[st.floats(0, 20)] * 5),
        )
    )
)
def test_shares_always_add_up(spans: list[Span]) -> None:
    parts = shares(0.0, 10.0, spans)
    assert set(parts) == set(PARTS)
    assert all(value >= 0 for value in parts.values())
    assert sum(parts.values()) == pytest.approx(10.0, abs=0.01)


def test_a_bar_shows_how_far_a_swarm_has_come() -> None:
    view = SwarmView(max_iteration=4)
    for iteration in range(3):
        item = EventOverview(100.0 + iteration, "iteration", "", iteration, "", -1, "", None)
        view.event(item)
    bar = click.unstyle(view.live(107.0)[-1])
    assert bar == "━" * 40 + "  50%   7.00 s"
    assert len(SwarmView(max_iteration=1).live(107.0)) == 0
