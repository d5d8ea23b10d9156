from __future__ import annotations

from itertools import count

import pytest
from msgspec.structs import replace

from manta.actors import Refused
from manta.manager.auth.principals import Kind, Principal
from manta.manager.gateway.registry import Reader, Registry
from manta.manager.store.records import ModuleRecord
from manta.protocol.codes import Code
from manta.protocol.spec import ModuleSpec, ResourceSpec
from manta.protocol.values import BlobRef

LAB = frozenset({"lab"})
ADA = Reader(Principal(Kind.USER, "k1", "ada"), LAB)
BOB = Reader(Principal(Kind.USER, "k2", "bob"), LAB)
EVE = Reader(Principal(Kind.USER, "k4", "eve"), frozenset({"elsewhere"}))
ADMIN = Reader(Principal(Kind.USER, "k3", "root", admin=True))


def spec(name: str = "worker", version: str | None = None, content: str = "a") -> ModuleSpec:
    return ModuleSpec(name, BlobRef(content * 64, 1), version=version)


class Bench:
    def __init__(self) -> None:
        self.registry = Registry()
        self._ids = count(1)

    def send(
        self, what: ModuleSpec, who: Reader = ADA, clusters: tuple[str, ...] = ("lab",)
    ) -> ModuleRecord:
        held = self.registry.accept(what, who)
        at = float(next(self._ids))
        if isinstance(held, ModuleRecord):
            return held
        record = ModuleRecord(f"{int(at):016x}", what, held, at, at, clusters)
        self.registry.put(record)
        return record

    def refused(self, ask, *arguments) -> Refused:
        with pytest.raises(Refused) as refused:
            ask(*arguments)
        assert refused.value.sentence.endswith(".")
        return refused.value


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_without_a_version_nothing_is_refused_and_the_same_is_the_same(bench: Bench) -> None:
    first, second = bench.send(spec(content="a")), bench.send(spec(content="b"))
    assert bench.send(spec(content="a")) is first
    assert bench.registry.resolve("worker", None, ADA) is second
    bobs = bench.send(spec(content="a"), BOB)
    assert bobs is not first
    assert bench.registry.resolve("worker", None, BOB) is bobs


def test_a_version_never_changes(bench: Bench) -> None:
    first = bench.send(spec(version="1.0.0"))
    assert bench.send(spec(version="1.0.0")) is first
    refusal = bench.refused(bench.registry.accept, spec(version="1.0.0", content="b"), ADA)
    assert refusal.code == Code.VERSION_TAKEN
    assert "next version" in refusal.sentence


def test_the_versions_of_a_name_are_one_user_s(bench: Bench) -> None:
    bench.send(spec(version="1.0.0"))
    refusal = bench.refused(bench.registry.accept, spec(version="1.1.0", content="b"), BOB)
    assert refusal.code == Code.NAME_TAKEN
    assert bench.send(spec(version="1.1.0", content="b"), ADMIN).owner_id == "ada"


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        (None, "10.0.0"),
        ("1.0.0", "1.0.0"),
        (">=1.0,<2", "1.9.0"),
        ("~=1.0", "1.9.0"),
        ("==1.0.*", "1.0.0"),
        ("!=10.0.0", "2.0.0"),
    ],
)
def test_a_range_means_the_highest_that_it_allows(bench: Bench, version, expected) -> None:
    for one in ("1.9.0", "10.0.0", "1.0.0", "2.0.0"):
        bench.send(spec(version=one))
    bench.send(spec())
    assert bench.registry.resolve("worker", version, BOB).spec.version == expected


def test_what_nothing_satisfies_says_what_there_is(bench: Bench) -> None:
    for one in ("1.9.0", "1.10.0"):
        bench.send(spec(version=one))
    refusal = bench.refused(bench.registry.get, "worker", ">=2", ADA)
    assert refusal.code == Code.UNKNOWN_MODULE
    assert "there are 1.9.0, 1.10.0" in refusal.sentence
    assert refusal.data == {"versions": ["1.9.0", "1.10.0"]}
    assert bench.refused(bench.registry.get, "worker", "latest", ADA).code == Code.INVALID
    bench.send(spec("plain"))
    assert "without a version" in bench.refused(bench.registry.get, "plain", "1.0.0", ADA).sentence
    assert bench.refused(bench.registry.get, "gone", None, ADA).code == Code.UNKNOWN_MODULE


def test_of_several_users_modules_none_is_run_by_mistake(bench: Bench) -> None:
    bench.send(spec(content="a"), ADA)
    bench.send(spec(content="b"), BOB)
    refusal = bench.refused(bench.registry.resolve, "worker", None, ADMIN)
    assert refusal.code == Code.AMBIGUOUS
    assert "several users" in refusal.sentence


def test_an_id_a_beginning_of_one_or_of_a_digest_will_do_where_a_name_need_not(
    bench: Bench,
) -> None:
    first, second = bench.send(spec(content="a")), bench.send(spec("other", content="b"))
    get = bench.registry.get
    assert get(first.id, None, ADA) is get("aaaa", None, ADA) is first
    assert get(second.id[:16], None, ADA) is second
    assert bench.refused(get, "0000", None, ADA).code == Code.AMBIGUOUS
    assert bench.refused(get, "", None, ADA).code == Code.UNKNOWN_MODULE
    assert bench.refused(bench.registry.resolve, "aaaa", None, ADA).code == Code.UNKNOWN_MODULE
    assert bench.refused(get, first.id, "1.0.0", ADA).code == Code.UNKNOWN_MODULE


