"""`python -m manta.node.isolation.enter SPECIFICATION PROGRAM...`: puts itself within limits, and
confines itself, then becomes the program.

It is started with the environment of the runtime: what Python imports from there is what the
runtime may read. Whatever can't be done ends it with `REFUSED` and a sentence on stderr: no
task runs with less than was asked for.
"""

from __future__ import annotations

import json
import os
import resource
import site
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from manta.node.isolation import landlock, privileges, seccomp
from manta.node.isolation.landlock import DEVICE, LIST, READ, RUN, UNLISTED, Rule

REFUSED: Final = 126
"""The exit code; shells have it for programs that can't be run."""

SYSTEM: Final = (
    *(
        Rule(path, RUN, may_lack=True)
        for path in ("/bin", "/lib", "/lib32", "/lib64", "/nix/store", "/sbin", "/usr")
    ),
    *(
        Rule(f"/etc/{name}", READ, may_lack=True)
        for name in (
            *("ca-certificates", "fonts", "ld.so.cache", "ld.so.conf", "ld.so.conf.d"),
            *("group", "host.conf", "hosts", "nsswitch.conf", "passwd", "resolv.conf"),
            *("localtime", "mime.types", "pki", "protocols", "services", "ssl", "timezone"),
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
GPUS: Final = (
    Rule("/sys", READ),
    Rule("/dev", LIST),
    Rule("/opt/rocm", RUN, may_lack=True),
    Rule("/etc/OpenCL", READ, may_lack=True),
)


def _gpu_devices() -> list[Rule]:
    names = [name for name in os.listdir("/dev") if name.startswith("nvidia")]
    return [Rule(f"/dev/{name}", DEVICE | LIST) for name in (*names, "dri", "kfd")]


class Confinement(NamedTuple):
    """What a process may see and call from now on."""

    rules: tuple[Rule, ...]
    """Its own files, besides Python's and the system's."""
    hidden: tuple[str, ...]
    """Folders of which nothing is to be seen but what rules name that lies in them."""
    gpu: bool = False
    abi: int | None = None
    """As a kernel with that version of Landlock does it; None for the one that runs."""


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
    return [sys.executable, "-m", "manta.node.isolation.enter", text, *program]


def interpreter() -> list[Rule]:
    """What this Python runs and imports, wherever it lies."""
    sources = [folder for folder in os.environ.get("PYTHONPATH", "").split(":") if folder]
    installed = {*site.getsitepackages(), site.getusersitepackages()}
    rules = []
    for folder in (sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix):
        rules.append(Rule(folder, RUN))
    for folder in dict.fromkeys(sys.path):
        if folder in sources and folder not in installed:
            rules += _of_manta(folder)  # a tree that is developed holds more
        else:
            rules.append(Rule(folder, RUN, may_lack=True))
    for folder in os.environ.get("LD_LIBRARY_PATH", "").split(":"):
        rules.append(Rule(folder, RUN, may_lack=True))
    for name in ("SSL_CERT_DIR", "SSL_CERT_FILE"):
        rules.append(Rule(os.environ.get(name, ""), READ, may_lack=True))
    for name, module in sys.modules.items():
        if name.startswith("__editable__"):  # as setuptools installs a package that is developed
            mapping = getattr(module, "MAPPING", {})
            rules += [Rule(folder, RUN, may_lack=True) for folder in mapping.values()]
    return [rule for rule in rules if os.path.isabs(rule.path) and rule.path != "/"]


def _of_manta(folder: str) -> list[Rule]:
    """Manta in a folder, with the packages that lie beside it and are linked to."""
    package = os.path.join(folder, "manta")
    linked = [entry.path for entry in os.scandir(package) if entry.is_symlink()]
    return [Rule(folder, LIST), *(Rule(path, READ) for path in (package, *linked))]


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
    around = [*SYSTEM, *interpreter()]
    if wanted.gpu:
        around += [*GPUS, *_gpu_devices()]
    if shown := exposing([*around, *wanted.rules], wanted.hidden):
        raise PermissionError(
            f"A task is to read all of {shown.path}, in which the node's own keys and state lie, "
            "and would see them: have data sets, and the node's Python, elsewhere."
        )
    privileges.drop()
    landlock.restrict([*around, *wanted.rules], wanted.abi)
    seccomp.install(seccomp.program())


def _limit(kind: int, most: int) -> None:
    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    resource.setrlimit(kind, (most, most))


def _confinement(rules: list[Any], hidden: list[str], gpu: bool, abi: int | None) -> Confinement:
    made = (Rule(path, landlock.Access(access), may_lack) for path, access, may_lack in rules)
    return Confinement(tuple(made), tuple(hidden), gpu, abi)


def main(arguments: list[str]) -> int:
    """Returns only if it fails."""
    text, *program = arguments
    given = json.loads(text)
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
