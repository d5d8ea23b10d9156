"""Instances that do nothing: what the platform itself costs."""

from manta import Module, Swarm, Task

FRESH = """
def main():
    pass
"""

RESIDENT = """
from manta.light import Task

class Idle(Task):
    def setup(self):
        pass

    def execute(self):
        pass
"""


class NoOps(Swarm):
    """`instances` in each of `rounds` iterations, in a fresh process each or in a living object."""

    name = "no-ops"

    def __init__(self, instances: int = 100, rounds: int = 100, resident: bool = False) -> None:
        super().__init__(max_iteration=rounds)
        code = RESIDENT if resident else FRESH
        self.idle = Task(Module(code, name="idle"), replicas=instances)
