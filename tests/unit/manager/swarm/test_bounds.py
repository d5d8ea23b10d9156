"""What is beyond a swarm's quotas: left out, or the end of the swarm."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable

import msgspec
import pytest

from manta.manager.quotas.ledger import Ledger
from manta.manager.quotas.limits import Limits
from manta.manager.quotas.quotas import Quotas
from manta.manager.quotas.table import LEFT_OUT, TABLE, Breach, Quota
from manta.manager.store.records import QuotaRecord
from manta.manager.swarm import weight
from manta.manager.swarm.bounds import Bounds
from manta.manager.swarm.events import Created, EntriesReceived, Passed, QuotaReached, StateChanged
from manta.manager.swarm.machine import SwarmMachine
from manta.manager.swarm.state import SwarmData
from manta.protocol.exchange import (
    Broadcasted,
    Checkpointed,
    ClaimsReturned,
    Contributed,
    LockWanted,
    Receiving,
    Said,
    Sent,
)
from manta.protocol.node import (
    GlobalWritten,
    Instance,
    JournalEntry,
    MetricsLogged,
    Progressed,
    ResultWritten,
    TaskEnded,
)
from manta.protocol.spec import ModuleSpec, SwarmSpec, TaskSpec
from manta.protocol.states import SwarmState
from manta.protocol.user import EventItem, MetricsItem, ResultItem
from manta.protocol.values import BlobRef, Inline

CODEC = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(JournalEntry)
AT = Instance("s", "worker", 0, 0)
VALUE = Inline(b"v")
END = TaskEnded(AT, "FINISHED", 0.0)


def bounds(**limits: int) -> Bounds:
    record = QuotaRecord("user", "ada", {name.replace("_", "-"): n for name, n in limits.items()})
    quotas = Quotas(Limits([record]), Ledger(lambda _: 1))
    data = SwarmData("s", "lab")
    return Bounds(quotas, "ada", "lab", "The swarm 'fl' (s)", data, 0, 0, 0)


def apply(found: Bounds, entry: JournalEntry) -> Breach | None:
    """None if it was viable, and is part of the state now."""
    if breach := found.viable([entry]).fatal:
        return breach
    data = found.data
    match entry:
        case ResultWritten():
            data.add_result(ResultItem(0, entry.tag, "n", "n", "worker", 0, 0, True, entry.value))
        case GlobalWritten():
            data.set_global(entry.tag, entry.value)
        case Progressed():
            data.events.append(EventItem(0.0, "progress", entry.message))
        case MetricsLogged():
            data.metrics.append(MetricsItem(AT, "n", "n", entry.metrics, entry.step, 0.0))
        case _:
            assert isinstance(entry, Said)
            data.exchange.apply("n", entry)
    return None


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


FLOODS: dict[str, Callable[[int], JournalEntry]] = {
    "results": lambda n: ResultWritten(AT, "r", Inline(noise(1000 + n))),
    "results of many tags": lambda n: ResultWritten(AT, f"{n}", VALUE),
    "long tags of results": lambda n: ResultWritten(AT, f"{n}" * 1000, VALUE),
    "globals": lambda n: GlobalWritten(AT, f"{n}", Inline(bytes(5000))),
    "long progress": lambda n: Progressed(AT, 0.5, noise(500 + n).hex(), 0.0),
    "metrics": lambda n: MetricsLogged(AT, {f"{n}-{k}": random.random() for k in range(9)}, n, 0.0),
    "broadcasts": lambda n: Broadcasted(AT, f"{n}", Inline(bytes(1000))),
    "long tags of broadcasts": lambda n: Broadcasted(AT, f"{n}" * 1000, VALUE),
    "contributions": lambda n: Contributed(AT, n, "all_gather()", Inline(bytes(1000))),
    "long kinds": lambda n: Contributed(AT, n, "k" * 5000),
    "locks": lambda n: LockWanted(AT, f"lock {n}"),
    "letters": lambda n: Sent(AT, "n2", "t", Inline(bytes(1000))),
    "letters to many": lambda n: Sent(AT, f"{n}", "t", VALUE),
    "claims": lambda n: Receiving(AT, "n2", f"{n}"),
    "claims of long tags": lambda n: Receiving(AT, "n2", f"{n}" * 1000),
    "claims of one tag": lambda n: Receiving(AT, "n2", "t"),
}


@pytest.mark.parametrize("flood", FLOODS)
def test_no_flood_takes_more_memory_than_the_quota(flood: str) -> None:
    found, count = bounds(state_bytes=1 << 20), 0
    tracemalloc.start()
    try:
        while not (breach := apply(found, CODEC[1].decode(CODEC[0].encode(FLOODS[flood](count))))):
            count += 1
            assert count < 20_000
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count > 50, "what is not there any more does not count"
    assert taken < 2 << 20
    assert breach.quota is Quota.STATE_BYTES


@pytest.mark.parametrize(
    "entry",
    [
        Broadcasted(AT, "t", Inline(bytes(1000))),
        Checkpointed(AT, Inline(bytes(1000))),
        GlobalWritten(AT, "t", Inline(bytes(1000))),
        LockWanted(AT, "l"),
    ],
)
def test_what_takes_the_place_of_another_may_go_on_for_ever(entry: JournalEntry) -> None:
    found = bounds(state_bytes=100_000)
    assert not any(apply(found, entry) for _ in range(2000))


def test_attempts_count_before_there_are_so_many() -> None:
    found = bounds(state_bytes=1 << 20)
    assert found.placing(100) is None
    breach = found.placing(1000)
    assert breach is not None
    assert breach.quota is Quota.STATE_BYTES


def test_timers_count() -> None:
    found = bounds()
    before = weight.weigh(found.data)
    for number in range(1000):
        found.data.set_timer(float(number), "backstop", "worker", 0, 0, 0)
    assert weight.weigh(found.data) > before + 100_000


def test_what_a_swarm_is_counts_as_well() -> None:
    task = TaskSpec("work", "m", datasets=tuple(f"{n}" for n in range(20_000)))
    machine = SwarmMachine("s", "lab")
    machine.handle(Created(SwarmSpec("fl", (task,), (ModuleSpec("m"),))), 0.0)
    assert weight.weigh(machine.data) > 1 << 20


def test_receives_in_vain_may_go_on_for_ever() -> None:
    found = bounds(state_bytes=100_000)
    for number in range(1000):
        assert not apply(found, Receiving(AT, "n2", f"{number}"))
        assert not apply(found, ClaimsReturned(AT, "n2", f"{number}", 0))


def test_a_sender_that_does_not_ask_is_beyond_the_quota_of_messages_and_one_that_asks_is_not() -> (
    None
):
    found = bounds(messages=100)
    live: dict = {msgspec.structs.replace(AT, index=n): None for n in range(4)}
    found.data.live = live
    found.data.given = {"n1", "n2"}
    share = found.letters.share.letters
    assert share == 100 // 8
    for _ in range(100 + 4 * 2 * share):  # each may have been given a share just before
        assert not apply(found, Sent(AT, "n2", "t", VALUE))
    assert apply(found, Sent(AT, "n2", "t", VALUE))


def test_who_waits_for_the_quota_is_woken_once_there_is_room() -> None:
    found = bounds(messages=10)
    for _ in range(10):
        assert not apply(found, Sent(AT, "n2", "t", VALUE))
        assert not found.opened()
    other = msgspec.structs.replace(AT, index=1)
    found.data.exchange.apply("n2", Receiving(other, "n", "t"))
    assert found.opened()
    assert not found.opened()


def metrics(count: int) -> list[JournalEntry]:
    return [MetricsLogged(AT, {"loss": 1.0}, n, 0.0) for n in range(count)]


def test_metrics_and_progress_beyond_the_quota_are_left_out_and_all_else_stays() -> None:
    progress = [Progressed(AT, 0.5, "", 0.0)] * 2
    entries = (*metrics(3), ResultWritten(AT, "r", VALUE), *progress, *metrics(1), END)
    found = bounds(metrics=1, progress=1).viable(entries)
    assert found.entries == (
        entries[0],
        Passed(2),
        entries[3],
        entries[4],
        Passed(2),  # a progress, and a metric
        END,
    )
    assert set(found.left_out) == {Quota.METRICS, Quota.PROGRESS} <= LEFT_OUT
    assert found.fatal is None


@pytest.mark.parametrize(
    ("quota", "entry"),
    [
        (Quota.RESULTS, ResultWritten(AT, "r", VALUE)),
        (Quota.MESSAGES, Sent(AT, "n2", "t", VALUE)),
        (Quota.GLOBALS, GlobalWritten(AT, "a", VALUE)),
    ],
)
def test_of_what_tasks_rely_on_the_first_that_is_too_much_is_fatal(
    quota: Quota, entry: JournalEntry
) -> None:
    other = GlobalWritten(AT, "b", VALUE) if isinstance(entry, GlobalWritten) else entry
    found = bounds(**{str(quota): 1}).viable((entry, other, END))
    assert found.entries == (entry,)
    assert found.fatal is not None
    assert f"has 1 {TABLE[quota].what} and asks for 1 more" in found.fatal.sentence


def test_a_global_that_is_overwritten_is_no_other_one() -> None:
    same = (GlobalWritten(AT, "a", VALUE),) * 5
    assert bounds(globals=1).viable(same).fatal is None


def test_all_that_tasks_say_together_is_bounded() -> None:
    large = Inline(bytes(1000))
    found = bounds(history_bytes=1500)
    assert found.viable((ResultWritten(AT, "r", large),)).fatal is None
    found.said = 1000
    breach = found.viable((ResultWritten(AT, "r", large),)).fatal
    assert breach is not None
    assert breach.quota is Quota.HISTORY_BYTES
    assert found.viable(()).fatal is None


def test_large_values_count_for_the_owner() -> None:
    entry = ResultWritten(AT, "r", BlobRef("ab" * 32, 1))
    breach = bounds(blobs=0).viable((entry,)).fatal
    assert breach is not None
    assert breach.quota is Quota.BLOBS
    assert bounds(blobs=1).viable((entry,)).fatal is None


def test_what_a_user_sets_counts_as_well() -> None:
    found = bounds(globals=0)
    breach = found.of_global("a", VALUE)
    assert breach is not None
    assert breach.quota is Quota.GLOBALS


def test_the_numbers_of_a_journal_go_on_after_what_was_left_out() -> None:
    machine = SwarmMachine("s", "lab")
    entry = metrics(1)[0]
    machine.handle(EntriesReceived("n", 1, (entry, Passed(7), entry)), 0.0)
    assert machine.applied("n") == 9
    for first, upto in ((4, 9), (10, 12), (20, 12)):  # a repeat, the next, a gap
        machine.handle(EntriesReceived("n", first, (Passed(2), entry)), 0.0)
        assert machine.applied("n") == upto


def test_the_numbers_are_the_same_after_a_replay() -> None:
    events = [
        EntriesReceived("n", 1, (Passed(3), END)),
        EntriesReceived("n", 2, (END, END, END, Passed(4))),
    ]
    first, again = SwarmMachine("s", "lab"), SwarmMachine("s", "lab")
    for machine in (first, again):
        for event in events:
            machine.handle(event, 0.0)
    assert first.applied("n") == again.applied("n") == 8


def test_a_swarm_goes_on_without_what_it_does_not_rely_on() -> None:
    machine = SwarmMachine("s", "lab")
    machine.handle(QuotaReached("It is enough."), 0.0)
    assert machine.state is SwarmState.PENDING
    assert [item.kind for item in machine.data.events] == ["quota"]


def test_a_swarm_fails_of_what_it_relies_on() -> None:
    machine = SwarmMachine("s", "lab")
    actions = machine.handle(QuotaReached("It is too much.", fatal=True), 0.0)
    assert machine.state is SwarmState.FAILED
    assert [one.reason for one in actions if isinstance(one, StateChanged)] == ["It is too much."]
    assert machine.data.full
    revision = machine.revision
    machine.handle(QuotaReached("It is too much.", fatal=True), 0.0)
    assert machine.revision == revision  # told once
