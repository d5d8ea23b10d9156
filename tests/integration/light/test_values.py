"""Globals, results, state and datasets through the real service; large values as memfds."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from manta.node.task_server import messages as light
from manta.node.task_server import requests as ask
from manta.protocol.values import BlobRef, Inline
from manta.testing import wait_until

Start = Callable[..., Any]


def main(body: str, top: str = "") -> str:
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    return (
        "import numpy as np\nfrom manta.light import Globals, Local, Results, World\n"
        f"world, local = World(), Local()\n{top}\ndef main():\n{lines}"
    )


def test_globals_are_a_mapping(start: Start) -> None:
    runtime = start(
        main("""
world.globals["a"] = {"x": [1, (2, None)], "when": b"bytes"}
world.set("b", None)
world.set_global("c", 3.5)
try:
    world.globals["nonesuch"]
except KeyError as error:
    sentence = str(error)
return [
    world.globals["a"], world.get("b", 1), world.get_global("c"), world.globals.get("d", 4),
    "a" in world.globals, "d" in world.globals, list(world.globals), len(world.globals),
    dict(Globals()) == {tag: world.globals[tag] for tag in world.globals}, sentence,
]
""")
    )
    output = runtime.run().output
    assert output[:9] == [
        {"x": [1, (2, None)], "when": b"bytes"}, None, 3.5, 4, True, False, ["a", "b", "c"], 3,
        True,
    ]  # fmt: skip
    assert output[9].startswith("No global 'nonesuch' has been set in this swarm: set it with ")


def test_results(start: Start) -> None:
    runtime = start(
        main("""
world.results.add("one", world.rank)
world.set_result("two", world.rank * 10)
Results().save({"rank": world.rank}, tag="three")
return world.results.select("one"), world.get_results("two"), world.results.select("four")
""")
    )
    assert runtime.run(0).output == ({"node-id": 0}, [0], {})
    assert runtime.run(0, index=1).output == (
        {"node-id/worker.0": 0, "node-id/worker.1": 1}, [0, 10], {},
    )  # fmt: skip
    assert runtime.run(1).output == ({"node-id": 0}, [0], {})


def test_what_the_world_knows_and_says(start: Start, node: Any) -> None:
    runtime = start(
        main("""
world.progress(0.5, "half")
world.log_metrics({"loss": np.float32(0.5), "n": 3}, step=np.int64(2))
world.schedule_next_iter(["a", "b"], "worker")
world.schedule_next_iter()
world.stop_swarm()
for call in (lambda: world.progress(2), lambda: world.log_metrics({"x": "high"}),
             lambda: world.results.add("", 1), lambda: world.set(3, 1)):
    try:
        call()
    except (TypeError, ValueError) as error:
        print(error)
return [world.node_id, world.iteration, world.swarm_id, world.task_id, world.rank, world.size]
""")
    )
    ended = runtime.run(5)
    assert ended.output == ["node-id", 5, "swarm", "worker-5", 0, 3]
    assert node.requests == [
        ask.Progress(0.5, "half", n=1),
        ask.LogMetrics({"loss": 0.5, "n": 3.0}, 2, n=2),
        ask.ScheduleNextIteration(("a", "b"), "worker", n=3),
        ask.ScheduleNextIteration((), None, n=4),
        ask.StopSwarm(n=5),
    ]
    assert ended.lines("stdout") == [
        "progress() takes a fraction from 0 to 1, not 2.0.",
        "log_metrics() takes numbers; metrics['x'] is str. Use results.add() for other values.",
        "A tag is 1 to 200 printable characters, not ''.",
        "A tag is a str, not 3.",
    ]


def test_a_refusal_is_an_exception_of_its_kind(start: Start, node: Any) -> None:
    node.globals["refuse"] = node.payload(True)
    runtime = start(
        main("""
from manta.light.errors import SwarmStopped
try:
    world.stop_swarm()
except SwarmStopped as error:
    return str(error)
""")
    )
    assert runtime.run().output == "The swarm was stopped by its owner."


def test_state_resources_and_performance(start: Start) -> None:
    runtime = start(
        main("""
n = local.get_state("n", default=0)
local.set_state("n", n + 1)
found = local.get_resources()
return n, found.cpu_count, found.gpu_available, local.get_performance_metrics()["cpu_usage"]
""")
    )
    assert [runtime.run(i).output for i in range(2)] == [(0, 2, False, 0.5), (1, 2, False, 0.5)]


def test_large_arrays_are_mapped_writable_and_shared_by_nobody(start: Start, node: Any) -> None:
    array = np.arange(13_000_000, dtype=np.float64)  # 104 MB
    node.globals["large"] = node.payload({"array": array, "name": "x"})
    runtime = start(
        main("""
