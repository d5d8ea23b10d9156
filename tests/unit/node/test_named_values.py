from __future__ import annotations

from manta.node.blobs.named_values import NamedValues


def test_a_global_is_named_until_the_iteration_that_replaced_it_is_over() -> None:
    named = NamedValues()
    named.of_global("a", "s", 0, "model")
    assert named.moved_on("s", 5) == []
    named.of_global("b", "s", 5, "model")
    assert named.moved_on("s", 5) == []
    assert named.moved_on("s", 6) == ["a"]
    assert named.moved_on("s", 9) == []
    assert named.over("s") == ["b"]
    assert len(named) == 0


def test_a_value_that_becomes_the_global_again_stays() -> None:
    named = NamedValues()
    named.of_global("a", "s", 0, "model")
    named.of_global("b", "s", 1, "model")
    named.of_global("a", "s", 1, "model")
    assert named.moved_on("s", 2) == ["b"]


def test_what_is_said_passes_with_its_iteration_and_a_result_with_its_swarm() -> None:
    named = NamedValues()
    named.of_iteration("said", "s", 3)
    named.of_swarm("result", "s")
    named.of_iteration("other", "t", 0)
    assert named.moved_on("s", 3) == []
    assert named.moved_on("s", 4) == ["said"]
    assert named.over("s") == ["result"]
    assert named.over("t") == ["other"]


def test_what_is_named_for_longer_is_not_let_go_for_being_said_as_well() -> None:
    named = NamedValues()
    named.of_global("a", "s", 0, "model")
    named.of_iteration("a", "s", 0)
    assert named.moved_on("s", 1) == []


def test_a_global_that_is_a_result_as_well_stays_when_it_is_replaced() -> None:
    named = NamedValues()
    named.of_global("a", "s", 0, "model")
    named.of_swarm("a", "s")
    named.of_global("b", "s", 0, "model")
    assert named.moved_on("s", 1) == []


def test_so_many_are_remembered() -> None:
    named = NamedValues(most=3)
    for number in range(10):
        named.of_global(f"{number}", "s", number, f"tag {number}")
    assert len(named) == 3
    named.of_global("new", "s", 10, "tag 0")  # its former value was forgotten
    assert named.over("s") == ["8", "9", "new"]
