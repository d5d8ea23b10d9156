"""What a sender may send yet, and what it waits for."""

from __future__ import annotations

from typing import NamedTuple

from manta.transports.exchange.channels import Member, Room


class Want(NamedTuple):
    """A sender on a peer wants to send a value of that size."""

    peer: str
    sender: Member
    size: int


class Credit:
    """What a member here may still send to a peer; at first its reserve there."""

    def __init__(self, reserve: Room) -> None:
        self.letters, self.size = self._reserve = reserve
        self.asked: int | None = None
        """The size for which room was asked, until it is granted."""
        self.refusal = ""
        """Why there is no room, if it was told."""
        self.asked_last = False
        """Room was asked for when there was none left, so that the refusal is about all letters."""

    def fits(self, size: int) -> bool:
        return self.letters > 0 and size <= self.size

    def take(self, size: int) -> None:
        self.letters -= 1
        self.size -= size

    @property
    def is_low(self) -> bool:
        return self.letters < self._reserve.letters // 2 or self.size < self._reserve.size // 2
