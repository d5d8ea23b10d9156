"""What probes of tasks aim at, and what they are expected to find."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import secrets
import socket
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from manta.node.isolation.cgroups import mounted

HERE = Path(__file__).parent
VICTIM = (HERE / "victim.py").read_text()
TABLE: dict[str, Any] = tomllib.loads((HERE / "table.toml").read_text())
LEVELS: dict[str, str] = TABLE["levels"]
ALONE = ("forks", "memory", "disk", "outlive")
"""Probes that may cost the task its life."""
QUIET = tuple(probe["name"] for probe in TABLE["probe"] if probe["name"] not in ALONE)
PROCESSES = 200
MEMORY = 256 << 20
DISK = 16 << 20
ENGINES = ("/var/run/docker.sock", "/run/podman/podman.sock")
_IPC_RMID = 0


def code(targets: dict[str, Any], probes: tuple[str, ...]) -> str:
    """The module of a task that makes those probes."""
    head, future, rest = (
        (HERE / "inside.py").read_text().partition("from __future__ import annotations\n")
    )
    assert rest
    inside = rest.replace(
        "TARGETS: dict[str, Any] = {}\n", f"TARGETS = {targets | {'probes': probes}!r}\n"
    )
    return head + future + inside


def unexpected(answers: dict[str, str], level: str, *, is_root: bool) -> dict[str, str]:
    """Those that are not what the table says, by probe."""
    found = {}
    for probe in TABLE["probe"]:
        name = probe["name"]
        expected = {probe[level]}
        if probe.get("by_user") and not is_root:
            expected.add("closed")
        if name in answers and answers[name] not in expected:
            found[name] = answers[name]
    return found


def page() -> str:
    """The table as documents have it."""
    lines = [
        f"| a task | {' | '.join(f'`{level}`' for level in LEVELS)} |",
        f"|---|{'---|' * len(LEVELS)}",
    ]
    for probe in TABLE["probe"]:
        answers = " | ".join(probe[level] for level in LEVELS)
        lines.append(f"| {probe['does']} | {answers} |")
    return "\n".join(lines) + "\n"


@contextlib.contextmanager
def aims(folder: Path) -> Iterator[dict[str, Any]]:
    """A listener, files, processes and memory of this process's own, which stands for the daemon
    and its owner; what is the node's the caller adds."""
    word, name = secrets.token_hex(8), f"manta-probe-{secrets.token_hex(8)}"
    secret = folder / "secret"
    secret.write_text(word)
    with contextlib.ExitStack() as undo:
        listeners = []
        for address in (("127.0.0.1", 0), str(folder / "engine"), f"\0{name}"):
            family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
            listeners.append(undo.enter_context(socket.socket(family)))
            listeners[-1].bind(address)
            listeners[-1].listen()
        tcp = listeners[0]
        udp = undo.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        udp.bind(("127.0.0.1", 0))
        bystander = subprocess.Popen(["sleep", "600"])
        undo.callback(bystander.wait)
        undo.callback(bystander.kill)
        shared = Path("/dev/shm", name)
        shared.write_bytes(word.encode())
        undo.callback(shared.unlink)
        libc = ctypes.CDLL(None, use_errno=True)
        sysv = libc.shmget(0, mmap.PAGESIZE, 0o1600)
        undo.callback(libc.shmctl, sysv, _IPC_RMID, None)
        buffer = ctypes.create_string_buffer(word.encode())
        undo.callback(lambda: buffer)
        yield {
            "word": word,
            "name": name,
            "tcp": list(tcp.getsockname()),
            "udp": list(udp.getsockname()),
            "engine": [str(folder / "engine"), *ENGINES],
            "abstract": name,
            "secret": str(secret),
            "bystander": bystander.pid,
            "daemon": os.getpid(),
            "address": ctypes.addressof(buffer),
            "shared memory": name,
            "sysv": sysv,
            "disks": [str(path) for path in Path("/dev").glob("vd?")],
            "groups": own_groups(),
            "processes": PROCESSES,
            "memory": MEMORY,
            "disk": DISK,
        }


def own_groups() -> list[str]:
    """Where a process would have to write to be in this process's control groups again."""
    return [str(hierarchy.group / "cgroup.procs") for hierarchy in mounted()]


def in_folder_of(file: Path) -> int:
    """A process that is in the folder of that file, by whatever path."""
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if file.samefile(f"/proc/{pid}/cwd/{file.name}"):
                return int(pid)
    raise LookupError(f"no process is in the folder of {file}")


def alive(mark: str) -> list[str]:
    """Processes that have it in their command line."""
    found = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            if mark.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
        except OSError:
            continue
    return found
