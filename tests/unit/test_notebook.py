"""What notebooks show of streams and runs, outside of a notebook: whose forms are right."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from manta import notebook
from manta.apis.errors import InvalidArgument
from manta.apis.overviews import MetricsOverview, SwarmOverview
from manta.console.notebook import MOST_LINES, NotebookScreen, Shown, screen
from manta.console.terminal import Screen
from manta.testing.waiting import wait_until
from tests.support.hostile import EVIL, assert_harmless


class Kept(Shown):
    """Keeps what it is given to show."""

    def __init__(self) -> None:
        super().__init__()
        self.html: list[str] = []
        self.text = ""

    def update(self, html: str, text: str) -> None:
        self.html.append(html)
        self.text = text


def swarm(name: str, status: str) -> SwarmOverview:
    return SwarmOverview(name, name, "lab", status, "", 0, None, 0.0, None, None, 1)


def metric(iteration: int, name: str = "loss") -> MetricsOverview:
    return MetricsOverview(0.0, "id", "node-1", "worker", 0, iteration, 0, {name: 0.5}, None)


class Clock:
    """Time that passes when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.calls: list[tuple[float, Callable[[], None]]] = []
        monkeypatch.setattr(notebook, "time", self)

    def monotonic(self) -> float:
        return self.now

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        self.calls.append((self.now + seconds, call))

    def advance(self, seconds: float) -> None:
        self.now += seconds
        due = [call for at, call in self.calls if at <= self.now]
        self.calls = [(at, call) for at, call in self.calls if at > self.now]
        for call in due:
            call()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_what_has_an_id_has_one_row_as_it_is_now(clock: Clock) -> None:
    shown = Kept()
    view = notebook._View(shown, clock.later)
    for one in (swarm("a", "ACTIVE"), swarm("b", "ACTIVE"), swarm("a", "COMPLETED")):
        view.add(one)
    view.show()
    assert shown.html[-1].count("<tr>") == 3
    assert shown.html[-1].index("COMPLETED") < shown.html[-1].index("ACTIVE")


def test_of_more_with_ids_than_have_rows_each_counts_once(clock: Clock) -> None:
    shown = Kept()
    view = notebook._View(shown, clock.later)
    for number in [*range(notebook.MOST_ROWS + 5)] * 2:
        view.add(swarm(f"s{number}", "ACTIVE"))
    view.show()
    assert shown.html[-1].count("<tr>") == notebook.MOST_ROWS + 1
    assert "and 5 more" in shown.html[-1]


def test_of_what_has_none_the_latest_are_shown(clock: Clock) -> None:
    shown = Kept()
    view = notebook._View(shown, clock.later)
    for number in range(50):
        view.add(metric(number))
    view.show()
    assert shown.html[-1].count("<tr>") == 21
    assert "and 30 more" in shown.html[-1]
    assert "<td>49</td>" in shown.html[-1]
    assert "<td>29</td>" not in shown.html[-1]


def test_of_much_at_once_the_last_is_shown_though_nothing_follows(clock: Clock) -> None:
    shown = Kept()
    view = notebook._View(shown, clock.later)
    for number in range(10):
        view.add(metric(number))
    assert len(shown.html) == 1, "the first at once"
    clock.advance(notebook.PACE)
    assert len(shown.html) == 2
    assert "<td>9</td>" in shown.html[-1]
    clock.advance(10)
    assert len(shown.html) == 2
    view.add(metric(10))
    assert "<td>10</td>" in shown.html[-1]


def test_a_cell_that_waits_for_its_stream_shows_what_came(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown = Kept()
    monkeypatch.setattr(notebook, "Shown", lambda: shown)

    def stream() -> Iterator[MetricsOverview]:
        yield metric(0)
        yield metric(1)
        wait_until(lambda: "<td>1</td>" in shown.html[-1])

    notebook.watch(stream())


def test_columns_are_those_of_all_rows(clock: Clock) -> None:
    shown = Kept()
    view = notebook._View(shown, clock.later)
    for name in ("loss", "accuracy"):
        view.add(metric(0, name))
    view.show()
    header = shown.text.splitlines()[0].split()
    assert header == ["iteration", "node", "task", "loss", "accuracy"]


def test_what_is_no_stream_of_the_api_is_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"watch\(\) is given 5"):
        notebook.watch(5)  # type: ignore[call-overload]
    with pytest.raises(InvalidArgument, match="a stream of 5"):
        notebook.watch([5])


def test_an_asynchronous_stream_is_watched_by_a_task_that_raises_what_it_raises() -> None:
    async def stream() -> AsyncIterator[SwarmOverview]:
        yield swarm("a", "ACTIVE")
        raise ConnectionError("gone")

    async def main() -> None:
        with pytest.raises(ConnectionError, match="gone"):
            await notebook.watch(stream())

    asyncio.run(main())


def test_a_cell_shows_the_last_lines_and_how_many_it_leaves_out() -> None:
    shown, one = Kept(), NotebookScreen()
    one._shown = shown
    for number in range(MOST_LINES + 7):
        one.show([f"line {number}"], ["live"])
    lines = shown.text.splitlines()
    assert lines[0] == "(7 lines before are not shown)"
    assert lines[1] == "line 7"
    assert lines[-2:] == [f"line {MOST_LINES + 6}", "live"]
    one.show(["the end"])
    assert "live" not in shown.text


def test_live_lines_go_though_none_stays() -> None:
    shown, one = Kept(), NotebookScreen()
    one._shown = shown
    one.show([], ["live"])
    one.show([])
    assert shown.html[-1] == ""


def test_nothing_that_others_wrote_acts_on_a_cell() -> None:
    shown, one = Kept(), NotebookScreen()
    one._shown = shown
    one.show([EVIL, "<script>"], [EVIL])
    assert "<script>" not in shown.html[-1]
    assert len(shown.text.splitlines()) == 3
    assert_harmless(shown.text.encode())


def test_a_quiet_cell_shows_nothing_and_elsewhere_it_is_the_terminal() -> None:
    shown, one = Kept(), NotebookScreen(quiet=True)
    one._shown = shown
    one.show(["line"])
    assert shown.html == []
    assert type(screen()) is Screen
