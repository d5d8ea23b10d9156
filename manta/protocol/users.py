"""Messages about users, roles and modules, from the SDK to the manager."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from manta.protocol.base import Cursor, Named, Password, Wait, requests
from manta.protocol.node import Message, Ok, Seconds
from manta.protocol.spec import ModuleSpec, Name

# Users and roles.


class Grant(msgspec.Struct, frozen=True):
    cluster_id: str
    cluster_name: str
    role: str


class UserInfo(Message, frozen=True):
    """An `admin` has every right on the platform and in every cluster. That, and `created_at`, are
    told to administrators and to the user alone; others see the roles that they may grant."""

    id: str
    email: str
    admin: bool
    created_at: Seconds
    grants: tuple[Grant, ...] = ()


class GetUser(Message, frozen=True):
    """`user` is an id, a unique prefix of one, or an email; None is the sender."""

    user: Named | None = None


class ListUsers(Message, frozen=True):
    after: Cursor = ""


class Users(Message, frozen=True):
    users: tuple[UserInfo, ...]
    more: bool = False


class AddUser(Message, frozen=True):
    email: Named
    password: Password
    admin: bool = False


class ChangePassword(Message, frozen=True):
    old: Password
    new: Password


class DeleteUser(Message, frozen=True):
    """The user's keys and tokens end at once. Refused while clusters have no other owner."""

    user: Named


class RevokeTokens(Message, frozen=True):
    """All tokens and keys of the user end at once: every client must sign in again."""

    user: Named


class GrantRole(Message, frozen=True):
    """A user has one role in a cluster: a new one replaces the old one. Who has no role in the
    sender's clusters is named by the whole address."""

    user: Named
    cluster: Named
    role: Name


class RevokeRole(Message, frozen=True):
    user: Named
    cluster: Named


class RoleInfo(Message, frozen=True):
    """The `builtin` roles owner, operator, researcher and viewer can't be changed."""

    name: str
    rights: tuple[str, ...]
    builtin: bool = False


class CreateRoleDefinition(Message, frozen=True):
    name: Name
    rights: Annotated[tuple[Named, ...], msgspec.Meta(max_length=100)]


class DeleteRoleDefinition(Message, frozen=True):
    name: Named


class ListRoles(Message, frozen=True):
    """The built-in ones come first, then the others in order of names."""

    after: Cursor = ""


class Roles(Message, frozen=True):
    roles: tuple[RoleInfo, ...]
    more: bool = False


# Modules: code under a name.


class SharedWith(msgspec.Struct, frozen=True):
    cluster_id: str
    cluster_name: str


class ModuleInfo(Message, frozen=True):
    """`spec.version` is None for a module without a version; `updated_at` is when its content was
    last sent. `shared` names those of its clusters that the sender sees."""

    id: str
    spec: ModuleSpec
    owner_id: str
    created_at: Seconds
    updated_at: Seconds
    shared: tuple[SharedWith, ...] = ()


class SendModule(Message, frozen=True):
    """The package was pushed before. The same content again is the same module; other content
    under a taken name and version is refused. It is for its owner alone until it is shared."""

    spec: ModuleSpec


class GetModule(Message, frozen=True):
    """`module` is an id, a unique prefix of one or of a package's digest, or a name, which is
    resolved as ResolveModule says."""

    module: Named
    version: Named | None = None


class ResolveModule(Message, frozen=True):
    """The module that a swarm means by a name: the highest version that `version` (one, or a
    range) allows, else the last that was sent; the user's own before those that were shared. It
    is about to be used in `cluster`: what is shared with others alone is not meant, so that
    nobody's code runs there who has no part in it. None, which older clients send, is any."""

    name: Named
    version: Named | None = None
    cluster: Named | None = None


class ListModules(Message, frozen=True):
    after: Cursor = ""


class Modules(Message, frozen=True):
    modules: tuple[ModuleInfo, ...]
    more: bool = False
    revision: str = ""


class WatchModules(Message, frozen=True):
    since: Cursor = ""
    wait: Wait = 0.0


class UpdateModule(Message, frozen=True):
    """Replaces the content under the same id and name; refused for a module with a version."""

    module: Named
    spec: ModuleSpec


class ShareModule(Message, frozen=True):
    """Lets everybody who may read modules in the cluster see and use it; with `shared` False, no
    longer. Swarms that were sent with it keep what they need."""

    module: Named
    cluster: Named
    version: Named | None = None
    shared: bool = True


class RemoveModule(Message, frozen=True):
    """Swarms that were sent with it keep what they need. A name must mean one module."""

    module: Named
    version: Named | None = None


UserRequest: Any = requests(
    {
        GetUser: UserInfo,
        ListUsers: Users,
        AddUser: UserInfo,
        ChangePassword: Ok,
        DeleteUser: Ok,
        RevokeTokens: Ok,
        GrantRole: UserInfo,
        RevokeRole: UserInfo,
        CreateRoleDefinition: RoleInfo,
        DeleteRoleDefinition: Ok,
        ListRoles: Roles,
    }
)

ModuleRequest: Any = requests(
    {
        SendModule: ModuleInfo,
        GetModule: ModuleInfo,
        ResolveModule: ModuleInfo,
        ListModules: Modules,
        WatchModules: Modules,
        UpdateModule: ModuleInfo,
        ShareModule: ModuleInfo,
        RemoveModule: Ok,
    }
)
