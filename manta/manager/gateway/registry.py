"""Keeps the registered modules, and finds the one that a name means. Pure.

A module is its owner's, and is seen by others only in the clusters that it is shared with: to
who does not see it, it is as one that is not there. Administrators see all of them.

A module without a version is known by its digest: every user may send any number of them under
any name. A module with a version never changes. All versions of a name that somebody sees in a
cluster belong to one user, so that nobody can slip a later version into another user's range. A
name means the user's own modules first; those of others only if they all belong to one user, so
that no code is run by mistake.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from manta.actors.errors import Refused
from manta.manager.auth.principals import Principal
from manta.manager.placement.validity import flaws_of_module
from manta.manager.store.records import ModuleRecord
from manta.protocol import versions
from manta.protocol.codes import Code
from manta.protocol.names import is_name, nearest
from manta.protocol.pages import encoded
from manta.protocol.spec import ModuleSpec

MOST_NAMES, MOST_BYTES = 1000, 64 << 10
"""Of a module's description, which stays in memory as long as the module exists."""
SHOWN = 20
"""How many versions or ids one sentence names at most."""


@dataclass(frozen=True)
class Reader:
    """A user, and the clusters in which the user reads modules."""

    who: Principal
    clusters: frozenset[str] = frozenset()
    only: bool = False
    """Nothing is meant that is shared with other clusters alone, whatever the user sees."""

    def meets(self, record: ModuleRecord) -> bool:
        """Whether the module is the user's own, or shared with the user; an administrator's are
        all that are shared."""
        shared = record.clusters or ()
        if self.who.admin and shared and not self.only:
            return True
        return record.owner_id == self.who.id or not self.clusters.isdisjoint(shared)

    def sees(self, record: ModuleRecord) -> bool:
        return self.meets(record) or (self.who.admin and not self.only)


