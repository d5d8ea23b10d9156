"""Tasks that do what they should not: one clear sentence, nothing hangs, and others go on."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Iterator
from typing import Any

import pytest

from manta import UserAPI
from manta.cli.local.cluster import CLUSTER, LocalCluster
from manta.testing.clusters import client, running
from tests.support.swarms import One, ended, errors, outputs


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with running(LocalCluster, 4) as cluster:
        yield cluster


@pytest.fixture
def api(cluster: LocalCluster) -> Iterator[UserAPI]:
    with client(cluster) as api:
        yield api


def main(body: str) -> str:
    return "import os, sys\nfrom manta.light import Local, World\ndef main():\n" + textwrap.indent(
        textwrap.dedent(body), "    "
    )


def first(code: str) -> One:
    return One(code, method="any", specified_ids=["node-1"], timeout=30)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("os._exit(3)", "ended its process with exit code 3 before its code returned"),
        ("sys.exit(3)", "code.0 called sys.exit(3)."),
        ("os.kill(os.getpid(), 11)", "was ended by SIGSEGV: its process crashed"),
        ("os.kill(os.getpid(), 9)", "was killed (SIGKILL)"),
        ("raise KeyboardInterrupt", "raised KeyboardInterrupt (code.py, line 4)."),
        ("main()", "raised RecursionError: maximum recursion depth exceeded"),
        ("bytearray(1 << 46)", "raised MemoryError (code.py, line 4)."),
        (
            "class Odd(Exception):\n    def __str__(self):\n        raise ValueError\nraise Odd",
            "raised Odd: <exception str() failed>",
        ),
        ("raise ValueError('\\ud800')", "raised ValueError: ? (code.py, line 4)."),
        ("a = {}\na['x'] = [a]\nreturn a", 'value["x"][0] contains itself: send a copy without'),
        ("return {'model': {'layer3': {1}}}", 'value["model"]["layer3"] is of type set'),
        ("World().get_broadcast('model')", "Nobody has broadcast 'model' in iteration 0"),
        (
            "World().receive_from_node(World().node_id, 't')",
            "No message 't' has come from node-1, and nothing is left there",
        ),
        (
            "with World().lock('a'):\n    with World().lock('a'):\n        pass",
            "holds the lock 'a' already: it would wait for itself",
        ),
        ("Local().get_dataset('secret')", "no dataset 'secret' (it has: none): declare it in"),
    ],
)
def test_a_task_that_fails_says_how(api: UserAPI, body: str, words: str) -> None:
    told = errors(api, first(main(body)))
    assert any(words in sentence for sentence in told), told
    assert outputs(api, first(main("return 1"))) == [1], "the node goes on"


@pytest.mark.parametrize(
    ("body", "output"),
    [
        ("for fd in (0, 1, 2):\n    os.close(fd)\nreturn World().get('x', 1)", 1),
        ("World().get('x')\nos.closerange(3, 300)\nreturn World().get('x', 2)", 2),
        ("os.umask(0o777)\nLocal().set_state('s', 3)\nreturn Local().get_state('s')", 3),
        ("os.environ.clear()\nos.chdir('/')\nreturn World().get('x', 4)", 4),
        (
            "import locale, time\nos.environ['TZ'] = 'Asia/Tokyo'\ntime.tzset()\n"
            "locale.setlocale(locale.LC_ALL, 'C')\nprint('\\u65e5 \\ud800')\nreturn 5",
            5,
        ),
        ("import threading\nthreading.Thread(target=threading.Event().wait).start()\nreturn 6", 6),
        ("import subprocess\nsubprocess.Popen(['sleep', '999'], process_group=0)\nreturn 7", 7),
        ("pid = os.fork()\nif pid:\n    os.waitpid(pid, 0)\nreturn 8 if pid else 'child'", 8),
        ("pid = os.fork()\nif not pid:\n    raise ValueError\nos.waitpid(pid, 0)\nreturn 9", 9),
        ("pid = os.fork()\nif not pid:\n    sys.exit(3)\nreturn os.waitpid(pid, 0)[1] >> 8", 3),
        ("import atexit, time\natexit.register(time.sleep, 999)\nreturn 10", 10),
        ("sys.stdout = None\nprint('nowhere')\nreturn 11", 11),
        (
            "w = World()\nw.send_to_node(w.node_id, 't', 12)\n"
            "return w.receive_from_node('node-1', 't')",
            12,
        ),
    ],
)
def test_a_task_that_is_odd_and_does_no_harm(api: UserAPI, body: str, output: int) -> None:
    assert outputs(api, first(main(body))) == [output]


def test_a_resident_object_that_forks_stays_one_process(api: UserAPI) -> None:
    code = """
        import os
        class Forking:
            def setup(self):
                self.rounds = 0
            def execute(self):
                self.rounds += 1
                pid = os.fork()
                if pid:
                    os.waitpid(pid, 0)
                return self.rounds if pid else "child"
        """
    assert outputs(api, One(code, rounds=3, method="any")) == [1, 2, 3]


MISUSES = {
    "w.schedule_next_iter(None, 3)": "A task's alias is a str",
    "w.schedule_next_iter(3)": "takes a list of node ids",
    "w.schedule_next_iter([])": "an empty list of nodes: leave node_ids out for all nodes",
    "w.globals['a' * 2000]": "1 to 200 printable characters, not 'aaa",
    "w.set('\\ud800', 1)": "A tag is 1 to 200 printable characters",
    "w.results.select('x', iteration='a')": "iteration is an int",
    "w.results.select('x', iteration=-1)": "iteration is -1: the first one is 0",
    "w.results.select('x', 2)": "takes 2 positional arguments but 3 were given",
    "w.log_metrics({'a': 'x'})": "metrics['a'] is str",
    "w.log_metrics({'a': 10 ** 400})": "too large for a float",
    "w.log_metrics({str(i): i for i in range(100_000)})": "1048576 bytes at once",
    "w.log_metrics(3)": "a dict of numbers by name",
    "w.log_metrics({'a': 1}, step=10 ** 30)": "step is beyond 2**53",
    "w.progress(2)": "a fraction from 0 to 1",
    "l.get_state(3)": "A key is a str",
    "w.get_broadcast('t', timeout='soon')": "timeout is 'soon': give seconds, more than 0",
    "w.gather(1, quorum='all')": "quorum is a number",
    "w.all_reduce(1, op='avg')": "op is 'avg': give one of sum, mean",
    "w.scatter(3)": "takes 1 values, one for each rank, not 3",
    "w.send_to_node('nobody', 't', 1)": "There is no node 'nobody'",
    "w.set('x', object())": "value is of type object",
}


def test_a_wrong_argument_is_an_exception_and_costs_the_task_nothing_else(api: UserAPI) -> None:
    code = """
        from manta.light import Local, World
        def main():
            w, l = World(), Local()
            told = []
            for use in MISUSES:
                try:
                    eval(use)
                    told.append("nothing")
                except (TypeError, ValueError, LookupError) as error:
                    told.append(str(error))
                except Exception as error:
                    told.append(f"{type(error).__name__}: {error}")
            return [told, w.get("there", "still")]
        """
    source = f"MISUSES = {list(MISUSES)!r}\n" + textwrap.dedent(code)
    ((told, still),) = outputs(api, first(source))
    for (use, words), said in zip(MISUSES.items(), told, strict=True):
        assert words in said, (use, said)
    assert still == "still"


OVERWRITES = """
    import os, shutil
    def main():
        DO
        return "mine"
