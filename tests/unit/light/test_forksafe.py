"""What keeps a process from being forked; no machine of the tests need have a GPU."""

from __future__ import annotations

import os
import sys
import threading
from types import SimpleNamespace

import pytest

from manta.light.runtime import forksafe


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a task's process: no thread but the main one."""
    monkeypatch.setattr("_thread._count", lambda: 0)
    monkeypatch.setattr(forksafe, "_openblas_threads", lambda: sys.maxsize)
    monkeypatch.delitem(sys.modules, "torch", raising=False)


def test_nothing_stands_in_the_way() -> None:
    assert forksafe.obstacle() is None


@pytest.mark.parametrize(
    "device", ["/dev/nvidiactl", "/dev/nvidia0", "/dev/nvidia-uvm", "/dev/kfd"]
)
def test_an_open_gpu(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    monkeypatch.setattr(os, "readlink", lambda _: device)
    assert forksafe.obstacle() == "importing it initialised the GPU's driver"


@pytest.mark.parametrize(
    ("initialised", "why"), [(True, "importing it initialised CUDA"), (False, None)]
)
def test_cuda_by_torch(monkeypatch: pytest.MonkeyPatch, initialised: bool, why: str | None) -> None:
    cuda = SimpleNamespace(is_initialized=lambda: initialised)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    assert forksafe.obstacle() == why


def test_a_thread_is_an_obstacle_to_a_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # count what there is
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        assert forksafe.obstacle() == "importing it started a thread"
    finally:
        done.set()
        thread.join()
