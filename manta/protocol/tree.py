"""Supervision trees, as an administrator sees them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from manta.actors import ChildInfo, TreeNode
from manta.protocol import pages
from manta.protocol.base import Message


class TreeActor(msgspec.Struct, frozen=True):
    """One actor; its path says where it is in the tree."""

    path: str
    actor: str
    """Its class; "" for one that is not running."""
    state: str
    """running, starting, stopping, or another phase that its supervisor knows."""
    restarts: int
    last_exit: str
    """Why its last incarnation ended; "" for the first."""
    waiting: int
    """Messages in its mailbox."""
    seconds: float
    """Since its last start."""


class Tree(Message, frozen=True):
    """In order of paths, each before those that it supervises; `more` says that others follow."""

    actors: tuple[TreeActor, ...]
    more: bool = False


class ReadTree(Message, frozen=True):
    """From the manager to a node; answered with a Tree. `after` is the last path received."""

    after: str = ""


ReadTree.reply = Tree


def tree_of(roots: Sequence[TreeNode], after: str = "") -> Tree:
    """The page of the tree after a path."""
    actors = (actor for root in roots for actor in _flat(root))
    return Tree(*pages.after(actors, lambda one: _place(one.path), _place(after), pages.encoded))


def _place(path: str) -> str:
    """A sort key that keeps a subtree behind its root, whatever characters names have."""
    return path.replace("/", "\0")


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
