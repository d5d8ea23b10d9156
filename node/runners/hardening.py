"""With what containers are made: the least that a task needs, at two levels.

`docker` is the engine's own runtime: namespaces, no capability, no new privileges, the filter of
system calls that all levels have, nothing to write but a scratch folder and a little memory, no
network, and limits. `gvisor` is the same in a kernel of its own, where the engine has gVisor's
runtime: a task's calls do not reach the machine's kernel.

Both are found by really starting something. There may be no image and no registry, so it is the
engine's own init, in an image of nothing.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import resource
import tarfile
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Final

import msgspec

from manta.node.errors import EngineError, LaunchError
from manta.node.isolation.limits import FILES, PROCESSES
from manta.node.isolation.profile import profile
from manta.node.runners.engine import Engine, Gone
from manta.protocol.isolation import GVISOR

if TYPE_CHECKING:
    from manta.node.outbound import Ways

TASKS_USER: Final = 65_532
"""Of tasks in containers of a node that is root; images without one call it `nonroot`."""

_NOTHING = "manta-nothing"
_INITS = {"docker": "/sbin/docker-init", "podman": "/run/podman-init"}
_PROBING_TIME = 20.0
_SOCKETS = {"--host-uds=open", "--host-uds=all", "--fsgofer-host-uds", "--fsgofer-host-uds=true"}
"""Flags of runsc by which a task may connect to a socket that is mounted, its node's."""
_TMP = 64 << 20  # bytes of /tmp, which is in memory: TMPDIR is the scratch folder
_OWN = re.compile(r"containers/([0-9a-f]{64})/")


class Hardening(msgspec.Struct, frozen=True):
    """What the engine of this machine has, and where it finds what the node names."""

    level: str
    filter: str
    """Of system calls: a profile in the engine's JSON."""
    runtime: str | None = None
    """What the engine calls that of gVisor; None for its own."""
    is_rootless: bool = False
    init: str = _INITS["docker"]
    mounted: Mapping[str, str] | None = None
    """Folders of the machine by where they are mounted in the node's own container; None for a node
    that is in none."""
    processes: int = PROCESSES
    """With threads, that a task may have."""

    @property
    def user(self) -> tuple[int, int]:
        """Whose processes tasks are: never root's, and what they leave is the node's to remove."""
        if self.is_rootless:  # whose root is the node's user to everybody else
            return 0, 0
        own = os.getuid(), os.getgid()
        return own if own[0] else (TASKS_USER, TASKS_USER)

    def give(self, scratch: Path) -> None:
        """Has a scratch folder be the task's. Raises OSError."""
        if not self.is_rootless and os.getuid() == 0:
            os.chown(scratch, *self.user)

    def may_read(self, path: Path) -> bool:
        """Whether a task may, as far as the node's user may; what lies above is not looked at."""
        if self.is_rootless or os.getuid() != 0:
            return True
        found = path.stat()
        wanted = 0o5 if path.is_dir() else 0o4
        return found.st_mode & wanted == wanted or found.st_uid == self.user[0]

    def outside(self, path: Path) -> str:
        """Where the engine finds a file or folder. Raises LaunchError."""
        at = path.resolve()
        if self.mounted is None:
            return str(at)
        for above in (at, *at.parents):
            if (source := self.mounted.get(str(above))) is not None:
                return str(PurePath(source, at.relative_to(above)))
        raise LaunchError(
            f"{at} is in the node's own container alone, and the engine can't mount it for a task: "
            f"start the node with a folder of the machine there (--volume FOLDER:{at})."
        )

    def host_config(
        self,
        client: Any,
        *,
        memory: int | None,
        cpu: float | None,
        is_runtime: bool = False,
        ways: Ways | None = None,
        **more: Any,
    ) -> dict[str, Any]:
        """All that holds for each container of a task. `memory`: bytes; `cpu`: cores.

        The first process is the engine's init, which hands on signals, and reaps orphans; but where
        another can't become the parent of orphans, a runtime, which does the same.
        """
        from docker.types import Ulimit

        half = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
        cores = None if cpu is None else max(0.01, min(cpu, os.cpu_count() or 1))
        files = min(FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1])  # where engines end, too
        found: dict[str, Any] = client.create_host_config(
            init=not (is_runtime and self.level == GVISOR),
            runtime=self.runtime,
            network_mode="none",
            ipc_mode="private",
            cap_drop=["ALL"],
            security_opt=["no-new-privileges:true", f"seccomp={self.filter}"],
            read_only=True,
            tmpfs={"/tmp": f"rw,nosuid,nodev,exec,mode=1777,size={_TMP}"},
            shm_size=memory or half,
            mem_limit=memory,
            memswap_limit=memory,
            nano_cpus=None if cores is None else int(cores * 1e9),
            pids_limit=self.processes,
            ulimits=[Ulimit(name="nofile", soft=files, hard=files), Ulimit(name="core", hard=0)],
            # In a network that is its own and leads nowhere, it listens where it will connect to.
            sysctls={"net.ipv4.ip_unprivileged_port_start": "0"} if ways else None,
            extra_hosts=ways.names if ways else None,
            **more,
        )
        return found


