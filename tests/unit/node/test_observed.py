from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from manta.node.scheduling.observed import Cancel, Disown, Forget, Observed, StopRuntimes, Take
from manta.protocol.node import Assignment, Desired, DesiredChanged, FetchDesired, Instance
from manta.protocol.spec import ModuleSpec

MODULE = ModuleSpec("worker")


def attempt(index: int = 0, iteration: int = 0, swarm: str = "s") -> Assignment:
    return Assignment(Instance(swarm, "worker", index, iteration), MODULE, "S", "n", 1)


def test_takes_what_is_desired_once() -> None:
    observed = Observed()
    first = attempt()
    assert observed.registered(Desired(3, (first,), ("s",))) == [Take(first)]
    assert observed.registered(Desired(4, (first,), ("s",))) == []
    assert observed.held == (first.instance,)
    assert observed.live == (first,)


def test_what_ended_is_not_rerun_while_it_is_desired() -> None:
    observed = Observed()
    first = attempt()
    observed.registered(Desired(1, (first,), ("s",)))
    observed.ended(first.instance)
    assert observed.held == (first.instance,)
    assert observed.registered(Desired(1, (first,), ("s",))) == []
    assert observed.changed(DesiredChanged(2, (first,), (), ("s",))) == []
    assert observed.changed(DesiredChanged(3, (), (first.instance,), ("s",))) == []
    assert not observed.held


def test_what_ended_before_the_start_is_not_rerun() -> None:
    observed = Observed()
    first = attempt()
    observed.remember([first.instance])
    assert observed.registered(Desired(1, (first,), ("s",))) == []
    assert observed.registered(Desired(2, (), ("s",))) == []
    assert not observed.held


def test_what_had_begun_and_is_not_known_is_not_run_but_ended_once() -> None:
    observed = Observed()
    first = msgspec.structs.replace(attempt(), begun=True)
    known = attempt(1)
    observed.registered(Desired(1, (known,), ("s",)))
    begun = msgspec.structs.replace(known, begun=True)
    assert observed.registered(Desired(2, (first, begun), ("s",))) == [Forget(first.instance)]
    observed.ended(first.instance)
    assert observed.registered(Desired(3, (first, begun), ("s",))) == []
    assert observed.changed(DesiredChanged(4, (), (first.instance,), ("s",))) == []
    assert observed.held == (known.instance,)


def test_revoked_while_live_is_cancelled_once_and_forgotten_at_its_end() -> None:
    observed = Observed()
    first = attempt()
    observed.registered(Desired(1, (first,), ("s",)))
    change = DesiredChanged(2, (), (first.instance,), ("s",))
    assert observed.changed(change) == [Cancel(first.instance)]
    assert observed.registered(Desired(3, (), ("s",))) == []
    assert observed.held == (first.instance,)
    observed.ended(first.instance)
    assert not observed.held


def test_wanted_again_before_its_end_is_remembered() -> None:
    observed = Observed()
    first = attempt()
    observed.registered(Desired(1, (first,), ("s",)))
    observed.changed(DesiredChanged(2, (), (first.instance,), ("s",)))
    assert observed.changed(DesiredChanged(3, (first,), (), ("s",))) == []
    observed.ended(first.instance)
    assert observed.held == (first.instance,)


def test_gap_is_fetched_once() -> None:
    observed = Observed()
    observed.registered(Desired(1))
    assert observed.changed(DesiredChanged(3)) == [FetchDesired()]
    assert observed.changed(DesiredChanged(4)) == []
    assert observed.heard_version(4) == []
    assert observed.fetched(Desired(4, (attempt(),), ("s",))) == [Take(attempt())]
    assert observed.version == 4
    assert observed.changed(DesiredChanged(4)) == []
    assert observed.heard_version(4) == []


def test_a_failed_fetch_is_asked_again() -> None:
    observed = Observed()
    observed.registered(Desired(1))
    assert observed.heard_version(2) == [FetchDesired()]
    observed.fetch_failed()
    assert observed.heard_version(2) == [FetchDesired()]


def test_an_answer_that_changes_overtook_undoes_nothing() -> None:
    observed = Observed()
    observed.registered(Desired(1))
    assert observed.heard_version(2) == [FetchDesired()]
    assert observed.changed(DesiredChanged(2, (), (), ("s",))) == []
    assert observed.changed(DesiredChanged(3, (attempt(),), (), ("s",))) == [Take(attempt())]
    assert observed.fetched(Desired(2, (), ("s",))) == [FetchDesired()]
    assert observed.fetched(Desired(3, (attempt(),), ("s",))) == []
    assert observed.fetched(Desired(0)) == []  # nobody asked


