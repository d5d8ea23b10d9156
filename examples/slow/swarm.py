r"""Three nodes train, one of them ten times slower; a fourth has the model.

python examples/liars/make_shards.py
manta run examples/slow/swarm.py --nodes 4 -p together=true \
    --dataset digits='examples/liars/shards/{i}.npz'
"""

from manta import Module, Swarm, Task


class Slow(Swarm):
    def __init__(self, together: bool = False) -> None:
        """`together`: each round waits for all."""
        super().__init__(max_iteration=1)
        self.set_global("together", together)
        self.site = Task(Module("site.py", datasets="digits", include="../liars/softmax.py"))
