r"""Three nodes train a small convolutional network together, with PyTorch.

python examples/fl_digits/make_shards.py --nodes 3
manta run examples/cnn/swarm.py --nodes 3 \
    --dataset digits='examples/fl_digits/shards/node{i}.npz'
"""

import torch
from network import network

from manta import Module
from manta.federated import FederatedSwarm
from manta.light.federated import FedAvg, adapters

WORKER = Module("worker.py", datasets="digits", include="network.py")


class CNN(FederatedSwarm):
    def __init__(self, rounds: int = 12) -> None:
        torch.manual_seed(0)
        model = network()
        super().__init__(
            worker=WORKER,
            strategy=FedAvg(buffers=adapters.torch_buffers(model)),
            model=adapters.from_torch(model),
            rounds=rounds,
            min_clients=3,
        )
