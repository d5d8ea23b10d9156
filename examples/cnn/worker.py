"""What runs on each node: a test of the global model on digits held out, and training on others."""

import torch
from network import network

from manta.light import federated
from manta.light.federated.adapters import from_torch, to_torch


class Worker(federated.Worker):
    def setup(self):
        torch.set_num_threads(1)
        self.digits = self.local.get_dataset("digits")
        self.model = network()

    def train(self, client):
        to_torch(self.model, client.params)
        accuracy = self.accuracy()
        x, y = self.images("train")
        self.model.train()
        optimizer = torch.optim.SGD(self.model.parameters(), lr=0.05, momentum=0.9)
        order = torch.Generator().manual_seed(self.world.iteration)
        for batch in torch.randperm(len(y), generator=order).split(32):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(self.model(x[batch]), y[batch]).backward()
            optimizer.step()
        trained = from_torch(self.model)
        return federated.Trained(trained, examples=len(y), metrics={"accuracy": accuracy})

    def accuracy(self):
        x, y = self.images("test")
        self.model.eval()
        with torch.no_grad():
            return (self.model(x).argmax(1) == y).float().mean().item()

    def images(self, part):
        x = torch.as_tensor(self.digits[f"x_{part}"], dtype=torch.float32)
        return x.reshape(-1, 1, 8, 8), torch.as_tensor(self.digits[f"y_{part}"])