def test_a_manager_that_counts_anew_is_followed() -> None:
    observed = Observed()
    observed.registered(Desired(90, (attempt(),), ("s",)))
    assert observed.registered(Desired(0, (attempt(),), ("s",))) == []
    assert observed.changed(DesiredChanged(1, (), (), ("s",))) == []
    assert observed.version == 1


def test_vanished_swarms_stop() -> None:
    observed = Observed()
    observed.registered(Desired(1, (attempt(),), ("s", "t")))
    assert observed.changed(DesiredChanged(2, (), (), ("s",))) == [StopRuntimes("t")]
    # An assignment keeps its swarm, whatever the list says.
    assert observed.changed(DesiredChanged(3)) == []
    gone = observed.changed(DesiredChanged(4, (), (attempt().instance,), ()))
    assert gone == [Cancel(attempt().instance), StopRuntimes("s")]


def of(epoch: str, index: int = 0) -> Assignment:
    return msgspec.structs.replace(attempt(index), epoch=epoch)


def test_one_that_ended_in_a_past_that_was_lost_does_not_keep_its_namesake_from_running() -> None:
    """The manager was restored before the node heard that the former one is wanted no longer."""
    observed = Observed()
    at = attempt().instance
    for epoch in ("", "first", "second"):  # restored twice from one backup
        taken = observed.registered(Desired(1, (of(epoch),), ("s",)))
        assert taken == ([Disown(at)] if epoch else []) + [Take(of(epoch))]
        observed.ended(at)
        assert observed.registered(Desired(1, (of(epoch),), ("s",))) == []


def test_one_that_runs_since_a_past_that_was_lost_does_not_run_on_for_its_namesake() -> None:
    observed = Observed()
    at = attempt().instance
    observed.registered(Desired(1, (of(""),), ("s",)))
    restored = Desired(1, (of("first"),), ("s",))
    assert observed.registered(restored) == [Disown(at, goes_on=True), Cancel(at)]
    assert observed.registered(restored) == []
    assert observed.live == (of("first"),)
    observed.ended(at)
    assert observed.registered(restored) == []  # its end is told: another attempt follows
    assert observed.registered(Desired(2, (of("second"),), ("s",)))[-1] == Take(of("second"))


def test_one_that_was_to_end_when_its_namesake_is_wanted_is_cancelled_once() -> None:
    observed = Observed()
    at = attempt().instance
    observed.registered(Desired(1, (of(""),), ("s",)))
    assert observed.changed(DesiredChanged(2, (), (at,), ("s",))) == [Cancel(at)]
    told = observed.changed(DesiredChanged(3, (of("first"),), (), ("s",)))
    assert told == [Disown(at, goes_on=True)]
    observed.ended(at)
    assert observed.held == (at,)


def test_one_that_ended_before_the_start_may_be_of_a_past_that_was_lost() -> None:
    observed = Observed()
    at = attempt().instance
    observed.remember([at])
    assert observed.registered(Desired(1, (of("first"),), ("s",))) == [
        Disown(at),
        Take(of("first")),
    ]


class Manager:
    """Desired states as a manager would hold them, and what became of them."""

    def __init__(self) -> None:
        self.version = 0
        self.wanted: dict[Instance, Assignment] = {}
        self.log: list[DesiredChanged] = []

    def change(self, assign: list[int], revoke: list[int]) -> None:
        gone = [attempt(n).instance for n in revoke if attempt(n).instance in self.wanted]
        new = [attempt(n) for n in assign if attempt(n).instance not in self.wanted]
        for instance in gone:
            del self.wanted[instance]
        self.wanted.update((a.instance, a) for a in new)
        self.version += 1
        self.log.append(DesiredChanged(self.version, tuple(new), tuple(gone), ("s",)))

    def full(self) -> Desired:
        return Desired(self.version, tuple(self.wanted.values()), ("s",))


STEP = st.one_of(
    st.tuples(st.just("change"), st.integers(0, 8), st.integers(0, 8)),
    st.tuples(st.just("deliver"), st.integers(0, 12)),
    st.tuples(st.just("end"), st.integers(0, 8)),
    st.tuples(st.just("heartbeat")),
    st.tuples(st.just("answer")),
    st.tuples(st.just("reconnect")),
)


