"""Results that stay on the nodes that made them."""

from __future__ import annotations

import json
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from manta import Condition, Module, Swarm, Task
from manta.apis.errors import NotFound
from manta.cli.commands.pull import _pulled
from manta.manager.backup import backup, verify_file, verify_home
from manta.manager.cluster import recalls
from manta.manager.cluster.frees import Frees
from manta.manager.home import Home
from manta.node.link import peer_hub
from manta.node.link.held_results import HeldLink
from manta.protocol.node import ResultWritten
from manta.protocol.values import BlobRef

SIZE = 3 << 20
pytestmark = [
    pytest.mark.parametrize("lab", [3], indirect=True),
]

MAKES = f"""
import os
from manta.light import World

def main():
    world = World()
    world.results.add("large", os.urandom({SIZE}))
    world.results.add("wanted", os.urandom({SIZE}))
    world.results.add("small", b"small")
"""

SAME = f"""
from manta.light import World

def main():
    World().results.add("large", b"\\x07" * {SIZE})
"""

AGAIN = """
import time
from pathlib import Path
from manta.light import World

def main():
    world, value = World(), b"\\x07" * {size}
    world.results.add("large", value)
    while not Path({path!r}).exists():
        time.sleep(0.02)
    world.results.add("again", value)
"""

READS = """
from manta.light import World

def main():
    world = World()
    found = world.results.select("large")
    world.results.add("lengths", [len(one) for one in found.values()])
"""


class Makes(Swarm):
    def __init__(
        self, reader: str = "", code: str = MAKES, reads: str = READS, **task: Any
    ) -> None:
        super().__init__()
        self._task, self._reader, self._code, self._reads = task, reader, code, reads

    def execute(self) -> Task:
        made = Task(Module(self._code, name="makes"), **self._task)
        if not self._reader:
            return made
        reads = Task(Module(self._reads, name="reads"), specified_ids=[self._reader])
        return reads(made, Condition.FINISHED)


def spooled(lab: Any) -> int:
    """Bytes of blobs on the manager's disk."""
    depot = lab.manager.context.depot
    return sum(map(depot.size, depot))


def held(lab: Any, number: int) -> list[Path]:
    """Its files, some of which may just be going."""
    found = os.walk(lab.state(f"node-{number}").results)
    return [Path(at, name) for at, _, names in found for name in names if len(name) == 64]


def test_results_stay_where_they_were_made_and_can_be_read(lab) -> None:
    for number in (1, 2, 3):
        lab.node(number)
    api = lab.api()
    swarm = lab.run(api, Makes("node-3", collect="references", specified_ids=["node-1", "node-2"]))
    assert spooled(lab) < SIZE
    assert [len(held(lab, number)) for number in (1, 2, 3)] == [2, 2, 0]
    assert api.select_results(swarm, "lengths").values() == [[SIZE, SIZE]]
    assert [len(value) for value in api.select_results(swarm, "large").values()] == [SIZE, SIZE]
    assert api.select_results(swarm, "small").values() == [b"small", b"small"]
    api.remove_swarm(swarm)
    lab.wait_until(lambda: not held(lab, 1) and not held(lab, 2))


def test_a_holder_that_is_away_is_named_and_gives_it_when_it_is_back(lab) -> None:
    lab.node(1)
    lab.node(2)
    lab.node(3)
    api = lab.api()
    swarm = lab.run(api, Makes(collect="references", specified_ids=["node-1"]))
    lab.nodes[0].stop()
    lab.wait_until(lambda: lab.state("node-1").read_status().state == "stopped")
    (lost,) = api.select_results(swarm, "large")
    with pytest.raises(NotFound, match=r"'large' of iteration 0.*'node-1', which is not connected"):
        _ = lost.value
    assert api.select_results(swarm, "small").values() == [b"small"]
    record, _ = _pulled(api, swarm, lab.folder / "pulled")
    assert record["results"] == 3
    index = json.loads((lab.folder / "pulled" / "results.json").read_text())
    assert sorted((one["tag"], "away" in one) for one in index) == [
        ("large", True),
        ("small", False),
        ("wanted", True),
    ]
    lab.node(1)
    assert [len(value) for value in api.select_results(swarm, "large").values()] == [SIZE]


def test_a_holder_that_was_removed_took_it_along(lab) -> None:
    nodes = [lab.node(number) for number in (1, 2, 3)]
    api = lab.api()
    swarm = lab.run(api, Makes(collect="references", specified_ids=["node-1"]))
    api.remove_node(nodes[0].context.identity.node_id)
    (lost,) = api.select_results(swarm, "large")
    with pytest.raises(NotFound, match=r"""'node-1', which was removed: .*collect="all\""""):
        _ = lost.value
    lab.stop_manager()
    lab.start_manager()
    lab.wait_for(lab.state("node-2"), "connected")
    (lost,) = api.select_results(swarm, "large")
    with pytest.raises(NotFound, match=r"""'node-1', which was removed: .*collect="all\""""):
        _ = lost.value


