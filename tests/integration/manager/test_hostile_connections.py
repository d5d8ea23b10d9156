"""Connections to a real manager's three ports that keep no rule: nobody else notices."""

from __future__ import annotations

import sys

import pytest

from manta.protocol.sign_in import WhoAmI
from manta.testing.curve import CurveClient
from manta.testing.manager import Client
from manta.transports import frames
from manta.transports.bulk.wire import Cancel, pack
from manta.transports.frames import Hello, Limits
from manta.transports.security.keys import KeyPair

MIB = 1 << 20
PORTS = ["nodes", "users", "bulk"]
FIRST = {
    "nodes": frames.encode_hello(Hello(Limits(), 8 * MIB, 5000)),
    "users": frames.encode_hello(Hello(Limits(), 8 * MIB, 5000)),
    "bulk": pack(Cancel(bytes(16))),
}


def connect(bench, port: str, keys: KeyPair | None = None, **options) -> CurveClient:
    """As a stranger; the bulk port admits known keys only."""
    if keys is None and port == "bulk":
        keys = bench.admin_keys
    made = CurveClient(getattr(bench.manager.file, port), bench.key, keys, **options)
    return bench.undo.enter_context(made).connect()


@pytest.mark.parametrize("port", PORTS)
def test_ids_that_an_unseeded_process_would_give_end_nothing(
    bench, admin: Client, port: str
) -> None:
    first = (0x6B8B4567, 0xE43C9869, 0x2AE8944A, 0xF4B0DC51)
    for number in (one + more for one in first for more in range(8)):
        connect(bench, port, routing_id=b"\0" + number.to_bytes(4, "big"))
    for _ in range(12):  # those that are given ids
        assert bench.client(bench.admin_keys).ask(WhoAmI()).email == "me@localhost"
        connect(bench, "bulk").send(FIRST["bulk"])
    assert admin.ask(WhoAmI()).email == "me@localhost"


@pytest.mark.skipif(sys.platform != "linux", reason="TCP_INFO is Linux's")
@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("first", [True, False])
def test_a_message_without_an_end_costs_its_sender_the_connection(
    bench, admin: Client, port: str, first: bool
) -> None:
    for keys in (bench.admin_keys, bench.node_keys[0], None):
        client = connect(bench, port, keys)
        if first:
            client.send(FIRST[port])
        assert client.flood(client.endless(bytes(50_000), batch=8), most=300 * MIB) < 200 * MIB
        assert client.wait_cut()
    assert admin.ask(WhoAmI()).email == "me@localhost"
