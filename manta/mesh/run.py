"""Several peers of one script on this machine: `manta mesh run`.

Each peer has two processes, that of the script and one beside it. The latter are begun together
(`peer.several`), and each script finds the socket to its own in its environment.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import IO, TYPE_CHECKING

from manta.mesh import settings

if TYPE_CHECKING:
    from manta.mesh.faults import Faults

PORTS = 3
"""That a peer takes: the door, links, and bulk."""
_PORTS, _TRIES = range(16_384, 32_768), 1000
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
        self._beside: subprocess.Popen[bytes] | None = None
        self._folder = tempfile.mkdtemp(prefix="manta-mesh-")
        try:
            with ExitStack() as undo:
                told = {settings.TOPOLOGY: topology}
                if faults is not None:
                    told[settings.FAULTS] = json.dumps(faults.form())
                self._begin([script, *arguments], count, told, undo)
        except BaseException:
            self.end(signal.SIGKILL)
            raise

    def _begin(
        self, command: list[str], count: int, all_told: dict[str, str], undo: ExitStack
    ) -> None:
        """What `undo` closes is the children's by then."""
        door = f"{settings.LOOPBACK}:{_free_port()}"
        secret = secrets.token_urlsafe(24)
        names = [f"peer-{number}" for number in range(count)]
        told = {
            **all_told,
            settings.SECRET: secret,
            settings.SIZE: str(count),
            "PYTHONUNBUFFERED": "1",
        }
        outs = [self._pipe(name, undo) for name in names]
        pairs = [socket.socketpair() for _ in names]
        for ours, theirs in pairs:
            undo.enter_context(ours)
            undo.enter_context(theirs)
        self._begin_beside([theirs.fileno() for _, theirs in pairs], outs, secret)
        for number, (name, out) in enumerate(zip(names, outs, strict=True)):
            fd = pairs[number][0].fileno()
            own = {settings.LISTEN: door} if number == 0 else {settings.PEERS: door}
            given = {**told, **own, settings.NAME: name, settings.FD: str(fd)}
            kept = {key: value for key, value in os.environ.items() if key not in settings.ALL}
            peer = subprocess.Popen(
                [sys.executable, *command],
                env={**kept, **given},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
                pass_fds=[fd],
            )
            self._peers.append(peer)

    def _begin_beside(self, fds: list[int], outs: list[int], secret: str) -> None:
        folders = [os.path.join(self._folder, str(number)) for number in range(len(fds))]
        places = json.dumps(list(zip(fds, outs, folders, strict=True)))
        self._beside = subprocess.Popen(
            [sys.executable, "-P", "-m", "manta.mesh.peer.several", places],
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # it starts threads where it is loaded
            stdin=subprocess.PIPE,
            pass_fds=[*fds, *outs],
            start_new_session=True,
        )
        assert self._beside.stdin is not None
        with self._beside.stdin as stream:
            stream.write(secret.encode())

    def _pipe(self, name: str, undo: ExitStack) -> int:
        """Where a peer writes, which is read from now on."""
        ours, theirs = os.pipe()
        undo.callback(os.close, theirs)
        reader = threading.Thread(
            target=self._read, args=(name, os.fdopen(ours, "rb")), daemon=True
        )
        self._readers.append(reader)
        reader.start()
        return theirs

    def _read(self, name: str, stream: IO[bytes]) -> None:
        with stream:
            for line in stream:
                with self._saying:
                    self._say(name, line.decode("utf-8", "replace").rstrip("\r\n"))

    def wait(self) -> int:
        """Until all have ended: returns the first exit code, by their numbers, that is not 0; of
        one that a signal ended 128 and the signal's number."""
        codes = [peer.wait() for peer in self._peers]
        self._finish()
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
        self._finish()

    def _finish(self) -> None:
        """Those beside the scripts end after these, whose sockets are closed then."""
        if self._beside is not None:
            self._beside.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


def _free_port() -> int:
    """One with the next ones free as well, of those that the system gives to nobody who connects,
    or asks for any port: they are still free when the peer binds them. Raises OSError."""
    for _ in range(_TRIES):
        port = _PORTS[0] + secrets.randbelow(len(_PORTS) - PORTS)
        if all(_is_free(port + number) for number in range(PORTS)):
            return port
    raise OSError(
        f"{_TRIES} ports of this machine from {_PORTS[0]} to {_PORTS[-1]} were tried, and none has "
        f"{PORTS - 1} free ones after it: end what listens there."
    )


def _is_free(port: int) -> bool:
    try:
        socket.create_server((settings.LOOPBACK, port)).close()
    except OSError:
        return False
    return True
