"""A runtime as a child process that the kernel keeps to what it is given: for machines on which
user namespaces are switched off and nothing may be installed.

Before it becomes the runtime, the process gives up its capabilities, and has Landlock refuse all
files but those of Python, its module, its datasets and its scratch folder, and seccomp most of what
is no business of a task, sockets for the network among it. What that does not hide is in
`docs/security.md`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from manta.node.errors import LaunchError
from manta.node.isolation import landlock, seccomp
from manta.node.isolation.enter import Confinement
from manta.node.isolation.holding import Held, Holder
from manta.node.isolation.landlock import OWN, READ, Rule
from manta.node.runners.interface import RuntimeSpec
from manta.node.runners.local import RUNTIME
from manta.node.runners.process import ProcessRunner


class LandlockRunner(ProcessRunner):
    """Runs `python -m manta.light` with the node's own Python, confined by the kernel."""

    def __init__(self, holder: Holder, hidden: Sequence[Path]) -> None:
        """`hidden`: folders of keys and state, which nothing that a task may read may contain.

        Raises LaunchError where the kernel can't do it.
        """
        if why := problem():
            raise LaunchError(f"Tasks can't be confined by Landlock: {why}.")
        super().__init__(holder)
        self._hidden = tuple(str(path) for path in hidden)

    def environment(self, spec: RuntimeSpec, held: Held | None) -> dict[str, str]:
        return super().environment(spec, held) | {"MANTA_CONFINED": "1"}

    def command(self, spec: RuntimeSpec, held: Held | None) -> Sequence[str]:
        rules = [Rule(str(spec.module_folder), READ), Rule(str(spec.scratch), OWN)]
        rules += [Rule(str(path), READ) for path in spec.datasets.values()]
        if held is None:  # the node is stopping, and nothing is started
            return RUNTIME
        if held.memory_events is not None:
            rules.append(Rule(str(held.memory_events), READ))
        return held.command(RUNTIME, Confinement(tuple(rules), self._hidden, spec.gpu))


def problem() -> str | None:
    """Why tasks can't be confined so on this machine; None where they can."""
    if not landlock.available():
        return (
            "the kernel has no Landlock, or it is not among its security modules: take Linux 5.13 "
            "or later, and add landlock to lsm= on its command line"
        )
    try:
        seccomp.program(os.uname().machine)
    except LookupError as error:
        return str(error).rstrip(".")
    return None
