"""Users, roles and modules, as a user's SDK asks for them."""

from __future__ import annotations

from typing import Any

import msgspec

from manta.protocol.base import Wait, requests
from manta.protocol.node import Message, Ok, Seconds
from manta.protocol.spec import ModuleSpec, Name

# Users and roles.


class Grant(msgspec.Struct, frozen=True):
    cluster_id: str
    cluster_name: str
    role: str


class UserInfo(Message, frozen=True):
    """`admin`: of the whole platform, with every right in every cluster."""

    id: str
    email: str
    admin: bool
    created_at: Seconds
    grants: tuple[Grant, ...] = ()


class GetUser(Message, frozen=True):
    """`user` is an id, a unique prefix of one, or an email; None is who asks."""

    user: str | None = None


class ListUsers(Message, frozen=True):
    after: str = ""


class Users(Message, frozen=True):
    users: tuple[UserInfo, ...]
    more: bool = False


class AddUser(Message, frozen=True):
    email: str
    password: str
    admin: bool = False


class ChangePassword(Message, frozen=True):
    old: str
    new: str


class DeleteUser(Message, frozen=True):
    """His keys and tokens end at once; clusters that he alone owns are refused first."""

    user: str


class RevokeTokens(Message, frozen=True):
    """All tokens and keys of the user end at once: a new sign-in is needed, everywhere."""

    user: str


class GrantRole(Message, frozen=True):
    """One role per user and cluster: a new one takes the old one's place."""

    user: str
    cluster: str
    role: Name


class RevokeRole(Message, frozen=True):
    user: str
    cluster: str


class RoleInfo(Message, frozen=True):
    """`builtin`: owner, operator, researcher and viewer can't be changed."""

    name: str
    rights: tuple[str, ...]
    builtin: bool = False


class CreateRoleDefinition(Message, frozen=True):
    name: Name
    rights: tuple[str, ...]


class DeleteRoleDefinition(Message, frozen=True):
    name: str


class ListRoles(Message, frozen=True):
    """The built-in ones come first, then the others in order of names."""

    after: str = ""


class Roles(Message, frozen=True):
    roles: tuple[RoleInfo, ...]
    more: bool = False


# Modules: code under a name, sent once.


class ModuleInfo(Message, frozen=True):
    """`spec.version` is None for a module that is known by its digest alone; `updated_at` is
    when its content was last sent."""

    id: str
    spec: ModuleSpec
    owner_id: str
    created_at: Seconds
    updated_at: Seconds


class SendModule(Message, frozen=True):
    """The package was pushed before. The same content again is the same module; other content
    under a taken name and version is refused."""

    spec: ModuleSpec


class GetModule(Message, frozen=True):
    """`module` is an id, a unique prefix of one or of a package's digest, or a name; of a name
    as ResolveModule says."""

    module: str
    version: str | None = None


class ResolveModule(Message, frozen=True):
    """What a swarm means by a name: the highest version that `version` (one, or a range) allows,
    else the last that was sent; one's own before those of others. It is about to be used."""

    name: str
    version: str | None = None


class ListModules(Message, frozen=True):
    after: str = ""


class Modules(Message, frozen=True):
    modules: tuple[ModuleInfo, ...]
    more: bool = False
    revision: str = ""


class WatchModules(Message, frozen=True):
    since: str = ""
    wait: Wait = 0.0


class UpdateModule(Message, frozen=True):
    """Other content under the same id and name; refused for a module with a version."""

    module: str
    spec: ModuleSpec


class RemoveModule(Message, frozen=True):
    """Swarms that were sent with it keep what they need. A name must fit one module."""

    module: str
    version: str | None = None


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
        RemoveModule: Ok,
    }
)
