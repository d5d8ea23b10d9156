"""`manta mesh`: peers of one script on this machine, and what one of them knows."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from manta.light.runtime.processes import marked
from manta.mesh.run import _free_port
from manta.mesh.settings import LOOPBACK
from manta.testing import wait_until
from tests.integration.mesh.conftest import SECRET, Peers

pytestmark = pytest.mark.timeout(300)

SCRIPT = """
import sys, time
from manta import Mesh
with Mesh.join(timeout=100) as mesh:
    print(mesh.name, "of", mesh.size, "sum", mesh.all_reduce(mesh.rank), *sys.argv[1:])
    if mesh.rank == 1 and sys.argv[1:] == ["fails"]:
        sys.exit(7)
    if sys.argv[1:] == ["stays"]:
        print("stays")
        time.sleep(1000)
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return path


def manta(*arguments: object, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "manta", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def test_a_script_runs_as_several_peers_that_are_all_there(script: Path) -> None:
    out, err = manta("mesh", "run", script, "--peers", 3, "--", "--x", "1").communicate()
    lines = sorted(out.splitlines())
    assert lines == [f"peer-{n} | peer-{n} of 3 sum 3 --x 1" for n in range(3)], out + err


def test_peers_of_one_process_share_no_chance(tmp_path: Path) -> None:
    """What they are begun from may have drawn some before."""
    script = tmp_path / "script.py"
    script.write_text(
        "from manta import Mesh\nwith Mesh.join(timeout=100) as mesh:\n"
        "    print(mesh.id, mesh.size, *sorted(mesh.all_gather(mesh.id)))\n"
    )
    out, err = manta("mesh", "run", script, "--peers", 4).communicate()
    lines = [line.split(" | ")[1].split() for line in out.splitlines()]
    ids = {line[0] for line in lines}
    assert len(ids) == 4, out + err
    assert [line[1:] for line in lines] == [["4", *sorted(ids)]] * 4


def test_the_exit_code_is_that_of_a_peer_that_failed(script: Path) -> None:
    running = manta("mesh", "run", "--peers", 2, script, "fails")
    out, err = running.communicate()
    assert running.returncode == 7, out + err


def test_a_signal_ends_all_peers(script: Path) -> None:
    running = manta("mesh", "run", "--peers", 2, script, "stays")
    assert running.stdout is not None
    came = 0
    while came < 2:
        came += "| stays" in running.stdout.readline()
    running.send_signal(signal.SIGINT)
    running.communicate()
    assert running.returncode == 130


def test_status_is_what_a_peer_knows(peers: Peers) -> None:
    peers.add(2)
    peers.meet(2)
    address = peers.all[0].address
    asked = manta("mesh", "status", address, "--json", MANTA_MESH_SECRET=SECRET)
    out, err = asked.communicate()
    assert asked.returncode == 0, err
    states = {one["name"]: one["state"] for one in json.loads(out)["peers"]}
    assert states == {"peer-0": "self", "peer-1": "alive"}
    shown = manta("mesh", "status", address, MANTA_MESH_SECRET=SECRET)
    assert "peer-1" in shown.communicate()[0]
    refused = manta("mesh", "status", address, MANTA_MESH_SECRET="another")
    assert refused.communicate()[0] == ""
    assert refused.returncode == 11


def test_what_happens_is_told_as_lines_and_drawn(peers: Peers, tmp_path: Path) -> None:
    peers.add(3, topology="ring")
    peers.meet(3)
    address, drawn = peers.all[0].address, tmp_path / "mesh.svg"
    words = ("mesh", "status", address, "--watch", "--json", "--svg", drawn)
    watching = manta(*words, MANTA_MESH_SECRET=SECRET)
    assert watching.stdout is not None
    seen: list[dict[str, object]] = []
    try:
        while not any(one["event"] == "left" for one in seen):
            seen.append(json.loads(watching.stdout.readline()))
            if seen[-1]["event"] == "view" and seen[-1]["size"] == 3:
                peers.all[2].leave()
        assert {one["name"] for one in seen if one["event"] == "joined"} <= {"peer-1", "peer-2"}
        assert [one["number"] for one in seen] == list(range(1, len(seen) + 1))
        assert seen[-1]["name"] == peers.all[2].name
        assert "3 peers, ring" in drawn.read_text()
    finally:
        watching.send_signal(signal.SIGINT)
        watching.communicate()


FAULTY = """
import time
from manta import Mesh
from manta.light.errors import PeerLost
with Mesh.join(timeout=100) as mesh:
    sizes = [mesh.size]
    until = time.monotonic() + 150
    while sizes[-2:] != [2, 3] and sizes[-2:] != [1, 3] and time.monotonic() < until:
        try:
            mesh.all_reduce(1)
        except PeerLost:
            pass
        if mesh.size != sizes[-1]:
            sizes.append(mesh.size)
    mesh.barrier()
    print(sizes, mesh.status()["faults"]["injected"])
"""


def test_faults_are_injected_as_the_command_says(tmp_path: Path) -> None:
    path = tmp_path / "faulty.py"
    path.write_text(FAULTY)
    faults = ["--loss", 0.05, "--delay", "1ms..5ms", "--partition", "0-1/2@1s..9s", "--seed", 7]
    out, err = manta("mesh", "run", path, "--peers", 3, *faults).communicate()
    said = "a partition into 0,1 and 2 from 1 s until 9 s; seed 7."
    assert sum(said in line for line in out.splitlines()) == 3, out + err
    found = dict(line.split(" | ", 1) for line in out.splitlines() if "| [" in line)
    assert set(found) == {"peer-0", "peer-1", "peer-2"}, out + err
    for name, told in found.items():
        assert told.startswith("[3, 1, 3]" if name == "peer-2" else "[3, 2, 3]"), out
        assert "'lost'" in told
    assert "'parted'" in out


def test_scripts_end_where_the_command_is_killed(tmp_path: Path) -> None:
    """Also one that has left the mesh, and prints nothing."""
    path = tmp_path / "script.py"
    path.write_text(
        "import os, time\nfrom manta import Mesh\n"
        "with Mesh.join(timeout=100) as mesh:\n    print(os.environ['MANTA_MESH_RUN'])\n"
        "time.sleep(1000)\n"
    )
    running = manta("mesh", "run", "--peers", 2, path)
    assert running.stdout is not None
    folders = {running.stdout.readline().split(" | ")[1].strip() for _ in range(2)}
    (folder,) = folders
    mark = f"MANTA_MESH_RUN={folder}"
    assert len(marked(mark)) == 2
    running.kill()
    running.communicate()
    wait_until(lambda: not marked(mark), what=lambda: marked(mark))
    wait_until(lambda: not Path(folder).exists())


def test_a_script_by_hand_is_told_by_its_environment(tmp_path: Path) -> None:
    path = tmp_path / "script.py"
    path.write_text(
        "from manta import Mesh\nwith Mesh.join(timeout=100) as mesh:\n"
        "    print(mesh.name, mesh.rank, len(mesh.neighbors), mesh.all_reduce(1))\n"
    )
    door = f"{LOOPBACK}:{_free_port(LOOPBACK)}"
    all_told = {"SECRET": SECRET, "SIZE": "4", "TOPOLOGY": "star"}
    running = []
    for number in range(4):
        told = {**all_told, "NAME": f"by-hand-{number}"}
        told |= {"PEERS": f"127.0.0.1:9,{door}"} if number else {"LISTEN": door}
        environment = {f"MANTA_MESH_{name}": value for name, value in told.items()}
        command = [sys.executable, str(path)]
        process = subprocess.Popen(
            command, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True
        )
        running.append(process)
    said = [process.communicate()[0].split() for process in running]
    assert [one[0] for one in said] == [f"by-hand-{number}" for number in range(4)]
    ranks = {int(rank): (int(near), int(total)) for _, rank, near, total in said}
    assert ranks == {0: (3, 4), 1: (1, 4), 2: (1, 4), 3: (1, 4)}
