"""What happens to the machine of a peer, and what it wants done."""

from __future__ import annotations

from typing import NamedTuple

from manta.transports.membership.messages import Alive, Message
from manta.transports.membership.view import View

# What happens.


class Received(NamedTuple):
    """A message came over a link with this key."""

    peer: str
    message: Message


class LinkUp(NamedTuple):
    """A link with a peer that was admitted is up."""

    peer: str


class LinkClosed(NamedTuple):
    """A link that was up ended, as the system reports where a process dies. It is a hint: the
    peer is probed at once. A link that only fell silent is not told."""

    peer: str


class Moved(NamedTuple):
    """This peer listens elsewhere now."""

    addresses: tuple[str, ...]


class Pause(NamedTuple):
    """Whom this peer speaks for stands still. It says so, and nothing more until `Resume`: to the
    others it is dead."""


class Resume(NamedTuple):
    """It runs again."""


class Leave(NamedTuple):
    """This peer leaves. Nothing that happens afterwards counts."""


class Tick(NamedTuple):
    """It is `due`."""


Event = Received | LinkUp | LinkClosed | Moved | Pause | Resume | Leave | Tick

# What is to be done.


class Send(NamedTuple):
    """Over a link with the peer; if there is none, one may be dialled, at these addresses. What
    can't be sent at once may be dropped: it is as good as lost."""

    peer: str
    addresses: tuple[str, ...]
    message: Message


class Cut(NamedTuple):
    """End the link with a peer that broke the rules, and tell it why."""

    peer: str
    sentence: str


class Entered(NamedTuple):
    """This peer is in the mesh. Until then it is in no view of others."""

    view: View


class Refusal(NamedTuple):
    """A peer does not take this one in."""

    peer: str
    sentence: str


class Joined(NamedTuple):
    """A peer is in the mesh: one that is new, or that began anew."""

    peer: Alive


class Suspected(NamedTuple):
    """A peer does not answer, or others say so. It is in the mesh still."""

    peer: Alive
    by: str
    """The key of who says so; this peer's own, maybe."""


class AliveAgain(NamedTuple):
    """A peer that was suspected or given up answers."""

    peer: Alive
    was_dead: bool


class LeftMesh(NamedTuple):
    """A peer left in good order."""

    peer: Alive


class Died(NamedTuple):
    """A peer was given up, and why."""

    peer: Alive
    sentence: str


class AddressChanged(NamedTuple):
    peer: Alive
    former: tuple[str, ...]


class ViewChanged(NamedTuple):
    """Who is in the mesh has changed; after what changed it."""

    view: View


Action = (
    Send
    | Cut
    | Entered
    | Refusal
    | Joined
    | Suspected
    | AliveAgain
    | LeftMesh
    | Died
    | AddressChanged
    | ViewChanged
)
