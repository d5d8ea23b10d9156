"""What a node keeps may be any bytes: it costs that thing alone, and is told."""

from __future__ import annotations

import hashlib
from random import Random

import numpy as np
import pytest

from manta.node.errors import IdentityError
from manta.node.service import Node
from manta.node.state import StateFolder
from tests.support.damage import damaged

WAITS = """
import time
from pathlib import Path
import numpy
from manta.light import World
def main():
    Path("FOLDER/here").touch()
    while not Path("FOLDER/go").exists():
        time.sleep(0.02)
"""


def at(lab, code: str) -> str:
    return code.replace("FOLDER", str(lab.folder))


def test_much_that_waits_for_a_manager_survives_a_restart(lab) -> None:
    node = lab.node(1)
    api = lab.api()
    code = (
        WAITS
        + """
    for number in range(200):
        World().results.add(f"tag {number}", bytes(60_000))
"""
    )
    deployed = api.deploy_swarm("lab", lab.swarm(at(lab, code)))
    lab.wait_until((lab.folder / "here").exists)
    lab.stop_manager()
    (lab.folder / "go").touch()
    lab.wait_until(lambda: node.context.journals.unacknowledged_ends())
    node.stop()
    lab.start_manager()
    lab.node(1)
    api = lab.api()
    ended = api.wait_swarm(deployed, timeout=60)
    assert ended.status == "COMPLETED", ended.reason
    assert len(api.list_result_tags(deployed)) == 200
    assert [task.status for task in api.get_tasks(deployed)] == ["FINISHED"]


@pytest.mark.parametrize("damage", ["flip", "cut"])
def test_a_damaged_value_that_the_manager_lacks_ends_its_attempt(lab, damage: str) -> None:
    node = lab.node(1)
    api, context = lab.api(), node.context
    code = (
        WAITS
        + """
    World().results.add("large", numpy.arange(100_000))
    World().results.add("small", 1)
"""
    )
    deployed = api.deploy_swarm("lab", lab.swarm(at(lab, code), retries=1))
    lab.wait_until((lab.folder / "here").exists)
    lab.stop_manager()
    (lab.folder / "go").touch()
    lab.wait_until(context.journals.unacknowledged_ends)
    [digest] = context.spool
    node.stop()
    path = context.spool.path(digest)
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data if damage == "flip" else data[:-1])
    lab.start_manager()
    lab.node(1)
    ended = (api := lab.api()).wait_swarm(deployed, timeout=60)
    assert ended.status == "COMPLETED", ended.reason
    first, second = api.get_tasks(deployed)
    assert first.status == "SUPERSEDED"  # it had finished
    assert "was lost on its node before it reached the manager" in first.error.sentence
    assert second.status == "FINISHED"
    [value] = api.select_results(deployed, "large")
    assert (value.attempt, value.value.sum()) == (second.attempt, sum(range(100_000)))


def test_a_damaged_value_of_the_manager_s_is_fetched_again(lab, caplog) -> None:
    """A value that memory does not hold lies in a file, whose bytes may change."""
    node = lab.node(1)
    node.context.values.largest = 1000
    api = lab.api()
    go = lab.folder / "go"
    code = f"""
import time
from pathlib import Path
from manta.light import World
def main():
    world = World()
    assert world.globals["model"].sum() == 4999950000
    world.results.add("read", 1)
    while not Path({str(go)!r}).exists():
        time.sleep(0.02)
    assert world.globals["model"].sum() == 4999950000
"""
    swarm = lab.swarm(code)
    swarm.set_global("model", np.arange(100_000))
    deployed = api.deploy_swarm("lab", swarm)
    lab.wait_until(lambda: "read" in api.list_result_tags(deployed))
    [path] = [node.context.state.values / each[:2] / each for each in node.context.values]
    data = bytearray(path.read_bytes())
    data[-1000] ^= 1
    path.write_bytes(data)
    go.touch()
    ended = api.wait_swarm(deployed, timeout=60)
    assert ended.status == "COMPLETED", ended.reason
    assert f"{path} is damaged" in caplog.text