class Registry:
    def __init__(self, records: Iterable[ModuleRecord] = ()) -> None:
        self.modules: dict[str, ModuleRecord] = {}
        self._by_name: dict[str, dict[str, ModuleRecord]] = {}
        self._by_package: dict[str, Counter[tuple[str, str]]] = {}
        """By digest: for whom modules have this package, as a kind and an id."""
        for record in records:
            self.put(record)

    def put(self, record: ModuleRecord) -> None:
        before = self.modules.get(record.id)
        if record.spec.package is not None:
            readers = self._by_package.setdefault(record.spec.package.digest, Counter())
            readers.update(_readers(record))
        if before is not None:
            self.pop(before)
        self.modules[record.id] = record
        self._by_name.setdefault(record.spec.name, {})[record.id] = record

    def pop(self, record: ModuleRecord) -> None:
        if self.modules.pop(record.id, None) is None:
            return
        named = self._by_name[record.spec.name]
        del named[record.id]
        if not named:
            del self._by_name[record.spec.name]
        if record.spec.package is not None:
            readers = self._by_package[record.spec.package.digest]
            readers.subtract(_readers(record))
            for one in [one for one in _readers(record) if not readers[one]]:
                del readers[one]
            if not readers:
                del self._by_package[record.spec.package.digest]

    def shows_package(self, digest: str, who: Principal, clusters: Iterable[str]) -> bool:
        """Whether a module that the user sees has this package; `clusters` are those in which the
        user reads modules. May be called on any thread."""
        readers = self._by_package.get(digest)
        if readers is None:
            return False
        return ("user", who.id) in readers or any(("cluster", one) in readers for one in clusters)

    def shared_with(self, cluster_id: str) -> list[str]:
        """Ids of the modules that are shared with the cluster."""
        return [one.id for one in self.modules.values() if cluster_id in (one.clusters or ())]

    # Each raises Refused, which names what the reader sees.

    def accept(self, spec: ModuleSpec, reader: Reader) -> ModuleRecord | str:
        """The module that has this content already, or else the id of the user who will own it."""
        check(spec)
        who = reader.who
        named = [one for one in self._by_name.get(spec.name, {}).values() if reader.meets(one)]
        if spec.version is None:
            own = (one for one in named if one.owner_id == who.id)
            return next((one for one in own if one.spec == spec), who.id)
        versioned = [one for one in named if one.spec.version is not None]
        versioned = [one for one in versioned if one.owner_id == who.id] or versioned
        for one in versioned:
            if one.spec.version == spec.version:
                if one.spec == spec:
                    return one
                sentence = versions.taken(spec.name, spec.version)
                raise Refused(Code.VERSION_TAKEN, sentence, {"id": one.id})
        owner = versioned[0].owner_id if versioned else who.id
        if owner != who.id and not who.admin:
            raise _another_user_s(spec.name)
        return owner

    def get(self, name: str, version: str | None, reader: Reader) -> ModuleRecord:
        """Finds by id, name, or a unique prefix of an id or of a package's digest."""
        found = self._by_id(name, reader)
        if found is None and self._named(name, reader):
            return self.resolve(name, version, reader)
        if found is None:
            found = self._only(name, self._by_prefix(name, reader), reader)
        self._check_version(found, version)
        return found

    def resolve(self, name: str, version: str | None, reader: Reader) -> ModuleRecord:
        """Finds by name: the highest version that is allowed, else the one sent last."""
        fitting = self._fitting(name, version, reader)
        own = [one for one in fitting if one.owner_id == reader.who.id]
        pool = own or [one for one in fitting if reader.meets(one)] or fitting
        if len({one.owner_id for one in pool}) > 1:
            raise _ambiguous(name, pool, "are of several users; give an id, or a version")
        return max(pool, key=_rank)

    def own(self, name: str, version: str | None, reader: Reader) -> ModuleRecord:
        """Finds the module to change. It must be unambiguous, and the user's own unless the user is
        an administrator."""
        found = self.only(name, version, reader)
        if found.owner_id != reader.who.id and not reader.who.admin:
            raise Refused(
                Code.FORBIDDEN,
                f"The module {described(found)} is another user's: only who sent it, or an "
                "administrator, changes or removes it.",
            )
        return found

    def only(self, name: str, version: str | None, reader: Reader) -> ModuleRecord:
        """Finds one that is unambiguous, the user's own before others."""
        found = self._by_id(name, reader)
        if found is None:
            there = bool(self._named(name, reader))
            named = self._fitting(name, version, reader) if there else []
            mine = [one for one in named if one.owner_id == reader.who.id]
            found = self._only(name, mine or named or self._by_prefix(name, reader), reader)
        self._check_version(found, version)
        return found

    def check_shareable(self, record: ModuleRecord, cluster_id: str) -> None:
        """Raises Refused if another user's versions of the name are shared with the cluster."""
        if record.spec.version is not None and any(
            one.spec.version is not None
            and one.owner_id != record.owner_id
            and cluster_id in (one.clusters or ())
            for one in self._by_name[record.spec.name].values()
        ):
            raise _another_user_s(record.spec.name, " in this cluster")

    # Helpers of these.

    def _by_id(self, name: str, reader: Reader) -> ModuleRecord | None:
        found = self.modules.get(name)
        return found if found is not None and reader.sees(found) else None

    def _named(self, name: str, reader: Reader) -> list[ModuleRecord]:
        return [one for one in self._by_name.get(name, {}).values() if reader.sees(one)]

    def _by_prefix(self, prefix: str, reader: Reader) -> list[ModuleRecord]:
        return [
            one
            for one in self.modules.values()
            if prefix
            and reader.sees(one)
            and (
                one.id.startswith(prefix)
                or (one.spec.package is not None and one.spec.package.digest.startswith(prefix))
            )
        ]

    def _fitting(self, name: str, version: str | None, reader: Reader) -> list[ModuleRecord]:
        named = self._named(name, reader)
        if not named:
            raise self._unknown(name, reader)
        if version is None:
            return named
        allows = _allowed(version)
        fitting = [one for one in named if one.spec.version and allows(one.spec.version)]
        if not fitting:
            there = sorted({one.spec.version for one in named if one.spec.version}, key=_order)
            shown = [*there[-SHOWN:]] or ["none, it was sent without a version"]
            raise Refused(
                Code.UNKNOWN_MODULE,
                f"The module {name!r} has no version that {version!r} allows: "
                f"there {'are' if len(there) > 1 else 'is'} {', '.join(shown)}.",
                {"versions": there},
            )
        return fitting

    def _check_version(self, record: ModuleRecord, version: str | None) -> None:
        if version is None:
            return
        has = record.spec.version
        if has is None or not _allowed(version)(has):
            raise Refused(
                Code.UNKNOWN_MODULE,
                f"The module {described(record)} has {'no version' if has is None else has}, "
                f"which is not {version!r}; leave the version out.",
            )

    def _only(self, name: str, found: list[ModuleRecord], reader: Reader) -> ModuleRecord:
        if not found:
            raise self._unknown(name, reader)
        if len(found) > 1:
            raise _ambiguous(name, found, "fit; give more of the id, or a version")
        return found[0]

    def _unknown(self, name: str, reader: Reader) -> Refused:
        near = nearest(name, (one.spec.name for one in self.modules.values() if reader.sees(one)))
        return Refused(
            Code.UNKNOWN_MODULE,
            f"There is no module {name!r}; see `manta module list` for those there are."
            + ("" if near is None else f" Did you mean {near!r}?"),
            {"nearest": near},
        )


