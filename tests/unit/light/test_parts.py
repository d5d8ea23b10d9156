"""Seeds, failures, utilities, and giving up on a node."""

from __future__ import annotations

import os
import random
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from manta.light import wire
from manta.light.errors import DataCorruptionError, NodeLost
from manta.light.runtime.client import AttemptClient
from manta.light.runtime.failures import describe
from manta.light.runtime.forksafe import obstacle
from manta.light.runtime.loader import NothingToRun
from manta.light.runtime.seeding import seed_of
from manta.light.utils import bytes_to_dict, bytes_to_numpy, dict_to_bytes, numpy_to_bytes
from tests.unit.light.test_api import Recorder


def test_seeds_differ_by_what_they_are_made_of_and_by_nothing_else(tmp_path: Path) -> None:
    def made(**changes: Any) -> int:
        brief = Recorder(tmp_path).brief
        for name, value in changes.items():
            setattr(brief, name, value)
        return seed_of(brief)

    differing = [
        made(),
        made(seed=8),
        made(alias="other"),
        made(index=0),
        made(node_id="other"),
        made(iteration=5),
    ]
    assert len(set(differing)) == len(differing)
    assert made() == made(attempt=3) == made(task_id="x", size=9, swarm_id="y")
    assert 0 <= made() < 2**64


def test_a_failure_in_words(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text("def f():\n    raise KeyError('name')\n")
    code = compile((tmp_path / "code.py").read_text(), str(tmp_path / "code.py"), "exec")
    scope: dict[str, Any] = {}
    exec(code, scope)
    with pytest.raises(KeyError) as caught:
        scope["f"]()
    kind, sentence, trace = describe(caught.value, "worker.0", str(tmp_path))
    assert kind == "KeyError"
    assert sentence == "worker.0 raised KeyError: 'name' (code.py, line 2)."
    assert trace.splitlines() == [
        "Traceback (most recent call last):",
        '  File "code.py", line 2, in f',
        "    raise KeyError('name')",
        "KeyError: 'name'",
    ]


def test_a_failure_is_bounded_and_can_be_sent(tmp_path: Path) -> None:
    kind, sentence, trace = describe(ValueError("\ud800" * 10**6), "worker.0", str(tmp_path))
    assert kind == "ValueError"
    assert len(sentence) < 3_000
    assert len(trace) < 40_000
    (sentence + trace).encode()
    for error in (SystemExit("\ud800" * 10**6), NothingToRun("\ud800" * 10**6)):
        kind, sentence, _ = describe(error, "worker.0", str(tmp_path))
        assert kind == type(error).__name__
        assert 8_000 < len(sentence) < 9_000
        sentence.encode()


def test_arrays_as_bytes() -> None:
    nested = {"n1": {"w": np.arange(3), "b": [1.5, 2]}, "n2": {"w": np.float32(3)}}
    there = numpy_to_bytes(nested)
    assert isinstance(there["n1"]["w"], bytes)
    back = bytes_to_numpy(there)
    np.testing.assert_array_equal(back["n1"]["w"], np.arange(3))
    np.testing.assert_array_equal(back["n1"]["b"], [1.5, 2])
    assert back["n2"]["w"] == 3
    assert back["n2"]["w"].dtype == np.float32
    with pytest.raises(TypeError, match="an array of Python objects can't be sent"):
        numpy_to_bytes([object()])
    for bad in (b"", b"nonsense", numpy_to_bytes([1, 2])[:-1]):
        with pytest.raises(DataCorruptionError, match=r"data\['n'\]\['w'\] is not an array"):
            bytes_to_numpy({"n": {"w": bad}})
    with pytest.raises(TypeError, match=r"data\[0\] is a int"):
        bytes_to_numpy([3])


def test_lists_that_make_no_array_are_walked() -> None:
    layers = [np.ones((2, 3)), np.ones(3)]
    for nest in ([{"w": np.arange(2)}, {"b": [1, 2]}], {"n": layers}, [[{"w": 1}], [{"w": 2}]]):
        there = numpy_to_bytes(nest)
        assert str(bytes_to_numpy(there)) == str(_as_arrays(nest))
    assert isinstance(numpy_to_bytes([[1, 2], [3, 4]]), bytes)


def _as_arrays(nest: Any) -> Any:
    if isinstance(nest, dict):
        return {key: _as_arrays(item) for key, item in nest.items()}
    if isinstance(nest, list) and any(isinstance(item, dict | list | np.ndarray) for item in nest):
        return [_as_arrays(item) for item in nest]
    return np.asarray(nest)


def test_dicts_as_bytes() -> None:
    value = {"a": [1, None, b"x", {"b": 2.5}], 3: True}
    assert bytes_to_dict(dict_to_bytes(value)) == value
    with pytest.raises(TypeError, match=r"turn arrays into bytes with numpy_to_bytes\(\)"):
        dict_to_bytes({"a": np.ones(2)})
    for bad in (b"", b"\x93\x01", b"\x01", b"\xc1"):
        with pytest.raises(DataCorruptionError):
            bytes_to_dict(bad)


def test_torch_models_as_bytes() -> None:
    torch = pytest.importorskip("torch")
    from manta.light.utils import bytes_to_torchmodel, torchmodel_to_bytes

    model = torch.nn.Linear(2, 3)
    data = torchmodel_to_bytes(model)
    assert torch.equal(bytes_to_torchmodel(data)["weight"], model.weight)
    other = bytes_to_torchmodel(data, torch.nn.Linear(2, 3))
    assert torch.equal(other.weight, model.weight)
    for bad in (b"", b"nonsense", data[:-30], _PICKLE):
        with pytest.raises(DataCorruptionError, match="not the state of a torch model"):
            bytes_to_torchmodel(bad)
    with pytest.raises(DataCorruptionError, match=r"does not fit a Linear: .*size mismatch"):
        bytes_to_torchmodel(data, torch.nn.Linear(3, 3))
    with pytest.raises(TypeError, match="takes a model or its state dict, not a int"):
        torchmodel_to_bytes(3)


_PICKLE = b"\x80\x04cbuiltins\nprint\n)R."
"""It would call a function."""


def test_a_thread_is_an_obstacle_to_a_fork() -> None:
    import threading

    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        assert obstacle() == "importing it started a thread"
    finally:
        done.set()
        thread.join()


def test_a_node_that_does_not_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "PATIENCE", 0.0)
    nodes, ours = socket.socketpair()
    brief = Recorder(tmp_path).brief
    client = AttemptClient(str(tmp_path / "nobody"), "token", brief, ours.detach())
    client.open(os.getpid())
    nodes.close()
    with pytest.raises(NodeLost, match="did not come back within 0 s"):
        client.call("stop_swarm")


def test_seeding_reaches_what_is_imported_later(tmp_path: Path) -> None:
    import sys

    from manta.light.runtime.seeding import seed

    finders = list(sys.meta_path)
    state = random.getstate()
    try:
        seed(Recorder(tmp_path).brief)
        first = random.random(), float(np.random.rand())
        seed(Recorder(tmp_path).brief)
        assert (random.random(), float(np.random.rand())) == first
        assert len(sys.meta_path) == len(finders) + 1
    finally:
        sys.meta_path[:] = finders
        random.setstate(state)
