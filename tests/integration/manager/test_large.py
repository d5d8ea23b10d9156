"""Lists and plans that no message holds: thousands of records in a real manager's store."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from manta import Module, Swarm, Task, UserAPI
from manta.apis.connect.profiles import Target
from manta.apis.connect.session import Session
from manta.manager import blobs
from manta.manager.messages import Sweep
from manta.manager.store.interface import Put, Write
from manta.manager.store.records import (
    ClusterRecord,
    KeyKind,
    KeyRecord,
    NodeRecord,
    RoleRecord,
    SwarmRecord,
    UserRecord,
)
from manta.manager.store.sqlite import SqliteStore
from manta.protocol import pages
from manta.protocol.clusters import ClusterInfo, ListClusters, ListNodes, WatchNodes
from manta.protocol.node import Capabilities, DatasetInfo, Message
from manta.protocol.spec import ModuleSpec, SwarmSpec, TaskSpec
from manta.protocol.user import CheckSwarm, ListSwarms, SendSwarm, SwarmInfo
from manta.transports.frames import Limits

LIMIT = Limits().message_bytes
SPEC = SwarmSpec(
    "many",
    tuple(TaskSpec(f"task-{number}", "code") for number in range(40)),
    (ModuleSpec("code", image="none"),),
)


@pytest.fixture
def api(bench) -> Iterator[UserAPI]:
    host, port = bench.users_at.removeprefix("tcp://").split(":")
    target = Target(host, int(port), "test", server_key=bench.key)
    with UserAPI.over(Session(target, bench.admin_keys)) as api:
        yield api


def fill(bench, *writes: Write) -> None:
    """Put records into the store of the manager, which is restarted for it."""
    bench.stop()
    store = SqliteStore(bench.home / "manta.db")
    store.commit(writes)
    store.close()
    bench.start()


def swarm_record(number: int, cluster: ClusterInfo) -> Put:
    info = SwarmInfo(
        f"{number:032x}",
        f"swarm-{number}",
        cluster.id,
        "FAILED",
        f"task worker failed on node-{number}: {'ValueError in its code, and so on; ' * 25}",
        created_at=float((number * 7919) % 5000),
        ended_at=1.0,
    )
    return Put(SwarmRecord(info, cluster.owner_id))


def test_thousands_of_swarms_are_listed_in_order_of_creation(
    bench, admin, cluster: ClusterInfo, api: UserAPI
) -> None:
    fill(bench, *(swarm_record(number, cluster) for number in range(5000)))
    found = api.list_swarms()
    assert sum(pages.encoded(SwarmInfo(**dict(swarm))) for swarm in found) > LIMIT
    assert [swarm.created_at for swarm in found] == [float(number) for number in range(5000)]
    assert api.list_swarms(cluster.name) == found
    assert len({swarm.swarm_id for swarm in api.stream_swarms()}) == 5000
    # What goes away meanwhile disturbs nobody's place.
    first = admin.ask(ListSwarms())
    assert first.more
    api.remove_swarm(first.swarms[-1].swarm_id)
    rest = admin.ask(ListSwarms(after=first.swarms[-1].swarm_id))
    assert rest.swarms[0].swarm_id == f"{int(first.swarms[-1].swarm_id, 16) + 1:032x}"


def test_thousands_of_users_are_listed_by_email(
    bench, api: UserAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "PAGE_BYTES", 100_000)
    emails = [f"user-{number:05}@lab" for number in range(3000)]
    records = (UserRecord(f"{-n % 7:x}{n:031x}", email, "", 0.0) for n, email in enumerate(emails))
    fill(bench, *map(Put, records))
    asked = requests(api, monkeypatch)
    found = [user.email for user in api.list_users()]
    assert found == ["me@localhost", *emails]
    assert len(asked) > 3
    assert len(api.list_user_ids()) == 3001


def requests(api: UserAPI, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What the SDK asks from now on."""
    asked: list[object] = []
    whole = api.connection.ask

    def noted(message: Message, *arguments, **options):
        asked.append(message)
        return whole(message, *arguments, **options)

    monkeypatch.setattr(api.connection, "ask", noted)
    return asked


def test_thousands_of_roles_are_listed_by_name_the_built_in_ones_first(
    bench, api: UserAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"role-{number:05}-{'x' * 900}" for number in range(5000)]
    fill(bench, *(Put(RoleRecord(name, ("swarm.read",))) for name in reversed(names)))
    asked = requests(api, monkeypatch)
    found = api.list_roles()
    assert sum(len(role.name) for role in found) > LIMIT  # no message holds them
    assert len(asked) > 4
    assert [role.name for role in found[:4]] == ["viewer", "researcher", "operator", "owner"]
    assert [role.builtin for role in found] == [True] * 4 + [False] * 5000
    assert [role.name for role in found[4:]] == names


