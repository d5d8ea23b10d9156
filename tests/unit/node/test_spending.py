"""What nodes count of quotas that are nearly used up."""

from __future__ import annotations

from pathlib import Path

import pytest

from manta.node.errors import QuotaReached
from manta.node.journal.records import Begin
from manta.node.journal.swarm import Journal
from manta.node.state.kept_sizes import KeptSizes
from manta.protocol.allowance import Allowance
from manta.protocol.node import GlobalWritten, Instance, MetricsLogged, ResultWritten
from manta.protocol.values import BlobRef, Inline

AT = Instance("s", "w", 0, 0)
MIB = 1 << 20


def result(value=None, *, held: bool = False) -> ResultWritten:
    return ResultWritten(AT, "x", Inline(b"1") if value is None else value, held)


def blob(name: str, size: int = MIB) -> BlobRef:
    return BlobRef(name * 64, size)


def left(quota: str, have: int, limit: int) -> Allowance:
    return Allowance(quota, "The swarm 'fl'", "results", "set for the user", "less", have, limit)


def keep(journal: Journal, entry) -> str:
    refused = journal.spending.refusal(entry)
    if not refused:
        journal.append(entry, 100)
    return refused


def told(journal: Journal, upto: int, *left: Allowance, counted: int | None = None) -> None:
    journal.acknowledge(upto, (), 0.0)
    at = upto if counted is None else counted
    journal.spending.told(left, at, journal.entries)


def test_as_long_as_much_is_left_nothing_is_refused() -> None:
    journal = Journal(Begin("s"))
    assert not any(keep(journal, result(blob(name))) for name in "abcdef")


def test_what_is_beyond_is_refused_with_the_arithmetic() -> None:
    journal = Journal(Begin("s"))
    keep(journal, result())
    told(journal, 1, left("results", 8, 10))
    assert [keep(journal, result()) for _ in range(2)] == ["", ""]
    assert keep(journal, result()) == (
        "The swarm 'fl' has 10 results and asks for 1 more, and the quota results is 10 (set for "
        "the user): less, or ask an administrator for more (manta quota set results)."
    )
    assert keep(journal, GlobalWritten(AT, "g", Inline(b"1"))) == ""
    told(journal, 3, left("results", 9, 10))  # one was freed meanwhile
    assert [bool(keep(journal, result())) for _ in range(2)] == [False, True]
    told(journal, 4)
    assert keep(journal, result()) == ""


def test_what_the_manager_has_counted_already_counts_once() -> None:
    journal = Journal(Begin("s"))
    for _ in range(4):
        keep(journal, result())
    told(journal, 1, left("results", 3, 5), counted=3)  # the fourth is under way
    assert [bool(keep(journal, result())) for _ in range(2)] == [False, True]


def test_a_value_counts_once_and_not_if_it_stays_here() -> None:
    journal = Journal(Begin("s"))
    told(journal, 0, left("blob-bytes", 0, 2 * MIB))
    assert keep(journal, result(blob("a"))) == ""
    assert keep(journal, result(blob("a"))) == ""
    assert keep(journal, result(blob("h", 9 * MIB), held=True)) == ""
    assert "has 1.0 MiB results and asks for 2.0 MiB more" in keep(
        journal, GlobalWritten(AT, "g", blob("b", 2 * MIB))
    )
    assert keep(journal, GlobalWritten(AT, "g", blob("b"))) == ""
    told(journal, 1, left("blob-bytes", MIB, 2 * MIB))
    assert keep(journal, result(blob("c"))) != ""


def test_what_a_swarm_said_is_counted_in_bytes_of_all_but_only_values_are_refused() -> None:
    journal = Journal(Begin("s"))
    told(journal, 0, left("history-bytes", 0, 250))
    metrics = MetricsLogged(AT, {"loss": 1.0}, None, 0.0)
    for _ in range(3):
        assert keep(journal, metrics) == ""  # 100 bytes each
    assert keep(journal, result()).startswith("The swarm 'fl' has 300 B results and asks for ")


def test_what_tasks_keep_for_their_swarm_has_a_bound(tmp_path: Path) -> None:
    sizes, folder = KeptSizes(), tmp_path / "swarm"

    def keep(name: str, size: int, sizes: KeptSizes = sizes) -> None:
        with sizes.storing(folder / name, size, 20_480):
            folder.mkdir(exist_ok=True)
            (folder / name).with_suffix(".kept").write_bytes(bytes(size))

    keep("a", 10_000)
    keep("a", 16_000)  # in its place
    keep("b", 1)
    with pytest.raises(QuotaReached, match=r"keeps 0\.0 MB of state on this node and asks"):
        keep("c", 1)
    with pytest.raises(QuotaReached):
        keep("c", 1, KeptSizes())  # after a restart
    keep("a", 1)
    with pytest.raises(ZeroDivisionError), sizes.storing(folder / "c", 9_000, 20_480):
        raise ZeroDivisionError
    keep("c", 9_000)
    sizes.forget(folder)
    keep("b", 2)
