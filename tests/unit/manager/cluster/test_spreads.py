"""Whom each node fetches a blob from."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from manta.manager.cluster.spreads import COPIES, MANAGER, MOST, SLOW, Spreads

AT = "swarm", "digest"


def anybody(_: str) -> bool:
    return True


def want(spreads: Spreads, node: str, now: float = 0.0, **named: Any) -> str | None:
    return spreads.want(*AT, node, now, **{"usable": anybody, **named})


def test_the_first_have_it_from_the_manager_and_all_others_from_each_other():
    spreads = Spreads()
    sources = [want(spreads, f"n{number}") for number in range(200)]
    assert sources[:2] == [MANAGER, MANAGER]
    assert MANAGER not in sources[2:]
    assert None not in sources
    served = {source: sources.count(source) for source in sources}
    assert max(count for source, count in served.items() if source) <= 3
    hops: dict[str | None, int] = {}
    for number, source in enumerate(sources):
        hops[f"n{number}"] = hops.get(source, 0) + 1
    assert max(hops.values()) <= 16


def test_a_few_nodes_form_chains_in_which_each_sends_it_once():
    spreads = Spreads()
    sources = [want(spreads, f"n{number}") for number in range(6)]
    assert sources == [MANAGER, MANAGER, "n0", "n1", "n2", "n3"]


def test_who_comes_when_some_node_has_it_never_asks_the_manager():
    spreads = Spreads()
    assert want(spreads, "a") == MANAGER
    spreads.told(*AT, "a", 1.0, held=True)
    assert want(spreads, "b", 2.0) == "a"


def test_who_did_not_give_it_is_not_named_again():
    spreads = Spreads()
    for node in "abc":
        want(spreads, node)
    assert want(spreads, "d") == "b"
    assert want(spreads, "d", failed=["b"]) == "c"
    assert want(spreads, "d", failed=["b", "c"]) == "a"


def test_nobody_is_named_to_whom_it_would_come_through_the_asking_node():
    spreads = Spreads()
    for node in "ab":
        assert want(spreads, node) == MANAGER
    assert [want(spreads, node) for node in "cde"] == ["a", "b", "c"]
    spreads.gone("a")
    assert want(spreads, "c", failed=["a"]) in ("b", "d", MANAGER)  # e has it from c
    spreads.gone("b")
    assert want(spreads, "d", failed=["b"]) != "d"


def test_who_had_wrong_parts_has_it_from_who_has_all_of_it():
    spreads = Spreads()
    for node in "abcd":
        want(spreads, node)
    spreads.told(*AT, "c", 1.0, held=True)
    assert want(spreads, "d", failed=["b"], whole=True) == "c"
    assert want(spreads, "d", failed=["b", "c"], whole=True) in (MANAGER, None)


def test_where_no_node_can_serve_others_the_manager_sends_two_at_a_time():
    spreads = Spreads()
    alone: dict[str, Any] = {"usable": lambda _: False}
    assert [want(spreads, node, **alone) for node in "abcd"] == [MANAGER, MANAGER, None, None]
    spreads.told(*AT, "a", 1.0, held=True)
    assert [want(spreads, node, 1.0, **alone) for node in "cd"] == [MANAGER, None]
    assert want(spreads, "d", SLOW + 2.0, **alone) == MANAGER  # nothing was heard of the others


def test_who_does_not_get_it_is_named_no_more():
    spreads = Spreads()
    for node in "abc":
        want(spreads, node)
    spreads.told(*AT, "c", 1.0, held=False)
    spreads.gone("b")
    assert want(spreads, "d", 2.0) == MANAGER  # a second copy, for that of the node that is gone
    assert want(spreads, "e", 2.0) in ("a", "d")


def test_what_is_remembered_is_bounded_and_ends_with_its_swarm():
    spreads = Spreads()
    for number in range(2 * MOST):
        spreads.want("swarm", str(number), "n", 0.0, usable=anybody)
    assert len(spreads._blobs["swarm"]) == MOST
    spreads.ended("swarm")
    assert not spreads._blobs


def test_made_up_digests_push_out_nothing_of_other_swarms():
    spreads = Spreads()
    spreads.told("other", "digest", "a", 0.0, held=True)
    for number in range(2 * MOST):
        spreads.want("swarm", str(number), "n", 0.0, usable=anybody)
    assert spreads.want("other", "digest", "b", 1.0, usable=anybody) == "a"


def test_who_made_it_is_named_from_the_first_and_counted_once():
    spreads = Spreads()
    for now in range(100):
        spreads.made(*AT, "a", float(now))
    assert want(spreads, "b") == "a"
    assert set(spreads._blobs["swarm"]["digest"].parts) == {"a", "b"}
    spreads.made(*AT, "b", 1.0)  # it has it now, whoever it was to have it from
    assert want(spreads, "c", failed=["a"]) == "b"


class Net:
    """Nodes that receive a chunk a step from their source, which serves what it has."""

    def __init__(self, nodes: int, size: int) -> None:
        self.spreads, self.now, self.size = Spreads(), 0.0, size
        self.has: dict[str, int] = {f"n{number}": -1 for number in range(nodes)}
        self.source: dict[str, str | None] = {}
        self.failed: dict[str, list[str]] = {node: [] for node in self.has}
        self.dead: set[str] = set()
        self.copies = 0

    def ask(self, node: str) -> None:
        failed = self.failed[node]
        found = want(self.spreads, node, self.now, failed=failed)
        self.source[node] = found
        if found == MANAGER:
            self.copies += 1

    def step(self) -> None:
        self.now += 1.0
        before = dict(self.has)
        for node, source in list(self.source.items()):
            if node in self.dead or self.has[node] == self.size:
                continue
            if source is None:
                self.ask(node)
            elif source in self.dead:
                self.failed[node].append(source)
                self.ask(node)
            elif source == MANAGER or before[source] > before[node]:
                self.has[node] += 1
                if self.has[node] == self.size:
                    self.spreads.told(*AT, node, self.now, held=True)

    def begin(self, node: str) -> None:
        if node not in self.source and node not in self.dead:
            self.has[node] = 0
            self.ask(node)

    def kill(self, node: str, *, known: bool) -> None:
        self.dead.add(node)
        if known:
            self.spreads.gone(node)

    @property
    def done(self) -> bool:
        wanting = self.source.keys() - self.dead
        return all(self.has[node] == self.size for node in wanting)


NODES = st.integers(0, 11)
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("begin"), NODES),
        st.tuples(st.just("kill"), NODES, st.booleans()),
        st.tuples(st.just("step"), st.integers(1, 5)),
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(EVENTS)
def test_every_node_that_wants_it_has_it_in_the_end_whoever_dies(events):
    net = Net(12, 6)
    for kind, what, *known in events:
        if kind == "begin":
            net.begin(f"n{what}")
        elif kind == "kill":
            net.kill(f"n{what}", known=known[0])
        else:
            for _ in range(what):
                net.step()
    for _ in range(1000):
        if net.done:
            break
        net.step()
    assert net.done
    if not net.dead:
        assert net.copies <= COPIES