import resource
value = world.globals["large"]
array = value["array"]
before = array[:3].copy()
assert array.flags.writeable and not array.flags.owndata
array[:] += 1
again = world.globals["large"]["array"]
assert again[0] == before[0], "a write reached the sealed memory"
world.globals["larger"] = array
return array
""")
    )
    ended = runtime.run()
    assert isinstance(ended.event.output, BlobRef)
    np.testing.assert_array_equal(ended.output, array + 1)
    assert node.globals["larger"] == node.payload(array + 1)
    assert ended.event.moving > 0


def test_a_small_value_rides_along_and_is_writable(start: Start, node: Any) -> None:
    node.globals["small"] = node.payload(np.ones(5))
    ended = start(main("x = world.globals['small']\nx += 1\nreturn x")).run()
    assert isinstance(ended.event.output, Inline)
    np.testing.assert_array_equal(ended.output, np.full(5, 2.0))


def test_many_large_results(start: Start, node: Any) -> None:
    from manta.protocol.node import Instance

    for index in range(300):
        payload = node.payload(np.full(20_000, index, dtype=np.float64))
        node.results.append(("model", Instance("swarm", "trainer", index, 0), payload))
    runtime = start(
        main("""
values = world.get_results("model")
keys = list(world.results.select("model"))
return len(values), float(sum(v[0] for v in values)), keys[0], keys[-1]
""")
    )
    expected = (300, float(sum(range(300))), "node-id/trainer.0", "node-id/trainer.299")
    assert runtime.run().output == expected


def test_blobs_are_pinned_only_while_they_are_needed(start: Start, node: Any) -> None:
    runtime = start(main("world.globals['x'] = np.zeros(100_000)\nreturn np.ones(100_000)"))
    runtime.run(0)
    runtime.run(1)
    runtime.close()
    runtime.exits.get(timeout=60)
    wait_until(lambda: not node.sessions.by_id)
    node.depot.put(bytes(1 << 30))  # all else must make room
    assert len(list(node.depot)) == 1


def test_moving_and_computing_are_told_apart(start: Start, node: Any) -> None:
    node.hold = True
    runtime = start(main("import time\ntime.sleep(0.2)\nworld.get('x')\nreturn 1"))
    runtime.ready()
    began = time.monotonic()
    runtime.begin()
    wait_until(lambda: node.held)
    held = time.monotonic()
    time.sleep(0.5)
    waited = time.monotonic() - held
    node.held[0].reply.set(None)
    event = runtime.end().event
    took = time.monotonic() - began
    assert 0.2 <= event.computing <= took - waited
    assert waited <= event.moving
    assert event.computing + event.moving <= took


@pytest.fixture
def datasets(tmp_path: Path) -> dict[str, Path]:
    folder = tmp_path / "data"
    (folder / "sub").mkdir(parents=True)
    np.save(folder / "a.npy", np.arange(3))
    np.savez(folder / "b.npz", x=np.ones(2), y=np.zeros(1))
    (folder / "c.csv").write_text("a,b\n1,2\n")
    (folder / "broken.npy").write_bytes(b"nonsense")
    np.save(folder / "objects.npy", np.array([{}], dtype=object))
    (folder / "d.txt").write_text("one\r\ntwo\n")
    (folder / "sub" / "e.bin").write_bytes(b"\0\1")
    return {
        "folder": folder,
        **{name: folder / file for name, file in [("a", "a.npy"), ("b", "b.npz"), ("c", "c.csv")]},
        "broken": folder / "broken.npy",
        "objects": folder / "objects.npy",
    }


def test_datasets(start: Start, datasets: dict[str, Path]) -> None:
    runtime = start(
        main("""
from manta.light import MantaPath
folder = local.get_dataset("folder")
assert isinstance(folder, MantaPath) and isinstance(folder / "sub", MantaPath)
errors = []
for name in ("nonesuch", "broken", "objects", "c"):
    try:
        errors.append(local.get_dataset(name) is None)
    except Exception as error:
        errors.append(f"{type(error).__name__}: {error}")
