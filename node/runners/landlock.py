"""A runtime as a child process that the kernel keeps to what it is given: for machines on which
user namespaces are switched off and nothing may be installed.

Before it becomes the runtime, the process gives up its capabilities, and has Landlock refuse all
files but those of Python, its module, its datasets and its scratch folder, and seccomp most of what
is no business of a task, sockets for the network among it. What that does not hide is in
`docs/security.md`.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from manta.node.errors import LaunchError
from manta.node.isolation import enter, landlock, seccomp
from manta.node.isolation.enter import Confinement
from manta.node.isolation.holding import Held, Holder
from manta.node.isolation.landlock import DEVICE, LIST, OWN, READ, RUN, UNLISTED, Rule
from manta.node.runners import gpus, local, visible
from manta.node.runners.interface import RuntimeSpec
from manta.node.runners.process import ProcessRunner
from manta.protocol.isolation import LANDLOCK

_PROBING_TIME = 10.0
_MACHINE = (
    # A sandbox has none of these, or its own. Here libraries find them, and fail if they can't be
    # read.
    *(
        Rule(f"/etc/{name}", READ, may_lack=True)
        for name in (
            *("ca-certificates", "fonts", "group", "host.conf", "hosts", "mime.types"),
            *("nsswitch.conf", "passwd", "pki", "protocols", "resolv.conf", "services", "ssl"),
            "timezone",
        )
    ),
    Rule("/proc", READ),
    Rule("/sys/devices/system", READ, may_lack=True),
    *(
        Rule(f"/dev/{name}", DEVICE, may_lack=True)
        for name in ("full", "null", "random", "urandom", "zero")
    ),
    # Semaphores and shared memory of all processes: who knows a name, 32 random bits, has it.
    Rule("/dev/shm", UNLISTED, may_lack=True),
)
_GPUS = (
    Rule("/sys", READ),
    Rule("/dev", LIST),
    Rule("/opt/rocm", RUN, may_lack=True),
    Rule("/etc/OpenCL", READ, may_lack=True),
)


def find(private: Iterable[Path]) -> Confinement:
    """Starts the node's Python confined as tasks are, so that nothing of `private` is to be read.

    Raises LaunchError with the reason, without a full stop, where that does not work.
    """
    if not landlock.available():
        raise LaunchError(
            "the kernel has no Landlock, or it is not among its security modules (take Linux 5.13 "
            "or later, and add landlock to lsm= on its command line)"
        )
    try:
        seccomp.program()
    except LookupError as error:
        raise LaunchError(str(error).rstrip(".")) from error
    owned = visible.resolved(private)
    folders, _ = visible.seen(owned)
    rules = [Rule(str(path), RUN, may_lack=True) for path in sorted(folders)]
    rules += [Rule(str(local.SOURCES), LIST), *_MACHINE]
    found = Confinement(tuple(rules), tuple(map(str, sorted(owned))))
    program = [sys.executable, "-I", "-S", "-c", ""]
    try:
        done = subprocess.run(
            enter.command(program, confinement=found),
            env=local.interpreter(),
            cwd=local.SOURCES,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PROBING_TIME,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LaunchError(f"no process can confine itself by Landlock ({error})") from error
    if done.returncode:
        last = (done.stderr.splitlines() or [f"exit code {done.returncode}"])[-1]
        raise LaunchError(f"no process can confine itself by Landlock ({last.rstrip('.')})")
    return found


class LandlockRunner(ProcessRunner):
    """Runs `python -m manta.light` with the node's own Python, confined by the kernel."""

    names: tuple[str, ...] = (LANDLOCK,)

    def __init__(
        self,
        found: Confinement,
        hidden: Iterable[Path],
        holder: Holder | None = None,
        give_up: Callable[[str], None] | None = None,
    ) -> None:
        """`hidden`: keys and state, which no data set may contain. Whose home is shown to tasks as
        one has that shown."""
        super().__init__(holder, give_up)
        self._found = found._replace(hidden=tuple(map(str, hidden)))

    def environment(self, spec: RuntimeSpec, held: Held | None) -> dict[str, str]:
        return super().environment(spec, held) | {"MANTA_CONFINED": "1"}

    def command(self, spec: RuntimeSpec, held: Held | None) -> Sequence[str]:
        rules = [Rule(str(spec.module_folder), READ), Rule(str(spec.scratch), OWN)]
        rules += [Rule(str(path), READ) for path in spec.datasets.values()]
        if spec.environment is not None:
            rules.append(Rule(str(spec.environment), RUN))
        if held is not None and held.memory_events is not None:
            rules.append(Rule(str(held.memory_events), READ))
        if spec.gpus:
            rules += [*_GPUS, *(Rule(str(path), DEVICE) for path in gpus.devices(spec.gpus))]
        confinement = self._found._replace(rules=(*self._found.rules, *rules))
        enters = enter.command if held is None else held.command
        where = None if spec.environment is None else str(spec.environment)
        return enters(local.runtime(where), confinement=confinement)