def test_many_clusters_are_listed_in_order_of_creation_and_make_a_large_tree(
    bench, admin, cluster: ClusterInfo, api: UserAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that wait for a node have an actor of their own: so pages are smaller."""
    monkeypatch.setattr(pages, "PAGE_BYTES", 20_000)
    numbers = range(1000)
    ids = [f"{-n % 7:x}{n:015x}" for n in numbers]
    fill(
        bench,
        *(
            Put(ClusterRecord(id_, f"c-{n}", cluster.owner_id, n + 1.0))
            for n, id_ in enumerate(ids)
        ),
        *(Put(NodeRecord(f"of-{one}", one, "n", one, 0.0, here=True)) for one in ids[:100]),
        *node_record(7, cluster),
    )
    asked = requests(api, monkeypatch)
    found = api.list_clusters()
    assert [one.name for one in found] == [*(f"c-{n}" for n in numbers), cluster.name]
    assert [one.node_count for one in found] == [1] * 100 + [0] * 900 + [5]
    assert len(asked) > 3
    first = admin.ask(ListClusters())
    last = first.clusters[-1].id
    assert first.more
    api.stop_cluster(last)
    api.delete_cluster(last)
    assert admin.ask(ListClusters(after=last)).clusters[0].id > last

    asked.clear()
    monkeypatch.setattr(pages, "PAGE_BYTES", 2_000)
    actors = api.get_tree().actors
    assert len(asked) > 3
    paths = [actor.path for actor in actors]
    assert len(set(paths)) == len(paths)
    expected = {f"manager/clusters/{id_}" for id_ in (*ids[:100], cluster.id) if id_ != last}
    assert {path for path in paths if path.startswith("manager/clusters/")} == expected
    assert paths[0] == "manager"
    assert all(path.startswith("manager/") for path in paths[1:])


def node_record(number: int, cluster: ClusterInfo) -> Iterator[Put]:
    datasets = tuple(DatasetInfo(f"scans-of-{day}-{number}", 10**9, "npz") for day in range(60))
    id_, key = f"{number:032x}", f"key-{number}"
    has = Capabilities(hostname=f"host-{number}", datasets=datasets)
    yield Put(NodeRecord(id_, cluster.id, f"n{number:04}", key, 0.0, has))
    yield Put(KeyRecord(key, KeyKind.NODE, id_, 0.0))


def test_thousands_of_nodes_and_what_a_swarm_finds_on_them(
    bench, admin, cluster: ClusterInfo, api: UserAPI
) -> None:
    fill(bench, *(put for number in range(2000) for put in node_record(number, cluster)))
    found = api.list_nodes(cluster.name)
    assert [node.alias for node in found if node.alias.startswith("n0")][:2] == ["n0000", "n0001"]
    assert [node.alias for node in found] == sorted(node.alias for node in found)
    assert len(found) == 2000 + 4
    seen, revision = set(), ""
    while changed := admin.ask(WatchNodes(cluster.name, revision)).nodes:
        assert 3 * len(changed) < len(found)
        seen |= {node.id for node in changed}
        revision = admin.ask(WatchNodes(cluster.name, revision)).revision
    assert seen == {node.id for node in found}
    first = admin.ask(ListNodes(cluster.name))
    assert first.more
    assert 3 * len(first.nodes) < len(found)  # no message holds them
    assert len(api.list_node_ids(cluster.name)) == 2004

    class Wide(Swarm):
        def execute(self) -> list[Task]:
            module = Module("def main(): pass\n", name="code")
            return [Task(module, alias=f"task-{number}") for number in range(40)]

    plan = api.check_swarm(cluster.name, Wide())
    assert len(plan.verdicts) == 40 * 2004
    assert pages.encoded(plan) > LIMIT
    assert len(plan.problems) == 40
    waits = api.send_swarm(cluster.name, Wide(), wait=True)
    explained = api.explain_swarm(waits)
    assert explained.verdicts == plan.verdicts
    planned = admin.ask(CheckSwarm(cluster.name, SPEC))
    assert planned.blob is not None
    # Nobody names it, so it goes.
    depot = bench.manager.context.depot
    old = time.time() - blobs.GRACE - 10
    os.utime(depot.path(planned.blob.digest), (old, old))
    bench.system.find("manager/blobs").ask(Sweep(), timeout=60)
    assert planned.blob.digest not in depot


def test_a_refusal_of_thousands_of_tasks_tells_the_first(admin, nodes, api: UserAPI) -> None:
    nodes(1)
    padding = "of-a-name-that-says-what-it-is-about"
    spec = SwarmSpec(
        "many",
        tuple(TaskSpec(f"task-{number}-{padding}", "code") for number in range(25_000)),
        (ModuleSpec("code", image="none", datasets=tuple("abcdefgh")),),
    )
    refused = admin.refusal(SendSwarm("lab", spec), 30.0)
    assert refused.code == "unplaceable"
    assert refused.sentence.startswith(
        f"Task 'task-0-{padding}' cannot be placed: no node that it may run on has the dataset "
        "'a', 'b', 'c', 'd', 'e', and 3 more (there are: none)"
    )
    told = refused.sentence.count("cannot be placed")
    assert refused.sentence.endswith(f" There are {25_000 - told} more: see `manta check`.")
    assert told < len(refused.data["problems"]) < 25_000
    plan = api.connection.plan(CheckSwarm("lab", spec))
    assert pages.encoded(plan) > LIMIT
    assert len(plan.problems) == 25_000
