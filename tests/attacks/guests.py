"""Whoever ends the handshake with a key of his own, and has neither enrolled nor signed in."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from manta.actors.wire import Answer
from manta.cli.local.cluster import CLUSTER
from manta.protocol.node import Inquire
from manta.protocol.sign_in import SignIn
from manta.testing.curve import CurveClient
from tests.attacks.field import MIB, Attack, Place
from tests.attacks.guest import HELLO, REFUSALS, Guest, noise


def silent_guests(place: Place) -> str:
    held: list[CurveClient] = []
    refused = 0
    began = time.monotonic()
    while len(held) + refused < 1200 and time.monotonic() < began + 20:
        try:
            guest = Guest(place.users, place.key)
            guest.client.send(HELLO)
            held.append(guest.client)
        except REFUSALS:
            refused += 1
    joined = time.monotonic()
    with place.connect() as api:
        api.list_nodes(CLUSTER)
    joined = time.monotonic() - joined
    time.sleep(max(0.0, 12 - (time.monotonic() - began)))
    left = sum(not client.wait_cut(0) for client in held)
    for client in held:
        client.close()
    return f"{refused} refused, {left} left after 12 s; a user joined in {joined:.1f} s"


def new_keys(place: Place) -> str:
    """Fifty new keys a second from one address."""
    began, refused, took = time.monotonic(), 0, 0.0
    for number in range(400):
        try:
            Guest(place.users, place.key).close()
        except REFUSALS:
            refused += 1
        if number % 50 == 49:
            joined = time.monotonic()
            with place.connect() as api:
                api.list_nodes(CLUSTER)
            took = max(took, time.monotonic() - joined)
        time.sleep(max(0.0, began + number / 50 - time.monotonic()))
    return f"{refused} of 400 refused; a user joined within {took:.1f} s"


def _endless(address: str, key: str, part: bytes) -> int:
    try:
        guest = Guest(address, key)
    except REFUSALS:
        return 0
    try:
        return guest.client.flood(guest.client.endless(part), most=512 * MIB, seconds=10)
    finally:
        guest.close()


def endless_messages(place: Place) -> str:
    sent = [_endless(port, place.key, noise(65536)) for port in (place.users, place.nodes)]
    sent.append(_endless(place.bulk, place.key, noise(65536)))
    return "cut after " + ", ".join(f"{one / MIB:.1f}" for one in sent) + " MiB"


def empty_parts(place: Place) -> str:
    sent = [_endless(port, place.key, b"") for port in (place.users, place.nodes)]
    return "cut after " + ", ".join(f"{one / MIB:.1f}" for one in sent) + " MiB"


def _guess(place: Place, address: str) -> str:
    try:
        guest = Guest(place.users, place.key)
    except REFUSALS:
        return "turned away"
    try:
        guest.greet()
        said = guest.ask(SignIn(address, "wrong"))
        return "admitted" if isinstance(said, Answer) else "refused"
    except REFUSALS:
        return "turned away"
    finally:
        guest.close()


def guesses(place: Place) -> str:
    """Eight wrong passwords a second, for a user's address and for unknown ones."""
    began, guessed = time.monotonic(), []
    with ThreadPoolExecutor(40) as threads:
        for number in range(56):
            address = "user@localhost" if number % 2 else f"nobody-{number}@localhost"
            guessed.append(threads.submit(_guess, place, address))
            time.sleep(max(0.0, began + number / 8 - time.monotonic()))
        became = Counter(one.result() for one in guessed)
    return ", ".join(f"{count} {what}" for what, count in became.items())


def long_words(place: Place) -> str:
    """Addresses and passwords of megabytes."""
    refused = 0
    for _ in range(20):
        try:
            guest = Guest(place.users, place.key)
            try:
                guest.greet()
                said = guest.ask(SignIn("a" * (2 * MIB) + "@x", "b" * MIB))
                refused += not isinstance(said, Answer)
            finally:
                guest.close()
        except REFUSALS:
            refused += 1
    return f"{refused} of 20 refused"


def inquiries(place: Place) -> str:
    """As many questions as are answered."""
    began, asked = time.monotonic(), 0
    guest = None
    while time.monotonic() < began + 6:
        try:
            if guest is None:
                guest = Guest(place.nodes, place.key)
                guest.greet()
            guest.ask(Inquire())
            asked += 1
        except REFUSALS:
            guest = None
            time.sleep(0.05)
    return f"{asked / 6:.0f} answers a second"


ATTACKS = [
    Attack("guest", "1,200 keys that neither enrol nor sign in", silent_guests),
    Attack("guest", "50 new keys a second", new_keys),
    Attack("guest", "messages without an end, on every port", endless_messages),
    Attack("guest", "messages of empty parts without an end", empty_parts),
    Attack("guest", "8 guesses a second, at known and unknown addresses", guesses),
    Attack("guest", "addresses of 2 MiB", long_words),
    Attack("guest", "inquiries for 6 s", inquiries),
]
