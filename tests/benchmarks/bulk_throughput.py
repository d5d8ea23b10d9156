"""Blobs over CURVE against bare pyzmq CURVE, in one run: 8 processes, 10 MiB each way.

Each peer pushes a blob of its own to one process, then all fetch one blob from it; the
blobs are random, kept in memory, and checked by digest. Bare is a ROUTER and 8 DEALERs
that move the same bytes in frames of 1 MiB, sent and received without copies, and looks
at none of them. Connections are up before the clock starts.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import zmq

from manta.transports.blobs.memory_depot import MemoryDepot
from manta.transports.bulk.curve import CurveBulk
from manta.transports.bulk.options import Verdict
from manta.transports.security.admission import Admission
from manta.transports.security.keys import KeyPair

PEERS = 8
SIZE = 10 << 20
FRAME = 1 << 20
RUNS = 16


def bulk_peer(pipe: Connection, address: str, server_key: str, secret: str) -> None:
    depot = MemoryDepot(4 * SIZE)
    bulk = CurveBulk(KeyPair.from_secret(secret), depot)
    peer = bulk.dial(address, server_key)
    small = depot.put(os.urandom(16))
    peer.push(small, 16, timeout=60).result()
    digest = ""
    while True:
        pipe.send(digest)
        command, argument = pipe.recv()
        if command == "stop":
            break
        if command == "prepare":
            depot.close()
            digest = depot.put(os.urandom(SIZE))
        elif command == "push":
            peer.push(digest, SIZE, timeout=60).result()
        else:
            peer.fetch(argument, SIZE, timeout=60).result()
    bulk.close()
    depot.close()


def bare_peer(pipe: Connection, address: str, server_key: str, secret: str) -> None:
    keys = KeyPair.from_secret(secret)
    context = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.curve_publickey, socket.curve_secretkey = keys.public.encode(), keys.secret.encode()
    socket.curve_serverkey = server_key.encode()
    socket.connect(address)
    socket.send(b"hello")
    socket.recv()
    data = os.urandom(FRAME)
    while True:
        pipe.send("")
        command, _ = pipe.recv()
        if command == "stop":
            break
        if command == "push":
            for _ in range(SIZE // FRAME):
                socket.send(data, copy=False)
            socket.recv()
        elif command == "fetch":
            socket.send(b"fetch")
            left = SIZE
            while left:
                left -= len(socket.recv(copy=False))
    context.destroy(linger=0)


class Peers:
    """The other processes, all told the same."""

    def __init__(self, target: Callable[..., None], address: str, key: str, secrets: list[str]):
        spawn = multiprocessing.get_context("spawn")
        self.pipes = []
        self.processes = []
        for secret in secrets:
            here, there = spawn.Pipe()
            process = spawn.Process(target=target, args=(there, address, key, secret))
            process.start()
            there.close()
            self.pipes.append(here)
            self.processes.append(process)

    def wait(self) -> None:
        for pipe in self.pipes:
            pipe.recv()

    def tell(self, command: str, argument: str = "") -> None:
        for pipe in self.pipes:
            pipe.send((command, argument))

    def stop(self) -> None:
        self.tell("stop")
        for process in self.processes:
            process.join()


class Rig:
    """One side that is measured, with its peers."""

    def __init__(self) -> None:
        self.keys = [KeyPair.generate() for _ in range(PEERS)]
        self.secrets = [pair.secret for pair in self.keys]
        self.own = KeyPair.generate()
        self.pushes: list[float] = []
        self.fetches: list[float] = []


class BulkRig(Rig):
    def __init__(self) -> None:
        super().__init__()
        self.depot = MemoryDepot(2 * PEERS * SIZE)
        self.bulk = CurveBulk(self.own, self.depot)
        admission = Admission([pair.public for pair in self.keys])
        address = self.bulk.listen("tcp://127.0.0.1:0", admission, lambda *_: Verdict.GRANTED)
        self.peers = Peers(bulk_peer, address, self.own.public, self.secrets)
        self.peers.wait()

    def run(self) -> None:
        self.peers.tell("prepare")
        self.peers.wait()
        self.depot.close()
        model = self.depot.put(os.urandom(SIZE))
        for times, command in ((self.pushes, "push"), (self.fetches, "fetch")):
            start = time.perf_counter()
            self.peers.tell(command, model)
            self.peers.wait()
            times.append(time.perf_counter() - start)

    def stop(self) -> None:
        self.peers.stop()
        self.bulk.close()
        self.depot.close()


class BareRig(Rig):
    def __init__(self, io_threads: int) -> None:
        super().__init__()
        self.context = zmq.Context(io_threads)
        self.router = router = self.context.socket(zmq.ROUTER)
        router.curve_publickey = self.own.public.encode()
        router.curve_secretkey = self.own.secret.encode()
        router.curve_server = 1
        port = router.bind_to_random_port("tcp://127.0.0.1")
        address = f"tcp://127.0.0.1:{port}"
        self.peers = Peers(bare_peer, address, self.own.public, self.secrets)
        self.routes = []
        for _ in range(PEERS):
            route, _hello = router.recv_multipart()
            self.routes.append(route)
            router.send_multipart([route, b""])
        self.peers.wait()
        self.data = os.urandom(FRAME)

    def run(self) -> None:
        router = self.router
        start = time.perf_counter()
        self.peers.tell("push")
        left = PEERS * SIZE
        while left:
            left -= len(router.recv_multipart(copy=False)[1])
        for route in self.routes:
            router.send_multipart([route, b""])
        self.peers.wait()
        self.pushes.append(time.perf_counter() - start)
        start = time.perf_counter()
        self.peers.tell("fetch")
        for _ in self.routes:
            router.recv_multipart()
        for _ in range(SIZE // FRAME):
            for route in self.routes:
                router.send(route, zmq.SNDMORE)
                router.send(self.data, copy=False)
        self.peers.wait()
        self.fetches.append(time.perf_counter() - start)

    def stop(self) -> None:
        self.peers.stop()
        self.context.destroy(linger=0)


def main() -> None:
    bulk = BulkRig()
    bare = {"bare, 1 I/O thread": BareRig(1), "bare, 2 I/O threads": BareRig(2)}
    rigs: dict[str, BulkRig | BareRig] = {**bare, "manta": bulk}
    for _ in range(RUNS):  # in turns, since the machine's load changes
        for rig in rigs.values():
            rig.run()
    for rig in rigs.values():
        rig.stop()
    total = PEERS * SIZE / 1e6
    print(f"{'MB/s, median':24}{'push':>8}{'fetch':>8}")
    for name, rig in rigs.items():
        push, fetch = statistics.median(rig.pushes[1:]), statistics.median(rig.fetches[1:])
        print(f"{name:24}{total / push:8.0f}{total / fetch:8.0f}")
    for name, other in bare.items():
        ratios = [
            (push + fetch) / (bare_push + bare_fetch)
            for push, fetch, bare_push, bare_fetch in zip(
                bulk.pushes, bulk.fetches, other.pushes, other.fetches, strict=True
            )
        ][1:]
        print(
            f"manta takes {statistics.median(ratios):.2f} times as long as {name}, push and fetch"
        )


if __name__ == "__main__":
    main()
