"""What tasks report waits its turn where they flood; nothing else does, and nothing is lost."""

from __future__ import annotations

import pytest

from manta.manager.quotas import pace
from manta.manager.swarm import inflow
from manta.protocol.node import (
    JournalBatch,
    LogAck,
    LogBatch,
    LogLine,
    MetricsLogged,
    ResultWritten,
)
from manta.protocol.user import GetSwarm, StopSwarm
from manta.protocol.values import Inline
from manta.testing import wait_until
from manta.testing.manager import Client
from tests.integration.manager.test_swarms import deploy, read, round_trip, silent

COUNT = 100


@pytest.fixture
def _slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if each report took so much time that a hundred of them take seconds."""
    monkeypatch.setattr(pace, "REPORT", 0.02)
    monkeypatch.setattr(inflow, "PIECE", 10)


@pytest.mark.usefixtures("_slow")
def test_a_flood_of_lines_is_taken_in_turn_and_whole_while_users_are_answered(
    admin: Client, nodes
) -> None:
    [node] = nodes(1, silent)
    flood, other = deploy(admin, round_trip()), deploy(admin, round_trip())
    wait_until(lambda: len(node.ran) == 2)
    at = {one.swarm_id: one for one in node.ran}
    lines = tuple(LogLine(at[flood], float(n), "stdout", f"line {n}") for n in range(COUNT))
    for n in range(0, COUNT, 10):
        node.tell(LogBatch(flood, n + 1, lines[n : n + 10]))
    wait_until(lambda: node.acknowledged.get(other) == 1)
    node.tell(JournalBatch(other, 2, (ResultWritten(at[other], "tag", Inline(b"1")),)))
    wait_until(lambda: node.acknowledged.get(other) == 2)
    assert admin.ask(GetSwarm(flood)).status == "ACTIVE"
    assert LogAck(flood, COUNT) not in node.heard
    admin.ask(StopSwarm(flood))
    assert LogAck(flood, COUNT) not in node.heard
    wait_until(lambda: LogAck(flood, COUNT) in node.heard, 30)
    assert [item.line for item in read(admin, flood, "logs", limit=1000)] == list(lines)


@pytest.mark.usefixtures("_slow")
def test_results_behind_a_flood_of_metrics_come_once_and_in_order(admin: Client, nodes) -> None:
    [node] = nodes(1, silent)
    swarm = deploy(admin, round_trip())
    wait_until(lambda: node.acknowledged.get(swarm) == 1)
    [at] = node.ran
    entries = [MetricsLogged(at, {"loss": 1.0}, n, 0.0) for n in range(COUNT)]
    result = ResultWritten(at, "tag", Inline(b"1"))
    for n in range(0, COUNT, 10):
        node.say(swarm, *entries[n : n + 10])
    node.say(swarm, result)
    wait_until(lambda: node.acknowledged.get(swarm) == COUNT + 2, 30)
    admin.ask(StopSwarm(swarm))
    assert [item.step for item in read(admin, swarm, "metrics", limit=1000)] == list(range(COUNT))
    assert [item.value for item in read(admin, swarm, "results")] == [Inline(b"1")]
