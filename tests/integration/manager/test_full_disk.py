"""A manager on a disk that is full: reads are answered, writes are refused with what is full and
what to do, and all goes on once there is room."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from subprocess import PIPE, STDOUT

import pytest

from manta.manager import blobs
from manta.manager.errors import StartError, StoreError
from manta.manager.service import Manager
from manta.manager.store.records import KeyRecord, SwarmRecord
from manta.protocol.clusters import (
    CreateCluster,
    DeleteCluster,
    ListClusters,
    ListNodes,
    RemoveNode,
    StopCluster,
)
from manta.protocol.codes import Code
from manta.protocol.node import DesiredChanged, LogBatch, LogLine, MetricsLogged, TaskEnded
from manta.protocol.sign_in import Bind, SignIn
from manta.protocol.spec import ModuleSpec
from manta.protocol.user import (
    ExplainSwarm,
    GetManagerStatus,
    GetSwarm,
    GetTasks,
    ListSwarms,
    PauseSwarm,
    ReadFeed,
    RemoveSwarm,
    SendSwarm,
    SetGlobal,
    StopSwarm,
    WaitSwarm,
)
from manta.protocol.users import (
    AddUser,
    CreateRoleDefinition,
    DeleteUser,
    GrantRole,
    ListModules,
    ListUsers,
    RemoveModule,
    RevokeRole,
    RevokeTokens,
    SendModule,
)
from manta.protocol.values import BlobRef, Inline
from manta.testing import wait_until
from manta.testing.manager import Client, FakeNode
from manta.transports.errors import BlobRefused
from manta.transports.security.keys import KeyPair
from tests.integration.manager.conftest import Bench
from tests.integration.manager.test_quotas import refused
from tests.integration.manager.test_swarms import deploy, round_trip, silent
from tests.support.ports import free_ports

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a file system")

PASSWORD = "correct-horse"


class Disk:
    """A file system of 4 MB."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filling = folder / "filling"

    def fill(self) -> None:
        with open(self._filling, "wb", buffering=0) as file:
            for piece in (65536, 1):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(bytes(piece))

    def leave(self, free: int) -> None:
        """Fills all but so many bytes."""
        with open(self._filling, "wb", buffering=0) as file:
            found = os.statvfs(self.folder)
            file.write(bytes(max(0, found.f_bavail * found.f_frsize - free)))

    def make_room(self) -> None:
        self._filling.unlink()

    def resize(self, megabytes: int) -> None:
        mount = ["mount", "-o", f"remount,size={megabytes}m", str(self.folder)]
        subprocess.run(mount, check=True)


@pytest.fixture
def disk() -> Iterator[Disk]:
    folder = Path(tempfile.mkdtemp(prefix="disk-"))  # short enough for sockets
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        folder.rmdir()
        pytest.skip("no file system can be mounted here")
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", str(folder)], check=True)
        folder.rmdir()


@pytest.fixture
def full(disk: Disk) -> Iterator[Bench]:
    with ExitStack() as undo:
        (disk.folder / "manta").mkdir(mode=0o700)
        bench = Bench(disk.folder / "manta" / "manager", undo)
        bench.start()
        yield bench


def write_until_full(admin: Client) -> None:
    """The database may write over what it has in its files already."""
    names = (f"role-{number}" for number in range(5000))
    asked = (CreateRoleDefinition(name, ("swarm.read",)) for name in names)
    refusal = next(refusal for message in asked if (refusal := refused(admin, message)))
    assert "the disk is full; free some space" in refusal.sentence


def soon(client: Client, message: object) -> object:
    """The answer or refusal, which comes within 2 s."""
    began = time.monotonic()
    answer = client.ask(message, 10.0)
    assert time.monotonic() - began < 2.0, message
    return answer


