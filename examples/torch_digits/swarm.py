"""Federated learning with torch: manta run examples/torch_digits/swarm.py --nodes 3

It needs torch and scikit-learn where the nodes run; each node takes its own part of the digits.
"""

from manta import Module, Swarm, Task


class TorchDigits(Swarm):
    name = "torch_digits"

    def __init__(self, rounds: int = 5) -> None:
        super().__init__(max_iteration=rounds, seed=3)
        self.worker = Task(Module("worker.py"))

    def execute(self) -> Task:
        return self.worker()
