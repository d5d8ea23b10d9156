"""Compares what is locked, and the least that setup.cfg allows, with packaging/advisories.json.

The advisories are those of OSV for the packages that Manta uses, in OSV's format; nothing is asked
of anybody. Whoever adds one, or takes over a newer export of OSV, runs `make audit`.
"""

from __future__ import annotations

import configparser
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
LOCKS = sorted((ROOT / "packaging").glob("*.lock"))
ADVISORIES = ROOT / "packaging" / "advisories.json"

Versions = dict[str, list[str]]
"""By the name of a package."""


def pinned(lock: Path) -> Versions:
    found: Versions = {}
    for name, version in re.findall(r"^([\w.-]+)==([\w.!+]+)", lock.read_text(), re.MULTILINE):
        found.setdefault(canonicalize_name(name), []).append(version)
    return found


def requirements() -> Iterator[Requirement]:
    """Yields each line of install_requires and of the extras."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lists = [setup["options"]["install_requires"], *setup["options.extras_require"].values()]
    for lines in lists:
        yield from map(Requirement, lines.split("\n")[1:])


def least() -> Versions:
    """Returns the lowest version that setup.cfg allows; 0 without a lower bound."""
    found: Versions = {}
    for requirement in requirements():
        bounds = [bound.version for bound in requirement.specifier if bound.operator == ">="]
        found.setdefault(canonicalize_name(requirement.name), []).append(*bounds or ["0"])
    return found


def flaws(versions: Versions, advisories: list[dict[str, Any]]) -> Iterator[str]:
    """Yields a sentence for each version that an advisory is about."""
    for advisory in advisories:
        for affected in advisory["affected"]:
            name = canonicalize_name(affected["package"]["name"])
            for version in versions.get(name, ()):
                fixed = [fix for range_ in affected["ranges"] for fix in _fixes(range_, version)]
                if fixed:
                    said = advisory.get("summary", "see osv.dev")
                    yield (
                        f"{name} {version} is affected by {advisory['id']} ({said}): "
                        f"take {fixed[0]} or later."
                    )


def _fixes(range_: dict[str, Any], version: str) -> Iterator[str]:
    """Yields the version that is fixed, if this one is within the range."""
    events = {kind: at for event in range_["events"] for kind, at in event.items()}
    since, fixed = events["introduced"], events.get("fixed")
    if Version(since) <= Version(version) and (fixed is None or Version(version) < Version(fixed)):
        yield fixed or "another package"


def main() -> int:
    advisories = json.loads(ADVISORIES.read_text())
    found = [f"setup.cfg allows {flaw}" for flaw in flaws(least(), advisories)]
    for lock in LOCKS:
        found += [f"{lock.name} has {flaw}" for flaw in flaws(pinned(lock), advisories)]
    print("\n".join(found) or f"Nothing of {len(advisories)} advisories concerns what is locked.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
