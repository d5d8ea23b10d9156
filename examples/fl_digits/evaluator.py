"""Accuracy of the averaged model on the part of each shard that was held out."""

import mlp

from manta.light import Task


class Evaluator(Task):
    def run(self):
        shard = self.local.get_dataset("digits")
        accuracy = mlp.accuracy(self.world.globals["model"], shard["x_test"], shard["y_test"])
        self.world.results.add("evaluated", {"accuracy": accuracy, "samples": len(shard["y_test"])})
        self.world.log_metrics({"accuracy": accuracy})
