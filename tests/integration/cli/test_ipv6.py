"""A manager that listens on IPv6: nodes and users reach it, however its address is written."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.integration.cli.test_by_hand import HELLO, Terminal


def has_ipv6() -> bool:
    try:
        with closing(socket.create_server(("::1", 0), family=socket.AF_INET6)):
            return True
    except OSError:
        return False


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    if not has_ipv6():
        pytest.skip("this machine has no IPv6")
    terminal = Terminal(tmp_path)
    del terminal.environment["MANTA_PORT"]
    yield terminal
    terminal("stop n", program="manta.node.command")
    terminal("manager stop")


@pytest.mark.parametrize(
    ("listen", "hinted", "user", "node"),
    [
        ("::1", "::1", "[::1]:{users}", "[::1]:{nodes}"),
        ("[::1]", "::1", "localhost:{users}", "localhost:{nodes}"),
        ("::", "localhost", "127.0.0.1:{users}", "[::1]:{nodes}"),
    ],
)
def test_all_is_done_over_ipv6(
    terminal: Terminal, listen: str, hinted: str, user: str, node: str
) -> None:
    ports = {"nodes": terminal.nodes, "users": terminal.users}
    said = terminal(
        f"manager start --background --host {listen} --node-port {terminal.nodes} "
        f"--user-port {terminal.users} --bulk-port {terminal.bulk}"
    )
    assert f"--host {hinted} --port {terminal.users} " in said
    password = re.search(r"the password\s+(\S+)", said)
    assert password is not None
    host = user.format(**ports)
    signed_in = terminal(
        f"sign-in --email admin@localhost --host {host} --password-stdin", stdin=password[1]
    )
    assert f"Signed in to {host} as" in signed_in
    terminal("cluster create lab")
    token = terminal("node token lab").strip()
    terminal(
        f"config init n --manager-host {node.format(**ports)} --allow-unsandboxed",
        program="manta.node.command",
    )
    started = terminal("start n --background", program="manta.node.command", MANTA_NODE_TOKEN=token)
    assert f"tcp://{node.format(**ports)} as n" in started
    assert "COMPLETED" in terminal(f"deploy --cluster lab {HELLO} --follow")
