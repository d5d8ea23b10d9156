"""Where a task may connect to, by word: what it asks for, and what a node's owner allows. Pure.

A task asks for `outbound:HOST:PORT`. An owner's list has patterns `HOST:PORT`, in which HOST is a
name, `*.` before one for all names below it, an IPv4 address, or a network of them
(`10.0.0.0/8`); PORT is a number or `*`. A name leads to public addresses alone, whatever it
resolves to, unless the list has the address as well, or its network.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from manta.protocol.isolation import BWRAP, DOCKER, GVISOR, LANDLOCK, LIMITS

PREFIX: Final = "outbound:"
MOST: Final = 16
"""Targets of a module, and of a task."""
MOST_PATTERNS: Final = 64
"""Of a node."""
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"(?=.{{1,253}}$){_LABEL}(?:\.{_LABEL})*")
_REMEDY = 'write "outbound:HOST:PORT", as in "outbound:api.example:443"'

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052
_NOT_PUBLIC = (
    ipaddress.IPv6Network("::/96"),  # IPv4-compatible, RFC 4291
    ipaddress.IPv6Network("64:ff9b:1::/48"),  # translated as an operator likes, RFC 8215
    ipaddress.IPv6Network("fec0::/10"),  # site-local, RFC 3879
)
"""Though the registry, which `is_global` follows, may not say so."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Target(NamedTuple):
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def address(self) -> ipaddress.IPv4Address | None:
        """Of a target that is named by it."""
        try:
            return ipaddress.IPv4Address(self.host)
        except ValueError:
            return None


def target_of(text: str) -> Target:
    """Raises ValueError with what is wrong and the remedy, without a full stop."""
    host, colon, port = text.removeprefix(PREFIX).rpartition(":")
    host = host.lower().rstrip(".")
    if not text.startswith(PREFIX) or not colon or not host:
        raise ValueError(f"{text[:80]!r} is no way out; {_REMEDY}")
    if ":" in host:
        raise ValueError(f"{text[:80]!r} names an IPv6 address; name the host, or its IPv4 address")
    if not port.isascii() or not port.isdecimal() or not 1 <= int(port[:6]) <= 65535:
        raise ValueError(f"{text[:80]!r} has no port from 1 to 65535; {_REMEDY}")
    if not _is_host(host):
        raise ValueError(f"{text[:80]!r} has no name of a host; {_REMEDY}")
    return Target(host, int(port))


def targets_of(texts: Iterable[str]) -> tuple[Target, ...]:
    """Each once. Raises ValueError."""
    found = tuple(dict.fromkeys(map(target_of, texts)))
    if len(found) > MOST:
        raise ValueError(f"there are {len(found)} ways out, and {MOST} are allowed; name fewer")
    return found


def flaw_of_pattern(pattern: str) -> str:
    """What is wrong with an entry of an owner's list, as the rest of a sentence; "" if nothing."""
    host, colon, port = pattern.rpartition(":")
    fits = port == "*" or (port.isascii() and port.isdecimal() and 1 <= int(port[:6]) <= 65535)
    if not colon or not fits or not (_network(host) or _is_host(host.removeprefix("*."))):
        return (
            f'{pattern[:80]!r} is none of "HOST:PORT", "*.DOMAIN:PORT", "ADDRESS:PORT" and '
            '"10.0.0.0/8:PORT", with "*" for any port'
        )
    return ""


def entry_of(target: Target, patterns: Sequence[str]) -> str:
    """The first entry of a list that allows what a task asks for, "" if none does."""
    if (address := target.address) is not None:
        return _entry_of_address(address, target.port, patterns)
    for pattern in patterns:
        host, _, port = pattern.rpartition(":")
        is_name = _network(host) is None
        if is_name and _port_fits(port, target.port) and _name_fits(host.lower(), target.host):
            return pattern
    return ""


def allowed(target: Target, patterns: Sequence[str]) -> bool:
    """Whether a list has what a task asks for."""
    return bool(entry_of(target, patterns))


def _entry_of_address(address: Address, port: int, patterns: Sequence[str]) -> str:
    for pattern in patterns:
        host, _, its = pattern.rpartition(":")
        network = _network(host)
        if network is not None and _port_fits(its, port) and address in network:
            return pattern
    return ""


def reachable(address: Address, target: Target, patterns: Sequence[str]) -> bool:
    """Whether a connection to a target may lead there."""
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or address
    if target.address is None and _is_public(address):
        return True
    return bool(_entry_of_address(address, target.port, patterns))


def _is_public(address: Address) -> bool:
    """Whether it is, and so is the IPv4 address that gateways take it for."""
    if not address.is_global or address.is_multicast:
        return False
    if isinstance(address, ipaddress.IPv4Address):
        return True
    if any(address in network for network in _NOT_PUBLIC):
        return False
    within = address.sixtofour
    if address in _NAT64:
        within = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return within is None or _is_public(within)


def lacking(targets: Iterable[Target], patterns: Sequence[str]) -> list[str]:
    """Those that a list does not have."""
    return [str(target) for target in targets if not allowed(target, patterns)]


def lets_out(level: str, targets: Iterable[Target] = (), *, runs_program: bool = True) -> str:
    """Why a task at that level gets no way out to these, as the rest of a sentence; "" if it does.

    `runs_program`: it is not an image's own entry point.
    """
    if level in (LIMITS, BWRAP):
        return ""
    if level != DOCKER:
        why = _NO_WAY.get(level, "nothing is known of it")
        return (
            f"runs it at the level {level!r}, at which there are no ways out ({why}): use a node "
            "with the level bwrap or docker"
        )
    if not runs_program:
        return (
            "runs an image alone, whose entry point makes no ways out: give the module a program, "
            "which begins the connections"
        )
    own = [str(one) for one in targets if one.address and not one.address.is_loopback]
    if own:
        return (
            f"runs it in a container, which can't have the address of {', '.join(own)}: name the "
            "host, or use a node with the level bwrap"
        )
    return ""


_NO_WAY = {
    LANDLOCK: "Landlock tells ports apart, but no addresses",
    GVISOR: "gVisor's kernel hands no socket of a task's to the node",
}


def _is_host(host: str) -> bool:
    numbers = host.rpartition(".")[2].isdecimal()  # which no name ends with
    return _network(host) is not None if numbers else bool(_NAME.fullmatch(host.lower()))


def _network(text: str) -> ipaddress.IPv4Network | None:
    try:
        return ipaddress.IPv4Network(text)
    except ValueError:
        return None


def _port_fits(pattern: str, port: int) -> bool:
    return pattern in ("*", str(port))


def _name_fits(pattern: str, host: str) -> bool:
    if pattern.startswith("*."):
        return host.endswith(pattern[1:])
    return host == pattern
