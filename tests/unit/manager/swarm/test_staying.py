"""Which results stay on which nodes, and whose values need not be kept any more."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from manta.manager.swarm.staying import Staying
from manta.protocol.user import ResultItem
from manta.protocol.values import BlobRef

NODES, DIGESTS = ("n1", "n2"), ("a" * 64, "b" * 64)


def item(node: str, digest: str, size: int = 5) -> ResultItem:
    value = BlobRef(digest, size)
    return ResultItem(0, "tag", node, f"node-{node}", "task", 0, 0, True, value, held=True)


@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from(NODES), st.sampled_from(DIGESTS))),
)
def test_a_value_is_free_where_its_last_result_was_deleted(
    events: list[tuple[bool, str, str]],
) -> None:
    staying, there = Staying(), Counter[tuple[str, str]]()
    told: set[tuple[str, str]] = set()
    for is_added, node, digest in events:
        at = node, digest
        if is_added:
            staying.added(item(node, digest))
            there[at] += 1
            told.discard(at)
        elif there[at]:
            there[at] -= 1
            assert staying.deleted(item(node, digest)) is (there[at] == 0)
            if not there[at]:
                told.add(at)
        for one in NODES:
            assert set(staying.freed.get(one, ())) == {name for id_, name in told if id_ == one}
        for name in DIGESTS:
            holders = {one: f"node-{one}" for one in NODES if there[one, name]}
            assert staying.at(BlobRef(name, 5)) == holders
            for one in NODES:
                is_freed = (one, name) in told
                assert staying.freed_of(item(one, name)) == (name if is_freed else "")
    assert staying.names == len(staying.holders) + len(told)


def test_a_value_of_another_size_is_another_one() -> None:
    staying = Staying()
    staying.added(item("n1", DIGESTS[0]))
    assert staying.at(BlobRef(DIGESTS[0], 6)) == {}