@given(st.lists(STEP, max_size=60))
def test_converges_whatever_is_lost_repeated_or_reordered(steps: list[tuple]) -> None:
    manager, observed = Manager(), Observed()
    taken: list[Instance] = []
    ended: set[Instance] = set()
    answers: list[Desired] = []
    fresh = 10

    def perform(actions: list) -> None:
        for action in actions:
            if isinstance(action, Take):
                taken.append(action.assignment.instance)
            elif isinstance(action, FetchDesired):
                answers.append(manager.full())

    perform(observed.registered(manager.full()))
    for step in steps:
        match step:
            case ("change", _, revoke):
                fresh += 1  # an attempt is assigned once, never again after it was revoked
                manager.change([fresh], [fresh - revoke])
            case ("deliver", index) if manager.log:
                perform(observed.changed(manager.log[index % len(manager.log)]))
            case ("end", index) if observed.live:
                instance = observed.live[index % len(observed.live)].instance
                observed.ended(instance)
                assert instance not in ended
                ended.add(instance)
            case ("heartbeat",):
                perform(observed.heard_version(manager.version))
            case ("answer",) if answers:
                perform(observed.fetched(answers.pop(0)))
            case ("reconnect",):
                answers.clear()
                perform(observed.registered(manager.full()))
    perform(observed.registered(manager.full()))
    assert observed.version == manager.version
    assert len(taken) == len(set(taken))
    live = {assignment.instance for assignment in observed.live}
    assert manager.wanted.keys() - ended <= live
    assert manager.wanted.keys() <= set(observed.held)


def pages_of(version: int, *assignments: Assignment) -> list[Desired]:
    """One assignment on each."""
    last = len(assignments) - 1
    return [
        Desired(version, (one,), ("s",), position, position < last)
        for position, one in enumerate(assignments)
    ]


def test_the_whole_in_pages_counts_once_all_are_there() -> None:
    observed = Observed()
    old, first, second, third = (attempt(index) for index in range(4))
    observed.registered(Desired(7, (old, first), ("s",)))
    pages = pages_of(7, first, second, third)
    assert observed.registered(pages[0]) == [FetchDesired(7, 1)]
    assert observed.version != 7  # a heartbeat must not take it for what we hold
    assert observed.heard_version(7) == []
    assert observed.fetched(pages[1]) == [FetchDesired(7, 2)]
    assert observed.live == (old, first)
    assert observed.fetched(pages[2]) == [Cancel(old.instance), Take(second), Take(third)]
    assert observed.version == 7
    assert observed.fetched(pages[2]) == []


def test_pages_that_do_not_come_are_asked_for_again_from_the_first() -> None:
    observed = Observed()
    pages = pages_of(7, attempt(0), attempt(1))
    observed.registered(pages[0])
    observed.fetch_failed()
    assert observed.heard_version(7) == [FetchDesired()]
    assert observed.fetched(pages[0]) == [FetchDesired(7, 1)]
    # The manager has forgotten that version, and begins with another.
    assert observed.fetched(pages_of(9, attempt(2), attempt(3))[0]) == [FetchDesired(9, 1)]
    assert observed.fetched(pages_of(9, attempt(2), attempt(3))[1]) == [
        Take(attempt(2)),
        Take(attempt(3)),
    ]


def test_a_page_that_does_not_follow_the_one_before_is_not_believed() -> None:
    observed = Observed()
    pages = pages_of(7, attempt(0), attempt(1), attempt(2))
    observed.registered(pages[0])
    assert observed.fetched(pages[2]) == [FetchDesired()]
    assert observed.fetched(pages_of(8, attempt(0), attempt(1))[1]) == [FetchDesired()]
    assert observed.live == ()


def test_changes_that_come_between_pages_are_applied_after_them() -> None:
    observed = Observed()
    pages = pages_of(7, attempt(0), attempt(1))
    observed.registered(pages[0])
    assert observed.changed(DesiredChanged(7, (attempt(9),), (), ("s",))) == []  # in them already
    assert observed.changed(DesiredChanged(8, (attempt(2),), (), ("s",))) == []
    assert observed.changed(DesiredChanged(9, (), (attempt(0).instance,), ("s",))) == []
    assert observed.fetched(pages[1]) == [
        Take(attempt(0)),
        Take(attempt(1)),
        Take(attempt(2)),
        Cancel(attempt(0).instance),
    ]
    assert observed.version == 9


def test_a_gap_among_the_changes_between_pages_is_fetched() -> None:
    observed = Observed()
    pages = pages_of(7, attempt(0), attempt(1))
    observed.registered(pages[0])
    observed.changed(DesiredChanged(9, (attempt(2),), (), ("s",)))
    assert observed.fetched(pages[1])[-1] == FetchDesired()
    assert observed.version == 7


def test_a_kill_that_came_with_a_gap_is_obeyed() -> None:
    observed = Observed()
    observed.registered(Desired(1, (attempt(0),), ("s",)))
    assert observed.changed(DesiredChanged(3, killed=("s", "t"))) == [FetchDesired()]
    assert observed.fetched(Desired(3)) == [Cancel(attempt(0).instance), StopRuntimes("s", True)]
    observed.changed(DesiredChanged(4, (attempt(swarm="t"),), (), ("t",)))
    gone = DesiredChanged(5, (), (attempt(swarm="t").instance,), ())
    assert observed.changed(gone)[-1] == StopRuntimes("t", False)
