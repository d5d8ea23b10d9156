"""Values that all tasks of a swarm share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from manta.light import arguments
from manta.light.context import MISSING, current
from manta.light.errors import GlobalNotFound


class Globals(Mapping[str, Any]):
    """The swarm's globals as a mapping that can be written: the last writer wins.

    A read sees every write of the tasks before this one in the graph. Each read fetches the
    value again: keep it in a variable to use it twice.
    """

    def __getitem__(self, tag: str) -> Any:
        """Raises GlobalNotFound, a KeyError."""
        value = current().call("get_global", tag=arguments.tag(tag))
        if value is MISSING:
            raise GlobalNotFound(
                f"No global {tag!r} has been set in this swarm: set it with "
                f"swarm.set_global({tag!r}, ...), or read it with .get({tag!r}, default)."
            )
        return value

    def __setitem__(self, tag: str, value: Any) -> None:
        """Sets a global for all tasks. Raises TypeError for a value that can't be sent."""
        current().call("set_global", tag=arguments.tag(tag), value=value)

    def __contains__(self, tag: object) -> bool:
        return tag in self._tags()

    def __iter__(self) -> Iterator[str]:
        return iter(self._tags())

    def __len__(self) -> int:
        return len(self._tags())

    def __repr__(self) -> str:
        return "<the swarm's globals>"

    def _tags(self) -> list[str]:
        tags: list[str] = current().call("list_global_tags")
        return tags
