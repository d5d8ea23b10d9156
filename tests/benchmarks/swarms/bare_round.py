"""The bytes of one FedAvg round over bare pyzmq with CURVE: `bare_round.py MEGABYTES NODES ROUNDS`.

One server process and as many clients as nodes, each a process: the model to each client
in 1 MiB frames, and back from each, of fresh random bytes made before the clock starts. Prints the
seconds of each round but the first, as JSON.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time

import zmq

CHUNK = 1 << 20


def client(port: int, server_key: bytes, size: int, rounds: int) -> None:
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
        socket.curve_serverkey = server_key
        socket.connect(f"tcp://127.0.0.1:{port}")
        socket.send(b"")
        for _ in range(rounds):
            socket.recv()
            trained = memoryview(os.urandom(size))
            socket.send(b"")
            got = 0
            while got < size:
                got += len(socket.recv(copy=False).buffer)
            for start in range(0, size, CHUNK):
                socket.send(trained[start : start + CHUNK], copy=False)


def main(megabytes: float, nodes: int, rounds: int) -> None:
    size = int(megabytes * 1e6)
    context = zmq.Context()
    socket = context.socket(zmq.ROUTER)
    public, secret = zmq.curve_keypair()
    socket.curve_server, socket.curve_secretkey = True, secret
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    start = multiprocessing.get_context("spawn")
    clients = [
        start.Process(target=client, args=(port, public, size, rounds)) for _ in range(nodes)
    ]
    for process in clients:
        process.start()
    peers = [socket.recv_multipart()[0] for _ in clients]
    seconds = []
    for _ in range(rounds):
        model = memoryview(os.urandom(size))
        for peer in peers:
            socket.send_multipart([peer, b""])
        for _ in peers:
            socket.recv_multipart()
        began = time.perf_counter()
        for start_at in range(0, size, CHUNK):
            for peer in peers:
                socket.send_multipart([peer, model[start_at : start_at + CHUNK]], copy=False)
        got = 0
        while got < nodes * size:
            got += len(socket.recv_multipart(copy=False)[1].buffer)
        seconds.append(time.perf_counter() - began)
    for process in clients:
        process.join()
    context.destroy(linger=0)
    print(json.dumps(seconds[1:]))


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
