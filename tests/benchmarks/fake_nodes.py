"""One manager with 1,000 nodes, which a single thread plays over as many connections of their own
keys: until all are registered, and what their heartbeats every 3 s cost the manager. Budgets: 5 s,
and 25 % of a core."""

from __future__ import annotations

import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import msgspec
import psutil
import zmq

from manta.actors import wire
from manta.manager import bootstrap
from manta.manager.cluster.lease import heartbeat_interval
from manta.manager.home import Home, ManagerFile, ManagerSettings
from manta.manager.store.sqlite import SqliteStore
from manta.protocol.node import Capabilities, Heartbeat, Load, Register
from manta.protocol.paths import GATEWAY
from manta.transports import frames
from manta.transports.frames import Hello, Kind, Limits
from manta.transports.security.keys import KeyPair
from manta.transports.zeromq.sockets import SocketFactory
from tests.benchmarks._measure import pss

NODES = 1000
HEARTBEAT_INTERVAL = heartbeat_interval(ManagerSettings().lease)
MEASURED = 30.0  # seconds
LIMITS = Limits()
_pack = msgspec.msgpack.Encoder().encode


class FakeNode:
    """One connection. It registers, answers pings, and sends heartbeats."""

    def __init__(self, context: Any, number: int, keys: KeyPair, server: ManagerFile) -> None:
        self.number = number
        factory = SocketFactory(context, keys)
        self.socket = factory.client(zmq.DEALER, server.public_key)
        factory.connect(self.socket, server.nodes.replace("0.0.0.0", "127.0.0.1"))
        self.registered = False
        self.version = 0
        self._ids = itertools.count(1)
        self._received = 0
        self.socket.send(frames.encode_hello(Hello(LIMITS, 1 << 22, 60_000)))

    def _ask(self, message: Any) -> None:
        body = msgspec.Raw(_pack(message))
        asked = wire.Ask(next(self._ids), GATEWAY, 0, 10.0, body)
        encoded, _ = frames.encode([wire.encode(asked)], LIMITS)
        self.socket.send_multipart(encoded)

    def beat(self) -> None:
        load = Load(cpu_usage=(time.monotonic() % 7) / 7, memory_available=8 << 30)
        self._ask(Heartbeat(self.version, load))

    def take(self) -> None:
        """Handles all that has come."""
        while self.socket.poll(0):
            parts: list[bytes] = self.socket.recv_multipart()
            head = frames.decode_head(parts[0], LIMITS)
            message = head.parts if head.parts is not None else parts[1:]
            match head.kind:
                case Kind.HELLO:
                    name = f"node-{self.number}"
                    self._ask(Register(name, Capabilities(hostname=name, cores=4)))
                case Kind.PING:
                    self.socket.send(frames.encode_pong(self._received))
                case Kind.BYE:
                    raise SystemExit(f"node {self.number} was turned away: {head.detail}")
                case Kind.DATA:
                    self._received += frames.cost(head.sizes)
                    self._heard(wire.decode(b"".join(message)))

    def _heard(self, said: wire.Wire) -> None:
        match said:
            case wire.Answer(body=body) if not self.registered:
                self.version = msgspec.msgpack.decode(body)["desired"]["version"]
                self.registered = True
            case wire.Failure():
                raise SystemExit(f"node {self.number} was refused: {said.sentence}")


def main() -> None:
    with ExitStack() as undo:
        folder = undo.enter_context(tempfile.TemporaryDirectory(prefix="manta-bench-"))
        home = Home(Path(folder) / "manager")
        home.path.mkdir(mode=0o700)
        keys = [KeyPair.generate() for _ in range(NODES)]
        with closing(SqliteStore(home.database)) as store:
            nodes = tuple(bootstrap.Node(f"node-{n}", pair.public) for n, pair in enumerate(keys))
            admin = bootstrap.Admin("me@localhost", KeyPair.generate().public)
            cluster = bootstrap.Cluster("lab")
            bootstrap.apply(store, bootstrap.Bootstrap(admin, cluster, nodes))
        manager = undo.enter_context(_manager(home))
        undo.callback(manager.terminate)
        file = _until(home.read_manager_file)
        context: Any = zmq.Context(io_threads=2)
        context.set(zmq.MAX_SOCKETS, NODES + 10)
        undo.callback(context.destroy, 0)
        process = psutil.Process(manager.pid)
        before = pss(manager.pid)

        began = time.perf_counter()
        fakes = [FakeNode(context, number, pair, file) for number, pair in enumerate(keys)]
        poller = zmq.Poller()
        by_socket = {fake.socket: fake for fake in fakes}
        for fake in fakes:
            poller.register(fake.socket, zmq.POLLIN)
        _serve(poller, by_socket, lambda: all(fake.registered for fake in fakes))
        took = time.perf_counter() - began
        print(f"{NODES} nodes are registered after {took:.1f} s")

        beats = _beats(fakes)
        _serve(poller, by_socket, lambda: False, HEARTBEAT_INTERVAL, beats)
        used, began = sum(process.cpu_times()[:2]), time.perf_counter()
        _serve(poller, by_socket, lambda: False, MEASURED, beats)
        share = (sum(process.cpu_times()[:2]) - used) / (time.perf_counter() - began)
        print(f"their heartbeats take {share:.0%} of a core")
        grown = (pss(manager.pid) - before) / NODES
        threads = process.num_threads()
        print(f"the manager has {threads} threads, and {grown / 1000:.0f} kB PSS for each node")


def _manager(home: Home) -> subprocess.Popen[bytes]:
    anywhere = "tcp://127.0.0.1:0"
    addresses = itertools.chain(*((f"--{name}", anywhere) for name in ("nodes", "users", "bulk")))
    command = [sys.executable, "-m", "manta.manager", "--home", str(home.path), *addresses]
    return subprocess.Popen([*command, "--log-level", "ERROR"], stdout=subprocess.DEVNULL)


def _until(read: Callable[[], ManagerFile | None]) -> ManagerFile:
    while (found := read()) is None:
        time.sleep(0.05)
    return found


def _beats(fakes: list[FakeNode]) -> Callable[[], None]:
    """Called often: sends each heartbeat in its time, spread over the interval."""
    due = time.monotonic()
    turn = itertools.cycle(fakes)

    def send() -> None:
        nonlocal due
        while due <= time.monotonic():
            next(turn).beat()
            due += HEARTBEAT_INTERVAL / NODES

    return send


def _serve(
    poller: zmq.Poller,
    fakes: dict[Any, FakeNode],
    done: Callable[[], bool],
    seconds: float = 60.0,
    also: Callable[[], None] = lambda: None,
) -> None:
    end = time.monotonic() + seconds
    while not done() and time.monotonic() < end:
        for socket, _ in poller.poll(20):
            fakes[socket].take()
        also()


if __name__ == "__main__":
    main()
