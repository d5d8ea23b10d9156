"""Values, results and what a task says of how it goes, from real tasks to the user and back."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from manta import Module, Swarm, Task, UserAPI
from manta.apis.errors import InvalidArgument, NotFound
from manta.cli.local.cluster import CLUSTER, LocalCluster
from manta.testing.clusters import client, running
from tests.support.swarms import One, ended, errors, outputs


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with running(LocalCluster, 2) as cluster:
        yield cluster


@pytest.fixture
def api(cluster: LocalCluster) -> Iterator[UserAPI]:
    with client(cluster) as api:
        yield api


VALUES: dict[str, Any] = {
    "plain": [None, True, -3, 2.5, "text \u00e9", b"\x00bytes", (1, (2,)), {"a": {3: [4]}}],
    "huge": [2**500, -(2**70), 2**63, -(2**63)],
    "odd floats": [math.inf, -math.inf, -0.0],
    "naive": datetime(2020, 2, 29, 12, 30, 1, 5),
    "utc": datetime(2020, 1, 1, tzinfo=UTC),
    "fixed": datetime(2020, 1, 1, tzinfo=timezone(timedelta(hours=5.5), "IST")),
    "zone": datetime(2020, 7, 1, fold=1, tzinfo=ZoneInfo("Europe/Paris")),
    "long": ["x" * 100_000, b"y" * 100_000],
    "empty": [[], {}, (), "", b""],
}
ARRAYS: dict[str, Any] = {
    "empty": np.zeros((0, 3)),
    "0-d": np.array(5.0),
    "big-endian": np.arange(5, dtype=">i4"),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "strided": np.arange(20)[::3],
    "nan": np.array([np.nan, 1.0]),
    "bool": np.array([True, False]),
    "half": np.ones(3, "f2"),
    "complex": np.ones(3, "c16"),
    "text": np.array(["a", "bcd"]),
    "dates": np.array(["2020-01-01", "NaT"], dtype="M8[D]"),
    "large": np.arange(100_000),
    "scalar": np.float32(1.5),
    "scalar int": np.int8(-3),
    "scalar bool": np.bool_(True),
    "scalar date": np.datetime64("2020-01-01"),
}

ECHO = """
    from manta.light import World
    def main():
        world = World()
        there = world.globals["value"]
        world.globals["again"] = there
        world.results.add("back", world.globals["again"])
        return there
