"""Which addresses others can connect to."""

from __future__ import annotations

import pytest

from manta.protocol.addresses import flaw_of, is_loopback


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.1:70",
        "tcp://10.0.0.1",
        "tcp://10.0.0.1:0",
        "tcp://0.0.0.0:70",
        "tcp://[::]:70",
        "tcp://224.0.0.1:70",
        "tcp://a b:70",
        "tcp://a..b:70",
        "tcp://@:70",
        "tcp://host:99999",
        "udp://host:70",
    ],
)
def test_what_nobody_can_connect_to_is_no_address(address: str) -> None:
    assert flaw_of(["tcp://host:70", address])


def test_names_and_literals_are_addresses() -> None:
    assert not flaw_of(
        ["tcp://host:70", "tcp://a_b-c.example:1", "tcp://[::1]:70", "tcp://1.2.3.4:5"]
    )


@pytest.mark.parametrize(
    ("host", "near"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("10.0.0.1", False), ("gate", False)],
)
def test_loopback_hosts_are_known(host: str, near: bool) -> None:
    assert is_loopback(host) == near
