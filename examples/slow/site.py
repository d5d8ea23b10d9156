"""Rank 0 has the model, and the others train: with or without waiting for the slowest."""

import time
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

import numpy as np
import softmax

from manta.light import Task, federated

ENOUGH = 0.9
"""The accuracy at which it ends."""
PAUSE, SLOW = 0.02, 10
"""Seconds that each takes longer than this training would, and how many times that the last one."""


class Site(Task):
    def run(self):
        self.digits = self.local.get_dataset("digits")
        self.world.barrier()  # all are there
        if self.world.rank:
            self.train()
        else:
            self.serve()

    def train(self):
        world, server = self.world, self.world.peers[0]
        x, y = self.digits["x_train"], self.digits["y_train"]
        pause = PAUSE * (SLOW if world.rank == world.size - 1 else 1)
        while (given := world.receive_from_node(server, "model")) is not None:
            client = federated.FedBuff(buffer_size=1).client(given["model"], given["state"])
            trained = softmax.train(client.params, x, y, steps=1, rate=0.5)
            time.sleep(pause)
            world.send_to_node(server, "update", client.finish(trained).update)
        world.send_to_node(server, "update", None)

    def serve(self):
        world = self.world
        clients, arrived = world.peers[1:], SimpleQueue()

        def listen(client):
            while (update := world.receive_from_node(client, "update")) is not None:
                arrived.put((client, update))

        together = world.globals["together"]
        strategy = federated.FedBuff(buffer_size=len(clients) if together else 2)
        model, state = {"w": np.zeros((64, 10)), "b": np.zeros(10)}, None
        began, curve, free = time.monotonic(), [], list(clients)
        with ThreadPoolExecutor(len(clients)) as pool:
            for client in clients:
                pool.submit(listen, client)
            while not curve or curve[-1][1] < ENOUGH:
                round = strategy.start(model, state)
                while not round.is_full:
                    for client in free:
                        world.send_to_node(client, "model", {"model": model, "state": state})
                    client, update = arrived.get()
                    round.add(client.node_alias, update)
                    free = [] if together else [client]
                model, state = round.finish()[:2]
                free = list(clients) if together else free
                right = softmax.accuracy(model, self.digits["x_test"], self.digits["y_test"])
                curve.append((time.monotonic() - began, right))
            for client in clients:
                world.send_to_node(client, "model", None)
        world.results.add("curve", curve)
