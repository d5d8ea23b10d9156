"""World, Local and Results over a context made here, and outside any."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from manta.light import Globals, Local, MantaPath, Results, Task, World
from manta.light.context import MISSING, Brief, Entry, usage
from manta.light.errors import (
    BY_NAME,
    DatasetNotFound,
    GlobalNotFound,
    LightError,
    NotInTask,
    UnsupportedData,
)


class Recorder:
    """A context that answers from a dict by kind, and keeps what was asked."""

    def __init__(self, tmp_path: Path) -> None:
        self.answers: dict[str, Any] = {}
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.brief = Brief(
            swarm_id="swarm",
            alias="worker",
            index=1,
            iteration=4,
            attempt=0,
            task_id="task",
            node_id="node",
            size=3,
            seed=7,
            class_name=None,
            datasets={"text": str(tmp_path / "text")},
            timeout=None,
            scratch=str(tmp_path),
        )

    def call(self, request: str, /, **fields: Any) -> Any:
        self.calls.append((request, fields))
        return self.answers.get(request)


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Recorder]:
    usage.context = recorder = Recorder(tmp_path)
    yield recorder
    usage.context = None


USES = [
    lambda: World().node_id,
    lambda: World().globals["x"],
    lambda: Local().get_state("x"),
    lambda: Results().add("x", 1),
    lambda: Task().world.rank,
]


@pytest.mark.parametrize("use", USES, ids=range(len(USES)))
def test_outside_a_task_every_use_says_what_to_do(use: Any) -> None:
    with pytest.raises(NotInTask, match="start it with `manta run` or deploy it"):
        use()


def test_results_are_keyed_by_node_and_by_instance_where_there_are_several(
    context: Recorder,
) -> None:
    context.answers["select_results"] = [
        Entry("a", "worker", 0, 4, 0, "a0"),
        Entry("b", "worker", 1, 4, 0, "b1"),
        Entry("b", "worker", 2, 4, 0, "b2"),
        Entry("b", "other", 0, 4, 0, "o0"),
    ]
    assert World().results.select("x") == {
        "a": "a0",
        "b/worker.1": "b1",
        "b/worker.2": "b2",
        "b/other.0": "o0",
    }
    assert World().get_results("x") == ["a0", "b1", "b2", "o0"]
    assert context.calls[0] == ("select_results", {"tag": "x", "iteration": None})
    Results().select("x", iteration=2)
    assert context.calls[-1][1]["iteration"] == 2


def test_a_global_may_be_none_or_missing(context: Recorder) -> None:
    context.answers["get_global"] = None
    assert Globals()["x"] is None
    assert World().get("x", 5) is None
    context.answers["get_global"] = MISSING
    assert World().get("x", 5) == 5
    with pytest.raises(GlobalNotFound) as caught:
        Globals()["x"]
    assert isinstance(caught.value, KeyError)
    assert str(caught.value).startswith("No global 'x' has been set")


@pytest.mark.parametrize(
    ("tag", "error", "words"),
    [
        (None, TypeError, "A tag is a str, not None"),
        (3, TypeError, "A tag is a str, not 3"),
        (b"x", TypeError, "A tag is a str, not b'x'"),
        ("", ValueError, "A tag is 1 to 200 printable characters, not ''"),
        (" ", ValueError, "1 to 200 printable characters, not ' '"),
        ("a\nb", ValueError, "printable characters, not 'a.nb'"),
        ("\ud800", ValueError, "1 to 200 printable characters"),
        ("a" * 201, ValueError, "1 to 200 printable characters, not 'a.*, which has 201"),
    ],
)
def test_a_tag_is_a_name(context: Recorder, tag: Any, error: type[Exception], words: str) -> None:
    for use in (World().get, Results().select, lambda tag: Results().add(tag, 1)):
        with pytest.raises(error, match=words):
            use(tag)
    assert context.calls == []


def test_one_node_is_taken_for_a_list_of_one(context: Recorder) -> None:
    World().schedule_next_iter("node-1")
    assert context.calls == [("schedule_next_iteration", {"node_ids": ["node-1"], "alias": None})]


def test_paths(context: Recorder, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("a\nb\n")
    path = Local().dataset_path("text")
    assert isinstance(path, MantaPath)
    assert isinstance(path / "x", MantaPath)
    assert isinstance(path, Path)
    assert Local().read_file_lines("text") == ["a", "b"]
    assert Local().get_dataset("text") == path
    assert Local().scratch.list_dir() == ["text"]
    with pytest.raises(DatasetNotFound):
        Local().get_binary_data("other")


def test_bytes_are_a_stream(context: Recorder, tmp_path: Path) -> None:
    np.save(tmp_path / "array", np.arange(3))
    context.brief.datasets = {"array": str(tmp_path / "array.npy")}
    assert np.load(Local().get_binary_data("array")).tolist() == [0, 1, 2]
    stream = Local().get_binary_data("array")
    assert stream.read(6) == stream.getvalue()[:6] == b"\x93NUMPY"


def test_lines_of_a_text_in_its_encoding(context: Recorder, tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes("é\r\nb\x0c\x85\n\nlast".encode("latin-1"))
    assert Local().read_file_lines("text", encoding="latin-1") == ["é", "b\x0c\x85", "", "last"]
    with pytest.raises(UnsupportedData, match=r"text holds what is no text in utf-8 .*encoding="):
        Local().read_file_lines("text")
    (tmp_path / "text").write_text("é\u2028\n", encoding="utf-8")
    assert Local().read_file_lines("text") == ["é\u2028"]


WAITS = {
    "get_broadcast": lambda world, **given: world.get_broadcast("t", **given),
    "receive": lambda world, **given: world.receive_from_node("n", "t", **given),
    "collect": lambda world, **given: world.barrier(**given),
    "lock": lambda world, **given: world.lock("l", **given).__enter__(),
}


@pytest.mark.parametrize("kind", WAITS)
@pytest.mark.parametrize(
    ("of_the_task", "given", "seconds"),
    [(None, {}, 300.0), (20, {}, 20.0), (20, {"timeout": 2}, 2.0), (None, {"timeout": 0.5}, 0.5)],
)
def test_a_wait_lasts_as_long_as_its_timeout_or_its_tasks_or_300_s(
    context: Recorder, kind: str, of_the_task: float | None, given: dict[str, Any], seconds: float
) -> None:
    context.brief.timeout = of_the_task
    WAITS[kind](World(), **given)
    asked = dict(context.calls)
    assert asked[kind]["timeout"] == pytest.approx(seconds, abs=0.1)


NO_SECONDS = [0, -1, float("nan"), float("inf"), -float("inf"), "1", b"1", "soon", True, np.True_]
NO_SECONDS += [[1], {}, 1j, np.float32("nan"), np.int64(-3)]


@pytest.mark.parametrize("kind", WAITS)
@pytest.mark.parametrize("timeout", NO_SECONDS, ids=repr)
def test_a_timeout_is_a_finite_number_of_seconds(
    context: Recorder, kind: str, timeout: Any
) -> None:
    sentence = re.escape(f"timeout is {timeout!r}: give seconds, more than 0.")
    with pytest.raises((TypeError, ValueError), match=f"^{sentence}$"):
        WAITS[kind](World(), timeout=timeout)
    assert kind not in dict(context.calls)


@pytest.mark.parametrize("deadline", NO_SECONDS, ids=repr)
def test_so_is_a_deadline(context: Recorder, deadline: Any) -> None:
    sentence = re.escape(f"deadline is {deadline!r}: give seconds, more than 0.")
    with pytest.raises((TypeError, ValueError), match=f"^{sentence}$"):
        World().gather(1, deadline=deadline)
    assert not context.calls


@pytest.mark.parametrize("timeout", [2, 2.0, np.float32(2), np.int64(2), np.array(2)], ids=repr)
@pytest.mark.parametrize("kind", WAITS)
def test_numbers_of_numpy_are_numbers(context: Recorder, kind: str, timeout: Any) -> None:
    WAITS[kind](World(), timeout=timeout)
    asked = dict(context.calls)[kind]["timeout"]
    assert asked == pytest.approx(2, abs=0.1)
    assert type(asked) is float


@pytest.mark.parametrize("kind", WAITS)
def test_nobody_waits_longer_than_a_node_takes(context: Recorder, kind: str) -> None:
    context.brief.timeout = 1e9
    WAITS[kind](World())
    assert dict(context.calls)[kind]["timeout"] <= 366 * 86400


def test_results_as_a_list_are_in_the_order_of_the_answer(context: Recorder) -> None:
    entries = [
        Entry("b", "w", 0, 4, 0, 1),
        Entry("a", "w", 1, 4, 0, 2),
        Entry("a", "x", 0, 4, 0, 3),
    ]
    context.answers["select_results"] = entries
    assert World().get_results("t") == [1, 2, 3]
    assert World().results.select("t") == {"b": 1, "a/w.1": 2, "a/x.0": 3}
    assert context.calls[0] == ("select_results", {"tag": "t", "iteration": None})


def test_refusals_have_exceptions_of_their_own() -> None:
    assert {"SwarmStopped", "PeerLost", "ResourceExhaustionError", "Timeout"} <= BY_NAME.keys()
    assert all(issubclass(kind, LightError) for kind in BY_NAME.values())


def test_the_package_offers_its_names_and_no_others() -> None:
    import manta.light

    classes = ["Globals", "Local", "MantaPath", "Results", "Task", "World"]
    converters = [
        f"{one}_to_{other}"
        for kind in ("dict", "numpy", "torchmodel")
        for one, other in ((kind, "bytes"), ("bytes", kind))
    ]
    assert dir(manta.light) == sorted([*classes, *converters])
    for name in dir(manta.light):
        assert callable(getattr(manta.light, name))
    with pytest.raises(AttributeError, match="has no attribute 'Nonesuch'"):
        manta.light.Nonesuch  # noqa: B018


def test_importing_task_code_pulls_in_nothing_that_it_does_not_use() -> None:
    code = (
        "import sys; from manta.light import Globals, Results, Task, World; "
        "print(*sorted(m for m in ('numpy', 'logging', 'asyncio', 'msgspec', 'zmq', 'blake3', "
        "'lz4', 'manta.light.runtime.client', 'dataclasses') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
