"""Descent with momentum kept on each node: manta run examples/stateful/swarm.py --nodes 3"""

from manta import Module, Swarm, Task

WORKER = """
import numpy as np
from manta.light import Task

class Worker(Task):
    def run(self):
        position = self.world.globals["position"]
        target = np.full(2, float(self.world.rank))  # what this node's data would ask for
        gradient = position - target
        velocity = 0.5 * self.local.get_state("velocity", default=np.zeros(2)) - 0.2 * gradient
        self.local.set_state("velocity", velocity)
        self.world.results.add("step", velocity)
"""

AGGREGATOR = """
import numpy as np
from manta.light import Task

class Aggregator(Task):
    def run(self):
        step = np.mean(self.world.get_results("step"), axis=0)
        position = self.world.globals["position"] + step
        self.world.globals["position"] = position
        self.world.log_metrics({"x": position[0], "y": position[1]})
"""


class Stateful(Swarm):
    """The velocity never leaves its node; only steps do."""

    name = "stateful"

    def __init__(self, rounds: int = 40) -> None:
        import numpy as np

        super().__init__(max_iteration=rounds)
        self.set_global("position", np.array([10.0, -10.0]))
        self.worker = Task(Module(WORKER, name="worker"))
        self.aggregator = Task(Module(AGGREGATOR, name="aggregator"), method="any")

    def execute(self) -> Task:
        return self.aggregator(self.worker())
