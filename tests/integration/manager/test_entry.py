"""Who comes in, how, and what is said to who does not."""

from __future__ import annotations

import base64
import secrets
import time
from collections import Counter

import pytest

from manta.actors import Refused
from manta.manager.auth.tokens import TokenAuthority, new_seed
from manta.manager.bootstrap import ADMIN
from manta.manager.service import Manager, Settings
from manta.protocol.clusters import (
    ClusterInfo,
    CreateCluster,
    CreateNodeToken,
    ListClusters,
    ListNodes,
    RemoveNode,
)
from manta.protocol.codes import Code
from manta.protocol.enrolment import Enroll, Enrolled
from manta.protocol.node import Capabilities, Goodbye, Heartbeat, Load, Register
from manta.protocol.quotas import GetQuotas, SetQuota
from manta.protocol.sign_in import Bind, CreateUserToken, Logout, SignIn, WhoAmI
from manta.protocol.tokens import NODE_AUDIENCE, USER_AUDIENCE, decode_part, fingerprint, peek
from manta.protocol.user import GetManagerStatus
from manta.protocol.users import (
    AddUser,
    ChangePassword,
    DeleteUser,
    GrantRole,
    RevokeRole,
    RevokeTokens,
)
from manta.testing import wait_until
from manta.testing.actors import crash, wait_for_successor
from manta.testing.manager import Client
from manta.transports.security.keys import KeyPair

PASSWORD = "correct-horse"


@pytest.fixture
def fresh(tmp_path):
    """A manager at its very first start."""
    anywhere = "tcp://127.0.0.1:0"
    settings = Settings(tmp_path / "m", anywhere, anywhere, anywhere)
    with Manager(settings) as manager:
        yield manager


def test_the_first_user_signs_in_with_the_password_that_was_shown(fresh: Manager) -> None:
    file = fresh.file
    with Client(file.users, file.public_key) as client:
        assert client.refusal(WhoAmI()).code == Code.NOT_SIGNED_IN
        wrong = client.refusal(SignIn(ADMIN, "wrong"))
        unknown = client.refusal(SignIn("nobody@localhost", "wrong"))
        assert wrong.code == unknown.code == Code.BAD_CREDENTIALS
        assert wrong.sentence == unknown.sentence
        signed_in = client.ask(SignIn(ADMIN.upper(), fresh.first_password))
        claims = peek(signed_in.token)
        assert claims.manager_key == file.public_key
        assert claims.bound_to == client.keys.public
        assert (claims.audience, claims.subject) == (USER_AUDIENCE, signed_in.user_id)
        assert client.ask(WhoAmI()).email == ADMIN
        # From there on the key is enough, over another link too, and after a restart.
        with Client(file.users, file.public_key, keys=client.keys) as again:
            assert again.ask(WhoAmI()).user_id == signed_in.user_id
            crash(gateway := fresh.system.find("manager/gateway"))
            wait_for_successor(fresh.system, gateway)
            assert again.ask(WhoAmI()).user_id == signed_in.user_id
        # Away from its key the token is worth nothing.
        with Client(file.users, file.public_key) as thief:
            no = thief.refusal(Bind(signed_in.token))
            assert no.code == Code.TOKEN_KEY
            assert thief.refusal(WhoAmI()).code == Code.NOT_SIGNED_IN
            assert client.ask(Bind(signed_in.token)).user_id == signed_in.user_id


def test_failing_sign_ins_are_slowed_down(fresh: Manager) -> None:
    file = fresh.file
    with Client(file.users, file.public_key) as client:
        client.connection.wait_up(60.0)
        asked = [client.gateway.ask_future(SignIn(ADMIN, "wrong"), timeout=60) for _ in range(7)]
        codes = Counter(getattr(future.exception(60), "code", None) for future in asked)
        assert codes == {Code.BAD_CREDENTIALS: 5, Code.RATE_LIMITED: 2}
        # Nobody else is shut out by that.
        with Client(file.users, file.public_key) as other:
            assert other.ask(SignIn(ADMIN, fresh.first_password)).email == ADMIN


