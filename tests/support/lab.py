"""A manager in the background and its users, by commands."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from manta.apis.connect import profiles
from tests.support.ports import free_ports


def manta(
    *arguments: object, said: object = "", **environment: object
) -> subprocess.CompletedProcess[str]:
    kept = {
        key: value
        for key, value in os.environ.items()
        if key == "MANTA_HOME" or not key.startswith("MANTA_")
    }
    return subprocess.run(
        [sys.executable, "-m", "manta", *map(str, arguments)],
        env={**kept, **{key: str(value) for key, value in environment.items()}},
        input=str(said),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


class Lab:
    """A manager in the background, started and used by commands; its first user is signed in."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.ports = free_ports()
        self.users = self.ports[1]

    def __call__(self, *arguments: object, **environment: object) -> str:
        done = self.attempt(*arguments, **environment)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def attempt(
        self, *arguments: object, said: object = "", **environment: object
    ) -> subprocess.CompletedProcess[str]:
        where = {"MANTA_HOME": self.home, "MANTA_PORT": self.users}
        return manta(*arguments, said=said, **{**where, **environment})

    def start(self, *, background: bool = True) -> subprocess.CompletedProcess[str]:
        names = ("--node-port", "--user-port", "--bulk-port")
        where = [part for pair in zip(names, self.ports, strict=True) for part in pair]
        more = ["--background"] if background else []
        return self.attempt("manager", "start", "--host", "127.0.0.1", *where, *more)

    def sign_in(self, said: str) -> None:
        (password,) = re.findall(r"password\s+(\S+)", said)
        admin = ("--email", "admin@localhost", "--password-stdin")
        done = self.attempt("sign-in", *admin, said=password)
        assert done.returncode == 0, done.stderr

    @property
    def token(self) -> str:
        token = profiles.load_token(self.home, "default", {})
        assert token is not None
        return token

    def key(self) -> str:
        return str(json.loads((self.home / "manager" / "manager.json").read_text())["public_key"])
