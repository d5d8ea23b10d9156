"""What this machine is, and what its kernel has to isolate tasks with."""

from __future__ import annotations

import contextlib
import platform
from pathlib import Path

from manta.node.isolation import landlock

PROC, SYS = Path("/proc"), Path("/sys")


def processor() -> str:
    """Its model, as the kernel names it; else its architecture."""
    with contextlib.suppress(OSError):
        for line in (PROC / "cpuinfo").read_text(errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() in ("model name", "Model", "Hardware"):
                return value.strip()[:100]
    return platform.machine()


def security() -> tuple[str, ...]:
    """Features of the kernel, in words."""
    found = []
    if version := landlock.available():
        found.append(f"landlock {version}")
    if (PROC / "sys/kernel/seccomp/actions_avail").exists():
        found.append("seccomp")
    if _number(PROC / "sys/user/max_user_namespaces") and _number(
        PROC / "sys/kernel/unprivileged_userns_clone", 1
    ):
        limited = _number(PROC / "sys/kernel/apparmor_restrict_unprivileged_userns")
        found.append("user namespaces" + (" (of programs that AppArmor lets)" if limited else ""))
    if (SYS / "fs/cgroup/cgroup.controllers").exists():
        found.append("cgroups v2")
    elif (SYS / "fs/cgroup/memory").exists():
        found.append("cgroups v1")
    with contextlib.suppress(OSError):
        modules = (SYS / "kernel/security/lsm").read_text().split(",")
        found += [name for name in ("selinux", "apparmor") if name in modules]
    return tuple(found)


def _number(path: Path, otherwise: int = 0) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return otherwise
