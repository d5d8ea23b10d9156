"""Changes, applied in order by a node that fetches when it lags, are the whole."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from manta.manager.cluster.desired import DesiredStates
from manta.protocol.node import Assignment, Instance
from manta.protocol.spec import ModuleSpec


def assignment(node, swarm, index, attempt=0):
    instance = Instance(swarm, "w", index, 0, attempt)
    return Assignment(instance, ModuleSpec("m"), "fl", node, 1)


def test_nothing_changed_nothing_sent():
    made = DesiredStates()
    assert made.flush() == {}
    made.assign("a", assignment("a", "s", 0))
    assert made.version("a") == 0
    (change,) = made.flush().values()
    assert (change.version, len(change.assign), change.revoke) == (1, 1, ())
    assert made.flush() == {}
    assert made.version("a") == 1


def test_what_was_given_and_taken_back_was_never_there():
    made = DesiredStates()
    one = assignment("a", "s", 0)
    made.assign("a", one)
    made.revoke("a", one.instance)
    made.revoke("a", one.instance)
    made.revoke("b", one.instance)
    assert made.flush() == {}


def test_the_whole_takes_what_gathered_with_it():
    made = DesiredStates()
    made.assign("a", assignment("a", "s", 0))
    assert made.full("a").version == 1
    assert len(made.full("a").assignments) == 1
    assert made.full("a").version == 1
    assert made.flush() == {}


def test_what_a_node_has_can_be_taken_back_given_again_and_taken_back():
    made = DesiredStates()
    one = assignment("a", "s", 0)
    made.assign("a", one)
    made.flush()
    made.revoke("a", one.instance)
    made.assign("a", one)
    made.revoke("a", one.instance)
    assert made.flush()["a"].revoke == (one.instance,)


def test_the_end_of_a_swarm_takes_all_of_it_away():
    made = DesiredStates()
    made.swarm_began("s")
    made.assign("a", assignment("a", "s", 0))
    made.assign("a", assignment("a", "t", 0))
    made.flush()
    made.swarm_ended("s")
    change = made.flush()["a"]
    assert [i.swarm_id for i in change.revoke] == ["s"]
    assert change.swarms == ()


def test_a_node_is_told_of_the_swarms_that_it_was_given_and_of_no_others():
    made = DesiredStates()
    for swarm in "st":
        made.swarm_began(swarm)
    made.assign("a", assignment("a", "s", 0))
    made.assign("b", assignment("b", "t", 0))
    assert {node: change.swarms for node, change in made.flush().items()} == {
        "a": ("s",),
        "b": ("t",),
    }
    # It keeps its warm runtimes after what ran there has ended, and after a restart.
    made.revoke("a", assignment("a", "s", 0).instance)
    assert made.flush()["a"].swarms == made.full("a").swarms == ("s",)
    again = DesiredStates()
    again.swarm_began("s")
    again.restore("s", {}, ["a", "b"], ["a"])
    assert again.full("a").swarms == ("s",)
    assert again.full("b").swarms == ()
    made.swarm_ended("t", kill=True)
    assert {node: change.killed for node, change in made.flush().items()} == {"b": ("t",)}


def test_a_forgotten_node_starts_anew():
    made = DesiredStates()
    made.assign("a", assignment("a", "s", 0))
    made.flush()
    made.forget("a")
    assert made.full("a").assignments == ()


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["assign", "revoke", "flush", "drop", "full", "begin", "end"]),
            st.sampled_from("ab"),
            st.sampled_from("st"),
            st.integers(0, 2),
        ),
        max_size=60,
    )
)
def test_any_history(steps):
    made = DesiredStates()
    truth: dict = {"a": {}, "b": {}}
    held: dict = {"a": (0, {}, ()), "b": (0, {}, ())}
    running: dict = {}
    told: dict = {"a": set(), "b": set()}

    def apply(node, change):
        version, assignments, _ = held[node]
        if change.version != version + 1:
            return
        assignments = {k: v for k, v in assignments.items() if k not in change.revoke}
        assignments |= {a.instance: a for a in change.assign}
        held[node] = (change.version, assignments, change.swarms)

    def fetch(node):
        full = made.full(node)
        held[node] = (full.version, {a.instance: a for a in full.assignments}, full.swarms)

    for act, node, swarm, index in steps:
        given_ = assignment(node, swarm, index)
        match act:
            case "assign" if given_.instance not in truth[node]:
                truth[node][given_.instance] = given_
                told[node].add(swarm)
                made.assign(node, given_)
            case "revoke":
                truth[node].pop(given_.instance, None)
                made.revoke(node, given_.instance)
            case "flush":
                for to, change in made.flush().items():
                    apply(to, change)
            case "drop":
                made.flush()
            case "full":
                fetch(node)
            case "begin":
                running[swarm] = None
                made.swarm_began(swarm)
            case "end":
                running.pop(swarm, None)
                made.swarm_ended(swarm)
                for known in told.values():
                    known.discard(swarm)
                for all_of in truth.values():
                    for instance in [i for i in all_of if i.swarm_id == swarm]:
                        del all_of[instance]
    for to, change in made.flush().items():
        apply(to, change)
    for node in "ab":
        if held[node][0] != made.version(node):
            fetch(node)
        assert held[node][1] == truth[node]
        assert set(held[node][2]) == running.keys() & told[node] or held[node][0] == 0


def read(made, node):
    """The whole, page by page, and how many pages that were."""
    page = made.full(node)
    found, pages = list(page.assignments), 1
    while page.more:
        page = made.full(node, page.version, len(found))
        assert page.after == len(found)
        found += page.assignments
        pages += 1
    return page, found, pages


def test_what_no_message_holds_is_read_in_pages_of_one_moment():
    made = DesiredStates(page_bytes=300)
    given_ = [assignment("a", "s", index) for index in range(20)]
    for one in given_:
        made.assign("a", one)
    first = made.full("a")
    assert first.more
    assert 1 < len(first.assignments) < 20
    made.revoke("a", given_[-1].instance)
    made.flush()
    second = made.full("a", first.version, len(first.assignments))
    assert (second.version, second.after) == (first.version, len(first.assignments))
    last, found, pages = read(made, "a")
    assert pages > 2
    assert (last.version, found) == (made.version("a"), given_[:-1])
    # Once read, or of another version, it begins anew.
    assert made.full("a", last.version, 19).after == 0
    assert made.full("a", last.version - 1, 1).after == 0


def test_a_change_that_no_message_holds_leaves_a_gap():
    made = DesiredStates(page_bytes=100)
    made.swarm_began("s")
    given_ = [assignment("a", "s", index) for index in range(20)]
    for one in given_:
        made.assign("a", one)
    change = made.flush()["a"]
    assert (change.version, change.assign, change.swarms) == (2, (), ("s",))
    made.revoke("a", given_[0].instance)
    assert made.flush()["a"].version == 3
    made.swarm_ended("s", kill=True)
    change = made.flush()["a"]
    assert (change.version, change.revoke, change.killed) == (5, (), ("s",))
    assert read(made, "a")[1] == []


def test_a_swarm_that_read_its_log_gives_what_it_wants_in_place_of_what_was_known():
    made = DesiredStates()
    old, both, new = (assignment("a", "s", index) for index in range(3))
    other, elsewhere = assignment("a", "t", 0), assignment("b", "s", 3)
    for one in (old, both, other):
        made.assign("a", one)
    made.flush()
    made.restore("s", {"a": (both, new), "b": (elsewhere,), "gone": (old,)}, ["a", "b"])
    changes = made.flush()
    assert changes.keys() == {"a", "b"}
    assert (changes["a"].assign, changes["a"].revoke) == ((new,), (old.instance,))
    assert set(made.full("a").assignments) == {both, other, new}
    assert made.full("b").assignments == (elsewhere,)
