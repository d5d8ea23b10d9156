"""The swarm around a task."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from manta.light import arguments
from manta.light.context import current
from manta.light.exchange import Exchange
from manta.light.globals import Globals
from manta.light.results import Results


class World(Exchange):
    """What a task knows of its swarm, and what it can ask of it.

    Works on its own, without a Task: it speaks for the attempt that is running.
    """

    @property
    def globals(self) -> Globals:
        """Values that all tasks share, as a mapping."""
        return Globals()

    @property
    def results(self) -> Results:
        """What tasks wrote in this iteration."""
        return Results()

    # Globals.

    def get(self, tag: str, default: Any = None) -> Any:
        """A global, or the default where nobody has set it."""
        return Globals().get(tag, default)

    def set(self, tag: str, value: Any) -> None:
        """Sets a global. Raises TypeError for a value that can't be sent."""
        Globals()[tag] = value

    def get_global(self, tag: str, default: Any = None) -> Any:
        """`get` under its longer name."""
        return self.get(tag, default)

    def set_global(self, tag: str, value: Any) -> None:
        """`set` under its longer name."""
        self.set(tag, value)

    # Results.

    def set_result(self, tag: str, value: Any) -> None:
        """Writes this instance's result in this iteration: `results.add`."""
        Results().add(tag, value)

    def get_results(self, tag: str) -> list[Any]:
        """This iteration's results under a tag, by alias and rank."""
        return Results().get_results(tag)

    # Who this is.

    @property
    def swarm_id(self) -> str:
        """The swarm's id."""
        return current().brief.swarm_id

    @property
    def task_id(self) -> str:
        """The id of this attempt: no other instance, iteration or attempt has the same."""
        return current().brief.task_id

    @property
    def node_id(self) -> str:
        """The id of the node that this runs on."""
        return current().brief.node_id

    @property
    def iteration(self) -> int:
        """The iteration's number, from 0."""
        return current().brief.iteration

    # What comes next.

    def schedule_next_iter(
        self,
        node_ids: Iterable[str] | None = None,
        task_to_schedule_alias: str | None = None,
    ) -> None:
        """Asks for another iteration, on these nodes, from the task with this alias.

        Without arguments it is as the graph says. Raises UnknownPeer for a node and UnknownTask
        for an alias that does not exist, ValueError for an empty list of nodes.
        """
        alias = task_to_schedule_alias
        if alias is not None:
            alias = arguments.name("task's alias", alias)
        if isinstance(node_ids, str):
            node_ids = [node_ids]
        elif node_ids is not None and not isinstance(node_ids, Iterable):
            raise TypeError(f"schedule_next_iter() takes a list of node ids, not {node_ids!r:.60}.")
        nodes = None if node_ids is None else [arguments.node(node) for node in node_ids]
        if nodes == []:
            raise ValueError(
                "schedule_next_iter() was given an empty list of nodes: leave node_ids out for all "
                "nodes, or call stop_swarm() if nothing is to follow."
            )
        current().call("schedule_next_iteration", node_ids=nodes or [], alias=alias)

    def stop_swarm(self) -> None:
        """Ends the swarm, COMPLETED, after this iteration. Returns at once."""
        current().call("stop_swarm")

    # How it is going.

    def progress(self, fraction: float, message: str = "") -> None:
        """Tells how far this attempt is, from 0 to 1, with a message for people."""
        fraction = arguments.number("fraction", fraction)
        if not 0 <= fraction <= 1:
            raise ValueError(f"progress() takes a fraction from 0 to 1, not {fraction}.")
        current().call("progress", fraction=fraction, message=arguments.text(message))

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Logs numbers by name; `step` counts within the attempt where there are several."""
        if not isinstance(metrics, Mapping):
            raise TypeError(
                f"log_metrics() takes a dict of numbers by name, not {type(metrics).__name__}."
            )
        plain = {}
        for key, value in metrics.items():
            name = arguments.name("metric's name", str(key))
            try:
                plain[name] = float(value)
            except OverflowError:
                raise ValueError(f"metrics[{key!r}] is too large for a float.") from None
            except (TypeError, ValueError):
                raise TypeError(
                    f"log_metrics() takes numbers; metrics[{key!r}] is {type(value).__name__}. "
                    f"Use results.add() for other values."
                ) from None
        if step is not None:
            step = arguments.whole("step", step)
        current().call("log_metrics", metrics=plain, step=step)
