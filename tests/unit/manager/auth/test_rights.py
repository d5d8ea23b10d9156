"""What each role may send, message by message: written out, so that no row changes unseen."""

from __future__ import annotations

import pytest

from manta.manager.auth.principals import Kind
from manta.manager.auth.rights import RIGHTS, Where
from manta.manager.auth.roles import BUILTIN

READS = {
    "GetCluster",
    "ListNodes",
    "WatchNodes",
    "GetNode",
    "GetSwarm",
    "ListSwarms",
    "WatchSwarms",
    "ExplainSwarm",
    "GetTasks",
    "ReadFeed",
    "SelectGlobal",
    "ListGlobalTags",
    "WaitSwarm",
    "GetModule",
    "ResolveModule",
    "ListModules",
    "WatchModules",
}
DEPLOYS = {
    "SendModule",
    "UpdateModule",
    "RemoveModule",
    "CheckSwarm",
    "SendSwarm",
    "StartSwarm",
    "StopSwarm",
    "PauseSwarm",
    "ResumeSwarm",
    "RemoveSwarm",
    "SetGlobal",
    "DeleteResults",
}
OPERATES = {"CreateNodeToken", "RequestNodeStop", "RemoveNode"}
OWNS = {"StartCluster", "StopCluster", "DeleteCluster", "GrantRole", "RevokeRole"}
ROLES = {
    "viewer": READS,
    "researcher": READS | DEPLOYS,
    "operator": READS | OPERATES,
    "owner": READS | DEPLOYS | OPERATES | OWNS,
}
ANYBODY = {
    "WhoAmI",
    "RotateToken",
    "Logout",
    "CreateCluster",
    "ListClusters",
    "WatchClusters",
    "FindMissingBlobs",
    "GetManagerStatus",
    "GetUser",
    "ChangePassword",
    "ListRoles",
    "SignIn",
    "Bind",
}
ADMINISTRATORS = {
    "GetTree",
    "RevokeTokens",
    "ListUsers",
    "AddUser",
    "DeleteUser",
    "CreateRoleDefinition",
    "DeleteRoleDefinition",
}


@pytest.mark.parametrize("role", ROLES)
def test_a_role_may_send_in_its_cluster_what_is_written_here(role: str) -> None:
    allowed = {m.__name__ for m, row in RIGHTS.items() if row.right in BUILTIN[role]}
    assert allowed == ROLES[role]


def test_there_are_no_other_roles_to_begin_with() -> None:
    assert set(BUILTIN) == set(ROLES)


def test_every_message_of_a_user_is_written_here_once() -> None:
    users = {m.__name__: row for m, row in RIGHTS.items() if Kind.USER in row.kinds}
    assert users.keys() == ANYBODY | ADMINISTRATORS | ROLES["owner"]
    for name, row in users.items():
        assert row.admin == (name in ADMINISTRATORS), name
        assert (row.right is None) == (name in ANYBODY | ADMINISTRATORS), name


def test_a_right_is_always_of_some_cluster_that_the_message_leads_to() -> None:
    for message, row in RIGHTS.items():
        if row.right is None:
            assert row.where is Where.NONE, message
        elif row.where is Where.ANY:  # modules belong to no cluster
            assert row.right.startswith("module."), message
        else:
            assert row.where.value in message.__struct_fields__, message


def test_no_message_is_of_nodes_and_of_users() -> None:
    for message, row in RIGHTS.items():
        assert not {Kind.NODE, Kind.USER} <= row.kinds, message
