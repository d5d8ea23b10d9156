"""Whatever number or text users give the SDK, it works as what it is or is refused in words."""

from __future__ import annotations

import enum
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from manta import Condition, Module, Results, Swarm, Task
from manta.apis import checks
from manta.apis.compile.spec import compile_module, compile_swarm
from manta.apis.errors import InvalidArgument
from manta.protocol.spec import ResourceSpec, SwarmSpec


class Text(str):
    """Any subclass of str."""


class Count(int):
    def __repr__(self) -> str:
        return "many"


class Word(enum.StrEnum):
    A = "a"
    RANDOM = "random"
    SIZE = "2 GiB"


class Number(enum.IntEnum):
    TWO = 2


# For arguments of any type.
swarm: Any = Swarm
task: Any = Task
module: Any = Module
results: Any = Results()
CODE = "def main():\n    pass\n\nclass C:\n    def run(self):\n        pass\n"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"alias": np.str_("a")}, {"alias": "a"}),
        ({"alias": Text("a")}, {"alias": "a"}),
        ({"alias": Word.A}, {"alias": "a"}),
        ({"alias": np.array("a")}, {"alias": "a"}),
        ({"maximum": np.float64(0.5)}, {"maximum": 0.5}),
        ({"maximum": np.float32(0.5)}, {"maximum": 0.5}),
        ({"maximum": np.int64(3)}, {"maximum": 3}),
        ({"maximum": np.array(3)}, {"maximum": 3}),
        ({"maximum": Number.TWO}, {"maximum": 2}),
        ({"maximum": np.int8(-1)}, {"maximum": -1}),
        ({"replicas": np.uint8(4)}, {"replicas": 4}),
        ({"replicas": Count(4)}, {"replicas": 4}),
        ({"method": Word.RANDOM}, {"method": "random"}),
        ({"method": np.str_("tag-x")}, {"method": "tag-x"}),
        ({"fixed": np.bool_(True), "gpu": np.array(False)}, {"fixed": True}),
        ({"priority": np.int16(-7), "retries": Number.TWO}, {"priority": -7, "retries": 2}),
        ({"timeout": np.float32(1.5)}, {"timeout": 1.5}),
        ({"timeout": Fraction(3, 2)}, {"timeout": 1.5}),
        ({"timeout": 10**400}, {"timeout": checks.LONGEST}),
        ({"quorum": np.float64(0.5), "deadline": np.int64(9)}, {"quorum": 0.5, "deadline": 9.0}),
        ({"class_name": np.str_("C")}, {"class_name": "C"}),
        ({"datasets": np.array(["d", "e"])}, {"datasets": ("d", "e")}),
        ({"specified_ids": np.array(["n"])}, {"specified_ids": ("n",)}),
        ({"excepted_ids": (name for name in [Text("n")])}, {"excepted_ids": ("n",)}),
    ],
)
def test_numbers_and_texts_of_any_type_work_as_what_they_are(
    arguments: dict[str, Any], expected: dict[str, Any]
) -> None:
    class One(Swarm):
        def execute(self) -> Task:
            return Task(Module(np.str_(CODE), name=Text("m")), **arguments)

    limit: Any = np.int64(3)
    spec = compile_swarm(One(max_iteration=limit, seed=Count(5))).spec
    sent = msgspec.msgpack.decode(msgspec.msgpack.encode(spec), type=SwarmSpec)
    assert sent == spec
    assert (sent.max_iteration, sent.seed, sent.modules[0].name) == (3, 5, "m")
    for name, value in expected.items():
        found = getattr(sent.tasks[0], name)
        assert (found, type(found)) == (value, type(value))


def test_labels_and_architectures_are_sent_in_one_form() -> None:
    needs = {"arch": "ARM64", "labels": {"b": "2", np.str_("a"): np.str_("1")}}
    spec, _, _ = compile_module(module(CODE, resources=needs))
    assert spec.resources == ResourceSpec(arch="aarch64", labels=(("a", "1"), ("b", "2")))
    assert isinstance(hash(spec), int)


