"""This node's links with others, as its plane tells them, until the manager has heard. Pure."""

from __future__ import annotations

from manta.protocol.peers import MOST_LINKS, PeerLink


class LinkBook:
    def __init__(self) -> None:
        self.version = 0
        """Of what the plane told last."""
        self._links: tuple[PeerLink, ...] = ()
        self._heard = 0
        """What the manager has."""

    def told(self, links: tuple[PeerLink, ...]) -> None:
        """By the plane; none when it has ended."""
        self._links = links[:MOST_LINKS]
        self.version += 1

    def news(self) -> tuple[PeerLink, ...] | None:
        """What is to be told with a heartbeat; None if the manager has it."""
        return None if self.version == self._heard else self._links

    def heard(self, version: int) -> None:
        self._heard = version

    def registered(self) -> None:
        """With a manager that knows of none."""
        self._heard = 0