b = local.get_dataset("b")
return {
    "a": local.get_dataset("a"), "b": {name: b[name] for name in sorted(b)},
    "same": local.get_numpy_data("folder", "a.npy"),
    "names": local.list_dir("folder"), "sub": local.list_dir("folder", "sub"),
    "bytes": local.get_binary_data("folder", "sub/e.bin").read(),
    "lines": local.read_file_lines("folder", "d.txt"),
    "exists": [local.exists(*a) for a in (("a",), ("x",), ("folder", "sub"), ("folder", "y"))],
    "path": str(local.dataset_path("folder", "d.txt")), "errors": errors,
}
"""),
        datasets=datasets,
    )
    output = runtime.run().output
    assert output["a"].tolist() == output["same"].tolist() == [0, 1, 2]
    assert {name: array.tolist() for name, array in output["b"].items()} == {
        "x": [1, 1],
        "y": [0],
    }
    assert output["names"] == [
        "a.npy",
        "b.npz",
        "broken.npy",
        "c.csv",
        "d.txt",
        "objects.npy",
        "sub",
    ]
    assert output["sub"] == ["e.bin"]
    assert output["bytes"] == b"\0\1"
    assert output["lines"] == ["one", "two"]
    assert output["exists"] == [True, False, True, False]
    assert output["path"] == str(datasets["folder"] / "d.txt")
    assert output["errors"][0].startswith(
        "DatasetNotFound: This task has no dataset 'nonesuch' (it has: a, b, broken, c, folder, "
        "objects): declare it in Module(..., datasets=['nonesuch'])"
    )
    assert output["errors"][1].startswith("DataCorruptionError: broken.npy is not what its suffix")
    assert output["errors"][2].startswith(
        "UnsupportedData: objects.npy holds an array of Python objects: save arrays of numbers, "
        "text or dates, or open it yourself by numpy.load(local.dataset_path('objects'), "
    )


def test_what_is_printed_and_logged_arrives_live_and_whole(start: Start) -> None:
    runtime = start("""
        import sys, time
        from manta.light import Task
        print("importing")
        class Worker(Task):
            def run(self):
                print("out", self.world.iteration)
                print("err", file=sys.stderr)
                self.logger.info("info %d", 1)
                self.logger.warning("two\\nlines")
                self.logger.debug("\\ud800")
                try:
                    1 / 0
                except ZeroDivisionError:
                    self.logger.exception("failed")
                print("x" * 40_000)
                print("part", end="", flush=True)
                sys.stdout.buffer.write("\\xe4\\n".encode("latin-1"))
                sys.stdout.buffer.flush()
                time.sleep(0.3)
                print("end", end="")
    """)
    started = time.monotonic()
    runtime.begin(3)
    first = runtime.output("stdout", "out 3")
    assert abs(first.lines[-1][0] - time.time()) < 5
    ended = runtime.end()
    out = ended.lines("stdout")
    assert time.monotonic() - started >= 0.3
    assert [len(line) for line in out if line.startswith("x")] == [16384, 16384, 7232]
    assert out[-2:] == ["part\ufffd", "end"]
    assert "err" in ended.lines("stderr")
    assert ended.lines("info") == ["info 1"]
    assert ended.lines("warning") == ["two", "lines"]
    assert ended.lines("debug") == ["?"]
    assert ended.lines("error")[0] == "failed"
    assert ended.lines("error")[-1] == "ZeroDivisionError: division by zero"
    assert runtime.run(4).lines("stdout")[:2] == ["importing", "out 4"]


PRINTER = """
    def main():
        for number in range(20_000):
            print("line", number, "x" * 50)
"""


def test_who_prints_more_than_is_taken_waits_and_nothing_is_lost(start: Start, node: Any) -> None:
    node.is_behind = True
    runtime = start(PRINTER)
    runtime.begin()
    runtime.output("stdout", "line 0")
    with pytest.raises(queue.Empty):
        node.events.get(timeout=0.5)
    node.is_behind = False
    lines = runtime.end().lines("stdout")
    assert [int(line.split()[1]) for line in lines] == list(range(20_000))


def test_who_waits_to_print_more_can_be_ended(start: Start, node: Any) -> None:
    node.is_behind = True
    runtime = start(PRINTER)
    instance = runtime.begin()
    runtime.output("stdout", "line 0")
    node.sessions.tell(light.CancelAttempt(runtime.id, instance, "It is not needed."))
    assert runtime.end().error is not None


def test_what_importing_prints_belongs_to_each_attempt(start: Start) -> None:
    runtime = start("print('importing')\ndef main():\n    print('main')\n")
    for iteration in range(2):
        assert runtime.run(iteration).lines("stdout") == ["importing", "main"]


def test_a_flood_is_held_back_not_lost(start: Start) -> None:
    lines = 200_000
    runtime = start(f"def main():\n    for i in range({lines}):\n        print(i)\n")
    assert runtime.run().lines("stdout") == [str(i) for i in range(lines)]


def test_values_of_an_attempt_can_go_once_its_end_is_in_the_journal(
    start: Start, node: Any
) -> None:
    """Also where no other attempt follows in its runtime."""
    runtime = start(main("return np.ones(200_000)"))
    output = runtime.run().event.output
    assert not node.depot.let_go(output.digest)  # whoever journals it reads it
    node.sessions.tell(light.EndKept(runtime.id))
    wait_until(lambda: node.depot.let_go(output.digest))
