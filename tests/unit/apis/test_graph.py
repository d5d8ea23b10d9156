from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manta.apis.errors import GraphError, InvalidArgument
from manta.apis.graph import Condition, topological_order, unique_aliases
from manta.apis.module import Module
from manta.apis.swarm import Swarm, Task, graph_of

SOURCE = "def main():\n    pass\n"


def edges(swarm: Swarm) -> dict[str, dict[str, str]]:
    return {vertex.alias: dict(vertex.after) for vertex in graph_of(swarm).vertices}


def test_tasks_called_in_execute() -> None:
    class Round(Swarm):
        def __init__(self) -> None:
            super().__init__()
            self.worker = Task(Module(SOURCE, name="worker"))
            self.aggregator = Task(Module(SOURCE, name="aggregator"), method="any")

        def execute(self) -> Task:
            return self.aggregator(self.worker(), condition=Condition.RESULT)

    swarm = Round()
    assert edges(swarm) == {"worker": {}, "aggregator": {"worker": "RESULT"}}
    assert edges(swarm) == edges(swarm)  # execute() may run again and again


def test_tasks_made_in_execute_fan_in() -> None:
    class Pipeline(Swarm):
        def execute(self) -> Task:
            loader = Module(SOURCE, name="loader")
            loaders = [Task(loader)() for _ in range(3)]
            return Task(Module(SOURCE, name="processor"))(loaders)

    graph = edges(Pipeline())
    assert list(graph) == ["loader", "loader_1", "loader_2", "processor"]
    assert set(graph["processor"]) == {"loader", "loader_1", "loader_2"}


def test_several_last_tasks() -> None:
    class Fork(Swarm):
        def execute(self) -> list[Task]:
            first = Task(SOURCE, alias="first")()
            return [Task(SOURCE, alias="left")(first), Task(SOURCE, alias="right")(first)]

    assert edges(Fork()) == {
        "first": {},
        "left": {"first": "FINISHED"},
        "right": {"first": "FINISHED"},
    }


def test_without_execute_attributes_run_in_order() -> None:
    class Attributes(Swarm):
        def __init__(self) -> None:
            self.b = Task(SOURCE, alias="b")
            self.two = [Task(SOURCE, alias="c"), Task(SOURCE, alias="d")]
            self.a = Task(SOURCE, alias="a")

    assert edges(Attributes()) == {
        "b": {},
        "c": {"b": "FINISHED"},
        "d": {"b": "FINISHED"},
        "a": {"c": "FINISHED", "d": "FINISHED"},
    }


def test_wiring_outside_of_execute_counts() -> None:
    class Early(Swarm):
        def __init__(self) -> None:
            self.a = Task(SOURCE, alias="a")
            self.b = Task(SOURCE, alias="b")(self.a)

        def execute(self) -> Task:
            return self.b

    assert edges(Early()) == {"a": {}, "b": {"a": "FINISHED"}}


def test_cycle_is_named() -> None:
    class Round(Swarm):
        def __init__(self) -> None:
            self.a, self.b = Task(SOURCE, alias="a"), Task(SOURCE, alias="b")

        def execute(self) -> Task:
            return self.a(self.b(self.a()))

    with pytest.raises(GraphError, match=r"a -> b -> a.*schedule_next_iter"):
        graph_of(Round())


def test_task_after_itself() -> None:
    class Itself(Swarm):
        def execute(self) -> Task:
            task = Task(SOURCE, alias="a")
            return task(task)

    with pytest.raises(GraphError, match="a -> a"):
        graph_of(Itself())


def test_unconnected_attribute_is_named() -> None:
    class Forgotten(Swarm):
        def __init__(self) -> None:
            self.a, self.spare = Task(SOURCE, alias="a"), Task(SOURCE, alias="b")

        def execute(self) -> Task:
            return self.a()

    with pytest.raises(GraphError, match=r"Task 'b' of swarm 'Forgotten'.*self\.spare"):
        graph_of(Forgotten())