"""


@pytest.mark.parametrize(
    "do",
    [
        "open(__file__, 'w').write('def main():\\n    return 666\\n')",
        "shutil.rmtree(os.path.dirname(os.path.abspath(__file__)))",
        "os.remove(__file__)",
        "open(os.path.join(os.path.dirname(__file__), 'os.py'), 'w').write('x = 1')",
    ],
)
def test_a_module_that_a_task_has_changed_is_put_right(api: UserAPI, do: str) -> None:
    for _ in range(2):  # the second swarm has the same module, and what it finds is as deployed
        assert outputs(api, first(OVERWRITES.replace("DO", do))) == ["mine"]


FRAGILE = """
    from manta.light import Task
    class Fragile(Task):
        def __init__(self):
            if self.world.node_id == "node-3":
                raise ValueError("no camera")
        def run(self):
            return self.world.node_id
"""


def test_init_that_raises_on_one_node_of_four(api: UserAPI) -> None:
    told = errors(api, One(FRAGILE))
    assert "code.2 raised ValueError: no camera (code.py, line 6)." in told
    done = ended(api, One(FRAGILE, quorum=0.75, deadline=20))
    assert done.status == "COMPLETED", done.reason
    finished = [task.output for task in api.get_tasks(done) if task.status == "FINISHED"]
    assert sorted(finished) == ["node-1", "node-2", "node-4"]


def test_a_deadline_without_a_quorum_asks_for_all(api: UserAPI) -> None:
    code = """
        import time
        from manta.light import World
        def main():
            if World().rank == 2:
                time.sleep(60)
        """
    done = ended(api, One(code, deadline=2))
    assert done.status == "FAILED"
    assert done.reason == (
        "code had 3 of 4 answers at its deadline of 2 s and needs 4; missing: code.2 on node-3."
    )
    why = "code.2 on node-3 was ended: the swarm failed: code had 3 of 4 answers"
    assert any(error.sentence.startswith(why) for error in api.collect_errors(done))


def test_a_global_that_all_set_at_once_is_one_of_theirs(api: UserAPI) -> None:
    code = """
        from manta.light import World
        def main():
            world = World()
            for number in range(20):
                world.set("both", [world.rank, number])
            world.barrier()
            return world.get("both")
        """
    seen = outputs(api, One(code))
    assert len(seen) == 4
    assert all(value == seen[0] for value in seen)
    assert seen[0][1] == 19, "a writer's last write comes after its others"


def test_an_alias_that_there_is_not_in_schedule_next_iter(api: UserAPI) -> None:
    done = ended(api, first(main("World().schedule_next_iter([World().node_id], 'nope')")))
    assert done.status == "FAILED"
    assert (
        "UnknownTask: schedule_next_iter was called for 'nope', which is not a task" in done.reason
    )
    assert "name one of code" in done.reason


def test_a_node_that_there_is_not_in_schedule_next_iter(api: UserAPI) -> None:
    """An exception where it was called, also where others that were named are there."""
    code = """
        from manta.light import World
        from manta.light.errors import UnknownPeer
        def main():
            told = []
            for nodes in (["node-9"], ["node-1", "nodle"], "nope"):
                try:
                    World().schedule_next_iter(nodes)
                except UnknownPeer as error:
                    told.append(str(error))
            World().schedule_next_iter(["node-1"], "code")
            World().schedule_next_iter()
            return told
        """
    told = outputs(api, One(code, rounds=1))[0]
    assert [sentence.partition(" Did you mean ")[0] for sentence in told] == [
        f"There is no node {name!r} in this cluster; there are node-1, node-2, node-3, node-4."
        for name in ("node-9", "nodle", "nope")
    ]
    began = time.monotonic()
    done = ended(api, first(main("World().schedule_next_iter(['node-9'])")))
    assert done.status == "FAILED"
    assert "UnknownPeer: There is no node 'node-9'" in done.reason
    assert time.monotonic() - began < 20


def memory(cluster: LocalCluster, child: int) -> int:
    """The most bytes that a process of the cluster ever had resident."""
    with open(f"/proc/{cluster.children[child].process.pid}/status") as file:
        (line,) = [line for line in file if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def lines(api: UserAPI, swarm: Any) -> Iterator[str]:
    return (line.text for line in api.stream_logs(swarm))


def test_a_flood_of_output_harms_nobody_else(api: UserAPI, cluster: LocalCluster) -> None:
    flood = "for number in range(50_000):\n    print(f'{number:06}' + 'x' * 94)\nreturn 1"
    flooding = api.deploy_swarm(CLUSTER, first(main(flood)))
    next(lines(api, flooding))
    beside = One(main("print('beside')\nreturn 2"), method="any", specified_ids=["node-1"])
    assert outputs(api, beside) == [2]
    assert api.wait_swarm(flooding, timeout=60).status == "COMPLETED"
    got = [line for line in lines(api, flooding) if len(line) == 100]
    assert [int(line[:6]) for line in got] == list(range(50_000)), "nothing was dropped"
    for child in (0, 1):
        assert memory(cluster, child) < 160 * 1024 * 1024
