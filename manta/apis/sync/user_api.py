# Generated from manta/apis/aio/user_api.py by `make generate`: do not edit.
"""The API: everything that a user can ask of a manager."""

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
from manta.apis.sync.quotas import Quotas
from manta.apis.sync.swarms import Swarms
from manta.protocol import sign_in
from manta.protocol.base import MAX_PASSWORD
from manta.protocol.names import MAX_NAME
from manta.protocol.tree import Tree
from manta.protocol.user import GetTree


class UserAPI(
    Clusters,
    Nodes,
    Swarms,
    Outputs,
    Modules,
    Quotas,
    Accounts,
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
        self.connection = Connection(Session(target, profiles.key_in_use(target.profile)))

    @classmethod
    def over(cls, session: Session) -> Self:
        """Makes an API over an existing session, and closes that at its end."""
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
            who = api.connection.sign_in(request)
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
        """Closes the connection; the object cannot be used again."""
        self.connection.close()

    def disconnect(self) -> None:
        """The same as `close`."""
        self.close()

    def is_available(self) -> bool:
        """Whether the manager answers, within seconds. Raises NotAuthenticated if nothing says
        which manager that is."""
        return self.connection.is_available()

    def get_tree(self, node: NodeId | None = None) -> Tree:
        """Returns the supervision tree of the manager or of a node. For administrators.

        `.actors`: path, actor, state, restarts, last_exit, waiting and seconds of each.
        """
        request = partial(GetTree, checks.optional_identity("node", node))
        actors = self.connection.listed(
            request, Tree, lambda page: page.actors, lambda one: one.path
        )
        return Tree(tuple(actors))
