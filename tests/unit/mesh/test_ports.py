"""Ports that peers of one machine are given stay free until they bind them."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from manta.mesh import run
from manta.mesh.settings import PORTS


def test_the_system_gives_them_to_nobody_else() -> None:
    first, _ = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    assert max(run._PORTS) < first
    for _ in range(20):
        port = run._free_port("127.0.0.1")
        assert {port, port + PORTS - 1} < {*run._PORTS}


def test_one_whose_next_is_taken_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    port = run._free_port("127.0.0.1")
    with socket.create_server(("127.0.0.1", port + 1)):
        monkeypatch.setattr(run, "_PORTS", range(port, port + PORTS + 1))
        with pytest.raises(OSError, match="none has 2 free ones after it"):
            run._free_port("127.0.0.1")
