from __future__ import annotations

import pytest

from manta.actors import Address, TreeNode
from manta.protocol import pages
from manta.protocol.tree import tree_of


def node(path: str, *children: TreeNode) -> TreeNode:
    return TreeNode(Address("here", path, 1), "X", 0, 1.0, None, children)


def test_a_tree_is_read_in_pages_each_actor_behind_its_supervisor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tasks = [node(f"node/tasks/s{number}", node(f"node/tasks/s{number}/x")) for number in range(99)]
    roots = [node("node", node("node/link"), *reversed(tasks), node("node/link-2")), node("node-b")]
    monkeypatch.setattr(pages, "PAGE_BYTES", 1000)
    paths: list[str] = []
    pages_read = 0
    more = True
    while more:
        page = tree_of(roots, paths[-1] if paths else "")
        more, pages_read = page.more, pages_read + 1
        paths += [actor.path for actor in page.actors]
    assert pages_read > 10
    assert len(paths) == len(set(paths)) == 3 + 2 * 99 + 1
    for place, path in enumerate(paths):
        above = path.rpartition("/")[0]
        assert not above or above == "node/tasks" or above in paths[:place]
    assert paths[:4] == ["node", "node/link", "node/link-2", "node/tasks/s0"]
    assert paths[-1] == "node-b"
    # What has gone meanwhile disturbs nobody's place.
    assert tree_of(roots, "node/link-1").actors[0].path == "node/link-2"
