"""The socket at which other nodes connect to this one, and the addresses that they are told.

The daemon opens it at its start and keeps it as long as it runs. Nobody accepts connections before
something serves it, by its descriptor.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterable

from manta.node.errors import OperatorError
from manta.protocol.addresses import is_loopback
from manta.protocol.peers import MOST_ADDRESSES
from manta.transports.addresses import join_address, join_host, resolve, split_host

OFF = "off"
"""What `peers.listen` is on a node that only dials."""
BACKLOG = 256
LAST_PORT = 65535


class CannotListen(OperatorError):
    """The address for peers cannot be had."""

    def __init__(self, where: str, why: str, setting: str) -> None:
        """`setting` is the key of the configuration that the sentence names."""
        super().__init__(
            f"No node can connect to this one at {where} ({setting}): {why}; choose another "
            f'address or port, 0 for a free one, or "{OFF}" for a node that only dials.'
        )
        self.where, self.why = where, why


class PeerSocket:
    """It listens once it is made. Raises CannotListen.

    `advertised` are hosts, with or without a port, that take the place of this machine's own
    addresses. `near`: the manager is on this machine, and other nodes may be. `setting` is the key
    of the configuration that a refusal names.
    """

    def __init__(
        self,
        listen: str,
        advertised: Iterable[str] = (),
        *,
        near: bool = False,
        setting: str = "peers.listen",
    ) -> None:
        host, port = split_host(listen.removesuffix(":0"))
        try:
            found = resolve(host)[0]
            family = socket.AF_INET6 if ":" in found else socket.AF_INET
            self._socket = socket.create_server((found, port or 0), family=family, backlog=BACKLOG)
        except OSError as error:
            why = (error.strerror or str(error)).partition(" (while ")[0]  # Python repeats where
            raise CannotListen(join_host(host, port or 0), why, setting) from None
        self.host, self.port = self._socket.getsockname()[:2]
        self._advertised, self._near = tuple(advertised), near
        self.addresses = self.look()
        """Where other nodes may connect, each `tcp://host:port`."""

    def look(self) -> tuple[str, ...]:
        """The addresses that there are now, as this machine's may change."""
        names = self._advertised or tuple(_hosts(self.host, near=self._near))
        return tuple(dict.fromkeys(map(self._address, names)))[:MOST_ADDRESSES]

    def _address(self, name: str) -> str:
        host, port = split_host(name)
        return join_address(host, port or self.port)

    @property
    def fd(self) -> int:
        """The descriptor, which stays this object's own."""
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()


def bulk_address(listen: str, port: int) -> str:
    """Where a node that listens there for links takes large values: at that port of the same host,
    or if it is 0 at the one after, and at a free one if that for links is free as well."""
    host, beside = split_host(listen.removesuffix(":0"))
    after = beside + 1 if beside is not None and beside < LAST_PORT else 0
    return join_host(host, port or after)


def _hosts(bound: str, *, near: bool) -> Iterable[str]:
    """The addresses of this machine at which a socket is reached that is bound to this one."""
    if not ipaddress.ip_address(bound).is_unspecified:
        return [bound]
    import psutil

    family = socket.AF_INET6 if ":" in bound else socket.AF_INET
    there = [
        one.address
        for name, addresses in sorted(psutil.net_if_addrs().items(), key=_outward)
        for one in addresses
        if one.family == family and _is_usable(one.address)
    ]
    own = [address for address in there if not is_loopback(address)]
    return [*own[: MOST_ADDRESSES - 1], *(one for one in there if near and is_loopback(one))]


def _is_usable(address: str) -> bool:
    literal = ipaddress.ip_address(address.partition("%")[0])
    return not (literal.is_link_local or literal.is_unspecified)


def _outward(interface: tuple[str, object]) -> tuple[bool, str]:
    """Cards before what containers and virtual machines are joined by, which few others reach."""
    name = interface[0]
    return not os.path.exists(f"/sys/class/net/{name}/device"), name