def check(spec: ModuleSpec) -> None:
    """Raises Refused for what cannot be registered; the SDK checks it too."""
    if not is_name(spec.name):
        raise Refused(
            Code.INVALID, f"{spec.name!r} is not a name for a module: give printable text."
        )
    if spec.package is None and spec.image is None:
        raise Refused(
            Code.INVALID,
            f"The module {spec.name!r} has neither a program nor an image: give one of them.",
        )
    names, size = len(spec.datasets) + len(spec.requirements), encoded(spec)
    if names > MOST_NAMES or size > MOST_BYTES:
        raise Refused(
            Code.INVALID,
            f"The module {spec.name!r} names {names:,} datasets and requirements, and its "
            f"description takes {size:,} bytes; a module may have {MOST_NAMES:,} and "
            f"{MOST_BYTES:,}: name what it needs alone.",
        )
    if flaw := next(flaws_of_module(spec), None):
        raise Refused(Code.INVALID, flaw)
    if spec.version is not None and not versions.is_version(spec.version):
        raise Refused(
            Code.INVALID,
            f"{spec.version!r} is not a version of a module: "
            'give MAJOR.MINOR.PATCH such as "1.0.0", or leave it out.',
        )


def _readers(record: ModuleRecord) -> list[tuple[str, str]]:
    """For whom it is, besides administrators."""
    return [("user", record.owner_id), *(("cluster", one) for one in record.clusters or ())]


def _another_user_s(name: str, where: str = "") -> Refused:
    return Refused(
        Code.NAME_TAKEN,
        f"The versions of {name!r}{where} are another user's: choose another name (name=), "
        "or leave version= out.",
    )


def described(record: ModuleRecord) -> str:
    version = f" {record.spec.version}" if record.spec.version else ""
    return f"{record.spec.name!r}{version} ({record.id})"


def _rank(record: ModuleRecord) -> tuple[object, ...]:
    return record.spec.version is not None, _order(record.spec.version), record.updated_at


def _order(version: str | None) -> tuple[int, ...]:
    return versions.order(version) if version else ()


def _allowed(version: str) -> Callable[[str], bool]:
    try:
        return versions.allowed(version)
    except ValueError:
        raise Refused(
            Code.INVALID, f"{version[:200]!r} is not a version of a module: {versions.REMEDY}."
        ) from None


def _ambiguous(name: str, found: list[ModuleRecord], why: str) -> Refused:
    some = sorted(map(described, found))
    more = ", ..." if len(some) > SHOWN else ""
    return Refused(
        Code.AMBIGUOUS,
        f"{name!r} may be any of {len(found)} modules ({', '.join(some[:SHOWN])}{more}), "
        f"which {why}.",
        {"ids": sorted(one.id for one in found)[:SHOWN]},
    )
