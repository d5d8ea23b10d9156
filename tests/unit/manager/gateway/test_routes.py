"""Who may send what, message by message: written out, so that no row changes unseen."""

from __future__ import annotations

from collections import Counter
from typing import get_args

import pytest

from manta.actors.errors import Refused
from manta.manager.auth.principals import Kind, Principal
from manta.manager.auth.roles import BUILTIN
from manta.manager.gateway import routes
from manta.manager.gateway.routes import ROUTES, ROWS
from manta.protocol.codes import Code
from manta.protocol.enrolment import Enroll, ExamineToken, Inquire
from manta.protocol.node import FromNode, Goodbye, Message
from manta.protocol.sign_in import Bind, SignIn, WhoAmI
from manta.protocol.user import FromUser

RULES = {message: route.rule for message, route in ROUTES.items()}

FROM_NODE, FROM_USER = set(get_args(FromNode)), set(get_args(FromUser))
TO_BECOME_SOMEBODY = {Enroll, SignIn, Bind}
QUESTIONS = {Inquire, ExamineToken}
"""They change nothing."""


READS = {
    "GetCluster",
    "ListNodes",
    "WatchNodes",
    "GetNode",
    "GetNodeLinks",
    "GetSwarm",
    "GetSwarmQuotas",
    "ListSwarms",
    "WatchSwarms",
    "ExplainSwarm",
    "GetSpec",
    "GetTasks",
    "ReadStacks",
    "ReadFeed",
    "SelectGlobal",
    "ListGlobalTags",
    "WaitSwarm",
    "RecallResult",
    "GetModule",
    "ResolveModule",
    "ListModules",
    "WatchModules",
}
DEPLOYS = {
    "SendModule",
    "UpdateModule",
    "ShareModule",
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
    "CreateUserToken",
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
    "GetQuotas",
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
    "SetQuota",
}


@pytest.mark.parametrize("role", ROLES)
def test_a_role_may_send_in_its_cluster_what_is_written_here(role: str) -> None:
    allowed = {m.__name__ for m, row in RULES.items() if row.right in BUILTIN[role]}
    assert allowed == ROLES[role]


def test_there_are_no_other_roles_to_begin_with() -> None:
    assert set(BUILTIN) == set(ROLES)


def test_every_message_of_a_user_is_written_here_once() -> None:
    users = {m.__name__: row for m, row in RULES.items() if Kind.USER in row.kinds}
    assert users.keys() == ANYBODY | ADMINISTRATORS | ROLES["owner"]
    for name, row in users.items():
        assert row.admin == (name in ADMINISTRATORS), name
        assert (row.right is None) == (name in ANYBODY | ADMINISTRATORS), name


FIELDS = {
    routes.cluster: "cluster",
    routes.any_cluster: "cluster",
    routes.a_node: "node",
    routes.swarm: "swarm",
}
"""Of messages, by what they are about."""


def test_a_right_is_always_of_some_cluster_that_the_message_leads_to() -> None:
    for message, route in ROUTES.items():
        rule = route.rule
        if rule.anywhere:  # modules belong to no cluster
            assert rule.right is not None, message
            assert rule.right.startswith("module."), message
        elif rule.right is not None:
            assert FIELDS[route.target] in message.__struct_fields__, message
        elif Kind.NODE not in rule.kinds:
            assert route.target is routes.nothing or rule.admin, message


def test_no_message_is_of_nodes_and_of_users() -> None:
    for message, row in RULES.items():
        assert not {Kind.NODE, Kind.USER} <= row.kinds, message


def may(kind: Kind, message: type[Message]) -> bool:
    return kind in RULES[message].kinds


def test_every_message_has_exactly_one_row() -> None:
    assert Counter(row.message for row in ROWS) == Counter(FROM_NODE | FROM_USER)
    assert all(row.rule.kinds for row in ROWS)


def test_guests_may_become_somebody_and_nothing_else() -> None:
    assert {message for message in RULES if may(Kind.GUEST, message)} == (
        TO_BECOME_SOMEBODY | QUESTIONS
    )


def test_a_removed_node_may_enrol_and_nothing_else() -> None:
    assert {message for message in RULES if may(Kind.REMOVED, message)} == ({Enroll} | QUESTIONS)


def test_nodes_send_what_nodes_send_and_users_what_users_send() -> None:
    assert {message for message in RULES if may(Kind.NODE, message)} == FROM_NODE
    assert {message for message in RULES if may(Kind.USER, message)} == FROM_USER


@pytest.mark.parametrize(
    ("kind", "message", "code"),
    [
        (Kind.GUEST, Goodbye(), Code.NOT_SIGNED_IN),
        (Kind.GUEST, WhoAmI(), Code.NOT_SIGNED_IN),
        (Kind.REMOVED, Goodbye(), Code.NODE_REMOVED),
        (Kind.REMOVED, WhoAmI(), Code.NODE_REMOVED),
        (Kind.NODE, WhoAmI(), Code.FORBIDDEN),
        (Kind.NODE, SignIn("a", "b"), Code.FORBIDDEN),
        (Kind.USER, Goodbye(), Code.FORBIDDEN),
        (Kind.USER, Enroll("t", "a"), Code.FORBIDDEN),
    ],
)
def test_a_refusal_says_what_to_do(kind: Kind, message: Message, code: Code) -> None:
    with pytest.raises(Refused) as caught:
        RULES[type(message)].check_kind(Principal(kind, "k" * 40), type(message).__name__)
    assert caught.value.code == code
    assert caught.value.sentence.endswith(".")
