"""What is counted, however often and in whatever order it is heard of."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manta.manager.quotas.ledger import Ledger
from manta.manager.quotas.limits import Limits
from manta.manager.quotas.quotas import Quotas
from manta.manager.quotas.table import Quota
from manta.manager.store.interface import (
    AppendEvents,
    AppendLogs,
    Delete,
    Put,
    Reference,
    Release,
    RemoveSwarm,
    Write,
)
from manta.manager.store.records import (
    ClusterRecord,
    ModuleRecord,
    NodeRecord,
    QuotaRecord,
    SwarmRecord,
)
from manta.protocol.spec import ModuleSpec
from manta.protocol.user import SwarmInfo
from manta.testing.stores.memory import MemoryStore
from manta.transports.errors import BlobRefused, BlobTooLarge

SIZES = {"a": 1, "b": 10, "c": 100}


def ledger() -> Ledger:
    return Ledger(lambda digest: SIZES.get(digest, 0))


def swarm(swarm_id: str, status: str = "ACTIVE", owner: str = "ada") -> Put:
    return Put(SwarmRecord(SwarmInfo(swarm_id, "fl", "lab", status), owner))


def module(module_id: str, owner: str = "ada") -> Put:
    return Put(ModuleRecord(module_id, ModuleSpec("m", image="none"), owner, 0.0, 0.0))


def counts(found: Ledger, who: str = "ada") -> dict[str, int]:
    return {str(quota): used for quota in Quota if (used := found.used(quota, who))}


def test_things_count_while_they_are_stored() -> None:
    found = ledger()
    found.stored([Put(ClusterRecord("lab", "lab", "ada", 0.0)), swarm("s1"), module("m1")])
    found.stored([Put(NodeRecord("n1", "lab", "n", "k", 0.0)), swarm("s1", "PAUSED")])
    assert counts(found) == {
        "clusters": 1,
        "live-swarms": 1,
        "swarms": 1,
        "nodes": 1,
        "modules": 1,
    }
    assert counts(found, "lab") == {"live-swarms": 1, "swarms": 1, "nodes": 1}
    found.stored([swarm("s1", "COMPLETED"), Delete(ModuleRecord, "m1")])
    assert counts(found) == {"clusters": 1, "swarms": 1, "nodes": 1}
    found.stored(
        [RemoveSwarm("s1"), Delete(ClusterRecord, "lab"), Delete(NodeRecord, "n1")],
    )
    assert counts(found) == counts(found, "lab") == {}


def test_what_swarms_say_counts_once_until_they_are_removed() -> None:
    found = ledger()
    found.stored([AppendEvents("s1", 1, (b"abc",)), swarm("s1"), swarm("s2")])
    found.stored([AppendEvents("s1", 2, (b"d", b"e")), AppendLogs("s1", "n", 1, (b"line",))])
    found.stored([AppendEvents("s1", 3, (b"e", b"fg")), AppendLogs("s1", "n", 1, (b"line",))])
    found.stored([AppendEvents("s2", 1, (b"other",)), AppendEvents("unknown", 1, (b"x",))])
    assert found.used(Quota.STORED_BYTES, "ada") == 3 + 2 + 2 + 4 + 5
    found.stored([swarm("s1", "STOPPED"), RemoveSwarm("s1")])
    assert found.used(Quota.STORED_BYTES, "ada") == 5


def test_what_is_about_to_be_stored_counts_at_once_and_not_again_when_it_is() -> None:
    found = ledger()
    found.stored([swarm("s1"), swarm("s2")])
    found.tell("s1", "ada", 5)
    found.name("s1", "ada", ("a", "b"))
    said = {"stored-bytes": 5, "blobs": 2, "blob-bytes": 11, "swarms": 2, "live-swarms": 2}
    assert counts(found) == said
    found.stored([AppendEvents("s1", 1, (b"abc",)), Reference("s1", ("a", "b"))])
    assert counts(found) == said
    found.stored([AppendLogs("s1", "n", 1, (b"xy",))])
    assert counts(found) == said
    found.tell("s1", "ada", 7)  # this was lost with the actor
    found.begin("s1")
    assert counts(found) == said
    found.tell("s2", "ada", 7)
    found.stored([RemoveSwarm("s1"), RemoveSwarm("s2")])
    assert counts(found) == {}


def test_what_was_not_stored_after_all_counts_no_more() -> None:
    found = ledger()
    found.tell("s1", "ada", 5)
    found.name("s1", "ada", ("a",))
    found.forget("s1")
    found.stored([module("m1"), Reference("m1", ("a",))])
    found.name("m1", "ada", ("b",))
    found.unname("m1", ("b",))
    assert counts(found) == {"modules": 1, "blobs": 1, "blob-bytes": 1}


def test_pushes_side_by_side_get_no_more() -> None:
    limits = Limits([QuotaRecord("user", "ada", {"unnamed-blobs": 10})])
    quotas, refused = Quotas(limits, ledger()), list[str]()

    def push(number: int) -> None:
        for n in range(20):
            try:
                quotas.push("ada", "The user ada", f"{number}-{n}", 1, 0.0)
            except BlobRefused as refusal:
                refused.append(str(refusal))

    threads = [threading.Thread(target=push, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found_of(quotas) == 10
    assert len(refused) == 8 * 20 - 10


def found_of(quotas: Quotas) -> int:
    return quotas.ledger.used(Quota.UNNAMED_BLOBS, "ada")


def test_a_blob_counts_once_for_its_user_however_many_name_it() -> None:
    found = ledger()
    found.stored([Reference("s1", ("a", "b")), swarm("s1"), swarm("s2")])
    found.stored([Reference("s2", ("b", "c")), Reference("s2", ("b",))])
    assert (found.used(Quota.BLOBS, "ada"), found.used(Quota.BLOB_BYTES, "ada")) == (3, 111)
    found.stored([RemoveSwarm("s1")])
    assert (found.used(Quota.BLOBS, "ada"), found.used(Quota.BLOB_BYTES, "ada")) == (2, 110)
    found.stored([Release("s2", ("b", "a")), Release("s2", ("b",))])
    assert (found.used(Quota.BLOBS, "ada"), found.used(Quota.BLOB_BYTES, "ada")) == (1, 100)


def test_a_blob_of_two_users_counts_for_both() -> None:
    found = ledger()
    found.stored([swarm("s1"), swarm("s2", owner="bob"), Reference("s1", ("a",))])
    found.stored([Reference("s2", ("a",)), RemoveSwarm("s1")])
    assert (found.used(Quota.BLOBS, "ada"), found.used(Quota.BLOBS, "bob")) == (0, 1)


def test_a_pushed_blob_counts_for_all_who_pushed_it_until_something_names_it() -> None:
    """Else one would learn from the own quota that another has it."""
    found = ledger()
    found.push("ada", "x", 7, 0.0)
    found.push("bob", "x", 7, 0.0)
    assert counts(found) == {"unnamed-blobs": 1, "unnamed-bytes": 7}
    assert counts(found, "bob") == {"unnamed-blobs": 1, "unnamed-bytes": 7}
    found.stored([swarm("s1", owner="bob"), Reference("s1", ("x",))])
    assert counts(found) == {}
    assert found.used(Quota.BLOB_BYTES, "bob") == 7
    assert found.used(Quota.UNNAMED_BLOBS, "bob") == 0


def test_what_never_came_is_forgotten_after_a_while() -> None:
    found = ledger()
    found.push("ada", "x", 7, 0.0)
    found.push("ada", "y", 1, 50.0)
    assert found.coming(10.0, {"y"}, {"y"}.__contains__) == 0
    assert counts(found) == {"unnamed-blobs": 1, "unnamed-bytes": 1}
    assert found.coming(60.0, {"y"}, {"y"}.__contains__) == 0
    assert counts(found) == {"unnamed-blobs": 1, "unnamed-bytes": 1}
    assert found.coming(60.0, {"z"}, {"y"}.__contains__) == 0  # another's, who names it
    assert counts(found) == {}
    found.push("ada", "y", 1, 50.0)
    found.gone(["y", "z"])
    assert counts(found) == {}


def test_a_push_is_refused_before_it_begins() -> None:
    limits = Limits([QuotaRecord("user", "ada", {"unnamed-blobs": 2, "unnamed-bytes": 50})])
    quotas = Quotas(limits, ledger())
    quotas.push("ada", "The user ada", "x", 40, 0.0)
    with pytest.raises(
        BlobRefused, match=r"has 40 B of values .* asks for 11 B more, .* is 50 B \("
    ):
        quotas.push("ada", "The user ada", "y", 11, 0.0)
    quotas.push("ada", "The user ada", "y", 10, 0.0)
    with pytest.raises(BlobRefused, match="quota unnamed-blobs is 2"):
        quotas.push("ada", "The user ada", "z", 0, 0.0)
    quotas.push("ada", "The user ada", "x", 40, 0.0)  # it is repeated, and costs nothing


@pytest.mark.parametrize(
    ("limits", "name"),
    [
        ({"unnamed-bytes": 50}, "unnamed-bytes"),
        ({"blob-bytes": 50}, "blob-bytes"),
        ({"unnamed-blobs": 0}, "unnamed-blobs"),
    ],
)
def test_a_push_for_which_there_can_never_be_room_is_told_apart(
    limits: dict[str, int], name: str
) -> None:
    quotas = Quotas(Limits([QuotaRecord("user", "ada", limits)]), ledger())
    with pytest.raises(BlobTooLarge, match=rf"quota {name} is .*: do with less, or ask an adm"):
        quotas.push("ada", "The user ada", "x", 51, 0.0)


def test_a_push_that_may_fit_later_is_not_too_large() -> None:
    quotas = Quotas(Limits([QuotaRecord("user", "ada", {"unnamed-bytes": 50})]), ledger())
    quotas.push("ada", "The user ada", "x", 40, 0.0)
    with pytest.raises(BlobRefused, match="wait until these are named") as refused:
        quotas.push("ada", "The user ada", "y", 50, 0.0)
    assert not isinstance(refused.value, BlobTooLarge)


def test_what_is_pushed_and_named_together_is_bounded() -> None:
    quotas = Quotas(Limits([QuotaRecord("user", "ada", {"blob-bytes": 150})]), ledger())
    quotas.ledger.stored([swarm("s1"), Reference("s1", ("c",))])
    quotas.push("ada", "The user ada", "x", 40, 0.0)
    with pytest.raises(BlobRefused, match="quota blob-bytes is 150 B"):
        quotas.push("ada", "The user ada", "y", 11, 0.0)
    assert quotas.naming("ada", ["x"]) is None
    breach = quotas.naming("ada", ["x", "b", "a"])  # of 40, 10 and 1 bytes
    assert breach is not None
    assert (breach.have, breach.asked) == (100, 51)
    assert quotas.naming("ada", ["c"]) is None  # named already


def writes() -> st.SearchStrategy[list[Write]]:
    ids, digests = st.sampled_from(["s1", "s2", "m1"]), st.sampled_from(sorted(SIZES))
    some, lines = st.tuples(digests, digests), st.integers(1, 3)
    return st.lists(
        st.one_of(
            st.builds(swarm, st.sampled_from(["s1", "s2"]), st.sampled_from(["ACTIVE", "FAILED"])),
            st.builds(module, st.just("m1")),
            st.builds(Reference, ids, some),
            st.builds(Release, ids, some),
            st.builds(RemoveSwarm, st.sampled_from(["s1", "s2"])),
            st.builds(AppendLogs, st.sampled_from(["s1", "s2"]), ids, lines, st.just((b"line",))),
        ),
        max_size=30,
    )


@given(writes())
def test_it_agrees_with_what_is_stored(done: Iterable[Write]) -> None:
    store, counted = MemoryStore(), ledger()
    known: set[str] = set()
    ends: Counter[tuple[str, str]] = Counter()
    for write in done:
        if isinstance(write, Put):
            known.add(write.record.id)  # type: ignore[attr-defined]
        holder = getattr(write, "holder", getattr(write, "swarm_id", ""))
        if isinstance(write, Reference | AppendLogs) and holder not in known:
            continue  # nothing names or says anything before it is stored itself
        if isinstance(write, AppendLogs):  # in order, or again
            log = (write.swarm_id, write.node_id)
            if write.first > ends[log] + 1:
                continue
            ends[log] = max(ends[log], write.first)
        if isinstance(write, RemoveSwarm):
            known.discard(write.swarm_id)
            ends = Counter({log: end for log, end in ends.items() if log[0] != write.swarm_id})
        store.commit([write])
        counted.stored([write])
    loaded = ledger()
    loaded.load(store)
    assert counts(loaded) == counts(counted)
