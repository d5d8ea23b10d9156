"""The messages and syncs of a stage without data: `bare_stage.py NODES ROUNDS`.

One server process and as many clients, each a process, over bare pyzmq with CURVE. The server notes
an order on disk and sends it to each; each notes it on disk and answers; the server notes that.
In half of the stages it is one client only, as a stage on any node is. Prints the median seconds of
a stage over both kinds, for each round but the first, as JSON.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import tempfile
import time

import zmq

ENTRY = os.urandom(200)
"""About what an order, or the news of an end, takes."""


def note(file: int) -> None:
    os.write(file, ENTRY)
    os.fdatasync(file)


def client(port: int, server_key: bytes) -> None:
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
        socket.curve_serverkey = server_key
        socket.connect(f"tcp://127.0.0.1:{port}")
        socket.send(b"ready")
        with tempfile.TemporaryFile(buffering=0) as file:
            while socket.recv():
                note(file.fileno())
                socket.send(ENTRY)


def main(nodes: int, rounds: int) -> None:
    context = zmq.Context()
    socket = context.socket(zmq.ROUTER)
    public, secret = zmq.curve_keypair()
    socket.curve_server, socket.curve_secretkey = True, secret
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    spawn = multiprocessing.get_context("spawn")
    clients = [spawn.Process(target=client, args=(port, public)) for _ in range(nodes)]
    for process in clients:
        process.start()
    peers = [socket.recv_multipart()[0] for _ in clients]
    seconds = []
    with tempfile.TemporaryFile(buffering=0) as file:
        for _ in range(rounds):
            began = time.perf_counter()
            for chosen in (peers, peers[:1]):
                note(file.fileno())
                for peer in chosen:
                    socket.send_multipart([peer, ENTRY])
                for _ in chosen:
                    socket.recv_multipart()
                note(file.fileno())
            seconds.append((time.perf_counter() - began) / 2)
    for peer in peers:
        socket.send_multipart([peer, b""])
    for process in clients:
        process.join()
    context.destroy(linger=0)
    print(json.dumps(seconds[1:]))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
