"""What counts as one stranger: where a connection comes from. Pure."""

from __future__ import annotations

import socket

_MAPPED = bytes(10) + b"\xff\xff"
"""How the IPv6 form of an IPv4 address begins."""


def source_of(address: str) -> str:
    """What counts as one source: an IPv4 address, or the /64 network of an IPv6 address."""
    if ":" not in address:
        return address[:64]
    try:
        packed = socket.inet_pton(socket.AF_INET6, address.partition("%")[0])
    except OSError:
        return address[:64]
    if packed.startswith(_MAPPED):
        return socket.inet_ntop(socket.AF_INET, packed[12:])
    return f"{socket.inet_ntop(socket.AF_INET6, packed[:8] + bytes(8))}/64"
