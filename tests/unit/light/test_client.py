"""An attempt asks a node that is not there."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from manta.light import wire
from manta.light.errors import NodeLost
from manta.light.runtime.client import AttemptClient
from tests.unit.light.test_api import Recorder


def test_a_node_that_does_not_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "PATIENCE", 0.0)
    nodes, ours = socket.socketpair()
    brief = Recorder(tmp_path).brief
    client = AttemptClient(str(tmp_path / "nobody"), "token", brief, ours.detach())
    client.open(os.getpid())
    nodes.close()
    with pytest.raises(NodeLost, match="did not come back within 0 s"):
        client.call("stop_swarm")
