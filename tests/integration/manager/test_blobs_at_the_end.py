"""What a manager that stops in good order says to nodes that fetch from it."""

from __future__ import annotations

import pytest

from manta.actors import ExitReason
from manta.manager.blobs import Blobs
from manta.protocol.node import ResultWritten
from manta.testing import wait_until
from manta.testing.manager import Client, FakeNode
from manta.transports.bulk.options import Verdict
from tests.integration.manager.test_lost_pasts import deploy, silent


def test_no_node_is_told_that_a_blob_of_a_swarm_that_runs_is_not_there(
    bench, admin: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Swarms have ended by then, and blobs are served until these have."""
    nodes: list[FakeNode] = [bench.node(number, silent) for number in (1, 2)]
    assert all(node.registered.wait(60) for node in nodes)
    swarm = deploy(admin)
    wait_until(lambda: all(node.acknowledged.get(swarm) == 1 for node in nodes))
    reader, writer = nodes
    blob = bench.pushed(writer, bytes(100_000))
    writer.say(swarm, ResultWritten(writer.ran[0], "r", blob))
    wait_until(lambda: writer.acknowledged.get(swarm) == 2)
    verdicts: list[Verdict] = []
    stops = Blobs.on_stop

    def on_stop(blobs: Blobs, reason: ExitReason) -> None:
        verdicts.append(blobs._verdict(reader.keys.public, "fetch", blob.digest, blob.size))
        stops(blobs, reason)

    monkeypatch.setattr(Blobs, "on_stop", on_stop)
    bench.stop()
    assert verdicts == [Verdict.LATER]
