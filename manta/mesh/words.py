"""What your process and its peer's process say to each other, over a socket pair.

The frames are those of `manta.light.wire`: a map whose "k" is the kind of message. The first is
`join`, with the fields of `Join`. Requests are numbered by "n", and many may wait at a time::

    to the peer     join(n, ...)            answered when the peer is in the mesh
                    wait(n, size, timeout)  answered when the view has so many members
                    open(n, of)             a connection to the plane (fds=1): for letters where
                                            `of` is empty, else for the collectives of that view
                    find(n, name)           the ids of the peers with that id or name, dead ones too
                    lock(n, name, timeout)  answered when the lock is this peer's
                    unlock(n, name)
                    status(n)
                    leave(n, timeout)
    to you          answer(n, ...)          `view` with each that tells of the present one
                    error(n, kind, sentence)
                    event(...)              whatever happens, as `Mesh.events` gives it

A view is a map of its token, the rank here, and members: lists of id and name.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from manta.transports.security.keys import KEY_CHARACTERS

MOST_LOCKS = 10_000
Key = Annotated[str, Meta(min_length=KEY_CHARACTERS, max_length=KEY_CHARACTERS)]


class Join(msgspec.Struct, frozen=True):
    """`listen` is a host, with or without a port; `peers` are addresses of doors. Of `secret` and
    `keys`, one is given."""

    public: Key
    private: Key
    name: str
    listen: str
    peers: tuple[str, ...]
    secret: str | None
    keys: tuple[Key, ...]
    topology: Any
    memory: int
    """Bytes of large values that are kept in memory."""
    folder: str
    """For what does not fit there."""
    timeout: float


VIEW_OVER = "ViewOver"
"""The kind of an error: the call is to be made again, in the next view."""
