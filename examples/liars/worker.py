"""What runs on each node: honest training, or, on some, a lie."""

import softmax

from manta.light import federated


def lied(start, trained):
    """The opposite of what was learned, ten times as far."""
    return {name: start[name] - 10 * (trained[name] - start[name]) for name in start}


class Worker(federated.Worker):
    def setup(self):
        self.digits = self.local.get_dataset("digits")

    def train(self, client):
        x, y = self.digits["x_train"], self.digits["y_train"]
        trained = softmax.train(client.params, x, y, steps=5, rate=0.5)
        if self.world.rank < self.world.globals["liars"]:
            trained = lied(client.params, trained)
        return federated.Trained(trained, examples=len(y))


class Evaluator(federated.Evaluator):
    def evaluate(self, params):
        digits = self.local.get_dataset("digits")
        right = softmax.accuracy(params, digits["x_test"], digits["y_test"])
        return federated.Evaluated({"accuracy": right}, examples=len(digits["y_test"]))
