"""Newton's method until it has converged: manta run examples/iterate/swarm.py -p number=2"""

from manta import Module, Swarm, Task

STEP = """
from manta.light import Task

class Step(Task):
    def run(self):
        number, guess = self.world.globals["number"], self.world.globals["guess"]
        better = (guess + number / guess) / 2
        self.world.globals["guess"] = better
        self.world.results.add("guess", better)
        self.world.log_metrics({"guess": better, "change": abs(better - guess)})
        if abs(better - guess) > self.world.globals["tolerance"]:
            self.world.schedule_next_iter()
"""


class Iterate(Swarm):
    """Each iteration asks for the next one, until there is no need; 50 is the ceiling."""

    name = "iterate"

    def __init__(self, number: float = 2.0, tolerance: float = 1e-12) -> None:
        super().__init__(max_iteration=50)
        self.set_global("number", number)
        self.set_global("guess", number)
        self.set_global("tolerance", tolerance)
        self.step = Task(Module(STEP, name="step"), method="any")
