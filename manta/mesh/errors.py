"""What goes wrong with a mesh as a whole; the rest are those of `manta.light.errors`."""

from __future__ import annotations

from manta.light.errors import LightError


class MeshError(LightError):
    """Root of these."""


class JoinFailed(MeshError):
    """No mesh lets this peer in, or none is reached."""


class MeshStuck(MeshError):
    """The peer's process does not answer."""


class MeshLost(MeshError):
    """The peer's process has ended, or the mesh was left: nothing more can be asked of it."""
