"""Supervision trees, as an administrator sees them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from manta.actors.supervisor import ChildInfo
from manta.actors.system import TreeNode
from manta.protocol.base import Message

MOST = 5000
"""Actors in one answer."""


class TreeActor(msgspec.Struct, frozen=True):
    """One actor; its place in the tree is in its path."""

    path: str
    actor: str
    """Its class; "" for one that does not live."""
    state: str
    """running, starting, stopping, or how else its supervisor sees it."""
    restarts: int
    last_exit: str
    """Why its last incarnation ended; "" for the first."""
    waiting: int
    """Messages in its mailbox."""
    seconds: float
    """Since its last start."""


class Tree(Message, frozen=True):
    """In the order of the tree, each before those that it supervises."""

    actors: tuple[TreeActor, ...]
    left_out: int = 0


class ReadTree(Message, frozen=True):
    """From the manager to a node; answered with a Tree."""


ReadTree.reply = Tree


def tree_of(roots: Sequence[TreeNode]) -> Tree:
    actors = [actor for root in roots for actor in _flat(root)]
    return Tree(tuple(actors[:MOST]), max(0, len(actors) - MOST))


def _flat(node: TreeNode) -> Iterator[TreeActor]:
    path = node.address.path
    yield _actor(path, node.info, node.actor_class, node.waiting, node.seconds)
    for child in node.children:
        if isinstance(child, TreeNode):
            yield from _flat(child)
        else:
            yield _actor(f"{path}/{child.id}", child)


def _actor(
    path: str, info: ChildInfo | None, kind: str = "", waiting: int = 0, seconds: float = 0.0
) -> TreeActor:
    if info is None:  # a root: nobody supervises it
        return TreeActor(path, kind, "running", 0, "", waiting, seconds)
    last = "" if info.last_exit is None else str(info.last_exit)
    return TreeActor(path, kind, str(info.phase), info.restarts, last, waiting, seconds)
