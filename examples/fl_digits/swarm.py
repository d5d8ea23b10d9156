"""Federated learning of handwritten digits: the data stay on their nodes, the model travels."""

import mlp

from manta import Module, Swarm, Task


class FLDigits(Swarm):
    name = "fl_digits"

    def __init__(self, rounds: int = 30, target: float = 0.965, hidden: int = 128) -> None:
        super().__init__(max_iteration=rounds, seed=7)
        self.set_global("model", mlp.create(inputs=64, hidden=hidden, classes=10, seed=7))
        self.set_global("target", target)
        digits = {"include": ["mlp.py"], "datasets": ["digits"]}
        self.worker = Task(Module("worker.py", **digits), method="all")
        self.aggregator = Task(Module("aggregator.py"), method="any")
        self.evaluator = Task(Module("evaluator.py", **digits), method="all")
        self.scheduler = Task(Module("scheduler.py"), method="any")

    def execute(self) -> Task:
        trained = self.worker()
        averaged = self.aggregator(trained)
        evaluated = self.evaluator(averaged)
        return self.scheduler(evaluated)
