"""The API: everything that a user can ask of a manager."""

from __future__ import annotations

from functools import partial
from types import TracebackType
from typing import Self

from manta.apis import checks
from manta.apis.aio.accounts import AsyncAccounts
from manta.apis.aio.clusters import AsyncClusters
from manta.apis.aio.connection import AsyncConnection
from manta.apis.aio.modules import AsyncModules
from manta.apis.aio.nodes import AsyncNodes
from manta.apis.aio.outputs import AsyncOutputs
from manta.apis.aio.quotas import AsyncQuotas
from manta.apis.aio.swarms import AsyncSwarms
from manta.apis.connect import profiles
from manta.apis.connect.session import Session
from manta.apis.overviews import NodeId
from manta.protocol import sign_in
from manta.protocol.base import MAX_PASSWORD
from manta.protocol.names import MAX_NAME
from manta.protocol.tree import Tree
from manta.protocol.user import GetTree


class AsyncUserAPI(
    AsyncClusters,
    AsyncNodes,
    AsyncSwarms,
    AsyncOutputs,
    AsyncModules,
    AsyncQuotas,
    AsyncAccounts,
):
    """Talks to a manager on behalf of a user.

    Clusters, nodes and swarms are given as an overview, an id, a unique beginning of one, or
    (clusters, nodes) a name. A token carries the manager's public key and is bound, when it is
    first used, to a key made under `~/.manta`. Arguments win over `MANTA_TOKEN`, `MANTA_HOST`
    and `MANTA_PORT`, those over the profile, and the profile over localhost and 50052.

    All methods raise ConnectionFailed when the manager cannot be reached and RequestRefused when
    it refuses; subclasses of both say why (`manta.apis.errors`).
    """

    def __init__(
        self,
        token: str | None = None,
        host: str | None = None,
        port: int | None = None,
        profile: str | None = None,
    ) -> None:
        target = profiles.resolve(token, host, port, profile)
        self.connection = AsyncConnection(Session(target, profiles.key_in_use(target.profile)))

    @classmethod
    def over(cls, session: Session) -> Self:
        """Makes an API over an existing session, and closes that at its end."""
        api = cls.__new__(cls)
        api.connection = AsyncConnection(session)
        return api

    @classmethod
    async def sign_in(
        cls,
        email: str,
        password: str,
        host: str | None = None,
        port: int | None = None,
        profile: str | None = None,
        server_key: str | None = None,
    ) -> Self:
        """Signs in, saves that under the profile, and returns the API.

        `server_key` is the manager's public key; it is needed the first time, unless the manager
        runs on this machine. Raises NotAuthenticated for a wrong email address or password.
        """
        request = sign_in.SignIn(
            checks.text("email", email, MAX_NAME), checks.text("password", password, MAX_PASSWORD)
        )
        target, keys = profiles.for_sign_in(host, port, profile, server_key)
        api = cls.over(Session(target, keys))
        try:
            who = await api.connection.sign_in(request)
        except BaseException:
            await api.close()
            raise
        profiles.remember(target, who.email, who.token)
        return api

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connection; the object cannot be used again."""
        await self.connection.close()

    async def disconnect(self) -> None:
        """The same as `close`."""
        await self.close()

    async def is_available(self) -> bool:
        """Whether the manager answers, within seconds. Raises NotAuthenticated if nothing says
        which manager that is."""
        return await self.connection.is_available()

    async def get_tree(self, node: NodeId | None = None) -> Tree:
        """Returns the supervision tree of the manager or of a node. For administrators.

        `.actors`: path, actor, state, restarts, last_exit, waiting and seconds of each.
        """
        request = partial(GetTree, checks.optional_identity("node", node))
        actors = await self.connection.listed(
            request, Tree, lambda page: page.actors, lambda one: one.path
        )
        return Tree(tuple(actors))
