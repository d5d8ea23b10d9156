"""The base of every part of the API: requests over one connection."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from manta.apis.aio.connection import AsyncConnection, Reply
from manta.apis.errors import NotFound

if TYPE_CHECKING:
    from manta.protocol.node import Message
    from manta.transports.codec.values import Encoded


def tell(notes: Iterable[str]) -> None:
    """Logs what the user may want to know, as `manta.apis` at level INFO."""
    for note in notes:
        import logging

        logging.getLogger("manta.apis").info(note)


class AsyncClient:
    """Sends one user's requests to one manager."""

    connection: AsyncConnection

    async def _ask(
        self,
        message: Message,
        reply: type[Reply],
        *,
        again: bool = False,
        wait: float = 0.0,
        blobs: Mapping[str, Encoded] | None = None,
    ) -> Reply:
        return await self.connection.ask(message, reply, again=again, wait=wait, blobs=blobs)

    async def _fetched(self, ids: Iterable[str], get: Callable[[str], Any]) -> list[Any]:
        """Fetches each of these by id, one by one; what is gone by then is skipped."""
        found = []
        for id_ in ids:
            try:
                found.append(await get(id_))
            except NotFound:
                continue
        return found
