"""What tasks hand to the tasks after them and to the user."""

from __future__ import annotations

from typing import Any

from manta.light import arguments
from manta.light.context import Entry, current


class Results:
    """The swarm's results. One belongs to (iteration, tag, task instance)."""

    def add(self, tag: str, value: Any) -> None:
        """Writes this instance's result in this iteration under a tag.

        Raises TypeError for a value that can't be sent.
        """
        current().call("add_result", tag=arguments.tag(tag), value=value)

    def save(self, value: Any, tag: str) -> None:
        """`add` with its arguments swapped."""
        self.add(tag, value)

    def select(self, tag: str, *, iteration: int | None = None) -> dict[str, Any]:
        """Results under a tag, of this iteration unless another is given.

        Returns {node_id: value}, empty when there is none. Where a node has several results under
        the tag, their keys are `node_id/alias.k`. Raises ValueError for a negative iteration.
        """
        entries = self._entries(tag, iteration)
        count: dict[str, int] = {}
        for entry in entries:
            count[entry.node_id] = count.get(entry.node_id, 0) + 1
        return {
            entry.node_id
            if count[entry.node_id] == 1
            else f"{entry.node_id}/{entry.alias}.{entry.index}": entry.value
            for entry in entries
        }

    def get_results(self, tag: str, *, iteration: int | None = None) -> list[Any]:
        """The same results as a list, by alias and rank."""
        return [entry.value for entry in self._entries(tag, iteration)]

    def _entries(self, tag: str, iteration: int | None) -> list[Entry]:
        if iteration is not None:
            iteration = arguments.whole("iteration", iteration)
            if iteration < 0:
                raise ValueError(f"iteration is {iteration}: the first one is 0.")
        entries: list[Entry] = current().call(
            "select_results", tag=arguments.tag(tag), iteration=iteration
        )
        return entries
