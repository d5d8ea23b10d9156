from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
APIS = ROOT / "manta" / "apis"
NAMES = ["Swarm", "Task", "Module", "Condition", "UserAPI", "AsyncUserAPI", "Results"]


def test_synchronous_forms_are_generated_from_the_asynchronous(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / ".ci" / "generate.py", tmp_path], check=True)
    written = {file.name: file.read_text() for file in tmp_path.iterdir()}
    kept = {file.name: file.read_text() for file in (APIS / "sync").glob("*.py")}
    assert "user_api.py" in written
    by_hand = {name: kept[name] for name in ("__init__.py", "waiting.py")}
    assert written | by_hand == kept, "run `make generate`"


def imported_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("statement", "unwanted"),
    [
        ("import manta", {"manta.apis", "msgspec", "zmq", "click", "asyncio"}),
        ("from manta import Swarm, Task, Module, Condition", {"msgspec", "zmq", "pykka", "numpy"}),
        ("from manta import UserAPI", {"asyncio", "zmq", "numpy", "click"}),
        ("from manta.apis.user_api import UserAPI", {"asyncio", "zmq", "numpy", "click"}),
        ("from manta import Results", {"asyncio", "zmq", "msgspec", "numpy", "pandas"}),
    ],
)
def test_imports_only_what_it_needs(statement: str, unwanted: set[str]) -> None:
    assert not imported_by(statement) & unwanted


def test_synchronous_code_never_imports_asyncio() -> None:
    synchronous = [*(APIS / "sync").glob("*.py"), *(APIS / "connect").glob("*.py")]
    for file in synchronous:
        tree = ast.parse(file.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names]
                assert "asyncio" not in [*names, getattr(node, "module", None)]


@pytest.mark.parametrize(
    ("package", "names"),
    [("manta", [*NAMES, "Mesh", "AsyncMesh", "LocalCluster", "task"]), ("manta.apis", NAMES)],
)
def test_lazy_names(package: str, names: list[str]) -> None:
    module = importlib.import_module(package)
    for name in names:
        assert getattr(module, name).__name__ == name
        assert name in dir(module)
    with pytest.raises(AttributeError, match="Nothing"):
        module.Nothing  # noqa: B018
    assert sorted(module.__all__) == sorted(names)
