"""Rules of the house that concern actors."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pykka
import pytest
from pykka._actor import Actor as PykkaActor

from manta.actors import runtime

ROOT = Path(__file__).parents[3]
ROOMS = ("actors", "light", "manta", "node", "transports", "examples")


def python_files() -> list[Path]:
    files = []
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            files.append(path)
    return sorted({path.resolve() for path in files})


def calls_without_timeout(source: str) -> list[int]:
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("ask", "ask_future")
        and len(node.args) == 1  # a ref takes the message alone; with more, it is something else
        and not any(keyword.arg in ("timeout", None) for keyword in node.keywords)
    ]


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("ref.ask(m)", [1]),
        ("\nself.refs[0].ask_future(m)", [2]),
        ("ref.ask(m, timeout=5)", []),
        ("desk.ask(who, what)", []),
        ("ref.ask(m, **options)", []),
    ],
)
def test_the_check_sees_what_it_should(source: str, lines: list[int]) -> None:
    assert calls_without_timeout(source) == lines


def test_no_ask_without_timeout() -> None:
    found = []
    for path in python_files():
        source = path.read_text()
        lines = calls_without_timeout(source) if ".ask" in source else []
        found += [f"{path.relative_to(ROOT)}:{line}" for line in lines]
    assert found == []


def test_what_is_overridden_exists_in_pykka() -> None:
    for name in ("_create_actor_inbox", "_actor_loop"):
        assert callable(getattr(PykkaActor, name))
        assert name in vars(runtime.ThreadedCell)
    assert isinstance(inspect.getattr_static(PykkaActor, "_create_actor_inbox"), staticmethod)
    assert callable(pykka.ThreadingActor._start_actor_loop)
    assert pykka.ThreadingActor.use_daemon_thread is False, "ours says True"


def test_pykkas_global_registry_does_not_know_our_actors() -> None:
    from manta.actors import Actor, ActorSystem, ChildSpec

    with ActorSystem("test") as system:
        system.spawn(ChildSpec("a", Actor))
        assert pykka.ActorRegistry.get_all() == []


def test_importing_actors_costs_no_sockets() -> None:
    code = "import sys, manta.actors; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert loaded.isdisjoint({"zmq", "nacl", "msgpack", "lz4", "numpy", "asyncio"})
    assert "pykka" in loaded


def test_no_module_is_too_long() -> None:
    long = {
        path.name: count
        for path in (ROOT / "actors").glob("*.py")
        if (count := len(path.read_text().splitlines())) > 500
    }
    assert long == {}
