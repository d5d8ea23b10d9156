"""What a result came from, of what is known of a swarm."""

from __future__ import annotations

import pytest

from manta.apis.errors import NotFound
from manta.apis.lineage import Lineage, Written, lineage, not_written
from manta.cli.lineage import lineage_lines
from manta.protocol.machine import DatasetUsed
from manta.protocol.node import GlobalRead, Instance
from manta.protocol.spec import ModuleSpec, SwarmSpec, TaskSpec
from manta.protocol.user import ResultItem, SwarmInfo, TaskInfo
from manta.protocol.values import BlobRef, Inline

SWARM = SwarmInfo("3f2a", "Study", "c", "COMPLETED", "", 1, 2, 0.0, 0.0, 9.0, 2)
SPEC = SwarmSpec(
    "Study",
    (TaskSpec("local", "sums"), TaskSpec("total", "adds")),
    (
        ModuleSpec("sums", BlobRef("a" * 64, 10), datasets=("ward",)),
        ModuleSpec("adds", BlobRef("b" * 64, 10), version="2"),
    ),
)
WARD = DatasetUsed("ward", "d" * 64, "2026-11")


def task(
    alias: str, index: int, iteration: int, began: float | None, ended: float | None,
    *, attempt: int = 0, reads: tuple[GlobalRead, ...] = (),
) -> TaskInfo:  # fmt: skip
    at = Instance("3f2a", alias, index, iteration, attempt)
    used = (WARD,) if alias == "local" else ()
    return TaskInfo(
        at, f"3f2a.{alias}.{index}", "FINISHED", f"n{index}", f"node-{index}", 0.0, began, ended,
        datasets=used, reads=reads,
    )  # fmt: skip


def result(tag: str, iteration: int, attempt: int = 0, *, counts: bool = True) -> ResultItem:
    value = Inline(b"1")
    return ResultItem(iteration, tag, "n0", "node-0", "total", 0, attempt, counts, value)


TASKS = (
    task("local", 0, 0, 1.0, 2.0),
    task("local", 1, 0, 1.0, 2.0),
    task("total", 0, 0, 3.0, 4.0, attempt=0),
    task("total", 0, 1, 5.0, 6.0, attempt=0),
    task("total", 0, 1, 6.5, 7.0, attempt=1, reads=(GlobalRead("model", 3),)),
    task("local", 0, 1, 7.5, 8.0),
    task("local", 1, 1, None, None),
)
RESULTS = (result("sum", 0), result("sum", 1, 0, counts=False), result("sum", 1, 1))


def found(tag: str = "sum", iteration: int | None = None) -> Lineage:
    written = Written(tag, iteration)
    for one in RESULTS:
        written.add(one)
    if not written.by:
        raise not_written(SWARM, written, {one.tag for one in RESULTS if one.counts})
    return lineage(SWARM, SPEC, TASKS, written)


def test_who_made_it_is_the_attempt_that_counts_of_the_latest_iteration() -> None:
    [made] = found().made
    assert (made.alias, made.iteration, made.attempt) == ("total", 1, 1)
    assert (made.module, made.version, made.digest) == ("adds", "2", "b" * 64)
    assert made.globals == (GlobalRead("model", 3),)


def test_what_began_before_it_ended_may_have_told_it_something() -> None:
    before = [(one.alias, one.index, one.iteration, one.attempt) for one in found().before]
    assert before == [
        ("local", 0, 0, 0), ("local", 1, 0, 0), ("total", 0, 0, 0), ("total", 0, 1, 0),
    ]  # fmt: skip
    assert found().before[0].datasets == (WARD,)
    assert found().before[0].digest == "a" * 64
    earlier = found(iteration=0)
    assert [one.iteration for one in earlier.made] == [0]
    assert len(earlier.before) == 2


def test_a_result_that_there_is_not_is_named_with_those_that_there_are() -> None:
    with pytest.raises(NotFound, match=r"has no result 'total'.*it has sum"):
        found("total")
    with pytest.raises(NotFound, match="in iteration 5"):
        found("sum", 5)


def test_it_is_shown_with_what_several_have_in_common_said_once() -> None:
    shown = "\n".join(str(line) for line in lineage_lines(found(), 100))
    assert "module sums, digest aaaaaaaaaaaa" in shown
    assert shown.count("dataset ward, version 2026-11, digest dddddddddddd") == 1
    assert "globals model (3)" in shown
    assert "total.0 on node-0 (iteration 1, attempt 2, FINISHED)" in shown