def test_one_changes_what_is_one_s_own_and_clear(bench: Bench) -> None:
    own = bench.registry.own
    first = bench.send(spec(version="1.0.0"))
    assert own("worker", None, ADA) is own("worker", None, ADMIN) is first
    assert bench.refused(own, "worker", None, BOB).code == Code.FORBIDDEN
    bench.send(spec(version="1.1.0"))
    assert bench.refused(own, "worker", None, ADA).code == Code.AMBIGUOUS
    assert own("worker", "1.0.0", ADA) is first
    bench.registry.pop(first)
    assert bench.refused(own, first.id, None, ADA).code == Code.UNKNOWN_MODULE


def test_the_description_of_a_module_is_bounded_since_it_stays_in_memory(bench: Bench) -> None:
    bench.send(replace(spec(), datasets=("d",) * 500, requirements=("r",) * 500))
    for large in (
        replace(spec(), datasets=("d",) * 1001),
        replace(spec(), requirements=("r",) * 1001),
        replace(spec(), requirements=("r" * 70_000,)),
    ):
        refusal = bench.refused(bench.send, large)
        assert refusal.code == Code.INVALID
        assert "a module may have 1,000 and 65,536" in refusal.sentence


@pytest.mark.parametrize(
    "wrong",
    [
        ModuleSpec(" ", BlobRef("a" * 64, 1)),
        ModuleSpec("a\nb", BlobRef("a" * 64, 1)),
        ModuleSpec("worker"),
        spec(version="1.0"),
        spec(version=">=1.0"),
        replace(spec(), requirements=("a", "-e .")),
        replace(spec(), outbound=("outbound:*:443",)),
        replace(spec(), resources=ResourceSpec(cpu=-1)),
    ],
)
def test_what_is_no_module(bench: Bench, wrong: ModuleSpec) -> None:
    assert bench.refused(bench.registry.accept, wrong, ADA).code == Code.INVALID


def test_a_module_is_its_owner_s_until_it_is_shared(bench: Bench) -> None:
    own = bench.send(spec(version="1.0.0"), ADA, ())
    registry = bench.registry
    for wanted in ("worker", own.id, own.id[:12], "aaaa"):
        assert registry.get(wanted, None, ADA) is registry.get(wanted, None, ADMIN) is own
        for ask in (registry.get, registry.own, registry.only):
            refusal = bench.refused(ask, wanted, None, BOB)
            nobody = bench.refused(ask, "none", None, BOB)
            assert refusal.sentence.replace(wanted, "none") == nobody.sentence
            assert (refusal.code, refusal.data) == (nobody.code, nobody.data)
    assert bench.refused(registry.resolve, "worker", "9.0.0", BOB).data == {"nearest": None}
    # His own of that name and version is another module.
    assert bench.send(spec(version="1.0.0", content="b"), BOB, ()).owner_id == "bob"
    registry.put(replace(own, clusters=("lab",)))
    assert registry.get(own.id, None, BOB).id == own.id
    assert bench.refused(registry.get, own.id, None, EVE).code == Code.UNKNOWN_MODULE
    registry.put(replace(own, clusters=("elsewhere",)))
    assert registry.resolve("worker", None, EVE).id == own.id


def test_an_administrator_runs_a_private_module_of_others_only_where_no_other_is_meant(
    bench: Bench,
) -> None:
    private = bench.send(spec(content="a"), BOB, ())
    assert bench.registry.resolve("worker", None, ADMIN) is private
    shared = bench.send(spec(content="b"), ADA)
    assert bench.registry.resolve("worker", None, ADMIN) is shared
    assert bench.send(spec(version="2.0.0", content="c"), ADMIN, ()).owner_id == "root"


def test_in_a_cluster_nothing_is_meant_that_is_shared_with_others_alone(bench: Bench) -> None:
    theirs = bench.send(spec(content="a"), EVE, ("elsewhere",))
    both = Reader(BOB.who, frozenset({"lab", "elsewhere"}))
    assert bench.registry.resolve("worker", None, both) is theirs
    for who in (BOB.who, ADMIN.who):
        in_lab = Reader(who, LAB, only=True)
        assert bench.refused(bench.registry.resolve, "worker", None, in_lab).data == {
            "nearest": None
        }
    own = bench.send(spec(content="b"), BOB, ())
    assert bench.registry.resolve("worker", None, Reader(BOB.who, LAB, only=True)) is own


def test_the_versions_of_a_name_in_a_cluster_are_one_user_s(bench: Bench) -> None:
    bench.send(spec(version="1.0.0"), ADA)
    own = bench.send(spec(version="9.0.0", content="b"), EVE, ())
    refusal = bench.refused(bench.registry.check_shareable, own, "lab")
    assert refusal.code == Code.NAME_TAKEN
    bench.registry.check_shareable(own, "elsewhere")
    bench.registry.check_shareable(bench.send(spec(content="c"), EVE, ()), "lab")


def test_a_package_is_for_who_sees_a_module_that_has_it(bench: Bench) -> None:
    registry = bench.registry
    first = bench.send(spec(content="a"), ADA, ())
    twin = bench.send(spec("other", content="a"), BOB, ("lab",))
    ada, eve = ADA.who, EVE.who

    def shown(who: Principal, *clusters: str) -> bool:
        return registry.shows_package("a" * 64, who, clusters)

    assert shown(ada)
    assert shown(eve, "elsewhere", "lab")
    assert not shown(eve, "elsewhere")
    registry.put(replace(twin, clusters=()))
    assert not shown(eve, "lab")
    assert shown(ada)
    registry.put(replace(first, spec=spec(content="b")))
    assert not shown(ada)
    registry.pop(twin)
    assert not shown(BOB.who)
    assert not registry.shows_package("c" * 64, ada, ("lab",))