def test_a_token_enrols_as_often_as_it_says(bench, admin: Client, cluster: ClusterInfo) -> None:
    token = admin.ask(CreateNodeToken("lab", uses=2))
    claims = peek(token.token)
    assert (claims.audience, claims.subject) == (NODE_AUDIENCE, cluster.id)
    assert claims.issuer == fingerprint(bench.key)
    assert claims.expires_at - claims.issued_at <= 900
    first = bench.client(at=bench.nodes_at)
    enrolled = first.ask(Enroll(token.token, "new-1", "random"))
    assert isinstance(enrolled, Enrolled)
    assert (enrolled.cluster_id, enrolled.alias) == (cluster.id, "new-1")
    # Its answer was lost and it asks again: no further use.
    assert first.ask(Enroll(token.token, "new-1", "random")) == enrolled
    bench.client(at=bench.nodes_at).ask(Enroll(token.token, "new-2", "alias"))
    no = bench.client(at=bench.nodes_at).refusal(Enroll(token.token, "new-3", "random"))
    assert no.code == Code.TOKEN_USED
    assert "used up" in no.sentence
    aliases = {node.alias: node.id for node in admin.ask(ListNodes("lab")).nodes}
    assert {"new-1", "new-2"} < aliases.keys()
    assert aliases["new-2"] == "new-2"


def test_a_token_is_stored_as_a_hash_only(bench, admin: Client) -> None:
    token = admin.ask(CreateNodeToken("lab")).token
    claims = peek(token)
    stored = b"".join(path.read_bytes() for path in bench.home.glob("manta.db*"))
    assert claims.id.encode() not in stored
    assert token.rpartition(".")[2].encode() not in stored


def test_a_nodes_token_lives_a_day_at_most(admin: Client, cluster: ClusterInfo) -> None:
    before = time.time()
    day = admin.ask(CreateNodeToken("lab", ttl=86_400.0))
    assert abs(day.expires_at - before - 86_400) < 60
    no = admin.refusal(CreateNodeToken("lab", ttl=86_401.0))
    assert (no.code, no.sentence) == (
        Code.INVALID,
        "A node token lives 86400 s at most, not 86401; give a shorter ttl.",
    )


def test_the_tokens_that_somebody_made_are_bounded(admin: Client, cluster) -> None:
    admin.ask(SetQuota("tokens", 3, user="me@localhost"))
    admin.ask(CreateCluster("other"))
    side_by_side = [
        admin.gateway.ask_future(CreateNodeToken(name), timeout=10.0)
        for name in ("lab", "other") * 4
    ]
    errors = [future.exception(60.0) for future in side_by_side]
    assert errors.count(None) == 3
    refusal = admin.refusal(CreateNodeToken("lab"))
    assert refusal.code == Code.QUOTA
    assert "has 3 tokens that are valid and asks for 1 more" in refusal.sentence
    assert admin.refusal(CreateUserToken()).code == Code.QUOTA
    used = {one.name: one.used for one in admin.ask(GetQuotas()).quotas}
    assert used["tokens"] == 3


ADA = "ada@lab"


@pytest.fixture
def operator(bench, admin: Client) -> Client:
    """Ada, who may enrol nodes in the cluster."""
    admin.ask(AddUser(ADA, PASSWORD))
    admin.ask(GrantRole(ADA, "lab", "operator"))
    client = bench.client()
    client.ask(SignIn(ADA, PASSWORD), 60.0)
    return client


def enrols(bench, token: str) -> Refused | None:
    """How the token is refused, if it is."""
    client = bench.client(at=bench.nodes_at)
    try:
        client.ask(Enroll(token, f"node-{secrets.token_hex(4)}", "random"))
    except Refused as refusal:
        return refusal
    return None


@pytest.mark.parametrize(
    ("by", "ended"),
    [
        (DeleteUser(ADA), True),
        (RevokeRole(ADA, "lab"), True),
        (GrantRole(ADA, "lab", "viewer"), True),
        (RevokeTokens(ADA), True),
        (ChangePassword(PASSWORD, PASSWORD * 2), True),
        (Logout(everywhere=True), True),
        (Logout(), False),
        (GrantRole(ADA, "lab", "owner"), False),
    ],
    ids=lambda one: type(one).__name__ if not isinstance(one, bool) else "",
)
def test_a_token_for_nodes_ends_with_what_its_maker_may(
    bench, admin: Client, operator: Client, by: object, ended: bool
) -> None:
    token = operator.ask(CreateNodeToken("lab", uses=100)).token
    other = admin.ask(CreateNodeToken("lab")).token
    assert enrols(bench, token) is None
    own = isinstance(by, ChangePassword | Logout)
    (operator if own else admin).ask(by, 60.0)
    for _ in range(2):
        refusal = enrols(bench, token)
        assert (refusal is not None) == ended
        if refusal is not None:
            assert refusal.code == Code.TOKEN_USED
            withdrawn = isinstance(by, RevokeRole | GrantRole)
            assert ("who made it may not enrol" in refusal.sentence) == withdrawn
        bench.restart()
    assert enrols(bench, other) is None


