"""Many short iterations, each of which replaces, says and reads values of some size."""

from manta import Module, Swarm, Task

CODE = """
import numpy as np
from manta.light import World

def main():
    world = World()
    if "model" in world.globals:
        world.globals["model"].sum()
    world.broadcast("gradient", np.full(20_000, float(world.iteration)))
    world.results.add("loss", float(world.iteration))
    if world.rank == 0:
        world.globals["model"] = np.full(60_000, float(world.iteration))
        world.globals["state"] = np.full(20_000, float(world.iteration))
"""


class Endurance(Swarm):
    """Globals of 480 and 160 KB are replaced in each of `rounds` iterations, and each instance
    says 160 KB."""

    name = "endurance"

    def __init__(self, rounds: int = 100) -> None:
        super().__init__(max_iteration=rounds)
        self.only = Task(Module(CODE, name="endurance"), method="all")
