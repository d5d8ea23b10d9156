"""What a sender may send yet, and what those who send here are granted.

A sender asks for room before its credit ends, so that one that does not receive fills nobody's
memory, and each sender has a reserve that others can't take:

| bound | of what |
|---|---|
| UNREAD | the unread letters of a peer; and what is kept for one that was not reached yet |
| RESERVE | those of one sender among them |
| KEPT | all letters that a peer keeps, sent and received; and the unread ones from one other peer |
| MOST_UNREAD | the unread letters of a peer, whatever it granted; who has over a reserve is cut |
| SHARE | what a sender may send at most before it asks again |
| MOST_WANTS | senders of one peer that wait for room |

Values that are parcels count as letters alone: they are not in a letter's memory.
"""

from __future__ import annotations

from itertools import chain
from typing import NamedTuple

from manta.transports.errors import RemoteProtocolError
from manta.transports.exchange.channels import Box, Load, Room, Sender, Source

UNREAD = Room(10_000, 64 << 20)
RESERVE = Room(16, 1 << 20)
KEPT = Room(200_000, 512 << 20)
MOST_UNREAD = Room(800_000, 2048 << 20)
SHARE = Room(256, 4 << 20)
MOST_WANTS = 10_000

_LOOKED_AT = 100
"""Senders for which there is no room that are looked at in a row, before the rest has to wait."""


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


class Want(NamedTuple):
    """A sender wants to send a value of that size."""

    sender: Sender
    size: int


class Rooms:
    """The room for letters at a peer. `kept` is all that it keeps."""

    def __init__(self, kept: Load) -> None:
        self.box = Box()
        self._kept = kept
        self._wants: dict[Sender, int] = {}
        """Senders that wait for room, the first first, and the size of what they want to send."""
        self._waiting: dict[str, int] = {}
        """How many senders of each peer do."""

    def may_keep(self, size: int) -> bool:
        return self._kept.letters < KEPT.letters and self._kept.size + size <= KEPT.size

    def check(self, source: Source, size: int) -> None:
        """Raises RemoteProtocolError where a peer sends what it was granted no room for."""
        if source.letters >= KEPT.letters or source.size >= KEPT.size:
            raise RemoteProtocolError("it sends letters for which it was granted no room")
        all_ = self.box.all
        if all_.letters < MOST_UNREAD.letters and all_.size + size <= MOST_UNREAD.size:
            return
        if source.letters >= RESERVE.letters or source.size >= RESERVE.size:
            raise RemoteProtocolError("all that are unread are more than a node can have")

    def check_want(self, sender: Sender, size: int) -> None:
        """Raises RemoteProtocolError where a peer asks for what no honest one does."""
        if size > SHARE.size:
            raise RemoteProtocolError("it wants room for a letter that is larger than any")
        if sender not in self._wants and self._waiting.get(sender[0], 0) >= MOST_WANTS:
            raise RemoteProtocolError(f"over {MOST_WANTS:,} members of its want room")

    def want(self, sender: Sender, size: int) -> None:
        if sender not in self._wants:
            self._waiting[sender[0]] = self._waiting.get(sender[0], 0) + 1
        self._wants[sender] = size

    def wanted(self, sender: Sender) -> int | None:
        """What a sender waits for room for."""
        return self._wants.get(sender)

    def forget(self, peer: str) -> None:
        """Its senders want no room any more."""
        if self._waiting.pop(peer, 0):
            self._wants = {who: size for who, size in self._wants.items() if who[0] != peer}

    def served(self, first: Sender | None = None) -> list[tuple[Sender, Room]]:
        """Those that wait no longer, with how much each may send now; `first`, of whom a letter
        was read, before the others."""
        found: dict[Sender, Room] = {}
        in_vain = 0
        size = None if first is None else self._wants.get(first)
        mine = () if first is None or size is None else ((first, size),)
        for sender, wanted in chain(mine, self._wants.items()):
            room = self.room(sender)
            if room.letters and room.size >= wanted:
                found[sender] = room
            else:
                in_vain += 1
                if in_vain == _LOOKED_AT:
                    break
        for sender in found:
            del self._wants[sender]
            self._leaves(sender[0])
        return list(found.items())

    def _leaves(self, peer: str) -> None:
        self._waiting[peer] -= 1
        if not self._waiting[peer]:
            del self._waiting[peer]

    def room(self, sender: Sender) -> Room:
        """How much a sender may send here beyond what it has sent."""
        unread, kept = self.box.all, self._kept
        mine = self.box.of.get(sender, Load())
        letters = max(UNREAD.letters - unread.letters, RESERVE.letters - mine.letters)
        size = max(UNREAD.size - unread.size, RESERVE.size - mine.size)
        letters = min(letters, KEPT.letters - kept.letters, SHARE.letters)
        size = min(size, KEPT.size - kept.size, SHARE.size)
        return Room(max(0, letters), max(0, size))

    # --- sentences whose subject is the peer --------------------------------------------------

    def why(self, size: int) -> str:
        """There is no room for a value of that size."""
        if not self.may_keep(size):
            return self.keeps()
        unread = self.box.all
        said = (
            f"has {unread.letters:,} unread letters of at most {UNREAD.letters:,} "
            f"({_mib(unread.size)} of {_mib(UNREAD.size)})"
        )
        if self.box.of:
            (_, who), most = max(self.box.of.items(), key=lambda one: (one[1].letters, one[0]))
            said += f", {most.letters:,} of them from {who}"
        return (
            f"{said}; beyond that each instance has {RESERVE.letters} ({_mib(RESERVE.size)}): have "
            "it receive more, or send less"
        )

    def keeps(self) -> str:
        return (
            f"keeps {self._kept.letters:,} letters of at most {KEPT.letters:,} "
            f"({_mib(self._kept.size)} of {_mib(KEPT.size)}), sent and received: what an attempt "
            "received is kept until it ends, for one that may take its place, and what was sent "
            "until it was received; have more of both received, or send less"
        )


def _mib(size: int) -> str:
    return f"{size / (1 << 20):,.1f} MiB"
