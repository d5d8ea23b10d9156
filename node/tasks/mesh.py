"""The processes by which attempts are peers of a mesh (`Mesh.join` in a task).

A peer's process is that of `manta.mesh.peer`, a plane with keys of its own. It ends with the
socket that the attempt is given. What it may use is the node's to say: where it listens, which
hosts it may connect to (the swarm's nodes), and where it keeps what does not fit into memory.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from manta.node.peers.listening import PeerSocket
from manta.node.shared.context import NodeContext
from manta.node.task_server import requests as light
from manta.node.task_server.messages import Descriptor
from manta.protocol.base import Instance
from manta.transports.addresses import split_address
from manta.transports.errors import remedied

MOST = 4
"""Peers' processes of one runtime at a time."""
MEMORY = 1 << 30
"""Bytes of values that one keeps in memory at most."""


class TaskMesh:
    """Of the attempts of one runtime."""

    def __init__(self, context: NodeContext) -> None:
        self._context = context
        self._processes: list[subprocess.Popen[bytes]] = []

    def open(self, request: light.Request) -> None:
        listening = self._context.peer_socket
        if listening is None:
            sentence = (
                "There can be no mesh on this node: no other can connect to it, as its operator "
                'has set peers.listen to "off". Have that changed, or run the task on other nodes.'
            )
            request.reply.fail("RequestFailed", sentence)
            return
        self._processes = [one for one in self._processes if one.returncode is None]
        if len(self._processes) >= MOST:
            sentence = f"This task is in {MOST} meshes already: leave one before it joins another."
            request.reply.fail("ResourceExhaustionError", sentence)
            return
        try:
            request.reply.set(self._begin(request.instance, listening))
        except (OSError, RuntimeError) as error:
            why = remedied(error) if isinstance(error, OSError) else str(error)
            sentence = f"The node could not begin a peer of a mesh: {why}."
            request.reply.fail("ResourceExhaustionError", sentence)

    def _begin(self, at: Instance, listening: PeerSocket) -> Descriptor:
        """Raises OSError, RuntimeError."""
        context = self._context
        folder = Path(tempfile.mkdtemp(prefix="mesh-", dir=context.state.tasks))
        place: dict[str, Any] = {
            "folder": str(folder),
            "memory": min(MEMORY, context.value_memory),
            "listen": listening.host,
            "advertised": _hosts(listening.addresses),
            "hosts": [
                host
                for peer in context.peers.directories.peers(at.swarm_id)
                for host in _hosts(peer.addresses)
            ],
        }
        ours, theirs = socket.socketpair()
        # So that the peer learns from the system which process the attempt is.
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        try:
            with theirs:
                process = subprocess.Popen(
                    [
                        *(sys.executable, "-P", "-m", "manta.mesh.peer"),
                        *(str(theirs.fileno()), json.dumps(place)),
                    ],
                    stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
            threading.Thread(target=_reap, args=(process, folder), daemon=True).start()
        except BaseException:
            ours.close()
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self._processes.append(process)
        return Descriptor(ours.detach())


def _reap(process: subprocess.Popen[bytes], folder: Path) -> None:
    process.wait()
    shutil.rmtree(folder, ignore_errors=True)


def _hosts(addresses: Iterable[str]) -> list[str]:
    return [split_address(one)[0] for one in addresses]
