"""What runs at each hospital: training on its own patients, and a test on those held out."""

import logistic

from manta.light import federated


class Worker(federated.Worker):
    def setup(self):
        self.patients = self.local.get_dataset("patients")

    def train(self, client):
        x, y = self.patients["x_train"], self.patients["y_train"]
        trained = logistic.train(
            client.params, x, y, steps=5, rate=0.2, correction=client.correction
        )
        return federated.Trained(trained, examples=len(y), steps=5, learning_rate=0.2)


class Evaluator(federated.Evaluator):
    def evaluate(self, params):
        patients = self.local.get_dataset("patients")
        x, y = patients["x_test"], patients["y_test"]
        return federated.Evaluated({"accuracy": logistic.accuracy(params, x, y)}, examples=len(y))
