"""Adds, changes and deletes users, grants roles, and ends keys and tokens.

A `Change` takes effect before it is stored, so that of two owners who remove each other at the
same time only one succeeds. The answer is sent once messages of withdrawn keys are no longer
handled.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

import msgspec

from manta.actors import Refused
from manta.manager.auth import passwords
from manta.manager.auth.limits import Attempt
from manta.manager.auth.principals import Principal
from manta.manager.auth.rights import Right
from manta.manager.auth.roles import BUILTIN, OWNER
from manta.manager.gateway.part import Part, Request, Shared
from manta.manager.gateway.password_checks import Check
from manta.manager.gateway.registrar import Registrar
from manta.manager.ids import new_id
from manta.manager.store.change import Change
from manta.manager.store.interface import Delete, Put
from manta.manager.store.records import (
    ADMIN_ROLE,
    USER_ROLE,
    ClusterRecord,
    RoleRecord,
    UserRecord,
)
from manta.protocol import pages, sign_in, users
from manta.protocol.codes import Code
from manta.protocol.names import meant
from manta.protocol.node import Ok
from manta.transports.security.admission import TokenBucket

SHOWN = 20
"""Ids that a refusal names at most."""
MISSES = 20.0
"""Addresses without a user that somebody may give at once, and then one a minute."""


class Users(Part):
    def __init__(self, shared: Shared, registrar: Registrar) -> None:
        super().__init__(shared)
        self._registrar = registrar
        self._misses: dict[str, TokenBucket] = {}
        """By user: the addresses without a user that may still be given."""

    # Finding users.

    def _find(self, name: str, who: Principal, cluster_id: str = "") -> UserRecord:
        """Finds a user by address, id or unique prefix of an id, for an administrator.

        Anybody else finds those who have a role in the cluster, or in any where the sender grants
        roles, and by their whole address all others; with `cluster_id`, nobody but those who have
        a role there. Raises Refused, which says the same of who is not there and who is not seen.
        """
        everybody, address = self._registrar.users, name.strip().lower()
        known = everybody if who.admin else self._members(who, cluster_id)
        if name in known:
            return known[name]
        found = [one for one in known.values() if one.email == address]
        if not found and name:
            found = [one for one in known.values() if one.id.startswith(name)]
        if not found and not who.admin and not cluster_id and "@" in address:
            found = self._by_address(address, who)
        if len(found) == 1:
            return found[0]
        if found:
            raise Refused(
                Code.AMBIGUOUS,
                f"{name!r} may be any of {len(found)} users; give more of the id, or the address.",
                {"ids": sorted(one.id for one in found)[:SHOWN]},
            )
        if who.admin:
            more = meant(address, (one.email for one in known.values()))
        else:
            more = " Who has no role in your clusters is named by the whole address."
        where = " with a role in this cluster" if cluster_id and not who.admin else ""
        raise Refused(
            Code.UNKNOWN_USER,
            f"There is no user {name!r}{where}; an administrator sees them all with "
            f"`manta user list`.{more}",
        )

    def _members(self, who: Principal, cluster_id: str) -> dict[str, UserRecord]:
        """Who has a role in the cluster, or without one in any where the sender grants roles."""
        members = {
            user
            for user, cluster in self._roles.grants
            if cluster_id in ("", cluster) and Right.ROLE_GRANT in self._roles.rights(who, cluster)
        }
        users_ = self._registrar.users
        return {user: users_[user] for user in {who.id, *members} if user in users_}

    def _by_address(self, address: str, who: Principal) -> list[UserRecord]:
        """The user of an address. How many are tried that nobody has is limited, so that addresses
        are not found out by trying them. Raises Refused."""
        misses = self._misses.setdefault(who.id, TokenBucket(rate=1 / 60, burst=MISSES))
        if not misses.take(self._actor.clock.now()):
            raise Refused(
                Code.RATE_LIMITED,
                "You gave too many addresses that no user has; wait a minute, "
                "or ask an administrator for the right one.",
            )
        found = [one for one in self._registrar.users.values() if one.email == address]
        if found:
            misses.give_back()
        return found

    def get(self, name: str | None, who: Principal) -> users.UserInfo:
        """`name` is None for the user who asks."""
        if name is None or name in (who.id, who.name):
            return self._info(self._registrar.users[who.id], who)
        if not who.admin:
            raise Refused(
                Code.FORBIDDEN,
                "GetUser was refused: only an administrator sees other users; ask one.",
            )
        return self._info(self._find(name, who), who)

    def page(self, after: str, who: Principal) -> users.Users:
        infos = (self._info(one, who) for one in self._registrar.users.values())
        return users.Users(*pages.after(infos, lambda one: one.id, after, pages.encoded))

    def _info(self, record: UserRecord, who: Principal) -> users.UserInfo:
        """To others than administrators and the user, nothing but the roles that they grant."""
        own, right = who.admin or record.id == who.id, Right.ROLE_GRANT
        grants = tuple(
            users.Grant(cluster_id, self._directory.clusters[cluster_id].name, role)
            for cluster_id, role in sorted(self._roles.of_user(record.id).items())
            if cluster_id in self._directory.clusters
            and (own or right in self._roles.rights(who, cluster_id))
        )
        if not own:
            return users.UserInfo(record.id, record.email, False, 0.0, grants)
        admin = record.role == ADMIN_ROLE
        return users.UserInfo(record.id, record.email, admin, record.created_at, grants)

    # Users.

    def add(self, request: Request[users.AddUser, None]) -> None:
        message, who, reply = request.message, request.who, request.defer()
        email = message.email.strip().lower()
        name, at, domain = email.partition("@")
        if not (name and at and domain) or " " in email or not email.isprintable():
            raise Refused(
                Code.INVALID, f"{email!r} is not an address; give one such as me@example.org."
            )
        _check_password(message.password)
        self._check_address(email)

        def then(hashed: str) -> None:
            self._check_address(email)
            role = ADMIN_ROLE if message.admin else USER_ROLE
            record = UserRecord(new_id(), email, hashed, self._actor.clock.wall(), role)
            change = Change(self._writer)
            change.put(self._registrar.users, record)

            def stored() -> None:
                self._actor.log.info("%s added the user %s", who.name, email)
                reply.set(self._info(record, who))

            change.commit(reply, stored)

        self._registrar.passwords.hash("adding a user", who, message.password, then, reply)

    def _check_address(self, email: str) -> None:
        if any(one.email == email for one in self._registrar.users.values()):
            raise Refused(Code.NAME_TAKEN, f"There is a user {email!r} already; choose another.")

    def change_password(self, request: Request[users.ChangePassword, None]) -> None:
        message, who, reply = request.message, request.who, request.defer()
        _check_password(message.new)
        before = self._registrar.users[who.id]

        def then(hashed: str) -> None:
            current = self._registrar.users.get(who.id)
            if current != before:
                raise Refused(Code.WRONG_STATE, "The user was changed meanwhile; try again.")
            change = Change(self._writer)
            change.put(self._registrar.users, msgspec.structs.replace(before, password=hashed))
            ended = self._registrar.end(change, who.id, spared=who.key)

            def stored() -> None:
                self._actor.log.warning("%s changed the password", who.name)
                self._listeners.withdraw(ended, who.key)
                reply.set(Ok())

            change.commit(reply, stored)

        def job() -> str | None:
            right = passwords.verify_password(before.password, message.old)
            return passwords.hash_password(message.new) if right else None

        wrong = "The old password is wrong; nothing was changed."
        check = Check("changing a password", job, then, wrong, reply)
        # Limited, too: a user who is signed in may not know the password.
        attempt = Attempt(who.key, request.source, before.email, who.id, check)
        self._registrar.passwords.check(attempt)

    def delete(self, request: Request[users.DeleteUser, None]) -> None:
        record = self._find(request.message.user, request.who)
        everybody = self._registrar.users
        admins = [one for one in everybody.values() if one.role == ADMIN_ROLE]
        if admins == [record]:
            raise Refused(
                Code.WRONG_STATE,
                f"{record.email} is the last administrator; add another one first "
                "(manta user add --admin).",
            )
        grants = self._roles.of_user(record.id)
        for cluster_id in grants:
            self._check_not_last_owner(record, cluster_id)
        change = Change(self._writer)
        for cluster_id in grants:
            self._roles.revoke(change, record.id, cluster_id)
        change.delete(everybody, record)
        self._context.quotas.limits.forget(change, "user", record.id)
        self._misses.pop(record.id, None)
        self._end(request, change, record.id, f"deleted the user {record.email}")

    def log_out(self, request: Request[sign_in.Logout, None]) -> None:
        who, everywhere = request.who, request.message.everywhere
        key = None if everywhere else who.key
        done = "signed out everywhere" if everywhere else "signed out"
        self._end(request, Change(self._writer), who.id, done, key, logging.INFO)

    def revoke_tokens(self, request: Request[users.RevokeTokens, None]) -> None:
        record = self._find(request.message.user, request.who)
        done = f"revoked the tokens of {record.email}"
        self._end(request, Change(self._writer), record.id, done)

    def _end(
        self,
        request: Request[object, None],
        change: Change,
        user_id: str,
        done: str,
        key: str | None = None,
        level: int = logging.WARNING,
    ) -> None:
        """Makes the change, which also ends all keys of the user, or the one key."""
        who, reply = request.who, request.defer()
        keys = self._registrar.end(change, user_id, key)

        def stored() -> None:
            self._actor.log.log(level, "%s %s", who.name, done)
            self._listeners.withdraw(keys, who.key)
            reply.set(Ok())

        change.commit_lasting(reply, stored)

    # Roles.

    def set_role(
        self,
        request: Request[users.GrantRole | users.RevokeRole, ClusterRecord],
        role: str | None,
    ) -> None:
        """Gives the user a role in the cluster, or with None takes it away."""
        who, cluster = request.who, request.target
        record = self._find(request.message.user, who, "" if role else cluster.id)
        roles, cluster_id, reply = self._roles, cluster.id, request.defer()
        before = roles.grants.get((record.id, cluster_id))
        if role is not None and role not in BUILTIN and role not in roles.defined:
            known = [*BUILTIN, *sorted(roles.defined)]
            raise Refused(
                Code.UNKNOWN_ROLE,
                f"There is no role {role!r}; there are: {', '.join(known)}." + meant(role, known),
            )
        if role is None and before is None:
            raise Refused(Code.WRONG_STATE, f"{record.email} has no role in this cluster.")
        own = roles.rights(who, cluster_id)
        for one in filter(None, (role, before)):
            if beyond := roles.rights_of_role(one) - own:
                raise Refused(
                    Code.FORBIDDEN,
                    f"The role {one!r} has rights that you do not have "
                    f"({', '.join(sorted(beyond))}); an owner of the cluster can change it.",
                )
        if role != OWNER:
            self._check_not_last_owner(record, cluster_id)

        change = Change(self._writer)
        change.on_refusal(lambda: self._reveal(cluster_id))
        if role is None:
            roles.revoke(change, record.id, cluster_id)
        else:
            roles.grant(change, record.id, cluster_id, role)
        self._reveal(cluster_id)

        def stored() -> None:
            said = f"is {role}" if role else "has no role any more"
            self._actor.log.info("%s %s in %s, by %s", record.email, said, cluster.name, who.name)
            reply.set(self._info(record, who))

        commit = change.commit if role else change.commit_lasting
        commit(reply, stored)

    def _reveal(self, cluster_id: str) -> None:
        """Wakes watchers of lists: some users now see more of this cluster, or less."""
        revisions = self._context.revisions
        revisions.clusters.changed(cluster_id)
        revisions.swarms.changed(*self._context.cluster(cluster_id).swarms)
        revisions.nodes.changed()
        modules = self._context.access.modules
        revisions.modules.changed(*(modules.shared_with(cluster_id) if modules else ()))

    def _check_not_last_owner(self, record: UserRecord, cluster_id: str) -> None:
        if self._roles.owners(cluster_id) == {record.id}:
            name = self._directory.clusters[cluster_id].name
            raise Refused(
                Code.WRONG_STATE,
                f"{record.email} is the last owner of the cluster {name!r}; make another user "
                f"owner first (manta role grant), or delete the cluster.",
            )

    def roles(self, after: str) -> users.Roles:
        """A page of all roles; the built-in ones come first."""
        builtin = (_role(name, rights, True) for name, rights in BUILTIN.items())
        own = (_role(name, rights) for name, rights in self._roles.defined.items())
        found = pages.after(
            (*builtin, *own), lambda one: _place(one.name), _place(after), pages.encoded
        )
        return users.Roles(*found)

    def define_role(self, request: Request[users.CreateRoleDefinition, None]) -> None:
        name, rights = request.message.name, frozenset(request.message.rights)
        reply = request.defer()
        if unknown := rights - set(Right):
            raise Refused(
                Code.INVALID,
                f"There is no right {sorted(unknown)[0]!r}; there are: {', '.join(Right)}.",
            )
        if not rights:
            raise Refused(Code.INVALID, f"The role {name!r} has no rights; name one at least.")
        if name in BUILTIN or name in self._roles.defined:
            raise Refused(
                Code.NAME_TAKEN, f"There is a role {name!r} already; choose another name."
            )
        info = _role(name, rights)
        change = Change(self._writer)
        change.set(self._roles.defined, name, rights)
        change.write(Put(RoleRecord(name, info.rights)))
        change.commit(reply, lambda: reply.set(info))

    def delete_role(self, request: Request[users.DeleteRoleDefinition, None]) -> None:
        name, reply = request.message.name, request.defer()
        if name in BUILTIN:
            raise Refused(Code.INVALID, f"The role {name!r} is built in and stays.")
        if name not in self._roles.defined:
            raise Refused(
                Code.UNKNOWN_ROLE,
                f"There is no role {name!r} to delete; see `manta role list`."
                + meant(name, self._roles.defined),
            )
        if holders := sum(role == name for role in self._roles.grants.values()):
            raise Refused(
                Code.WRONG_STATE,
                f"The role {name!r} is granted {holders} times; grant another one instead first.",
            )
        change = Change(self._writer)
        change.remove(self._roles.defined, name)
        self._context.quotas.limits.forget(change, "role", name)
        change.write(Delete(RoleRecord, name))
        change.commit(reply, lambda: reply.set(Ok()))


_PLACES = {name: f"0{number}" for number, name in enumerate(BUILTIN)}


def _place(role: str) -> str:
    """Sorts a role in the list of all; "" comes before all."""
    return _PLACES.get(role, f"1{role}") if role else ""


def _role(name: str, rights: Iterable[str], builtin: bool = False) -> users.RoleInfo:
    return users.RoleInfo(name, tuple(sorted(map(str, rights))), builtin)


def _check_password(password: str) -> None:
    if flaw := passwords.flaw(password):
        raise Refused(Code.INVALID, flaw)
