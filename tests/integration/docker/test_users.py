"""A node that is not root's: its containers run as its user, and it removes what they wrote."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from manta import Module
from manta.console.exit_codes import Exit
from tests.integration.docker.conftest import DockerLab
from tests.support.engine import tool

USER, GROUP = 47110, 47111


def as_user(*groups: int) -> list[str]:
    """What starts a command as USER.

    It may read everything, because this Python may lie where only root can look; what it may
    write, and which sockets it may use, is that user's.
    """
    command = [tool("setpriv"), f"--reuid={USER}", f"--regid={GROUP}"]
    command += [f"--groups={','.join(map(str, groups))}"] if groups else ["--clear-groups"]
    return [*command, "--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"]


def give_away(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        os.chown(path, USER, GROUP)


def engines_group(lab: DockerLab) -> int:
    return os.stat(lab.engine.address.removeprefix("unix://")).st_gid


WRITES = """
import os, time
from manta.light import Local

def main():
    os.makedirs("a/locked")
    with open("a/locked/file", "w") as file:
        file.write("here")
    os.makedirs("a/closed/in it")
    os.chmod("a/closed", 0)
    os.chmod("a/locked", 0o500)
    Local().set_state("kept", 1)
    print("written")
    time.sleep(600)
"""


def written(lab: DockerLab, swarm_id: str) -> Path:
    """The scratch folder of a task that says so."""
    api = lab.api()
    lab.wait_until(
        lambda: any(line.text == "written" for line in api.collect_logs(swarm_id)),
        what=lambda: api.get_tasks(swarm_id),
    )
    [scratch] = lab.state("node-1").tasks.iterdir()
    return scratch


@pytest.mark.parametrize("alone", [False, True], ids=["runtime", "image alone"])
def test_containers_of_a_node_that_is_not_roots_run_as_its_user(
    lab: DockerLab, alone: bool
) -> None:
    api = lab.api()
    if alone:
        script = (
            "mkdir -p $MANTA_SCRATCH/a/locked && cd $MANTA_SCRATCH/a/locked && echo here > file && "
            "chmod 500 . && echo written && sleep 600"
        )
        image = lab.engine.build(f'FROM BASE\nENTRYPOINT ["/bin/sh", "-c"]\nCMD ["{script}"]\n')
        module = Module(None, image, name="task")
    else:
        module = Module(WRITES, name="task")
    give_away(lab.known(1).path)
    with lab.daemon(*as_user(engines_group(lab))) as node:
        lab.wait_for(lab.state("node-1"), "connected")
        deployed = api.deploy_swarm("lab", lab.of(module))
        scratch = written(lab, deployed.swarm_id)
        for path in (scratch, *scratch.rglob("*")):
            assert (path.stat().st_uid, path.stat().st_gid) == (USER, GROUP), path
        assert (scratch / "a" / "locked" / "file").read_text().strip() == "here"
        [container] = lab.engine.containers()
        processes = lab.engine.client.top(container["Id"], "-eo pid,uid,gid")["Processes"]
        assert {(row[1], row[2]) for row in processes} == {(str(USER), str(GROUP))}
        api.stop_swarm(deployed, force=True)
        lab.wait_until(lambda: not lab.engine.containers(), what=lab.engine.containers)
        lab.wait_until(lambda: not scratch.exists(), what=lambda: list(scratch.rglob("*")))
        assert os.stat(f"/proc/{node.pid}").st_uid == USER
    for path in lab.state("node-1").path.rglob("*"):
        assert path.lstat().st_uid == USER, path


def test_a_user_who_may_not_use_the_engine_is_told_so(lab: DockerLab) -> None:
    give_away(lab.known(1).path)
    with lab.daemon(*as_user()) as node:
        assert node.wait(60) == Exit.LOCAL
    sentence = (lab.folder / "node-1.err").read_text().strip()
    assert f"this user may not use the container engine at {lab.engine.address}" in sentence
    assert "usermod -aG docker USER" in sentence
