"""What the attributes of a swarm's base class mean, however a subclass sets them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from manta import Swarm, Task
from manta.apis.compile.spec import compile_swarm
from manta.apis.errors import InvalidArgument, InvalidValue
from manta.apis.swarm import Network, definition_of

CODE = "def main():\n    pass\n"


class Assigned(Swarm):
    def __init__(self) -> None:
        self.globals = {"rate": 0.5, "rounds": 3}
        self.networks = {"circle": "ring", "pairs": [("a", "b")]}
        self.set_global("late", 1)
        self.globals["rounds"] = 4
        self.add_network("all")
        self.task = Task(CODE)


class Declared(Swarm):
    globals: Any = {"rate": 0.5, "rounds": 4}
    networks: Any = {"circle": "ring", "pairs": [("a", "b")]}

    def __init__(self) -> None:
        super().__init__()
        self.set_global("late", 1)
        self.add_network("all")
        self.task = Task(CODE)


@pytest.mark.parametrize("kind", [Assigned, Declared])
def test_globals_and_networks_may_be_assigned(kind: type[Swarm]) -> None:
    found = definition_of(kind())
    assert found.globals == {"rate": 0.5, "rounds": 4, "late": 1}
    assert found.networks == {
        "circle": Network("ring"),
        "pairs": Network("edges", (("a", "b"),)),
        "all": Network("full"),
    }
    spec = compile_swarm(kind()).spec
    assert sorted(spec.globals) == ["late", "rate", "rounds"]
    assert [network.name for network in spec.networks] == ["circle", "pairs", "all"]


def test_they_are_mappings_of_what_was_set() -> None:
    one, other = Assigned(), Swarm()
    assert dict(one.globals) == {"rate": 0.5, "rounds": 4, "late": 1}
    del one.globals["late"]
    assert "late" not in one.globals
    other.globals, other.networks = one.globals, one.networks
    assert definition_of(other)[1:] == definition_of(one)[1:]
    other.globals = {}
    assert not other.globals
    assert len(one.globals) == 2, "a copy"


@dataclass
class Fields(Swarm):
    max_iteration: int = 7
    seed: int = 3
    globals: Any = field(default_factory=lambda: {"a": 1})

    def execute(self) -> Task:
        return Task(CODE)


class Constants(Swarm):
    max_iteration = 7
    seed = 3
    globals: Any = {"a": 1}

    def __init__(self) -> None:
        super().__init__()
        self.task = Task(CODE)


class Calculated(Constants):
    @property  # type: ignore[misc]
    def globals(self) -> Any:
        return {"a": 1}


@pytest.mark.parametrize("kind", [Fields, Constants, Calculated])
def test_a_class_may_declare_what_its_swarms_are(kind: Callable[[], Swarm]) -> None:
    spec = compile_swarm(kind()).spec
    assert (spec.max_iteration, spec.seed, [*spec.globals]) == (7, 3, ["a"])
    assert "up to 7 iterations" in str(kind())


def test_what_was_set_before_the_base_class_is_initialised_stays() -> None:
    class Early(Swarm):
        def __init__(self) -> None:
            self.max_iteration = 4
            super().__init__()

    assert Early().max_iteration == 4
    assert Swarm(5, 6).seed == 6


def of(**attributes: Any) -> Callable[[], object]:
    return lambda: definition_of(type("Mine", (Swarm,), attributes)())


def assigning(name: str, value: Any) -> Callable[[], object]:
    swarm = Swarm()

    def assign() -> object:
        setattr(swarm, name, value)
        return definition_of(swarm)

    return assign


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (assigning("globals", 3), "Swarm's globals are 3: give a dict"),
        (assigning("globals", Task(CODE)), "Swarm's globals are <Task module>: give a dict"),
        (assigning("globals", {3: 1}), "The tag of a global is 3: give a string"),
        (assigning("globals", {"a": {"b": object()}}), "The global 'a' cannot be sent: value"),
        (assigning("networks", ["ring"]), r"Swarm's networks are \['ring'\]: give a dict"),
        (assigning("networks", {"n": "mesh"}), "The topology of .* is 'mesh': give"),
        (assigning("set_global", {"a": 1}), "Swarm.set_global is .* hides the method set_global"),
        (assigning("execute", Task(CODE)), "Swarm.execute is <Task module> and hides the method"),
        (of(globals=lambda self: 3), "Swarm's globals are <bound method"),
        (of(globals={"": 1}), "The tag of a global is '': give 1 to 200"),
        (of(seed="x"), "Swarm's seed is 'x': give a whole number"),
        (of(max_iteration=0), "Swarm's max_iteration is 0: give"),
        (of(add_network="ring"), "Mine.add_network is 'ring' and hides the method"),
        (of(set_cluster=Task(CODE)), "Mine.set_cluster is <Task module> and hides"),
        (of(name=lambda self: "x"), "Swarm's name is .*: give a string"),
    ],
)
def test_what_hides_a_name_of_the_base_and_cannot_stand_for_it_is_told(
    call: Callable[[], object], words: str
) -> None:
    with pytest.raises((InvalidArgument, InvalidValue), match=words):
        call()


def test_a_swarm_that_hides_execute_says_so_when_it_is_shown() -> None:
    class Mine(Swarm):
        def __init__(self) -> None:
            self.execute = Task(CODE)  # type: ignore[method-assign]

    assert "hides the method execute() of Swarm: give it another name" in str(Mine())

    class Wrong(Constants):
        max_iteration: Any = "x"
        schedule = (("task", "parallel"),)

    assert "not valid: Swarm's max_iteration is 'x'" in str(Wrong())


def test_a_dict_that_is_wrong_changes_nothing() -> None:
    swarm = Assigned()
    with pytest.raises(InvalidValue):
        swarm.globals = {"fine": 1, "wrong": object()}
    assert "rate" in swarm.globals
    assert "fine" not in swarm.globals


def test_methods_may_be_extended() -> None:
    class Loud(Swarm):
        def set_global(self, tag: str, value: Any) -> None:
            super().set_global(tag.upper(), value)

    swarm = Loud()
    swarm.set_global("a", 1)
    assert definition_of(swarm).globals == {"A": 1}
