"""Trains the global model on this node's own shard."""

import mlp

from manta.light import Task


class Worker(Task):
    def run(self):
        shard = self.local.get_dataset("digits")
        model = mlp.train(
            self.world.globals["model"], shard["x_train"], shard["y_train"], epochs=2, rate=0.1
        )
        self.world.results.add("trained", {"model": model, "samples": len(shard["y_train"])})
