"""Keeps the sources of code that waits for the owner, so that they can be read and compared."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from blake3 import blake3

from manta.actors import Actor
from manta.node.errors import NodeError
from manta.node.link.peer_hub import Fetch
from manta.node.policy.records import MOST_CODE, Code
from manta.node.shared.addresses import PEER_HUB
from manta.node.shared.context import NodeContext
from manta.node.tasks.packages import ENTRY_FILE, unpack, unpacked
from manta.protocol.values import BlobRef
from manta.transports.codec.stored import Damaged
from manta.transports.errors import BlobMissing
from manta.transports.files import FileTooLarge, read_bounded

FETCH_TIMEOUT = 600.0


class Review(msgspec.Struct, frozen=True):
    """Keep the sources of this package, which a swarm names."""

    package: BlobRef
    swarm_id: str


class Reviews(Actor):
    def __init__(self, context: NodeContext) -> None:
        self._context = context
        self._under_way: set[str] = set()

    def receive(self, message: Any) -> Any:
        match message:
            case Review(package) if package.digest not in self._under_way:
                if self._is_kept(package.digest):
                    return None
                self._under_way.add(package.digest)
                named = self._context.named
                named.of_swarm(package.digest, message.swarm_id)
                asked = self.system.ref(PEER_HUB).ask_future(
                    Fetch(package, message.swarm_id), timeout=FETCH_TIMEOUT
                )
                self.pipe(asked, partial(self._fetched, package))
            case Review():
                pass
            case _:
                return super().receive(message)
        return None

    def _is_kept(self, digest: str) -> bool:
        try:
            return self._context.owner.code(digest) is not None
        except (Damaged, OSError):
            return False

    def _fetched(self, package: BlobRef, _: Any, error: BaseException | None) -> None:
        digest, context = package.digest, self._context
        self._under_way.discard(digest)
        try:
            if error is not None:
                raise error
            folder = context.modules.use(digest, self.ref.address.path)
            if unpacked(folder) is None:
                source = context.values.source(digest)
                unpack(source.read(0, source.size), folder, f"The package {digest}")
            context.owner.keep_code(digest, read_code(folder))
        except Exception as flaw:
            if not isinstance(flaw, NodeError | BlobMissing | OSError) and error is None:
                raise
            self.log.warning("The code %s cannot be shown to the owner: %s", digest, flaw)
        finally:
            context.modules.leave(self.ref.address.path)
            context.modules.trim()


def read_code(folder: Path) -> Code:
    """The sources, in the order of their names as far as there is room for them."""
    sources: dict[str, str] = {}
    others: dict[str, str] = {}
    room = MOST_CODE
    for path in sorted(one for one in folder.rglob("*") if one.is_file()):
        name = path.relative_to(folder).as_posix()
        if name == ENTRY_FILE or "__pycache__" in path.parts:
            continue
        try:
            text = read_bounded(path, room).decode()
        except (FileTooLarge, UnicodeDecodeError):
            others[name] = _digest(path)
        else:
            sources[name] = text
            room -= len(text.encode())
    return Code(sources, others)


def _digest(path: Path) -> str:
    return blake3().update_mmap(path).hexdigest()
