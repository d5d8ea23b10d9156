"""Three loaders, given as source text, feed one processor: manta run examples/pipeline/swarm.py"""

from manta import Module, Swarm, Task

LOADER = """
from manta.light import Results, World

def main():
    numbers = list(range({first}, {first} + 5))
    Results().save(numbers, tag="numbers")
"""

PROCESSOR = """
from manta.light import Results

def main():
    numbers = [number for part in Results().get_results("numbers") for number in part]
    Results().save({"count": len(numbers), "total": sum(numbers)}, tag="summary")
"""


class Pipeline(Swarm):
    name = "pipeline"

    def __init__(self) -> None:
        self.loaders = [
            Task(Module(LOADER.format(first=first), name="loader"), method="any")
            for first in (0, 100, 200)
        ]
        self.processor = Task(Module(PROCESSOR, name="processor"), method="any")

    def execute(self) -> Task:
        return self.processor([loader() for loader in self.loaders])
