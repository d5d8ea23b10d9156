"""What a task is told of the link to the manager, over a relay that delays and stalls."""

from __future__ import annotations

import json
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable

import pytest

QUALITY = """
from manta.light import Local

def main():
    return Local().get_network_quality()
"""


class Relay:
    """Bytes between a node and its manager, `delay` seconds later each way.

    Each tenth piece that comes from the node waits `stall` seconds more, and what follows
    behind it, as after a lost packet.
    """

    def __init__(self, target: tuple[str, int], delay: float, stall: float) -> None:
        self._target = target
        self._delay = delay
        self._stall = stall
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self._closed = threading.Event()
        self._threads = [threading.Thread(target=self._serve, daemon=True)]
        self._threads[0].start()

    def _serve(self) -> None:
        while not self._closed.is_set():
            if not select.select([self._server], [], [], 0.05)[0]:
                continue
            node, _ = self._server.accept()
            manager = socket.create_connection(self._target)
            thread = threading.Thread(target=self._carry, args=(node, manager), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _carry(self, node: socket.socket, manager: socket.socket) -> None:
        ways = {node: manager, manager: node}
        waiting: dict[socket.socket, deque[tuple[float, bytes]]] = {s: deque() for s in ways}
        for one in ways:
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pieces = 0
        with node, manager:
            while not self._closed.is_set():
                due = min((queue[0][0] for queue in waiting.values() if queue), default=None)
                rest = 0.05 if due is None else max(0.0, min(0.05, due - time.monotonic()))
                for one in select.select(list(ways), [], [], rest)[0]:
                    try:
                        data = one.recv(65536)
                    except ConnectionError:
                        return
                    if not data:
                        return
                    at = time.monotonic() + self._delay
                    if one is node:
                        pieces += 1
                        at += self._stall if pieces % 10 == 0 else 0.0
                    queue = waiting[one]
                    queue.append((max(at, queue[-1][0] if queue else 0.0), data))
                for one, queue in waiting.items():
                    while queue and queue[0][0] <= time.monotonic():
                        try:
                            ways[one].sendall(queue.popleft()[1])
                        except OSError:
                            return

    def close(self) -> None:
        self._closed.set()
        for thread in self._threads:
            thread.join(60)
        self._server.close()


@pytest.fixture
def through(lab) -> Callable[..., float]:
    def measure(delay: float = 0.0, stall: float = 0.0) -> float:
        port = int(lab.file.nodes.rpartition(":")[2])
        relay = Relay(("127.0.0.1", port), delay, stall)
        lab.undo.callback(relay.close)
        lab.node(1, network={"manager_port": relay.port})
        return output(lab)

    return measure


def output(lab) -> float:
    api = lab.api()
    swarm_id = lab.run(api, lab.swarm(QUALITY))
    [task] = api.get_tasks(swarm_id)
    json.dumps(task.output)  # a plain number
    return task.output


def test_on_loopback_it_is_good(lab) -> None:
    lab.node(1)
    assert 0.8 < output(lab) <= 1


def test_a_relay_that_does_nothing_is_good(through: Callable[..., float]) -> None:
    assert 0.8 < through() <= 1


def test_300_ms_are_poor(through: Callable[..., float]) -> None:
    assert 0 < through(delay=0.15) < 0.5


def test_every_tenth_message_lost_is_poor(through: Callable[..., float]) -> None:
    assert 0 < through(stall=0.3) < 0.5
