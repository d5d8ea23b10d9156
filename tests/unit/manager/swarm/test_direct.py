"""Swarms whose tasks exchange from node to node, and those of versions that had none."""

from __future__ import annotations

import pytest

from manta.manager.placement.nodes import NodeView
from manta.manager.swarm.events import Created, Placed, Started, decode_log, encode
from manta.manager.swarm.machine import SwarmMachine
from manta.protocol.node import Capabilities
from manta.protocol.spec import ModuleSpec, SwarmSpec, TaskSpec

SPEC = SwarmSpec("s", (TaskSpec("w", "m"),), (ModuleSpec("m"),))


def placed(log: bytes, *nodes: NodeView) -> SwarmMachine:
    machine = SwarmMachine.replay("s", "lab", decode_log([(1, log)]))
    machine.handle(Started(), 1.0)
    (asked,) = machine.outstanding()
    answer = machine.answer(asked.number, nodes)
    assert isinstance(answer, Placed)
    machine.handle(answer, 2.0)
    return machine


@pytest.mark.parametrize("direct", [True, False])
def test_nodes_are_told_how_a_swarm_exchanges_as_its_log_says(direct: bool) -> None:
    new = NodeView("id-1", "node-1", Capabilities())
    old = NodeView("id-2", "node-2", Capabilities(), direct=False)
    told = placed(encode(Created(SPEC, direct=direct), 0.0), new, old).desired()
    assert set(told) == ({"id-1"} if direct else {"id-1", "id-2"})
    assert {one.direct for assigned in told.values() for one in assigned} == {direct}


def test_a_swarm_of_an_earlier_version_goes_on_as_before() -> None:
    log = encode(Created(SPEC), 0.0)
    assert b"direct" not in log  # as that version wrote it
    assert not placed(log, NodeView("id-1", "node-1", Capabilities())).data.direct
