r"""Four hospitals learn one diagnosis, and no patient's record leaves its hospital.

python examples/hospitals/make_shards.py
manta run examples/hospitals/swarm.py --nodes 4 \
    --dataset patients='examples/hospitals/shards/{i}.npz'
"""

import numpy as np

from manta import Module, Task
from manta.federated import FederatedSwarm
from manta.light.federated import FedAvg, Strategy

WORKER = Module("worker.py", datasets="patients", include="logistic.py")


class Hospitals(FederatedSwarm):
    def __init__(self, rounds: int = 15, strategy: Strategy | None = None) -> None:
        super().__init__(
            worker=Task(WORKER, class_name="Worker"),
            evaluate=Task(WORKER, class_name="Evaluator", alias="evaluator"),
            strategy=strategy or FedAvg(),
            model={"w": np.zeros(30), "b": np.zeros(())},
            rounds=rounds,
            min_clients=3,
        )
