"""A Slurm of one machine, as Debian's packages have it, without systemd."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.support.ports import free_ports

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scancel", "squeue", "sinfo")
PATIENCE = 60.0
_CONF = """\
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmctldPort={controller}
SlurmdPort={daemon}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
KillWait=5
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} State=UNKNOWN
PartitionName=all Nodes={host} Default=YES State=UP
"""


def lacking() -> str:
    """Why there is none; "" where there can be."""
    if os.getuid() != 0:
        return "Slurm's daemons need root"
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    return f"{missing[0]} is not installed (apt-get install slurm-wlm munge)" if missing else ""


class Slurm:
    def __init__(self, folder: Path) -> None:
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}

    def __call__(self, *command: object, **environment: str) -> str:
        """Runs one of Slurm's commands, and returns what it prints."""
        done = subprocess.run(
            [*map(str, command)],
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
            env={**self.environment, **environment},
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout.strip()


@contextmanager
def slurm(folder: Path) -> Iterator[Slurm]:
    controller, daemon = free_ports(2)
    for name in ("munge", "state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge" / "key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o400)
    munge = ["munged", "--foreground", "--force", f"--key-file={key}"]
    munge += [f"--{name}-file={folder}/munge/{name}" for name in ("pid", "log", "seed")]
    text = _CONF.format(
        host=os.uname().nodename.partition(".")[0],
        controller=controller,
        daemon=daemon,
        folder=folder,
        cores=os.cpu_count(),
    )
    (folder / "slurm.conf").write_text(text)
    made = Slurm(folder)
    with ExitStack() as undo:
        for command in (
            [*munge, f"--socket={folder}/munge/socket"],
            ["slurmctld", "-D"],
            ["slurmd", "-D"],
        ):
            log = undo.enter_context((folder / f"{command[0]}.out").open("wb"))
            process = subprocess.Popen(command, stdout=log, stderr=log, env=made.environment)
            undo.callback(process.wait)
            undo.callback(process.terminate)
        deadline = time.monotonic() + PATIENCE
        while "idle" not in _state(made):
            assert time.monotonic() < deadline, (folder / "slurmctld.out").read_text()
            time.sleep(0.1)
        yield made


def _state(made: Slurm) -> str:
    try:
        return made("sinfo", "--noheader", "--format=%t")
    except AssertionError:
        return ""  # it is yet to answer
