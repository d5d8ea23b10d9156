"""Asks back to back: between threads, and between two processes over CURVE.

Goals: a local ask takes 50 us at most; a remote one at most 2.5 times a bare pyzmq round trip
over CURVE, measured in turns with it in the same run.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import msgspec
import zmq

from manta.actors import Actor, ActorSystem, ChildSpec
from manta.actors.process import prepare_process
from manta.transports.security.admission import Admission
from manta.transports.security.keys import KeyPair
from manta.transports.zeromq.transport import ZmqTransport

ROUNDS, ASKS = 7, 2_000


class Pong(msgspec.Struct, frozen=True):
    number: int


class Ping(msgspec.Struct, frozen=True, tag=True):
    number: int
    reply: ClassVar[type] = Pong


class Echo(Actor):
    accepts = Ping

    def receive(self, message: Any) -> Any:
        return Pong(message.number)


def serve_bare(secret: str, _: str) -> None:
    key = KeyPair.from_secret(secret)
    router = zmq.Context().socket(zmq.ROUTER)
    router.curve_server = True
    router.curve_publickey, router.curve_secretkey = key.public.encode(), key.secret.encode()
    port = router.bind_to_random_port("tcp://127.0.0.1")
    print(f"tcp://127.0.0.1:{port}", flush=True)
    while True:
        router.send_multipart(router.recv_multipart())


def serve_actor(secret: str, client: str) -> None:
    system = ActorSystem("echo", transport=ZmqTransport(KeyPair.from_secret(secret)))
    system.spawn(ChildSpec("echo", Echo))
    listener = system.listen("tcp://127.0.0.1:0", Admission([client]), published=["echo"])
    print(listener.address, flush=True)
    sys.stdin.read()
    system.stop()


@contextmanager
def server(kind: str, key: KeyPair, client: KeyPair) -> Iterator[str]:
    code = (
        f"from manta.actors.process import prepare_process; prepare_process(); "
        f"from tests.benchmarks import ask_round_trip as bench; "
        f"bench.serve_{kind}({key.secret!r}, {client.public!r})"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


def timed(call: Callable[[int], Any]) -> list[float]:
    """Seconds of each call."""
    times = []
    for number in range(ASKS):
        start = time.perf_counter()
        call(number)
        times.append(time.perf_counter() - start)
    return times


def report(name: str, times: list[float], bare: float | None = None) -> None:
    times = sorted(times)
    median, mean = statistics.median(times), statistics.fmean(times)
    p95 = times[int(len(times) * 0.95)]
    ratio = f", {median / bare:.2f} times the bare one" if bare else ""
    print(
        f"{name}: median {median * 1e6:.0f} us, mean {mean * 1e6:.0f} us, "
        f"p95 {p95 * 1e6:.0f} us{ratio}"
    )


def main() -> None:
    prepare_process()
    here, there = KeyPair.generate(), KeyPair.generate()
    local: list[float] = []
    bare: list[float] = []
    remote: list[float] = []
    with (
        server("bare", there, here) as bare_address,
        server("actor", there, here) as address,
        ActorSystem("bench", transport=ZmqTransport(here)) as system,
        zmq.Context() as context,
        context.socket(zmq.DEALER) as dealer,
    ):
        dealer.curve_serverkey = there.public.encode()
        dealer.curve_publickey = here.public.encode()
        dealer.curve_secretkey = here.secret.encode()
        dealer.connect(bare_address)
        body = msgspec.msgpack.encode(Ping(1))

        def bare_ask(_: int) -> None:
            dealer.send(body)
            dealer.recv()

        near = system.spawn(ChildSpec("echo", Echo))
        far = system.dial(address, there.public).wait_up(timeout=10).ref("echo")
        calls: list[tuple[list[float], Callable[[int], Any]]] = [
            (local, lambda number: near.ask(Ping(number), timeout=5)),
            (bare, bare_ask),
            (remote, lambda number: far.ask(Ping(number), timeout=5)),
        ]
        for _, call in calls:
            timed(call)
        for _ in range(ROUNDS):
            for times, call in calls:
                times += timed(call)
    report("ask between threads", local)
    report("bare pyzmq over CURVE", bare)
    report("ask between processes over CURVE", remote, statistics.median(bare))


if __name__ == "__main__":
    main()
