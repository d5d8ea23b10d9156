r"""Eight nodes learn digits together, and two of them lie.

python examples/liars/make_shards.py
manta run examples/liars/swarm.py --nodes 8 -p rule=median \
    --dataset digits='examples/liars/shards/{i}.npz'
"""

import numpy as np

from manta import Module, Task
from manta.federated import FederatedSwarm
from manta.light.federated import FedAvg, Krum, Median, TrimmedMean

RULES = {
    "fedavg": FedAvg(),
    "median": Median(),
    "trimmed mean": TrimmedMean(trim=2),
    "krum": Krum(byzantine=2),
}
MODEL = {"w": np.zeros((64, 10)), "b": np.zeros(10)}
ROUNDS = 8
WORKER = Module("worker.py", datasets="digits", include="softmax.py")


class Liars(FederatedSwarm):
    def __init__(self, rule: str = "median", liars: int = 2, rounds: int = ROUNDS) -> None:
        super().__init__(
            worker=Task(WORKER, class_name="Worker"),
            evaluate=Task(WORKER, class_name="Evaluator", alias="evaluator"),
            strategy=RULES[rule],
            model=MODEL,
            rounds=rounds,
            min_clients=8,
        )
        self.set_global("liars", liars)
