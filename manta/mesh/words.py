"""What your process and its peer's process say to each other, over a socket pair.

The frames are those of `manta.light.wire`: a map whose "k" is the kind of message. The first is
`join`, with the fields of `manta.mesh.peer.join.Join`. Requests are numbered by "n", and many may
wait at a time::

    to the peer     join(n, join)           answered when the peer is in the mesh
                    meet(n, doors, timeout) joins it to others: the first of the doors, each with
                                            its addresses and its secret, that lets it in
                    wait(n, size, timeout)  answered when the view has so many members
                    open(n, of)             a connection to the plane (fds=1): for letters where
                                            `of` is empty, else for the collectives of that view
                    find(n, name)           the ids of the peers with that id or name, dead ones too
                    lock(n, name, timeout)  answered when the lock is this peer's
                    unlock(n, name)
                    word(n, to, topic, data)
                                            what another's process is told; it may be lost
                    status(n)
                    beat()                  your process runs
                    leave(n, timeout)
    to you          answer(n, ...)          `view` with each that tells of the present one
                    error(n, kind, sentence)
                    beat()                  is answered by a beat
                    event(...)              whatever happens, as `Mesh.events` gives it, and what
                                            others say ("word": id, topic, data)

A view is a map of its token, the rank here, and members: lists of id and name.
"""

from __future__ import annotations

MOST_LOCKS = 10_000
VIEW_OVER = "ViewOver"
"""The kind of an error: the call is to be made again, in the next view."""
