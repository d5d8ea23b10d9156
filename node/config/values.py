"""What texts and numbers of a node's configuration stand for.

Each function returns the node's value, or raises ValueError with what the file's must be.
"""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

from manta.protocol.addresses import flaw_of
from manta.protocol.bundle import PARTS
from manta.protocol.outbound import MOST_PATTERNS, flaw_of_pattern
from manta.protocol.peers import MOST_ADDRESSES
from manta.transports.addresses import join_address, split_host
from manta.transports.security.owner_key import KeySource

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
LEAST_ROTATION = 10_000
"""Bytes of a log file; less would be rotated all the time."""
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(KB|MB|GB|KiB|MiB|GiB)?", re.IGNORECASE)
_SCHEMES = ("http", "https")


def host_name() -> str:
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", os.uname().nodename).strip("-._")
    return name[:100] or "node"


def name(text: str) -> str:
    if not NAME.fullmatch(text):
        words = "a name of up to 100 letters, digits, dots, dashes and underscores"
        raise ValueError(f"it must be {words}")
    return text


def host(text: str) -> str:
    host, port = split_host(text)
    if port is not None:
        raise ValueError(
            f'it must be without a port: write manager_host = "{host}" and manager_port = {port}'
        )
    return host


def listening(text: str) -> str:
    if text == "off":
        return text
    try:
        split_host(text.removesuffix(":0"))
    except ValueError as error:
        raise ValueError(f'{error}; port 0 is a free one, and "off" none') from None
    return text


def advertised(names: list[str]) -> tuple[str, ...]:
    if len(names) > MOST_ADDRESSES:
        raise ValueError(f"it must name {MOST_ADDRESSES} addresses at most")
    for name in names:
        if len(name) > 255:
            raise ValueError(f"it must not name {name[:20]!r}..., which is longer than a host's")
        host, port = split_host(name)
        if flaw := flaw_of([join_address(host, port or 1)]):
            raise ValueError(f"it must name what others can connect to: {flaw.rstrip('.')}")
    return tuple(names)


def index(text: str) -> str:
    text = os.path.expanduser(text.strip())
    parts = urlsplit(text)
    if text and not text.startswith("/") and not (parts.scheme in _SCHEMES and parts.hostname):
        raise ValueError(
            'it must be a URL, as "https://mirror.example/simple", or the path of a folder'
        )
    if "@" in parts.netloc:
        raise ValueError(
            "it must not hold a password, which tasks would read in what an installer says: let "
            "this machine read the index without one"
        )
    return text


def ways_out(patterns: list[str]) -> tuple[str, ...]:
    if len(patterns) > MOST_PATTERNS:
        raise ValueError(f"it must name {MOST_PATTERNS} places at most")
    for pattern in patterns:
        if flaw := flaw_of_pattern(pattern):
            raise ValueError(f"it must name hosts and ports: {flaw}")
    return tuple(pattern.lower() for pattern in patterns)


def parts(words: list[str]) -> tuple[str, ...]:
    if wrong := [word for word in words if word not in PARTS]:
        raise ValueError(f"it must name parts of a failure, {', '.join(PARTS)}, not {wrong[0]!r}")
    return tuple(dict.fromkeys(words))


def key_source(text: str) -> KeySource | None:
    return KeySource.parse(text) if text else None


def size(text: str) -> int:
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError('it must be a size such as "10 MB"')
    number, unit = match.groups()
    base = 1024 if unit and "i" in unit else 1000
    power = "KMG".index(unit[0].upper()) + 1 if unit else 0
    size = int(float(number) * base**power)
    if size < LEAST_ROTATION:
        raise ValueError('it must be at least "10 KB"')
    return size
