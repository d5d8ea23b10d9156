# Generated from manta/apis/aio/client.py by `make generate`: do not edit.
"""The base of every part of the API: requests over one connection."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from manta.apis.errors import NotFound
from manta.apis.sync.connection import Connection, Reply

if TYPE_CHECKING:
    from manta.protocol.node import Message
    from manta.transports.codec.values import Encoded


def tell(notes: Iterable[str]) -> None:
    """Logs what the user may want to know, as `manta.apis` at level INFO."""
    for note in notes:
        import logging

        logging.getLogger("manta.apis").info(note)


class Client:
    """Sends one user's requests to one manager."""

    connection: Connection

    def _ask(
        self,
        message: Message,
        reply: type[Reply],
        *,
        again: bool = False,
        wait: float = 0.0,
        blobs: Mapping[str, Encoded] | None = None,
    ) -> Reply:
        return self.connection.ask(message, reply, again=again, wait=wait, blobs=blobs)

    def _fetched(self, ids: Iterable[str], get: Callable[[str], Any]) -> list[Any]:
        """Fetches each of these by id, one by one; what is gone by then is skipped."""
        found = []
        for id_ in ids:
            try:
                found.append(get(id_))
            except NotFound:
                continue
        return found
