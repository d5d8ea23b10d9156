"""Nodes take what they can carry: manta run examples/adaptive/swarm.py --nodes 3"""

from manta import Module, Swarm, Task

WORKER = """
from manta.light import Task

WORK = 3000

class Worker(Task):
    def run(self):
        resources = self.local.get_resources()
        quality = self.local.get_network_quality()
        samples = round(WORK * self.world.share)  # by measured speed, from the second iteration on
        if resources.available_memory < 100 * 2**20:
            samples //= 2
        precision = "float32" if quality > 0.5 else "float16"  # less to send over a bad line
        total = sum(number * number for number in range(samples))
        self.world.results.add("part", {"samples": samples, "precision": precision})
        self.world.log_metrics({"samples": samples, "quality": quality})
        return total
"""


class Adaptive(Swarm):
    name = "adaptive"

    def __init__(self, rounds: int = 3) -> None:
        super().__init__(max_iteration=rounds)
        self.worker = Task(Module(WORKER, name="worker"))
