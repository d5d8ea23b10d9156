"""What of a changed configuration a running node takes over, and when. Pure."""

from __future__ import annotations

import dataclasses
from enum import StrEnum
from typing import Any, Final, NamedTuple

from manta.node.config.described import SECTION
from manta.node.config.schema import FIELDS, NodeConfig


class When(StrEnum):
    AT_ONCE = "at once"
    NEXT_START = "for tasks whose process starts from now on"
    RESTART = "after a restart"


APPLIES: Final = {
    "bundle.redact": When.AT_ONCE,
    "labels": When.AT_ONCE,
    "logging.debug_mode": When.AT_ONCE,
    "logging.level": When.AT_ONCE,
    "resources.max_concurrent_tasks": When.AT_ONCE,
    "resources.reserve_memory_mb": When.AT_ONCE,
    "resources.scratch_mb": When.AT_ONCE,
    "datasets.mappings": When.NEXT_START,
    "resources.reserve_cpu_percent": When.NEXT_START,
}
"""By the keys' paths; all others apply after a restart: to them belong sockets, folders or
processes that are there."""
_OF_THE_PROCESS = ("identity.secured_token",)  # whose variable the daemon keeps no more


class Changes(NamedTuple):
    """Paths of the keys whose values differ."""

    at_once: tuple[str, ...] = ()
    next_start: tuple[str, ...] = ()
    restart: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        parts = zip(When, self, strict=True)
        told = [f"{when}: {', '.join(keys)}" for when, keys in parts if keys]
        return f"It applies {'; '.join(told)}." if told else "Nothing has changed."


def changes(before: NodeConfig, after: NodeConfig) -> tuple[NodeConfig, Changes]:
    """The configuration that is in force from now on, and what differs from the one before."""
    found: dict[When, list[str]] = {when: [] for when in When}
    taken: dict[str, Any] = {}
    for name, key in FIELDS.items():
        value = getattr(after, name)
        if key.path in _OF_THE_PROCESS or value == getattr(before, name):
            continue
        when = APPLIES.get(key.path, When.RESTART)
        found[when].append(key.path)
        if when is not When.RESTART:
            taken[name] = value
    if after.described != before.described:
        found[When.NEXT_START].append(SECTION)
        taken["described"] = after.described
    return (
        dataclasses.replace(before, **taken),
        Changes(*(tuple(sorted(keys)) for keys in found.values())),
    )
