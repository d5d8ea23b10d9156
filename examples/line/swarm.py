"""A line through points on all nodes:
manta run examples/line/swarm.py --nodes 3 --dataset points='examples/line/points{i}.txt'"""

from manta import Module, Swarm, Task


class Line(Swarm):
    def __init__(self):
        super().__init__(max_iteration=6)
        self.worker = Task(Module("worker.py", datasets=["points"]))
