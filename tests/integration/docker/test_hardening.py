"""What is so in every container of a task, seen from inside one and from its node."""

from __future__ import annotations

import json
import os
from errno import EAFNOSUPPORT, ENOSYS, EPERM
from pathlib import Path
from typing import Any

import pytest

from manta import Module
from manta.node.isolation import seccomp
from manta.node.isolation.limits import FILES, PROCESSES
from manta.node.isolation.syscalls import DENIED
from manta.node.runners.hardening import TASKS_USER, find
from tests.integration.docker.conftest import DockerLab
from tests.support.engine import TestEngine

pytestmark = pytest.mark.timeout(120)

NUMBERS = seccomp.ARCHITECTURES[os.uname().machine].numbers


def said(engine: TestEngine, code: str) -> Any:
    """What a program prints in a container as tasks have it, as JSON."""
    client = engine.client
    found = find("docker")
    container = client.create_container(
        engine.base(),
        ["python3", "-c", code],
        user=":".join(map(str, found.user)),
        host_config=found.host_config(client, memory=256 << 20, cpu=0.5),
    )["Id"]
    try:
        client.start(container)
        status = client.wait(container)["StatusCode"]
        assert status == 0, client.logs(container).decode()
        return json.loads(client.logs(container, stderr=False))
    finally:
        client.remove_container(container, force=True, v=True)


CALLS = """
import ctypes, json
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
found = {}
for name, arguments in %r.items():
    ctypes.set_errno(0)
    result = libc.syscall(*map(ctypes.c_long, arguments))
    found[name] = ctypes.get_errno() if result == -1 else 0
print(json.dumps(found))
"""


def test_calls_are_refused_as_at_levels_without_an_engine(docker_host: TestEngine) -> None:
    """By the same list. With arguments that no kernel takes: where a call got through, it would say
    EFAULT or so."""
    expected = {call: group.errno for group in DENIED for call in group.calls if call in NUMBERS}
    calls = {call: [NUMBERS[call], *[-1] * 6] for call in expected}
    found = said(docker_host, CALLS % calls)
    # The engine's library may not know those of newer kernels: they are as if there were none.
    assert {
        call: errno
        for call, errno in found.items()
        if errno != expected[call] and (errno not in (ENOSYS, EPERM) or NUMBERS[call] < 440)
    } == {}


def test_what_is_told_by_arguments_is_refused(docker_host: TestEngine) -> None:
    calls = {
        "clone": [NUMBERS["clone"], 0x10000000 | 17, 0, 0, 0, 0],  # CLONE_NEWUSER
        "TIOCSTI": [NUMBERS["ioctl"], 0, 0x5412, 0],
        "TIOCLINUX": [NUMBERS["ioctl"], 0, 0x541C, 0],
        "TIOCSTI with a high bit": [NUMBERS["ioctl"], 0, 0x1_0000_5412, 0],
        "personality": [NUMBERS["personality"], 0x40000],
        "fchmod": [NUMBERS["fchmod"], 0, 0o4755],
        "netlink": [NUMBERS["socket"], 16, 3, 0],
        "vsock": [NUMBERS["socket"], 40, 1, 0],
        "internet": [NUMBERS["socket"], 2, 1, 0],
        "newer": [1000, 0],
    }
    found = said(docker_host, CALLS % calls)
    assert found == {
        **dict.fromkeys(("clone", "TIOCSTI", "TIOCLINUX", "TIOCSTI with a high bit"), EPERM),
        **dict.fromkeys(("personality", "fchmod"), EPERM),
        **dict.fromkeys(("netlink", "vsock"), EAFNOSUPPORT),
        "internet": 0,
        "newer": ENOSYS,
    }


