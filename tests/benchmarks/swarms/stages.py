"""Stages without data, one after another: what order and end of a stage cost."""

from manta import Module, Swarm, Task

CODE = """
def main():
    pass
"""


class Stages(Swarm):
    """`stages` in a row, on all nodes and on one of them by turns."""

    name = "stages"

    def __init__(self, stages: int = 2, rounds: int = 11) -> None:
        super().__init__(max_iteration=rounds)
        self.tasks = [
            Task(Module(CODE, name=f"stage-{number}"), method="any" if number % 2 else "all")
            for number in range(stages)
        ]

    def execute(self) -> Task:
        last = self.tasks[0]()
        for task in self.tasks[1:]:
            last = task(last)
        return last
