"""`python -m manta.node.isolation.enter N SPECIFICATION PROGRAM...`: puts itself within limits, and
confines itself, then becomes the program. The specification is in N arguments.

Whatever can't be done ends it with `REFUSED` and a sentence on stderr: no task runs with less than
was asked for.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from manta.node.isolation import landlock, privileges, seccomp
from manta.node.isolation.landlock import LIST, Rule

REFUSED: Final = 126
"""The exit code; shells have it for programs that can't be run."""

_LONGEST = 64 * 1024  # bytes, half of what an argument may have (MAX_ARG_STRLEN)


class Confinement(NamedTuple):
    """What a process may see and call from now on."""

    rules: tuple[Rule, ...]
    hidden: tuple[str, ...]
    """Folders of which nothing is to be seen but what rules name that lies in them."""
    abi: int | None = None
    """As a kernel with that version of Landlock does it; None for the one that runs."""
    internet: bool = False
    """Whether it may use the machine's network, as no task may."""


def command(
    program: Iterable[str],
    groups: Iterable[str] = (),
    rlimits: Mapping[int, int] | None = None,
    confinement: Confinement | None = None,
) -> list[str]:
    """What is started instead of a program, to have it within limits, and confined.

    `groups`: files of control groups to which it writes that it is in them, before anything can
    leave them by being started earlier. `rlimits` by `resource.RLIMIT_*`.
    """
    limits = list((rlimits or {}).items())
    text = json.dumps({"groups": list(groups), "rlimits": limits, "confinement": confinement})
    parts = [text[at : at + _LONGEST] for at in range(0, len(text), _LONGEST)]
    module = "manta.node.isolation.enter"
    return [sys.executable, "-m", module, str(len(parts)), *parts, *program]


def exposing(rules: Iterable[Rule], hidden: Iterable[str]) -> Rule | None:
    """A rule that would show all of a folder that is to be hidden, if there is one."""
    paths = [os.path.realpath(path) for path in hidden]
    for rule in rules:
        above = os.path.realpath(rule.path)
        if rule.access != LIST and any(
            os.path.commonpath((above, path)) == above for path in paths
        ):
            return rule
    return None


def confine(wanted: Confinement) -> None:
    """Raises OSError, LookupError."""
    if shown := exposing(wanted.rules, wanted.hidden):
        raise PermissionError(
            f"A task is to read all of {shown.path}, in which the node's own keys and state lie, "
            "and would see them: have data sets, and the node's Python, elsewhere."
        )
    privileges.drop()
    landlock.restrict(wanted.rules, wanted.abi, internet=wanted.internet)
    seccomp.install(seccomp.program(internet=wanted.internet))


def _limit(kind: int, most: int) -> None:
    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    resource.setrlimit(kind, (most, most))


def _confinement(
    rules: list[Any], hidden: list[str], abi: int | None, internet: bool
) -> Confinement:
    made = (Rule(path, landlock.Access(access), may_lack) for path, access, may_lack in rules)
    return Confinement(tuple(made), tuple(hidden), abi, internet)


def main(arguments: list[str]) -> int:
    """Returns only if it fails."""
    count, *rest = arguments
    given, program = json.loads("".join(rest[: int(count)])), rest[int(count) :]
    try:
        for path in given["groups"]:
            with open(path, "w") as file:
                file.write("0")  # whoever writes
        for kind, most in given["rlimits"]:
            _limit(kind, most)
        if given["confinement"] is not None:
            confine(_confinement(*given["confinement"]))
        os.execv(program[0], program)
    except (OSError, LookupError) as error:
        sys.stderr.write(f"{error}\n")
    return REFUSED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
