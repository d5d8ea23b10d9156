"""Which values of other nodes are asked for, and when again."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manta.node.plane.copies import Stalled, ValueGone, ValueLost
from manta.node.plane.fetches import AGAIN, MOST, MOST_AHEAD, SELDOM, STALLED, Fetch, Fetches
from manta.transports.exchange.letters import Remote
from manta.transports.exchange.messages import Parcel

OF_ONE = MOST * 7 // 8
"""Of one swarm's that are under way, while there are no others."""


class Shell:
    """Notes what the machine has done; `keys` are those of nodes in the swarm."""

    def __init__(self) -> None:
        self.keys = {"a": "key-a", "b": "key-b"}
        self.count = 0
        self.expected: dict[bytes, Fetch] = {}
        self.asked: list[bytes] = []
        self.refused: dict[bytes, str] = {}
        self.over: dict[Remote, list[Exception | None]] = {}

    def key(self, swarm_id: str, peer: str) -> str | None:
        return self.keys.get(peer)

    def new_id(self) -> bytes:
        self.count += 1
        return self.count.to_bytes(16, "big")

    def expect(self, fetch: Fetch) -> None:
        assert fetch.transfer not in self.expected
        self.expected[fetch.transfer] = fetch

    def request(self, fetch: Fetch) -> None:
        assert fetch.transfer in self.expected
        self.asked.append(fetch.transfer)

    def refuse(self, fetch: Fetch, why: str) -> None:
        assert fetch.transfer in self.expected
        self.refused[fetch.transfer] = why

    def done(self, fetch: Fetch, error: Exception | None) -> None:
        self.over.setdefault(fetch.remote, []).append(error)


def remote(number: int = 0, peer: str = "a") -> Remote:
    return Remote(peer, Parcel(number.to_bytes(16, "big"), 1_000_000))


class Lab:
    def __init__(self) -> None:
        self.shell = Shell()
        self.machine = Fetches(self.shell)
        self.now = 0.0

    def begin(
        self, number: int = 0, peer: str = "a", *, is_asked: bool = True, swarm_id: str = "s"
    ) -> Fetch:
        fetch = Fetch(swarm_id, remote(number, peer), is_asked)
        self.machine.begin(fetch, self.now)
        return fetch

    def ended(self, transfer: bytes, error: Exception | None = None) -> None:
        del self.shell.expected[transfer]
        self.machine.transfer_ended(transfer, error, self.now)

    def wait(self, seconds: float) -> None:
        until = self.now + seconds
        while (due := self.machine.due) is not None and due <= until:
            self.now = due
            self.machine.tick(self.now)
        self.now = until


@pytest.fixture
def lab() -> Lab:
    return Lab()


def test_what_comes_ends_and_nothing_is_due_any_more(lab: Lab) -> None:
    fetch = lab.begin()
    assert lab.shell.asked == [fetch.transfer]
    lab.ended(fetch.transfer)
    assert lab.shell.over == {remote(): [None]}
    assert lab.machine.due is None


def test_what_does_not_come_is_asked_for_again_under_the_same_id_and_ever_more_seldom(
    lab: Lab,
) -> None:
    lab.begin()
    lab.wait(100)
    asked = lab.shell.asked
    assert len(set(asked)) == 1
    assert 100 / SELDOM < len(asked) < 100 / SELDOM + 6
    assert not lab.shell.over


def test_what_comes_slowly_is_not_asked_for_again(lab: Lab) -> None:
    fetch = lab.begin(is_asked=False)
    for upto in range(1, 200):
        fetch.upto = upto
        lab.wait(AGAIN / 2)
    assert lab.shell.asked == [fetch.transfer]
    assert not lab.shell.over


def test_a_transfer_that_broke_off_is_asked_for_under_another_id(lab: Lab) -> None:
    first = lab.begin().transfer
    lab.ended(first, OSError("it broke off"))
    lab.wait(AGAIN + 1)
    second = lab.shell.asked[-1]
    assert second != first
    lab.ended(second)
    assert lab.shell.over == {remote(): [None]}


def test_a_refusal_is_kept_for_those_who_wait_and_it_is_asked_for_again(lab: Lab) -> None:
    fetch = lab.begin()
    lab.machine.refused("key-b", fetch.transfer, "of another node, which is not asked")
    assert not fetch.why
    lab.machine.refused("key-a", fetch.transfer, "it is busy")
    assert "it is busy" in fetch.why
    lab.wait(AGAIN + 1)
    assert len(lab.shell.asked) == 2


