"""Units of systemd that run a node: for the machine, as some user, or for a user's own manager.

A node makes control groups for its tasks (Delegate), and sandboxes with namespaces of their own: so
units leave namespaces, /proc, /sys and the host's name as they are (systemd.exec(5)), which a
sandbox that is made within would otherwise lack, and take from the daemon what no runner needs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from manta.node.daemon.places import config_of, home
from manta.node.errors import OperatorError
from manta.transports.errors import remedied

_SYSTEM = Path("/etc/systemd/system")
_RUNS = Path("/run/systemd/system")
_PATIENCE = 30.0

_TEXT = """\
# Written by `manta_node service install`, which replaces it.
[Unit]
Description=Manta node {name}
{after}
[Service]
{user}ExecStart={command} start {name}
ExecReload={command} reload {name}
{environment}EnvironmentFile=-{variables}
Restart=on-failure
RestartSec=5
# Denied, refused, or a problem of this machine: starting again does not help.
RestartPreventExitStatus=6 8 11
SuccessExitStatus=143
KillMode=mixed
TimeoutStopSec=40
# Tasks have control groups of their own.
Delegate=yes
UMask=0077
NoNewPrivileges=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
{hardened}
[Install]
WantedBy={target}
"""
_HARDENED = """\
CapabilityBoundingSet=
ProtectSystem=full
ProtectKernelModules=yes
KeyringMode=private
"""


class Unit(NamedTuple):
    """`user`: as whom it runs; none for a unit of the calling user's own manager."""

    node: str
    user: str = ""

    @property
    def name(self) -> str:
        return f"manta-node-{self.node}.service"

    @property
    def path(self) -> Path:
        if self.user:
            return _SYSTEM / self.name
        configured = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
        return Path(configured) / "systemd" / "user" / self.name

    @property
    def text(self) -> str:
        """Raises OperatorError."""
        is_root = self.user == "root"
        network = "Wants=network-online.target\nAfter=network-online.target\n"
        places = {name: os.environ[name] for name in ("MANTA_HOME",) if name in os.environ}
        return _TEXT.format(
            name=self.node,
            command=_command(),
            after=network if self.user else "",
            user=f"User={self.user}\n" if self.user else "",
            environment="".join(
                f'Environment="{name}={_escaped(value)}"\n' for name, value in places.items()
            ),
            variables=_escaped(str(home() / "nodes" / f"{self.node}.env")),
            # A daemon that is root needs what root may: its tasks give that up themselves.
            hardened=_HARDENED if self.user and not is_root else "",
            target="multi-user.target" if self.user else "default.target",
        )


def install(unit: Unit) -> None:
    """Writes the unit, and has systemd, where it runs, start it with the machine or the session.

    Raises ConfigError for a node without a valid configuration, OperatorError.
    """
    config_of(unit.node)
    text = unit.text
    try:
        unit.path.parent.mkdir(parents=True, exist_ok=True)
        draft = unit.path.with_suffix(".new")
        draft.write_text(text, encoding="utf-8")
        os.replace(draft, unit.path)
    except OSError as error:
        raise OperatorError(
            f"{unit.path} cannot be written: {remedied(error)}; as another user than root, leave "
            "--system out."
        ) from error
    if runs():
        _systemctl(unit, "daemon-reload")
        _systemctl(unit, "enable", unit.name)


def uninstall(unit: Unit) -> bool:
    """Stops the service and removes its unit; whether there was one. Raises OperatorError."""
    if not unit.path.exists():
        return False
    if runs():
        _systemctl(unit, "disable", "--now", unit.name)
    try:
        unit.path.unlink()
    except OSError as error:
        raise OperatorError(f"{unit.path} cannot be removed: {remedied(error)}.") from error
    if runs():
        _systemctl(unit, "daemon-reload")
    return True


def state(unit: Unit) -> str:
    """What systemd says of it (active, inactive, failed, ...); "" where it does not run."""
    if not runs() or not unit.path.exists():
        return ""
    return _systemctl(unit, "is-active", unit.name, fails=False)


def runs() -> bool:
    """Whether systemd manages this machine (sd_booted(3))."""
    return _RUNS.is_dir() and shutil.which("systemctl") is not None


def _systemctl(unit: Unit, *arguments: str, fails: bool = True) -> str:
    command = ["systemctl", *(() if unit.user else ("--user",)), *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_PATIENCE, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise OperatorError(f"`{' '.join(command)}` could not be run: {error}.") from error
    if done.returncode and fails:
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise OperatorError(f"`{' '.join(command)}` failed: {said.rstrip('.')}.")
    return done.stdout.strip()


def _command() -> str:
    """This installation's `manta_node`, as ExecStart has it."""
    script = Path(sys.executable).with_name("manta_node")
    words = [str(script)] if script.exists() else [sys.executable, "-m", "manta.node.command"]
    return " ".join(f'"{_escaped(word)}"' if " " in word else _escaped(word) for word in words)


def _escaped(text: str) -> str:
    """Raises OperatorError for what no line of a unit can hold."""
    if "\n" in text:
        raise OperatorError(f"{text!r} has a line break, which no unit can name: move it.")
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