def test_a_task_is_told_what_it_cannot_have(lab) -> None:
    lab.node(1)
    lab.node(2)
    lab.node(3)
    context = lab.nodes[0].context
    keep = context.held.keep

    def loses(swarm_id: str, digest: str, values: Any) -> None:
        keep(swarm_id, digest, values)
        context.held.free(swarm_id)
        values.delete(digest)

    context.held.keep = loses
    api = lab.api()
    swarm = api.deploy_swarm("lab", Makes("node-3", collect="references", specified_ids=["node-1"]))
    assert api.wait_swarm(swarm, timeout=60).status == "FAILED"
    (error,) = api.collect_errors(swarm)
    assert "The result 'large' of iteration 0 cannot be read" in error.sentence
    assert "node-1" in error.sentence


def test_only_the_tags_that_are_named_are_copied(lab) -> None:
    lab.node(1)
    lab.node(2)
    lab.node(3)
    api = lab.api()
    swarm = lab.run(api, Makes(collect=["wanted"], specified_ids=["node-1"]))
    assert SIZE <= spooled(lab) < 2 * SIZE
    assert len(held(lab, 1)) == 1
    lab.nodes[0].stop()
    assert [len(value) for value in api.select_results(swarm, "wanted").values()] == [SIZE]


def test_what_finds_no_room_is_copied_and_its_task_is_told(lab) -> None:
    lab.node(1, resources={"result_disk_mb": 4})
    lab.node(2)
    lab.node(3)
    api = lab.api()
    swarm = lab.run(api, Makes(collect="references", specified_ids=["node-1"]))
    assert SIZE <= spooled(lab) < 2 * SIZE
    assert len(held(lab, 1)) == 1
    said = [line.text for line in api.collect_logs(swarm)]
    assert any("'wanted' goes to the manager" in text for text in said)
    assert any("result_disk_mb" in text for text in said)


def test_a_swarm_without_the_values_is_whole(lab) -> None:
    """Nothing of what the manager stores names what it never had."""
    lab.node(1)
    lab.node(2)
    lab.node(3)
    api = lab.api()
    lab.run(api, Makes(collect="references", specified_ids=["node-1"]))
    lab.stop_manager()
    home, file = Home(lab.folder / "manager"), lab.folder / "backup.tar"
    assert verify_home(home).flaws == []
    backup(home, file)
    assert verify_file(file).flaws == []
    lab.start_manager()


@pytest.mark.parametrize("how", ["is not connected", "was removed"])
def test_a_task_is_told_whose_value_is_gone_and_what_to_do(lab, how: str) -> None:
    for number in (1, 2, 3):
        lab.node(number)
    flag = lab.folder / "flag"
    waits = f"import os, time\nwhile not os.path.exists({str(flag)!r}): time.sleep(0.05)\n"
    reads = READS.replace("def main():", f"{waits}\ndef main():")
    api = lab.api()
    made = Makes("node-3", reads=reads, collect="references", specified_ids=["node-1"])
    swarm = api.deploy_swarm("lab", made)
    lab.wait_until(lambda: lab.nodes[2].context.tasks_running)
    if how == "was removed":
        api.remove_node(lab.nodes[0].context.identity.node_id)
    lab.nodes[0].stop()
    lab.wait_until(lambda: lab.state("node-1").read_status().state in ("stopped", "refused"))
    flag.touch()
    assert api.wait_swarm(swarm, timeout=60).status == "FAILED"
    (error,) = api.collect_errors(swarm)
    assert "The result 'large' of iteration 0 cannot be read" in error.sentence
    assert f"'node-1', which {how}" in error.sentence
    assert 'collect="all"' in error.sentence


def test_a_value_that_two_hold_is_had_from_who_is_there(lab) -> None:
    for number in (1, 2, 3):
        lab.node(number)
    api = lab.api()
    where = ["node-1", "node-2"]
    swarm = lab.run(api, Makes(code=SAME, collect="references", specified_ids=where))
    lab.nodes[0].stop()
    lab.wait_until(lambda: lab.state("node-1").read_status().state == "stopped")
    assert [len(one) for one in api.select_results(swarm, "large").values()] == [SIZE, SIZE]


