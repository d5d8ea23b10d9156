"""Where a peer listens: at three ports in a row, or at free ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from manta.mesh.settings import PORTS
from manta.node.errors import OperatorError
from manta.node.peers.listening import LAST_PORT, CannotListen, PeerSocket
from manta.protocol.addresses import is_loopback
from manta.transports.addresses import join_host, split_address, split_host


class Listening(NamedTuple):
    """In the order of their ports."""

    door: PeerSocket
    links: PeerSocket
    bulk: PeerSocket

    @property
    def address(self) -> str:
        """HOST:PORT of the door, as others may be told it."""
        for one in self.door.addresses:
            return join_host(*split_address(one))
        return join_host(self.door.host, self.door.port)


def listen(at: str, advertised: Sequence[str] = ()) -> Listening:
    """`at` is HOST or HOST:PORT; port 0, or none, is for free ones. `advertised` are hosts that
    take the place of the machine's own addresses. Raises OperatorError."""
    host, port = _place(at)
    found: list[PeerSocket] = []
    try:
        for number in range(PORTS):
            where = join_host(host, port + number if port else 0)
            found.append(PeerSocket(where, advertised, near=is_loopback(host)))
    except CannotListen as error:
        for one in found:
            one.close()
        remedy = "choose another host"
        if port:
            remedy = (
                f"a peer takes {PORTS} ports in a row, here {port} to {port + PORTS - 1}: choose "
                "others, or none for free ones"
            )
        sentence = f"This peer can't listen at {error.where}: {error.why}; {remedy} (listen)."
        raise OperatorError(sentence) from None
    return Listening(*found)


def _place(at: str) -> tuple[str, int]:
    """Raises OperatorError."""
    try:
        host, port = split_host(at.removesuffix(":0"))
    except ValueError as error:
        raise OperatorError(f"listen is {at!r:.80}: {error}.") from None
    if port is not None and port + PORTS - 1 > LAST_PORT:
        raise OperatorError(
            f"listen is {at!r}: a peer takes {PORTS} ports in a row, and ports end at {LAST_PORT}."
        )
    return host, port or 0
