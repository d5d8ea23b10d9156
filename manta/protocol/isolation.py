"""How far a task is kept apart from the machine that it runs on: five levels, one word each."""

from __future__ import annotations

from collections.abc import Sequence

LIMITS, LANDLOCK, BWRAP, DOCKER, GVISOR = "limits", "landlock", "bwrap", "docker", "gvisor"
LEVELS = (LIMITS, LANDLOCK, BWRAP, DOCKER, GVISOR)
"""From the weakest to the strongest. What each keeps from a task is in the page on security."""
FORMER = {"process": LIMITS, "none": LIMITS, "container": DOCKER}
"""What levels were called before, by nodes of earlier versions and in their configurations."""
AUTO = "auto"
"""Whoever says so wants the strongest that works."""
IMAGES = (DOCKER, GVISOR)
"""Levels at which a module's image is used."""


def today(level: str) -> str:
    """The word of this version for one of an earlier version's."""
    return FORMER.get(level, level)


def rank(level: str) -> int:
    """The greater, the stronger; -1 for a word that is not known."""
    level = today(level)
    return LEVELS.index(level) if level in LEVELS else -1


def level_of(runners: Sequence[str], *, image: bool) -> str:
    """At which of its levels a node runs a module, which names an image or none.

    "" for a node that has none.
    """
    levels = [*map(today, runners)]
    fitting = [level for level in levels if (level in IMAGES) == image] or levels
    return max(fitting, key=rank, default="")