def test_unconnected_call_is_named() -> None:
    class Dangling(Swarm):
        def execute(self) -> Task:
            first = Task(SOURCE, alias="first")()
            Task(SOURCE, alias="lost")(first)
            return Task(SOURCE, alias="last")(first)

    with pytest.raises(GraphError, match=r"'lost'.*unconnected"):
        graph_of(Dangling())


def test_nothing_returned() -> None:
    class Nothing(Swarm):
        def execute(self) -> Task:  # type: ignore[empty-body]
            pass

    with pytest.raises(GraphError, match="returned nothing"):
        graph_of(Nothing())


def test_no_tasks() -> None:
    with pytest.raises(GraphError, match="has no tasks"):
        graph_of(Swarm())


@pytest.mark.parametrize("wrong", [3, "worker", [None], {"a": 1}])
def test_called_with_no_task(wrong: object) -> None:
    with pytest.raises(InvalidArgument, match="Task 'module' was called with"):
        Task(SOURCE)(wrong)  # type: ignore[arg-type]


def test_unknown_condition() -> None:
    with pytest.raises(InvalidArgument, match="give Condition"):
        Task(SOURCE)(condition="LATER")


def test_alias_used_twice() -> None:
    with pytest.raises(GraphError, match="Two tasks have the alias 'a'"):
        unique_aliases([("a", True), ("a", True)])


def test_default_aliases_are_numbered_around_explicit_ones() -> None:
    wanted = [("w", False), ("w_1", True), ("w", False), ("w", False)]
    assert unique_aliases(wanted) == ["w", "w_1", "w_2", "w_3"]


@given(st.lists(st.tuples(st.sampled_from(["w", "w_1", "x"]), st.just(False)), max_size=20))
def test_default_aliases_are_unique(wanted: list[tuple[str, bool]]) -> None:
    aliases = unique_aliases(wanted)
    assert len(set(aliases)) == len(aliases)
    assert all(alias.startswith(want) for alias, (want, _) in zip(aliases, wanted, strict=True))


@given(
    st.integers(1, 30).flatmap(
        lambda n: st.tuples(st.just(n), st.permutations(range(n)), st.data())
    )
)
def test_order_puts_all_after_their_parents(drawn: tuple) -> None:
    count, names, data = drawn
    after = {
        str(names[i]): [
            str(names[j])
            for j in data.draw(st.sets(st.integers(0, i - 1), max_size=4) if i else st.just(set()))
        ]
        for i in data.draw(st.permutations(range(count)))
    }
    order = topological_order(after)
    assert sorted(order) == sorted(after)
    for name, parents in after.items():
        assert all(order.index(parent) < order.index(name) for parent in parents)


def test_a_thousand_tasks_in_a_row() -> None:
    class Long(Swarm):
        def execute(self) -> Task:
            module, last = Module(SOURCE), Task(SOURCE)()
            for _ in range(1000):
                last = Task(module)(last)
            return last

    assert len(graph_of(Long()).vertices) == 1001


def test_text_shows_the_graph() -> None:
    class Round(Swarm):
        name = "round"

        def __init__(self) -> None:
            super().__init__(max_iteration=3)
            self.set_global("model", [0.0])
            self.worker = Task(SOURCE, alias="worker", maximum=0.5)

        def execute(self) -> Task:
            return Task(SOURCE, method="any", alias="mean")(self.worker, condition="RESULT")

    assert str(Round()).splitlines() == [
        "Swarm round (up to 3 iterations)",
        "  worker  on all nodes, 50% of them",
        "  mean    on any node                after worker (first result)",
        "  globals: model",
    ]


def test_text_of_an_invalid_swarm_says_why() -> None:
    assert "has no tasks" in str(Swarm())


def test_a_condition_may_be_the_last_argument() -> None:
    first, second, third = (Task("def main():\n    pass\n") for _ in range(3))
    second(first, Condition.RESULT)
    third(first, second, "RESULT")
    assert second.wired == {first: Condition.RESULT}
    assert third.wired == {first: Condition.RESULT, second: Condition.RESULT}
    root = Task("def main():\n    pass\n")
    assert root(Condition.FINISHED) is root
    assert root.wired == {}