def test_damaged_state_is_an_error_in_the_task_that_reads_it(lab) -> None:
    node = lab.node(1)
    api = lab.api()
    code = """
from manta.light import Local, World
from manta.light.errors import DataCorruptionError
def main():
    local, world = Local(), World()
    if world.iteration == 0:
        local.set_state("damaged", "a")
        local.set_state("whole", "b")
        world.results.add("kept", 1)
    while "go" not in world.globals:
        pass
    if world.iteration == 1:
        assert local.get_state("whole") == "b"
        try:
            local.get_state("damaged")
        except DataCorruptionError as error:
            local.set_state("damaged", str(error))
            return local.get_state("damaged")
"""
    deployed = api.deploy_swarm("lab", lab.swarm(code, iterations=2))
    lab.wait_until(lambda: "kept" in api.list_result_tags(deployed))
    folder = node.context.state.kept_of(deployed.swarm_id)
    path = folder / f"{hashlib.sha256(b'damaged').hexdigest()}.kept"
    data = bytearray(path.read_bytes())
    data[-1] ^= 2
    path.write_bytes(data)
    api.set_global(deployed, "go", True)
    ended = api.wait_swarm(deployed, timeout=60)
    assert ended.status == "COMPLETED", ended.reason
    said = api.get_tasks(deployed)[1].output
    assert said.startswith("The state 'damaged' of this node is damaged (")
    assert said.endswith("it is lost; set it anew (set_state).")


@pytest.mark.parametrize("seed", range(6))
def test_a_daemon_starts_whatever_its_files_hold(lab, seed: int, caplog) -> None:
    """But for who it is, which it does not guess."""
    random = Random(seed)
    api = lab.api()
    node = lab.node(1)
    lab.run(api, lab.swarm("def main():\n    return 1\n"))
    state = lab.state("node-1")
    node.stop()
    files = [path for path in sorted(state.path.rglob("*")) if path.is_file()]
    own = [state.key_file, state.identity_file]
    spoilt = [path for path in files if path not in own and path.stat().st_size]
    assert {"status.json", "000000000001.log", ".manta-entry"} <= {path.name for path in spoilt}
    for path in spoilt:
        path.write_bytes(damaged(path.read_bytes(), random))
    node = lab.node(1)
    lab.run(api, lab.swarm("def main():\n    return 1\n"))
    assert state.read_status().state == "connected"
    node.stop()
    whole = state.identity_file.read_bytes()
    state.identity_file.write_bytes(whole[: random.randrange(len(whole) - 2)])
    with pytest.raises(IdentityError, match=r"identity\.json is damaged .*; restore it, or delete"):
        Node(lab.config("node-1"), state.path, on_finish=lambda *_: None)


def test_a_node_that_enrols_as_another_in_mid_swarm_is_no_sign_of_an_old_database(
    lab, caplog
) -> None:
    """Removed by a user, it comes back by its token, which may be used several times."""
    path, go = lab.folder / "fresh", lab.folder / "go"
    api = lab.api()
    token = api.create_node_token("lab", uses=3)
    config = lab.config("two", identity={"alias": "two", "id": "random", "secured_token": token})
    state = StateFolder(path)
    lab.start(config, state)
    lab.wait_for(state, "connected")
    code = WAITS + "    print('said')\n    return 5\n"
    swarm = lab.swarm(at(lab, code), method="any")
    deployed = api.deploy_swarm("lab", swarm)
    lab.wait_until((lab.folder / "here").exists)
    lab.wait_until(lambda: api.get_tasks(deployed)[0].started_at)
    (lab.folder / "here").unlink()
    api.remove_node("two")
    lab.wait_until((lab.folder / "here").exists)  # the next attempt
    go.touch()
    ended = api.wait_swarm(deployed, timeout=60)
    assert ended.status == "COMPLETED", ended.reason
    assert [task.status for task in api.get_tasks(deployed)] == ["INTERRUPTED", "FINISHED"]
    lab.wait_until(
        lambda: [line.text for line in api.collect_logs(deployed) if line.attempt == 1] == ["said"]
    )
    assert "older" not in caplog.text


def test_what_an_operator_s_commands_cannot_read_they_say(manta_node) -> None:
    assert manta_node("config", "init", "edge", "--allow-unsandboxed").returncode == 0
    state = StateFolder(manta_node.home / "state" / "nodes" / "edge")
    state.open().release()
    state.audit.mkdir()
    (state.audit / "000000000001.log").write_bytes(b"\xff\xfe\n{}\n")
    who = manta_node("who", "edge")
    assert who.returncode == 0
    assert f"Note: The log in {state.audit} is damaged: 2 lines cannot be read" in who.stderr
    state.status_file.write_bytes(b"{")
    told = manta_node("status", "edge")
    assert told.returncode == 7
    assert f"{state.status_file} is damaged (" in told.stdout
    state.member_file.write_bytes(b"\x00")
    everybody = manta_node("status", "--all")
    assert "edge" in everybody.stdout
    assert "unknown" in everybody.stdout
    (manta_node.home / "nodes" / "edge.toml").unlink()
    started = manta_node("start", "edge", "--background")
    assert started.returncode == 11
    assert f"{state.member_file} is damaged (" in started.stderr
