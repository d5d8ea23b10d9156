"""Several peers of one script on this machine: `manta mesh run`.

Each peer has two processes, that of the script and one beside it. The latter are begun together,
by a process that also ends the scripts where this one is killed (`peer.several`), and each script
finds the socket to its own in its environment.
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
from manta.mesh.settings import PORTS
from manta.transports.addresses import join_host, resolve, split_host

if TYPE_CHECKING:
    from manta.mesh.faults import Faults

LAST_PORT = 65_535
_PORTS, _TRIES = range(16_384, 32_768), 1000
_LOOPBACKS = {"0.0.0.0": settings.LOOPBACK, "::": "::1"}
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
        listen: str = settings.LOOPBACK,
    ) -> None:
        """Begins the peers. `listen` is a host, or HOST:PORT: the first of the ports of all of
        them. Raises OSError, and ValueError where it can't be."""
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
                self._begin([script, *arguments], _places(listen, count), told, undo)
        except BaseException:
            self.end(signal.SIGKILL)
            raise

    def _begin(
        self, command: list[str], places: list[str], all_told: dict[str, str], undo: ExitStack
    ) -> None:
        """Of each peer there is the place where it listens. What `undo` closes is the children's
        by then."""
        secret = os.environ.get(settings.SECRET) or secrets.token_urlsafe(24)
        names = [f"peer-{number}" for number in range(len(places))]
        told = {
            **all_told,
            settings.SECRET: secret,
            settings.SIZE: str(len(places)),
            settings.RUN: self._folder,
            "PYTHONUNBUFFERED": "1",
        }
        outs = [self._pipe(name, undo) for name in names]
        pairs = [socket.socketpair() for _ in names]
        for ours, theirs in pairs:
            undo.enter_context(ours)
            undo.enter_context(theirs)
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)  # see peer.watching
        self._begin_beside([theirs.fileno() for _, theirs in pairs], outs, secret)
        for number, (name, out) in enumerate(zip(names, outs, strict=True)):
            fd = pairs[number][0].fileno()
            own = {settings.LISTEN: places[number]}
            if number:
                own[settings.PEERS] = _near(places[0])
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
            [sys.executable, "-P", "-m", "manta.mesh.peer.several", self._folder, places],
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # it starts threads where it is loaded
            stdin=subprocess.PIPE,
            pass_fds=[*fds, *outs],
            start_new_session=True,
        )
        assert self._beside.stdin is not None
        self._beside.stdin.write(f"{json.dumps(secret)}\n".encode())
        self._beside.stdin.flush()

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
        beside, self._beside = self._beside, None
        if beside is not None:
            beside.communicate(b"\n")
        shutil.rmtree(self._folder, ignore_errors=True)


def _places(listen: str, count: int) -> list[str]:
    """Where each peer listens. Raises OSError, ValueError."""
    host, first = split_host(listen.removesuffix(":0"))
    if why := _obstacle(host, 0):
        raise OSError(f"no peer can listen at {host}: {why}; choose another host.")
    if first is None:  # the others look for their own
        return [join_host(host, _free_port(host)), *[host] * (count - 1)]
    if first + count * PORTS - 1 > LAST_PORT:
        raise ValueError(
            f"{count} peers take {PORTS} ports each, and ports end at {LAST_PORT}: choose a first "
            f"one up to {LAST_PORT + 1 - count * PORTS}"
        )
    for port in range(first, first + count * PORTS):
        if why := _obstacle(host, port):
            raise OSError(
                f"no peer can listen at {join_host(host, port)}: {why}; {count} peers take {PORTS} "
                f"ports each, {first} to {first + count * PORTS - 1}: choose another first one, or "
                "none for free ones."
            )
    return [join_host(host, first + number * PORTS) for number in range(count)]


def _near(place: str) -> str:
    """The same place as this machine dials it."""
    host, port = split_host(place)
    return join_host(_LOOPBACKS.get(host, host), port or 0)


def _free_port(host: str) -> int:
    """One with the next ones free as well, of those that the system gives to nobody who connects,
    or asks for any port: they are still free when the peer binds them. Raises OSError."""
    for _ in range(_TRIES):
        port = _PORTS[0] + secrets.randbelow(len(_PORTS) - PORTS)
        if not any(_obstacle(host, port + number) for number in range(PORTS)):
            return port
    raise OSError(
        f"{_TRIES} ports of {host} from {_PORTS[0]} to {_PORTS[-1]} were tried, and none has "
        f"{PORTS - 1} free ones after it: end what listens there, or listen at another host."
    )


def _obstacle(host: str, port: int) -> str:
    """Why this machine can't listen there; "" if it can."""
    try:
        found = resolve(host)[0]
        family = socket.AF_INET6 if ":" in found else socket.AF_INET
        socket.create_server((found, port), family=family).close()
    except OSError as error:
        return (error.strerror or str(error)).partition(" (while ")[0]  # Python repeats where
    return ""
