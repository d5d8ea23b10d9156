# Generated from manta/apis/aio/user_api.py by `make generate`: do not edit.
"""What a user asks of a manager."""

from __future__ import annotations

from functools import partial
from types import TracebackType
from typing import Self

from manta.apis import checks
from manta.apis.connect import profiles
from manta.apis.connect.session import Session
from manta.apis.overviews import NodeId
from manta.apis.sync.accounts import Accounts
from manta.apis.sync.clusters import Clusters
from manta.apis.sync.connection import Connection
from manta.apis.sync.modules import Modules
from manta.apis.sync.nodes import Nodes
from manta.apis.sync.outputs import Outputs
from manta.apis.sync.swarms import Swarms
from manta.protocol import sign_in
from manta.protocol.tree import Tree
from manta.protocol.user import GetTree


class UserAPI(Clusters, Nodes, Swarms, Outputs, Modules, Accounts):
    """A user's way to a manager.

    Clusters, nodes and swarms are given as an overview, an id, a unique beginning of one, or
    (clusters, nodes) a name. A token carries the manager's public key and is bound, at its
    first use, to a key made under `~/.manta`. An argument wins over `MANTA_TOKEN`,
    `MANTA_HOST` and `MANTA_PORT`, these over the profile, this over localhost and 50052.

    All methods raise ConnectionFailed when the manager cannot be talked to and RequestRefused
    when it says no; both have kinds that tell what is the matter (`manta.apis.errors`).
    """

    def __init__(
        self,
        token: str | None = None,
        host: str | None = None,
        port: int | None = None,
        profile: str | None = None,
    ) -> None:
        target = profiles.resolve(token, host, port, profile)
        self.connection = Connection(
            Session(target, profiles.user_key(profiles.home(), target.profile))
        )

    @classmethod
    def over(cls, session: Session) -> Self:
        """An API over a session that is made already; it closes it."""
        api = cls.__new__(cls)
        api.connection = Connection(session)
        return api

    @classmethod
    def sign_in(
        cls,
        email: str,
        password: str,
        host: str | None = None,
        port: int | None = None,
        profile: str | None = None,
        server_key: str | None = None,
    ) -> Self:
        """Sign in, remember it under the profile, and return the API.

        `server_key` is the manager's public key, needed the first time unless the manager runs
        on this machine. Raises NotAuthenticated for a wrong email or password.
        """
        target, keys = profiles.for_sign_in(host, port, profile, server_key)
        api = cls.over(Session(target, keys))
        try:
            who = api.connection.sign_in(sign_in.SignIn(email, password))
        except BaseException:
            api.close()
            raise
        profiles.remember(target, who.email, who.token)
        return api

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up; the object cannot be used again."""
        self.connection.close()

    def get_tree(self, node: NodeId | None = None) -> Tree:
        """The supervision tree of the manager, or of a node; for administrators.

        `.actors`: path, actor, state, restarts, last_exit, waiting and seconds of each.
        """
        request = partial(GetTree, checks.optional_identity("node", node))
        actors = self.connection.listed(
            request, Tree, lambda page: page.actors, lambda one: one.path
        )
        return Tree(tuple(actors))
