"""What a notebook shows."""

from __future__ import annotations

from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest

from manta import Condition, Module, Results, Swarm, Task
from manta.apis import drawing, errors
from manta.apis.drawing import MOST_COLUMNS, MOST_LETTERS, MOST_TASKS, Box
from manta.apis.results import MOST_ROWS, Result
from manta.apis.swarm import graph_of
from manta.protocol.codes import Code
from tests.support.hostile import EVIL, MARK, assert_harmless

SVG = "{http://www.w3.org/2000/svg}"


def task(name: str) -> Task:
    return Task(Module("def main():\n    pass\n", name=name))


class FanIn(Swarm):
    name = "fan in"

    def __init__(self) -> None:
        super().__init__(max_iteration=3)
        self.set_global("model", 1)

    def execute(self) -> Task:
        left, right = task("left")(), task("right")()
        merged = task("merge")([left, right])
        return task("<last> & least")(merged, condition=Condition.RESULT)


def drawn(html: str) -> ElementTree.Element:
    return ElementTree.fromstring(html[html.index("<svg") : html.index("</svg>") + 6])


def boxes(svg: ElementTree.Element) -> dict[str, tuple[int, int]]:
    """The corner of each box by the task's name."""
    found = {}
    for group in svg.iter(f"{SVG}g"):
        rect, name = group.find(f"{SVG}rect"), group.find(f"{SVG}text")
        if rect is not None and name is not None:
            found[name.text or ""] = int(rect.attrib["x"]), int(rect.attrib["y"])
    return found


def test_a_swarm_is_drawn_with_each_task_right_of_those_before_it() -> None:
    html = FanIn()._repr_html_()
    svg = drawn(html)
    at = boxes(svg)
    assert set(at) == {"left", "right", "merge", "<last> & least"}
    assert at["left"][0] == at["right"][0] < at["merge"][0] < at["<last> & least"][0]
    assert at["left"][1] < at["merge"][1] < at["right"][1]
    lines = [path for path in svg.iter(f"{SVG}path") if path.get("stroke")]
    assert len(lines) == 3
    assert sum("stroke-dasharray" in line.attrib for line in lines) == 1
    assert "Swarm fan in (up to 3 iterations)" in html
    assert "globals: model" in html
    width, height = int(svg.attrib["width"]), int(svg.attrib["height"])
    assert all(0 < x < width and 0 < y < height for x, y in at.values())


def test_a_graph_is_drawn_as_its_swarm() -> None:
    swarm = FanIn()
    assert graph_of(swarm)._repr_html_() in swarm._repr_html_()


class Rounds(Swarm):
    def __init__(self, *modes: str) -> None:
        self.worker = task("worker")
        self.aggregator = task("aggregator")
        self.schedule = [("worker", "parallel"), ("aggregator", modes[0])] * 4
        if len(modes) > 1:
            self.schedule += [("worker", "parallel")]


def test_a_schedule_is_drawn_in_the_order_of_its_entries() -> None:
    swarm = Rounds("sequential")
    html = swarm._repr_html_()
    title = "Swarm Rounds (4 iterations, by its schedule)"
    assert title in html
    assert str(swarm).startswith(title)
    svg = drawn(html)
    at = boxes(svg)
    assert at["worker"][0] < at["aggregator"][0]
    assert "one by one" in ElementTree.tostring(svg, encoding="unicode")


def test_iterations_that_differ_are_told_in_words() -> None:
    html = Rounds("parallel", "last")._repr_html_()
    assert "<svg" not in html
    assert "iteration 4: worker" in html


def test_many_tasks_are_told_in_words() -> None:
    class Many(Swarm):
        def execute(self) -> list[Task]:
            return [task("w")() for _ in range(MOST_TASKS + 1)]

    html = Many()._repr_html_()
    assert "<svg" not in html
    assert f"w_{MOST_TASKS}" in html


def test_a_swarm_that_is_not_valid_says_why() -> None:
    class Nothing(Swarm):
        name = "<none>"

        def execute(self) -> list[Task]:
            return []

    html = Nothing()._repr_html_()
    assert "not valid: Swarm &#x27;&lt;none&gt;&#x27; has no tasks" in html


class Cells(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self._open = False
        self.feed(html)

    def handle_starttag(self, tag: str, _: object) -> None:
        self._open = tag == "td"

    def handle_data(self, data: str) -> None:
        if self._open:
            self.cells.append(data)
            self._open = False


def result(iteration: int, value: object, *, counts: bool = True) -> Result:
    return Result(
        iteration=iteration,
        tag="<loss>",
        node_id="id",
        node_alias="node-1",
        alias="worker",
        index=0,
        attempt=0 if counts else 1,
        counts=counts,
        load=lambda: value,
    )


def test_results_are_a_table() -> None:
    html = Results([result(0, 0.5), result(1, np.zeros((2, 3)), counts=False)])._repr_html_()
    assert Cells(html).cells == [
        *("0", "<loss>", "node-1", "worker.0", "0.5"),
        *("1", "<loss>", "node-1", "worker.0 (failed attempt 1)", "float64 array of 2 x 3"),
    ]


@pytest.mark.parametrize("more", [0, 5])
def test_of_many_results_the_first_are_shown(more: int) -> None:
    html = Results([result(i, i) for i in range(MOST_ROWS + more)])._repr_html_()
    assert len(Cells(html).cells) == 5 * MOST_ROWS
    assert (f"and {more} more" in html) == bool(more)


def test_a_table_is_bounded_in_columns_and_letters() -> None:
    over = {f"column {at}": "x" * 10_000 for at in range(MOST_COLUMNS + 3)}
    html = drawing.table("wide", [over], 0)
    shown = Cells(html).cells
    assert len(shown) == MOST_COLUMNS
    assert {len(cell) for cell in shown} == {MOST_LETTERS}
    assert "and 3 more columns" in html


def test_no_results_are_not_a_table() -> None:
    html = Results()._repr_html_()
    assert "none" in html
    assert "<table" not in html


def test_nothing_that_others_named_acts_on_a_page() -> None:
    boxes = [Box(EVIL, EVIL, {}), Box("b", "x", {EVIL: Condition.FINISHED})]
    pages = [
        drawing.graph(boxes, ""),
        drawing.graph(boxes * MOST_TASKS, EVIL.replace("\n", " ")),
        drawing.titled(EVIL, "", [EVIL]),
        drawing.table(EVIL, [{EVIL: EVIL, MARK: [EVIL]}], 1),
        drawing.table(EVIL, [], 0),
    ]
    for page in pages:
        assert MARK in page
        assert_harmless(page.encode())


def test_nothing_that_others_named_acts_in_what_python_prints_of_an_error() -> None:
    error = errors.refusal(Code.UNKNOWN_SWARM, f"There is no swarm {EVIL}.", {})
    assert MARK in str(error)
    assert_harmless(str(error).encode())
