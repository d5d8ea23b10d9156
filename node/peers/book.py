"""All that the node was told of its peers. It outlives the actor that keeps it, and the plane."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from manta.actors import LocalRef
from manta.node.peers.directory import Directories, DirectoryChanged
from manta.node.peers.links import LinkBook
from manta.node.peers.rosters import RosterChanged, Rosters


class PeersAnew(msgspec.Struct, frozen=True):
    """To the plane: all that is known. Whatever it knew besides is over."""

    directories: tuple[DirectoryChanged, ...]
    rosters: tuple[RosterChanged, ...]


@dataclass
class PeerBook:
    directories: Directories = field(default_factory=Directories)
    rosters: Rosters = field(default_factory=Rosters)
    links: LinkBook = field(default_factory=LinkBook)
    plane: LocalRef | None = None
    """Who is told of changes."""
    behind: bool = False
    """It could not be told of one, and is told all anew."""

    def all(self) -> PeersAnew:
        return PeersAnew(tuple(self.directories.all()), tuple(self.rosters.all()))
