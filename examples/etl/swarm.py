"""Extract, transform, load: manta run examples/etl/swarm.py --nodes 3"""

from manta import Module, Swarm, Task

EXTRACT = """
import csv, io
from manta.light import Task

SENSORS = "sensor,celsius\\na,20.5\\nb,\\nc,19.0\\n"

class Extract(Task):
    def run(self):
        rows = list(csv.DictReader(io.StringIO(SENSORS)))
        for row in rows:
            row["node"] = self.world.node_id
        self.world.results.add("raw", rows)
"""

TRANSFORM = """
from manta.light import Task

class Transform(Task):
    def run(self):
        mine = self.world.results.select("raw")[self.world.node_id]
        kept = [row for row in mine if row["celsius"]]
        self.logger.info("%d of %d rows are whole", len(kept), len(mine))
        fahrenheit = [
            {**row, "fahrenheit": float(row["celsius"]) * 9 / 5 + 32} for row in kept
        ]
        self.world.results.add("clean", fahrenheit)
"""

LOAD = """
from manta.light import Task

class Load(Task):
    def run(self):
        rows = [row for part in self.world.get_results("clean") for row in part]
        self.world.globals["table"] = rows
        self.world.results.add("rows", len(rows))
"""


class ETL(Swarm):
    name = "etl"

    def __init__(self) -> None:
        self.extract = Task(Module(EXTRACT, name="extract"))
        self.transform = Task(Module(TRANSFORM, name="transform"), method="tag-raw")
        self.load = Task(Module(LOAD, name="load"), method="any")

    def execute(self) -> Task:
        return self.load(self.transform(self.extract()))
