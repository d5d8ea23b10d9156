"""A swarm's roster, and how nodes that want it are told."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from manta.manager.swarm.events import NodeLost
from manta.manager.swarm.roster import PAUSE, RosterNews, roster_of
from manta.protocol.node import TaskStarted
from manta.protocol.roster import NONE, Roster, RosterInstance, RosterTask, RosterTold, WantRoster
from manta.protocol.spec import NetworkSpec
from manta.roster.differences import apply


def test_it_says_who_runs_where_and_who_comes_after(bench, make):
    b = bench(
        make.task("worker", network="ring", quorum=0.5, deadline=60.0),
        make.task("sum", "worker", method="any"),
        networks=(NetworkSpec("ring", "ring"),),
        nodes=2,
    )
    one = b.running("worker")[0]
    b.say(one, TaskStarted(one, b.now))
    b.feed(NodeLost("id2", "no sign of life"))
    roster = roster_of(b.machine.data, lambda alias, node_id: 7)
    assert (roster.epoch, roster.iteration, list(roster.networks)) == ("", 0, ["ring"])
    worker, after = roster.tasks["worker"], roster.tasks["sum"]
    assert (worker.size, worker.phase, worker.followed_by) == (2, "RUNNING", ("sum",))
    first, second = worker.instances
    assert first == RosterInstance(0, "id1", "node-1", 0, "RUNNING", "", 7)
    assert (second.state, second.node_alias) == ("INTERRUPTED", "node-2")
    assert "node-2 was lost: no sign of life" in second.given_up
    assert (after.phase, after.size, after.instances) == ("WAITING", 0, ())


def test_it_says_what_counted_in_the_iteration_before(bench, make):
    b = bench(make.task("worker", quorum=0.5, deadline=60.0), nodes=4, max_iteration=2)
    first = b.running("worker")
    b.end(first[0])
    b.feed(NodeLost("id2", "no sign of life"))
    b.end(first[2], "INTERRUPTED")
    b.end(b.running("worker")[2])
    assert b.machine.roster().former == {}
    b.wait_for(61)
    b.tick()
    assert b.machine.roster().iteration == 1
    assert b.machine.roster().former == {"worker": {1: NONE, 2: 1, 3: NONE}}


def test_it_says_that_an_instance_was_elsewhere_or_its_node_was_lost(bench, make):
    b = bench(make.task("w", method="any", retries=9), make.task("after", "w"), nodes=3)

    def stays() -> list[tuple[str, int]]:
        instances = b.machine.roster().tasks["w"].instances
        return [(one.node_id, one.stay) for one in instances]

    first, all_ = b.node_of(b.running("w")[0]), b.nodes
    assert stays() == [(first, 0)]
    b.nodes = [view for view in all_ if view.id == first]
    b.end(b.running("w")[0], "FAILED")
    assert stays() == [(first, 0)]  # tried again there
    b.nodes = [view for view in all_ if view.id != first][:1]
    b.end(b.running("w")[0], "FAILED")
    (other, stay) = stays()[0]
    assert (other != first, stay) == (True, 2)
    b.nodes = [view for view in all_ if view.id == first]
    b.end(b.running("w")[0], "FAILED")
    assert stays() == [(first, 3)]
    b.feed(NodeLost(first, "no sign of life"))
    assert stays() == [(first, 4)]
    b.finish("w")
    b.feed(NodeLost(first, "no sign of life"))
    assert stays() == [(first, 5)]
    assert b.replayed().roster() == b.machine.roster()


def test_it_is_made_once_for_each_state(bench, make):
    b = bench(make.task("worker"), nodes=1)
    before = b.machine.roster()
    assert b.machine.roster() is before
    b.finish("worker")
    assert b.machine.roster() != before


def test_before_the_first_iteration_nobody_takes_part(bench, make):
    b = bench(make.task("worker"), nodes=1, start=False)
    assert b.machine.roster().tasks == {}
    assert b.machine.members() == {}


def test_members_are_those_of_this_iteration_and_the_one_before(bench, make):
    b = bench(make.task("w", method="any"), make.task("x", "w"), nodes=2, max_iteration=9)
    b.finish("w")
    assert b.machine.members() == {"id1": 0, "id2": 0}
    b.finish("x")
    assert b.machine.members() == {"id1": 1, "id2": 0}
    assert b.replayed().members() == b.machine.members()


def roster(*states: str, iteration: int = 0) -> Roster:
    there = (RosterInstance(rank, f"n{rank}", "x", 0, state) for rank, state in enumerate(states))
    task = RosterTask("a", "RUNNING", len(states), instances=tuple(there))
    return Roster("", iteration, {"a": task}, {})


ALL = {"n1", "n2", "n3"}


def told(news: RosterNews, now_is: Roster, running=ALL, now=0.0) -> dict[str, list[RosterTold]]:
    found: dict[str, list[RosterTold]] = {}
    for node_id, part in news.tell(now_is, running, now):
        found.setdefault(node_id, []).append(part)
    return found


def test_who_wants_it_is_told_the_whole_and_then_what_changed():
    news = RosterNews("s")
    assert not news.wanted
    assert told(news, roster("PLACED")) == {}
    news.want("n1", WantRoster("s"))
    [whole] = told(news, roster("PLACED", "PLACED"))["n1"]
    assert (whole.since, whole.version, len(whole.tasks[0].instances)) == (0, whole.version, 2)
    news.want("n2", WantRoster("s"))
    changed = told(news, roster("RUNNING", "PLACED"))
    [difference], [new] = changed["n1"], changed["n2"]
    assert (difference.since, len(difference.tasks[0].instances)) == (whole.version, 1)
    assert (new.since, new.version) == (0, difference.version)
    assert told(news, roster("RUNNING", "PLACED")) == {}


def test_who_asks_again_is_told_the_whole_again():
    news = RosterNews("s")
    news.want("n1", WantRoster("s"))
    [whole] = told(news, roster("PLACED"))["n1"]
    assert told(news, roster("PLACED")) == {}
    news.want("n1", WantRoster("s"))
    assert told(news, roster("PLACED"))["n1"] == [whole]


def test_who_runs_nothing_is_told_nothing_and_then_the_whole():
    news = RosterNews("s")
    news.want("n1", WantRoster("s"))
    told(news, roster("PLACED"))
    assert told(news, roster("RUNNING"), running=()) == {}
    [whole] = told(news, roster("RUNNING"))["n1"]
    assert whole.since == 0


def test_who_wants_it_no_more_is_told_no_more():
    news = RosterNews("s")
    for node_id in ("n1", "n2"):
        news.want(node_id, WantRoster("s"))
    told(news, roster("PLACED"))
    news.want("n1", WantRoster("s", wanted=False))
    assert set(told(news, roster("RUNNING"))) == {"n2"}
    news.leave("n2")
    assert not news.wanted


def test_after_a_failure_all_are_told_the_whole():
    news = RosterNews("s")
    news.want("n1", WantRoster("s"))
    told(news, roster("PLACED"))
    news.lost()
    [whole] = told(news, roster("PLACED"))["n1"]
    assert whole.since == 0


def test_it_is_told_at_most_twenty_times_a_second():
    news = RosterNews("s")
    assert PAUSE == 1 / 20
    assert news.due(0.0) == 0.0
    news.want("n1", WantRoster("s"))
    told(news, roster("PLACED"), now=5.0)
    assert news.due(5.01) == 5.0 + PAUSE
    assert news.due(6.0) == 6.0


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("want"), st.sampled_from(sorted(ALL)), st.none()),
            st.tuples(st.just("become"), st.integers(0, 2), st.sampled_from("PRF")),
            st.tuples(st.just("tell"), st.frozensets(st.sampled_from(sorted(ALL))), st.none()),
        ),
        max_size=40,
    )
)
def test_whoever_wants_it_and_runs_something_ends_up_with_it(steps):
    news = RosterNews("s", page_bytes=50)
    states, iteration = ["P", "P", "P"], 0
    held: dict[str, tuple[int, Roster]] = {}
    wanted: set[str] = set()
    for kind, what, how in [*steps, ("tell", ALL, None)]:
        if kind == "want":
            news.want(what, WantRoster("s"))
            wanted.add(what)
        elif kind == "become":
            states[what] = how
            iteration += states == ["F", "F", "F"]
        else:
            current = roster(*states, iteration=iteration)
            for node_id, parts in told(news, current, running=what).items():
                since, has = held.get(node_id, (0, None))
                assert parts[0].since in (0, since)
                held[node_id] = parts[0].version, apply(parts, has if parts[0].since else None)
                assert held[node_id][1] == current
    for node_id in wanted:
        assert held[node_id][1] == roster(*states, iteration=iteration)
