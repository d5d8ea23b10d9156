"""Regional means, then the global one: manta run examples/hierarchy/swarm.py --nodes 4"""

from manta import Module, Swarm, Task

WORKER = """
from manta.light import Task

class Worker(Task):
    def run(self):
        value = float(int(self.world.node_id.rpartition("-")[2]))
        self.world.results.add(f"value/{REGION}", value)
"""

REGIONAL = """
from manta.light import Task

class Regional(Task):
    def run(self):
        values = self.world.get_results("value/REGION")
        mean = sum(values) / len(values)
        self.logger.info("REGION: %.2f of %d nodes", mean, len(values))
        self.world.results.add("regional", {"mean": mean, "nodes": len(values)})
"""

GLOBAL = """
from manta.light import Task

class Global(Task):
    def run(self):
        regions = self.world.get_results("regional")
        nodes = sum(region["nodes"] for region in regions)
        mean = sum(region["mean"] * region["nodes"] for region in regions) / nodes
        self.world.globals["mean"] = mean
        self.world.results.add("mean", mean)
"""

REGIONS = {"north": ["node-1", "node-2", "node-3"], "south": ["node-4"]}


class Hierarchy(Swarm):
    """Only the means of regions travel on, each weighted by its nodes."""

    name = "hierarchy"

    def __init__(self) -> None:
        self.workers, self.regional = {}, {}
        for region, nodes in REGIONS.items():
            worker = Module(WORKER.replace("{REGION}", region), name=f"worker-{region}")
            mean = Module(REGIONAL.replace("REGION", region), name=f"mean-{region}")
            self.workers[region] = Task(worker, specified_ids=nodes)
            self.regional[region] = Task(mean, method="any", specified_ids=nodes)
        self.top = Task(Module(GLOBAL, name="global"), method="any")

    def execute(self) -> Task:
        return self.top([self.regional[name](self.workers[name]()) for name in REGIONS])
