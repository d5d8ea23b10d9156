"""Keeps the registered modules, and finds the one that a name means. Pure.

A module without a version is known by its digest: every user may send any number of them under
any name. A module with a version never changes, and no two modules on the platform have the
same name and version. All versions of a name belong to the user who sent the first, so that
nobody can slip a later version into another user's range. A name means the user's own modules
first; other users' only if they all belong to one user, so that no code is run by mistake.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from manta.actors.errors import Refused
from manta.manager.auth.principals import Principal
from manta.manager.store.records import ModuleRecord
from manta.protocol import versions
from manta.protocol.codes import Code
from manta.protocol.names import is_name, meant, nearest
from manta.protocol.spec import ModuleSpec

SHOWN = 20
"""How many versions or ids one sentence names at most."""


class Registry:
    def __init__(self, records: Iterable[ModuleRecord] = ()) -> None:
        self.modules: dict[str, ModuleRecord] = {}
        self._by_name: dict[str, dict[str, ModuleRecord]] = {}
        for record in records:
            self.put(record)

    def put(self, record: ModuleRecord) -> None:
        self.modules[record.id] = record
        self._by_name.setdefault(record.spec.name, {})[record.id] = record

    def pop(self, record: ModuleRecord) -> None:
        self.modules.pop(record.id, None)
        named = self._by_name.get(record.spec.name, {})
        named.pop(record.id, None)
        if not named:
            self._by_name.pop(record.spec.name, None)

    # Each raises Refused, which names what there is.

    def accept(self, spec: ModuleSpec, who: Principal) -> ModuleRecord | str:
        """The module that has this content already, or else the id of the user who will own it."""
        check(spec)
        named = self._by_name.get(spec.name, {}).values()
        if spec.version is None:
            own = (one for one in named if one.owner_id == who.id)
            return next((one for one in own if one.spec == spec), who.id)
        versioned = [one for one in named if one.spec.version is not None]
        for one in versioned:
            if one.spec.version == spec.version:
                if one.spec == spec:
                    return one
                sentence = versions.taken(spec.name, spec.version)
                raise Refused(Code.VERSION_TAKEN, sentence, {"id": one.id})
        owner = versioned[0].owner_id if versioned else who.id
        if owner != who.id and not who.admin:
            raise Refused(
                Code.NAME_TAKEN,
                f"The versions of {spec.name!r} are another user's: choose another name (name=), "
                "or leave version= out.",
            )
        return owner

    def get(self, name: str, version: str | None, who: Principal) -> ModuleRecord:
        """Finds by id, name, or a unique prefix of an id or of a package's digest."""
        found = self.modules.get(name)
        if found is None and self._by_name.get(name):
            return self.resolve(name, version, who)
        if found is None:
            found = self._only(name, self._by_prefix(name))
        self._check_version(found, version)
        return found

    def resolve(self, name: str, version: str | None, who: Principal) -> ModuleRecord:
        """Finds by name: the highest version that is allowed, else the one sent last."""
        fitting = self._fitting(name, version)
        pool = [one for one in fitting if one.owner_id == who.id] or fitting
        if len({one.owner_id for one in pool}) > 1:
            raise _ambiguous(name, pool, "are of several users; give an id, or a version")
        return max(pool, key=_rank)

    def own(self, name: str, version: str | None, who: Principal) -> ModuleRecord:
        """Finds the module to change. It must be unambiguous, and the user's own unless the user is
        an administrator."""
        found = self.modules.get(name)
        if found is None:
            named = self._fitting(name, version) if self._by_name.get(name) else []
            mine = [one for one in named if one.owner_id == who.id]
            found = self._only(name, mine or named or self._by_prefix(name))
        self._check_version(found, version)
        if found.owner_id != who.id and not who.admin:
            raise Refused(
                Code.FORBIDDEN,
                f"The module {described(found)} is another user's: only who sent it, or an "
                "administrator, changes or removes it.",
            )
        return found

    # Helpers of these.

    def _by_prefix(self, prefix: str) -> list[ModuleRecord]:
        return [
            one
            for one in self.modules.values()
            if prefix
            and (
                one.id.startswith(prefix)
                or (one.spec.package is not None and one.spec.package.digest.startswith(prefix))
            )
        ]

    def _fitting(self, name: str, version: str | None) -> list[ModuleRecord]:
        named = list(self._by_name.get(name, {}).values())
        if not named:
            raise self._unknown(name)
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

    def _only(self, name: str, found: list[ModuleRecord]) -> ModuleRecord:
        if not found:
            raise self._unknown(name)
        if len(found) > 1:
            raise _ambiguous(name, found, "fit; give more of the id, or a version")
        return found[0]

    def _unknown(self, name: str) -> Refused:
        return Refused(
            Code.UNKNOWN_MODULE,
            f"There is no module {name!r}; see `manta module list` for those there are."
            + meant(name, self._by_name),
            {"nearest": nearest(name, self._by_name)},
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
    if spec.version is not None and not versions.is_version(spec.version):
        raise Refused(
            Code.INVALID,
            f"{spec.version!r} is not a version of a module: "
            'give MAJOR.MINOR.PATCH such as "1.0.0", or leave it out.',
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
