"""What a task's user is told of requirements that could not be installed. Pure."""

from __future__ import annotations

import re
from typing import Final

from manta.console.visible import visible_lines
from manta.node.environments.recipe import Policy, Wanted

LAST: Final = 12
"""Lines of the installer's that are told."""
_LONGEST = 300
_FAILED = re.compile(r"ERROR: \[present-rich\]|error: subprocess-exited-with-error")
_TIME = re.compile(r"^[\d-]+T[\d:,]+ ")
_ASIDE = (
    *("Collecting", "Downloading", "INFO:", "Looking in", "Obtaining", "Preparing metadata"),
    *("Processing", "Requirement already", "Using cached", "WARNING:", "[notice]", "note:"),
    *("Getting requirements to build", "Installing build dependencies"),
)
_FOREIGN = re.compile(
    r"none of the wheel's tags|not a supported wheel on this platform"
    r"|requires? a different python|requires-python|requires python|does not satisfy python"
    r"|matching python (version|abi|implementation) tag|matching (platform|abi) tag"
    r"|no wheels with a matching",
    re.IGNORECASE,
)
_NO_WHEEL = re.compile(
    r"no sources permitted|no usable wheels|building from source is disabled"
    r"|has no usable wheels|no-build|only-binary",
    re.IGNORECASE,
)
_WHEEL = re.compile(r"[\w.]+-[\w.+!]+(?:-\d\w*)?-[\w.]+-[\w.]+-[\w.]+\.whl")


def last_lines(said: str) -> list[str]:
    """The end of what the installer said, harmless to show."""
    lines = [line.strip() for line in visible_lines(said)]
    found = [line for line in lines if line and not line.startswith(_ASIDE)]
    return [_shortened(line) for line in found[-LAST:]]


def sentence(what: str, said: str, log: str, wanted: Wanted, policy: Policy, python: str) -> str:
    """`what`: of which module, and where. `log`: what the installer wrote beside what it said."""
    lines = last_lines(_of_builds(log) + said) or ["the installer said nothing"]
    found = f"The requirements of {what} can't be installed: {' '.join(lines)}"
    found += "" if found.endswith((".", "!", "?")) else "."
    both = said + log
    if _FOREIGN.search(both):
        wheels = dict.fromkeys(_WHEEL.findall(_foreign_lines(both)))
        named = f" ({', '.join(list(wheels)[:3])})" if wheels else ""
        found += (
            f" There are wheels for another Python or machine{named}: this node has {python}. Take "
            "a version that has wheels for it, or a node that they are for."
        )
    elif not policy.sdists and _NO_WHEEL.search(both):
        found += (
            " This node installs wheels alone, as building runs code: name a version that has "
            "some, or let its owner set requirements.sdists = true."
        )
    else:
        found += " Correct them in Module(requirements=...)."
    return found


def _of_builds(log: str) -> str:
    """What the last of the programs said that pip ran: it tells that "above", which is its log."""
    _, began, rest = log.rpartition("Running command ")
    if not began or (end := _FAILED.search(rest)) is None:
        return ""
    lines = rest[: end.start()].splitlines()[1:-1]
    return "".join(f"{_TIME.sub('', line)}\n" for line in lines)


def _foreign_lines(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if _FOREIGN.search(line))


def _shortened(line: str) -> str:
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."
