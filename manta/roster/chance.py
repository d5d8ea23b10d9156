"""Chance that is the same for everybody: drawn by what it is named, not in an order."""

from __future__ import annotations

from hashlib import blake2b


def chance(*name: int | str) -> float:
    """Returns a number from 0 up to, but not including, 1.

    The same name gives the same number on every machine and version of Python; numbers of
    different names are independent (a counter-based generator: Salmon et al., SC 2011, here of
    BLAKE2b, RFC 7693). Nothing that it decides is a secret.
    """
    named = "\0".join(map(str, name)).encode()
    return (int.from_bytes(blake2b(named, digest_size=8).digest(), "big") >> 11) / (1 << 53)