def test_one_key_enrols_one_node(bench, admin: Client, cluster) -> None:
    token = admin.ask(CreateNodeToken("lab", uses=100)).token
    client = bench.client(at=bench.nodes_at)
    client.connection.wait_up(60.0)
    aliases = [f"new-{number}" for number in range(8)]
    asked = [
        client.gateway.ask_future(Enroll(token, alias, "random"), timeout=10.0) for alias in aliases
    ]
    for future in asked:
        error = future.exception(60.0)
        assert error is None or error.code == Code.UNAVAILABLE
    enrolled = client.ask(Enroll(token, "another", "random"))
    nodes = [one for one in admin.ask(ListNodes("lab")).nodes if one.alias in (*aliases, "another")]
    assert [one.id for one in nodes] == [enrolled.node_id]


def test_a_key_that_signs_in_while_it_enrols_is_one_of_both(bench, admin: Client) -> None:
    token = admin.ask(CreateNodeToken("lab", uses=100)).token
    user = admin.ask(CreateUserToken()).token
    client = bench.client()
    client.connection.wait_up(60.0)
    asked = [
        client.gateway.ask_future(message, timeout=10.0)
        for message in (Enroll(token, "both", "random"), Bind(user))
    ]
    errors = [future.exception(60.0) for future in asked]
    assert errors.count(None) == 1
    [refused] = [error for error in errors if error is not None]
    assert refused.code == Code.FORBIDDEN


def test_who_was_refused_is_in_the_log_and_what_he_presented_is_not(
    bench, admin: Client, caplog: pytest.LogCaptureFixture
) -> None:
    token = admin.ask(CreateNodeToken("lab")).token
    guest = bench.client()
    guest.refusal(Bind(token))
    guest.refusal(SignIn("me@localhost", "a secret of mine"))
    lines = [record.getMessage() for record in caplog.records if "refused" in record.getMessage()]
    assert [line.partition(" was refused ")[2].partition(")")[0] for line in lines] == [
        f"({Code.TOKEN_AUDIENCE}",
        f"({Code.BAD_CREDENTIALS}",
    ]
    assert all(guest.keys.public[:8] in line for line in lines)
    assert "'me@localhost' from 127.0.0.1" in lines[1]
    for secret in (token, token.rpartition(".")[2], "a secret of mine"):
        assert secret not in caplog.text


def test_used_tokens_stay_used_after_a_crash(bench, admin: Client) -> None:
    token = admin.ask(CreateNodeToken("lab")).token
    bench.client(at=bench.nodes_at).ask(Enroll(token, "new-1", "random"))
    crash(gateway := bench.system.find("manager/gateway"))
    wait_for_successor(bench.system, gateway)
    no = bench.client(at=bench.nodes_at).refusal(Enroll(token, "new-2", "random"))
    assert no.code == Code.TOKEN_USED


def test_each_bad_token_is_told_apart(bench, admin: Client, cluster: ClusterInfo) -> None:
    good = admin.ask(CreateNodeToken("lab")).token
    authority = bench.manager.context.authority
    now = bench.manager.context.started_at
    stranger = TokenAuthority(new_seed(), KeyPair.generate().public)
    forger = TokenAuthority(new_seed(), bench.key)
    guest = bench.client(at=bench.nodes_at)

    def token(by: TokenAuthority, audience: str = NODE_AUDIENCE, **how) -> str:
        how = {"now": now, "ttl": 900.0, **how}
        return by.issue(audience, cluster.id, **how)[0]

    found = {
        case: guest.refusal(Enroll(bad, "new", "random"))
        for case, bad in {
            "missing": "",
            "garbage": "not.a.token",
            "expired": token(authority, now=now - 2000),
            "foreign": token(stranger),
            "forged": token(forger),
            "audience": token(authority, USER_AUDIENCE),
            "another key's": token(authority, bound_to=KeyPair.generate().public),
            "withdrawn": token(authority),
        }.items()
    }
    assert {case: no.code for case, no in found.items()} == {
        "missing": Code.TOKEN_MISSING,
        "garbage": Code.TOKEN_MALFORMED,
        "expired": Code.TOKEN_EXPIRED,
        "foreign": Code.TOKEN_FOREIGN,
        "forged": Code.TOKEN_FOREIGN,
        "audience": Code.TOKEN_AUDIENCE,
        "another key's": Code.TOKEN_KEY,
        "withdrawn": Code.TOKEN_USED,
    }
    assert len({no.sentence for no in found.values()}) == len(found)
    # None of this had an effect, and the good one still works.
    assert len(admin.ask(ListNodes("lab")).nodes) == len(bench.node_keys)
    guest.ask(Enroll(good, "new", "random"))
    user = bench.client()
    assert user.refusal(Bind(good)).code == Code.TOKEN_AUDIENCE


