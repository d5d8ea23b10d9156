from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from manta.apis.compile import packaging
from manta.apis.compile.packaging import Wanted
from manta.apis.compile.spec import Compiled, Known, compile_swarm, finish, prepare
from manta.apis.errors import InvalidSwarm, ModuleError
from manta.apis.module import Module
from manta.apis.swarm import Swarm, Task
from manta.protocol.spec import ModuleSpec
from manta.protocol.values import BlobRef, Inline
from manta.transports.codec.values import decode

SOURCE = "def main():\n    pass\n"


def swarm_of(*modules: Module | Task, **state: Any) -> Swarm:
    class Listed(Swarm):
        def execute(self) -> list[Task]:
            return [item if isinstance(item, Task) else Task(item) for item in modules]

    swarm = Listed()
    for tag, value in state.items():
        swarm.set_global(tag, value)
    return swarm


def module_of(compiled: Compiled, name: str) -> ModuleSpec:
    return next(module for module in compiled.spec.modules if module.name == name)


def files(compiled: Compiled, name: str) -> dict[str, Any]:
    ref = module_of(compiled, name).package
    assert ref is not None
    blob = compiled.blobs[ref.digest].to_bytes()
    assert len(blob) == ref.size
    found: dict[str, Any] = decode(blob)
    return found


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a package, a file and helpers."""
    (tmp_path / "worker.py").write_text(SOURCE)
    (tmp_path / "common").mkdir()
    (tmp_path / "common" / "util.py").write_text("X = 1\n")
    folder = tmp_path / "trainer"
    folder.mkdir()
    (folder / "__init__.py").write_text(SOURCE)
    (folder / "requirements.txt").write_text("# for training\nnumpy>=1\n\ntorch # large\n")
    (folder / "data.bin").write_bytes(b"\0\1")
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "x.pyc").write_bytes(b"")
    (folder / ".hidden").write_text("secret")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_source_text() -> None:
    compiled = compile_swarm(swarm_of(Module(SOURCE)))
    assert files(compiled, "module") == {"__entry__": "module.py", "module.py": SOURCE.encode()}


def test_file_and_include(here: Path) -> None:
    compiled = compile_swarm(swarm_of(Module("worker.py", include=["common/"])))
    packed = files(compiled, "worker")
    assert packed == {
        "__entry__": "worker.py",
        "common/util.py": b"X = 1\n",
        "worker.py": SOURCE.encode(),
    }
    assert list(packed) == sorted(packed)


def test_package_folder(here: Path) -> None:
    compiled = compile_swarm(swarm_of(Module("trainer")))
    assert set(files(compiled, "trainer")) == {
        "__entry__",
        "trainer/__init__.py",
        "trainer/data.bin",
        "trainer/requirements.txt",
    }
    assert files(compiled, "trainer")["__entry__"] == "trainer"
    assert module_of(compiled, "trainer").requirements == ("numpy>=1", "torch")
    given = compile_swarm(swarm_of(Module("trainer", requirements=["jax"])))
    assert module_of(given, "trainer").requirements == ("jax",)


def test_name_beside_the_swarms_file(here: Path) -> None:
    assert "worker.py" in files(compile_swarm(swarm_of(Module("worker"))), "worker")


def test_beside_the_swarms_file_comes_before_the_working_folder(here: Path) -> None:
    folder = here / "elsewhere"
    folder.mkdir()
    (folder / "worker.py").write_text("# the swarm's own\n" + SOURCE)
    (folder / "my_swarm.py").write_text(
        "from manta import Module, Swarm, Task\n"
        "class Mine(Swarm):\n"
        "    def execute(self):\n"
        "        return [Task(Module('worker.py')), Task(Module('trainer'))]\n"
    )
    spec = importlib.util.spec_from_file_location("my_swarm", folder / "my_swarm.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["my_swarm"] = module
    try:
        spec.loader.exec_module(module)
        compiled = compile_swarm(module.Mine())
    finally:
        del sys.modules["my_swarm"]
    assert files(compiled, "worker")["worker.py"].startswith(b"# the swarm's own")
    assert "trainer/__init__.py" in files(compiled, "trainer")


def test_image_alone() -> None:
    compiled = compile_swarm(swarm_of(Module(None, "busybox:1")))
    assert module_of(compiled, "busybox").package is None
    assert not compiled.blobs


def test_same_content_is_one_module_and_one_blob(here: Path) -> None:
    compiled = compile_swarm(
        swarm_of(Task("worker.py"), Task("worker"), Task(Module("worker.py", datasets=["d"])))
    )
    assert [task.module for task in compiled.spec.tasks] == ["worker", "worker", "worker_1"]
    assert [task.alias for task in compiled.spec.tasks] == ["worker", "worker_1", "worker_2"]
    assert len(compiled.spec.modules) == 2
    assert len(compiled.blobs) == 1


def test_deterministic(here: Path) -> None:
    first, second = (
        compile_swarm(swarm_of(Module("trainer", include=["common"]), model=np.ones(9)))
        for _ in range(2)
    )
    assert first.spec == second.spec
    assert set(first.blobs) == set(second.blobs)


def test_small_globals_ride_along_large_ones_are_blobs() -> None:
    large = np.arange(100_000)
    compiled = compile_swarm(swarm_of(Module(SOURCE), rate=0.1, model=large))
    rate, model = compiled.spec.globals["rate"], compiled.spec.globals["model"]
    assert isinstance(rate, Inline)
    assert decode(rate.data) == 0.1
    assert isinstance(model, BlobRef)
    assert (decode(compiled.blobs[model.digest].to_bytes()) == large).all()


def test_many_small_globals_do_not_make_a_huge_message() -> None:
    compiled = compile_swarm(
        swarm_of(Module(SOURCE), **{f"g{i}": bytes(60_000) for i in range(40)})
    )
    inline = [value for value in compiled.spec.globals.values() if isinstance(value, Inline)]
    assert sum(len(value.data) for value in inline) <= 1024 * 1024
    assert len(compiled.spec.globals) == 40


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Module("gone.py"), r"'gone.py' of module 'gone' was not found. Tried .*gone.py"),
        (Module("def main(): pass " + "x" * 300), "source text needs a line break"),
        (Module("gone"), r"Tried .*/gone, .*/gone\.py"),
        (Module("common"), "a folder without __init__.py"),
        (Module("/nowhere/worker.py"), "Tried /nowhere/worker.py"),
        (Module("trainer/data.bin"), "not a .py file"),
        (Module("worker.py", include=["gone/"]), "includes 'gone/', which was not found"),
        (Module("broken.py"), r"syntax error in .*broken.py, line 2 .*def main\("),
        (Module("nul.py"), "null"),
        (Module("latin.py"), "syntax error in .*latin.py"),
        (
            Module("def main(:\n  pass\n"),
            "syntax error in the source text of module 'module', line 1",
        ),
        (Module("worker.py", include=["other/worker.py"]), "two different files worker.py"),
        (Module("linked"), "a link to a folder"),
        (Module("leaking"), "a link that leads out of"),
        (Module("worker.py", include=["/"]), "the root of the file system"),
        (Module("worker", version=">=1.0"), "which names registered modules, and none"),
        (Module("unreadable"), "not a regular file"),
    ],
)
def test_bad_programs(here: Path, module: Module, message: str) -> None:
    (here / "broken.py").write_text("x = 1\ndef main(\n")
    (here / "nul.py").write_bytes(b"x = 1\0\n")
    (here / "latin.py").write_bytes(b"x = '\xe9'\n")
    (here / "other").mkdir()
    (here / "other" / "worker.py").write_text("different = True\n")
    for name in ("linked", "unreadable", "leaking"):
        (here / name).mkdir()
        (here / name / "__init__.py").write_text(SOURCE)
    (here / "linked" / "common").symlink_to(here / "common")
    (here / "leaking" / "secret.txt").symlink_to(here / "worker.py")
    os.mkfifo(here / "unreadable" / "pipe")
    with pytest.raises(ModuleError, match=message):
        compile_swarm(swarm_of(module))


def test_what_the_registry_has_comes_after_paths_and_before_a_file_of_the_name(here: Path) -> None:
    known = ModuleSpec("worker", BlobRef("ab" * 32, 9), "old:1", "1.0.0", ("digits",))
    prepared = prepare(swarm_of(Module("worker"), Module("trainer"), Module("worker.py")))
    assert prepared.wanted == [Wanted("worker", None)]
    found = finish(prepared, {Wanted("worker", None): Known(known)}).spec.modules
    assert found[0] == known
    assert [one.name for one in found] == ["worker", "trainer", "worker_1"]
    own = prepare(swarm_of(Module("worker", "new:2", name="mine", datasets=["more"])))
    (changed,) = finish(own, {Wanted("worker", None): Known(known)}).spec.modules
    assert changed == ModuleSpec("mine", known.package, "new:2", "1.0.0", ("more",))
    gone = prepare(swarm_of(Module("gone")))
    with pytest.raises(ModuleError, match=r"Tried .*/gone, the registry \(empty\), .*/gone\.py"):
        finish(gone, {Wanted("gone", None): "the registry (empty)"})
    with pytest.raises(ModuleError, match="leave include out"):
        finish(
            prepare(swarm_of(Module("worker", include=["common"]))),
            {Wanted("worker", None): Known(known)},
        )


def test_what_has_a_version_and_is_not_registered_is_told(here: Path) -> None:
    compiled = compile_swarm(swarm_of(Module("worker.py", version="1.0.0"), Module("trainer")))
    assert [(spec.name, spec.version) for spec in compiled.versioned] == [("worker", "1.0.0")]


def test_a_package_is_the_same_from_another_folder_at_another_time_in_another_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for names in (("a.py", "b.py", "__init__.py"), ("__init__.py", "b.py", "a.py")):
        folder = tmp_path / names[0] / "trainer"
        folder.mkdir(parents=True)
        for at, name in enumerate(names):
            (folder / name).write_text(SOURCE)
            os.utime(folder / name, (at, at))
        monkeypatch.chdir(folder.parent)
        found.append(module_of(compile_swarm(swarm_of(Module("trainer"))), "trainer"))
    assert found[0] == found[1]


def test_a_package_that_no_node_would_unpack_is_refused(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packaging, "MAX_PACKAGE_FILES", 2)
    with pytest.raises(ModuleError, match="too large at"):
        compile_swarm(swarm_of(Module("trainer")))


def test_syntax_warnings_of_a_module_are_not_ours() -> None:
    compile_swarm(swarm_of(Module("def main():\n    return '\\d' is 3\n")))


@pytest.mark.parametrize(
    "arguments",
    [
        {"on_disconnect": "replace"},
        {"redundancy": 2},
    ],
)
def test_what_is_not_there_yet_is_refused_not_ignored(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidSwarm, match="cannot do yet"):
        compile_swarm(swarm_of(Task(SOURCE, **arguments)))


def test_task_arguments_arrive() -> None:
    task = Task(
        Module("class Worker: ...\n", datasets=["a"]),
        method="random",
        maximum=0.5,
        excepted_ids=["x"],
        class_name="Worker",
        datasets=["a", "b"],
        resources={"cpu": 2},
        timeout=5,
        retries=2,
        quorum=1,
        deadline=9,
    )
    (spec,) = compile_swarm(swarm_of(task)).spec.tasks
    assert (spec.method, spec.maximum, spec.excepted_ids) == ("random", 0.5, ("x",))
    assert (spec.class_name, spec.datasets, spec.timeout) == ("Worker", ("b",), 5.0)
    assert (spec.retries, spec.quorum, spec.deadline) == (2, 1.0, 9.0)
    assert spec.resources is not None
    assert spec.resources.cpu == 2


def test_a_file_may_be_empty(here: Path) -> None:
    (here / "empty.py").write_text("")
    (spec,) = compile_swarm(swarm_of(Module("empty.py"))).spec.modules
    assert spec.name == "empty"


def test_a_file_or_package_of_a_similar_name_is_told(here: Path) -> None:
    for wrong, meant in {"workr.py": "worker.py", "workr": "worker", "triner": "trainer"}.items():
        with pytest.raises(ModuleError) as raised:
            compile_swarm(swarm_of(Module(wrong)))
        assert str(raised.value).endswith(f" Did you mean {meant!r}?")
