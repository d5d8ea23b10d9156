"""Whoever ends the handshake with a key of his own, and has neither enrolled nor signed in."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle

from manta.actors.wire import Answer
from manta.protocol.sign_in import SignIn
from tests.attacks.field import MIB, Attack, Place, Told
from tests.attacks.guest import REFUSALS, Guest, noise
from tests.attacks.strangers import joins


def new_keys(place: Place) -> Told:
    """Fifty new keys a second from one address."""

    def come() -> bool:
        try:
            Guest(place.users, place.key, source="127.0.0.5", timeout=1.0).close()
        except REFUSALS:
            return False
        return True

    began, took = time.monotonic(), 0.0
    with ThreadPoolExecutor(64) as threads:
        coming = []
        for number in range(300):
            coming.append(threads.submit(come))
            if number % 50 == 49:
                took = max(took, joins(place))
            time.sleep(max(0.0, began + number / 50 - time.monotonic()))
        admitted = sum(one.result() for one in coming)
    words = f"{admitted} of 300 admitted; a user joined within {took:.1f} s"
    return Told(words, "" if admitted < 300 else "all were admitted")


def _endless(place: Place, addresses: tuple[str, ...], part: bytes) -> Told:
    """One connection after another, each with a message without an end."""
    sent: list[int] = []
    until = time.monotonic() + 4
    for address in cycle(addresses):
        if time.monotonic() > until:
            break
        try:
            guest = Guest(address, place.key, source="127.0.0.6", timeout=1.0)
        except REFUSALS:
            continue
        try:
            pieces = guest.client.endless(part)
            sent.append(guest.client.flood(pieces, most=512 * MIB, seconds=8))
        finally:
            guest.close()
    most = max(sent, default=0)
    words = f"{len(sent)} connections cut, after {most / MIB:.1f} MiB at most"
    return Told(words, "one was not cut" if most >= 512 * MIB else "")


def endless_messages(place: Place) -> Told:
    return _endless(place, (place.users, place.nodes, place.bulk), noise(65536))


def elsewhere(place: Place) -> Told:
    """No attack: as many bytes to a ROUTER that is none of Manta's, on the same machine."""
    address, key = place.bare
    part, connections = noise(65536), 0
    until = time.monotonic() + 4
    while time.monotonic() < until:
        guest = Guest(address, key)
        guest.client.flood(guest.client.endless(part), most=28 * MIB)
        guest.close()
        connections += 1
    return Told(f"{connections} connections of 28 MiB: what the machine alone makes a user wait")


def empty_parts(place: Place) -> Told:
    return _endless(place, (place.users, place.nodes), b"")


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


def guesses(place: Place) -> Told:
    """Eight wrong passwords a second, for a user's address and for unknown ones."""
    began, guessed = time.monotonic(), []
    with ThreadPoolExecutor(40) as threads:
        for number in range(56):
            address = "user@localhost" if number % 2 else f"nobody-{number}@localhost"
            guessed.append(threads.submit(_guess, place, address))
            time.sleep(max(0.0, began + number / 8 - time.monotonic()))
        became = Counter(one.result() for one in guessed)
    words = ", ".join(f"{count} {what}" for what, count in became.items())
    return Told(words, "one was admitted" if became["admitted"] else "")


def long_words(place: Place) -> Told:
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
    return Told(f"{refused} of 20 refused", "" if refused == 20 else "one was taken")


ATTACKS = [
    Attack("guest", "50 new keys a second", new_keys),
    Attack("nobody", "the same bytes to a socket of another program", elsewhere),
    Attack("guest", "messages without an end, on every port", endless_messages),
    Attack("guest", "messages of empty parts without an end", empty_parts),
    Attack("guest", "8 guesses a second, at known and unknown addresses", guesses),
    Attack("guest", "addresses of 2 MiB", long_words),
]
