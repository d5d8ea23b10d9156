"""How a peer gets into a mesh: by the doors of others, tried until one lets it in."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from manta.mesh.door import Card, NotAdmitted, Trust, knock
from manta.transports.addresses import split_host

AGAIN = 0.2
"""Seconds until a door is tried again that did not answer."""
ONE_DOOR = 5.0
"""Seconds for one door."""


class JoinFailed(Exception):
    """Nobody lets this peer in."""


class Address(NamedTuple):
    """Where there may be a door: HOST:PORT, and what admits there."""

    text: str
    trust: Trust


def get_in(
    addresses: Sequence[Address], own: Card, timeout: float, may_dial: Callable[[str], bool]
) -> tuple[Card, ...]:
    """The cards of who is there, as the first door tells that lets this peer in; none where all of
    them are its own. Raises JoinFailed, at once where some refuse it and no other is there."""
    until = time.monotonic() + timeout
    why: dict[str, str] = {}
    while True:
        is_own, refused = 0, ""
        for text, trust in addresses:
            place = _place(text, may_dial)
            left = until - time.monotonic()
            try:
                cards = knock(place, trust, own, max(0.1, min(ONE_DOOR, left)))
            except NotAdmitted as error:
                refused = refused or f"{text} does not let this peer into the mesh: {error}."
                continue
            except OSError as error:
                why[text] = f"{text}: {error}"
                continue
            if cards[0].key != own.key:
                return cards
            is_own += 1
        if refused:
            raise JoinFailed(refused)
        if is_own == len(addresses):
            return ()
        if time.monotonic() + AGAIN > until:
            reasons = "; ".join(why.values())
            raise JoinFailed(f"No peer of the mesh was reached within {timeout:g} s: {reasons}.")
        time.sleep(AGAIN)


def _place(text: str, may_dial: Callable[[str], bool]) -> tuple[str, int]:
    try:
        host, port = split_host(text.removeprefix("tcp://"))
    except ValueError as error:
        raise JoinFailed(f"peers: {text!r:.80}: {error}.") from None
    if port is None:
        raise JoinFailed(f"peers: {text!r:.80} has no port: write HOST:PORT.")
    if not may_dial(host):
        raise JoinFailed(f"{host} is no node of the swarm: this peer may not connect to it.")
    return host, port
