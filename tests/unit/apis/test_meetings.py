"""What a task's source says of its instances: whether all of them certainly meet."""

from __future__ import annotations

import textwrap

import pytest

from manta.apis.compile.meetings import meets
from manta.apis.compile.syntax import parse

HEAD = "from manta.light import World, Task\n"


def of(source: str, class_name: str | None = None) -> str:
    return meets(parse(HEAD + textwrap.dedent(source)), class_name)


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("def main():\n    World().barrier()", "barrier"),
        ("def main():\n    world = World()\n    x = world.all_reduce(1, op='max')", "all_reduce"),
        ("world = World()\ndef main():\n    return world.all_gather(3)", "all_gather"),
        ("World().barrier(timeout=3)", "barrier"),
        ("def main():\n    w = World()\n    for _ in range(9):\n        w.barrier()", "barrier"),
        ("def main():\n    print(sum(World().all_gather(1)))", "all_gather"),
        ("class T(Task):\n    def run(self):\n        self.world.reduce_scatter([1])",
         "reduce_scatter"),
        ("class T:\n    def setup(self):\n        World().barrier()\n"
         "    def execute(self):\n        pass", "barrier"),
        ("import manta.light as ml\ndef main():\n    ml.World().barrier()", "barrier"),
        ("def main():\n    if World().rank == 0:\n        print(1)\n    World().barrier()",
         "barrier"),
    ],
)  # fmt: skip
def test_a_call_under_no_condition_is_certain(source: str, kind: str) -> None:
    assert of(source) == kind


@pytest.mark.parametrize(
    "source",
    [
        "def main():\n    pass",
        "def main():\n    if World().size < 9:\n        World().barrier()",
        "def main():\n    while World().iteration > 3:\n        World().barrier()",
        "def main():\n    try:\n        World().barrier(timeout=1)\n    except ValueError:\n"
        "        pass",
        "def main():\n    if World().iteration:\n        return\n    World().barrier()",
        "def main():\n    World().iteration and World().barrier()",
        "def main():\n    [World().barrier() for _ in ()]",
        "def main():\n    (lambda: World().barrier())",
        "from contextlib import suppress\ndef main():\n    with suppress(Exception):\n"
        "        World().barrier()",
        "import threading\ndef main():\n    threading.Barrier(1)\n    barrier = object()",
        "def main():\n    class Mine:\n        def barrier(self): pass\n    Mine().barrier()",
        "def main():\n    World().gather(1, quorum=0.5)\n    World().broadcast('t', 1)",
        "def other():\n    World().barrier()\ndef main():\n    pass",
        "if __name__ == '__main__':\n    World().barrier()",
        "class A:\n    def run(self):\n        World().barrier()\n"
        "class B:\n    def run(self):\n        pass",
        "def broken(:",
    ],
)
def test_what_is_not_certain_does_not_count(source: str) -> None:
    assert of(source) == ""


def test_the_named_class_is_the_one_that_runs() -> None:
    source = """
    class A:
        def run(self):
            World().barrier()
    class B:
        def run(self):
            pass
    def main():
        pass
    """
    assert of(source, "A") == "barrier"
    assert of(source, "B") == ""
    assert of(source) == ""