SEES = """
import json, os, resource
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status"))
written = 0
try:
    with open("/tmp/filler", "wb") as file:
        while True:
            written += file.write(bytes(1 << 20))
except OSError as error:
    full = error.strerror
os.unlink("/tmp/filler")
def limit(*names):
    for name in names:
        if os.path.exists(name):
            return open(name).read().split()[0]
print(json.dumps({
    "capabilities": [int(status[name], 16) for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")],
    "no new privileges": status["NoNewPrivs"].strip(),
    "filter": status["Seccomp"].strip(),
    "user": [os.getuid(), os.getgid(), *os.getgroups()],
    "root": bool(os.statvfs("/").f_flag & os.ST_RDONLY),
    "full": [written >> 20, full],
    "files": resource.getrlimit(resource.RLIMIT_NOFILE),
    "core": resource.getrlimit(resource.RLIMIT_CORE),
    "processes": limit("/sys/fs/cgroup/pids.max", "/sys/fs/cgroup/pids/pids.max"),
    "memory": limit("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"),
    "cores": limit("/sys/fs/cgroup/cpu.max", "/sys/fs/cgroup/cpu/cpu.cfs_quota_us"),
    "network": sorted(os.listdir("/sys/class/net")),
    "first": open("/proc/1/cmdline").read().split("\\0")[0],
}))
"""


def test_a_container_has_the_least_that_a_task_needs(docker_host: TestEngine) -> None:
    found = said(docker_host, SEES)
    files = found.pop("files")
    assert files[0] == files[1] <= FILES
    assert found == {
        "capabilities": [0, 0, 0, 0],
        "no new privileges": "1",
        "filter": "2",
        "user": 3 * [TASKS_USER],
        "root": True,
        "full": [64, "No space left on device"],
        "core": [0, 0],
        "processes": str(PROCESSES),
        "memory": str(256 << 20),
        "cores": "50000",
        "network": ["lo"],
        "first": "/sbin/docker-init",
    }


def test_a_data_set_that_tasks_cannot_read_is_told(lab: DockerLab) -> None:
    data = lab.folder / "data"
    data.mkdir(mode=0o700)
    lab.node(1, datasets={"data": str(data)})
    api = lab.api()
    module = Module("def main():\n    pass\n", name="task", datasets=["data"])
    swarm_id = lab.run(api, lab.of(module), "FAILED")
    task = api.get_tasks(swarm_id)[0]
    assert task.error is not None
    assert task.error.sentence.startswith(
        f"The data set 'data' can't be read by tasks in containers, which are user {TASKS_USER}'s"
    )
    assert f"chmod -R o+rX {data}" in task.error.sentence
    lab.gone()


FORKS = """
import os, time
def main():
    children = []
    try:
        while True:
            pid = os.fork()
            if not pid:
                time.sleep(60)
                os._exit(0)
            children.append(pid)
    except BlockingIOError:
        return len(children)
"""


def test_a_fork_bomb_is_refused_more_processes(lab: DockerLab) -> None:
    """What it has started ends with its attempt."""
    lab.node(1)
    api = lab.api()
    swarm_id = lab.run(api, lab.of(Module(FORKS, name="task")))
    [task] = api.get_tasks(swarm_id)
    assert PROCESSES - 20 < task.output < PROCESSES
    lab.gone()


FILLS = """
import os, time
def main():
    with open("filler", "wb") as file:
        for _ in range(64):
            file.write(os.urandom(1 << 20))
        file.flush()
        time.sleep(60)
"""


def test_a_task_that_fills_the_disk_is_ended_with_the_arithmetic(lab: DockerLab) -> None:
    lab.node(1, resources={"scratch_mb": 16})
    api = lab.api()
    swarm_id = lab.run(api, lab.of(Module(FILLS, name="task")), "FAILED")
    [task] = api.get_tasks(swarm_id)
    assert task.error is not None
    assert "MB in its scratch folder, and 16.8 MB are allowed" in task.error.sentence
    lab.gone()


DEAF = """
import os, signal, time
def main():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if not os.fork():
        os.setsid()
        if os.fork():
            os._exit(0)
        time.sleep(600)
    print("sleeping")
    time.sleep(600)
"""


def test_a_task_that_heeds_no_signal_ends_with_a_grandchild_that_cut_all_ties(
    lab: DockerLab,
) -> None:
    node = lab.node(1)
    api = lab.api()
    deployed = api.deploy_swarm("lab", lab.of(Module(DEAF, name="task"), timeout=3))
    assert api.wait_swarm(deployed, timeout=60).status == "FAILED"
    [task] = api.get_tasks(deployed)
    assert task.status == "TIMEOUT"
    for folder in Path(node.context.state.tasks).iterdir():
        lab.wait_until(lambda folder=folder: not folder.exists())  # type: ignore[misc]
    lab.gone()
