"""How users name tasks: `SWARM.ALIAS.INDEX.ITERATION.ATTEMPT`, of which all but the first two may
be left out from the end. A swarm's part has no dot; an alias may have some."""

from __future__ import annotations

from manta.protocol.base import Instance


def label(instance: Instance) -> str:
    """The instance in its swarm, without iteration and attempt."""
    return f"{instance.alias}.{instance.index}"


def endings(instance: Instance) -> tuple[str, ...]:
    """All that means this attempt, or one of its task, behind the swarm's part."""
    at = instance
    parts = (at.index, at.iteration, at.attempt)
    return tuple(".".join((at.alias, *map(str, parts[:count]))) for count in range(len(parts) + 1))


def split(task: str) -> tuple[str, str]:
    """The swarm's part, and the rest, "" where there is none."""
    swarm, _, rest = task.partition(".")
    return swarm, rest
