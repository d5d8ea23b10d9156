"""Several peers of one script on this machine: `manta mesh run`."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import IO

from manta.mesh import settings
from manta.mesh.faults import Faults

PORTS = 3
"""That a peer takes: the door, links, and bulk."""
ENDING = 10.0
"""Seconds that peers have to end after a signal, before they are killed."""


class Run:
    """`say` is called with the name of a peer and each line that it prints, one at a time."""

    def __init__(
        self,
        script: str,
        arguments: Sequence[str],
        count: int,
        topology: str,
        say: Callable[[str, str], None],
        faults: Faults | None = None,
    ) -> None:
        """Begins the peers. Raises OSError."""
        self._say = say
        self._saying = threading.Lock()
        self._readers: list[threading.Thread] = []
        self._peers: list[subprocess.Popen[bytes]] = []
        door = f"{settings.LOOPBACK}:{_free_port()}"
        told = {
            settings.SECRET: secrets.token_urlsafe(24),
            settings.SIZE: str(count),
            settings.TOPOLOGY: topology,
            "PYTHONUNBUFFERED": "1",
        }
        if faults is not None:
            told[settings.FAULTS] = json.dumps(faults.form())
        try:
            for number in range(count):
                own = {settings.LISTEN: door} if number == 0 else {settings.PEERS: door}
                name = f"peer-{number}"
                self._begin(name, [script, *arguments], {**told, **own, settings.NAME: name})
        except BaseException:
            self.end(signal.SIGKILL)
            raise

    def _begin(self, name: str, command: Sequence[str], told: dict[str, str]) -> None:
        kept = {key: value for key, value in os.environ.items() if key not in settings.ALL}
        peer = subprocess.Popen(
            [sys.executable, *command],
            env={**kept, **told},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._peers.append(peer)
        assert peer.stdout is not None
        reader = threading.Thread(target=self._read, args=(name, peer.stdout), daemon=True)
        self._readers.append(reader)
        reader.start()

    def _read(self, name: str, stream: IO[bytes]) -> None:
        with stream:
            for line in stream:
                with self._saying:
                    self._say(name, line.decode("utf-8", "replace").rstrip("\r\n"))

    def wait(self) -> int:
        """Until all have ended: returns the first exit code, by their numbers, that is not 0; of
        one that a signal ended 128 and the signal's number."""
        codes = [peer.wait() for peer in self._peers]
        for reader in self._readers:
            reader.join()
        return next((code if code > 0 else 128 - code for code in codes if code), 0)

    def end(self, signum: int) -> None:
        """Passes a signal on, and waits until all have ended."""
        for peer in self._peers:
            peer.send_signal(signum)
        for peer in self._peers:
            try:
                peer.wait(ENDING)
            except subprocess.TimeoutExpired:
                peer.kill()
                peer.wait()


def _free_port() -> int:
    """One with the next ones free as well."""
    while True:
        with socket.create_server((settings.LOOPBACK, 0)) as found:
            port: int = found.getsockname()[1]
            if port + PORTS <= 65_536 and all(_is_free(port + n) for n in range(1, PORTS)):
                return port


def _is_free(port: int) -> bool:
    try:
        socket.create_server((settings.LOOPBACK, port)).close()
    except OSError:
        return False
    return True
