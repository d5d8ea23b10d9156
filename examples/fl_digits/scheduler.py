"""Asks for another iteration until the accuracy is good enough."""

from manta.light import Task


class Scheduler(Task):
    def run(self):
        evaluated = self.world.results.select("evaluated").values()
        total = sum(shard["samples"] for shard in evaluated)
        accuracy = sum(shard["accuracy"] * shard["samples"] for shard in evaluated) / total
        self.world.log_metrics({"overall accuracy": accuracy})
        if accuracy >= self.world.globals["target"]:
            self.logger.info("reached %.3f on %d samples held out", accuracy, total)
            self.world.stop_swarm()
        else:
            self.world.schedule_next_iter()
