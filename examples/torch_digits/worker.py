"""Trains on this node's digits, and averages the models by all_reduce: no aggregator."""

import torch
from sklearn.datasets import load_digits

from manta.light import Task


def digits(rank, size):
    """This rank's own part, and the tenth that nobody trains on."""
    data = load_digits()
    x = torch.tensor(data.data / 16.0, dtype=torch.float32)
    y = torch.tensor(data.target)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    test, train = order[: len(y) // 10], order[len(y) // 10 :][rank::size]
    return x[train], y[train], x[test], y[test]


class Worker(Task):
    def setup(self):
        torch.set_num_threads(1)
        torch.manual_seed(0)  # all begin alike
        self.model = torch.nn.Sequential(
            torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10)
        )
        self.data = digits(self.world.rank, self.world.size)

    def execute(self):
        x, y, x_test, y_test = self.data
        optimizer = torch.optim.SGD(self.model.parameters(), lr=0.5)
        for _ in range(40):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(self.model(x), y).backward()
            optimizer.step()
        mean = self.world.all_reduce(dict(self.model.state_dict()), op="mean")
        self.model.load_state_dict(mean)
        right = (self.model(x_test).argmax(1) == y_test).float().mean().item()
        self.world.log_metrics({"accuracy": right})
        self.world.results.add("accuracy", right)
        if self.world.rank == 0:
            self.world.globals["model"] = mean
