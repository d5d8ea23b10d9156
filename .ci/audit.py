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
ANOTHER = "another package"

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
        if "withdrawn" in advisory:
            continue
        for affected in advisory["affected"]:
            if affected["package"]["ecosystem"] != "PyPI":
                continue
            name = canonicalize_name(affected["package"]["name"])
            for version in versions.get(name, ()):
                if fixed := _fix(affected, Version(version)):
                    said = advisory.get("summary", "see osv.dev")
                    yield (
                        f"{name} {version} is affected by {advisory['id']} ({said}): take {fixed}."
                    )


def _fix(affected: dict[str, Any], version: Version) -> str | None:
    """Returns what to take instead, if this version is affected: it is listed, or in a range."""
    ranges = [one for one in affected.get("ranges", ()) if one["type"] != "GIT"]
    fixes = [fix for range_ in ranges if (fix := _fix_of_range(range_, version))]
    if not fixes and version in map(Version, affected.get("versions", ())):
        fixes = [ANOTHER]
    return fixes[0] if fixes else None


def _fix_of_range(range_: dict[str, Any], version: Version) -> str | None:
    """A version may be introduced and fixed several times; the last event up to it counts."""
    order = {"introduced": 0, "last_affected": 1, "fixed": 2}
    events = sorted(
        (Version(at), order[kind], kind)
        for event in range_["events"]
        for kind, at in event.items()
        if kind in order
    )
    is_affected, fix = False, None
    for at, _, kind in events:
        if at <= version and not (kind == "last_affected" and at == version):
            is_affected = kind == "introduced"
        elif kind == "fixed" and fix is None:
            fix = f"{at} or later"
    return (fix or ANOTHER) if is_affected else None


def main() -> int:
    advisories = json.loads(ADVISORIES.read_text())
    found = [f"setup.cfg allows {flaw}" for flaw in flaws(least(), advisories)]
    for lock in LOCKS:
        found += [f"{lock.name} has {flaw}" for flaw in flaws(pinned(lock), advisories)]
    print("\n".join(found) or f"Nothing of {len(advisories)} advisories concerns what is locked.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