def test_reads_are_answered_writes_are_refused_and_all_goes_on(full: Bench, disk: Disk) -> None:
    admin, context = full.client(full.admin_keys), full.manager.context
    node = full.node(1, silent)
    assert node.registered.wait(60)
    admin.ask(AddUser("reader@lab", PASSWORD))
    keys = KeyPair.generate()
    token = full.client(keys).ask(SignIn("reader@lab", PASSWORD)).token
    swarm = deploy(admin, round_trip())
    wait_until(lambda: node.acknowledged.get(swarm) == 1)
    [at] = node.ran
    disk.fill()
    for number in range(2000):
        node.say(swarm, MetricsLogged(at, {"loss": 1.0}, number, 0.0))
    setting = SetGlobal(swarm, "a", Inline(b""))
    wait_until(
        lambda: (no := refused(admin, setting)) is not None and "disk is full" in no.sentence
    )
    for read in (
        GetSwarm(swarm),
        GetTasks(swarm),
        ListSwarms(),
        ListClusters(),
        ListNodes("lab"),
        ExplainSwarm(swarm),
        *(ReadFeed(swarm, feed) for feed in ("results", "metrics", "logs", "events")),
    ):
        soon(admin, read)
    # Who has signed in before shows his token at each start of the command line.
    again = full.client(keys)
    soon(again, Bind(token))
    soon(again, ListClusters())
    began = time.monotonic()
    for write in (PauseSwarm(swarm), SetGlobal(swarm, "a", Inline(b""))):
        refusal = admin.refusal(write)
        assert refusal.code == Code.STORAGE
        assert "manta.db was not written: the disk is full; free some space." in refusal.sentence
    assert time.monotonic() - began < 5.0
    write_until_full(admin)
    assert node.acknowledged[swarm] == 1  # they wait on the node, which sends them again
    disk.make_room()
    wait_until(lambda: context.disk.takes_entries)
    node.speak()
    wait_until(lambda: node.acknowledged.get(swarm) == 2001)
    assert len(admin.ask(ReadFeed(swarm, "metrics", limit=10_000)).items) > 0
    node.say(swarm, TaskEnded(at, "FINISHED", 0.0))
    wait_until(lambda: len(node.ran) == 2)
    node.say(swarm, TaskEnded(node.ran[1], "FINISHED", 0.0))
    assert admin.ask(WaitSwarm(swarm, 20.0), 30.0).status == "COMPLETED"


def test_a_manager_that_was_killed_on_a_full_disk_starts_when_there_is_room(
    full: Bench, disk: Disk
) -> None:
    admin = full.client(full.admin_keys)
    node = full.node(1, silent)
    assert node.registered.wait(60)
    swarm = deploy(admin, round_trip())
    wait_until(lambda: node.ran)
    disk.fill()
    node.say(swarm, MetricsLogged(node.ran[0], {"loss": 1.0}, 0, 0.0))
    full.stop()
    disk.make_room()
    full.start()
    wait_until(lambda: node.acknowledged.get(swarm) == 2)
    assert len(admin.ask(ReadFeed(swarm, "metrics")).items) == 1


def test_a_start_on_a_full_disk_is_refused_in_words(full: Bench, disk: Disk) -> None:
    full.stop()
    disk.fill()
    with pytest.raises(
        (StartError, StoreError), match=r"(disk is full; free some|No space left .*make room)"
    ):
        Manager(full.settings)
    disk.make_room()
    full.start()


def test_who_runs_a_swarm_is_told_that_a_value_has_no_room_and_it_goes_on(
    disk: Disk, tmp_path: Path
) -> None:
    """The node keeps the value, and the manager, on the same disk, has no room for it as well."""
    disk.resize(9)
    (tmp_path / "swarm.py").write_text(
        "from manta import Module, Swarm, Task\n"
        'WORKER = """\n'
        "import os\n"
        "def main():\n"
        "    print('writes', flush=True)\n"
        "    return os.urandom(5_000_000)\n"
        '"""\n'
        "class Big(Swarm):\n"
        "    def execute(self):\n"
        "        return Task(Module(WORKER, name='big'))()\n"
    )
    command = [sys.executable, "-m", "manta", "run", "swarm.py", "--nodes", "1"]
    environment = {**os.environ, "TMPDIR": str(disk.folder), "HOME": str(tmp_path)}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=PIPE, stderr=STDOUT, text=True
    ) as run:
        assert run.stdout is not None
        try:
            said = []
            for line in run.stdout:
                said.append(line)
                if "no room for a blob of" in line:
                    break
            assert "no room for a blob of" in said[-1], "".join(said)
            disk.resize(30)
            rest = run.stdout.read()
            assert "COMPLETED" in rest, "".join((*said, rest))
        finally:
            run.terminate()
    assert run.wait(60) == 0


