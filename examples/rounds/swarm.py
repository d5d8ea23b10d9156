"""A schedule, and objects that live on: manta run examples/rounds/swarm.py --nodes 3"""

from manta import Module, Swarm, Task

WORKER = """
import random
from manta.light import Task

class Worker(Task):
    def setup(self):
        self.position = random.uniform(-10, 10)
        self.rounds = 0

    def execute(self):
        center = self.world.globals.get("center", 0.0)
        self.position += (center - self.position) / 2
        self.rounds += 1
        self.world.results.add("position", self.position)
        self.world.results.add("rounds", self.rounds)
"""

AGGREGATOR = """
from manta.light import Task

class Aggregator(Task):
    def run(self):
        positions = self.world.get_results("position")
        center = sum(positions) / len(positions)
        spread = max(positions) - min(positions)
        self.world.globals["center"] = center
        self.world.log_metrics({"center": center, "spread": spread})
        self.world.results.add("spread", spread)
"""


class Rounds(Swarm):
    name = "rounds"

    def __init__(self, rounds: int = 10) -> None:
        super().__init__(seed=1)
        self.worker = Task(Module(WORKER, name="worker"))
        self.aggregator = Task(Module(AGGREGATOR, name="aggregator"), method="any")
        self.schedule = [("worker", "parallel"), ("aggregator", "sequential")] * rounds