@pytest.mark.parametrize("where", ["header", "claims"])
def test_a_token_that_is_nested_deeply_is_refused_and_ends_nothing(
    bench, cluster: ClusterInfo, where: str
) -> None:
    """Anybody can make one up to its signature."""
    forger = TokenAuthority(new_seed(), bench.key)
    now = bench.manager.context.started_at
    parts = forger.issue(NODE_AUDIENCE, cluster.id, now=now, ttl=900.0)[0].split(".")
    at = ("header", "claims").index(where)
    deep = decode_part(parts[at]).rstrip(b"}") + b', "more": ' + b"[" * 2000
    parts[at] = base64.urlsafe_b64encode(deep).rstrip(b"=").decode()
    gateway = bench.system.find("manager/gateway")
    for asked in (Enroll(".".join(parts), "new", "random"), Bind(".".join(parts))):
        no = bench.client(at=bench.nodes_at).refusal(asked)
        assert no.code in (Code.TOKEN_MALFORMED, Code.TOKEN_FOREIGN)
    assert bench.system.find("manager/gateway") == gateway


@pytest.mark.parametrize("message", [Goodbye(), WhoAmI(), ListClusters(), GetManagerStatus()])
def test_a_guest_may_become_somebody_and_nothing_else(bench, message) -> None:
    for address in (bench.nodes_at, bench.users_at):
        guest = bench.client(at=address)
        if message.reply is None:
            guest._up.wait(60)
            guest.gateway.tell(message)
            message = Heartbeat(0, Load())
        assert guest.refusal(message).code == Code.NOT_SIGNED_IN


def test_nodes_and_users_do_not_do_each_others_business(bench, admin: Client) -> None:
    node = bench.client(bench.node_keys[0], at=bench.nodes_at)
    assert node.refusal(ListClusters()).code == Code.FORBIDDEN
    assert node.refusal(SignIn("me@localhost", "x")).code == Code.FORBIDDEN
    assert admin.refusal(Heartbeat(0, Load())).code == Code.FORBIDDEN


def test_a_name_is_what_the_key_says_not_what_the_message_says(bench, admin: Client) -> None:
    [one, two] = [bench.client(bench.node_keys[i], at=bench.nodes_at) for i in (0, 1)]
    assert one.ask(Register("node-1", Capabilities())).alias == "node-1"
    no = two.refusal(Register("node-1", Capabilities()))
    assert no.code == Code.ALIAS_TAKEN
    assert "'node-1'" in no.sentence


def test_two_nodes_with_one_alias_and_with_one_machine(bench, admin: Client) -> None:
    token = admin.ask(CreateNodeToken("lab", uses=5)).token
    guest = bench.client(at=bench.nodes_at)
    assert guest.refusal(Enroll(token, "node-1", "random")).code == Code.ALIAS_TAKEN
    guest.ask(Enroll(token, "new-1", "hardware", "machine"))
    other = bench.client(at=bench.nodes_at)
    no = other.refusal(Enroll(token, "new-2", "hardware", "machine"))
    assert no.code == Code.ALIAS_TAKEN
    assert "id = 'random'" in no.sentence
    for mode, hardware in (("hardware", ""), ("magic", "machine")):
        assert other.refusal(Enroll(token, "new-2", mode, hardware)).code == Code.INVALID
    other.ask(Enroll(token, "new-2", "random"))


def test_a_removed_node_is_cut_off_and_told_why(bench, admin: Client, nodes) -> None:
    [node] = nodes(1)
    admin.ask(RemoveNode("node-1"))
    assert "node-1" not in {info.alias for info in admin.ask(ListNodes("lab")).nodes}
    wait_until(lambda: node.refusals)
    assert node.refusals[0].code == Code.NODE_REMOVED
    assert "new token" in node.refusals[0].sentence
    # With a new token the same key comes back.
    token = admin.ask(CreateNodeToken("lab")).token
    again = bench.client(bench.node_keys[0], at=bench.nodes_at)
    again.ask(Enroll(token, "node-1", "random"))
    assert again.ask(Register("node-1", Capabilities())).alias == "node-1"
