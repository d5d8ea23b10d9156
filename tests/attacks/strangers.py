"""Whoever reaches a port, and has no key that anybody knows."""

from __future__ import annotations

import contextlib
import socket
import time

from manta.cli.local.cluster import CLUSTER
from manta.testing.curve import CurveClient, Hangup, NotWelcome, frame
from manta.transports.addresses import split_address
from tests.attacks.field import Attack, Place
from tests.attacks.guest import noise

_FIRST_OF_RAND = 1_804_289_383
"""What `rand` gives first where nobody has seeded it."""


def _connections(address: str, count: int) -> list[socket.socket]:
    return [socket.create_connection(split_address(address), 5) for _ in range(count)]


def _cut(connections: list[socket.socket]) -> int:
    """How many have been ended."""
    ended = 0
    for connection in connections:
        connection.setblocking(False)
        try:
            while data := connection.recv(65536):
                del data
            ended += 1
        except BlockingIOError:
            continue
        except OSError:
            ended += 1
    return ended


def _joins(place: Place) -> float:
    """Seconds until a known user is served on a new connection."""
    began = time.monotonic()
    with place.connect() as api:
        api.list_nodes(CLUSTER)
    return time.monotonic() - began


def silent_connections(place: Place) -> str:
    held = _connections(place.users, 500)
    took = _joins(place)
    deadline = time.monotonic() + 12
    while (cut := _cut(held)) < len(held) and time.monotonic() < deadline:
        time.sleep(0.2)
    for connection in held:
        connection.close()
    return f"{cut} of 500 cut; a user joined in {took:.1f} s"


def half_handshakes(place: Place) -> str:
    """Each stops at another step, or says one byte a second."""
    clients = []
    for number in range(300):
        client = CurveClient(place.users, place.key)
        clients.append(client)
        with contextlib.suppress(Hangup, NotWelcome, TimeoutError, AssertionError):
            if number % 3:
                client.greet()
            if number % 3 == 2:
                client.say_hello()
    took = _joins(place)
    began = time.monotonic()
    while time.monotonic() < began + 6:
        for client in clients:
            with contextlib.suppress(Hangup, OSError):
                client.send_raw(b"\0")
        time.sleep(1)
    cut = sum(client.wait_cut(0.01) for client in clients)
    for client in clients:
        client.close()
    return f"{cut} of 300 cut; a user joined in {took:.1f} s"


def chosen_ids(place: Place) -> str:
    """They bear the ids that a ROUTER would give next if nobody had seeded it, and others."""
    clients = []
    for port in (place.users, place.nodes):
        for at in range(100):
            name = b"\0" + (_FIRST_OF_RAND + at).to_bytes(4, "big")
            client = CurveClient(port, place.key, routing_id=name)
            with contextlib.suppress(Hangup, NotWelcome, TimeoutError):
                client.connect()
            clients.append(client)
    for _ in range(20):
        _joins(place)
    cut = sum(client.wait_cut(0.1) for client in clients)
    for client in clients:
        client.close()
    return f"{cut} of {len(clients)} cut; 20 users joined"


def garbage(place: Place) -> str:
    sent = 0
    for port in (place.users, place.nodes, place.bulk):
        for number in range(60):
            with contextlib.suppress(Hangup, NotWelcome, OSError, AssertionError):
                client = CurveClient(port, place.key)
                try:
                    if number % 2:
                        client.greet()
                    client.send_raw(frame(b"", 2, size=2**62) if number % 3 else noise(65536))
                    client.wait_cut(0.05)
                finally:
                    client.close()
            sent += 1
    return f"{sent} connections"


ATTACKS = [
    Attack("stranger", "500 connections that say nothing", silent_connections),
    Attack("stranger", "300 handshakes that stop half way", half_handshakes),
    Attack("stranger", "200 connections that choose their routing id", chosen_ids),
    Attack("stranger", "180 connections that say anything, on every port", garbage),
]
