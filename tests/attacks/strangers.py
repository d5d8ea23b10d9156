"""Whoever reaches a port, and has no key that anybody knows; and who has one that says nothing."""

from __future__ import annotations

import contextlib
import socket
import time
from concurrent.futures import ThreadPoolExecutor

from manta.cli.local.cluster import CLUSTER
from manta.testing.curve import CurveClient, Hangup, NotWelcome, frame
from manta.transports.addresses import split_address
from tests.attacks.field import Attack, Place, Told
from tests.attacks.guest import HELLO, REFUSALS, Guest, cut, noise

_FIRST_OF_RAND = 1_804_289_383
"""What `rand` gives first where nobody has seeded it."""
_LEAVE = 12.0
"""Seconds after which nobody is left who has said nothing: ten, and a look."""


def joins(place: Place) -> float:
    """Seconds until a known user is served on a new connection."""
    began = time.monotonic()
    with place.connect() as api:
        api.list_nodes(CLUSTER)
    return time.monotonic() - began


def _silent_connections(place: Place) -> Told:
    address = split_address(place.users)
    with contextlib.ExitStack() as held:
        connections = [
            held.enter_context(socket.create_connection(address, 5, ("127.0.0.2", 0)))
            for _ in range(500)
        ]
        deadline = time.monotonic() + _LEAVE
        while (ended := sum(map(_is_cut, connections))) < 500 and time.monotonic() < deadline:
            time.sleep(0.2)
    return Told(f"{ended} of 500 silent connections cut", "some stay" if ended < 500 else "")


def _is_cut(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        while connection.recv(65536):
            continue
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _half_handshakes(place: Place) -> Told:
    """Each stops at another step, and says one byte a second."""
    clients = []
    for number in range(300):
        client = CurveClient(place.users, place.key, source="127.0.0.3")
        clients.append(client)
        with contextlib.suppress(Hangup, NotWelcome, TimeoutError, AssertionError):
            if number % 3:
                client.greet()
            if number % 3 == 2:
                client.say_hello()
    deadline = time.monotonic() + _LEAVE
    while (ended := cut(clients)) < 300 and time.monotonic() < deadline:
        for client in clients:
            with contextlib.suppress(Hangup, OSError):
                client.send_raw(b"\0")
        time.sleep(1)
    for client in clients:
        client.close()
    return Told(f"{ended} of 300 handshakes cut", "some stay" if ended < 300 else "")


def _silent_guests(place: Place) -> Told:
    def come(_: int) -> CurveClient | None:
        try:
            guest = Guest(place.users, place.key, source="127.0.0.4", timeout=1.0)
            guest.client.send(HELLO)
        except REFUSALS:
            return None
        return guest.client

    with ThreadPoolExecutor(16) as threads:
        held = [client for client in threads.map(come, range(1200)) if client is not None]
    ended = cut(held, _LEAVE)
    for client in held:
        client.close()
    words = f"{len(held)} of 1,200 keys admitted, {len(held) - ended} of them left"
    return Told(words, "some keys stay" if ended < len(held) else "")


def silence(place: Place) -> Told:
    """Three that wait out the same time, each from an address of its own."""
    with ThreadPoolExecutor(3) as threads:
        at_once = (_silent_connections, _half_handshakes, _silent_guests)
        running = [threads.submit(attack, place) for attack in at_once]
        time.sleep(2)
        took = joins(place)
        told = [one.result() for one in running]
    words = "; ".join(one.words for one in told)
    wrong = "; ".join(one.wrong for one in told if one.wrong)
    return Told(f"{words}; a user joined in {took:.1f} s", wrong)


def chosen_ids(place: Place) -> Told:
    """They bear the ids that a ROUTER would give next if nobody had seeded it, and others."""

    def come(port: str, at: int) -> CurveClient:
        name = b"\0" + (_FIRST_OF_RAND + at).to_bytes(4, "big")
        client = CurveClient(
            port, place.key, routing_id=name, source=f"127.0.1.{at % 20 + 1}", timeout=1.0
        )
        with contextlib.suppress(Hangup, NotWelcome, TimeoutError):
            client.connect()
        return client

    with ThreadPoolExecutor(16) as threads:
        coming = [
            threads.submit(come, port, at)
            for port in (place.users, place.nodes)
            for at in range(100)
        ]
        clients = [one.result() for one in coming]
    for _ in range(5):
        joins(place)
    ended = cut(clients, _LEAVE)
    for client in clients:
        client.close()
    words = f"{ended} of {len(clients)} cut; 5 users joined"
    return Told(words, "some stay" if ended < len(clients) else "")


def garbage(place: Place) -> Told:
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
    return Told(f"{sent} connections")


ATTACKS = [
    Attack("stranger", "500 connections, 300 half handshakes, 1,200 keys, all silent", silence),
    Attack("stranger", "200 connections that choose their routing id", chosen_ids),
    Attack("stranger", "180 connections that say anything, on every port", garbage),
]