def test_what_a_module_needs_works_as_what_it_is() -> None:
    needs = {np.str_("cpu"): np.float64(0.5), Text("memory"): Word.SIZE, "gpu": np.int8(1)}
    found = module(
        CODE,
        image=np.str_("pytorch"),
        version=Text("1.0.0"),
        requirements=np.array(["numpy"]),
        resources=needs,
    )
    assert found.resources == {"cpu": 0.5, "memory": 2 * 2**30, "gpu": 1}
    texts = [found.image, found.version, *found.requirements, *found.resources]
    assert {type(text) for text in texts} == {str}


def test_conditions_networks_and_schedules_too() -> None:
    one, two = Task(CODE), Task(CODE)
    two(one, condition=np.str_("RESULT"))
    assert two.wired == {one: Condition.RESULT}

    class Planned(Swarm):
        def __init__(self) -> None:
            self.a = Task(CODE, network="n")
            self.add_network(Text("n"), np.str_("ring"))
            self.schedule = [(np.str_("a"), Text("parallel"))]
            self.set_global(np.str_("g"), 1)

    spec = compile_swarm(Planned()).spec
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(spec), type=SwarmSpec) == spec
    assert (spec.networks[0].topology, [*spec.globals]) == ("ring", ["g"])


LARGE = r"a whole number from 1 to 9223372036854775807"


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: swarm(max_iteration=2**70), f"max_iteration is 1180591620717411303424: .*{LARGE}"),
        (lambda: swarm(max_iteration=10**5000), f"max_iteration is a int that .*: give {LARGE}"),
        (lambda: swarm(max_iteration=np.bool_(True)), "max_iteration is True: give a whole number"),
        (lambda: swarm(max_iteration=np.float64(3)), r"max_iteration is 3\.0: give a whole number"),
        (lambda: swarm(max_iteration=np.arange(3)), r"max_iteration is array\(\[0, 1, 2\]\): give"),
        (lambda: swarm(seed=2**63), "seed is 9223372036854775808: give .* to 9223372036854775807"),
        (lambda: task(CODE, redundancy=2**64), f"redundancy is .*{LARGE}"),
        (lambda: task(CODE, maximum=2**64), "maximum is 18446744073709551616: give a count"),
        (lambda: task(CODE, maximum=np.float64("nan")), "maximum is nan: give a count"),
        (lambda: task(CODE, maximum=np.array([1])), r"maximum is array\(\[1\]\): give a count"),
        (lambda: task(CODE, timeout=np.float32("nan")), "timeout is nan: give seconds"),
        (lambda: task(CODE, alias="\ud800"), "alias is .*UTF-8"),
        (lambda: task(CODE, alias=np.bytes_(b"a")), "alias is b'a': give a string"),
        (lambda: task(CODE, gpu=np.int8(1)), "gpu is 1: give True or False"),
        (lambda: task(CODE, specified_ids=np.array([])), "specified_ids is empty"),
        (lambda: task(CODE, specified_ids=3), "specified_ids is 3: give a list of strings"),
        (lambda: task(CODE, resources={"memory": 2**64}), r"resources\['memory'\] is 1844674407"),
        (lambda: task(CODE, resources={"memory": "9" * 400}), r"resources\['memory'\] is '99999"),
        (lambda: task(CODE, resources={"gpu": 2**64}), r"resources\['gpu'\] is 184467440737"),
        (
            lambda: task(CODE)(condition=np.array(["RESULT", "x"])),
            "condition of task .* give Condition",
        ),
        (lambda: results(np.float64(1)), r"asked for 1\.0: give an iteration"),
        (lambda: module(CODE, version=np.int64(1)), "version is 1: give"),
    ],
)
def test_what_is_none_is_refused_by_a_sentence_that_names_it(
    call: Callable[[], object], words: str
) -> None:
    with pytest.raises(InvalidArgument, match=words):
        call()


def test_an_object_that_cannot_be_shown_is_refused_all_the_same() -> None:
    class Sulky:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    with pytest.raises(InvalidArgument, match="alias is a Sulky that cannot be shown: give a str"):
        Task(CODE, alias=Sulky())  # type: ignore[arg-type]


def test_a_path_is_a_program_and_bytes_are_none(tmp_path: Path) -> None:
    class Raw:
        def __fspath__(self) -> bytes:
            return b"a.py"

    assert Module(tmp_path / "a.py").python_program == str(tmp_path / "a.py")
    with pytest.raises(InvalidArgument, match=r"python_program is b'a\.py': give a path"):
        Module(Raw())  # type: ignore[arg-type]