def test_a_refused_one_is_asked_for_again_when_another_has_ended(lab: Lab) -> None:
    """So that a holder that sends few at a time is kept busy, and no busier."""
    fetches = [lab.begin(number) for number in range(10)]
    for fetch in fetches[2:]:
        lab.machine.refused("key-a", fetch.transfer, "too many")
    lab.ended(fetches[0].transfer)
    assert lab.shell.asked[10:] == [fetches[2].transfer]
    lab.machine.refused("key-a", fetches[2].transfer, "too many")
    lab.ended(fetches[1].transfer)
    assert lab.shell.asked[11:] == [fetches[3].transfer]


def test_it_is_asked_for_at_once_when_the_link_or_the_directory_is_there(lab: Lab) -> None:
    lab.begin()
    lab.wait(STALLED)
    before = len(lab.shell.asked)
    lab.machine.link_up("key-b", lab.now)
    assert len(lab.shell.asked) == before
    lab.machine.link_up("key-a", lab.now)
    lab.machine.directory_changed("another", lab.now)
    lab.machine.directory_changed("s", lab.now)
    assert len(lab.shell.asked) == before + 2


def test_what_its_holder_has_no_more_ends(lab: Lab) -> None:
    fetch = lab.begin()
    lab.machine.gone("key-b", fetch.transfer)  # another node cannot say so
    assert not lab.shell.refused
    lab.machine.gone("key-a", fetch.transfer)
    lab.ended(fetch.transfer, OSError("refused"))
    ((error,),) = lab.shell.over.values()
    assert isinstance(error, ValueGone)


def test_all_that_is_wanted_of_a_node_ends_when_it_leaves_the_swarm(lab: Lab) -> None:
    """Those that wait for their turn as well, however many."""
    for number in range(MOST + 5_000):
        lab.begin(number)
    other = lab.begin(1, "b")
    del lab.shell.keys["a"]
    lab.machine.directory_changed("s", lab.now)
    for transfer in list(lab.shell.refused):
        lab.ended(transfer, OSError("refused"))
    assert len(lab.shell.over) == MOST + 5_000
    for (error,) in lab.shell.over.values():
        assert isinstance(error, ValueLost)
        assert "no part in the swarm" in str(error)
    assert other.remote not in lab.shell.over


def test_a_node_with_another_key_is_asked_under_that(lab: Lab) -> None:
    fetch = lab.begin()
    former = fetch.transfer
    lab.shell.keys["a"] = "key-c"
    lab.machine.directory_changed("s", lab.now)
    lab.ended(former, OSError(lab.shell.refused[former]))
    lab.wait(AGAIN + 1)
    assert (fetch.key, lab.shell.asked[-1]) == ("key-c", fetch.transfer)
    assert fetch.transfer != former


def test_one_that_no_task_waits_for_ends_when_it_stalls(lab: Lab) -> None:
    ahead, asked = lab.begin(1, is_asked=False), lab.begin(2)
    lab.wait(STALLED + 1)
    lab.ended(ahead.transfer, OSError(lab.shell.refused[ahead.transfer]))
    assert isinstance(lab.shell.over[ahead.remote][0], Stalled)
    assert asked.remote not in lab.shell.over
    lab.machine.asked(asked.remote, False, lab.now)
    lab.wait(1)
    assert asked.transfer in lab.shell.refused


def test_few_are_under_way_and_first_those_for_which_tasks_wait(lab: Lab) -> None:
    ahead = [lab.begin(number, is_asked=False) for number in range(MOST_AHEAD + 3)]
    assert len(lab.shell.expected) == MOST_AHEAD
    asked = lab.begin(10_000)
    assert asked.transfer
    lab.begin(10_001, "b")
    assert len(lab.shell.expected) == MOST_AHEAD + 2
    lab.machine.asked(ahead[-1].remote, True, lab.now)
    assert ahead[-1].transfer
    assert not ahead[-2].transfer
    for number in range(MOST):
        lab.begin(20_000 + number)
    assert len(lab.shell.expected) == OF_ONE + 1
    lab.ended(ahead[0].transfer)
    assert len(lab.shell.expected) == OF_ONE + 1


