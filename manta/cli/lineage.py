"""Shows what a result came from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from manta.console import text
from manta.console.lines import Words, styled

if TYPE_CHECKING:
    from manta.apis.lineage import Lineage, Origin
    from manta.protocol.machine import DatasetUsed

SHORT = 12
"""Digits of a digest."""


def lineage_lines(found: Lineage, room: int | None) -> list[Words]:
    """Who made it first; of those before, what is the same for several attempts is said once."""
    of = f"{found.tag!r} of iteration {found.iteration} of {found.name} ({found.swarm_id})"
    lines: list[Words] = [styled(of, bold=True)]
    for title, origins in (("Made by", found.made), ("Before it", found.before)):
        if not origins:
            continue
        lines += ["", styled(title, bold=True)]
        for facts, whose in _grouped(origins):
            lines += text.folded(", ".join(whose), room)
            for fact in facts:
                lines += text.folded(f"  {fact}", room)
    if not found.before:
        lines += ["", "Nothing of the swarm had begun before but what made it."]
    return lines


def _grouped(origins: tuple[Origin, ...]) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    groups: dict[tuple[str, ...], list[str]] = {}
    for one in origins:
        attempt = f", attempt {one.attempt + 1}" if one.attempt else ""
        name = f"{one.alias}.{one.index} on {one.node_alias}"
        name += f" (iteration {one.iteration}{attempt}, {one.status})"
        groups.setdefault(tuple(_facts(one)), []).append(name)
    yield from groups.items()


def _facts(one: Origin) -> Iterator[str]:
    said = [f"module {one.module}"]
    said += [f"version {one.version}"] if one.version else []
    said += [f"digest {one.digest[:SHORT]}"] if one.digest else []
    said += [f"image {one.image}"] if one.image else []
    yield ", ".join(said)
    yield from (f"dataset {_dataset(used)}" for used in one.datasets)
    if one.globals:
        yield "globals " + ", ".join(f"{read.tag} ({read.version})" for read in one.globals)


def _dataset(used: DatasetUsed) -> str:
    said = [used.name]
    said += [f"version {used.version}"] if used.version else []
    said += [f"digest {used.digest[:SHORT]}"] if used.digest else []
    return ", ".join(said)
