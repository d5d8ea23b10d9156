# Generated from manta/apis/aio/accounts.py by `make generate`: do not edit.
"""Users, roles and this user's own token."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from manta.apis import checks
from manta.apis.connect import profiles
from manta.apis.overviews import ClusterId, RoleOverview, UserId, UserOverview
from manta.apis.sync.client import Client
from manta.protocol import sign_in, users
from manta.protocol.node import Ok


class Accounts(Client):
    """Users are given as an overview, an id, a unique beginning of one, or an email."""

    def get_user(self, user: UserId | None = None) -> UserOverview:
        """A user, or who this is to the manager: `.id`, `.email`, `.admin`, `.grants`."""
        request = users.GetUser(checks.optional_identity("user", user))
        return UserOverview.of(self._ask(request, users.UserInfo, again=True))

    def list_users(self) -> list[UserOverview]:
        """All users, with their roles, by email. For administrators."""
        found = self.connection.listed(
            users.ListUsers, users.Users, lambda page: page.users, lambda one: one.id
        )
        return [UserOverview.of(user) for user in sorted(found, key=lambda one: one.email)]

    def list_user_ids(self) -> list[str]:
        """As `list_users`, the ids alone."""
        return [user.id for user in self.list_users()]

    def stream_users(self) -> Iterator[UserOverview]:
        """Each user there is."""
        yield from self.list_users()

    def stream_and_fetch_users(self) -> Iterator[UserOverview]:
        """Each user there is, fetched one by one; who was deleted meanwhile is passed over."""
        yield from self._fetched(self.list_user_ids(), self.get_user)

    def add_user(self, email: str, password: str, admin: bool = False) -> UserOverview:
        """A new user, without a role in any cluster. Raises NameTaken, Forbidden."""
        request = users.AddUser(checks.name("email", email), checks.name("password", password))
        if checks.flag("admin", admin):
            request = users.AddUser(request.email, request.password, True)
        return UserOverview.of(self._ask(request, users.UserInfo))

    def delete_user(self, user: UserId) -> None:
        """The user's keys and tokens end at once."""
        self._ask(users.DeleteUser(checks.identity("user", user)), Ok)

    def revoke_tokens(self, user: UserId) -> None:
        """All of a user's tokens and keys end at once: he must sign in again, everywhere.

        For administrators; `logout(everywhere=True)` is the same for oneself.
        """
        self._ask(users.RevokeTokens(checks.identity("user", user)), Ok)

    def change_password(self, old: str, new: str) -> None:
        """One's own."""
        request = users.ChangePassword(checks.name("old", old), checks.name("new", new))
        self._ask(request, Ok)

    def grant_role(self, user: UserId, cluster: ClusterId, role: str) -> UserOverview:
        """Give a user a role in a cluster, in place of the one that he had there."""
        request = users.GrantRole(
            checks.identity("user", user),
            checks.identity("cluster", cluster),
            checks.name("role", role),
        )
        return UserOverview.of(self._ask(request, users.UserInfo))

    def revoke_role(self, user: UserId, cluster: ClusterId) -> UserOverview:
        """Take away what role a user has in a cluster."""
        request = users.RevokeRole(
            checks.identity("user", user), checks.identity("cluster", cluster)
        )
        return UserOverview.of(self._ask(request, users.UserInfo))

    def list_roles(self) -> list[RoleOverview]:
        """Roles that can be granted, and the rights of each: the built-in ones, then by name."""
        found = self.connection.listed(
            users.ListRoles, users.Roles, lambda page: page.roles, lambda one: one.name
        )
        return [RoleOverview(role.name, role.rights, role.builtin) for role in found]

    def create_role_definition(self, name: str, rights: str | Iterable[str]) -> RoleOverview:
        """A role of one's own: a name for a set of rights. Raises NameTaken."""
        request = users.CreateRoleDefinition(
            checks.name("name", name), checks.names("rights", rights)
        )
        role = self._ask(request, users.RoleInfo)
        return RoleOverview(role.name, role.rights, role.builtin)

    def delete_role_definition(self, name: str) -> None:
        """Forget a role of one's own; it must not be granted to anybody. Raises NotFound."""
        self._ask(users.DeleteRoleDefinition(checks.name("name", name)), Ok)

    def rotate_token(self) -> str:
        """A new token in place of this one, which is worth nothing from now on.

        It is remembered under the profile. Whoever shows the old one afterwards revokes both.
        """
        answer = self._ask(sign_in.RotateToken(), sign_in.SignedIn)
        profiles.remember(self.connection.session.target, answer.email, answer.token)
        return answer.token

    def logout(self, everywhere: bool = False) -> None:
        """This machine's key and token are worth nothing any more, and are forgotten.

        `everywhere`: all of this user's, on whatever machine.
        """
        self._ask(sign_in.Logout(checks.flag("everywhere", everywhere)), Ok)
        profiles.forget(self.connection.session.target)