def test_what_takes_something_away_is_in_effect_at_once_and_stored_when_there_is_room(
    full: Bench, disk: Disk
) -> None:
    admin = full.client(full.admin_keys)
    nodes = [full.node(number, silent) for number in (1, 2)]
    assert all(node.registered.wait(60) for node in nodes)
    for name in ("ada", "bob", "eve"):
        admin.ask(AddUser(f"{name}@lab", PASSWORD))
    clients = {}
    for name in ("ada", "bob", "eve"):
        clients[name] = full.client()
        clients[name].ask(SignIn(f"{name}@lab", PASSWORD))
    admin.ask(GrantRole("ada@lab", "lab", "viewer"))
    admin.ask(CreateCluster("away"))
    admin.ask(SendModule(ModuleSpec("m", image="i")))
    swarm = admin.ask(SendSwarm("lab", round_trip(), wait=True)).swarm_id
    disk.fill()
    write_until_full(admin)
    asked = (
        RevokeTokens("eve@lab"),
        DeleteUser("bob@lab"),
        RevokeRole("ada@lab", "lab"),
        RemoveNode("node-2"),
        DeleteCluster("away"),
        RemoveModule("m"),
        RemoveSwarm(swarm),
    )
    # The database may find some room within its files meanwhile: then one of them is stored.
    refusals = [one for one in (refused(admin, message) for message in asked) if one is not None]
    assert refusals
    for refusal in refusals:
        assert refusal.code == Code.STORAGE
        assert refusal.sentence.startswith("It is in effect, and not stored yet: ")
        assert "disk is full" in refusal.sentence
    assert clients["eve"].refusal(ListClusters()).code == Code.NOT_SIGNED_IN
    assert clients["bob"].refusal(ListClusters()).code == Code.NOT_SIGNED_IN
    assert clients["ada"].ask(ListClusters()).clusters == ()
    assert admin.refusal(GetSwarm(swarm)).code == Code.UNKNOWN_SWARM
    assert [one.name for one in admin.ask(ListClusters()).clusters] == ["lab"]
    assert "node-2" not in {one.alias for one in admin.ask(ListNodes("lab")).nodes}
    disk.make_room()
    wait_until(lambda: "disk is full" not in str(admin.ask(GetManagerStatus()).health))
    wait_until(lambda: full.manager.context.reader.get(SwarmRecord, swarm) is None)
    full.restart()
    again = full.client(clients["eve"].keys)
    assert again.refusal(ListClusters()).code == Code.NOT_SIGNED_IN
    emails = {one.email for one in admin.ask(ListUsers()).users}
    assert "bob@lab" not in emails
    assert "ada@lab" in emails
    assert admin.ask(ListModules()).modules == ()
    assert [one.name for one in admin.ask(ListClusters()).clusters] == ["lab"]


def test_of_revocations_side_by_side_each_is_in_effect(full: Bench, disk: Disk) -> None:
    admin = full.client(full.admin_keys)
    emails = [f"user-{number}@lab" for number in range(5)]
    clients = []
    for email in emails:
        admin.ask(AddUser(email, PASSWORD))
        client = full.client()
        client.ask(SignIn(email, PASSWORD), 30.0)
        clients.append(client)
    disk.fill()
    write_until_full(admin)
    asked = [admin.gateway.ask_future(RevokeTokens(email), timeout=5.0) for email in emails]
    for future in asked:  # one may find some room within the database's files
        error = future.exception(60.0)
        assert error is None or str(error).startswith("It is in effect, and not stored yet: ")
    for client in clients:
        assert client.refusal(ListClusters()).code == Code.NOT_SIGNED_IN
    disk.make_room()
    wait_until(lambda: "disk is full" not in str(admin.ask(GetManagerStatus()).health))
    keys = {client.keys.public for client in clients}
    stored = full.manager.context.reader
    wait_until(lambda: not keys & {one.key for one in stored.all(KeyRecord)})


