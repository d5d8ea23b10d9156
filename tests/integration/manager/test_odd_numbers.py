"""Numbers that no node and no user of ours says, and any may: they end nothing in the manager."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from manta.actors import ActorError
from manta.protocol.clusters import ClusterInfo, CreateNodeToken
from manta.protocol.exchange import (
    CheckNext,
    ReadBroadcast,
    ReadCheckpoint,
    ReadContributions,
    ReadLock,
    ReadMessage,
    ReadPeers,
    ReadRoom,
    ResolvePeer,
)
from manta.protocol.node import (
    FetchDesired,
    GlobalWritten,
    Heartbeat,
    Instance,
    JournalBatch,
    Load,
    LogBatch,
    LogLine,
    MetricsLogged,
    NextIteration,
    Progressed,
    ReadGlobal,
    ResultWritten,
    SelectResults,
    TaskEnded,
    TaskStarted,
    Timings,
)
from manta.protocol.peers import FetchPeers
from manta.protocol.roster import WantRoster
from manta.protocol.user import (
    DeleteResults,
    FeedName,
    GetSwarm,
    GetTasks,
    ListSwarms,
    ReadFeed,
)
from manta.protocol.values import BlobRef, Inline
from manta.testing import wait_until
from manta.testing.manager import Client
from tests.integration.manager.test_swarms import deploy, round_trip, silent

FEEDS: tuple[FeedName, ...] = ("results", "metrics", "logs", "events")
HUGE, LOW, INF, NAN = 2**64 - 1, -(2**63), float("inf"), float("nan")


def odd(at: Instance) -> list[Any]:
    swarm = at.swarm_id
    nowhere = Instance(swarm, at.alias, HUGE, HUGE, HUGE)
    below = Instance(swarm, at.alias, LOW, LOW, LOW)
    entries: list[Any] = []
    for one in (at, nowhere, below):
        entries += [
            TaskStarted(one, INF),
            MetricsLogged(one, {"a": NAN, "b": INF}, HUGE, NAN),
            MetricsLogged(one, {"a": 1.0}, LOW, -INF),
            Progressed(one, NAN, "x", NAN),
            Progressed(one, -1e308, "x", 1e308),
            ResultWritten(one, "t", Inline(b"\xff")),
            ResultWritten(one, "t", BlobRef("0" * 64, HUGE), held=True),
            GlobalWritten(one, "t", Inline(b"")),
            NextIteration(one, ("nobody",), "nothing"),
        ]
    ended = [
        TaskEnded(one, "FINISHED", NAN, timings=Timings(NAN, INF, -INF, 1e308))
        for one in (nowhere, below, at)
    ]
    said: list[Any] = [
        Heartbeat(HUGE, Load(NAN, HUGE, HUGE, HUGE, HUGE), journals={swarm: HUGE, "x": LOW}),
        Heartbeat(LOW, Load(cpu_usage=-INF, tasks_running=LOW), journals={swarm: LOW}),
        FetchDesired(HUGE, HUGE),
        FetchDesired(LOW, LOW),
        *(SelectResults(swarm, "t", n, m) for n, m in ((0, HUGE), (0, -1), (HUGE, 0))),
        ReadGlobal(swarm, "\0"),
        *(FetchPeers(swarm, n, "x" * 300) for n in (HUGE, LOW)),
        WantRoster(swarm),
        *(
            ask
            for one in (at, nowhere, below)
            for ask in (
                ResolvePeer(one, "node-1"),
                CheckNext(one, ("node-1",), None),
                ReadPeers(one),
                ReadBroadcast(one, "t"),
                ReadMessage(one, "node-1", "t", HUGE),
                ReadMessage(one, "node-1", "t", LOW),
                ReadRoom(one, "node-1", 0),
                ReadContributions(one, HUGE, "gather", (HUGE, LOW), HUGE, after=HUGE),
                ReadContributions(one, LOW, "barrier", (), LOW, after=LOW),
                ReadLock(one, "x"),
                ReadCheckpoint(one),
            )
        ),
    ]
    return [
        *said,
        LogBatch(swarm, HUGE, (LogLine(at, INF, "stdout", "x"),)),
        LogBatch(swarm, 2**63 - 1, (LogLine(at, NAN, "stdout", "x"),) * 2),
        LogBatch(swarm, 1, (LogLine(nowhere, NAN, "x", "y"), LogLine(below, 0.0, "", ""))),
        JournalBatch(swarm, HUGE, (entries[0],)),
        *(JournalBatch(swarm, number, (one,)) for number, one in enumerate(entries + ended, 2)),
    ]


def of_users(swarm: str) -> list[Any]:
    return [
        *(GetTasks(swarm, n, m) for n, m in ((None, HUGE), (None, -1), (HUGE, 0))),
        *(ReadFeed(swarm, feed, HUGE) for feed in FEEDS),
        ReadFeed(swarm, "logs", -1),
        DeleteResults(swarm, None, HUGE),
        *(CreateNodeToken("lab", ttl=n) for n in (NAN, INF, -INF, 1e308)),
        CreateNodeToken("lab", uses=HUGE),
    ]


ACTORS = (
    *("store", "blobs", "gateway", "clusters"),
    *("clusters/{cluster}", "clusters/{cluster}/{swarm}"),
)


def test_numbers_that_nobody_says_end_nothing(
    bench, admin: Client, cluster: ClusterInfo, nodes: Callable[..., Any]
) -> None:
    [node] = nodes(1, silent)
    swarm = deploy(admin, round_trip())
    other = deploy(admin, round_trip())
    wait_until(lambda: len(node.ran) == 2 and node.acknowledged.get(swarm) == 1)
    [at] = [one for one in node.ran if one.swarm_id == swarm]

    def actors() -> list[Any]:
        paths = (path.format(cluster=cluster.id, swarm=swarm) for path in ACTORS)
        return [bench.system.find(f"manager/{path}") for path in paths]

    before = actors()
    for message in odd(at):
        if type(message).__name__ in ("JournalBatch", "LogBatch"):
            node.tell(message)
        else:
            with suppress(ActorError, TimeoutError):  # refused, or the link is lost over it
                node.ask(message, 0.5)
        assert admin.ask(GetSwarm(other)).status == "ACTIVE", message
        assert actors() == before, message
    user = bench.client(bench.admin_keys)
    for message in of_users(swarm):
        with suppress(ActorError, TimeoutError):
            user.ask(message, 0.5)
        assert admin.ask(GetSwarm(other)).status == "ACTIVE", message
        assert actors() == before, message
    for feed in FEEDS:
        admin.ask(ReadFeed(swarm, feed))
    admin.ask(GetTasks(swarm))
    assert len(admin.ask(ListSwarms()).swarms) == 2
    assert actors() == before
    bench.restart()
    assert len(admin.ask(ListSwarms()).swarms) == 2
    for feed in FEEDS:
        admin.ask(ReadFeed(swarm, feed))
    assert admin.ask(GetSwarm(other)).status == "ACTIVE"
