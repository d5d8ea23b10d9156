"""Addresses at which nodes say that they can be reached: which of them can be, and from where."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from manta.transports.addresses import split_address
from manta.transports.errors import LocalTransportError


def flaw_of(addresses: Iterable[str]) -> str:
    """Why nobody can connect to one of them, as a sentence; "" if that may be possible."""
    for address in addresses:
        try:
            host, port = split_address(address)
        except LocalTransportError as error:
            return f"{error}."
        literal = _literal(host)
        if not port or (literal is not None and not _is_of_a_machine(literal)):
            return f"Nobody can connect to {address!r}: give the host and port of a machine."
        if literal is None and not _is_host(host):
            return f"{host!r} in {address!r} is no host: give its name or its IP address."
    return ""


def is_loopback(host: str) -> bool:
    """Whether only this machine is reached there; `localhost` is, whatever its address."""
    literal = _literal(host)
    return host == "localhost" if literal is None else literal.is_loopback


def _literal(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _is_of_a_machine(literal: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether it names one for all who are told of it: a link-local address does for nobody."""
    return not (literal.is_unspecified or literal.is_multicast or literal.is_link_local)


def _is_host(name: str) -> bool:
    return name.isascii() and all(
        part and part.replace("-", "").replace("_", "").isalnum() for part in name.split(".")
    )
