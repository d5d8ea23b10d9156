"""Bytes between two processes with nothing around them: `bare.py KIND ADDRESS RANK MEMBERS`.

KIND is `tcp`, a plain stream over loopback, or `curve`, a pair of pyzmq's sockets with CURVE. The
first sends; what the other receives by TCP ends up in one array, by CURVE in frames of 1 MiB.
"""

from __future__ import annotations

import socket
import sys
import time
from typing import Any

import numpy as np
import zmq

from tests.benchmarks.data_plane.members.control import Job, Member, serve

FRAME = 1 << 20


class Echoing(Member):
    """Sends messages of known sizes there and back."""

    def send(self, message: bytes) -> None:
        raise NotImplementedError

    def receive(self, size: int) -> bytes:
        raise NotImplementedError

    def trip(self) -> list[float]:
        samples = []
        if self.rank:
            for _ in range(self.job.times):
                self.send(self.receive(self.job.size))
            return []
        for message in self.given:
            begin = time.perf_counter()
            self.send(message)
            self.receive(self.job.size)
            samples.append(time.perf_counter() - begin)
        return samples


class Tcp(Echoing):
    def hello(self) -> dict[str, Any]:
        if self.rank:
            return {}
        self.listener = socket.create_server(("127.0.0.1", 0))
        return {"port": self.listener.getsockname()[1]}

    def meet(self, told: dict[str, Any]) -> None:
        if self.rank:
            self.stream_socket = socket.create_connection(("127.0.0.1", told["port"]))
        else:
            self.stream_socket, _ = self.listener.accept()
        self.stream_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def prepare(self, job: Job) -> None:
        super().prepare(job)
        if self.rank and job.operation == "stream":
            self.outcome = np.ones(job.size // 4, np.float32)

    def send(self, message: bytes) -> None:
        self.stream_socket.sendall(message)

    def receive(self, size: int) -> bytes:
        return self.stream_socket.recv(size, socket.MSG_WAITALL)

    def stream(self) -> None:
        for _ in range(self.job.times):
            if self.rank:
                left = memoryview(self.outcome).cast("B")
                while left and (got := self.stream_socket.recv_into(left)):
                    left = left[got:]
            else:
                self.stream_socket.sendall(self.given)
                self.outcome = self.given


class Curve(Echoing):
    def hello(self) -> dict[str, Any]:
        self.context = zmq.Context()
        self.pair = self.context.socket(zmq.DEALER)
        if self.rank:
            return {}
        public, self.pair.curve_secretkey = zmq.curve_keypair()
        self.pair.curve_server = True
        return {"port": self.pair.bind_to_random_port("tcp://127.0.0.1"), "key": public.decode()}

    def meet(self, told: dict[str, Any]) -> None:
        if self.rank:
            self.pair.curve_publickey, self.pair.curve_secretkey = zmq.curve_keypair()
            self.pair.curve_serverkey = told["key"].encode()
            self.pair.connect(f"tcp://127.0.0.1:{told['port']}")
            self.pair.send(b"here")
        else:
            self.pair.recv()

    def send(self, message: bytes) -> None:
        self.pair.send(message)

    def receive(self, size: int) -> bytes:
        return self.pair.recv()

    def stream(self) -> None:
        for _ in range(self.job.times):
            if self.rank:
                left = self.job.size
                while left:
                    left -= len(self.pair.recv(copy=False).buffer)
            else:
                whole = memoryview(self.given).cast("B")
                for at in range(0, len(whole), FRAME):
                    self.pair.send(whole[at : at + FRAME], copy=False)


def main(kind: str, address: str, rank: str, members: str) -> None:
    member = {"tcp": Tcp, "curve": Curve}[kind](int(rank), int(members))
    serve(address, member)


if __name__ == "__main__":
    main(*sys.argv[1:])