def test_the_same_value_in_two_swarms_is_read_in_either(lab) -> None:
    for number in (1, 2, 3):
        lab.node(number)
    api = lab.api()
    lab.run(api, Makes(code=SAME, collect="references", specified_ids=["node-2"]))
    made = Makes("node-2", code=SAME, collect="references", specified_ids=["node-1"])
    swarm = lab.run(api, made)
    assert api.select_results(swarm, "lengths").values() == [[SIZE]]


def test_bytes_of_another_swarm_are_not_given_on_a_nodes_word(lab) -> None:
    """node-1 knows the digest of a result on node-2, and says that it holds it for its own swarm:
    which a task of that swarm reads on node-2."""
    for number in (1, 2, 3):
        lab.node(number)
    api = lab.api()
    theirs = lab.run(api, Makes(collect="references", specified_ids=["node-2"]))
    loot = BlobRef(held(lab, 2)[0].name, held(lab, 2)[0].stat().st_size)
    liar = lab.nodes[0].context
    append = liar.journals.append

    def forge(entry: Any, *depot: Any) -> int:
        if isinstance(entry, ResultWritten) and entry.tag == "large":
            entry = replace(entry, value=loot)
        return append(entry, *depot)

    liar.journals.append = forge
    forged = Makes("node-2", collect="references", specified_ids=["node-1"])
    swarm = api.deploy_swarm("lab", forged)
    assert api.wait_swarm(swarm, timeout=60).status == "FAILED"
    (error,) = api.collect_errors(swarm)
    assert "The result 'large' of iteration 0 cannot be read" in error.sentence
    assert "'node-1'" in error.sentence
    assert loot.digest not in liar.values
    (lost,) = api.select_results(swarm, "large")
    with pytest.raises(NotFound, match="'node-1', which cannot give it"):
        _ = lost.value
    assert spooled(lab) < SIZE
    assert [len(value) for value in api.select_results(theirs, "large").values()] == [SIZE]


def test_what_users_delete_is_deleted_where_it_stays(lab) -> None:
    for number in (1, 2, 3):
        lab.node(number)
    api = lab.api()
    swarm = lab.run(api, Makes(collect="references", specified_ids=["node-1"]))
    assert api.delete_results(swarm, "large") == 1
    lab.wait_until(lambda: len(held(lab, 1)) == 1)
    assert [len(value) for value in api.select_results(swarm, "wanted").values()] == [SIZE]
    lab.nodes[0].stop()
    lab.wait_until(lambda: lab.state("node-1").read_status().state == "stopped")
    assert api.delete_results(swarm) == 2
    lab.node(1)
    lab.wait_until(lambda: not held(lab, 1))
    assert lab.nodes[-1].context.held.sizes() == {}


def test_what_has_yet_to_be_told_of_a_value_spares_it(lab) -> None:
    """A result is deleted while another one with the same value is on its way to the manager."""
    for number in (1, 2, 3):
        lab.node(number)
    api, context = lab.api(), lab.nodes[0].context
    swarm = lab.run(api, Makes(code=SAME, collect="references", specified_ids=["node-1"]))
    tells = threading.Event()

    def still_tells(swarm_id: str) -> set[str]:
        tells.set()
        return {digest for id_, digest in context.held.named() if id_ == swarm_id}

    context.journals.held = still_tells
    assert api.delete_results(swarm) == 1
    assert tells.wait(60)
    del context.journals.held
    lab.wait_until(lambda: not held(lab, 1))


def test_what_another_result_has_again_stays_also_while_its_swarm_is_restarted(
    lab, monkeypatch
) -> None:
    """A node that kept a deleted value for now is asked again after the manager took the other."""
    for number in (1, 2, 3):
        lab.node(number)
    api, context = lab.api(), lab.nodes[0].context
    path = lab.folder / "go on"
    code = AGAIN.format(path=str(path), size=SIZE)
    swarm = api.deploy_swarm(
        "lab", Makes(code=code, collect="references", specified_ids=["node-1"])
    )
    lab.wait_until(lambda: api.list_result_tags(swarm) == ["large"])
    looked, heard = threading.Event(), threading.Semaphore(0)

    def still_tells(swarm_id: str) -> set[str]:
        looked.set()
        return {digest for id_, digest in context.held.named() if id_ == swarm_id}

    tell = Frees.tell

    def noted(frees: Frees, node_id: str) -> None:
        tell(frees, node_id)
        heard.release()

    context.journals.held = still_tells
    assert api.delete_results(swarm, "large") == 1
    assert looked.wait(60)
    path.touch()
    lab.wait_until(lambda: api.list_result_tags(swarm) == ["again"])
    lab.wait_until(lambda: not context.journals.unacknowledged())
    del context.journals.held
    staying = lab.manager.context.cluster(swarm.cluster_id).staying
    of_swarm = staying.pop(swarm.swarm_id)  # as while its actor is started anew
    monkeypatch.setattr(Frees, "tell", noted)
    for _ in range(3 * len(lab.nodes)):  # after heartbeats of all nodes
        assert heard.acquire(timeout=60)
    staying[swarm.swarm_id] = of_swarm
    assert [len(value) for value in api.select_results(swarm, "again").values()] == [SIZE]
    assert api.wait_swarm(swarm, timeout=60).status == "COMPLETED"


