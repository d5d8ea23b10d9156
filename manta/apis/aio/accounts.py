"""Users, roles and this user's own token."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

from manta.apis import checks
from manta.apis.aio.client import AsyncClient
from manta.apis.connect import profiles
from manta.apis.overviews import ClusterId, RoleOverview, UserId, UserOverview
from manta.protocol import sign_in, users
from manta.protocol.node import Ok


class AsyncAccounts(AsyncClient):
    """Users are given as an overview, an id, a unique beginning of one, or an email."""

    async def get_user(self, user: UserId | None = None) -> UserOverview:
        """A user, or who this is to the manager: `.id`, `.email`, `.admin`, `.grants`."""
        request = users.GetUser(checks.optional_identity("user", user))
        return UserOverview.of(await self._ask(request, users.UserInfo, again=True))

    async def list_users(self) -> list[UserOverview]:
        """All users, with their roles, by email. For administrators."""
        found = await self.connection.listed(
            users.ListUsers, users.Users, lambda page: page.users, lambda one: one.id
        )
        return [UserOverview.of(user) for user in sorted(found, key=lambda one: one.email)]

    async def list_user_ids(self) -> list[str]:
        """As `list_users`, the ids alone."""
        return [user.id for user in await self.list_users()]

    async def stream_users(self) -> AsyncIterator[UserOverview]:
        """Each user there is."""
        for user in await self.list_users():
            yield user

    async def stream_and_fetch_users(self) -> AsyncIterator[UserOverview]:
        """Each user there is, fetched one by one; who was deleted meanwhile is passed over."""
        async for one in self._fetched(await self.list_user_ids(), self.get_user):
            yield one

    async def add_user(self, email: str, password: str, admin: bool = False) -> UserOverview:
        """A new user, without a role in any cluster. Raises NameTaken, Forbidden."""
        request = users.AddUser(checks.name("email", email), checks.name("password", password))
        if checks.flag("admin", admin):
            request = users.AddUser(request.email, request.password, True)
        return UserOverview.of(await self._ask(request, users.UserInfo))

    async def delete_user(self, user: UserId) -> None:
        """The user's keys and tokens end at once."""
        await self._ask(users.DeleteUser(checks.identity("user", user)), Ok)

    async def revoke_tokens(self, user: UserId) -> None:
        """All of a user's tokens and keys end at once: he must sign in again, everywhere.

        For administrators; `logout(everywhere=True)` is the same for oneself.
        """
        await self._ask(users.RevokeTokens(checks.identity("user", user)), Ok)

    async def change_password(self, old: str, new: str) -> None:
        """One's own."""
        request = users.ChangePassword(checks.name("old", old), checks.name("new", new))
        await self._ask(request, Ok)

    async def grant_role(self, user: UserId, cluster: ClusterId, role: str) -> UserOverview:
        """Give a user a role in a cluster, in place of the one that he had there."""
        request = users.GrantRole(
            checks.identity("user", user),
            checks.identity("cluster", cluster),
            checks.name("role", role),
        )
        return UserOverview.of(await self._ask(request, users.UserInfo))

    async def revoke_role(self, user: UserId, cluster: ClusterId) -> UserOverview:
        """Take away what role a user has in a cluster."""
        request = users.RevokeRole(
            checks.identity("user", user), checks.identity("cluster", cluster)
        )
        return UserOverview.of(await self._ask(request, users.UserInfo))

    async def list_roles(self) -> list[RoleOverview]:
        """Roles that can be granted, and the rights of each: the built-in ones, then by name."""
        found = await self.connection.listed(
            users.ListRoles, users.Roles, lambda page: page.roles, lambda one: one.name
        )
        return [RoleOverview(role.name, role.rights, role.builtin) for role in found]

    async def create_role_definition(self, name: str, rights: str | Iterable[str]) -> RoleOverview:
        """A role of one's own: a name for a set of rights. Raises NameTaken."""
        request = users.CreateRoleDefinition(
            checks.name("name", name), checks.names("rights", rights)
        )
        role = await self._ask(request, users.RoleInfo)
        return RoleOverview(role.name, role.rights, role.builtin)

    async def delete_role_definition(self, name: str) -> None:
        """Forget a role of one's own; it must not be granted to anybody. Raises NotFound."""
        await self._ask(users.DeleteRoleDefinition(checks.name("name", name)), Ok)

    async def rotate_token(self) -> str:
        """A new token in place of this one, which is worth nothing from now on.

        It is remembered under the profile. Whoever shows the old one afterwards revokes both.
        """
        answer = await self._ask(sign_in.RotateToken(), sign_in.SignedIn)
        profiles.remember(self.connection.session.target, answer.email, answer.token)
        return answer.token

    async def logout(self, everywhere: bool = False) -> None:
        """This machine's key and token are worth nothing any more, and are forgotten.

        `everywhere`: all of this user's, on whatever machine.
        """
        await self._ask(sign_in.Logout(checks.flag("everywhere", everywhere)), Ok)
        profiles.forget(self.connection.session.target)
