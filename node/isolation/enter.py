"""`python -m manta.node.isolation.enter SPECIFICATION COMMAND...`: confines itself, then becomes
the command.

It is started with the environment of the runtime, so that what Python imports from here is what
the runtime may read. Whatever can't be done ends it with `REFUSED` and a sentence on stderr: no
task runs with less than was asked for.
"""

from __future__ import annotations

import json
import os
import site
import sys
from collections.abc import Iterable
from typing import Any, Final

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


def specification(
    rules: Iterable[Rule], *, hidden: Iterable[str], gpu: bool = False, abi: int | None = None
) -> str:
    """The first argument. `hidden`: folders of which nothing is to be seen but what rules name
    that lies in them.

    `abi`: confine as a kernel with that version of Landlock does.
    """
    fields = {"rules": list(rules), "hidden": list(hidden), "gpu": gpu, "abi": abi}
    return json.dumps(fields)


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


def confine(fields: dict[str, Any]) -> None:
    """Raises OSError, LookupError, PermissionError."""
    given = [Rule(path, landlock.Access(access), lack) for path, access, lack in fields["rules"]]
    around = [*SYSTEM, *interpreter()]
    if fields["gpu"]:
        around += [*GPUS, *_gpu_devices()]
    if shown := exposing([*around, *given], fields["hidden"]):
        raise PermissionError(
            f"A task is to read all of {shown.path}, in which the node's own keys and state lie, "
            "and would see them: have data sets, and the node's Python, elsewhere."
        )
    privileges.drop()
    landlock.restrict([*around, *given], fields["abi"])
    seccomp.install(seccomp.program())


def main(arguments: list[str]) -> int:
    """Returns only if it fails."""
    text, *command = arguments
    try:
        confine(json.loads(text))
        os.execv(command[0], command)
    except (OSError, LookupError) as error:
        sys.stderr.write(f"{error}\n")
    return REFUSED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
