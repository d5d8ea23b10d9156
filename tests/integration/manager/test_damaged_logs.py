"""Swarms whose event logs are damaged say so, and take nobody along."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from manta.manager.swarm.events import Started, encode
from manta.protocol.codes import Code
from manta.protocol.node import TaskEnded
from manta.protocol.user import GetSwarm, ListSwarms, RemoveSwarm, StopSwarm, WaitSwarm
from manta.testing import wait_until
from manta.testing.manager import Client
from tests.integration.manager.test_swarms import deploy, round_trip, silent, work

OTHER = encode(Started(), 0.0).hex()
SHORT = "SET body = substr(body, 1, length(body) - 1) || x'00' WHERE swarm_id = ? AND number = 2"
CHECKED = {
    "DELETE FROM events WHERE swarm_id = ?": "it was set back: it ends with event 0, and ",
    "DELETE FROM events WHERE swarm_id = ? AND number = 1": "event 1 is missing",
    "DELETE FROM events WHERE swarm_id = ? AND number = 2": "event 2 is missing",
    "DELETE FROM events WHERE swarm_id = ? AND number > 2": (
        "it was set back: it ends with event 2, and "
    ),
    f"UPDATE events {SHORT}": "event 2 is not what was stored: its checksum is another",
    "UPDATE events SET checksum = NULL WHERE swarm_id = ? AND number = 2": (
        "event 2 is not what was stored: its checksum is another"
    ),
    "UPDATE event_ends SET checksum = x'00' WHERE swarm_id = ?": (
        "is not the one that was stored last"
    ),
}
"""What is done to a log, and how it is told."""
UNCHECKED = {
    "DELETE FROM events WHERE swarm_id = ?": "it is empty",
    "UPDATE events SET body = x'c1' WHERE swarm_id = ? AND number = 2": (
        "event 2 is none that this version knows"
    ),
    # Text that is not UTF-8, where text is expected.
    "UPDATE events SET body = x'92cb000000000000000081a474797065a2c328'"
    " WHERE swarm_id = ? AND number = 2": "event 2 is none that this version knows",
    "UPDATE events SET body = CAST(replace(hex(zeroblob(9999)), '0', x'91') AS BLOB)"
    " WHERE swarm_id = ? AND number = 2": "event 2 is none that this version knows",
    f"UPDATE events SET body = x'{OTHER}' WHERE swarm_id = ? AND number = 1": (
        "it does not begin with the swarm's creation"
    ),
}
"""The same to a log of a version that knew no checksums."""


@pytest.mark.parametrize("damages", [CHECKED, UNCHECKED], ids=["checked", "unchecked"])
def test_a_swarm_whose_log_is_damaged_says_so_and_takes_nobody_along(
    bench, admin: Client, nodes, damages: dict[str, str]
) -> None:
    [node] = nodes(1, silent)
    damaged = {statement: deploy(admin, round_trip()) for statement in damages}
    whole, over = deploy(admin, round_trip()), deploy(admin, round_trip())
    wait_until(lambda: len(node.ran) == len(damages) + 2)
    admin.ask(StopSwarm(over))
    bench.stop()
    with closing(sqlite3.connect(bench.home / "manta.db", isolation_level=None)) as store:
        if damages is UNCHECKED:
            store.execute("UPDATE events SET checksum = NULL")
            store.execute("DELETE FROM event_ends")
            store.execute("DELETE FROM snapshots")
        for statement, swarm_id in [*damaged.items(), (next(iter(damages)), over)]:
            assert store.execute(statement, (swarm_id,)).rowcount > 0
    node.script = work
    bench.start()
    assert node.registered.wait(60)
    shown = {swarm.swarm_id: swarm for swarm in admin.ask(ListSwarms()).swarms}
    assert (shown[whole].status, shown[over].status) == ("ACTIVE", "STOPPED")
    for statement, swarm_id in damaged.items():
        swarm = shown[swarm_id]
        assert swarm.status == "FAILED"
        assert swarm.reason.startswith("its event log cannot be read: ")
        assert damages[statement] in swarm.reason, statement
        assert swarm.reason.endswith("; restore a backup, or remove the swarm.")
    for swarm_id in (*damaged.values(), over):
        refused = admin.refusal(GetSwarm(swarm_id))
        assert refused.code == Code.STORAGE
        assert "its event log cannot be read: " in refused.sentence
        admin.ask(RemoveSwarm(swarm_id))
    assert [swarm.swarm_id for swarm in admin.ask(ListSwarms()).swarms] == [whole]
    [at] = [instance for instance in node.ran if instance.swarm_id == whole]
    node.say(whole, TaskEnded(at, "FINISHED", 0.0))
    assert admin.ask(WaitSwarm(whole, 10.0)).status == "COMPLETED"
