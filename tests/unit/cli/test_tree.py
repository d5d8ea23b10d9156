"""What `manta tree` draws."""

from __future__ import annotations

from manta.cli.commands.tree import lines
from manta.protocol.tree import Tree, TreeActor


def actor(path: str, state: str = "running", restarts: int = 0, last: str = "") -> TreeActor:
    return TreeActor(path, "X" if state == "running" else "", state, restarts, last, 0, 61.0)


def test_the_tree_is_drawn_by_its_paths() -> None:
    paths = ["m", "m/store", "m/clusters/a", "m/clusters/a/s", "m/gate"]
    tree = Tree(tuple(actor(path) for path in paths))
    names = [str(line).split("  running")[0].rstrip() for line in lines(tree, None)]
    assert names[1:] == ["m", "├─ store", "├─ clusters/a", "│  └─ s", "└─ gate"]


def test_what_has_crashed_is_told() -> None:
    tree = Tree((actor("m"), actor("m/gate", "restarting", 2, "crash: ValueError: no")))
    last = str(lines(tree, None)[-1]).split()
    assert last == ["└─", "gate", "restarting", "2", "crash:", "ValueError:", "no"]
