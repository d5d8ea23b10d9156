"""FedAvg without training: what a round costs when the tasks themselves cost nothing."""

import numpy as np

from manta import Module, Swarm, Task

WORKER = """
from manta.light import World

def main():
    world = World()
    model = world.globals["model"]
    model += world.rank + 1  # as after training: no two nodes' bytes are the same
    world.results.add("trained", model)
"""

AGGREGATOR = """
from manta.light import World

def main():
    world = World()
    trained = list(world.results.select("trained").values())
    mean = trained[0].copy()
    for model in trained[1:]:
        mean += model
    mean /= len(trained)
    world.globals["model"] = mean
"""

EVALUATOR = """
from manta.light import World

def main():
    world = World()
    world.results.add("evaluated", float(world.globals["model"][0]))
"""

SCHEDULER = """
from manta.light import World

def main():
    World().results.select("evaluated")
"""


class Round(Swarm):
    """`megabytes` of float32 model; `stages` 2 (workers, aggregator) or 4, as in fl_digits."""

    name = "round"

    def __init__(self, megabytes: float = 0.4, rounds: int = 21, stages: int = 2) -> None:
        super().__init__(max_iteration=rounds, seed=1)
        noise = np.random.default_rng().standard_normal(int(megabytes * 1e6 / 4), np.float32)
        self.set_global("model", noise)  # weights do not compress, and nobody has them already
        self.stages = stages
        self.worker = Task(Module(WORKER, name="worker"), method="all")
        self.aggregator = Task(Module(AGGREGATOR, name="aggregator"), method="any")
        if stages == 4:
            self.evaluator = Task(Module(EVALUATOR, name="evaluator"), method="all")
            self.scheduler = Task(Module(SCHEDULER, name="scheduler"), method="any")

    def execute(self) -> Task:
        averaged = self.aggregator(self.worker())
        if self.stages == 2:
            return averaged
        return self.scheduler(self.evaluator(averaged))
