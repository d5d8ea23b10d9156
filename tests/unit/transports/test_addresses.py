from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from manta.transports.addresses import join_address, resolve_later, split_address, split_host


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("localhost", "localhost", None),
        ("manager.lan:50051", "manager.lan", 50051),
        ("192.0.2.1:5", "192.0.2.1", 5),
        ("::1", "::1", None),
        ("[::1]", "::1", None),
        ("[::1]:50051", "::1", 50051),
        ("[2001:db8::7]:65535", "2001:db8::7", 65535),
        ("fe80::1%eth0", "fe80::1%eth0", None),
    ],
)
def test_a_host_as_people_write_it(text: str, host: str, port: int | None) -> None:
    assert split_host(text) == (host, port)
    address = join_address(host, port or 1)
    assert split_address(address) == (host, port or 1)


@pytest.mark.parametrize(
    "text",
    [
        "", ":", ":5", "a:", "a:x", "a:0", "a:65536", "a b", "tcp://a", "tcp://a:1", "::zz", "[::1",
        "[a]:5", "[::1]5", "[::1]:", "[::1]:x", "::1]:5", "\udcff",
    ],
)  # fmt: skip
def test_what_is_no_host_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="it must"):
        split_host(text)


def test_localhost_is_looked_for_on_ipv4_and_ipv6() -> None:
    found: list[list[str]] = []
    resolve_later("localhost", lambda job: None, found.append)
    assert found == [["127.0.0.1", "::1"]]


@pytest.mark.parametrize("host", ["manager..lan", "a" * 100, "."])
def test_a_name_that_can_be_none_is_not_known(host: str) -> None:
    answered = threading.Event()
    found: list[list[str]] = []

    def post(job: Callable[[], object]) -> None:
        job()
        answered.set()

    resolve_later(host, post, found.append)
    assert answered.wait(20)
    assert found == [[]]
