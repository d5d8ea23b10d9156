from __future__ import annotations

from typing import Any

import pytest

from manta.apis.errors import Ambiguous, InvalidArgument, NotFound
from manta.apis.results import Result, Results


def result(iteration: int, tag: str, node: int, index: int = 0, alias: str = "worker") -> Result:
    value = (iteration, tag, node, index)
    return Result(
        iteration=iteration,
        tag=tag,
        node_id=f"a{node}f0",
        node_alias=f"node-{node}",
        alias=alias,
        index=index,
        attempt=0,
        counts=True,
        load=lambda: value,
    )


ALL = Results(result(i, tag, node) for i in range(3) for tag in ("loss", "acc") for node in (1, 2))


def test_by_iteration_tag_node_and_several() -> None:
    assert len(ALL) == 12
    assert len(ALL(1)) == 4
    assert len(ALL([0, 2])) == 8
    assert len(ALL("loss")) == 6
    assert len(ALL("node-1")) == len(ALL("a1f0")) == len(ALL("a1f")) == 6
    assert ALL("acc", 2, "node-2").values() == [(2, "acc", 2, 0)]
    assert ALL("acc")(2)("node-2")[0].value == (2, "acc", 2, 0)
    assert len(ALL(range(2))) == 8
    assert isinstance(ALL[:2], Results)


def test_by_keywords_that_say_which_is_meant() -> None:
    assert ALL(iteration=1).values() == ALL(1).values()
    assert ALL(iteration=[0, 2]).values() == ALL([0, 2]).values()
    assert ALL(node_id="node-1").values() == ALL(node_id="a1f").values() == ALL("node-1").values()
    assert ALL(tag="acc", iteration=2, node_id="a2f0").values() == [(2, "acc", 2, 0)]
    assert ALL("acc", iteration=2).iterations == [2]
    same = Results([result(0, "node-1", 2), result(0, "loss", 1)])
    assert same("node-1").node_ids == same(tag="node-1").node_ids == ["a2f0"]
    assert same(node_id="node-1").node_ids == ["a1f0"]


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"tag": "a1"}, NotFound, "No results of a tag 'a1': there are the tags loss, acc."),
        (
            {"node_id": "loss"},
            NotFound,
            "No results of a node 'loss': there are the nodes node-1",
        ),
        ({"iteration": 7}, NotFound, "No results of iteration 7: there are iterations 0 to 2."),
        ({"node_id": "a"}, Ambiguous, "fits 2 nodes"),
        ({"iteration": "loss"}, InvalidArgument, "asked for 'loss'"),
        ({"tag": 3}, InvalidArgument, "asked for the tag 3: give a string"),
        ({"node_id": ["node-1"]}, InvalidArgument, "asked for the node .*: give a string"),
    ],
)
def test_keywords_that_fit_nothing(
    keywords: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        ALL(**keywords)


def test_what_there_is() -> None:
    assert ALL.iterations == [0, 1, 2]
    assert ALL.tags == ["loss", "acc"]
    assert ALL.node_ids == ["a1f0", "a2f0"]
    assert repr(ALL) == "<Results: 12 of loss, acc, iterations 0 to 2, 2 nodes>"
    assert repr(Results()) == "<Results: none>"
    assert repr(ALL[0]) == "<Result 'loss' of worker.0 on node-1 in iteration 0>"


def test_by_node() -> None:
    assert ALL("acc", 0).by_node() == {"a1f0": (0, "acc", 1, 0), "a2f0": (0, "acc", 2, 0)}
    several = Results([result(0, "t", 1, 1), result(0, "t", 1, 0), result(0, "t", 2, 2)])
    assert list(several.by_node()) == ["a1f0/worker.0", "a1f0/worker.1", "a2f0"]
    with pytest.raises(InvalidArgument, match="choose one of each first"):
        ALL("acc").by_node()


def test_a_tag_that_starts_later_starts_later() -> None:
    late = Results([result(3, "late", 1)])
    assert late("late").iterations == [3]
    with pytest.raises(NotFound, match="No results of iteration 0: there are iteration 3"):
        late(0)


@pytest.mark.parametrize(
    ("selector", "message"),
    [
        (7, "iteration 7: there are iterations 0 to 2"),
        ([0, 9], "iteration 9"),
        ("gone", r"'gone': there are the tags loss, acc and the nodes node-1, node-2"),
    ],
)
def test_nothing_that_fits(selector: object, message: str) -> None:
    with pytest.raises(NotFound, match=message):
        ALL(selector)  # type: ignore[arg-type]


def test_nothing_at_all() -> None:
    with pytest.raises(LookupError, match="none at all"):
        Results()(0)
    with pytest.raises(NotFound, match="none at all"):
        Results()("x")


def test_ambiguous_beginning_of_an_id() -> None:
    with pytest.raises(Ambiguous, match="'a' fits 2 nodes"):
        ALL("a")


@pytest.mark.parametrize("selector", [None, 1.0, True, {"a": 1}, [1.5]])
def test_no_selector(selector: object) -> None:
    with pytest.raises(InvalidArgument, match="give an iteration"):
        ALL(selector)  # type: ignore[arg-type]


def test_values_are_decoded_once_and_late() -> None:
    calls: list[int] = []

    def load() -> list[int]:
        calls.append(1)
        return [1]

    one = result(0, "t", 1)
    one._load = load
    assert not calls
    assert one.value is one.value
    assert calls == [1]


def written(value: Any, attempt: int, counts: bool, node: int = 1, index: int = 0) -> Result:
    return Result(
        iteration=0,
        tag="loss",
        node_id=f"id{node}",
        node_alias=f"node-{node}",
        alias="worker",
        index=index,
        attempt=attempt,
        counts=counts,
        load=lambda: value,
    )


def test_what_failed_attempts_wrote_has_a_key_of_its_own() -> None:
    tried = Results([written(100, 0, False), written(5, 0, True, 2, 1), written(1, 1, True)])
    assert tried.by_node() == {"id1/worker.0@0": 100, "id1": 1, "id2": 5}


def test_of_several_values_of_an_instance_the_last_is_its_value_as_in_tasks() -> None:
    assert Results([written(1, 0, True), written(2, 0, True)]).by_node() == {"id1": 2}
