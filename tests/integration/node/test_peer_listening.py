"""Where a node listens for others, and which addresses they are told."""

from __future__ import annotations

import socket
from contextlib import closing
from typing import NamedTuple

import psutil
import pytest

from manta.node.peers.listening import CannotListen, PeerSocket, bulk_address
from manta.protocol.addresses import is_loopback
from manta.protocol.peers import MOST_ADDRESSES
from manta.transports.addresses import split_address


class Found(NamedTuple):
    """As psutil tells of an address."""

    family: socket.AddressFamily
    address: str


def interfaces(monkeypatch: pytest.MonkeyPatch, **there: str) -> None:
    def addresses(text: str) -> list:
        families = {True: socket.AF_INET6, False: socket.AF_INET}
        return [Found(families[":" in one], one) for one in text.split()]

    found = {name: addresses(text) for name, text in there.items()}
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: found)


def hosts(listening: PeerSocket) -> list[str]:
    return [split_address(address)[0] for address in listening.addresses]


def test_it_listens_at_a_free_port() -> None:
    with closing(PeerSocket("127.0.0.1:0")) as one, closing(PeerSocket("127.0.0.1:0")) as other:
        assert one.port != other.port
        assert one.addresses == (f"tcp://127.0.0.1:{one.port}",)
        assert one.fd != other.fd
        with closing(socket.create_connection(("127.0.0.1", one.port), 5)):
            pass


def test_a_port_that_is_taken_is_told_with_the_remedy() -> None:
    said = r"at 127.0.0.1:\d+ \(peers.listen\): .*choose"
    with closing(PeerSocket("127.0.0.1")) as one, pytest.raises(CannotListen, match=said):
        PeerSocket(f"127.0.0.1:{one.port}")


@pytest.mark.parametrize(
    ("listen", "port", "at"),
    [
        ("0.0.0.0:0", 0, "0.0.0.0:0"),
        ("0.0.0.0:50061", 0, "0.0.0.0:50062"),
        ("0.0.0.0:50061", 7, "0.0.0.0:7"),
        ("[::]:50061", 0, "[::]:50062"),
        ("::1", 0, "[::1]:0"),
        ("10.0.0.1", 9, "10.0.0.1:9"),
        ("10.0.0.1:65535", 0, "10.0.0.1:0"),
    ],
)
def test_large_values_come_to_the_port_after_that_of_the_links(
    listen: str, port: int, at: str
) -> None:
    assert bulk_address(listen, port) == at


def test_a_port_for_large_values_that_is_taken_is_told_as_such() -> None:
    with (
        closing(PeerSocket("127.0.0.1")) as one,
        pytest.raises(CannotListen, match=r"\(peers.bulk_port\): .*choose"),
    ):
        PeerSocket(f"127.0.0.1:{one.port}", setting="peers.bulk_port")


def test_others_are_told_this_machine_s_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    interfaces(
        monkeypatch,
        lo="127.0.0.1 ::1",
        eth0="10.1.2.3 fe80::1%eth0 2001:db8::1",
        wlan0="169.254.7.7 192.168.1.5",
    )
    with closing(PeerSocket("0.0.0.0:0")) as listening:
        assert hosts(listening) == ["10.1.2.3", "192.168.1.5"]
    with closing(PeerSocket("0.0.0.0:0", near=True)) as listening:
        assert hosts(listening) == ["10.1.2.3", "192.168.1.5", "127.0.0.1"]


def test_of_many_addresses_the_loopback_one_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    many = {f"veth{number:03}": f"10.0.0.{number}" for number in range(1, 40)}
    interfaces(monkeypatch, **many, lo="127.0.0.1")
    with closing(PeerSocket("0.0.0.0:0", near=True)) as listening:
        assert len(hosts(listening)) == MOST_ADDRESSES
        assert is_loopback(hosts(listening)[-1])


def test_what_is_advertised_takes_their_place() -> None:
    with closing(PeerSocket("0.0.0.0:0", ["gate.example", "10.0.0.9:7"], near=True)) as listening:
        assert listening.addresses == (
            f"tcp://gate.example:{listening.port}",
            "tcp://10.0.0.9:7",
        )
