"""The smallest swarm: one task, on every node."""

from manta import Module, Swarm, Task

GREETER = """
from manta.light import World

def main():
    world = World()
    print(f"Hello from node {world.rank + 1} of {world.size}")
    return world.rank
"""


class Hello(Swarm):
    name = "hello"

    def execute(self) -> Task:
        return Task(Module(GREETER, name="greeter"))()
