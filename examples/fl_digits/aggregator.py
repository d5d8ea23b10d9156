"""FedAvg (McMahan et al., 2017): the mean of the models, weighted by samples."""

from manta.light import Task


class Aggregator(Task):
    def run(self):
        trained = self.world.results.select("trained").values()
        total = sum(update["samples"] for update in trained)
        self.world.globals["model"] = {
            name: sum(update["model"][name] * (update["samples"] / total) for update in trained)
            for name in self.world.globals["model"]
        }
        self.logger.info("averaged %d models over %d samples", len(trained), total)