def test_what_one_swarm_asks_of_a_node_leaves_turns_for_others(lab: Lab) -> None:
    """However many, and though nothing of it comes: who has fewest under way is first."""
    greedy = [lab.begin(number) for number in range(MOST + 100)]
    assert len(lab.shell.expected) == OF_ONE
    others = [lab.begin(number, swarm_id="other") for number in range(1_000, 1_020)]
    assert [bool(one.transfer) for one in others] == [True] * 14 + [False] * 6
    third = lab.begin(2_000, swarm_id="third")
    assert third.transfer
    for one in greedy[:4]:
        lab.ended(one.transfer)
    assert sum(bool(one.transfer) for one in others) == 16
    assert not any(one.transfer for one in greedy[OF_ONE:])


def test_what_was_given_up_ends_once(lab: Lab) -> None:
    fetch = lab.begin()
    for _ in range(2):
        lab.machine.give_up(fetch.remote, lab.now)
    lab.machine.link_up("key-a", lab.now)  # nothing is asked of what is about to end
    assert len(lab.shell.asked) == 1
    lab.ended(fetch.transfer, OSError("refused"))
    assert len(lab.shell.over[fetch.remote]) == 1
    lab.machine.give_up(fetch.remote, lab.now)
    assert len(lab.shell.over[fetch.remote]) == 1


events = st.one_of(
    st.tuples(st.just("begin"), st.integers(0, 30), st.sampled_from("ab"), st.booleans()),
    st.tuples(st.just("asked"), st.integers(0, 30), st.sampled_from("ab"), st.booleans()),
    st.tuples(st.just("give up"), st.integers(0, 30), st.sampled_from("ab")),
    st.tuples(st.just("comes"), st.integers(0, 30)),
    st.tuples(st.just("breaks"), st.integers(0, 30)),
    st.tuples(st.just("gone"), st.integers(0, 30)),
    st.tuples(st.just("wait"), st.floats(0.1, 40)),
    st.tuples(st.just("leaves"), st.sampled_from("ab")),
    st.tuples(st.just("returns"), st.sampled_from("ab"), st.integers(0, 2)),
)


@settings(max_examples=200)
@given(st.lists(events, max_size=60))
def test_each_fetch_ends_once_and_all_do_when_nothing_fails_any_more(
    steps: list[tuple[object, ...]],
) -> None:
    lab, begun, ended = Lab(), Counter[Remote](), Counter[Remote]()
    machine, shell = lab.machine, lab.shell

    def told() -> None:
        for one, errors in shell.over.items():
            ended[one] += len(errors)
        shell.over.clear()
        for transfer in [one for one in shell.refused if one in shell.expected]:
            lab.ended(transfer, OSError("refused"))
        shell.refused.clear()

    def under_way(at: int) -> bytes | None:
        open_ = list(shell.expected)
        return open_[at % len(open_)] if open_ else None

    for step in steps:
        match step:
            case ("begin", int(number), str(peer), bool(is_asked)):
                one = remote(number, peer)
                if machine.get(one) is None:
                    begun[one] += 1
                    lab.begin(number, peer, is_asked=is_asked)
            case ("asked", int(number), str(peer), bool(is_asked)):
                machine.asked(remote(number, peer), is_asked, lab.now)
            case ("give up", int(number), str(peer)):
                machine.give_up(remote(number, peer), lab.now)
            case ("comes", int(at)) if transfer := under_way(at):
                lab.ended(transfer)
            case ("breaks", int(at)) if transfer := under_way(at):
                lab.ended(transfer, OSError("it broke off"))
            case ("gone", int(at)) if transfer := under_way(at):
                machine.gone(shell.expected[transfer].key, transfer)
            case ("wait", float(seconds)):
                lab.wait(seconds)
            case ("leaves", str(peer)):
                shell.keys.pop(peer, None)
                machine.directory_changed("s", lab.now)
            case ("returns", str(peer), int(number)):
                shell.keys[peer] = f"key-{peer}-{number}"
                machine.directory_changed("s", lab.now)
        told()
    while machine.due is not None:
        asked = len(shell.asked)
        lab.wait(2 * SELDOM)
        told()
        assert len(shell.asked) > asked or not shell.expected, "one is not asked for any more"
        for transfer in list(shell.expected):
            lab.ended(transfer)
        told()
    told()
    assert ended == begun