"""


def echoed(api: UserAPI, value: Any) -> Any:
    """From the user by a global to a task, and back by a result; and as its output."""
    swarm = One(ECHO, method="any")
    swarm.set_global("value", value)
    done = ended(api, swarm)
    assert done.status == "COMPLETED", done.reason
    (result,) = api.get_swarm_results(done, "back")
    (task,) = api.get_tasks(done)
    assert repr(task.output) == repr(result.value)
    return result.value


def test_plain_values_come_back_as_they_were(api: UserAPI) -> None:
    back = echoed(api, VALUES)
    assert back == VALUES
    assert repr(back) == repr(VALUES), "and of the same types"
    assert math.isnan(echoed(api, math.nan))


def test_arrays_come_back_as_they_were(api: UserAPI) -> None:
    back = echoed(api, ARRAYS)
    assert back.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert type(back[name]) is type(array), name
        assert back[name].dtype == array.dtype, name
        np.testing.assert_array_equal(back[name], array, err_msg=name)
    assert back["fortran"].flags.f_contiguous


def test_tensors_come_back_as_they_were(api: UserAPI) -> None:
    torch = pytest.importorskip("torch")
    tensors = {"b": torch.ones(3, dtype=torch.bfloat16), "f": torch.arange(6.0).view(2, 3).T}
    back = echoed(api, tensors)
    for name, tensor in tensors.items():
        assert back[name].dtype == tensor.dtype
        assert torch.equal(back[name], tensor)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("{'m': {'l': {1}}}", 'value["m"]["l"] is of type set, which can\'t be sent: send sorted('),
        ("np.zeros(2, 'i4,f8')", "send a dict of its fields, an array each"),
        ("[np.array([None])]", "value[0] is of numpy type object, which can't be sent: send a"),
        ("{(1, frozenset()): 2}", "value[(1, frozenset())] (the key)[1] is of type frozenset"),
        ("1 + 2j", "value is of type complex, which can't be sent: send numpy.complex128("),
        ("lambda: 1", "value is of type function, which can't be sent"),
    ],
)
def test_other_values_are_refused_by_place_and_remedy(api: UserAPI, value: str, words: str) -> None:
    code = f"import numpy as np\nfrom manta.light import World\ndef main():\n    v = {value}\n"
    for use in ("World().set('v', v)", "World().results.add('v', v)", "return v"):
        told = errors(api, One(f"{code}    {use}\n", method="any"))
        assert any(words in sentence for sentence in told), told


def test_results_of_every_instance_by_node_and_rank(api: UserAPI) -> None:
    class Two(Swarm):
        def execute(self) -> Task:
            write = "from manta.light import *\ndef main():\n    w = World()\n"
            add = "    w.results.add('r', w.rank)\n"
            set_ = "    w.set_result('r', 10 + w.rank)\n"
            read = """
                from manta.light import Results, World
                def main():
                    seen = World().results.select("r")
                    return [seen, World().get_results("r"), Results().select("nothing")]
                """
            one = Task(Module(write + add, name="many"), replicas=3)
            other = Task(Module(write + set_, name="other"), specified_ids=["node-2"])
            reader = Task(Module(textwrap.dedent(read), name="reader"), method="any")
            return reader([one(), other()])

    done = ended(api, Two())
    assert done.status == "COMPLETED", done.reason
    tasks = api.get_tasks(done)
    by_node = {(task.alias, task.index): task.node_id for task in tasks}
    ((select, listed, nothing),) = [task.output for task in tasks if task.alias == "reader"]
    assert listed == [0, 1, 2, 10]
    assert nothing == {}
    many = {rank: by_node["many", rank] for rank in range(3)}
    counts = [*many.values(), "node-2"]
    expected = {
        node if counts.count(node) == 1 else f"{node}/many.{rank}": rank
        for rank, node in many.items()
    }
    expected["node-2" if counts.count("node-2") == 1 else "node-2/other.0"] = 10
    assert select == expected


def test_what_a_failed_attempt_wrote_stays_readable_and_is_marked(api: UserAPI) -> None:
    code = """
        from manta.light import Results, World
        from manta.light.context import current
        def main():
            world = World()
            attempt = current().brief.attempt
            Results().save(attempt, tag="r")
            world.globals["g"] = attempt
            if attempt == 0:
                raise RuntimeError("once")
            return world.get_results("r")
        """
    deployed = api.deploy_swarm(CLUSTER, One(code, method="any", retries=1))
    assert [r.value for r in api.stream_results(deployed, "r")] == [1], "held back while it ran"
    done = api.wait_swarm(deployed, timeout=60)
    assert done.status == "COMPLETED", done.reason
    results = api.get_swarm_results(done, "r", attempts="all")
    assert [(r.value, r.attempt, r.counts) for r in results] == [(0, 0, False), (1, 1, True)]
    assert [r.value for r in api.stream_results(done, "r", attempts="all")] == [0, 1]
    for wait in (False, True):
        assert api.get_swarm_results(done, "r", wait).values() == [1]
    assert api.select_results(done, "r").by_node() == {results[1].node_id: 1}
    assert api.list_result_tags(done) == ["r"]
    with pytest.raises(InvalidArgument, match='attempts is \'none\': give "counting" or "all"'):
        api.select_results(done, "r", attempts="none")  # type: ignore[arg-type]
    (output,) = [task.output for task in api.get_tasks(done) if task.status == "FINISHED"]
    assert output == [1], "other tasks do not see it"


def test_a_tag_that_only_failed_attempts_wrote_is_none(api: UserAPI) -> None:
    code = """
        from manta.light import Results
        def main():
            Results().save(1, tag="r")
            raise RuntimeError("always")
        """
    done = ended(api, One(code, method="any"))
    assert done.status == "FAILED"
    assert api.list_result_tags(done) == []
    assert api.list_result_tags(done, attempts="all") == ["r"]
    with pytest.raises(NotFound, match=r'only failed attempts wrote it \(attempts="all" returns 1'):
        api.select_results(done, "r")


def test_globals_are_a_mapping(api: UserAPI) -> None:
    code = """
        from manta.light import Globals, World
        def main():
            world = World()
            g = world.globals
            world.set("a", 1)
            world.set_global("b", 2)
            g["c"] = 3
            try:
                g["nothing"]
            except KeyError as error:
                missing = str(error)
            return [world.get("a"), world.get_global("b"), g["c"], g.get("d", 4), "a" in g,
                    "d" in g, sorted(g), len(g), dict(g), world.get("d"), missing, Globals()["a"]]
        """
    (seen,) = outputs(api, One(code, method="any"))
    missing = seen.pop(-2)
    assert seen == [1, 2, 3, 4, True, False, ["a", "b", "c"], 3, {"a": 1, "b": 2, "c": 3}, None, 1]
    assert missing.startswith("No global 'nothing' has been set in this swarm")


def test_progress_metrics_stop_and_next_iterations(api: UserAPI) -> None:
    code = """
        from manta.light import World
        def main():
            world = World()
            world.progress(0.5, "half")
            world.log_metrics({"loss": 1.0 / (1 + world.iteration)}, step=world.iteration)
            if world.iteration < 2:
                world.schedule_next_iter([world.node_id], "code")
            if world.iteration == 1:
                world.stop_swarm()
            return [world.iteration, world.rank, world.size, world.node_id, world.swarm_id,
                    bool(world.task_id)]
        """
    done = ended(api, One(code, method="any", specified_ids=["node-2"]))
    assert done.status == "COMPLETED"
    assert [task.output for task in api.get_tasks(done)] == [
        [n, 0, 1, "node-2", done.id, True] for n in range(2)
    ]
    assert [task.progress for task in api.get_tasks(done)] == [0.5, 0.5]
    assert [(m.metrics, m.step) for m in api.get_metrics(done)] == [
        ({"loss": 1.0}, 0),
        ({"loss": 0.5}, 1),
    ]


def anonymous(cluster: LocalCluster, child: int) -> int:
    """Bytes of memory that a process holds for itself now, mapped files left out."""
    with open(f"/proc/{cluster.children[child].process.pid}/status") as file:
        (line,) = [line for line in file if line.startswith("RssAnon")]
    return int(line.split()[1]) * 1024


def test_a_large_result_takes_no_memory_of_manager_and_node_for_itself(
    api: UserAPI, cluster: LocalCluster
) -> None:
    """2 GB by hand: 22 MB at the manager and 26 at the node, as here."""
    size = 300_000_000
    code = f"""
        import numpy as np
        from manta.light import World
        def main():
            array = np.zeros({size}, "u1")
            array[-1] = 7
            World().results.add("large", array)
        """
    deployed = api.deploy_swarm(CLUSTER, One(code, method="any"))
    most = 0
    while not api.get_swarm(deployed).ended:
        most = max(most, *(anonymous(cluster, child) for child in range(3)))
    (result,) = api.get_swarm_results(deployed, "large")
    assert (len(result.value), result.value[-1]) == (size, 7)
    most = max(most, *(anonymous(cluster, child) for child in range(3)))
    assert most < size / 4
