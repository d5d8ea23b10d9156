"""Variables with secrets, which a daemon gets outside of its environment.

What is in a process's environment can be read in /proc for as long as it runs, and is inherited
by what it starts. A daemon therefore gets the variables that its token comes from in a file in
memory, whose descriptor `MANTA_HANDED_OVER` names, and none that it has no use for.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterable, Mapping

import msgspec

from manta.console import early

VARIABLE = "MANTA_HANDED_OVER"
_OF_USERS = ("MANTA_TOKEN", "MANTA_PASSPHRASE")
_OF_NODES = "MANTA_NODE_TOKEN"


def environment() -> Mapping[str, str]:
    """This process's variables, with those that were handed over to it."""
    return {**os.environ, **_received()}


@functools.cache
def _received() -> dict[str, str]:
    given = os.environ.pop(VARIABLE, None)
    if given is None:
        return {}
    with open(int(given), "rb") as file:
        return msgspec.json.decode(file.read(), type=dict[str, str])


def hand_over(names: Iterable[str]) -> tuple[dict[str, str], int]:
    """Returns the environment of a daemon, without secrets, and a descriptor that it has to
    inherit: of the variables with these names."""
    known = environment()
    kept = {name: known[name] for name in names if name in known}
    fd = os.memfd_create("variables")
    os.write(fd, msgspec.json.encode(kept))
    os.lseek(fd, 0, os.SEEK_SET)
    secret = {*kept, *_OF_USERS, _OF_NODES, VARIABLE}
    cleaned = {name: value for name, value in os.environ.items() if name not in secret}
    return {**cleaned, VARIABLE: str(fd)}, fd


def become_clean(names: Iterable[str]) -> None:
    """Starts this program anew if its environment holds a secret, in this process."""
    names = tuple(names)
    if not {*names, *_OF_USERS, _OF_NODES} & os.environ.keys():
        return
    cleaned, fd = hand_over(names)
    os.set_inheritable(fd, True)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    early.hold()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], cleaned)