def test_a_swarm_is_stopped_while_a_result_is_copied(lab) -> None:
    for number in (1, 2, 3):
        lab.node(number)
    context = lab.nodes[0].context
    keep, began, may = context.held.keep, threading.Event(), threading.Event()

    def slow(*args: Any) -> None:
        began.set()
        assert may.wait(60)
        keep(*args)

    context.held.keep = slow
    api = lab.api()
    try:
        made = Makes(collect="references", specified_ids=["node-1"])
        swarm = api.deploy_swarm("lab", made)
        assert began.wait(60)
        assert context.tasks_running == 1
        api.stop_swarm(swarm)
        lab.wait_until(lambda: context.tasks_running == 0)
    finally:
        may.set()
    assert api.list_result_tags(swarm, attempts="all") == []


def test_a_swarm_that_was_removed_while_its_node_was_away_is_freed_after_a_restart(lab) -> None:
    for number in (1, 2, 3):
        lab.node(number)
    api = lab.api()
    swarm = lab.run(api, Makes(collect="references", specified_ids=["node-1"]))
    lab.nodes[0].stop()
    lab.wait_until(lambda: lab.state("node-1").read_status().state == "stopped")
    api.remove_swarm(swarm)
    lab.stop_manager()
    lab.start_manager()
    lab.node(1)
    lab.wait_until(lambda: not held(lab, 1))


def test_under_an_older_database_nothing_is_deleted(lab) -> None:
    """What stays on nodes is the only copy: it is there again with the newer database."""
    for number in (1, 2, 3):
        lab.node(number)
    api = lab.api()
    lab.stop_manager()
    home, older, newer = (lab.folder / name for name in ("manager", "older", "newer"))
    shutil.copytree(home, older)
    lab.start_manager()
    for number in (1, 2, 3):
        lab.wait_for(lab.state(f"node-{number}"), "connected")
    swarm = lab.run(api, Makes(collect="references", specified_ids=["node-1"]))
    lab.stop_manager()
    home.rename(newer)
    older.rename(home)
    lab.start_manager()
    told = "node-1 keeps results of a swarm that this manager does not know: put a newer database"
    views = lab.manager.context.clusters.values()
    lab.wait_until(lambda: any(told in view.notice for view in views))
    assert len(held(lab, 1)) == 2
    lab.stop_manager()
    shutil.rmtree(home)
    newer.rename(home)
    lab.start_manager()
    lab.wait_for(lab.state("node-1"), "connected")
    assert [len(value) for value in api.select_results(swarm, "large").values()] == [SIZE]


def test_a_holder_that_never_gives_it_is_named_in_the_end(lab, monkeypatch) -> None:
    monkeypatch.setattr(recalls, "PATIENCE", 1.0)
    monkeypatch.setattr(recalls, "SLOWEST", 2.0)
    monkeypatch.setattr(HeldLink, "push", lambda *_: None)
    lab.node(1, peers={"listen": "off"})
    lab.node(2)
    lab.node(3)
    api = lab.api()
    made = Makes("node-2", collect="references", specified_ids=["node-1"])
    swarm = api.deploy_swarm("lab", made)
    assert api.wait_swarm(swarm, timeout=60).status == "FAILED"
    (error,) = api.collect_errors(swarm)
    assert "'node-1', which has not sent it within" in error.sentence
    (lost,) = api.select_results(swarm, "large")
    with pytest.raises(NotFound, match="'node-1', which has not sent it within"):
        _ = lost.value


def test_a_task_does_not_wait_for_ever_for_what_nobody_gives(lab, monkeypatch) -> None:
    monkeypatch.setattr(recalls, "PATIENCE", 0.3)
    monkeypatch.setattr(peer_hub, "TRANSFER_TIMEOUT", 5.0)
    monkeypatch.setattr(HeldLink, "push", lambda *_: None)
    lab.node(1, peers={"listen": "off"})
    lab.node(2)
    lab.node(3)
    api = lab.api()
    made = Makes("node-2", collect="references", specified_ids=["node-1"])
    swarm = api.deploy_swarm("lab", made)
    assert api.wait_swarm(swarm, timeout=60).status == "FAILED"
    (error,) = api.collect_errors(swarm)
    assert "no source gave more of it within 5 s" in error.sentence