def test_large_values_and_lines_stop_before_the_database_does(full: Bench, disk: Disk) -> None:
    disk.resize(40)
    full.restart()  # it looks at the disk's size when it starts
    admin = full.client(full.admin_keys)
    node = full.node(1, silent)
    assert node.registered.wait(60)
    swarm = deploy(admin, round_trip())
    wait_until(lambda: node.acknowledged.get(swarm) == 1)
    context = full.manager.context
    reserve = context.disk.reserve
    assert reserve == pytest.approx(2 * 1024 * 1024, rel=0.01)
    disk.leave(reserve * 3 // 8)
    with pytest.raises(BlobRefused, match=r"no room for a blob of 1000 bytes .* that are kept"):
        context.depot.put(bytes(1000))
    node.log(swarm, LogLine(node.ran[0], 0.0, "stdout", "waits"))
    wait_until(lambda: "Log lines wait" in str(admin.ask(GetManagerStatus()).health))
    for number in range(50):  # what is small and must not be lost is stored all the same
        node.say(swarm, MetricsLogged(node.ran[0], {"loss": 1.0}, number, 0.0))
    wait_until(lambda: node.acknowledged[swarm] == 51)
    admin.ask(AddUser("new@lab", PASSWORD))
    assert context.reader.extent(swarm).lines == 0
    disk.leave(reserve // 8)
    wait_until(lambda: "What tasks say waits" in str(admin.ask(GetManagerStatus()).health))
    assert "What tasks say waits" in admin.ask(GetSwarm(swarm)).reason
    for number in range(50):  # however much it is, the database keeps what is left
        node.say(swarm, MetricsLogged(node.ran[0], {"loss": 1.0}, number, 0.0))
    for number in range(5):  # of its user
        admin.ask(AddUser(f"newer-{number}@lab", PASSWORD))
    assert node.acknowledged[swarm] == 51
    disk.make_room()
    wait_until(lambda: "waits on their" not in str(admin.ask(GetManagerStatus()).health))
    node.speak()
    wait_until(lambda: node.acknowledged[swarm] == 101)
    node.tell(LogBatch(swarm, 1, tuple(node.lines[swarm])))
    wait_until(lambda: context.reader.extent(swarm).lines == 1)


def in_effect(admin: Client, message: object) -> None:
    """It is answered within 2 s, though it cannot be stored."""
    began = time.monotonic()
    refusal = admin.refusal(message)
    assert time.monotonic() - began < 2.0
    assert refusal.code == Code.STORAGE
    assert refusal.sentence.startswith("It is in effect, and not stored yet: ")


def is_stored_as(bench: Bench, swarm: str, status: str) -> bool:
    record = bench.manager.context.reader.get(SwarmRecord, swarm)
    return record is not None and record.info.status == status


def is_told_to_end(node: FakeNode, swarm: str) -> bool:
    """Whether its node was told to run the swarm no more."""
    changes = [one for one in node.heard if isinstance(one, DesiredChanged)]
    return any(at.swarm_id == swarm for one in changes for at in one.revoke) and (
        swarm not in changes[-1].swarms
    )


@pytest.mark.parametrize("before", ["runs", "paused"])
def test_a_swarm_is_stopped_and_removed_on_a_full_disk(
    full: Bench, disk: Disk, before: str
) -> None:
    admin = full.client(full.admin_keys)
    node = full.node(1, silent)
    assert node.registered.wait(60)
    swarms = [deploy(admin, round_trip()) for _ in range(2)]
    wait_until(lambda: len(node.acknowledged) == 2)
    if before == "paused":
        for swarm in swarms:
            admin.ask(PauseSwarm(swarm))
    disk.fill()
    write_until_full(admin)
    for at in node.ran:
        node.say(at.swarm_id, MetricsLogged(at, {"loss": 1.0}, 0, 0.0))
    for swarm in swarms:
        in_effect(admin, StopSwarm(swarm, force=True))
        assert admin.ask(GetSwarm(swarm)).status == "STOPPED"
        assert admin.ask(WaitSwarm(swarm, 1.0)).status == "STOPPED"
        wait_until(partial(is_told_to_end, node, swarm))
        assert admin.refusal(StopSwarm(swarm)).code == Code.WRONG_STATE
    in_effect(admin, RemoveSwarm(swarms[0]))
    assert admin.refusal(GetSwarm(swarms[0])).code == Code.UNKNOWN_SWARM
    disk.make_room()
    wait_until(lambda: full.manager.context.reader.get(SwarmRecord, swarms[0]) is None)
    wait_until(lambda: is_stored_as(full, swarms[1], "STOPPED"))
    full.restart()
    assert [one.status for one in admin.ask(ListSwarms()).swarms] == ["STOPPED"]


def test_a_cluster_is_stopped_and_deleted_on_a_full_disk(full: Bench, disk: Disk) -> None:
    admin = full.client(full.admin_keys)
    node = full.node(1, silent)
    assert node.registered.wait(60)
    swarm = deploy(admin, round_trip())
    wait_until(lambda: node.acknowledged.get(swarm) == 1)
    disk.fill()
    write_until_full(admin)
    in_effect(admin, StopCluster("lab"))
    wait_until(lambda: admin.ask(GetSwarm(swarm)).status == "STOPPED")
    wait_until(partial(is_told_to_end, node, swarm))
    [cluster] = admin.ask(ListClusters()).clusters
    assert cluster.status == "STOPPED"
    in_effect(admin, DeleteCluster("lab"))
    assert admin.ask(ListClusters()).clusters == ()
    disk.make_room()
    wait_until(lambda: full.manager.context.reader.get(SwarmRecord, swarm) is None)
    full.restart()
    assert admin.ask(ListClusters()).clusters == ()


def test_what_nothing_names_goes_first(
    full: Bench, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk.resize(40)
    monkeypatch.setattr(blobs, "NEWEST", 0.0)
    full.restart()
    admin = full.client(full.admin_keys)
    context = full.manager.context
    unnamed = [context.depot.put(bytes([number]) * 1_000_000) for number in range(3)]
    named = context.depot.put(b"named" * 200_000)
    admin.ask(SendModule(ModuleSpec("m", BlobRef(named, 1_000_000))))
    assert all(one in context.depot for one in (*unnamed, named))
    disk.leave(context.disk.reserve - 1_500_000)  # two of them have to go
    # A file is no longer found a moment before its room is free.
    wait_until(lambda: not context.disk.lacks)
    [left] = [one for one in unnamed if one in context.depot]
    room = context.depot.free  # that one is in the way of a value that is refused
    with pytest.raises(BlobRefused, match="no room"):
        context.depot.put(bytes(room + 500_000))
    wait_until(lambda: left not in context.depot)
    wait_until(lambda: context.depot.free >= room + 500_000)
    context.depot.put(bytes(room + 500_000))
    assert named in context.depot


@pytest.mark.parametrize("options", [(), ("--background",)], ids=["foreground", "background"])
@pytest.mark.parametrize("before", ["new", "existing", "killed"])
def test_manta_manager_start_on_a_full_disk_is_one_sentence(
    disk: Disk, tmp_path: Path, before: str, options: tuple[str, ...]
) -> None:
    home = disk.folder / "manta" / "manager"
    home.parent.mkdir(mode=0o700)
    if before != "new":
        with ExitStack() as undo:
            bench = Bench(home, undo)
            bench.start()
    if before == "killed":
        (home / "manager.json").write_text("{}")
    disk.fill()
    names = ("--node-port", "--user-port", "--bulk-port")
    ports = [str(x) for pair in zip(names, free_ports(), strict=True) for x in pair]
    command = [sys.executable, "-m", "manta", "manager", "start", "--home", str(home), *ports]
    environment = {**os.environ, "MANTA_HOME": str(tmp_path / "home"), "COLUMNS": "1000"}
    done = subprocess.run(
        [*command, "--host", "127.0.0.1", *options],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 11, done
    assert done.stdout == ""
    [said] = done.stderr.splitlines()
    assert "disk is full" in said or "No space left" in said
    assert "room" in said or "free some space" in said
