"""The peer's process, where yours begins it."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import tempfile
from importlib.util import find_spec

from manta.mesh.errors import JoinFailed

NEEDED = ("cryptography", "numpy")
ENDING = 20.0
"""Seconds that it has to end."""


class PeerProcess:
    def __init__(self, theirs: socket.socket) -> None:
        """Hands that end of a socket pair over. Raises JoinFailed, OSError."""
        missing = [name for name in NEEDED if find_spec(name) is None]
        if missing:
            raise JoinFailed(
                f"A mesh needs {' and '.join(missing)}: pip install 'manta-swarm[node]'. In a "
                "task, join without listen, peers and secret: its node has what is needed."
            )
        self._folder = tempfile.mkdtemp(prefix="manta-mesh-")
        place = json.dumps({"folder": self._folder})
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "manta.mesh.peer", str(theirs.fileno()), place],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise

    def end(self) -> None:
        """Waits until it has ended, as it does once its socket is closed; else kills it."""
        try:
            self._process.wait(ENDING)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)
