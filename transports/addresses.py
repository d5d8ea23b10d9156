"""Addresses, `tcp://host:port`, and the names of hosts in them."""

from __future__ import annotations

import errno
import logging
import re
import socket
import threading
from collections.abc import Callable

from manta.transports.errors import LocalTransportError
from manta.transports.jobs import Job

_NAME = re.compile(r"[A-Za-z0-9._-]+")
_log = logging.getLogger(__name__)


def split_address(address: str) -> tuple[str, int]:
    """Host and port of `tcp://host:port`, an IPv6 host without its brackets.

    Raises LocalTransportError.
    """
    scheme, _, rest = address.partition("://")
    host, colon, port = rest.rpartition(":")
    if scheme != "tcp" or not colon or not host or not port.isascii() or not port.isdigit():
        raise LocalTransportError(f"{address!r} is not an address: write tcp://HOST:PORT")
    if int(port) > 65535:
        raise LocalTransportError(f"{address!r} has no such port: ports end at 65535")
    return host.removeprefix("[").removesuffix("]"), int(port)


def join_address(host: str, port: int) -> str:
    return f"tcp://{join_host(host, port)}"


def split_host(text: str) -> tuple[str, int | None]:
    """Host and port of what a person writes: `::1`, `[::1]`, `[::1]:50051`, `name`, `name:50051`.

    Raises ValueError, with a sentence that begins with "it must".
    """
    host, port = text, None
    if text.startswith("["):
        host, closed, rest = text[1:].partition("]")
        if not closed or ":" not in host or (rest and not rest.startswith(":")):
            raise ValueError("it must have an IPv6 address in the brackets, as in [::1]:50051")
        port = rest[1:] if rest else None
    elif text.count(":") == 1 and "/" not in text:
        host, _, port = text.partition(":")
    if not (_is_literal(host) if ":" in host else _NAME.fullmatch(host)):
        raise ValueError("it must be a host's name or address, without scheme")
    if port is None:
        return host, None
    if not port.isascii() or not port.isdigit() or not 1 <= int(port) <= 65535:
        raise ValueError("it must have a port from 1 to 65535 after the colon, or none")
    return host, int(port)


def join_host(host: str, port: int) -> str:
    """`host:port`, an IPv6 host in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def resolve(host: str) -> list[str]:
    """The IP addresses of a host, IPv4 first; an IP address is its own. Raises OSError."""
    if _is_literal(host):
        return [host]
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except UnicodeError:  # as of `a..b`
        raise OSError(errno.EINVAL, "a part of it is empty or too long") from None
    # A name that has both mostly means both, and servers listen on IPv4.
    found.sort(key=lambda info: info[0] != socket.AF_INET)
    return [str(info[4][0]) for info in found]


def resolve_later(
    host: str, post: Callable[[Job], object], then: Callable[[list[str]], object]
) -> None:
    """Call `then` with the IP addresses of a host, none if its name is not known.

    That of an IP address or of localhost is told at once. Any other is asked for on a thread
    of its own, since the name service may take many seconds, and `post` gets the call.
    """
    if host == "localhost":
        then(["127.0.0.1", "::1"])
        return
    if _is_literal(host):
        then([host])
        return

    def ask() -> None:
        found: list[str] = []
        try:
            found = resolve(host)
        except OSError as error:
            _log.info("the name %s is not known: %s", host, error)
        post(lambda: then(found))

    threading.Thread(target=ask, name=f"manta-resolve-{host}", daemon=True).start()


def _is_literal(host: str) -> bool:
    """Is it an IP address, which needs no name service?"""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.inet_pton(family, host.partition("%")[0])
    except OSError:
        return False
    return True
