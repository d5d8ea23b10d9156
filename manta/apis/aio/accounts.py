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
    """A user is given as an overview, an id, a unique beginning of one, or an email address."""

    async def get_user(self, user: UserId | None = None) -> UserOverview:
        """Returns a user, or the one who is signed in: `.id`, `.email`, `.admin`, `.grants`."""
        request = users.GetUser(checks.optional_identity("user", user))
        return UserOverview.of(await self._ask(request, users.UserInfo, again=True))

    async def list_users(self) -> list[UserOverview]:
        """Lists all users with their roles, by email address. For administrators."""
        found = await self.connection.listed(
            users.ListUsers, users.Users, lambda page: page.users, lambda one: one.id
        )
        return [UserOverview.of(user) for user in sorted(found, key=lambda one: one.email)]

    async def list_user_ids(self) -> list[str]:
        """Lists the ids of all users, by email address. For administrators."""
        return [user.id for user in await self.list_users()]

    async def stream_users(self) -> AsyncIterator[UserOverview]:
        """Yields each user. For administrators."""
        for user in await self.list_users():
            yield user

    async def stream_and_fetch_users(self) -> list[UserOverview]:
        """Lists the ids and fetches each user; those deleted meanwhile are skipped."""
        return await self._fetched(await self.list_user_ids(), self.get_user)

    async def add_user(self, email: str, password: str, admin: bool = False) -> UserOverview:
        """Adds a user without a role in any cluster. Raises NameTaken, Forbidden."""
        request = users.AddUser(
            checks.name("email", email),
            checks.name("password", password),
            checks.flag("admin", admin),
        )
        return UserOverview.of(await self._ask(request, users.UserInfo))

    async def delete_user(self, user: UserId) -> None:
        """Deletes a user, whose keys and tokens stop working at once."""
        await self._ask(users.DeleteUser(checks.identity("user", user)), Ok)

    async def revoke_tokens(self, user: UserId) -> None:
        """Revokes all of a user's tokens and keys at once: every machine must sign in again.

        For administrators; `logout(everywhere=True)` does it for yourself.
        """
        await self._ask(users.RevokeTokens(checks.identity("user", user)), Ok)

    async def change_password(self, old: str, new: str) -> None:
        """Changes your own password. Raises NotAuthenticated when the old one is wrong."""
        request = users.ChangePassword(checks.name("old", old), checks.name("new", new))
        await self._ask(request, Ok)

    async def grant_role(self, user: UserId, cluster: ClusterId, role: str) -> UserOverview:
        """Gives a user a role in a cluster, replacing the one they had there."""
        request = users.GrantRole(
            checks.identity("user", user),
            checks.identity("cluster", cluster),
            checks.name("role", role),
        )
        return UserOverview.of(await self._ask(request, users.UserInfo))

    async def revoke_role(self, user: UserId, cluster: ClusterId) -> UserOverview:
        """Takes away the role that a user has in a cluster."""
        request = users.RevokeRole(
            checks.identity("user", user), checks.identity("cluster", cluster)
        )
        return UserOverview.of(await self._ask(request, users.UserInfo))

    async def list_roles(self) -> list[RoleOverview]:
        """Lists the roles that can be granted, with their rights: first the built-in ones."""
        found = await self.connection.listed(
            users.ListRoles, users.Roles, lambda page: page.roles, lambda one: one.name
        )
        return [RoleOverview.of(role) for role in found]

    async def create_role_definition(self, name: str, rights: str | Iterable[str]) -> RoleOverview:
        """Defines a role: a name for a set of rights. Raises NameTaken."""
        request = users.CreateRoleDefinition(
            checks.name("name", name), checks.names("rights", rights)
        )
        return RoleOverview.of(await self._ask(request, users.RoleInfo))

    async def delete_role_definition(self, name: str) -> None:
        """Deletes a role that you defined and nobody has any more. Raises NotFound."""
        await self._ask(users.DeleteRoleDefinition(checks.name("name", name)), Ok)

    async def create_user_token(self, for_key: str | None = None) -> str:
        """Makes a token with which another machine is you (`manta token use` there).

        `for_key` is that machine's public key (`manta token key` shows it there); no other can use
        the token. Without it, the token is the first machine's that uses it, within a day.
        """
        key = "" if for_key is None else checks.name("for_key", for_key)
        return (await self._ask(sign_in.CreateUserToken(key), sign_in.UserToken)).token

    async def rotate_token(self) -> str:
        """Returns a new token, saved under the profile; the old one signs nobody in any more.

        If another machine shows the old one afterwards, both are revoked.
        """
        answer = await self._ask(sign_in.RotateToken(), sign_in.SignedIn)
        profiles.remember(self.connection.session.target, answer.email, answer.token)
        return answer.token

    async def logout(self, everywhere: bool = False) -> None:
        """Signs out: this machine's key and token are revoked and deleted here.

        `everywhere` revokes those of all of this user's machines.
        """
        await self._ask(sign_in.Logout(checks.flag("everywhere", everywhere)), Ok)
        profiles.forget(self.connection.session.target)
