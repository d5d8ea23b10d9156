"""Round trip of a 100-byte message over a link, against bare pyzmq with CURVE, two processes.

The link's caller is a plain thread that waits for the handler on the I/O thread;
target for a whole `ask` of an actor, which builds on it: 2.5 times bare."""

from __future__ import annotations

import multiprocessing
import statistics
import threading
import time
from multiprocessing.connection import Connection
from typing import Any

import zmq

from manta.actors.process import prepare_process
from manta.transports.security.admission import Admission
from manta.transports.security.keys import KeyPair
from manta.transports.zeromq.transport import ZmqTransport

MESSAGE = b"x" * 100
WARMUP = 300
ROUNDS = 2000
RUNS = 5


class Echo:
    """Sends back what comes."""

    def link_up(self, link: Any) -> None: ...
    def link_down(self, link: Any, reason: Any) -> None: ...

    def received(self, link: Any, message: Any) -> None:
        link.send(message)


class Waiter:
    """Wakes who waits for the answer."""

    def __init__(self) -> None:
        self.up = threading.Event()
        self.answered = threading.Lock()
        self.answered.acquire()

    def link_up(self, link: Any) -> None:
        self.up.set()

    def link_down(self, link: Any, reason: Any) -> None: ...

    def received(self, link: Any, message: Any) -> None:
        self.answered.release()


def serve(pipe: Connection, server: KeyPair, client_key: str) -> None:
    """Both servers: the bare one answers on this thread, the link's on its I/O thread."""
    prepare_process()
    transport = ZmqTransport(server)
    listener = transport.listen("tcp://127.0.0.1:0", Echo(), Admission([client_key]))
    context = zmq.Context()
    router = context.socket(zmq.ROUTER)
    router.linger = 0
    router.curve_server = True
    router.curve_secretkey = server.secret.encode()
    port = router.bind_to_random_port("tcp://127.0.0.1")
    pipe.send((listener.address, f"tcp://127.0.0.1:{port}"))
    while True:
        frames = router.recv_multipart()
        if frames[-1] == b"":
            break
        router.send_multipart(frames)
    router.close()
    context.term()
    transport.close()


def main() -> None:
    prepare_process()
    server, client = KeyPair.generate(), KeyPair.generate()
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=serve, args=(theirs, server, client.public))
    process.start()
    link_address, bare_address = ours.recv()

    context = zmq.Context()
    dealer = context.socket(zmq.DEALER)
    dealer.linger = 0
    dealer.curve_serverkey = server.public.encode()
    dealer.curve_publickey = client.public.encode()
    dealer.curve_secretkey = client.secret.encode()
    dealer.connect(bare_address)
    transport = ZmqTransport(client)
    waiter = Waiter()
    link = transport.dial(link_address, server.public, waiter)
    waiter.up.wait(10)

    def bare() -> None:
        dealer.send(MESSAGE)
        dealer.recv()

    def linked() -> None:
        link.send([MESSAGE])
        waiter.answered.acquire()

    ratios = []
    for _ in range(RUNS):  # in turns, so that both see the same machine
        a, b = _median(bare), _median(linked)
        ratios.append(b / a)
        print(f"bare {a * 1e6:.0f} us, link {b * 1e6:.0f} us, ratio {b / a:.2f}")
    print(f"ratio, median of {RUNS}: {statistics.median(ratios):.2f}")

    dealer.send(b"")
    process.join()
    dealer.close(1000)
    context.term()
    transport.close()


def _median(trip: Any) -> float:
    times = []
    for round in range(WARMUP + ROUNDS):
        start = time.perf_counter()
        trip()
        if round >= WARMUP:
            times.append(time.perf_counter() - start)
    return statistics.median(times)


if __name__ == "__main__":
    main()
