"""What lies under zmq's sockets."""

from __future__ import annotations

import os
import resource
import socket
import sys
from contextlib import contextmanager

import pytest

from manta.transports.security.strangers import source_of
from manta.transports.zeromq.tcp import TcpConnection, Traffic


@pytest.fixture(params=["127.0.0.1", "::1"])
def ends(request):
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    try:
        listening = socket.create_server((request.param, 0), family=family)
    except OSError:
        pytest.skip(f"this machine has no {request.param}")
    with listening, socket.create_connection(listening.getsockname()[:2]) as one:
        other, _ = listening.accept()
        with other:
            yield one, other


def test_a_connection_is_ended_through_its_descriptor(ends):
    one, other = ends
    tcp = TcpConnection.of(one.fileno())
    assert tcp is not None
    assert tcp.is_open
    tcp.kill()
    assert other.recv(1) == b""
    assert one.fileno() >= 0  # still its owner's


@contextmanager
def no_descriptors_left():
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open(os.devnull, os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_where_no_descriptor_is_left_a_connection_is_ended_all_the_same(ends):
    one, other = ends
    with no_descriptors_left():
        tcp = TcpConnection.of(one.fileno())
        assert tcp is not None
        assert tcp.is_open
        assert tcp.traffic() == (0, 0)
        tcp.kill()
        assert TcpConnection.of(0) is None  # no socket
    assert other.recv(1) == b""
    assert one.fileno() >= 0
    os.fstat(one.fileno())  # still its owner's, and open


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this system has no IPv6")
@pytest.mark.parametrize(("host", "source"), [("127.0.0.1", "127.0.0.1"), ("::1", "::/64")])
def test_where_a_connection_comes_from_is_the_same_over_a_socket_of_both_kinds(host, source):
    with (
        socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listening,
        socket.create_connection((host, listening.getsockname()[1])),
    ):
        accepted, _ = listening.accept()
        with accepted:
            tcp = TcpConnection.of(accepted.fileno())
            assert tcp is not None
            assert source_of(tcp.host) == source


def test_a_connection_is_told_by_both_its_ends(ends):
    one, other = ends
    dialled, accepted = TcpConnection.of(one.fileno()), TcpConnection.of(other.fileno())
    assert dialled is not None
    assert accepted is not None
    host, port = other.getsockname()[:2]
    assert dialled.is_to(port)
    assert not accepted.is_to(port)
    assert accepted.is_at(host, port)
    assert accepted.is_at("", port)
    assert not accepted.is_at("192.0.2.1", port)
    assert not accepted.is_at(host, port + 1)
    assert not dialled.is_at("", port)
    assert not TcpConnection(9, "a path", "another", b"").is_at("", port)
    assert not TcpConnection(9, "a path", "another", b"").is_to(port)


def test_a_later_connection_with_the_same_descriptor_is_left_alone(ends):
    one, other = ends
    tcp = TcpConnection.of(one.fileno())
    assert tcp is not None
    os.dup2(other.fileno(), one.fileno())
    assert not tcp.is_open
    tcp.kill()
    assert TcpConnection.of(other.fileno()) is not None
    assert tcp.traffic() is None


def test_what_is_no_connection_is_none(tmp_path):
    with open(tmp_path / "file", "w") as file:
        assert TcpConnection.of(file.fileno()) is None
    assert TcpConnection.of(10_000) is None
    TcpConnection(10_000, None, None, None).kill()


@pytest.mark.skipif(sys.platform != "linux", reason="TCP_INFO is Linux's")
def test_the_bytes_that_came_in_are_known_before_anybody_reads_them(ends):
    one, other = ends
    tcp = TcpConnection.of(one.fileno())
    assert tcp is not None
    assert tcp.traffic() == Traffic(0, 0)
    other.sendall(bytes(12345))
    one.recv(1, socket.MSG_PEEK)
    assert tcp.traffic() == Traffic(12345, 12345)
    one.recv(345)
    assert tcp.traffic() == Traffic(12345, 12000)