def find(wanted: str, state: Path | None = None) -> Hardening:
    """Starts a container at that level. `state`: a folder of the node's that tasks are given parts
    of. Raises LaunchError with the reason, without a full stop, where that does not work."""
    try:
        seccomp = profile(of_gvisor=wanted == GVISOR)
    except LookupError as error:
        raise LaunchError(str(error).rstrip(".")) from error
    engine = Engine()
    try:
        with engine.errors():
            told, parts = engine.client.info(), engine.client.version().get("Components") or []
        is_podman = any("podman" in part["Name"].lower() for part in parts)
        found = Hardening(
            wanted,
            seccomp,
            _gvisor(told.get("Runtimes") or {}) if wanted == GVISOR else None,
            any("rootless" in one for one in told.get("SecurityOptions") or ()),
            _INITS["podman" if is_podman else "docker"],
            _mounted(engine),
        )
        if state is not None:
            found.outside(state)
        _try(engine, found)
    except EngineError as error:
        why = str(error).rstrip(".")
        raise LaunchError(f"the container engine can't start a container ({why})") from error
    finally:
        engine.close()
    return found


def _gvisor(runtimes: Mapping[str, Any]) -> str:
    """What the engine calls it. Raises LaunchError."""
    for name, its in runtimes.items():
        if "runsc" not in (name, PurePath(its.get("path") or "").name):
            continue
        if not _SOCKETS & {*(its.get("runtimeArgs") or ())}:
            raise LaunchError(
                f'the container engine\'s runtime "{name}" lets no task connect to its node (add '
                '"--host-uds=open" to its runtimeArgs in /etc/docker/daemon.json, and restart the '
                "engine)"
            )
        return name
    raise LaunchError(
        'the container engine has no runtime "runsc" (install gVisor, and add it to '
        "/etc/docker/daemon.json)"
    )


def _mounted(engine: Engine) -> dict[str, str] | None:
    """Of this process's own container, if it is one of that engine's."""
    own = _OWN.search(Path("/proc/self/mountinfo").read_text("utf-8", "replace"))
    if own is None:
        return None
    try:
        with engine.errors():
            mounts = engine.client.inspect_container(own[1])["Mounts"]
    except Gone:
        return None
    return {each["Destination"]: each["Source"] for each in mounts if each.get("Source")}


def _try(engine: Engine, found: Hardening) -> None:
    """Raises EngineError, LaunchError."""
    client = engine.client
    with engine.errors():
        if not client.images(_NOTHING):
            empty = io.BytesIO()
            tarfile.open(fileobj=empty, mode="w").close()
            client.import_image_from_data(empty.getvalue(), repository=_NOTHING, tag="latest")
        made = client.create_container(
            _NOTHING,
            entrypoint=[found.init],
            command=["--version"],
            user=":".join(map(str, found.user)),
            host_config=found.host_config(client, memory=_TMP, cpu=None),
        )["Id"]
        try:
            client.start(made)
            code = client.wait(made, timeout=_PROBING_TIME)["StatusCode"]
            said = client.logs(made).decode(errors="replace").split("\n")[0]
        finally:
            with contextlib.suppress(Gone), engine.errors():
                client.remove_container(made, force=True, v=True)
    if code:
        raise LaunchError(f"what the container engine starts ends with code {code} ({said})")
