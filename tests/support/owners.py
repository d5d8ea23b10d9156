"""An owner of a node with a policy, and who deploys to it, by commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from blake3 import blake3

from manta.testing import wait_until
from tests.support.lab import Lab

SWARM = '''
from manta import Module, Swarm, Task

CODE = """
from manta.light import Local, World

def main():
    rows = Local().get_dataset("ward")
    world = World()
    world.results.add("total", float(rows.sum()))
    {more}
"""

class Study(Swarm):
    """Sums of the ward's table, for the yearly report."""

    def __init__(self) -> None:
        super().__init__()
        self.only = Task(Module(CODE, name="sums", datasets=["ward"]), datasets=["ward"])
'''


class Owner:
    """A lab whose node `ward` has a policy; commands as its owner gives them."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab, self.folder = lab, folder
        self.policy = folder / "policy.toml"

    @property
    def digest(self) -> str:
        """Of the ward's data."""
        return blake3((self.folder / "ward.npy").read_bytes()).hexdigest()

    def describe(self, version: str) -> None:
        """The node's configuration says this of the ward's data."""
        path = self.lab.home / "nodes" / "ward.toml"
        said = f"""
[[dataset]]
name = "ward"
path = "{self.folder / "ward.npy"}"
rows = 6
digest = "{self.digest}"
version = "{version}"
"""
        path.write_text(path.read_text().partition("\n[[dataset]]")[0] + said)

    def attempt(self, *words: object, token: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "manta.node.command", *map(str, words)],
            env={**os.environ, "MANTA_HOME": str(self.lab.home), "MANTA_NODE_TOKEN": token},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def __call__(self, *words: object, token: str = "") -> str:
        done = self.attempt(*words, token=token)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def deploy(self, more: str = "") -> str:
        """The id of a swarm whose code ends with this line."""
        (self.folder / "swarm.py").write_text(SWARM.replace("{more}", more or "pass"))
        sent = self.lab("deploy", "--cluster", "lab", "--json", self.folder / "swarm.py")
        return str(json.loads(sent)["swarm_id"])

    def swarm(self, id_: str) -> dict[str, Any]:
        [found] = [one for one in json.loads(self.lab("ps", "--json")) if one["swarm_id"] == id_]
        return dict(found)

    def waits(self) -> list[dict[str, Any]]:
        return [one for one in json.loads(self("approve", "ward", "--json")) if one["waiting"]]

    def asked(self, id_: str) -> dict[str, Any]:
        """The request of a swarm, once its code is here."""

        def shown() -> dict[str, Any] | None:
            for one in self.waits():
                if one["swarm_id"] == id_:
                    found = json.loads(self("approve", "ward", one["request"], "--json"))
                    return dict(found) if found["found"] else None
            return None

        return dict(wait_until(shown))

    def ended(self, id_: str) -> dict[str, Any]:
        def over() -> dict[str, Any] | None:
            found = self.swarm(id_)
            return found if found["status"] not in ("ACTIVE", "PENDING") else None

        return dict(wait_until(over))

    def running(self) -> list[dict[str, Any]]:
        told = json.loads(self("who", "ward", "--json"))
        return [one for one in told if one["status"] == "RUNNING"]

    def acts(self) -> list[dict[str, Any]]:
        lines = self("audit", "export", "ward").splitlines()
        return [json.loads(line) for line in lines]
